#include "test/bench/cms_sides.h"

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <utility>
#include <vector>

#include "base/assert.h"
#include "test/bench/bench.h"

namespace cms::bench {
namespace {

[[noreturn]] void fail(const std::string& what) {
  std::cerr << "publisher: " << what << '\n';
  std::exit(1);
}

// publish → STORED of a blob, from memory or from the file.
class CmsSide : public Side {
 public:
  CmsSide(const std::string& cms, bool from_file)
      : from_file_(from_file), client_({cms, from_file ? "02:00:00:00:00:02" : "02:00:00:00:00:01"}) {}
  std::string name() const override { return from_file_ ? "cms, from a file" : "cms"; }
  bool counts() const override { return false; }
  double store(const Source& source) override {
    if (!from_file_) {
      const Stopwatch watch;
      client_.wait_stored(client_.publish(kProgram, source.data, source.size_bytes));
      return watch.seconds();
    }
    std::FILE* file = std::fopen(source.path.c_str(), "r");
    CMS_ASSERT(file != nullptr);
    const Stopwatch watch;
    client_.wait_stored(client_.publish_file(kProgram, ::fileno(file)));
    const double seconds = watch.seconds();
    std::fclose(file);
    return seconds;
  }
  void clean_up() override { client_.withdraw(kProgram); }

 private:
  static constexpr std::uint64_t kProgram = 7;
  bool from_file_;
  Client client_;
};

// Programs of three sessions, published one after the other without waiting.
class CmsManySide : public Side {
 public:
  CmsManySide(const std::string& cms, std::size_t count, std::uint64_t size_bytes, std::string name)
      : count_(count), size_bytes_(size_bytes), name_(std::move(name)) {
    for (const char* ecu_mac : {"02:00:00:00:01:01", "02:00:00:00:01:02", "02:00:00:00:01:03"}) {
      clients_.push_back(std::make_unique<Client>(Client::Options{cms, ecu_mac}));
    }
  }
  std::string name() const override { return name_; }
  bool counts() const override { return false; }
  double store(const Source& source) override {
    const auto* bytes = static_cast<const char*>(source.data);
    std::vector<std::uint64_t> seqs(count_);
    const Stopwatch watch;
    for (std::size_t i = 0; i < count_; ++i) {
      seqs[i] = clients_[i % clients_.size()]->publish(i, bytes + i * size_bytes_, size_bytes_);
    }
    for (std::size_t i = 0; i < count_; ++i) clients_[i % clients_.size()]->wait_stored(seqs[i]);
    return watch.seconds();
  }
  void clean_up() override {}  // Nobody else's files are removed between the runs either.

 private:
  std::size_t count_;
  std::uint64_t size_bytes_;
  const std::string name_;
  std::vector<std::unique_ptr<Client>> clients_;
};

}  // namespace

Client::Client(const Options& from) : release_policy_(from.release_policy) {
  rtcr_options options = rtcr_options_init();
  options.cms = from.cms.c_str();
  options.ecu_mac = from.ecu_mac.c_str();
  options.bulk_host = "127.0.0.1";
  options.memory_budget_bytes = 4 * kGiB;
  if (!from.advertise_host.empty()) options.advertise_host = from.advertise_host.c_str();
  if (!from.bulk_ports.empty()) options.bulk_ports = from.bulk_ports.c_str();
  if (rtcr_open(&options, &client_) != RTCR_OK) fail(rtcr_last_error());
}

Client::~Client() { rtcr_close(client_); }

rtcr_checkpoint Client::checkpoint_of(std::uint64_t program_id, std::uint64_t size_bytes) const {
  rtcr_checkpoint checkpoint = rtcr_checkpoint_init();
  checkpoint.program_id = program_id;
  checkpoint.program_name = "bench";
  checkpoint.size_bytes = size_bytes;
  checkpoint.release_policy = release_policy_;
  return checkpoint;
}

std::uint64_t Client::publish(std::uint64_t program_id, const void* data, std::uint64_t size_bytes) {
  rtcr_checkpoint checkpoint = checkpoint_of(program_id, size_bytes);
  checkpoint.source = RTCR_SOURCE_MEMORY;
  checkpoint.data = data;
  return publish(checkpoint);
}

std::uint64_t Client::publish_file(std::uint64_t program_id, int fd) {
  rtcr_checkpoint checkpoint = checkpoint_of(program_id, 0);
  checkpoint.source = RTCR_SOURCE_FD;
  checkpoint.fd = fd;
  return publish(checkpoint);
}

std::uint64_t Client::publish(const rtcr_checkpoint& checkpoint) {
  std::uint64_t seq = 0;
  if (rtcr_publish(client_, &checkpoint, &seq) != RTCR_OK) fail(rtcr_last_error());
  return seq;
}

void Client::wait(std::uint64_t seq, std::int32_t state) {
  if (rtcr_wait(client_, seq, state, 300000) != RTCR_OK) fail(rtcr_last_error());
}

void Client::withdraw(std::uint64_t program_id) {
  if (rtcr_withdraw(client_, program_id, 60000) != RTCR_OK) fail(rtcr_last_error());
}

std::unique_ptr<Side> make_cms(const std::string& cms, bool from_file) {
  return std::make_unique<CmsSide>(cms, from_file);
}

std::unique_ptr<Side> make_cms_many(const std::string& cms, std::size_t count, std::uint64_t size_bytes,
                                    const std::string& name) {
  return std::make_unique<CmsManySide>(cms, count, size_bytes, name);
}

}  // namespace cms::bench
