#pragma once
// The records of a guarded ECU's log, as plain values: which session of the ECU may have a run lease. Each says the
// whole state after it (cms/core/ecu_log.h has what may follow what).
//
// Threads, memory: as messages.h. Errors of decode: kCorrupt names the field and what is allowed;
// kUnsupported: of a newer format. Either way nothing may be appended to that log.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "base/result.h"
#include "schemas/messages.h"

namespace cms::wire {

inline constexpr std::uint16_t kEcuFormatVersion = 1;
inline constexpr std::size_t kEcuRecordBytesMax = 384;

enum class EcuRecordKind : std::uint8_t {
  kHello = 1,  // This session begins; whatever session there was before has ended.
  kLost = 2,   // The session has ended for good, and none of its `stop` programs runs.
  kBye = 3,    // It has ended in order: what it ran is not lost.
};
std::string_view to_string(EcuRecordKind kind);  // "HELLO"

struct EcuRecord {
  EcuRecordKind kind = EcuRecordKind::kHello;
  EcuMac ecu_mac{};
  std::uint64_t slot = 0;
  std::uint64_t uid = 0;  // Random, never 0.
  std::string writer{};   // The name of a cmsd.
  std::uint64_t writer_incarnation = 0;
  std::uint64_t written_at_us = 0;      // Wall clock of the writer; for people.
  Incarnation incarnation = 0;          // Of the session.
  std::uint64_t nonce = 0;              // HELLO: by which the session's own Hello is known again.
  Id128 boot_id{};                      // HELLO: of the ECU's kernel.
  Enforcer enforcer = Enforcer::kNone;  // Of the session.
  // The newest session of this ECU that was LOST and had an enforcer: what it owned may be being restored. 0: none.
  Incarnation lost_incarnation = 0;
  bool maintenance = false;  // An operator has said that its silence is no loss.
};

// Asserts the limits.
Bytes encode(const EcuRecord& record);
// Also checks that the fields are those of its kind.
Result<EcuRecord> decode_ecu_record(const void* data, std::size_t size_bytes);

}  // namespace cms::wire
