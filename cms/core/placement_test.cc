#include "cms/core/placement.h"

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace cms::core {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::uint64_t kMiB = 1 << 20;
const EcuMac kOwner{0x020000000001};

SessionId session_of(std::uint64_t number) { return SessionId{EcuMac{0x020000000000 + number}, 65536}; }

Candidate candidate_of(std::uint64_t number) {
  Candidate candidate;
  candidate.session = session_of(number);
  candidate.live = true;
  candidate.takes_restores = true;
  wire::Metrics metrics;
  metrics.cpu_count = 4;
  metrics.cpu_load_permille = 500;
  metrics.ram_total_bytes = 1024 * kMiB;
  metrics.ram_available_bytes = 512 * kMiB;
  metrics.arch = "aarch64";
  metrics.os = "linux";
  metrics.formats = {{"criu", 3}, {"raw", 1}};
  metrics.labels = {"gpu", "front"};
  candidate.metrics = metrics;
  candidate.metrics_age = milliseconds(100);
  return candidate;
}

Demand demand() {
  Demand demand;
  demand.program = ProgramKey{kOwner, 7};
  demand.size_bytes = 64 * kMiB;
  demand.requirements = wire::Requirements{"aarch64", "linux", "criu", 3, 128 * kMiB, {"front"}};
  return demand;
}

TEST(PlacementTest, EachReasonIsNamed) {
  struct Case {
    Ineligible ineligible;
    std::string why;
    std::function<void(Demand&, Candidate&)> change;
  };
  const std::vector<Case> cases = {
      {Ineligible::kNo, "", [](Demand&, Candidate&) {}},
      {Ineligible::kNotChosen, "02:00:00:00:00:09 was chosen",
       [](Demand& d, Candidate&) { d.only = EcuMac{0x020000000009}; }},
      {Ineligible::kOwner, "the program is to leave it",
       [](Demand&, Candidate& c) { c.session.ecu_mac = kOwner; }},
      {Ineligible::kSilent, "it is not heard", [](Demand&, Candidate& c) { c.live = false; }},
      {Ineligible::kNoRestores, "its RTCR takes no restores",
       [](Demand&, Candidate& c) { c.takes_restores = false; }},
      {Ineligible::kNotGuarded,
       "it has no run lease that is enforced, and the program is one that restores by itself",
       [](Demand& d, Candidate&) { d.needs_guard = true; }},
      {Ineligible::kNo, "", [](Demand& d, Candidate& c) { d.needs_guard = c.enforced = true; }},
      {Ineligible::kNo, "", [](Demand&, Candidate& c) { c.enforced = true; }},
      {Ineligible::kFlapping, "it was LOST lately, and takes nothing for 1500 ms",
       [](Demand&, Candidate& c) { c.shunned = milliseconds(1500); }},
      {Ineligible::kNoMetrics, "it has not said what it has free",
       [](Demand&, Candidate& c) { c.metrics.reset(); }},
      {Ineligible::kStaleMetrics, "its figures are 5001 ms old, the limit is 5000 ms",
       [](Demand&, Candidate& c) { c.metrics_age = milliseconds(5001); }},
      {Ineligible::kNo, "", [](Demand&, Candidate& c) { c.metrics_age = milliseconds(5000); }},
      {Ineligible::kDraining, "it takes nothing new",
       [](Demand&, Candidate& c) { c.metrics->draining = true; }},
      {Ineligible::kArch, "needs aarch64, is x86_64",
       [](Demand&, Candidate& c) { c.metrics->arch = "x86_64"; }},
      {Ineligible::kArch, "needs aarch64, is not said",
       [](Demand&, Candidate& c) { c.metrics->arch.clear(); }},
      {Ineligible::kNo, "",
       [](Demand& d, Candidate& c) { d.requirements.arch.clear(), c.metrics->arch = "x"; }},
      {Ineligible::kOs, "needs linux, is genode", [](Demand&, Candidate& c) { c.metrics->os = "genode"; }},
      {Ineligible::kFormat, "cannot restore format criu version 4",
       [](Demand& d, Candidate&) { d.requirements.format_version = 4; }},
      {Ineligible::kNo, "", [](Demand& d, Candidate&) { d.requirements.format_version = 2; }},
      {Ineligible::kFormat, "cannot restore format genode version 3",
       [](Demand& d, Candidate&) { d.requirements.checkpoint_format = "genode"; }},
      {Ineligible::kLabels, "has no label 'camera'",
       [](Demand& d, Candidate&) {
         d.requirements.labels = {"front", "camera"};
       }},
      {Ineligible::kNo, "", [](Demand& d, Candidate&) { d.requirements.ram_bytes = 512 * kMiB; }},
      {Ineligible::kRam, "needs 513 MiB of RAM, 512 MiB are free",
       [](Demand& d, Candidate&) { d.requirements.ram_bytes = 512 * kMiB + 1; }},
      {Ineligible::kRam, "needs 600 MiB of RAM, 512 MiB are free",
       [](Demand& d, Candidate&) { d.size_bytes = 600 * kMiB; }},
      {Ineligible::kRam, "needs 128 MiB of RAM, 112 MiB are free beside what was just placed there",
       [](Demand&, Candidate& c) { c.reserved.ram_bytes = 400 * kMiB; }},
      // Half of four CPUs is two whole ones.
      {Ineligible::kNo, "",
       [](Demand& d, Candidate& c) {
         d.real_time.period_us = 100, d.real_time.wcet_us = 90, c.reserved.cpu_permille = 1100;
       }},
      {Ineligible::kCpu, "needs 900 permille of a CPU for its deadline, and has 899 free",
       [](Demand& d, Candidate& c) {
         d.real_time.period_us = 100, d.real_time.wcet_us = 90, c.reserved.cpu_permille = 1101;
       }},
      {Ineligible::kNo, "", [](Demand&, Candidate& c) { c.reserved.cpu_permille = 5000; }},
  };
  for (const Case& one : cases) {
    Demand wanted = demand();
    Candidate candidate = candidate_of(2);
    one.change(wanted, candidate);
    const auto verdicts = rank(wanted, {candidate});
    ASSERT_EQ(verdicts.size(), 1U);
    EXPECT_EQ(to_string(verdicts[0].ineligible), to_string(one.ineligible)) << one.why;
    EXPECT_EQ(verdicts[0].why, one.why);
  }
}

// A program of its own lineage that excludes these, or has a period of 1000 us and this wcet.
Hosted hosted(std::uint64_t lineage, std::uint64_t wcet_us, const std::vector<std::string>& labels = {}) {
  wire::Requirements requirements;
  requirements.labels = labels;
  return *hosted_of(Lineage{0, lineage}, requirements, wire::RealTime{0, 1000, 0, wcet_us});
}

TEST(PlacementTest, WhatAProgramExcludesMustNotBeThere) {
  Demand wanted = demand();
  wanted.lineage = Lineage{0, 7};
  wanted.requirements.labels = {"front", "!brake"};
  Candidate candidate = candidate_of(2);
  EXPECT_EQ(rank(wanted, {candidate})[0].ineligible, Ineligible::kNo);
  candidate.metrics->labels.push_back("brake");
  TargetVerdict verdict = rank(wanted, {candidate})[0];
  EXPECT_EQ(to_string(verdict.ineligible), "excluded");
  EXPECT_EQ(verdict.why, "has the label 'brake', which the program excludes");
  candidate = candidate_of(2);
  candidate.hosted = {hosted(8, 0, {"!steer", "front"}), hosted(7, 0, {"!brake"})};
  EXPECT_EQ(rank(wanted, {candidate})[0].ineligible, Ineligible::kNo) << "the other is itself";
  candidate.hosted.push_back(hosted(9, 0, {"!brake"}));
  verdict = rank(wanted, {candidate})[0];
  EXPECT_EQ(verdict.ineligible, Ineligible::kExcluded);
  EXPECT_EQ(verdict.why, "another program there excludes 'brake' too");
  wanted.requirements.labels = {"front", "!"};
  EXPECT_EQ(rank(wanted, {candidate})[0].why, "has no label '!'") << "it names nothing to exclude";
}

TEST(PlacementTest, OnlyWhatMattersToOthersIsHosted) {
  EXPECT_FALSE(hosted_of(Lineage{0, 1}, {}, {}));
  wire::Requirements requirements;
  requirements.labels = {"front", "!a", "!", "!b"};
  const auto excluding = hosted_of(Lineage{0, 1}, requirements, wire::RealTime{0, 1000, 500, 0});
  ASSERT_TRUE(excluding);
  EXPECT_EQ(excluding->excludes, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(excluding->real_time_permille, 0U) << "without a wcet nothing is promised";
  EXPECT_EQ(hosted_of(Lineage{0, 1}, {}, wire::RealTime{0, 1000, 0, 250})->real_time_permille, 250U);
}

TEST(PlacementTest, RealTimeProgramsArePromisedNoMoreThanTheirShare) {
  PlacementPolicy policy;
  policy.real_time_max_permille = 500;  // Of 4 CPUs: 2000.
  Demand wanted = demand();
  wanted.real_time.period_us = 1000;
  wanted.real_time.wcet_us = 300;
  Candidate candidate = candidate_of(2);
  candidate.metrics->cpu_load_permille = 0;  // They sleep just now.
  candidate.hosted = {hosted(1, 900), hosted(2, 800)};
  EXPECT_EQ(rank(wanted, {candidate}, policy)[0].ineligible, Ineligible::kNo);
  candidate.hosted.push_back(hosted(3, 1));
  const TargetVerdict verdict = rank(wanted, {candidate}, policy)[0];
  EXPECT_EQ(verdict.ineligible, Ineligible::kCpu);
  EXPECT_EQ(
      verdict.why,
      "needs 300 permille of a CPU for its deadline, and 1701 of 2000 are promised to real-time programs "
      "there");
  wanted.real_time = {};
  EXPECT_EQ(rank(wanted, {candidate}, policy)[0].ineligible, Ineligible::kNo) << "it has no deadline to miss";
}

TEST(PlacementTest, TheFailureGroupThatIsLeftIsTheLastChoice) {
  PlacementPolicy policy;
  policy.failure_groups = {"power", "rack"};
  EXPECT_EQ(failure_groups_of({"gpu", "power=a", "room=1", "rack=", "power"}, policy),
            (std::vector<std::string>{"power=a", "rack="}));
  Demand wanted = demand();
  wanted.leaves_groups = {"power=a"};
  Candidate beside = candidate_of(2), apart = candidate_of(3), unknown = candidate_of(4),
            full = candidate_of(5);
  beside.metrics->labels.push_back("power=a");
  beside.metrics->cpu_load_permille = 0;
  apart.metrics->labels.push_back("power=b");
  apart.metrics->cpu_load_permille = 900;
  full.metrics->ram_available_bytes = 0;
  const auto verdicts = rank(wanted, {beside, apart, unknown, full}, policy);
  EXPECT_EQ(verdicts[0].session, unknown.session);
  EXPECT_EQ(verdicts[1].session, apart.session);
  EXPECT_EQ(verdicts[1].shared_group, "");
  EXPECT_EQ(verdicts[2].session, beside.session);
  EXPECT_EQ(verdicts[2].shared_group, "power=a");
  EXPECT_EQ(verdicts[2].ineligible, Ineligible::kNo);
  EXPECT_EQ(verdicts[3].session, full.session);
}

TEST(PlacementTest, ATightProgramPrefersWhatIsNearTheCms) {
  PlacementPolicy policy;
  policy.failure_groups = {"power"};
  policy.near_ecus = {EcuMac{0x020000000002}, EcuMac{0x020000000003}};
  Candidate near = candidate_of(2), full = candidate_of(3), idle = candidate_of(4);
  near.metrics->cpu_load_permille = 900;
  full.metrics->ram_available_bytes = 0;
  idle.metrics->cpu_load_permille = 0;
  Demand wanted = demand();
  const auto best = [&] { return rank(wanted, {near, full, idle}, policy)[0]; };
  EXPECT_EQ(best().session, idle.session) << "it is not tight";
  EXPECT_FALSE(best().near_cms);

  wanted.real_time.tight = true;
  EXPECT_EQ(best().session, near.session);
  EXPECT_TRUE(best().near_cms);
  EXPECT_EQ(pick(wanted, {idle, full, near}, {}, policy), near.session);
  EXPECT_FALSE(rank(wanted, {near, full, idle}, policy)[1].near_cms);

  near.metrics->cpu_load_permille = 1000;
  EXPECT_EQ(best().session, idle.session) << "near, but without any CPU left";
  near.metrics->cpu_load_permille = 900;
  near.metrics->labels.push_back("power=a");
  wanted.leaves_groups = {"power=a"};
  EXPECT_EQ(best().session, idle.session) << "near, but it may be the next that fails";
}

TEST(PlacementTest, OneOfManyCountsForTheNext) {
  std::vector<Candidate> candidates = {candidate_of(2), candidate_of(3)};
  Demand wanted = demand();
  wanted.requirements.labels.push_back("!brake");
  wanted.lineage = Lineage{0, 1};
  const SessionId first = place_next(wanted, candidates)[0].session;
  wanted.lineage = Lineage{0, 2};
  const SessionId second = place_next(wanted, candidates)[0].session;
  EXPECT_NE(first, second);
  for (const Candidate& candidate : candidates) {
    EXPECT_EQ(candidate.reserved.ram_bytes, 128 * kMiB);
    EXPECT_EQ(candidate.reserved.cpu_permille, kCpuPermilleUnknown);
  }
  wanted.lineage = Lineage{0, 3};
  EXPECT_EQ(place_next(wanted, candidates)[0].ineligible, Ineligible::kExcluded);
  EXPECT_EQ(candidates[0].reserved.ram_bytes, 128 * kMiB) << "what goes nowhere takes nothing";
}

TEST(PlacementTest, TheShorterDeadlineIsMoreUrgent) {
  const wire::RealTime soon{1, 0, 100, 0}, later{9, 0, 200, 0}, urged{9, 0, 100, 0}, none{9, 0, 0, 0};
  EXPECT_TRUE(more_urgent(soon, later));
  EXPECT_FALSE(more_urgent(later, soon));
  EXPECT_TRUE(more_urgent(urged, soon));
  EXPECT_TRUE(more_urgent(later, none));
  EXPECT_FALSE(more_urgent(soon, soon));
  wire::RealTime tight = none;
  tight.tight = true;
  EXPECT_TRUE(more_urgent(tight, urged));
  EXPECT_FALSE(more_urgent(urged, tight));
}

TEST(PlacementTest, AnOwnerThatHasComeBackMayTakeIt) {
  Demand wanted = demand();
  Candidate owner = candidate_of(1);
  EXPECT_EQ(rank(wanted, {owner})[0].ineligible, Ineligible::kOwner);
  wanted.owner_may_take = true;
  EXPECT_EQ(rank(wanted, {owner})[0].ineligible, Ineligible::kNo);
}

TEST(PlacementTest, AnOwnerThatHasComeBackComesFirstIfItCanTakeIt) {
  Demand wanted = demand();
  wanted.owner_may_take = true;
  wanted.leaves_groups = {"front"};
  Candidate owner = candidate_of(1), idle = candidate_of(2);
  owner.metrics->cpu_load_permille = 900;
  idle.metrics->cpu_load_permille = 0;
  idle.metrics->labels = {"front", "gpu=b"};
  PlacementPolicy policy;
  policy.failure_groups = {"gpu"};
  EXPECT_EQ(rank(wanted, {idle, owner}, policy)[0].session, session_of(1)) << "whatever the others have free";
  idle.metrics->labels = {"front"};
  owner.metrics->labels = {"front", "gpu=a"};
  wanted.leaves_groups = {"gpu=a"};
  EXPECT_EQ(rank(wanted, {idle, owner}, policy)[0].session, session_of(1)) << "and whatever fails with it";
  owner.shunned = seconds(1);
  EXPECT_EQ(rank(wanted, {idle, owner}, policy)[0].session, session_of(2));
  EXPECT_EQ(rank(wanted, {idle, owner}, policy)[1].ineligible, Ineligible::kFlapping);
  owner.shunned = Duration::zero();
  wanted.needs_guard = true;
  idle.enforced = true;
  EXPECT_EQ(rank(wanted, {idle, owner}, policy)[0].session, session_of(2));
}

TEST(PlacementTest, ScoresAreWhatIsLeftWithTheProgramThere) {
  Demand wanted = demand();
  wanted.real_time.period_us = 1000;
  wanted.real_time.wcet_us = 400;
  Candidate candidate = candidate_of(2);
  candidate.reserved = Reservation{128 * kMiB, 600};
  const TargetVerdict verdict = rank(wanted, {candidate})[0];
  // Of 4000: 2000 load, 600 reserved, 400 the program. Of 1024 MiB: 512 - 128 - 128.
  EXPECT_EQ(verdict.cpu_free_permille, 250U);
  EXPECT_EQ(verdict.ram_free_permille, 250U);
  EXPECT_EQ(verdict.score, 250U);
}

TEST(PlacementTest, TheLeastLoadedComesFirstAndTheRefusedLast) {
  Candidate busy = candidate_of(2), idle = candidate_of(3), full = candidate_of(4), silent = candidate_of(5);
  busy.metrics->cpu_load_permille = 900;
  idle.metrics->cpu_load_permille = 100;
  full.metrics->ram_available_bytes = 200 * kMiB;
  full.metrics->cpu_load_permille = 100;
  silent.live = false;
  const auto verdicts = rank(demand(), {silent, busy, full, idle});
  std::vector<SessionId> order;
  for (const TargetVerdict& verdict : verdicts) order.push_back(verdict.session);
  EXPECT_EQ(order, (std::vector<SessionId>{session_of(3), session_of(4), session_of(2), session_of(5)}));
}

TEST(PlacementTest, AReservationTurnsTheNextProgramElsewhere) {
  Candidate first = candidate_of(2), second = candidate_of(3);
  first.metrics->cpu_load_permille = 450;
  EXPECT_EQ(rank(demand(), {first, second})[0].session, first.session);
  first.reserved = Reservation{128 * kMiB, kCpuPermilleUnknown};
  EXPECT_EQ(rank(demand(), {first, second})[0].session, second.session);
}

TEST(PlacementTest, EqualEcusShareManyPrograms) {
  const std::vector<Candidate> candidates = {candidate_of(2), candidate_of(3), candidate_of(4)};
  std::map<EcuMac, int> placed;
  Demand wanted = demand();
  for (ProgramId id = 0; id < 3000; ++id) {
    wanted.program.program_id = id;
    const auto verdicts = rank(wanted, candidates);
    ++placed[verdicts[0].session.ecu_mac];
    ASSERT_EQ(rank(wanted, {candidates[2], candidates[0], candidates[1]})[0].session, verdicts[0].session)
        << "the order of the question decides nothing";
  }
  ASSERT_EQ(placed.size(), 3U);
  // Binomial with p = 1/3: sigma 26.
  for (const auto& [ecu_mac, count] : placed) EXPECT_NEAR(count, 1000, 130) << to_string(ecu_mac);
}

TEST(PlacementTest, CpuNeedOfAProgram) {
  EXPECT_EQ(cpu_permille_of(wire::RealTime{0, 0, 0, 0}), kCpuPermilleUnknown);
  EXPECT_EQ(cpu_permille_of(wire::RealTime{0, 10'000, 9'000, 0}), kCpuPermilleUnknown);
  EXPECT_EQ(cpu_permille_of(wire::RealTime{0, 10'000, 9'000, 800}), 80U);
  EXPECT_EQ(cpu_permille_of(wire::RealTime{0, 10'000, 9'000, 20'000}), 1000U);
  EXPECT_EQ(cpu_permille_of(wire::RealTime{0, UINT64_MAX, 0, 1}), 1U);
}

}  // namespace
}  // namespace cms::core
