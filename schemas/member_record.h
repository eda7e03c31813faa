#pragma once
// The record by which a life of cmsd shows on the store that it is alive (cms/core/members.h).
//
// Threads, memory: as messages.h. Errors of decode: kCorrupt names the field and what is allowed;
// kUnsupported: of a newer format.
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "schemas/messages.h"

namespace cms::wire {

inline constexpr std::uint16_t kMemberFormatVersion = 1;
// Guarded sessions that one life bars at a time; more wait until logs of ECUs have gone on.
inline constexpr std::size_t kBarCountMax = 1024;
inline constexpr std::size_t kMemberRecordBytesMax = 384 + 16 * kBarCountMax;
inline constexpr std::size_t kNodeBytesMax = 64;

struct MemberRecord {
  std::string node{};  // The cmsd's name.
  std::uint64_t incarnation = 0;
  std::uint64_t counter = 0;  // From 1; larger at each renewal.
  bool resigned = false;
  std::uint64_t written_at_us = 0;  // Wall clock of the writer; for people.
  std::string software{};
  std::vector<SessionId> bars{};  // At most kBarCountMax; docs/adr/0015-run-leases.md.
};

Bytes encode(const MemberRecord& record);
Result<MemberRecord> decode_member_record(const void* data, std::size_t size_bytes);

}  // namespace cms::wire
