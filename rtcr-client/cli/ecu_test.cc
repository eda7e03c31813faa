// `rtcr ecu` as a process, against a CMS on real sockets.
#include <gtest/gtest.h>

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
using wire::RestoreState;

std::string content_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  content << file.rdbuf();
  return content.str();
}

class RtcrEcuTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "rtcr_ecu_test_XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
    fs::create_directory(folder_ / "restored");
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path file_with(const std::string& name, const std::string& bytes) const {
    std::ofstream(folder_ / name, std::ios::binary) << bytes;
    return folder_ / name;
  }
  std::string restored() const { return folder_ / "restored"; }
  std::string file_of(const std::string& name) const { return folder_ / "restored" / name; }
  Process::Options quiet() const {
    Process::Options options;
    options.stderr_path = folder_ / "stderr";
    return options;
  }
  std::vector<std::string> command(std::vector<std::string> words, const std::string& more_cms = "") const {
    words.insert(words.begin(), {RTCR_PROGRAM, "ecu", "--cms", cms_.endpoint() + more_cms, "--ecu-mac",
                                 "02:00:00:00:00:01", "--bulk-host", "127.0.0.1"});
    return words;
  }
  // The next event of this name; what comes before it is skipped.
  static json event(Process& ecu, const std::string& name) {
    for (std::string line = ecu.read_line(); !line.empty(); line = ecu.read_line()) {
      const json found = json::parse(line);
      if (found.at("event") == name) return found;
    }
    ADD_FAILURE() << "no event " << name;
    return json::object();
  }
  // Of a program of the ECU 02:…:09 that the CMS has.
  wire::Prepare prepare_of(ProgramId program_id, const std::string& bytes, std::uint64_t slot = 2) {
    const SessionId session{EcuMac{0x020000000009}, 65536};
    cms_.offer(CheckpointId{ProgramKey{session.ecu_mac, program_id}, Version{session.incarnation, 3}}, bytes);
    wire::Prepare prepare;
    prepare.claim = wire::ClaimRef{Lineage{1, program_id + 1}, slot, program_id * 1000 + slot};
    prepare.session = session;
    prepare.notification.program_id = program_id;
    prepare.notification.seq = 3;
    prepare.notification.size_bytes = bytes.size();
    prepare.notification.chunk_size_bytes = wire::kChunkSizeBytesMin;
    prepare.notification.program_name = "wiper";
    prepare.bulk_port = cms_.bulk_port();
    return prepare;
  }
  wire::RestoreReport report_of(const wire::ClaimRef& claim, RestoreState state) const {
    wire::RestoreReport found;
    EXPECT_TRUE(cms_.wait_until([&](const FakeState& seen) {
      for (const wire::RestoreReport& report : seen.reports) {
        if (report.claim.uid == claim.uid && report.state == state) found = report;
      }
      return found.state == state;
    })) << to_string(state);
    return found;
  }
  static wire::Go go_of(const wire::Prepare& prepare) {
    return wire::Go{prepare.claim, prepare.claim.slot + 1, prepare.claim.uid + 1};
  }
  // Of program `program_id`, in this state for this slot; waits for it.
  wire::FreezeReport freeze_report(ProgramId program_id, wire::FreezeState state, std::uint64_t slot) const {
    wire::FreezeReport found;
    EXPECT_TRUE(cms_.wait_until([&](const FakeState& seen) {
      for (const wire::FreezeReport& report : seen.freeze_reports) {
        if (report.program_id == program_id && report.state == state && report.claim.slot == slot)
          found = report;
      }
      return found.state == state;
    })) << to_string(state);
    return found;
  }
  static wire::ClaimRef claim_of(ProgramId program_id, std::uint64_t slot) {
    return wire::ClaimRef{lineage_of(ProgramKey{EcuMac{0x020000000001}, program_id}), slot, slot * 10};
  }
  // What the CMS has pulled as `seq`; waits for it.
  std::string pulled(Seq seq) const {
    EXPECT_TRUE(cms_.wait_until([&](const FakeState& state) { return state.pulled.count(seq) != 0; }));
    const FakeState state = cms_.state();
    return state.pulled.count(seq) != 0 ? state.pulled.at(seq) : "";
  }
  ProgramId restore(const wire::Prepare& prepare) {
    cms_.command(prepare);
    report_of(prepare.claim, RestoreState::kPrepared);
    cms_.command(go_of(prepare));
    return report_of(prepare.claim, RestoreState::kRunning).program_id;
  }
  // Names in the directory, hidden ones too.
  std::vector<std::string> names() const {
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(restored())) found.push_back(entry.path().filename());
    std::sort(found.begin(), found.end());
    return found;
  }

  FakeCms cms_{};
  fs::path folder_{};
};

