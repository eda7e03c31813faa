// The C ABI of a source of moves against a CMS on real sockets: the callbacks freeze and thaw, what they say is
// told; and moves are asked for.
#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <cstring>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "rtcr-client/src/client_fixture_test.h"
#include "rtcr/rtcr.hpp"

namespace cms::client {
namespace {

using test::FakeCms;
using test::FakePlan;
using test::FakeState;
using wire::FreezeState;

constexpr std::uint64_t kProgram = 7;

wire::ClaimRef claim_of(std::uint64_t slot, std::uint64_t program_id = kProgram) {
  return wire::ClaimRef{lineage_of(ProgramKey{*parse_ecu_mac(kEcuMac), program_id}), slot, slot * 10};
}
wire::Freeze freeze_of(std::uint64_t slot, std::uint64_t program_id = kProgram) {
  return wire::Freeze{claim_of(slot, program_id), program_id};
}
wire::Thaw thaw_of(std::uint64_t slot, std::uint64_t program_id = kProgram) {
  return wire::Thaw{claim_of(slot, program_id), program_id};
}

// The last report of this program and slot in this state; waits for it.
wire::FreezeReport report_of(const FakeCms& cms, FreezeState state, std::uint64_t slot,
                             std::uint64_t program_id = kProgram) {
  wire::FreezeReport found;
  EXPECT_TRUE(cms.wait_until([&](const FakeState& seen) {
    for (const wire::FreezeReport& report : seen.freeze_reports) {
      if (report.state == state && report.claim.slot == slot && report.program_id == program_id)
        found = report;
    }
    return found.state == state;
  })) << to_string(state)
      << " " << slot;
  return found;
}

// An RTCR with programs that can be frozen; it notes its calls as "freeze 7". The program's state is told by
// what it publishes. Calls that are held wait until the test lets them go on.
class TestSource {
 public:
  explicit TestSource(const std::string& cms, std::uint32_t thread_count = 0) {
    rtcr_move_handler handler = rtcr_move_handler_init();
    handler.freeze = on_freeze;
    handler.thaw = on_thaw;
    handler.context = this;
    handler.thread_count = thread_count;
    client_ = std::make_unique<TestClient>(cms, [&](rtcr_options& options) { options.move = &handler; });
  }
  TestClient& client() { return *client_; }

