#include "storage/directory/small_batch.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <system_error>
#include <thread>

#include "base/crash_point.h"
#include "storage/blob_file_io.h"
#include "storage/store_layout.h"

// The order that keeps a name from becoming durable before its bytes:
//   write every file in our private directory, sync them all, rename them all, sync the names.
// A sync is either one syncfs for the group or one fsync per file, several at a time, so that they
// share journal commits and device flushes.
namespace cms::storage {
namespace {

constexpr std::size_t kSyncThreadsMax = 8;
// syncfs writes back everything that anybody has dirty on that file system. It is taken only while
// the whole host has no more than this to write, so a group never waits for somebody's gigabytes.
constexpr std::uint64_t kForeignDirtyBytesMax = 64 * 1024 * 1024;

struct Item {
  const SmallBlob* blob = nullptr;
  Status* status = nullptr;
  std::string temp_name;
  std::string path;   // Of the final name, for people.
  std::string below;  // "0a7/<name>", below DIR/d.
  UniqueFd file;
  bool renamed = false;
};

// Bytes that the host has to write back, from /proc/meminfo; the largest number when not known.
std::uint64_t dirty_bytes() {
  const auto file = open_at(AT_FDCWD, "/proc/meminfo", O_RDONLY, "/proc/meminfo");
  std::array<char, 4096> text{};
  if (!file) return UINT64_MAX;
  const auto got = read_fully(file->get(), text.data(), text.size() - 1, 0, "/proc/meminfo");
  if (!got) return UINT64_MAX;
  std::uint64_t total_kib = 0;
  for (const char* key : {"\nDirty:", "\nWriteback:"}) {
    const char* line = std::strstr(text.data(), key);
    if (line == nullptr) return UINT64_MAX;
    total_kib += std::strtoull(line + std::strlen(key), nullptr, 10);
  }
  return total_kib * 1024;
}

// Calls `work` for 0 .. count-1 on up to kSyncThreadsMax threads, this one among them.
void for_each_in_parallel(std::size_t count, const std::function<void(std::size_t)>& work) {
  std::atomic<std::size_t> next{0};
  const auto run = [&] {
    for (std::size_t i = next++; i < count; i = next++) work(i);
  };
  std::vector<std::thread> threads;
  const std::size_t helpers = std::min(count, kSyncThreadsMax);
  for (std::size_t i = 1; i < helpers; ++i) {
    try {
      threads.emplace_back(run);
    } catch (const std::system_error&) {
      break;  // No more threads to be had: those there are do it all, more slowly.
    }
  }
  run();
  for (std::thread& thread : threads) thread.join();
}

class Group {
 public:
  Group(const StoreRoot& root, const SmallBlob* blobs, std::size_t count, std::uint64_t temp_number,
        Status* statuses)
      : root_(root), items_(count) {
    for (std::size_t i = 0; i < count; ++i) {
      Item& item = items_[i];
      item.blob = &blobs[i];
      item.status = &statuses[i];
      item.temp_name = temp_name_of(temp_number + i);
      item.path = entry_path(root, blobs[i].name);
      item.below = shard_name(shard_of(blobs[i].name.lineage)) + "/" + to_file_name(blobs[i].name);
    }
  }

  void run() {
    // Opened before the first write: syncfs reports the errors since then, and each opening has
    // its own account, so that groups of other threads do not take ours away.
    if (root_.syncfs_reports_errors && items_.size() > 1) {
      auto fd = open_dir_at(root_.root.get(), ".", root_.path);
      if (fd) sync_fd_ = std::move(*fd);  // else: file by file
    }
    write_files();
    sync_files();
    rename_files();
    sync_names();
    for (Item& item : items_) {
      if (item.status->ok()) continue;
      *item.status = absent_is_unavailable(*item.status);
      drop(item);
    }
    CMS_CRASH_POINT("store.small_after_publish");
  }

 private:
  // Whether one syncfs is allowed now.
  bool may_sync_all() const { return sync_fd_.valid() && dirty_bytes() <= kForeignDirtyBytesMax; }

  // Which of the group's blobs failed cannot be told after a syncfs: so all did.
  void sync_all() {
    while (::syncfs(sync_fd_.get()) != 0) {
      if (errno == EINTR) continue;
      const Status failed = error_from_errno(errno, "syncfs " + root_.path);
      for (Item& item : items_) {
        if (item.status->ok()) *item.status = failed;
      }
      return;
    }
  }

