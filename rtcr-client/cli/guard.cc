#include "rtcr-client/cli/guard.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <new>
#include <optional>
#include <string>
#include <thread>

#include "base/assert.h"
#include "rtcr-client/cli/arguments.h"
#include "rtcr-client/cli/descendants.h"
#include "rtcr-client/cli/restore_command.h"
#include "rtcr-client/cli/watchdog.h"

namespace cms::cli {
namespace {

constexpr int kGuardPriority = 50;

// Shared by the two.
struct Page {
  std::atomic<Duration::rep> ends_at_ns{kNever.time_since_epoch().count()};
  std::atomic<Duration::rep> enforce_at_ns{kNever.time_since_epoch().count()};
  std::atomic<bool> ended_in_order{false};

  LeaseTerms lease() const { return {Instant(Duration(ends_at_ns)), Instant(Duration(enforce_at_ns))}; }
};
static_assert(std::atomic<Duration::rep>::is_always_lock_free);

int checked_fd(int fd) {
  CMS_ASSERT(fd >= 0);
  return fd;
}

sigset_t set_of(std::initializer_list<int> numbers) {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : numbers) sigaddset(&signals, number);
  return signals;
}

// ---- in the broker

class BrokerLink final : public GuardLink {
 public:
  BrokerLink(Page& page, int changed_fd) : page_(page), changed_fd_(changed_fd) {}
  void tell(const LeaseTerms& lease) override {
    // One after the other: half of it allows nothing that neither the former nor the new terms would.
    page_.ends_at_ns = lease.ends_at.time_since_epoch().count();
    page_.enforce_at_ns = lease.enforce_at.time_since_epoch().count();
    const std::uint64_t one = 1;
    (void)!::write(changed_fd_, &one, sizeof(one));  // Full: it has not been read, and will be.
  }

 private:
  Page& page_;
  const int changed_fd_;
};

// Watches that the guard lives, and buries what the broker has adopted, on a thread of its own for ever.
void watch_guard(int guard_fd) {
  const sigset_t child = set_of({SIGCHLD});
  const int child_fd = checked_fd(::signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK));
  while (true) {
    std::array<pollfd, 2> items{{{guard_fd, POLLIN, 0}, {child_fd, POLLIN, 0}}};
    (void)::poll(items.data(), items.size(), -1);
    if (items[0].revents != 0) {
      static const char kText[] = "rtcr: the guard is gone: ends its programs with itself\n";
      (void)!::write(STDERR_FILENO, kText, sizeof(kText) - 1);
      end_commands();  // What one had begun would be missed.
      kill_descendants();
      ::_exit(kExitFailed);
    }
    if (items[1].revents != 0) {
      signalfd_siginfo info{};
      while (::read(child_fd, &info, sizeof(info)) > 0) {
      }
      reap_children(running_commands());
    }
  }
}

int run_broker(const std::function<int(GuardLink&)>& broker, Page& page, int changed_fd, int guard_fd) {
  (void)::prctl(PR_SET_CHILD_SUBREAPER, 1);
  std::thread(watch_guard, guard_fd).detach();  // The signals are blocked: of SIGCHLD it reads.
  BrokerLink link(page, changed_fd);
  const int code = broker(link);
  page.ended_in_order = true;
  return code;
}

// ---- in the guard

// Nothing may hold it up: neither a full memory nor a busy CPU.
void take_precedence() {
  std::string missing;
  if (::mlockall(MCL_CURRENT | MCL_FUTURE) != 0)
    missing = std::string("locked memory (") + std::strerror(errno) + ")";
  sched_param parameters{};
  parameters.sched_priority = kGuardPriority;
  if (::sched_setscheduler(0, SCHED_FIFO, &parameters) != 0) {
    missing += missing.empty() ? "" : ", ";
    missing += std::string("real-time priority (") + std::strerror(errno) + ")";
  }
  if (!missing.empty()) std::fprintf(stderr, "rtcr: the guard works without %s\n", missing.c_str());
}

// The watchdog stays armed: what is no descendant of ours may run on.
int kill_all(const char* why, const Watchdog* watchdog) {
  std::fprintf(stderr, "rtcr: %s: the guard kills the broker and its programs%s\n", why,
               watchdog == nullptr ? "" : ", and the watchdog will reset this host");
  kill_descendants();
  return kExitFailed;
}

