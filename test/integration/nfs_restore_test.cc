// Three cmsd on one NAS race for the programs of a lost ECU, while one is killed and another stopped for so long
// that the others take over from it: each program runs exactly once, counted at the targets.
#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "test/integration/ecu_process.h"
#include "test/integration/nfs_fleet.h"
#include "test/integration/restored_once.h"

namespace cms::test {
namespace {

constexpr const char* kLost = "02:00:00:00:00:01";

// For a longer race than every run has time for.
std::uint64_t lineage_count() {
  const char* text = std::getenv("CMS_TEST_LINEAGES");
  return text == nullptr ? 150 : std::strtoull(text, nullptr, 10);
}

class ThreeCms {
 public:
  ThreeCms(const TempDir& dir, const std::string& store_url) {
    const std::vector<std::uint16_t> ports = free_port_bases(3);
    for (std::size_t i = 0; i < 3; ++i) {
      CmsdProcess::Options options;
      options.name = std::string(1, static_cast<char>('a' + i));
      options.store_url = store_url;
      options.port_base = ports[i];
      for (std::size_t other = 0; other < 3; ++other) {
        if (other == i) continue;
        options.arguments.push_back("--peer");
        options.arguments.push_back("tcp://127.0.0.1:" + std::to_string(ports[other]));
      }
      cmsds_.push_back(std::make_unique<CmsdProcess>(dir, options));
    }
    for (const auto& cmsd : cmsds_) (void)wait_for_store_state(*cmsd, "ok");
  }
  CmsdProcess& operator[](std::size_t i) { return *cmsds_[i]; }
  std::string endpoints() const {
    return cmsds_[0]->endpoint() + "," + cmsds_[1]->endpoint() + "," + cmsds_[2]->endpoint();
  }
  std::string log() const {
    std::string log;
    for (const auto& cmsd : cmsds_) log += cmsd->name() + ":\n" + cmsd->log();
    return log;
  }

 private:
  std::vector<std::unique_ptr<CmsdProcess>> cmsds_;
};

// Until this cmsd holds a record of that life of a member for stale.
bool wait_until_stale(const CmsdProcess& cmsd, const std::string& name) {
  const auto start = TestClock::now();
  while (since(start) < kPatience) {
    const auto peers = cmsd.admin({"peers", "--output", "json"});
    const auto json = nlohmann::json::parse(peers.output, nullptr, false);
    if (json.is_object()) {
      for (const auto& peer : json.at("peers")) {
        if (peer.value("name", "") == name && peer.at("record") == "stale") return true;
      }
    }
  }
  return false;
}

TEST(NfsRestoreTest, ThreeCmsRaceAndOneIsKilledAndOneStoppedForTooLong) {
  const auto ganesha = start_ganesha();
  ASSERT_NE(ganesha, nullptr);
  const std::uint64_t count = lineage_count();
  const TempDir dir;
  ThreeCms cms(dir, ganesha->url());
  EcuProcess::Options programs;
  programs.program_count = count;
  EcuProcess lost(dir, cms.endpoints(), kLost, programs);
  EcuProcess::Options as_target;
  as_target.is_target = true;
  EcuProcess first(dir, cms.endpoints(), "02:00:00:00:00:11", as_target);
  EcuProcess second(dir, cms.endpoints(), "02:00:00:00:00:12", as_target);
  ASSERT_TRUE(lost.wait_for_receipts("REPLICATED", count)) << cms.log();
  ASSERT_FALSE(first.wait_for_event("ready").is_null());
  ASSERT_FALSE(second.wait_for_event("ready").is_null());
  lost.kill();

  std::vector<std::unique_ptr<Process>> told;
  for (std::size_t i = 0; i < 3; ++i) {
    told.push_back(std::make_unique<Process>(std::vector<std::string>{
        program_path("cms-admin"), "--cms", cms[i].admin(), "--timeout", "120s", "ecu", "failed", kLost}));
  }
  for (std::uint64_t running = 0; running < count / 5; ++running) {
    ASSERT_FALSE(first.wait_for_event("running").is_null()) << cms.log();
  }
  cms[0].kill();
  cms[1].process().signal(SIGSTOP);
  EXPECT_TRUE(wait_until_stale(cms[2], "b")) << cms.log();
  cms[1].process().signal(SIGCONT);
  EXPECT_EQ(told[2]->wait(std::chrono::seconds(120)), 0) << told[2]->output() << cms.log();
  EXPECT_EQ(told[1]->wait(std::chrono::seconds(120)), 0) << told[1]->output() << cms.log();
  expect_each_once(kLost, {&first, &second}, count);
}

}  // namespace
}  // namespace cms::test
