#pragma once
// EcuCoreTest runs an EcuCore for a test: it keeps the time, plays the CMS instances and collects
// what the core wants done.
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "broker/core/ecu_core.h"

namespace cms::broker {

using std::chrono::milliseconds;
using std::chrono::seconds;
using wire::ReceiptLevel;

inline constexpr EcuMac kMac{0x020000000001};
inline constexpr std::uint64_t kNonce = 0xabcd;
inline constexpr Incarnation kIncarnation = 65536;
inline constexpr std::uint64_t kBudget = 1000;
inline constexpr ProgramId kProgram = 7;

// Bytes that a test may alter behind the core's back; counts itself in *alive.
class TestSource : public BlobSource {
 public:
  TestSource(std::string bytes, int* alive)
      : bytes_(std::make_shared<std::string>(std::move(bytes))), alive_(alive) {
    ++*alive_;
  }
  ~TestSource() override { --*alive_; }
  Result<ChunkView> view(std::uint64_t offset_bytes, std::size_t size_bytes) override {
    if (failure != Code::kOk) return make_error(failure, "the file was altered");
    return ChunkView{bytes_->data() + offset_bytes, size_bytes, bytes_};
  }
  std::uint64_t memory_bytes() const override { return bytes_->size(); }
  std::string& bytes() { return *bytes_; }

  Code failure = Code::kOk;

 private:
  std::shared_ptr<std::string> bytes_;
  int* alive_;
};

class EcuCoreTest : public ::testing::Test {
 protected:
  void make(std::size_t cms_count, std::uint64_t budget_bytes = kBudget) {
    EcuCoreConfig config;
    config.ecu_mac = kMac;
    config.nonce = kNonce;
    config.bulk_port = 7600;
    config.cms_count = cms_count;
    config.memory_budget_bytes = budget_bytes;
    core_ = std::make_unique<EcuCore>(config);
    call([&](Effects& effects) { core_->start(now_, effects); });
  }
  // With every CMS live.
  void make_live(std::size_t cms_count, std::uint64_t budget_bytes = kBudget) {
    make(cms_count, budget_bytes);
    for (CmsIndex cms = 0; cms < cms_count; ++cms) answer_hello(cms, kIncarnation);
  }
  template <typename Call>
  void call(Call call) {
    effects_.clear();
    call(effects_);
    for (const SendControl& sent : all<SendControl>()) {  // Whatever it says can be said.
      const wire::Bytes bytes = wire::encode(sent.message);
      EXPECT_TRUE(wire::decode_control(bytes.data(), bytes.size()).ok()) << sent.message.body.index();
    }
  }
  void say(CmsIndex cms, wire::ControlBody body) {
    call([&](Effects& effects) {
      core_->on_control(now_, cms, wire::ControlMessage{core_->incarnation(), std::move(body)}, effects);
    });
  }
  void answer_hello(CmsIndex cms, Incarnation incarnation, Code code = Code::kOk,
                    std::uint64_t nonce = kNonce) {
    wire::HelloAnswer answer;
    answer.nonce = nonce;
    answer.incarnation = incarnation;
    answer.code = code;
    answer.cms_name = "a";
    say(cms, answer);
  }
  TestSource* publish(ProgramId program_id = kProgram, std::size_t size_bytes = 100,
                      wire::Release release = wire::Release::kReplicated) {
    wire::Notification notification;
    notification.program_id = program_id;
    notification.seq = core_->last_seq() + 1;
    notification.size_bytes = size_bytes;
    notification.chunk_size_bytes = wire::kChunkSizeBytesMin;
    notification.policies.release = release;
    auto source = std::make_unique<TestSource>(std::string(size_bytes, 'x'), &alive_);
    TestSource* const raw = source.get();
    call([&](Effects& effects) { core_->publish(now_, notification, std::move(source), effects); });
    return raw;
  }
  void receipt(CmsIndex cms, Seq seq, ReceiptLevel level, Code code = Code::kOk,
               ProgramId program_id = kProgram) {
    say(cms, wire::Receipt{program_id, seq, level, code, "why"});
  }
  void superseded_by(CmsIndex cms, Seq seq, Version newer, Duration known_for, bool lives = false,
                     ProgramId program_id = kProgram) {
    wire::Receipt receipt{program_id, seq, ReceiptLevel::kSuperseded, Code::kSuperseded, "why"};
    receipt.newer = newer;
    receipt.newer_known_ms =
        static_cast<std::uint64_t>(std::chrono::duration_cast<milliseconds>(known_for).count());
    receipt.newer_lives = lives;
    say(cms, receipt);
  }
  CheckpointId id(Seq seq, ProgramId program_id = kProgram) {
    return CheckpointId{ProgramKey{kMac, program_id}, Version{kIncarnation, seq}};
  }
  void fetch(Seq seq, std::uint64_t offset_bytes = 0, std::uint64_t limit_bytes = UINT64_MAX,
             const PeerId& peer = "p", std::uint64_t transfer_id = 1) {
    call([&](Effects& effects) {
      core_->on_bulk(now_, peer, wire::Fetch{transfer_id, id(seq), offset_bytes, limit_bytes}, effects);
    });
  }
  void serve(std::size_t chunk_count_max = 100) {
    call([&](Effects& effects) { core_->serve(chunk_count_max, effects); });
  }
  void pass(Duration duration) {
    now_ += duration;
    call([&](Effects& effects) { core_->on_time(now_, effects); });
  }
  std::uint32_t waiting() {
    pass(kHeartbeatInterval);
    const auto sent = control<wire::Heartbeat>(0);
    return sent.empty() ? UINT32_MAX : sent.front().waiting;
  }

  template <typename T>
  std::vector<T> all() const {
    std::vector<T> found;
    for (const Effect& effect : effects_) {
      if (const auto* one = std::get_if<T>(&effect)) found.push_back(*one);
    }
    return found;
  }
  template <typename T>
  std::vector<T> control(CmsIndex cms) const {
    std::vector<T> found;
    for (const SendControl& sent : all<SendControl>()) {
      if (sent.cms != cms) continue;
      if (const auto* body = std::get_if<T>(&sent.message.body)) found.push_back(*body);
    }
    return found;
  }
  // "STORED 3", "SUPERSEDED 2!" (final), in order.
  std::vector<std::string> told() const {
    std::vector<std::string> lines;
    for (const ReceiptEvent& event : all<ReceiptEvent>()) {
      lines.push_back(std::string(wire::to_string(event.level)) + " " + std::to_string(event.seq) +
                      (event.final ? "!" : ""));
    }
    return lines;
  }
  using Lines = std::vector<std::string>;

  Instant now_{std::chrono::hours(1)};
  Effects effects_;
  int alive_ = 0;
  std::unique_ptr<EcuCore> core_;
};

}  // namespace cms::broker
