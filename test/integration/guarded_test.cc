// Guarded ECUs: nobody says that one is gone, and its programs go on elsewhere all the same, each once; what only looks
// like a loss is none. Real cmsd, real ECUs (`rtcr ecu --guarded`).
#include <gtest/gtest.h>

#include <csignal>
#include <fstream>
#include <iterator>
#include <set>
#include <string>

#include <nlohmann/json.hpp>

#include "test/integration/ecu_process.h"
#include "test/integration/fleet.h"
#include "test/integration/leases.h"
#include "test/integration/restored_once.h"
#include "test/support/publisher.h"

namespace cms::test {
namespace {

using nlohmann::json;

constexpr const char* kLost = "02:00:00:00:00:01";
constexpr const char* kFirst = "02:00:00:00:00:11";
constexpr const char* kSecond = "02:00:00:00:00:12";
constexpr std::uint64_t kPrograms = 12;

EcuProcess::Options guarded(std::uint64_t programs, const std::string& boot_id = "") {
  EcuProcess::Options options;
  options.program_count = programs;
  options.arguments = {"--guarded", "--on-isolation", "stop", "--on-loss", "restore"};
  if (!boot_id.empty()) options.arguments.insert(options.arguments.end(), {"--boot-id", boot_id});
  return options;
}
EcuProcess::Options target() {
  EcuProcess::Options options = guarded(0);
  options.is_target = true;
  return options;
}

std::unique_ptr<Process> admin(const CmsdProcess& cmsd, std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {program_path("cms-admin"), "--cms", cmsd.admin(), "--timeout", "60s",
                                       "--output", "json"});
  return std::make_unique<Process>(arguments);
}

class GuardedTest : public testing::Test {
 protected:
  GuardedTest() : dir_(memory_or_tmp()), fleet_(dir_) {}

  // An ECU with programs, all of them known to both; and two that could take them.
  void begin(const EcuProcess::Options& options) {
    lost_ = std::make_unique<EcuProcess>(dir_, fleet_.endpoints(), kLost, options);
    first_ = std::make_unique<EcuProcess>(dir_, fleet_.endpoints(), kFirst, target());
    second_ = std::make_unique<EcuProcess>(dir_, fleet_.endpoints(), kSecond, target());
    ASSERT_TRUE(lost_->wait_for_receipts("REPLICATED", kPrograms)) << fleet_.log();
    for (const char* ecu_mac : {kLost, kFirst, kSecond}) {
      ASSERT_TRUE(comes_to(fleet_[0], ecu_mac, "leased")) << fleet_.log();
      ASSERT_TRUE(comes_to(fleet_[1], ecu_mac, "leased")) << fleet_.log();
    }
  }
  testing::AssertionResult all_restored() {
    const auto start = TestClock::now();
    std::size_t count = 0;
    while (since(start) < kPatience) {
      count = first_->restored().size() + second_->restored().size();
      if (count >= kPrograms) return testing::AssertionSuccess();
    }
    return testing::AssertionFailure() << count << " of " << kPrograms << "\n" << fleet_.log();
  }
  void expect_once() { expect_each_once(kLost, {first_.get(), second_.get()}, kPrograms); }

