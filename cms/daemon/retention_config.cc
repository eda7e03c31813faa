#include "cms/daemon/retention_config.h"

#include <utility>

#include "base/ids.h"

namespace cms::daemon {
namespace {

constexpr std::uint32_t kKeepMax = 1000000;
constexpr std::uint64_t kAgeMaxS = std::uint64_t{36500} * 86400;  // A hundred years.
constexpr std::uint64_t kBytesMax = std::uint64_t{1} << 60;

bool set_count(std::string_view text, std::uint32_t min, std::optional<std::uint32_t>& count) {
  const auto number = parse_u64(text);
  if (!number || *number < min || *number > kKeepMax) return false;
  count = static_cast<std::uint32_t>(*number);
  return true;
}

bool set_max_age(std::string_view text, core::RetentionRule& rule) {
  if (text == "none") {
    rule.max_age_s = 0;
    return true;
  }
  static constexpr std::pair<char, std::uint64_t> kUnits[] = {{'m', 60}, {'h', 3600}, {'d', 86400}};
  for (const auto& [unit, unit_s] : kUnits) {
    if (text.empty() || text.back() != unit) continue;
    const auto count = parse_u64(text.substr(0, text.size() - 1));
    if (!count || *count == 0 || *count > kAgeMaxS / unit_s) return false;
    rule.max_age_s = *count * unit_s;
    return true;
  }
  return false;
}

bool set_max_bytes(std::string_view text, core::RetentionRule& rule) {
  if (text == "none") {
    rule.max_bytes = 0;
    return true;
  }
  const auto bytes = parse_size(text, kBytesMax);
  if (!bytes || *bytes == 0) return false;
  rule.max_bytes = *bytes;
  return true;
}

}  // namespace

const std::vector<RetentionKey>& retention_keys() {
  static const std::vector<RetentionKey> keys = {
      {"keep_latest", "COUNT", "3", "a number from 1 to 1000000",
       "stored checkpoints kept of each program: the newest",
       [](std::string_view text, core::RetentionRule& rule) { return set_count(text, 1, rule.keep_latest); }},
      {"keep_hourly", "COUNT", "0", "a number from 0 to 1000000",
       "and the newest of each of so many hours that have one",
       [](std::string_view text, core::RetentionRule& rule) { return set_count(text, 0, rule.keep_hourly); }},
      {"keep_daily", "COUNT", "0", "a number from 0 to 1000000",
       "and the newest of each of so many days that have one",
       [](std::string_view text, core::RetentionRule& rule) { return set_count(text, 0, rule.keep_daily); }},
      {"max_age", "AGE", "none", "a number of m, h or d, as 90m, 12h, 30d, up to 36500d; or none",
       "of these, what is older goes; never the newest", set_max_age},
      {"max_bytes", "SIZE", "none", "bytes or a number of KiB, MiB, GiB, TiB, up to 1048576TiB; or none",
       "beyond so many stored bytes of all the oldest go; never the newest of a program", set_max_bytes},
  };
  return keys;
}

const RetentionKey* find_retention_key(std::string_view key) {
  for (const RetentionKey& known : retention_keys()) {
    if (known.key == key) return &known;
  }
  return nullptr;
}

core::RetentionRule* level_of(core::RetentionPolicy& policy, std::string_view table, std::string_view name) {
  if (table == "ecu") {
    const auto ecu_mac = parse_ecu_mac(name);
    return ecu_mac.ok() ? &policy.ecus[*ecu_mac] : nullptr;
  }
  const auto key = parse_key(name);
  return key.ok() && !key->has_version ? &policy.programs[key->program] : nullptr;
}

std::string_view names_allowed(std::string_view table) {
  return table == "ecu" ? "an ecu_mac as \"02:00:00:00:00:01\"" : "a program as \"02:00:00:00:00:01/7\"";
}

std::optional<std::uint64_t> parse_size(std::string_view text, std::uint64_t max) {
  static constexpr std::pair<std::string_view, unsigned> kUnits[] = {
      {"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"TiB", 40}};
  unsigned shift = 0;
  for (const auto& [unit, unit_shift] : kUnits) {
    if (text.size() > unit.size() && text.substr(text.size() - unit.size()) == unit) {
      text.remove_suffix(unit.size());
      shift = unit_shift;
      break;
    }
  }
  const auto count = parse_u64(text);
  if (!count || *count > max >> shift) return std::nullopt;
  return *count << shift;
}

}  // namespace cms::daemon