  Status write_file(Item& item) {
    const SmallBlob& blob = *item.blob;
    const std::string path = root_.tmp_path + "/" + item.temp_name;
    auto file = open_at(root_.tmp.get(), item.temp_name, O_WRONLY | O_CREAT | O_EXCL, path);
    if (!file) return file.error();
    item.file = std::move(*file);
    wire::Manifest manifest = blob.manifest;
    const bool zero = is_all_zero(blob.data, blob.size_bytes);
    manifest.zero_chunks = {zero};
    manifest.blob_digest = blob_digest_of(manifest.chunk_digests);
    const std::size_t stored = zero ? 0 : blob.size_bytes;
    BlobHeaderBytes header = encode_header(
        BlobHeader{blob.name.kind, manifest.chunk_size_bytes, blob.name.size_bytes, blob.name.uid});
    wire::Bytes footer = encode_footer(manifest, kBlobHeaderBytes + stored);
    std::array<iovec, 3> parts = {iovec{header.data(), header.size()},
                                  iovec{const_cast<void*>(blob.data), stored},
                                  iovec{footer.data(), footer.size()}};
    return write_all(item.file.get(), parts.data(), static_cast<int>(parts.size()), 0, path);
  }

  void write_files() {
    for (Item& item : items_) {
      *item.status = write_file(item);
      CMS_CRASH_POINT("store.small_after_write");
    }
  }

  void sync_files() {
    if (may_sync_all()) {
      sync_all();
    } else {
      // All at once to the device first: then the first journal commit finds little to wait for.
      for (Item& item : items_) {
        if (items_.size() > 1 && item.file.valid()) {
          (void)::sync_file_range(item.file.get(), 0, 0, SYNC_FILE_RANGE_WRITE);  // a hint
        }
      }
      for_each_in_parallel(items_.size(), [&](std::size_t i) {
        Item& item = items_[i];
        if (item.status->ok())
          *item.status = sync_data(item.file.get(), root_.tmp_path + "/" + item.temp_name);
      });
    }
    CMS_CRASH_POINT("store.small_after_data_sync");
  }

  void rename_files() {
    for (Item& item : items_) {
      item.file.reset();
      if (!item.status->ok()) continue;
      *item.status =
          rename_no_replace(root_.tmp.get(), item.temp_name, root_.shards.get(), item.below, item.path);
      item.renamed = item.status->ok();
      CMS_CRASH_POINT("store.small_after_rename");
    }
  }

  void sync_names() {
    if (may_sync_all()) {
      sync_all();
      return;
    }
    std::map<std::uint32_t, Status> shards;
    for (const Item& item : items_) {
      if (item.renamed) shards.emplace(shard_of(item.blob->name.lineage), Status());
    }
    std::vector<std::pair<const std::uint32_t, Status>*> list;
    for (auto& shard : shards) list.push_back(&shard);
    for_each_in_parallel(list.size(), [&](std::size_t i) {
      const std::string name = shard_name(list[i]->first);
      const std::string path = root_.path + "/d/" + name;
      const auto dir = open_dir_at(root_.shards.get(), name, path);
      list[i]->second = dir ? sync_dir(dir->get(), path) : Status(dir.error());
    });
    for (Item& item : items_) {
      if (item.renamed) *item.status = shards[shard_of(item.blob->name.lineage)];
    }
  }

  // What cannot be removed is swept at the next start (temp), or whole, and found and counted as
  // any other blob (renamed); nobody was told that it is STORED.
  void drop(Item& item) {
    item.file.reset();
    if (item.renamed) {
      (void)::unlinkat(root_.shards.get(), item.below.c_str(), 0);
    } else {
      (void)::unlinkat(root_.tmp.get(), item.temp_name.c_str(), 0);
    }
  }

  const StoreRoot& root_;
  std::vector<Item> items_;
  UniqueFd sync_fd_;  // Invalid: sync file by file.
};

}  // namespace

void publish_group(const StoreRoot& root, const SmallBlob* blobs, std::size_t count,
                   std::uint64_t temp_number, Status* statuses) {
  CMS_ASSERT(count <= kGroupCountMax);
  Group(root, blobs, count, temp_number, statuses).run();
}

}  // namespace cms::storage
