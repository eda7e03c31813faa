// The EcuCore of a guarded session: its lease with planned moves and restores, and what it answers when it is asked what
// it runs.
#include "broker/core/ecu_core_lease_fixture_test.h"

namespace cms::broker {
namespace {

// ---- with planned moves

TEST_F(EcuCoreLeaseTest, WhatIsFrozenStaysFrozenAndIsThawedOnlyWithinALease) {
  make_leased();
  publish_policy(OnIsolation::kStop);
  say(0, wire::Freeze{at(2), kProgram});
  const FreezeId id = all<FreezeProgram>().at(0).id;
  frozen(id, 1);
  expire();
  EXPECT_TRUE(stops().empty()) << "it stands still";
  nonce_ = control<wire::Hello>(0).at(0).nonce;
  answer(0, 2 * kIncarnation);
  thaw(3);
  EXPECT_TRUE(effects_.empty());
  pass(Duration::zero());
  ASSERT_EQ(control<wire::FreezeReport>(0).size(), 1U);
  EXPECT_EQ(control<wire::FreezeReport>(0)[0].last, (Version{2 * kIncarnation, 1})) << "named anew";
  say(0, wire::HeartbeatAnswer{control<wire::Heartbeat>(0).at(0).number, 0, true});
  thaw(2);
  EXPECT_TRUE(all<ThawProgram>().empty()) << "of before it was frozen";
  thaw(3);
  EXPECT_EQ(all<ThawProgram>().size(), 1U);
  EXPECT_TRUE(resumes().empty()) << "it was not stopped";
}

TEST_F(EcuCoreLeaseTest, WhatIsFreezingIsStoppedTooAndNeedsTheEndOfBoth) {
  make_leased();
  publish_policy(OnIsolation::kStop);
  say(0, wire::Freeze{at(2), kProgram});
  const FreezeId id = all<FreezeProgram>().at(0).id;
  expire();
  const auto hello = control<wire::Hello>(0).at(0);
  EXPECT_EQ(stops(), Ids{kProgram});
  publish_policy(OnIsolation::kStop);
  EXPECT_TRUE(all<ReceiptEvent>().empty() || all<ReceiptEvent>()[0].seq == 1U) << "its last checkpoint";
  stopped();
  frozen(id, 2);
  EXPECT_TRUE(all<ThawProgram>().empty());
  nonce_ = hello.nonce;
  answer(0, 2 * kIncarnation);
  lease();
  tell_programs();
  EXPECT_EQ(programs(), (std::vector<std::string>{"7 frozen"}));
  thaw(1);
  EXPECT_TRUE(resumes().empty()) << "of before it was frozen";
  thaw(3);
  EXPECT_EQ(all<ThawProgram>().size(), 1U);
  EXPECT_EQ(resumes(), Ids{kProgram});
}

TEST_F(EcuCoreLeaseTest, AFreezeThatEndsAfterTheLeaseDoesNotThawWhatIsStopped) {
  make_leased();
  publish_policy(OnIsolation::kStop);
  say(0, wire::Freeze{at(2), kProgram});
  const FreezeId id = all<FreezeProgram>().at(0).id;
  expire();
  const auto hello = control<wire::Hello>(0).at(0);
  frozen(id, 99);  // Not its last checkpoint: of no use, it would go on.
  EXPECT_TRUE(all<ThawProgram>().empty());
  stopped();
  nonce_ = hello.nonce;
  answer(0, 2 * kIncarnation);
  lease();
  thaw(1);
  EXPECT_EQ(all<ThawProgram>().size(), 1U);
  EXPECT_EQ(resumes(), Ids{kProgram});
}

TEST_F(EcuCoreLeaseTest, TheEndOfItsMoveDoesNotResumeWhatIsStillFreezing) {
  make_leased();
  publish_policy(OnIsolation::kStop);
  say(0, wire::Freeze{at(2), kProgram});
  const FreezeId id = all<FreezeProgram>().at(0).id;
  expire();
  begin_next();
  stopped();
  thaw(3);
  EXPECT_TRUE(resumes().empty()) << "the RTCR has not answered yet";
  publish_policy(OnIsolation::kStop);
  frozen(id, 2);
  EXPECT_EQ(all<ThawProgram>().size(), 1U);
  EXPECT_EQ(resumes(), Ids{kProgram});
}

TEST_F(EcuCoreLeaseTest, AThawOfBeforeItsFreezeDoesNotResumeItLaterEither) {
  make_leased();
  publish_policy(OnIsolation::kStop);
  say(0, wire::Freeze{at(2), kProgram});
  const FreezeId id = all<FreezeProgram>().at(0).id;
  expire();
  begin_next();
  stopped();
  thaw(1);
  call([&](Effects& effects) { core_->on_frozen(id, make_error(Code::kIo, "it cannot"), effects); });
  EXPECT_TRUE(resumes().empty());
  thaw(1);
  EXPECT_EQ(resumes(), Ids{kProgram}) << "now it is";
}

TEST_F(EcuCoreLeaseTest, FreezeIsObeyedOnlyWithinALease) {
  make_guarded();
  answer(0, kIncarnation);
  publish_policy(OnIsolation::kKeep);
  say(0, wire::Freeze{at(2), kProgram});
  EXPECT_TRUE(effects_.empty());
  now_ += kHeartbeatInterval;
  lease();
  say(0, wire::Freeze{at(2), kProgram});
  EXPECT_EQ(all<FreezeProgram>().size(), 1U);
}

// ---- with restores

TEST_F(EcuCoreLeaseTest, PrepareAndGoAreObeyedOnlyWithinALease) {
  make_guarded();
  answer(0, kIncarnation);
  say(0, prepare());
  EXPECT_TRUE(effects_.empty());
  say(0, go());
  EXPECT_EQ(control<wire::RestoreReport>(0).at(0).state, wire::RestoreState::kRefused);
  lease();
  say(0, prepare(4));
  EXPECT_EQ(all<ReceiveBlob>().size(), 1U);
}

TEST_F(EcuCoreLeaseTest, WhatIsPreparedWhenTheLeaseEndsIsNeverRun) {
  make_leased();
  make_prepared();
  now_ += kLease;
  say(0, go());  // Before anybody has looked at the time.
  EXPECT_TRUE(all<RunProgram>().empty());
  EXPECT_EQ(all<DiscardRestore>().size(), 1U);
  begin_next();
  say(0, go());
  EXPECT_TRUE(all<RunProgram>().empty());
  EXPECT_EQ(control<wire::RestoreReport>(0).at(0).state, wire::RestoreState::kRefused);
}

TEST_F(EcuCoreLeaseTest, WhatGoMadeRunTooLateIsStoppedAtOnceAlsoWithinTheNextLease) {
  for (const bool next : {false, true}) {
    make_leased();
    const RestoreId id = make_prepared();
    say(0, go());
    ASSERT_EQ(all<RunProgram>().size(), 1U);
    const Instant end = now_ + kLease;
    EXPECT_EQ(changed().enforce_at, end) << "it may run";
    expire();
    EXPECT_EQ(changed().enforce_at, end) << "it may run";
    if (next) {
      nonce_ = control<wire::Hello>(0).at(0).nonce;
      answer(0, 2 * kIncarnation);
      lease();
      EXPECT_EQ(changed().enforce_at, end);
    }
    running(id, 30);
    EXPECT_EQ(stops(), Ids{30});
    EXPECT_TRUE(control<wire::RestoreReport>(0).empty() == !next);
    stopped(30);
    EXPECT_EQ(changed().enforce_at, kNever);
  }
}

// Its session was LOST, and it is restored here of all places.
TEST_F(EcuCoreLeaseTest, WhatStandsStillGivesWayToItsOwnRestoreHere) {
  make_leased();
  const RestoreId first = make_prepared(2);
  say(0, go());
  running(first, 30);
  publish_policy(OnIsolation::kStop, 30, Lineage{1, 2}, 4);
  expire();
  begin_next();
  say(0, prepare(6));
  ASSERT_EQ(control<wire::RestoreReport>(0).at(0).state, wire::RestoreState::kRefused) << "it may run here";
  stopped(30);
  const RestoreId second = make_prepared(8);
  ASSERT_NE(second, 0U);
  EXPECT_TRUE(told().empty()) << "it may yet be thawed";
  say(0, wire::Go{prepare(8).claim, 9, 90, OnIsolation::kStop});
  ASSERT_GE(effects_.size(), 2U);
  EXPECT_EQ(told(), Lines{"FENCED 1!"});
  EXPECT_TRUE(std::holds_alternative<RunProgram>(effects_[1])) << "after the other has been given up";
  running(second, 31);
  EXPECT_EQ(programs(), std::vector<std::string>{"31 running"});
  thaw(10);
  EXPECT_TRUE(resumes().empty());
}

TEST_F(EcuCoreLeaseTest, WhatGaveWayToARestoreThatCameToNothingIsThawedAllTheSame) {
  make_leased();
  const RestoreId first = make_prepared(2);
  say(0, go());
  running(first, 30);
  expire();
  begin_next();
  stopped(30);
  ASSERT_NE(make_prepared(6), 0U);
  say(0, wire::Discard{prepare(6).claim});
  say(0, wire::Thaw{wire::ClaimRef{Lineage{1, 2}, 7, 70}, 30, OnIsolation::kStop});
  EXPECT_EQ(resumes(), Ids{30});
}

TEST_F(EcuCoreLeaseTest, WhatWasRestoredGoesByThePolicyOfGo) {
  make_leased();
  const RestoreId id = make_prepared();
  say(0, go(OnIsolation::kStop));
  running(id, 30);
  EXPECT_TRUE(stops().empty());
  expire();
  EXPECT_EQ(stops(), Ids{30});
}

// ---- its own programs, that it asks for

TEST_F(EcuCoreLeaseTest, WhoOnlyRestartsItsOwnIsNoTargetForOthers) {
  make_leased(1, true);
  say(0, prepare(2));
  EXPECT_TRUE(effects_.empty());
  wire::Prepare own = prepare(4);
  own.restarts = ProgramId{9};
  say(0, own);
  ASSERT_EQ(all<ReceiveBlob>().size(), 1U);
  EXPECT_EQ(all<ReceiveBlob>()[0].info.restarts, std::optional<ProgramId>(9));
  make_guarded(1, true);
  EXPECT_EQ(control<wire::Hello>(0).at(0).features & wire::kEcuFeatureRestores, 0U);
}

TEST_F(EcuCoreLeaseTest, WhatRunsHereIsNotAskedFor) {
  make_leased();
  publish_policy(OnIsolation::kKeep);
  const auto ask = [this](const std::optional<EcuMac>& to) {
    Status asked = ok_status();
    call([&](Effects& effects) { asked = core_->request_migration(now_, 1, kProgram, to, effects); });
    return asked.code();
  };
  EXPECT_EQ(ask(kMac), Code::kPermission);
  EXPECT_TRUE(effects_.empty());
  EXPECT_EQ(ask(EcuMac{0x020000000009}), Code::kOk);
  call([&](Effects& effects) { core_->program_ended(now_, kProgram, effects); });
  EXPECT_EQ(ask(kMac), Code::kOk);
  ASSERT_EQ(control<wire::Migrate>(0).size(), 1U);
  EXPECT_EQ(control<wire::Migrate>(0)[0].to_ecu_mac, kMac);
}

// ---- the programs

TEST_F(EcuCoreLeaseTest, ProgramsAreToldWhenTheRtcrHasToldAll) {
  make_leased_untold(2);
  say(0, wire::AskPrograms{1, 0});
  say(0, wire::AskPrograms{2, 0});
  say(1, wire::AskPrograms{9, 0});
  EXPECT_TRUE(effects_.empty());
  publish_policy(OnIsolation::kKeep);
  tell_programs();
  ASSERT_EQ(control<wire::Programs>(0).size(), 1U);
  EXPECT_EQ(control<wire::Programs>(0)[0].number, 2U) << "the newest question";
  ASSERT_EQ(control<wire::Programs>(1).size(), 1U);
  const auto page = control<wire::Programs>(1)[0];
  EXPECT_EQ(page.number, 9U);
  EXPECT_TRUE(page.end);
  ASSERT_EQ(page.programs.size(), 1U);
  EXPECT_EQ(page.programs[0].program_id, kProgram);
  EXPECT_EQ(page.programs[0].lineage, lineage_of(ProgramKey{kMac, kProgram}));
  say(0, wire::AskPrograms{3, 0});
  EXPECT_EQ(control<wire::Programs>(0).size(), 1U) << "now at once";
}

// Who is missing has died, says who reads it.
TEST_F(EcuCoreLeaseTest, ProgramsAreNotToldWhileItIsOpenWhetherOneRuns) {
  make_leased();
  tell_programs();
  const RestoreId id = make_prepared();
  say(0, go());
  say(0, wire::AskPrograms{1, 0});
  EXPECT_TRUE(control<wire::Programs>(0).empty());
  running(id, 30);
  ASSERT_EQ(control<wire::Programs>(0).size(), 1U);
  ASSERT_EQ(control<wire::Programs>(0)[0].programs.size(), 1U);
  EXPECT_EQ(control<wire::Programs>(0)[0].programs[0].program_id, 30U);
}

TEST_F(EcuCoreLeaseTest, AQuestionOfAFormerSessionIsNotAnswered) {
  make_leased_untold();
  say(0, wire::AskPrograms{1, 0});
  expire();
  begin_next();
  tell_programs();
  EXPECT_TRUE(effects_.empty());
}

TEST_F(EcuCoreLeaseTest, WhatRunsIsToldWithItsState) {
  make_leased();
  tell_programs();
  publish_policy(OnIsolation::kStop, 7);
  publish_policy(OnIsolation::kKeep, 8);
  publish_policy(OnIsolation::kKeep, 9);
  const RestoreId id = make_prepared();
  say(0, go(OnIsolation::kKeep));
  running(id, 30);  // Nothing is published of it.
  say(0, wire::Freeze{at(2, 8), 8});
  frozen(all<FreezeProgram>().at(0).id, 2);
  EXPECT_EQ(programs(), (Lines{"7 running", "8 frozen", "9 running", "30 running"}));
  const auto restored = control<wire::Programs>(0)[0].programs[3];
  EXPECT_EQ(restored.lineage, prepare().claim.lineage);
  EXPECT_EQ(restored.owner_epoch, 4U);
  expire();
  begin_next();
  EXPECT_EQ(programs(), (Lines{"7 running", "8 frozen", "9 running", "30 running"}))
      << "until it stands still";
  stopped(7);
  EXPECT_EQ(programs(), (Lines{"7 stopped", "8 frozen", "9 running", "30 running"}));
}

TEST_F(EcuCoreLeaseTest, WhatHasEndedByItselfLeavesAndHeartbeatsTellAtOnce) {
  make_leased(2);
  tell_programs();
  publish_policy(OnIsolation::kKeep, 7);
  publish_policy(OnIsolation::kKeep, 8);
  const RestoreId id = make_prepared();
  say(0, go(OnIsolation::kKeep));
  running(id, 30);
  call([&](Effects& effects) { core_->program_ended(now_, 7, effects); });
  for (const CmsIndex cms : {0U, 1U}) EXPECT_EQ(control<wire::Heartbeat>(cms).at(0).programs_changed, 1U);
  call([&](Effects& effects) { core_->program_ended(now_, 7, effects); });
  EXPECT_TRUE(effects_.empty()) << "it is told once";
  call([&](Effects& effects) { core_->program_ended(now_, 30, effects); });
  EXPECT_EQ(control<wire::Heartbeat>(0).at(0).programs_changed, 2U);
  EXPECT_EQ(alive_, 2) << "its checkpoint may be the newest";
  EXPECT_EQ(programs(), Lines{"8 running"});
  say(0, wire::Freeze{at(2), kProgram});
  EXPECT_TRUE(all<FreezeProgram>().empty());
  say(0, prepare(8));  // Its lineage may come back.
  EXPECT_EQ(all<ReceiveBlob>().size(), 1U);
  publish_policy(OnIsolation::kKeep, 7);
  EXPECT_EQ(programs(), (Lines{"7 running", "8 running"}));
}

TEST_F(EcuCoreLeaseTest, ProgramsAreToldPageByPage) {
  make_leased();
  tell_programs();
  for (ProgramId program_id = 0; program_id <= wire::kProgramsPageCountMax; ++program_id) {
    publish_policy(OnIsolation::kKeep, program_id);
    receipt(0, core_->last_seq(), ReceiptLevel::kStored, Code::kOk, program_id);
  }
  say(0, wire::AskPrograms{1, 0});
  auto page = control<wire::Programs>(0).at(0);
  EXPECT_EQ(page.programs.size(), wire::kProgramsPageCountMax);
  EXPECT_FALSE(page.end);
  EXPECT_EQ(page.next_program_id, wire::kProgramsPageCountMax);
  say(0, wire::AskPrograms{2, page.next_program_id});
  page = control<wire::Programs>(0).at(0);
  EXPECT_EQ(page.programs.size(), 1U);
  EXPECT_TRUE(page.end);
}

TEST_F(EcuCoreLeaseTest, NothingThatRunsIsForgottenForSomethingNew) {
  make_leased();
  for (ProgramId program_id = 0; program_id < kGuardedProgramCountMax; ++program_id) {
    publish_policy(OnIsolation::kKeep, program_id);
    receipt(0, core_->last_seq(), ReceiptLevel::kStored, Code::kOk, program_id);  // One CMS: it is released.
    effects_.clear();
  }
  publish_policy(OnIsolation::kKeep, kGuardedProgramCountMax);
  ASSERT_EQ(told().size(), 1U);
  EXPECT_EQ(all<ReceiptEvent>()[0].code, Code::kLimit);
  publish_policy(OnIsolation::kKeep, 0);
  EXPECT_EQ(told(), Lines{"ANNOUNCED 65538"}) << "what is known goes on";
  call([&](Effects& effects) { core_->program_ended(now_, 1, effects); });
  publish_policy(OnIsolation::kKeep, kGuardedProgramCountMax);
  EXPECT_EQ(told(), Lines{"ANNOUNCED 65539"});
  receipt(0, 3, ReceiptLevel::kFenced, Code::kFenced, 2);
  EXPECT_EQ(told(), Lines{"FENCED 3!"}) << "who runs is still told";
}

// ---- the end

TEST_F(EcuCoreLeaseTest, WhoEndsInOrderStopsWhatNobodyWillHoldALeaseFor) {
  make_leased();
  publish_policy(OnIsolation::kStop, 7);
  publish_policy(OnIsolation::kKeep, 8);
  call([&](Effects& effects) { core_->prepare_stop(effects); });
  EXPECT_EQ(stops(), Ids{7});
  EXPECT_FALSE(core_->is_stoppable());
  call([&](Effects& effects) { core_->prepare_stop(effects); });
  EXPECT_TRUE(effects_.empty());
  thaw(1);
  stopped(7);
  EXPECT_TRUE(resumes().empty());
  EXPECT_TRUE(core_->is_stoppable());
}

}  // namespace
}  // namespace cms::broker
