#include "ecu_log_generated.h"
#include "schemas/claim_record.h"
#include "schemas/common_codec.h"
#include "schemas/ecu_record.h"

namespace cms::wire {
namespace internal {

Status check(const EcuRecord& record, Side side) {
  Checker checker("EcuRecord", side);
  checker.in_range("kind", static_cast<std::uint64_t>(record.kind), 1,
                   static_cast<std::uint64_t>(EcuRecordKind::kBye));
  checker.ecu_mac(record.ecu_mac);
  checker.that(record.slot > 0, "slot", 0, "from 1");
  checker.that(record.uid > 0, "uid", 0, "from 1");
  checker.that(!record.writer.empty(), "writer", 0, "a name");
  checker.text("writer", record.writer, kWriterBytesMax);
  checker.that(record.writer_incarnation > 0, "writer_incarnation", 0, "from 1");
  checker.that(record.incarnation > 0, "incarnation", 0, "from 1");
  checker.enumerator("enforcer", record.enforcer, Enforcer::kWatchdog);
  const bool hello = record.kind == EcuRecordKind::kHello;
  checker.that(hello == (record.boot_id != Id128{}), "boot_id", 0, "in HELLO, and only there");
  checker.that(hello || record.nonce == 0, "nonce", record.nonce, "in HELLO only");
  checker.that(hello || record.slot > 1, "slot", record.slot, "from 2 for LOST and BYE");
  checker.that(record.lost_incarnation <= record.incarnation, "lost_incarnation", record.lost_incarnation,
               "up to the incarnation");
  return checker.status();
}

}  // namespace internal

std::string_view to_string(EcuRecordKind kind) {
  switch (kind) {
    case EcuRecordKind::kHello: return "HELLO";
    case EcuRecordKind::kLost: return "LOST";
    case EcuRecordKind::kBye: return "BYE";
  }
  return "UNKNOWN";
}

Bytes encode(const EcuRecord& record) {
  internal::assert_sendable(record);
  internal::Builder builder(kEcuRecordBytesMax);
  const auto writer = internal::write_text(builder, record.writer);
  const fb::Id128 boot_id = internal::write_id128(record.boot_id);
  const auto root = fb::CreateEcuRecord(
      builder, kEcuFormatVersion, static_cast<fb::EcuRecordKind>(record.kind), record.ecu_mac.bits,
      record.slot, record.uid, writer, record.writer_incarnation, record.written_at_us, record.incarnation,
      record.nonce, record.boot_id == Id128{} ? nullptr : &boot_id,
      static_cast<fb::Enforcer>(record.enforcer), record.lost_incarnation, record.maintenance);
  return internal::finished(builder, root, fb::EcuRecordIdentifier(), kEcuRecordBytesMax);
}

Result<EcuRecord> decode_ecu_record(const void* data, std::size_t size_bytes) {
  const Status envelope =
      internal::check_envelope("EcuRecord", fb::EcuRecordIdentifier(), data, size_bytes, kEcuRecordBytesMax);
  if (!envelope.ok()) return make_error(Code::kCorrupt, envelope.error().context);
  const internal::AlignedFrame frame(data, size_bytes);
  const auto* root = internal::verified_root<fb::EcuRecord>(frame, fb::EcuRecordIdentifier());
  if (root == nullptr) return make_error(Code::kCorrupt, internal::malformed("EcuRecord").context);
  if (root->format_version() > kEcuFormatVersion) {
    return make_error(Code::kUnsupported,
                      "EcuRecord.format_version: " + std::to_string(root->format_version()) +
                          " (allowed: up to " + std::to_string(kEcuFormatVersion) + ")");
  }
  if (root->format_version() == 0) {
    return make_error(Code::kCorrupt, "EcuRecord.format_version: 0 (allowed: from 1)");
  }
  EcuRecord record;
  record.kind = static_cast<EcuRecordKind>(root->kind());
  record.ecu_mac = EcuMac{root->ecu_mac()};
  record.slot = root->slot();
  record.uid = root->uid();
  record.writer = internal::read_text(root->writer(), kWriterBytesMax);
  record.writer_incarnation = root->writer_incarnation();
  record.written_at_us = root->written_at_us();
  record.incarnation = root->incarnation();
  record.nonce = root->nonce();
  record.boot_id = internal::read_id128(root->boot_id());
  record.enforcer = static_cast<Enforcer>(root->enforcer());
  record.lost_incarnation = root->lost_incarnation();
  record.maintenance = root->maintenance();
  return internal::checked(std::move(record), Code::kCorrupt);
}

}  // namespace cms::wire
