#include "storage/claim_names.h"

#include <charconv>
#include <cstddef>
#include <tuple>

#include "storage/store_layout.h"

namespace cms::storage {
namespace {

constexpr std::string_view kSlotSuffix = ".log";
constexpr std::string_view kEcuPrefix = "ecu-";
constexpr std::string_view kSelfTestPrefix = "selftest.";
constexpr std::size_t kMacDigits = 12;

// Exactly `text`, all of it lower-case digits.
bool take_hex(std::string_view text, std::uint64_t& value) {
  if (text.empty() || text.find_first_not_of("0123456789abcdef") != std::string_view::npos) return false;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  return error == std::errc() && end == text.data() + text.size();
}

// Not quoted: a name on a disk may hold any bytes, and errors are logged.
Error not_a_name(const char* of_what) {
  return make_error(Code::kCorrupt, std::string("not the name of ") + of_what);
}

bool ends_with(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

bool begins_with(std::string_view text, std::string_view begin) {
  return text.substr(0, begin.size()) == begin;
}

}  // namespace

bool operator==(const LogId& a, const LogId& b) { return a.kind == b.kind && a.id == b.id; }
bool operator<(const LogId& a, const LogId& b) { return std::tie(a.kind, a.id) < std::tie(b.kind, b.id); }

LogId log_of(const Lineage& lineage) { return LogId{LogId::Kind::kLineage, lineage}; }
LogId log_of(EcuMac ecu_mac) { return LogId{LogId::Kind::kEcu, Id128{0, ecu_mac.bits}}; }

std::string to_string(const LogId& log) {
  return log.kind == LogId::Kind::kEcu ? "the log of ECU " + to_string(EcuMac{log.id.low})
                                       : "the log of lineage " + to_string(log.id);
}

std::uint32_t log_shard_of(const LogId& log) {
  return static_cast<std::uint32_t>(log.kind == LogId::Kind::kEcu ? log.id.low & 0xff : log.id.high >> 56);
}

std::string log_shard_name(std::uint32_t log_shard) {
  CMS_ASSERT(log_shard < kLogShardCount);
  return hex16(log_shard).substr(14);
}

bool is_valid_log(const LogId& log) {
  return log.kind == LogId::Kind::kLineage || (log.id.high == 0 && is_valid_ecu_mac(EcuMac{log.id.low}));
}

std::string slot_file_name(const LogId& log, Slot slot) {
  CMS_ASSERT(is_valid_log(log));
  const std::string whose = log.kind == LogId::Kind::kEcu
                                ? std::string(kEcuPrefix) + hex16(log.id.low).substr(16 - kMacDigits)
                                : to_string(log.id);
  return whose + "." + hex16(slot) + std::string(kSlotSuffix);
}

std::string slot_path(const LogId& log, Slot slot) {
  return log_shard_name(log_shard_of(log)) + "/" + slot_file_name(log, slot);
}

Result<SlotName> parse_slot_file_name(std::string_view file_name) {
  SlotName name;
  bool ok = ends_with(file_name, kSlotSuffix);
  if (ok) file_name.remove_suffix(kSlotSuffix.size());
  const std::size_t dot = file_name.find('.');
  ok = ok && dot != std::string_view::npos && file_name.size() == dot + 17 &&
       take_hex(file_name.substr(dot + 1), name.slot) && name.slot != 0;
  std::string_view whose = file_name.substr(0, dot);
  if (ok && begins_with(whose, kEcuPrefix)) {
    whose.remove_prefix(kEcuPrefix.size());
    name.log.kind = LogId::Kind::kEcu;
    ok = whose.size() == kMacDigits && take_hex(whose, name.log.id.low) && is_valid_log(name.log);
  } else {
    ok = ok && whose.size() == 32 && take_hex(whose.substr(0, 16), name.log.id.high) &&
         take_hex(whose.substr(16), name.log.id.low);
  }
  if (!ok) return not_a_name("a record of a log");
  return name;
}

std::string member_file_name(const std::string& node, std::uint64_t node_incarnation) {
  return private_dir_name(node, node_incarnation);
}

Result<MemberName> parse_member_file_name(std::string_view file_name) {
  MemberName name;
  const std::size_t dot = file_name.rfind('.');
  if (dot == std::string_view::npos || file_name.size() != dot + 17 ||
      !take_hex(file_name.substr(dot + 1), name.node_incarnation) ||
      !is_node_name(file_name.substr(0, dot))) {
    return not_a_name("a member's file");
  }
  name.node = file_name.substr(0, dot);
  return name;
}

std::string draft_file_name(const Id128& nonce) { return to_string(nonce) + ".draft"; }

std::string self_test_name(const std::string& node, std::uint64_t node_incarnation, std::string_view what) {
  return std::string(kSelfTestPrefix) + member_file_name(node, node_incarnation) + "." + std::string(what);
}

bool is_self_test_name(std::string_view file_name) { return begins_with(file_name, kSelfTestPrefix); }

bool is_self_test_of(std::string_view file_name, const std::string& node) {
  if (!is_self_test_name(file_name)) return false;
  file_name.remove_prefix(kSelfTestPrefix.size());
  const std::size_t dot = file_name.rfind('.');
  if (dot == std::string_view::npos) return false;
  const auto whose = parse_member_file_name(file_name.substr(0, dot));
  return whose && whose->node == node;
}

}  // namespace cms::storage
