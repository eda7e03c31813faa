// Retention with real processes: two cmsd on one store keep exactly what the rules say and remove each
// file once; pins and readers are respected by both; a full store is freed as far as the rules allow.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "net/socket.h"
#include "schemas/messages.h"
#include "storage/blob_store.h"
#include "test/integration/fleet.h"
#include "test/support/small_tmpfs.h"

namespace cms::test {
namespace {

using nlohmann::json;

constexpr const char* kEcu = "02:00:00:00:00:01";

json admin_json(const CmsdProcess& cmsd, std::vector<std::string> arguments, int exit_code = 0) {
  arguments.insert(arguments.end(), {"--output", "json"});
  const auto outcome = cmsd.admin(arguments);
  EXPECT_EQ(outcome.exit_code, exit_code) << arguments[0] << ": " << outcome.output;
  return json::parse(outcome.output, nullptr, false);
}

// KEYs of the blobs in the store, by their file names.
std::set<std::string> files_of(const CmsdProcess& cmsd) {
  std::set<std::string> keys;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(cmsd.store_path() + "/d")) {
    const auto name = entry.is_regular_file() ? storage::parse_file_name(entry.path().filename())
                                              : Result<storage::BlobName>(make_error(Code::kNotFound, ""));
    if (name.ok() && name->kind == storage::EntryKind::kBlob) keys.insert(to_string(name->checkpoint));
  }
  return keys;
}

template <typename Holds>
testing::AssertionResult becomes(Holds holds) {
  const auto start = TestClock::now();
  while (since(start) < kPatience) {
    if (holds()) return testing::AssertionSuccess();
  }
  return testing::AssertionFailure() << "not within " << kPatience.count() << " ms";
}

std::uint64_t removed_by(Fleet& fleet) {
  return counter_of(fleet[0], "removed").value_or(0) + counter_of(fleet[1], "removed").value_or(0);
}

void expect_no_trouble(Fleet& fleet) {
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(fleet[i].count_in_log(" error "), 0U) << fleet.log();
    EXPECT_EQ(fleet[i].count_in_log(" warning "), 0U) << fleet.log();
  }
}

TEST(RetentionTest, TwoCmsKeepWhatTheRulesSayAndRemoveEachFileOnce) {
  const TempDir dir{memory_or_tmp()};
  Fleet::Options options;
  options.arguments = {"--keep-latest", "2"};
  Fleet fleet(dir, options);
  Publisher publisher(fleet.endpoints(), kEcu);
  wait_until_both_pull(fleet, publisher);
  const std::uint64_t warm_files = files_of(fleet[0]).size();
  const std::uint64_t removed_before = removed_by(fleet);
  constexpr std::uint64_t kPrograms = 20;
  constexpr std::uint64_t kGenerations = 6;
  std::set<std::string> wanted;
  for (std::uint64_t generation = 1; generation <= kGenerations; ++generation) {
    std::vector<std::uint64_t> seqs;
    for (std::uint64_t id = 1; id <= kPrograms; ++id) seqs.push_back(publisher.publish(id, generation, 5000));
    for (const std::uint64_t seq : seqs)
      ASSERT_EQ(publisher.wait(seq, RTCR_REPLICATED), RTCR_OK) << fleet.log();
  }
  EXPECT_TRUE(becomes([&] { return files_of(fleet[0]).size() == warm_files + 2 * kPrograms; }))
      << files_of(fleet[0]).size();
  EXPECT_TRUE(indexes_agree(fleet, 2 * kPrograms));
  const auto rows = index_of(fleet[1], Facts::kInNames);
  ASSERT_TRUE(rows.has_value());
  std::set<std::string> keys;
  for (const auto& [key, row] : *rows) keys.insert(key);
  EXPECT_EQ(keys, files_of(fleet[0])) << "index and store do not say the same";
  for (std::uint64_t id = 1; id <= kPrograms; ++id)
    EXPECT_EQ(get_newest(fleet[id % 2], publisher.key(id), dir / "back"), blob_of(id, kGenerations, 5000));
  EXPECT_EQ(removed_by(fleet) - removed_before, (kGenerations - 2) * kPrograms) << "not each once";
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_GT(counter_of(fleet[i], "removed").value_or(0), 0U) << "one does all the work";
    EXPECT_GT(counter_of(fleet[i], "peer_removed").value_or(0), 0U);
    EXPECT_EQ(admin_json(fleet[i], {"retention", "plan"}).at("count"), 0);
  }
  expect_no_trouble(fleet);
}

