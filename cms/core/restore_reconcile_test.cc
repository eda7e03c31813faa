// A guarded session that has begun: what its ECU owns and runs is thawed, what it owns and does not run has died, what it runs
// and does not own is fenced.
#include "cms/core/restore_driver_test.h"

namespace cms::core {
namespace {

using namespace restore_driver;
using wire::ClaimReason;
using wire::EcuRecord;
using wire::Enforcer;
using wire::OnIsolation;
using wire::OnLoss;
using wire::OwnedProgram;
using wire::ProgramState;
using Step = RestoreCore::Reconciling::Step;

constexpr SessionId kBack{kLostMac, kLost.incarnation + 65536};  // It has come back.

ClaimRecord owned(std::uint64_t number = 1, OnIsolation on_isolation = OnIsolation::kStop,
                  OnLoss on_loss = OnLoss::kRestore, const SessionId& owner = kLost) {
  return genesis(stamp(kOther), Lineage{1, number}, owner, number, on_isolation, on_loss);
}

ClaimRecord acting(const ClaimRecord& head, const SessionId& target) {
  const ClaimRecord claimed = core::claim(stamp(kOther), head, ClaimReason::kVouched, true);
  return core::act(stamp(kOther), claimed, target, claim_blob_of(found_of(claimed).name));
}

OwnedProgram has(std::uint64_t number, OwnerEpoch owner_epoch = 0,
                 ProgramState state = ProgramState::kStopped) {
  return OwnedProgram{number, Lineage{1, number}, owner_epoch, state};
}

class ReconcileTest : public RestoreDriver {
 protected:
  using Heads = std::vector<std::optional<ClaimRecord>>;

  ReconcileTest() {
    candidates.front().session = kBack;
    candidates.front().enforced = true;
    tick();
  }
  EcuRecord record(Incarnation lost_incarnation = 0, Enforcer enforcer = Enforcer::kGuard) const {
    EcuRecord record;
    record.ecu_mac = kLostMac;
    record.incarnation = kBack.incarnation;
    record.enforcer = enforcer;
    record.lost_incarnation = lost_incarnation;
    record.maintenance = maintenance;
    return record;
  }
  void begin(Incarnation lost_incarnation = 0, Enforcer enforcer = Enforcer::kGuard) {
    call([&](auto& out) { core->reconcile(now, kBack, record(lost_incarnation, enforcer), out); });
  }
  void page(const std::vector<OwnedProgram>& programs, bool end = true, const SessionId& from = kBack) {
    call([&](auto& out) { core->on_programs(now, from, wire::Programs{number(), programs, 0, end}, out); });
  }
  void heads_are(const Result<Heads>& heads) {
    ReadHeads asked{kLostMac, number(), {}};
    call([&](auto& out) { core->on_heads(now, asked, heads, out); });
  }
  // The whole of it: what the scan shows, what the ECU says, and what the heads of these are then.
  void reconciled(const std::vector<ClaimRecord>& scan, const std::vector<OwnedProgram>& programs,
                  const Heads& heads) {
    scanned(kLostMac, scan);
    ASSERT_EQ(asked().size(), 1U);
    page(programs);
    ASSERT_EQ(only<ReadHeads>().lineages.size(), heads.size());
    heads_are(heads);
  }
  std::vector<wire::AskPrograms> asked() const {
    std::vector<wire::AskPrograms> some;
    for (const auto& [session, ask] : commands<wire::AskPrograms>()) {
      EXPECT_EQ(session, kBack);
      some.push_back(ask);
    }
    return some;
  }
  std::set<ProgramId> thawed() const {
    std::set<ProgramId> programs;
    for (const auto& [session, thaw] : commands<wire::Thaw>()) {
      EXPECT_EQ(session, kBack);
      programs.insert(thaw.program_id);
    }
    return programs;
  }
  std::vector<Lineage> reads() const {
    std::vector<Lineage> lineages;
    for (const ReadHead& one : all<ReadHead>()) lineages.push_back(one.lineage);
    return lineages;
  }
  const RestoreCore::Reconciling& state() const { return core->reconcilings().at(kLostMac); }
  std::uint64_t number() const { return state().number; }
  std::size_t scan_count() const {
    const auto some = all<ScanLogs>();
    return static_cast<std::size_t>(
        std::count_if(some.begin(), some.end(), [](const ScanLogs& one) { return !one.ecu_macs.empty(); }));
  }

