#pragma once
// RestoreTarget is the target's side of restores without any I/O. A CMS says Prepare: the blob is pulled
// from it, verified, and restored by the RTCR, paused. Then Go, and it runs; or Discard. What keeps a
// program single (docs/adr/0010) is kept here:
// - Of a lineage only the newest claim is obeyed. What was prepared for an older one is discarded.
// - Go runs only what was prepared for that very claim, once, and never after a refusal or Discard.
// - A refusal is final: the claim's uid is never run here, whatever comes. So is what runs: it is told
//   to whoever asks, and never denied.
// Each command is answered with the present state, so that it can be repeated by any CMS.
//
// Inputs are calls with the time; what is to be done comes back in `RestoreEffects`, in order.
// Threads: none; one caller at a time. Bounds: the constants below; bytes received and not yet running
// or discarded by received_bytes_max. What finds no room is refused with kLimit.
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <variant>
#include <vector>

#include "base/digest.h"
#include "base/ids.h"
#include "base/result.h"
#include "base/time.h"
#include "broker/core/blob_source.h"
#include "broker/core/chunk_receiver.h"
#include "broker/core/cms_index.h"
#include "schemas/messages.h"

namespace cms::broker {

using RestoreId = std::uint64_t;  // Of one restore at this target; from 1, never used twice.

inline constexpr std::size_t kRestoreTransferCountMax = 8;  // The others wait for their turn.
// What a transfer may have on its way, and all of them together.
inline constexpr std::uint64_t kRestoreWindowBytes = 4U * 1024 * 1024;
inline constexpr std::uint64_t kRestoreWindowsBytesMax = 4 * kRestoreWindowBytes;
inline constexpr Duration kRestoreStallMax = std::chrono::seconds(5);  // A transfer without a chunk.
// What is prepared and is not asked for any more: its CMS has died, and another took another target.
inline constexpr Duration kRestoreForgottenAfter = std::chrono::seconds(60);
inline constexpr std::size_t kRestoreOpenCountMax = 4096;  // Neither running nor ended.
inline constexpr std::size_t kRestoreRunningCountMax = 65536;
// Lineages whose restore here has ended; beyond it the one that ended first is forgotten, and with it
// what was refused.
inline constexpr std::size_t kRestoreEndedCountMax = 16384;

struct RestoreTargetConfig {
  std::uint64_t received_bytes_max = UINT64_MAX;
};

// What is to be restored.
struct RestoreInfo {
  wire::ClaimRef claim{};
  SessionId session{};  // That published the checkpoint.
  wire::Notification notification{};
  std::optional<ProgramId> restarts{};  // Our own program, which the RTCR has asked for.
  CmsIndex cms = 0;                     // That gives it.
};

// Where a CMS serves blobs.
struct BulkLink {
  CmsIndex cms = 0;
  std::uint16_t port = 0;

