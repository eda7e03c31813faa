#include "cms/daemon/shard_lister.h"

#include <algorithm>
#include <string>
#include <utility>

namespace cms::daemon {

ShardListing list_shard(storage::BlobStore& store, std::uint32_t shard) {
  ShardListing listing;
  listing.shard = shard;
  listing.status = store.list(
      shard,
      [&](const storage::StoredEntry& entry) {
        const CheckpointId& checkpoint = entry.name.checkpoint;
        if (entry.name.kind == storage::EntryKind::kTombstone) {
          storage::BlobName& newest = listing.ended.emplace(checkpoint.program, entry.name).first->second;
          if (newest.checkpoint.version < checkpoint.version) newest = entry.name;
        } else if (entry.name.kind == storage::EntryKind::kPin) {
          listing.pins.emplace(checkpoint, entry.name);
        } else {
          listing.blobs.push_back(entry);
        }
      },
      &listing.unknown_files);
  return listing;
}

ShardLister::ShardLister(storage::BlobStore& store, std::function<void()> on_listed)
    : store_(store), on_listed_(std::move(on_listed)), idle_(kListerThreads, true) {
  for (std::size_t i = 0; i < kListerThreads; ++i) {
    threads_.push_back(std::make_unique<Worker>("list-" + std::to_string(i)));
  }
}

void ShardLister::stop() {
  for (const auto& thread : threads_) thread->stop();
}

void ShardLister::start() {
  const std::lock_guard lock(mutex_);
  ++round_;
  next_shard_ = 0;
  listed_.clear();
  entry_count_ = 0;
  told_ = false;
  wake_idle();
}

void ShardLister::stop_round() {
  const std::lock_guard lock(mutex_);
  ++round_;
  next_shard_ = storage::kShardCount;
  listed_.clear();
  entry_count_ = 0;
}

void ShardLister::wake_idle() {
  for (std::size_t i = 0; i < threads_.size(); ++i) {
    if (!idle_[i]) continue;
    idle_[i] = false;
    threads_[i]->post([this, i] { list_next(i); });
  }
}

bool ShardLister::take(std::size_t entry_count, std::vector<ShardListing>& listings) {
  const std::lock_guard lock(mutex_);
  std::size_t taken = 0;
  while (!listed_.empty() && taken < entry_count) {
    taken += listed_.front().blobs.size();
    listings.push_back(std::move(listed_.front()));
    listed_.pop_front();
  }
  entry_count_ -= taken;
  told_ = !listed_.empty();
  wake_idle();
  return told_;
}

void ShardLister::list_next(std::size_t thread) {
  while (true) {
    std::uint64_t round = 0;
    std::uint32_t shard = 0;
    {
      const std::lock_guard lock(mutex_);
      if (next_shard_ == storage::kShardCount || entry_count_ >= kListedAheadMax ||
          threads_[thread]->stopping()) {
        idle_[thread] = true;
        return;
      }
      round = round_;
      shard = next_shard_++;
    }
    ShardListing listing = list_shard(store_, shard);
    {
      const std::lock_guard lock(mutex_);
      if (round != round_) continue;
      entry_count_ += listing.blobs.size();
      listed_.push_back(std::move(listing));
      if (std::exchange(told_, true)) continue;
    }
    on_listed_();
  }
}

}  // namespace cms::daemon
