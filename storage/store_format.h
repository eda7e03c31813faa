#pragma once
// The FORMAT file of a store: a few lines of `key = value`, written once, by the first cmsd, last of
// all (docs/formats/store-layout.md). Pure functions; no I/O.
#include <cstdint>
#include <string>

#include "base/result.h"

namespace cms::storage {

inline constexpr std::uint64_t kLayoutVersion = 1;
inline constexpr std::size_t kFormatBytesMax = 4096;
// T_self and T_member, ms (docs/adr/0011-members.md): they stand in FORMAT, so that all that use a store have the
// same. A store without them, of before, means these.
inline constexpr std::uint64_t kMemberSelfMs = 3000;
inline constexpr std::uint64_t kMemberDeadMs = 12000;

struct StoreFormat {
  std::uint64_t layout_version = kLayoutVersion;
  std::string fleet_id;  // 32 lower-case hexadecimal digits, random
};
std::string encode_format(const StoreFormat& format);
// kUnsupported: of a newer layout, or with other timers than ours; kCorrupt: not such a file, or of a layout with other constants.
Result<StoreFormat> decode_format(const std::string& text);

}  // namespace cms::storage
