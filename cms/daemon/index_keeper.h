#pragma once
// IndexKeeper answers the core's questions to the index, removes and withdraws checkpoints, and keeps
// the index true to the store: after start it goes through all shards in the background, and until
// a program's shard has been through, it is looked at before anything is said of that program. So
// "none" and "newest" are the store's answers, not those of an index that may have missed something.
//
// What was found in the store and not told by whoever put it there may have a name that a crash of the
// store's host takes away: its writer died before it was durable. Its row has no time of storing until it was
// read, and is made durable before that, and before the core relies upon it (docs/adr/0008).
//
// Threads: the methods are called by the loop, after StoreWorkers and before its stop; they do not
// block. All work runs on one worker, so that removals and the reconciling never overtake each other;
// only listing runs ahead of it.
#include <bitset>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "cms/core/cms_core.h"
#include "cms/daemon/index_facts.h"
#include "cms/daemon/lineage_gate.h"
#include "cms/daemon/replaceable_index.h"
#include "cms/daemon/shard_lister.h"
#include "cms/daemon/worker.h"
#include "storage/blob_store.h"
#include "storage/checkpoint_index.h"

namespace cms::daemon {

inline constexpr std::size_t kHeldMax = 4096;

class IndexKeeper {
 public:
  // Of making the index true to the store: comparing what there is, or rebuilding it from nothing.
  struct Progress {
    bool running = false;
    bool done = false;
    bool rebuilding = false;  // This round, or the one that was last: from nothing.
    std::string reason;       // Why it is rebuilt.
    std::string old_index;    // Where the damaged one was moved to; empty: nowhere.
    Instant started_at{};
    Duration took{};  // Of the round that was last, when it does not run.
    // Rows made from names know neither times nor digests; these are read when all rows are there.
    bool completing = false;
    std::uint64_t rows_completed = 0;
    std::uint32_t shards_done = 0;  // Of storage::kShardCount.
    std::uint64_t rows_added = 0;
    std::uint64_t rows_removed = 0;
    std::uint64_t unknown_files = 0;
    std::string trouble;  // Why it does not go on; empty: it does.
  };

  // A blob that could not be read for what it is: somebody has to look closer.
  using Suspect = std::function<void(const storage::BlobName& name, const Error& error)>;

  // All of these outlive this. `gate` is asked before a publisher is told that something is stored already.
  IndexKeeper(core::CmsCore& core, storage::BlobStore& store, ReplaceableIndex& index, LineageGate& gate,
              Outbox& outbox, bool has_peers);
  ~IndexKeeper() { stop(); }
  void stop();
  // Runs on the loop.
  void on_suspect(Suspect suspect) { suspect_ = std::move(suspect); }

  void look_up(core::LookUpProgram effect);
  void reserve_incarnation(core::ReserveIncarnation effect);
  // `then` runs on the loop after core.on_withdrawn.
  void withdraw(core::WithdrawProgram effect, std::function<void(const Result<Version>&)> then);
  void remove(core::RemoveBlobs effect);
  // What a peer says: rows of what it stored, the end of a program's life, incarnations it gave away.
  void note_stored(core::IndexStored effect);
  void note_withdrawn(core::NoteWithdrawn effect);
  void note_incarnations(core::NoteIncarnations effect);
  // Of a peer: it moved these out of their shards.
  void note_quarantined(core::NoteQuarantined effect);
  // Moves a blob that was proven to be damaged out of its shard and of the index. `then` runs on the
  // loop, after core.on_quarantined: false, it was not there any more.
  void quarantine(storage::BlobName name, std::string why, std::function<void(const Result<bool>&)> then);
  // Begins an empty index and fills it from the store, while questions are answered: what is asked of
  // is looked at first. A damaged index is kept aside. `then` runs on the loop when it has begun.
  void rebuild(std::string reason, bool damaged, std::function<void(const Status&)> then);
  // Starts over; the store has been opened. kForeign (in progress().trouble): the index mirrors
  // another store.
  void reconcile();
  enum class Purpose {
    kLook,  // Somebody wants to see the bytes.
    kGoOn,  // The program is to go on from them, where its key is.
  };
  // The newest stored checkpoint of a program, or exactly the one asked for (seq not 0); kNotFound:
  // the store has none. Of the newest, to go on: kFenced, the program goes on under another key; kUnavailable: a
  // claim is open, or its log cannot be read. `then` runs on the loop.
  void resolve(CheckpointId checkpoint, Purpose purpose, std::function<void(Result<storage::BlobName>)> then);
  // Makes the index true to the store as far as this program goes. `then` runs on the loop.
  void prepare(const ProgramKey& program, std::function<void(const Status&)> then);
  // The store has been looked at for the first time, whatever came of it: questions that came before
  // are answered from now on. Idempotent.
  void on_store_looked_at();
  bool has_looked_at_store() const { return store_looked_at_; }
  // A file that the index names was not in the store.
  void forget(storage::BlobName name);
  // Runs `job` on the worker, for what must not overtake removals and reconciling.
  void post(std::function<void()> job) { worker_.post(std::move(job)); }
  // In such a job: removes files, then their rows; or rows whose files have gone. A listing from before
  // does not bring them back. Of some that cannot be removed the others go: the first error, or each result.
  Status remove_now(const std::vector<storage::BlobName>& names);
  std::vector<Status> remove_each_now(const std::vector<storage::BlobName>& names);
  Status forget_now(const std::vector<storage::BlobName>& names);
  // In such a job: makes the index true to the store as far as this program goes.
  Status ensure_shard(const ProgramKey& program);

