#pragma once
// A real cmsd for a test: on ports of its own, ready when the constructor returns, restartable on the
// same store, index and ports.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "test/support/process.h"
#include "test/support/temp_dir.h"

namespace cms::test {

// Where the build put the programs: set by CMake.
std::string program_path(const std::string& name);

class CmsdProcess {
 public:
  struct Options {
    std::string name = "a";
    std::string index_path;                // Empty: index-NAME in the directory.
    std::string crash_point;               // CMS_CRASH_POINT of the first start.
    std::vector<std::string> arguments{};  // Added to the command line.
    bool make_store = true;                // false: the store directory is left out.
    bool expect_ready = true;
  };
  explicit CmsdProcess(const TempDir& dir) : CmsdProcess(dir, Options{}) {}
  CmsdProcess(const TempDir& dir, const Options& options);
  ~CmsdProcess();

  void start(const std::string& crash_point = "");
  void kill();      // -9, and waits.
  int terminate();  // SIGTERM; the exit code.
  int wait() { return process_->wait(); }
  Process& process() { return *process_; }

  std::string endpoint() const { return "tcp://127.0.0.1:" + std::to_string(port_base_); }
  std::uint16_t port_base() const { return port_base_; }
  std::string admin() const { return "ipc://" + dir_.path() + "/" + options_.name + ".sock"; }
  std::string store_path() const { return dir_.path() + "/store"; }
  std::string index_path() const {
    return options_.index_path.empty() ? dir_.path() + "/index-" + options_.name : options_.index_path;
  }
  std::string log_path() const { return dir_.path() + "/" + options_.name + ".log"; }
  std::string log() const;

  struct Outcome {
    int exit_code = -1;
    std::string output;
  };
  // Runs cms-admin against this cmsd.
  Outcome admin(std::vector<std::string> arguments) const;
  // Peak resident memory without file mappings, in bytes (VmHWM less RssFile).
  std::uint64_t peak_memory_bytes() const;

 private:
  const TempDir& dir_;
  Options options_;
  std::uint16_t port_base_ = 0;
  std::unique_ptr<Process> process_;
};

}  // namespace cms::test
