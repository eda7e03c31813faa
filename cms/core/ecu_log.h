#pragma once
// What the records of a guarded ECU's log allow: which record may follow which, and whose Hello is whose
// (docs/adr/0015-run-leases.md). As claim_log.h is for lineages: the record in the highest slot says all; nullptr:
// the log is empty.
//
// Threads: pure functions; no I/O, no clock.
#include "base/ids.h"
#include "base/result.h"
#include "cms/core/claim_log.h"
#include "schemas/ecu_record.h"
#include "schemas/messages.h"

namespace cms::core {

// Whether `next` may stand in the slot after `head`. kInvalidArgument: names the rule that it breaks. Asked before
// every append; what it lets pass may still lose the slot to another.
Status check_successor(const wire::EcuRecord* head, const wire::EcuRecord& next);

// ---- the next record; each asserts what check_successor asks for
// The session of that Hello begins, under an incarnation above that of `head` and at least `incarnation_min`.
// kLimit: there is none left.
Result<wire::EcuRecord> hello(const Stamp& stamp, const wire::EcuRecord* head, const wire::Hello& asked,
                              Incarnation incarnation_min);
wire::EcuRecord lost(const Stamp& stamp, const wire::EcuRecord& head);
wire::EcuRecord bye(const Stamp& stamp, const wire::EcuRecord& head);
// The same again, with or without the word that silence is no loss.
wire::EcuRecord with_maintenance(const Stamp& stamp, const wire::EcuRecord& head, bool maintenance);

enum class HelloIs : std::uint8_t {
  kHead,      // The session that the log speaks of: it may have a run lease.
  kNew,       // A session that is to begin.
  kOutdated,  // One that has ended: LOST, or another has begun. It must begin a new one.
};
HelloIs judge_hello(const wire::EcuRecord* head, const wire::Hello& asked);

// The session that a record speaks of.
inline SessionId session_of(const wire::EcuRecord& record) {
  return SessionId{record.ecu_mac, record.incarnation};
}

}  // namespace cms::core
