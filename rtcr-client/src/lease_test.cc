// The C ABI of a guarded session against a CMS on real sockets: its programs are stopped when its run lease ends, and go
// on in the next session; and what runs is told.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "base/digest.h"
#include "rtcr-client/src/client_fixture_test.h"
#include "rtcr-client/src/program_calls.h"
#include "rtcr/rtcr.hpp"

namespace cms::client {
namespace {

using test::FakeCms;
using test::FakePlan;
using test::FakeState;

constexpr std::uint64_t kProgram = 7;
constexpr std::uint32_t kLeaseMs = 2500;

// What was called, in order; calls that are held wait until the test lets them go on.
class Calls {
 public:
  void enter(const std::string& call) {
    std::unique_lock<std::mutex> lock(mutex_);
    calls_.push_back(call);
    changed_.notify_all();
    changed_.wait(lock, [&] { return held_.count(call) == 0; });
  }
  void hold(const std::string& call) {
    const std::lock_guard<std::mutex> lock(mutex_);
    held_.insert(call);
  }
  void let(const std::string& call) {
    const std::lock_guard<std::mutex> lock(mutex_);
    held_.erase(call);
    changed_.notify_all();
  }
  std::vector<std::string> all() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return calls_;
  }
  // So often by now.
  void wait_for(const std::string& call, std::ptrdiff_t count = 1) const {
    std::unique_lock<std::mutex> lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::milliseconds(kPatienceMs), [&] {
      return std::count(calls_.begin(), calls_.end(), call) >= count;
    })) << call;
  }

 private:
  mutable std::mutex mutex_{};
  mutable std::condition_variable changed_{};
  std::set<std::string> held_{};
  std::vector<std::string> calls_{};
};

// An RTCR whose session is guarded; it notes its calls as "stop 7".
class GuardedClient {
 public:
  // With `told` it has a lease, and what it publishes has been started since.
  explicit GuardedClient(const std::string& cms, bool told = true) {
    rtcr_lease_handler handler = rtcr_lease_handler_init();
    handler.stop = on_stop;
    handler.resume = on_resume;
    handler.on_lease = on_lease;
    handler.context = this;
    handler.boot_id = "first boot";
    handler.enforcer = RTCR_ENFORCER_GUARD;
    rtcr_move_handler mover = rtcr_move_handler_init();
    mover.freeze = on_freeze;
    mover.thaw = on_thaw;
    mover.context = this;
    mover.thread_count = 1;
    client_ = std::make_unique<TestClient>(cms, [&](rtcr_options& options) {
      options.lease = &handler;
      options.move = &mover;
    });
    if (!told) return;
    EXPECT_EQ(rtcr_programs_told(client_->get()), RTCR_OK);
    calls.wait_for("lease");
  }
  ~GuardedClient() {
    for (const char* call : {"stop 7", "freeze 7", "thaw 7", "resume 7"}) calls.let(call);
  }
  GuardedClient(const GuardedClient&) = delete;
  GuardedClient& operator=(const GuardedClient&) = delete;

  TestClient& client() { return *client_; }
  std::uint64_t publish(rtcr_on_isolation on_isolation, std::uint64_t program_id = kProgram) {
    rtcr_checkpoint checkpoint = rtcr_checkpoint_init();
    checkpoint.source = RTCR_SOURCE_COPY;
    checkpoint.program_id = program_id;
    checkpoint.data = "state";
    checkpoint.size_bytes = 5;
    checkpoint.on_isolation = on_isolation;
    return client_->publish(checkpoint);
  }

  Calls calls{};
  std::atomic<int> answer{RTCR_OK};

