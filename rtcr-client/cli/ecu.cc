#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <climits>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "base/time.h"
#include "net/socket.h"
#include "rtcr-client/cli/commands.h"
#include "rtcr-client/cli/guard.h"
#include "rtcr-client/cli/json_lines.h"
#include "rtcr-client/cli/output_file.h"
#include "rtcr-client/cli/restore_site.h"
#include "rtcr-client/cli/terminal.h"
#include "rtcr-client/cli/watchdog.h"

namespace cms::cli {
namespace {

constexpr std::size_t kLineCountMax = 65536;
constexpr std::size_t kTextBytes = 64 * 1024;
constexpr std::chrono::milliseconds kForever{-1};
constexpr std::chrono::seconds kLastLinesPatience{1};
// A CMS that is away must not keep the others' scripts waiting.
constexpr std::chrono::milliseconds kReadyPatience{2000};

// Lines on their way to standard output, whose reader may be slow: neither the client's threads nor the
// end of the command wait for it.
class Lines {
 public:
  // Any thread.
  void add(std::string line) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (lines_.size() >= kLineCountMax) {
      ++lost_count_;
      return;
    }
    lines_.push_back(std::move(line));
    if (lines_.size() == 1) waker_.wake();
  }
  // Writes for as long as standard output takes something, or until `end_fd` is readable (-1: never) or
  // nothing was taken for `patience`. False: it cannot be written.
  bool print(int end_fd, std::chrono::milliseconds patience) {
    while (take()) {
      std::array<pollfd, 2> items{{{STDOUT_FILENO, POLLOUT, 0}, {end_fd, POLLIN, 0}}};
      const int ready = ::poll(items.data(), items.size(), static_cast<int>(patience.count()));
      if (ready < 0 && errno != EINTR) return false;
      if (ready == 0 || items[1].revents != 0) return true;
      if (items[0].revents == 0) continue;
      // So much at once never blocks where poll() says that there is room.
      const ssize_t count =
          ::write(STDOUT_FILENO, text_.data(), std::min<std::size_t>(text_.size(), PIPE_BUF));
      if (count < 0 && errno != EINTR && errno != EAGAIN) return false;
      if (count > 0) text_.erase(0, static_cast<std::size_t>(count));
    }
    return true;
  }
  // Waits for a line, for so long at most. True: `end_fd` is readable.
  bool wait(int end_fd, std::chrono::milliseconds patience) const {
    std::array<pollfd, 2> items{{{waker_.fd(), POLLIN, 0}, {end_fd, POLLIN, 0}}};
    // An interruption is a turn more.
    (void)::poll(items.data(), items.size(), static_cast<int>(patience.count()));
    return items[1].revents != 0;
  }

 private:
  // Whether there is text to write.
  bool take() {
    if (!text_.empty()) return true;
    waker_.drain();
    const std::lock_guard<std::mutex> lock(mutex_);
    for (; !lines_.empty() && text_.size() < kTextBytes; lines_.pop_front()) text_ += lines_.front() + '\n';
    if (lines_.empty() && lost_count_ > 0) text_ += json_of_lost(std::exchange(lost_count_, 0)) + '\n';
    return !text_.empty();
  }

  net::Waker waker_{};
  std::string text_{};  // Whole lines, but for what was written of the first.
  std::mutex mutex_{};  // Guards what follows.
  std::deque<std::string> lines_{};
  std::uint64_t lost_count_ = 0;
};

// A file of every program is held open until it is stored.
void allow_many_files() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &limit);  // What is too little shows when a file is opened.
}

// 0: none.
Instant instant_of(std::uint64_t boot_time_ns) {
  return boot_time_ns == 0 ? kNever : Instant(Duration(boot_time_ns));
}

class Ecu {
 public:
  // `guard`: nullptr, there is none.
  Ecu(const EcuArguments& arguments, GuardLink* guard)
      : arguments_(arguments),
        guard_(guard),
        site_(
            arguments, [this](std::string line) { lines_.add(std::move(line)); },
            [this](const rtcr::Facts& facts, int fd) { return opened_client().publish_file(facts, fd); }) {}

