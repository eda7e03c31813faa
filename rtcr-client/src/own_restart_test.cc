// The C ABI of a guarded session that asks for its own program, against a CMS on real sockets: what is claimed for it comes
// to the call that waits for it, and what is published of it goes on from there.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/digest.h"
#include "rtcr-client/src/client_fixture_test.h"

namespace cms::client {
namespace {

using test::FakeCms;
using test::FakePlan;
using test::FakeState;
using wire::RestoreState;

constexpr ProgramId kProgram = 7;
const EcuMac kMac = *parse_ecu_mac(kEcuMac);
const CheckpointId kNewest{ProgramKey{kMac, kProgram}, Version{65536, 3}};

FakePlan leasing() {
  FakePlan plan;
  plan.lease_ms = 60000;
  return plan;
}

wire::Prepare prepare_of(const FakeCms& cms, std::uint64_t size_bytes,
                         std::optional<ProgramId> restarts = kProgram) {
  wire::Prepare prepare;
  prepare.claim = wire::ClaimRef{Lineage{0x1122, 0x3344}, 2, 2000};
  prepare.session = SessionId{kMac, kNewest.version.incarnation};
  prepare.notification.program_id = kProgram;
  prepare.notification.seq = kNewest.version.seq;
  prepare.notification.size_bytes = size_bytes;
  prepare.notification.chunk_size_bytes = wire::kChunkSizeBytesMin;
  prepare.bulk_port = cms.bulk_port();
  prepare.restarts = restarts;
  return prepare;
}

class OwnRestartTest : public testing::Test {
 protected:
  OwnRestartTest() {
    rtcr_lease_handler handler = rtcr_lease_handler_init();
    handler.stop = [](void*, std::uint64_t, char*) { return static_cast<int>(RTCR_OK); };
    handler.resume = [](void*, std::uint64_t) {};
    handler.boot_id = "second boot";
    handler.on_lease = [](void* context, const rtcr_lease* lease) {
      auto& self = *static_cast<OwnRestartTest*>(context);
      if (lease->lives != 0 && !std::exchange(self.was_leased_, true)) self.leased_.set_value();
    };
    handler.context = this;
    client_ = std::make_unique<TestClient>(cms_.endpoint(),
                                           [&](rtcr_options& options) { options.lease = &handler; });
    EXPECT_EQ(rtcr_programs_told(client_->get()), RTCR_OK);
    leased_.get_future().wait();
  }
  ~OwnRestartTest() override {
    if (fetching_.joinable()) fetching_.join();
  }

  void fetch(std::uint64_t capacity_bytes, std::int64_t timeout_ms = kPatienceMs) {
    buffer_.resize(capacity_bytes);
    fetching_ = std::thread([this, timeout_ms] {
      rtcr_fetch given = rtcr_fetch_init();
      given.program_id = kProgram;
      given.target = RTCR_TARGET_MEMORY;
      given.buffer = buffer_.data();
      given.capacity_bytes = buffer_.size();
      given.timeout_ms = timeout_ms;
      status_ = rtcr_fetch_newest(client_->get(), &given, &fetched_);
    });
  }
  int status() {
    fetching_.join();
    return status_;
  }
  void wait_until_asked() {
    ASSERT_TRUE(cms_.wait_until([](const FakeState& state) { return !state.migrations.empty(); }));
    const wire::Migrate asked = cms_.state().migrations[0];
    EXPECT_EQ(asked.program_id, kProgram);
    EXPECT_TRUE(asked.has_to);
    EXPECT_EQ(asked.to_ecu_mac, kMac);
  }
  wire::RestoreReport report_of(RestoreState wanted) {
    wire::RestoreReport found;
    EXPECT_TRUE(cms_.wait_until([&](const FakeState& seen) {
      for (const wire::RestoreReport& report : seen.reports) {
        if (report.state == wanted) found = report;
      }
      return found.state == wanted;
    })) << to_string(wanted);
    return found;
  }
  // What a CMS does that has claimed it.
  wire::Go prepare_and_go(const std::string& bytes) {
    cms_.offer(kNewest, bytes);
    const wire::Prepare prepare = prepare_of(cms_, bytes.size());
    cms_.command(prepare);
    (void)report_of(RestoreState::kPrepared);
    const wire::Go go{prepare.claim, 3, 3000};
    cms_.command(go);
    return go;
  }

