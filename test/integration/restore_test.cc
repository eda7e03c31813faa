// An ECU is lost, and its programs go on elsewhere, each exactly once, whatever dies in between: real cmsd, real
// ECUs (`rtcr ecu`), counted at the targets.
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>

#include <nlohmann/json.hpp>

#include "test/integration/ecu_process.h"
#include "test/integration/fleet.h"
#include "test/integration/restored_once.h"

namespace cms::test {
namespace {

constexpr const char* kLost = "02:00:00:00:00:01";
constexpr const char* kFirst = "02:00:00:00:00:11";
constexpr const char* kSecond = "02:00:00:00:00:12";
constexpr int kKilled = 128 + SIGKILL;

EcuProcess::Options with_programs(std::uint64_t count, std::size_t size_bytes = 4096) {
  EcuProcess::Options options;
  options.program_count = count;
  options.size_bytes = size_bytes;
  return options;
}
EcuProcess::Options as_target() {
  EcuProcess::Options options;
  options.is_target = true;
  return options;
}

std::unique_ptr<Process> tell_failed(const CmsdProcess& cmsd, const std::string& ecu_mac) {
  return std::make_unique<Process>(std::vector<std::string>{program_path("cms-admin"), "--cms", cmsd.admin(),
                                                            "--timeout", "60s", "--output", "json", "ecu",
                                                            "failed", ecu_mac});
}

// Whether nothing is stored under the key any more, before long.
bool goes(const CmsdProcess& cmsd, const std::string& key, const TempDir& dir) {
  const auto start = TestClock::now();
  while (get_newest(cmsd, key, dir / "gone")) {
    if (since(start) >= kPatience) return false;
  }
  return true;
}

TEST(RestoreTest, ProgramsOfALostEcuGoOnElsewhereEachOnceAlthoughBothCmsAreTold) {
  constexpr std::uint64_t kPrograms = 60;
  const TempDir dir{memory_or_tmp()};
  Fleet fleet(dir);
  EcuProcess lost(dir, fleet.endpoints(), kLost, with_programs(kPrograms));
  EcuProcess first(dir, fleet.endpoints(), kFirst, as_target());
  EcuProcess second(dir, fleet.endpoints(), kSecond, as_target());
  ASSERT_TRUE(lost.wait_for_receipts("REPLICATED", kPrograms)) << fleet.log();
  ASSERT_FALSE(first.wait_for_event("ready").is_null());
  ASSERT_FALSE(second.wait_for_event("ready").is_null());
  lost.kill();
  const auto told_a = tell_failed(fleet[0], kLost);
  const auto told_b = tell_failed(fleet[1], kLost);
  EXPECT_EQ(told_a->wait(), 0) << told_a->output() << fleet.log();
  EXPECT_EQ(told_b->wait(), 0) << told_b->output() << fleet.log();
  const auto answer = nlohmann::json::parse(told_a->output(), nullptr, false);
  EXPECT_EQ(answer.value("total", 0), static_cast<int>(kPrograms));
  EXPECT_EQ(answer.value("done", 0), static_cast<int>(kPrograms));
  expect_each_once(kLost, {&first, &second}, kPrograms);
  // Two equal targets share the load.
  EXPECT_GT(first.restored().size(), kPrograms / 10);
  EXPECT_GT(second.restored().size(), kPrograms / 10);

  // The new owner's first checkpoint is stored, under its key and in the old lineage; then the old ones go.
  ASSERT_TRUE(first.wait_for_receipts("REPLICATED", first.restored().size())) << fleet.log();
  const auto [from, name] = *first.restored().begin();
  ProgramId id = 0;
  ProgramKey ignored;
  ASSERT_TRUE(parse_restored_name(name, id, ignored));
  const std::string key = std::string(kFirst) + "/" + std::to_string(id);
  EXPECT_EQ(get_newest(fleet[0], key, dir / "back"), blob_of(from.program_id, 1, 4096));
  EXPECT_TRUE(goes(fleet[0], to_string(from), dir)) << fleet.log();

  const auto history = fleet[1].admin({"history", to_string(from), "--output", "json"});
  ASSERT_EQ(history.exit_code, 0) << history.errors;
  std::vector<std::string> kinds;
  const auto records = nlohmann::json::parse(history.output);
  for (const auto& record : records.at("records")) kinds.push_back(record.at("kind"));
  EXPECT_EQ(kinds, (std::vector<std::string>{"GENESIS", "CLAIM", "ACT", "DONE"}));

  // Told again, nothing more happens.
  const auto again = tell_failed(fleet[0], kLost);
  EXPECT_EQ(again->wait(), 0) << again->output();
  EXPECT_EQ(nlohmann::json::parse(again->output()).value("total", -1), 0);
  expect_each_once(kLost, {&first, &second}, kPrograms);
}

TEST(RestoreTest, AnEcuThatWasNotGoneIsToldToStopItsPrograms) {
  const TempDir dir{memory_or_tmp()};
  Fleet fleet(dir);
  EcuProcess lost(dir, fleet.endpoints(), kLost, with_programs(3));
  EcuProcess target(dir, fleet.endpoints(), kFirst, as_target());
  ASSERT_TRUE(lost.wait_for_receipts("REPLICATED", 3)) << fleet.log();
  ASSERT_FALSE(target.wait_for_event("ready").is_null());
  const auto told = tell_failed(fleet[0], kLost);
  EXPECT_EQ(told->wait(), 0) << told->output() << fleet.log();
  expect_each_once(kLost, {&target}, 3);
  std::set<std::uint64_t> fenced;
  lost.wait_for([&](const nlohmann::json& json) {
    if (json.value("event", "") == "fenced") fenced.insert(json.value("program_id", std::uint64_t{0}));
    return fenced.size() == 3;
  });
  EXPECT_EQ(fenced, (std::set<std::uint64_t>{1, 2, 3})) << fleet.log();
  // What it publishes of them all the same is refused, and nothing of it stays.
  Publisher late(fleet.endpoints(), kLost);
  EXPECT_EQ(late.wait(late.publish(1, 2, 4096)), RTCR_E_FENCED) << fleet.log();
  // Nor does its RTCR, started again, get a program back that runs elsewhere.
  int status = RTCR_OK;
  (void)late.fetch_newest(1, 4096, status);
  EXPECT_EQ(status, RTCR_E_FENCED);
  EXPECT_TRUE(goes(fleet[0], std::string(kLost) + "/1", dir)) << fleet.log();
}

TEST(RestoreTest, WithoutATargetItSaysWhyAndGoesOnWhenOneComes) {
  const TempDir dir{memory_or_tmp()};
  Fleet fleet(dir);
  EcuProcess lost(dir, fleet.endpoints(), kLost, with_programs(2));
  EcuProcess no_target(dir, fleet.endpoints(), kSecond, {});
  ASSERT_TRUE(lost.wait_for_receipts("REPLICATED", 2)) << fleet.log();
  ASSERT_FALSE(no_target.wait_for_event("ready").is_null());
  lost.kill();
  const auto told = fleet[0].admin({"--timeout", "60s", "ecu", "failed", kLost});
  EXPECT_EQ(told.exit_code, 1) << told.output;
  EXPECT_NE(told.output.find(std::string(kSecond) + ": its RTCR takes no restores"), std::string::npos)
      << told.output;
  EcuProcess target(dir, fleet.endpoints(), kFirst, as_target());
  for (int i = 0; i < 2; ++i) EXPECT_FALSE(target.wait_for_event("running").is_null()) << fleet.log();
  expect_each_once(kLost, {&target}, 2);
}

TEST(RestoreTest, AnEcuOfWhichNothingIsStoredIsNoWork) {
  const TempDir dir{memory_or_tmp()};
  CmsdProcess cmsd(dir);
  const auto told = cmsd.admin({"--output", "json", "ecu", "failed", "02:00:00:00:00:99"});
  EXPECT_EQ(told.exit_code, 0) << told.errors;
  EXPECT_EQ(nlohmann::json::parse(told.output).value("total", -1), 0);
  EXPECT_EQ(cmsd.admin({"ecu", "failed", "nonsense"}).exit_code, 2);
  EXPECT_EQ(cmsd.admin({"ecu"}).exit_code, 2);
  EXPECT_EQ(cmsd.admin({"history"}).exit_code, 2);
  EXPECT_EQ(cmsd.admin({"history", "02:00:00:00:00:99/1"}).exit_code, 0);
}

TEST(RestoreTest, AWithdrawnProgramIsNotBroughtBack) {
  const TempDir dir{memory_or_tmp()};
  Fleet fleet(dir);
  EcuProcess target(dir, fleet.endpoints(), kFirst, as_target());
  ASSERT_FALSE(target.wait_for_event("ready").is_null());
  {
    Publisher publisher(fleet.endpoints(), kLost);
    for (std::uint64_t id = 1; id <= 2; ++id) {
      ASSERT_EQ(publisher.wait(publisher.publish(id, 1, 4096), RTCR_REPLICATED), RTCR_OK) << fleet.log();
    }
    ASSERT_EQ(publisher.withdraw(2), RTCR_OK);
  }
  const auto told = tell_failed(fleet[0], kLost);
  EXPECT_EQ(told->wait(), 0) << told->output();
  EXPECT_EQ(nlohmann::json::parse(told->output(), nullptr, false).value("total", 0), 1);
  expect_each_once(kLost, {&target}, 1);
}

TEST(RestoreTest, AProgramThatBeganANewLifeIsRestoredOnceAndFromThat) {
  const TempDir dir{memory_or_tmp()};
  Fleet fleet(dir);
  EcuProcess target(dir, fleet.endpoints(), kFirst, as_target());
  ASSERT_FALSE(target.wait_for_event("ready").is_null());
  {
    Publisher publisher(fleet.endpoints(), kLost);
    ASSERT_EQ(publisher.wait(publisher.publish(1, 7, 4096), RTCR_REPLICATED), RTCR_OK) << fleet.log();
  }
  const auto bytes = blob_of(1, 1, 4096);
  std::ofstream(dir / "new", std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  Process rtcr({program_path("rtcr"), "publish", "--cms", fleet.endpoints(), "--ecu-mac", kLost, "--program",
                "1", "--new-lineage", "--bulk-host", "127.0.0.1", dir / "new"});
  ASSERT_EQ(rtcr.wait(), 0) << fleet.log();
  const auto told = tell_failed(fleet[0], kLost);
  EXPECT_EQ(told->wait(), 0) << told->output() << fleet.log();
  expect_each_once(kLost, {&target}, 1);
}

TEST(RestoreTest, ACmsThatDiesBeforeALogIsBegunBeginsItWhenItIsBack) {
  const TempDir dir{memory_or_tmp()};
  CmsdProcess::Options options;
  options.crash_point = "lineage.before_genesis";
  CmsdProcess cmsd(dir, options);
  Publisher publisher(cmsd.endpoint(), kLost);
  const std::uint64_t seq = publisher.publish(1, 1, 4096, true);
  ASSERT_EQ(cmsd.wait(), kKilled) << "the point was never passed\n" << cmsd.log();
  EXPECT_NE(publisher.wait(seq, RTCR_STORED, 0), RTCR_OK) << "STORED was said before its log was begun";
  cmsd.start();
  EXPECT_EQ(publisher.wait(seq), RTCR_OK) << cmsd.log();
  // It is not forgotten: without a log nobody would know that the ECU owns anything.
  const auto told = tell_failed(cmsd, kLost);
  EXPECT_EQ(told->wait(), 1);
  EXPECT_EQ(nlohmann::json::parse(told->output()).value("total", -1), 1) << cmsd.log();
}

TEST(RestoreTest, WhatWasStoredBeforeThereWereClaimsIsRestoredToo) {
  const TempDir dir{memory_or_tmp()};
  CmsdProcess cmsd(dir);
  {
    EcuProcess lost(dir, cmsd.endpoint(), kLost, with_programs(3));
    ASSERT_TRUE(lost.wait_for_receipts("STORED", 3)) << cmsd.log();
    lost.kill();
  }
  cmsd.kill();
  std::vector<std::filesystem::path> records;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(cmsd.store_path() + "/claims")) {
    if (entry.is_regular_file()) records.push_back(entry.path());
  }
  EXPECT_EQ(records.size(), 3U);
  for (const auto& record : records) std::filesystem::remove(record);
  cmsd.start();
  EcuProcess target(dir, cmsd.endpoint(), kFirst, as_target());
  ASSERT_FALSE(target.wait_for_event("ready").is_null());
  const auto told = tell_failed(cmsd, kLost);
  EXPECT_EQ(told->wait(), 0) << told->output() << cmsd.log();
  expect_each_once(kLost, {&target}, 3);
}

TEST(RestoreTest, ATerminatedCmsGivesBackWhatItHasClaimed) {
  const TempDir dir{memory_or_tmp()};
  Fleet fleet(dir);
  EcuProcess lost(dir, fleet.endpoints(), kLost, with_programs(20, 1 << 20));
  ASSERT_TRUE(lost.wait_for_receipts("REPLICATED", 20)) << fleet.log();
  EcuProcess target(dir, fleet.endpoints(), kFirst, as_target());
  ASSERT_FALSE(target.wait_for_event("ready").is_null());
  lost.kill();
  const auto told_a = tell_failed(fleet[0], kLost);
  ASSERT_FALSE(target.wait_for_event("prepare").is_null()) << fleet.log();
  EXPECT_EQ(fleet[0].terminate(), 0) << fleet.log();
  const auto told_b = tell_failed(fleet[1], kLost);
  EXPECT_EQ(told_b->wait(std::chrono::seconds(120)), 0) << told_b->output() << fleet.log();
  expect_each_once(kLost, {&target}, 20, 1 << 20);
}

// ---- the claimer killed, or stopped for longer than others believe in it, at every named point

class RestorePointTest : public testing::TestWithParam<std::string> {
 protected:
  static constexpr std::uint64_t kPrograms = 12;

