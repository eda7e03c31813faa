#pragma once
// EcuCoreLeaseTest runs the EcuCore of a guarded session, and grants it leases.
#include "broker/core/ecu_core_fixture_test.h"

#include "base/digest.h"

namespace cms::broker {

using wire::OnIsolation;

inline constexpr Duration kLease = seconds(5);

class EcuCoreLeaseTest : public EcuCoreTest {
 protected:
  void make_guarded(std::size_t cms_count = 1, bool only_restarts = false) {
    EcuCoreConfig config;
    config.ecu_mac = kMac;
    config.nonce = kNonce;
    config.guarded = true;
    config.boot_id = Id128{3, 4};
    config.enforcer = wire::Enforcer::kGuard;
    config.cms_count = cms_count;
    config.memory_budget_bytes = kBudget;
    config.target.emplace();
    config.only_restarts = only_restarts;
    config.freezes = true;
    core_ = std::make_unique<EcuCore>(config);
    call([&](Effects& effects) { core_->start(now_, effects); });
    nonce_ = control<wire::Hello>(0).at(0).nonce;
  }
  void answer(CmsIndex cms, Incarnation incarnation, Code code = Code::kOk) {
    wire::HelloAnswer answer;
    answer.nonce = nonce_;
    answer.incarnation = incarnation;
    answer.code = code;
    answer.cms_name = "a";
    answer.context = code == Code::kOk ? "" : "why";
    answer.lease_ms = 5000;
    say(cms, answer);
  }
  // Live at every CMS, with a lease counted from now.
  void make_leased_untold(std::size_t cms_count = 1, bool only_restarts = false) {
    make_guarded(cms_count, only_restarts);
    for (CmsIndex cms = 0; cms < cms_count; ++cms) answer(cms, kIncarnation);
    lease();
  }
  // And its RTCR has told that it ran nothing before.
  void make_leased(std::size_t cms_count = 1, bool only_restarts = false) {
    make_leased_untold(cms_count, only_restarts);
    const Effects kept = std::exchange(effects_, {});
    tell_programs();
    EXPECT_TRUE(effects_.empty());
    effects_ = kept;
  }
  // One heartbeat of `cms` and its answer.
  void lease(CmsIndex cms = 0) {
    call([&](Effects& effects) { core_->on_time(now_, effects); });
    const auto beats = control<wire::Heartbeat>(cms);
    ASSERT_EQ(beats.size(), 1U);
    say(cms, wire::HeartbeatAnswer{beats[0].number, 0, true});
  }
  // Up to the very end of a lease that was counted from now.
  void expire() { pass(kLease); }
  // The next session, which begins at once, is live and has a lease.
  void begin_next(Incarnation incarnation = 2 * kIncarnation) {
    const auto hellos = control<wire::Hello>(0);
    ASSERT_EQ(hellos.size(), 1U);
    nonce_ = hellos[0].nonce;
    answer(0, incarnation);
    lease();
    ASSERT_TRUE(changed().lives);
  }
  TestSource* publish_policy(OnIsolation on_isolation, ProgramId program_id = kProgram, Lineage lineage = {},
                             OwnerEpoch owner_epoch = 0) {
    wire::Notification notification;
    notification.program_id = program_id;
    notification.seq = core_->last_seq() + 1;
    notification.size_bytes = 10;
    notification.chunk_size_bytes = wire::kChunkSizeBytesMin;
    notification.lineage = lineage;
    notification.owner_epoch = owner_epoch;
    notification.policies.on_isolation = on_isolation;
    auto source = std::make_unique<TestSource>(std::string(10, 'x'), &alive_);
    TestSource* const raw = source.get();
    call([&](Effects& effects) { core_->publish(now_, notification, std::move(source), effects); });
    return raw;
  }
  static wire::ClaimRef at(std::uint64_t slot, ProgramId program_id = kProgram) {
    return wire::ClaimRef{lineage_of(ProgramKey{kMac, program_id}), slot, slot * 10};
  }
  void thaw(std::uint64_t slot, OnIsolation on_isolation = OnIsolation::kKeep) {
    say(0, wire::Thaw{at(slot), kProgram, on_isolation});
  }
  void stopped(ProgramId program_id = kProgram, const Status& status = ok_status()) {
    call([&](Effects& effects) { core_->on_stopped(now_, program_id, status, effects); });
  }
  void frozen(FreezeId id, Seq seq) {
    call([&](Effects& effects) { core_->on_frozen(id, seq, effects); });
  }
  std::vector<ProgramId> stops() const {
    std::vector<ProgramId> result;
    for (const StopProgram& stop : all<StopProgram>()) result.push_back(stop.program_id);
    return result;
  }
  std::vector<ProgramId> resumes() const {
    std::vector<ProgramId> result;
    for (const ResumeProgram& resume : all<ResumeProgram>()) result.push_back(resume.program_id);
    return result;
  }
  using Ids = std::vector<ProgramId>;
  LeaseChanged changed() const {
    const auto told = all<LeaseChanged>();
    EXPECT_EQ(told.size(), 1U);
    return told.empty() ? LeaseChanged{} : told.back();
  }
  // "7 running" of each, in order.
  std::vector<std::string> programs() {
    say(0, wire::AskPrograms{1, 0});
    std::vector<std::string> lines;
    const auto pages = control<wire::Programs>(0);
    EXPECT_EQ(pages.size(), 1U);
    if (pages.empty()) return lines;
    for (const auto& program : pages[0].programs)
      lines.push_back(std::to_string(program.program_id) + " " + std::string(to_string(program.state)));
    return lines;
  }
  void tell_programs() {
    call([&](Effects& effects) { core_->programs_told(effects); });
  }
  static wire::Prepare prepare(std::uint64_t slot = 2) {
    wire::Prepare prepare;
    prepare.claim = wire::ClaimRef{Lineage{1, 2}, slot, slot * 10};
    prepare.session = SessionId{EcuMac{0x020000000009}, 65536};
    prepare.notification.program_id = 5;
    prepare.notification.seq = 1;
    prepare.bulk_port = 7403;
    return prepare;
  }
  static wire::Go go(OnIsolation on_isolation = OnIsolation::kStop) {
    return wire::Go{prepare().claim, 3, 30, on_isolation};
  }
  RestoreId make_prepared(std::uint64_t slot = 2) {
    say(0, prepare(slot));
    const auto received = all<ReceiveBlob>();
    EXPECT_EQ(received.size(), 1U);
    if (received.empty()) return 0;
    wire::Chunk chunk;
    chunk.transfer_id = received[0].id;
    chunk.digest = digest_of(nullptr, 0);
    chunk.version = Version{65536, 1};
    chunk.chunk_size_bytes = wire::kChunkSizeBytes;
    chunk.last = true;
    chunk.blob_digest = blob_digest_of({chunk.digest});
    call([&](Effects& effects) { core_->on_restore_bulk(now_, BulkLink{0, 7403}, chunk, {}, effects); });
    call([&](Effects& effects) { core_->on_prepared(now_, received[0].id, ok_status(), effects); });
    return received[0].id;
  }
  void running(RestoreId id, ProgramId program_id) {
    call([&](Effects& effects) { core_->on_running(now_, id, program_id, effects); });
  }

  std::uint64_t nonce_ = 0;
};

}  // namespace cms::broker
