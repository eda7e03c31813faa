// Which target a restore picks: what was placed before counts, and what the operator has told of failure groups.
#include "cms/core/restore_driver_test.h"

namespace cms::core {
namespace {

using namespace restore_driver;

class RestorePlacingTest : public RestoreDriver {
 protected:
  RestorePlacingTest() {
    add_target(kFirst);
    add_target(kSecond);
    candidates.back().metrics->cpu_load_permille = 800;  // kFirst is the better one, by far.
  }

  // Program `number` of the lost ECU is claimed and found; where it was told to be prepared, if anywhere.
  std::optional<SessionId> place(std::uint64_t number, const std::vector<std::string>& labels,
                                 std::uint64_t wcet_us = 0) {
    const ClaimRecord head = first_record(Lineage{1, number}, number);
    fail(kLostMac);
    scanned(kLostMac, std::vector<ClaimRecord>{head});
    head_is(head);
    tick();
    claim_record = appended();
    append_ended(AppendEnd::kWon, 0, head.lineage);
    claim = wire::ClaimRef{head.lineage, claim_record.slot, claim_record.uid};
    RestoreCore::Found found = found_of(head);
    found.notification.requirements.labels = labels;
    found.notification.real_time = wire::RealTime{0, 1000, 0, wcet_us};
    is_found(found, head.lineage);
    tick();
    for (const auto& [session, prepare] : commands<wire::Prepare>()) {
      if (prepare.claim.lineage == head.lineage) return session;
    }
    return std::nullopt;
  }
};

TEST_F(RestorePlacingTest, ProgramsThatExcludeEachOtherGoToDifferentEcus) {
  tick();
  EXPECT_EQ(place(1, {"!brake"}), kFirst);
  EXPECT_EQ(place(2, {"!brake"}), kSecond);
  EXPECT_EQ(place(3, {"!steer"}), kFirst);
  EXPECT_EQ(place(4, {"!brake"}), std::nullopt);
  tick(kPlaceWaitMax);
  EXPECT_NE(core->restores().at(Lineage{1, 4}).why.find("another program there excludes 'brake' too"),
            std::string::npos);
}

TEST_F(RestorePlacingTest, AnExclusionHoldsAlsoBeforeTheTargetSaysThatItRunsIt) {
  tick();
  EXPECT_EQ(place(1, {"!brake"}), kFirst);
  for (int i = 0; i < 10; ++i) {  // The target's figures are long newer; it still pulls.
    tick(seconds(2));
    reports(kFirst, RestoreState::kPulling);
  }
  EXPECT_EQ(place(2, {"!brake"}), kSecond);
}

TEST_F(RestorePlacingTest, WhoRefusedIsFreeOfWhatItRefused) {
  candidates.pop_back();  // There is no other target.
  tick();
  ASSERT_EQ(place(1, {"!brake"}), kFirst);
  reports(kFirst, RestoreState::kRefused);
  EXPECT_EQ(stage(Lineage{1, 1}), Stage::kPlacing);
  EXPECT_EQ(place(2, {"!brake"}), kFirst);
}

TEST_F(RestorePlacingTest, WhatTheTargetSaysThatItRunsIsPromisedOnce) {
  for (Candidate& one : candidates) {
    one.metrics->cpu_count = 1;  // 800 permille for real-time programs.
    one.metrics->cpu_load_permille = one.session == kSecond ? 1000 : 0;
  }
  tick();
  EXPECT_EQ(place(1, {}, 400), kFirst);
  for (Candidate& one : candidates) {
    if (one.session == kFirst) one.hosted = {Hosted{Lineage{1, 1}, 400, {}}};
  }
  EXPECT_EQ(place(2, {}, 400), kFirst);
  EXPECT_EQ(place(3, {}, 1), std::nullopt);
}

TEST_F(RestorePlacingTest, TheFailureGroupOfALostEcuIsRememberedAndAvoided) {
  const auto label = [this](const SessionId& session, const std::string& text) {
    for (Candidate& one : candidates) {
      if (one.session == session) one.metrics->labels = {text};
    }
  };
  label(kLost, "power=a");
  label(kFirst, "power=a");
  label(kSecond, "power=b");
  tick();
  EXPECT_TRUE(none<AskTargets>()) << "nobody wants to know";
  EXPECT_EQ(place(1, {}), kFirst);

  RestoreConfig grouped = config();
  grouped.placement.failure_groups = {"power"};
  make_core(grouped);
  tick();
  EXPECT_EQ(all<AskTargets>().size(), 1U) << "a dead one cannot be asked";
  EXPECT_EQ(core->groups_of(kLostMac), std::vector<std::string>{"power=a"});
  tick();
  EXPECT_TRUE(none<AskTargets>());
  candidates.erase(candidates.begin());  // Its session has ended.
  EXPECT_EQ(place(1, {}), kSecond);
}

}  // namespace
}  // namespace cms::core
