// Damage in the store, found by scrubbing and by reading, and an index that is rebuilt while cmsd goes
// on serving; also with kill -9 in the middle of either.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <thread>

#include "test/integration/fleet.h"

namespace cms::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;

constexpr int kKilled = 128 + SIGKILL;
constexpr std::size_t kSmallBytes = 4096;
constexpr std::size_t kLargeBytes = 3 * 1024 * 1024 + 17;

// The stored files of a program, by seq.
std::map<std::uint64_t, fs::path> files_of(const CmsdProcess& cmsd, std::uint64_t program_id) {
  std::map<std::uint64_t, fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(cmsd.store_path() + "/d")) {
    const std::string name = entry.path().filename().string();
    if (entry.path().extension() != ".ckpt") continue;
    if (std::stoull(name.substr(13, 16), nullptr, 16) != program_id) continue;
    files[std::stoull(name.substr(13 + 17 + 33 + 17 + 17, 16), nullptr, 16)] = entry.path();
  }
  return files;
}

void flip_byte(const fs::path& path, std::size_t at) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(at));
  const char byte = static_cast<char>(file.get());
  file.seekp(static_cast<std::streamoff>(at));
  file.put(static_cast<char>(byte ^ 1));
  ASSERT_TRUE(file.good());
}

std::vector<std::uint8_t> bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

json json_of(const CmsdProcess& cmsd, std::vector<std::string> arguments) {
  arguments.insert(arguments.end(), {"--output", "json"});
  const auto answer = cmsd.admin(std::move(arguments));
  return json::parse(answer.output, nullptr, false);
}

bool wait_for_status(const CmsdProcess& cmsd, const std::function<bool(const json&)>& holds) {
  const auto start = TestClock::now();
  while (since(start) < kPatience) {
    const json status = json_of(cmsd, {"status"});
    if (status.is_object() && holds(status)) return true;
  }
  return false;
}

bool has_alarm(const json& status) {
  for (const json& problem : status.at("problems")) {
    if (problem.at("what").get<std::string>().find("in quarantine") != std::string::npos) return true;
  }
  return false;
}

// Two generations of program 7, released by the publisher when stored.
std::uint64_t publish_two(Publisher& publisher, std::size_t size_bytes) {
  const std::uint64_t first = publisher.publish(7, 1, size_bytes, true);
  EXPECT_EQ(publisher.wait(first), RTCR_OK);
  const std::uint64_t second = publisher.publish(7, 2, size_bytes, true);
  EXPECT_EQ(publisher.wait(second), RTCR_OK);
  return second;
}

TEST(ScrubTest, AFlippedByteIsFoundByScrubAndTheNextOlderOneIsServed) {
  const TempDir dir{memory_or_tmp()};
  CmsdProcess cmsd(dir);
  Publisher publisher(cmsd.endpoint(), "02:00:00:00:00:01");
  const std::uint64_t newest = publish_two(publisher, kLargeBytes);
  EXPECT_EQ(cmsd.admin({"scrub"}).exit_code, 0);
  const fs::path damaged = files_of(cmsd, 7).at(newest);
  flip_byte(damaged, 64 + 2 * 1024 * 1024);
  const auto scrubbed = cmsd.admin({"scrub", publisher.key(7)});
  EXPECT_EQ(scrubbed.exit_code, 1);
  EXPECT_THAT(scrubbed.output, HasSubstr("." + std::to_string(newest)));
  EXPECT_FALSE(fs::exists(damaged));
  const std::string moved = cmsd.store_path() + "/quarantine/" + damaged.filename().string();
  EXPECT_TRUE(fs::exists(moved));
  const std::vector<std::uint8_t> why = bytes_of(moved + ".why");
  EXPECT_THAT(std::string(why.begin(), why.end()), HasSubstr("chunk 2"));
  EXPECT_EQ(get_newest(cmsd, publisher.key(7), dir / "back"), blob_of(7, 1, kLargeBytes));
  EXPECT_TRUE(wait_for_status(cmsd, [](const json& status) {
    return has_alarm(status) && status.at("health") == "down" && status.at("counters").at("quarantined") == 1;
  }));
  EXPECT_TRUE(cmsd.wait_for_log("is damaged in the store"));

  cmsd.terminate();
  cmsd.start();  // The alarm outlives it, until somebody clears it.
  EXPECT_TRUE(wait_for_status(cmsd, has_alarm));
  fs::remove(moved);
  fs::remove(moved + ".why");
  EXPECT_TRUE(wait_for_status(cmsd, [](const json& status) { return !has_alarm(status); }));
}

