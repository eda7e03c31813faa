#include "cms/daemon/admin_plan.h"

#include "cms/daemon/admin_fixture_test.h"

namespace cms::daemon {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;
constexpr EcuMac kThird{0x020000000003};

core::Candidate candidate(EcuMac ecu_mac, std::uint32_t load, std::uint64_t free_mib) {
  core::Candidate candidate;
  candidate.session = SessionId{ecu_mac, 65536};
  candidate.live = true;
  candidate.takes_restores = true;
  candidate.metrics = wire::Metrics{};
  candidate.metrics->cpu_count = 2;
  candidate.metrics->cpu_load_permille = load;
  candidate.metrics->ram_total_bytes = 1000 * kMiB;
  candidate.metrics->ram_available_bytes = free_mib * kMiB;
  candidate.metrics->arch = "x86_64";
  return candidate;
}

class AdminPlanTest : public ::testing::Test {
 protected:
  AdminPlanTest() {
    facts_.wall_us = kWallUs;
    facts_.has_session = true;
    facts_.candidates = {candidate(kMac, 0, 900)};
  }

  // A program of kMac with a checkpoint that was stored `age_s` ago.
  core::RestoreCore::Found& add(ProgramId program_id, std::uint64_t ram_mib, std::uint64_t age_s = 60) {
    core::RestoreCore::Found found;
    const ProgramKey program{kMac, program_id};
    found.name.checkpoint = CheckpointId{program, Version{65536, program_id}};
    found.name.lineage = lineage_of(program);
    found.name.size_bytes = 17;
    found.notification.program_name = "pump";
    found.notification.requirements.ram_bytes = ram_mib * kMiB;
    found.stored_at_us = kWallUs - age_s * 1000000;
    facts_.lost.programs.push_back({program, lineage_of(program), false, found});
    return *facts_.lost.programs.back().found;
  }
  void add_without(ProgramId program_id, bool is_open, const Error& why) {
    const ProgramKey program{kMac, program_id};
    facts_.lost.programs.push_back({program, lineage_of(program), is_open, why});
  }

  wire::AdminAnswer ask() {
    wire::AdminRequest request = ask_for(AdminMethod::kExplain);
    request.has_ecu_mac = true;
    request.ecu_mac = kMac;
    wire::AdminAnswer made = plan(request, facts_, [this] { return stopping_; });
    EXPECT_EQ(made.request_id, 5U);
    EXPECT_LE(made.json.size(), wire::kJsonBytesMax);
    return made;
  }
  json planned() {
    const wire::AdminAnswer made = ask();
    EXPECT_EQ(made.code, Code::kOk) << made.context;
    return json::parse(made.json);
  }

