#pragma once
// ShardLister lists all shards of a store ahead of whoever takes the listings in, on threads of its
// own, as on a NAS each listing is a wait.
//
// Threads: start, take and stop_round by one thread, not one of its own; stop from any. Bounds:
// kListedAheadMax entries and one shard for each thread wait to be taken.
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "base/result.h"
#include "cms/daemon/worker.h"
#include "storage/blob_store.h"

namespace cms::daemon {

inline constexpr std::size_t kListerThreads = 2;
inline constexpr std::size_t kListedAheadMax = 32768;

struct ShardListing {
  std::uint32_t shard = 0;
  Status status;  // Not ok: what follows is not all.
  std::vector<storage::StoredEntry> blobs;
  std::map<ProgramKey, storage::BlobName> ended;  // By which tombstone, the newest of it.
  std::map<CheckpointId, storage::BlobName> pins;
  std::uint64_t unknown_files = 0;
};
ShardListing list_shard(storage::BlobStore& store, std::uint32_t shard);

class ShardLister {
 public:
  // `on_listed` runs on one of its threads when there is something to take and take() has not been
  // told before.
  ShardLister(storage::BlobStore& store, std::function<void()> on_listed);
  ~ShardLister() { stop(); }

  void start();       // All shards, from the first on; what was listed before is dropped.
  void stop_round();  // Lists no more shards; what was listed is dropped.
  // Moves listings of at least `entry_count` entries, or what there is, to `listings`. True: there is
  // more, take again; false: on_listed will tell.
  bool take(std::size_t entry_count, std::vector<ShardListing>& listings);
  void stop();

 private:
  void list_next(std::size_t thread);
  void wake_idle();  // With mutex_ held.

  storage::BlobStore& store_;
  std::function<void()> on_listed_;
  std::mutex mutex_;  // Guards the six below.
  std::uint64_t round_ = 0;
  std::uint32_t next_shard_ = storage::kShardCount;
  std::deque<ShardListing> listed_;
  std::size_t entry_count_ = 0;  // In `listed_`.
  bool told_ = false;
  std::vector<bool> idle_;
  std::vector<std::unique_ptr<Worker>> threads_;  // Last: their end precedes that of what they use.
};

}  // namespace cms::daemon
