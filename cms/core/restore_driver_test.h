#pragma once
// RestoreCore, driven by hand: each effect is looked at, and answered by the test.
#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "cms/core/restore.h"

namespace cms::core::restore_driver {

using std::chrono::milliseconds;
using std::chrono::seconds;
using wire::ClaimKind;
using wire::ClaimRecord;
using wire::RestoreState;
using AppendEnd = RestoreCore::AppendEnd;
using Stage = RestoreCore::Stage;

inline const Writer kMe{"cms-a", 11};
inline const Writer kOther{"cms-b", 22};
inline constexpr EcuMac kLostMac{0x020000000001};
inline constexpr SessionId kLost{kLostMac, 65536};
inline constexpr SessionId kFirst{EcuMac{0x020000000002}, 131072};
inline constexpr SessionId kSecond{EcuMac{0x020000000003}, 196608};
inline constexpr Lineage kLineage{1, 1};

inline Stamp stamp(const Writer& writer) {
  static std::uint64_t uid = 1000;
  return Stamp{writer, ++uid, 1};
}

inline ClaimRecord first_record(const Lineage& lineage = kLineage, ProgramId program_id = 7) {
  return genesis(stamp(kOther), lineage, kLost, program_id, wire::OnIsolation::kKeep, wire::OnLoss::kAsk);
}

inline RestoreCore::Found found_of(const ClaimRecord& head, Seq seq = 10, std::uint64_t size_bytes = 1000,
                                   std::uint64_t deadline_us = 0) {
  RestoreCore::Found found;
  found.name.lineage = head.lineage;
  found.name.checkpoint = CheckpointId{head.owner.program, Version{head.owner.incarnation, seq}};
  found.name.owner_epoch = head.owner.owner_epoch;
  found.name.size_bytes = size_bytes;
  found.name.uid = 77 + seq;
  found.session = kLost;
  found.notification.program_id = head.owner.program.program_id;
  found.notification.seq = seq;
  found.notification.size_bytes = size_bytes;
  found.notification.real_time.deadline_us = deadline_us;
  return found;
}

class RestoreDriver : public ::testing::Test {
 protected:
  // ---- what the shell does
  template <typename Call>
  void call(const Call& call) {
    effects.clear();
    call(effects);
  }
  static Candidate candidate(const SessionId& session) {
    Candidate one;
    one.session = session;
    one.live = true;
    one.takes_restores = true;
    one.metrics = wire::Metrics{};
    one.metrics->cpu_count = 4;
    one.metrics->ram_total_bytes = 1 << 20;
    one.metrics->ram_available_bytes = 1 << 20;
    return one;
  }
  void add_target(const SessionId& session) { candidates.push_back(candidate(session)); }
  // Time passes; the members' records are renewed, and seen, as long as `renewing`.
  void tick(Duration time = milliseconds(20)) {
    for (Duration left = time; left > Duration{}; left -= seconds(1)) {
      now += std::min<Duration>(left, seconds(1));
      if (!renewing) continue;
      members.on_written(now);
      wire::MemberRecord record;
      record.counter = other_renews ? ++other_counter : other_counter;
      members.on_read(now, now, {Members::Seen{kOther.name, kOther.incarnation, record}});
    }
    std::vector<Present> present;
    for (const Candidate& one : candidates) present.push_back(Present{one.session, one.freezes});
    std::sort(present.begin(), present.end(),
              [](const Present& a, const Present& b) { return a.session < b.session; });
    call([&](auto& out) {
      core->on_time(now, 1, present, out);
      if (core->wants_targets(now)) core->on_targets(now, candidates, 0, out);
    });
  }
  void fail(EcuMac ecu_mac) {
    call([&](auto& out) { core->fail_ecu(now, ecu_mac, out); });
  }
  void scanned(std::optional<EcuMac> ecu_mac, const Result<std::vector<ClaimRecord>>& heads) {
    ScanLogs asked;
    if (ecu_mac) asked.ecu_macs.insert(*ecu_mac);
    call([&](auto& out) { core->on_logs_scanned(now, asked, heads, out); });
  }
  void head_is(const ClaimRecord& record, std::uint64_t claim_uid = 0, bool has_own = true) {
    RestoreCore::Head head;
    head.record = record;
    head.claim_uid = claim_uid;
    head.has_own_checkpoint = has_own;
    call([&](auto& out) { core->on_head(now, record.lineage, head, out); });
  }
  void append_ended(const Result<AppendEnd>& end, std::uint64_t attempt = 0,
                    const Lineage& lineage = kLineage) {
    call([&](auto& out) { core->on_appended(now, lineage, end, attempt, out); });
  }
  void is_found(const Result<RestoreCore::Found>& found, const Lineage& lineage = kLineage) {
    call([&](auto& out) { core->on_found(now, lineage, found, out); });
  }
  void reports(const SessionId& from, RestoreState state, std::uint64_t act_uid = 0, ProgramId program_id = 0,
               Code code = Code::kOk) {
    wire::RestoreReport report;
    report.code = code;
    report.claim = claim;
    report.act_uid = act_uid;
    report.state = state;
    report.program_id = program_id;
    call([&](auto& out) { core->on_report(now, from, report, out); });
  }

