#include <gtest/gtest.h>

#include <vector>

#include "cms/core/core_driver_test.h"

namespace cms::core {
namespace {

constexpr std::uint64_t kBoth = wire::kEcuFeatureMetrics | wire::kEcuFeatureRestores;

class TargetsTest : public ::testing::Test {
 protected:
  Client open(std::uint64_t number, std::uint64_t features) {
    Client client = client_of(number);
    wire::Hello hello = cms.hello_of(client);
    hello.features = features;
    cms.say(client, hello);
    for (const auto& answer : cms.sent<wire::HelloAnswer>(client)) client.incarnation = answer.incarnation;
    EXPECT_NE(client.incarnation, 0U);
    cms.page(client, {}, 0);
    return client;
  }
  // What the client was asked by this question.
  std::vector<wire::MetricsAsk> ask(const Client& client) {
    cms.feed([&](Effects& effects) { cms.core.ask_metrics(cms.now, effects); });
    return cms.sent<wire::MetricsAsk>(client);
  }
  void tell(const Client& client, std::uint64_t number, std::uint32_t load, std::uint32_t age_ms = 0) {
    wire::Metrics metrics;
    metrics.number = number;
    metrics.cpu_load_permille = load;
    metrics.age_ms = age_ms;
    cms.say(client, metrics);
  }
  std::vector<Candidate> candidates() { return cms.core.candidates(cms.now); }
  void announce(const Client& client, ProgramId program_id, Seq seq, const std::vector<std::string>& labels,
                std::uint64_t wcet_us = 0) {
    wire::Notification notification = notification_of(program_id, seq);
    notification.requirements.labels = labels;
    notification.real_time = wire::RealTime{0, 1000, 0, wcet_us};
    cms.announce(client, notification);
  }

