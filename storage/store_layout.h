#pragma once
// The layout of a store as every adapter that keeps it in directories has it; docs/formats/store-layout.md
// shows it. Pure functions; no I/O.
#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "storage/store_format.h"

namespace cms::storage {

// Below the store's directory, which is the operator's; our own, made in this order.
inline constexpr std::array<const char*, 5> kOwnDirs = {"d", "tmp", "quarantine", "claims", "nodes"};
// Kept free for what must always fit: claim records, tombstones, pins.
inline constexpr std::uint64_t kSpaceReserveBytes = 1024 * 1024;

// A cmsd's name: 1 to 64 letters, digits, '-', '_' and '.', not '.' first.
bool is_node_name(std::string_view name);

// "0a7": the directory of a shard, below d. `shard` is below kShardCount.
std::string shard_name(std::uint32_t shard);
// "0123456789abcdef".
std::string hex16(std::uint64_t value);
// "<node>.<incarnation>": the private directory of a cmsd, below tmp.
std::string private_dir_name(const std::string& node, std::uint64_t node_incarnation);
// Whether it is a private directory of another incarnation of this node.
bool is_of_earlier_life(const std::string& name, const std::string& node, std::uint64_t node_incarnation);
// Of a file in a private directory.
std::string temp_name_of(std::uint64_t temp_number);

// Below these there are directories that are made with the store, and hold nothing then.
inline constexpr std::array<const char*, 2> kShardedDirs = {"d", "claims"};

// Whether a name may be in a directory that is to become a store: an empty directory may, and one in which
// an initialisation of ours was cut short.
bool may_be_before_format(const std::string& name);
// The same of a name in `own_dir`, one of kOwnDirs but tmp. (What is in the sharded ones besides is a
// directory, and empty.)
bool may_be_in_unformatted(const std::string& own_dir, const std::string& name);
// kForeign: the store at `path` has no FORMAT but holds `what`.
Error not_ours(const std::string& path, const std::string& what);

// kNoSpace: fewer than `bytes` and the reserve are free in the store at `path`.
Status check_fits(const std::string& path, std::uint64_t free_bytes, std::uint64_t bytes);
// The format of a new store, from 128 random bits.
StoreFormat new_format(std::uint64_t high, std::uint64_t low);
// kForeign: not the fleet that was expected; an empty expectation takes any.
Status check_fleet(const std::string& path, const StoreFormat& format, const std::string& fleet_id_expected);
// What the text of the FORMAT file says. kCorrupt, kUnsupported; kForeign: as check_fleet.
Result<StoreFormat> accept_format(const std::string& path, const std::string& text,
                                  const std::string& fleet_id_expected);
// kUnavailable: there is no FORMAT where the store of that fleet was.
Error no_longer_there(const std::string& path, const std::string& fleet_id_expected);

}  // namespace cms::storage