  int run(int end_fd) {
    if (const Status usable = check_folder(); !usable.ok()) return failed(usable.error());
    allow_many_files();
    rtcr::Options options;
    options.cms = arguments_.common.cms_text;
    options.ecu_mac = to_string(arguments_.common.ecu_mac);
    options.memory_budget_bytes = arguments_.memory_budget_bytes;
    options.bulk_ports = arguments_.bulk_ports;
    options.bulk_host = arguments_.bulk_host;
    options.advertise_host = arguments_.advertise_host;
    options.on_receipt = [this](const rtcr::Receipt& receipt) { on_receipt(receipt); };
    options.on_event = [this](const rtcr::Event& event) { on_event(event); };
    if (!arguments_.restore_dir.empty() || !arguments_.restore_command.empty())
      options.target = site_.target();
    options.source = site_.source();
    if (arguments_.guarded) {
      options.lease = site_.lease_handler();
      options.lease->on_lease = [this](const rtcr::Lease& lease) { on_lease(lease); };
    }
    {
      const std::lock_guard<std::mutex> lock(opening_);
      auto opened = rtcr::Client::open(options);
      if (!opened.ok()) return failed(opened.error());
      client_.emplace(std::move(opened).value());
    }
    for (const auto& [program_id, file] : arguments_.programs) {
      if (const rtcr::Status published = publish(program_id, file); !published.ok())
        return failed(published.error());
      if (!lines_.print(-1, std::chrono::milliseconds(0)))
        return failed(make_error(Code::kIo, "cannot write to standard output"));
    }
    if (arguments_.guarded) {
      if (const rtcr::Status told = client_->programs_told(); !told.ok()) return failed(told.error());
    }
    std::thread restarting([this] { restart_all(); });
    const Instant opened_at = BootClock::now();
    bool printed = true;
    bool is_ready = false;
    do {
      if (!is_ready) {
        is_ready = sessions_stand(opened_at);
        if (is_ready) lines_.add(json_of_ready(arguments_.common.ecu_mac, arguments_.programs.size()));
      }
      printed = lines_.print(end_fd, kForever);
    } while (printed && !lines_.wait(end_fd, is_ready ? kForever : kReadyPatience));
    ending_ = true;
    restarting.join();
    const bool closed = client_->close().ok();  // With what it still has to say.
    return printed && lines_.print(-1, kLastLinesPatience) && closed ? kExitDone : kExitFailed;
  }

 private:
  // A restore may come as far as that before open() has returned.
  rtcr::Client& opened_client() {
    const std::lock_guard<std::mutex> lock(opening_);
    return *client_;
  }

  // Every CMS has answered; or one has a session with us, and others had time to.
  bool sessions_stand(Instant opened_at) {
    const std::lock_guard<std::mutex> lock(answers_);
    if (answered_.size() == arguments_.common.cms.size() && any_live_) return true;
    return any_live_ && BootClock::now() - opened_at >= kReadyPatience;
  }

  void on_event(const rtcr::Event& event) {
    {
      const std::lock_guard<std::mutex> lock(answers_);
      if (event.kind != RTCR_CMS_SILENT) answered_.insert(event.cms_index);
      if (event.kind == RTCR_CMS_LIVE) any_live_ = true;
    }
    lines_.add(json_of_event(event));
  }

  void on_lease(const rtcr::Lease& lease) {
    if (guard_ != nullptr) guard_->tell({instant_of(lease.ends_at_ns), instant_of(lease.enforce_at_ns)});
    if (std::exchange(lease_lives_, lease.lives) == lease.lives && lease.reason.empty()) return;  // Renewed.
    lines_.add(json_of_lease(arguments_.common.ecu_mac, lease));
  }

  Status check_folder() const {
    const std::string& folder = arguments_.restore_dir;
    if (folder.empty()) return ok_status();
    struct stat status {};
    if (::stat(folder.c_str(), &status) != 0) return error_from_errno(errno, "--restore-dir " + folder);
    if (!S_ISDIR(status.st_mode))
      return make_error(Code::kInvalidArgument, "--restore-dir " + folder + ": not a directory");
    return ok_status();
  }

  // One after the other: each comes with the network's full width.
  void restart_all() {
    for (const auto& [program_id, file] : arguments_.restarts) {
      while (!ending_) {
        const rtcr::Status restarted = restart(program_id, file);
        if (restarted.ok()) break;
        const int code = restarted.error().status;
        // Not for good: no session yet, no CMS, or somebody restores it at this moment.
        const bool again = !ending_ && (code == RTCR_E_TIMEOUT || code == RTCR_E_UNAVAILABLE ||
                                        code == RTCR_E_ALREADY_EXISTS || code == RTCR_E_LIMIT);
        lines_.add(json_of_restart_failed(arguments_.common.ecu_mac, program_id, restarted.error(), again));
        if (!again) break;
      }
    }
  }

