#include "cms/core/core_driver_test.h"

namespace cms::core {
namespace {

Code refusal(const CoreDriver& cms, const Client& client) {
  const auto answers = cms.sent<wire::HelloAnswer>(client);
  return answers.size() == 1 ? answers[0].code : Code::kOk;
}

// ---- Hello

TEST(IncarnationTest, CountsAboveSixteenBitsOfTheNonce) {
  EXPECT_EQ(next_incarnation(0, 0xffff1234), 0x11234U);
  EXPECT_EQ(next_incarnation(0x51234, 7), 0x60007U);
}

TEST(IncarnationTest, NoneIsLeftAboveTheLargest) {
  EXPECT_EQ(next_incarnation(UINT64_MAX, 7), 0U);
  EXPECT_EQ(next_incarnation(0xfffffffffffe0000, 7), 0xffffffffffff0007U);
}

TEST(CmsSessionsTest, GivesAnIncarnationAndAsksListAtOnce) {
  CoreDriver cms;
  Client client = client_of(0x1234);
  cms.hello(client);
  EXPECT_EQ(client.incarnation, 0x11234U);
  const auto answer = cms.sent<wire::HelloAnswer>(client).at(0);
  EXPECT_EQ(answer.nonce, client.nonce);
  EXPECT_EQ(answer.cms_name, "a");
  ASSERT_EQ(cms.sent<wire::List>(client).size(), 1U);
  EXPECT_EQ(cms.sent<wire::List>(client)[0].from_seq, 1U);
}

TEST(CmsSessionsTest, ARepeatedHelloFindsItsSession) {
  CoreDriver cms;
  Client client = cms.open();
  Client again = client;
  again.incarnation = 0;  // The answer was lost,
  again.peer = "p2";      // and the connection is a new one.
  cms.hello(again);
  EXPECT_EQ(again.incarnation, client.incarnation);
  EXPECT_EQ(cms.core.sessions().size(), 1U);
  EXPECT_EQ(cms.sent<wire::List>(again).size(), 1U) << "receipts may have been lost";
  cms.heartbeat(client, 0);
  EXPECT_EQ(refusal(cms, client), Code::kNotFound) << "the old connection speaks for nobody";
}

TEST(CmsSessionsTest, AClientFromBeforeARestartComesBackWithItsIncarnation) {
  CoreDriver cms;
  Client client = client_of(1);
  client.incarnation = 0x50001;
  cms.heartbeat(client, 3);
  EXPECT_EQ(refusal(cms, client), Code::kNotFound);
  cms.hello(client);
  EXPECT_EQ(client.incarnation, 0x50001U);
  EXPECT_EQ(cms.core.sessions().count(client.session()), 1U);
}

TEST(CmsSessionsTest, AByeOfNobodyIsNotAnswered) {
  CoreDriver cms;
  cms.say(client_of(1), wire::Bye{});
  EXPECT_TRUE(cms.effects.empty());
}

TEST(CmsSessionsTest, RefusesAProtocolThatItDoesNotSpeak) {
  CoreDriver cms;
  const Client client = client_of(1);
  wire::Hello hello = cms.hello_of(client);
  hello.protocol_version = hello.protocol_version_min = wire::kProtocolVersion + 1;
  cms.say(client, hello);
  EXPECT_EQ(refusal(cms, client), Code::kUnsupported);
  EXPECT_TRUE(cms.core.sessions().empty());
  EXPECT_EQ(cms.log_count(), 1U);
  cms.say(client, hello);  // As it will, every few seconds.
  EXPECT_EQ(cms.log_count(), 0U);
  EXPECT_EQ(cms.core.counters().refused_hellos, 2U);
  hello.protocol_version_min = wire::kProtocolVersion;  // It speaks the next one as well as ours.
  cms.say(client, hello);
  EXPECT_EQ(cms.core.sessions().size(), 1U);
}

TEST(CmsSessionsTest, RefusesAClientWithoutABulkPort) {
  CoreDriver cms;
  const Client client = client_of(1);
  wire::Hello hello = cms.hello_of(client);
  hello.bulk_port = 0;
  cms.say(client, hello);
  EXPECT_EQ(refusal(cms, client), Code::kInvalidArgument);
}

TEST(CmsSessionsTest, DialsAnAdvertisedHostOnlyWhenAllowed) {
  CmsCoreConfig config = default_config();
  config.advertise_allowed = {"ecu7"};
  CoreDriver cms(config);
  Client client = client_of(1);
  wire::Hello hello = cms.hello_of(client);
  hello.advertise_host = "elsewhere";
  cms.say(client, hello);
  EXPECT_EQ(refusal(cms, client), Code::kPermission);
  hello.advertise_host = "ecu7";
  cms.say(client, hello);
  client.incarnation = cms.sent<wire::HelloAnswer>(client).at(0).incarnation;
  cms.page(client, {notification_of(7, 1)}, 1);
  ASSERT_EQ(cms.all<OpenLink>().size(), 1U);
  EXPECT_EQ(cms.all<OpenLink>()[0].endpoint, "tcp://ecu7:7600");
}

TEST(CmsSessionsTest, DialsThePeersAddress) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.announce(client, notification_of(7, 1));
  EXPECT_EQ(cms.all<OpenLink>().at(0).endpoint, "tcp://10.0.0.7:7600");
  EXPECT_EQ(endpoint_of("fe80::1", 7600), "tcp://[fe80::1]:7600");
}

TEST(CmsSessionsTest, RefusesASecondOwnerOfAnIncarnation) {
  CoreDriver cms;
  const Client client = cms.open();
  Client other = client;
  other.nonce = 99;
  other.peer = "p2";
  cms.hello(other);
  EXPECT_EQ(refusal(cms, other), Code::kAlreadyExists);
  cms.heartbeat(client, 0);
  EXPECT_EQ(cms.sent<wire::HeartbeatAnswer>(client).size(), 1U);
}

TEST(CmsSessionsTest, ManySessionsOfOneEcuLiveSideBySide) {
  CoreDriver cms;
  std::set<Incarnation> incarnations;
  for (std::uint64_t number = 1; number <= 24; ++number) {
    Client client = client_of(number);
    client.ecu_mac = ecu_mac_of(1);
    cms.hello(client);
    incarnations.insert(client.incarnation);
  }
  EXPECT_EQ(incarnations.size(), 24U);
  EXPECT_EQ(cms.core.sessions().size(), 24U);
}

TEST(CmsSessionsTest, RefusesMoreSessionsThanItsLimit) {
  CoreDriver cms;
  for (std::uint64_t number = 1; number <= kSessionCountMax; ++number) cms.open(number);
  Client one_more = client_of(kSessionCountMax + 1);
  cms.hello(one_more);
  EXPECT_EQ(refusal(cms, one_more), Code::kLimit);
  cms.say(Client{ecu_mac_of(1), 1, "p1", 0x10001}, wire::Bye{});
  cms.hello(one_more);
  EXPECT_EQ(cms.core.sessions().size(), kSessionCountMax);
}

TEST(CmsSessionsTest, RefusesWhileTheIndexCannotAnswer) {
  CoreDriver cms;
  cms.index_trouble = Code::kIo;
  Client client = client_of(1);
  cms.hello(client);
  EXPECT_EQ(refusal(cms, client), Code::kUnavailable);
  cms.index_trouble = Code::kOk;
  cms.hello(client);
  EXPECT_EQ(cms.core.sessions().size(), 1U);
}

TEST(CmsSessionsTest, RefusesWhenNoIncarnationIsLeft) {
  CoreDriver cms;
  Client liar = client_of(1);
  liar.incarnation = UINT64_MAX;
  cms.hello(liar);
  Client honest = client_of(2);
  honest.ecu_mac = liar.ecu_mac;
  cms.hello(honest);
  EXPECT_EQ(refusal(cms, honest), Code::kLimit);
  EXPECT_EQ(cms.core.sessions().count(SessionId{liar.ecu_mac, 0}), 0U);
}

TEST(CmsSessionsTest, AsksTheIndexOnceForOneHello) {
  CoreDriver cms;
  cms.index_answers = false;
  const Client client = client_of(1);
  cms.say(client, cms.hello_of(client));
  const auto asked = cms.all<ReserveIncarnation>();
  ASSERT_EQ(asked.size(), 1U);
  cms.say(client, cms.hello_of(client));
  EXPECT_TRUE(cms.effects.empty());
}

// ---- the record

TEST(CmsSessionsTest, AHeartbeatIsAnsweredWithWhatWasHeard) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.announce(client, notification_of(7, 1));
  cms.feed([&](Effects& out) { cms.core.on_notify(cms.now, {client.session(), wire::Beat{1}}, out); });
  cms.heartbeat(client, 1);
  ASSERT_EQ(cms.sent<wire::HeartbeatAnswer>(client).size(), 1U);
  EXPECT_EQ(cms.sent<wire::HeartbeatAnswer>(client)[0].number, 1U);
  EXPECT_EQ(cms.sent<wire::HeartbeatAnswer>(client)[0].notify_heard, 2U);
  EXPECT_TRUE(cms.sent<wire::List>(client).empty());
}

