// Sessions that are LOST: what is restored by itself, what waits for an operator, and where nothing is placed for a while.
#include "cms/core/restore_driver_test.h"

namespace cms::core {
namespace {

using namespace restore_driver;
using wire::ClaimReason;
using wire::EcuRecord;
using wire::EcuRecordKind;
using wire::Enforcer;
using wire::OnIsolation;
using wire::OnLoss;

ClaimRecord owned(std::uint64_t number = 1, OnIsolation on_isolation = OnIsolation::kStop,
                  OnLoss on_loss = OnLoss::kRestore, const SessionId& owner = kLost) {
  return genesis(stamp(kOther), Lineage{1, number}, owner, number, on_isolation, on_loss);
}

EcuRecord lost_of(const SessionId& session, Enforcer enforcer = Enforcer::kGuard, Incarnation before = 0) {
  EcuRecord record;
  record.kind = EcuRecordKind::kLost;
  record.ecu_mac = session.ecu_mac;
  record.slot = 2;
  record.uid = 3;
  record.writer = kOther.name;
  record.writer_incarnation = kOther.incarnation;
  record.incarnation = session.incarnation;
  record.enforcer = enforcer;
  record.lost_incarnation = enforcer == Enforcer::kNone ? before : session.incarnation;
  return record;
}

// ACT of another: `head` is to go on at `target`.
ClaimRecord acting(const ClaimRecord& head, const SessionId& target,
                   ClaimReason reason = ClaimReason::kVouched, const Writer& writer = kOther) {
  const ClaimRecord claimed = core::claim(stamp(writer), head, reason, true);
  return core::act(stamp(writer), claimed, target, claim_blob_of(found_of(claimed).name));
}

class RestoreLossesTest : public RestoreDriver {
 protected:
  RestoreLossesTest() {
    for (const SessionId& session : {kFirst, kSecond}) {
      add_target(session);
      candidates.back().enforced = true;
    }
    tick();
  }
  void lose(const EcuRecord& record) {
    call([&](auto& out) { core->lose_session(now, record, out); });
  }
  void lose_and_scan(const std::vector<ClaimRecord>& heads, Enforcer enforcer = Enforcer::kGuard) {
    lose(lost_of(kLost, enforcer));
    scanned(kLostMac, heads);
  }
  std::vector<Lineage> reads() const {
    std::vector<Lineage> lineages;
    for (const ReadHead& one : all<ReadHead>()) lineages.push_back(one.lineage);
    return lineages;
  }
  std::vector<std::set<EcuMac>> scans() const {
    std::vector<std::set<EcuMac>> some;
    for (const ScanLogs& one : all<ScanLogs>()) {
      if (!one.ecu_macs.empty()) some.push_back(one.ecu_macs);
    }
    return some;
  }
  // The claim of one that was lost is won; its target prepares it.
  void lost_preparing(const ClaimRecord& head) {
    lose_and_scan({head});
    head_is(head);
    tick();
    claim_record = appended();
    append_ended(AppendEnd::kWon);
    claim = wire::ClaimRef{claim_record.lineage, claim_record.slot, claim_record.uid};
    is_found(found_of(claim_record));
    tick();
  }
};

// ---- policies

TEST_F(RestoreLossesTest, WhatTheLogSaysToRestoreIsClaimedAsLost) {
  const ClaimRecord head = owned();
  lose(lost_of(kLost));
  ASSERT_EQ(scans(), std::vector<std::set<EcuMac>>{{kLostMac}});
  scanned(kLostMac, std::vector<ClaimRecord>{head});
  ASSERT_EQ(reads(), std::vector<Lineage>{head.lineage});
  head_is(head);
  tick();
  EXPECT_EQ(appended().kind, ClaimKind::kClaim);
  EXPECT_EQ(appended().reason, ClaimReason::kLost);
  EXPECT_EQ(core->losses().at(kLostMac).waiting.size(), 0U);
}

TEST_F(RestoreLossesTest, AllElseWaitsForAnOperator) {
  lose_and_scan({owned(1), owned(2, OnIsolation::kKeep, OnLoss::kRestore),
                 owned(3, OnIsolation::kStop, OnLoss::kAsk), owned(4, OnIsolation::kKeep, OnLoss::kAsk)});
  EXPECT_EQ(reads(), (std::vector<Lineage>{{1, 1}}));
  EXPECT_EQ(core->losses().at(kLostMac).waiting, (std::set<Lineage>{{1, 2}, {1, 3}, {1, 4}}));
  EXPECT_EQ(core->waiting_count(kLostMac), 3U);
  EXPECT_EQ(core->progress_of(kLostMac).total, 1U);
}

TEST_F(RestoreLossesTest, WithoutAnEnforcerNothingIsRestoredByItself) {
  lose_and_scan({owned()}, Enforcer::kNone);
  EXPECT_TRUE(reads().empty());
  EXPECT_EQ(core->waiting_count(kLostMac), 1U);
  EXPECT_FALSE(core->is_gone(kLost));
}

// It had an enforcer in an earlier session, of which it still owns one; the other it owns since.
TEST_F(RestoreLossesTest, WhatASessionOwnsThatWasLostWithAnEnforcerIsRestoredWhateverTheNewestHad) {
  const SessionId newer{kLostMac, kLost.incarnation + 65536};
  const ClaimRecord old_one = owned(1);
  const ClaimRecord new_one = owned(2, OnIsolation::kStop, OnLoss::kRestore, newer);
  lose(lost_of(newer, Enforcer::kNone, kLost.incarnation));
  scanned(kLostMac, std::vector<ClaimRecord>{old_one, new_one});
  EXPECT_EQ(reads(), std::vector<Lineage>{old_one.lineage});
  EXPECT_EQ(core->losses().at(kLostMac).waiting, std::set<Lineage>{new_one.lineage});
}

TEST_F(RestoreLossesTest, WhatALaterSessionOwnsIsNotTouched) {
  const ClaimRecord later =
      owned(1, OnIsolation::kStop, OnLoss::kRestore, SessionId{kLostMac, kLost.incarnation + 1});
  const ClaimRecord later_asks =
      owned(2, OnIsolation::kKeep, OnLoss::kAsk, SessionId{kLostMac, kLost.incarnation + 1});
  lose_and_scan({later, later_asks});
  EXPECT_TRUE(reads().empty());
  EXPECT_EQ(core->waiting_count(kLostMac), 0U);
}

TEST_F(RestoreLossesTest, WhatHasEndedOrIsElsewhereIsNotTouched) {
  const ClaimRecord ended = retire(stamp(kOther), owned(1), "over");
  const ClaimRecord elsewhere = owned(2, OnIsolation::kStop, OnLoss::kRestore, kFirst);
  lose_and_scan({ended, elsewhere});
  EXPECT_TRUE(reads().empty());
  EXPECT_EQ(core->waiting_count(kLostMac), 0U);
  EXPECT_TRUE(core->losses().at(kLostMac).scanned);
}

TEST_F(RestoreLossesTest, ItGoesOnlyWhereALeaseIsEnforced) {
  candidates[1].enforced = false;
  candidates[2].enforced = false;
  lost_preparing(owned());
  EXPECT_TRUE(commands<wire::Prepare>().empty());
  candidates[2].enforced = true;
  tick();
  ASSERT_EQ(commands<wire::Prepare>().size(), 1U);
  EXPECT_EQ(commands<wire::Prepare>()[0].first, kSecond);
}

TEST_F(RestoreLossesTest, TheLostSessionIsNoTargetButTheNextOneOfThatEcuComesFirst) {
  candidates.front().enforced = true;
  lost_preparing(owned());
  ASSERT_EQ(commands<wire::Prepare>().size(), 1U);
  EXPECT_NE(commands<wire::Prepare>()[0].first, kLost);
  // When it has come back.
  make_core(config());
  const SessionId next{kLostMac, kLost.incarnation + 65536};
  candidates.front().session = next;
  tick();
  lost_preparing(owned());
  ASSERT_EQ(commands<wire::Prepare>().size(), 1U);
  EXPECT_EQ(commands<wire::Prepare>()[0].first, next);
}

TEST_F(RestoreLossesTest, GoSaysWhatTheLogSaysOfIsolation) {
  for (const OnIsolation on_isolation : {OnIsolation::kStop, OnIsolation::kKeep}) {
    make_core(config());
    const ClaimRecord act_head =
        acting(owned(1, on_isolation, OnLoss::kAsk, kLost), kFirst, ClaimReason::kVouched, kMe);
    tick();
    scanned(std::nullopt, std::vector<ClaimRecord>{act_head});
    head_is(act_head, act_head.claim_slot);
    const auto gos = commands<wire::Go>();
    ASSERT_EQ(gos.size(), 1U);
    EXPECT_EQ(gos[0].second.on_isolation, on_isolation);
  }
}

// ---- ACT whose target is LOST

TEST_F(RestoreLossesTest, AnActWhoseTargetIsLostIsAbortedIfItStops) {
  const ClaimRecord act_head = acting(owned(1, OnIsolation::kStop, OnLoss::kAsk, kFirst), kLost);
  lose_and_scan({act_head});
  EXPECT_EQ(reads(), std::vector<Lineage>{act_head.lineage});
  head_is(act_head);
  EXPECT_EQ(appended().kind, ClaimKind::kAbort);
  EXPECT_EQ(appended().proof, wire::AbortProof::kLost);
  EXPECT_TRUE(commands<wire::Go>().empty());
}

TEST_F(RestoreLossesTest, AnActWhoseTargetIsLostAndKeepsRunningWaitsForAnOperator) {
  // The incarnations of two ECUs have nothing to do with each other.
  const SessionId owner{kFirst.ecu_mac, kLost.incarnation + 5000000};
  const ClaimRecord act_head = acting(owned(1, OnIsolation::kKeep, OnLoss::kAsk, owner), kLost);
  lose_and_scan({act_head});
  EXPECT_TRUE(reads().empty());
  EXPECT_EQ(core->losses().at(kLostMac).waiting, std::set<Lineage>{act_head.lineage});
  fail(kLostMac);
  scanned(kLostMac, std::vector<ClaimRecord>{act_head});
  head_is(act_head);
  EXPECT_EQ(appended().proof, wire::AbortProof::kVouched);
}

TEST_F(RestoreLossesTest, AnActForALaterSessionOfThatEcuIsNotTouched) {
  const SessionId later{kLostMac, kLost.incarnation + 1};
  for (const OnIsolation on_isolation : {OnIsolation::kStop, OnIsolation::kKeep}) {
    const ClaimRecord act_head = acting(owned(1, on_isolation, OnLoss::kAsk, kFirst), later);
    lose_and_scan({act_head});
    EXPECT_TRUE(reads().empty());
    EXPECT_EQ(core->waiting_count(kLostMac), 0U);
  }
}

TEST_F(RestoreLossesTest, ATargetThatIsLostWhileItStartsIsAborted) {
  lost_preparing(owned());
  target = commands<wire::Prepare>().at(0).first;
  reports(target, RestoreState::kPrepared);
  act_record = appended();
  append_ended(AppendEnd::kWon);
  ASSERT_EQ(commands<wire::Go>().size(), 1U);
  lose(lost_of(target, Enforcer::kNone));
  tick(kCommandRepeat);
  EXPECT_TRUE(none<AppendRecord>()) << "without an enforcer it may run";
  lose(lost_of(target));
  tick(kCommandRepeat);
  EXPECT_EQ(appended().kind, ClaimKind::kAbort);
  EXPECT_EQ(appended().proof, wire::AbortProof::kLost);
}

TEST_F(RestoreLossesTest, ATargetThatIsLostWhileItPreparesIsLeft) {
  lost_preparing(owned());
  target = commands<wire::Prepare>().at(0).first;
  lose(lost_of(target));
  tick(kCommandRepeat);
  ASSERT_EQ(commands<wire::Prepare>().size(), 1U);
  EXPECT_NE(commands<wire::Prepare>()[0].first, target);
}

// ---- moves

TEST_F(RestoreLossesTest, AMoveWhoseSourceIsLostIsRestoredAsLost) {
  candidates.front().freezes = true;
  tick();
  const ClaimRecord head = owned();
  call([&](auto& out) { ASSERT_TRUE(core->move(now, head, std::nullopt, out).ok()); });
  head_is(head);
  tick();
  claim_record = appended();
  EXPECT_EQ(claim_record.reason, ClaimReason::kRequest);
  append_ended(AppendEnd::kWon);
  is_found(found_of(claim_record));
  tick();
  ASSERT_EQ(stage(), Stage::kFreezing);
  lose_and_scan({claim_record});
  tick();
  const ClaimRecord released = appended();
  EXPECT_EQ(released.kind, ClaimKind::kRelease);
  append_ended(AppendEnd::kWon);
  tick();
  EXPECT_EQ(appended().kind, ClaimKind::kClaim);
  EXPECT_EQ(appended().reason, ClaimReason::kLost);
}

// ---- a loss is open until a scan finds nothing

TEST_F(RestoreLossesTest, ALossIsScannedAgainUntilNothingIsFound) {
  const ClaimRecord head = owned();
  lose_and_scan({head});
  EXPECT_TRUE(core->losses().at(kLostMac).scanned);
  head_is(head);
  tick();
  claim_record = appended();
  append_ended(AppendEnd::kWon);
  tick(kLogScanInterval);
  ASSERT_EQ(scans(), std::vector<std::set<EcuMac>>{{kLostMac}});
  scanned(kLostMac, std::vector<ClaimRecord>{claim_record});
  EXPECT_TRUE(reads().empty()) << "it is at work";
  tick(kLogScanInterval);
  ASSERT_EQ(scans().size(), 1U) << "there was something";
  scanned(kLostMac, std::vector<ClaimRecord>{});
  tick(kLogScanInterval);
  EXPECT_TRUE(scans().empty());
}

// A slow CMS wrote DONE after all: what the lost session was told to run is its own by now.
TEST_F(RestoreLossesTest, WhatTheLostSessionCameToOwnLaterIsRestored) {
  const ClaimRecord act_head = acting(owned(1, OnIsolation::kStop, OnLoss::kRestore, kFirst), kLost);
  lose_and_scan({act_head});
  const ClaimRecord owned_now = core::done(stamp(kOther), act_head, 9);
  head_is(owned_now);
  EXPECT_EQ(stage(), Stage::kDone);
  tick(kLogScanInterval);
  ASSERT_EQ(scans().size(), 1U);
  scanned(kLostMac, std::vector<ClaimRecord>{owned_now});
  ASSERT_EQ(reads(), std::vector<Lineage>{owned_now.lineage});
  head_is(owned_now);
  tick();
  EXPECT_EQ(appended().kind, ClaimKind::kClaim);
  EXPECT_EQ(appended().reason, ClaimReason::kLost);
}

// What was being stored when its session was LOST has no log yet when all logs are looked at.
TEST_F(RestoreLossesTest, ALogThatIsBegunLateOpensTheLossAgain) {
  const auto late = [this](const ClaimRecord& head) {
    tick(kLogScanInterval);
    EXPECT_TRUE(scans().empty());
    scanned(std::nullopt, std::vector<ClaimRecord>{head});
    tick(kRestoreRetry);
    return scans().size();
  };
  EXPECT_EQ(late(owned()), 0U) << "there was no loss";
  lose_and_scan({});
  EXPECT_EQ(late(owned(1, OnIsolation::kStop, OnLoss::kAsk)), 0U);
  EXPECT_EQ(late(owned(1, OnIsolation::kStop, OnLoss::kRestore, SessionId{kLostMac, kLost.incarnation + 1})),
            0U);
  ASSERT_EQ(late(owned()), 1U);
  scanned(kLostMac, std::vector<ClaimRecord>{owned()});
  ASSERT_EQ(reads(), std::vector<Lineage>{owned().lineage});
  call([&](auto& out) { core->on_head(now, owned().lineage, RestoreCore::Head{}, out); });
  ASSERT_EQ(stage(), Stage::kRefused);
  tick(kLogScanInterval);
  scanned(kLostMac, std::vector<ClaimRecord>{owned()});
  EXPECT_EQ(late(owned()), 0U) << "it has been tried";
}

TEST_F(RestoreLossesTest, WhatCannotBeRestoredIsNotTriedForEver) {
  const ClaimRecord head = owned();
  lose_and_scan({head});
  head_is(head);
  tick();
  append_ended(AppendEnd::kWon);
  is_found(make_error(Code::kNotFound, "nothing there"));
  const ClaimRecord released = appended();
  append_ended(AppendEnd::kWon);
  ASSERT_EQ(stage(), Stage::kRefused);
  tick(kLogScanInterval);
  ASSERT_EQ(scans().size(), 1U);
  scanned(kLostMac, std::vector<ClaimRecord>{released});
  EXPECT_TRUE(reads().empty());
  tick(kLogScanInterval);
  EXPECT_TRUE(scans().empty()) << "nothing that can be done was found";
}

TEST_F(RestoreLossesTest, TheNextLossTriesWhatWasRefused) {
  const ClaimRecord head = owned();
  for (int i = 0; i < 2; ++i) {
    lose_and_scan({head});
    ASSERT_EQ(reads(), std::vector<Lineage>{head.lineage}) << i;
    call([&](auto& out) { core->on_head(now, head.lineage, RestoreCore::Head{}, out); });
    ASSERT_EQ(stage(), Stage::kRefused);
  }
}

TEST_F(RestoreLossesTest, AFailedScanIsAskedForAgain) {
  lose(lost_of(kLost));
  scanned(kLostMac, make_error(Code::kUnavailable, "away"));
  EXPECT_FALSE(core->losses().at(kLostMac).scanned);
  EXPECT_NE(core->losses().at(kLostMac).trouble, "");
  tick(kRestoreRetry - milliseconds(1));
  EXPECT_TRUE(scans().empty());
  tick(milliseconds(1));
  EXPECT_EQ(scans().size(), 1U);
  scanned(kLostMac, std::vector<ClaimRecord>{});
  EXPECT_TRUE(core->losses().at(kLostMac).scanned);
  EXPECT_EQ(core->losses().at(kLostMac).trouble, "");
}

TEST_F(RestoreLossesTest, AScanThatWasAskedForBeforeTheLossIsNotItsLast) {
  lose(lost_of(kLost));
  now += milliseconds(5);
  const SessionId newer{kLostMac, kLost.incarnation + 65536};
  lose(lost_of(newer));
  EXPECT_TRUE(scans().empty()) << "one is open";
  scanned(kLostMac, std::vector<ClaimRecord>{});
  EXPECT_FALSE(core->losses().at(kLostMac).scanned);
  ASSERT_EQ(scans(), std::vector<std::set<EcuMac>>{{kLostMac}});
  scanned(kLostMac, std::vector<ClaimRecord>{});
  EXPECT_TRUE(core->losses().at(kLostMac).scanned);
}

// ---- an operator's word

TEST_F(RestoreLossesTest, WhatAnOperatorSaidGoesFurther) {
  const ClaimRecord keeps = owned(1, OnIsolation::kKeep, OnLoss::kAsk);
  fail(kLostMac);
  lose(lost_of(kLost));
  EXPECT_EQ(core->losses().at(kLostMac).reason, ClaimReason::kVouched);
  scanned(kLostMac, std::vector<ClaimRecord>{keeps});
  EXPECT_EQ(reads(), std::vector<Lineage>{keeps.lineage});
}

TEST_F(RestoreLossesTest, AnOperatorMaySayItAfterTheLoss) {
  const ClaimRecord keeps = owned(1, OnIsolation::kKeep, OnLoss::kAsk);
  lose_and_scan({keeps});
  ASSERT_EQ(core->waiting_count(kLostMac), 1U);
  fail(kLostMac);
  scanned(kLostMac, std::vector<ClaimRecord>{keeps});
  EXPECT_EQ(reads(), std::vector<Lineage>{keeps.lineage});
  EXPECT_EQ(core->waiting_count(kLostMac), 0U);
}

// ---- scans are shared

TEST_F(RestoreLossesTest, ManyLossesShareAScan) {
  lose(lost_of(kLost));
  EXPECT_EQ(scans(), std::vector<std::set<EcuMac>>{{kLostMac}});
  lose(lost_of(kFirst));
  EXPECT_TRUE(scans().empty()) << "one is open";
  lose(lost_of(kSecond));
  tick(seconds(2));
  EXPECT_TRUE(scans().empty());
  const ClaimRecord first = owned(1);
  const ClaimRecord second = owned(2, OnIsolation::kStop, OnLoss::kRestore, kSecond);
  scanned(kLostMac, std::vector<ClaimRecord>{first, second});
  EXPECT_EQ(reads(), std::vector<Lineage>{first.lineage}) << "the others' heads were read too early";
  ASSERT_EQ(scans(), (std::vector<std::set<EcuMac>>{{kFirst.ecu_mac, kSecond.ecu_mac}}));
  scanned(kFirst.ecu_mac, std::vector<ClaimRecord>{first, second});
  EXPECT_EQ(reads(), std::vector<Lineage>{second.lineage});
  EXPECT_TRUE(core->losses().at(kFirst.ecu_mac).scanned);
  EXPECT_TRUE(core->losses().at(kSecond.ecu_mac).scanned);
}

TEST_F(RestoreLossesTest, LossesAreBounded) {
  for (std::uint64_t i = 0; i < kLossCountMax + 1; ++i) {
    now += milliseconds(1);
    lose(lost_of(SessionId{EcuMac{0x030000000000 + i}, 65536}));
  }
  EXPECT_EQ(core->losses().size(), kLossCountMax);
  EXPECT_EQ(core->losses().count(EcuMac{0x030000000000}), 0U) << "the oldest";
  EXPECT_EQ(core->losses().count(EcuMac{0x030000000000 + kLossCountMax}), 1U);
}

// ---- links that come and go

TEST_F(RestoreLossesTest, WhoIsLostAgainAndAgainTakesNothingForEverLonger) {
  const auto shunned = [&] {
    now += seconds(1);
    lose(lost_of(kLost));
    return core->shunned_for(now, kLostMac);
  };
  EXPECT_EQ(shunned(), Duration::zero()) << "once is no habit";
  EXPECT_EQ(shunned(), std::chrono::minutes(1));
  EXPECT_EQ(shunned(), std::chrono::minutes(2));
  EXPECT_EQ(shunned(), std::chrono::minutes(4));
  for (int i = 0; i < 30; ++i) shunned();
  EXPECT_EQ(shunned(), std::chrono::hours(1)) << "at most";
  EXPECT_EQ(core->shunned_for(now + std::chrono::minutes(59), kLostMac), std::chrono::minutes(1));
  EXPECT_EQ(core->shunned_for(now + std::chrono::hours(2), kLostMac), Duration::zero());
  EXPECT_EQ(core->shunned_for(now, kFirst.ecu_mac), Duration::zero());
  now += kFlapForgotten;
  EXPECT_EQ(shunned(), Duration::zero()) << "forgotten";
  EXPECT_EQ(shunned(), std::chrono::minutes(1));
}

TEST_F(RestoreLossesTest, NothingIsPlacedOnOneThatFlaps) {
  lose(lost_of(SessionId{kFirst.ecu_mac, 1}));
  now += milliseconds(1);
  lose(lost_of(SessionId{kFirst.ecu_mac, 2}));
  std::vector<Candidate> counted = candidates;
  core->add_reservations(now, counted);
  EXPECT_EQ(counted[1].shunned, std::chrono::minutes(1));
  EXPECT_EQ(counted[2].shunned, Duration::zero());
}

}  // namespace
}  // namespace cms::core
