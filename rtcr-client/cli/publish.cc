#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <mutex>
#include <optional>
#include <string>

#include "rtcr-client/cli/commands.h"
#include "rtcr-client/cli/json_lines.h"
#include "rtcr-client/cli/session.h"
#include "rtcr-client/cli/terminal.h"
#include "rtcr-client/cli/values.h"
#include "rtcr-client/src/client.h"

namespace cms::cli {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

Status write_to_memfd(int fd, const char* data, std::size_t size_bytes) {
  while (size_bytes > 0) {
    const ssize_t count = ::write(fd, data, size_bytes);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return error_from_errno(errno, "keep standard input in memory");
    data += count;
    size_bytes -= static_cast<std::size_t>(count);
  }
  return ok_status();
}

// All of standard input in a sealed memfd, which is then sent without a copy.
Result<Descriptor> read_standard_input(std::uint64_t size_bytes_max, int end_fd) {
  Descriptor memory(::memfd_create("rtcr-stdin", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (memory.get() < 0) return error_from_errno(errno, "memfd_create");
  std::array<char, 64 * 1024> buffer{};
  std::uint64_t size_bytes = 0;
  while (true) {
    std::array<pollfd, 2> items{{{STDIN_FILENO, POLLIN, 0}, {end_fd, POLLIN, 0}}};
    if (::poll(items.data(), items.size(), -1) < 0 && errno != EINTR) return error_from_errno(errno, "poll");
    if (items[1].revents != 0) return make_error(Code::kCancelled, "ended by a signal");
    const ssize_t count = ::read(STDIN_FILENO, buffer.data(), buffer.size());
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (count < 0) return error_from_errno(errno, "read standard input");
    if (count == 0) break;
    size_bytes += static_cast<std::uint64_t>(count);
    if (size_bytes > size_bytes_max) {
      return make_error(Code::kLimit, "standard input has more than " + size_text(size_bytes_max) +
                                          ", which is what --memory-budget allows");
    }
    const Status written = write_to_memfd(memory.get(), buffer.data(), static_cast<std::size_t>(count));
    if (!written.ok()) return written.error();
  }
  if (::fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) != 0) {
    return error_from_errno(errno, "seal what was read from standard input");
  }
  return memory;
}

Result<Descriptor> open_input(const PublishArguments& arguments, int end_fd) {
  if (arguments.file == "-") {
    const std::uint64_t budget =
        arguments.memory_budget_bytes == 0 ? client::kMemoryBudgetBytes : arguments.memory_budget_bytes;
    return read_standard_input(budget, end_fd);
  }
  Descriptor file(
      ::open(arguments.file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));  // A FIFO must not block.
  if (file.get() < 0) return error_from_errno(errno, "open " + arguments.file);
  return file;
}

// Waits until the checkpoint has come as far as it shall, printing each receipt on the way.
class Publication {
 public:
  Publication(const PublishArguments& arguments, Session& session, std::uint64_t seq,
              std::uint64_t size_bytes)
      : arguments_(arguments), session_(session), seq_(seq), progress_("published", size_bytes) {}

  int wait(int end_fd) {
    Instant progress_at = BootClock::now();
    std::uint64_t served_before = 0;
    while (true) {
      const Instant deadline = progress_at + arguments_.common.timeout;
      std::array<pollfd, 2> items{{{session_.client().poll_fd(), POLLIN, 0}, {end_fd, POLLIN, 0}}};
      const Duration left = std::min<Duration>(deadline - BootClock::now(), progress_.interval());
      const auto left_ms =
          std::chrono::ceil<std::chrono::milliseconds>(std::max(left, Duration::zero())).count();
      (void)::poll(items.data(), items.size(),
                   static_cast<int>(std::min<std::int64_t>(left_ms, 60 * 60 * 1000)));
      while (const auto receipt = session_.client().next_receipt()) {
        progress_at = BootClock::now();
        if (const auto code = on_receipt(*receipt)) return *code;
      }
      if (items[1].revents != 0) return failed(Code::kCancelled, "ended by a signal");
      const auto stats = session_.client().stats();
      if (!stats.ok()) return failed(Code::kIo, stats.error().detail);
      if (stats.value().served_bytes != served_before) {
        served_before = stats.value().served_bytes;
        progress_at = BootClock::now();
        progress_.show(served_before);
      } else if (BootClock::now() >= deadline) {
        return timed_out();
      }
    }
  }

 private:
  // The exit code, when it is known.
  std::optional<int> on_receipt(const rtcr::Receipt& receipt) {
    progress_.clear();
    const EcuMac ecu_mac = arguments_.common.ecu_mac;
    const CheckpointId checkpoint{ProgramKey{ecu_mac, receipt.program_id},
                                  Version{receipt.incarnation, receipt.seq}};
    std::string line;
    if (arguments_.common.output == Output::kJson) {
      line = json_of_receipt(ecu_mac, receipt);
    } else {
      line = std::string(rtcr_level_string(receipt.level)) + "  " + to_string(checkpoint);
      if (receipt.code != RTCR_OK) line += std::string("  ") + rtcr_error_string(receipt.code);
      if (!receipt.reason.empty()) line += "  " + receipt.reason;
    }
    if (!print_line(line)) return failed(Code::kIo, "cannot write to standard output");
    if (receipt.seq != seq_) return std::nullopt;
    if (receipt.level <= RTCR_VERIFIED && receipt.level >= static_cast<int>(arguments_.wait))
      return kExitDone;
    if (!receipt.final) return std::nullopt;
    std::fprintf(stderr, "rtcr: publish %s: ended as %s\n", to_string(checkpoint).c_str(),
                 rtcr_level_string(receipt.level));
    return kExitFailed;
  }

  int failed(Code code, const std::string& text) {
    progress_.clear();
    print_error(arguments_.common, code, "publish: " + text);
    return kExitFailed;
  }

  int timed_out() {
    progress_.clear();
    const std::string wanted(to_string(arguments_.wait));
    return session_.report_timeout("publish: not " + wanted);
  }

  const PublishArguments& arguments_;
  Session& session_;
  std::uint64_t seq_;
  Progress progress_;
};

}  // namespace

int run_publish(const PublishArguments& arguments, int end_fd) {
  const CommonArguments& common = arguments.common;
  const auto failed = [&](Code code, const std::string& text) {
    print_error(common, code, "publish " + arguments.file + ": " + text);
    return kExitFailed;
  };
  const auto input = open_input(arguments, end_fd);
  if (!input.ok()) return failed(input.error().code, input.error().message());
  struct stat status {};
  if (::fstat(input->get(), &status) != 0)
    return failed(Code::kIo, error_from_errno(errno, "fstat").message());
  if (!S_ISREG(status.st_mode)) return failed(Code::kInvalidArgument, "not a regular file; use - and a pipe");

  rtcr::Options options;
  options.memory_budget_bytes = arguments.memory_budget_bytes;
  options.bulk_ports = arguments.bulk_ports;
  options.bulk_host = arguments.bulk_host;
  options.advertise_host = arguments.advertise_host;
  Session session(common);
  if (const auto opened = session.open(options); !opened.ok())
    return session.report(opened.error(), "publish");

  rtcr::Facts facts;
  facts.program_id = common.program_id;
  facts.program_name = arguments.program_name;
  facts.release = arguments.release == wire::Release::kStored ? RTCR_RELEASE_STORED : RTCR_RELEASE_REPLICATED;
  if (arguments.new_lineage) facts.lineage = rtcr::new_lineage();
  const auto seq = session.client().publish_file(facts, input->get());
  if (!seq.ok()) return session.report(seq.error(), "publish");
  return Publication(arguments, session, seq.value(), static_cast<std::uint64_t>(status.st_size))
      .wait(end_fd);
}

}  // namespace cms::cli
