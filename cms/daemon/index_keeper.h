#pragma once
// IndexKeeper answers the core's questions to the index, removes and withdraws checkpoints, and keeps
// the index true to the store: after start it goes through all shards in the background, and until
// a program's shard has been through, it is looked at before anything is said of that program. So
// "none" and "newest" are the store's answers, not those of an index that may have missed something.
//
// Threads: the methods are called by the loop, after StoreWorkers and before its stop; they do not
// block. All work runs on one worker, so that removals and the reconciling never overtake each other.
#include <bitset>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "cms/core/cms_core.h"
#include "cms/daemon/worker.h"
#include "storage/blob_store.h"
#include "storage/checkpoint_index.h"

namespace cms::daemon {

inline constexpr std::size_t kHeldMax = 4096;

class IndexKeeper {
 public:
  struct Progress {
    bool running = false;
    bool done = false;
    std::uint32_t shards_done = 0;  // Of storage::kShardCount.
    std::uint64_t rows_added = 0;
    std::uint64_t rows_removed = 0;
    std::uint64_t unknown_files = 0;
    std::string trouble;  // Why it does not go on; empty: it does.
  };

  IndexKeeper(core::CmsCore& core, storage::BlobStore& store, storage::CheckpointIndex& index, Outbox& outbox,
              bool has_peers);
  ~IndexKeeper() { stop(); }
  void stop() { worker_.stop(); }

  void look_up(core::LookUpProgram effect);
  void reserve_incarnation(core::ReserveIncarnation effect);
  // `then` runs on the loop after core.on_withdrawn.
  void withdraw(core::WithdrawProgram effect, std::function<void(const Result<Version>&)> then);
  void remove(core::RemoveBlobs effect);
  // What a peer says: rows of what it stored, the end of a program's life, incarnations it gave away.
  void note_stored(core::IndexStored effect);
  void note_withdrawn(core::NoteWithdrawn effect);
  void note_incarnations(core::NoteIncarnations effect);
  // Starts over; the store has been opened. kForeign (in progress().trouble): the index mirrors
  // another store.
  void reconcile();
  // The newest stored checkpoint of a program, or exactly the one asked for (seq not 0); kNotFound:
  // the store has none. `then` runs on the loop.
  void resolve(CheckpointId checkpoint, std::function<void(Result<storage::BlobName>)> then);
  // Makes the index true to the store as far as this program goes. `then` runs on the loop.
  void prepare(const ProgramKey& program, std::function<void(const Status&)> then);
  // The store has been looked at for the first time, whatever came of it: questions that came before
  // are answered from now on. Idempotent.
  void on_store_looked_at();
  // A file that the index names was not in the store.
  void forget(storage::BlobName name);
  // Runs `job` on the worker, for what must not overtake removals and reconciling.
  void post(std::function<void()> job) { worker_.post(std::move(job)); }
  // In such a job: makes the index true to the store as far as this program goes.
  Status ensure_shard(const ProgramKey& program);

  // Loop only.
  const Progress& progress() const { return progress_; }
  std::size_t queue_length() const { return worker_.queue_length(); }

 private:
  // All of these run on the worker.
  Status reconcile_shard(std::uint32_t shard);
  void reconcile_next(std::uint32_t shard, std::uint64_t round);
  Status mark_withdrawn(const ProgramKey& program, const Version& up_to);
  Status finish_reconcile();
  Result<Version> withdraw_now(const core::WithdrawProgram& effect);
  Result<Incarnation> reserve_now(const wire::Hello& hello);
  Status remove_now(const std::vector<storage::BlobName>& names);
  void report();
  // Posts the job; before the store was looked at it waits, kHeldMax of them, the others fail at once.
  void ask(std::function<void()> job);

  core::CmsCore& core_;
  storage::BlobStore& store_;
  storage::CheckpointIndex& index_;
  Outbox& outbox_;
  const bool has_peers_;
  Progress progress_;  // The loop's copy.
  bool store_looked_at_ = false;
  std::vector<std::function<void()>> held_;

  // The worker's:
  Progress work_;
  std::bitset<storage::kShardCount> reconciled_;
  std::vector<std::uint64_t> seen_uids_;  // Of the blobs listed in this round; 8 MB for a million.
  std::uint64_t round_ = 0;               // Of reconciling; a new one ends the one before.
  std::vector<core::ReserveIncarnation> waiting_hellos_;  // The index cannot yet tell what is above all.
  bool index_complete_ = false;  // It went through all shards: now, or, without peers, in an earlier run.
  Worker worker_;                // Last: its end precedes that of what it uses.
};

}  // namespace cms::daemon