TEST(ScrubTest, GetFindsItAndAsksForTheNextOlderOneWithANotice) {
  const TempDir dir{memory_or_tmp()};
  CmsdProcess cmsd(dir);
  Publisher publisher(cmsd.endpoint(), "02:00:00:00:00:01");
  const std::uint64_t newest = publish_two(publisher, kLargeBytes);
  flip_byte(files_of(cmsd, 7).at(newest), 64 + 1024 * 1024 + 5);
  const auto got = cmsd.admin({"get", publisher.key(7), "-o", dir / "back"});
  EXPECT_EQ(got.exit_code, 0) << got.output;
  EXPECT_THAT(got.errors, HasSubstr("is damaged in the store"));
  EXPECT_THAT(got.errors, HasSubstr("this is an older checkpoint"));
  EXPECT_EQ(bytes_of(dir / "back"), blob_of(7, 1, kLargeBytes));
  const json shown = json_of(cmsd, {"show", publisher.key(7)});
  EXPECT_EQ(shown.at("stored_count"), 1);
  EXPECT_THAT(shown.at("failures").dump(), HasSubstr("damaged in the store"));
}

TEST(ScrubTest, GetOfADamagedVersionFailsAndLeavesNoFile) {
  const TempDir dir{memory_or_tmp()};
  CmsdProcess cmsd(dir);
  Publisher publisher(cmsd.endpoint(), "02:00:00:00:00:01");
  const std::uint64_t newest = publish_two(publisher, kSmallBytes);
  const json shown = json_of(cmsd, {"show", publisher.key(7)});
  const std::string key = shown.at("checkpoint").at("key");
  const fs::path file = files_of(cmsd, 7).at(newest);
  fs::resize_file(file, fs::file_size(file) - 1);  // Its footer.
  const auto got = cmsd.admin({"get", key, "-o", dir / "back"});
  EXPECT_EQ(got.exit_code, 1);
  EXPECT_THAT(got.errors, HasSubstr("is damaged in the store"));
  EXPECT_FALSE(fs::exists(dir / "back"));
  // The library gets the next older one by itself: it had nothing of the damaged one yet.
  int status = RTCR_OK;
  EXPECT_EQ(publisher.fetch_newest(7, kSmallBytes, status), blob_of(7, 1, kSmallBytes))
      << rtcr_error_string(status);
}

TEST(ScrubTest, TheBackgroundFindsItAsWell) {
  const TempDir dir{memory_or_tmp()};
  CmsdProcess::Options options;
  options.arguments = {"--scrub-rate", "1GiB"};
  CmsdProcess cmsd(dir, options);
  Publisher publisher(cmsd.endpoint(), "02:00:00:00:00:01");
  const std::uint64_t newest = publish_two(publisher, kSmallBytes);
  cmsd.terminate();
  flip_byte(files_of(cmsd, 7).at(newest), 100);
  cmsd.start();
  EXPECT_TRUE(wait_for_status(cmsd, [](const json& status) {
    return has_alarm(status) && status.at("scrub").at("last_round").is_object() &&
           status.at("scrub").at("last_round").at("corrupt") == 1;
  }));
  EXPECT_EQ(get_newest(cmsd, publisher.key(7), dir / "back"), blob_of(7, 1, kSmallBytes));
}