 private:
  static GuardedClient& self_of(void* context) { return *static_cast<GuardedClient*>(context); }
  static int on_stop(void* context, std::uint64_t program_id, char*) {
    const int answer = self_of(context).answer;  // As it is before the test hears of the call.
    self_of(context).calls.enter("stop " + std::to_string(program_id));
    EXPECT_EQ(rtcr_wait(self_of(context).client_->get(), 1, RTCR_STORED, 0), RTCR_E_CALLBACK);
    return answer;
  }
  static void on_resume(void* context, std::uint64_t program_id) {
    self_of(context).calls.enter("resume " + std::to_string(program_id));
  }
  static void on_lease(void* context, const rtcr_lease* lease) {
    if (lease->lives != 0) {
      EXPECT_GT(lease->ends_at_ns, 0U);
      EXPECT_LE(lease->enforce_at_ns, lease->ends_at_ns);
      EXPECT_STREQ(lease->reason, "");
    }
    self_of(context).calls.enter(lease->lives != 0           ? "lease"
                                 : lease->enforce_at_ns != 0 ? "ended, to be enforced"
                                                             : "ended, all stand still");
  }
  static int on_freeze(void* context, const rtcr_move* move, std::uint64_t* last_seq, char*) {
    *last_seq = self_of(context).publish(RTCR_ON_ISOLATION_STOP, move->program_id);
    self_of(context).calls.enter("freeze " + std::to_string(move->program_id));
    return RTCR_OK;
  }
  static void on_thaw(void* context, const rtcr_move* move) {
    self_of(context).calls.enter("thaw " + std::to_string(move->program_id));
  }

  std::unique_ptr<TestClient> client_{};  // Last: its threads use what is above.
};

FakePlan leasing() {
  FakePlan plan;
  plan.lease_ms = kLeaseMs;
  return plan;
}
wire::ClaimRef record_of(std::uint64_t slot) {
  return wire::ClaimRef{lineage_of(ProgramKey{*parse_ecu_mac(kEcuMac), kProgram}), slot, slot * 10};
}

TEST(LeaseTest, TheSessionTellsWhatVouchesForIt) {
  FakeCms cms(leasing());
  GuardedClient guarded(cms.endpoint());
  EXPECT_TRUE(cms.wait_until([](const FakeState& state) { return state.session_count == 1; }));
  const wire::Hello hello = cms.state().hello;
  EXPECT_TRUE(hello.guarded);
  EXPECT_EQ(hello.enforcer, wire::Enforcer::kGuard);
  EXPECT_EQ(hello.boot_id, digest_of("first boot", 10));
  guarded.calls.wait_for("lease");
}

TEST(LeaseTest, StopsAtItsEndAndGoesOnInTheNextSessionByAThaw) {
  FakeCms cms(leasing());
  GuardedClient guarded(cms.endpoint());
  const std::uint64_t seq = guarded.publish(RTCR_ON_ISOLATION_STOP);
  guarded.publish(RTCR_ON_ISOLATION_KEEP, 8);
  EXPECT_EQ(guarded.client().wait(seq, RTCR_STORED), RTCR_OK);
  FakePlan mute = leasing();
  mute.answers_beats = false;
  cms.set_plan(mute);
  guarded.calls.wait_for("stop 7");
  guarded.calls.wait_for("ended, all stand still");
  EXPECT_TRUE(cms.wait_until([](const FakeState& state) { return state.session_count == 2; }));
  cms.set_plan(leasing());
  const auto renewals = [&] {
    const auto all = guarded.calls.all();
    return std::count(all.begin(), all.end(), "lease");
  };
  guarded.calls.wait_for("lease", renewals() + 1);
  cms.command(wire::AskPrograms{1, 0});
  EXPECT_TRUE(cms.wait_until([](const FakeState& state) { return !state.programs.empty(); }));
  const auto told = cms.state().programs.at(0).programs;
  ASSERT_EQ(told.size(), 2U);
  EXPECT_EQ(told[0].state, wire::ProgramState::kStopped);
  EXPECT_EQ(told[1].state, wire::ProgramState::kRunning);
  EXPECT_EQ(guarded.client().final_receipt(guarded.publish(RTCR_ON_ISOLATION_STOP)).code,
            static_cast<std::uint32_t>(RTCR_E_PERMISSION));
  cms.command(wire::Thaw{record_of(1), kProgram});
  guarded.calls.wait_for("resume 7");
  EXPECT_EQ(guarded.client().wait(guarded.publish(RTCR_ON_ISOLATION_STOP), RTCR_STORED), RTCR_OK);
  const auto all = guarded.calls.all();
  EXPECT_EQ(std::count(all.begin(), all.end(), "stop 7"), 1);
  EXPECT_EQ(std::count(all.begin(), all.end(), "stop 8"), 0);
}

TEST(LeaseTest, ASessionThatIsToldToHaveEndedStopsAtOnceAndAFailedStopIsTriedAgain) {
  FakeCms cms(leasing());
  GuardedClient guarded(cms.endpoint());
  EXPECT_EQ(guarded.client().wait(guarded.publish(RTCR_ON_ISOLATION_STOP), RTCR_STORED), RTCR_OK);
  guarded.answer = RTCR_E_IO;
  cms.end_session();
  guarded.calls.wait_for("stop 7");
  guarded.calls.wait_for("ended, to be enforced");
  guarded.answer = RTCR_OK;
  guarded.calls.wait_for("stop 7", 2);
}

