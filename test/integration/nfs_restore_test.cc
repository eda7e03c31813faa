// Cmsd on one NAS race for the programs of a lost ECU: while one is killed and another stopped for so long that
// the others take over from it; while calls to the NAS are lost, late or doubled; and all of that together at every
// named point of a restore. Each program runs exactly once, counted at the targets.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "base/prng.h"
#include "test/integration/ecu_process.h"
#include "test/integration/nfs_fleet.h"
#include "test/integration/restored_once.h"

namespace cms::test {
namespace {

constexpr const char* kLost = "02:00:00:00:00:01";
constexpr int kKilled = 128 + SIGKILL;

// For a longer race than every run has time for.
std::uint64_t lineage_count(std::uint64_t count) {
  const char* text = std::getenv("CMS_TEST_LINEAGES");
  return text == nullptr ? count : std::strtoull(text, nullptr, 10);
}

class ThreeCms {
 public:
  // `store_urls`: how each reaches the store.
  ThreeCms(const TempDir& dir, const std::array<std::string, 3>& store_urls,
           const std::array<std::string, 3>& crash_points = {}) {
    const std::vector<std::uint16_t> ports = free_port_bases(3);
    for (std::size_t i = 0; i < 3; ++i) {
      CmsdProcess::Options options;
      options.name = std::string(1, static_cast<char>('a' + i));
      options.store_url = store_urls[i];
      options.crash_point = crash_points[i];
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

std::unique_ptr<Process> tell_failed(const CmsdProcess& cmsd) {
  return std::make_unique<Process>(std::vector<std::string>{program_path("cms-admin"), "--cms", cmsd.admin(),
                                                            "--timeout", "120s", "ecu", "failed", kLost});
}

std::vector<std::unique_ptr<Process>> tell_all(ThreeCms& cms) {
  std::vector<std::unique_ptr<Process>> told;
  for (std::size_t i = 0; i < 3; ++i) told.push_back(tell_failed(cms[i]));
  return told;
}

// One that has programs, and two that can take them.
class Ecus {
 public:
  Ecus(const TempDir& dir, const std::string& endpoints, std::uint64_t program_count)
      : program_count_(program_count),
        lost_(dir, endpoints, kLost, with_programs(program_count)),
        first_(dir, endpoints, "02:00:00:00:00:11", as_target()),
        second_(dir, endpoints, "02:00:00:00:00:12", as_target()) {}
  // Once its programs are stored and the targets are there, the first one is gone. False: that did not come about.
  bool lose() {
    const bool ready = lost_.wait_for_receipts("REPLICATED", program_count_) &&
                       !first_.wait_for_event("ready").is_null() &&
                       !second_.wait_for_event("ready").is_null();
    lost_.kill();
    return ready;
  }
  EcuProcess& first() { return first_; }
  std::vector<const EcuProcess*> targets() const { return {&first_, &second_}; }

 private:
  static EcuProcess::Options with_programs(std::uint64_t count) {
    EcuProcess::Options options;
    options.program_count = count;
    return options;
  }
  static EcuProcess::Options as_target() {
    EcuProcess::Options options;
    options.is_target = true;
    return options;
  }

  const std::uint64_t program_count_;
  EcuProcess lost_;
  EcuProcess first_;
  EcuProcess second_;
};

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

// Of one in `one_of` of the calls that claims are made of, the request or the reply is lost, doubled, or comes when its
// caller has given it up.
RpcFaultProxy::Decide faults(std::uint64_t seed, std::uint64_t one_of = 40) {
  return [random = std::make_shared<Prng>(seed), one_of](const SeenRpc& rpc) {
    constexpr std::array kStruck{Procedure::kLink,  Procedure::kRemove, Procedure::kCreate, Procedure::kRead,
                                 Procedure::kWrite, Procedure::kCommit, Procedure::kLookup};
    Fault fault;
    if (std::find(kStruck.begin(), kStruck.end(), rpc.procedure) == kStruck.end()) return fault;
    constexpr std::array kActions{Fault::Action::kDrop, Fault::Action::kDouble, Fault::Action::kCutAfter};
    if (random->below(one_of) == 0) fault.action = kActions[random->below(kActions.size())];
    if (rpc.way == Way::kRequest && random->below(2 * one_of) == 0) {
      fault.action = Fault::Action::kLate;
      fault.after_calls = random->below(20);
    }
    if (rpc.way == Way::kReply && fault.action == Fault::Action::kCutAfter)
      fault.action = Fault::Action::kCut;
    return fault;
  };
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
  auto told = tell_all(cms);
  ASSERT_EQ(cms[0].wait(), kKilled) << "the point was never passed\n" << cms.log();
  ASSERT_TRUE(cms[1].process().wait_stopped()) << "the point was never passed\n" << cms.log();
  EXPECT_TRUE(goes_on_until_all_run(cms[2], std::move(told[2]))) << cms.log();
  expect_each_once(kLost, ecus.targets(), count);
  cms[1].process().signal(SIGCONT);
  EXPECT_TRUE(goes_on_until_all_run(cms[1], std::move(told[1]))) << cms.log();
  expect_each_once(kLost, ecus.targets(), count);
}

INSTANTIATE_TEST_SUITE_P(AtEveryPoint, NfsRestorePointTest, testing::ValuesIn(points_of_a_restore()),
                         name_of_point);

}  // namespace
}  // namespace cms::test
