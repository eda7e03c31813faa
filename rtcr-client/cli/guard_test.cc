// `rtcr ecu --guarded` as processes: programs stop with the run lease, and whoever of guard and broker is missing, nothing
// of them is left.
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "test/support/fake_cms.h"
#include "test/support/process.h"

namespace cms::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using test::FakeCms;
using test::FakePlan;
using test::FakeState;
using test::Process;
using wire::RestoreState;

constexpr std::uint32_t kLeaseMs = 5000;

FakePlan leasing() {
  FakePlan plan;
  plan.lease_ms = kLeaseMs;
  return plan;
}

class RtcrGuardTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "rtcr_guard_test_XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
    // Its program is a process that has left its parents; it notes each word.
    std::ofstream(folder_ / "command") << R"sh(
cd "$(dirname "$0")"
echo "$1 $RESTORE_NEW_PROGRAM_ID" >>words
case "$1" in
  go) (sleep 1000 >/dev/null 2>&1 & echo $! >program.new; mv program.new program) ;;
  stop) kill -STOP "$(cat program)"
    until grep -q '^State:.T' "/proc/$(cat program)/status"; do :; done ;;  # It takes until it has the CPU.
  resume) kill -CONT "$(cat program)" ;;
esac
)sh";
  }
  void TearDown() override {
    if (const pid_t program = pid_in("program"); program > 0 && started_) ::kill(program, SIGKILL);
    fs::remove_all(folder_);
  }

  std::vector<std::string> command(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> words{RTCR_PROGRAM,
                                   "ecu",
                                   "--cms",
                                   cms_.endpoint(),
                                   "--ecu-mac",
                                   "02:00:00:00:00:01",
                                   "--bulk-host",
                                   "127.0.0.1",
                                   "--guarded",
                                   "--boot-id",
                                   "a boot",
                                   "--restore-command",
                                   "sh " + (folder_ / "command").string()};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  Process::Options quiet() const {
    Process::Options options;
    options.stderr_path = folder_ / "stderr";
    return options;
  }
  static json event(Process& ecu, const std::string& name) {
    for (std::string line = ecu.read_line(); !line.empty(); line = ecu.read_line()) {
      const json found = json::parse(line);
      if (found.at("event") == name) return found;
    }
    ADD_FAILURE() << "no event " << name;
    return json::object();
  }
  std::string text_in(const std::string& name) const {
    std::ifstream file(folder_ / name);
    std::ostringstream content;
    content << file.rdbuf();
    return content.str();
  }
  pid_t pid_in(const std::string& name) const { return std::atoi(text_in(name).c_str()); }
  // 'R', 'S', 'T' … of /proc; 0: there is no such process, or nobody has buried it yet.
  static char state_of(pid_t pid) {
    std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
    std::string line;
    if (!std::getline(file, line)) return 0;
    const char state = line.at(line.rfind(')') + 2);
    return state == 'Z' ? 0 : state;
  }
  // The child of the guard.
  static pid_t broker_of(const Process& guard) {
    const std::string pid = std::to_string(guard.pid());
    std::ifstream file("/proc/" + pid + "/task/" + pid + "/children");
    pid_t broker = 0;
    file >> broker;
    return broker;
  }
  static bool wait_until(const std::function<bool()>& condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > end) return false;
      std::this_thread::yield();
    }
    return true;
  }
  // A program that the CMS lets go on here; its process.
  pid_t restore(wire::OnIsolation on_isolation) {
    const SessionId session{EcuMac{0x020000000009}, 65536};
    cms_.offer(CheckpointId{ProgramKey{session.ecu_mac, 5}, Version{session.incarnation, 3}}, "state");
    wire::Prepare prepare;
    prepare.claim = claim_;
    prepare.session = session;
    prepare.notification.program_id = 5;
    prepare.notification.seq = 3;
    prepare.notification.size_bytes = 5;
    prepare.notification.chunk_size_bytes = wire::kChunkSizeBytesMin;
    prepare.notification.policies.on_isolation = on_isolation;
    prepare.bulk_port = cms_.bulk_port();
    cms_.command(prepare);
    EXPECT_TRUE(has_report(RestoreState::kPrepared));
    cms_.command(wire::Go{claim_, claim_.slot + 1, 21, on_isolation});
    EXPECT_TRUE(has_report(RestoreState::kRunning));
    started_ = true;
    return pid_in("program");
  }
  bool has_report(RestoreState state) const {
    return cms_.wait_until([state](const FakeState& seen) {
      return !seen.reports.empty() && seen.reports.back().state == state;
    });
  }

  const wire::ClaimRef claim_{Lineage{1, 6}, 2, 20};
  FakeCms cms_{leasing()};
  fs::path folder_{};
  bool started_ = false;
};

