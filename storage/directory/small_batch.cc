#include "storage/directory/small_batch.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/crash_point.h"
#include "storage/blob_file_io.h"
#include "storage/directory/sync_names.h"
#include "storage/store_layout.h"

// The order that keeps a name from becoming durable before its bytes:
//   write every file in our private directory, sync them all, rename them all, sync the names.
// A sync is either one syncfs for the group or one fsync per file, several at a time, so that they
// share journal commits and device flushes.
namespace cms::storage {
namespace {

struct Item {
  const SmallBlob* blob = nullptr;
  Status* status = nullptr;
  std::string temp_name;
  std::string path;   // Of the final name, for people.
  std::string below;  // "0a7/<name>", below DIR/d.
  UniqueFd file;
  bool renamed = false;
};

class Group {
 public:
  Group(const StoreRoot& root, const SmallBlob* blobs, std::size_t count, std::uint64_t temp_number,
        Status* statuses)
      : root_(root), items_(count), sync_(root.root.get(), root.path, root.syncfs_reports_errors, count) {
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
  // Which of the group's blobs failed cannot be told after a syncfs: so all did.
  void sync_all() {
    const Status synced = sync_.run();
    for (Item& item : items_) {
      if (item.status->ok()) *item.status = synced;
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
    if (sync_.possible()) {
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
    if (sync_.possible()) {
      sync_all();
      return;
    }
    std::set<std::uint32_t> shards;
    for (const Item& item : items_) {
      if (item.renamed) shards.insert(shard_of(item.blob->name.lineage));
    }
    const auto synced = sync_shards(root_, shards);
    for (Item& item : items_) {
      if (item.renamed) *item.status = synced.at(shard_of(item.blob->name.lineage));
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
  const GroupSync sync_;
};

}  // namespace

void publish_group(const StoreRoot& root, const SmallBlob* blobs, std::size_t count,
                   std::uint64_t temp_number, Status* statuses) {
  CMS_ASSERT(count <= kGroupCountMax);
  Group(root, blobs, count, temp_number, statuses).run();
}

}  // namespace cms::storage
