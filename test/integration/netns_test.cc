// Guarded ECUs in a network that is really cut: two cmsd `a` and `b`, the ECU `e` with programs, two targets, each in a
// network namespace of its own. Nothing is killed but where the case says so: what is cut off runs on.
//
// | what happens                                        | the end                                                        |
// | --------------------------------------------------- | -------------------------------------------------------------- |
// | e cut off from a and b: both ways, either, or their | stopped on e, later restored elsewhere, once; after healing    |
// | control channels alone, while notify lives          | FENCED on e, and never resumed                                 |
// | the same, and both cmsd start anew before it heals  | the same: what they know of owners is in the logs              |
// | e cut off from a only, and healed                   | kept by b: nothing stops, nothing is restored                  |
// | the same, then from b only                          | a bars that session; it begins another one, and resumes        |
// | e cut off from both until it has stopped            | it says HELLO and resumes; nothing is restored                 |
// | the same, healed when it is about to be LOST        | one or the other of these, the same for all its programs       |
// | e with a torn from b with the targets               | kept by a: nothing stops, nothing is restored                  |
// | a and b cut from each other, e dies                 | restored elsewhere, once                                       |
// | a cut off from the targets with a CLAIM of its own  | restored elsewhere, once                                       |
// | e cut off from a, then b dies                       | stopped on e, restored elsewhere by a; after healing FENCED    |
//
// A link that carries only one way carries no TCP: a way that is cut is as good as both, but what happens until both
// sides know is different.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <csignal>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/time.h"
#include "net/endpoint.h"
#include "test/integration/ecu_process.h"
#include "test/integration/fleet.h"
#include "test/integration/leases.h"
#include "test/integration/netns_fleet.h"
#include "test/integration/restored_once.h"

namespace cms::test {
namespace {

using nlohmann::json;

constexpr const char* kMac = "02:00:00:00:00:01";
constexpr const char* kFirstMac = "02:00:00:00:00:11";
constexpr const char* kSecondMac = "02:00:00:00:00:12";
constexpr std::uint64_t kPrograms = 12;

// An ECU, and what it has said so far, each with when that was read.
class HeardEcu {
 public:
  struct Event {
    std::string name;
    ProgramId program_id = 0;
    Instant read_at{};
    std::string text;
  };
  HeardEcu(const TempDir& dir, const Netns& net, const std::string& host, const std::string& cms,
           const std::string& ecu_mac, EcuProcess::Options options)
      : process_(dir, cms, ecu_mac, on_host(std::move(options), host_of(net, host))) {}

  EcuProcess& process() { return process_; }
  const EcuProcess& process() const { return process_; }
  // What it has said meanwhile; waits so long for a first line.
  void listen(milliseconds patience) {
    for (std::string line = process_.process().read_line(patience); !line.empty();
         line = process_.process().read_line(milliseconds(0))) {
      const json said = json::parse(line, nullptr, false);
      if (!said.is_object()) continue;
      std::string name = said.value("event", "");
      if (name == "receipt") name = said.value("level", "");
      events_.push_back({name, said.value("program_id", ProgramId{0}), BootClock::now(), line});
    }
  }
  const std::vector<Event>& events() const { return events_; }
  void forget() { events_.clear(); }
  std::set<ProgramId> programs_that_were(const std::string& event) const {
    std::set<ProgramId> programs;
    for (const Event& said : events_) {
      if (said.name == event) programs.insert(said.program_id);
    }
    return programs;
  }
  bool all_were(const std::string& event) const { return programs_that_were(event).size() == kPrograms; }
  std::size_t count(const std::string& event) const {
    std::size_t times = 0;
    for (const Event& said : events_) times += said.name == event ? 1 : 0;
    return times;
  }
  std::string log() const {
    std::string text;
    for (const Event& said : events_) {
      text += std::to_string(said.read_at.time_since_epoch().count() / 1000000) + " " + said.text + "\n";
    }
    return text;
  }

 private:
  static EcuProcess::Options on_host(EcuProcess::Options options, const Host& host) {
    options.launcher = host.launcher;
    options.bulk_host = host.address;
    return options;
  }

  EcuProcess process_;
  std::vector<Event> events_;
};

// When a file was written, by the clock of the events. The file system's is up to a tick behind.
Instant written_at(const std::string& path) {
  struct stat status {};
  EXPECT_EQ(::stat(path.c_str(), &status), 0) << path;
  timespec wall{};
  ::clock_gettime(CLOCK_REALTIME, &wall);
  const auto since_written = std::chrono::seconds(wall.tv_sec - status.st_mtim.tv_sec) +
                             std::chrono::nanoseconds(wall.tv_nsec - status.st_mtim.tv_nsec);
  return BootClock::now() - since_written;
}

bool is_heard(const json& lease) {
  return !lease.at("heartbeat_ago_ms").is_null() && lease.at("heartbeat_ago_ms") < 2000;
}

// Barred by who says so, but not LOST: that one hears it.
std::function<bool(const json&)> kept_by(const char* name) {
  return [name](const json& lease) {
    return lease.value("state", "") == "barred" && lease.value("kept_by", json()) == json::array({name});
  };
}

class NetnsTest : public testing::Test {
 protected:
  NetnsTest() : dir_(memory_or_tmp()) {}

