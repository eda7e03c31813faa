// Guarded sessions: their Hello is recorded before it is answered, their heartbeats ask for a lease.
#include <gtest/gtest.h>

#include <optional>
#include <vector>

#include "cms/core/core_driver_test.h"
#include "cms/core/leases.h"

namespace cms::core {
namespace {

using wire::EcuRecord;
using wire::EcuRecordKind;
using wire::Enforcer;

constexpr std::uint64_t kFeatures = wire::kEcuFeatureMetrics | wire::kEcuFeatureRestores;

class GuardedTest : public ::testing::Test {
 protected:
  GuardedTest() {
    cms.core.set_leases(&leases);
    renew();
  }
  static Stamp stamp() {
    static std::uint64_t uid = 100;
    return Stamp{Writer{"a", 11}, ++uid, 1};
  }
  void renew() {
    members.on_written(cms.now);
    leases.on_member_written(cms.now, cms.now, cms.now, leases.bars());
  }
  wire::Hello guarded_hello(const Client& client, Enforcer enforcer = Enforcer::kGuard) const {
    wire::Hello hello = cms.hello_of(client);
    hello.guarded = true;
    hello.boot_id = Id128{3, client.nonce};
    hello.enforcer = enforcer;
    hello.features = kFeatures;
    return hello;
  }
  // What the store answers to a Hello that is to be recorded; leases hear of it first, as in cmsd.
  void recorded(const RecordHello& asked, const EcuRecord& head) {
    LeaseEffects todo;
    leases.on_head(cms.now, cms.now, head.ecu_mac, std::optional(head), todo);
    carry_out(todo);
    cms.feed([&](Effects& out) { cms.core.on_hello_recorded(cms.now, asked, head, out); });
  }
  void carry_out(const LeaseEffects& todo) {
    for (const LeaseEffect& effect : todo) {
      const auto* ended = std::get_if<GuardedEnded>(&effect);
      if (ended == nullptr) continue;
      cms.feed([&](Effects& out) { cms.core.on_guarded_ended(cms.now, ended->session, ended->why, out); });
    }
  }
  void append(const Client& client, EcuRecord record) {
    (void)client;
    log[record.ecu_mac] = record;
    LeaseEffects todo;
    leases.on_head(cms.now, cms.now, record.ecu_mac, std::optional(record), todo);
    carry_out(todo);
  }
  // Says Hello, has it recorded, and keeps the incarnation that it is given.
  Client open(std::uint64_t number = 1, Enforcer enforcer = Enforcer::kGuard) {
    Client client = client_of(number);
    open(client, enforcer);
    return client;
  }
  void open(Client& client, Enforcer enforcer = Enforcer::kGuard) {
    cms.say(client, guarded_hello(client, enforcer));
    const auto asked = cms.all<RecordHello>();
    ASSERT_EQ(asked.size(), 1U);
    const auto known = log.find(client.ecu_mac);
    const EcuRecord next = *hello(stamp(), known == log.end() ? nullptr : &known->second,
                                  asked[0].asked.hello, asked[0].incarnation_min);
    log[client.ecu_mac] = next;
    recorded(asked[0], next);
    const auto answers = cms.sent<wire::HelloAnswer>(client);
    ASSERT_EQ(answers.size(), 1U);
    EXPECT_EQ(answers[0].code, Code::kOk);
    client.incarnation = answers[0].incarnation;
    begun = cms.all<GuardedBegun>();
    cms.page(client, {}, 0);
  }
  bool leased(const Client& client, std::uint64_t ended = 0) {
    cms.say(client, wire::Heartbeat{++beats, 0, 0, ended});
    const auto answers = cms.sent<wire::HeartbeatAnswer>(client);
    EXPECT_EQ(answers.size(), 1U);
    if (answers.empty()) return false;
    EXPECT_EQ(answers[0].number, beats);
    return answers[0].leased;
  }
  Code refused(const Client& client) const {
    const auto answers = cms.sent<wire::HelloAnswer>(client);
    EXPECT_EQ(answers.size(), 1U);
    return answers.empty() ? Code::kOk : answers[0].code;
  }
  const EcuRecord& head(const Client& client) const { return log.at(client.ecu_mac); }
  std::optional<Candidate> candidate(const Client& client) const {
    for (const Candidate& one : cms.core.candidates(cms.now)) {
      if (one.session.ecu_mac == client.ecu_mac) return one;
    }
    return std::nullopt;
  }