TEST(ScrubTest, ThePeerFollowsAndWhatAPublisherHoldsIsPulledAgain) {
  const TempDir dir{memory_or_tmp()};
  Fleet fleet(dir);
  Publisher publisher(fleet.endpoints(), "02:00:00:00:00:01");
  const std::uint64_t freed = publisher.publish(7, 1, kSmallBytes);
  ASSERT_EQ(publisher.wait(freed, RTCR_REPLICATED), RTCR_OK) << fleet.log();
  ASSERT_TRUE(indexes_agree(fleet, 1));
  flip_byte(files_of(fleet[0], 7).at(freed), 100);
  EXPECT_EQ(fleet[0].admin({"scrub", publisher.key(7)}).exit_code, 1);
  EXPECT_TRUE(indexes_agree(fleet, 0)) << fleet.log();
  EXPECT_TRUE(wait_for_status(fleet[1],
                              [](const json& status) { return status.at("stored").at("checkpoints") == 0; }));

  // With b gone nothing new is REPLICATED, so the publisher keeps it.
  fleet[1].kill();
  ASSERT_TRUE(fleet[0].wait_for_log("peer b is silent"));
  const std::uint64_t held = publisher.publish(7, 2, kSmallBytes);
  ASSERT_EQ(publisher.wait(held, RTCR_STORED), RTCR_OK);
  ASSERT_NE(publisher.wait(held, RTCR_REPLICATED, 0), RTCR_OK) << "one live CMS of two must not be enough";
  flip_byte(files_of(fleet[0], 7).at(held), 100);
  EXPECT_EQ(fleet[0].admin({"scrub", publisher.key(7)}).exit_code, 1);
  const auto start = TestClock::now();
  std::optional<std::vector<std::uint8_t>> back;
  while (!back && since(start) < kPatience) back = get_newest(fleet[0], publisher.key(7), dir / "back");
  EXPECT_EQ(back, blob_of(7, 2, kSmallBytes)) << fleet.log();
}

// ---- kill -9

class ScrubCrashTest : public testing::TestWithParam<const char*> {};

TEST_P(ScrubCrashTest, ADeathWhileQuarantiningLeavesItThereOrAway) {
  const TempDir dir{memory_or_tmp()};
  CmsdProcess cmsd(dir);
  Publisher publisher(cmsd.endpoint(), "02:00:00:00:00:01");
  const std::uint64_t newest = publish_two(publisher, kSmallBytes);
  const fs::path damaged = files_of(cmsd, 7).at(newest);
  cmsd.terminate();
  cmsd.start(GetParam());
  flip_byte(damaged, 100);
  EXPECT_NE(cmsd.admin({"scrub", publisher.key(7), "--timeout", "2s"}).exit_code, 0);
  ASSERT_EQ(cmsd.wait(), kKilled);
  cmsd.start();
  EXPECT_EQ(get_newest(cmsd, publisher.key(7), dir / "back"), blob_of(7, 1, kSmallBytes));
  EXPECT_FALSE(fs::exists(damaged));
  EXPECT_TRUE(fs::exists(cmsd.store_path() + "/quarantine/" + damaged.filename().string()));
  EXPECT_TRUE(wait_for_status(cmsd, [](const json& status) {
    return has_alarm(status) && status.at("stored").at("checkpoints") == 1;
  }));
}

INSTANTIATE_TEST_SUITE_P(Points, ScrubCrashTest,
                         testing::Values("store.after_quarantine", "cmsd.after_quarantine"));

class RebuildCrashTest : public testing::TestWithParam<const char*> {};

