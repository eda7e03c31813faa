// The C ABI of a target against a CMS on real sockets: the blob is pulled, the callbacks run, what they
// say is told, and what runs is published as what it is.
#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <condition_variable>
#include <cstring>
#include <filesystem>
#include <mutex>

#include "broker/shell/proc_metrics.h"
#include "rtcr-client/src/client_fixture_test.h"
#include "rtcr/rtcr.hpp"

namespace cms::client {
namespace {

using test::FakeCms;
using test::FakePlan;
using test::FakeState;
using wire::RestoreState;

const CheckpointId kCheckpoint{ProgramKey{EcuMac{0x020000000009}, 7}, Version{65536, 3}};

wire::Prepare prepare_of(const FakeCms& cms, std::uint64_t size_bytes, std::uint64_t slot = 2) {
  wire::Prepare prepare;
  prepare.claim = wire::ClaimRef{Lineage{0x1122, 0x3344}, slot, slot * 1000};
  prepare.session = SessionId{kCheckpoint.program.ecu_mac, kCheckpoint.version.incarnation};
  prepare.notification.program_id = kCheckpoint.program.program_id;
  prepare.notification.seq = kCheckpoint.version.seq;
  prepare.notification.size_bytes = size_bytes;
  prepare.notification.chunk_size_bytes = wire::kChunkSizeBytesMin;
  prepare.notification.program_name = "wiper";
  prepare.notification.requirements.labels = {"can-bus"};
  prepare.notification.real_time.deadline_us = 500;
  prepare.bulk_port = cms.bulk_port();
  return prepare;
}
wire::Go go_of(const wire::Prepare& prepare) {
  return wire::Go{prepare.claim, prepare.claim.slot + 1, prepare.claim.uid + 1};
}

// An RTCR that notes what it was called for. Callbacks wait until the test lets them go on.
class TestRtcr {
 public:
  explicit TestRtcr(const std::string& cms, const std::function<void(rtcr_restore_handler&)>& change = {}) {
    rtcr_restore_handler handler = rtcr_restore_handler_init();
    handler.prepare = on_prepare;
    handler.go = on_go;
    handler.discard = on_discard;
    handler.context = this;
    if (change) change(handler);
    client_ = std::make_unique<TestClient>(cms, [&](rtcr_options& options) { options.restore = &handler; });
  }
  rtcr_client* get() const { return client_->get(); }
  TestClient& client() { return *client_; }

