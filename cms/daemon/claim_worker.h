#pragma once
// ClaimWorker does for RestoreCore what blocks: reads claim logs and appends to them, finds what can be
// restored, and removes what nobody will ever restore again.
//
// Threads: the methods are called by the loop and do not block; answers run on the loop, in order for one
// lineage. Bounds: RestoreCore has one question open for each lineage.
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "cms/core/restore.h"
#include "cms/daemon/index_keeper.h"
#include "cms/daemon/lineage_gate.h"
#include "cms/daemon/lost_programs.h"
#include "cms/daemon/worker.h"
#include "storage/blob_store.h"
#include "storage/checkpoint_index.h"
#include "storage/claim_store.h"

namespace cms::daemon {

inline constexpr std::size_t kClaimLaneCount = 8;
inline constexpr std::size_t kHistoryRecordsMax = 2000;  // Of one answer.
inline constexpr std::size_t kHistoriesMax = 4;

class ClaimWorker {
 public:
  // All of these outlive this.
  struct Parts {
    storage::ClaimStore& claims;
    storage::BlobStore& store;
    storage::CheckpointIndex& index;
    LineageGate& gate;
    IndexKeeper& keeper;
    Outbox& outbox;
  };
  explicit ClaimWorker(const Parts& parts);
  ~ClaimWorker() { stop(); }
  // What has not begun is dropped. Idempotent.
  void stop();

  template <typename T>
  using Then = std::function<void(Instant now, core::Effects& effects, const Result<T>& answer)>;
  struct Appended {
    core::RestoreCore::AppendEnd end{};
    std::uint64_t attempt = 0;
  };

  struct Scanned {
    std::vector<wire::ClaimRecord> heads;
    std::size_t unusable = 0;  // Logs that could not be read for what they are.
  };
  // Of an ECU: what the index knows to be stored of it and has no log, as in a store of before there were claims, gets
  // one first.
  void scan(const core::ScanLogs& asked, Then<Scanned> then);
  void read_head(const Lineage& lineage, Then<core::RestoreCore::Head> then);
  // Of many, in their order; all or none.
  using Heads = std::vector<std::optional<wire::ClaimRecord>>;
  void read_heads(const std::vector<Lineage>& lineages, Then<Heads> then);
  // The head of the lineage that the program owns. kNotFound: nothing of it is stored. kFenced: it runs elsewhere by
  // now. kWithdrawn: it has ended. kLimit: kHistoriesMax wait.
  void find_owned(const ProgramKey& program, Then<wire::ClaimRecord> then);
  void append(const wire::ClaimRecord& record, Then<Appended> then);
  void settle(const Lineage& lineage, std::uint64_t attempt, Then<Appended> then);
  void find(const core::FindCheckpoint& asked, Then<core::RestoreCore::Found> then);
  // Removes the checkpoints of former owners, if the present one has one of its own; tells how many went.
  void remove_garbage(const Lineage& lineage, Then<std::vector<storage::IndexRow>> then);
  // The logs of the program's lineage, or of every lineage that the ECU owns or owned, oldest record first.
  // `more`: there are older ones than the kHistoryRecordsMax that are told. kLimit: kHistoriesMax wait.
  struct History {
    std::vector<wire::ClaimRecord> records;
    bool more = false;
  };
  void history(EcuMac ecu_mac, std::optional<ProgramId> program_id, Then<History> then);
  // What would be restored if the ECU were lost now: of each program that it owns, the checkpoint that a claim
  // would find. Begins no log and no claim. kLimit: kHistoriesMax wait.
  void programs_of(EcuMac ecu_mac, Then<LostPrograms> then);

 private:
  Worker& lane_of(const Lineage& lineage) { return *lanes_[lineage.low % lanes_.size()]; }
  template <typename T, typename Job>
  void post(Worker& worker, Job job, Then<T> then);
  Result<Scanned> scan_now(const core::ScanLogs& asked);
  // `worker` runs it: it ends when that is to stop. `unusable` may be null.
  Status for_each_head(const Worker& worker, const std::function<void(const wire::ClaimRecord&)>& visit,
                       std::size_t* unusable);
  Result<bool> has_ended(const wire::ClaimRecord& head);
  Status begin_missing_logs(EcuMac ecu_mac, const std::set<Lineage>& seen, Scanned& scanned);
  Result<core::RestoreCore::Head> head_now(const Lineage& lineage);
  Result<Heads> heads_now(const std::vector<Lineage>& lineages);
  Result<wire::ClaimRecord> owned_now(const ProgramKey& program);
  Result<core::RestoreCore::Found> find_now(const core::FindCheckpoint& asked);
  Result<std::vector<storage::BlobName>> list_lineage(const Lineage& lineage);
  Result<std::vector<storage::IndexRow>> remove_garbage_now(const Lineage& lineage);
  Result<LostPrograms> programs_now(EcuMac ecu_mac);
  template <typename T, typename Job>
  void post_history(Job job, Then<T> then);
  Result<History> history_now(EcuMac ecu_mac, std::optional<ProgramId> program_id);

  Parts parts_;
  std::vector<std::unique_ptr<Worker>> lanes_;
  Worker historian_;
  Worker scanner_;  // Last: their ends precede that of what they use.
};

}  // namespace cms::daemon
