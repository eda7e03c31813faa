#include "test/integration/ecu_process.h"

#include <filesystem>
#include <fstream>

#include "test/support/cmsd_process.h"
#include "test/support/publisher.h"

namespace cms::test {

EcuProcess::EcuProcess(const TempDir& dir, const std::string& cms, const std::string& ecu_mac,
                       const Options& options)
    : ecu_mac_(ecu_mac), restore_dir_(dir / ("restored-" + ecu_mac)) {
  std::vector<std::string> command = options.launcher;
  command.insert(command.end(), {program_path("rtcr"), "ecu", "--cms", cms, "--ecu-mac", ecu_mac,
                                 "--bulk-host", options.bulk_host});
  const std::string programs = dir / ("programs-" + ecu_mac);
  std::filesystem::create_directories(programs);
  for (std::uint64_t id = 1; id <= options.program_count; ++id) {
    const std::string path = programs + "/" + std::to_string(id);
    const auto bytes = blob_of(id, 1, options.size_bytes);
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    command.push_back("--program");
    command.push_back(std::to_string(id) + "=" + path);
  }
  if (options.is_target) {
    std::filesystem::create_directories(restore_dir_);
    command.push_back("--restore-dir");
    command.push_back(restore_dir_);
  }
  command.insert(command.end(), options.arguments.begin(), options.arguments.end());
  process_ = std::make_unique<Process>(command);
}

void EcuProcess::kill() {
  process_->signal(SIGKILL);
  process_->wait();
}

nlohmann::json EcuProcess::wait_for(const std::function<bool(const nlohmann::json&)>& wanted,
                                    std::chrono::milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (true) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) return nullptr;
    const std::string line = process_->read_line(left);
    if (line.empty()) return nullptr;
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (json.is_object() && wanted(json)) return json;
  }
}

nlohmann::json EcuProcess::wait_for_event(const std::string& event, std::chrono::milliseconds timeout) {
  return wait_for([&](const nlohmann::json& json) { return json.value("event", "") == event; }, timeout);
}

bool EcuProcess::wait_for_receipts(const std::string& level, std::size_t count,
                                   std::chrono::milliseconds timeout) {
  std::set<std::uint64_t> programs;
  return !wait_for(
              [&](const nlohmann::json& json) {
                if (json.value("event", "") == "receipt" && json.value("level", "") == level) {
                  programs.insert(json.value("program_id", std::uint64_t{0}));
                }
                return programs.size() >= count;
              },
              timeout)
              .is_null();
}

bool parse_restored_name(const std::string& name, ProgramId& program_id, ProgramKey& from) {
  const std::size_t first = name.find('-');
  const std::size_t last = name.rfind('-');
  if (first == std::string::npos || last == first) return false;
  const auto to = parse_u64(name.substr(0, first));
  const auto ecu_mac = parse_ecu_mac(name.substr(first + 1, last - first - 1));
  const auto id = parse_u64(name.substr(last + 1));
  if (!to.ok() || !ecu_mac.ok() || !id.ok()) return false;
  program_id = *to;
  from = ProgramKey{*ecu_mac, *id};
  return true;
}

std::multimap<ProgramKey, std::string> EcuProcess::restored() const {
  std::multimap<ProgramKey, std::string> found;
  for (const auto& entry : std::filesystem::directory_iterator(restore_dir_)) {
    ProgramId program_id = 0;
    ProgramKey from;
    const std::string name = entry.path().filename().string();
    if (parse_restored_name(name, program_id, from)) found.emplace(from, name);
  }
  return found;
}

}  // namespace cms::test
