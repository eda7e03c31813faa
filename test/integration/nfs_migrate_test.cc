// An ECU is drained by three cmsd at once, on one NAS, while calls to that are lost, late or doubled: each program ends
// at exactly one target, and nothing stays frozen.
#include <gtest/gtest.h>

#include <array>
#include <map>
#include <memory>
#include <string>

#include "test/integration/nfs_three_cms.h"
#include "test/integration/restored_once.h"

namespace cms::test {
namespace {

TEST(NfsMigrateTest, ThreeCmsDrainAnEcuWhileCallsToTheNasAreLostLateOrDoubled) {
  const auto ganesha = start_ganesha();
  ASSERT_NE(ganesha, nullptr);
  const std::array proxies{start_proxy(*ganesha), start_proxy(*ganesha), start_proxy(*ganesha)};
  for (const auto& proxy : proxies) ASSERT_NE(proxy, nullptr);
  constexpr std::uint64_t kPrograms = 40;
  const TempDir dir;
  ThreeCms cms(dir, {proxies[0]->url(), proxies[1]->url(), proxies[2]->url()});
  Ecus ecus(dir, cms.endpoints(), kPrograms);
  ASSERT_TRUE(ecus.ready()) << cms.log();
  for (std::size_t i = 0; i < 3; ++i) proxies[i]->decide_by(faults(i + 1, 200));
  std::vector<std::unique_ptr<Process>> told;
  for (std::size_t i = 0; i < 3; ++i) {
    told.push_back(std::make_unique<Process>(
        std::vector<std::string>{program_path("cms-admin"), "--cms", cms[i].admin(), "--timeout", "120s",
                                 "ecu", "drain", "--deadline", "4m", kLost}));
  }
  for (const auto& one : told)
    EXPECT_EQ(one->wait(std::chrono::seconds(280)), 0) << one->output() << cms.log();
  expect_each_once(kLost, ecus.targets(), kPrograms);
  // Whatever was frozen has been told what became of it, in the end that it goes on elsewhere.
  std::map<std::uint64_t, std::string> last;
  const auto told_last = [&](const std::string& event) {
    std::size_t count = 0;
    for (const auto& [program_id, one] : last) count += one == event ? 1 : 0;
    return count;
  };
  EXPECT_FALSE(ecus.lost()
                   .wait_for([&](const nlohmann::json& line) {
                     const std::string event = line.value("event", "");
                     if (event == "frozen" || event == "thawed" || event == "fenced") {
                       last[line.value("program_id", std::uint64_t{0})] = event;
                     }
                     return told_last("fenced") == kPrograms;
                   })
                   .is_null())
      << told_last("frozen") << " are frozen, " << told_last("thawed") << " go on";
}

}  // namespace
}  // namespace cms::test