  void SetUp() override {
    if (const std::string reason = Netns::why_not(); !reason.empty()) GTEST_SKIP() << reason;
    net_ = make_hosts();
    ASSERT_FALSE(HasFailure());
  }
  // All that is there at the beginning, and all of it known to both cmsd.
  void begin(const std::string& crash_point_of_a = "") {
    Fleet::Options options = fleet_on(*net_);
    options.crash_points[0] = crash_point_of_a;
    fleet_ = std::make_unique<Fleet>(dir_, options);
    e_ = start("e", kMac, kPrograms);
    first_ = start("first", kFirstMac, 0);
    second_ = start("second", kSecondMac, 0);
    // What it published first may have been given to another, until it is told that it was not.
    ASSERT_TRUE(until([&] { return e_->all_were("REPLICATED") && e_->all_were("resumed"); })) << log();
    e_->forget();
    for (const char* ecu_mac : {kMac, kFirstMac, kSecondMac}) {
      ASSERT_TRUE(comes_to(a(), ecu_mac, "leased")) << log();
      ASSERT_TRUE(comes_to(b(), ecu_mac, "leased")) << log();
    }
  }
  CmsdProcess& a() { return (*fleet_)[0]; }
  CmsdProcess& b() { return (*fleet_)[1]; }
  void cut_off_from_both() {
    net_->cut("e", "a");
    net_->cut("e", "b");
  }

  // Listens to all ECUs until then. False: not before long.
  bool until(const std::function<bool()>& reached) {
    const auto start = TestClock::now();
    while (since(start) < 2 * kPatience) {
      for (HeardEcu* ecu : {e_.get(), first_.get(), second_.get()}) {
        if (ecu != nullptr) ecu->listen(milliseconds(ecu == e_.get() ? 20 : 0));
      }
      if (reached()) return true;
    }
    return false;
  }
  std::size_t restored_count() const {
    return first_->process().restored().size() + second_->process().restored().size();
  }
  testing::AssertionResult all_come_to_be_restored() {
    if (until([&] { return restored_count() >= kPrograms; })) return testing::AssertionSuccess();
    return testing::AssertionFailure() << restored_count() << " of " << kPrograms << "\n" << log();
  }
  testing::AssertionResult all_come_to_be(const std::string& event) {
    if (until([&] { return e_->all_were(event); })) return testing::AssertionSuccess();
    return testing::AssertionFailure()
           << e_->programs_that_were(event).size() << " of " << kPrograms << " were " << event << "\n"
           << log();
  }
  void expect_once() { expect_each_once(kMac, {&first_->process(), &second_->process()}, kPrograms); }
  // Each program had stopped on `e`, and that was read, before the file was written that is it elsewhere.
  void expect_stopped_before_restored() {
    std::map<ProgramId, Instant> stopped;
    for (const HeardEcu::Event& event : e_->events()) {
      if (event.name == "stopped") stopped.emplace(event.program_id, event.read_at);
    }
    for (const HeardEcu* target : {first_.get(), second_.get()}) {
      for (const auto& [from, name] : target->process().restored()) {
        ASSERT_TRUE(stopped.count(from.program_id) == 1) << "program " << from.program_id << " ran on\n"
                                                         << log();
        EXPECT_LT(stopped[from.program_id], written_at(target->process().restore_dir() + "/" + name))
            << "program " << from.program_id << "\n"
            << log();
      }
    }
  }
  // After healing: none of what stopped goes on on `e`, neither before nor after it is told that it is not its own.
  void expect_fenced_for_good() {
    EXPECT_TRUE(all_come_to_be("fenced"));
    EXPECT_TRUE(comes_to(a(), kMac, "leased")) << log();
    e_->listen(milliseconds(0));
    EXPECT_EQ(e_->count("resumed"), 0U) << log();
    expect_once();
  }
  void expect_nothing_restored() const { EXPECT_EQ(restored_count(), 0U) << log(); }
  std::uint64_t session_of_e() { return lease_of(b(), kMac).value("incarnation", std::uint64_t{0}); }

  std::string log() const {
    std::string text = fleet_->log();
    for (const HeardEcu* ecu : {e_.get(), first_.get(), second_.get()}) {
      if (ecu != nullptr) text += ecu->process().ecu_mac() + ":\n" + ecu->log();
    }
    return text;
  }