TEST(RetentionTest, PinsHoldWhicheverCmsWasAskedAndSurviveALostIndex) {
  const TempDir dir{memory_or_tmp()};
  Fleet::Options options;
  options.arguments = {"--keep-latest", "1"};
  Fleet fleet(dir, options);
  Publisher publisher(fleet.endpoints(), kEcu);
  wait_until_both_pull(fleet, publisher);
  std::vector<std::string> pinned;
  for (std::uint64_t id = 1; id <= 6; ++id) {
    ASSERT_EQ(publisher.wait(publisher.publish(id, 1, 5000), RTCR_REPLICATED), RTCR_OK);
    const json answer = admin_json(fleet[id % 2], {"pin", publisher.key(id)});
    EXPECT_EQ(answer.at("pinned"), true);
    pinned.push_back(answer.at("key"));
    EXPECT_EQ(pinned.back().rfind(publisher.key(id) + "@", 0), 0U) << "answered without the version";
  }
  for (std::uint64_t id = 1; id <= 6; ++id) {
    for (std::uint64_t generation = 2; generation <= 4; ++generation)
      ASSERT_EQ(publisher.wait(publisher.publish(id, generation, 5000), RTCR_REPLICATED), RTCR_OK);
  }
  fleet[1].kill();
  std::filesystem::remove_all(fleet[1].index_path());
  fleet.start(1);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(admin_json(fleet[i], {"retention", "apply"}).at("applied"), true);
    const std::set<std::string> files = files_of(fleet[0]);
    for (const std::string& key : pinned) {
      EXPECT_EQ(files.count(key), 1U) << key << " was pinned and is gone\n" << fleet.log();
      EXPECT_EQ(admin_json(fleet[i], {"show", key}).at("checkpoint").at("pinned"), true) << fleet[i].name();
    }
  }
  EXPECT_EQ(admin_json(fleet[0], {"unpin", pinned[0]}).at("pinned"), false);
  EXPECT_TRUE(becomes([&] { return files_of(fleet[0]).count(pinned[0]) == 0; }) ||
              admin_json(fleet[0], {"retention", "apply"}).at("count") == 1);
  EXPECT_NE(fleet[0].admin({"pin", publisher.key(99)}).exit_code, 0);
  EXPECT_EQ(fleet[0].admin({"pin", publisher.key(99)}).exit_code, 1);
}

TEST(RetentionTest, PlanShowsWhatLowerRulesWillRemoveAndApplyDoesIt) {
  const TempDir dir{memory_or_tmp()};
  CmsdProcess::Options options;
  options.arguments = {"--keep-latest", "10"};
  CmsdProcess cmsd(dir, options);
  {
    Publisher publisher(cmsd.endpoint(), kEcu);
    for (std::uint64_t id = 1; id <= 3; ++id) {
      for (std::uint64_t generation = 1; generation <= 5; ++generation)
        ASSERT_EQ(publisher.wait(publisher.publish(id, generation, 5000), RTCR_STORED), RTCR_OK);
    }
  }
  const json plan = admin_json(cmsd, {"retention", "plan"});
  EXPECT_EQ(plan.at("count"), 0);
  EXPECT_EQ(plan.at("judged"), 15);
  EXPECT_EQ(files_of(cmsd).size(), 15U);
  // Started with lower rules, its first sweep does what it must; no STORED is needed for it.
  EXPECT_EQ(cmsd.terminate(), 0);
  const std::string config = dir / "a.toml";
  {
    std::ofstream file(config);
    file << "[retention.program.\"" << kEcu << "/1\"]\nkeep_latest = 2\n";
  }
  CmsdProcess::Options lower = options;
  lower.arguments = {"--keep-latest", "10", "--config", config};
  lower.port_base = cmsd.port_base();
  CmsdProcess again(dir, lower);
  EXPECT_TRUE(becomes([&] { return files_of(again).size() == 12; })) << again.log();
  const json status = admin_json(again, {"status"});
  EXPECT_EQ(status.at("counters").at("removed"), 3);
  EXPECT_TRUE(becomes([&] { return admin_json(again, {"status"}).at("retention").at("sweeps") >= 1; }));
  EXPECT_EQ(again.admin({"retention", "plan", std::string(kEcu) + "/1"}).output.substr(0, 19),
            "nothing is to go; 2");
  EXPECT_EQ(again.admin({"retention", "frob"}).exit_code, 2);
  EXPECT_EQ(again.admin({"retention", "plan", std::string(kEcu) + "/1@1.1"}).exit_code, 2);
}

