#include "storage/store_format.h"

#include <map>
#include <string_view>
#include <utility>

#include "base/ids.h"
#include "storage/blob_store.h"

namespace cms::storage {
namespace {

std::string_view trim(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

std::string_view unquote(std::string_view text) {
  if (text.size() < 2 || text.front() != '"' || text.back() != '"') return {};
  return text.substr(1, text.size() - 2);
}

Error bad(const std::string& what) { return make_error(Code::kCorrupt, "FORMAT: " + what); }

struct Timer {
  std::string_view key;
  std::uint64_t ms;
};
constexpr Timer kTimers[] = {{"member_self_ms", kMemberSelfMs},
                             {"member_dead_ms", kMemberDeadMs},
                             {"ecu_fence_ms", kEcuFenceMs},
                             {"ecu_stop_ms", kEcuStopMs},
                             {"ecu_dead_ms", kEcuDeadMs}};

}  // namespace

std::string encode_format(const StoreFormat& format) {
  std::string text =
      "# A store of checkpoints of the Checkpoint Management System. Written once; do not edit.\n"
      "layout_version = " +
      std::to_string(format.layout_version) + "\n" + "fleet_id = \"" + format.fleet_id + "\"\n" +
      "shard_count = " + std::to_string(kShardCount) + "\n";
  for (const Timer& timer : kTimers) text += std::string(timer.key) + " = " + std::to_string(timer.ms) + "\n";
  return text;
}

Result<StoreFormat> decode_format(const std::string& text) {
  std::map<std::string_view, std::string_view> values;
  std::string_view rest = text;
  std::size_t number = 0;  // Lines are not quoted: they may hold any bytes, and errors are logged.
  while (!rest.empty()) {
    ++number;
    const std::size_t end = rest.find('\n');
    const std::string_view line = trim(rest.substr(0, end));
    rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
    if (line.empty() || line.front() == '#') continue;
    const std::size_t equals = line.find('=');
    if (equals == std::string_view::npos)
      return bad("line " + std::to_string(number) + " is not key = value");
    const bool added = values.emplace(trim(line.substr(0, equals)), trim(line.substr(equals + 1))).second;
    if (!added) return bad("line " + std::to_string(number) + " repeats a key");
  }
  const auto layout_version = parse_u64(values["layout_version"]);
  if (!layout_version || *layout_version == 0) return bad("layout_version is missing or not a number from 1");
  if (*layout_version > kLayoutVersion) {
    return make_error(Code::kUnsupported, "FORMAT: the store has layout version " +
                                              std::to_string(*layout_version) +
                                              "; this program knows up to " + std::to_string(kLayoutVersion));
  }
  const auto shard_count = parse_u64(values["shard_count"]);
  if (!shard_count || *shard_count != kShardCount) {
    return bad("shard_count is not " + std::to_string(kShardCount));
  }
  const auto fleet_id = parse_id128(unquote(values["fleet_id"]));
  if (!fleet_id) return bad("fleet_id is missing or not 32 hexadecimal digits in quotes");
  for (const auto& [key, ours] : kTimers) {
    const auto found = values.find(key);
    if (found == values.end()) continue;
    const auto value = parse_u64(found->second);
    if (!value) return bad(std::string(key) + " is not a number");
    if (*value != ours) {
      return make_error(Code::kUnsupported, "FORMAT: " + std::string(key) + " is " + std::to_string(*value) +
                                                "; this program has " + std::to_string(ours) +
                                                ", and all that use a store must have the same");
    }
  }
  StoreFormat format;
  format.layout_version = *layout_version;
  format.fleet_id = to_string(*fleet_id);
  return format;
}

}  // namespace cms::storage
