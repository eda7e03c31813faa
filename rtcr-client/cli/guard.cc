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
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <new>
#include <string>
#include <thread>

#include "base/assert.h"
#include "rtcr-client/cli/arguments.h"
#include "rtcr-client/cli/descendants.h"
#include "rtcr-client/cli/restore_command.h"

namespace cms::cli {
namespace {

constexpr int kGuardPriority = 50;

// Shared by the two.
struct Page {
  std::atomic<std::uint64_t> enforce_at_ns{0};
  std::atomic<bool> ended_in_order{false};
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

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
  void enforce_from(std::uint64_t boot_time_ns) override {
    page_.enforce_at_ns = boot_time_ns;
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

int kill_all(const char* why) {
  std::fprintf(stderr, "rtcr: %s: the guard kills the broker and its programs\n", why);
  kill_descendants();
  return kExitFailed;
}

void set_timer(int timer_fd, std::uint64_t enforce_at_ns) {
  itimerspec when{};  // Zero: never.
  if (enforce_at_ns != 0) {
    const std::uint64_t at_ns = enforce_at_ns + static_cast<std::uint64_t>(kGuardPatience.count());
    when.it_value.tv_sec = static_cast<time_t>(at_ns / 1000000000U);
    when.it_value.tv_nsec = static_cast<long>(at_ns % 1000000000U);
  }
  (void)::timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &when, nullptr);
}

int run_guard(pid_t broker, const Page& page, int changed_fd, int signal_fd) {
  take_precedence();
  const int timer_fd = checked_fd(::timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK));
  while (true) {
    const std::uint64_t enforce_at_ns = page.enforce_at_ns;
    const auto now_ns = static_cast<std::uint64_t>(BootClock::now().time_since_epoch().count());
    if (enforce_at_ns != 0 && now_ns >= enforce_at_ns + static_cast<std::uint64_t>(kGuardPatience.count()))
      return kill_all("the run lease has ended, and it is not certain that what is to stop has");
    set_timer(timer_fd, enforce_at_ns);
    std::array<pollfd, 3> items{{{signal_fd, POLLIN, 0}, {changed_fd, POLLIN, 0}, {timer_fd, POLLIN, 0}}};
    (void)::poll(items.data(), items.size(), -1);
    std::uint64_t count = 0;
    (void)!::read(changed_fd, &count, sizeof(count));
    signalfd_siginfo info{};
    while (::read(signal_fd, &info, sizeof(info)) == sizeof(info)) {
      if (info.ssi_signo != SIGCHLD) (void)::kill(broker, static_cast<int>(info.ssi_signo));
    }
    int ended = 0;
    for (pid_t child = 0; (child = ::waitpid(-1, &ended, WNOHANG)) > 0;) {
      if (child != broker) continue;  // One that was left behind.
      if (WIFEXITED(ended) && page.ended_in_order) return WEXITSTATUS(ended);
      return kill_all("the broker did not end in order");
    }
  }
}

}  // namespace

int run_with_guard(const std::function<int(GuardLink&)>& broker) {
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
    return kExitFailed;
  }
  if (child == 0) {
    ::close(life[1]);
    return run_broker(broker, page, changed_fd, life[0]);
  }
  ::close(life[0]);
  const int signal_fd = checked_fd(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  return run_guard(child, page, changed_fd, signal_fd);
}

}  // namespace cms::cli