// The rules were lowered because the store is full; nobody else makes room.
TEST(RetentionTest, FullStoreIsFreedByTheRulesAndWhoeverWaitsIsStored) {
  const TempDir dir{memory_or_tmp()};
  std::filesystem::create_directory(dir / "store");
  const SmallTmpfs store(dir / "store", 32);
  ASSERT_TRUE(store.mounted());
  constexpr std::size_t kBytes = 4 << 20;
  CmsdProcess::Options options;
  options.make_store = false;
  options.arguments = {"--keep-latest", "10"};
  CmsdProcess cmsd(dir, options);
  Publisher publisher(cmsd.endpoint(), kEcu);
  for (std::uint64_t generation = 1; generation <= 5; ++generation)
    ASSERT_EQ(publisher.wait(publisher.publish(1, generation, kBytes)), RTCR_OK) << cmsd.log();
  store.fill("filler");
  const std::vector<std::uint64_t> waiting = {publisher.publish(2, 1, 2 * kBytes),
                                              publisher.publish(3, 1, 5000)};
  EXPECT_TRUE(cmsd.wait_for_log("no space", 1, kPatience));
  for (const std::uint64_t seq : waiting) EXPECT_EQ(publisher.wait(seq, RTCR_STORED, 0), RTCR_E_TIMEOUT);
  EXPECT_EQ(admin_json(cmsd, {"status"}).at("health"), "down");
  EXPECT_EQ(files_of(cmsd).size(), 5U) << "the rules keep all of them";
  EXPECT_EQ(cmsd.terminate(), 0);

  options.arguments = {"--keep-latest", "1"};
  options.port_base = cmsd.port_base();
  CmsdProcess lower(dir, options);
  for (const std::uint64_t seq : waiting) EXPECT_EQ(publisher.wait(seq), RTCR_OK) << lower.log();
  EXPECT_EQ(files_of(lower).size(), 4U) << "of program 1 the two newest stay, whatever the rules say";
  EXPECT_EQ(get_newest(lower, publisher.key(1), dir / "back"), blob_of(1, 5, kBytes));
  EXPECT_EQ(get_newest(lower, publisher.key(2), dir / "back"), blob_of(2, 1, 2 * kBytes));
  EXPECT_TRUE(becomes([&] { return admin_json(lower, {"status"}).at("health") == "ok"; })) << lower.log();
  EXPECT_EQ(admin_json(lower, {"status"}).at("retention").at("full").at("removed"), 3);
}

// Reads as slowly as it likes: takes the first window and gives no more credit.
class SlowReader {
 public:
  SlowReader(const std::string& endpoint, const CheckpointId& checkpoint) {
    socket_ = net::make_bulk_dealer(context_);
    EXPECT_TRUE(net::connect(socket_, endpoint).ok());
    wire::Fetch fetch;
    fetch.transfer_id = 1;
    fetch.checkpoint = checkpoint;
    fetch.limit_bytes = 1;
    const wire::Bytes bytes = wire::encode(wire::BulkBody{fetch});
    EXPECT_EQ(net::send(socket_, bytes.data(), bytes.size(), false), net::Sent::kYes);
  }

 private:
  zmq::context_t context_;
  zmq::socket_t socket_;
};

TEST(RetentionTest, WhatIsReadThroughEitherCmsStays) {
  const TempDir dir{memory_or_tmp()};
  Fleet::Options options;
  options.arguments = {"--keep-latest", "1"};
  Fleet fleet(dir, options);
  Publisher publisher(fleet.endpoints(), kEcu);
  wait_until_both_pull(fleet, publisher);
  // Read through the one that does not remove from this program.
  const std::uint64_t id = program_pulled_by(0, kEcu);
  ASSERT_EQ(publisher.wait(publisher.publish(id, 1, 8 << 20), RTCR_REPLICATED), RTCR_OK);
  const auto key = parse_key(
      admin_json(fleet[1], {"show", publisher.key(id)}).at("checkpoint").at("key").get<std::string>());
  ASSERT_TRUE(key.ok());
  const CheckpointId read{key->program, key->version};
  const SlowReader reader("tcp://127.0.0.1:" + std::to_string(fleet[1].port_base() + 3), read);
  // Its beats say so, four times a second.
  ASSERT_TRUE(becomes([&] { return admin_json(fleet[0], {"status"}).at("retention").at("being_read") == 1; }))
      << fleet.log();
  for (std::uint64_t generation = 2; generation <= 4; ++generation)
    ASSERT_EQ(publisher.wait(publisher.publish(id, generation, 5000), RTCR_REPLICATED), RTCR_OK);
  (void)admin_json(fleet[0], {"retention", "apply"});
  EXPECT_EQ(files_of(fleet[0]).count(to_string(read)), 1U) << fleet.log();
}

}  // namespace
}  // namespace cms::test
