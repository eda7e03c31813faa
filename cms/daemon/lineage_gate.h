#pragma once
// LineageGate says of a checkpoint whose name is durable in the store whether STORED may be said of it: it looks
// up the next slot of the lineage's claim log, and reads the log when there is one (docs/adr/0010). Of a
// lineage that is new it writes the first record, GENESIS, before anything of it is called STORED; if it was opened
// for a program that had another before, that one is retired.
//
// Threads: any; calls block on I/O. Bounds: kGateHeadsMax heads are remembered; of others the log is read again.
#include <atomic>
#include <cstddef>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/prng.h"
#include "base/result.h"
#include "cms/core/claim_log.h"
#include "storage/blob_store.h"
#include "storage/checkpoint_index.h"
#include "storage/claim_store.h"

namespace cms::daemon {

inline constexpr std::size_t kGateHeadsMax = 32768;

// A record of a log as plain values. kCorrupt: not of that log and slot.
Result<wire::ClaimRecord> claim_record_of(const storage::LogRecord& record);
std::string text_of(const wire::ClaimRecord& record);

class LineageGate {
 public:
  // `claims` and `index` outlive this. Of the index only hints are taken.
  LineageGate(storage::ClaimStore& claims, storage::CheckpointIndex& index, core::Writer me)
      : claims_(claims), index_(index), me_(std::move(me)) {}

  // On a store that cannot be trusted with claims (its self-test says so) there are no logs and no restores: then
  // STORED rests on the store alone.
  void set_trusted(bool trusted) { trusted_ = trusted; }
  bool trusted() const { return trusted_; }

  struct Asked {
    storage::BlobName name;
    wire::Policies policies;  // For GENESIS.
  };
  // One answer for each. Errors: the store's; nothing may be said then.
  std::vector<Result<core::StoredWord>> words(const std::vector<Asked>& asked);
  // The same of one that was stored earlier, perhaps by another. Should its log not have been begun (its writer
  // died before, or it is of before there were claims), it is, by what the blob in the store says. kNotFound:
  // there is no such blob.
  Result<core::StoredWord> word(storage::BlobStore& store, const storage::BlobName& name);
  // Makes sure that the lineage of a stored blob has a log. Errors as word.
  Status begin_for_stored(storage::BlobStore& store, const storage::BlobName& name);

  // Whether the program may go on, where its key is, from the newest checkpoint of that lineage. kFenced: it goes on
  // under another key, which is named; kUnavailable: a claim is open that decides it, or the log cannot be read.
  Status check_owner(const ProgramKey& program, const Lineage& lineage);

  // Before a program's tombstone. Closes with RETIRE each lineage that the program owns, but lineage_of(its key): in
  // that one its next life begins, and the tombstone alone ends this one. kUnavailable: a claim of one is open,
  // whose end decides where the program lives; or a log could not be read or written. Nothing is withdrawn then.
  Status end_lives(const ProgramKey& program);
  // Of blobs that tombstones end, those that may be removed: not what a claim is made on, nor what another
  // owner would be restored from. Errors: the store's.
  Result<std::vector<storage::BlobName>> ended_may_go(const std::vector<storage::BlobName>& names);

  // The head of the lineage's log as it was last read or written here; never older than an earlier answer.
  std::optional<wire::ClaimRecord> known_head(const Lineage& lineage) const;
  void note_head(const wire::ClaimRecord& head);
  // The head as it is now: what is remembered when nothing has come behind it, else read anew. Absent: the log
  // is empty.
  Result<std::optional<wire::ClaimRecord>> current_head(const Lineage& lineage);
  // Reads it, durably; absent: the log is empty.
  Result<std::optional<wire::ClaimRecord>> read_head(const Lineage& lineage);

 private:
  Status begin_logs(const std::vector<const Asked*>& asked);
  // A lineage that was opened on purpose for a program that had another ends that one: else both would be restored.
  Status retire_former(const storage::BlobName& name);
  Result<std::set<Lineage>> lineages_of(const ProgramKey& program) const;
  // Of those in `lineages` whose owner the program is; `why` is for the record.
  Status retire(const ProgramKey& program, const std::set<Lineage>& lineages, const std::string& why);

  storage::ClaimStore& claims_;
  storage::CheckpointIndex& index_;
  const core::Writer me_;
  void settle_some();

  std::atomic<bool> trusted_{true};
  mutable std::mutex mutex_;              // Guards the two below; never held across I/O.
  std::vector<std::uint64_t> unsettled_;  // Appends whose outcome is not known yet.
  std::map<Lineage, wire::ClaimRecord> heads_;
};

}  // namespace cms::daemon
