// A cmsd that was not there knows afterwards what its peer knows: after a stop, without its index, after
// it stood still, and after a flood.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <csignal>
#include <cstdlib>

#include "test/integration/fleet.h"

namespace cms::test {
namespace {

constexpr const char* kEcu = "02:00:00:00:00:01";
constexpr std::uint64_t kPrograms = 50;
constexpr std::uint64_t kGenerations = 20;  // 1000 checkpoints.

std::size_t size_of(std::uint64_t id, std::uint64_t generation) { return 2000 + id * 100 + generation; }

// Each waits for STORED before the next of its program, so that all of them are stored.
void publish_thousand(Publisher& publisher, std::uint64_t first_generation = 1) {
  for (std::uint64_t generation = first_generation; generation < first_generation + kGenerations;
       ++generation) {
    std::vector<std::uint64_t> seqs;
    for (std::uint64_t id = 1; id <= kPrograms; ++id)
      seqs.push_back(publisher.publish(id, generation, size_of(id, generation)));
    for (const std::uint64_t seq : seqs) ASSERT_EQ(publisher.wait(seq), RTCR_OK);
  }
}

void expect_newest(const CmsdProcess& cmsd, const Publisher& publisher, std::uint64_t generation,
                   const std::string& file) {
  for (std::uint64_t id = 1; id <= kPrograms; ++id) {
    EXPECT_EQ(get_newest(cmsd, publisher.key(id), file), blob_of(id, generation, size_of(id, generation)))
        << cmsd.name() << ", program " << id;
  }
}

class CatchUpTest : public testing::Test {
 protected:
  TempDir dir_{memory_or_tmp()};
  Fleet fleet_{dir_};
  Publisher publisher_{fleet_.endpoints(), kEcu};
};

TEST_F(CatchUpTest, TheOneThatWasDownForAThousandCheckpointsKnowsThem) {
  ASSERT_EQ(publisher_.wait(publisher_.publish(1, 0, 4096), RTCR_REPLICATED), RTCR_OK) << fleet_.log();
  fleet_[1].kill();
  publish_thousand(publisher_);
  fleet_.start(1);
  expect_newest(fleet_[1], publisher_, kGenerations, dir_ / "back");
  EXPECT_TRUE(indexes_agree(fleet_, 3 * kPrograms));
  EXPECT_EQ(counter_of(fleet_[1], "pulls_started"), 0U) << "it asked for what was stored already";
}

TEST_F(CatchUpTest, TheOneThatLostItsIndexMeanwhileKnowsThemToo) {
  ASSERT_EQ(publisher_.wait(publisher_.publish(1, 0, 4096), RTCR_REPLICATED), RTCR_OK) << fleet_.log();
  fleet_[1].kill();
  publish_thousand(publisher_);
  std::filesystem::remove_all(fleet_[1].index_path());
  fleet_.start(1);
  expect_newest(fleet_[1], publisher_, kGenerations, dir_ / "back");
  EXPECT_TRUE(indexes_agree(fleet_, 3 * kPrograms));
}

// What it hears is all that it takes: nothing is read from the store.
TEST_F(CatchUpTest, TheOneThatHearsEverythingHasAllOfIt) {
  publish_thousand(publisher_);
  EXPECT_TRUE(indexes_agree(fleet_, 3 * kPrograms, Facts::kAll));
  expect_newest(fleet_[0], publisher_, kGenerations, dir_ / "back");
  expect_newest(fleet_[1], publisher_, kGenerations, dir_ / "back");
}

TEST_F(CatchUpTest, TheOneThatStoodStillKnowsWhatItDidNotHear) {
  ASSERT_EQ(publisher_.wait(publisher_.publish(1, 0, 4096), RTCR_REPLICATED), RTCR_OK) << fleet_.log();
  fleet_[1].process().signal(SIGSTOP);
  ASSERT_TRUE(fleet_[0].wait_for_log("peer b is silent", 1, kPatience)) << fleet_.log();
  publish_thousand(publisher_);
  fleet_[1].process().signal(SIGCONT);
  ASSERT_TRUE(fleet_[0].wait_for_log("peer b at 127.0.0.1 is live", 2, kPatience)) << fleet_.log();
  EXPECT_TRUE(indexes_agree(fleet_, 3 * kPrograms));
  expect_newest(fleet_[1], publisher_, kGenerations, dir_ / "back");
  // And it goes on as before.
  publish_thousand(publisher_, kGenerations + 1);
  EXPECT_TRUE(indexes_agree(fleet_, 3 * kPrograms));
}

// ---- many

// CMS_TEST_PROGRAMS=N makes it more or fewer.
constexpr std::uint64_t kManyPrograms = kSlowBuild ? 1000 : 20000;
// Each is a client with threads and sockets of its own, which the sanitizers make dear.
constexpr std::uint64_t kManySessions = kSlowBuild ? 50 : 200;

TEST(ManyProgramsTest, ManyProgramsOfManySessionsAreReplicated) {
  const char* text = std::getenv("CMS_TEST_PROGRAMS");
  const std::uint64_t programs = text != nullptr ? std::strtoull(text, nullptr, 10) : kManyPrograms;
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  limit.rlim_cur = limit.rlim_max;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);

  const TempDir dir{memory_or_tmp()};
  Fleet fleet(dir);
  const std::string cms = fleet.endpoints();
  std::vector<std::unique_ptr<Publisher>> publishers;
  for (std::uint64_t i = 0; i < kManySessions; ++i) {
    char ecu_mac[18];
    std::snprintf(ecu_mac, sizeof(ecu_mac), "02:00:00:00:01:%02x", static_cast<unsigned>(i));
    rtcr_options options = rtcr_options_init();
    options.cms = cms.c_str();
    options.ecu_mac = ecu_mac;
    options.bulk_host = "127.0.0.1";
    options.bulk_ports = "30000-31999";  // More than the default has, and no other test's.
    publishers.push_back(std::make_unique<Publisher>(options));
  }
  const auto start = TestClock::now();
  std::vector<std::vector<std::uint64_t>> seqs(kManySessions);
  for (std::uint64_t id = 0; id < programs; ++id) {
    const std::uint64_t i = id % kManySessions;
    seqs[i].push_back(publishers[i]->publish(id, 1, 4096));
  }
  const auto published = since(start);
  for (std::uint64_t i = 0; i < kManySessions; ++i) {
    for (const std::uint64_t seq : seqs[i])
      ASSERT_EQ(publishers[i]->wait(seq, RTCR_REPLICATED, 120000), RTCR_OK)
          << rtcr_last_error() << fleet.log();
  }
  std::printf("%llu programs: published in %lld ms, REPLICATED after %lld ms\n",
              static_cast<unsigned long long>(programs), static_cast<long long>(published.count()),
              static_cast<long long>(since(start).count()));
  EXPECT_TRUE(indexes_agree(fleet, programs));
  const std::uint64_t pulls =
      counter_of(fleet[0], "pulls_started").value_or(0) + counter_of(fleet[1], "pulls_started").value_or(0);
  EXPECT_GE(pulls, programs);
  std::printf("pulls: %llu\n", static_cast<unsigned long long>(pulls));
}

}  // namespace
}  // namespace cms::test