TEST_F(RtcrGuardTest, ItsProgramsStopWithTheLeaseAndGoOnByAThaw) {
  Process ecu(command());
  EXPECT_TRUE(event(ecu, "lease").at("lives"));
  const wire::Hello hello = cms_.state().hello;
  EXPECT_TRUE(hello.guarded);
  EXPECT_EQ(hello.enforcer, wire::Enforcer::kGuard);
  const pid_t program = restore(wire::OnIsolation::kStop);
  EXPECT_NE(state_of(program), 'T');
  cms_.end_session();
  // The next lease may live before the command has stopped it.
  std::vector<bool> leases;
  bool stopped = false;
  while (!stopped || leases.size() < 2) {
    const std::string line = ecu.read_line();
    ASSERT_NE(line, "");
    const json found = json::parse(line);
    if (found.at("event") == "lease") leases.push_back(found.at("lives"));
    if (found.at("event") == "stopped") stopped = true;
  }
  EXPECT_EQ(leases, (std::vector<bool>{false, true}));
  EXPECT_EQ(state_of(program), 'T');
  cms_.command(wire::AskPrograms{1, 0});
  EXPECT_TRUE(cms_.wait_until([](const FakeState& state) { return !state.programs.empty(); }))
      << "it has told all that it runs";
  EXPECT_EQ(cms_.state().programs.at(0).programs.at(0).state, wire::ProgramState::kStopped);
  cms_.command(wire::Thaw{wire::ClaimRef{claim_.lineage, claim_.slot + 2, 22}, 0, wire::OnIsolation::kStop});
  EXPECT_EQ(event(ecu, "resumed").at("program_id"), 0);
  EXPECT_NE(state_of(program), 'T');
  EXPECT_EQ(text_in("words"), "prepare \ngo 0\nstop 0\nresume 0\n");
  ecu.signal(SIGTERM);
  EXPECT_EQ(ecu.wait(), 0);
  EXPECT_EQ(state_of(program), 'T') << "nobody holds a lease for it";
}

TEST_F(RtcrGuardTest, ABrokerThatStandsStillIsKilledWithItsProgramsWhenTheLeaseEnds) {
  Process ecu(command(), quiet());
  EXPECT_TRUE(event(ecu, "lease").at("lives"));
  const pid_t program = restore(wire::OnIsolation::kStop);
  const pid_t broker = broker_of(ecu);
  ASSERT_GT(broker, 0);
  ASSERT_EQ(::kill(broker, SIGSTOP), 0);
  EXPECT_EQ(ecu.wait(), 1);
  EXPECT_EQ(state_of(broker), 0);
  EXPECT_EQ(state_of(program), 0);
  EXPECT_NE(text_in("stderr").find("run lease has ended"), std::string::npos);
}

