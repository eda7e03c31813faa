#pragma once
// StoreWorkers stands for the workers of one cmsd: it carries out the effects on store and index,
// slowly and with failures, and hands the answers back to the core. Questions to the index are dealt
// with in their order, answers come in any. It dies with its cmsd: what had not become durable by
// then never does, and what had may never have been reported.
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "base/prng.h"
#include "cms/core/cms_core.h"
#include "test/sim/event_queue.h"
#include "test/sim/plants.h"
#include "test/sim/scenario.h"
#include "test/sim/virtual_index.h"
#include "test/sim/virtual_store.h"

namespace cms::sim {

// The state of the medium; outlives a cmsd.
struct StoreFaults {
  std::optional<Code> outage;  // Every operation fails with it.
  std::uint32_t fail_per_10k = 0;
};

class StoreWorkers {
 public:
  using Answer = std::function<void(core::CmsCore&, Instant, core::Effects&)>;

  // `deliver` gives an answer to the core of the cmsd that these workers belong to.
  StoreWorkers(EventQueue& queue, Prng& prng, const Scenario& scenario, VirtualStore& store,
               VirtualIndex& index, const StoreFaults& faults, Plant plant,
               std::function<void(const Answer&)> deliver);
  ~StoreWorkers();  // The cmsd is dead.
  StoreWorkers(const StoreWorkers&) = delete;
  StoreWorkers& operator=(const StoreWorkers&) = delete;

  void run(const core::StartStore& effect);
  void run(const core::AppendStore& effect);
  void run(const core::FinishStore& effect);
  void run(const core::DropStore& effect);
  void run(const core::StoreSmall& effect);
  void run(const core::LookUpProgram& effect);
  void run(const core::ReserveIncarnation& effect);
  void run(const core::WithdrawProgram& effect);
  void run(const core::RemoveBlobs& effect);
  void run(const core::ApplyRetention& effect);
  void run(const core::FreeSpace& effect);
  void run(const core::NoteRemoved& effect);
  void run(const core::IndexStored& effect);
  void run(const core::NoteWithdrawn& effect);
  void run(const core::NoteIncarnations& effect);
  void run(const core::NoteQuarantined&) {}  // No blob of this store is ever damaged.
  void run(const core::ReconcileStore& effect);
  // Finds out how the medium is and says so to the core, again and again until it is well.
  void probe();

  // Received, but not written.
  std::uint64_t untaken_bytes() const { return untaken_bytes_; }
  // Invariant: no transfer has more than a window waiting.
  void check_windows() const;
  std::size_t job_count() const { return jobs_.size(); }

 private:
  struct Operation {
    bool finish = false;
    core::ChunkView bytes{};
    Digest digest{};  // Of the chunk, or with `finish` of the blob.
  };
  struct Job {
    storage::BlobName name;
    std::deque<Operation> operations;
    bool busy = false;
    bool small = false;
    std::vector<core::ChunkView> chunks;
    std::vector<Digest> digests;
    std::uint64_t untaken_bytes = 0;
    Instant answered_at{};  // Answers of one transfer keep their order.
  };
  using Jobs = std::map<core::TransferId, Job>;

  Duration delay();
  std::optional<Error> fault();
  // Runs `what` after `after`, unless the cmsd has died by then.
  void later(Duration after, std::function<void()> what);
  void answer(const Answer& answer);
  void answer_for(core::TransferId transfer, const Answer& answer);
  void go_on(core::TransferId transfer);
  void write(core::TransferId transfer, Job& job);
  void finish(core::TransferId transfer, Job& job, const Digest& blob_digest);
  void fail(core::TransferId transfer, Error error);
  void end(core::TransferId transfer);
  // ---- the index (store_workers_index.cc)
  // Runs `what` when everything asked before has been done.
  void ask_index(std::function<void()> what);
  std::optional<Error> index_fault();
  // The index of this program is as true to the store as it was when it was reconciled last.
  Status ensure_reconciled(const ProgramKey& program);
  void reconcile();
  void look_up(const ProgramKey& program);
  void reserve(const core::ReserveIncarnation& asked);
  void withdraw(const core::WithdrawProgram& asked);
  Status note_stored(const std::vector<storage::IndexRow>& rows, std::vector<storage::BlobName>& taken);
  Status note_withdrawn(const core::NoteWithdrawn& effect);
  bool remove(const std::vector<storage::BlobName>& names);
  void apply_retention(const ProgramKey& program);
  void say_not_indexed(const Error& error);
  IndexPlants index_plants() const;

  EventQueue& queue_;
  Prng& prng_;
  const Scenario& scenario_;
  VirtualStore& store_;
  VirtualIndex& index_;
  const StoreFaults& faults_;
  const Plant plant_;
  const std::function<void(const Answer&)> deliver_;
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  Jobs jobs_;
  std::uint64_t untaken_bytes_ = 0;
  Instant index_free_at_{};
  bool store_looked_at_ = false;
  std::vector<ProgramKey> held_look_ups_;  // Until it has been.
  std::uint64_t reconcile_round_ = 0;
  bool reconciled_all_ = false;
  std::set<ProgramKey> reconciled_;
  std::vector<core::ReserveIncarnation> waiting_hellos_;          // Until the index is complete.
  std::vector<std::pair<Instant, storage::BlobName>> published_;  // For kLostOnCrash.
};

}  // namespace cms::sim
