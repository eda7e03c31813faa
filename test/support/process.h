#pragma once
// Child processes of a test: started with arguments and environment, killed and waited for. A child
// dies with the test.
#include <sys/types.h>
#include <chrono>
#include <map>
#include <string>
#include <vector>

namespace cms::test {

class Process {
 public:
  struct Options {
    std::map<std::string, std::string> environment;  // Added to ours.
    std::string stdin_path = "/dev/null";
    std::string stderr_path;  // Empty: ours.
  };
  // Fails the process (exit code 127) when `program` cannot be run.
  explicit Process(const std::vector<std::string>& command) : Process(command, Options{}) {}
  Process(const std::vector<std::string>& command, const Options& options);
  ~Process();  // Kills it with SIGKILL if it still runs.
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t pid() const { return pid_; }
  void signal(int number) const;
  // Waits for its end. Exit code, or 128 + the number of the signal that ended it. -1: it still ran
  // after `timeout`; then it goes on running. What it writes meanwhile is kept for output() and read_line().
  int wait(std::chrono::milliseconds timeout = std::chrono::seconds(60));
  // Until it stands still by SIGSTOP (true) or has ended; as long as that takes.
  bool wait_stopped();
  bool running() { return wait(std::chrono::milliseconds(0)) == -1; }
  // What it has written to stdout until its end; call after wait().
  std::string output();
  // The next line of stdout without its end; empty: it has ended or `timeout` is over.
  std::string read_line(std::chrono::milliseconds timeout = std::chrono::seconds(60));

 private:
  bool read_some();  // False: at the end of its stdout.

  pid_t pid_ = -1;
  int pid_fd_ = -1;  // Readable when it has ended.
  int stdout_fd_ = -1;
  bool at_end_ = false;
  int exit_code_ = -1;
  std::string buffer_;  // Of its stdout, read and not yet given out.
};

}  // namespace cms::test
