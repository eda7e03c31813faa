#pragma once
// An embedded client for tests, with checkpoints whose bytes follow from (program, generation), so that
// any byte that comes back can be judged.
#include <cstdint>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <rtcr/rtcr.h>

#include "base/ids.h"
#include "base/prng.h"

namespace cms::test {

inline std::vector<std::uint8_t> blob_of(std::uint64_t program_id, std::uint64_t generation,
                                         std::size_t size_bytes) {
  std::vector<std::uint8_t> bytes(size_bytes);
  Prng prng(program_id * 1000003 + generation);
  std::uint64_t word = 0;
  for (std::size_t i = 0; i < size_bytes; ++i) {
    if (i % 8 == 0) word = prng.next();
    bytes[i] = static_cast<std::uint8_t>(word >> (i % 8 * 8));
  }
  return bytes;
}

class Publisher {
 public:
  Publisher(const std::string& cms, const std::string& ecu_mac, std::uint64_t memory_budget_bytes = 0)
      : ecu_mac_(ecu_mac) {
    rtcr_options options = rtcr_options_init();
    options.cms = cms.c_str();
    options.ecu_mac = ecu_mac.c_str();
    options.bulk_host = "127.0.0.1";
    options.memory_budget_bytes = memory_budget_bytes;
    EXPECT_EQ(rtcr_open(&options, &client_), RTCR_OK) << rtcr_last_error();
  }
  explicit Publisher(const rtcr_options& options) : ecu_mac_(options.ecu_mac) {
    EXPECT_EQ(rtcr_open(&options, &client_), RTCR_OK) << rtcr_last_error();
  }
  ~Publisher() { rtcr_close(client_); }
  Publisher(const Publisher&) = delete;
  Publisher& operator=(const Publisher&) = delete;

  // Publishes blob_of(program_id, generation, size_bytes), as a copy; the seq.
  std::uint64_t publish(std::uint64_t program_id, std::uint64_t generation, std::size_t size_bytes,
                        bool release_stored = false) {
    const std::vector<std::uint8_t> bytes = blob_of(program_id, generation, size_bytes);
    rtcr_checkpoint checkpoint = rtcr_checkpoint_init();
    checkpoint.source = RTCR_SOURCE_COPY;
    checkpoint.program_id = program_id;
    checkpoint.data = bytes.data();
    checkpoint.size_bytes = bytes.size();
    checkpoint.release_policy = release_stored ? RTCR_RELEASE_STORED : RTCR_RELEASE_REPLICATED;
    std::uint64_t seq = 0;
    EXPECT_EQ(rtcr_publish(client_, &checkpoint, &seq), RTCR_OK) << rtcr_last_error();
    return seq;
  }
  std::uint64_t publish_fd(std::uint64_t program_id, int fd) {
    rtcr_checkpoint checkpoint = rtcr_checkpoint_init();
    checkpoint.source = RTCR_SOURCE_FD;
    checkpoint.program_id = program_id;
    checkpoint.fd = fd;
    std::uint64_t seq = 0;
    EXPECT_EQ(rtcr_publish(client_, &checkpoint, &seq), RTCR_OK) << rtcr_last_error();
    return seq;
  }
  // An rtcr_status.
  int wait(std::uint64_t seq, int level = RTCR_STORED, std::int64_t timeout_ms = 60000) {
    return rtcr_wait(client_, seq, level, timeout_ms);
  }
  int withdraw(std::uint64_t program_id, std::int64_t timeout_ms = 60000) {
    return rtcr_withdraw(client_, program_id, timeout_ms);
  }
  // The newest STORED checkpoint; `status` an rtcr_status.
  std::vector<std::uint8_t> fetch_newest(std::uint64_t program_id, std::size_t capacity_bytes, int& status) {
    std::vector<std::uint8_t> bytes(capacity_bytes);
    rtcr_fetch fetch = rtcr_fetch_init();
    fetch.target = RTCR_TARGET_MEMORY;
    fetch.program_id = program_id;
    fetch.buffer = bytes.data();
    fetch.capacity_bytes = bytes.size();
    fetch.timeout_ms = 30000;
    rtcr_fetched fetched = rtcr_fetched_init();
    status = rtcr_fetch_newest(client_, &fetch, &fetched);
    bytes.resize(status == RTCR_OK ? fetched.size_bytes : 0);
    return bytes;
  }
  std::string key(std::uint64_t program_id) const { return ecu_mac_ + "/" + std::to_string(program_id); }
  rtcr_client* client() { return client_; }

 private:
  std::string ecu_mac_;
  rtcr_client* client_ = nullptr;
};

}  // namespace cms::test