  TempDir dir_;
  Fleet fleet_;
  std::unique_ptr<EcuProcess> lost_;
  std::unique_ptr<EcuProcess> first_;
  std::unique_ptr<EcuProcess> second_;
};

TEST_F(GuardedTest, ProgramsOfAnEcuThatDiesGoOnElsewhereAndNobodySaysSo) {
  begin(guarded(kPrograms));
  lost_->kill();
  EXPECT_TRUE(comes_to(fleet_[0], kLost, "lost")) << fleet_.log();
  ASSERT_TRUE(all_restored());
  expect_once();
}

TEST_F(GuardedTest, ACmsdDiesWithTheEcuAndTheOtherGoesOn) {
  begin(guarded(kPrograms));
  fleet_[0].kill();
  lost_->kill();
  ASSERT_TRUE(all_restored());
  expect_once();
}

TEST_F(GuardedTest, WhatIsToBeAskedForWaitsForAnOperator) {
  EcuProcess::Options options = guarded(kPrograms);
  options.arguments = {"--guarded", "--on-isolation", "keep", "--on-loss", "ask"};
  begin(options);
  lost_->kill();
  ASSERT_TRUE(comes_to(fleet_[1], kLost, [](const json& lease) {
    return lease.value("state", "") == "lost" && lease.value("waiting", 0U) == kPrograms;
  })) << fleet_.log();
  EXPECT_TRUE(first_->restored().empty() && second_->restored().empty());
  const auto told = admin(fleet_[1], {"ecu", "failed", kLost});
  EXPECT_EQ(told->wait(), 0) << told->output();
  ASSERT_TRUE(all_restored());
  expect_once();
}

TEST_F(GuardedTest, AnEcuThatBootsAnewWithinSecondsHasItsProgramsRestoredThere) {
  begin(guarded(kPrograms, "first boot"));
  lost_->kill();
  EcuProcess::Options again = guarded(0, "second boot");
  again.is_target = true;
  EcuProcess back(dir_, fleet_.endpoints(), kLost, again);
  const auto start = TestClock::now();
  while (back.restored().size() < kPrograms && since(start) < kPatience) {
  }
  expect_each_once(kLost, {&back, first_.get(), second_.get()}, kPrograms);
  EXPECT_EQ(back.restored().size(), kPrograms) << fleet_.log();  // It has room, and had them before.
}

// Nothing of it is restored by itself; its RTCR asks for it, which is a claim as any other.
TEST_F(GuardedTest, WhatAnRtcrAsksForAfterItsOwnEndGoesOnThereAndItsNextLossIsOneOfIt) {
  EcuProcess::Options options = guarded(kPrograms);
  options.arguments = {"--guarded", "--on-isolation", "stop", "--on-loss", "ask"};
  begin(options);
  lost_->kill();
  EcuProcess::Options again;
  again.arguments = options.arguments;
  for (std::uint64_t id = 1; id <= kPrograms; ++id) {
    const std::string file = std::to_string(id) + "=" + dir_ / ("back-" + std::to_string(id));
    again.arguments.insert(again.arguments.end(), {"--restart", file});
  }
  EcuProcess back(dir_, fleet_.endpoints(), kLost, again);
  EXPECT_TRUE(back.wait_for_receipts("REPLICATED", kPrograms)) << fleet_.log();
  for (std::uint64_t id = 1; id <= kPrograms; ++id) {
    std::ifstream file(dir_ / ("back-" + std::to_string(id)), std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    const auto wanted = blob_of(id, 1, options.size_bytes);
    EXPECT_EQ(bytes, std::string(reinterpret_cast<const char*>(wanted.data()), wanted.size())) << id;
  }
  EXPECT_TRUE(first_->restored().empty() && second_->restored().empty());
  back.kill();
  ASSERT_TRUE(comes_to(fleet_[1], kLost, [](const json& lease) {
    return lease.value("state", "") == "lost" && lease.value("waiting", 0U) == kPrograms;
  })) << fleet_.log();
  const auto told = admin(fleet_[0], {"ecu", "failed", kLost});
  EXPECT_EQ(told->wait(), 0) << told->output();
  ASSERT_TRUE(all_restored());
  expect_once();
}

TEST_F(GuardedTest, ABrokerThatIsStoppedIsKilledByItsGuardAndItsProgramsGoOnElsewhere) {
  begin(guarded(kPrograms));
  // The guard is the process; the broker its child.
  std::ifstream children("/proc/" + std::to_string(lost_->process().pid()) + "/task/" +
                         std::to_string(lost_->process().pid()) + "/children");
  pid_t broker = 0;
  ASSERT_TRUE(children >> broker);
  ASSERT_EQ(::kill(broker, SIGSTOP), 0);
  EXPECT_EQ(lost_->process().wait(), 1);  // The guard has killed it.
  ASSERT_TRUE(all_restored());
  expect_once();
  // Who is started anew, with what ran there, runs none of it.
  EcuProcess again(dir_, fleet_.endpoints(), kLost, guarded(kPrograms));
  std::set<std::uint64_t> fenced;
  bool any_resumed = false;
  EXPECT_FALSE(again
                   .wait_for([&](const json& said) {
                     const std::string event = said.value("event", "");
                     if (event == "fenced") fenced.insert(said.value("program_id", std::uint64_t{0}));
                     any_resumed = any_resumed || event == "resumed";
                     return fenced.size() == kPrograms;
                   })
                   .is_null())
      << fenced.size() << " are fenced\n"
      << fleet_.log();
  EXPECT_FALSE(any_resumed);
  expect_once();
}

TEST_F(GuardedTest, OneThatSaysByeIsNotLost) {
  begin(guarded(kPrograms));
  lost_->process().signal(SIGTERM);
  EXPECT_EQ(lost_->process().wait(), 0);
  // Nothing follows BYE but the next HELLO.
  EXPECT_TRUE(comes_to(fleet_[0], kLost, "ended")) << fleet_.log();
  EXPECT_TRUE(comes_to(fleet_[1], kLost, "ended")) << fleet_.log();
  EXPECT_TRUE(first_->restored().empty() && second_->restored().empty());
}

TEST_F(GuardedTest, SilenceInMaintenanceIsNoLossUntilItEnds) {
  begin(guarded(kPrograms));
  EXPECT_EQ(admin(fleet_[0], {"ecu", "maintenance", kLost, "on"})->wait(), 0);
  lost_->kill();
  const auto barred = [](const json& lease) {
    return lease.value("state", "") == "barred" && lease.value("maintenance", false) &&
           lease.value("kept_by", json::array()).empty();
  };
  ASSERT_TRUE(comes_to(fleet_[0], kLost, barred)) << fleet_.log();
  ASSERT_TRUE(comes_to(fleet_[1], kLost, barred)) << fleet_.log();
  EXPECT_TRUE(first_->restored().empty() && second_->restored().empty());
  // Told to the other one.
  EXPECT_EQ(admin(fleet_[1], {"ecu", "maintenance", kLost, "off"})->wait(), 0);
  ASSERT_TRUE(all_restored());
  expect_once();
}

TEST_F(GuardedTest, ASecondGuardedSessionOfAnEcuIsRefusedWhileTheFirstLives) {
  begin(guarded(kPrograms));
  EcuProcess second(dir_, fleet_.endpoints(), kLost, guarded(0, "elsewhere"));
  EXPECT_FALSE(second
                   .wait_for([](const json& event) {
                     return event.dump().find("another guarded session") != std::string::npos;
                   })
                   .is_null());
  EXPECT_TRUE(comes_to(fleet_[0], kLost, "leased"));
  EXPECT_TRUE(first_->restored().empty() && second_->restored().empty());
}

}  // namespace
}  // namespace cms::test
