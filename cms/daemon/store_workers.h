#pragma once
// StoreWorkers carries out the core's effects for the store: large blobs chunk by chunk, each by one
// of a few workers; small ones in groups, as many as have come while the last group was made
// durable. A blob's row is in the index, and the lineage's claim log has been asked, before the core hears
// that it is stored: while a claim is open that may have overlooked the blob, the answer waits for its end.
//
// Threads: the methods are called by the loop and do not block; answers come by the Outbox.
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "cms/core/cms_core.h"
#include "cms/daemon/lineage_gate.h"
#include "cms/daemon/worker.h"
#include "storage/blob_store.h"
#include "storage/checkpoint_index.h"

namespace cms::daemon {

// One group of small blobs.
inline constexpr std::size_t kGroupCountMax = 1024;
inline constexpr std::size_t kGroupBytesMax = 32 * 1024 * 1024;

storage::IndexRow row_of(const storage::BlobName& name, const wire::Manifest& manifest);

// To be called when the blob's row is in the index: whether a withdrawal came in between, which may
// not have seen the row; then blob and row are removed again (kWithdrawn).
Status settle(storage::BlobStore& store, storage::CheckpointIndex& index, const storage::BlobName& name);

class StoreWorkers {
 public:
  struct Config {
    std::size_t worker_count = 2;
  };
  // On the loop, when the first of an owner that was made by a restore is stored.
  using OwnStored = std::function<void(const Lineage& lineage)>;
  // `core`, `store`, `index`, `gate` and `outbox` outlive this. The core is touched on the loop only.
  StoreWorkers(const Config& config, core::CmsCore& core, storage::BlobStore& store,
               storage::CheckpointIndex& index, LineageGate& gate, Outbox& outbox, OwnStored own_stored);
  ~StoreWorkers();

  void start(core::StartStore effect);
  void append(core::AppendStore effect);
  void finish(core::FinishStore effect);
  void drop(core::DropStore effect);
  void put_small(core::StoreSmall effect);
  // What is under way is dropped. Idempotent.
  void stop();
  std::size_t queue_length() const;

 private:
  struct OpenBlob;
  class Lane;
  Lane& lane_of(core::TransferId transfer) { return *lanes_[transfer % lanes_.size()]; }
  // Durable and indexed, but not yet called STORED.
  struct Judged {
    core::TransferId transfer = 0;
    storage::IndexRow row;
    wire::Policies policies;
    bool said_to_wait = false;
  };
  struct Outcome {
    core::TransferId transfer = 0;
    storage::IndexRow row;  // Of a stored one.
    Status stored;
  };
  void run_groups();
  void put_group(std::vector<core::StoreSmall>& group);
  // What may be said of them; those that have to wait are parked.
  std::vector<Outcome> judge(std::vector<Judged> judged);
  void tell(std::vector<Outcome> outcomes);

  Config config_;
  core::CmsCore& core_;
  storage::BlobStore& store_;
  storage::CheckpointIndex& index_;
  Outbox& outbox_;
  std::vector<std::unique_ptr<Lane>> lanes_;

  LineageGate& gate_;
  const OwnStored own_stored_;
  std::map<Lineage, OwnerEpoch> own_told_;  // The loop's: who was told of with own_stored_.

  mutable std::mutex mutex_;  // Guards the four below.
  std::condition_variable wake_;
  std::vector<core::StoreSmall> waiting_;
  std::vector<Judged> parked_;  // For the end of a claim; asked again by the group thread.
  bool stopping_ = false;
  std::thread group_thread_;
};

}  // namespace cms::daemon
