#pragma once
// The records of a lineage's claim log, as plain values. Each says the whole state of the lineage after
// it, so that who reads the highest slot knows all (cms/core/claim_log.h has what may follow what).
//
// Threads, memory: as messages.h. Errors of decode: kCorrupt names the field and what is allowed;
// kUnsupported: of a newer format. Either way nothing may be appended to that log.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "base/result.h"
#include "schemas/messages.h"

namespace cms::wire {

inline constexpr std::uint16_t kClaimFormatVersion = 1;
inline constexpr std::size_t kClaimRecordBytesMax = 640;
inline constexpr std::size_t kClaimTextBytesMax = 64;
inline constexpr std::size_t kWriterBytesMax = 64;

enum class ClaimKind : std::uint8_t {
  kGenesis = 1,  // The lineage begins, with its first owner. Slot 1, and only there.
  kClaim = 2,    // The writer, and nobody else, prepares a restore.
  kAct = 3,      // One target may run it; only DONE or ABORT can follow.
  kDone = 4,     // The target runs it, and owns it from this slot on.
  kRelease = 5,  // The claim ended and nobody was told to run it.
  kAbort = 6,    // The target will not run it: see `proof`.
  kRetire = 7,   // The lineage has ended for good.
};
std::string_view to_string(ClaimKind kind);  // "CLAIM"

// What allows to take a program from its owner.
enum class ClaimReason : std::uint8_t {
  kNone = 0,
  kVouched = 1,       // An operator says that the owner's ECU does not run it.
  kLost = 2,          // The owner's session is LOST in its ECU's log.
  kRebooted = 3,      // The ECU has said HELLO with another boot id.
  kReportedDead = 4,  // Its broker saw it end.
  kRequest = 5,       // The owner asks to be moved, or to have it back.
};
std::string_view to_string(ClaimReason reason);  // "lost"

enum class AbortProof : std::uint8_t {
  kNone = 0,
  kRefused = 1,  // The target refused that very ACT.
  kLost = 2,     // The target's session is LOST.
  kVouched = 3,  // An operator says that the target does not run it.
};
std::string_view to_string(AbortProof proof);  // "refused"

struct ClaimOwner {
  ProgramKey program{};
  Incarnation incarnation = 0;  // Of the session that ran it when it became the owner.
  OwnerEpoch owner_epoch = 0;   // The slot of the DONE that made it the owner; 0: GENESIS did.
};
bool operator==(const ClaimOwner& a, const ClaimOwner& b);

// A stored checkpoint, so that it cannot be mistaken for another.
struct ClaimBlob {
  CheckpointId checkpoint{};
  OwnerEpoch owner_epoch = 0;
  std::uint64_t uid = 0;
};
bool operator==(const ClaimBlob& a, const ClaimBlob& b);

struct ClaimRecord {
  ClaimKind kind = ClaimKind::kGenesis;
  Lineage lineage{};
  std::uint64_t slot = 0;
  std::uint64_t uid = 0;  // Random: which record this is, and what commands that follow from it name.
  std::string writer{};   // The name of a cmsd.
  std::uint64_t writer_incarnation = 0;
  std::uint64_t written_at_us = 0;  // Wall clock of the writer; for people.

  ClaimOwner owner{};
  std::optional<ClaimBlob> base{};  // What the owner was restored from.
  OnIsolation on_isolation = OnIsolation::kKeep;
  OnLoss on_loss = OnLoss::kAsk;
  std::uint32_t attempts = 0;  // Claims in a row since the owner last got a checkpoint of its own.

  ClaimReason reason = ClaimReason::kNone;  // CLAIM, ACT
  std::uint64_t claim_slot = 0;             // CLAIM (its own), ACT; else 0.
  SessionId target{};                       // ACT
  std::optional<ClaimBlob> checkpoint{};    // ACT
  AbortProof proof = AbortProof::kNone;     // ABORT
  std::string text{};                       // RELEASE, ABORT, RETIRE: why; for people.
};

// Asserts the limits; `text` is cleaned and cut as free text is.
Bytes encode(const ClaimRecord& record);
// Also checks that the fields are those of its kind.
Result<ClaimRecord> decode_claim_record(const void* data, std::size_t size_bytes);

}  // namespace cms::wire
