// `plan --fail` says where the programs of an ECU would go, moves nothing, and the restore then obeys: real cmsd,
// real ECUs.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "test/integration/ecu_process.h"
#include "test/integration/fleet.h"
#include "test/integration/restored_once.h"

namespace cms::test {
namespace {

constexpr const char* kLost = "02:00:00:00:00:01";
constexpr const char* kFirst = "02:00:00:00:00:11";
constexpr const char* kSecond = "02:00:00:00:00:12";

EcuProcess::Options as_target(const std::vector<std::string>& arguments = {}) {
  EcuProcess::Options options;
  options.is_target = true;
  options.arguments = arguments;
  return options;
}

nlohmann::json json_of(const std::string& text) {
  auto json = nlohmann::json::parse(text, nullptr, false);
  EXPECT_TRUE(json.is_object()) << text;
  return json.is_object() ? json : nlohmann::json::object();
}

// A program that may not be where another one says the same.
void publish_excluding(Publisher& publisher, std::uint64_t program_id, const char* label) {
  const auto bytes = blob_of(program_id, 1, 4096);
  rtcr_checkpoint checkpoint = rtcr_checkpoint_init();
  checkpoint.source = RTCR_SOURCE_COPY;
  checkpoint.program_id = program_id;
  checkpoint.data = bytes.data();
  checkpoint.size_bytes = bytes.size();
  checkpoint.labels = &label;
  checkpoint.label_count = 1;
  std::uint64_t seq = 0;
  ASSERT_EQ(rtcr_publish(publisher.client(), &checkpoint, &seq), RTCR_OK) << rtcr_last_error();
  ASSERT_EQ(publisher.wait(seq, RTCR_REPLICATED), RTCR_OK);
}

TEST(PlanTest, NamesTheTargetsThatTheRestoreThenTakesAndMovesNothing) {
  constexpr std::uint64_t kPrograms = 5;
  const TempDir dir{memory_or_tmp()};
  Fleet::Options grouped;
  grouped.arguments = {"--failure-group", "power"};
  Fleet fleet(dir, grouped);
  EcuProcess::Options options = as_target({"--label", "power=a"});
  options.program_count = kPrograms;
  EcuProcess lost(dir, fleet.endpoints(), kLost, options);
  EcuProcess beside(dir, fleet.endpoints(), kFirst, as_target({"--label", "power=a"}));
  EcuProcess apart(dir, fleet.endpoints(), kSecond, as_target({"--label", "power=b"}));
  ASSERT_TRUE(lost.wait_for_receipts("REPLICATED", kPrograms)) << fleet.log();
  ASSERT_FALSE(beside.wait_for_event("ready").is_null());
  ASSERT_FALSE(apart.wait_for_event("ready").is_null());

  const auto asked = fleet[0].admin({"--output", "json", "plan", "--fail", kLost});
  EXPECT_EQ(asked.exit_code, 0) << asked.errors << fleet.log();
  const nlohmann::json plan = json_of(asked.output);
  EXPECT_EQ(plan.value("total", 0), static_cast<int>(kPrograms));
  EXPECT_EQ(plan.value("placed", 0), static_cast<int>(kPrograms));
  EXPECT_EQ(plan.value("connected", false), true);
  for (const auto& program : plan.at("programs")) {
    EXPECT_EQ(program.value("target", ""), kSecond) << "the other one fails together with it";
    EXPECT_LT(program.value("age_s", 1000), 600);
    EXPECT_EQ(program.value("checkpoint", "").rfind(program.value("key", "?"), 0), 0U);
  }
  const auto text = fleet[0].admin({"plan", "--fail", kLost});
  EXPECT_EQ(text.exit_code, 0) << text.errors;
  EXPECT_NE(text.output.find("nothing was moved"), std::string::npos) << text.output;
  EXPECT_TRUE(beside.restored().empty());
  EXPECT_TRUE(apart.restored().empty());
  EXPECT_EQ(json_of(fleet[0].admin({"--output", "json", "restores"}).output).value("count", -1), 0);
  const auto history = fleet[0].admin({"--output", "json", "history", std::string(kLost) + "/1"});
  EXPECT_EQ(json_of(history.output).at("records").size(), 1U) << "GENESIS alone";

  lost.kill();
  const auto told = fleet[0].admin({"--timeout", "60s", "ecu", "failed", kLost});
  EXPECT_EQ(told.exit_code, 0) << told.output << told.errors << fleet.log();
  expect_each_once(kLost, {&beside, &apart}, kPrograms);
  EXPECT_TRUE(beside.restored().empty());
  EXPECT_EQ(apart.restored().size(), kPrograms);
}

TEST(PlanTest, SaysForEachEcuWhyAProgramFitsNowhereAndTheRestoreAgrees) {
  const TempDir dir{memory_or_tmp()};
  Fleet fleet(dir);
  {
    Publisher publisher(fleet.endpoints(), kLost);
    for (std::uint64_t id = 1; id <= 3; ++id) {
      ASSERT_NO_FATAL_FAILURE(publish_excluding(publisher, id, "!brake"));
    }
  }
  const auto nobody = fleet[0].admin({"--output", "json", "plan", "--fail", kLost});
  EXPECT_EQ(nobody.exit_code, 1) << nobody.output;
  EXPECT_EQ(json_of(nobody.output).at("programs").at(0).value("why", ""), "no ECU is connected");

  EcuProcess first(dir, fleet.endpoints(), kFirst, as_target());
  EcuProcess second(dir, fleet.endpoints(), kSecond, as_target());
  ASSERT_FALSE(first.wait_for_event("ready").is_null());
  ASSERT_FALSE(second.wait_for_event("ready").is_null());
  const auto asked = fleet[0].admin({"--output", "json", "plan", "--fail", kLost});
  EXPECT_EQ(asked.exit_code, 1) << asked.output;
  EXPECT_NE(asked.errors.find("1 of 3 programs would not go on elsewhere"), std::string::npos)
      << asked.errors;
  const nlohmann::json plan = json_of(asked.output);
  EXPECT_EQ(plan.value("placed", 0), 2);
  EXPECT_EQ(plan.at("targets").size(), 2U) << "one on each";
  std::size_t excluded = 0;
  for (const auto& program : plan.at("programs")) {
    if (program.at("target").is_null()) excluded += program.at("verdicts").value("excluded", std::size_t{0});
  }
  EXPECT_EQ(excluded, 2U) << asked.output;

  const auto told = fleet[0].admin({"--timeout", "60s", "ecu", "failed", kLost});
  EXPECT_EQ(told.exit_code, 1) << told.output;
  EXPECT_NE(told.output.find("another program there excludes 'brake' too"), std::string::npos) << told.output;
  EXPECT_EQ(first.restored().size(), 1U);
  EXPECT_EQ(second.restored().size(), 1U);
}

TEST(PlanTest, AnswersWrongAndEmptyQuestionsClearly) {
  const TempDir dir{memory_or_tmp()};
  CmsdProcess cmsd(dir);
  ASSERT_TRUE(cmsd.wait_for_log("the store can be trusted with claims")) << cmsd.log();
  const auto unknown = cmsd.admin({"plan", "--fail", "02:00:00:00:00:99"});
  EXPECT_EQ(unknown.exit_code, 1);
  EXPECT_NE(unknown.errors.find("02:00:00:00:00:99 is not known"), std::string::npos) << unknown.errors;
  EXPECT_EQ(cmsd.admin({"plan", "--fail", "nonsense"}).exit_code, 2);
  EXPECT_EQ(cmsd.admin({"plan"}).exit_code, 2);
  EcuProcess idle(dir, cmsd.endpoint(), kFirst, as_target());
  ASSERT_FALSE(idle.wait_for_event("ready").is_null());
  const auto nothing = cmsd.admin({"plan", "--fail", kFirst});
  EXPECT_EQ(nothing.exit_code, 0) << nothing.errors;
  EXPECT_NE(nothing.output.find("nothing is stored"), std::string::npos) << nothing.output;
}

}  // namespace
}  // namespace cms::test