  bool maintenance = false;
};

TEST_F(ReconcileTest, AllLogsAreScannedAndThenTheEcuIsAskedAndThenItsHeadsAreRead) {
  begin();
  EXPECT_EQ(scan_count(), 1U);
  EXPECT_TRUE(asked().empty()) << "what came in between would be taken for dead";
  scanned(kLostMac, std::vector<ClaimRecord>{owned()});
  ASSERT_EQ(asked().size(), 1U);
  EXPECT_EQ(asked()[0].from_program_id, 0U);
  EXPECT_EQ(asked()[0].number, number());
  EXPECT_EQ(scan_count(), 0U);
  page({has(1)});
  ASSERT_EQ(all<ReadHeads>().size(), 1U);
  EXPECT_EQ(all<ReadHeads>()[0].ecu_mac, kLostMac);
  EXPECT_EQ(all<ReadHeads>()[0].number, number());
  EXPECT_EQ(all<ReadHeads>()[0].lineages, (std::vector<Lineage>{{1, 1}}));
  EXPECT_TRUE(commands<wire::Thaw>().empty()) << "its head is not known yet";
  heads_are(Heads{owned()});
  EXPECT_EQ(thawed(), std::set<ProgramId>{1});
  EXPECT_EQ(state().running, 1U);
}

// It may have come before the session had a lease.
TEST_F(ReconcileTest, ThawIsToldAgainUntilTheProgramRuns) {
  begin();
  for (const ProgramState now_is : {ProgramState::kStopped, ProgramState::kStopped, ProgramState::kRunning}) {
    reconciled({owned()}, {has(1, 0, now_is)}, Heads{owned()});
    EXPECT_EQ(thawed(), std::set<ProgramId>{1});
    EXPECT_EQ(state().is_settled(), now_is == ProgramState::kRunning);
    tick(seconds(8));
  }
  EXPECT_EQ(scan_count(), 0U);
}

TEST_F(ReconcileTest, AScanOfBeforeTheSessionSaysNothing) {
  call([&](auto& out) {
    EcuRecord lost = record(kLost.incarnation);
    lost.kind = wire::EcuRecordKind::kLost;
    lost.incarnation = kLost.incarnation;
    core->lose_session(now, lost, out);
  });
  EXPECT_EQ(scan_count(), 1U);
  now += milliseconds(1);
  begin();
  EXPECT_EQ(scan_count(), 0U) << "one is open";
  scanned(kLostMac, std::vector<ClaimRecord>{});
  EXPECT_TRUE(asked().empty());
  EXPECT_EQ(scan_count(), 1U);
  scanned(kLostMac, std::vector<ClaimRecord>{});
  EXPECT_EQ(asked().size(), 1U);
}

TEST_F(ReconcileTest, AFailedScanIsAskedForAgain) {
  begin();
  scanned(kLostMac, make_error(Code::kUnavailable, "away"));
  EXPECT_TRUE(asked().empty());
  EXPECT_EQ(state().step, Step::kScanning);
  tick(kRestoreRetry - milliseconds(1));
  EXPECT_EQ(scan_count(), 0U);
  tick(milliseconds(1));
  EXPECT_EQ(scan_count(), 1U);
  tick(seconds(5));
  EXPECT_EQ(scan_count(), 0U) << "it is open";
}

TEST_F(ReconcileTest, TheQuestionIsRepeatedUntilItIsAnswered) {
  begin();
  scanned(kLostMac, std::vector<ClaimRecord>{});
  const wire::AskPrograms first = asked().at(0);
  tick(milliseconds(999));
  EXPECT_TRUE(asked().empty());
  tick(milliseconds(1));
  ASSERT_EQ(asked().size(), 1U);
  EXPECT_EQ(asked()[0].number, first.number) << "the same question";
  page({});
  tick(seconds(1));
  EXPECT_TRUE(asked().empty());
}

TEST_F(ReconcileTest, AnswersOfAnotherSessionOrToAnotherQuestionSayNothing) {
  begin();
  page({});
  EXPECT_EQ(state().step, Step::kScanning) << "nothing was asked";
  scanned(kLostMac, std::vector<ClaimRecord>{owned()});
  page({}, true, kLost);
  EXPECT_EQ(state().step, Step::kAsking);
  call([&](auto& out) { core->on_programs(now, kBack, wire::Programs{number() - 1, {}, 0, true}, out); });
  EXPECT_EQ(state().step, Step::kAsking);
  call([&](auto& out) { core->on_programs(now, kFirst, wire::Programs{number(), {}, 0, true}, out); });
  EXPECT_EQ(state().step, Step::kAsking);
  page({has(1)});
  EXPECT_EQ(state().step, Step::kReading);
  page({});
  EXPECT_EQ(state().programs.size(), 1U) << "a second answer";
}

TEST_F(ReconcileTest, HeadsOfAnEarlierRoundSayNothing) {
  begin();
  scanned(kLostMac, std::vector<ClaimRecord>{owned()});
  page({has(1)});
  const ReadHeads former = all<ReadHeads>().at(0);
  begin();
  scanned(kLostMac, std::vector<ClaimRecord>{owned()});
  page({});
  call([&](auto& out) { core->on_heads(now, former, Heads{owned()}, out); });
  EXPECT_EQ(state().step, Step::kReading);
  EXPECT_TRUE(commands<wire::Thaw>().empty());
}

TEST_F(ReconcileTest, HeadsThatCannotBeReadAreAskedForAgain) {
  begin();
  scanned(kLostMac, std::vector<ClaimRecord>{owned()});
  page({has(1)});
  tick(seconds(20));
  EXPECT_TRUE(none<ReadHeads>()) << "the question is open";
  heads_are(make_error(Code::kUnavailable, "away"));
  EXPECT_TRUE(reads().empty());
  tick(kRestoreRetry);
  ASSERT_EQ(all<ReadHeads>().size(), 1U);
  EXPECT_EQ(all<ReadHeads>()[0].lineages.size(), 1U);
  heads_are(Heads{owned()});
  EXPECT_EQ(thawed(), std::set<ProgramId>{1});
}

TEST_F(ReconcileTest, ASessionThatHasGoneIsForgotten) {
  begin();
  candidates.clear();
  tick(kReconcilingForgotten - seconds(1));
  EXPECT_EQ(core->reconcilings().size(), 1U);
  tick(seconds(1));
  EXPECT_TRUE(core->reconcilings().empty());
}

// ---- pages

TEST_F(ReconcileTest, PagesAreAskedForOneAfterTheOther) {
  begin();
  scanned(kLostMac, std::vector<ClaimRecord>{owned(1), owned(2), owned(9)});
  page({has(1), has(2)}, false);
  ASSERT_EQ(asked().size(), 1U);
  EXPECT_EQ(asked()[0].from_program_id, 3U);
  EXPECT_EQ(asked()[0].number, number());
  tick(seconds(1));
  ASSERT_EQ(asked().size(), 1U);
  EXPECT_EQ(asked()[0].from_program_id, 3U) << "repeated from there";
  page({has(1), has(2)}, false);  // The first question was repeated, too.
  EXPECT_TRUE(none<ReadHeads>());
  page({has(9)});
  ASSERT_EQ(all<ReadHeads>().size(), 1U);
  EXPECT_EQ(all<ReadHeads>()[0].lineages, (std::vector<Lineage>{{1, 1}, {1, 2}, {1, 9}}));
}

// Whatever order it tells them in: what it has told is there.
TEST_F(ReconcileTest, APageThatIsOutOfOrderLetsNobodyDie) {
  begin();
  scanned(kLostMac, std::vector<ClaimRecord>{owned(1), owned(3), owned(5)});
  page({has(5), has(3)}, false);
  page({has(3), has(1)});
  ASSERT_EQ(all<ReadHeads>().size(), 1U);
  EXPECT_EQ(all<ReadHeads>()[0].lineages, (std::vector<Lineage>{{1, 1}, {1, 3}, {1, 5}}));
  heads_are(Heads{owned(1), owned(3), owned(5)});
  EXPECT_EQ(thawed(), (std::set<ProgramId>{1, 3, 5}));
  EXPECT_TRUE(reads().empty());
}

TEST_F(ReconcileTest, WhoSaysThatItRunsTooManyIsNotJudged) {
  begin();
  const std::uint64_t untold = kProgramsPerEcuMax + 7;
  scanned(kLostMac, std::vector<ClaimRecord>{owned(untold)});
  for (std::uint64_t i = 1; i <= kProgramsPerEcuMax;) {
    std::vector<OwnedProgram> programs;
    for (std::size_t j = 0; j < wire::kProgramsPageCountMax; ++j) programs.push_back(has(i++));
    page(programs, false);
  }
  EXPECT_TRUE(asked().empty()) << "there is a limit";
  EXPECT_TRUE(none<ReadHeads>());
  EXPECT_TRUE(state().programs.empty());
  tick(seconds(29));
  EXPECT_EQ(scan_count(), 0U);
  EXPECT_TRUE(reads().empty()) << "what it was not asked about is not dead";
  tick(seconds(1));
  EXPECT_EQ(scan_count(), 1U) << "it may have fewer by now";
}

// ---- there and owned

TEST_F(ReconcileTest, ThawSaysWhatTheLogSaysOfIsolation) {
  for (const OnIsolation on_isolation : {OnIsolation::kStop, OnIsolation::kKeep}) {
    const ClaimRecord head = owned(1, on_isolation);
    begin();
    reconciled({head}, {has(1)}, Heads{head});
    const auto thaws = commands<wire::Thaw>();
    ASSERT_EQ(thaws.size(), 1U);
    EXPECT_EQ(thaws[0].second.on_isolation, on_isolation);
    EXPECT_EQ(thaws[0].second.record.lineage, head.lineage);
    EXPECT_EQ(thaws[0].second.record.slot, head.slot);
    EXPECT_EQ(thaws[0].second.record.uid, head.uid);
    EXPECT_TRUE(reads().empty());
  }
}

TEST_F(ReconcileTest, AProgramWhoseLogIsEmptyIsThawed) {
  begin();
  reconciled({}, {has(1)}, Heads{std::nullopt});
  EXPECT_EQ(thawed(), std::set<ProgramId>{1});
  EXPECT_FALSE(state().is_settled()) << "until it runs";
}

TEST_F(ReconcileTest, WhatALostSessionOwnedIsNotThawedButRestored) {
  begin(kLost.incarnation);
  reconciled({owned()}, {has(1)}, Heads{owned()});
  EXPECT_TRUE(thawed().empty()) << "somebody may be restoring it";
  EXPECT_EQ(reads(), (std::vector<Lineage>{{1, 1}}));
  EXPECT_EQ(core->restores().at(kLineage).reason, ClaimReason::kLost);
  EXPECT_EQ(state().restored, 1U);
}

TEST_F(ReconcileTest, OfALostSessionOnlyThatIsRestoredOfWhichTheLogSaysSo) {
  begin(kLost.incarnation);
  const ClaimRecord asks = owned(1, OnIsolation::kStop, OnLoss::kAsk);
  const ClaimRecord keeps = owned(2, OnIsolation::kKeep, OnLoss::kRestore);
  reconciled({asks, keeps}, {has(1), has(2)}, Heads{asks, keeps});
  EXPECT_EQ(thawed(), (std::set<ProgramId>{1, 2}));
  EXPECT_TRUE(reads().empty());
}

TEST_F(ReconcileTest, WhatASessionOwnedAfterTheLostOneIsThawed) {
  begin(kLost.incarnation - 1);
  reconciled({owned()}, {has(1)}, Heads{owned()});
  EXPECT_EQ(thawed(), std::set<ProgramId>{1});
}

TEST_F(ReconcileTest, AStoppedProgramUnderAnOpenClaimIsLookedAtAgain) {
  const ClaimRecord head = owned();
  const ClaimRecord claimed = core::claim(stamp(kOther), head, ClaimReason::kRequest, true);
  begin();
  reconciled({claimed}, {has(1)}, Heads{claimed});
  EXPECT_TRUE(thawed().empty());
  EXPECT_FALSE(state().is_settled());
  tick(seconds(2) - milliseconds(1));
  EXPECT_EQ(scan_count(), 0U);
  tick(milliseconds(1));
  ASSERT_EQ(scan_count(), 1U);
  const ClaimRecord released = core::release(stamp(kOther), claimed, true, "it stays");
  reconciled({released}, {has(1)}, Heads{released});
  EXPECT_EQ(thawed(), std::set<ProgramId>{1});
}

TEST_F(ReconcileTest, WhatRunsOrIsFrozenUnderAnOpenClaimIsLeftToTheMove) {
  const ClaimRecord first = core::claim(stamp(kOther), owned(1), ClaimReason::kRequest, true);
  const ClaimRecord second = core::claim(stamp(kOther), owned(2), ClaimReason::kRequest, true);
  begin();
  reconciled({first, second}, {has(1, 0, ProgramState::kRunning), has(2, 0, ProgramState::kFrozen)},
             Heads{first, second});
  EXPECT_TRUE(thawed().empty());
  EXPECT_TRUE(state().is_settled());
}

TEST_F(ReconcileTest, ThePausesBetweenTwoLooksGrow) {
  const ClaimRecord claimed = core::claim(stamp(kOther), owned(), ClaimReason::kRequest, true);
  begin();
  for (const int pause : {2, 4, 8, 16, 30, 30}) {
    reconciled({claimed}, {has(1)}, Heads{claimed});
    EXPECT_EQ(state().next_at - now, Duration(seconds(pause)));
    tick(seconds(pause));
    ASSERT_EQ(scan_count(), 1U) << pause;
  }
}

// ---- there and not owned

TEST_F(ReconcileTest, WhatAnotherOwnsIsFenced) {
  const ClaimRecord moved = core::done(stamp(kOther), acting(owned(), kFirst), 9);
  begin();
  reconciled({}, {has(1)}, Heads{moved});
  EXPECT_TRUE(thawed().empty());
  const OwnerChanged changed = only<OwnerChanged>();
  EXPECT_EQ(changed.lineage, kLineage);
  EXPECT_EQ(changed.from.program, (ProgramKey{kLostMac, 1}));
  EXPECT_EQ(changed.from.owner_epoch, 0U);
  EXPECT_EQ(changed.to, moved.owner);
  EXPECT_TRUE(state().is_settled());
  EXPECT_TRUE(reads().empty());
}

TEST_F(ReconcileTest, WhatHasEndedForGoodIsNeitherThawedNorRestored) {
  const ClaimRecord head = owned();
  const ClaimRecord retired = core::retire(stamp(kOther), head, "over");
  begin();
  reconciled({head}, {has(1)}, Heads{retired});
  EXPECT_TRUE(thawed().empty());
  EXPECT_TRUE(none<OwnerChanged>()) << "nobody owns it";
  EXPECT_TRUE(reads().empty());
}

TEST_F(ReconcileTest, WhatIsBeingStartedThereIsLookedAtAgain) {
  const ClaimRecord act_head = acting(owned(1, OnIsolation::kStop, OnLoss::kRestore, kFirst), kBack);
  begin();
  reconciled({act_head}, {has(1, act_head.slot + 1)}, Heads{act_head});
  EXPECT_TRUE(thawed().empty());
  EXPECT_TRUE(none<OwnerChanged>());
  EXPECT_FALSE(state().is_settled());
  EXPECT_TRUE(reads().empty()) << "whoever wrote ACT tells it to go";
}

// It went away and came back as another, which has died; what is left of the former says nothing of that.
TEST_F(ReconcileTest, AStaleCopyDoesNotStandForTheOwner) {
  const ClaimRecord away = core::done(stamp(kOther), acting(owned(), kFirst), 9);
  const ClaimRecord back = core::done(stamp(kOther), acting(away, kLost), 5);
  ASSERT_EQ(back.owner.program, (ProgramKey{kLostMac, 5}));
  begin();
  reconciled({back}, {has(1)}, Heads{back});
  EXPECT_TRUE(thawed().empty());
  EXPECT_EQ(only<OwnerChanged>().from.program, (ProgramKey{kLostMac, 1}));
  EXPECT_EQ(reads(), std::vector<Lineage>{kLineage});
  // With the owner there, it is thawed and the copy fenced.
  make_core(config());
  tick();
  begin();
  OwnedProgram owner = has(5, back.owner.owner_epoch);
  owner.lineage = kLineage;
  reconciled({back}, {has(1), owner}, Heads{back, back});
  EXPECT_EQ(thawed(), std::set<ProgramId>{5});
  EXPECT_EQ(only<OwnerChanged>().from.program, (ProgramKey{kLostMac, 1}));
  EXPECT_TRUE(reads().empty());
}

// ---- owned and not there

TEST_F(ReconcileTest, WhatItOwnsAndDoesNotRunHasDiedAndIsRestored) {
  const ClaimRecord head = owned();
  begin();
  reconciled({head}, {}, Heads{});
  ASSERT_EQ(reads(), std::vector<Lineage>{head.lineage});
  head_is(head);
  tick();
  EXPECT_EQ(appended().reason, ClaimReason::kReportedDead);
  append_ended(AppendEnd::kWon);
  is_found(found_of(claim_record = core->restores().at(kLineage).head.value()));
  tick();
  ASSERT_EQ(commands<wire::Prepare>().size(), 1U);
  EXPECT_EQ(commands<wire::Prepare>()[0].first, kBack) << "where it was, if that can take it";
}

TEST_F(ReconcileTest, WhatNobodySaidToRestoreWaitsForAnOperator) {
  const ClaimRecord asks = owned(1, OnIsolation::kStop, OnLoss::kAsk);
  const ClaimRecord keeps = owned(2, OnIsolation::kKeep, OnLoss::kRestore);
  begin();
  reconciled({asks, keeps}, {}, Heads{});
  EXPECT_TRUE(reads().empty());
  EXPECT_EQ(state().waiting, (std::set<Lineage>{{1, 1}, {1, 2}}));
  EXPECT_EQ(core->waiting_count(kLostMac), 2U);
  EXPECT_TRUE(state().is_settled());
}

TEST_F(ReconcileTest, WithoutAnEnforcerWhatHasDiedWaits) {
  begin(0, Enforcer::kNone);
  reconciled({owned()}, {}, Heads{});
  EXPECT_TRUE(reads().empty());
  EXPECT_EQ(core->waiting_count(kLostMac), 1U);
}

TEST_F(ReconcileTest, WhatALostSessionOwnedIsRestoredAlsoWhenTheNewOneHasNoEnforcer) {
  begin(kLost.incarnation, Enforcer::kNone);
  reconciled({owned()}, {}, Heads{});
  EXPECT_EQ(reads(), std::vector<Lineage>{kLineage});
  EXPECT_EQ(core->restores().at(kLineage).reason, ClaimReason::kLost);
}

TEST_F(ReconcileTest, InMaintenanceNothingIsRestored) {
  maintenance = true;
  begin(kLost.incarnation);
  const ClaimRecord newer = owned(3, OnIsolation::kStop, OnLoss::kRestore, kBack);
  reconciled({owned(1), owned(2), newer}, {has(1)}, Heads{owned(1)});
  EXPECT_TRUE(reads().empty());
  EXPECT_TRUE(thawed().empty()) << "another may be restoring it since before";
  EXPECT_EQ(state().waiting, (std::set<Lineage>{{1, 1}, {1, 2}, {1, 3}}));
  EXPECT_TRUE(state().is_settled());
}

TEST_F(ReconcileTest, WhatIsOpenAndNotThereIsLookedAtAgain) {
  const ClaimRecord claimed = core::claim(stamp(kOther), owned(), ClaimReason::kRequest, true);
  begin();
  reconciled({claimed}, {}, Heads{});
  EXPECT_TRUE(reads().empty());
  EXPECT_FALSE(state().is_settled());
}

TEST_F(ReconcileTest, WhatMovedAwayMeanwhileIsNotRestored) {
  const ClaimRecord head = owned();
  begin();
  reconciled({head}, {}, Heads{});
  head_is(core::done(stamp(kOther), acting(head, kFirst), 9));
  EXPECT_EQ(stage(), Stage::kDone);
  tick();
  EXPECT_TRUE(none<AppendRecord>());
}

TEST_F(ReconcileTest, OfOtherEcusNothingIsTouched) {
  begin();
  reconciled({owned(1, OnIsolation::kStop, OnLoss::kRestore, kFirst)}, {}, Heads{});
  EXPECT_TRUE(reads().empty());
  EXPECT_EQ(core->waiting_count(kLostMac), 0U);
}

// ---- ACT to an earlier session

TEST_F(ReconcileTest, WhatAnEarlierSessionWasToldToRunAndRunsIsItsOwn) {
  const ClaimRecord act_head = acting(owned(1, OnIsolation::kStop, OnLoss::kRestore, kFirst), kLost);
  OwnedProgram there = has(6, act_head.slot + 1);
  there.lineage = kLineage;
  begin();
  reconciled({act_head}, {there}, Heads{act_head});
  EXPECT_TRUE(thawed().empty());
  EXPECT_FALSE(state().is_settled()) << "until DONE is there";
  ASSERT_EQ(reads(), std::vector<Lineage>{kLineage});
  head_is(act_head);
  tick(kOthersActGrace + kWatchOthers);
  if (!none<ReadHead>()) head_is(act_head);
  tick(kCommandRepeat);
  EXPECT_EQ(appended().kind, ClaimKind::kDone);
  EXPECT_EQ(appended().owner.program, (ProgramKey{kLostMac, 6}));
  EXPECT_EQ(appended().owner.incarnation, kLost.incarnation);
}

TEST_F(ReconcileTest, WhatAnEarlierSessionWasToldToRunAndDoesNotRunIsAborted) {
  const ClaimRecord act_head = acting(owned(1, OnIsolation::kStop, OnLoss::kRestore, kFirst), kLost);
  OwnedProgram former = has(6, act_head.slot);  // Of an earlier life of that lineage.
  former.lineage = kLineage;
  begin();
  reconciled({act_head}, {former}, Heads{act_head});
  EXPECT_FALSE(state().is_settled());
  ASSERT_EQ(reads(), std::vector<Lineage>{kLineage});
  head_is(act_head);
  tick(kOthersActGrace + kWatchOthers);
  if (!none<ReadHead>()) head_is(act_head);
  tick(kCommandRepeat);
  EXPECT_EQ(appended().kind, ClaimKind::kAbort);
  EXPECT_EQ(appended().proof, wire::AbortProof::kRefused);
}

TEST_F(ReconcileTest, WhatItSaidOfOneActSaysNothingOfAnother) {
  const ClaimRecord head = owned(1, OnIsolation::kStop, OnLoss::kRestore, kFirst);
  const ClaimRecord act_head = acting(head, kLost);
  begin();
  reconciled({act_head}, {}, Heads{});
  ASSERT_EQ(reads(), std::vector<Lineage>{kLineage});
  const ClaimRecord aborted = core::abort(stamp(kOther), act_head, wire::AbortProof::kRefused, "no");
  const ClaimRecord another = acting(aborted, kBack);
  head_is(another);
  tick(kOthersActGrace + kWatchOthers);
  if (!none<ReadHead>()) head_is(another);
  EXPECT_EQ(stage(), Stage::kStarting);
  tick(kCommandRepeat);
  EXPECT_TRUE(none<AppendRecord>()) << "its target is told to go, and may run it";
}

TEST_F(ReconcileTest, AnActToALostSessionIsAbortedForThat) {
  const ClaimRecord act_head = acting(owned(1, OnIsolation::kStop, OnLoss::kRestore, kFirst), kLost);
  begin(kLost.incarnation);
  reconciled({act_head}, {}, Heads{});
  head_is(act_head);
  EXPECT_EQ(appended().kind, ClaimKind::kAbort);
  EXPECT_EQ(appended().proof, wire::AbortProof::kLost);
}

// ---- many ECUs

TEST_F(ReconcileTest, EcusThatComeTogetherShareAScan) {
  begin();
  EXPECT_EQ(scan_count(), 1U);
  for (const SessionId& session : {kFirst, kSecond}) {
    EcuRecord head = record();
    head.ecu_mac = session.ecu_mac;
    head.incarnation = session.incarnation;
    call([&](auto& out) { core->reconcile(now, session, head, out); });
    EXPECT_EQ(scan_count(), 0U);
  }
  scanned(kLostMac, std::vector<ClaimRecord>{});
  EXPECT_EQ(commands<wire::AskPrograms>().size(), 1U);
  ASSERT_EQ(scan_count(), 1U);
  scanned(kFirst.ecu_mac, std::vector<ClaimRecord>{});
  EXPECT_EQ(commands<wire::AskPrograms>().size(), 2U);
}

TEST_F(ReconcileTest, WhatIsSettledMakesWay) {
  for (std::uint64_t i = 0; i < kReconcilingCountMax; ++i) {
    const SessionId session{EcuMac{0x030000000000 + i}, 65536};
    EcuRecord head = record();
    head.ecu_mac = session.ecu_mac;
    call([&](auto& out) { core->reconcile(now, session, head, out); });
    if (i > 0) continue;
    scanned(session.ecu_mac, std::vector<ClaimRecord>{});
    const std::uint64_t asked_number = core->reconcilings().at(session.ecu_mac).number;
    call([&](auto& out) { core->on_programs(now, session, wire::Programs{asked_number, {}, 0, true}, out); });
    call([&](auto& out) { core->on_heads(now, ReadHeads{session.ecu_mac, asked_number, {}}, Heads{}, out); });
    ASSERT_TRUE(core->reconcilings().at(session.ecu_mac).is_settled());
  }
  ASSERT_EQ(core->reconcilings().size(), kReconcilingCountMax);
  begin();
  EXPECT_EQ(core->reconcilings().size(), kReconcilingCountMax);
  EXPECT_EQ(core->reconcilings().count(EcuMac{0x030000000000}), 0U);
}

}  // namespace
}  // namespace cms::core