  void hold(const std::string& call) {
    const std::lock_guard<std::mutex> lock(mutex_);
    held_.insert(call);
  }
  void let(const std::string& call) {
    const std::lock_guard<std::mutex> lock(mutex_);
    held_.erase(call);
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

  int answer = RTCR_OK;
  std::uint64_t wrong_seq = 0;  // Given instead of that of the last checkpoint.
  rtcr_move seen{};

 private:
  void enter(const char* what, const rtcr_move& move) {
    const std::string call = std::string(what) + " " + std::to_string(move.program_id);
    std::unique_lock<std::mutex> lock(mutex_);
    calls_.push_back(call);
    seen = move;
    changed_.notify_all();
    changed_.wait(lock, [&] { return held_.count(call) == 0; });
  }
  static int on_freeze(void* context, const rtcr_move* move, std::uint64_t* last_seq, char* reason) {
    auto& self = *static_cast<TestSource*>(context);
    self.enter("freeze", *move);
    EXPECT_EQ(rtcr_wait(self.client_->get(), 1, RTCR_STORED, 0), RTCR_E_CALLBACK);
    EXPECT_EQ(rtcr_request_migration(self.client_->get(), 1, nullptr, 0), RTCR_E_CALLBACK);
    std::strcpy(reason, "it holds a lock");
    if (self.answer != RTCR_OK) return self.answer;
    const std::string bytes = "last state of " + std::to_string(move->program_id);
    rtcr_checkpoint checkpoint = rtcr_checkpoint_init();
    checkpoint.source = RTCR_SOURCE_COPY;
    checkpoint.program_id = move->program_id;
    checkpoint.data = bytes.data();
    checkpoint.size_bytes = bytes.size();
    if (rtcr_publish(self.client_->get(), &checkpoint, last_seq) != RTCR_OK) return RTCR_E_IO;
    if (self.wrong_seq != 0) *last_seq = self.wrong_seq;
    return RTCR_OK;
  }
  static void on_thaw(void* context, const rtcr_move* move) {
    static_cast<TestSource*>(context)->enter("thaw", *move);
  }

  mutable std::mutex mutex_{};
  mutable std::condition_variable changed_{};
  std::set<std::string> held_{};
  std::vector<std::string> calls_{};
  std::unique_ptr<TestClient> client_{};  // Last: its threads use what is above.
};

TEST(MoveTest, FreezesWithALastCheckpointAndThawsAboveTheClaim) {
  FakeCms cms;
  TestSource source(cms.endpoint());
  EXPECT_EQ(source.client().wait(source.client().publish_copy(kProgram, "state"), RTCR_STORED), RTCR_OK);
  EXPECT_EQ(cms.state().features, wire::kEcuFeatureFreezes);
  cms.command(freeze_of(2));
  const wire::FreezeReport frozen = report_of(cms, FreezeState::kFrozen, 2);
  EXPECT_EQ(frozen.last, (Version{cms.state().incarnation, 2}));
  EXPECT_EQ(frozen.claim.uid, 20U);
  EXPECT_EQ(frozen.code, Code::kOk);
  EXPECT_TRUE(cms.wait_until([](const FakeState& state) { return state.pulled.count(2) != 0; }));
  EXPECT_EQ(cms.state().pulled.at(2), "last state of 7");
  EXPECT_EQ(source.seen.claim_slot, 2U);
  std::uint8_t lineage[16];
  const Lineage expected = claim_of(2).lineage;
  for (int i = 0; i < 8; ++i) {
    lineage[i] = static_cast<std::uint8_t>(expected.high >> (56 - 8 * i));
    lineage[i + 8] = static_cast<std::uint8_t>(expected.low >> (56 - 8 * i));
  }
  EXPECT_EQ(std::memcmp(source.seen.lineage, lineage, sizeof(lineage)), 0);

  const std::uint64_t late = source.client().publish_copy(kProgram, "late");
  EXPECT_EQ(source.client().final_receipt(late).level, static_cast<std::uint32_t>(RTCR_DROPPED));
  EXPECT_EQ(source.client().final_receipt(late).code, static_cast<std::uint32_t>(RTCR_E_PERMISSION));
  cms.command(freeze_of(2));
  cms.command(thaw_of(3));
  source.wait_for_call("thaw 7");
  EXPECT_EQ(report_of(cms, FreezeState::kThawed, 3).claim.uid, 30U);
  EXPECT_EQ(source.calls(), (std::vector<std::string>{"freeze 7", "thaw 7"}));
  EXPECT_EQ(source.client().wait(source.client().publish_copy(kProgram, "it runs"), RTCR_STORED), RTCR_OK);
}

TEST(MoveTest, WhatFreezeRefusesIsRefusedWithItsReason) {
  FakeCms cms;
  TestSource source(cms.endpoint());
  source.answer = RTCR_E_UNAVAILABLE;
  EXPECT_EQ(source.client().wait(source.client().publish_copy(kProgram, "state"), RTCR_STORED), RTCR_OK);
  cms.command(freeze_of(2));
  const wire::FreezeReport refused = report_of(cms, FreezeState::kRefused, 2);
  EXPECT_EQ(refused.code, Code::kUnavailable);
  EXPECT_EQ(refused.context, "it holds a lock");
  source.client().close();
  EXPECT_EQ(source.calls(), std::vector<std::string>{"freeze 7"});
}

TEST(MoveTest, AWrongSeqIsRefusedAndTheProgramThawed) {
  FakeCms cms;
  TestSource source(cms.endpoint());
  source.wrong_seq = 1;
  EXPECT_EQ(source.client().wait(source.client().publish_copy(kProgram, "state"), RTCR_STORED), RTCR_OK);
  cms.command(freeze_of(2));
  EXPECT_EQ(report_of(cms, FreezeState::kRefused, 2).code, Code::kInvalidArgument);
  source.wait_for_call("thaw 7");
}

TEST(MoveTest, TheCallsOfOneProgramComeOneAfterTheOtherAndThoseOfAnotherAtOnce) {
  FakeCms cms;
  TestSource source(cms.endpoint());
  (void)source.client().publish_copy(kProgram, "state");
  EXPECT_EQ(source.client().wait(source.client().publish_copy(8, "state"), RTCR_STORED), RTCR_OK);
  cms.command(freeze_of(2));
  report_of(cms, FreezeState::kFrozen, 2);
  source.hold("thaw 7");
  cms.command(thaw_of(3));
  source.wait_for_call("thaw 7");
  cms.command(freeze_of(4));
  cms.command(freeze_of(2, 8));
  report_of(cms, FreezeState::kFrozen, 2, 8);
  EXPECT_EQ(source.calls(), (std::vector<std::string>{"freeze 7", "thaw 7", "freeze 8"}));
  source.let("thaw 7");
  report_of(cms, FreezeState::kFrozen, 4);
  EXPECT_EQ(source.calls(), (std::vector<std::string>{"freeze 7", "thaw 7", "freeze 8", "freeze 7"}));
}

TEST(MoveTest, FencedIsToldAndNothingIsThawed) {
  FakeCms cms;
  TestSource source(cms.endpoint());
  EXPECT_EQ(source.client().wait(source.client().publish_copy(kProgram, "state"), RTCR_STORED), RTCR_OK);
  cms.command(freeze_of(2));
  const wire::FreezeReport frozen = report_of(cms, FreezeState::kFrozen, 2);
  cms.say(kProgram, frozen.last.seq, wire::ReceiptLevel::kFenced, Code::kFenced, "it runs elsewhere");
  cms.command(thaw_of(5));
  report_of(cms, FreezeState::kThawed, 5);
  const auto receipts = source.client().receipts();
  EXPECT_TRUE(std::any_of(receipts.begin(), receipts.end(), [](const rtcr_receipt& receipt) {
    return receipt.level == RTCR_FENCED && receipt.program_id == kProgram;
  }));
  source.client().close();
  EXPECT_EQ(source.calls(), std::vector<std::string>{"freeze 7"});
}

TEST(MoveTest, ClosingWaitsForACallBeginsNoOtherAndThawsNothing) {
  FakeCms cms;
  TestSource source(cms.endpoint(), 1);
  for (const std::uint64_t program_id : {7U, 8U, 9U})
    EXPECT_EQ(source.client().wait(source.client().publish_copy(program_id, "state"), RTCR_STORED), RTCR_OK);
  cms.command(freeze_of(2));
  report_of(cms, FreezeState::kFrozen, 2);
  source.hold("freeze 8");
  cms.command(freeze_of(2, 8));
  source.wait_for_call("freeze 8");
  cms.command(freeze_of(2, 9));
  report_of(cms, FreezeState::kFreezing, 2, 9);  // It waits for its turn.
  std::thread closer([&] { source.client().close(); });
  EXPECT_TRUE(cms.wait_until([](const FakeState& state) { return state.bye_count == 1; }));
  source.let("freeze 8");
  closer.join();
  EXPECT_EQ(source.calls(), (std::vector<std::string>{"freeze 7", "freeze 8"}));
}

TEST(MoveTest, AHandlerThatCannotWorkIsRefusedByName) {
  const auto refusal_of = [](const std::function<void(rtcr_move_handler&)>& change) {
    rtcr_move_handler handler = rtcr_move_handler_init();
    handler.freeze = [](void*, const rtcr_move*, std::uint64_t*, char*) { return 0; };
    handler.thaw = [](void*, const rtcr_move*) {};
    change(handler);
    rtcr_options options = rtcr_options_init();
    options.cms = "tcp://127.0.0.1:9";
    options.ecu_mac = kEcuMac;
    options.move = &handler;
    rtcr_client* client = nullptr;
    EXPECT_EQ(rtcr_open(&options, &client), RTCR_E_INVALID_ARGUMENT);
    return std::string(rtcr_last_error());
  };
  const auto names = [&](const char* field, const std::function<void(rtcr_move_handler&)>& change) {
    const std::string refusal = refusal_of(change);
    EXPECT_NE(refusal.find(field), std::string::npos) << refusal;
  };
  names("move.freeze", [](rtcr_move_handler& handler) { handler.freeze = nullptr; });
  names("move.thaw", [](rtcr_move_handler& handler) { handler.thaw = nullptr; });
  names("move.thread_count", [](rtcr_move_handler& handler) { handler.thread_count = 65; });
  names("struct_size", [](rtcr_move_handler& handler) { handler.struct_size = 8; });
}

TEST(MoveTest, AnOlderCallersOptionsHaveNoHandler) {
  FakeCms cms;
  struct {
    unsigned char bytes[offsetof(rtcr_options, move)];
    const void* not_part_of_it;
  } older{};
  const std::string endpoint = cms.endpoint();
  rtcr_options options = rtcr_options_init();
  options.struct_size = offsetof(rtcr_options, move);
  options.cms = endpoint.c_str();
  options.ecu_mac = kEcuMac;
  std::memcpy(&older, &options, sizeof(older.bytes));
  older.not_part_of_it = &older;
  rtcr_client* client = nullptr;
  EXPECT_EQ(rtcr_open(reinterpret_cast<rtcr_options*>(&older), &client), RTCR_OK) << rtcr_last_error();
  EXPECT_TRUE(cms.wait_until([](const FakeState& state) { return state.hello_count > 0; }));
  EXPECT_EQ(cms.state().features, 0U);
  EXPECT_EQ(rtcr_close(client), RTCR_OK);
}

TEST(MoveTest, TheCppFaceMovesToo) {
  FakeCms cms;
  rtcr::Options options;
  options.cms = cms.endpoint();
  options.ecu_mac = kEcuMac;
  options.bulk_host = "127.0.0.1";
  rtcr::Source& source = options.source.emplace();
  std::mutex mutex;  // Until the client is there.
  std::optional<rtcr::Client> client;
  std::atomic<std::uint64_t> thawed_slot{0};
  source.freeze = [&](const rtcr::Move& move) -> rtcr::Result<std::uint64_t> {
    const std::lock_guard<std::mutex> lock(mutex);
    if (move.claim_slot == 2) return rtcr::Error{RTCR_E_NO_SPACE, "not for the second"};
    rtcr::Facts facts;
    facts.program_id = move.program_id;
    return client->publish_copy(facts, "last", 4);
  };
  source.thaw = [&](const rtcr::Move& move) { thawed_slot = move.claim_slot; };
  {
    const std::lock_guard<std::mutex> lock(mutex);
    auto opened = rtcr::Client::open(options);
    ASSERT_TRUE(opened.ok()) << opened.error().detail;
    client.emplace(std::move(opened).value());
  }
  rtcr::Facts facts;
  facts.program_id = kProgram;
  const auto seq = client->publish_copy(facts, "state", 5);
  ASSERT_TRUE(client->wait(seq.value(), RTCR_STORED, std::chrono::milliseconds(kPatienceMs)).ok());
  cms.command(freeze_of(2));
  EXPECT_EQ(report_of(cms, FreezeState::kRefused, 2).context, "not for the second");
  cms.command(freeze_of(3));
  EXPECT_EQ(report_of(cms, FreezeState::kFrozen, 3).last.seq, 2U);
  cms.command(thaw_of(4));
  report_of(cms, FreezeState::kThawed, 4);
  EXPECT_TRUE(client->request_migration(kProgram, "02:00:00:00:00:09", rtcr::kForever).ok());
  EXPECT_EQ(cms.state().migrations.at(0).to_ecu_mac, EcuMac{0x020000000009});
  EXPECT_TRUE(client->close().ok());
  EXPECT_EQ(thawed_slot, 4U);
}

// ---- asking for moves

TEST(MoveTest, AMigrationIsAskedForAndTheAnswerTold) {
  FakeCms cms;
  TestClient client(cms.endpoint());
  EXPECT_EQ(rtcr_request_migration(client.get(), kProgram, nullptr, kPatienceMs), RTCR_OK)
      << rtcr_last_error();
  EXPECT_EQ(cms.state().migrations.at(0).program_id, kProgram);
  EXPECT_FALSE(cms.state().migrations.at(0).has_to);
  EXPECT_EQ(rtcr_request_migration(client.get(), kProgram, "02:00:00", kPatienceMs), RTCR_E_INVALID_ARGUMENT);
  EXPECT_NE(std::string(rtcr_last_error()).find("to_ecu_mac"), std::string::npos);
  FakePlan plan;
  plan.migrate_code = Code::kNotFound;
  cms.set_plan(plan);
  EXPECT_EQ(rtcr_request_migration(client.get(), kProgram, nullptr, kPatienceMs), RTCR_E_NOT_FOUND);
  EXPECT_NE(std::string(rtcr_last_error()).find("as planned"), std::string::npos);
  plan.migrate_code.reset();
  cms.set_plan(plan);
  EXPECT_EQ(rtcr_request_migration(client.get(), kProgram, nullptr, 20), RTCR_E_TIMEOUT);
}

TEST(MoveTest, ACmsThatCannotSayIsFollowedByAnother) {
  FakePlan plan;
  plan.migrate_code = Code::kUnavailable;
  FakeCms first(plan);
  FakeCms second;
  TestClient client(first.endpoint() + "," + second.endpoint());
  const std::uint64_t seq = client.publish_copy(kProgram, "state");
  EXPECT_EQ(client.wait(seq, RTCR_REPLICATED), RTCR_OK);  // Both are live.
  EXPECT_EQ(rtcr_request_migration(client.get(), kProgram, nullptr, kPatienceMs), RTCR_OK);
  EXPECT_EQ(second.state().migrations.size(), 1U);
}

}  // namespace
}  // namespace cms::client