TEST(CmsSessionsTest, AHeartbeatWithAnUnknownSeqAsksListAtOnceWhenNotifyIsSilent) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.heartbeat(client, 1);
  ASSERT_EQ(cms.sent<wire::List>(client).size(), 1U);
  EXPECT_EQ(cms.sent<wire::List>(client)[0].from_seq, 1U);
}

TEST(CmsSessionsTest, ABeatWithAnUnknownSeqGivesItsNotificationAMoment) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.announce(client, notification_of(7, 1));
  cms.feed([&](Effects& out) { cms.core.on_notify(cms.now, {client.session(), wire::Beat{2}}, out); });
  EXPECT_TRUE(cms.sent<wire::List>(client).empty());
  cms.pass(kListGrace);
  ASSERT_EQ(cms.sent<wire::List>(client).size(), 1U);
  EXPECT_EQ(cms.sent<wire::List>(client)[0].from_seq, 2U);
}

TEST(CmsSessionsTest, AsksNothingWhenTheNotificationCameInTime) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.announce(client, notification_of(7, 1));
  cms.feed([&](Effects& out) { cms.core.on_notify(cms.now, {client.session(), wire::Beat{2}}, out); });
  cms.announce(client, notification_of(7, 2));
  cms.pass(kListGrace);
  EXPECT_TRUE(cms.sent<wire::List>(client).empty());
}