TEST_F(RtcrEcuTest, PublishesEveryFileStaysAndSaysByeOnSigterm) {
  std::vector<std::string> words;
  for (int i = 0; i < 1000; ++i) {
    words.push_back("--program");
    words.push_back(std::to_string(i) + "=" +
                    file_with(std::to_string(i), "state " + std::to_string(i)).string());
  }
  Process ecu(command(words));
  EXPECT_EQ(event(ecu, "ready").at("program_count"), 1000);
  EXPECT_TRUE(cms_.wait_until([](const FakeState& state) { return state.pulled.size() == 1000; }));
  EXPECT_EQ(cms_.state().pulled.at(1000), "state 999");
  EXPECT_EQ(cms_.state().features, wire::kEcuFeatureFreezes) << "it is no target";
  EXPECT_TRUE(ecu.running());
  ecu.signal(SIGTERM);
  EXPECT_EQ(ecu.wait(), 0);
  EXPECT_TRUE(cms_.wait_until([](const FakeState& state) { return state.bye_count == 1; }));
}

TEST_F(RtcrEcuTest, ABlobAppearsAtGoUnderItsNameAndIsPublishedAsTheNewOwners) {
  Process ecu(command({"--program", "0=" + file_with("own", "own state").string(), "--restore-dir",
                       restored(), "--label", "can-bus", "--format", "criu=4", "--arch", "arm64"}));
  event(ecu, "cms_live");
  cms_.command(wire::MetricsAsk{5});
  ASSERT_TRUE(cms_.wait_until([](const FakeState& state) { return !state.metrics.empty(); }));
  EXPECT_EQ(cms_.state().metrics[0].arch, "arm64");
  EXPECT_EQ(cms_.state().metrics[0].labels, std::vector<std::string>{"can-bus"});
  EXPECT_EQ(cms_.state().metrics[0].formats.at(0).version_max, 4U);

  const std::string bytes(300000, 'b');
  const wire::Prepare prepare = prepare_of(7, bytes);
  cms_.command(prepare);
  report_of(prepare.claim, RestoreState::kPrepared);
  ASSERT_EQ(names().size(), 1U);
  EXPECT_EQ(names()[0][0], '.') << "it must not be seen before Go";
  EXPECT_EQ(event(ecu, "prepare").at("from_ecu_mac"), "02:00:00:00:00:09");
  event(ecu, "prepared");

  cms_.command(go_of(prepare));
  EXPECT_EQ(report_of(prepare.claim, RestoreState::kRunning).program_id, 1U) << "0 has a program already";
  EXPECT_EQ(names(), std::vector<std::string>{"1-02:00:00:00:00:09-7"});
  EXPECT_TRUE(content_of(file_of("1-02:00:00:00:00:09-7")) == bytes);
  const json running = event(ecu, "running");
  EXPECT_EQ(running.at("program_id"), 1);
  EXPECT_EQ(running.at("from_program_id"), 7);
  EXPECT_EQ(running.at("owner_epoch"), 4);
  EXPECT_EQ(running.at("file"), file_of("1-02:00:00:00:00:09-7"));
  ASSERT_TRUE(cms_.wait_until([](const FakeState& state) { return state.pulled.count(2) != 0; }));
  const wire::Notification first = cms_.state().heard.at(2);
  EXPECT_EQ(first.program_id, 1U);
  EXPECT_EQ(first.lineage, prepare.claim.lineage);
  EXPECT_EQ(first.owner_epoch, 4U);
  EXPECT_EQ(first.program_name, "wiper");
  EXPECT_TRUE(cms_.state().pulled.at(2) == bytes);
  EXPECT_EQ(restore(prepare_of(8, "another")), 2U);
}