  friend bool operator==(const BulkLink& a, const BulkLink& b) { return a.cms == b.cms && a.port == b.port; }
  friend bool operator<(const BulkLink& a, const BulkLink& b) {
    return std::tie(a.cms, a.port) < std::tie(b.cms, b.port);
  }
};

// ---- effects for the transport
struct OpenBulkLink {  // It is not open.
  BulkLink link{};
};
struct CloseBulkLink {
  BulkLink link{};
};
struct SendBulk {  // On an open link.
  BulkLink link{};
  wire::BulkBody message{};
};
struct SendReport {
  CmsIndex cms = 0;
  wire::RestoreReport report{};
};
// ---- effects for the RTCR. A restore begins with ReceiveBlob; it ends with DiscardRestore, or with the
// answer to RunProgram.
struct ReceiveBlob {  // Make room for the bytes.
  RestoreId id = 0;
  RestoreInfo info{};
};
struct TakeBytes {  // The next ones, verified; they stay the caller's of on_bulk.
  RestoreId id = 0;
  std::uint64_t offset_bytes = 0;
  ChunkView bytes{};
};
struct PrepareProgram {  // All has come: restore it, paused. Ends with on_prepared().
  RestoreId id = 0;
};
struct RunProgram {  // Ends with on_running(). Its checkpoints carry this owner_epoch.
  RestoreId id = 0;
  OwnerEpoch owner_epoch = 0;
};
struct DiscardRestore {  // Drop the bytes, and what was restored from them.
  RestoreId id = 0;
};
// A program that was restored here runs elsewhere by now: stop it.
struct FenceProgram {
  ProgramId program_id = 0;
  std::string reason{};
};
using RestoreEffect = std::variant<OpenBulkLink, CloseBulkLink, SendBulk, SendReport, ReceiveBlob, TakeBytes,
                                   PrepareProgram, RunProgram, DiscardRestore, FenceProgram>;
using RestoreEffects = std::vector<RestoreEffect>;

class RestoreTarget {
 public:
  explicit RestoreTarget(RestoreTargetConfig config) : config_(config) {}

  // `stands_still`: what was restored here before of the same lineage is stopped for certain. A newer claim takes its
  // place then; without one it may yet be resumed.
  void on_prepare(Instant now, CmsIndex cms, const wire::Prepare& prepare, bool stands_still,
                  RestoreEffects& effects);
  void on_go(Instant now, CmsIndex cms, const wire::Go& go, RestoreEffects& effects);
  void on_discard(Instant now, CmsIndex cms, const wire::Discard& discard, RestoreEffects& effects);
  // `bytes` are those of a Chunk; looked at during the call, and handed on in TakeBytes.
  void on_bulk(Instant now, const BulkLink& link, const wire::BulkBody& message, const ChunkView& bytes,
               RestoreEffects& effects);
  // The RTCR's answers. An error is the reason of the refusal; after RunProgram it says that the program
  // does not run and never will.
  void on_prepared(Instant now, RestoreId id, const Status& status, RestoreEffects& effects);
  void on_running(Instant now, RestoreId id, const Result<ProgramId>& program_id, RestoreEffects& effects);
  // There was no room for the bytes.
  void on_sink_failed(Instant now, RestoreId id, const Error& error, RestoreEffects& effects);
  // The program runs here no more: fenced or withdrawn. A later claim may bring its lineage back.
  void on_program_ended(ProgramId program_id);
  // Timers; call at next_deadline() or later.
  void on_time(Instant now, RestoreEffects& effects);
  // Refuses all that does not run yet: commands named a session that is over.
  void end_session(const std::string& reason, RestoreEffects& effects);
  // As end_session, and from now on everything is refused.
  void stop(RestoreEffects& effects);

  Instant next_deadline() const;
  // What was told to run here and is not over: it runs, or (`goes`) the RTCR has not said yet whether it does.
  struct Restored {
    RestoreId id = 0;
    Lineage lineage{};
    OwnerEpoch owner_epoch = 0;
    bool goes = false;
    ProgramId program_id = 0;                                   // Unless it goes.
    wire::OnIsolation on_isolation = wire::OnIsolation::kKeep;  // The strictest that was heard.
  };
  std::optional<Restored> find_restored(RestoreId id) const;
  std::optional<Restored> find_restored(Lineage lineage) const;
  // Of which the RTCR has not said yet whether they run.
  std::vector<RestoreId> going() const;
  std::size_t going_count() const { return going_count_; }
  std::size_t open_count() const { return open_count_; }
  std::size_t known_count() const { return lineages_.size(); }