TEST(CmsSessionsTest, AGapAsksListFromTheMissingOne) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.announce(client, notification_of(7, 1));
  cms.announce(client, notification_of(8, 4));
  ASSERT_EQ(cms.sent<wire::List>(client).size(), 1U);
  EXPECT_EQ(cms.sent<wire::List>(client)[0].from_seq, 2U);
  EXPECT_EQ(cms.core.counters().gaps, 1U);
  EXPECT_NE(cms.transfer_of(client.program(8)), 0U) << "what came is not held up by what did not";
  cms.page(client, {notification_of(9, 3), notification_of(8, 4)}, 4);
  EXPECT_NE(cms.transfer_of(client.program(9)), 0U);
  EXPECT_EQ(cms.core.sessions().at(client.session()).applied_seq, 4U);
  EXPECT_TRUE(cms.core.sessions().at(client.session()).seen_beyond.empty());
}

TEST(CmsSessionsTest, DuplicatesAreCountedAndIgnored) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.announce(client, notification_of(7, 1));
  cms.announce(client, notification_of(7, 1));
  EXPECT_TRUE(cms.effects.empty());
  cms.announce(client, notification_of(8, 3));
  cms.announce(client, notification_of(8, 3));
  EXPECT_TRUE(cms.effects.empty());
  EXPECT_EQ(cms.core.counters().duplicates, 2U);
}

TEST(CmsSessionsTest, TakesNotificationsOutOfOrder) {
  CoreDriver cms;
  const Client client = cms.open();
  for (const Seq seq : {3U, 1U, 2U}) cms.announce(client, notification_of(seq, seq));
  EXPECT_EQ(cms.core.sessions().at(client.session()).applied_seq, 3U);
  EXPECT_EQ(cms.core.transfer_count(), 3U);
}

TEST(CmsSessionsTest, BoundsWhatItRemembersBeyondAGap) {
  CoreDriver cms;
  const Client client = cms.open();
  for (Seq seq = 2; seq < 2 + kSeenBeyondMax + 10; ++seq) cms.announce(client, notification_of(7, seq));
  const auto& session = cms.core.sessions().at(client.session());
  EXPECT_EQ(session.seen_beyond.size(), kSeenBeyondMax);
  cms.announce(client, notification_of(8, 1));
  EXPECT_EQ(session.applied_seq, 1 + kSeenBeyondMax) << "the gap is closed as far as is remembered";
  EXPECT_TRUE(session.seen_beyond.empty());
}

