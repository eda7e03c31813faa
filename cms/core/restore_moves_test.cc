// Planned moves: the source freezes, the target goes on from what it named, or the source goes on itself.
#include "cms/core/restore_moves_driver_test.h"

namespace cms::core {
namespace {

using namespace restore_driver;

using RestoreMovesTest = MovesDriver;

// ---- the whole way

TEST_F(RestoreMovesTest, TheTargetGoesOnFromWhatTheFrozenSourceNamed) {
  add_target(kFirst);
  freezing();
  const wire::Freeze freeze = to_source<wire::Freeze>().front();
  EXPECT_EQ(freeze.claim.slot, claim_record.slot);
  EXPECT_EQ(freeze.claim.uid, claim_record.uid);
  EXPECT_EQ(freeze.program_id, 7U);
  EXPECT_TRUE(commands<wire::Prepare>().empty());
  source_says(FreezeState::kFreezing);
  EXPECT_TRUE(effects.empty());
  source_says(FreezeState::kFrozen);
  EXPECT_EQ(only_effect<FindCheckpoint>().exact, kLast);
  is_found(make_error(Code::kNotFound, "not there yet"));
  EXPECT_TRUE(effects.empty());
  tick(kLastLookedForMin);
  EXPECT_EQ(only_effect<FindCheckpoint>().exact, kLast);
  is_found(found_of(claim_record, kLast.seq));
  const auto prepares = commands<wire::Prepare>();
  ASSERT_EQ(prepares.size(), 1U);
  EXPECT_EQ(prepares[0].first, kFirst);
  EXPECT_EQ(prepares[0].second.notification.seq, kLast.seq);
  reports(kFirst, RestoreState::kPrepared);
  const ClaimRecord act = appended();
  EXPECT_EQ(act.kind, ClaimKind::kAct);
  EXPECT_EQ(act.checkpoint->checkpoint.version, kLast);
  append_ended(AppendEnd::kWon);
  ASSERT_EQ(commands<wire::Go>().size(), 1U);
  reports(kFirst, RestoreState::kRunning, act.uid, 3);
  const ClaimRecord done = appended();
  EXPECT_EQ(done.kind, ClaimKind::kDone);
  append_ended(AppendEnd::kWon);
  EXPECT_EQ(stage(), Stage::kDone);
  EXPECT_EQ(only_effect<OwnerChanged>().from.program, kProgram);
  EXPECT_EQ(only_effect<OwnerChanged>().to.program, (ProgramKey{kFirst.ecu_mac, 3}));
  EXPECT_TRUE(to_source<wire::Thaw>().empty());  // That is fenced instead.
}

TEST_F(RestoreMovesTest, FreezeIsRepeatedUntilItIsAnswered) {
  add_target(kFirst);
  freezing();
  tick(milliseconds(100));
  EXPECT_TRUE(to_source<wire::Freeze>().empty());
  tick(kCommandRepeat);
  EXPECT_EQ(to_source<wire::Freeze>().size(), 1U);
}

TEST_F(RestoreMovesTest, GoesOnlyWhereItIsToldTo) {
  for (const SessionId& there : {kFirst, kSecond}) {
    make_core(config());
    candidates.resize(1);
    add_target(kFirst);
    add_target(kSecond);
    freezing(there.ecu_mac);
    EXPECT_EQ(core->restores().at(kLineage).target, there);
  }
}

// ---- what is refused before anything is frozen

TEST_F(RestoreMovesTest, WithoutATargetNothingIsFrozen) {
  move_claimed();
  is_found(found_of(claim_record));
  for (int i = 0; i < 40 && all<AppendRecord>().empty(); ++i) {
    EXPECT_TRUE(to_source<wire::Freeze>().empty());
    tick(milliseconds(100));
  }
  expect_released("no eligible target");
}

TEST_F(RestoreMovesTest, WhoCannotFreezeIsNotClaimedFrom) {
  add_target(kFirst);
  candidates.front().freezes = false;
  queued();
  tick();
  EXPECT_TRUE(none<AppendRecord>());
  EXPECT_EQ(stage(), Stage::kRefused);
  EXPECT_NE(core->restores().at(kLineage).why.find("cannot freeze"), std::string::npos);
}

TEST_F(RestoreMovesTest, WhatIsMovingIsNotMovedElsewhere) {
  add_target(kFirst);
  freezing();
  EXPECT_TRUE(move(first_record()).ok());  // Told again.
  EXPECT_TRUE(effects.empty());
  EXPECT_EQ(move(first_record(), kSecond.ecu_mac).code(), Code::kAlreadyExists);
}

TEST_F(RestoreMovesTest, WhatAnotherHasClaimedIsNotMoved) {
  add_target(kFirst);
  tick();
  const ClaimRecord head = first_record();
  const ClaimRecord others = cms::core::claim(stamp(kOther), head, wire::ClaimReason::kRequest, true);
  EXPECT_EQ(move(others).code(), Code::kAlreadyExists);
  EXPECT_TRUE(effects.empty());
}

// ---- the source goes on

TEST_F(RestoreMovesTest, ASourceThatRefusesGoesOn) {
  add_target(kFirst);
  freezing();
  source_says(FreezeState::kRefused, Code::kUnsupported, "it holds a device");
  expect_released("it holds a device");
}

TEST_F(RestoreMovesTest, ASourceThatDoesNotAnswerGoesOn) {
  add_target(kFirst);
  freezing();
  for (int i = 0; i < 60 && all<AppendRecord>().empty(); ++i) tick(milliseconds(100));
  expect_released("does not answer");
}

TEST_F(RestoreMovesTest, ASourceThatDoesNotGetItStoppedGoesOn) {
  add_target(kFirst);
  freezing();
  const Instant since = now;
  while (all<AppendRecord>().empty() && now - since < 2 * kSourceFreezesMax) {
    source_says(FreezeState::kFreezing);
    tick(milliseconds(500));
  }
  EXPECT_GE(now - since, kSourceFreezesMax);
  expect_released("does not get it stopped");
}

TEST_F(RestoreMovesTest, WithoutItsLastCheckpointTheSourceGoesOn) {
  add_target(kFirst);
  freezing();
  source_says(FreezeState::kFrozen, Code::kLimit, "its last checkpoint was dropped");
  expect_released("dropped");
}

TEST_F(RestoreMovesTest, ALastCheckpointThatNeverComesIsNotReplacedByAnOlderOne) {
  add_target(kFirst);
  freezing();
  source_says(FreezeState::kFrozen);
  const Instant since = now;
  while (all<AppendRecord>().empty() && now - since < 2 * kLastStoredMax) {
    is_found(make_error(Code::kNotFound, "not stored"));
    if (!all<AppendRecord>().empty()) break;
    EXPECT_TRUE(commands<wire::Prepare>().empty());
    if (!none<ReadHead>()) head_is(claim_record, claim_record.uid);
    source_says(FreezeState::kFrozen);
    tick(seconds(1));
  }
  EXPECT_GE(now - since, kLastStoredMax);
  expect_released("not stored");
}

// The session took a larger incarnation, and announced it again under that.
TEST_F(RestoreMovesTest, TheLastCheckpointMayGetAnotherVersionWhileItIsAwaited) {
  add_target(kFirst);
  freezing();
  source_says(FreezeState::kFrozen);
  is_found(make_error(Code::kNotFound, "not stored"));
  wire::FreezeReport again;
  again.claim = claim;
  again.program_id = 7;
  again.state = FreezeState::kFrozen;
  again.last = Version{kLast.incarnation + 65536, kLast.seq};
  call([&](auto& out) { core->on_freeze_report(now, kLost, again, out); });
  tick(kLastLookedForMax);
  EXPECT_EQ(only_effect<FindCheckpoint>().exact, again.last);
}

TEST_F(RestoreMovesTest, ALastCheckpointThatWasLostAfterAllIsNotWaitedFor) {
  add_target(kFirst);
  freezing();
  source_says(FreezeState::kFrozen);
  source_says(FreezeState::kFrozen, Code::kLimit, "its last checkpoint was dropped");
  EXPECT_TRUE(effects.empty());  // It is being looked for.
  is_found(make_error(Code::kNotFound, "not stored"));
  tick(kLastLookedForMin);
  expect_released("dropped");
}

TEST_F(RestoreMovesTest, ASourceThatGoesWithItsLastCheckpointIsNotWaitedFor) {
  add_target(kFirst);
  freezing();
  source_says(FreezeState::kFrozen);
  for (int i = 0; i < 100 && all<AppendRecord>().empty(); ++i) {
    is_found(make_error(Code::kNotFound, "not stored"));
    if (!none<ReadHead>()) head_is(claim_record, claim_record.uid);
    if (all<AppendRecord>().empty()) tick(kLastLookedForMax);
  }
  expect_released("has gone with its last checkpoint");
}

TEST_F(RestoreMovesTest, AStoreThatCannotReadTheLastCheckpointIsWaitedForButNotForEver) {
  add_target(kFirst);
  freezing();
  source_says(FreezeState::kFrozen);
  const Instant since = now;
  bool head_was_read = false;
  while (all<AppendRecord>().empty() && now - since < 2 * kLastStoredMax) {
    source_says(FreezeState::kFrozen);
    is_found(make_error(Code::kIo, "input/output error"));
    if (!none<ReadHead>()) {
      head_was_read = true;
      head_is(claim_record, claim_record.uid);
    }
    if (all<AppendRecord>().empty()) tick(seconds(1));
  }
  EXPECT_TRUE(head_was_read);
  EXPECT_GE(now - since, kLastStoredMax);
  expect_released("input/output");
}

TEST_F(RestoreMovesTest, ADamagedLastCheckpointIsNotWaitedFor) {
  add_target(kFirst);
  freezing();
  source_says(FreezeState::kFrozen);
  is_found(make_error(Code::kCorrupt, "what is stored of it is damaged"));
  expect_released("damaged");
}

TEST_F(RestoreMovesTest, WhileItWaitsForTheLastCheckpointItSeesWhenItsClaimWasTakenOver) {
  add_target(kFirst);
  freezing();
  source_says(FreezeState::kFrozen);
  for (int i = 0; i < 50 && none<ReadHead>(); ++i) {
    is_found(make_error(Code::kNotFound, "not stored"));
    if (none<ReadHead>()) tick(kLastLookedForMax);
  }
  EXPECT_EQ(only_effect<ReadHead>().lineage, kLineage);
  head_is(claim_record, claim_record.uid);
  EXPECT_EQ(only_effect<FindCheckpoint>().exact, kLast);  // It is still ours.
  is_found(make_error(Code::kUnavailable, "the NAS does not answer"));
  tick(kRestoreRetry);
  EXPECT_EQ(only_effect<FindCheckpoint>().exact, kLast);
  const ClaimRecord over = cms::core::claim(stamp(kOther), claim_record, wire::ClaimReason::kRequest, true);
  tick(kFrozenSettledAfter);
  is_found(make_error(Code::kNotFound, "not stored"));
  head_is(cms::core::release(stamp(kOther), over, true, "its mover has died"));
  EXPECT_EQ(stage(), Stage::kRefused);
}

TEST_F(RestoreMovesTest, TheNextTargetTakesTheSameAndWithoutOneTheSourceGoesOn) {
  add_target(kFirst);
  add_target(kSecond);
  move_preparing();
  reports(target, RestoreState::kRefused);
  EXPECT_EQ(commands<wire::Discard>().size(), 1U);
  const SessionId first = target;
  tick();
  EXPECT_TRUE(to_source<wire::Freeze>().empty());  // It is frozen.
  ASSERT_EQ(commands<wire::Prepare>().size(), 1U);
  target = commands<wire::Prepare>().front().first;
  EXPECT_NE(target.ecu_mac, first.ecu_mac);
  EXPECT_EQ(commands<wire::Prepare>().front().second.notification.seq, kLast.seq);
  reports(target, RestoreState::kRefused, 0, 0, Code::kTimeout);
  for (int i = 0; i < 40 && all<AppendRecord>().empty(); ++i) tick(milliseconds(100));
  expect_released("2 could not");
}

TEST_F(RestoreMovesTest, AnAbortAfterActThawsTheSourceAndIsNotClaimedAgain) {
  add_target(kFirst);
  add_target(kSecond);
  move_started();
  reports(target, RestoreState::kRefused, act_record.uid);
  const ClaimRecord abort = appended();
  EXPECT_EQ(abort.kind, ClaimKind::kAbort);
  append_ended(AppendEnd::kWon);
  expect_thaw(abort);
  tick(seconds(1));
  EXPECT_TRUE(none<AppendRecord>());
}

TEST_F(RestoreMovesTest, ATargetThatGoesBeforeItIsToldCostsOnlyItself) {
  add_target(kFirst);
  freezing();
  candidates.pop_back();  // The target's session.
  add_target(kSecond);
  tick();
  source_says(FreezeState::kFrozen);
  is_found(found_of(claim_record, kLast.seq));
  EXPECT_TRUE(commands<wire::Prepare>().empty());
  tick();
  ASSERT_EQ(commands<wire::Prepare>().size(), 1U);
  EXPECT_EQ(commands<wire::Prepare>().front().first, kSecond);
}

// ---- cancelled

TEST_F(RestoreMovesTest, CancelledBeforeItIsClaimedItLeavesNoRecord) {
  queued();
  EXPECT_TRUE(core->cancel_move(now, kProgram).ok());
  tick();
  EXPECT_TRUE(none<AppendRecord>());
  EXPECT_EQ(stage(), Stage::kRefused);
}

TEST_F(RestoreMovesTest, CancelledUpToActItIsReleased) {
  add_target(kFirst);
  freezing();
  EXPECT_TRUE(core->cancel_move(now, kProgram).ok());
  tick();
  expect_released("cancelled");
}

TEST_F(RestoreMovesTest, CancelledWhileATargetPreparesThatIsToldToDiscard) {
  add_target(kFirst);
  move_preparing();
  EXPECT_TRUE(core->cancel_move(now, kProgram).ok());
  tick();
  EXPECT_EQ(commands<wire::Discard>().size(), 1U);
  expect_released("cancelled");
}

TEST_F(RestoreMovesTest, CancelledWhileTheClaimIsAppendedItIsReleasedAtOnce) {
  add_target(kFirst);
  queued();
  tick();
  claim_record = appended();
  EXPECT_TRUE(core->cancel_move(now, kProgram).ok());
  append_ended(AppendEnd::kWon);
  EXPECT_TRUE(none<FindCheckpoint>());
  expect_released("cancelled");
}

TEST_F(RestoreMovesTest, AfterActItIsTooLateToCancel) {
  add_target(kFirst);
  move_preparing();
  reports(target, RestoreState::kPrepared);
  EXPECT_EQ(appended().kind, ClaimKind::kAct);
  EXPECT_EQ(core->cancel_move(now, kProgram).code(), Code::kUnavailable);
  append_ended(AppendEnd::kWon);
  EXPECT_EQ(core->cancel_move(now, kProgram).code(), Code::kUnavailable);
  for (int i = 0; i < 20 && none<ReadHead>(); ++i) tick(milliseconds(100));
  EXPECT_EQ(stage(), Stage::kReading);  // Now and then the head is looked at.
  EXPECT_EQ(core->cancel_move(now, kProgram).code(), Code::kUnavailable);
  EXPECT_EQ(core->cancel_move(now, ProgramKey{kLostMac, 8}).code(), Code::kNotFound);
}

// ---- losses, and movers that die

TEST_F(RestoreMovesTest, AnEcuThatIsLostWhileItsProgramMovesIsRestoredFrom) {
  add_target(kFirst);
  freezing();
  fail(kLostMac);
  scanned(kLostMac, std::vector<ClaimRecord>{claim_record});
  tick();
  const ClaimRecord release = appended();
  EXPECT_EQ(release.kind, ClaimKind::kRelease);
  append_ended(AppendEnd::kWon);
  EXPECT_TRUE(to_source<wire::Thaw>().empty());
  EXPECT_EQ(core->progress_of(kLostMac).refused, 0U);
  tick();
  const ClaimRecord again = appended();
  EXPECT_EQ(again.kind, ClaimKind::kClaim);
  EXPECT_EQ(again.reason, wire::ClaimReason::kVouched);
  append_ended(AppendEnd::kWon);
  EXPECT_FALSE(only_effect<FindCheckpoint>().exact);  // Whatever is the newest.
}

TEST_F(RestoreMovesTest, AnEcuThatIsLostWhileItsTargetIsToldToRunIsRestoredFromIfThatDoesNot) {
  add_target(kFirst);
  move_started();
  fail(kLostMac);
  scanned(kLostMac, std::vector<ClaimRecord>{act_record});
  tick();
  EXPECT_TRUE(none<AppendRecord>());  // It may run there.
  reports(target, RestoreState::kRefused, act_record.uid);
  EXPECT_EQ(appended().kind, ClaimKind::kAbort);
  append_ended(AppendEnd::kWon);
  tick();
  EXPECT_EQ(appended().kind, ClaimKind::kClaim);
  EXPECT_EQ(appended().reason, wire::ClaimReason::kVouched);
}

TEST_F(RestoreMovesTest, TheMoveOfADeadMoverIsOnlyEnded) {
  add_target(kFirst);
  tick();
  const ClaimRecord head = first_record();
  const ClaimRecord others = cms::core::claim(stamp(kOther), head, wire::ClaimReason::kRequest, true);
  other_renews = false;
  for (int i = 0; i < 20; ++i) tick(seconds(1));
  ASSERT_TRUE(members.is_stale(kOther, now));
  scanned(std::nullopt, std::vector<ClaimRecord>{others});
  head_is(others);
  tick();
  claim_record = appended();
  EXPECT_EQ(claim_record.kind, ClaimKind::kClaim);
  append_ended(AppendEnd::kWon);
  EXPECT_TRUE(none<FindCheckpoint>());
  expect_released("has died");
}

TEST_F(RestoreMovesTest, AClaimOfOursThatNobodyAskedForIsReleased) {
  add_target(kFirst);
  tick();
  claim_record = cms::core::claim(stamp(kMe), first_record(), wire::ClaimReason::kRequest, true);
  scanned(std::nullopt, std::vector<ClaimRecord>{claim_record});
  head_is(claim_record, claim_record.uid);
  expect_released("nobody asks");
}

}  // namespace
}  // namespace cms::core