  void let(const char* call) {
    const std::lock_guard<std::mutex> lock(mutex_);
    allowed_.insert(call);
    changed_.notify_all();
  }
  std::vector<std::string> calls() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return calls_;
  }
  void wait_for_call(const std::string& call) const {
    std::unique_lock<std::mutex> lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::milliseconds(kPatienceMs), [&] {
      return std::find(calls_.begin(), calls_.end(), call) != calls_.end();
    })) << call;
  }
  std::string blob() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return blob_;
  }

  int prepare_answer = RTCR_OK;
  std::string path{};
  std::uint64_t owner_epoch = 0;
  std::string facts{};

 private:
  void enter(const char* call) {
    std::unique_lock<std::mutex> lock(mutex_);
    calls_.push_back(call);
    changed_.notify_all();
    changed_.wait(lock, [&] { return allowed_.count(call) != 0; });
  }
  static int on_prepare(void* context, rtcr_restore* restore, char* reason) {
    auto& self = *static_cast<TestRtcr*>(context);
    self.enter("prepare");
    std::string bytes(restore->size_bytes, '\0');
    EXPECT_EQ(::pread(restore->fd, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
    if (restore->path != nullptr) self.path = restore->path;
    const rtcr_checkpoint& checkpoint = *restore->checkpoint;
    self.facts = std::string(restore->ecu_mac) + "/" + std::to_string(restore->program_id) + " " +
                 checkpoint.program_name + " " + checkpoint.labels[0] + " " +
                 std::to_string(checkpoint.deadline_us) + " " + std::to_string(checkpoint.owner_epoch);
    restore->user = context;
    EXPECT_EQ(rtcr_wait(self.get(), 1, RTCR_STORED, 0), RTCR_E_CALLBACK);
    const std::lock_guard<std::mutex> lock(self.mutex_);
    self.blob_ = bytes;
    std::strcpy(reason, "no such format");
    return self.prepare_answer;
  }
  static int on_go(void* context, rtcr_restore* restore, std::uint64_t* program_id, char*) {
    auto& self = *static_cast<TestRtcr*>(context);
    EXPECT_EQ(restore->user, context);
    self.owner_epoch = restore->checkpoint->owner_epoch;
    self.enter("go");
    *program_id = 40;
    return RTCR_OK;
  }
  static void on_discard(void* context, rtcr_restore* restore) {
    EXPECT_EQ(restore->user, context);
    static_cast<TestRtcr*>(context)->enter("discard");
  }

  mutable std::mutex mutex_{};
  mutable std::condition_variable changed_{};
  std::set<std::string> allowed_{};
  std::vector<std::string> calls_{};
  std::string blob_{};
  std::unique_ptr<TestClient> client_{};  // Last: its threads use what is above.
};

// The last report in this state; waits for it.
wire::RestoreReport report_of(const FakeCms& cms, RestoreState state) {
  wire::RestoreReport found;
  EXPECT_TRUE(cms.wait_until([&](const FakeState& seen) {
    for (const wire::RestoreReport& report : seen.reports) {
      if (report.state == state) found = report;
    }
    return found.state == state;
  })) << to_string(state);
  return found;
}
void wait_for_session(const FakeCms& cms) {
  ASSERT_TRUE(cms.wait_until([](const FakeState& state) { return state.hello_count > 0; }));
}

TEST(RestoreTest, PreparesThenGoesAndPublishesAsTheNewOwner) {
  FakeCms cms;
  const std::string bytes = blob_of(1024 * 1024 + 17);
  cms.offer(kCheckpoint, bytes);
  TestRtcr rtcr(cms.endpoint());
  wait_for_session(cms);
  EXPECT_EQ(cms.state().features, wire::kEcuFeatureMetrics | wire::kEcuFeatureRestores);
  const wire::Prepare prepare = prepare_of(cms, bytes.size());
  cms.command(prepare);
  EXPECT_EQ(report_of(cms, RestoreState::kPulling).claim.uid, prepare.claim.uid);
  rtcr.wait_for_call("prepare");
  rtcr.let("prepare");
  EXPECT_EQ(report_of(cms, RestoreState::kPrepared).received_bytes, bytes.size());
  EXPECT_TRUE(rtcr.blob() == bytes);
  EXPECT_EQ(rtcr.facts, "02:00:00:00:00:09/7 wiper can-bus 500 0");
  EXPECT_EQ(rtcr.calls(), std::vector<std::string>{"prepare"});

  cms.command(go_of(prepare));
  rtcr.wait_for_call("go");
  rtcr.let("go");
  const wire::RestoreReport running = report_of(cms, RestoreState::kRunning);
  EXPECT_EQ(running.program_id, 40U);
  EXPECT_EQ(running.act_uid, go_of(prepare).act_uid);
  EXPECT_EQ(rtcr.owner_epoch, 4U);

  const std::uint64_t seq = rtcr.client().publish_copy(40, "its first own state");
  EXPECT_EQ(rtcr.client().wait(seq, RTCR_STORED), RTCR_OK) << rtcr_last_error();
  EXPECT_EQ(cms.state().heard.at(seq).lineage, prepare.claim.lineage);
  EXPECT_EQ(cms.state().heard.at(seq).owner_epoch, 4U);
  const std::uint64_t other = rtcr.client().publish_copy(41, "of another program");
  EXPECT_EQ(rtcr.client().wait(other, RTCR_STORED), RTCR_OK);
  EXPECT_EQ(cms.state().heard.at(other).lineage, Lineage{});

  // Taken away: it must stay fenced and not begin a life of its own; withdrawn, its id is free.
  cms.say(40, seq, wire::ReceiptLevel::kFenced, Code::kFenced, "moved");
  cms.command(wire::MetricsAsk{1});  // Its answer tells that the receipt was heard.
  ASSERT_TRUE(cms.wait_until([](const FakeState& state) { return !state.metrics.empty(); }));
  const std::uint64_t late = rtcr.client().publish_copy(40, "late");
  EXPECT_EQ(rtcr.client().wait(late, RTCR_STORED), RTCR_OK);
  EXPECT_EQ(cms.state().heard.at(late).owner_epoch, 4U);
  EXPECT_EQ(rtcr_withdraw(rtcr.get(), 40, kPatienceMs), RTCR_OK);
  const std::uint64_t fresh = rtcr.client().publish_copy(40, "fresh");
  EXPECT_EQ(rtcr.client().wait(fresh, RTCR_STORED), RTCR_OK);
  EXPECT_EQ(cms.state().heard.at(fresh).owner_epoch, 0U);
}

TEST(RestoreTest, WhatPrepareRefusesIsRefusedWithItsReason) {
  FakeCms cms;
  cms.offer(kCheckpoint, "state");
  TestRtcr rtcr(cms.endpoint());
  rtcr.prepare_answer = RTCR_E_UNSUPPORTED;
  rtcr.let("prepare");
  wait_for_session(cms);
  cms.command(prepare_of(cms, 5));
  const wire::RestoreReport report = report_of(cms, RestoreState::kRefused);
  EXPECT_EQ(report.code, Code::kUnsupported);
  EXPECT_EQ(report.context, "no such format");
  rtcr.client().close();
  EXPECT_EQ(rtcr.calls(), std::vector<std::string>{"prepare"});
}

TEST(RestoreTest, ADamagedBlobIsRefusedAndNeverShown) {
  FakePlan plan;
  plan.damage_count = 1;
  FakeCms cms(plan);
  cms.offer(kCheckpoint, "state");
  TestRtcr rtcr(cms.endpoint());
  wait_for_session(cms);
  cms.command(prepare_of(cms, 5));
  EXPECT_EQ(report_of(cms, RestoreState::kRefused).code, Code::kCorrupt);
  rtcr.client().close();
  EXPECT_TRUE(rtcr.calls().empty());
}

TEST(RestoreTest, DiscardDropsWhatWasPreparedAndItsFile) {
  std::string folder = testing::TempDir() + "restore_test_XXXXXX";
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  FakeCms cms;
  cms.offer(kCheckpoint, "state");
  {
    TestRtcr rtcr(cms.endpoint(), [&](rtcr_restore_handler& handler) { handler.folder = folder.c_str(); });
    rtcr.let("prepare");
    wait_for_session(cms);
    const wire::Prepare prepare = prepare_of(cms, 5);
    cms.command(prepare);
    report_of(cms, RestoreState::kPrepared);
    EXPECT_EQ(rtcr.path.substr(0, folder.size() + 2), folder + "/.");
    struct stat status {};
    ASSERT_EQ(::stat(rtcr.path.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777U, 0600U);
    cms.command(wire::Discard{prepare.claim});
    report_of(cms, RestoreState::kDiscarded);
    rtcr.wait_for_call("discard");
    rtcr.let("discard");
    cms.command(go_of(prepare));
    EXPECT_EQ(report_of(cms, RestoreState::kRefused).act_uid, go_of(prepare).act_uid);
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder));
  std::filesystem::remove(folder);
}

TEST(RestoreTest, ClosingDiscardsWhatIsPreparedSaysSoAndWaitsForAGo) {
  FakeCms cms;
  cms.offer(kCheckpoint, "state");
  TestRtcr rtcr(cms.endpoint());
  rtcr.let("prepare");
  rtcr.let("discard");
  wait_for_session(cms);
  const wire::Prepare prepare = prepare_of(cms, 5);
  wire::Prepare other = prepare;
  other.claim.lineage.low += 1;
  other.claim.uid += 7;
  cms.command(prepare);
  cms.command(other);
  ASSERT_TRUE(cms.wait_until([](const FakeState& state) {
    return std::count_if(state.reports.begin(), state.reports.end(), [](const wire::RestoreReport& report) {
             return report.state == RestoreState::kPrepared;
           }) == 2;
  }));
  cms.command(go_of(prepare));
  rtcr.wait_for_call("go");
  std::thread closer([&] { rtcr.client().close(); });
  EXPECT_EQ(report_of(cms, RestoreState::kRefused).claim.uid, other.claim.uid);
  EXPECT_EQ(cms.state().bye_count, 0);
  rtcr.let("go");
  EXPECT_EQ(report_of(cms, RestoreState::kRunning).claim.uid, prepare.claim.uid);
  closer.join();
  EXPECT_TRUE(cms.wait_until([](const FakeState& state) { return state.bye_count == 1; }));
}

TEST(RestoreTest, MetricsAreThoseOfTheHostAndWhatTheRtcrOffers) {
  FakeCms cms;
  const rtcr_format format{"criu", 4, 0};
  const char* const label = "can-bus";
  TestRtcr rtcr(cms.endpoint(), [&](rtcr_restore_handler& handler) {
    handler.formats = &format;
    handler.format_count = 1;
    handler.labels = &label;
    handler.label_count = 1;
    handler.on_metrics = [](void*, rtcr_metrics* metrics) {
      EXPECT_GT(metrics->ram_total_bytes, 0U);
      metrics->ram_available_bytes = metrics->ram_total_bytes + 1;  // Nonsense must not end the client.
      metrics->draining = 1;
    };
  });
  wait_for_session(cms);
  cms.command(wire::MetricsAsk{77});
  ASSERT_TRUE(cms.wait_until([](const FakeState& state) { return !state.metrics.empty(); }));
  const wire::Metrics metrics = cms.state().metrics[0];
  EXPECT_EQ(metrics.number, 77U);
  EXPECT_EQ(metrics.cpu_count, static_cast<std::uint32_t>(::sysconf(_SC_NPROCESSORS_ONLN)));
  EXPECT_EQ(metrics.os, "linux");
  EXPECT_FALSE(metrics.arch.empty());
  EXPECT_EQ(metrics.ram_available_bytes, metrics.ram_total_bytes);
  EXPECT_TRUE(metrics.draining);
  ASSERT_EQ(metrics.formats.size(), 1U);
  EXPECT_EQ(metrics.formats[0].name, "criu");
  EXPECT_EQ(metrics.formats[0].version_max, 4U);
  EXPECT_EQ(metrics.labels, std::vector<std::string>{"can-bus"});
}

TEST(RestoreTest, AHandlerThatCannotWorkIsRefusedByName) {
  const auto refusal_of = [](const std::function<void(rtcr_restore_handler&)>& change) {
    rtcr_restore_handler handler = rtcr_restore_handler_init();
    handler.prepare = [](void*, rtcr_restore*, char*) { return 0; };
    handler.go = [](void*, rtcr_restore*, std::uint64_t*, char*) { return 0; };
    change(handler);
    rtcr_options options = rtcr_options_init();
    options.cms = "tcp://127.0.0.1:9";
    options.ecu_mac = kEcuMac;
    options.restore = &handler;
    rtcr_client* client = nullptr;
    EXPECT_EQ(rtcr_open(&options, &client), RTCR_E_INVALID_ARGUMENT);
    return std::string(rtcr_last_error());
  };
  const auto names = [&](const char* field, const std::function<void(rtcr_restore_handler&)>& change) {
    const std::string refusal = refusal_of(change);
    EXPECT_NE(refusal.find(field), std::string::npos) << refusal;
  };
  static const std::string kLong(200, 'x');
  names("restore.go", [](rtcr_restore_handler& handler) { handler.go = nullptr; });
  names("thread_count", [](rtcr_restore_handler& handler) { handler.thread_count = 65; });
  names("restore.arch", [](rtcr_restore_handler& handler) { handler.arch = kLong.c_str(); });
  names("formats", [](rtcr_restore_handler& handler) { handler.format_count = 1; });
  names("format_count", [](rtcr_restore_handler& handler) { handler.format_count = 17; });
  names("label_count", [](rtcr_restore_handler& handler) { handler.label_count = 17; });
  names("struct_size", [](rtcr_restore_handler& handler) { handler.struct_size = 8; });
}

TEST(RestoreTest, AnOlderCallersOptionsHaveNoHandler) {
  FakeCms cms;
  struct {
    unsigned char bytes[offsetof(rtcr_options, restore)];
  } older{};
  rtcr_options options = rtcr_options_init();
  options.struct_size = sizeof(older);
  options.cms = "tcp://127.0.0.1:9";
  options.ecu_mac = kEcuMac;
  std::memcpy(&older, &options, sizeof(older));
  rtcr_client* client = nullptr;
  EXPECT_EQ(rtcr_open(reinterpret_cast<rtcr_options*>(&older), &client), RTCR_OK) << rtcr_last_error();
  EXPECT_EQ(rtcr_close(client), RTCR_OK);
}

TEST(RestoreTest, TheCppFaceRestoresToo) {
  FakeCms cms;
  cms.offer(kCheckpoint, "state");
  rtcr::Options options;
  options.cms = cms.endpoint();
  options.ecu_mac = kEcuMac;
  options.bulk_host = "127.0.0.1";
  rtcr::Target& target = options.target.emplace();
  target.prepare = [](const rtcr::Restore& restore) {
    return restore.seq == 3 ? rtcr::Status() : rtcr::Status(rtcr::Error{RTCR_E_CORRUPT, "not that one"});
  };
  target.go = [](const rtcr::Restore& restore) -> rtcr::Result<std::uint64_t> {
    return rtcr::Error{RTCR_E_NO_SPACE, "epoch " + std::to_string(restore.owner_epoch)};
  };
  auto client = rtcr::Client::open(options);
  ASSERT_TRUE(client.ok()) << client.error().detail;
  wait_for_session(cms);
  const wire::Prepare prepare = prepare_of(cms, 5);
  cms.command(prepare);
  report_of(cms, RestoreState::kPrepared);
  cms.command(go_of(prepare));
  const wire::RestoreReport report = report_of(cms, RestoreState::kRefused);
  EXPECT_EQ(report.code, Code::kNoSpace);
  EXPECT_EQ(report.context, "epoch 4");
  EXPECT_EQ(report.act_uid, go_of(prepare).act_uid);
}

// ---- /proc

TEST(ProcMetricsTest, CpuLoadIsTheBusyShareOfAllTicksBetweenTwoSamples) {
  const auto before = broker::parse_cpu_times("cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 1\ncpu1 1 1\nintr 5\n");
  const auto after = broker::parse_cpu_times("cpu  130 10 110 900 50 0 0 0 99 0\ncpu0 1 1\ncpu1 1 1\n");
  ASSERT_TRUE(before && after);
  EXPECT_EQ(before->cpu_count, 2U);
  EXPECT_EQ(before->all, 1000U);
  EXPECT_EQ(broker::cpu_load_permille(*before, *after), 250U);  // 50 of 200; waiting for I/O is idle.
  EXPECT_EQ(broker::cpu_load_permille(*after, *before), 0U);
  EXPECT_EQ(broker::cpu_load_permille(*after, *after), 0U);
  EXPECT_FALSE(broker::parse_cpu_times("intr 5\n"));
  EXPECT_FALSE(broker::parse_cpu_times(""));
}

TEST(ProcMetricsTest, MemoryIsWhatTheKernelCallsAvailable) {
  wire::Metrics metrics;
  broker::parse_memory("MemTotal:       2048 kB\nMemFree:         100 kB\nMemAvailable:   1024 kB\n",
                       metrics);
  EXPECT_EQ(metrics.ram_total_bytes, 2048U * 1024);
  EXPECT_EQ(metrics.ram_available_bytes, 1024U * 1024);
}

}  // namespace
}  // namespace cms::client