  CoreDriver cms;
  Members members{Writer{"a", 11}, MemberTimers{seconds(3), seconds(12)}};
  Leases leases{Writer{"a", 11}, LeaseTimers{seconds(5), seconds(8)}, members, 5};
  std::map<EcuMac, EcuRecord> log;
  std::vector<GuardedBegun> begun;
  std::uint64_t beats = 0;
};

// ---- Hello

TEST_F(GuardedTest, AHelloIsAnsweredWhenItIsRecorded) {
  Client client = client_of(1);
  cms.say(client, guarded_hello(client));
  EXPECT_TRUE(cms.sent<wire::HelloAnswer>(client).empty());
  EXPECT_TRUE(cms.core.sessions().empty());
  ASSERT_EQ(cms.all<RecordHello>().size(), 1U);
  const RecordHello asked = cms.all<RecordHello>()[0];
  EXPECT_EQ(asked.incarnation_min, 0x10001U) << "above all that is known here";
  EXPECT_EQ(asked.asked.hello.nonce, 1U);
  recorded(asked, *hello(stamp(), nullptr, asked.asked.hello, 0x70001));
  const auto answer = cms.sent<wire::HelloAnswer>(client).at(0);
  EXPECT_EQ(answer.incarnation, 0x70001U) << "as the log has it";
  EXPECT_EQ(answer.nonce, 1U);
  EXPECT_EQ(answer.lease_ms, 5000U) << "T_fence";
  ASSERT_EQ(cms.all<GuardedBegun>().size(), 1U);
  EXPECT_EQ(cms.all<GuardedBegun>()[0].session, (SessionId{client.ecu_mac, 0x70001}));
  EXPECT_EQ(cms.sent<wire::List>(client).size(), 1U);
}

TEST_F(GuardedTest, ASessionThatIsNotGuardedIsToldOfNoLease) {
  Client client = client_of(1);
  cms.hello(client);
  EXPECT_EQ(cms.sent<wire::HelloAnswer>(client).at(0).lease_ms, 0U);
  EXPECT_TRUE(cms.all<RecordHello>().empty());
  EXPECT_TRUE(cms.all<GuardedBegun>().empty());
  EXPECT_FALSE(leased(client, 5));
  EXPECT_TRUE(cms.all<GuardedBegun>().empty());
}

TEST_F(GuardedTest, WithoutLeasesItIsRefused) {
  CoreDriver other;
  const Client client = client_of(1);
  wire::Hello hello = other.hello_of(client);
  hello.guarded = true;
  hello.boot_id = Id128{1, 1};
  other.say(client, hello);
  EXPECT_EQ(other.sent<wire::HelloAnswer>(client).at(0).code, Code::kUnsupported);
  EXPECT_TRUE(other.all<ReserveIncarnation>().empty());
}

TEST_F(GuardedTest, WhatTheStoreSaysToAHelloIsHandedOn) {
  Client client = client_of(1);
  for (const Code code : {Code::kFenced, Code::kUnavailable, Code::kLimit}) {
    cms.say(client, guarded_hello(client));
    const RecordHello asked = cms.all<RecordHello>().at(0);
    cms.feed([&](Effects& out) { cms.core.on_hello_recorded(cms.now, asked, make_error(code, "why"), out); });
    EXPECT_EQ(refused(client), code);
    EXPECT_TRUE(cms.core.sessions().empty());
    EXPECT_TRUE(cms.all<GuardedBegun>().empty());
  }
  open(client);  // It may say Hello again.
  EXPECT_EQ(cms.core.sessions().size(), 1U);
}

TEST_F(GuardedTest, AHelloThatIsRepeatedIsRecordedOnce) {
  Client client = client_of(1);
  cms.say(client, guarded_hello(client));
  const RecordHello asked = cms.all<RecordHello>().at(0);
  cms.say(client, guarded_hello(client));
  EXPECT_TRUE(cms.all<RecordHello>().empty());
  recorded(asked, *hello(stamp(), nullptr, asked.asked.hello, asked.incarnation_min));
  EXPECT_EQ(cms.sent<wire::HelloAnswer>(client).size(), 1U);
  recorded(asked, leases.ecus().at(client.ecu_mac).head);
  EXPECT_TRUE(cms.sent<wire::HelloAnswer>(client).empty()) << "nobody waits for that any more";
}

TEST_F(GuardedTest, OnASecondConnectionItIsTheSameSession) {
  Client first = client_of(1);
  Client second = client_of(1);
  second.peer = "p1b";
  cms.say(first, guarded_hello(first));
  const RecordHello asked_first = cms.all<RecordHello>().at(0);
  cms.say(second, guarded_hello(second));
  const RecordHello asked_second = cms.all<RecordHello>().at(0);
  const EcuRecord head = *hello(stamp(), nullptr, asked_first.asked.hello, asked_first.incarnation_min);
  recorded(asked_first, head);
  recorded(asked_second, head);
  EXPECT_EQ(cms.core.sessions().size(), 1U);
  ASSERT_EQ(cms.sent<wire::HelloAnswer>(second).size(), 1U);
  EXPECT_EQ(cms.sent<wire::HelloAnswer>(second)[0].incarnation, head.incarnation);
  EXPECT_TRUE(cms.all<GuardedBegun>().empty()) << "it has begun already";
  second.incarnation = head.incarnation;
  EXPECT_TRUE(leased(second));
}

TEST_F(GuardedTest, AnotherSessionOfTheEcuIsRefusedWhileTheFormerIsHeard) {
  const Client first = open();
  EXPECT_TRUE(leased(first));
  Client second = client_of(1);
  second.nonce = 2;
  second.peer = "p2";
  cms.now += milliseconds(2499);
  cms.say(second, guarded_hello(second));
  EXPECT_EQ(refused(second), Code::kAlreadyExists);
  EXPECT_TRUE(cms.all<RecordHello>().empty());
  EXPECT_EQ(cms.core.sessions().size(), 1U);
  cms.now += milliseconds(1);
  open(second);
  ASSERT_EQ(cms.core.sessions().size(), 1U) << "the former one has ended";
  EXPECT_EQ(cms.core.sessions().begin()->first, second.session());
}

TEST_F(GuardedTest, TheSameClientMayBeginANewSessionAtOnce) {
  Client client = open();
  EXPECT_TRUE(leased(client));
  const Incarnation former = client.incarnation;
  client.nonce = 2;
  client.incarnation = 0;
  open(client);
  EXPECT_GT(client.incarnation, former);
  EXPECT_EQ(cms.core.sessions().size(), 1U);
}

TEST_F(GuardedTest, AClientOfAnotherEcuOnThatConnectionIsNotTheSameClient) {
  const Client first = open(1);
  const Client other = open(2);
  EXPECT_TRUE(leased(first));
  EXPECT_TRUE(leased(other));
  Client second = client_of(1);
  second.nonce = 9;
  second.peer = other.peer;
  cms.say(second, guarded_hello(second));
  EXPECT_EQ(refused(second), Code::kAlreadyExists);
}

TEST_F(GuardedTest, AHelloThatIsOutdatedWhenItsAnswerComesBeginsNothing) {
  Client client = client_of(1);
  cms.say(client, guarded_hello(client));
  const RecordHello asked = cms.all<RecordHello>().at(0);
  const EcuRecord head = *hello(stamp(), nullptr, asked.asked.hello, asked.incarnation_min);
  append(client, lost(stamp(), head));  // A listing that began later was faster.
  recorded(asked, head);
  EXPECT_EQ(refused(client), Code::kFenced);
  EXPECT_TRUE(cms.core.sessions().empty());
}

TEST_F(GuardedTest, WordsAboutMaintenanceDoNotOutdateAHello) {
  Client client = client_of(1);
  cms.say(client, guarded_hello(client));
  const RecordHello asked = cms.all<RecordHello>().at(0);
  const EcuRecord head = *hello(stamp(), nullptr, asked.asked.hello, asked.incarnation_min);
  append(client, with_maintenance(stamp(), head, true));
  recorded(asked, head);
  EXPECT_EQ(refused(client), Code::kOk);
  EXPECT_EQ(cms.core.sessions().size(), 1U);
}

// It was given here to one that is not guarded, before the log was read.
TEST_F(GuardedTest, ASessionThatIsNotGuardedMakesWayForTheIncarnationOfTheLog) {
  Client plain = client_of(1);
  cms.hello(plain);
  Client client = client_of(1);
  client.nonce = 2;
  client.peer = "p2";
  cms.say(client, guarded_hello(client));
  const RecordHello asked = cms.all<RecordHello>().at(0);
  recorded(asked, *hello(stamp(), nullptr, asked.asked.hello, plain.incarnation));
  ASSERT_EQ(cms.core.sessions().size(), 1U);
  EXPECT_TRUE(cms.core.sessions().begin()->second.guarded);
  EXPECT_EQ(cms.core.sessions().begin()->second.peer, "p2");
}

// ---- heartbeats

TEST_F(GuardedTest, AHeartbeatIsAnsweredWithTheLease) {
  const Client client = open();
  EXPECT_TRUE(leased(client));
  cms.now += seconds(3);
  EXPECT_FALSE(leased(client)) << "we may not act";
  renew();
  EXPECT_FALSE(leased(client)) << "its head was read before";
  const LeaseEffects todo = cms.core.take_lease_effects();
  ASSERT_EQ(todo.size(), 1U);
  EXPECT_NE(std::get_if<ReadEcuLogs>(&todo[0]), nullptr);
  EXPECT_TRUE(cms.core.take_lease_effects().empty()) << "they are taken once";
  append(client, head(client));
  EXPECT_TRUE(leased(client));
}

TEST_F(GuardedTest, AProgramThatEndedIsAReasonToReconcileOnce) {
  const Client client = open();
  EXPECT_EQ(begun.size(), 1U);
  leased(client, 0);
  EXPECT_TRUE(cms.all<GuardedBegun>().empty());
  leased(client, 2);
  ASSERT_EQ(cms.all<GuardedBegun>().size(), 1U);
  EXPECT_EQ(cms.all<GuardedBegun>()[0].session, client.session());
  leased(client, 2);
  EXPECT_TRUE(cms.all<GuardedBegun>().empty());
  leased(client, 3);
  EXPECT_EQ(cms.all<GuardedBegun>().size(), 1U);
}

TEST_F(GuardedTest, AProgramThatEndedIsSeenAlsoWithoutALease) {
  const Client client = open();
  cms.now += seconds(3);
  EXPECT_FALSE(leased(client, 1));
  EXPECT_EQ(cms.all<GuardedBegun>().size(), 1U);
}

// ---- the end

TEST_F(GuardedTest, ByeGoesIntoTheLogAndEndsTheSession) {
  const Client client = open();
  cms.core.take_lease_effects();
  cms.say(client, wire::Bye{});
  EXPECT_TRUE(cms.core.sessions().empty());
  const LeaseEffects todo = cms.core.take_lease_effects();
  ASSERT_EQ(todo.size(), 1U);
  const auto* append = std::get_if<AppendEcuRecord>(&todo[0]);
  ASSERT_NE(append, nullptr);
  EXPECT_EQ(append->record.kind, EcuRecordKind::kBye);
  EXPECT_EQ(append->record.incarnation, client.incarnation);
}

TEST_F(GuardedTest, ByeOfOneThatIsNotGuardedGoesIntoNoLog) {
  const Client guarded = open();
  cms.core.take_lease_effects();
  Client plain = client_of(1);
  plain.peer = "p2";
  plain.nonce = 2;
  cms.hello(plain);
  cms.say(plain, wire::Bye{});
  EXPECT_TRUE(cms.core.take_lease_effects().empty());
  EXPECT_EQ(cms.core.sessions().size(), 1U);
  EXPECT_TRUE(leased(guarded));
}

TEST_F(GuardedTest, ASessionThatIsLostIsToldToSayHello) {
  const Client client = open();
  append(client, lost(stamp(), head(client)));
  EXPECT_TRUE(cms.core.sessions().empty());
  cms.say(client, wire::Heartbeat{1, 0, 0});
  EXPECT_EQ(refused(client), Code::kNotFound);
  EXPECT_TRUE(cms.sent<wire::HeartbeatAnswer>(client).empty());
}

TEST_F(GuardedTest, ASessionThatAllBarIsToldToBeginAnother) {
  Client client = open();
  for (int i = 0; i < 9; ++i) {
    cms.now += seconds(1);
    renew();
    LeaseEffects todo;
    leases.on_time(cms.now, 1, todo);
    carry_out(todo);
  }
  ASSERT_TRUE(cms.core.sessions().empty());
  cms.say(client, guarded_hello(client));
  EXPECT_EQ(refused(client), Code::kFenced);
  client.nonce += 5;
  client.incarnation = 0;
  open(client);
  EXPECT_TRUE(leased(client));
}

TEST_F(GuardedTest, OnlyGuardedSessionsAreEndedByLeases) {
  Client plain = client_of(1);
  cms.hello(plain);
  cms.feed([&](Effects& out) { cms.core.on_guarded_ended(cms.now, plain.session(), "LOST", out); });
  EXPECT_EQ(cms.core.sessions().size(), 1U);
}

TEST_F(GuardedTest, WhatItHasIsAskedOfGuardedSessionsOnly) {
  const Client guarded = open(1);
  cms.say(guarded, wire::Programs{4, {}, 0, true});
  ASSERT_EQ(cms.all<ProgramsTold>().size(), 1U);
  EXPECT_EQ(cms.all<ProgramsTold>()[0].session, guarded.session());
  EXPECT_EQ(cms.all<ProgramsTold>()[0].page.number, 4U);
  Client plain = client_of(2);
  cms.hello(plain);
  cms.say(plain, wire::Programs{4, {}, 0, true});
  EXPECT_TRUE(cms.all<ProgramsTold>().empty());
}

// ---- policies

struct Policy {
  bool guarded;
  Enforcer enforcer;
  wire::OnIsolation on_isolation;
  wire::OnLoss expected;
};

TEST_F(GuardedTest, OnlyWhatIsStoppedByAnEnforcerIsToBeRestoredByItself) {
  using wire::OnIsolation;
  using wire::OnLoss;
  const std::vector<Policy> cases = {
      {true, Enforcer::kGuard, OnIsolation::kStop, OnLoss::kRestore},
      {true, Enforcer::kWatchdog, OnIsolation::kStop, OnLoss::kRestore},
      {true, Enforcer::kNone, OnIsolation::kStop, OnLoss::kAsk},
      {true, Enforcer::kGuard, OnIsolation::kKeep, OnLoss::kAsk},
      {false, Enforcer::kNone, OnIsolation::kStop, OnLoss::kAsk},
  };
  std::uint64_t number = 0;
  for (const Policy& one : cases) {
    ++number;
    Client client = client_of(number);
    if (one.guarded) {
      open(client, one.enforcer);
    } else {
      cms.hello(client);
      cms.page(client, {}, 0);
    }
    wire::Notification notification = notification_of(7, 1);
    notification.policies.on_isolation = one.on_isolation;
    notification.policies.on_loss = OnLoss::kRestore;
    cms.announce(client, notification);
    const TransferId id = cms.transfer_of(client.program(7));
    ASSERT_NE(id, 0U);
    cms.deliver_all(id);
    const auto stored = cms.all<StoreSmall>();
    ASSERT_EQ(stored.size(), 1U) << number;
    EXPECT_EQ(stored[0].manifest.notification.policies.on_loss, one.expected) << number;
    EXPECT_EQ(stored[0].manifest.notification.policies.on_isolation, one.on_isolation) << number;
  }
}

// ---- candidates

TEST_F(GuardedTest, ACandidateIsLiveWhileItsLeaseMayLive) {
  const Client client = open();
  ASSERT_TRUE(candidate(client));
  EXPECT_FALSE(candidate(client)->live) << "it has not asked for a lease";
  leased(client);
  EXPECT_TRUE(candidate(client)->live);
  EXPECT_TRUE(candidate(client)->enforced);
  cms.now += seconds(3);
  EXPECT_FALSE(candidate(client)->live) << "we may not act, and it may have been barred";
}

TEST_F(GuardedTest, WithoutAnEnforcerNothingIsEnforced) {
  const Client none = open(1, Enforcer::kNone);
  const Client dog = open(2, Enforcer::kWatchdog);
  Client plain = client_of(3);
  cms.hello(plain);
  EXPECT_FALSE(candidate(none)->enforced);
  EXPECT_TRUE(candidate(dog)->enforced);
  EXPECT_FALSE(candidate(plain)->enforced);
  EXPECT_TRUE(candidate(plain)->live) << "needs no lease";
}

TEST_F(GuardedTest, InMaintenanceAnEcuTakesNothingNew) {
  const Client client = open();
  cms.feed([&](Effects& out) { cms.core.ask_metrics(cms.now, out); });
  wire::Metrics metrics;
  metrics.number = cms.sent<wire::MetricsAsk>(client).at(0).number;
  cms.say(client, metrics);
  ASSERT_TRUE(candidate(client)->metrics);
  EXPECT_FALSE(candidate(client)->metrics->draining);
  append(client, with_maintenance(stamp(), head(client), true));
  EXPECT_TRUE(candidate(client)->metrics->draining);
}

TEST_F(GuardedTest, AnEcuIsKnownByItsGuardedSession) {
  for (const bool plain_first : {true, false}) {
    const std::uint64_t number = plain_first ? 1 : 2;
    Client plain = client_of(number);
    plain.nonce = 77;
    plain.peer = "plain" + std::to_string(number);
    if (plain_first) cms.hello(plain);
    const Client guarded = open(number);
    if (!plain_first) cms.hello(plain);
    ASSERT_EQ(cms.core.sessions().size(), 2 * number);
    ASSERT_TRUE(candidate(guarded));
    EXPECT_EQ(candidate(guarded)->session, guarded.session());
    EXPECT_TRUE(candidate(guarded)->enforced);
  }
}

}  // namespace
}  // namespace cms::core