  PlanFacts facts_;
  bool stopping_ = false;
};

TEST_F(AdminPlanTest, WhatIsPlacedCountsForTheNext) {
  facts_.candidates.push_back(candidate(kOtherMac, 100, 700));
  facts_.candidates.push_back(candidate(kThird, 100, 600));
  for (ProgramId id = 1; id <= 4; ++id) add(id, 250, 10 * id);
  const json whole = planned();
  EXPECT_EQ(whole.at("total"), 4);
  EXPECT_EQ(whole.at("placed"), 4);
  EXPECT_EQ(whole.at("without_target"), 0);
  EXPECT_EQ(whole.at("oldest_age_s"), 40);
  // By what is free: 700, 600 | 450, 600 | 450, 350 | 200, 350.
  std::vector<std::string> order;
  for (const json& program : whole.at("programs")) order.push_back(program.at("target"));
  EXPECT_THAT(order,
              ElementsAre(to_string(kOtherMac), to_string(kThird), to_string(kOtherMac), to_string(kThird)));
  const json& targets = whole.at("targets");
  ASSERT_EQ(targets.size(), 2U);
  for (const json& target : targets) {
    EXPECT_EQ(target.at("programs"), 2);
    EXPECT_EQ(target.at("ram_bytes"), 500 * kMiB);
    EXPECT_EQ(target.at("cpu_permille"), 100);
  }
}

TEST_F(AdminPlanTest, EachProgramIsToldWithItsCheckpointAndAge) {
  facts_.candidates.push_back(candidate(kOtherMac, 450, 600));
  add(7, 100, 90);
  const json program = planned().at("programs").at(0);
  EXPECT_EQ(program.at("key"), "02:00:00:00:00:01/7");
  EXPECT_EQ(program.at("program_name"), "pump");
  EXPECT_EQ(program.at("checkpoint"), "02:00:00:00:00:01/7@65536.7");
  EXPECT_EQ(program.at("size_bytes"), 17);
  EXPECT_EQ(program.at("age_s"), 90);
  EXPECT_EQ(program.at("ram_bytes"), 100 * kMiB);
  EXPECT_EQ(program.at("cpu_permille"), 50);
  EXPECT_EQ(program.at("target"), "02:00:00:00:00:02");
  EXPECT_EQ(program.at("score"), 512) << "525 permille of CPU and 500 of RAM are left";
  EXPECT_TRUE(program.at("shared_group").is_null());
}

TEST_F(AdminPlanTest, WhatDoesNotFitIsToldForEachEcu) {
  core::Candidate silent = candidate(kThird, 0, 900);
  silent.live = false;
  facts_.candidates.push_back(candidate(kOtherMac, 100, 300));
  facts_.candidates.push_back(silent);
  add(1, 200).notification.real_time.deadline_us = 100;  // The more urgent one.
  add(2, 200);
  const json whole = planned();
  EXPECT_EQ(whole.at("placed"), 1);
  EXPECT_EQ(whole.at("without_target"), 1);
  EXPECT_EQ(whole.at("programs").at(0).at("key"), "02:00:00:00:00:01/1");
  const json& unlucky = whole.at("programs").at(1);
  EXPECT_TRUE(unlucky.at("target").is_null());
  EXPECT_EQ(unlucky.at("why"), "no ECU is eligible");
  EXPECT_EQ(unlucky.at("verdicts"), (json{{"owner", 1}, {"ram", 1}, {"silent", 1}}));
  const json& ecus = unlucky.at("ecus");
  ASSERT_EQ(ecus.size(), 3U);
  EXPECT_EQ(ecus[0].at("why"), "the program is to leave it");
  EXPECT_EQ(ecus[1].at("why"), "needs 200 MiB of RAM, 100 MiB are free beside what was just placed there");
  EXPECT_EQ(ecus[2].at("verdict"), "silent");
}

TEST_F(AdminPlanTest, TheMostUrgentIsPlacedFirst) {
  facts_.candidates.push_back(candidate(kOtherMac, 100, 250));
  add(1, 200);
  add(2, 200).notification.real_time.deadline_us = 2000;
  add(3, 200).notification.real_time.deadline_us = 1000;
  const json whole = planned();
  EXPECT_EQ(whole.at("programs").at(0).at("key"), "02:00:00:00:00:01/3");
  EXPECT_EQ(whole.at("programs").at(0).at("target"), "02:00:00:00:00:02");
  EXPECT_EQ(whole.at("programs").at(1).at("key"), "02:00:00:00:00:01/2");
  EXPECT_TRUE(whole.at("programs").at(1).at("target").is_null());
}

TEST_F(AdminPlanTest, WithoutAnotherEcuNothingFits) {
  facts_.candidates.clear();
  facts_.has_session = false;
  add(1, 1);
  const json whole = planned();
  EXPECT_EQ(whole.at("connected"), false);
  EXPECT_EQ(whole.at("without_target"), 1);
  EXPECT_EQ(whole.at("programs").at(0).at("why"), "no ECU is connected");
}

TEST_F(AdminPlanTest, AnEcuWithNothingStoredIsNoWorkAndAnUnknownOneIsRefused) {
  EXPECT_EQ(planned().at("total"), 0);
  facts_.has_session = false;
  const wire::AdminAnswer unknown = ask();
  EXPECT_EQ(unknown.code, Code::kNotFound);
  EXPECT_EQ(unknown.context,
            "ECU 02:00:00:00:00:01 is not known: it has no session here, and nothing of it is stored");
  facts_.lost.unusable = 1;  // It may own what that is about.
  EXPECT_EQ(planned().at("unusable_logs"), 1);
}

TEST_F(AdminPlanTest, WhatCannotBeRestoredIsToldApart) {
  facts_.candidates.push_back(candidate(kOtherMac, 100, 900));
  add_without(1, true, make_error(Code::kUnavailable, "is being restored"));
  add_without(2, false, make_error(Code::kWithdrawn, "02:00:00:00:00:01/2 was withdrawn"));
  add_without(3, false, make_error(Code::kNotFound, "what is stored of it is damaged"));
  add(4, 1);
  const json whole = planned();
  EXPECT_EQ(whole.at("total"), 4);
  EXPECT_EQ(whole.at("placed"), 1);
  EXPECT_EQ(whole.at("under_way"), 1);
  EXPECT_EQ(whole.at("ended"), 1);
  EXPECT_EQ(whole.at("not_restorable"), 1);
  EXPECT_EQ(whole.at("programs").at(3).at("why"), "what is stored of it is damaged");
  EXPECT_TRUE(whole.at("programs").at(3).at("age_s").is_null());
}

TEST_F(AdminPlanTest, ItsFailureGroupIsTheLastChoiceAndIsNamed) {
  facts_.policy.failure_groups = {"power"};
  facts_.leaves_groups = {"power=a"};
  core::Candidate beside = candidate(kOtherMac, 0, 900);
  beside.metrics->labels = {"power=a"};
  core::Candidate apart = candidate(kThird, 800, 300);
  apart.metrics->labels = {"power=b"};
  facts_.candidates.push_back(beside);
  facts_.candidates.push_back(apart);
  add(1, 200).notification.real_time.deadline_us = 1;
  add(2, 200);
  const json programs = planned().at("programs");
  EXPECT_EQ(programs.at(0).at("target"), to_string(kThird)) << "although the other one has more free";
  EXPECT_TRUE(programs.at(0).at("shared_group").is_null());
  EXPECT_EQ(programs.at(1).at("target"), to_string(kOtherMac)) << "rather there than nowhere";
  EXPECT_EQ(programs.at(1).at("shared_group"), "power=a");
}

TEST_F(AdminPlanTest, ManyProgramsAreCountedAndAsManyAsFitAreListed) {
  for (std::uint64_t i = 0; i < 30; ++i)
    facts_.candidates.push_back(candidate(EcuMac{0x020000001000 + i}, 0, 1));
  for (ProgramId id = 0; id < kPlanProgramsShownMax + 10; ++id) add(id, 2);
  const json whole = planned();
  EXPECT_EQ(whole.at("without_target"), kPlanProgramsShownMax + 10);
  EXPECT_LT(whole.at("programs").size(), kPlanProgramsShownMax);
  EXPECT_GT(whole.at("programs").size(), 100U);
  EXPECT_EQ(whole.at("shown"), whole.at("programs").size());
  EXPECT_EQ(whole.at("programs").at(0).at("ecus").size(), kPlanVerdictsShownMax);
  EXPECT_EQ(whole.at("programs").at(0).at("verdicts").at("ram"), 30);
  stopping_ = true;
  EXPECT_EQ(ask().code, Code::kCancelled);
}

}  // namespace
}  // namespace cms::daemon