TEST_F(RtcrGuardTest, TheProgramsDieWithABrokerThatIsKilled) {
  Process ecu(command(), quiet());
  EXPECT_TRUE(event(ecu, "lease").at("lives"));
  const pid_t program = restore(wire::OnIsolation::kKeep);
  ASSERT_EQ(::kill(broker_of(ecu), SIGKILL), 0);
  EXPECT_EQ(ecu.wait(), 1);
  EXPECT_EQ(state_of(program), 0);
  EXPECT_NE(text_in("stderr").find("did not end in order"), std::string::npos);
}

TEST_F(RtcrGuardTest, TheProgramsAndTheBrokerDieWithAGuardThatIsKilled) {
  Process ecu(command(), quiet());
  EXPECT_TRUE(event(ecu, "lease").at("lives"));
  const pid_t program = restore(wire::OnIsolation::kKeep);
  const pid_t broker = broker_of(ecu);
  ecu.signal(SIGKILL);
  EXPECT_EQ(ecu.wait(), 128 + SIGKILL);
  EXPECT_TRUE(wait_until([&] { return state_of(broker) == 0 && state_of(program) == 0; }));
}

TEST_F(RtcrGuardTest, WhatIsKeptOutlivesAnEndInOrder) {
  Process ecu(command(), quiet());
  EXPECT_TRUE(event(ecu, "lease").at("lives"));
  const pid_t program = restore(wire::OnIsolation::kKeep);
  ecu.signal(SIGTERM);
  EXPECT_EQ(ecu.wait(), 0);
  EXPECT_NE(state_of(program), 0);
  EXPECT_TRUE(cms_.wait_until([](const FakeState& state) { return state.bye_count == 1; }));
}

// With a device that is preloaded: it resets nothing, and notes what is asked of it.
class RtcrWatchdogTest : public RtcrGuardTest {
 protected:
  std::vector<std::string> watched() const { return command({"--watchdog", "/dev/null"}); }
  Process::Options preloaded() const {
    Process::Options options = quiet();
    options.environment = {{"LD_PRELOAD", CMS_FAKE_WATCHDOG},
                           {"FAKE_WATCHDOG_LOG", folder_ / "watchdog"},
                           {"ASAN_OPTIONS", "verify_asan_link_order=0"}};
    return options;
  }
  bool is_kicked() const {
    return wait_until([this] { return text_in("watchdog").find("kick\n") != std::string::npos; });
  }
  bool is_disarmed() const { return text_in("watchdog").find("disarm") != std::string::npos; }
};

TEST_F(RtcrWatchdogTest, IsKickedAndSaidInHelloAndDisarmedAtAnEndInOrder) {
  Process ecu(watched(), preloaded());
  EXPECT_TRUE(event(ecu, "lease").at("lives"));
  EXPECT_EQ(cms_.state().hello.enforcer, wire::Enforcer::kWatchdog);
  restore(wire::OnIsolation::kStop);
  EXPECT_TRUE(is_kicked());
  EXPECT_FALSE(is_disarmed());
  ecu.signal(SIGTERM);
  EXPECT_EQ(ecu.wait(), 0);
  const std::string log = text_in("watchdog");
  EXPECT_EQ(log.find("timeout 2\nkick\n"), 0U) << log;
  EXPECT_EQ(log.substr(log.size() - 12), "kick\ndisarm\n");
}

TEST_F(RtcrWatchdogTest, StaysArmedWhenTheGuardIsKilled) {
  Process ecu(watched(), preloaded());
  EXPECT_TRUE(event(ecu, "lease").at("lives"));
  const pid_t program = restore(wire::OnIsolation::kStop);
  EXPECT_TRUE(is_kicked());
  const pid_t broker = broker_of(ecu);
  ecu.signal(SIGKILL);
  EXPECT_EQ(ecu.wait(), 128 + SIGKILL);
  EXPECT_TRUE(wait_until([&] { return state_of(broker) == 0 && state_of(program) == 0; }));
  EXPECT_FALSE(is_disarmed()) << text_in("watchdog");
}