  TempDir dir_;
  std::unique_ptr<Netns> net_;
  std::unique_ptr<Fleet> fleet_;
  std::unique_ptr<HeardEcu> e_;
  std::unique_ptr<HeardEcu> first_;
  std::unique_ptr<HeardEcu> second_;

 private:
  std::unique_ptr<HeardEcu> start(const std::string& host, const std::string& ecu_mac,
                                  std::uint64_t programs) {
    EcuProcess::Options options;
    options.program_count = programs;
    options.is_target = programs == 0;
    options.arguments = {"--guarded", "--on-isolation", "stop", "--on-loss", "restore"};
    return std::make_unique<HeardEcu>(dir_, *net_, host, fleet_->endpoints(), ecu_mac, options);
  }
};

// ---- cut off from all

enum class Deaf { kBoth, kEcu, kCms, kControl };  // Who hears nothing, or which channel of the cmsd.

class CutOffTest : public NetnsTest, public testing::WithParamInterface<Deaf> {
 protected:
  void cut_off() {
    for (const char* cms : {"a", "b"}) {
      if (GetParam() == Deaf::kControl) {
        net_->cut_port("e", cms, kPortBase + net::kControlPort);
        continue;
      }
      if (GetParam() != Deaf::kCms) net_->cut_one_way(cms, "e");
      if (GetParam() != Deaf::kEcu) net_->cut_one_way("e", cms);
    }
  }
};

TEST_P(CutOffTest, ItStopsBeforeItsProgramsGoOnElsewhereAndIsFencedWhenItIsBack) {
  ASSERT_NO_FATAL_FAILURE(begin());
  cut_off();
  ASSERT_TRUE(all_come_to_be_restored());
  expect_stopped_before_restored();
  EXPECT_EQ(e_->count("fenced"), 0U);
  net_->heal();
  expect_fenced_for_good();
}

INSTANTIATE_TEST_SUITE_P(Netns, CutOffTest,
                         testing::Values(Deaf::kBoth, Deaf::kEcu, Deaf::kCms, Deaf::kControl),
                         [](const testing::TestParamInfo<Deaf>& deaf) {
                           return deaf.param == Deaf::kBoth  ? "BothWays"
                                  : deaf.param == Deaf::kEcu ? "TheEcuHearsNothing"
                                  : deaf.param == Deaf::kCms ? "TheCmsHearNothing"
                                                             : "ControlAloneWhileNotifyLives";
                         });

TEST_F(NetnsTest, CutOffAndBothCmsdStartAnewBeforeItIsBack) {
  ASSERT_NO_FATAL_FAILURE(begin());
  cut_off_from_both();
  ASSERT_TRUE(all_come_to_be_restored());
  expect_stopped_before_restored();
  for (CmsdProcess* cmsd : {&a(), &b()}) {
    cmsd->kill();
    cmsd->start();
  }
  net_->heal();
  expect_fenced_for_good();
}

TEST_F(NetnsTest, CutOffUntilItHasStoppedItGoesOnByItself) {
  ASSERT_NO_FATAL_FAILURE(begin());
  const std::uint64_t before = session_of_e();
  cut_off_from_both();
  ASSERT_TRUE(all_come_to_be("stopped"));
  net_->heal();
  ASSERT_TRUE(all_come_to_be("resumed"));
  for (const CmsdProcess* cmsd : {&a(), &b()}) {
    EXPECT_TRUE(comes_to(*cmsd, kMac, [&](const json& lease) {
      return lease.value("state", "") == "leased" && lease.value("incarnation", std::uint64_t{0}) > before;
    })) << log();
  }
  EXPECT_EQ(e_->count("fenced"), 0U) << log();
  expect_nothing_restored();
}

// HELLO and LOST are on their way at once: which comes first is open, that both hold is not.
class LastMomentTest : public NetnsTest, public testing::WithParamInterface<int> {};

TEST_P(LastMomentTest, ItIsHereOrElsewhereAndNeverBoth) {
  ASSERT_NO_FATAL_FAILURE(begin());
  const auto cut_at = TestClock::now();
  cut_off_from_both();
  ASSERT_TRUE(until([&] { return since(cut_at) >= milliseconds(GetParam()); }));
  net_->heal();
  ASSERT_TRUE(until([&] { return e_->all_were("resumed") || e_->all_were("fenced"); })) << log();
  EXPECT_TRUE(comes_to(a(), kMac, "leased")) << log();
  EXPECT_TRUE(comes_to(b(), kMac, "leased")) << log();
  e_->listen(milliseconds(0));
  EXPECT_TRUE(e_->all_were("stopped")) << log();
  EXPECT_TRUE(e_->count("resumed") == 0 || e_->count("fenced") == 0) << log();
  if (e_->count("resumed") > 0) {
    EXPECT_EQ(e_->count("resumed"), kPrograms) << log();
    expect_nothing_restored();
  } else {
    expect_stopped_before_restored();
    expect_once();
  }
}

INSTANTIATE_TEST_SUITE_P(HealedAfterMs, LastMomentTest, testing::Values(7500, 8500, 9000, 10500),
                         [](const testing::TestParamInfo<int>& after) {
                           return std::to_string(after.param);
                         });

// ---- one cmsd is enough

TEST_F(NetnsTest, CutOffFromOneItIsKeptByTheOther) {
  ASSERT_NO_FATAL_FAILURE(begin());
  const std::uint64_t session = session_of_e();
  net_->cut("e", "a");
  ASSERT_TRUE(comes_to(a(), kMac, kept_by("b"))) << log();
  EXPECT_TRUE(comes_to(b(), kMac, "leased")) << log();
  net_->heal();
  // It is heard again, but that session gets nothing from `a` any more.
  ASSERT_TRUE(comes_to(a(), kMac, is_heard)) << log();
  EXPECT_EQ(lease_of(a(), kMac).value("state", ""), "barred") << log();
  EXPECT_TRUE(comes_to(b(), kMac, "leased")) << log();
  EXPECT_EQ(session_of_e(), session) << log();
  e_->listen(milliseconds(0));
  EXPECT_EQ(e_->count("stopped"), 0U) << log();
  expect_nothing_restored();

  // The one that kept it is cut off as well: only `a` is left, and leases another session of it.
  net_->cut("e", "b");
  ASSERT_TRUE(all_come_to_be("resumed"));
  EXPECT_TRUE(comes_to(a(), kMac, [&](const json& lease) {
    return lease.value("state", "") == "leased" && lease.value("incarnation", std::uint64_t{0}) > session;
  })) << log();
  EXPECT_EQ(e_->count("fenced"), 0U) << log();
  expect_nothing_restored();
}

TEST_F(NetnsTest, CutOffFromOneAndTheOtherDies) {
  ASSERT_NO_FATAL_FAILURE(begin());
  net_->cut("e", "a");
  ASSERT_TRUE(comes_to(a(), kMac, kept_by("b"))) << log();
  b().kill();
  ASSERT_TRUE(all_come_to_be_restored());
  expect_stopped_before_restored();
  net_->heal();
  expect_fenced_for_good();
}

TEST_F(NetnsTest, TheNetworkIsTornInTwoAndEachCmsdKeepsWhatItHears) {
  ASSERT_NO_FATAL_FAILURE(begin());
  for (const char* here : {"a", "e"}) {
    for (const char* there : {"b", "first", "second"}) net_->cut(here, there);
  }
  ASSERT_TRUE(comes_to(b(), kMac, kept_by("a"))) << log();
  EXPECT_TRUE(comes_to(a(), kFirstMac, kept_by("b"))) << log();
  EXPECT_TRUE(comes_to(a(), kSecondMac, kept_by("b"))) << log();
  EXPECT_TRUE(comes_to(a(), kMac, "leased")) << log();
  EXPECT_TRUE(comes_to(b(), kFirstMac, "leased")) << log();
  EXPECT_TRUE(comes_to(b(), kSecondMac, "leased")) << log();
  net_->heal();
  ASSERT_TRUE(comes_to(b(), kMac, is_heard)) << log();
  e_->listen(milliseconds(0));
  EXPECT_EQ(e_->count("stopped"), 0U) << log();
  expect_nothing_restored();
}

// ---- other links

TEST_F(NetnsTest, TheCmsAreCutFromEachOtherAndTheEcuDies) {
  ASSERT_NO_FATAL_FAILURE(begin());
  net_->cut("a", "b");
  e_->process().kill();
  ASSERT_TRUE(all_come_to_be_restored());
  expect_once();
}

TEST_F(NetnsTest, TheOneWithAClaimIsCutOffFromTheTargets) {
  ASSERT_NO_FATAL_FAILURE(begin("restore.after_claim:stop"));
  e_->process().kill();
  const auto stands_still = [&] {
    std::ifstream stat("/proc/" + std::to_string(a().process().pid()) + "/stat");
    std::string word;
    return stat >> word >> word >> word && word == "T";
  };
  // (b may have been the faster one at all of them.)
  ASSERT_TRUE(until([&] { return stands_still() || restored_count() >= kPrograms; })) << log();
  net_->cut("a", "first");
  net_->cut("a", "second");
  a().process().signal(SIGCONT);
  ASSERT_TRUE(all_come_to_be_restored());
  expect_once();
  net_->heal();
  // Whoever is heard again has no part in it.
  for (const char* ecu_mac : {kFirstMac, kSecondMac}) {
    EXPECT_TRUE(comes_to(a(), ecu_mac, is_heard)) << log();
  }
  expect_once();
}

}  // namespace
}  // namespace cms::test
