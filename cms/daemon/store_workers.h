#pragma once
// StoreWorkers carries out the core's effects for the store: large blobs chunk by chunk, each by one
// of a few workers; small ones in groups, as many as have come while the last group was made
// durable. A blob's row is in the index before the core hears that it is stored.
//
// Threads: the methods are called by the loop and do not block; answers come by the Outbox.
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "cms/core/cms_core.h"
#include "cms/daemon/worker.h"
#include "storage/blob_store.h"
#include "storage/checkpoint_index.h"

namespace cms::daemon {

// One group of small blobs.
inline constexpr std::size_t kGroupCountMax = 1024;
inline constexpr std::size_t kGroupBytesMax = 32 * 1024 * 1024;

// To be called when the blob's row is in the index: whether a withdrawal came in between, which may
// not have seen the row; then blob and row are removed again (kWithdrawn).
Status settle(storage::BlobStore& store, storage::CheckpointIndex& index, const storage::BlobName& name);

class StoreWorkers {
 public:
  struct Config {
    std::size_t worker_count = 2;
  };
  // `core`, `store`, `index` and `outbox` outlive this. The core is touched on the loop only.
  StoreWorkers(const Config& config, core::CmsCore& core, storage::BlobStore& store,
               storage::CheckpointIndex& index, Outbox& outbox);
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
  void run_groups();
  void put_group(std::vector<core::StoreSmall>& group);

  Config config_;
  core::CmsCore& core_;
  storage::BlobStore& store_;
  storage::CheckpointIndex& index_;
  Outbox& outbox_;
  std::vector<std::unique_ptr<Lane>> lanes_;

  mutable std::mutex mutex_;  // Guards the three below.
  std::condition_variable wake_;
  std::vector<core::StoreSmall> waiting_;
  bool stopping_ = false;
  std::thread group_thread_;
};

}  // namespace cms::daemon