TEST(CmsSessionsTest, NotificationsOfAStrangerAreOnlyCounted) {
  CoreDriver cms;
  Client client = client_of(1);
  client.incarnation = 5;
  cms.announce(client, notification_of(7, 1));
  EXPECT_TRUE(cms.effects.empty());
  EXPECT_EQ(cms.core.counters().unknown_sessions, 1U);
}

// ---- LIST

TEST(CmsSessionsTest, FollowsListFromPageToPage) {
  CoreDriver cms;
  Client client = client_of(1);
  cms.hello(client);
  cms.page(client, {notification_of(7, 1), notification_of(8, 2)}, 3, false, 3);
  ASSERT_EQ(cms.sent<wire::List>(client).size(), 1U);
  EXPECT_EQ(cms.sent<wire::List>(client)[0].from_seq, 3U);
  cms.page(client, {notification_of(9, 3)}, 3);
  EXPECT_TRUE(cms.sent<wire::List>(client).empty());
  EXPECT_EQ(cms.core.transfer_count(), 3U);
}

TEST(CmsSessionsTest, ASecondAnswerToARepeatedListHarmsNobody) {
  CoreDriver cms;
  Client client = client_of(1);
  cms.hello(client);
  cms.pass(kListRetry);
  ASSERT_EQ(cms.sent<wire::List>(client).size(), 1U) << "asked again, then both are answered";
  cms.page(client, {notification_of(7, 1)}, 2, false, 2);
  cms.page(client, {notification_of(7, 1)}, 2, false, 2);
  EXPECT_TRUE(cms.effects.empty());
  ASSERT_EQ(cms.core.sessions().size(), 1U);
  cms.page(client, {notification_of(8, 2)}, 2);
  EXPECT_EQ(cms.core.sessions().at(client.session()).applied_seq, 2U);
}

TEST(CmsSessionsTest, APageThatWasNotAskedForIsIgnored) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.page(client, {notification_of(7, 1)}, 1);
  EXPECT_TRUE(cms.effects.empty());
  EXPECT_EQ(cms.core.transfer_count(), 0U);
}

TEST(CmsSessionsTest, ALyingPageEndsTheSession) {
  const std::vector<wire::ListPage> lies = {
      {{}, 5, 9, false},                                             // Never ends.
      {{notification_of(7, 1)}, 1, 9, false},                        // Does not move on.
      {{notification_of(7, 2), notification_of(8, 1)}, 0, 9, true},  // Out of order.
      {{notification_of(7, 2), notification_of(8, 2)}, 0, 9, true},  // One seq twice.
      {{notification_of(7, 10)}, 0, 9, true},                        // Beyond its own last.
  };
  for (const wire::ListPage& lie : lies) {
    CoreDriver cms;
    Client client = client_of(1);
    cms.hello(client);
    cms.say(client, lie);
    EXPECT_TRUE(cms.core.sessions().empty());
    EXPECT_EQ(cms.core.counters().malformed, 1U);
  }
}

TEST(CmsSessionsTest, ALostReceiptIsRepairedByWhatWaits) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.announce(client, notification_of(7, 1));
  cms.store(client.program(7));
  ASSERT_EQ(cms.told(client), Lines{"STORED 1"});  // And never arrives.
  for (int i = 0; i < 2; ++i) {
    cms.heartbeat(client, 1, 1);
    EXPECT_TRUE(cms.sent<wire::List>(client).empty());
  }
  cms.heartbeat(client, 1, 1);
  ASSERT_EQ(cms.sent<wire::List>(client).size(), 1U);
  EXPECT_EQ(cms.sent<wire::List>(client)[0].from_seq, 1U);
  cms.page(client, {notification_of(7, 1)}, 1);
  EXPECT_EQ(cms.told(client), Lines{"STORED 1"});
  EXPECT_EQ(cms.core.counters().pulls_started, 1U);
}

TEST(CmsSessionsTest, WhoWaitsForAPullUnderWayIsNotAskedAgain) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.announce(client, notification_of(7, 1));
  for (int i = 0; i < 10; ++i) {
    cms.heartbeat(client, 1, 1);
    EXPECT_TRUE(cms.sent<wire::List>(client).empty());
  }
}