TEST_P(RebuildCrashTest, ADeathWhileRebuildingLosesNothing) {
  const TempDir dir{memory_or_tmp()};
  CmsdProcess cmsd(dir);
  const json before = [&] {
    Publisher publisher(cmsd.endpoint(), "02:00:00:00:00:01");
    for (std::uint64_t program_id = 1; program_id <= 20; ++program_id)
      EXPECT_EQ(publisher.wait(publisher.publish(program_id, 1, kSmallBytes)), RTCR_OK);
    return json_of(cmsd, {"checkpoints", "--all"});
  }();
  // A session that stores nothing: no store tells of its incarnation.
  {
    Publisher publisher(cmsd.endpoint(), "02:00:00:00:00:02");
    EXPECT_EQ(publisher.withdraw(1), RTCR_OK);
  }
  cmsd.terminate();
  cmsd.start(GetParam());
  EXPECT_NE(cmsd.admin({"index", "rebuild", "--timeout", "2s"}).exit_code, 0);
  ASSERT_EQ(cmsd.wait(), kKilled);
  cmsd.start();
  ASSERT_TRUE(
      wait_for_status(cmsd, [](const json& status) { return status.at("index").at("state") == "ok"; }));
  json after = json_of(cmsd, {"checkpoints", "--all"});
  ASSERT_EQ(after.at("checkpoints").size(), before.at("checkpoints").size());
  for (std::size_t i = 0; i < 20; ++i) {
    json expected = before.at("checkpoints")[i];
    expected.erase("age_s");
    after.at("checkpoints")[i].erase("age_s");
    EXPECT_EQ(after.at("checkpoints")[i], expected);
  }
  for (const auto& entry : fs::directory_iterator(dir.path()))
    EXPECT_EQ(entry.path().string().find(".cmsd-"), std::string::npos) << entry.path();
}

INSTANTIATE_TEST_SUITE_P(Points, RebuildCrashTest,
                         testing::Values("cmsd.index_made", "cmsd.index_moved_away", "cmsd.index_replaced"));

// ---- serving meanwhile

TEST(RebuildTest, PublishingAndGettingGoOnWhileTheIndexIsRebuiltAgainAndAgain) {
  constexpr std::uint64_t kGenerations = 40;
  const TempDir dir{memory_or_tmp()};
  CmsdProcess cmsd(dir);
  Publisher publisher(cmsd.endpoint(), "02:00:00:00:00:01");
  for (std::uint64_t program_id = 1; program_id <= 100; ++program_id)
    ASSERT_EQ(publisher.wait(publisher.publish(program_id, 1, kSmallBytes)), RTCR_OK);
  std::atomic<bool> stop{false};
  std::atomic<int> rebuilt{0};
  std::thread rebuilder([&] {
    while (!stop) {
      EXPECT_EQ(cmsd.admin({"index", "rebuild", "--timeout", "30s"}).exit_code, 0);
      ++rebuilt;
    }
  });
  for (std::uint64_t generation = 2; generation <= kGenerations; ++generation) {
    EXPECT_EQ(publisher.wait(publisher.publish(1, generation, kSmallBytes)), RTCR_OK);
    int status = RTCR_OK;
    EXPECT_EQ(publisher.fetch_newest(1, kSmallBytes, status), blob_of(1, generation, kSmallBytes))
        << "generation " << generation << ": " << rtcr_error_string(status);
    EXPECT_EQ(publisher.fetch_newest(50, kSmallBytes, status), blob_of(50, 1, kSmallBytes))
        << rtcr_error_string(status);
  }
  stop = true;
  rebuilder.join();
  EXPECT_GT(rebuilt, 1);
  EXPECT_EQ(json_of(cmsd, {"checkpoints"}).at("checkpoints").size(), 100U);
  EXPECT_EQ(cmsd.count_in_log("is damaged"), 0U) << cmsd.log();
}

TEST(RebuildTest, AnIndexThatIsTakenAwayUnderARunningCmsdIsRebuiltByItself) {
  const TempDir dir{memory_or_tmp()};
  CmsdProcess cmsd(dir);
  Publisher publisher(cmsd.endpoint(), "02:00:00:00:00:01");
  ASSERT_EQ(publisher.wait(publisher.publish(1, 1, kSmallBytes)), RTCR_OK);
  fs::remove_all(cmsd.index_path());
  ASSERT_EQ(publisher.wait(publisher.publish(2, 1, kSmallBytes)), RTCR_OK) << cmsd.log();
  EXPECT_TRUE(cmsd.wait_for_log("rebuilt from the store"));
  ASSERT_TRUE(
      wait_for_status(cmsd, [](const json& status) { return status.at("index").at("state") == "ok"; }));
  EXPECT_EQ(json_of(cmsd, {"checkpoints"}).at("checkpoints").size(), 2U);
}

}  // namespace
}  // namespace cms::test