TEST_F(RtcrEcuTest, DiscardAndSigtermLeaveNothingOfWhatWasPrepared) {
  Process ecu(command({"--restore-dir", restored()}));
  event(ecu, "cms_live");
  const wire::Prepare discarded = prepare_of(7, "state");
  cms_.command(discarded);
  report_of(discarded.claim, RestoreState::kPrepared);
  cms_.command(wire::Discard{discarded.claim});
  report_of(discarded.claim, RestoreState::kDiscarded);
  EXPECT_EQ(event(ecu, "discarded").at("from_program_id"), 7);

  const wire::Prepare prepared = prepare_of(8, "state");
  cms_.command(prepared);
  report_of(prepared.claim, RestoreState::kPrepared);
  ecu.signal(SIGTERM);
  EXPECT_EQ(ecu.wait(), 0);
  EXPECT_NE(ecu.output().find("\"event\":\"discarded\""), std::string::npos);
  EXPECT_EQ(report_of(prepared.claim, RestoreState::kRefused).code, Code::kCancelled);
  EXPECT_TRUE(cms_.wait_until([](const FakeState& state) { return state.bye_count == 1; }));
  EXPECT_TRUE(names().empty());
}

TEST_F(RtcrEcuTest, AFencedProgramIsOursNoMoreAndItsProgramIdIsFree) {
  Process ecu(
      command({"--program", "1=" + file_with("own", "own state").string(), "--restore-dir", restored()}));
  event(ecu, "cms_live");
  EXPECT_EQ(restore(prepare_of(7, "seven")), 0U);
  EXPECT_EQ(restore(prepare_of(8, "eight")), 2U);
  ASSERT_TRUE(cms_.wait_until([](const FakeState& state) { return state.pulled.size() == 3; }));
  cms_.say(0, 2, wire::ReceiptLevel::kFenced, Code::kFenced, "it has moved");
  const json fenced = event(ecu, "fenced");
  EXPECT_EQ(fenced.at("program_id"), 0);
  EXPECT_EQ(fenced.at("reason"), "it has moved");
  EXPECT_EQ(restore(prepare_of(9, "nine")), 0U);
  // Once more of the one that is gone, from another CMS: it must not end the one that runs now.
  cms_.say(0, 2, wire::ReceiptLevel::kFenced, Code::kFenced, "again");
  EXPECT_EQ(restore(prepare_of(10, "ten")), 3U);
  // The command line's keep theirs.
  cms_.say(1, 1, wire::ReceiptLevel::kFenced, Code::kFenced, "moved too");
  EXPECT_EQ(event(ecu, "fenced").at("program_id"), 1);
  EXPECT_EQ(restore(prepare_of(11, "eleven")), 4U);
}

TEST_F(RtcrEcuTest, ACommandRestoresWithTheBlobOnItsStandardInput) {
  const fs::path script = file_with("restore.sh",
                                    "set -e\n"
                                    "case $1 in\n"
                                    "prepare) cat > $RESTORE_ID; test \"$RESTORE_PROGRAM_ID\" != 8;;\n"
                                    "go) echo $RESTORE_ECU_MAC $RESTORE_PROGRAM_NAME $RESTORE_OWNER_EPOCH"
                                    " > ran-$RESTORE_NEW_PROGRAM_ID;;\n"
                                    "discard) rm $RESTORE_ID; echo on standard output;;\n"
                                    "esac\n");
  Process ecu(command({"--restore-command", "cd " + folder_.string() + "; sh " + script.string()}), quiet());
  event(ecu, "cms_live");
  const std::string bytes(200000, 'c');
  EXPECT_EQ(restore(prepare_of(7, bytes)), 0U);
  EXPECT_TRUE(content_of(folder_ / "1") == bytes);
  EXPECT_EQ(content_of(folder_ / "ran-0"), "02:00:00:00:00:09 wiper 4\n");
  ASSERT_TRUE(cms_.wait_until([](const FakeState& state) { return state.pulled.count(1) != 0; }));
  EXPECT_TRUE(cms_.state().pulled.at(1) == bytes);

  const wire::Prepare refused = prepare_of(8, "state");
  cms_.command(refused);
  EXPECT_NE(report_of(refused.claim, RestoreState::kRefused).context.find("exit code 1"), std::string::npos);
  event(ecu, "refused");
  const wire::Prepare discarded = prepare_of(9, "state");
  cms_.command(discarded);
  report_of(discarded.claim, RestoreState::kPrepared);
  EXPECT_TRUE(fs::exists(folder_ / "3"));
  ecu.signal(SIGINT);
  EXPECT_EQ(ecu.wait(), 0);
  EXPECT_FALSE(fs::exists(folder_ / "3"));
  EXPECT_EQ(ecu.output().find("on standard output"), std::string::npos);
}