  // The ECU is lost, and "a", told so, has come to the point; `how` is for CMS_CRASH_POINT.
  void lose_and_tell_a(const std::string& how) {
    EcuProcess lost(dir_, fleet_.endpoints(), kLost, with_programs(kPrograms));
    ASSERT_TRUE(lost.wait_for_receipts("REPLICATED", kPrograms)) << fleet_.log();
    first_ = std::make_unique<EcuProcess>(dir_, fleet_.endpoints(), kFirst, as_target());
    second_ = std::make_unique<EcuProcess>(dir_, fleet_.endpoints(), kSecond, as_target());
    EXPECT_EQ(fleet_[0].terminate(), 0);
    fleet_.start(0, GetParam() + ":3" + how);  // With some done, some under way and some not begun.
    ASSERT_FALSE(first_->wait_for_event("ready").is_null());
    ASSERT_FALSE(second_->wait_for_event("ready").is_null());
    lost.kill();
    told_a_ = tell_failed(fleet_[0], kLost);
  }
  void expect_b_restores_them() {
    const auto told_b = tell_failed(fleet_[1], kLost);
    EXPECT_EQ(told_b->wait(std::chrono::seconds(120)), 0) << told_b->output() << fleet_.log();
    expect_each_once(kLost, {first_.get(), second_.get()}, kPrograms);
  }

