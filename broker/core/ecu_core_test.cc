#include "broker/core/ecu_core_fixture_test.h"

namespace cms::broker {
namespace {

// ---- sessions

TEST_F(EcuCoreTest, SaysHelloToEveryCmsAtStart) {
  make(2);
  for (const CmsIndex cms : {0U, 1U}) {
    const auto hellos = control<wire::Hello>(cms);
    ASSERT_EQ(hellos.size(), 1U);
    EXPECT_EQ(hellos[0].incarnation, 0U);
    EXPECT_EQ(hellos[0].nonce, kNonce);
    EXPECT_EQ(hellos[0].bulk_port, 7600U);
  }
  EXPECT_EQ(core_->live_cms_count(), 0U);
}

TEST_F(EcuCoreTest, AnnouncesNothingBeforeItHasAnIncarnation) {
  make(1);
  publish();
  EXPECT_TRUE(effects_.empty());
  pass(seconds(3));
  EXPECT_TRUE(all<SendNotify>().empty());
  answer_hello(0, kIncarnation);
  const auto notified = all<SendNotify>();
  ASSERT_EQ(notified.size(), 1U);
  EXPECT_EQ(notified[0].message.session, (SessionId{kMac, kIncarnation}));
  EXPECT_EQ(told(), Lines{"ANNOUNCED 1"});
}

TEST_F(EcuCoreTest, KeepsTheFirstIncarnationWhenTwoCmsGiveDifferentOnes) {
  make(2);
  answer_hello(1, kIncarnation);
  EXPECT_EQ(core_->incarnation(), kIncarnation);
  ASSERT_EQ(control<wire::Hello>(0).size(), 1U);
  EXPECT_EQ(control<wire::Hello>(0)[0].incarnation, kIncarnation);
  answer_hello(0, kIncarnation + 65536);  // Its answer to the first Hello, which crossed the second.
  EXPECT_EQ(core_->incarnation(), kIncarnation);
  EXPECT_EQ(core_->live_cms_count(), 1U);
  answer_hello(0, kIncarnation);
  EXPECT_EQ(core_->live_cms_count(), 2U);
}

TEST_F(EcuCoreTest, IgnoresAnAnswerForAnotherNonce) {
  make(1);
  answer_hello(0, kIncarnation, Code::kOk, kNonce + 1);
  EXPECT_EQ(core_->incarnation(), 0U);
  EXPECT_EQ(core_->live_cms_count(), 0U);
}

TEST_F(EcuCoreTest, SaysHelloWithItsIncarnationToACmsThatForgotIt) {
  make_live(1);
  answer_hello(0, 0, Code::kNotFound, 0);
  ASSERT_EQ(control<wire::Hello>(0).size(), 1U);
  EXPECT_EQ(control<wire::Hello>(0)[0].incarnation, kIncarnation);
  answer_hello(0, 0, Code::kNotFound, 0);
  EXPECT_TRUE(effects_.empty()) << "it has said Hello just now";
}

TEST_F(EcuCoreTest, RepeatsHelloEachSecondAndConnectsAnewEachTen) {
  make(1);
  for (int second = 1; second <= 20; ++second) {
    EXPECT_EQ(core_->next_deadline(), now_ + kHelloRetry);
    pass(kHelloRetry);
    EXPECT_EQ(control<wire::Hello>(0).size(), 1U);
    EXPECT_EQ(all<ReconnectControl>().size(), second % 10 == 0 ? 1U : 0U) << second;
  }
}

TEST_F(EcuCoreTest, PausesAfterARefusal) {
  make(1);
  answer_hello(0, 0, Code::kLimit);
  ASSERT_EQ(all<CmsEvent>().size(), 1U);
  EXPECT_EQ(all<CmsEvent>()[0].kind, CmsEvent::Kind::kRefused);
  pass(kRefusedPause - milliseconds(1));
  EXPECT_TRUE(control<wire::Hello>(0).empty());
  pass(milliseconds(1));
  EXPECT_EQ(control<wire::Hello>(0).size(), 1U);
}

TEST_F(EcuCoreTest, TakesACmsForSilentAfterFiveSeconds) {
  make_live(1);
  pass(kControlSilenceMax - milliseconds(1));
  EXPECT_TRUE(all<ReconnectControl>().empty());
  pass(milliseconds(1));
  EXPECT_EQ(all<ReconnectControl>().size(), 1U);
  EXPECT_EQ(control<wire::Hello>(0).size(), 1U);
  ASSERT_EQ(all<CmsEvent>().size(), 1U);
  EXPECT_EQ(all<CmsEvent>()[0].kind, CmsEvent::Kind::kSilent);
  EXPECT_EQ(core_->live_cms_count(), 0U);
}

TEST_F(EcuCoreTest, AnswersKeepACmsLive) {
  make_live(1);
  for (std::uint64_t second = 1; second <= 10; ++second) {
    pass(kHeartbeatInterval);
    ASSERT_EQ(control<wire::Heartbeat>(0).size(), 1U);
    EXPECT_EQ(control<wire::Heartbeat>(0)[0].number, second);
    say(0, wire::HeartbeatAnswer{second, second});
  }
  EXPECT_EQ(core_->live_cms_count(), 1U);
}

TEST_F(EcuCoreTest, ReplacesTheNotifyConnectionWhenNothingIsHeardOnIt) {
  make_live(1);
  for (std::uint64_t second = 1; second <= 5; ++second) {
    EXPECT_TRUE(all<ReconnectNotify>().empty()) << second;
    pass(kHeartbeatInterval);
    EXPECT_EQ(all<SendNotify>().size(), 1U) << "a beat each second";
    if (second < 5) say(0, wire::HeartbeatAnswer{second, 0});
  }
  EXPECT_EQ(all<ReconnectNotify>().size(), 1U);
}

TEST_F(EcuCoreTest, IgnoresWhatIsOfAnotherSession) {
  make_live(1);
  publish();
  call([&](Effects& effects) {
    core_->on_control(
        now_, 0, wire::ControlMessage{kIncarnation + 1, wire::Receipt{kProgram, 1, ReceiptLevel::kStored}},
        effects);
  });
  EXPECT_TRUE(effects_.empty());
  EXPECT_EQ(core_->held_count(), 1U);
}

TEST_F(EcuCoreTest, TellsACmsThatHeardNothingYetOnTheOtherChannel) {
  make_live(1);
  publish();
  ASSERT_EQ(control<wire::Heartbeat>(0).size(), 1U);
  EXPECT_EQ(control<wire::Heartbeat>(0)[0].last_seq, 1U);
  say(0, wire::HeartbeatAnswer{1, 1});
  publish();
  EXPECT_TRUE(control<wire::Heartbeat>(0).empty());
  EXPECT_EQ(all<SendNotify>().size(), 1U);
}

// ---- LIST

TEST_F(EcuCoreTest, ListsWhatIsHeldPageByPage) {
  make_live(1, 1000000);
  for (ProgramId program_id = 1; program_id <= 2 * wire::kListPageCountMax + 1; ++program_id)
    publish(program_id, 1);
  Seq from_seq = 1;
  std::vector<Seq> listed;
  for (const std::size_t expected_count :
       {wire::kListPageCountMax, wire::kListPageCountMax, std::size_t{1}}) {
    say(0, wire::List{from_seq});
    const auto pages = control<wire::ListPage>(0);
    ASSERT_EQ(pages.size(), 1U);
    EXPECT_EQ(pages[0].notifications.size(), expected_count);
    EXPECT_EQ(pages[0].last_seq, 121U);
    EXPECT_EQ(pages[0].end, expected_count == 1);
    for (const auto& notification : pages[0].notifications) listed.push_back(notification.seq);
    from_seq = pages[0].next_seq;
  }
  ASSERT_EQ(listed.size(), 121U);
  for (std::size_t i = 0; i < listed.size(); ++i) EXPECT_EQ(listed[i], i + 1);
}

TEST_F(EcuCoreTest, ListsNothingThatIsFreedOrSuperseded) {
  make_live(1);
  publish();
  fetch(1);
  publish();   // 1 is in flight: superseded, but held.
  publish(8);  // 3
  publish(8);  // 4 takes the place of 3.
  say(0, wire::List{1});
  const auto page = control<wire::ListPage>(0).at(0);
  ASSERT_EQ(page.notifications.size(), 2U);
  EXPECT_EQ(page.notifications[0].seq, 2U);
  EXPECT_EQ(page.notifications[1].seq, 4U);
  EXPECT_EQ(page.last_seq, 4U);
  EXPECT_TRUE(page.end);
}

// ---- superseding and the budget

TEST_F(EcuCoreTest, ANewerOneSupersedesOneNotYetPulled) {
  make_live(1);
  publish();
  publish();
  EXPECT_EQ(told(), (Lines{"SUPERSEDED 1!", "ANNOUNCED 2"}));
  EXPECT_EQ(alive_, 1);
}

TEST_F(EcuCoreTest, ANewerOneOfAnotherProgramSupersedesNothing) {
  make_live(1);
  publish(7);
  publish(8);
  EXPECT_EQ(told(), Lines{"ANNOUNCED 2"});
  EXPECT_EQ(alive_, 2);
}

TEST_F(EcuCoreTest, NeverSupersedesOneInFlight) {
  make_live(1);
  publish();
  fetch(1);
  publish();
  EXPECT_EQ(told(), Lines{"ANNOUNCED 2"});
  serve();
  ASSERT_EQ(all<SendChunk>().size(), 1U);
  EXPECT_TRUE(all<SendChunk>()[0].header.last);
  receipt(0, 1, ReceiptLevel::kStored);
  EXPECT_EQ(told(), (Lines{"STORED 1", "REPLICATED 1!"}));
  EXPECT_EQ(alive_, 1);
}

TEST_F(EcuCoreTest, GivesUpASupersededOneWhenItsPullIsCancelled) {
  make_live(1);
  publish();
  fetch(1, 0, 0);
  publish();
  call([&](Effects& effects) { core_->on_bulk(now_, "p", wire::Cancel{1}, effects); });
  EXPECT_EQ(told(), Lines{"SUPERSEDED 1!"});
  EXPECT_EQ(alive_, 1);
}

TEST_F(EcuCoreTest, NeverSupersedesTheLastStoredOneBeforeTheNewerIsStored) {
  make_live(2);
  publish();
  receipt(0, 1, ReceiptLevel::kStored);
  EXPECT_EQ(told(), Lines{"STORED 1"});
  publish();
  EXPECT_EQ(told(), Lines{"ANNOUNCED 2"});
  receipt(1, 2, ReceiptLevel::kStored);
  EXPECT_EQ(told(), (Lines{"SUPERSEDED 1!", "STORED 2"}));
}

TEST_F(EcuCoreTest, DropsWhatDoesNotFitTheBudgetAndSaysSo) {
  make_live(1, 250);
  publish(1, 100);
  publish(2, 100);
  publish(3, 51);
  EXPECT_EQ(told(), Lines{"DROPPED 3!"});
  EXPECT_EQ(all<ReceiptEvent>()[0].code, Code::kLimit);
  EXPECT_EQ(core_->held_memory_bytes(), 200U);
  EXPECT_EQ(alive_, 2);
  publish(4, 50);
  EXPECT_EQ(told(), Lines{"ANNOUNCED 4"}) << "exactly the budget fits";
  EXPECT_EQ(core_->held_memory_bytes(), 250U);
}

TEST_F(EcuCoreTest, WhatNeverFitsCostsTheProgramNotItsOlderOne) {
  make_live(1, 250);
  publish(kProgram, 100);
  publish(kProgram, 251);
  EXPECT_EQ(told(), Lines{"DROPPED 2!"});
  EXPECT_EQ(core_->held_memory_bytes(), 100U);
  fetch(1);
  EXPECT_EQ(told(), Lines{"PULLING 1"});
}

TEST_F(EcuCoreTest, TheSupersededMakesRoomForItsSuccessor) {
  make_live(1, 250);
  publish(kProgram, 200);
  publish(kProgram, 250);
  EXPECT_EQ(told(), (Lines{"SUPERSEDED 1!", "ANNOUNCED 2"}));
  EXPECT_EQ(core_->held_memory_bytes(), 250U);
}

TEST_F(EcuCoreTest, FreesTheStoredBeforeItDropsTheNew) {
  make_live(2, 250);
  publish(1, 100);
  receipt(0, 1, ReceiptLevel::kStored, Code::kOk, 1);
  publish(2, 100);
  publish(3, 150);
  EXPECT_EQ(told(), (Lines{"SUPERSEDED 1!", "ANNOUNCED 3"}));
  EXPECT_EQ(all<ReceiptEvent>()[0].code, Code::kLimit);
  EXPECT_EQ(core_->held_memory_bytes(), 250U);
}

// ---- receipts and release

TEST_F(EcuCoreTest, FreesAtStoredWhenToldTo) {
  make_live(2);
  publish(kProgram, 100, wire::Release::kStored);
  receipt(1, 1, ReceiptLevel::kStored);
  EXPECT_EQ(told(), Lines{"STORED 1!"});
  EXPECT_EQ(alive_, 0);
  receipt(0, 1, ReceiptLevel::kStored);
  EXPECT_TRUE(effects_.empty());
}

TEST_F(EcuCoreTest, OneCmsReplicatesByStoringIt) {
  make_live(1);
  publish();
  receipt(0, 1, ReceiptLevel::kStored);
  EXPECT_EQ(told(), (Lines{"STORED 1", "REPLICATED 1!"}));
  EXPECT_EQ(alive_, 0);
}

TEST_F(EcuCoreTest, TwoCmsReplicateWhenBothHaveStored) {
  make_live(2);
  publish();
  receipt(1, 1, ReceiptLevel::kStored);
  EXPECT_EQ(told(), Lines{"STORED 1"});
  receipt(1, 1, ReceiptLevel::kStored);
  EXPECT_TRUE(effects_.empty()) << "a repeated receipt is told once";
  EXPECT_EQ(alive_, 1);
  receipt(0, 1, ReceiptLevel::kStored);
  EXPECT_EQ(told(), Lines{"REPLICATED 1!"});
  EXPECT_EQ(alive_, 0);
}

TEST_F(EcuCoreTest, OneOfTwoNamedIsNeverReplicated) {
  make(2);
  answer_hello(0, kIncarnation);  // The other never lives.
  publish();
  receipt(0, 1, ReceiptLevel::kStored);
  EXPECT_EQ(told(), Lines{"STORED 1"});
  EXPECT_EQ(alive_, 1);
}

TEST_F(EcuCoreTest, ASilentThirdDoesNotHoldUpReplication) {
  make_live(3);
  publish();
  receipt(0, 1, ReceiptLevel::kStored);
  receipt(1, 1, ReceiptLevel::kStored);
  EXPECT_TRUE(told().empty());
  now_ += kControlSilenceMax - milliseconds(1);
  say(0, wire::HeartbeatAnswer{});
  say(1, wire::HeartbeatAnswer{});
  pass(milliseconds(1));
  EXPECT_EQ(told(), Lines{"REPLICATED 1!"});
}

TEST_F(EcuCoreTest, ARefusingThirdDoesNotHoldUpReplication) {
  make_live(3);
  publish();
  receipt(0, 1, ReceiptLevel::kStored);
  receipt(1, 1, ReceiptLevel::kStored);
  answer_hello(2, 0, Code::kNotFound, 0);  // Restarted: for the moment it has no session.
  EXPECT_EQ(told(), Lines{"REPLICATED 1!"});
}

TEST_F(EcuCoreTest, ARefusalOfOneDoesNotTakeWhatTheOtherHasStored) {
  make_live(2);
  publish();
  receipt(0, 1, ReceiptLevel::kStored);
  receipt(1, 1, ReceiptLevel::kDropped, Code::kCorrupt);
  EXPECT_TRUE(effects_.empty());
  EXPECT_EQ(alive_, 1);
}

TEST_F(EcuCoreTest, ANewerOneOfAnotherSessionEndsTheWaitForAReplica) {
  make_live(2);
  publish();
  receipt(0, 1, ReceiptLevel::kStored);
  receipt(1, 1, ReceiptLevel::kSuperseded, Code::kSuperseded);
  EXPECT_EQ(told(), Lines{"SUPERSEDED 1!"});
  EXPECT_EQ(alive_, 0);
}

TEST_F(EcuCoreTest, ANewerOneOfOursEndsItOnlyWhenStored) {
  make_live(2);
  publish();
  receipt(0, 1, ReceiptLevel::kStored);
  publish();
  receipt(1, 1, ReceiptLevel::kSuperseded, Code::kSuperseded);
  EXPECT_TRUE(effects_.empty());
  receipt(1, 2, ReceiptLevel::kStored);
  EXPECT_EQ(told(), (Lines{"SUPERSEDED 1!", "STORED 2"}));
}

TEST_F(EcuCoreTest, TheEndOfTheProgramEndsWhatIsStoredAsWell) {
  make_live(2);
  publish();
  receipt(0, 1, ReceiptLevel::kStored);
  receipt(1, 1, ReceiptLevel::kDropped, Code::kWithdrawn);
  EXPECT_EQ(told(), Lines{"DROPPED 1!"});
  EXPECT_EQ(alive_, 0);
}

// ---- an incarnation that is below one of an earlier start

TEST_F(EcuCoreTest, TakesALargerIncarnationThanOneThatWasKnownBeforeItStarted) {
  make_live(2);
  publish();
  fetch(1);
  pass(seconds(2));
  superseded_by(0, 1, Version{3 * kIncarnation, 9}, seconds(3));
  EXPECT_EQ(told(), Lines{});  // Still held.
  EXPECT_EQ(core_->incarnation(), next_incarnation(3 * kIncarnation, kNonce));
  EXPECT_EQ(all<SendTransferError>().size(), 1U);
  for (CmsIndex cms = 0; cms < 2; ++cms) {
    ASSERT_EQ(control<wire::Hello>(cms).size(), 1U);
    EXPECT_EQ(control<wire::Hello>(cms).front().incarnation, core_->incarnation());
    EXPECT_EQ(control<wire::Hello>(cms).front().last_seq, 1U);
  }
  answer_hello(0, core_->incarnation());
  say(0, wire::List{1});
  ASSERT_EQ(control<wire::ListPage>(0).size(), 1U);
  ASSERT_EQ(control<wire::ListPage>(0).front().notifications.size(), 1U);
  EXPECT_EQ(control<wire::ListPage>(0).front().notifications.front().seq, 1U);
  serve();  // Of the former transfer nothing goes out any more.
  EXPECT_TRUE(all<SendChunk>().empty());
}

TEST_F(EcuCoreTest, KeepsItsIncarnationBelowOneThatStartedLater) {
  make_live(1);
  publish();
  pass(seconds(2));
  superseded_by(0, 1, Version{3 * kIncarnation, 9}, seconds(2));
  EXPECT_EQ(told(), Lines{"SUPERSEDED 1!"});
  EXPECT_EQ(core_->incarnation(), kIncarnation);
}

TEST_F(EcuCoreTest, TakesALargerIncarnationForWhatIsPublishedAfterTheOtherWasStored) {
  make_live(1);
  publish();
  publish(kProgram + 1);
  superseded_by(0, 1, Version{3 * kIncarnation, 9}, seconds(0));
  EXPECT_EQ(told(), Lines{"SUPERSEDED 1!"});
  // Published before the other was known to be stored: who can say?
  superseded_by(0, 2, Version{3 * kIncarnation, 9}, seconds(0), false, kProgram + 1);
  EXPECT_EQ(told(), Lines{"SUPERSEDED 2!"});
  publish();
  superseded_by(0, 3, Version{3 * kIncarnation, 9}, seconds(0));
  EXPECT_EQ(told(), Lines{});
  EXPECT_EQ(core_->incarnation(), next_incarnation(3 * kIncarnation, kNonce));
}

TEST_F(EcuCoreTest, OfTwoThatLiveTheOneWithTheLargerIncarnationHasItsWay) {
  make_live(1);
  for (Seq seq = 1; seq <= 3; ++seq) {
    publish();
    superseded_by(0, seq, Version{3 * kIncarnation, 9}, seconds(0), true);
    EXPECT_EQ(told(), Lines{"SUPERSEDED " + std::to_string(seq) + "!"});
  }
  EXPECT_EQ(core_->incarnation(), kIncarnation);
}

TEST_F(EcuCoreTest, AnOtherThatGoesOnIsNotOvertakenByWhatIsOlder) {
  make_live(1);
  for (Seq seq = 1; seq <= 3; ++seq) {
    publish();
    superseded_by(0, seq, Version{3 * kIncarnation, seq}, seconds(0));  // Each time a newer one.
  }
  EXPECT_EQ(core_->incarnation(), kIncarnation);
}

TEST_F(EcuCoreTest, TakesLargerIncarnationsEverMoreSeldom) {
  make_live(1);
  const auto renewed_by = [&](Version newer) {
    const Incarnation before = core_->incarnation();
    publish();
    superseded_by(0, core_->last_seq(), newer, std::chrono::hours(1000));
    return core_->incarnation() != before;
  };
  EXPECT_TRUE(renewed_by(Version{kIncarnation << 8, 1}));
  EXPECT_FALSE(renewed_by(Version{kIncarnation << 9, 1}));
  EXPECT_EQ(told(), Lines{"SUPERSEDED 2!"});
  pass(kRenewPauseMin);
  EXPECT_TRUE(renewed_by(Version{kIncarnation << 10, 1}));
  pass(kRenewPauseMin);
  EXPECT_FALSE(renewed_by(Version{kIncarnation << 11, 1}));
  pass(kRenewPauseMin);
  EXPECT_TRUE(renewed_by(Version{kIncarnation << 12, 1}));
}

TEST_F(EcuCoreTest, KeepsItsIncarnationWhenThereIsNoLargerOne) {
  make_live(1);
  publish();
  superseded_by(0, 1, Version{UINT64_MAX, 1}, seconds(9));
  EXPECT_EQ(core_->incarnation(), kIncarnation);
  EXPECT_EQ(told(), Lines{"SUPERSEDED 1!"});
}

TEST_F(EcuCoreTest, WhatWasStoredUnderTheFormerIncarnationIsStoredOnceMoreAndToldOnce) {
  make_live(2);
  publish();
  receipt(0, 1, ReceiptLevel::kStored);
  EXPECT_EQ(told(), Lines{"STORED 1"});
  superseded_by(1, 1, Version{3 * kIncarnation, 9}, seconds(9));
  EXPECT_EQ(told(), Lines{});
  answer_hello(0, core_->incarnation());
  answer_hello(1, core_->incarnation());
  receipt(1, 1, ReceiptLevel::kStored);
  EXPECT_EQ(told(), Lines{});
  receipt(0, 1, ReceiptLevel::kStored);
  EXPECT_EQ(told(), Lines{"REPLICATED 1!"});
  EXPECT_EQ(all<ReceiptEvent>().front().incarnation, core_->incarnation());
}

TEST_F(EcuCoreTest, WhatWasStoredUnderTheFormerIncarnationOnlyIsStoredAtTheEnd) {
  make_live(2);
  publish();
  receipt(0, 1, ReceiptLevel::kStored);
  superseded_by(1, 1, Version{3 * kIncarnation, 9}, seconds(9));
  call([&](Effects& effects) { core_->stop(effects); });
  EXPECT_EQ(told(), Lines{"STORED 1!"});
  EXPECT_EQ(all<ReceiptEvent>().front().incarnation, kIncarnation);
}

TEST_F(EcuCoreTest, PassesARefusalOnWithItsReason) {
  make_live(1);
  publish();
  receipt(0, 1, ReceiptLevel::kDropped, Code::kCorrupt);
  ASSERT_EQ(told(), Lines{"DROPPED 1!"});
  EXPECT_EQ(all<ReceiptEvent>()[0].code, Code::kCorrupt);
  EXPECT_EQ(all<ReceiptEvent>()[0].reason, "why");
  EXPECT_EQ(alive_, 0);
}

TEST_F(EcuCoreTest, IgnoresAReceiptForAnotherProgram) {
  make_live(1);
  publish();
  receipt(0, 1, ReceiptLevel::kStored, Code::kOk, kProgram + 1);
  receipt(0, 2, ReceiptLevel::kStored);
  EXPECT_TRUE(effects_.empty());
  EXPECT_EQ(alive_, 1);
}

TEST_F(EcuCoreTest, HeartbeatsSayHowManyWaitForReceipts) {
  make_live(1);
  EXPECT_EQ(waiting(), 0U);
  publish(1);
  publish(2);
  EXPECT_EQ(waiting(), 2U);
  receipt(0, 1, ReceiptLevel::kStored, Code::kOk, 1);
  EXPECT_EQ(waiting(), 1U);
}

TEST_F(EcuCoreTest, TellsOfPullingOnce) {
  make_live(1);
  publish();
  fetch(1);
  EXPECT_EQ(told(), Lines{"PULLING 1"});
  fetch(1);
  EXPECT_TRUE(told().empty());
}

}  // namespace
}  // namespace cms::broker
