// The command itself, as a process, against a CMS on real sockets.
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

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

class RtcrTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "rtcr_test_XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path file_with(const std::string& name, const std::string& bytes) const {
    std::ofstream(folder_ / name, std::ios::binary) << bytes;
    return folder_ / name;
  }
  static std::string content_of(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream content;
    content << file.rdbuf();
    return content.str();
  }
  Process::Options quiet() const {
    Process::Options options;
    options.stderr_path = folder_ / "stderr";
    return options;
  }
  std::string errors() const { return content_of(folder_ / "stderr"); }
  static std::vector<std::string> command(const std::string& cms, std::vector<std::string> words) {
    words.insert(words.begin(), RTCR_PROGRAM);
    words.insert(words.end(), {"--cms", cms, "--ecu-mac", "02:00:00:00:00:01", "--program", "7"});
    return words;
  }

  fs::path folder_{};
};

TEST_F(RtcrTest, PublishesAFilePrintsEachReceiptAndSaysBye) {
  FakeCms cms;
  const fs::path file = file_with("core", std::string(3 * 1024 * 1024, 'c') + "end");
  Process rtcr(command(cms.endpoint(), {"publish", file, "--name", "wiper", "--output", "json"}));
  EXPECT_EQ(rtcr.wait(), 0);
  std::vector<std::string> levels;
  std::istringstream lines(rtcr.output());
  for (std::string line; std::getline(lines, line);) {
    const json receipt = json::parse(line);
    levels.push_back(receipt.at("level"));
    EXPECT_EQ(receipt.at("event"), "receipt");
    EXPECT_EQ(receipt.at("ecu_mac"), "02:00:00:00:00:01");
    EXPECT_EQ(receipt.at("program_id"), 7);
    EXPECT_EQ(receipt.at("incarnation"), 65536);
    EXPECT_EQ(receipt.at("seq"), 1);
  }
  EXPECT_EQ(levels, (std::vector<std::string>{"ANNOUNCED", "PULLING", "STORED"}));
  EXPECT_TRUE(cms.wait_until([](const FakeState& state) { return state.bye_count == 1; }));
  const FakeState state = cms.state();
  EXPECT_TRUE(state.pulled.at(1) == content_of(file));
  EXPECT_EQ(state.heard.at(1).program_name, "wiper");
}

TEST_F(RtcrTest, PublishesStandardInput) {
  FakeCms cms;
  Process::Options options;
  options.stdin_path = file_with("input", std::string(200000, 'i'));
  Process rtcr(command(cms.endpoint(), {"publish", "-", "--release", "stored"}), options);
  EXPECT_EQ(rtcr.wait(), 0);
  EXPECT_TRUE(cms.state().pulled.at(1) == std::string(200000, 'i'));
  EXPECT_NE(rtcr.output().find("STORED  02:00:00:00:00:01/7@65536.1"), std::string::npos);
}

TEST_F(RtcrTest, RefusesStandardInputBeyondTheBudget) {
  Process::Options options = quiet();
  options.stdin_path = file_with("input", std::string(200000, 'i'));
  Process rtcr(command("tcp://127.0.0.1:9", {"publish", "-", "--memory-budget", "100KiB"}), options);
  EXPECT_EQ(rtcr.wait(), 1);
  EXPECT_NE(errors().find("--memory-budget"), std::string::npos);
}

TEST_F(RtcrTest, ADroppedCheckpointEndsItWithOneAndTheReason) {
  FakePlan plan;
  plan.pull = false;
  FakeCms cms(plan);
  Process rtcr(command(cms.endpoint(), {"publish", file_with("core", "state")}), quiet());
  ASSERT_TRUE(cms.wait_until([](const FakeState& state) { return state.heard.count(1) != 0; }));
  cms.say(7, 1, wire::ReceiptLevel::kDropped, Code::kQuota, "quota of the fleet");
  EXPECT_EQ(rtcr.wait(), 1);
  EXPECT_NE(rtcr.output().find("DROPPED  02:00:00:00:00:01/7@65536.1"), std::string::npos);
}

