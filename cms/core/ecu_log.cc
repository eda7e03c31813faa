#include "cms/core/ecu_log.h"

#include <algorithm>
#include <string>
#include <utility>

namespace cms::core {
namespace {

using wire::EcuRecord;
using wire::EcuRecordKind;

Status refused(std::string rule) { return make_error(Code::kInvalidArgument, std::move(rule)); }

EcuRecord next_of(const Stamp& stamp, const EcuRecord* head, EcuMac ecu_mac) {
  EcuRecord record;
  if (head != nullptr) record = *head;
  record.ecu_mac = ecu_mac;
  record.slot = head == nullptr ? 1 : head->slot + 1;
  record.uid = stamp.uid;
  record.writer = stamp.writer.name;
  record.writer_incarnation = stamp.writer.incarnation;
  record.written_at_us = stamp.wall_us;
  return record;
}

// The newest session that was LOST with an enforcer, once that of `head` has ended so.
Incarnation lost_after(const EcuRecord& head, EcuRecordKind kind) {
  const bool counts = kind == EcuRecordKind::kLost && head.enforcer != wire::Enforcer::kNone;
  return counts ? head.incarnation : head.lost_incarnation;
}

EcuRecord ended(const Stamp& stamp, const EcuRecord& head, EcuRecordKind kind) {
  EcuRecord record = next_of(stamp, &head, head.ecu_mac);
  record.kind = kind;
  record.nonce = 0;
  record.boot_id = Id128{};
  record.lost_incarnation = lost_after(head, kind);
  CMS_ASSERT(check_successor(&head, record).ok());
  return record;
}

}  // namespace

Status check_successor(const EcuRecord* head, const EcuRecord& next) {
  if (next.slot != (head == nullptr ? 1 : head->slot + 1)) return refused("slots follow one another");
  if (head == nullptr) {
    if (next.kind != EcuRecordKind::kHello) return refused("a log of an ECU begins with HELLO");
    if (next.lost_incarnation != 0) return refused("nothing was LOST before the first HELLO");
    return ok_status();
  }
  if (next.ecu_mac != head->ecu_mac) return refused("a log is of one ECU");
  const bool goes_on = next.incarnation == head->incarnation;
  if (next.lost_incarnation < head->lost_incarnation) return refused("what was LOST stays so");
  switch (next.kind) {
    case EcuRecordKind::kHello:
      if (goes_on) break;  // With other words about maintenance.
      if (next.incarnation < head->incarnation) return refused("a session's incarnation is above all before");
      if (next.maintenance != head->maintenance) return refused("maintenance outlives a session");
      if (next.lost_incarnation != head->lost_incarnation) return refused("HELLO loses nothing");
      return ok_status();
    case EcuRecordKind::kLost:
    case EcuRecordKind::kBye:
      if (!goes_on) return refused("LOST and BYE end the session of the head");
      if (head->kind != EcuRecordKind::kHello) break;
      if (next.maintenance != head->maintenance) return refused("LOST and BYE say nothing of maintenance");
      if (next.kind == EcuRecordKind::kLost && head->maintenance)
        return refused("silence is no loss in maintenance");
      if (next.enforcer != head->enforcer) return refused("a session has one enforcer");
      if (next.lost_incarnation != lost_after(*head, next.kind))
        return refused("what is restored by itself was LOST with an enforcer");
      return ok_status();
  }
  const bool same = next.kind == head->kind && next.nonce == head->nonce && next.boot_id == head->boot_id &&
                    next.enforcer == head->enforcer && next.lost_incarnation == head->lost_incarnation;
  if (!same) return refused("a session begins once and ends once");
  if (next.maintenance == head->maintenance) return refused("it says what the head says already");
  return ok_status();
}

Result<EcuRecord> hello(const Stamp& stamp, const EcuRecord* head, const wire::Hello& asked,
                        Incarnation incarnation_min) {
  EcuRecord record = next_of(stamp, head, asked.ecu_mac);
  Incarnation incarnation = incarnation_min;
  if (head != nullptr && incarnation <= head->incarnation)
    incarnation = next_incarnation(head->incarnation, asked.nonce);
  if (incarnation == 0) {
    return make_error(Code::kLimit, "no incarnations are left for " + to_string(asked.ecu_mac));
  }
  record.kind = EcuRecordKind::kHello;
  record.incarnation = incarnation;
  record.nonce = asked.nonce;
  record.boot_id = asked.boot_id;
  record.enforcer = asked.enforcer;
  CMS_ASSERT(check_successor(head, record).ok());
  return record;
}

EcuRecord lost(const Stamp& stamp, const EcuRecord& head) { return ended(stamp, head, EcuRecordKind::kLost); }

EcuRecord bye(const Stamp& stamp, const EcuRecord& head) { return ended(stamp, head, EcuRecordKind::kBye); }

EcuRecord with_maintenance(const Stamp& stamp, const EcuRecord& head, bool maintenance) {
  EcuRecord record = next_of(stamp, &head, head.ecu_mac);
  record.maintenance = maintenance;
  CMS_ASSERT(check_successor(&head, record).ok());
  return record;
}

HelloIs judge_hello(const EcuRecord* head, const wire::Hello& asked) {
  const bool its_head = head != nullptr && head->kind == EcuRecordKind::kHello && head->nonce == asked.nonce;
  if (its_head && (asked.incarnation == 0 || asked.incarnation == head->incarnation)) return HelloIs::kHead;
  return asked.incarnation == 0 ? HelloIs::kNew : HelloIs::kOutdated;
}

}  // namespace cms::core
