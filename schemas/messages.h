#pragma once
// Every message of the five channels and every record at rest, as plain values. decode_* is the one
// entry for bytes of a peer or a disk: it copies the frame to aligned memory (unless it is aligned),
// runs the FlatBuffers verifier, then checks the limits below; nothing else in the tree reads a
// FlatBuffer. encode() asserts the same limits, but for free text (reason, context), which it cuts
// to kReasonBytesMax and cleans: bytes that are not printable UTF-8 become '?'.
//
// Threads: pure functions. Memory: the values own what they hold, nothing refers to the frame.
// Errors: kProtocol (kCorrupt for records at rest), with what is wrong and the limit; kUnsupported
// for a record of a newer format. The sender's session is to be dropped, the record quarantined.
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/digest.h"
#include "base/ids.h"
#include "base/result.h"

namespace cms::wire {

inline constexpr std::uint16_t kProtocolVersion = 1;
inline constexpr std::uint16_t kProtocolVersionMin = 1;

// Limits of what a peer may send. A frame above kControlFrameBytesMax is refused by the socket.
inline constexpr std::size_t kControlFrameBytesMax = 64 * 1024;
inline constexpr std::size_t kNotificationBytesMax = 1024;
inline constexpr std::size_t kNameBytesMax = 128;    // program_name, arch, os, …
inline constexpr std::size_t kReasonBytesMax = 512;  // reason, context
inline constexpr std::size_t kLabelCountMax = 16;
inline constexpr std::size_t kLabelBytesMax = 64;
inline constexpr std::size_t kFormatCountMax = 16;
inline constexpr std::uint32_t kCpuLoadPermilleMax = 1000;
inline constexpr std::size_t kListPageCountMax = 60;       // x kNotificationBytesMax < one frame
inline constexpr std::size_t kOwnedProgramBytesMax = 80;   // In a frame.
inline constexpr std::size_t kProgramsPageCountMax = 512;  // x kOwnedProgramBytesMax < one frame
inline constexpr std::uint64_t kBlobSizeBytesMax = std::uint64_t{1} << 44;  // 16 TiB
// Of the file: the digests of its chunks as well.
inline constexpr std::uint64_t kStoredBytesMax = 2 * kBlobSizeBytesMax;
inline constexpr std::uint32_t kChunkSizeBytesMin = 64 * 1024;
inline constexpr std::uint32_t kChunkSizeBytes = 1024 * 1024;  // docs/adr/0004
inline constexpr std::uint32_t kChunkSizeBytesMax = 4 * 1024 * 1024;
inline constexpr std::uint64_t kChunkCountMax = std::uint64_t{1} << 24;  // so 16 TiB need 1 MiB chunks
inline constexpr std::size_t kAdminFrameBytesMax = 4 * 1024 * 1024;
inline constexpr std::size_t kJsonBytesMax = kAdminFrameBytesMax - 4096;  // AdminAnswer.json
inline constexpr std::size_t kPeerCountMax = 16;                          // Other CMS instances.
inline constexpr std::size_t kPeerPullingCountMax = 256;                  // Of one beat.
inline constexpr std::size_t kPeerStoredCountMax = 64;         // Of one event; with long names < one frame.
inline constexpr std::size_t kPeerIncarnationCountMax = 2048;  // Of one event.
inline constexpr std::size_t kPeerReadingCountMax = 256;       // Of one beat.
inline constexpr std::size_t kPeerRemovedCountMax = 512;       // Of one event.
// All names and labels of a notification together, so that it fits kNotificationBytesMax.
inline constexpr std::size_t kNotificationTextBytesMax = 400;
inline constexpr std::uint32_t kHeartbeatIntervalMsMax = 60 * 1000;
inline constexpr std::uint16_t kManifestFormatVersion = 1;
inline constexpr std::size_t kManifestBytesMax = kChunkCountMax * 16 + kChunkCountMax / 8 + 4096;

enum class CheckpointKind : std::uint8_t { kFull = 0, kDelta = 1 };
enum class Release : std::uint8_t { kReplicated = 0, kStored = 1 };
enum class OnIsolation : std::uint8_t { kKeep = 0, kStop = 1 };
enum class OnLoss : std::uint8_t { kAsk = 0, kRestore = 1 };

struct Requirements {
  std::string arch{};
  std::string os{};
  std::string checkpoint_format{};
  std::uint32_t format_version = 0;
  std::uint64_t ram_bytes = 0;
  std::vector<std::string> labels{};
};
struct RealTime {
  std::int32_t priority = 0;
  std::uint64_t period_us = 0;
  std::uint64_t deadline_us = 0;
  std::uint64_t wcet_us = 0;
  bool tight = false;  // It can spare the least time of all: its restore prefers ECUs near its CMS.
};
struct Policies {
  Release release = Release::kReplicated;
  OnIsolation on_isolation = OnIsolation::kKeep;
  OnLoss on_loss = OnLoss::kAsk;
};
struct Notification {
  ProgramId program_id = 0;
  Seq seq = 0;
  Lineage lineage{};  // Zero: lineage_of(the program's key).
  OwnerEpoch owner_epoch = 0;
  std::uint64_t size_bytes = 0;
  std::uint32_t chunk_size_bytes = kChunkSizeBytes;
  CheckpointKind kind = CheckpointKind::kFull;
  std::uint64_t taken_at_us = 0;
  std::uint64_t pause_us = 0;
  std::string program_name{};
  Requirements requirements{};
  RealTime real_time{};
  Policies policies{};
};

// ---- notify channel
struct Beat {
  Seq last_seq = 0;
};
struct NotifyMessage {
  SessionId session{};
  std::variant<Notification, Beat> body{};
};

// ---- control channel
enum class ReceiptLevel : std::uint8_t {
  kAnnounced = 0,
  kPulling = 1,
  kStored = 2,
  kReplicated = 3,
  kVerified = 4,
  kSuperseded = 5,
  kDropped = 6,
  kFenced = 7,
};
std::string_view to_string(ReceiptLevel level);  // "STORED"

enum class Enforcer : std::uint8_t { kNone = 0, kGuard = 1, kWatchdog = 2 };
std::string_view to_string(Enforcer enforcer);  // "guard"
struct Hello {
  std::uint16_t protocol_version = kProtocolVersion;
  std::uint16_t protocol_version_min = kProtocolVersionMin;
  std::uint64_t features = 0;
  EcuMac ecu_mac{};
  Incarnation incarnation = 0;
  std::uint64_t nonce = 0;
  bool guarded = false;
  Id128 host_id{};
  std::uint16_t bulk_port = 0;
  std::string advertise_host{};
  std::string software{};
  Seq last_seq = 0;
  Id128 boot_id{};  // Guarded only, as what follows.
  Enforcer enforcer = Enforcer::kNone;
};
struct HelloAnswer {
  std::uint16_t protocol_version = kProtocolVersion;
  std::uint64_t features = 0;
  std::uint64_t nonce = 0;
  Incarnation incarnation = 0;
  std::string cms_name{};
  std::uint32_t heartbeat_interval_ms = 1000;
  Code code = Code::kOk;
  std::string context{};
  std::uint32_t lease_ms = 0;  // To a guarded session: T_fence.
};
struct Heartbeat {
  std::uint64_t number = 0;
  Seq last_seq = 0;
  std::uint32_t waiting = 0;
  // Of a guarded session: rises when what Programs has told is no longer so.
  std::uint64_t programs_changed = 0;
};
struct HeartbeatAnswer {
  std::uint64_t number = 0;
  std::uint64_t notify_heard = 0;
  bool leased = false;  // To a guarded session: its run lease is renewed.
};
struct List {
  Seq from_seq = 0;
};
struct ListPage {
  std::vector<Notification> notifications{};
  Seq next_seq = 0;
  Seq last_seq = 0;
  bool end = true;
};
struct Receipt {
  ProgramId program_id = 0;
  Seq seq = 0;
  ReceiptLevel level = ReceiptLevel::kAnnounced;
  Code code = Code::kOk;
  std::string reason{};
  Version newer{};  // SUPERSEDED by this one of a larger incarnation; incarnation 0: not told.
  std::uint64_t newer_known_ms = 0;  // How long the CMS has known of that incarnation.
  bool newer_lives = false;          // Its session is open there.
  Lineage lineage{};                 // FENCED: of which it is spoken; zero: not told.
  OwnerEpoch owner_epoch = 0;        // FENCED: of the owner that it has now; 0: not told.
};
struct Withdraw {
  std::uint64_t request_id = 0;
  ProgramId program_id = 0;
  Seq seq = 0;
};
struct WithdrawAnswer {
  std::uint64_t request_id = 0;
  Code code = Code::kOk;
  std::string context{};
};
struct Bye {};
struct MetricsAsk {
  std::uint64_t number = 0;
};
struct CheckpointFormat {
  std::string name{};
  std::uint32_t version_max = 0;
};
struct Metrics {
  std::uint64_t number = 0;  // Of the question.
  std::uint32_t age_ms = 0;
  std::uint32_t cpu_count = 0;
  std::uint32_t cpu_load_permille = 0;  // Of all CPUs together, 0 to 1000.
  std::uint64_t ram_total_bytes = 0;
  std::uint64_t ram_available_bytes = 0;
  std::string arch{};
  std::string os{};
  std::vector<CheckpointFormat> formats{};  // At most kFormatCountMax.
  std::vector<std::string> labels{};        // At most kLabelCountMax.
  bool draining = false;
};
// What each command of a restore names: the CLAIM in the lineage's log that it follows from.
struct ClaimRef {
  Lineage lineage{};
  std::uint64_t slot = 0;
  std::uint64_t uid = 0;
};
struct Prepare {
  ClaimRef claim{};
  SessionId session{};  // That published the checkpoint.
  Notification notification{};
  std::uint16_t bulk_port = 0;
  std::optional<ProgramId> restarts{};  // The receiver's own program, that its RTCR has asked for.
};
struct Go {
  ClaimRef claim{};
  std::uint64_t act_slot = 0;
  std::uint64_t act_uid = 0;
  OnIsolation on_isolation = OnIsolation::kKeep;  // As the log has it.
};
struct Discard {
  ClaimRef claim{};
};
enum class RestoreState : std::uint8_t {
  kUnknown = 0,  // Nothing of that claim is here.
  kPulling = 1,
  kPrepared = 2,  // Restored, and paused.
  kRunning = 3,
  kRefused = 4,    // Will not run it, whatever comes.
  kDiscarded = 5,  // As refused, because it was told so.
};
std::string_view to_string(RestoreState state);  // "prepared"
struct RestoreReport {
  ClaimRef claim{};
  std::uint64_t act_uid = 0;
  RestoreState state = RestoreState::kUnknown;
  std::uint64_t received_bytes = 0;
  ProgramId program_id = 0;
  Code code = Code::kOk;
  std::string context{};
};
struct Freeze {
  ClaimRef claim{};
  ProgramId program_id = 0;
};
struct Thaw {
  ClaimRef record{};  // Of the RELEASE or ABORT; of whatever else is the head and leaves it to that ECU.
  ProgramId program_id = 0;
  OnIsolation on_isolation = OnIsolation::kKeep;  // As the log has it.
};
enum class FreezeState : std::uint8_t {
  kUnknown = 0,   // Nothing is frozen for that claim.
  kFreezing = 1,  // Its last checkpoint is not published yet.
  kFrozen = 2,
  kRefused = 3,  // Will not be frozen for that claim: it runs on.
  kThawed = 4,
};
std::string_view to_string(FreezeState state);  // "frozen"
struct FreezeReport {
  ClaimRef claim{};
  ProgramId program_id = 0;
  FreezeState state = FreezeState::kUnknown;
  Version last{};  // kFrozen: of its last checkpoint.
  Code code = Code::kOk;
  std::string context{};
};
struct Migrate {
  std::uint64_t request_id = 0;
  ProgramId program_id = 0;
  OwnerEpoch owner_epoch = 0;  // 0: the sender does not say.
  bool has_to = false;
  EcuMac to_ecu_mac{};
};
struct MigrateAnswer {
  std::uint64_t request_id = 0;
  Code code = Code::kOk;
  std::string context{};
};
struct AskPrograms {
  std::uint64_t number = 0;
  ProgramId from_program_id = 0;
};
enum class ProgramState : std::uint8_t {
  kRunning = 0,
  kFrozen = 1,   // For a planned move.
  kStopped = 2,  // For want of a run lease.
};
std::string_view to_string(ProgramState state);  // "running"
struct OwnedProgram {
  ProgramId program_id = 0;
  Lineage lineage{};
  OwnerEpoch owner_epoch = 0;
  ProgramState state = ProgramState::kRunning;
};
struct Programs {
  std::uint64_t number = 0;              // Of the question.
  std::vector<OwnedProgram> programs{};  // By program_id, at most kProgramsPageCountMax.
  ProgramId next_program_id = 0;
  bool end = true;
};
// Bits of Hello::features.
inline constexpr std::uint64_t kEcuFeatureMetrics = 1;   // Answers MetricsAsk.
inline constexpr std::uint64_t kEcuFeatureRestores = 2;  // Takes Prepare, Go and Discard.
inline constexpr std::uint64_t kEcuFeatureFreezes = 4;   // Takes Freeze and Thaw.
using ControlBody =
    std::variant<Hello, HelloAnswer, Heartbeat, HeartbeatAnswer, List, ListPage, Receipt, Withdraw,
                 WithdrawAnswer, Bye, MetricsAsk, Metrics, Prepare, Go, Discard, RestoreReport, Freeze, Thaw,
                 FreezeReport, Migrate, MigrateAnswer, AskPrograms, Programs>;
struct ControlMessage {
  Incarnation incarnation = 0;
  ControlBody body{};
};

// ---- bulk channel
struct Fetch {
  std::uint64_t transfer_id = 0;
  CheckpointId checkpoint{};  // seq 0: the newest (asked of a CMS only)
  std::uint64_t offset_bytes = 0;
  std::uint64_t limit_bytes = 0;
};
struct Credit {
  std::uint64_t transfer_id = 0;
  std::uint64_t limit_bytes = 0;
};
struct Cancel {
  std::uint64_t transfer_id = 0;
};
struct Chunk {
  std::uint64_t transfer_id = 0;
  std::uint64_t offset_bytes = 0;
  std::uint32_t size_bytes = 0;
  Digest digest{};
  Version version{};
  std::uint64_t blob_size_bytes = 0;
  std::uint32_t chunk_size_bytes = 0;
  bool last = false;
  Digest blob_digest{};
};
struct TransferError {
  std::uint64_t transfer_id = 0;
  Code code = Code::kNotFound;
  std::string context{};
};
using BulkBody = std::variant<Fetch, Credit, Cancel, Chunk, TransferError>;

// ---- admin channel
enum class AdminMethod : std::uint8_t {
  kStatus = 0,
  kEcus = 1,
  kCheckpoints = 2,
  kShow = 3,
  kRetire = 4,
  kPin = 5,
  kUnpin = 6,
  kRetentionPlan = 7,
  kRetentionApply = 8,
  kScrub = 9,
  kScrubStatus = 10,
  kIndexRebuild = 11,
  kIndexStatus = 12,
  kExplain = 13,
  kPeers = 14,
  kEcuFailed = 15,  // Tells of the loss, or asks how far its restores are.
  kRestores = 16,
  kHistory = 17,
  kMigrate = 18,   // Moves a program, or asks how far that is, or cancels it.
  kEcuDrain = 19,  // The same of all programs of an ECU.
  kEcuMaintenance = 20,
};
struct AdminRequest {
  std::uint64_t request_id = 0;
  AdminMethod method = AdminMethod::kStatus;
  bool has_ecu_mac = false;
  EcuMac ecu_mac{};
  bool has_program_id = false;
  ProgramId program_id = 0;
  bool has_version = false;
  Version version{};
  bool all = false;
  std::string continue_after{};
  bool has_to = false;
  EcuMac to_ecu_mac{};
  bool cancel = false;
  std::uint64_t deadline_ms = 0;
};
struct AdminAnswer {
  std::uint64_t request_id = 0;
  Code code = Code::kOk;
  std::string context{};
  std::string json{};
  std::string next{};
};
using AdminBody = std::variant<AdminRequest, AdminAnswer>;

// ---- peer events
struct PeerBeat {
  std::uint64_t uptime_ms = 0;
  bool takes_pulls = false;
  bool pull_every = false;
  std::uint32_t queued = 0;
  std::uint64_t pulled_bytes = 0;
  std::vector<ProgramKey> pulling{};  // At most kPeerPullingCountMax.
  std::vector<std::uint64_t> wants_greeting{};
  std::uint64_t features = 0;
  std::vector<CheckpointId> reading{};  // At most kPeerReadingCountMax.
};
// Bits of PeerBeat::features.
inline constexpr std::uint64_t kPeerFeatureRetention = 1;  // Knows PeerRemoved and PeerPinned.
struct StoredCheckpoint {
  CheckpointId checkpoint{};
  Lineage lineage{};
  OwnerEpoch owner_epoch = 0;
  std::uint64_t size_bytes = 0;
  std::uint64_t uid = 0;
  std::uint64_t stored_bytes = 0;
  std::uint64_t stored_at_us = 0;
  std::uint64_t taken_at_us = 0;
  std::uint64_t pause_us = 0;
  std::string program_name{};
  Digest blob_digest{};
};
struct PeerStored {
  std::vector<StoredCheckpoint> checkpoints{};  // 1 to kPeerStoredCountMax.
};
struct PeerWithdrawn {
  ProgramKey program{};
  Version up_to{};
};
struct PeerIncarnations {
  std::vector<SessionId> incarnations{};  // At most kPeerIncarnationCountMax.
  std::uint64_t greets = 0;
};
struct PeerQuarantined {
  std::vector<StoredCheckpoint> checkpoints{};  // 1 to kPeerStoredCountMax.
};
struct RemovedBlob {  // What names a row.
  CheckpointId checkpoint{};
  OwnerEpoch owner_epoch = 0;
  std::uint64_t uid = 0;
};
struct PeerRemoved {
  std::vector<RemovedBlob> blobs{};  // 1 to kPeerRemovedCountMax.
};
struct PeerPinned {
  CheckpointId checkpoint{};
  bool pinned = false;
};
using PeerBody = std::variant<PeerBeat, PeerStored, PeerWithdrawn, PeerIncarnations, PeerQuarantined,
                              PeerRemoved, PeerPinned>;
struct PeerMessage {
  std::uint16_t protocol_version = kProtocolVersion;
  std::string cms_name{};
  std::uint64_t incarnation = 0;
  Id128 fleet_id{};
  std::uint64_t event = 0;
  PeerBody body{};
};

// ---- records at rest
struct Manifest {
  SessionId session{};
  Notification notification{};  // seq, program_id, lineage (never zero here), owner_epoch, size_bytes, …
  std::uint32_t chunk_size_bytes = kChunkSizeBytes;
  std::vector<Digest> chunk_digests{};
  std::vector<bool> zero_chunks{};  // As long as chunk_digests.
  Digest blob_digest{};
  std::uint64_t stored_at_us = 0;
  std::string stored_by{};
};

using Bytes = std::vector<std::uint8_t>;

Bytes encode(const NotifyMessage& message);
Bytes encode(const ControlMessage& message);
Bytes encode(const BulkBody& message);
Bytes encode(const AdminBody& message);
Bytes encode(const PeerMessage& message);
Bytes encode(const Manifest& manifest);

Result<NotifyMessage> decode_notify(const void* data, std::size_t size_bytes);
Result<ControlMessage> decode_control(const void* data, std::size_t size_bytes);
Result<BulkBody> decode_bulk(const void* data, std::size_t size_bytes);
Result<AdminBody> decode_admin(const void* data, std::size_t size_bytes);
Result<PeerMessage> decode_peer(const void* data, std::size_t size_bytes);
// Also checks that sizes, digest count and zero bits agree with each other.
Result<Manifest> decode_manifest(const void* data, std::size_t size_bytes);

// The number of chunks of a blob: at least 1 (an empty blob has one empty chunk).
constexpr std::uint64_t chunk_count_of(std::uint64_t size_bytes, std::uint32_t chunk_size_bytes) {
  return size_bytes == 0 ? 1 : (size_bytes + chunk_size_bytes - 1) / chunk_size_bytes;
}

// Checks what a publisher says of a checkpoint against the limits above (also used by the client
// library before it announces). kInvalidArgument: names the field and what is allowed.
Status check_notification(const Notification& notification);

}  // namespace cms::wire
