// What stands frozen in the next session of an ECU whose former one was LOST: somebody may be restoring it.
#include "cms/core/restore_driver_test.h"

namespace cms::core {
namespace {

using namespace restore_driver;
using wire::FreezeState;
using wire::OnIsolation;
using wire::OnLoss;

constexpr SessionId kBack{kLostMac, kLost.incarnation + 65536};
constexpr Version kLast{65536, 12};

class RestoreMovesLostTest : public RestoreDriver {
 protected:
  RestoreMovesLostTest() {
    candidates.front().freezes = true;
    add_target(kFirst);
    candidates.back().enforced = true;
    tick();
  }
  static ClaimRecord owned(OnIsolation on_isolation = OnIsolation::kStop) {
    return genesis(stamp(kOther), kLineage, kLost, 7, on_isolation, OnLoss::kRestore);
  }
  // Its session was LOST, and it has another.
  void is_back() {
    wire::EcuRecord record;
    record.ecu_mac = kLostMac;
    record.incarnation = kBack.incarnation;
    record.enforcer = wire::Enforcer::kGuard;
    record.lost_incarnation = kLost.incarnation;
    candidates.front().session = kBack;
    call([&](auto& out) { core->reconcile(now, kBack, record, out); });
  }
  void says_frozen(const SessionId& from) {
    wire::FreezeReport report;
    report.claim = claim;
    report.program_id = 7;
    report.state = FreezeState::kFrozen;
    report.last = kLast;
    call([&](auto& out) { core->on_freeze_report(now, from, report, out); });
  }
  // It is frozen for a claim that nobody here works at, and that has ended.
  void looks_at_frozen(const ClaimRecord& head) {
    const ClaimRecord claimed = core::claim(stamp(kOther), head, wire::ClaimReason::kRequest, true);
    claim = wire::ClaimRef{claimed.lineage, claimed.slot, claimed.uid};
    says_frozen(kBack);
    tick(kFrozenSettledAfter);
    ASSERT_EQ(all<ReadFrozen>().size(), 1U);
    RestoreCore::Head read;
    read.record = core::release(stamp(kOther), claimed, false, "cancelled");
    call([&](auto& out) { core->on_frozen_head(now, kLineage, read, out); });
  }
  std::size_t thaw_count() const {
    std::size_t count = commands<wire::Thaw>().size();
    for (const SendToSource& sent : all<SendToSource>())
      count += std::holds_alternative<wire::Thaw>(sent.body) ? 1 : 0;
    return count;
  }
};

TEST_F(RestoreMovesLostTest, WhatTheLostSessionOwnedIsNotThawed) {
  is_back();
  looks_at_frozen(owned());
  EXPECT_EQ(thaw_count(), 0U);
}

TEST_F(RestoreMovesLostTest, WhatIsNotRestoredByItselfIs) {
  is_back();
  looks_at_frozen(owned(OnIsolation::kKeep));
  EXPECT_EQ(thaw_count(), 1U);
}

TEST_F(RestoreMovesLostTest, NorByTheEndOfAMoveOfOurs) {
  call([&](auto& out) { EXPECT_TRUE(core->move(now, owned(), std::nullopt, out).ok()); });
  head_is(owned());
  tick();
  claim_record = appended();
  append_ended(AppendEnd::kWon);
  claim = wire::ClaimRef{claim_record.lineage, claim_record.slot, claim_record.uid};
  is_found(found_of(claim_record));
  tick();
  ASSERT_EQ(stage(), Stage::kFreezing);
  says_frozen(kLost);
  is_back();
  EXPECT_TRUE(core->cancel_move(now, ProgramKey{kLostMac, 7}).ok());
  is_found(found_of(claim_record, kLast.seq));
  while (none<AppendRecord>()) tick();
  EXPECT_EQ(appended().kind, ClaimKind::kRelease);
  append_ended(AppendEnd::kWon);
  EXPECT_EQ(stage(), Stage::kRefused);
  EXPECT_EQ(thaw_count(), 0U);
}

}  // namespace
}  // namespace cms::core
