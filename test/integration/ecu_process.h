#pragma once
// `rtcr ecu` as a test's ECU: its programs are files that it publishes, what is restored on it are files in its
// directory, and all that happens is read from the lines that it prints.
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/ids.h"
#include "test/support/process.h"
#include "test/support/temp_dir.h"

namespace cms::test {

class EcuProcess {
 public:
  struct Options {
    std::uint64_t program_count = 0;  // From program_id 1 on, of blob_of(id, 1, size_bytes).
    std::size_t size_bytes = 4096;
    bool is_target = false;
    std::vector<std::string> arguments{};
    std::string bulk_host = "127.0.0.1";
    std::vector<std::string> launcher{};  // Stands before the program and becomes it: `ip netns exec NAME`.
  };
  // `cms`: for --cms. Files and directories are made in `dir`.
  EcuProcess(const TempDir& dir, const std::string& cms, const std::string& ecu_mac, const Options& options);

  const std::string& ecu_mac() const { return ecu_mac_; }
  Process& process() { return *process_; }
  void kill();
  // Whether so many of its programs got a receipt of that level, within `timeout`.
  bool wait_for_receipts(const std::string& level, std::size_t count,
                         std::chrono::milliseconds timeout = std::chrono::seconds(60));
  // Reads lines until one that `wanted` takes; null: none came in time.
  nlohmann::json wait_for(const std::function<bool(const nlohmann::json&)>& wanted,
                          std::chrono::milliseconds timeout = std::chrono::seconds(60));
  nlohmann::json wait_for_event(const std::string& event,
                                std::chrono::milliseconds timeout = std::chrono::seconds(60));
  std::string restore_dir() const { return restore_dir_; }
  // What was restored here: old program key -> the files, by name.
  std::multimap<ProgramKey, std::string> restored() const;

 private:
  std::string ecu_mac_;
  std::string restore_dir_;
  std::unique_ptr<Process> process_;
};

// `<new program_id>-<old ecu_mac>-<old program_id>`; false: it is no such name.
bool parse_restored_name(const std::string& name, ProgramId& program_id, ProgramKey& from);

}  // namespace cms::test
