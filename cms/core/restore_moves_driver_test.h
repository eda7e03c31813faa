#pragma once
// RestoreCore, driven by hand through planned moves: one CMS, a program of an ECU that can freeze it, and targets.
#include <string>
#include <vector>

#include "cms/core/restore_driver_test.h"

namespace cms::core::restore_driver {

using wire::FreezeState;

inline constexpr Version kLast{65536, 12};  // Newer than what was found before it was frozen.
inline const ProgramKey kProgram{kLostMac, 7};

class MovesDriver : public RestoreDriver {
 protected:
  MovesDriver() { candidates.front().freezes = true; }

  Status move(const ClaimRecord& head, std::optional<EcuMac> only = std::nullopt) {
    Status status = ok_status();
    call([&](auto& out) { status = core->move(now, head, only, out); });
    return status;
  }
  template <typename T>
  std::vector<T> to_source() const {
    std::vector<T> some;
    for (const SendToSource& sent : all<SendToSource>()) {
      EXPECT_EQ(sent.program, kProgram);
      if (const T* body = std::get_if<T>(&sent.body)) some.push_back(*body);
    }
    return some;
  }
  void source_says(FreezeState state, Code code = Code::kOk, const std::string& context = {}) {
    wire::FreezeReport report;
    report.claim = claim;
    report.program_id = 7;
    report.state = state;
    report.last = state == FreezeState::kFrozen ? kLast : Version{};
    report.code = code;
    report.context = context;
    call([&](auto& out) { core->on_freeze_report(now, kLost, report, out); });
  }
  void frozen_head_is(const ClaimRecord& record) {
    RestoreCore::Head head;
    head.record = record;
    call([&](auto& out) { core->on_frozen_head(now, record.lineage, head, out); });
  }
  // ---- steps
  void queued(const ClaimRecord& head = first_record(), std::optional<EcuMac> only = std::nullopt) {
    tick();
    EXPECT_TRUE(move(head, only).ok());
    EXPECT_EQ(only_lineage_read(), head.lineage);
    head_is(head);
    EXPECT_EQ(stage(), Stage::kQueued);
  }
  Lineage only_lineage_read() const { return only_effect<ReadHead>().lineage; }
  template <typename T>
  T only_effect() const {
    return RestoreDriver::only<T>();
  }
  void move_claimed(std::optional<EcuMac> only = std::nullopt) {
    queued(first_record(), only);
    tick();
    claim_record = appended();
    EXPECT_EQ(claim_record.kind, ClaimKind::kClaim);
    EXPECT_EQ(claim_record.reason, wire::ClaimReason::kRequest);
    append_ended(AppendEnd::kWon);
    claim = wire::ClaimRef{claim_record.lineage, claim_record.slot, claim_record.uid};
  }
  void freezing(std::optional<EcuMac> only = std::nullopt) {
    move_claimed(only);
    EXPECT_FALSE(only_effect<FindCheckpoint>().exact);
    is_found(found_of(claim_record));
    tick();
    ASSERT_EQ(stage(), Stage::kFreezing);
    ASSERT_EQ(to_source<wire::Freeze>().size(), 1U);
  }
  void move_preparing() {
    freezing();
    source_says(FreezeState::kFrozen);
    EXPECT_EQ(only_effect<FindCheckpoint>().exact, kLast);
    is_found(found_of(claim_record, kLast.seq));
    ASSERT_EQ(commands<wire::Prepare>().size(), 1U);
    target = commands<wire::Prepare>().front().first;
  }
  void move_started() {
    move_preparing();
    reports(target, RestoreState::kPrepared);
    act_record = appended();
    append_ended(AppendEnd::kWon);
    ASSERT_EQ(commands<wire::Go>().size(), 1U);
  }
  // RELEASE or ABORT has been won; the source is told to go on by that record.
  void expect_thaw(const ClaimRecord& by) {
    const auto thaws = to_source<wire::Thaw>();
    ASSERT_EQ(thaws.size(), 1U);
    EXPECT_EQ(thaws[0].record.lineage, kLineage);
    EXPECT_EQ(thaws[0].record.slot, by.slot);
    EXPECT_EQ(thaws[0].record.uid, by.uid);
    EXPECT_EQ(thaws[0].program_id, 7U);
    EXPECT_EQ(stage(), Stage::kRefused);
  }
  void expect_released(const std::string& why) {
    const ClaimRecord release = appended();
    EXPECT_EQ(release.kind, ClaimKind::kRelease);
    EXPECT_EQ(release.attempts, claim_record.attempts - 1);  // It says nothing about the checkpoint.
    EXPECT_NE(release.text.find(why), std::string::npos) << release.text;
    EXPECT_TRUE(to_source<wire::Thaw>().empty());  // Not before it is in the log.
    append_ended(AppendEnd::kWon);
    expect_thaw(release);
  }
};

}  // namespace cms::core::restore_driver
