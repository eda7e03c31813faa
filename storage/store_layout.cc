#include "storage/store_layout.h"

#include <algorithm>
#include <cstdio>
#include <string_view>

#include "base/ids.h"
#include "storage/blob_store.h"
#include "storage/claim_names.h"

namespace cms::storage {
namespace {

constexpr std::string_view kLockSuffix = ".lock";

constexpr std::size_t kNodeBytesMax = 64;

bool is_node_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
         c == '.';
}

bool is_hex16(std::string_view text) {
  return text.size() == 16 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

}  // namespace

bool is_node_name(std::string_view name) {
  return !name.empty() && name.size() <= kNodeBytesMax && name.front() != '.' &&
         std::all_of(name.begin(), name.end(), is_node_char);
}

std::string shard_name(std::uint32_t shard) {
  CMS_ASSERT(shard < kShardCount);
  constexpr char kDigits[] = "0123456789abcdef";
  return {kDigits[shard >> 8], kDigits[(shard >> 4) & 0xf], kDigits[shard & 0xf]};
}

std::string hex16(std::uint64_t value) {
  std::array<char, 17> text{};
  std::snprintf(text.data(), text.size(), "%016llx", static_cast<unsigned long long>(value));
  return text.data();
}

std::string private_dir_name(const std::string& node, std::uint64_t node_incarnation) {
  return node + "." + hex16(node_incarnation);
}

bool is_of_earlier_life(const std::string& name, const std::string& node, std::uint64_t node_incarnation) {
  const std::string prefix = node + ".";
  return name.compare(0, prefix.size(), prefix) == 0 &&
         is_hex16(std::string_view(name).substr(prefix.size())) &&
         name != private_dir_name(node, node_incarnation);
}

std::string temp_name_of(std::uint64_t temp_number) { return hex16(temp_number) + ".part"; }

bool may_be_before_format(const std::string& name) {
  bool ours = name == "lost+found";  // what mkfs leaves in an empty file system
  for (const char* own : kOwnDirs) ours = ours || name == own;
  return ours;
}

// Another cmsd may be at the same at this moment, and a step ahead.
bool may_be_in_unformatted(const std::string& own_dir, const std::string& name) {
  if (own_dir == "claims") return is_self_test_name(name);
  // Locks and members say nothing about what is stored.
  const bool is_lock = name.size() > kLockSuffix.size() &&
                       std::string_view(name).substr(name.size() - kLockSuffix.size()) == kLockSuffix;
  return own_dir == "nodes" && (is_lock || parse_member_file_name(name).ok());
}

Error not_ours(const std::string& path, const std::string& what) {
  return make_error(Code::kForeign, path + " has no FORMAT file but holds '" + what +
                                        "'; a store is made only in an empty directory");
}

Status check_fits(const std::string& path, std::uint64_t free_bytes, std::uint64_t bytes) {
  if (free_bytes >= bytes && free_bytes - bytes >= kSpaceReserveBytes) return ok_status();
  return make_error(Code::kNoSpace, "store " + path + ": " + std::to_string(free_bytes) +
                                        " bytes are free; needed are " + std::to_string(bytes) +
                                        " and a reserve of " + std::to_string(kSpaceReserveBytes));
}

StoreFormat new_format(std::uint64_t high, std::uint64_t low) {
  StoreFormat format;
  format.fleet_id = to_string(Id128{high, low});
  return format;
}

Status check_fleet(const std::string& path, const StoreFormat& format, const std::string& fleet_id_expected) {
  if (fleet_id_expected.empty() || format.fleet_id == fleet_id_expected) return ok_status();
  return make_error(Code::kForeign, path + " now holds the store of fleet " + format.fleet_id + ", not of " +
                                        fleet_id_expected);
}

Result<StoreFormat> accept_format(const std::string& path, const std::string& text,
                                  const std::string& fleet_id_expected) {
  auto format = decode_format(text);
  if (!format) return make_error(format.error().code, path + "/" + format.error().context);
  if (Status status = check_fleet(path, *format, fleet_id_expected); !status.ok()) return status.error();
  return format;
}

Error no_longer_there(const std::string& path, const std::string& fleet_id_expected) {
  return make_error(Code::kUnavailable, path + " no longer holds the store of fleet " + fleet_id_expected +
                                            " (no FORMAT; is it mounted?)");
}

}  // namespace cms::storage
