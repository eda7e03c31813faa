#include "claim_generated.h"
#include "schemas/claim_record.h"
#include "schemas/common_codec.h"

namespace cms::wire {
namespace internal {
namespace {

std::string problem(std::string_view field, std::string_view is, std::string_view allowed) {
  return "ClaimRecord." + std::string(field) + ": " + std::string(is) + " (allowed: " + std::string(allowed) +
         ")";
}

void check_blob(Checker& checker, const ClaimBlob& blob) {
  checker.ecu_mac(blob.checkpoint.program.ecu_mac);
  checker.that(blob.checkpoint.version.incarnation > 0, "incarnation", 0, "from 1");
  checker.that(blob.checkpoint.version.seq > 0, "seq", 0, "from 1");
  checker.that(blob.uid > 0, "uid", 0, "from 1");
}

// What a record of this kind says, and nothing else.
Status check_form(const ClaimRecord& record) {
  const ClaimKind kind = record.kind;
  const std::string name(to_string(kind));
  const auto wrong = [&](std::string_view field, bool there) {
    return make_error(Code::kInvalidArgument, problem(field, there ? "given" : "missing",
                                                      there ? "not in " + name : "must be in " + name));
  };
  const bool genesis = kind == ClaimKind::kGenesis;
  const bool act = kind == ClaimKind::kAct;
  const bool open = act || kind == ClaimKind::kClaim;
  if (genesis != (record.slot == 1)) {
    return make_error(Code::kInvalidArgument,
                      problem("slot", std::to_string(record.slot), genesis ? "1 for GENESIS" : "from 2"));
  }
  if (open != (record.reason != ClaimReason::kNone)) return wrong("reason", !open);
  if (open != (record.claim_slot != 0)) return wrong("claim_slot", !open);
  if (kind == ClaimKind::kClaim && record.claim_slot != record.slot) {
    return make_error(Code::kInvalidArgument,
                      problem("claim_slot", std::to_string(record.claim_slot), "its own slot in CLAIM"));
  }
  if (act && record.claim_slot >= record.slot) {
    return make_error(Code::kInvalidArgument,
                      problem("claim_slot", std::to_string(record.claim_slot), "below the slot in ACT"));
  }
  if (open && record.attempts == 0) return wrong("attempts", false);
  if (act != (record.target != SessionId{})) return wrong("target", !act);
  if (act != record.checkpoint.has_value()) return wrong("checkpoint", !act);
  if ((kind == ClaimKind::kAbort) != (record.proof != AbortProof::kNone)) {
    return wrong("proof", kind != ClaimKind::kAbort);
  }
  // Who owns it by GENESIS was never restored; who owns it by DONE was, and that DONE is this one or earlier.
  if ((record.owner.owner_epoch != 0) != record.base.has_value())
    return wrong("base", record.base.has_value());
  const std::uint64_t epoch_max = kind == ClaimKind::kDone ? record.slot : record.slot - 1;
  if (record.owner.owner_epoch > epoch_max || record.owner.owner_epoch == 1 ||
      (kind == ClaimKind::kDone && record.owner.owner_epoch != record.slot)) {
    return make_error(
        Code::kInvalidArgument,
        problem("owner.owner_epoch", std::to_string(record.owner.owner_epoch),
                kind == ClaimKind::kDone ? "its own slot in DONE" : "0, or the slot of an earlier DONE"));
  }
  return ok_status();
}

}  // namespace

Status check(const ClaimRecord& record, Side side) {
  Checker checker("ClaimRecord", side);
  checker.in_range("kind", static_cast<std::uint64_t>(record.kind), 1,
                   static_cast<std::uint64_t>(ClaimKind::kRetire));
  checker.that(record.lineage != Lineage{}, "lineage", 0, "not zero");
  checker.that(record.slot > 0, "slot", 0, "from 1");
  checker.that(record.uid > 0, "uid", 0, "from 1");
  checker.that(!record.writer.empty(), "writer", 0, "a name");
  checker.text("writer", record.writer, kWriterBytesMax);
  checker.that(record.writer_incarnation > 0, "writer_incarnation", 0, "from 1");
  checker.ecu_mac(record.owner.program.ecu_mac);
  checker.that(record.owner.incarnation > 0, "owner.incarnation", 0, "from 1");
  checker.enumerator("on_isolation", record.on_isolation, OnIsolation::kStop);
  checker.enumerator("on_loss", record.on_loss, OnLoss::kRestore);
  checker.enumerator("reason", record.reason, ClaimReason::kRequest);
  checker.enumerator("proof", record.proof, AbortProof::kVouched);
  if (record.base) check_blob(checker, *record.base);
  if (record.checkpoint) check_blob(checker, *record.checkpoint);
  if (record.target != SessionId{}) {
    checker.ecu_mac(record.target.ecu_mac);
    checker.that(record.target.incarnation > 0, "target.incarnation", 0, "from 1");
  }
  if (side == Side::kReceiver) checker.text("text", record.text, kClaimTextBytesMax);
  if (!checker.status().ok()) return checker.status();
  return check_form(record);
}

}  // namespace internal

namespace {

fb::ClaimBlob write_blob(const ClaimBlob& blob) {
  const CheckpointId& checkpoint = blob.checkpoint;
  return fb::ClaimBlob(checkpoint.program.ecu_mac.bits, checkpoint.program.program_id,
                       checkpoint.version.incarnation, checkpoint.version.seq, blob.owner_epoch, blob.uid);
}

std::optional<ClaimBlob> read_blob(const fb::ClaimBlob* blob) {
  if (blob == nullptr) return std::nullopt;
  return ClaimBlob{CheckpointId{ProgramKey{EcuMac{blob->ecu_mac()}, blob->program_id()},
                                Version{blob->incarnation(), blob->seq()}},
                   blob->owner_epoch(), blob->uid()};
}

}  // namespace

bool operator==(const ClaimOwner& a, const ClaimOwner& b) {
  return a.program == b.program && a.incarnation == b.incarnation && a.owner_epoch == b.owner_epoch;
}

bool operator==(const ClaimBlob& a, const ClaimBlob& b) {
  return a.checkpoint == b.checkpoint && a.owner_epoch == b.owner_epoch && a.uid == b.uid;
}

std::string_view to_string(ClaimKind kind) {
  switch (kind) {
    case ClaimKind::kGenesis: return "GENESIS";
    case ClaimKind::kClaim: return "CLAIM";
    case ClaimKind::kAct: return "ACT";
    case ClaimKind::kDone: return "DONE";
    case ClaimKind::kRelease: return "RELEASE";
    case ClaimKind::kAbort: return "ABORT";
    case ClaimKind::kRetire: return "RETIRE";
  }
  return "UNKNOWN";
}

std::string_view to_string(ClaimReason reason) {
  switch (reason) {
    case ClaimReason::kNone: return "none";
    case ClaimReason::kVouched: return "vouched";
    case ClaimReason::kLost: return "lost";
    case ClaimReason::kRebooted: return "rebooted";
    case ClaimReason::kReportedDead: return "reported dead";
    case ClaimReason::kRequest: return "request";
  }
  return "unknown";
}

std::string_view to_string(AbortProof proof) {
  switch (proof) {
    case AbortProof::kNone: return "none";
    case AbortProof::kRefused: return "refused";
    case AbortProof::kLost: return "lost";
    case AbortProof::kVouched: return "vouched";
  }
  return "unknown";
}

Bytes encode(const ClaimRecord& record) {
  internal::assert_sendable(record);
  internal::Builder builder(kClaimRecordBytesMax);
  const auto writer = internal::write_text(builder, record.writer);
  const auto text =
      internal::write_text(builder, internal::cleaned_free_text(record.text, kClaimTextBytesMax));
  const fb::Id128 lineage = internal::write_id128(record.lineage);
  const fb::ClaimOwner owner(record.owner.program.ecu_mac.bits, record.owner.program.program_id,
                             record.owner.incarnation, record.owner.owner_epoch);
  const fb::ClaimBlob base = write_blob(record.base.value_or(ClaimBlob{}));
  const fb::ClaimBlob checkpoint = write_blob(record.checkpoint.value_or(ClaimBlob{}));
  fb::ClaimRecordBuilder table(builder);
  table.add_format_version(kClaimFormatVersion);
  table.add_kind(static_cast<fb::ClaimKind>(record.kind));
  table.add_lineage(&lineage);
  table.add_slot(record.slot);
  table.add_uid(record.uid);
  table.add_writer(writer);
  table.add_writer_incarnation(record.writer_incarnation);
  table.add_written_at_us(record.written_at_us);
  table.add_owner(&owner);
  if (record.base) table.add_base(&base);
  table.add_on_isolation(static_cast<fb::OnIsolation>(record.on_isolation));
  table.add_on_loss(static_cast<fb::OnLoss>(record.on_loss));
  table.add_attempts(record.attempts);
  table.add_reason(static_cast<fb::ClaimReason>(record.reason));
  table.add_claim_slot(record.claim_slot);
  table.add_target_ecu_mac(record.target.ecu_mac.bits);
  table.add_target_incarnation(record.target.incarnation);
  if (record.checkpoint) table.add_checkpoint(&checkpoint);
  table.add_proof(static_cast<fb::AbortProof>(record.proof));
  table.add_text(text);
  return internal::finished(builder, table.Finish(), fb::ClaimRecordIdentifier(), kClaimRecordBytesMax);
}

Result<ClaimRecord> decode_claim_record(const void* data, std::size_t size_bytes) {
  const Status envelope = internal::check_envelope("ClaimRecord", fb::ClaimRecordIdentifier(), data,
                                                   size_bytes, kClaimRecordBytesMax);
  if (!envelope.ok()) return make_error(Code::kCorrupt, envelope.error().context);
  const internal::AlignedFrame frame(data, size_bytes);
  const auto* root = internal::verified_root<fb::ClaimRecord>(frame, fb::ClaimRecordIdentifier());
  if (root == nullptr) return make_error(Code::kCorrupt, internal::malformed("ClaimRecord").context);

  // What is newer than we are may mean anything: nothing else of it is looked at.
  if (root->format_version() > kClaimFormatVersion) {
    return make_error(Code::kUnsupported,
                      "ClaimRecord.format_version: " + std::to_string(root->format_version()) +
                          " (allowed: up to " + std::to_string(kClaimFormatVersion) + ")");
  }
  if (root->format_version() == 0) {
    return make_error(Code::kCorrupt, "ClaimRecord.format_version: 0 (allowed: from 1)");
  }
  if (root->owner() == nullptr) return make_error(Code::kCorrupt, "ClaimRecord.owner: missing");

  ClaimRecord record;
  record.kind = static_cast<ClaimKind>(root->kind());
  record.lineage = internal::read_id128(root->lineage());
  record.slot = root->slot();
  record.uid = root->uid();
  record.writer = internal::read_text(root->writer(), kWriterBytesMax);
  record.writer_incarnation = root->writer_incarnation();
  record.written_at_us = root->written_at_us();
  const fb::ClaimOwner& owner = *root->owner();
  record.owner = ClaimOwner{ProgramKey{EcuMac{owner.ecu_mac()}, owner.program_id()}, owner.incarnation(),
                            owner.owner_epoch()};
  record.base = read_blob(root->base());
  record.on_isolation = static_cast<OnIsolation>(root->on_isolation());
  record.on_loss = static_cast<OnLoss>(root->on_loss());
  record.attempts = root->attempts();
  record.reason = static_cast<ClaimReason>(root->reason());
  record.claim_slot = root->claim_slot();
  record.target = SessionId{EcuMac{root->target_ecu_mac()}, root->target_incarnation()};
  record.checkpoint = read_blob(root->checkpoint());
  record.proof = static_cast<AbortProof>(root->proof());
  record.text = internal::read_text(root->text(), kClaimTextBytesMax);
  return internal::checked(std::move(record), Code::kCorrupt);
}

}  // namespace cms::wire