  rtcr::Status restart(ProgramId program_id, const std::string& file) {
    const auto output = OutputFile::create(file);
    if (!output.ok()) return rtcr::Error{RTCR_E_IO, output.error().message()};
    Status written;
    const auto fetched = client_->fetch_newest(
        program_id, [&](const void* data, std::uint64_t size_bytes, std::uint64_t, std::uint64_t) {
          written = (*output)->write(data, size_bytes);
          return written.ok();
        });
    if (!written.ok()) return rtcr::Error{RTCR_E_IO, written.error().message()};
    if (!fetched.ok()) return fetched.error();
    rtcr::Status goes_on;
    if (const Status finished = (*output)->finish(); !finished.ok()) {
      goes_on = rtcr::Error{RTCR_E_IO, finished.error().message()};
    } else {
      lines_.add(json_of_restarted(arguments_.common.ecu_mac, program_id, file));
      goes_on = publish(program_id, file);
    }
    if (!goes_on.ok()) (void)client_->program_ended(program_id);  // It is ours, and does not run.
    return goes_on;
  }

  rtcr::Status publish(ProgramId program_id, const std::string& file) {
    const auto fd = open_state(file);
    if (!fd.ok()) return fd.error();
    rtcr::Facts facts;
    facts.program_id = program_id;
    facts.on_isolation = static_cast<rtcr_on_isolation>(arguments_.on_isolation);
    facts.on_loss = static_cast<rtcr_on_loss>(arguments_.on_loss);
    const auto seq = client_->publish_file(facts, fd.value());
    ::close(fd.value());
    if (!seq.ok()) return rtcr::Error{seq.status(), file + ": " + seq.error().detail};
    site_.note_published(program_id, seq.value());
    lines_.add(json_of_published(arguments_.common.ecu_mac, program_id, seq.value(), file));
    return rtcr::Status();
  }

  void on_receipt(const rtcr::Receipt& receipt) {
    lines_.add(json_of_receipt(arguments_.common.ecu_mac, receipt));
    if (receipt.level == RTCR_FENCED && site_.on_fenced(receipt.program_id, receipt.seq))
      lines_.add(json_of_fenced(arguments_.common.ecu_mac, receipt));
  }

  int failed(const Error& error) const {
    print_error(arguments_.common, error.code, "ecu: " + error.message());
    return kExitFailed;
  }
  int failed(const rtcr::Error& error) const {
    const Code code = error.status <= RTCR_E_PUBLISHER_GONE ? static_cast<Code>(error.status) : Code::kIo;
    print_error(arguments_.common, code, "ecu: " + error.detail);
    return kExitFailed;
  }

  const EcuArguments& arguments_;
  GuardLink* const guard_;
  bool lease_lives_ = false;  // On the client's thread.
  Lines lines_{};
  std::mutex opening_{};
  std::mutex answers_{};  // Guards the next two.
  std::set<std::size_t> answered_{};
  bool any_live_ = false;
  std::atomic<bool> ending_{false};
  RestoreSite site_;
  std::optional<rtcr::Client> client_{};  // Last: its threads use what is above.
};

}  // namespace

int run_ecu(const EcuArguments& arguments) {
  const auto run = [&arguments](GuardLink* guard) {
    const EndSignals signals;
    return Ecu(arguments, guard).run(signals.fd());
  };
  if (!arguments.guarded || arguments.enforcer == wire::Enforcer::kNone) return run(nullptr);
  std::unique_ptr<Watchdog> watchdog;
  if (arguments.enforcer == wire::Enforcer::kWatchdog) {
    auto opened = Watchdog::open(arguments.watchdog);
    if (!opened.ok()) {
      print_error(arguments.common, opened.error().code, "ecu: --watchdog: " + opened.error().message());
      return kExitFailed;
    }
    watchdog = std::move(opened).value();
  }
  return run_with_guard([&run](GuardLink& guard) { return run(&guard); }, watchdog.get());
}

}  // namespace cms::cli