 private:
  enum class State { kQueued, kPulling, kPreparing, kPrepared, kGoing, kRunning, kRefused, kDiscarded };
  // What only a restore needs that is not prepared yet.
  struct Transfer {
    RestoreInfo info{};
    BulkLink link{};
    std::unique_ptr<ChunkReceiver> receiver{};  // While it is pulled.
    std::uint64_t window_bytes = 0;
    std::vector<Digest> digests{};
    Instant progress_at{};
  };
  struct Restore {
    RestoreId id = 0;
    wire::ClaimRef claim{};
    State state = State::kRefused;
    std::uint32_t askers = 0;  // Bit per CMS that sent a command of this claim.
    std::uint64_t act_slot = 0;
    std::uint64_t act_uid = 0;
    std::uint64_t received_bytes = 0;
    ProgramId program_id = 0;
    wire::OnIsolation on_isolation = wire::OnIsolation::kKeep;
    bool over = false;  // kRunning: it ran, and runs here no more.
    Code code = Code::kOk;
    std::string context{};
    std::unique_ptr<Transfer> transfer{};
  };
  struct Entry {
    Restore restore{};
    std::uint64_t slot_max = 0;  // The newest claim heard of; larger than the restore's only while that runs.
    std::uint64_t end_order = 0;  // Its place in ended_; 0: not there.
  };
  using Lineages = std::map<Lineage, Entry>;

  static bool is_open(const Restore& restore);
  static bool occupies(const Restore& restore);
  Restore* find(RestoreId id);
  Restore& renew(Entry& entry, const wire::ClaimRef& claim, CmsIndex cms);
  bool give_way(Entry& entry, const wire::ClaimRef& claim, OwnerEpoch owner_epoch, bool stands_still,
                RestoreEffects& effects);
  Status check_room(const wire::Prepare& prepare) const;
  void start_transfers(Instant now, RestoreEffects& effects);
  void start_transfer(Instant now, Restore& restore, RestoreEffects& effects);
  void take_chunk(Instant now, Restore& restore, const wire::Chunk& chunk, const ChunkView& bytes,
                  RestoreEffects& effects);
  void end_transfer(Restore& restore, RestoreEffects& effects);
  void discard_bytes(RestoreId id, RestoreEffects& effects);
  void drop_bytes(RestoreId id);
  void end(Restore& restore, State state, Code code, const std::string& context, bool cancel,
           RestoreEffects& effects);
  void refuse(Restore& restore, Code code, const std::string& context, bool cancel, RestoreEffects& effects);
  void note_ended(Lineage lineage, Entry& entry);
  void answer(const Restore& restore, CmsIndex cms, std::uint64_t act_uid, RestoreEffects& effects) const;
  void answer_refused(CmsIndex cms, const wire::ClaimRef& claim, std::uint64_t act_uid, Code code,
                      const std::string& context, RestoreEffects& effects) const;
  void tell_askers(const Restore& restore, RestoreEffects& effects) const;
  void record_end(CmsIndex cms, const wire::ClaimRef& claim, std::uint64_t act_uid, State state, Code code,
                  const std::string& context, RestoreEffects& effects);

  RestoreTargetConfig config_;
  Lineages lineages_{};
  std::map<RestoreId, Lineage> by_id_{};  // Open, going and running ones.
  std::map<ProgramId, Lineage> running_{};
  std::map<std::uint64_t, Lineage> ended_{};    // In the order in which they ended.
  std::map<RestoreId, std::uint64_t> blobs_{};  // Sizes of what the RTCR side holds or will hold.
  std::map<BulkLink, std::size_t> links_{};     // How many transfers use each.
  std::deque<RestoreId> queue_{};
  std::set<RestoreId> pulling_{};            // At most kRestoreTransferCountMax.
  std::map<RestoreId, Instant> prepared_{};  // When a command of it was last heard; those that were, too.
  std::uint64_t received_bytes_ = 0;
  std::uint64_t windows_bytes_ = 0;
  RestoreId last_id_ = 0;
  std::uint64_t last_end_order_ = 0;
  std::size_t open_count_ = 0;
  std::size_t going_count_ = 0;
  bool stopped_ = false;
};

}  // namespace cms::broker