  // ---- what it wants done
  template <typename T>
  std::vector<T> all() const {
    std::vector<T> some;
    for (const RestoreEffect& effect : effects) {
      if (const T* one = std::get_if<T>(&effect)) some.push_back(*one);
    }
    return some;
  }
  template <typename T>
  T only() const {
    const std::vector<T> some = all<T>();
    EXPECT_EQ(some.size(), 1U);
    return some.empty() ? T{} : some.front();
  }
  template <typename T>
  bool none() const {
    return all<T>().empty();
  }
  // The commands of one kind, with whom they are for.
  template <typename T>
  std::vector<std::pair<SessionId, T>> commands() const {
    std::vector<std::pair<SessionId, T>> some;
    for (const SendToTarget& sent : all<SendToTarget>()) {
      if (const T* body = std::get_if<T>(&sent.body)) some.emplace_back(sent.target, *body);
    }
    return some;
  }
  ClaimRecord appended() const { return only<AppendRecord>().record; }
  Stage stage(const Lineage& lineage = kLineage) const { return core->restores().at(lineage).stage; }

  // ---- steps of a restore that the tests share
  void told_and_read(const ClaimRecord& head) {
    tick();
    fail(kLostMac);
    scanned(kLostMac, std::vector<ClaimRecord>{head});
    EXPECT_EQ(only<ReadHead>().lineage, head.lineage);
    head_is(head);
  }
  // CLAIM is won; the checkpoint is asked for.
  void claimed(const ClaimRecord& head = first_record()) {
    told_and_read(head);
    tick();
    claim_record = appended();
    EXPECT_EQ(claim_record.kind, ClaimKind::kClaim);
    append_ended(AppendEnd::kWon);
    claim = wire::ClaimRef{claim_record.lineage, claim_record.slot, claim_record.uid};
  }
  // The one target that there is has been told Prepare.
  void preparing(const ClaimRecord& head = first_record()) {
    claimed(head);
    is_found(found_of(claim_record));
    tick();
    ASSERT_EQ(commands<wire::Prepare>().size(), 1U);
    target = commands<wire::Prepare>().front().first;
  }
  // ACT is won, and Go sent.
  void started(const ClaimRecord& head = first_record()) {
    preparing(head);
    reports(target, RestoreState::kPrepared);
    act_record = appended();
    EXPECT_EQ(act_record.kind, ClaimKind::kAct);
    append_ended(AppendEnd::kWon);
    ASSERT_EQ(commands<wire::Go>().size(), 1U);
  }

  void make_core(const RestoreConfig& config) { core.emplace(config, members); }
  static RestoreConfig config() {
    RestoreConfig config;
    config.me = kMe;
    config.bulk_port = 7403;
    config.seed = 5;
    return config;
  }

  Instant now{std::chrono::hours(1)};
  Members members{kMe, MemberTimers{seconds(3), seconds(12)}};
  std::optional<RestoreCore> core{std::in_place, config(), members};
  std::vector<Candidate> candidates{candidate(kLost)};
  RestoreEffects effects;
  bool renewing = true;
  bool other_renews = true;
  std::uint64_t other_counter = 1;
  ClaimRecord claim_record;
  ClaimRecord act_record;
  wire::ClaimRef claim;
  SessionId target;
};

}  // namespace cms::core::restore_driver
