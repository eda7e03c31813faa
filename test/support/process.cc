#include "test/support/process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cerrno>
#include <csignal>
#include <cstdlib>

#include "base/assert.h"

namespace cms::test {
namespace {

// Until one of `items` is ready, or `deadline` (false).
template <std::size_t kCount>
bool poll_until(pollfd (&items)[kCount], std::chrono::steady_clock::time_point deadline) {
  while (true) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    const int ready = ::poll(items, kCount, left.count() < 0 ? 0 : static_cast<int>(left.count()));
    if (ready > 0) return true;
    if (ready == 0) return false;
    CMS_ASSERT(errno == EINTR);
  }
}

}  // namespace

Process::Process(const std::vector<std::string>& command, const Options& options) {
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  int out[2];
  CMS_ASSERT(::pipe2(out, O_CLOEXEC) == 0);
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  CMS_ASSERT(pid_ >= 0);
  if (pid_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(127);
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::dup2(out[1], STDOUT_FILENO);
    const int in = ::open(options.stdin_path.c_str(), O_RDONLY);
    if (in >= 0) ::dup2(in, STDIN_FILENO);
    if (!options.stderr_path.empty()) {
      const int err = ::open(options.stderr_path.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
      if (err >= 0) ::dup2(err, STDERR_FILENO);
    }
    for (const auto& [name, value] : options.environment) ::setenv(name.c_str(), value.c_str(), 1);
    ::execvp(arguments[0], arguments.data());
    ::_exit(127);
  }
  ::close(out[1]);
  stdout_fd_ = out[0];
  pid_fd_ = static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0));
  CMS_ASSERT(pid_fd_ >= 0);
}

Process::~Process() {
  if (exit_code_ == -1) {
    ::kill(pid_, SIGKILL);
    (void)wait();
  }
  ::close(pid_fd_);
  ::close(stdout_fd_);
}

void Process::signal(int number) const {
  if (exit_code_ == -1) ::kill(pid_, number);
}

bool Process::read_some() {
  char bytes[65536];
  const ssize_t got = ::read(stdout_fd_, bytes, sizeof(bytes));
  if (got > 0) buffer_.append(bytes, static_cast<std::size_t>(got));
  at_end_ = got <= 0;
  return !at_end_;
}

int Process::wait(std::chrono::milliseconds timeout) {
  if (exit_code_ != -1) return exit_code_;
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (true) {
    // What it writes is taken while it runs: a full pipe would keep it from its end.
    pollfd items[] = {{pid_fd_, POLLIN, 0}, {at_end_ ? -1 : stdout_fd_, POLLIN, 0}};
    if (!poll_until(items, deadline)) return -1;
    if (items[1].revents != 0) (void)read_some();
    if (items[0].revents != 0) break;
  }
  int status = 0;
  CMS_ASSERT(::waitpid(pid_, &status, 0) == pid_);
  exit_code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return exit_code_;
}

bool Process::wait_stopped() {
  if (exit_code_ != -1) return false;
  siginfo_t info{};
  CMS_ASSERT(::waitid(P_PID, static_cast<id_t>(pid_), &info, WSTOPPED | WEXITED | WNOWAIT) == 0);
  return info.si_code == CLD_STOPPED;
}

std::string Process::output() {
  while (!at_end_) (void)read_some();
  return buffer_;
}

std::string Process::read_line(std::chrono::milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (true) {
    const std::size_t end = buffer_.find('\n');
    if (end != std::string::npos) {
      std::string line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return line;
    }
    pollfd items[] = {{stdout_fd_, POLLIN, 0}};
    if (at_end_ || !poll_until(items, deadline) || !read_some()) return {};
  }
}

}  // namespace cms::test