  FakeCms cms_{leasing()};
  std::promise<void> leased_;
  bool was_leased_ = false;  // On the client's thread.
  std::unique_ptr<TestClient> client_;
  std::string buffer_;
  rtcr_fetched fetched_ = rtcr_fetched_init();
  int status_ = -1;
  std::thread fetching_;
};

TEST_F(OwnRestartTest, ItsNewestCheckpointIsClaimedAndWhatFollowsGoesOnFromThere) {
  const std::string bytes = blob_of(300000);
  fetch(bytes.size());
  wait_until_asked();
  const wire::Go go = prepare_and_go(bytes);
  ASSERT_EQ(status(), RTCR_OK) << rtcr_last_error();
  EXPECT_TRUE(buffer_ == bytes);
  EXPECT_EQ(fetched_.incarnation, kNewest.version.incarnation);
  EXPECT_EQ(fetched_.seq, kNewest.version.seq);
  EXPECT_EQ(fetched_.size_bytes, bytes.size());
  std::vector<Digest> digests;
  for (std::size_t at = 0; at < bytes.size(); at += wire::kChunkSizeBytesMin)
    digests.push_back(
        digest_of(&bytes[at], std::min<std::size_t>(wire::kChunkSizeBytesMin, bytes.size() - at)));
  const Digest whole = blob_digest_of(digests);
  std::string digest;
  for (const std::uint8_t byte : fetched_.digest) {
    std::array<char, 3> text{};
    std::snprintf(text.data(), text.size(), "%02x", byte);
    digest += text.data();
  }
  EXPECT_EQ(digest, to_string(whole));
  EXPECT_EQ(report_of(RestoreState::kRunning).program_id, kProgram);
  const std::uint64_t seq = client_->publish_copy(kProgram, "next");
  ASSERT_TRUE(cms_.wait_until([&](const FakeState& state) { return state.heard.count(seq) != 0; }));
  EXPECT_EQ(cms_.state().heard.at(seq).lineage, prepare_of(cms_, 0).claim.lineage);
  EXPECT_EQ(cms_.state().heard.at(seq).owner_epoch, go.act_slot + 1);
}

TEST_F(OwnRestartTest, AnEmptyOneComesToo) {
  fetch(0);
  wait_until_asked();
  (void)prepare_and_go("");
  ASSERT_EQ(status(), RTCR_OK) << rtcr_last_error();
  EXPECT_EQ(fetched_.seq, kNewest.version.seq);
}

TEST_F(OwnRestartTest, ItTakesNothingElseAndSaysSo) {
  EXPECT_EQ(cms_.state().features & wire::kEcuFeatureRestores, 0U);
  cms_.command(prepare_of(cms_, 10, std::nullopt));
  cms_.command(prepare_of(cms_, 10));  // Nobody waits for it.
  EXPECT_EQ(report_of(RestoreState::kRefused).code, Code::kCancelled);
  for (const wire::RestoreReport& report : cms_.state().reports) EXPECT_NE(report.code, Code::kUnsupported);
}

TEST_F(OwnRestartTest, WhatTheCmsSaysAgainstItIsTheAnswer) {
  FakePlan plan = leasing();
  plan.migrate_code = Code::kWithdrawn;
  cms_.set_plan(plan);
  fetch(10);
  EXPECT_EQ(status(), RTCR_E_WITHDRAWN);
}

TEST_F(OwnRestartTest, WhatRunsIsNotClaimed) {
  (void)client_->publish_copy(kProgram, "state");
  fetch(10);
  EXPECT_EQ(status(), RTCR_E_PERMISSION);
  EXPECT_TRUE(cms_.state().migrations.empty());
  EXPECT_EQ(rtcr_program_ended(client_->get(), kProgram), RTCR_OK);
  fetch(10);
  wait_until_asked();
  (void)prepare_and_go("0123456789");
  EXPECT_EQ(status(), RTCR_OK) << rtcr_last_error();
}

TEST_F(OwnRestartTest, WhatFindsNoRoomDoesNotGoOnHere) {
  fetch(5);
  wait_until_asked();
  (void)prepare_and_go("0123456789");
  EXPECT_EQ(status(), RTCR_E_LIMIT);
  EXPECT_EQ(fetched_.size_bytes, 10U);
  EXPECT_EQ(report_of(RestoreState::kRefused).act_uid, 3000U);
}

TEST_F(OwnRestartTest, WhatComesTooLateIsRefused) {
  fetch(10, 200);
  EXPECT_EQ(status(), RTCR_E_TIMEOUT);
  cms_.command(prepare_of(cms_, 10));
  EXPECT_EQ(report_of(RestoreState::kRefused).code, Code::kCancelled);
}

// It may have been begun for this very call, by the CMS that was asked before.
TEST_F(OwnRestartTest, WhatIsBeingRestoredAlreadyIsWaitedFor) {
  FakePlan plan = leasing();
  plan.migrate_code = Code::kAlreadyExists;
  cms_.set_plan(plan);
  fetch(10);
  wait_until_asked();
  (void)prepare_and_go("0123456789");
  EXPECT_EQ(status(), RTCR_OK) << rtcr_last_error();
  EXPECT_EQ(buffer_, "0123456789");
}

TEST_F(OwnRestartTest, TwoCallsDoNotWaitForTheSame) {
  fetch(10);
  wait_until_asked();
  rtcr_fetch given = rtcr_fetch_init();
  given.program_id = kProgram;
  given.target = RTCR_TARGET_MEMORY;
  EXPECT_EQ(rtcr_fetch_newest(client_->get(), &given, nullptr), RTCR_E_ALREADY_EXISTS);
  (void)prepare_and_go("0123456789");
  EXPECT_EQ(status(), RTCR_OK) << rtcr_last_error();
}

}  // namespace
}  // namespace cms::client