  // Loop only.
  const Progress& progress() const { return progress_; }
  IndexFacts facts(Instant now) const;  // The same for people.
  std::size_t queue_length() const { return worker_.queue_length(); }

 private:
  // All of these run on the worker.
  void begin_round();
  void end_round(const Status& status);
  void take_listings();
  Status take_in(const std::vector<ShardListing>& listings);
  Status take_in_ended(const std::vector<ShardListing>& listings);
  Status take_in_pins(const ShardListing& listing);
  Status remove_rows_without_files();
  void complete_next();
  Status complete_rows(const std::vector<storage::IndexRow>& rows);
  Result<core::CmsCore::ProgramFacts> facts_of(const ProgramKey& program);
  Result<core::CmsCore::ProgramFacts> judged_facts_of(const ProgramKey& program);
  Result<std::optional<storage::IndexRow>> lasting_newest(const ProgramKey& program);
  void answer_waiting_hellos();
  Status mark_withdrawn(const ProgramKey& program, const Version& up_to);
  Status finish_reconcile();
  Result<Version> withdraw_now(const core::WithdrawProgram& effect);
  Result<Incarnation> reserve_now(const wire::Hello& hello);
  void report();
  // Posts the job; before the store was looked at it waits, kHeldMax of them, the others fail at once.
  void ask(std::function<void()> job);

  core::CmsCore& core_;
  storage::BlobStore& store_;
  ReplaceableIndex& index_;
  LineageGate& gate_;
  Outbox& outbox_;
  Suspect suspect_;
  const bool has_peers_;
  Progress progress_;  // The loop's copy.
  bool store_looked_at_ = false;
  std::vector<std::function<void()>> held_;

  // The worker's:
  Progress work_;
  std::bitset<storage::kShardCount> reconciled_;
  std::vector<std::uint64_t> seen_uids_;  // Of the blobs listed in this round; 8 MB for a million.
  // Removed in this round: their listing may be from before.
  std::unordered_set<std::uint64_t> removed_uids_;
  // Where completing is: first the newest of each program, behind this one; then all others.
  std::optional<ProgramKey> completed_newest_;
  std::optional<storage::BlobName> completed_;
  bool newest_completed_ = false;
  std::vector<core::ReserveIncarnation> waiting_hellos_;  // Nobody knows yet what is above all.
  // It knows every incarnation that was ever given, and every checkpoint: it went through all shards,
  // now, or, without peers, in an earlier run.
  bool incarnations_complete_ = false;
  bool rows_complete_ = false;
  bool incarnations_kept_ = false;  // By the rebuilding under way.
  ShardLister lister_;
  Worker worker_;  // Last: its end precedes that of what it uses.
};

}  // namespace cms::daemon