TEST_F(RtcrTest, ExitCodesTellUnreachableFromRefusedAndFromNotStored) {
  const fs::path file = file_with("core", "state");
  Process unreachable(command("tcp://127.0.0.1:9", {"publish", file, "--timeout", "50ms"}), quiet());
  EXPECT_EQ(unreachable.wait(), 3);
  EXPECT_NE(errors().find("tcp://127.0.0.1:9"), std::string::npos);
  FakePlan plan;
  plan.refusal = "not of this fleet";
  FakeCms refusing(plan);
  Process refused(command(refusing.endpoint(), {"publish", file, "--timeout", "1s"}), quiet());
  EXPECT_EQ(refused.wait(), 1);
  EXPECT_NE(errors().find("not of this fleet"), std::string::npos);
  plan = FakePlan();
  plan.store = false;
  FakeCms slow(plan);
  Process timed_out(command(slow.endpoint(), {"publish", file, "--timeout", "1s"}), quiet());
  EXPECT_EQ(timed_out.wait(), 1);
  EXPECT_NE(errors().find("--timeout"), std::string::npos);
}

TEST_F(RtcrTest, ASignalEndsItWithByeAndOne) {
  FakePlan plan;
  plan.store = false;
  FakeCms cms(plan);
  Process rtcr(command(cms.endpoint(), {"publish", file_with("core", "state"), "--timeout", "1h"}), quiet());
  ASSERT_TRUE(cms.wait_until([](const FakeState& state) { return state.pulled.count(1) != 0; }));
  rtcr.signal(SIGTERM);
  EXPECT_EQ(rtcr.wait(), 1);
  EXPECT_TRUE(cms.wait_until([](const FakeState& state) { return state.bye_count == 1; }));
}

TEST_F(RtcrTest, WaitsForAsFarAsItIsTold) {
  FakePlan plan;
  plan.pull = false;
  FakeCms cms(plan);
  Process announced(command(cms.endpoint(), {"publish", file_with("core", "state"), "--wait", "announced"}));
  EXPECT_EQ(announced.wait(), 0);
  cms.set_plan(FakePlan{});
  Process replicated(
      command(cms.endpoint(), {"publish", file_with("core", "state"), "--wait", "replicated"}));
  EXPECT_EQ(replicated.wait(), 0);
  EXPECT_NE(replicated.output().find("REPLICATED"), std::string::npos);
}

TEST_F(RtcrTest, GetsACheckpointBackIntoAFileAndToStandardOutput) {
  FakeCms cms;
  const std::string bytes(50000, 'b');  // What a pipe holds: it is read after the end.
  cms.offer(CheckpointId{ProgramKey{*parse_ecu_mac("02:00:00:00:00:01"), 7}, Version{65536, 4}}, bytes);
  Process to_file(command(cms.endpoint(), {"get", "-o", folder_ / "restored", "--output", "json"}));
  EXPECT_EQ(to_file.wait(), 0);
  EXPECT_TRUE(content_of(folder_ / "restored") == bytes);
  const json told = json::parse(to_file.output());
  EXPECT_EQ(told.at("event"), "fetched");
  EXPECT_EQ(told.at("seq"), 4);
  EXPECT_EQ(told.at("size_bytes"), 50000);
  Process to_stdout(command(cms.endpoint(), {"get", "-o", "-"}));
  EXPECT_EQ(to_stdout.wait(), 0);
  EXPECT_TRUE(to_stdout.output() == bytes);
}