TEST(LeaseTest, AStopDoesNotWaitForAFreeze) {
  FakeCms cms(leasing());
  GuardedClient guarded(cms.endpoint());
  EXPECT_EQ(guarded.client().wait(guarded.publish(RTCR_ON_ISOLATION_STOP), RTCR_STORED), RTCR_OK);
  guarded.calls.wait_for("lease");
  guarded.calls.hold("freeze 7");
  cms.command(wire::Freeze{record_of(2), kProgram});
  guarded.calls.wait_for("freeze 7");
  cms.end_session();
  guarded.calls.wait_for("stop 7");
  // The client has taken its next session: what it publishes from now on is of that.
  EXPECT_TRUE(cms.wait_until([](const FakeState& state) {
    return state.session_count == 2 && state.heartbeat_of == state.incarnation;
  }));
  guarded.calls.let("freeze 7");
  // With its last checkpoint, of the new session.
  EXPECT_TRUE(cms.wait_until([](const FakeState& state) {
    return !state.freeze_reports.empty() && state.freeze_reports.back().state == wire::FreezeState::kFrozen &&
           state.freeze_reports.back().last == Version{state.incarnation, 2};
  }));
}

TEST(LeaseTest, WhatRanBeforeStandsStillUntilItIsThawed) {
  FakeCms cms(leasing());
  GuardedClient guarded(cms.endpoint(), false);
  const std::uint64_t seq = guarded.publish(RTCR_ON_ISOLATION_STOP);
  guarded.calls.wait_for("stop 7");
  EXPECT_EQ(guarded.client().wait(seq, RTCR_STORED), RTCR_OK);
  EXPECT_EQ(rtcr_programs_told(guarded.client().get()), RTCR_OK);
  guarded.calls.wait_for("lease");
  cms.command(wire::Thaw{record_of(1), kProgram, wire::OnIsolation::kStop});
  guarded.calls.wait_for("resume 7");
}

TEST(LeaseTest, WhatRunsIsToldWhenAllWasTold) {
  FakeCms cms(leasing());
  GuardedClient guarded(cms.endpoint(), false);
  EXPECT_EQ(guarded.client().wait(guarded.publish(RTCR_ON_ISOLATION_KEEP), RTCR_STORED), RTCR_OK);
  cms.command(wire::AskPrograms{1, 0});
  EXPECT_EQ(guarded.client().wait(guarded.publish(RTCR_ON_ISOLATION_KEEP, 8), RTCR_STORED), RTCR_OK);
  EXPECT_TRUE(cms.state().programs.empty());
  EXPECT_EQ(rtcr_programs_told(guarded.client().get()), RTCR_OK);
  EXPECT_TRUE(cms.wait_until([](const FakeState& state) { return !state.programs.empty(); }));
  EXPECT_EQ(cms.state().programs.at(0).number, 1U);
  EXPECT_EQ(cms.state().programs.at(0).programs.size(), 2U);
  EXPECT_EQ(rtcr_program_ended(guarded.client().get(), 8), RTCR_OK);
  EXPECT_TRUE(cms.wait_until([](const FakeState& state) { return state.programs_changed == 1; }));
  cms.command(wire::AskPrograms{2, 0});
  EXPECT_TRUE(cms.wait_until([](const FakeState& state) { return state.programs.size() == 2; }));
  EXPECT_EQ(cms.state().programs.at(1).programs.size(), 1U);
}

TEST(LeaseTest, WhoClosesStopsFirst) {
  FakeCms cms(leasing());
  GuardedClient guarded(cms.endpoint());
  guarded.publish(RTCR_ON_ISOLATION_STOP);
  EXPECT_TRUE(cms.wait_until([](const FakeState& state) { return state.session_count == 1; }));
  guarded.client().close();
  EXPECT_TRUE(cms.wait_until([](const FakeState& state) { return state.bye_count == 1; }));
  const auto all = guarded.calls.all();
  EXPECT_EQ(std::count(all.begin(), all.end(), "stop 7"), 1);
}

