// Cmsd on one NAS race for the programs of a lost ECU: while one is killed and another stopped for so long that
// the others take over from it; while calls to the NAS are lost, late or doubled; and all of that together at every
// named point of a restore. Each program runs exactly once, counted at the targets.
#include <gtest/gtest.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "test/integration/nfs_three_cms.h"
#include "test/integration/restored_once.h"

namespace cms::test {
namespace {

constexpr int kKilled = 128 + SIGKILL;

// For a longer race than every run has time for.
std::uint64_t lineage_count(std::uint64_t count) {
  const char* text = std::getenv("CMS_TEST_LINEAGES");
  return text == nullptr ? count : std::strtoull(text, nullptr, 10);
}

std::unique_ptr<Process> tell_failed(const CmsdProcess& cmsd) {
  return std::make_unique<Process>(std::vector<std::string>{program_path("cms-admin"), "--cms", cmsd.admin(),
                                                            "--timeout", "120s", "ecu", "failed", kLost});
}

std::vector<std::unique_ptr<Process>> tell_all(ThreeCms& cms) {
  std::vector<std::unique_ptr<Process>> told;
  for (std::size_t i = 0; i < 3; ++i) told.push_back(tell_failed(cms[i]));
  return told;
}

TEST(NfsRestoreTest, ThreeCmsRaceAndOneIsKilledAndOneStoppedForTooLong) {
  const auto ganesha = start_ganesha();
  ASSERT_NE(ganesha, nullptr);
  const std::uint64_t count = lineage_count(150);
  const TempDir dir;
  ThreeCms cms(dir, {ganesha->url(), ganesha->url(), ganesha->url()});
  Ecus ecus(dir, cms.endpoints(), count);
  ASSERT_TRUE(ecus.lose()) << cms.log();

  auto told = tell_all(cms);
  for (std::uint64_t running = 0; running < count / 5; ++running) {
    ASSERT_FALSE(ecus.first().wait_for_event("running").is_null()) << cms.log();
  }
  cms[0].kill();
  cms[1].process().signal(SIGSTOP);
  EXPECT_TRUE(wait_until_stale(cms[2], "b")) << cms.log();
  cms[1].process().signal(SIGCONT);
  EXPECT_EQ(told[2]->wait(std::chrono::seconds(120)), 0) << told[2]->output() << cms.log();
  EXPECT_EQ(told[1]->wait(std::chrono::seconds(120)), 0) << told[1]->output() << cms.log();
  expect_each_once(kLost, ecus.targets(), count);
}

TEST(NfsRestoreTest, CallsToTheNasAreLostLateOrDoubled) {
  const auto ganesha = start_ganesha();
  ASSERT_NE(ganesha, nullptr);
  const auto first_proxy = start_proxy(*ganesha);
  const auto second_proxy = start_proxy(*ganesha);
  ASSERT_NE(first_proxy, nullptr);
  ASSERT_NE(second_proxy, nullptr);
  constexpr std::uint64_t kPrograms = 40;
  const TempDir dir;
  ThreeCms cms(dir, {first_proxy->url(), second_proxy->url(), ganesha->url()});
  Ecus ecus(dir, cms.endpoints(), kPrograms);
  ASSERT_TRUE(ecus.lose()) << cms.log();
  first_proxy->decide_by(faults(1));
  second_proxy->decide_by(faults(2));
  auto told = tell_all(cms);
  for (const auto& one : told)
    EXPECT_EQ(one->wait(std::chrono::seconds(200)), 0) << one->output() << cms.log();
  expect_each_once(kLost, ecus.targets(), kPrograms);
}

// So many calls are lost that each target may fail several times at one program: then cms-admin says that it found
// no target for it, and is told again, as by an operator.
bool goes_on_until_all_run(const CmsdProcess& cmsd, std::unique_ptr<Process> told) {
  for (int again = 0; again < 5; ++again) {
    if (told->wait(std::chrono::seconds(200)) == 0) return true;
    std::printf("%s", told->output().substr(0, 500).c_str());
    told = tell_failed(cmsd);
  }
  return false;
}

class NfsRestorePointTest : public testing::TestWithParam<std::string> {};

TEST_P(NfsRestorePointTest, OneIsKilledThereAndOneStoppedWhileCallsAreLostLateOrDoubled) {
  const auto ganesha = start_ganesha();
  ASSERT_NE(ganesha, nullptr);
  const std::array proxies{start_proxy(*ganesha), start_proxy(*ganesha), start_proxy(*ganesha)};
  for (const auto& proxy : proxies) ASSERT_NE(proxy, nullptr);
  const std::uint64_t count = lineage_count(40);
  const TempDir dir;
  ThreeCms cms(dir, {proxies[0]->url(), proxies[1]->url(), proxies[2]->url()},
               {GetParam() + ":3", GetParam() + ":4:stop", ""});
  Ecus ecus(dir, cms.endpoints(), count);
  ASSERT_TRUE(ecus.lose()) << cms.log();
  for (std::size_t i = 0; i < 3; ++i) proxies[i]->decide_by(faults(i + 1, 200));
  // The third one later: it could have claimed all before the others come to the point.
  const auto first = tell_failed(cms[0]);
  auto second = tell_failed(cms[1]);
  ASSERT_EQ(cms[0].wait(), kKilled) << "the point was never passed\n" << cms.log();
  ASSERT_TRUE(cms[1].process().wait_stopped()) << "the point was never passed\n" << cms.log();
  EXPECT_TRUE(goes_on_until_all_run(cms[2], tell_failed(cms[2]))) << cms.log();
  expect_each_once(kLost, ecus.targets(), count);
  cms[1].process().signal(SIGCONT);
  EXPECT_TRUE(goes_on_until_all_run(cms[1], std::move(second))) << cms.log();
  expect_each_once(kLost, ecus.targets(), count);
}

INSTANTIATE_TEST_SUITE_P(AtEveryPoint, NfsRestorePointTest, testing::ValuesIn(points_of_a_restore()),
                         name_of_point);

}  // namespace
}  // namespace cms::test
