#include "schemas/checks.h"

#include <algorithm>

namespace cms::wire {
namespace internal {
namespace {

// The bytes of the printable UTF-8 character that starts `text`; 0 when there is none. Control
// characters (C0, DEL, C1) do not pass: names are printed on terminals and written to logs.
std::size_t printable_character_bytes(std::string_view text) {
  if (text.empty()) return 0;
  const auto octet = [&](std::size_t i) {
    return static_cast<std::uint32_t>(static_cast<unsigned char>(text[i]));
  };
  const std::uint32_t first = octet(0);
  if (first < 0x80) return first >= 0x20 && first != 0x7f ? 1 : 0;
  const std::size_t bytes = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < bytes) return 0;
  std::uint32_t character = first & (0xffU >> (bytes + 1));
  for (std::size_t i = 1; i < bytes; ++i) {
    if ((octet(i) & 0xc0) != 0x80) return 0;
    character = (character << 6) | (octet(i) & 0x3f);
  }
  constexpr std::uint32_t kFirstOfBytes[] = {0xa0, 0x800, 0x10000};  // 0x80..0x9f are controls
  const bool surrogate = character >= 0xd800 && character <= 0xdfff;
  return character >= kFirstOfBytes[bytes - 2] && character <= 0x10ffff && !surrogate ? bytes : 0;
}

bool is_printable(std::string_view text) {
  while (!text.empty()) {
    const std::size_t bytes = printable_character_bytes(text);
    if (bytes == 0) return false;
    text.remove_prefix(bytes);
  }
  return true;
}

constexpr bool is_power_of_two(std::uint32_t value) { return value != 0 && (value & (value - 1)) == 0; }

constexpr std::uint64_t kNoLimit = UINT64_MAX;

void check_version(Checker& checker, const Version& version) {
  checker.in_range("incarnation", version.incarnation, 1, kNoLimit);
  checker.in_range("seq", version.seq, 1, kNoLimit);
}

void check_checkpoint(Checker& checker, const CheckpointId& checkpoint) {
  checker.ecu_mac(checkpoint.program.ecu_mac);
  check_version(checker, checkpoint.version);
}

// Only for a size and a chunk size that passed their own checks.
void check_chunk_count(Checker& checker, std::uint64_t size_bytes, std::uint32_t chunk_size_bytes) {
  if (!checker.status().ok()) return;
  checker.in_range("chunk count", chunk_count_of(size_bytes, chunk_size_bytes), 1, kChunkCountMax);
}

Status check(const Beat&, Side) { return ok_status(); }

Status check(const Hello& hello, Side side) {
  Checker checker("Hello", side);
  checker.ecu_mac(hello.ecu_mac);
  checker.text("advertise_host", hello.advertise_host, kNameBytesMax);
  checker.text("software", hello.software, kNameBytesMax);
  checker.enumerator("enforcer", hello.enforcer, Enforcer::kWatchdog);
  checker.that(!hello.guarded || hello.boot_id != Id128{}, "boot_id", 0, "not zero where guarded");
  return checker.status();
}

Status check(const HelloAnswer& answer, Side side) {
  Checker checker("HelloAnswer", side);
  checker.text("cms_name", answer.cms_name, kNameBytesMax);
  checker.in_range("heartbeat_interval_ms", answer.heartbeat_interval_ms, 1, kHeartbeatIntervalMsMax);
  checker.code(answer.code);
  checker.free_text("context", answer.context);
  checker.in_range("lease_ms", answer.lease_ms, 0, kHeartbeatIntervalMsMax);
  return checker.status();
}

Status check(const Heartbeat&, Side) { return ok_status(); }
Status check(const HeartbeatAnswer&, Side) { return ok_status(); }
Status check(const List&, Side) { return ok_status(); }
Status check(const Bye&, Side) { return ok_status(); }

Status check(const ListPage& page, Side side) {
  Checker checker("ListPage", side);
  checker.in_range("notifications", page.notifications.size(), 0, kListPageCountMax);
  if (!checker.status().ok()) return checker.status();
  for (const Notification& notification : page.notifications) {
    if (Status status = check(notification, side); !status.ok()) return status;
  }
  return ok_status();
}

Status check(const Receipt& receipt, Side side) {
  Checker checker("Receipt", side);
  checker.in_range("seq", receipt.seq, 1, kNoLimit);
  checker.enumerator("level", receipt.level, ReceiptLevel::kFenced);
  checker.code(receipt.code);
  checker.free_text("reason", receipt.reason);
  return checker.status();
}

// seq 0 is allowed: a program that this session has not announced, only an older one.
Status check(const Withdraw&, Side) { return ok_status(); }

Status check(const WithdrawAnswer& answer, Side side) {
  Checker checker("WithdrawAnswer", side);
  checker.code(answer.code);
  checker.free_text("context", answer.context);
  return checker.status();
}

Status check(const MetricsAsk&, Side) { return ok_status(); }

Status check(const Metrics& metrics, Side side) {
  Checker checker("Metrics", side);
  checker.in_range("cpu_load_permille", metrics.cpu_load_permille, 0, kCpuLoadPermilleMax);
  checker.in_range("ram_available_bytes", metrics.ram_available_bytes, 0, metrics.ram_total_bytes);
  checker.text("arch", metrics.arch, kNameBytesMax);
  checker.text("os", metrics.os, kNameBytesMax);
  checker.in_range("formats", metrics.formats.size(), 0, kFormatCountMax);
  checker.in_range("labels", metrics.labels.size(), 0, kLabelCountMax);
  if (!checker.status().ok()) return checker.status();
  for (const CheckpointFormat& format : metrics.formats) {
    checker.text("formats.name", format.name, kNameBytesMax);
  }
  for (const std::string& label : metrics.labels) checker.text("labels", label, kLabelBytesMax);
  return checker.status();
}

void check_claim(Checker& checker, const ClaimRef& claim) {
  checker.that(claim.lineage != Lineage{}, "lineage", 0, "not zero");
  checker.in_range("slot", claim.slot, 2, kNoLimit);  // Slot 1 is GENESIS.
  checker.in_range("uid", claim.uid, 1, kNoLimit);
}

Status check(const Prepare& prepare, Side side) {
  Checker checker("Prepare", side);
  check_claim(checker, prepare.claim);
  checker.ecu_mac(prepare.session.ecu_mac);
  checker.in_range("incarnation", prepare.session.incarnation, 1, kNoLimit);
  checker.in_range("bulk_port", prepare.bulk_port, 1, UINT16_MAX);
  if (!checker.status().ok()) return checker.status();
  return check(prepare.notification, side);
}

Status check(const Go& go, Side side) {
  Checker checker("Go", side);
  check_claim(checker, go.claim);
  if (!checker.status().ok()) return checker.status();
  checker.that(go.act_slot > go.claim.slot, "act_slot", go.act_slot, "above that of the claim");
  checker.in_range("act_uid", go.act_uid, 1, kNoLimit);
  checker.enumerator("on_isolation", go.on_isolation, OnIsolation::kStop);
  return checker.status();
}

Status check(const Discard& discard, Side side) {
  Checker checker("Discard", side);
  check_claim(checker, discard.claim);
  return checker.status();
}

Status check(const RestoreReport& report, Side side) {
  Checker checker("RestoreReport", side);
  check_claim(checker, report.claim);
  checker.enumerator("state", report.state, RestoreState::kDiscarded);
  checker.in_range("received_bytes", report.received_bytes, 0, kBlobSizeBytesMax);
  checker.code(report.code);
  checker.free_text("context", report.context);
  return checker.status();
}

Status check(const Freeze& freeze, Side side) {
  Checker checker("Freeze", side);
  check_claim(checker, freeze.claim);
  return checker.status();
}

Status check(const Thaw& thaw, Side side) {
  Checker checker("Thaw", side);
  checker.that(thaw.record.lineage != Lineage{}, "lineage", 0, "not zero");
  checker.in_range("slot", thaw.record.slot, 1, kNoLimit);
  checker.in_range("uid", thaw.record.uid, 1, kNoLimit);
  checker.enumerator("on_isolation", thaw.on_isolation, OnIsolation::kStop);
  return checker.status();
}

Status check(const FreezeReport& report, Side side) {
  Checker checker("FreezeReport", side);
  // Thawed by whatever record is the head: by GENESIS, too.
  checker.that(report.claim.lineage != Lineage{}, "lineage", 0, "not zero");
  checker.in_range("slot", report.claim.slot, report.state == FreezeState::kThawed ? 1 : 2, kNoLimit);
  checker.in_range("uid", report.claim.uid, 1, kNoLimit);
  checker.enumerator("state", report.state, FreezeState::kThawed);
  if (report.state == FreezeState::kFrozen) {
    checker.in_range("incarnation", report.last.incarnation, 1, kNoLimit);
    checker.in_range("seq", report.last.seq, 1, kNoLimit);
  }
  checker.code(report.code);
  checker.free_text("context", report.context);
  return checker.status();
}

Status check(const Migrate& migrate, Side side) {
  Checker checker("Migrate", side);
  if (migrate.has_to) checker.ecu_mac(migrate.to_ecu_mac);
  return checker.status();
}

Status check(const MigrateAnswer& answer, Side side) {
  Checker checker("MigrateAnswer", side);
  checker.code(answer.code);
  checker.free_text("context", answer.context);
  return checker.status();
}

Status check(const AskPrograms&, Side) { return ok_status(); }

Status check(const Programs& page, Side side) {
  Checker checker("Programs", side);
  checker.in_range("programs", page.programs.size(), 0, kProgramsPageCountMax);
  if (!checker.status().ok()) return checker.status();
  for (const OwnedProgram& program : page.programs) {
    checker.that(program.lineage != Lineage{}, "lineage", 0, "not zero");
    checker.enumerator("state", program.state, ProgramState::kStopped);
  }
  return checker.status();
}

Status check(const PeerBeat& beat, Side side) {
  Checker checker("PeerBeat", side);
  checker.in_range("pulling", beat.pulling.size(), 0, kPeerPullingCountMax);
  checker.in_range("wants_greeting", beat.wants_greeting.size(), 0, kPeerCountMax);
  if (!checker.status().ok()) return checker.status();
  for (const ProgramKey& program : beat.pulling) checker.ecu_mac(program.ecu_mac);
  checker.in_range("reading", beat.reading.size(), 0, kPeerReadingCountMax);
  if (!checker.status().ok()) return checker.status();
  for (const CheckpointId& checkpoint : beat.reading) check_checkpoint(checker, checkpoint);
  return checker.status();
}

Status check(const PeerRemoved& removed, Side side) {
  Checker checker("PeerRemoved", side);
  checker.in_range("blobs", removed.blobs.size(), 1, kPeerRemovedCountMax);
  if (!checker.status().ok()) return checker.status();
  for (const RemovedBlob& blob : removed.blobs) check_checkpoint(checker, blob.checkpoint);
  return checker.status();
}

Status check(const PeerPinned& pinned, Side side) {
  Checker checker("PeerPinned", side);
  check_checkpoint(checker, pinned.checkpoint);
  return checker.status();
}

Status check_stored(Checker& checker, const std::vector<StoredCheckpoint>& checkpoints) {
  checker.in_range("checkpoints", checkpoints.size(), 1, kPeerStoredCountMax);
  if (!checker.status().ok()) return checker.status();
  for (const StoredCheckpoint& one : checkpoints) {
    checker.ecu_mac(one.checkpoint.program.ecu_mac);
    check_version(checker, one.checkpoint.version);
    checker.that(one.lineage != Lineage{}, "lineage", 0, "not zero");
    checker.in_range("size_bytes", one.size_bytes, 0, kBlobSizeBytesMax);
    checker.in_range("stored_bytes", one.stored_bytes, 0, kStoredBytesMax);
    checker.text("program_name", one.program_name, kNameBytesMax);
  }
  return checker.status();
}

Status check(const PeerStored& stored, Side side) {
  Checker checker("PeerStored", side);
  return check_stored(checker, stored.checkpoints);
}

Status check(const PeerQuarantined& quarantined, Side side) {
  Checker checker("PeerQuarantined", side);
  return check_stored(checker, quarantined.checkpoints);
}

Status check(const PeerWithdrawn& withdrawn, Side side) {
  Checker checker("PeerWithdrawn", side);
  checker.ecu_mac(withdrawn.program.ecu_mac);
  check_version(checker, withdrawn.up_to);
  return checker.status();
}

Status check(const PeerIncarnations& message, Side side) {
  Checker checker("PeerIncarnations", side);
  checker.in_range("incarnations", message.incarnations.size(), 0, kPeerIncarnationCountMax);
  if (!checker.status().ok()) return checker.status();
  for (const SessionId& session : message.incarnations) {
    checker.ecu_mac(session.ecu_mac);
    checker.in_range("incarnation", session.incarnation, 1, kNoLimit);
  }
  return checker.status();
}

// limit_bytes has no limit here and in Credit: it is only ever compared with an offset.
Status check(const Fetch& fetch, Side side) {
  Checker checker("Fetch", side);
  checker.ecu_mac(fetch.checkpoint.program.ecu_mac);
  if (fetch.checkpoint.version.seq != 0) check_version(checker, fetch.checkpoint.version);
  checker.in_range("offset_bytes", fetch.offset_bytes, 0, kBlobSizeBytesMax);
  checker.that(fetch.offset_bytes % kChunkSizeBytesMin == 0, "offset_bytes", fetch.offset_bytes,
               "a multiple of the chunk size");
  return checker.status();
}

Status check(const Credit&, Side) { return ok_status(); }
Status check(const Cancel&, Side) { return ok_status(); }

Status check(const Chunk& chunk, Side side) {
  Checker checker("Chunk", side);
  check_version(checker, chunk.version);
  checker.in_range("blob_size_bytes", chunk.blob_size_bytes, 0, kBlobSizeBytesMax);
  checker.chunk_size(chunk.chunk_size_bytes);
  check_chunk_count(checker, chunk.blob_size_bytes, chunk.chunk_size_bytes);
  if (!checker.status().ok()) return checker.status();  // What follows divides and subtracts.

  checker.in_range("offset_bytes", chunk.offset_bytes, 0, chunk.blob_size_bytes);
  checker.that(chunk.offset_bytes % chunk.chunk_size_bytes == 0, "offset_bytes", chunk.offset_bytes,
               "a multiple of chunk_size_bytes");
  if (!checker.status().ok()) return checker.status();
  // Every chunk is full but the last, so the size follows from the offset. An offset at the end is
  // that of the one chunk of an empty blob.
  const std::uint64_t left = chunk.blob_size_bytes - chunk.offset_bytes;
  const std::uint64_t size_expected = std::min<std::uint64_t>(left, chunk.chunk_size_bytes);
  checker.that(left > 0 || chunk.blob_size_bytes == 0, "offset_bytes", chunk.offset_bytes,
               "less than blob_size_bytes");
  checker.in_range("size_bytes", chunk.size_bytes, size_expected, size_expected);
  checker.that(chunk.last == (left == size_expected), "last", chunk.last,
               "set in the last chunk and no other");
  return checker.status();
}

Status check(const TransferError& error, Side side) {
  Checker checker("TransferError", side);
  checker.code(error.code);
  checker.that(error.code != Code::kOk, "code", 0, "an error");
  checker.free_text("context", error.context);
  return checker.status();
}

Status check(const AdminRequest& request, Side side) {
  Checker checker("AdminRequest", side);
  checker.enumerator("method", request.method, AdminMethod::kEcuMaintenance);
  if (request.has_ecu_mac) checker.ecu_mac(request.ecu_mac);
  if (request.has_to) checker.ecu_mac(request.to_ecu_mac);
  if (request.has_version) check_version(checker, request.version);
  checker.text("continue_after", request.continue_after, kNameBytesMax);
  return checker.status();
}

Status check(const AdminAnswer& answer, Side side) {
  Checker checker("AdminAnswer", side);
  checker.code(answer.code);
  checker.free_text("context", answer.context);
  checker.in_range("json", answer.json.size(), 0, kJsonBytesMax);
  checker.text("next", answer.next, kNameBytesMax);
  return checker.status();
}

template <typename Body>
Status check_body(const Body& body, Side side) {
  return std::visit([side](const auto& message) { return check(message, side); }, body);
}

}  // namespace

void Checker::fail(std::string_view field, const std::string& problem) {
  if (!status_.ok()) return;
  std::string context(message_);
  context += '.';
  context += field;
  status_ = make_error(Code::kInvalidArgument, context + ": " + problem);
}

void Checker::that(bool holds, std::string_view field, std::uint64_t value, std::string_view allowed) {
  if (!holds) fail(field, std::to_string(value) + " (allowed: " + std::string(allowed) + ")");
}

void Checker::in_range(std::string_view field, std::uint64_t value, std::uint64_t min, std::uint64_t max) {
  if (value >= min && value <= max) return;
  fail(field,
       std::to_string(value) + " (allowed: " + std::to_string(min) + " to " + std::to_string(max) + ")");
}

void Checker::code(Code value) { enumerator("code", value, Code::kPublisherGone); }

void Checker::ecu_mac(EcuMac value) {
  if (is_valid_ecu_mac(value)) return;
  const std::string shown = value.bits <= kEcuMacBitsMax ? to_string(value) : std::to_string(value.bits);
  fail("ecu_mac", shown + " (allowed: a unicast Ethernet address, not all zero)");
}

void Checker::chunk_size(std::uint32_t value) {
  in_range("chunk_size_bytes", value, kChunkSizeBytesMin, kChunkSizeBytesMax);
  that(is_power_of_two(value), "chunk_size_bytes", value, "a power of two");
}

void Checker::text(std::string_view field, std::string_view value, std::size_t bytes_max) {
  if (value.size() > bytes_max) {
    fail(field, "at least " + std::to_string(value.size()) + " bytes (allowed: at most " +
                    std::to_string(bytes_max) + ")");
  } else if (!is_printable(value)) {
    fail(field, "'" + cleaned_free_text(value) + "' (allowed: UTF-8 without control characters)");
  }
}

void Checker::free_text(std::string_view field, std::string_view value) {
  if (side_ == Side::kReceiver) text(field, value, kReasonBytesMax);
}

Status check(const Notification& notification, Side side) {
  Checker checker("Notification", side);
  checker.in_range("seq", notification.seq, 1, kNoLimit);
  checker.in_range("size_bytes", notification.size_bytes, 0, kBlobSizeBytesMax);
  checker.chunk_size(notification.chunk_size_bytes);
  check_chunk_count(checker, notification.size_bytes, notification.chunk_size_bytes);
  checker.enumerator("kind", notification.kind, CheckpointKind::kDelta);
  const Requirements& requirements = notification.requirements;
  checker.text("program_name", notification.program_name, kNameBytesMax);
  checker.text("requirements.arch", requirements.arch, kNameBytesMax);
  checker.text("requirements.os", requirements.os, kNameBytesMax);
  checker.text("requirements.checkpoint_format", requirements.checkpoint_format, kNameBytesMax);
  checker.in_range("requirements.labels", requirements.labels.size(), 0, kLabelCountMax);
  if (!checker.status().ok()) return checker.status();
  std::size_t text_bytes = notification.program_name.size() + requirements.arch.size() +
                           requirements.os.size() + requirements.checkpoint_format.size();
  for (const std::string& label : requirements.labels) {
    checker.text("requirements.labels", label, kLabelBytesMax);
    text_bytes += label.size();
  }
  checker.in_range("bytes of all names and labels", text_bytes, 0, kNotificationTextBytesMax);
  checker.enumerator("policies.release", notification.policies.release, Release::kStored);
  checker.enumerator("policies.on_isolation", notification.policies.on_isolation, OnIsolation::kStop);
  checker.enumerator("policies.on_loss", notification.policies.on_loss, OnLoss::kRestore);
  return checker.status();
}

Status check(const NotifyMessage& message, Side side) {
  Checker checker("NotifyMessage", side);
  checker.ecu_mac(message.session.ecu_mac);
  checker.in_range("incarnation", message.session.incarnation, 1, kNoLimit);
  if (!checker.status().ok()) return checker.status();
  return check_body(message.body, side);
}

Status check(const ControlMessage& message, Side side) { return check_body(message.body, side); }
Status check(const BulkBody& message, Side side) { return check_body(message, side); }
Status check(const AdminBody& message, Side side) { return check_body(message, side); }

Status check(const PeerMessage& message, Side side) {
  Checker checker("PeerMessage", side);
  checker.that(!message.cms_name.empty(), "cms_name", 0, "a name");
  checker.text("cms_name", message.cms_name, kNameBytesMax);
  checker.in_range("incarnation", message.incarnation, 1, kNoLimit);
  // Beats carry the number of the last event, 0 before the first.
  const bool is_beat = std::holds_alternative<PeerBeat>(message.body);
  checker.in_range("event", message.event, is_beat ? 0 : 1, kNoLimit);
  if (!checker.status().ok()) return checker.status();
  return check_body(message.body, side);
}

Status check(const Manifest& manifest, Side side) {
  if (Status status = check(manifest.notification, side); !status.ok()) return status;
  Checker checker("Manifest", side);
  checker.ecu_mac(manifest.session.ecu_mac);
  checker.in_range("incarnation", manifest.session.incarnation, 1, kNoLimit);
  checker.that(manifest.notification.lineage != Lineage{}, "notification.lineage", 0, "not zero");
  checker.chunk_size(manifest.chunk_size_bytes);
  check_chunk_count(checker, manifest.notification.size_bytes, manifest.chunk_size_bytes);
  checker.text("stored_by", manifest.stored_by, kNameBytesMax);
  if (!checker.status().ok()) return checker.status();
  const std::uint64_t count = chunk_count_of(manifest.notification.size_bytes, manifest.chunk_size_bytes);
  checker.in_range("chunk_digests", manifest.chunk_digests.size(), count, count);
  checker.in_range("zero_chunks", manifest.zero_chunks.size(), count, count);
  if (!checker.status().ok()) return checker.status();
  if (manifest.blob_digest != blob_digest_of(manifest.chunk_digests)) {
    return make_error(Code::kInvalidArgument, "Manifest.blob_digest: " + to_string(manifest.blob_digest) +
                                                  " (allowed: the digest over chunk_digests)");
  }
  return ok_status();
}

std::string cleaned_free_text(std::string_view text, std::size_t bytes_max) {
  std::string cleaned;
  cleaned.reserve(std::min(text.size(), bytes_max));
  while (!text.empty()) {
    const std::size_t printable_bytes = printable_character_bytes(text);
    const std::size_t bytes = std::max<std::size_t>(printable_bytes, 1);
    if (cleaned.size() + bytes > bytes_max) break;
    cleaned += printable_bytes == 0 ? std::string_view("?") : text.substr(0, bytes);
    text.remove_prefix(bytes);
  }
  return cleaned;
}

}  // namespace internal

