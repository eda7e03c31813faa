// The way of a program from its loss to a target that runs it, and targets that do not.
#include <functional>

#include "cms/core/restore_driver_test.h"

namespace cms::core {
namespace {

using namespace restore_driver;

class RestoreTest : public RestoreDriver {};

// ---- the whole way

TEST_F(RestoreTest, CarriesAProgramOnFromItsLossToDone) {
  add_target(kFirst);
  const ClaimRecord head = first_record();
  tick();
  EXPECT_TRUE(only<ScanLogs>().ecu_macs.empty());  // For open claims of the dead.
  fail(kLostMac);
  EXPECT_EQ(only<ScanLogs>().ecu_macs, std::set<EcuMac>{kLostMac});
  scanned(kLostMac, std::vector<ClaimRecord>{head});
  EXPECT_EQ(only<ReadHead>().lineage, kLineage);
  head_is(head);
  EXPECT_EQ(stage(), Stage::kQueued);
  tick();
  const ClaimRecord claimed = appended();
  EXPECT_TRUE(check_successor(&head, claimed).ok());
  EXPECT_EQ(claimed.reason, wire::ClaimReason::kVouched);
  EXPECT_EQ(claimed.writer, kMe.name);
  append_ended(AppendEnd::kWon);
  EXPECT_EQ(only<FindCheckpoint>().head.uid, claimed.uid);
  EXPECT_EQ(only<FindCheckpoint>().skip, 0U);
  const RestoreCore::Found found = found_of(head);
  is_found(found);
  EXPECT_EQ(all<AskTargets>().size(), 1U);
  tick();
  const auto prepares = commands<wire::Prepare>();
  ASSERT_EQ(prepares.size(), 1U);
  EXPECT_EQ(prepares[0].first, kFirst);  // Not the lost one, although it is listed.
  EXPECT_EQ(prepares[0].second.claim.uid, claimed.uid);
  EXPECT_EQ(prepares[0].second.claim.slot, claimed.slot);
  EXPECT_EQ(prepares[0].second.bulk_port, 7403);
  EXPECT_EQ(prepares[0].second.notification.seq, 10U);
  claim = prepares[0].second.claim;
  reports(kFirst, RestoreState::kPulling);
  EXPECT_TRUE(effects.empty());
  reports(kFirst, RestoreState::kPrepared);
  const ClaimRecord act = appended();
  EXPECT_TRUE(check_successor(&claimed, act).ok());
  EXPECT_EQ(act.target, kFirst);
  EXPECT_EQ(act.checkpoint, claim_blob_of(found.name));
  EXPECT_TRUE(commands<wire::Go>().empty());  // Not before the slot is won.
  append_ended(AppendEnd::kWon);
  const auto goes = commands<wire::Go>();
  ASSERT_EQ(goes.size(), 1U);
  EXPECT_EQ(goes[0].first, kFirst);
  EXPECT_EQ(goes[0].second.act_uid, act.uid);
  EXPECT_EQ(goes[0].second.act_slot, act.slot);
  reports(kFirst, RestoreState::kRunning, act.uid, 100);
  const ClaimRecord done = appended();
  EXPECT_TRUE(check_successor(&act, done).ok());
  EXPECT_EQ(done.owner.program, (ProgramKey{kFirst.ecu_mac, 100}));
  append_ended(AppendEnd::kWon);
  EXPECT_EQ(stage(), Stage::kDone);
  EXPECT_EQ(only<OwnerChanged>().to, done.owner);
  EXPECT_EQ(core->progress_of(kLostMac).done, 1U);
}

TEST_F(RestoreTest, RepeatsItsCommandsUntilTheyAreAnswered) {
  add_target(kFirst);
  preparing();
  tick(milliseconds(100));
  EXPECT_TRUE(commands<wire::Prepare>().empty());
  tick(milliseconds(300));
  EXPECT_EQ(commands<wire::Prepare>().size(), 1U);
  reports(kFirst, RestoreState::kPrepared);
  act_record = appended();
  append_ended(AppendEnd::kWon);
  tick(milliseconds(300));
  EXPECT_EQ(commands<wire::Go>().size(), 1U);
}

TEST_F(RestoreTest, TellingALossAgainChangesNothing) {
  add_target(kFirst);
  preparing();
  fail(kLostMac);
  scanned(kLostMac, std::vector<ClaimRecord>{claim_record});
  EXPECT_TRUE(none<ReadHead>());
  EXPECT_TRUE(none<AppendRecord>());
  EXPECT_EQ(stage(), Stage::kPreparing);
  EXPECT_EQ(core->progress_of(kLostMac).total, 1U);
}

// The logs may be looked at long after the telling, when the store was away.
TEST_F(RestoreTest, ASessionThatBeganAfterTheTellingIsNotMeant) {
  add_target(kFirst);
  const SessionId next{kLostMac, kLost.incarnation + 1};
  const ClaimRecord claimed = core::claim(stamp(kOther), first_record(), wire::ClaimReason::kVouched, true);
  const ClaimRecord to_next = act(stamp(kOther), claimed, next, claim_blob_of(found_of(claimed).name));
  const ClaimRecord owned_by_next = done(stamp(kOther), to_next, 100);
  for (const ClaimRecord& head : {to_next, owned_by_next}) {
    make_core(config());
    candidates.front() = candidate(kLost);
    tick();
    fail(kLostMac);
    candidates.front() = candidate(next);
    tick();
    scanned(kLostMac, std::vector<ClaimRecord>{head});
    EXPECT_TRUE(none<ReadHead>());
    fail(kLostMac);  // Now it is.
    scanned(kLostMac, std::vector<ClaimRecord>{head});
    EXPECT_EQ(all<ReadHead>().size(), 1U);
  }
}

TEST_F(RestoreTest, AScanThatFailedIsAskedForAgain) {
  tick();
  fail(kLostMac);
  scanned(kLostMac, make_error(Code::kUnavailable, "away"));
  EXPECT_FALSE(core->progress_of(kLostMac).scanned);
  tick(milliseconds(100));
  EXPECT_TRUE(none<ScanLogs>());
  tick(kRestoreRetry);
  EXPECT_EQ(only<ScanLogs>().ecu_macs, std::set<EcuMac>{kLostMac});
}

TEST_F(RestoreTest, AProgramThatHasMovedOnIsNotClaimed) {
  const ClaimRecord genesis = first_record();
  const ClaimRecord claimed = core::claim(stamp(kOther), genesis, wire::ClaimReason::kVouched, true);
  const ClaimRecord acted = act(stamp(kOther), claimed, kSecond, claim_blob_of(found_of(genesis).name));
  const ClaimRecord moved = done(stamp(kOther), acted, 100);
  add_target(kFirst);
  tick();
  fail(kLostMac);
  scanned(kLostMac, std::vector<ClaimRecord>{genesis});  // As it was seen a moment ago.
  head_is(moved);
  EXPECT_EQ(stage(), Stage::kDone);
  EXPECT_EQ(only<OwnerChanged>().to, moved.owner);
  tick();
  EXPECT_TRUE(none<AppendRecord>());
}

TEST_F(RestoreTest, AnEmptyLogIsRefused) {
  tick();
  fail(kLostMac);
  scanned(kLostMac, std::vector<ClaimRecord>{first_record()});
  call([&](auto& out) { core->on_head(now, kLineage, RestoreCore::Head{}, out); });
  EXPECT_EQ(stage(), Stage::kRefused);
}

TEST_F(RestoreTest, WithoutACheckpointTheClaimIsGivenBackAndRefused) {
  add_target(kFirst);
  claimed();
  is_found(make_error(Code::kNotFound, "nothing is stored"));
  EXPECT_EQ(appended().kind, ClaimKind::kRelease);
  append_ended(AppendEnd::kWon);
  EXPECT_EQ(stage(), Stage::kRefused);
}

// ---- targets that do not

TEST_F(RestoreTest, ARefusalBeforeActMeansAnotherTarget) {
  add_target(kFirst);
  add_target(kSecond);
  preparing();
  const SessionId refuses = target;
  reports(refuses, RestoreState::kRefused);
  EXPECT_TRUE(none<AppendRecord>());
  ASSERT_EQ(commands<wire::Discard>().size(), 1U);
  EXPECT_EQ(commands<wire::Discard>().front().first, refuses);
  EXPECT_EQ(commands<wire::Discard>().front().second.claim.uid, claim.uid);
  tick();
  ASSERT_EQ(commands<wire::Prepare>().size(), 1U);
  EXPECT_EQ(commands<wire::Prepare>().front().first, refuses == kFirst ? kSecond : kFirst);
  reports(refuses, RestoreState::kPrepared);  // Late, and of no use.
  EXPECT_TRUE(none<AppendRecord>());
}

TEST_F(RestoreTest, ASilentTargetIsLeft) {
  add_target(kFirst);
  preparing();
  tick(kTargetSilenceMax - milliseconds(1));
  EXPECT_TRUE(commands<wire::Discard>().empty());
  tick(milliseconds(400));
  EXPECT_EQ(commands<wire::Discard>().size(), 1U);
}

TEST_F(RestoreTest, ARefusalAfterActAbortsAndClaimsAgain) {
  add_target(kFirst);
  add_target(kSecond);
  started();
  const SessionId refuses = target;
  reports(refuses, RestoreState::kRefused, act_record.uid + 1);  // Of another ACT: no proof.
  EXPECT_TRUE(none<AppendRecord>());
  reports(refuses, RestoreState::kRefused, act_record.uid);
  const ClaimRecord aborted = appended();
  EXPECT_EQ(aborted.kind, ClaimKind::kAbort);
  EXPECT_EQ(aborted.proof, wire::AbortProof::kRefused);
  append_ended(AppendEnd::kWon);
  tick();
  const ClaimRecord again = appended();
  EXPECT_EQ(again.kind, ClaimKind::kClaim);
  EXPECT_EQ(again.slot, aborted.slot + 1);
  append_ended(AppendEnd::kWon);
  EXPECT_EQ(all<FindCheckpoint>().size(), 1U);
  is_found(found_of(again));
  tick();
  ASSERT_EQ(commands<wire::Prepare>().size(), 1U);
  EXPECT_NE(commands<wire::Prepare>().front().first, refuses);
}

TEST_F(RestoreTest, SilenceAfterActIsNoProof) {
  add_target(kFirst);
  started();
  for (int i = 0; i < 100; ++i) {
    tick(milliseconds(500));
    EXPECT_TRUE(none<AppendRecord>());
    if (!none<ReadHead>()) head_is(act_record, claim.uid);
  }
}

TEST_F(RestoreTest, ATargetThatIsToldLostUnderActIsAborted) {
  add_target(kFirst);
  started();
  fail(kFirst.ecu_mac);
  tick(kCommandRepeat);
  EXPECT_TRUE(commands<wire::Go>().empty());
  const ClaimRecord aborted = appended();
  EXPECT_EQ(aborted.kind, ClaimKind::kAbort);
  EXPECT_EQ(aborted.proof, wire::AbortProof::kVouched);
}

TEST_F(RestoreTest, WhatIsToldLostIsNoTarget) {
  add_target(kFirst);
  tick();
  fail(kFirst.ecu_mac);
  scanned(kFirst.ecu_mac, std::vector<ClaimRecord>{});
  claimed();
  is_found(found_of(claim_record));
  tick();
  EXPECT_TRUE(commands<wire::Prepare>().empty());
  // The next session of that ECU is another matter.
  candidates.back() = candidate(SessionId{kFirst.ecu_mac, kFirst.incarnation + 1});
  tick();
  EXPECT_EQ(commands<wire::Prepare>().size(), 1U);
}

TEST_F(RestoreTest, WithoutATargetTheClaimIsGivenBackAndTheLogDoesNotGrow) {
  claimed();
  is_found(found_of(claim_record));
  tick();
  EXPECT_TRUE(none<AppendRecord>());
  tick(kPlaceWaitMax);
  const ClaimRecord released = appended();
  EXPECT_EQ(released.kind, ClaimKind::kRelease);
  append_ended(AppendEnd::kWon);
  EXPECT_EQ(stage(), Stage::kNoTarget);
  const std::string why = core->restores().at(kLineage).why;
  int looks = 0;
  for (int i = 0; i < 600; ++i) {
    tick(seconds(1));
    EXPECT_TRUE(none<AppendRecord>());
    if (none<ReadHead>()) continue;
    ++looks;  // Whether it is still to be restored.
    if (looks == 1) {
      call([&](auto& out) { core->on_head(now, kLineage, make_error(Code::kTimeout, "no answer"), out); });
    } else {
      head_is(released);
    }
    EXPECT_EQ(stage(), Stage::kNoTarget);
    EXPECT_EQ(core->restores().at(kLineage).why, why);
  }
  EXPECT_GE(looks, 8);
  EXPECT_LE(looks, 10);
  add_target(kFirst);
  tick(kNoTargetRetry);
  EXPECT_EQ(all<ReadHead>().size(), 1U);
  head_is(released);
  tick();
  EXPECT_EQ(appended().kind, ClaimKind::kClaim);
}

// A full fleet must not use up attempts, and so lead to an older state; a target that failed must.
TEST_F(RestoreTest, AnAttemptCountsOnlyWhenATargetWasAsked) {
  claimed();
  EXPECT_EQ(claim_record.attempts, 1U);
  is_found(found_of(claim_record));
  tick();
  tick(kPlaceWaitMax);
  const ClaimRecord untried = appended();
  EXPECT_EQ(untried.kind, ClaimKind::kRelease);
  EXPECT_EQ(untried.attempts, 0U);
  append_ended(AppendEnd::kWon);
  add_target(kFirst);
  tick(kNoTargetRetry);
  head_is(untried);
  tick();
  const ClaimRecord again = appended();
  EXPECT_EQ(again.attempts, 1U);
  append_ended(AppendEnd::kWon);
  claim = wire::ClaimRef{again.lineage, again.slot, again.uid};
  is_found(found_of(again));
  tick();
  ASSERT_EQ(commands<wire::Prepare>().size(), 1U);
  reports(kFirst, RestoreState::kRefused);
  tick();
  tick(kPlaceWaitMax);
  const ClaimRecord tried = appended();
  EXPECT_EQ(tried.kind, ClaimKind::kRelease);
  EXPECT_EQ(tried.attempts, 1U);
  append_ended(AppendEnd::kWon);
  tick(kNoTargetRetry);
  head_is(tried);
  tick();
  EXPECT_EQ(appended().attempts, 2U);
  append_ended(AppendEnd::kWon);
  candidates.pop_back();
  is_found(found_of(tried));
  tick();
  tick(kPlaceWaitMax);
  EXPECT_EQ(appended().kind, ClaimKind::kRelease);
  EXPECT_EQ(appended().attempts, 1U) << "each claim counts for itself";
}

// The blob did not come: that may have been ours, and says nothing about the checkpoint or the target.
TEST_F(RestoreTest, WhatMayPassIsTriedAgainUnderNewClaimsBeforeThereIsSaidToBeNoTarget) {
  add_target(kFirst);
  preparing();
  for (int round = 1; round <= kTargetRoundsMax; ++round) {
    const bool is_last = round == kTargetRoundsMax;
    reports(kFirst, RestoreState::kRefused, 0, 0, Code::kTimeout);
    tick(is_last ? kPlaceWaitMax : kPlaceWaitMax / 3);
    const ClaimRecord released = appended();
    EXPECT_EQ(released.kind, ClaimKind::kRelease);
    EXPECT_EQ(released.attempts, is_last ? 1U : 0U);
    append_ended(AppendEnd::kWon);
    EXPECT_EQ(stage(), is_last ? Stage::kNoTarget : Stage::kWaiting);
    EXPECT_EQ(core->restores().at(kLineage).why,
              is_last ? "1 could not, the last: it refused" : "it refused");
    if (is_last) break;
    tick(kRestoreRetry);
    ASSERT_EQ(all<ReadHead>().size(), 1U);
    head_is(released);
    tick();
    const ClaimRecord again = appended();
    EXPECT_EQ(again.kind, ClaimKind::kClaim);
    append_ended(AppendEnd::kWon);
    claim = wire::ClaimRef{again.lineage, again.slot, again.uid};
    is_found(found_of(again));
    tick();
    ASSERT_EQ(commands<wire::Prepare>().size(), 1U) << "round " << round;
  }
}

TEST_F(RestoreTest, WhatAnEndingCmsdGivesBackIsNobodysFailure) {
  add_target(kFirst);
  preparing();
  core->drain();
  tick();
  EXPECT_EQ(commands<wire::Discard>().size(), 1U);
  EXPECT_EQ(appended().kind, ClaimKind::kRelease);
  EXPECT_EQ(appended().attempts, 0U);
  append_ended(AppendEnd::kWon);
  EXPECT_EQ(core->claim_count(), 0U);
  tick(kNoTargetRetry);
  EXPECT_TRUE(none<AppendRecord>());
}

// ---- targets that go when ACT is due, and after it

TEST_F(RestoreTest, ATargetThatHasGoneBeforeActCouldBeWrittenIsNotNamedInIt) {
  const std::vector<std::function<void()>> ways_to_go = {
      [this] { candidates.pop_back(); },  // Its session has ended.
      [this] { fail(kFirst.ecu_mac); },   // An operator says so.
  };
  for (const auto& goes : ways_to_go) {
    make_core(config());
    candidates = {candidate(kLost)};
    add_target(kFirst);
    preparing();
    renewing = false;
    tick(milliseconds(2990));
    now += milliseconds(100);
    reports(kFirst, RestoreState::kPrepared);
    ASSERT_EQ(stage(), Stage::kActing);
    ASSERT_TRUE(none<AppendRecord>()) << "it may not act just now";
    goes();
    add_target(kSecond);
    renewing = true;
    tick(kRestoreRetry);
    EXPECT_TRUE(none<AppendRecord>());
    ASSERT_EQ(commands<wire::Discard>().size(), 1U);
    EXPECT_EQ(commands<wire::Discard>().front().first, kFirst);
    ASSERT_EQ(commands<wire::Prepare>().size(), 1U);
    EXPECT_EQ(commands<wire::Prepare>().front().first, kSecond);
    reports(kSecond, RestoreState::kPrepared);
    EXPECT_EQ(appended().kind, ClaimKind::kAct);
    EXPECT_EQ(appended().target, kSecond);
  }
}

TEST_F(RestoreTest, ATargetThatRefusesBeforeActCouldBeWrittenIsNotNamedInIt) {
  add_target(kFirst);
  preparing();
  renewing = false;
  tick(milliseconds(2990));
  now += milliseconds(100);
  reports(kFirst, RestoreState::kPrepared);
  ASSERT_EQ(stage(), Stage::kActing);
  reports(kFirst, RestoreState::kRefused);
  EXPECT_EQ(commands<wire::Discard>().size(), 1U);
  add_target(kSecond);
  renewing = true;
  tick(kRestoreRetry);
  EXPECT_TRUE(none<AppendRecord>());
  ASSERT_EQ(commands<wire::Prepare>().size(), 1U);
  EXPECT_EQ(commands<wire::Prepare>().front().first, kSecond);
}

// A session that has ended here may live for another CMS, and its program may run.
TEST_F(RestoreTest, TheEndOfItsSessionUnderActIsNoProof) {
  add_target(kFirst);
  add_target(kSecond);
  started();
  const SessionId gone = target;
  candidates.erase(std::remove_if(candidates.begin(), candidates.end(),
                                  [&](const auto& one) { return one.session == gone; }),
                   candidates.end());
  for (int i = 0; i < 100; ++i) {
    // From the middle on its ECU is back, under another incarnation: that says nothing of this one.
    if (i == 50) add_target(SessionId{gone.ecu_mac, gone.incarnation + 1});
    tick(milliseconds(500));
    EXPECT_TRUE(none<AppendRecord>());
    EXPECT_TRUE(commands<wire::Prepare>().empty());
    const auto goes = commands<wire::Go>();
    ASSERT_EQ(goes.size(), 1U);
    EXPECT_EQ(goes.front().first, gone) << "it is asked again";
    if (!none<ReadHead>()) head_is(act_record, claim.uid);
  }
  reports(SessionId{gone.ecu_mac, gone.incarnation + 1}, RestoreState::kRefused, act_record.uid);
  EXPECT_TRUE(none<AppendRecord>()) << "that is another one's word";
  reports(gone, RestoreState::kRunning, act_record.uid, 100);
  EXPECT_EQ(appended().kind, ClaimKind::kDone);
  EXPECT_EQ(appended().owner.incarnation, gone.incarnation);
}

// ---- order and limits

TEST_F(RestoreTest, TheMostUrgentGoesFirstUnderTheByteBudget) {
  RestoreConfig small = config();
  small.budget_bytes = 1500;
  make_core(small);
  add_target(kFirst);
  add_target(kSecond);
  const std::vector<std::uint64_t> deadlines = {0, 5000, 1000};  // The first names none.
  std::vector<ClaimRecord> heads;
  for (std::uint64_t i = 0; i < deadlines.size(); ++i)
    heads.push_back(first_record(Lineage{1, i + 1}, 7 + i));
  tick();
  fail(kLostMac);
  scanned(kLostMac, heads);
  for (const ClaimRecord& head : heads) head_is(head);
  tick();
  EXPECT_EQ(all<AppendRecord>().size(), 3U);
  for (const ClaimRecord& head : heads) append_ended(AppendEnd::kWon, 0, head.lineage);
  for (std::size_t i = 0; i < heads.size(); ++i) {
    is_found(found_of(heads[i], 10, 1000, deadlines[i]), heads[i].lineage);
  }
  tick();
  const auto prepares = commands<wire::Prepare>();
  ASSERT_EQ(prepares.size(), 1U);  // Another one would be beyond the budget.
  EXPECT_EQ(prepares[0].second.claim.lineage, heads[2].lineage);
  claim = prepares[0].second.claim;
  reports(prepares[0].first, RestoreState::kPrepared);
  tick();
  ASSERT_EQ(commands<wire::Prepare>().size(), 1U);
  EXPECT_EQ(commands<wire::Prepare>().front().second.claim.lineage, heads[1].lineage);
}

TEST_F(RestoreTest, NoMoreClaimsAreOpenTogetherThanConfigured) {
  RestoreConfig small = config();
  small.together_max = 2;
  make_core(small);
  std::vector<ClaimRecord> heads;
  for (std::uint64_t i = 0; i < 3; ++i) heads.push_back(first_record(Lineage{1, i + 1}, 7 + i));
  tick();
  fail(kLostMac);
  scanned(kLostMac, heads);
  for (const ClaimRecord& head : heads) head_is(head);
  tick();
  EXPECT_EQ(all<AppendRecord>().size(), 2U);
  tick();
  EXPECT_TRUE(none<AppendRecord>());
}

TEST_F(RestoreTest, AfterManyClaimsInARowTheOlderCheckpointIsAskedFor) {
  add_target(kFirst);
  ClaimRecord head = first_record();
  head.attempts = kAttemptsBeforeOlder - 1;
  told_and_read(first_record());
  head_is(head, 0, false);  // Not asked: ignored.
  make_core(config());
  tick();
  fail(kLostMac);
  scanned(kLostMac, std::vector<ClaimRecord>{head});
  head_is(head, 0, false);
  tick();
  EXPECT_EQ(appended().attempts, kAttemptsBeforeOlder);
  append_ended(AppendEnd::kWon);
  EXPECT_EQ(only<FindCheckpoint>().skip, 0U);
  make_core(config());
  ++head.attempts;
  tick();
  fail(kLostMac);
  scanned(kLostMac, std::vector<ClaimRecord>{head});
  head_is(head, 0, false);
  tick();
  append_ended(AppendEnd::kWon);
  EXPECT_EQ(only<FindCheckpoint>().skip, 1U);
}

TEST_F(RestoreTest, ACheckpointOfItsOwnBeginsTheCountOfAttemptsAnew) {
  add_target(kFirst);
  ClaimRecord head = first_record();  // As after a restore: only a DONE is followed by a new count.
  head.kind = wire::ClaimKind::kDone;
  head.attempts = kAttemptsBeforeOlder;
  tick();
  fail(kLostMac);
  scanned(kLostMac, std::vector<ClaimRecord>{head});
  head_is(head, 0, true);
  tick();
  EXPECT_EQ(appended().attempts, 1U);
}

}  // namespace
}  // namespace cms::core
