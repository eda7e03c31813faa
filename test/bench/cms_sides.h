#pragma once
// Publishers to one cmsd, or several: sessions of the client library in this process.
//
// Errors: they end the benchmark.
#include <cstdint>
#include <memory>
#include <string>

#include <rtcr/rtcr.h>

#include "test/bench/sides.h"

namespace cms::bench {

class Client {
 public:
  struct Options {
    std::string cms;  // As rtcr_options.cms.
    std::string ecu_mac;
    std::string advertise_host{};  // Where the CMS finds it, if not where it comes from.
    std::string bulk_ports{};
    std::uint32_t release_policy = RTCR_RELEASE_STORED;
  };
  explicit Client(const Options& options);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // Returns the seq. `data` must stay until it is STORED.
  std::uint64_t publish(std::uint64_t program_id, const void* data, std::uint64_t size_bytes);
  std::uint64_t publish_file(std::uint64_t program_id, int fd);
  void wait(std::uint64_t seq, std::int32_t state);
  void wait_stored(std::uint64_t seq) { wait(seq, RTCR_STORED); }
  void withdraw(std::uint64_t program_id);

 private:
  std::uint64_t publish(const rtcr_checkpoint& checkpoint);
  rtcr_checkpoint checkpoint_of(std::uint64_t program_id, std::uint64_t size_bytes) const;
  rtcr_client* client_ = nullptr;
  const std::uint32_t release_policy_;
};

// publish → STORED of a blob, from memory or from the file.
std::unique_ptr<Side> make_cms(const std::string& cms, bool from_file);
// So many programs of three sessions, published one after the other without waiting.
std::unique_ptr<Side> make_cms_many(const std::string& cms, std::size_t count, std::uint64_t size_bytes,
                                    const std::string& name = "cms, 3 sessions");

}  // namespace cms::bench