  CoreDriver cms;
};

TEST_F(TargetsTest, OnlyThoseThatSaidSoAreAsked) {
  const Client plain = open(1, 0);
  const Client able = open(2, kBoth);
  EXPECT_TRUE(ask(plain).empty());
  cms.now += kMetricsAskedAfter;
  ASSERT_EQ(ask(able).size(), 1U);
  EXPECT_EQ(cms.core.metrics_awaited(cms.now), 1U);
  const auto known = candidates();
  ASSERT_EQ(known.size(), 2U);
  EXPECT_FALSE(known[0].takes_restores);
  EXPECT_TRUE(known[1].takes_restores);
  EXPECT_FALSE(known[1].metrics);
}

TEST_F(TargetsTest, AnAnswerIsKeptWithItsAge) {
  const Client able = open(2, kBoth);
  const std::uint64_t number = ask(able).at(0).number;
  cms.now += milliseconds(30);
  tell(able, number, 250, 100);
  EXPECT_EQ(cms.core.metrics_awaited(cms.now), 0U);
  cms.now += milliseconds(20);
  const auto known = candidates();
  ASSERT_TRUE(known.at(0).metrics);
  EXPECT_EQ(known[0].metrics->cpu_load_permille, 250U);
  EXPECT_EQ(known[0].metrics_age, milliseconds(120));
}

TEST_F(TargetsTest, ManyWhoAskAtOnceCostOneQuestion) {
  const Client able = open(2, kBoth);
  EXPECT_EQ(ask(able).size(), 1U);
  EXPECT_TRUE(ask(able).empty()) << "one is open";
  cms.now += kMetricsAskedAfter;
  const auto again = ask(able);
  ASSERT_EQ(again.size(), 1U) << "lost, or late";
  tell(able, again[0].number, 1);
  EXPECT_TRUE(ask(able).empty()) << "fresh";
  cms.now += kMetricsAskedAfter;
  EXPECT_EQ(ask(able).size(), 1U);
}

TEST_F(TargetsTest, AnAnswerToAnEarlierQuestionIsNotTakenForTheLast) {
  const Client able = open(2, kBoth);
  const std::uint64_t first = ask(able).at(0).number;
  cms.now += kMetricsAskedAfter;
  const std::uint64_t second = ask(able).at(0).number;
  tell(able, second, 700);
  tell(able, first, 100);
  EXPECT_EQ(candidates().at(0).metrics->cpu_load_permille, 700U);
  tell(able, second, 100);  // Repeated.
  EXPECT_EQ(candidates().at(0).metrics->cpu_load_permille, 700U);
}

TEST_F(TargetsTest, WhoDoesNotAnswerIsPassedOver) {
  const Client able = open(2, kBoth);
  ASSERT_EQ(ask(able).size(), 1U);
  cms.now += kMetricsWaitMax - milliseconds(1);
  EXPECT_EQ(cms.core.metrics_awaited(cms.now), 1U);
  cms.now += milliseconds(1);
  EXPECT_EQ(cms.core.metrics_awaited(cms.now), 0U);
}

TEST_F(TargetsTest, WhatItsSessionsRunIsKnownAsFarAsItMatters) {
  const Client target = open(2, kBoth);
  Client publisher = client_of(3);  // Another program of the same ECU.
  publisher.ecu_mac = target.ecu_mac;
  cms.hello(publisher);
  const Client other = open(4, kBoth);
  announce(target, 1, 1, {"front"});
  announce(target, 2, 2, {"!brake"});
  announce(publisher, 3, 1, {}, 250);
  announce(other, 1, 1, {"!steer"});
  const auto hosted = candidates().at(0).hosted;
  ASSERT_EQ(hosted.size(), 2U) << "the first one matters to nobody";
  EXPECT_EQ(hosted[0].lineage, lineage_of(ProgramKey{target.ecu_mac, 2}));
  EXPECT_EQ(hosted[0].excludes, std::vector<std::string>{"brake"});
  EXPECT_EQ(hosted[1].real_time_permille, 250U);
  announce(target, 2, 3, {});
  EXPECT_EQ(candidates().at(0).hosted.size(), 1U) << "what it said last counts";
  cms.say(publisher, wire::Bye{});
  EXPECT_TRUE(candidates().at(0).hosted.empty());
  EXPECT_EQ(candidates().at(1).hosted.size(), 1U);
}

TEST_F(TargetsTest, AProgramThatRunsElsewhereOrHasEndedDoesNotMatterThere) {
  const Client target = open(2, kBoth);
  for (ProgramId id = 1; id <= 2; ++id) announce(target, id, id, {"!brake"});
  ASSERT_EQ(candidates().at(0).hosted.size(), 2U);
  const ProgramKey moved{target.ecu_mac, 1};
  Fence fence;
  fence.lineage = lineage_of(moved);
  fence.owner = wire::ClaimOwner{ProgramKey{EcuMac{0x020000000009}, 1}, 65536, 4};
  cms.feed([&](Effects& effects) { cms.core.on_owner_changed(cms.now, moved, fence, effects); });
  ASSERT_EQ(candidates().at(0).hosted.size(), 1U);
  const ProgramKey ended{target.ecu_mac, 2};
  cms.feed([&](Effects& effects) {
    cms.core.on_peer_withdrawn(cms.now, ended, Version{target.incarnation, 2}, effects);
  });
  EXPECT_TRUE(candidates().at(0).hosted.empty());
}

TEST_F(TargetsTest, AnEcuIsOneCandidateByTheSessionThatTakesRestores) {
  const Client target = open(2, kBoth);
  Client publisher = client_of(3);  // Another program of the same ECU, later.
  publisher.ecu_mac = target.ecu_mac;
  cms.hello(publisher);
  ASSERT_NE(publisher.incarnation, 0U);
  const auto known = candidates();
  ASSERT_EQ(known.size(), 1U);
  EXPECT_EQ(known[0].session, target.session());
  EXPECT_TRUE(known[0].live);
  cms.now += kLiveHeartbeatMax + milliseconds(1);
  EXPECT_FALSE(candidates().at(0).live);
  cms.heartbeat(target, 0);
  EXPECT_TRUE(candidates().at(0).live);
}

// ---- sources of planned moves

TEST_F(TargetsTest, TheSourceIsTheSessionThatPublishesItAndCanFreeze) {
  const Client first = open(1, wire::kEcuFeatureFreezes);
  Client second = client_of(1);  // Another of the same ECU.
  second.nonce = 2;
  second.peer = "p1-2";
  wire::Hello hello = cms.hello_of(second);
  hello.features = wire::kEcuFeatureFreezes;
  cms.say(second, hello);
  for (const auto& answer : cms.sent<wire::HelloAnswer>(second)) second.incarnation = answer.incarnation;
  cms.page(second, {}, 0);
  ASSERT_GT(second.incarnation, first.incarnation);
  const ProgramKey program = first.program(7);
  const auto source = [&] {
    const CmsCore::Session* session = cms.core.source_of(program);
    return session == nullptr ? SessionId{} : session->id;
  };
  EXPECT_EQ(source(), second.session());  // Nothing is known: the youngest.
  cms.announce(first, notification_of(7, 1));
  EXPECT_EQ(source(), first.session());
  EXPECT_EQ(cms.core.source_of(ProgramKey{ecu_mac_of(9), 7}), nullptr);
}

TEST_F(TargetsTest, WhoCannotFreezeIsNoSource) {
  const Client client = open(1, kBoth);
  cms.announce(client, notification_of(7, 1));
  EXPECT_EQ(cms.core.source_of(client.program(7)), nullptr);
  EXPECT_FALSE(candidates()[0].freezes);
  const Client able = open(2, kBoth | wire::kEcuFeatureFreezes);
  EXPECT_TRUE(candidates()[1].freezes);
}

TEST_F(TargetsTest, WhatSourcesSayAndAskIsPassedOn) {
  const Client client = open(1, wire::kEcuFeatureFreezes);
  wire::FreezeReport report;
  report.claim = wire::ClaimRef{Lineage{1, 2}, 2, 9};
  report.program_id = 7;
  report.state = wire::FreezeState::kFrozen;
  report.last = Version{client.incarnation, 3};
  cms.say(client, report);
  ASSERT_EQ(cms.all<SourceReported>().size(), 1U);
  EXPECT_EQ(cms.all<SourceReported>()[0].source, client.session());
  EXPECT_EQ(cms.all<SourceReported>()[0].report.last, report.last);
  cms.say(client, wire::Migrate{5, 7, 0, true, ecu_mac_of(2)});
  ASSERT_EQ(cms.all<MigrateAsked>().size(), 1U);
  EXPECT_EQ(cms.all<MigrateAsked>()[0].session, client.session());
  EXPECT_EQ(cms.all<MigrateAsked>()[0].migrate.to_ecu_mac, ecu_mac_of(2));
}

}  // namespace
}  // namespace cms::core