void set_timer(int timer_fd, Instant at) {
  itimerspec when{};  // Zero: never.
  if (at != kNever) {
    const auto since_boot = at.time_since_epoch();
    const auto whole = std::chrono::floor<std::chrono::seconds>(since_boot);
    when.it_value.tv_sec = static_cast<time_t>(whole.count());
    when.it_value.tv_nsec = static_cast<long>((since_boot - whole).count());
  }
  (void)::timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &when, nullptr);
}

void pass_on_signals(pid_t broker, int signal_fd) {
  signalfd_siginfo info{};
  while (::read(signal_fd, &info, sizeof(info)) == sizeof(info)) {
    if (info.ssi_signo != SIGCHLD) (void)::kill(broker, static_cast<int>(info.ssi_signo));
  }
}

// What the broker ended with, as waitpid has it; nullopt: it runs.
std::optional<int> end_of(pid_t broker) {
  int ended = 0;
  for (pid_t child = 0; (child = ::waitpid(-1, &ended, WNOHANG)) > 0;) {
    if (child == broker) return ended;  // The others were left behind.
  }
  return std::nullopt;
}

// Its programs are those that it has left running on purpose.
int end_in_order(int ended, const Page& page, Watchdog* watchdog) {
  if (watchdog != nullptr && page.lease().enforce_at == kNever) watchdog->disarm();
  return WEXITSTATUS(ended);
}

int run_guard(pid_t broker, const Page& page, int changed_fd, int signal_fd, Watchdog* watchdog) {
  take_precedence();
  const int timer_fd = checked_fd(::timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK));
  while (true) {
    const LeaseTerms lease = page.lease();
    const Instant now = BootClock::now();
    Instant wake_at = lease.enforce_at == kNever ? kNever : lease.enforce_at + kGuardPatience;
    if (now >= wake_at)
      return kill_all("the run lease has ended, and it is not certain that what is to stop has", watchdog);
    if (watchdog != nullptr) wake_at = std::min(wake_at, watchdog->look(now, lease));
    set_timer(timer_fd, wake_at);
    std::array<pollfd, 3> items{{{signal_fd, POLLIN, 0}, {changed_fd, POLLIN, 0}, {timer_fd, POLLIN, 0}}};
    (void)::poll(items.data(), items.size(), -1);
    std::uint64_t count = 0;
    (void)!::read(changed_fd, &count, sizeof(count));
    pass_on_signals(broker, signal_fd);
    if (const auto ended = end_of(broker)) {
      if (WIFEXITED(*ended) && page.ended_in_order) return end_in_order(*ended, page, watchdog);
      return kill_all("the broker did not end in order", watchdog);
    }
  }
}

}  // namespace

int run_with_guard(const std::function<int(GuardLink&)>& broker, Watchdog* watchdog) {
  void* const memory =
      ::mmap(nullptr, sizeof(Page), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CMS_ASSERT(memory != MAP_FAILED);
  Page& page = *new (memory) Page;
  const sigset_t signals = set_of({SIGCHLD, SIGTERM, SIGINT});
  (void)::sigprocmask(SIG_BLOCK, &signals, nullptr);
  const int changed_fd = checked_fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  std::array<int, 2> life{};  // The guard has its other end: it is closed when the guard is gone.
  CMS_ASSERT(::pipe2(life.data(), O_CLOEXEC) == 0);
  (void)::prctl(PR_SET_CHILD_SUBREAPER, 1);
  const pid_t child = ::fork();
  if (child < 0) {
    std::fprintf(stderr, "rtcr: cannot fork the broker: %s\n", std::strerror(errno));
    if (watchdog != nullptr) watchdog->disarm();
    return kExitFailed;
  }
  if (child == 0) {
    ::close(life[1]);
    if (watchdog != nullptr) watchdog->close();
    return run_broker(broker, page, changed_fd, life[0]);
  }
  ::close(life[0]);
  const int signal_fd = checked_fd(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  return run_guard(child, page, changed_fd, signal_fd, watchdog);
}

}  // namespace cms::cli
