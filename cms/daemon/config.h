#pragma once
// What cmsd is told: by flags, by environment variables, by a TOML file, in this order of precedence.
// One table (config.cc) has every option, and --help is made from it. Whatever is wrong is refused
// with its place (flag, variable, or file, line and key) and what is allowed.
//
// Threads: none; called once, first of all. Reads the environment and one file, changes nothing.
#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/time.h"
#include "cms/core/placement.h"
#include "cms/core/retention.h"
#include "net/endpoint.h"

namespace cms::daemon {

struct Config {
  std::string name;       // 1 to 64 letters, digits, '-', '_', '.'; not '-' or '.' first.
  std::string store_url;  // As storage::check_store_url has it.
  std::string index_directory;
  std::uint16_t port_base = net::kDefaultPortBase;
  std::string bind;   // "*" or an IP address, IPv6 without brackets: Endpoint{bind, port_base}.channel(…)
  std::string admin;  // To be bound: "ipc:///run/cms/a.sock", "tcp://127.0.0.1:7404".
  std::vector<net::Endpoint> peers;  // None twice, none of them this cmsd as far as one can tell.
  bool pull_every = false;
  core::RetentionPolicy retention;
  std::uint64_t pull_budget_bytes = 0;
  std::set<std::string> advertise_allowed;
  std::string log_level;  // trace, debug, info, warning, error or off
  std::uint32_t store_workers = 0;
  Duration ecu_dead{};
  std::uint64_t scrub_rate_bytes_per_s = 0;  // 0: off
  core::PlacementPolicy placement;
};

struct ParsedConfig {
  std::optional<Config> config;  // Not there: print `text`, to stderr unless exit_code is 0, and exit.
  std::string text;              // Ends with a line end.
  int exit_code = 0;             // 0: --help or --version; 2: wrong usage.
};

// What surrounds the process; tests have their own.
struct Surroundings {
  std::function<const char*(const char* name)> environment;  // nullptr: not set.
  bool root = false;
};
Surroundings process_surroundings();

ParsedConfig parse_config(int argc, const char* const* argv,
                          const Surroundings& surroundings = process_surroundings());

}  // namespace cms::daemon
