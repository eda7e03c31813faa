// What RestoreCore makes of the log: others' records, appends that do not simply succeed, and when it must not act.
#include "cms/core/restore_driver_test.h"

namespace cms::core {
namespace {

using namespace restore_driver;

class RestoreLogTest : public RestoreDriver {};

// ---- others

TEST_F(RestoreLogTest, TheClaimOfALivingOneIsWatched) {
  add_target(kFirst);
  const ClaimRecord theirs = core::claim(stamp(kOther), first_record(), wire::ClaimReason::kVouched, true);
  told_and_read(theirs);
  EXPECT_EQ(stage(), Stage::kWatching);
  for (int i = 0; i < 60; ++i) {
    tick(seconds(1));
    EXPECT_TRUE(none<AppendRecord>());
    EXPECT_EQ(all<ReadHead>().size(), 1U);
    head_is(theirs);
  }
}

TEST_F(RestoreLogTest, AClaimIsTakenOverWhenItsWriterIsStaleAndNoSooner) {
  add_target(kFirst);
  const ClaimRecord theirs = core::claim(stamp(kOther), first_record(), wire::ClaimReason::kVouched, true);
  told_and_read(theirs);
  tick(seconds(1));
  head_is(theirs);
  other_renews = false;
  for (int i = 0; i < 11; ++i) {
    tick(seconds(1));
    ASSERT_EQ(all<ReadHead>().size(), 1U);
    head_is(theirs);
    ASSERT_EQ(stage(), Stage::kWatching);
  }
  tick(seconds(1));
  head_is(theirs);
  EXPECT_EQ(stage(), Stage::kQueued);
  tick();
  const ClaimRecord ours = appended();
  EXPECT_TRUE(check_successor(&theirs, ours).ok());
  EXPECT_EQ(ours.attempts, 2U);
}

TEST_F(RestoreLogTest, AWriterThatCameBackWhileItsClaimWasQueuedKeepsIt) {
  add_target(kFirst);
  const ClaimRecord theirs = core::claim(stamp(kOther), first_record(), wire::ClaimReason::kVouched, true);
  told_and_read(theirs);
  other_renews = false;
  tick(seconds(15));
  head_is(theirs);
  ASSERT_EQ(stage(), Stage::kQueued);
  other_renews = true;
  tick();
  EXPECT_TRUE(none<AppendRecord>());
  EXPECT_EQ(stage(), Stage::kWatching);
}

TEST_F(RestoreLogTest, AnotherOnesActIsFinishedAfterAWhile) {
  add_target(kFirst);
  const ClaimRecord theirs = core::claim(stamp(kOther), first_record(), wire::ClaimReason::kVouched, true);
  const ClaimRecord acted = act(stamp(kOther), theirs, kFirst, claim_blob_of(found_of(theirs).name));
  tick();
  fail(kLostMac);
  scanned(kLostMac, std::vector<ClaimRecord>{acted});
  head_is(acted, theirs.uid);
  EXPECT_TRUE(commands<wire::Go>().empty());
  tick(kOthersActGrace);
  head_is(acted, theirs.uid);
  ASSERT_EQ(commands<wire::Go>().size(), 1U);
  EXPECT_EQ(commands<wire::Go>().front().second.claim.uid, theirs.uid);
  claim = commands<wire::Go>().front().second.claim;
  reports(kFirst, RestoreState::kRunning, acted.uid, 100);
  EXPECT_EQ(appended().kind, ClaimKind::kDone);
}

TEST_F(RestoreLogTest, AnOpenClaimOfTheDeadIsFoundWithoutATellingOfIt) {
  add_target(kFirst);
  const ClaimRecord theirs = core::claim(stamp(kOther), first_record(), wire::ClaimReason::kVouched, true);
  tick();
  scanned(std::nullopt, std::vector<ClaimRecord>{theirs});
  EXPECT_TRUE(core->restores().empty());  // It lives.
  other_renews = false;
  bool looked = false;
  for (int i = 0; i < 14 && !looked; ++i) {
    tick(seconds(1));
    looked = !none<ScanLogs>();
  }
  ASSERT_TRUE(looked);
  scanned(std::nullopt, std::vector<ClaimRecord>{theirs});
  EXPECT_EQ(all<ReadHead>().size(), 1U);
}

// Who wrote it lives, but may be cut from the target.
TEST_F(RestoreLogTest, AnActThatStandsFromOneScanToTheNextIsFinishedAlsoForOneThatLives) {
  add_target(kFirst);
  const ClaimRecord genesis = first_record();
  const auto act_after = [](const ClaimRecord& head) {
    const ClaimRecord claimed = core::claim(stamp(kOther), head, wire::ClaimReason::kVouched, true);
    return act(stamp(kOther), claimed, kFirst, claim_blob_of(found_of(claimed).name));
  };
  const ClaimRecord first = act_after(genesis);
  const ClaimRecord second =
      act_after(abort(stamp(kOther), first, wire::AbortProof::kRefused, "the target refused"));
  const auto next_scan = [this](const ClaimRecord& head) {
    tick(kLogScanInterval);
    ASSERT_EQ(all<ScanLogs>().size(), 1U);
    scanned(std::nullopt, std::vector<ClaimRecord>{head});
  };
  next_scan(first);
  EXPECT_TRUE(none<ReadHead>()) << "it is seen for the first time";
  next_scan(second);
  EXPECT_TRUE(none<ReadHead>()) << "it is another one, of which the same is true";
  next_scan(second);
  ASSERT_EQ(all<ReadHead>().size(), 1U);
  head_is(second, second.uid - 1);
  tick(kOthersActGrace);
  head_is(second, second.uid - 1);
  ASSERT_EQ(commands<wire::Go>().size(), 1U);
  EXPECT_EQ(commands<wire::Go>().front().second.act_uid, second.uid);
}

// ---- appends that do not simply succeed

TEST_F(RestoreLogTest, AnUnresolvedAppendIsSettledBeforeAnythingElse) {
  add_target(kFirst);
  told_and_read(first_record());
  tick();
  const ClaimRecord record = appended();
  append_ended(AppendEnd::kUnresolved, 9);
  tick(milliseconds(100));
  EXPECT_TRUE(none<SettleAppend>());
  tick(kRestoreRetry);
  EXPECT_EQ(only<SettleAppend>().attempt, 9U);
  EXPECT_TRUE(none<AppendRecord>());
  append_ended(AppendEnd::kUnresolved, 9);
  tick(kRestoreRetry);
  EXPECT_EQ(only<SettleAppend>().attempt, 9U);
  append_ended(AppendEnd::kWon);
  EXPECT_EQ(only<FindCheckpoint>().head.uid, record.uid);
}

TEST_F(RestoreLogTest, AnAppendThatLostReadsTheHeadAnew) {
  add_target(kFirst);
  const ClaimRecord head = first_record();
  told_and_read(head);
  tick();
  append_ended(AppendEnd::kLost);
  EXPECT_EQ(all<ReadHead>().size(), 1U);
  head_is(core::claim(stamp(kOther), head, wire::ClaimReason::kVouched, true));
  EXPECT_EQ(stage(), Stage::kWatching);
}

// A target answers for the claim. What it has prepared once must be what every ACT of that claim names.
TEST_F(RestoreLogTest, WhatWasFoundForAClaimStaysWhenItsActCouldNotBeAppended) {
  add_target(kFirst);
  preparing();
  reports(kFirst, RestoreState::kPrepared);
  const ClaimRecord first_act = appended();
  append_ended(make_error(Code::kUnavailable, "away"));
  tick(kRestoreRetry);
  ASSERT_EQ(all<ReadHead>().size(), 1U);
  head_is(claim_record);
  EXPECT_TRUE(none<FindCheckpoint>());
  tick();
  ASSERT_EQ(commands<wire::Prepare>().size(), 1U);
  reports(kFirst, RestoreState::kPrepared);
  EXPECT_EQ(appended().checkpoint, first_act.checkpoint);
}

// ---- when it must not act

TEST_F(RestoreLogTest, WhoMayNotActClaimsNothing) {
  add_target(kFirst);
  told_and_read(first_record());
  renewing = false;
  tick(seconds(3));
  EXPECT_TRUE(none<AppendRecord>());
  renewing = true;
  tick();
  EXPECT_EQ(appended().kind, ClaimKind::kClaim);
}

TEST_F(RestoreLogTest, WhoMayNotActAppendsNoAct) {
  add_target(kFirst);
  preparing();
  renewing = false;
  tick(milliseconds(2990));
  now += milliseconds(100);
  reports(kFirst, RestoreState::kPrepared);
  EXPECT_TRUE(none<AppendRecord>());
  renewing = true;
  tick(kRestoreRetry);
  EXPECT_EQ(appended().kind, ClaimKind::kAct);
}

TEST_F(RestoreLogTest, WhoMayNotActFinishesWhatIsBegun) {
  add_target(kFirst);
  started();
  renewing = false;
  tick(seconds(5));
  if (!none<ReadHead>()) head_is(act_record, claim.uid);
  reports(kFirst, RestoreState::kRunning, act_record.uid, 100);
  EXPECT_EQ(appended().kind, ClaimKind::kDone);
}

}  // namespace
}  // namespace cms::core
