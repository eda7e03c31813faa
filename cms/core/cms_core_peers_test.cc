// Several CMS instances: who pulls, what each tells, and what happens when one falls silent.
#include "cms/core/two_cms_test.h"

namespace cms::core {
namespace {

// ---- who pulls

TEST(CmsPeersTest, RendezvousSharesProgramsAboutEvenly) {
  std::size_t of_a = 0;
  for (ProgramId id = 0; id < 2000; ++id) {
    const ProgramKey program{ecu_mac_of(id % 20), id};
    if (rendezvous_weight("a", program) > rendezvous_weight("b", program)) ++of_a;
  }
  EXPECT_GT(of_a, 850U);  // Binomial, six standard deviations are 134.
  EXPECT_LT(of_a, 1150U);
}

TEST(CmsPeersTest, PullsItsOwnProgramsAndLeavesThePeersToIt) {
  TwoCms cms;
  const Client client = cms.open_with_peer();
  const ProgramId ours = program_of("a", "b", client);
  const ProgramId theirs = program_of("b", "a", client);
  cms.announce(client, notification_of(ours, 1));
  EXPECT_NE(cms.transfer_of(client.program(ours)), 0U);
  cms.announce(client, notification_of(theirs, 2));
  EXPECT_EQ(cms.transfer_of(client.program(theirs)), 0U);
}

TEST(CmsPeersTest, PullsEverythingWithoutALivePeerThatTakesPulls) {
  TwoCms alone;
  const Client client = alone.open();
  EXPECT_EQ(client.incarnation, 0U) << "not before the peers had their time to tell";
  alone.pass(kGreetingMax);
  Client late = alone.open(2);
  ASSERT_NE(late.incarnation, 0U);
  const ProgramId theirs = program_of("b", "a", late);
  alone.announce(late, notification_of(theirs, 1));
  EXPECT_NE(alone.transfer_of(late.program(theirs)), 0U);

  TwoCms cms;
  const Client other = cms.open_with_peer();
  cms.hear(TwoCms::beat(false));  // Its store is away, or it is ending.
  const ProgramId of_b = program_of("b", "a", other);
  cms.announce(other, notification_of(of_b, 1));
  EXPECT_NE(cms.transfer_of(other.program(of_b)), 0U);
}

TEST(CmsPeersTest, PullsEverythingItselfWhenToldTo) {
  CmsCoreConfig config = config_with_peer();
  config.pull_every = true;
  TwoCms cms(config);
  const Client client = cms.open_with_peer();
  const ProgramId theirs = program_of("b", "a", client);
  cms.announce(client, notification_of(theirs, 1));
  const TransferId id = cms.transfer_of(client.program(theirs));
  EXPECT_NE(id, 0U);
  cms.indexed(CheckpointId{client.program(theirs), Version{client.incarnation, 1}});
  EXPECT_EQ(cms.transfer_of(client.program(theirs)), id) << "whatever the peer has stored";
}

TEST(CmsPeersTest, TakesOverAtOnceWhenThePeerFallsSilent) {
  TwoCms cms;
  const Client client = cms.open_with_peer();
  const ProgramId theirs = program_of("b", "a", client);
  cms.announce(client, notification_of(theirs, 1));
  cms.pass(kPeerSilentMax - milliseconds(1));
  EXPECT_EQ(cms.transfer_of(client.program(theirs)), 0U);
  cms.pass(milliseconds(1));
  EXPECT_NE(cms.transfer_of(client.program(theirs)), 0U);
  EXPECT_EQ(cms.all<ReconcileStore>().size(), 1U) << "it may have stored something and not told";
}

TEST(CmsPeersTest, TakesOverWhatAnIdlePeerDoesNotComeTo) {
  TwoCms cms;
  const Client client = cms.open_with_peer();
  const ProgramId theirs = program_of("b", "a", client);
  cms.announce(client, notification_of(theirs, 1));
  cms.pass_with_peer(kPeerPullMax - kPeerBeatInterval);
  EXPECT_EQ(cms.transfer_of(client.program(theirs)), 0U);
  cms.pass_with_peer(kPeerBeatInterval);
  EXPECT_NE(cms.transfer_of(client.program(theirs)), 0U);
  EXPECT_EQ(cms.core.counters().taken_over, 1U);
}

TEST(CmsPeersTest, NewerAnnouncementsDoNotRestartThePeersTime) {
  TwoCms cms;
  const Client client = cms.open_with_peer();
  const ProgramId theirs = program_of("b", "a", client);
  Seq seq = 0;
  for (Duration passed{}; passed < kPeerPullMax; passed += kPeerBeatInterval) {
    cms.announce(client, notification_of(theirs, ++seq));
    cms.pass_with_peer(kPeerBeatInterval);
  }
  EXPECT_NE(cms.transfer_of(client.program(theirs)), 0U);
}

TEST(CmsPeersTest, APeerThatPullsItHasAsLongAsItMakesProgress) {
  TwoCms cms;
  const Client client = cms.open_with_peer();
  const ProgramId theirs = program_of("b", "a", client);
  cms.announce(client, notification_of(theirs, 1));
  wire::PeerBeat at_it = TwoCms::beat();
  at_it.pulling = {client.program(theirs)};
  cms.pass_with_peer(kPeerBusyMax * 3, at_it);
  EXPECT_EQ(cms.transfer_of(client.program(theirs)), 0U);
  cms.pass_with_peer(kPeerBeatInterval * 2);
  EXPECT_NE(cms.transfer_of(client.program(theirs)), 0U);
}

TEST(CmsPeersTest, ABusyPeerHasMoreTimeButNotForEver) {
  TwoCms cms;
  const Client client = cms.open_with_peer();
  const ProgramId theirs = program_of("b", "a", client);
  cms.announce(client, notification_of(theirs, 1));
  const Instant announced_at = cms.now;
  wire::PeerBeat busy = TwoCms::beat();
  while (cms.transfer_of(client.program(theirs)) == 0 && cms.now - announced_at < 2 * kPeerBusyMax) {
    busy.pulled_bytes += 1;
    cms.pass_with_peer(kPeerBeatInterval, busy);
  }
  EXPECT_GE(cms.now - announced_at, kPeerBusyMax);
  EXPECT_LE(cms.now - announced_at, kPeerBusyMax + 2 * kPeerBeatInterval);
}

// ---- what a peer stored

TEST(CmsPeersTest, SaysStoredOnceThePeersCheckpointIsInItsOwnIndex) {
  TwoCms cms;
  const Client client = cms.open_with_peer();
  const ProgramId theirs = program_of("b", "a", client);
  const CheckpointId checkpoint{client.program(theirs), Version{client.incarnation, 1}};
  cms.announce(client, notification_of(theirs, 1));
  cms.hear(wire::PeerStored{{stored_of(checkpoint)}});
  EXPECT_TRUE(cms.told(client).empty());
  ASSERT_EQ(cms.all<IndexStored>().size(), 1U);
  EXPECT_EQ(cms.all<IndexStored>()[0].rows.at(0).name.checkpoint, checkpoint);
  cms.indexed(checkpoint);
  EXPECT_EQ(cms.told(client), Lines{"STORED 1"});
  cms.pass_with_peer(kPeerBusyMax);
  EXPECT_EQ(cms.core.counters().pulls_started, 0U);
}

TEST(CmsPeersTest, GivesUpItsPullOfWhatThePeerHasStored) {
  TwoCms cms;
  const Client client = cms.open_with_peer();
  const ProgramId ours = program_of("a", "b", client);
  cms.announce(client, notification_of(ours, 1, 3 * kMiB));
  ASSERT_NE(cms.transfer_of(client.program(ours)), 0U);
  cms.indexed(CheckpointId{client.program(ours), Version{client.incarnation, 1}});
  EXPECT_EQ(cms.told(client), Lines{"STORED 1"});
  EXPECT_EQ(cms.transfer_of(client.program(ours)), 0U);
  EXPECT_EQ(cms.bulk<wire::Cancel>().size(), 1U);
  EXPECT_EQ(cms.all<DropStore>().size(), 1U);
  EXPECT_EQ(cms.core.in_flight_bytes(), 0U);
}

TEST(CmsPeersTest, FinishesWhatLiesCompletelyWithItsStore) {
  TwoCms cms;
  const Client client = cms.open_with_peer();
  const ProgramId ours = program_of("a", "b", client);
  cms.announce(client, notification_of(ours, 1));
  const TransferId id = cms.transfer_of(client.program(ours));
  cms.deliver_all(id);
  cms.indexed(CheckpointId{client.program(ours), Version{client.incarnation, 1}});
  EXPECT_EQ(cms.transfer_of(client.program(ours)), id);
  cms.stored(id);
  EXPECT_EQ(cms.told(client), Lines{"STORED 1"});
}

TEST(CmsPeersTest, TellsThePeersOfWhatIsStoredInOneEvent) {
  TwoCms cms;
  const Client client = cms.open_with_peer();
  std::vector<ProgramKey> programs;
  Seq seq = 0;
  for (ProgramId id = 0; programs.size() < 3; ++id) {
    if (rendezvous_weight("a", client.program(id)) < rendezvous_weight("b", client.program(id))) continue;
    cms.announce(client, notification_of(id, ++seq));
    cms.store(client.program(id));
    programs.push_back(client.program(id));
  }
  cms.feed([&](Effects& out) { cms.core.tell_peers(out); });
  const auto told = cms.told_peers<wire::PeerStored>();
  ASSERT_EQ(told.size(), 1U);
  ASSERT_EQ(told[0].checkpoints.size(), programs.size());
  for (std::size_t i = 0; i < programs.size(); ++i)
    EXPECT_EQ(told[0].checkpoints[i].checkpoint.program, programs[i]);
  cms.feed([&](Effects& out) { cms.core.tell_peers(out); });
  EXPECT_TRUE(cms.told_peers<wire::PeerStored>().empty()) << "once";
}

TEST(CmsPeersTest, ALargeBacklogOfEventsIsCutIntoMessagesThatFitAFrame) {
  TwoCms cms;
  const Client client = cms.open_with_peer();
  std::size_t count = 0;
  Seq seq = 0;
  for (ProgramId id = 0; count < wire::kPeerStoredCountMax + 1; ++id) {
    if (rendezvous_weight("a", client.program(id)) < rendezvous_weight("b", client.program(id))) continue;
    cms.announce(client, notification_of(id, ++seq));
    cms.store(client.program(id));
    ++count;
  }
  cms.feed([&](Effects& out) { cms.core.tell_peers(out); });
  const auto told = cms.told_peers<wire::PeerStored>();
  ASSERT_EQ(told.size(), 2U);
  EXPECT_EQ(told[0].checkpoints.size(), wire::kPeerStoredCountMax);
  EXPECT_EQ(told[1].checkpoints.size(), 1U);
}

TEST(CmsPeersTest, ASessionThatEndsWhileThePeerPullsIsNoFailureHere) {
  TwoCms cms;
  const Client client = cms.open_with_peer();
  cms.announce(client, notification_of(program_of("b", "a", client), 1));
  cms.say(client, wire::Bye{});
  EXPECT_TRUE(cms.core.failures().empty());
  EXPECT_EQ(cms.log_count(LogEvent::Level::kWarning), 0U);
}

// ---- what was missed

TEST(CmsPeersTest, AMissedEventMakesItLookIntoTheStore) {
  TwoCms cms;
  const Client client = cms.open_with_peer();
  const ProgramId theirs = program_of("b", "a", client);
  cms.announce(client, notification_of(theirs, 1));
  ++cms.event;  // Lost on its way.
  cms.facts[client.program(theirs)].newest = Version{client.incarnation, 1};
  cms.hear(TwoCms::beat());
  cms.pass(milliseconds(1));
  EXPECT_EQ(cms.all<ReconcileStore>().size(), 1U);
  EXPECT_EQ(cms.told(client), Lines{"STORED 1"});
  cms.hear(TwoCms::beat());
  cms.pass(kPeerReconcileInterval);
  EXPECT_EQ(cms.core.counters().reconciled_for_peers, 2U) << "the second time because it fell silent";
}

TEST(CmsPeersTest, GapsInARowMakeItLookOnceAnInterval) {
  TwoCms cms;
  cms.hear(TwoCms::beat());
  for (int i = 0; i < 20; ++i) {
    ++cms.event;
    cms.hear(TwoCms::beat());
    cms.pass(milliseconds(100));
  }
  EXPECT_EQ(cms.core.counters().reconciled_for_peers, 1U);
}

TEST(CmsPeersTest, APeerHeardFirstOrRestartedMakesItLook) {
  TwoCms cms;
  cms.hear(TwoCms::beat());
  cms.pass(milliseconds(1));
  EXPECT_EQ(cms.core.counters().reconciled_for_peers, 1U);
  cms.pass_with_peer(kPeerReconcileInterval);
  EXPECT_EQ(cms.core.counters().reconciled_for_peers, 1U);
  wire::PeerMessage message;
  message.cms_name = "b";
  message.incarnation = kPeerIncarnation + 1;
  message.body = TwoCms::beat();
  cms.hear(message);
  cms.pass(milliseconds(1));
  EXPECT_EQ(cms.core.counters().reconciled_for_peers, 2U);
}

TEST(CmsPeersTest, APeerThatIsNeverHeardMakesItLookOnce) {
  TwoCms cms;
  cms.pass(kGreetingMax);
  EXPECT_EQ(cms.core.counters().reconciled_for_peers, 1U);
  cms.pass(kPeerReconcileInterval);
  EXPECT_EQ(cms.core.counters().reconciled_for_peers, 1U);
}

TEST(CmsPeersTest, AnEventThatComesTwiceIsTakenOnce) {
  TwoCms cms;
  const Client client = cms.open_with_peer();
  const auto stored = wire::PeerStored{{stored_of(CheckpointId{client.program(1), Version{1, 1}})}};
  cms.hear(stored);
  EXPECT_EQ(cms.all<IndexStored>().size(), 1U);
  --cms.event;
  cms.hear(stored);
  EXPECT_TRUE(cms.all<IndexStored>().empty());
}

TEST(CmsPeersTest, WhatTheIndexCouldNotTakeIsLookedForInTheStore) {
  TwoCms cms;
  cms.feed(
      [&](Effects& out) { cms.core.on_peer_not_indexed(cms.now, make_error(Code::kNoSpace, "full"), out); });
  EXPECT_EQ(cms.log_count(LogEvent::Level::kError), 1U);
  cms.pass(milliseconds(1));
  EXPECT_EQ(cms.all<ReconcileStore>().size(), 1U);
}

// ---- withdrawals

TEST(CmsPeersTest, TellsOfAWithdrawalAndHonoursAPeers) {
  TwoCms cms;
  const Client client = cms.open_with_peer();
  const ProgramId ours = program_of("a", "b", client);
  cms.announce(client, notification_of(ours, 1, 3 * kMiB));
  const Version up_to{client.incarnation, 1};
  cms.hear(wire::PeerWithdrawn{client.program(ours), up_to});
  ASSERT_EQ(cms.all<NoteWithdrawn>().size(), 1U);
  cms.feed([&](Effects& out) { cms.core.on_peer_withdrawn(cms.now, client.program(ours), up_to, out); });
  EXPECT_EQ(cms.told(client), Lines{"DROPPED(withdrawn) 1"});
  EXPECT_TRUE(cms.told_peers<wire::PeerWithdrawn>().empty()) << "the peer told everybody itself";

  WithdrawProgram asked;
  asked.program = client.program(ours);
  cms.feed([&](Effects& out) { cms.core.on_withdrawn(cms.now, asked, up_to, out); });
  ASSERT_EQ(cms.told_peers<wire::PeerWithdrawn>().size(), 1U);
  EXPECT_EQ(cms.told_peers<wire::PeerWithdrawn>()[0].up_to, up_to);
}

// ---- incarnations

TEST(CmsPeersTest, GivesNoIncarnationBeforeThePeerHasToldWhichItGave) {
  TwoCms cms;
  Client client = client_of(1);
  cms.hear(TwoCms::beat());
  cms.hello(client);
  EXPECT_EQ(client.incarnation, 0U);
  cms.hear(wire::PeerIncarnations{{SessionId{client.ecu_mac, Incarnation{9} << 16}}, 0});
  ASSERT_EQ(cms.all<NoteIncarnations>().size(), 1U);
  cms.max_incarnation[client.ecu_mac] = Incarnation{9} << 16;
  cms.greeted();
  const auto answers = cms.sent<wire::HelloAnswer>(client);
  ASSERT_EQ(answers.size(), 1U);
  EXPECT_GT(answers[0].incarnation, Incarnation{9} << 16);
}

TEST(CmsPeersTest, ASessionThatHasItsIncarnationNeedNotWait) {
  TwoCms cms;
  Client client = client_of(1);
  client.incarnation = 65537;
  cms.hello(client);
  ASSERT_EQ(cms.sent<wire::HelloAnswer>(client).size(), 1U);
  EXPECT_EQ(cms.sent<wire::HelloAnswer>(client)[0].code, Code::kOk);
}

TEST(CmsPeersTest, AnIncarnationGivenElsewhereMeanwhileIsTaken) {
  TwoCms cms;
  cms.hear(TwoCms::beat());
  cms.greeted();
  Client client = client_of(1);
  cms.index_answers = false;
  cms.hello(client);
  const auto slow = cms.all<ReserveIncarnation>();
  client.incarnation = 65537;  // The other CMS was faster.
  cms.hello(client);
  const auto fast = cms.all<ReserveIncarnation>();
  ASSERT_EQ(slow.size() + fast.size(), 2U);
  cms.feed(
      [&](Effects& out) { cms.core.on_incarnation_reserved(cms.now, slow[0], Incarnation{131073}, out); });
  EXPECT_TRUE(cms.core.sessions().empty());
  cms.feed(
      [&](Effects& out) { cms.core.on_incarnation_reserved(cms.now, fast[0], Incarnation{65537}, out); });
  ASSERT_EQ(cms.core.sessions().size(), 1U);
  EXPECT_EQ(cms.core.sessions().begin()->first, client.session());
}

TEST(CmsPeersTest, AnIncarnationThatTheClientDidNotTakeLeavesNoSession) {
  TwoCms cms;
  cms.hear(TwoCms::beat());
  cms.greeted();
  Client client = client_of(1);
  cms.hello(client);
  ASSERT_NE(client.incarnation, 0U);
  client.incarnation += 1;  // That of the other CMS, whose answer came first.
  cms.hello(client);
  ASSERT_EQ(cms.core.sessions().size(), 1U);
  EXPECT_EQ(cms.core.sessions().begin()->first, client.session());
  EXPECT_EQ(cms.log_count(LogEvent::Level::kWarning), 0U);
}

TEST(CmsPeersTest, GreetsAPeerThatAsksWithAllItsSessionsAndTellsOfNewOnes) {
  TwoCms cms;
  const Client first = cms.open_with_peer();
  Client second = client_of(2);
  cms.hello(second);
  ASSERT_EQ(cms.told_peers<wire::PeerIncarnations>().size(), 1U);
  wire::PeerBeat asks = TwoCms::beat();
  asks.wants_greeting = {11};
  cms.hear(asks);
  const auto told = cms.told_peers<wire::PeerIncarnations>();
  ASSERT_EQ(told.size(), 1U);
  EXPECT_EQ(told[0].greets, kPeerIncarnation);
  EXPECT_EQ(told[0].incarnations, (std::vector<SessionId>{first.session(), second.session()}));
  cms.hear(asks);
  EXPECT_TRUE(cms.told_peers<wire::PeerIncarnations>().empty()) << "it is on its way";
}

TEST(CmsPeersTest, AGreetingWithAPageMissingIsAskedForOnceMore) {
  TwoCms cms;
  cms.hear(TwoCms::beat());
  ++cms.event;  // The first page is lost.
  cms.greeted();
  cms.pass(kPeerBeatInterval);
  ASSERT_EQ(cms.told_peers<wire::PeerBeat>().size(), 1U);
  EXPECT_EQ(cms.told_peers<wire::PeerBeat>()[0].wants_greeting, std::vector<std::uint64_t>{kPeerIncarnation});
  cms.greeted();
  cms.pass(kPeerBeatInterval);
  ASSERT_EQ(cms.told_peers<wire::PeerBeat>().size(), 1U);
  EXPECT_TRUE(cms.told_peers<wire::PeerBeat>()[0].wants_greeting.empty());
}

TEST(CmsPeersTest, BeatsFourTimesASecondAndAsksForAGreeting) {
  TwoCms cms;
  cms.hear(TwoCms::beat());
  cms.pass(kPeerBeatInterval);
  auto told = cms.told_peers<wire::PeerBeat>();
  ASSERT_EQ(told.size(), 1U);
  EXPECT_TRUE(told[0].takes_pulls);
  EXPECT_EQ(told[0].wants_greeting, std::vector<std::uint64_t>{kPeerIncarnation});
  cms.greeted();
  EXPECT_LE(cms.core.next_deadline(), cms.now + kPeerBeatInterval);
  cms.store_state(make_error(Code::kUnavailable, "away"));
  cms.pass(kPeerBeatInterval);
  told = cms.told_peers<wire::PeerBeat>();
  ASSERT_EQ(told.size(), 1U);
  EXPECT_FALSE(told[0].takes_pulls);
  EXPECT_TRUE(told[0].wants_greeting.empty());
}

// ---- peers that are none

TEST(CmsPeersTest, APeerOfAnotherFleetIsRefusedAndSaysNothingThatCounts) {
  TwoCms cms;
  wire::PeerMessage message;
  message.cms_name = "b";
  message.incarnation = kPeerIncarnation;
  message.fleet_id = Id128{3, 4};
  message.event = 1;
  message.body = wire::PeerStored{{stored_of(CheckpointId{ProgramKey{ecu_mac_of(1), 1}, Version{1, 1}})}};
  cms.hear(message);
  EXPECT_TRUE(cms.all<IndexStored>().empty());
  EXPECT_EQ(cms.log_count(LogEvent::Level::kError), 1U);
  EXPECT_TRUE(cms.core.peers().peers().at("b").foreign);
  cms.hear(message);
  EXPECT_EQ(cms.log_count(), 0U) << "once a minute";
}

TEST(CmsPeersTest, OfTwoOfOneNameTheYoungerGivesWay) {
  TwoCms cms;
  cms.pass(seconds(10));
  wire::PeerMessage message;
  message.cms_name = "a";
  message.incarnation = 12;
  wire::PeerBeat beat = TwoCms::beat();
  beat.uptime_ms = 5000;
  message.body = beat;
  cms.hear(message);
  EXPECT_TRUE(cms.all<GiveUp>().empty());
  EXPECT_EQ(cms.log_count(LogEvent::Level::kError), 1U);
  beat.uptime_ms = 20000;
  message.body = beat;
  cms.hear(message);
  ASSERT_EQ(cms.all<GiveUp>().size(), 1U);
  EXPECT_EQ(cms.all<GiveUp>()[0].code, Code::kAlreadyExists);
}

TEST(CmsPeersTest, APeerListThatNamesItselfIsWrongUsage) {
  TwoCms cms;
  wire::PeerMessage message;
  message.cms_name = "a";
  message.incarnation = 11;
  message.body = TwoCms::beat();
  cms.hear(message);
  ASSERT_EQ(cms.all<GiveUp>().size(), 1U);
  EXPECT_EQ(cms.all<GiveUp>()[0].code, Code::kInvalidArgument);
}

TEST(CmsPeersTest, MorePeersThanThereMayBeAreNotListenedTo) {
  TwoCms cms;
  wire::PeerMessage message;
  message.incarnation = 1;
  message.body = TwoCms::beat();
  for (std::size_t i = 0; i < wire::kPeerCountMax + 1; ++i) {
    message.cms_name = "peer" + std::to_string(i);
    cms.hear(message);
  }
  EXPECT_EQ(cms.core.peers().peers().size(), wire::kPeerCountMax);
}

}  // namespace
}  // namespace cms::core
