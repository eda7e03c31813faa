#pragma once
// What the core of cmsd wants done. The daemon's loop carries effects out in their order; those for
// the store and the index go to workers, whose answers come back as calls of CmsCore.
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "broker/core/blob_source.h"
#include "broker/core/chunk_server.h"
#include "schemas/messages.h"
#include "storage/blob_store.h"
#include "storage/checkpoint_index.h"

namespace cms::core {

using broker::ChunkView;
using broker::PeerId;  // Of the control socket.

using LinkId = std::uint64_t;      // A bulk connection to one ECU; never reused.
using TransferId = std::uint64_t;  // A pull; never reused.

struct SendControl {
  PeerId peer;
  wire::ControlMessage message;
};

// ---- bulk connections
struct OpenLink {
  LinkId link = 0;
  std::string endpoint;  // "tcp://10.0.0.7:7600"
};
struct CloseLink {
  LinkId link = 0;
};
struct SendBulk {
  LinkId link = 0;
  wire::BulkBody message;
};

// ---- the store: of one transfer they are carried out in order. Answered by on_chunk_taken,
// on_transfer_stored or on_transfer_failed; after DropStore nothing more is answered.
struct StartStore {
  TransferId transfer = 0;
  storage::BlobName name;
  wire::Manifest manifest;
};
struct AppendStore {
  TransferId transfer = 0;
  ChunkView bytes;
  Digest digest{};  // As the publisher says; the worker checks it.
};
struct FinishStore {
  TransferId transfer = 0;
  Digest blob_digest{};  // As the publisher says; the worker checks it.
};
struct DropStore {
  TransferId transfer = 0;
};
// A whole blob of one chunk; takes part in a group commit.
struct StoreSmall {
  TransferId transfer = 0;
  storage::BlobName name;
  wire::Manifest manifest;
  ChunkView bytes;
  Digest digest{};
  Digest blob_digest{};
};

// ---- the index
struct LookUpProgram {  // on_program_looked_up
  ProgramKey program;
};
struct ReserveIncarnation {  // on_incarnation_reserved
  PeerId peer;
  std::string peer_address;
  wire::Hello hello;  // incarnation 0: find one above all known; else: remember it.
};
// Ends the life of everything of the program up to `up_to` (with newest_too: and up to the newest in
// the index), durably. on_withdrawn.
// A blob may be on its way into the store meanwhile: whoever indexes one looks, after the row is
// written, whether the index says withdrawn by now, and removes row and blob again. Since both write
// first and look then, one of the two sees the other.
struct WithdrawProgram {
  std::uint64_t ticket = 0;
  ProgramKey program;
  Lineage lineage{};
  Version up_to{};
  bool newest_too = false;
};
// ---- the other CMS instances
struct SendPeer {
  wire::PeerMessage message;
};
// Indexes what a peer has stored. on_peer_indexed, for those that were taken in.
struct IndexStored {
  std::vector<storage::IndexRow> rows;
};
// A peer ended a program's life; its tombstone is durable. on_peer_withdrawn.
struct NoteWithdrawn {
  ProgramKey program;
  Version up_to{};
};
// A peer moved these out of their shards: they were damaged. on_quarantined, for those that are gone.
struct NoteQuarantined {
  std::vector<storage::BlobName> names;
};
struct NoteIncarnations {  // Not answered; a ReserveIncarnation that follows takes them into account.
  std::vector<SessionId> incarnations;
};
// Events of a peer were missed: the index is to be made true to the store. Questions that follow are
// answered from what the store has.
struct ReconcileStore {};
// This cmsd must not go on: end it, with the reason in the log.
struct GiveUp {
  Code code = Code::kOk;  // kInvalidArgument: wrong usage.
  std::string reason;
};
// Retention is to judge these programs, and to remove what may go. on_removed.
struct ApplyRetention {
  std::vector<ProgramKey> programs;
};
// The store is full: what the rules allow to remove is to be removed now. on_removed.
struct FreeSpace {};
// A peer removed these from the store: their rows go.
struct NoteRemoved {
  std::vector<wire::RemovedBlob> blobs;
};
// A peer pinned it, or took its pin away.
struct NotePinned {
  CheckpointId checkpoint{};
  bool pinned = false;
};
// A target answers a command of a restore.
struct TargetReported {
  SessionId target{};
  wire::RestoreReport report{};
};
// The source of a planned move says how far it is; also of what it keeps frozen.
struct SourceReported {
  SessionId source{};
  wire::FreezeReport report{};
};
// An RTCR asks for a move of a program of its ECU. To be answered with MigrateAnswer.
struct MigrateAsked {
  SessionId session{};
  wire::Migrate migrate{};
};
// Of a guarded session: its HELLO is to be the head of its ECU's log, or to become it, with an incarnation of at least
// `incarnation_min`. on_hello_recorded.
struct RecordHello {
  ReserveIncarnation asked;
  Incarnation incarnation_min = 0;
};
// A guarded session has begun here, or says that a program of it has ended.
struct GuardedBegun {
  SessionId session{};
};
struct ProgramsTold {
  SessionId session{};
  wire::Programs page{};
};
struct RemoveBlobs {  // Not answered: what could not be removed is found again by reconciling.
  std::vector<storage::BlobName> names;
};

// For the log: one event, worth a line.
struct LogEvent {
  enum class Level { kInfo, kWarning, kError } level = Level::kInfo;
  std::string text;
};

using Effect =
    std::variant<SendControl, OpenLink, CloseLink, SendBulk, StartStore, AppendStore, FinishStore, DropStore,
                 StoreSmall, LookUpProgram, ReserveIncarnation, WithdrawProgram, RemoveBlobs, SendPeer,
                 IndexStored, NoteWithdrawn, NoteQuarantined, NoteIncarnations, ReconcileStore,
                 ApplyRetention, FreeSpace, NoteRemoved, NotePinned, TargetReported, SourceReported,
                 MigrateAsked, RecordHello, GuardedBegun, ProgramsTold, GiveUp, LogEvent>;
using Effects = std::vector<Effect>;

}  // namespace cms::core
