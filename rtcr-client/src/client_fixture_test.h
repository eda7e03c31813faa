#pragma once
// What the tests of the C ABI share: a client that closes itself, receipts seen so far, blobs.
#include <gtest/gtest.h>

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "rtcr/rtcr.h"
#include "test/support/fake_cms.h"

namespace cms::client {

inline constexpr const char* kEcuMac = "02:00:00:00:00:01";
inline constexpr std::int64_t kPatienceMs = 20000;  // For what must come; never for what must not.

// Bytes that differ from place to place, so that a chunk in the wrong place is seen.
inline std::string blob_of(std::size_t size_bytes, std::uint32_t seed = 1) {
  std::string bytes(size_bytes, '\0');
  std::uint32_t state = seed;
  for (char& byte : bytes) {
    state = state * 1664525U + 1013904223U;
    byte = static_cast<char>(state >> 24);
  }
  return bytes;
}

class TestClient {
 public:
  explicit TestClient(const std::string& cms, const std::function<void(rtcr_options&)>& change = {}) {
    rtcr_options options = rtcr_options_init();
    options.cms = cms.c_str();
    options.ecu_mac = kEcuMac;
    options.bulk_host = "127.0.0.1";
    options.on_receipt = [](void* self, const rtcr_receipt* receipt) {
      static_cast<TestClient*>(self)->on_receipt(*receipt);
    };
    options.receipt_context = this;
    if (change) change(options);
    EXPECT_EQ(rtcr_open(&options, &client_), RTCR_OK) << rtcr_last_error();
  }
  TestClient(const TestClient&) = delete;
  TestClient& operator=(const TestClient&) = delete;
  ~TestClient() { close(); }

  void close() {
    EXPECT_EQ(rtcr_close(client_), RTCR_OK);
    client_ = nullptr;
  }
  rtcr_client* get() const { return client_; }

  // Publishes a copy; returns its seq.
  std::uint64_t publish_copy(std::uint64_t program_id, const std::string& bytes,
                             rtcr_release release = RTCR_RELEASE_REPLICATED) {
    rtcr_checkpoint checkpoint = rtcr_checkpoint_init();
    checkpoint.source = RTCR_SOURCE_COPY;
    checkpoint.program_id = program_id;
    checkpoint.data = bytes.data();
    checkpoint.size_bytes = bytes.size();
    checkpoint.release_policy = release;
    return publish(checkpoint);
  }
  std::uint64_t publish(const rtcr_checkpoint& checkpoint) {
    std::uint64_t seq = 0;
    EXPECT_EQ(rtcr_publish(client_, &checkpoint, &seq), RTCR_OK) << rtcr_last_error();
    return seq;
  }
  int wait(std::uint64_t seq, rtcr_level level, std::int64_t timeout_ms = kPatienceMs) {
    return rtcr_wait(client_, seq, level, timeout_ms);
  }

  std::vector<rtcr_receipt> receipts() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return receipts_;
  }
  // The last receipt of `seq`; waits for it.
  rtcr_receipt final_receipt(std::uint64_t seq) const {
    std::unique_lock<std::mutex> lock(mutex_);
    rtcr_receipt found = rtcr_receipt_init();
    const bool came = changed_.wait_for(lock, std::chrono::milliseconds(kPatienceMs), [&] {
      for (const rtcr_receipt& receipt : receipts_) {
        if (receipt.seq != seq || receipt.final == 0) continue;
        found = receipt;
        return true;
      }
      return false;
    });
    EXPECT_TRUE(came) << "no final receipt of seq " << seq;
    return found;
  }
  // Called on the client's thread with every receipt.
  std::function<void(const rtcr_receipt&)> also{};

 private:
  void on_receipt(const rtcr_receipt& receipt) {
    if (also) also(receipt);
    const std::lock_guard<std::mutex> lock(mutex_);
    receipts_.push_back(receipt);
    changed_.notify_all();
  }

  rtcr_client* client_ = nullptr;
  mutable std::mutex mutex_{};
  mutable std::condition_variable changed_{};
  std::vector<rtcr_receipt> receipts_{};
};

}  // namespace cms::client
