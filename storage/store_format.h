#pragma once
// The FORMAT file of a store: a few lines of `key = value`, written once, by the first cmsd, last of
// all (docs/formats/store-layout.md). Pure functions; no I/O.
#include <cstdint>
#include <string>

#include "base/result.h"

namespace cms::storage {

inline constexpr std::uint64_t kLayoutVersion = 1;
inline constexpr std::size_t kFormatBytesMax = 4096;
// Timers, ms: they stand in FORMAT, so that all that use a store have the same. A store without them, of before,
// means these.
// T_self and T_member (docs/adr/0011-members.md).
inline constexpr std::uint64_t kMemberSelfMs = 3000;
inline constexpr std::uint64_t kMemberDeadMs = 12000;
// T_fence, T_stop and T_dead of run leases (docs/adr/0015-run-leases.md).
inline constexpr std::uint64_t kEcuFenceMs = 5000;
inline constexpr std::uint64_t kEcuStopMs = 1000;
inline constexpr std::uint64_t kEcuDeadMs = 8000;

// The arithmetic of the two ADRs, in tenths: the rate of every clock is within 1 ± 0.1.
namespace timers {
inline constexpr std::uint64_t kHeartbeatMs =
    1000;  // T_hb: of an ECU, and how often a member renews its record.
inline constexpr std::uint64_t kStoreCallMs = 2000;      // T_rpc: a call to the store at most.
inline constexpr std::uint64_t kNewConnectionMs = 2000;  // Of an ECU to a CMS, with its Hello.
static_assert(9 * kMemberDeadMs > 11 * kMemberSelfMs + 10 * kStoreCallMs,
              "nobody takes over while the other may act");
static_assert(9 * kEcuDeadMs > 11 * kEcuFenceMs + 10 * kEcuStopMs,
              "what a bar is about has stood still before it");
static_assert(9 * kMemberDeadMs > 11 * (kMemberSelfMs + kEcuFenceMs) + 10 * kEcuStopMs,
              "so has what a stale member granted last");
static_assert(kMemberSelfMs >= kHeartbeatMs + kStoreCallMs, "no member stops without need");
static_assert(kEcuFenceMs >= 3 * kHeartbeatMs + kNewConnectionMs, "no program stops without need");
}  // namespace timers

struct StoreFormat {
  std::uint64_t layout_version = kLayoutVersion;
  std::string fleet_id;  // 32 lower-case hexadecimal digits, random
};
std::string encode_format(const StoreFormat& format);
// kUnsupported: of a newer layout, or with other timers than ours; kCorrupt: not such a file, or of a layout with
// other constants.
Result<StoreFormat> decode_format(const std::string& text);

}  // namespace cms::storage
