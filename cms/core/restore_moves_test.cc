// Planned moves: the source freezes, the target goes on from what it named, or the source goes on itself.
#include "cms/core/restore_driver_test.h"

namespace cms::core {
namespace {

using namespace restore_driver;
using wire::FreezeState;

constexpr Version kLast{65536, 12};  // Newer than what was found before it was frozen.
const ProgramKey kProgram{kLostMac, 7};

class RestoreMovesTest : public RestoreDriver {
 protected:
  RestoreMovesTest() { candidates.front().freezes = true; }

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

// ---- what is frozen for a claim that nobody here works at

TEST_F(RestoreMovesTest, WhoIsFrozenForAClaimThatHasEndedIsThawed) {
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

TEST_F(RestoreMovesTest, WhoIsFrozenAndGoesOnElsewhereIsFencedNotThawed) {
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

TEST_F(RestoreMovesTest, AStaleCopyDoesNotKeepTheOwnerFrozenNorTheOtherWayRound) {
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

TEST_F(RestoreMovesTest, WhoIsFrozenForTheClaimOfADeadMoverIsFreed) {
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

TEST_F(RestoreMovesTest, WhoIsFrozenUnderTheActOfALivingMoverIsStartedByUs) {
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

TEST_F(RestoreMovesTest, AThawThatWasLostIsRepeatedFromTheLog) {
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

TEST_F(RestoreMovesTest, WhatIsNotReportedAnyMoreIsForgotten) {
  tick();
  claim = wire::ClaimRef{kLineage, 2, 9};
  source_says(FreezeState::kFrozen);
  source_says(FreezeState::kThawed);
  tick(kFrozenSettledAfter);
  EXPECT_TRUE(none<ReadFrozen>());
}

}  // namespace
}  // namespace cms::core
