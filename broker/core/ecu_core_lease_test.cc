// The EcuCore of a guarded session: when its lease ends, and what becomes of its programs and of the session then.
#include "broker/core/ecu_core_lease_fixture_test.h"

namespace cms::broker {
namespace {

// ---- the lease and the session

TEST_F(EcuCoreLeaseTest, HelloTellsWhatVouchesForIt) {
  make_guarded();
  const auto hello = control<wire::Hello>(0).at(0);
  EXPECT_TRUE(hello.guarded);
  EXPECT_EQ(hello.boot_id, (Id128{3, 4}));
  EXPECT_EQ(hello.enforcer, wire::Enforcer::kGuard);
  EXPECT_EQ(hello.incarnation, 0U);
  EXPECT_EQ(hello.nonce, kNonce);
}

TEST_F(EcuCoreLeaseTest, ItIsCountedFromTheSendingAndTheDeadlineIsItsEnd) {
  make_guarded();
  answer(0, kIncarnation);
  pass(Duration::zero());
  const Instant sent_at = now_;
  const auto number = control<wire::Heartbeat>(0).at(0).number;
  now_ += milliseconds(900);
  say(0, wire::HeartbeatAnswer{number, 0, true});
  EXPECT_TRUE(changed().lives);
  EXPECT_EQ(changed().ends_at, sent_at + kLease);
  EXPECT_EQ(changed().enforce_at, kNever) << "nothing runs that is to stop";
  now_ = sent_at + seconds(4);
  call([&](Effects& effects) { core_->on_time(now_, effects); });
  EXPECT_EQ(core_->next_deadline(), sent_at + kLease);
}

TEST_F(EcuCoreLeaseTest, AnAnswerWithoutLeasedProlongsNothing) {
  make_leased();
  pass(seconds(1));
  say(0, wire::HeartbeatAnswer{control<wire::Heartbeat>(0).at(0).number, 0, false});
  EXPECT_TRUE(all<LeaseChanged>().empty());
  pass(seconds(4));
  EXPECT_FALSE(changed().lives);
}

TEST_F(EcuCoreLeaseTest, AtItsEndTheNextSessionSaysHelloAtOnceWithAnotherNonce) {
  make_leased(2);
  answer(1, kIncarnation);
  publish_policy(OnIsolation::kKeep);
  receipt(0, 1, ReceiptLevel::kStored);
  pass(kLease - milliseconds(1));
  EXPECT_EQ(core_->incarnation(), kIncarnation);
  pass(milliseconds(1));
  EXPECT_EQ(core_->incarnation(), 0U);
  EXPECT_FALSE(changed().lives);
  EXPECT_FALSE(changed().text.empty());
  for (const CmsIndex cms : {0U, 1U}) {
    const auto hellos = control<wire::Hello>(cms);
    ASSERT_EQ(hellos.size(), 1U);
    EXPECT_EQ(hellos[0].incarnation, 0U);
    EXPECT_NE(hellos[0].nonce, kNonce);
    EXPECT_EQ(hellos[0].nonce, control<wire::Hello>(0)[0].nonce);
  }
  EXPECT_EQ(all<ReconnectControl>().size(), 2U) << "what was sent on a dead connection would come late";
  EXPECT_EQ(core_->live_cms_count(), 0U);
  EXPECT_EQ(alive_, 1) << "what is held stays held";
  const std::uint64_t next_nonce = control<wire::Hello>(0)[0].nonce;
  publish_policy(OnIsolation::kKeep, 8);
  EXPECT_TRUE(effects_.empty()) << "nothing is announced without an incarnation";
  answer(0, kIncarnation);
  EXPECT_EQ(core_->incarnation(), 0U) << "an answer to the former session";
  nonce_ = next_nonce;
  answer(0, 2 * kIncarnation);
  EXPECT_EQ(core_->incarnation(), 2 * kIncarnation);
  say(0, wire::List{1});
  EXPECT_EQ(control<wire::ListPage>(0).at(0).notifications.size(), 2U) << "announced again";
}

TEST_F(EcuCoreLeaseTest, ALateAnswerDoesNotReviveIt) {
  make_leased();
  pass(seconds(4));
  const auto number = control<wire::Heartbeat>(0).at(0).number;
  now_ += seconds(1);  // The answer comes before anybody has looked at the time.
  say(0, wire::HeartbeatAnswer{number, 0, true});
  EXPECT_FALSE(changed().lives);
  EXPECT_EQ(core_->incarnation(), 0U);
}

TEST_F(EcuCoreLeaseTest, ASessionThatHasEndedIsFollowedByAnother) {
  make_leased();
  publish_policy(OnIsolation::kStop);
  answer(0, 0, Code::kFenced);
  EXPECT_EQ(stops(), Ids{kProgram});
  EXPECT_FALSE(changed().lives);
  EXPECT_EQ(changed().enforce_at, now_);
  ASSERT_EQ(control<wire::Hello>(0).size(), 1U);
  EXPECT_NE(control<wire::Hello>(0)[0].nonce, nonce_);
  answer(0, 0, Code::kFenced);
  EXPECT_TRUE(effects_.empty()) << "said of the former one";
}

TEST_F(EcuCoreLeaseTest, ALinkThatFlapsBeginsSessionsEverMoreSeldom) {
  make_leased();
  for (const int pause_s : {0, 1, 2, 4, 8, 16, 32, 60, 60}) {
    expire();
    for (int second = 0; second < pause_s; ++second) {
      ASSERT_TRUE(control<wire::Hello>(0).empty()) << pause_s << ", after " << second;
      pass(seconds(1));
    }
    begin_next(core_->incarnation() + kIncarnation);
  }
  for (int second = 0; second < 56; ++second) {
    pass(seconds(1));
    say(0, wire::HeartbeatAnswer{control<wire::Heartbeat>(0).at(0).number, 0, true});
  }
  expire();
  EXPECT_EQ(control<wire::Hello>(0).size(), 1U) << "it has lived for more than a minute";
}

TEST_F(EcuCoreLeaseTest, AnotherCmsKeepsItAlive) {
  make_leased(2);
  for (int second = 0; second < 10; ++second) {
    pass(seconds(1));
    const auto beats = control<wire::Heartbeat>(1);
    if (!beats.empty()) say(1, wire::HeartbeatAnswer{beats[0].number, 0, true});
  }
  EXPECT_EQ(core_->incarnation(), kIncarnation);
}

TEST_F(EcuCoreLeaseTest, WithoutGuardNothingOfThisHappens) {
  make_live(1);
  publish();
  say(0, wire::HeartbeatAnswer{1, 0, true});
  EXPECT_TRUE(all<LeaseChanged>().empty());
  pass(seconds(30));
  EXPECT_EQ(core_->incarnation(), kIncarnation);
  answer_hello(0, kIncarnation);
  say(0, wire::AskPrograms{1, 0});
  tell_programs();
  EXPECT_TRUE(effects_.empty());
}

// ---- stopping and going on

TEST_F(EcuCoreLeaseTest, WhatIsToStopIsStoppedAndTheRestRunsOn) {
  make_leased();
  publish_policy(OnIsolation::kStop, 7);
  publish_policy(OnIsolation::kKeep, 8);
  publish_policy(OnIsolation::kStop, 9);
  publish_policy(OnIsolation::kKeep, 9);  // The strictest counts.
  const Instant end = now_ + kLease;
  expire();
  EXPECT_EQ(stops(), (Ids{7, 9}));
  EXPECT_EQ(changed().enforce_at, end);
  stopped(7);
  EXPECT_TRUE(all<LeaseChanged>().empty());
  stopped(9);
  EXPECT_EQ(changed().enforce_at, kNever) << "all stand still";
}

TEST_F(EcuCoreLeaseTest, OnlyWhereSomethingIsToStopThereIsSomethingToEnforce) {
  make_leased();
  const Instant end = now_ + kLease;
  publish_policy(OnIsolation::kKeep, 8);
  EXPECT_TRUE(all<LeaseChanged>().empty());
  publish_policy(OnIsolation::kStop);
  EXPECT_EQ(changed().enforce_at, end);
  call([&](Effects& effects) { core_->program_ended(now_, kProgram, effects); });
  EXPECT_EQ(changed().enforce_at, kNever);
  say(0, wire::Thaw{at(1, 8), 8, OnIsolation::kStop});
  EXPECT_EQ(changed().enforce_at, end);
  receipt(0, 1, ReceiptLevel::kFenced, Code::kFenced, 8);
  EXPECT_EQ(changed().enforce_at, kNever);
}

TEST_F(EcuCoreLeaseTest, ANewLeaseDoesNotExcuseWhatHasNotStopped) {
  make_leased();
  publish_policy(OnIsolation::kStop);
  const Instant end = now_ + kLease;
  expire();
  nonce_ = control<wire::Hello>(0).at(0).nonce;
  answer(0, 2 * kIncarnation);
  lease();
  EXPECT_TRUE(changed().lives);
  EXPECT_EQ(changed().enforce_at, end);
  stopped();
  EXPECT_EQ(changed().enforce_at, kNever) << "it stands still";
  thaw(1);
  EXPECT_EQ(changed().enforce_at, now_ + kLease) << "it runs";
}

TEST_F(EcuCoreLeaseTest, OnlyThawWithinALeaseLetsItGoOn) {
  make_leased();
  publish_policy(OnIsolation::kStop);
  expire();
  const auto hello = control<wire::Hello>(0).at(0);
  stopped();
  effects_.clear();
  nonce_ = hello.nonce;
  answer(0, 2 * kIncarnation);
  thaw(1);
  EXPECT_TRUE(effects_.empty()) << "there is no lease yet";
  lease();
  EXPECT_TRUE(resumes().empty()) << "not by the lease alone";
  thaw(1);
  EXPECT_EQ(resumes(), Ids{kProgram});
  EXPECT_EQ(control<wire::FreezeReport>(0).at(0).state, wire::FreezeState::kThawed);
  thaw(1);
  EXPECT_TRUE(resumes().empty()) << "it runs";
  expire();
  EXPECT_EQ(stops(), Ids{kProgram}) << "and stops again";
}

TEST_F(EcuCoreLeaseTest, ThawBeforeItStandsStillIsCarriedOutThen) {
  make_leased();
  publish_policy(OnIsolation::kStop);
  expire();
  begin_next();
  thaw(1);
  EXPECT_TRUE(resumes().empty());
  stopped();
  EXPECT_EQ(resumes(), Ids{kProgram});
}

TEST_F(EcuCoreLeaseTest, AThawOfAFormerLeaseIsForgotten) {
  make_leased();
  publish_policy(OnIsolation::kStop);
  expire();
  begin_next();
  thaw(1);
  expire();  // Still not confirmed.
  EXPECT_TRUE(stops().empty());
  pass(kSessionPauseMin);
  begin_next(3 * kIncarnation);
  stopped();
  EXPECT_TRUE(resumes().empty());
}

TEST_F(EcuCoreLeaseTest, AThawOfBeforeItCameHereOrOfAnotherLineageSaysNothing) {
  make_leased();
  publish_policy(OnIsolation::kStop, kProgram, Lineage{5, 5}, 9);
  expire();
  const auto hello = control<wire::Hello>(0);
  stopped();
  call([&](Effects&) {});
  nonce_ = hello.at(0).nonce;
  answer(0, 2 * kIncarnation);
  lease();
  say(0, wire::Thaw{wire::ClaimRef{Lineage{5, 5}, 8, 80}, kProgram});
  EXPECT_TRUE(resumes().empty());
  say(0, wire::Thaw{wire::ClaimRef{Lineage{5, 6}, 10, 80}, kProgram});
  EXPECT_TRUE(resumes().empty());
  say(0, wire::Thaw{wire::ClaimRef{Lineage{5, 5}, 9, 80}, kProgram});
  EXPECT_EQ(resumes(), Ids{kProgram});
}

TEST_F(EcuCoreLeaseTest, ThePolicyOfTheLogCounts) {
  make_leased();
  publish_policy(OnIsolation::kKeep);
  thaw(1, OnIsolation::kStop);
  expire();
  EXPECT_EQ(stops(), Ids{kProgram});
}

TEST_F(EcuCoreLeaseTest, AStopThatFailsIsTriedAgain) {
  make_leased();
  publish_policy(OnIsolation::kStop);
  const Instant end = now_ + kLease;
  expire();
  stopped(kProgram, make_error(Code::kIo, "no"));
  EXPECT_TRUE(all<LeaseChanged>().empty());
  EXPECT_LE(core_->next_deadline(), now_ + kStopRetry);
  pass(kStopRetry);
  EXPECT_EQ(stops(), Ids{kProgram});
  EXPECT_TRUE(all<LeaseChanged>().empty()) << "still to be enforced from " << end.time_since_epoch().count();
  stopped();
  EXPECT_EQ(changed().enforce_at, kNever);
}

TEST_F(EcuCoreLeaseTest, WhatIsPublishedOfAStoppedProgramIsDropped) {
  make_leased();
  publish_policy(OnIsolation::kStop);
  expire();
  publish_policy(OnIsolation::kStop);
  EXPECT_EQ(told(), Lines{"DROPPED 2!"});
  EXPECT_EQ(all<ReceiptEvent>()[0].code, Code::kPermission);
  EXPECT_EQ(alive_, 1);
}

// It may have been given to another ECU while this one was off, or its broker.
TEST_F(EcuCoreLeaseTest, WhatRanBeforeTheSessionStandsStillUntilItIsThawed) {
  for (const bool leased : {true, false}) {
    SCOPED_TRACE(leased);
    make_guarded();
    if (leased) {
      answer(0, kIncarnation);
      lease();
    }
    publish_policy(OnIsolation::kKeep, 8);
    EXPECT_TRUE(stops().empty());
    publish_policy(OnIsolation::kStop);
    EXPECT_EQ(stops(), Ids{kProgram});
    EXPECT_EQ(changed().enforce_at, now_ + kLease) << "as long as a lease lasts";
    EXPECT_EQ(core_->held_count(), 2U) << "its checkpoint is held";
    publish_policy(OnIsolation::kStop);
    EXPECT_TRUE(stops().empty());
    EXPECT_EQ(told(), Lines{"DROPPED 3!"});
    stopped();
    EXPECT_EQ(changed().enforce_at, kNever);
    tell_programs();
    if (!leased) {
      answer(0, kIncarnation);
      thaw(1);
      EXPECT_TRUE(resumes().empty());
      lease();
    }
    EXPECT_EQ(programs(), (std::vector<std::string>{"7 stopped", "8 running"}));
    thaw(1);
    EXPECT_EQ(resumes(), Ids{kProgram});
    publish_policy(OnIsolation::kStop);
    EXPECT_TRUE(stops().empty());
    publish_policy(OnIsolation::kStop, 9);
    EXPECT_TRUE(stops().empty()) << "it has been started since";
  }
}

TEST_F(EcuCoreLeaseTest, WhatBeginsBetweenTwoLeasesIsStoppedAtOnce) {
  make_leased();
  expire();
  publish_policy(OnIsolation::kStop, 8);
  EXPECT_EQ(stops(), Ids{8});
  EXPECT_EQ(alive_, 1) << "its checkpoint is held";
  EXPECT_EQ(changed().enforce_at, now_);
}

// Whoever was told that it runs would never thaw it.
TEST_F(EcuCoreLeaseTest, WhatStandsStillAfterItWasToldToRunIsAReasonToAskAgain) {
  make_guarded();
  tell_programs();
  answer(0, kIncarnation);
  publish_policy(OnIsolation::kStop, 7);
  publish_policy(OnIsolation::kStop, 8);
  EXPECT_EQ(programs(), (std::vector<std::string>{"7 running", "8 running"})) << "as long as they may";
  stopped(7);
  EXPECT_TRUE(control<wire::Heartbeat>(0).empty());
  stopped(8);
  ASSERT_EQ(control<wire::Heartbeat>(0).size(), 1U);
  EXPECT_EQ(control<wire::Heartbeat>(0)[0].programs_changed, 1U);
  EXPECT_EQ(programs(), (std::vector<std::string>{"7 stopped", "8 stopped"}));
}

TEST_F(EcuCoreLeaseTest, WhatStandsStillBeforeAnybodyHasAskedIsNoReason) {
  make_leased();
  publish_policy(OnIsolation::kStop);
  (void)programs();
  expire();
  begin_next();
  stopped();
  EXPECT_TRUE(control<wire::Heartbeat>(0).empty());
}

TEST_F(EcuCoreLeaseTest, WhatIsFencedOrWithdrawnMeanwhileIsNeverResumed) {
  make_leased();
  publish_policy(OnIsolation::kStop, 7);
  publish_policy(OnIsolation::kStop, 8);
  expire();
  const auto hello = control<wire::Hello>(0).at(0);
  stopped(7);
  nonce_ = hello.nonce;
  answer(0, 2 * kIncarnation);
  lease();
  receipt(0, 1, ReceiptLevel::kFenced, Code::kFenced);
  EXPECT_EQ(told(), Lines{"FENCED 1!"});
  thaw(5);
  EXPECT_TRUE(resumes().empty());
  call([&](Effects& effects) { ASSERT_TRUE(core_->withdraw(now_, 1, 8, effects).ok()); });
  tell_programs();
  EXPECT_TRUE(programs().empty());
  stopped(8);
  EXPECT_EQ(changed().enforce_at, kNever) << "until then it may have run";
}

}  // namespace
}  // namespace cms::broker