Status check_notification(const Notification& notification) {
  return internal::check(notification, internal::Side::kSender);
}

std::string_view to_string(ReceiptLevel level) {
  switch (level) {
    case ReceiptLevel::kAnnounced: return "ANNOUNCED";
    case ReceiptLevel::kPulling: return "PULLING";
    case ReceiptLevel::kStored: return "STORED";
    case ReceiptLevel::kReplicated: return "REPLICATED";
    case ReceiptLevel::kVerified: return "VERIFIED";
    case ReceiptLevel::kSuperseded: return "SUPERSEDED";
    case ReceiptLevel::kDropped: return "DROPPED";
    case ReceiptLevel::kFenced: return "FENCED";
  }
  return "UNKNOWN";
}

std::string_view to_string(FreezeState state) {
  switch (state) {
    case FreezeState::kUnknown: return "unknown";
    case FreezeState::kFreezing: return "freezing";
    case FreezeState::kFrozen: return "frozen";
    case FreezeState::kRefused: return "refused";
    case FreezeState::kThawed: return "thawed";
  }
  return "unknown";
}

std::string_view to_string(ProgramState state) {
  switch (state) {
    case ProgramState::kRunning: return "running";
    case ProgramState::kFrozen: return "frozen";
    case ProgramState::kStopped: return "stopped";
  }
  return "unknown";
}

std::string_view to_string(Enforcer enforcer) {
  switch (enforcer) {
    case Enforcer::kNone: return "none";
    case Enforcer::kGuard: return "guard";
    case Enforcer::kWatchdog: return "watchdog";
  }
  return "unknown";
}

std::string_view to_string(RestoreState state) {
  switch (state) {
    case RestoreState::kUnknown: return "unknown";
    case RestoreState::kPulling: return "pulling";
    case RestoreState::kPrepared: return "prepared";
    case RestoreState::kRunning: return "running";
    case RestoreState::kRefused: return "refused";
    case RestoreState::kDiscarded: return "discarded";
  }
  return "unknown";
}

}  // namespace cms::wire