  TempDir dir_{memory_or_tmp()};
  Fleet fleet_{dir_};
  std::unique_ptr<EcuProcess> first_;
  std::unique_ptr<EcuProcess> second_;
  std::unique_ptr<Process> told_a_;
};

TEST_P(RestorePointTest, KilledThereTheOtherGoesOnAndNothingRunsTwice) {
  ASSERT_NO_FATAL_FAILURE(lose_and_tell_a(""));
  ASSERT_EQ(fleet_[0].wait(), kKilled) << "the point was never passed\n" << fleet_.log();
  expect_b_restores_them();
}

TEST_P(RestorePointTest, StoppedThereTheOtherGoesOnAndTheOneThatWakesStartsNothingAgain) {
  ASSERT_NO_FATAL_FAILURE(lose_and_tell_a(":stop"));
  ASSERT_TRUE(fleet_[0].process().wait_stopped()) << "the point was never passed\n" << fleet_.log();
  ASSERT_TRUE(wait_until_stale(fleet_[1], "a")) << fleet_.log();
  expect_b_restores_them();
  fleet_[0].process().signal(SIGCONT);
  EXPECT_EQ(told_a_->wait(std::chrono::seconds(120)), 0) << told_a_->output() << fleet_.log();
  expect_each_once(kLost, {first_.get(), second_.get()}, kPrograms);
}

TEST(RestorePointsTest, TheProgramHasThePointsThatThisTestWalks) {
  EXPECT_EQ(points_of_a_restore().size(), 6U);
}

INSTANTIATE_TEST_SUITE_P(AtEveryPoint, RestorePointTest, testing::ValuesIn(points_of_a_restore()),
                         name_of_point);

}  // namespace
}  // namespace cms::test