TEST_F(RtcrEcuTest, FreezesAProgramWithItsFileAsItIsThenAndThawsIt) {
  const fs::path file = file_with("own", "first state");
  Process ecu(command({"--program", "1=" + file.string(), "--program", "2=" + file_with("b", "b").string()}));
  event(ecu, "ready");
  EXPECT_EQ(pulled(1), "first state");
  file_with("own", "last state");
  cms_.command(wire::Freeze{claim_of(1, 2), 1});
  EXPECT_EQ(freeze_report(1, wire::FreezeState::kFrozen, 2).last.seq, 3U);
  EXPECT_EQ(pulled(3), "last state");
  const json published = event(ecu, "published");
  EXPECT_EQ(published.at("seq"), 3);
  EXPECT_EQ(published.at("file"), file.string());
  const json frozen = event(ecu, "frozen");
  EXPECT_EQ(frozen.at("ecu_mac"), "02:00:00:00:00:01");
  EXPECT_EQ(frozen.at("program_id"), 1);
  EXPECT_EQ(frozen.at("seq"), 3);
  EXPECT_EQ(frozen.at("claim_slot"), 2);
  cms_.command(wire::Thaw{claim_of(1, 3), 1});
  const json thawed = event(ecu, "thawed");
  EXPECT_EQ(thawed.at("program_id"), 1);
  EXPECT_EQ(thawed.at("claim_slot"), 3);
  // What cannot be read refuses.
  fs::remove(folder_ / "b");
  cms_.command(wire::Freeze{claim_of(2, 2), 2});
  EXPECT_EQ(freeze_report(2, wire::FreezeState::kRefused, 2).code, Code::kNotFound);
  const json refused = event(ecu, "freeze_refused");
  EXPECT_EQ(refused.at("program_id"), 2);
  EXPECT_EQ(refused.at("claim_slot"), 2);
  EXPECT_NE(refused.at("reason").get<std::string>().find("open"), std::string::npos);
}

TEST_F(RtcrEcuTest, NothingOfAProgramThatHasMovedIsPublishedAnyMore) {
  Process ecu(command({"--program", "1=" + file_with("own", "state").string()}));
  event(ecu, "ready");
  pulled(1);
  cms_.command(wire::Freeze{claim_of(1, 2), 1});
  freeze_report(1, wire::FreezeState::kFrozen, 2);
  pulled(2);
  cms_.say(1, 2, wire::ReceiptLevel::kFenced, Code::kFenced, "it has moved");
  event(ecu, "fenced");
  cms_.command(wire::Freeze{claim_of(1, 5), 1});
  EXPECT_EQ(freeze_report(1, wire::FreezeState::kRefused, 5).code, Code::kNotFound);
  ecu.signal(SIGTERM);
  EXPECT_EQ(ecu.wait(), 0);
  EXPECT_EQ(cms_.state().heard.size(), 2U);
  EXPECT_EQ(ecu.output().find("thawed"), std::string::npos);
}

