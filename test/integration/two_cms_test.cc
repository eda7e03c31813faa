// Two cmsd on one store: what is pulled once, what is taken over when one dies, and the points at which
// one can die.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>
#include <csignal>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "base/crash_point.h"
#include "test/integration/fleet.h"

namespace cms::test {
namespace {

constexpr const char* kEcu = "02:00:00:00:00:01";
constexpr int kKilled = 128 + SIGKILL;

TEST(TwoCmsTest, EachCheckpointIsPulledByOneAndReplicatedToBoth) {
  const TempDir dir{memory_or_tmp()};
  Fleet fleet(dir);
  Publisher publisher(fleet.endpoints(), kEcu);
  wait_until_both_pull(fleet, publisher);
  std::array<std::uint64_t, 2> before{};
  for (std::size_t i = 0; i < 2; ++i) before[i] = counter_of(fleet[i], "pulls_started").value_or(0);
  constexpr std::uint64_t kPrograms = 40;
  std::vector<std::uint64_t> seqs;
  for (std::uint64_t id = 1; id <= kPrograms; ++id) seqs.push_back(publisher.publish(id, 1, 4096 * id));
  for (const std::uint64_t seq : seqs)
    ASSERT_EQ(publisher.wait(seq, RTCR_REPLICATED), RTCR_OK) << fleet.log();
  std::uint64_t pulls = 0;
  for (std::size_t i = 0; i < 2; ++i) {
    const auto own = counter_of(fleet[i], "pulls_started");
    ASSERT_TRUE(own.has_value());
    EXPECT_GT(*own, before[i]) << fleet[i].name() << " pulls nothing";
    pulls += *own - before[i];
    for (std::uint64_t id = 1; id <= kPrograms; ++id)
      EXPECT_EQ(get_newest(fleet[i], publisher.key(id), dir / "back"), blob_of(id, 1, 4096 * id));
  }
  EXPECT_EQ(pulls, kPrograms);
  EXPECT_TRUE(indexes_agree(fleet, kPrograms, Facts::kAll));
}

// "live renewed" of each life of the other, as `cms-admin peers` shows it, in order of incarnation.
std::multiset<std::string> lives_of_other(const CmsdProcess& cmsd) {
  std::multiset<std::string> lives;
  const auto peers = cmsd.admin({"peers", "--output", "json"});
  const auto json = nlohmann::json::parse(peers.output, nullptr, false);
  if (peers.exit_code != 0 || json.is_discarded()) return lives;
  for (const auto& peer : json.at("peers")) {
    const auto text = [&](const char* field) {
      return peer.at(field).is_null() ? std::string("-") : peer.at(field).get<std::string>();
    };
    lives.insert(text("network") + " " + text("record"));
  }
  return lives;
}

testing::AssertionResult sees(const CmsdProcess& cmsd, const std::multiset<std::string>& expected) {
  const auto start = TestClock::now();
  std::multiset<std::string> seen;
  do {
    seen = lives_of_other(cmsd);
    if (seen == expected) return testing::AssertionSuccess();
  } while (since(start) < kPatience);
  auto failure = testing::AssertionFailure();
  for (const std::string& life : seen) failure << "'" << life << "' ";
  return failure;
}

TEST(TwoCmsTest, EachIsSeenOnTheNetworkAndByItsRecordOnTheStore) {
  const TempDir dir{memory_or_tmp()};
  Fleet fleet(dir);
  for (std::size_t i = 0; i < 2; ++i) EXPECT_TRUE(sees(fleet[i], {"live renewed"})) << fleet.log();
  EXPECT_EQ(fleet[1].terminate(), 0);
  EXPECT_TRUE(sees(fleet[0], {"silent resigned"})) << fleet.log();
  fleet.start(1);
  // Its former life is not heard of under that name any more, but its record is not dead at once.
  EXPECT_TRUE(sees(fleet[0], {"- resigned", "live renewed"})) << fleet.log();
}

// ---- one dies while it pulls

constexpr off_t kLargeBytes = 256 << 20;

int sparse_file(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  EXPECT_EQ(::ftruncate(fd, kLargeBytes), 0);
  return fd;
}

TEST(TwoCmsTest, LargePullIsTakenOverWhenThePullerDiesInItsMiddle) {
  const TempDir dir{memory_or_tmp()};
  Fleet fleet(dir);
  Publisher publisher(fleet.endpoints(), kEcu);
  Publisher other(fleet.endpoints(), "02:00:00:00:00:02");
  const int fd = sparse_file(dir / "large");
  // How long it takes when nobody dies.
  auto start = TestClock::now();
  ASSERT_EQ(publisher.wait(publisher.publish_fd(program_pulled_by(0, kEcu), fd)), RTCR_OK);
  const milliseconds transfer = since(start);

  fleet[0].terminate();
  fleet.start(0, "cmsd.after_chunk_written:128");
  // Sessions with it must stand, or it hears of nothing and is not asked.
  wait_until_both_pull(fleet, publisher);
  ASSERT_EQ(other.wait(other.publish(program_pulled_by(0, "02:00:00:00:00:02"), 1, 4096), RTCR_REPLICATED),
            RTCR_OK);
  const std::uint64_t large = publisher.publish_fd(program_pulled_by(0, kEcu, 100), fd);
  ASSERT_EQ(fleet[0].wait(kPatience), kKilled) << fleet.log();
  start = TestClock::now();
  EXPECT_EQ(publisher.wait(large, RTCR_STORED, 0), RTCR_E_TIMEOUT) << "it did not die in the middle";
  // Nobody else waits longer than for the death to be noticed, whoever was to pull for them.
  std::vector<std::uint64_t> seqs;
  for (std::uint64_t id = 1; id <= 20; ++id) seqs.push_back(other.publish(id, 2, 4096 * id));
  for (const std::uint64_t seq : seqs)
    EXPECT_EQ(other.wait(seq, RTCR_STORED, kTakenOverMax.count()), RTCR_OK) << fleet.log();
  EXPECT_LE(since(start), kTakenOverMax);
  const milliseconds bound = kTakenOverMax + 3 * transfer;  // Another 20 are pulled beside it.
  EXPECT_EQ(publisher.wait(large, RTCR_STORED, (bound - since(start)).count()), RTCR_OK) << fleet.log();
  std::printf("transfer %lld ms, taken over and STORED after %lld ms\n",
              static_cast<long long>(transfer.count()), static_cast<long long>(since(start).count()));
  Process get({program_path("rtcr"), "get", "--cms", fleet[1].endpoint(), "--ecu-mac", kEcu, "--program",
               std::to_string(program_pulled_by(0, kEcu, 100)), "-o", dir / "back"});
  ASSERT_EQ(get.wait(), 0);
  Process compare({"cmp", dir / "large", dir / "back"});
  EXPECT_EQ(compare.wait(), 0) << compare.output();
  fleet.start(0);
  EXPECT_TRUE(indexes_agree(fleet, 23));
  ::close(fd);
}

TEST(TwoCmsTest, APullerThatStandsStillLosesItsPullAndHarmsNothingWhenItGoesOn) {
  const TempDir dir{memory_or_tmp()};
  Fleet fleet(dir);
  Publisher publisher(fleet.endpoints(), kEcu);
  const int fd = sparse_file(dir / "large");
  wait_until_both_pull(fleet, publisher);
  const std::uint64_t id = program_pulled_by(0, kEcu);
  auto start = TestClock::now();
  ASSERT_EQ(publisher.wait(publisher.publish_fd(program_pulled_by(1, kEcu), fd)), RTCR_OK);
  const milliseconds transfer = since(start);
  const std::uint64_t seq = publisher.publish_fd(id, fd);
  ASSERT_EQ(publisher.wait(seq, RTCR_PULLING), RTCR_OK);
  fleet[0].process().signal(SIGSTOP);
  start = TestClock::now();
  EXPECT_EQ(publisher.wait(seq, RTCR_STORED, (kTakenOverMax + 3 * transfer).count()), RTCR_OK) << fleet.log();
  EXPECT_TRUE(fleet[1].wait_for_log("peer a is silent", 1, kPatience));
  fleet[0].process().signal(SIGCONT);
  EXPECT_EQ(publisher.wait(seq, RTCR_REPLICATED), RTCR_OK) << fleet.log();
  EXPECT_TRUE(indexes_agree(fleet, 4));
  for (std::size_t i = 0; i < 2; ++i) {
    ASSERT_EQ(fleet[i].admin({"get", publisher.key(id), "-o", dir / "back"}).exit_code, 0);
    Process compare({"cmp", dir / "large", dir / "back"});
    EXPECT_EQ(compare.wait(), 0) << compare.output();
  }
  ::close(fd);
}

// ---- every named point

bool on_small_path(const std::string& name) {
  return name.find("small") != std::string::npos || name.find("group") != std::string::npos;
}

std::vector<std::string> points_of_a_pull() {
  std::vector<std::string> points;
  for (const std::string& name : crash_point_names()) {
    bool elsewhere = name.rfind("nfs.", 0) == 0 ||     // nfs_crash_test.cc
                     name.rfind("claims.", 0) == 0 ||  // storage/contract/claim_crash.h
                     name.rfind("lineage.", 0) == 0 || name.rfind("restore.", 0) == 0;  // restore_test.cc
    for (const char* part :
         {"tombstone", "remove", "format", "init", "after_peer_index", "index_", "quarantine"})
      elsewhere = elsewhere || name.find(part) != std::string::npos;
    if (!elsewhere) points.push_back(name);
  }
  return points;
}

struct Struck {
  std::uint64_t generation = 1;
  std::uint64_t seq = 0;
};
// Right after its start the other still pulls for the first one; its death comes with its first pull.
Struck publish_until_death(Fleet& fleet, Publisher& publisher, std::uint64_t id, std::size_t size_bytes) {
  Struck struck;
  const auto start = TestClock::now();
  while (since(start) < kPatience) {
    struck.seq = publisher.publish(id, ++struck.generation, size_bytes);
    while (since(start) < kPatience && publisher.wait(struck.seq, RTCR_REPLICATED, 0) != RTCR_OK) {
      if (fleet[0].wait(milliseconds(10)) != -1) return struck;
    }
  }
  return struck;
}

class TwoCmsCrashTest : public testing::TestWithParam<std::string> {};

TEST_P(TwoCmsCrashTest, TheOtherStoresWhatThePullerDiedOf) {
  const std::string point = GetParam();
  const std::size_t size_bytes = on_small_path(point) ? 4096 : 5 * 1024 * 1024 + 17;
  const TempDir dir{memory_or_tmp()};
  Fleet fleet(dir);
  Publisher publisher(fleet.endpoints(), kEcu);
  const std::uint64_t id = program_pulled_by(0, kEcu);
  ASSERT_EQ(publisher.wait(publisher.publish(id, 1, size_bytes), RTCR_REPLICATED), RTCR_OK) << fleet.log();
  fleet[0].terminate();
  fleet.start(0, point);
  const Struck struck = publish_until_death(fleet, publisher, id, size_bytes);
  const std::uint64_t seq = struck.seq;
  ASSERT_EQ(fleet[0].wait(milliseconds(0)), kKilled) << "the point " << point << " was never passed\n"
                                                     << fleet.log();
  const auto start = TestClock::now();
  EXPECT_EQ(publisher.wait(seq, RTCR_STORED, kTakenOverMax.count()), RTCR_OK) << fleet.log();
  EXPECT_LE(since(start), kTakenOverMax);
  // Both may have stored it; while one of the two blobs is removed a get may fail, but never for long.
  const auto expected = blob_of(id, struck.generation, size_bytes);
  auto found = get_newest(fleet[1], publisher.key(id), dir / "back");
  while (found != expected && since(start) < kPatience)
    found = get_newest(fleet[1], publisher.key(id), dir / "back");
  EXPECT_TRUE(found == expected) << fleet.log();
  fleet.start(0);
  EXPECT_EQ(publisher.wait(seq, RTCR_REPLICATED), RTCR_OK) << fleet.log();
  EXPECT_EQ(get_newest(fleet[0], publisher.key(id), dir / "back"),
            blob_of(id, struck.generation, size_bytes));
  EXPECT_TRUE(indexes_agree(fleet, 2));
}

INSTANTIATE_TEST_SUITE_P(AtEveryPoint, TwoCmsCrashTest, testing::ValuesIn(points_of_a_pull()),
                         [](const testing::TestParamInfo<std::string>& point) {
                           std::string name = point.param;
                           for (char& c : name) {
                             if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
                           }
                           return name;
                         });

// The one that only hears of it dies between its index and its receipt.
TEST(PeerCrashTest, TheOneThatIndexesForItsPeerDiesOfIt) {
  const TempDir dir{memory_or_tmp()};
  Fleet::Options options;
  options.crash_points[1] = "cmsd.after_peer_index";
  Fleet fleet(dir, options);
  Publisher publisher(fleet.endpoints(), kEcu);
  const std::uint64_t id = program_pulled_by(0, kEcu);
  const std::uint64_t seq = publisher.publish(id, 1, 300000);
  ASSERT_EQ(fleet[1].wait(), kKilled) << "the point was never passed\n" << fleet.log();
  EXPECT_EQ(publisher.wait(seq, RTCR_STORED, kTakenOverMax.count()), RTCR_OK) << fleet.log();
  fleet.start(1);
  EXPECT_EQ(publisher.wait(seq, RTCR_REPLICATED), RTCR_OK) << fleet.log();
  EXPECT_EQ(get_newest(fleet[1], publisher.key(id), dir / "back"), blob_of(id, 1, 300000));
  EXPECT_TRUE(indexes_agree(fleet, 1));
  EXPECT_EQ(counter_of(fleet[0], "pulls_started"), 1U);
}

}  // namespace
}  // namespace cms::test