TEST_F(RtcrTest, GetLeavesNothingBehindWhenThereIsNoneOrItIsDamaged) {
  FakePlan plan;
  plan.damage_count = 1000000;
  FakeCms cms(plan);
  Process none(command(cms.endpoint(), {"get", "-o", folder_ / "restored"}), quiet());
  EXPECT_EQ(none.wait(), 1);
  cms.offer(CheckpointId{ProgramKey{*parse_ecu_mac("02:00:00:00:00:01"), 7}, Version{65536, 4}},
            std::string(1000, 'x'));
  Process damaged(command(cms.endpoint(), {"get", "-o", folder_ / "restored"}), quiet());
  EXPECT_EQ(damaged.wait(), 1);
  EXPECT_NE(errors().find("digest"), std::string::npos);
  Process unreachable(command("tcp://127.0.0.1:9", {"get", "-o", folder_ / "restored", "--timeout", "50ms"}),
                      quiet());
  EXPECT_EQ(unreachable.wait(), 3);
  for (const auto& entry : fs::directory_iterator(folder_)) EXPECT_EQ(entry.path().filename(), "stderr");
}

TEST_F(RtcrTest, WithdrawsAProgram) {
  FakeCms cms;
  Process rtcr(command(cms.endpoint(), {"withdraw", "--output", "json"}));
  EXPECT_EQ(rtcr.wait(), 0);
  EXPECT_EQ(json::parse(rtcr.output()).at("event"), "withdrawn");
  EXPECT_EQ(cms.state().withdrawn, (std::vector<ProgramId>{7}));
  FakePlan plan;
  plan.withdraw_code = Code::kReadOnly;
  FakeCms refusing(plan);
  Process refused(command(refusing.endpoint(), {"withdraw"}), quiet());
  EXPECT_EQ(refused.wait(), 1);
  Process unreachable(command("tcp://127.0.0.1:9", {"withdraw", "--timeout", "50ms"}), quiet());
  EXPECT_EQ(unreachable.wait(), 3);
}

TEST_F(RtcrTest, RequestsAMigrationAndSaysWhyThereIsNone) {
  FakeCms cms;
  Process rtcr(
      command(cms.endpoint(), {"request-migration", "--to", "02:00:00:00:00:09", "--output", "json"}));
  EXPECT_EQ(rtcr.wait(), 0);
  const json told = json::parse(rtcr.output());
  EXPECT_EQ(told.at("event"), "migration_begun");
  EXPECT_EQ(told.at("program_id"), 7);
  EXPECT_EQ(told.at("to_ecu_mac"), "02:00:00:00:00:09");
  ASSERT_EQ(cms.state().migrations.size(), 1U);
  EXPECT_EQ(cms.state().migrations[0].program_id, 7U);
  EXPECT_EQ(cms.state().migrations[0].to_ecu_mac, EcuMac{0x020000000009});
  FakePlan plan;
  plan.migrate_code = Code::kNotFound;
  cms.set_plan(plan);
  Process refused(command(cms.endpoint(), {"request-migration"}), quiet());
  EXPECT_EQ(refused.wait(), 1);
  EXPECT_NE(errors().find("as planned"), std::string::npos);
  plan.migrate_code.reset();
  cms.set_plan(plan);
  Process unanswered(command(cms.endpoint(), {"request-migration", "--timeout", "500ms"}), quiet());
  EXPECT_EQ(unanswered.wait(), 1);
  EXPECT_NE(errors().find("not answered"), std::string::npos);
  Process unreachable(command("tcp://127.0.0.1:9", {"request-migration", "--timeout", "50ms"}), quiet());
  EXPECT_EQ(unreachable.wait(), 3);
}

TEST_F(RtcrTest, ASignalEndsARequestThatNobodyAnswers) {
  FakePlan plan;
  plan.migrate_code.reset();
  FakeCms cms(plan);
  Process rtcr(command(cms.endpoint(), {"request-migration", "--timeout", "1h"}), quiet());
  EXPECT_TRUE(cms.wait_until([](const FakeState& state) { return !state.migrations.empty(); }));
  rtcr.signal(SIGINT);
  EXPECT_EQ(rtcr.wait(), 1);
  EXPECT_NE(errors().find("signal"), std::string::npos);
}

}  // namespace
}  // namespace cms::cli
