// An RTCR asks for its own program: nobody else restores it meanwhile, and it goes nowhere else.
#include "cms/core/restore_driver_test.h"

namespace cms::core {
namespace {

using namespace restore_driver;
using wire::ClaimReason;
using wire::OnIsolation;
using wire::OnLoss;

constexpr SessionId kBack{kLostMac, kLost.incarnation + 65536};  // Of the ECU that has booted anew.

class RestoreRestartsTest : public RestoreDriver {
 protected:
  RestoreRestartsTest() {
    candidates.clear();
    add_target(kFirst);
    // It takes nothing of others, and tells no metrics.
    Candidate back = candidate(kBack);
    back.takes_restores = false;
    back.metrics.reset();
    candidates.push_back(back);
    tick();
  }
  Status restart(const ClaimRecord& head = first_record(), const SessionId& session = kBack) {
    Status status = ok_status();
    call([&](auto& out) { status = core->restart(now, head, session, out); });
    return status;
  }
  void claim_is_won() {
    tick();
    claim_record = appended();
    append_ended(AppendEnd::kWon);
    claim = wire::ClaimRef{claim_record.lineage, claim_record.slot, claim_record.uid};
  }
  void preparing(const ClaimRecord& head = first_record()) {
    EXPECT_TRUE(restart(head).ok());
    head_is(head);
    claim_is_won();
    is_found(found_of(claim_record));
    ASSERT_EQ(stage(), Stage::kPreparing);
  }
  void acting() {
    preparing();
    reports(kBack, RestoreState::kPrepared);
    act_record = appended();
    append_ended(AppendEnd::kWon);
  }
  void lose(const SessionId& session) {
    wire::EcuRecord record;
    record.kind = wire::EcuRecordKind::kLost;
    record.ecu_mac = session.ecu_mac;
    record.incarnation = record.lost_incarnation = session.incarnation;
    record.enforcer = wire::Enforcer::kGuard;
    call([&](auto& out) { core->lose_session(now, record, out); });
  }
  static ClaimRecord restores_itself() {
    return genesis(stamp(kOther), kLineage, kLost, 7, OnIsolation::kStop, OnLoss::kRestore);
  }
};

TEST_F(RestoreRestartsTest, ItIsClaimedAndGoesOnWhereItWasAskedFor) {
  preparing();
  EXPECT_EQ(claim_record.kind, ClaimKind::kClaim);
  EXPECT_EQ(claim_record.reason, ClaimReason::kReportedDead);
  const auto prepares = commands<wire::Prepare>();
  ASSERT_EQ(prepares.size(), 1U);
  EXPECT_EQ(prepares[0].first, kBack);
  EXPECT_EQ(prepares[0].second.restarts, std::optional<ProgramId>(7));
  reports(kBack, RestoreState::kPrepared);
  act_record = appended();
  EXPECT_EQ(act_record.kind, ClaimKind::kAct);
  EXPECT_EQ(act_record.target, kBack);
  append_ended(AppendEnd::kWon);
  reports(kBack, RestoreState::kRunning, act_record.uid, 7);
  EXPECT_EQ(appended().kind, ClaimKind::kDone);
  EXPECT_EQ(appended().owner.program, (ProgramKey{kLostMac, 7}));
  EXPECT_EQ(appended().owner.incarnation, kBack.incarnation);
}

TEST_F(RestoreRestartsTest, WhatIsPlacedByOthersIsNoRestart) {
  told_and_read(first_record());
  claim_is_won();
  is_found(found_of(claim_record));
  tick();
  ASSERT_EQ(commands<wire::Prepare>().size(), 1U);
  EXPECT_FALSE(commands<wire::Prepare>()[0].second.restarts.has_value());
}

TEST_F(RestoreRestartsTest, AskedAgainItIsTheSameAndAskedByOthersItIsRefused) {
  preparing();
  EXPECT_TRUE(restart().ok());
  EXPECT_TRUE(effects.empty());
  EXPECT_EQ(restart(first_record(), kFirst).code(), Code::kAlreadyExists);
  EXPECT_EQ(restart(claim_record).code(), Code::kOk);
}

TEST_F(RestoreRestartsTest, WhatIsBeingRestoredIsNotRestarted) {
  claimed();
  EXPECT_EQ(restart().code(), Code::kAlreadyExists);
  const ClaimRecord others = core::claim(stamp(kOther), first_record({9, 9}), ClaimReason::kVouched, true);
  EXPECT_EQ(restart(others).code(), Code::kAlreadyExists);
}

TEST_F(RestoreRestartsTest, ARefusalGivesItBackAndNobodyElseIsAsked) {
  preparing();
  reports(kBack, RestoreState::kRefused);
  EXPECT_EQ(appended().kind, ClaimKind::kRelease);
  EXPECT_EQ(appended().attempts, 0U) << "it says nothing about the checkpoint";
  append_ended(AppendEnd::kWon);
  EXPECT_EQ(stage(), Stage::kRefused);
  tick(std::chrono::minutes(2));
  EXPECT_TRUE(commands<wire::Prepare>().empty());
  EXPECT_TRUE(restart().ok()) << "it may be asked for again";
}

TEST_F(RestoreRestartsTest, ARefusalOfGoEndsIt) {
  acting();
  reports(kBack, RestoreState::kRefused, act_record.uid);
  EXPECT_EQ(appended().kind, ClaimKind::kAbort);
  append_ended(AppendEnd::kWon);
  EXPECT_EQ(stage(), Stage::kRefused);
}

TEST_F(RestoreRestartsTest, ASessionThatHasEndedMeanwhileIsNotAsked) {
  ASSERT_TRUE(restart().ok());
  head_is(first_record());
  claim_is_won();
  candidates.pop_back();
  tick();
  is_found(found_of(claim_record));
  EXPECT_EQ(appended().kind, ClaimKind::kRelease);
}

TEST_F(RestoreRestartsTest, ASilentSessionGivesItBack) {
  preparing();
  EXPECT_TRUE(none<AppendRecord>());
  for (int i = 0; i < 60 && none<AppendRecord>(); ++i) tick(seconds(1));
  EXPECT_EQ(appended().kind, ClaimKind::kRelease);
}

TEST_F(RestoreRestartsTest, ALossMeanwhileIsOneOfTheProgram) {
  preparing(restores_itself());
  candidates[0].enforced = true;
  lose(kBack);
  scanned(kLostMac, std::vector<ClaimRecord>{claim_record});
  tick();
  ASSERT_EQ(appended().kind, ClaimKind::kRelease);
  const ClaimRecord released = appended();
  append_ended(AppendEnd::kWon);
  tick();
  ASSERT_EQ(appended().kind, ClaimKind::kClaim);
  EXPECT_EQ(appended().reason, ClaimReason::kLost);
  claim_record = appended();
  append_ended(AppendEnd::kWon);
  is_found(found_of(claim_record));
  tick(kPlaceWaitMax / 2);
  ASSERT_EQ(commands<wire::Prepare>().size(), 1U);
  EXPECT_EQ(commands<wire::Prepare>()[0].first, kFirst);
}

// The restart may fail before its ECU is looked at again.
TEST_F(RestoreRestartsTest, WhileItIsRestartedItsEcuIsNotReconciled) {
  const ClaimRecord head = restores_itself();
  EXPECT_TRUE(restart(head).ok());
  wire::EcuRecord record;
  record.ecu_mac = kLostMac;
  record.incarnation = kBack.incarnation;
  record.enforcer = wire::Enforcer::kGuard;
  call([&](auto& out) { core->reconcile(now, kBack, record, out); });
  scanned(kLostMac, std::vector<ClaimRecord>{head});
  const auto& state = core->reconcilings().at(kLostMac);
  call([&](auto& out) { core->on_programs(now, kBack, wire::Programs{state.number, {}, 0, true}, out); });
  const ReadHeads asked{kLostMac, state.number, {}};
  call([&](auto& out) { core->on_heads(now, asked, std::vector<std::optional<ClaimRecord>>{}, out); });
  EXPECT_FALSE(state.is_settled());
}

TEST_F(RestoreRestartsTest, ARestartThatFailedIsNoReasonNotToRestoreItWhenItIsLost) {
  preparing(restores_itself());
  reports(kBack, RestoreState::kRefused);
  const ClaimRecord released = appended();
  append_ended(AppendEnd::kWon);
  lose(kBack);
  scanned(kLostMac, std::vector<ClaimRecord>{released});
  EXPECT_EQ(only<ReadHead>().lineage, kLineage);
}

TEST_F(RestoreRestartsTest, WhatWasRestartedWaitsForAnOperatorAgainWhenItsEcuIsLost) {
  acting();
  reports(kBack, RestoreState::kRunning, act_record.uid, 7);
  const ClaimRecord done = appended();
  append_ended(AppendEnd::kWon);
  ASSERT_EQ(stage(), Stage::kDone);
  tick();
  lose(kBack);
  scanned(kLostMac, std::vector<ClaimRecord>{done});
  EXPECT_EQ(core->waiting_count(kLostMac), 1U);
}

TEST_F(RestoreRestartsTest, WhatFailedBeforeIsTriedOnceMore) {
  ClaimRecord head = first_record();
  head.attempts = kAttemptsMax;
  EXPECT_TRUE(restart(head).ok());
  head_is(head);
  EXPECT_EQ(stage(), Stage::kQueued);
}

}  // namespace
}  // namespace cms::core
