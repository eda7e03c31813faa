#pragma once
// A real cmsd for a test: on ports of its own, ready when the constructor returns, restartable on the
// same store, index and ports.
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "test/support/process.h"
#include "test/support/temp_dir.h"

namespace cms::test {

// Where the build put the programs: set by CMake.
std::string program_path(const std::string& name);
// So many different port bases, all of whose ports were free on loopback a moment ago.
std::vector<std::uint16_t> free_port_bases(std::size_t count);

class CmsdProcess {
 public:
  struct Options {
    std::string name = "a";
    std::string index_path;                // Empty: index-NAME in the directory.
    std::string crash_point;               // CMS_CRASH_POINT of the first start.
    std::vector<std::string> arguments{};  // Added to the command line.
    bool make_store = true;                // false: the store directory is left out.
    bool expect_ready = true;
    std::uint16_t port_base = 0;  // 0: one that is free.
    std::string bind = "127.0.0.1";
    std::string files;                    // What its log and its socket are called; empty: as itself.
    std::string store = "store";          // In the directory.
    std::string store_url;                // Instead of a directory.
    std::vector<std::string> launcher{};  // Stands before the program and becomes it: `ip netns exec NAME`.
  };
  explicit CmsdProcess(const TempDir& dir) : CmsdProcess(dir, Options{}) {}
  CmsdProcess(const TempDir& dir, const Options& options);
  ~CmsdProcess();

  void start(const std::string& crash_point = "");
  void kill();      // -9, and waits.
  int terminate();  // SIGTERM; the exit code.
  // As Process::wait.
  int wait(std::chrono::milliseconds timeout = std::chrono::seconds(60)) { return process_->wait(timeout); }
  Process& process() { return *process_; }

  std::string endpoint() const { return "tcp://" + options_.bind + ":" + std::to_string(port_base_); }
  std::uint16_t port_base() const { return port_base_; }
  const std::string& name() const { return options_.name; }
  std::string admin() const { return "ipc://" + dir_.path() + "/" + files() + ".sock"; }
  std::string store_path() const { return dir_.path() + "/" + options_.store; }
  std::string index_path() const {
    return options_.index_path.empty() ? dir_.path() + "/index-" + files() : options_.index_path;
  }
  std::string log_path() const { return dir_.path() + "/" + files() + ".log"; }
  std::string log() const;  // Of all its starts.
  std::size_t count_in_log(const std::string& text) const;
  // Waits until the log has `text` so often. False: not within `timeout`.
  bool wait_for_log(const std::string& text, std::size_t count = 1,
                    std::chrono::milliseconds timeout = std::chrono::seconds(30)) const;

  struct Outcome {
    int exit_code = -1;
    std::string output;
    std::string errors;
  };
  // Runs cms-admin against this cmsd.
  Outcome admin(std::vector<std::string> arguments) const;
  // Peak resident memory without file mappings, in bytes (VmHWM less RssFile).
  std::uint64_t peak_memory_bytes() const;

 private:
  const std::string& files() const { return options_.files.empty() ? options_.name : options_.files; }

  const TempDir& dir_;
  Options options_;
  std::uint16_t port_base_ = 0;
  std::unique_ptr<Process> process_;
};

}  // namespace cms::test
