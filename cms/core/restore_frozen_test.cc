// What is frozen for a claim that nobody here works at: it is thawed, fenced, or its move finished.
#include "cms/core/restore_moves_driver_test.h"

namespace cms::core {
namespace {

using namespace restore_driver;

using RestoreFrozenTest = MovesDriver;

TEST_F(RestoreFrozenTest, WhoIsFrozenForAClaimThatHasEndedIsThawed) {
  tick();
  claim_record = cms::core::claim(stamp(kOther), first_record(), wire::ClaimReason::kRequest, true);
  const ClaimRecord release = cms::core::release(stamp(kOther), claim_record, true, "no target");
  claim = wire::ClaimRef{kLineage, claim_record.slot, claim_record.uid};
  source_says(FreezeState::kFrozen);
  tick();
  EXPECT_TRUE(none<ReadFrozen>());  // Left to who moves it, for a while.
  tick(kFrozenSettledAfter);
  EXPECT_EQ(only_effect<ReadFrozen>().lineage, kLineage);
  frozen_head_is(claim_record);  // Its mover lives.
  EXPECT_TRUE(effects.empty());
  source_says(FreezeState::kFrozen);
  tick(kFrozenSettledAfter);
  EXPECT_EQ(all<ReadFrozen>().size(), 1U);
  frozen_head_is(release);
  const auto thaws = commands<wire::Thaw>();
  ASSERT_EQ(thaws.size(), 1U);
  EXPECT_EQ(thaws[0].first, kLost);
  EXPECT_EQ(thaws[0].second.record.slot, release.slot);
}

TEST_F(RestoreFrozenTest, WhoIsFrozenAndGoesOnElsewhereIsFencedNotThawed) {
  tick();
  claim_record = cms::core::claim(stamp(kOther), first_record(), wire::ClaimReason::kRequest, true);
  claim = wire::ClaimRef{kLineage, claim_record.slot, claim_record.uid};
  const ClaimRecord act =
      cms::core::act(stamp(kOther), claim_record, kFirst, claim_blob_of(found_of(claim_record).name));
  const ClaimRecord done = cms::core::done(stamp(kOther), act, 3);
  source_says(FreezeState::kFrozen);
  tick(kFrozenSettledAfter);
  frozen_head_is(done);
  EXPECT_TRUE(commands<wire::Thaw>().empty());
  EXPECT_EQ(only_effect<OwnerChanged>().from.program, kProgram);
  EXPECT_EQ(only_effect<OwnerChanged>().to, done.owner);
  const auto receipts = commands<wire::Receipt>();  // Also if nothing else is known of it here.
  ASSERT_EQ(receipts.size(), 1U);
  EXPECT_EQ(receipts[0].first, kLost);
  EXPECT_EQ(receipts[0].second.level, wire::ReceiptLevel::kFenced);
  EXPECT_EQ(receipts[0].second.seq, kLast.seq);
  EXPECT_EQ(receipts[0].second.owner_epoch, done.owner.owner_epoch);
}

TEST_F(RestoreFrozenTest, AStaleCopyDoesNotKeepTheOwnerFrozenNorTheOtherWayRound) {
  tick();
  const ClaimRecord first = first_record();
  const ClaimRecord to_first = cms::core::claim(stamp(kOther), first, wire::ClaimReason::kRequest, true);
  const ClaimRecord act =
      cms::core::act(stamp(kOther), to_first, kFirst, claim_blob_of(found_of(to_first).name));
  const ClaimRecord done = cms::core::done(stamp(kOther), act, 3);
  const ClaimRecord next = cms::core::claim(stamp(kOther), done, wire::ClaimReason::kRequest, true);
  const ClaimRecord release = cms::core::release(stamp(kOther), next, true, "no target");
  wire::FreezeReport stale;
  stale.claim = wire::ClaimRef{kLineage, to_first.slot, to_first.uid};
  stale.program_id = 7;
  stale.state = FreezeState::kFrozen;
  stale.last = kLast;
  wire::FreezeReport owner = stale;
  owner.claim = wire::ClaimRef{kLineage, next.slot, next.uid};
  owner.program_id = 3;
  owner.last = Version{kFirst.incarnation, 2};
  RestoreEffects asked;
  for (int i = 0; i < 5 && asked.size() < 2; ++i) {
    call([&](auto& out) { core->on_freeze_report(now, kLost, stale, out); });
    call([&](auto& out) { core->on_freeze_report(now, kFirst, owner, out); });
    tick(seconds(1));
    for (const ReadFrozen& one : all<ReadFrozen>()) asked.emplace_back(one);
  }
  EXPECT_EQ(asked.size(), 2U);
  frozen_head_is(release);
  ASSERT_EQ(commands<wire::Thaw>().size(), 1U);
  EXPECT_EQ(commands<wire::Thaw>()[0].first, kFirst);
  ASSERT_EQ(commands<wire::Receipt>().size(), 1U);
  EXPECT_EQ(commands<wire::Receipt>()[0].first, kLost);
}

TEST_F(RestoreFrozenTest, WhoIsFrozenForTheClaimOfADeadMoverIsFreed) {
  tick();
  claim_record = cms::core::claim(stamp(kOther), first_record(), wire::ClaimReason::kRequest, true);
  claim = wire::ClaimRef{kLineage, claim_record.slot, claim_record.uid};
  other_renews = false;
  for (int i = 0; i < 20; ++i) tick(seconds(1));
  source_says(FreezeState::kFrozen);
  tick(kFrozenSettledAfter);
  frozen_head_is(claim_record);
  EXPECT_EQ(only_effect<ReadHead>().lineage, kLineage);
}

TEST_F(RestoreFrozenTest, WhoIsFrozenUnderTheActOfALivingMoverIsStartedByUs) {
  add_target(kFirst);
  tick();
  claim_record = cms::core::claim(stamp(kOther), first_record(), wire::ClaimReason::kRequest, true);
  claim = wire::ClaimRef{kLineage, claim_record.slot, claim_record.uid};
  const ClaimRecord act =
      cms::core::act(stamp(kOther), claim_record, kFirst, claim_blob_of(found_of(claim_record).name));
  source_says(FreezeState::kFrozen);
  tick(kFrozenSettledAfter);
  frozen_head_is(act);
  EXPECT_EQ(only_effect<ReadHead>().lineage, kLineage);
  head_is(act);
  EXPECT_TRUE(commands<wire::Go>().empty()) << "left to who wrote it, for a while";
  tick(kOthersActGrace);
  head_is(act);
  const auto gos = commands<wire::Go>();
  ASSERT_EQ(gos.size(), 1U);
  EXPECT_EQ(gos[0].first, kFirst);
  EXPECT_EQ(gos[0].second.act_uid, act.uid);
}

TEST_F(RestoreFrozenTest, AThawThatWasLostIsRepeatedFromTheLog) {
  add_target(kFirst);
  freezing();
  source_says(FreezeState::kRefused, Code::kIo, "no");
  const ClaimRecord release = appended();
  append_ended(AppendEnd::kWon);
  source_says(FreezeState::kFrozen);  // It had been frozen all the same, and has not heard us.
  tick();
  EXPECT_EQ(only_effect<ReadFrozen>().lineage, kLineage);
  frozen_head_is(release);
  EXPECT_EQ(commands<wire::Thaw>().size(), 1U);
}

TEST_F(RestoreFrozenTest, WhatIsNotReportedAnyMoreIsForgotten) {
  tick();
  claim = wire::ClaimRef{kLineage, 2, 9};
  source_says(FreezeState::kFrozen);
  source_says(FreezeState::kThawed);
  tick(kFrozenSettledAfter);
  EXPECT_TRUE(none<ReadFrozen>());
}

}  // namespace
}  // namespace cms::core
