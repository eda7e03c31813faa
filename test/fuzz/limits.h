#pragma once
// The limits of every decoded message, written a second time and independently of schemas/checks.cc:
// encode() asserts what decode_*() checked, so a check that is lost there is lost for both.
#include <string>
#include <variant>
#include <vector>

#include "schemas/claim_record.h"
#include "schemas/ecu_record.h"
#include "schemas/member_record.h"
#include "schemas/messages.h"
#include "test/fuzz/fuzz.h"

namespace cms::fuzz {

inline bool text_fits(const std::string& text, std::size_t bytes_max) {
  return text.size() <= bytes_max && is_printable(text);
}
inline bool name_fits(const std::string& text) { return text_fits(text, wire::kNameBytesMax); }
inline bool reason_fits(Code code, const std::string& text) {
  return code <= Code::kPublisherGone && text_fits(text, wire::kReasonBytesMax);
}
inline bool ecu_fits(EcuMac ecu_mac) {
  return ecu_mac.bits != 0 && ecu_mac.bits >> 48 == 0 && (ecu_mac.bits >> 40 & 1) == 0;
}
inline bool version_fits(const Version& version) { return version.incarnation >= 1 && version.seq >= 1; }
inline bool chunks_fit(std::uint64_t size_bytes, std::uint64_t chunk_size_bytes) {
  const std::uint64_t kib = chunk_size_bytes / 1024;
  const bool known =
      kib == 64 || kib == 128 || kib == 256 || kib == 512 || kib == 1024 || kib == 2048 || kib == 4096;
  return known && chunk_size_bytes % 1024 == 0 && size_bytes <= wire::kBlobSizeBytesMax &&
         size_bytes / chunk_size_bytes <= wire::kChunkCountMax;
}

inline bool fits(const wire::Notification& n) {
  std::size_t text_bytes = n.program_name.size() + n.requirements.arch.size() + n.requirements.os.size() +
                           n.requirements.checkpoint_format.size();
  for (const std::string& label : n.requirements.labels) {
    if (!text_fits(label, wire::kLabelBytesMax)) return false;
    text_bytes += label.size();
  }
  return n.seq >= 1 && chunks_fit(n.size_bytes, n.chunk_size_bytes) &&
         n.kind <= wire::CheckpointKind::kDelta && name_fits(n.program_name) &&
         name_fits(n.requirements.arch) && name_fits(n.requirements.os) &&
         name_fits(n.requirements.checkpoint_format) &&
         n.requirements.labels.size() <= wire::kLabelCountMax &&
         text_bytes <= wire::kNotificationTextBytesMax && n.policies.release <= wire::Release::kStored &&
         n.policies.on_isolation <= wire::OnIsolation::kStop && n.policies.on_loss <= wire::OnLoss::kRestore;
}

// ---- notify
inline bool fits(const wire::Beat&) { return true; }

// ---- control
inline bool fits(const wire::Hello& m) {
  return ecu_fits(m.ecu_mac) && name_fits(m.advertise_host) && name_fits(m.software) &&
         m.enforcer <= wire::Enforcer::kWatchdog && (!m.guarded || m.boot_id != Id128{});
}
inline bool fits(const wire::HelloAnswer& m) {
  return name_fits(m.cms_name) && m.heartbeat_interval_ms >= 1 &&
         m.heartbeat_interval_ms <= wire::kHeartbeatIntervalMsMax && reason_fits(m.code, m.context) &&
         m.lease_ms <= wire::kHeartbeatIntervalMsMax;
}
inline bool fits(const wire::Heartbeat&) { return true; }
inline bool fits(const wire::HeartbeatAnswer&) { return true; }
inline bool fits(const wire::List&) { return true; }
inline bool fits(const wire::ListPage& m) {
  if (m.notifications.size() > wire::kListPageCountMax) return false;
  for (const wire::Notification& n : m.notifications) {
    if (!fits(n)) return false;
  }
  return true;
}
inline bool fits(const wire::Receipt& m) {
  return m.seq >= 1 && m.level <= wire::ReceiptLevel::kFenced && reason_fits(m.code, m.reason);
}
inline bool fits(const wire::Withdraw&) { return true; }
inline bool fits(const wire::WithdrawAnswer& m) { return reason_fits(m.code, m.context); }
inline bool fits(const wire::Bye&) { return true; }
inline bool fits(const wire::MetricsAsk&) { return true; }
inline bool fits(const wire::Metrics& m) {
  for (const wire::CheckpointFormat& format : m.formats) {
    if (!name_fits(format.name)) return false;
  }
  for (const std::string& label : m.labels) {
    if (!text_fits(label, wire::kLabelBytesMax)) return false;
  }
  return m.cpu_load_permille <= 1000 && m.ram_available_bytes <= m.ram_total_bytes && name_fits(m.arch) &&
         name_fits(m.os) && m.formats.size() <= wire::kFormatCountMax &&
         m.labels.size() <= wire::kLabelCountMax;
}
inline bool fits(const wire::ClaimRef& m) { return m.lineage != Lineage{} && m.slot > 1 && m.uid != 0; }
inline bool fits(const wire::Prepare& m) {
  return fits(m.claim) && ecu_fits(m.session.ecu_mac) && m.session.incarnation >= 1 && m.bulk_port != 0 &&
         fits(m.notification);
}
inline bool fits(const wire::Go& m) {
  return fits(m.claim) && m.act_slot > m.claim.slot && m.act_uid != 0 &&
         m.on_isolation <= wire::OnIsolation::kStop;
}
inline bool fits(const wire::Discard& m) { return fits(m.claim); }
inline bool fits(const wire::RestoreReport& m) {
  return fits(m.claim) && m.state <= wire::RestoreState::kDiscarded &&
         m.received_bytes <= wire::kBlobSizeBytesMax && reason_fits(m.code, m.context);
}
inline bool fits(const wire::Freeze& m) { return fits(m.claim); }
inline bool fits(const wire::Thaw& m) {  // Of any record.
  return m.record.lineage != Lineage{} && m.record.slot != 0 && m.record.uid != 0 &&
         m.on_isolation <= wire::OnIsolation::kStop;
}
inline bool fits(const wire::FreezeReport& m) {
  return fits(m.claim) && m.state <= wire::FreezeState::kThawed && reason_fits(m.code, m.context) &&
         (m.state != wire::FreezeState::kFrozen || version_fits(m.last));
}
inline bool fits(const wire::Migrate& m) { return !m.has_to || ecu_fits(m.to_ecu_mac); }
inline bool fits(const wire::MigrateAnswer& m) { return reason_fits(m.code, m.context); }
inline bool fits(const wire::AskPrograms&) { return true; }
inline bool fits(const wire::Programs& m) {
  for (const wire::OwnedProgram& program : m.programs) {
    if (program.lineage == Lineage{} || program.state > wire::ProgramState::kStopped) return false;
  }
  return m.programs.size() <= wire::kProgramsPageCountMax;
}

// ---- bulk
inline bool fits(const wire::Fetch& m) {
  return ecu_fits(m.checkpoint.program.ecu_mac) &&
         (m.checkpoint.version.seq == 0 || version_fits(m.checkpoint.version)) &&
         m.offset_bytes <= wire::kBlobSizeBytesMax && m.offset_bytes % wire::kChunkSizeBytesMin == 0;
}
inline bool fits(const wire::Credit&) { return true; }
inline bool fits(const wire::Cancel&) { return true; }
inline bool fits(const wire::Chunk& m) {
  if (!version_fits(m.version) || !chunks_fit(m.blob_size_bytes, m.chunk_size_bytes)) return false;
  if (m.offset_bytes % m.chunk_size_bytes != 0) return false;
  const std::uint64_t end = m.offset_bytes + m.size_bytes;
  if (m.offset_bytes > m.blob_size_bytes || end > m.blob_size_bytes) return false;
  // Full, or the last; only the chunk of an empty blob is empty.
  return m.last == (end == m.blob_size_bytes) && (m.last || m.size_bytes == m.chunk_size_bytes) &&
         m.size_bytes <= m.chunk_size_bytes && (m.size_bytes > 0 || m.blob_size_bytes == 0);
}
inline bool fits(const wire::TransferError& m) {
  return m.code != Code::kOk && reason_fits(m.code, m.context);
}

// ---- admin
inline bool fits(const wire::AdminRequest& m) {
  return m.method <= wire::AdminMethod::kEcuMaintenance && (!m.has_ecu_mac || ecu_fits(m.ecu_mac)) &&
         (!m.has_version || version_fits(m.version)) && name_fits(m.continue_after) &&
         (!m.has_to || ecu_fits(m.to_ecu_mac));
}
inline bool fits(const wire::AdminAnswer& m) {
  return reason_fits(m.code, m.context) && m.json.size() <= wire::kJsonBytesMax && name_fits(m.next);
}

// ---- peers
inline bool fits(const wire::PeerBeat& m) {
  for (const ProgramKey& program : m.pulling) {
    if (!ecu_fits(program.ecu_mac)) return false;
  }
  for (const CheckpointId& checkpoint : m.reading) {
    if (!ecu_fits(checkpoint.program.ecu_mac) || !version_fits(checkpoint.version)) return false;
  }
  return m.pulling.size() <= wire::kPeerPullingCountMax && m.wants_greeting.size() <= wire::kPeerCountMax &&
         m.reading.size() <= wire::kPeerReadingCountMax;
}
inline bool fits(const std::vector<wire::StoredCheckpoint>& checkpoints) {
  for (const wire::StoredCheckpoint& one : checkpoints) {
    if (!ecu_fits(one.checkpoint.program.ecu_mac) || !version_fits(one.checkpoint.version) ||
        one.lineage == Lineage{} || one.size_bytes > wire::kBlobSizeBytesMax ||
        one.stored_bytes > wire::kStoredBytesMax || !name_fits(one.program_name)) {
      return false;
    }
  }
  return !checkpoints.empty() && checkpoints.size() <= wire::kPeerStoredCountMax;
}
inline bool fits(const wire::PeerStored& m) { return fits(m.checkpoints); }
inline bool fits(const wire::PeerQuarantined& m) { return fits(m.checkpoints); }
inline bool fits(const wire::PeerWithdrawn& m) {
  return ecu_fits(m.program.ecu_mac) && version_fits(m.up_to);
}
inline bool fits(const wire::PeerIncarnations& m) {
  for (const SessionId& session : m.incarnations) {
    if (!ecu_fits(session.ecu_mac) || session.incarnation == 0) return false;
  }
  return m.incarnations.size() <= wire::kPeerIncarnationCountMax;
}
inline bool fits(const wire::PeerRemoved& m) {
  for (const wire::RemovedBlob& blob : m.blobs) {
    if (!ecu_fits(blob.checkpoint.program.ecu_mac) || !version_fits(blob.checkpoint.version)) return false;
  }
  return !m.blobs.empty() && m.blobs.size() <= wire::kPeerRemovedCountMax;
}
inline bool fits(const wire::PeerPinned& m) {
  return ecu_fits(m.checkpoint.program.ecu_mac) && version_fits(m.checkpoint.version);
}

// ---- the messages around the bodies, and the record at rest
template <typename... Ts>
bool fits(const std::variant<Ts...>& body) {
  return std::visit([](const auto& m) { return fits(m); }, body);
}
inline bool fits(const wire::NotifyMessage& m) {
  return ecu_fits(m.session.ecu_mac) && m.session.incarnation >= 1 && fits(m.body);
}
inline bool fits(const wire::ControlMessage& m) { return fits(m.body); }
inline bool fits(const wire::PeerMessage& m) {
  const bool is_beat = std::holds_alternative<wire::PeerBeat>(m.body);
  return !m.cms_name.empty() && name_fits(m.cms_name) && m.incarnation >= 1 && (is_beat || m.event >= 1) &&
         fits(m.body);
}
inline bool fits(const wire::Manifest& m) {
  const std::uint64_t size_bytes = m.notification.size_bytes;
  if (!fits(m.notification) || !chunks_fit(size_bytes, m.chunk_size_bytes)) return false;
  // Between these chunks and one more lies the end of the blob.
  const std::uint64_t count = m.chunk_digests.size();
  const bool counted = size_bytes == 0 ? count == 1
                                       : count >= 1 && (count - 1) * m.chunk_size_bytes < size_bytes &&
                                             size_bytes <= count * m.chunk_size_bytes;
  return counted && m.zero_chunks.size() == count && ecu_fits(m.session.ecu_mac) &&
         m.session.incarnation >= 1 && m.notification.lineage != Lineage{} && name_fits(m.stored_by) &&
         m.blob_digest == blob_digest_of(m.chunk_digests);
}

// ---- the claim log
inline bool fits(const wire::ClaimBlob& b) {
  return ecu_fits(b.checkpoint.program.ecu_mac) && version_fits(b.checkpoint.version) && b.uid != 0;
}
inline bool fits(const wire::ClaimRecord& r) {
  using wire::ClaimKind;
  const bool claimed = r.kind == ClaimKind::kClaim || r.kind == ClaimKind::kAct;
  const bool acted = r.kind == ClaimKind::kAct;
  const OwnerEpoch epoch = r.owner.owner_epoch;
  if (r.lineage == Lineage{} || r.slot == 0 || r.uid == 0 || r.writer_incarnation == 0 || r.writer.empty() ||
      !text_fits(r.writer, wire::kWriterBytesMax) || !text_fits(r.text, wire::kClaimTextBytesMax) ||
      !ecu_fits(r.owner.program.ecu_mac) || r.owner.incarnation == 0 ||
      r.on_isolation > wire::OnIsolation::kStop || r.on_loss > wire::OnLoss::kRestore ||
      r.reason > wire::ClaimReason::kRequest || r.proof > wire::AbortProof::kVouched ||
      r.kind < ClaimKind::kGenesis || r.kind > ClaimKind::kRetire) {
    return false;
  }
  if ((r.base && !fits(*r.base)) || (r.checkpoint && !fits(*r.checkpoint))) return false;
  if (acted && (!ecu_fits(r.target.ecu_mac) || r.target.incarnation == 0)) return false;
  if (!acted && !(r.target == SessionId{})) return false;
  const bool epoch_fits = r.kind == ClaimKind::kDone ? epoch == r.slot : epoch != 1 && epoch < r.slot;
  const bool claim_fits = !claimed ? r.claim_slot == 0
                          : acted  ? r.claim_slot != 0 && r.claim_slot < r.slot
                                   : r.claim_slot == r.slot;
  return (r.kind == ClaimKind::kGenesis) == (r.slot == 1) && epoch_fits && claim_fits &&
         r.base.has_value() == (epoch != 0) && r.checkpoint.has_value() == acted &&
         (r.reason != wire::ClaimReason::kNone) == claimed && (!claimed || r.attempts > 0) &&
         (r.proof != wire::AbortProof::kNone) == (r.kind == ClaimKind::kAbort);
}

// ---- the logs of ECUs
inline bool fits(const wire::EcuRecord& r) {
  const bool hello = r.kind == wire::EcuRecordKind::kHello;
  const bool ended = r.kind == wire::EcuRecordKind::kLost || r.kind == wire::EcuRecordKind::kBye;
  return (hello || ended) && ecu_fits(r.ecu_mac) && r.slot >= (ended ? 2U : 1U) && r.uid != 0 &&
         !r.writer.empty() && text_fits(r.writer, wire::kWriterBytesMax) && r.writer_incarnation != 0 &&
         r.incarnation != 0 && r.enforcer <= wire::Enforcer::kWatchdog && hello == (r.boot_id != Id128{}) &&
         (hello || r.nonce == 0) && r.lost_incarnation <= r.incarnation;
}

// ---- members
inline bool fits(const wire::MemberRecord& r) {
  for (const SessionId& bar : r.bars) {
    if (!ecu_fits(bar.ecu_mac) || bar.incarnation == 0) return false;
  }
  return r.bars.size() <= wire::kBarCountMax && !r.node.empty() && text_fits(r.node, wire::kNodeBytesMax) &&
         r.incarnation != 0 && r.counter != 0 && name_fits(r.software);
}

}  // namespace cms::fuzz