TEST_F(RtcrEcuTest, ARestoredProgramIsFrozenAsItsNewOwners) {
  Process ecu(command({"--restore-dir", restored()}));
  event(ecu, "cms_live");
  const wire::Prepare prepare = prepare_of(7, "state");
  EXPECT_EQ(restore(prepare), 0U);
  pulled(1);
  std::ofstream(file_of("0-02:00:00:00:00:09-7"), std::ios::binary) << "later state";
  wire::ClaimRef claim = prepare.claim;
  claim.slot = 6;
  cms_.command(wire::Freeze{claim, 0});
  EXPECT_EQ(freeze_report(0, wire::FreezeState::kFrozen, 6).last.seq, 2U);
  EXPECT_EQ(pulled(2), "later state");
  const wire::Notification last = cms_.state().heard.at(2);
  EXPECT_EQ(last.lineage, prepare.claim.lineage);
  EXPECT_EQ(last.owner_epoch, 4U);
  EXPECT_EQ(last.program_name, "wiper");
}

TEST_F(RtcrEcuTest, ACommandFreezesWithWhatItPrintsAndThaws) {
  const fs::path script =
      file_with("restore.sh",
                "case $1 in\n"
                "prepare) cat > $RESTORE_ID;;\n"
                "freeze) test $RESTORE_PROGRAM_ID = 8 || { cat $RESTORE_ID;"
                " echo \" and $RESTORE_NEW_PROGRAM_ID of epoch $RESTORE_OWNER_EPOCH\"; };;\n"
                "thaw) touch thawed-$RESTORE_NEW_PROGRAM_ID;;\n"
                "esac\n");
  Process ecu(command({"--restore-command", "cd " + folder_.string() + "; sh " + script.string()}), quiet());
  event(ecu, "cms_live");
  const wire::Prepare prepare = prepare_of(7, "state");
  EXPECT_EQ(restore(prepare), 0U);
  pulled(1);
  wire::ClaimRef claim = prepare.claim;
  claim.slot = 6;
  cms_.command(wire::Freeze{claim, 0});
  EXPECT_EQ(freeze_report(0, wire::FreezeState::kFrozen, 6).last.seq, 2U);
  EXPECT_EQ(pulled(2), "state and 0 of epoch 4\n");
  claim.slot = 7;
  cms_.command(wire::Thaw{claim, 0});
  EXPECT_EQ(event(ecu, "thawed").at("claim_slot"), 7);
  EXPECT_TRUE(fs::exists(folder_ / "thawed-0"));
  // One that does not know the word prints nothing, and must not become an empty program.
  const wire::Prepare silent = prepare_of(8, "state");
  EXPECT_EQ(restore(silent), 1U);
  pulled(3);
  claim = silent.claim;
  claim.slot = 6;
  cms_.command(wire::Freeze{claim, 1});
  EXPECT_EQ(freeze_report(1, wire::FreezeState::kRefused, 6).code, Code::kUnsupported);
  EXPECT_NE(event(ecu, "freeze_refused").at("reason").get<std::string>().find("nothing"), std::string::npos);
  EXPECT_TRUE(fs::exists(folder_ / "thawed-1"));  // Whatever it has done: it runs on.
}

TEST_F(RtcrEcuTest, IsReadyWhenEveryCmsKnowsItAndDoesNotWaitForADeadOneForEver) {
  FakeCms other;
  Process ecu(command({}, "," + other.endpoint()));
  event(ecu, "ready");
  EXPECT_GE(cms_.state().hello_count, 1);
  EXPECT_GE(other.state().hello_count, 1);
  FakePlan silent;
  silent.silent = true;
  FakeCms dead(silent);
  Process patient(command({}, "," + dead.endpoint()));
  event(patient, "cms_live");
  event(patient, "ready");
}

TEST_F(RtcrEcuTest, WhatItCannotBeginWithEndsItWithOneAndTheReason) {
  Process no_file(command({"--program", "1=" + (folder_ / "none").string()}), quiet());
  EXPECT_EQ(no_file.wait(), 1);
  EXPECT_NE(content_of(folder_ / "stderr").find("none"), std::string::npos);
  Process no_folder(command({"--restore-dir", (folder_ / "none").string()}), quiet());
  EXPECT_EQ(no_folder.wait(), 1);
  EXPECT_NE(content_of(folder_ / "stderr").find("--restore-dir"), std::string::npos);
}

}  // namespace
}  // namespace cms::cli
