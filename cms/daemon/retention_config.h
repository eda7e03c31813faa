#pragma once
// The rules of retention as they are configured: by flags for the fleet, by the tables [retention],
// [retention.ecu."MAC"] and [retention.program."KEY"] of the TOML file for each level.
//
// Threads: none; called once, at the start.
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "cms/core/retention.h"

namespace cms::daemon {

// The keys of a level; each is also a flag, for the fleet.
struct RetentionKey {
  std::string_view key;
  std::string_view value;  // What --help calls its value.
  std::string_view fallback;
  std::string_view allowed;
  std::string_view help;
  bool (*set)(std::string_view text, core::RetentionRule& rule);  // False: `allowed` does not cover it.
};
const std::vector<RetentionKey>& retention_keys();
const RetentionKey* find_retention_key(std::string_view key);

// The rule of the level that `table` ("ecu", "program") and `name` speak of; nullptr: `name` is none.
core::RetentionRule* level_of(core::RetentionPolicy& policy, std::string_view table, std::string_view name);
// What `name` may be.
std::string_view names_allowed(std::string_view table);

// "123", "10KiB", "10MiB", "10GiB", "10TiB": nullopt beyond `max`, or for anything else.
std::optional<std::uint64_t> parse_size(std::string_view text, std::uint64_t max);

}  // namespace cms::daemon
