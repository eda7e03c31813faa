// Run leases while the NAS is away: a short outage is not noticed; a longer one may stop the programs of ECUs that are
// well, and must when it lasts; they go on by themselves and where they were.
#include <gtest/gtest.h>

#include <algorithm>

#include "test/integration/leases.h"
#include "test/integration/ledger.h"
#include "test/integration/nfs_fleet.h"

namespace cms::test {
namespace {

using std::chrono::seconds;

constexpr std::uint64_t kPrograms = CountingEcus::kPrograms;
// (1+r) (T_self + T_fence) + T_stop: by then all that is to stop stands still.
constexpr milliseconds kAllStandStill{9800};

Fleet::Options on(const std::string& first, const std::string& second) {
  Fleet::Options options;
  options.store_urls = {first, second};
  return options;
}

class NfsLeaseTest : public testing::Test {
 protected:
  NfsLeaseTest() : dir_(memory_or_tmp()), ganesha_(start_ganesha()) {}
  void begin(const std::string& first, const std::string& second) {
    fleet_ = std::make_unique<Fleet>(dir_, on(first, second));
    ecus_ = std::make_unique<CountingEcus>(dir_, *fleet_);
    ecus_->begin();
  }
  void begin() { begin(ganesha_->url(), ganesha_->url()); }
  void stand_still(milliseconds duration) {
    const Instant begun_at = BootClock::now();
    ganesha_->pause();
    EXPECT_TRUE(ecus_->until_passed(begun_at + duration));
    ganesha_->resume();
  }
  std::size_t count(const std::string& event) { return ecus_->ecu().count(event); }
  // Leased by both, and all programs as the only copies that there ever were.
  void expect_as_before() {
    for (const std::size_t i : {0U, 1U})
      EXPECT_TRUE(comes_to((*fleet_)[i], CountingEcus::kMac, "leased")) << ecus_->log();
    EXPECT_TRUE(ecus_->until([this] { return count("stopped") == count("resumed"); })) << ecus_->log();
    EXPECT_TRUE(ecus_->go_on(0));
    EXPECT_FALSE(ecus_->any_restored());
    ecus_->expect_single();
  }

  TempDir dir_;
  std::unique_ptr<Ganesha> ganesha_;
  std::unique_ptr<Fleet> fleet_;
  std::unique_ptr<CountingEcus> ecus_;
};
// These take about 20 s, or longer.
using NfsLeaseLongTest = NfsLeaseTest;

TEST_F(NfsLeaseTest, ANasThatIsAwayForFourSecondsStopsNothing) {
  ASSERT_NE(ganesha_, nullptr);
  ASSERT_NO_FATAL_FAILURE(begin());
  stand_still(seconds(4));
  expect_as_before();
  EXPECT_EQ(count("stopped"), 0U) << ecus_->log();
}

TEST_F(NfsLeaseTest, ANasThatIsAwayForSevenSecondsLosesNothing) {
  ASSERT_NE(ganesha_, nullptr);
  ASSERT_NO_FATAL_FAILURE(begin());
  stand_still(seconds(7));
  expect_as_before();  // Whether they have stopped meanwhile or not: 6 s are promised.
}

TEST_F(NfsLeaseLongTest, CutFromTheNasAllStopInTimeAndGoOnByThemselves) {
  ASSERT_NE(ganesha_, nullptr);
  const auto first = start_proxy(*ganesha_);
  const auto second = start_proxy(*ganesha_);
  ASSERT_NE(first, nullptr);
  ASSERT_NE(second, nullptr);
  ASSERT_NO_FATAL_FAILURE(begin(first->url(), second->url()));
  const Instant cut_at = BootClock::now();
  for (const auto& proxy : {first.get(), second.get()}) proxy->blackhole(true);
  ASSERT_TRUE(ecus_->until([&] { return count("stopped") == kPrograms; })) << ecus_->log();
  EXPECT_TRUE(says(problems_of(status_of((*fleet_)[0])), "run leases have ended"));
  // Longer than T_member: nobody's record is young any more.
  ASSERT_TRUE(ecus_->until_passed(cut_at + seconds(13)));
  EXPECT_EQ(count("resumed"), 0U);
  const Instant healed_at = BootClock::now();
  for (const auto& proxy : {first.get(), second.get()}) proxy->blackhole(false);
  ASSERT_TRUE(ecus_->until([&] { return count("resumed") == kPrograms; })) << ecus_->log();
  expect_as_before();
  EXPECT_EQ(count("stopped"), kPrograms);
  const auto lines = ecus_->ledger().lines();
  EXPECT_TRUE(std::none_of(lines.begin(), lines.end(), [&](const Ledger::Line& line) {
    return line.at > cut_at + kAllStandStill && line.at < healed_at;
  }));
}

}  // namespace
}  // namespace cms::test
