#pragma once
// The names of records and of members' files (docs/formats/claims.md). Pure functions; no I/O. Each parse
// function takes exactly what its counterpart makes, and nothing else.
#include <cstdint>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "base/result.h"
#include "storage/claim_store.h"

namespace cms::storage {

// Below claims/: "00" to "ff". `log_shard` is below kLogShardCount.
std::string log_shard_name(std::uint32_t log_shard);

// Whether there can be such a log: an ECU's id is an ecu_mac.
bool is_valid_log(const LogId& log);

struct SlotName {
  LogId log{};
  Slot slot = 0;
};
// "<lineage 32>.<slot 16>.log", "ecu-<ecu_mac 12>.<slot 16>.log"; of a valid log.
std::string slot_file_name(const LogId& log, Slot slot);
// Below claims/: "<hh>/<name>".
std::string slot_path(const LogId& log, Slot slot);
// kCorrupt: not such a name.
Result<SlotName> parse_slot_file_name(std::string_view file_name);

struct MemberName {
  std::string node;
  std::uint64_t node_incarnation = 0;
};
// "<node>.<incarnation 16>", below nodes/.
std::string member_file_name(const std::string& node, std::uint64_t node_incarnation);
// kCorrupt: not such a name.
Result<MemberName> parse_member_file_name(std::string_view file_name);

// A record before it has a slot: "<nonce 32>.draft", in our private directory.
std::string draft_file_name(const Id128& nonce);

// What self_test makes in claims/: "selftest.<node>.<incarnation 16>.<what>".
std::string self_test_name(const std::string& node, std::uint64_t node_incarnation, std::string_view what);
bool is_self_test_name(std::string_view file_name);
// Whether it was left there by a life of this node.
bool is_self_test_of(std::string_view file_name, const std::string& node);

}  // namespace cms::storage