TEST(LeaseTest, SessionsThatAreNotGuardedHaveNone) {
  FakeCms cms(leasing());
  TestClient client(cms.endpoint());
  EXPECT_EQ(rtcr_programs_told(client.get()), RTCR_E_INVALID_ARGUMENT);
  EXPECT_EQ(rtcr_program_ended(client.get(), 1), RTCR_E_INVALID_ARGUMENT);
  EXPECT_TRUE(cms.wait_until([](const FakeState& state) { return state.session_count == 1; }));
  EXPECT_FALSE(cms.state().hello.guarded);
}

TEST(LeaseTest, AHandlerMustBeWhole) {
  rtcr_lease_handler handler = rtcr_lease_handler_init();
  rtcr_options options = rtcr_options_init();
  options.cms = "tcp://127.0.0.1:7400";
  options.ecu_mac = kEcuMac;
  options.lease = &handler;
  rtcr_client* client = nullptr;
  EXPECT_EQ(rtcr_open(&options, &client), RTCR_E_INVALID_ARGUMENT);
  handler.stop = [](void*, std::uint64_t, char*) -> int { return RTCR_OK; };
  EXPECT_EQ(rtcr_open(&options, &client), RTCR_E_INVALID_ARGUMENT);
  handler.resume = [](void*, std::uint64_t) {};
  handler.enforcer = 3;
  EXPECT_EQ(rtcr_open(&options, &client), RTCR_E_INVALID_ARGUMENT);
  EXPECT_NE(std::string(rtcr_last_error()).find("lease.enforcer"), std::string::npos);
  handler.enforcer = RTCR_ENFORCER_WATCHDOG;
  handler.thread_count = 65;
  EXPECT_EQ(rtcr_open(&options, &client), RTCR_E_INVALID_ARGUMENT);
  handler.thread_count = 64;
  EXPECT_EQ(rtcr_open(&options, &client), RTCR_OK) << rtcr_last_error();
  EXPECT_EQ(rtcr_close(client), RTCR_OK);
}

TEST(LeaseTest, TheCppFaceTellsTheSame) {
  FakeCms cms(leasing());
  Calls calls;
  rtcr::Options options;
  options.cms = cms.endpoint();
  options.ecu_mac = kEcuMac;
  options.bulk_host = "127.0.0.1";
  options.lease.emplace();
  options.lease->stop = [&](std::uint64_t program_id) {
    calls.enter("stop " + std::to_string(program_id));
    return rtcr::Status();
  };
  options.lease->resume = [](std::uint64_t) {};
  options.lease->on_lease = [&](const rtcr::Lease& lease) {
    if (lease.lives) calls.enter("lease");
    if (!lease.lives && !lease.reason.empty()) calls.enter("ended");
  };
  auto client = rtcr::Client::open(options);
  ASSERT_TRUE(client.ok()) << client.error().detail;
  rtcr::Facts facts;
  facts.program_id = kProgram;
  facts.on_isolation = RTCR_ON_ISOLATION_STOP;
  EXPECT_TRUE(client.value().programs_told().ok());
  calls.wait_for("lease");
  ASSERT_TRUE(client.value().publish_copy(facts, "x", 1).ok());
  cms.end_session();
  calls.wait_for("ended");
  calls.wait_for("stop 7");
  EXPECT_TRUE(client.value().program_ended(kProgram).ok());
}

TEST(ProgramCallsTest, AStopWaitsForAThawButStandsBeforeTheNextFreeze) {
  Calls calls;
  ProgramCalls queue(1, 1);
  using Kind = ProgramCalls::Kind;
  calls.hold("thaw");
  queue.run(kProgram, Kind::kThaw, [&] { calls.enter("thaw"); });
  calls.wait_for("thaw");
  queue.run(kProgram, Kind::kFreeze, [&] { calls.enter("freeze"); });
  queue.run(kProgram, Kind::kStop, [&] { calls.enter("stop"); });
  queue.run(8, Kind::kStop, [&] { calls.enter("stop 8"); });
  calls.wait_for("stop 8");  // On the thread that a stop of 7 would have run on.
  EXPECT_EQ(calls.all(), (std::vector<std::string>{"thaw", "stop 8"}));
  calls.let("thaw");
  queue.finish();
  EXPECT_EQ(calls.all(), (std::vector<std::string>{"thaw", "stop 8", "stop", "freeze"}));
}

}  // namespace
}  // namespace cms::client