TEST_F(RtcrWatchdogTest, StaysArmedWhenTheGuardHasToEndTheProgramsItself) {
  Process ecu(watched(), preloaded());
  EXPECT_TRUE(event(ecu, "lease").at("lives"));
  const pid_t program = restore(wire::OnIsolation::kStop);
  ASSERT_EQ(::kill(broker_of(ecu), SIGSTOP), 0);
  EXPECT_EQ(ecu.wait(), 1);
  EXPECT_EQ(state_of(program), 0);
  EXPECT_FALSE(is_disarmed()) << text_in("watchdog");
  EXPECT_NE(text_in("stderr").find("the watchdog will reset this host"), std::string::npos);
}

TEST_F(RtcrWatchdogTest, WhatIsNoneEndsItWithOneAndTheReason) {
  std::ofstream(folder_ / "file") << "mine";
  for (const auto& [path, reason] :
       std::map<std::string, std::string>{{folder_ / "missing", "missing"},
                                          {folder_ / "file", "not a character device"},
                                          {"/dev/null", "it is no watchdog"}}) {
    Process ecu(command({"--watchdog", path}), quiet());
    EXPECT_EQ(ecu.wait(), 1);
    const std::string said = text_in("stderr");
    EXPECT_NE(said.find("rtcr: ecu: --watchdog: "), std::string::npos) << said;
    EXPECT_NE(said.find(reason), std::string::npos) << said;
  }
  EXPECT_EQ(text_in("file"), "mine");
  EXPECT_EQ(cms_.state().hello_count, 0) << "an enforcer that is none was never said";
}

TEST_F(RtcrGuardTest, PassesOnWhatTheBrokerEndsWith) {
  Process ecu(command({"--program", "1=" + (folder_ / "missing").string(), "--enforcer", "guard"}), quiet());
  EXPECT_EQ(ecu.wait(), 1);
  EXPECT_EQ(text_in("stderr").find("guard kills"), std::string::npos);
  EXPECT_NE(text_in("stderr").find("missing"), std::string::npos);
}

TEST_F(RtcrGuardTest, WhatStopsAndWhatIsRestoredIsSaidWithTheProgramsOfTheCommandLine) {
  std::ofstream(folder_ / "state") << "state";
  Process ecu(command({"--program", "1=" + (folder_ / "state").string(), "--on-isolation", "stop",
                       "--on-loss", "restore", "--enforcer", "none"}));
  // It may have been given to another ECU since it ran here. (The two are told by different threads.)
  std::map<std::string, json> first;
  while (first.count("stopped") == 0 || first.count("lease") == 0) {
    const std::string line = ecu.read_line();
    ASSERT_NE(line, "");
    const json found = json::parse(line);
    first.emplace(found.at("event"), found);
  }
  EXPECT_EQ(first.at("stopped").at("program_id"), 1);
  EXPECT_TRUE(first.at("lease").at("lives"));
  const Lineage lineage = lineage_of(ProgramKey{EcuMac{0x020000000001}, 1});
  cms_.command(wire::Thaw{wire::ClaimRef{lineage, 1, 1}, 1, wire::OnIsolation::kStop});
  EXPECT_EQ(event(ecu, "resumed").at("program_id"), 1);
  EXPECT_TRUE(cms_.wait_until([](const FakeState& state) { return state.heard.count(1) != 0; }));
  const wire::Policies policies = cms_.state().heard.at(1).policies;
  EXPECT_EQ(policies.on_isolation, wire::OnIsolation::kStop);
  EXPECT_EQ(policies.on_loss, wire::OnLoss::kRestore);
  EXPECT_EQ(cms_.state().hello.enforcer, wire::Enforcer::kNone);
  EXPECT_EQ(broker_of(ecu), 0) << "one process";
  cms_.end_session();
  EXPECT_EQ(event(ecu, "stopped").at("program_id"), 1);
  ecu.signal(SIGTERM);
  EXPECT_EQ(ecu.wait(), 0);
}

}  // namespace
}  // namespace cms::cli