// ---- the end of a session

TEST(CmsSessionsTest, SilenceEndsASession) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.index_answers = false;
  cms.announce(client, notification_of(7, 1));
  cms.pass(seconds(8) - milliseconds(1));
  EXPECT_EQ(cms.core.sessions().size(), 1U);
  cms.pass(milliseconds(1));
  EXPECT_TRUE(cms.core.sessions().empty());
  EXPECT_TRUE(cms.core.programs().empty());
  ASSERT_EQ(cms.core.failures().size(), 1U);
  EXPECT_EQ(cms.core.failures().begin()->second.code, Code::kPublisherGone);
  cms.heartbeat(client, 1);
  EXPECT_EQ(refusal(cms, client), Code::kNotFound);
}

TEST(CmsSessionsTest, AnyControlMessageKeepsASession) {
  CoreDriver cms;
  const Client client = cms.open();
  for (int i = 0; i < 10; ++i) {
    cms.pass(seconds(4));
    cms.heartbeat(client, 0);
  }
  EXPECT_EQ(cms.core.sessions().size(), 1U);
}

TEST(CmsSessionsTest, ByeEndsASession) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.announce(client, notification_of(7, 1));
  cms.say(client, wire::Bye{});
  EXPECT_TRUE(cms.core.sessions().empty());
  EXPECT_EQ(cms.all<CloseLink>().size(), 1U);
  EXPECT_EQ(cms.core.in_flight_bytes(), 0U);
}

TEST(CmsSessionsTest, WhatOnlyACmsSendsEndsTheSessionOfWhoSendsIt) {
  CoreDriver cms;
  const Client liar = cms.open(1);
  const Client other = cms.open(2);
  cms.say(liar, wire::Receipt{7, 1, wire::ReceiptLevel::kStored});
  EXPECT_EQ(cms.core.sessions().count(liar.session()), 0U);
  EXPECT_EQ(cms.core.sessions().count(other.session()), 1U);
}

TEST(CmsSessionsTest, AMalformedMessageEndsOnlyItsSession) {
  CoreDriver cms;
  const Client liar = cms.open(1);
  const Client other = cms.open(2);
  cms.announce(other, notification_of(7, 1));
  const Error error = make_error(Code::kProtocol, "not a message");
  cms.feed([&](Effects& out) { cms.core.on_malformed_control(cms.now, liar.peer, "10.0.0.7", error, out); });
  EXPECT_EQ(cms.core.sessions().count(liar.session()), 0U);
  EXPECT_NE(cms.transfer_of(other.program(7)), 0U);
  EXPECT_EQ(cms.core.counters().malformed, 1U);
}

TEST(CmsSessionsTest, AStrangersDamageIsLoggedOnceAMinuteAndAddress) {
  CoreDriver cms;
  const Error error = make_error(Code::kProtocol, "not a message");
  std::size_t line_count = 0;
  const auto send_from = [&](const std::string& address) {
    cms.feed([&](Effects& out) { cms.core.on_malformed_control(cms.now, "x", address, error, out); });
    line_count += cms.log_count();
    cms.feed([&](Effects& out) { cms.core.on_malformed_notify(cms.now, address, error, out); });
    line_count += cms.log_count();
  };
  for (int i = 0; i < 100; ++i) send_from("10.0.0.7");
  EXPECT_EQ(line_count, 1U);
  send_from("10.0.0.8");
  EXPECT_EQ(line_count, 2U);
  cms.pass(std::chrono::minutes(1));
  send_from("10.0.0.7");
  EXPECT_EQ(line_count, 3U);
  EXPECT_EQ(cms.core.counters().malformed, 204U);
}

TEST(CmsSessionsTest, AClientThatLiesAgainAndAgainDoesNotFloodTheLog) {
  CoreDriver cms;
  Client liar = client_of(1);
  std::size_t line_count = 0;
  for (int i = 0; i < 100; ++i) {
    cms.hello(liar);
    line_count += cms.log_count();
    cms.say(liar, wire::HelloAnswer{});
    cms.say(liar, wire::HeartbeatAnswer{});
    line_count += cms.log_count();
  }
  EXPECT_EQ(cms.core.counters().malformed, 100U);
  EXPECT_LE(line_count, 5U);
}

}  // namespace
}  // namespace cms::core
