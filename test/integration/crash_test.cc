// kill -9 of cmsd at every named point of the pull and store path: whatever was acknowledged is there
// after the restart, bit for bit, and what was not is stored in the end.
#include <gtest/gtest.h>
#include <csignal>

#include "base/crash_point.h"
#include "test/support/cmsd_process.h"
#include "test/support/publisher.h"

namespace cms::test {
namespace {

constexpr std::size_t kSmallBytes = 4096;
constexpr std::size_t kLargeBytes = 5 * 1024 * 1024 + 17;
constexpr int kKilled = 128 + SIGKILL;

// The points of a path that this test walks; every point of the program is in one of the two lists.
bool on_small_path(const std::string& name) {
  return name.find("small") != std::string::npos || name.find("group") != std::string::npos;
}
bool is_elsewhere(const std::string& name) {
  return name.find("tombstone") != std::string::npos || name.find("remove") != std::string::npos ||
         name.find("format") != std::string::npos || name.find("init") != std::string::npos ||
         name.find("peer") != std::string::npos ||  // two_cms_test.cc
         name.find("index_") != std::string::npos ||
         name.find("quarantine") != std::string::npos ||                    // scrub_test.cc
         name.rfind("nfs.", 0) == 0 ||                                      // nfs_crash_test.cc
         name.rfind("claims.", 0) == 0 ||                                   // storage/contract/claim_crash.h
         name.rfind("lineage.", 0) == 0 || name.rfind("restore.", 0) == 0;  // restore_test.cc
}

class CrashTest : public testing::TestWithParam<std::string> {};

TEST_P(CrashTest, KeepsEverythingAcknowledgedAndStoresTheRest) {
  const std::string point = GetParam();
  const std::size_t size_bytes = on_small_path(point) ? kSmallBytes : kLargeBytes;
  const TempDir dir{memory_or_tmp()};
  CmsdProcess cmsd(dir);
  Publisher publisher(cmsd.endpoint(), "02:00:00:00:00:01");
  // What is there before must be there afterwards.
  const std::uint64_t before = publisher.publish(1, 1, size_bytes);
  ASSERT_EQ(publisher.wait(before), RTCR_OK);

  cmsd.terminate();
  cmsd.start(point);
  const std::uint64_t struck = publisher.publish(1, 2, size_bytes);
  ASSERT_EQ(cmsd.wait(), kKilled) << "the point " << point << " was never passed";
  const bool acknowledged = publisher.wait(struck, RTCR_STORED, 0) == RTCR_OK;
  if (acknowledged) {
    cmsd.start();  // It must be there without any help of the publisher.
    Publisher reader(cmsd.endpoint(), "02:00:00:00:00:02");
    const auto shown = cmsd.admin({"show", publisher.key(1)});
    EXPECT_EQ(shown.exit_code, 0) << shown.output;
  } else {
    cmsd.start();
    ASSERT_EQ(publisher.wait(struck), RTCR_OK) << cmsd.log();
  }
  int status = RTCR_OK;
  EXPECT_EQ(publisher.fetch_newest(1, size_bytes, status), blob_of(1, 2, size_bytes))
      << rtcr_error_string(status);
  const auto older = cmsd.admin({"checkpoints", "--all", "--output", "json"});
  EXPECT_EQ(older.exit_code, 0) << older.output;
}

std::vector<std::string> points_of_the_path() {
  std::vector<std::string> points;
  for (const std::string& name : crash_point_names()) {
    if (!is_elsewhere(name)) points.push_back(name);
  }
  return points;
}

INSTANTIATE_TEST_SUITE_P(AtEveryPoint, CrashTest, testing::ValuesIn(points_of_the_path()),
                         [](const testing::TestParamInfo<std::string>& point) {
                           std::string name = point.param;
                           for (char& c : name) {
                             if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
                           }
                           return name;
                         });

TEST(CrashPointsTest, TheProgramHasThePointsThatThisTestWalks) { EXPECT_GE(points_of_the_path().size(), 8U); }

TEST(WithdrawCrashTest, AProgramWithdrawnStaysWithdrawn) {
  const TempDir dir{memory_or_tmp()};
  CmsdProcess cmsd(dir);
  Publisher publisher(cmsd.endpoint(), "02:00:00:00:00:01");
  ASSERT_EQ(publisher.wait(publisher.publish(1, 1, kSmallBytes)), RTCR_OK);
  cmsd.terminate();
  cmsd.start("cmsd.after_tombstone");
  // It dies after the tombstone is durable and before anything is removed; the client's retry then
  // finds it done.
  while (cmsd.process().running()) EXPECT_EQ(publisher.withdraw(1, 500), RTCR_E_TIMEOUT);
  ASSERT_EQ(cmsd.wait(), kKilled);
  cmsd.start();
  EXPECT_EQ(cmsd.admin({"get", publisher.key(1), "-o", dir / "back"}).exit_code, 1);
  EXPECT_EQ(publisher.withdraw(1), RTCR_OK) << rtcr_last_error();
  // A new life of the same program is welcome.
  ASSERT_EQ(publisher.wait(publisher.publish(1, 2, kSmallBytes)), RTCR_OK);
}

}  // namespace
}  // namespace cms::test
