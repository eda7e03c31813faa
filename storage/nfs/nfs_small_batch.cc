#include "storage/nfs/nfs_small_batch.h"

#include <atomic>
#include <string>
#include <utility>
#include <vector>

#include "base/crash_point.h"
#include "storage/blob_file_io.h"
#include "storage/nfs/nfs_blob_io.h"
#include "storage/store_layout.h"

// Each blob goes its way alone, from the answer of one call to the next:
//   CREATE in our private directory and LOOKUP of the name, WRITE on the medium, RENAME, COMMIT.
// What could not be answered is settled afterwards, one by one, on another connection.
namespace cms::storage {
namespace {

class Group {
 public:
  Group(NfsPool& pool, const NfsRoot& root, const SmallBlob* blobs, std::size_t count,
        std::uint64_t temp_number, Status* statuses)
      : pool_(pool), root_(root), items_(count) {
    for (std::size_t i = 0; i < count; ++i) {
      items_[i].blob = &blobs[i];
      items_[i].status = &statuses[i];
      items_[i].temp_name = temp_name_of(temp_number + i);
      items_[i].file_name = to_file_name(blobs[i].name);
    }
  }

  void run() {
    for (Item& item : items_) {
      in_flight_.wait_until_at_most(kNfsGroupInFlight - 1);
      auto link = pool_.get();
      if (!link) {
        *item.status = link.error();
        continue;
      }
      item.link = std::move(*link);
      in_flight_.begin(1);
      start(item);
    }
    in_flight_.wait_until_at_most(0);
    for (Item& item : items_) {
      if (item.renaming && !item.status->ok() && item.status->code() == Code::kUnavailable) {
        *item.status = settle_name(pool_, NfsNaming{root_, item.temp_name, item.file, item.blob->name});
      }
      if (!item.status->ok()) drop(item);
      item.link.reset();
    }
    CMS_CRASH_POINT("nfs.small_after_publish");
  }

 private:
  struct Item {
    const SmallBlob* blob = nullptr;
    Status* status = nullptr;
    std::string temp_name;
    std::string file_name;
    NfsLink link;
    NfsHandle file;
    // CREATE and LOOKUP go side by side. A call that could not even be begun ends on the caller's thread
    // while the other is under way: each has a place of its own, and the last one goes on.
    Status created;
    Status looked_up;
    std::atomic<int> waits_for{2};
    bool renaming = false;  // A RENAME was sent: its outcome decides.
  };

  // All that follow run on the connection's thread, or on the caller's when the connection is dead.
  void start(Item& item) {
    nfs_lookup(*item.link, {root_.shard_of_name(item.blob->name), item.file_name},
               [this, &item](const NfsReply& reply) {
                 if (reply.ok()) {
                   item.looked_up = make_error(Code::kAlreadyExists, entry_path(root_, item.blob->name));
                 } else if (!reply.is(NfsStatus::kNoEntry)) {
                   item.looked_up = error_of(reply, entry_path(root_, item.blob->name));
                 }
                 begun(item);
               });
    nfs_create(*item.link, {root_.tmp, item.temp_name}, [this, &item](const NfsReply& reply) {
      item.file = reply.handle;
      if (!reply.ok()) {
        item.created = absent_is_unavailable(error_of(reply, "create " + item.temp_name));
      } else if (item.file.empty()) {
        item.created = make_error(Code::kUnsupported, "the NFS server's CREATE does not tell the handle");
      }
      begun(item);
    });
  }

  void begun(Item& item) {
    if (--item.waits_for > 0) return;
    *item.status = item.looked_up.ok() ? item.created : item.looked_up;
    if (!item.status->ok()) return end();
    write(item);
  }

  void write(Item& item) {
    CMS_CRASH_POINT("nfs.small_after_create");
    const SmallBlob& blob = *item.blob;
    wire::Manifest manifest = blob.manifest;
    const bool zero = is_all_zero(blob.data, blob.size_bytes);
    manifest.zero_chunks = {zero};
    manifest.blob_digest = blob_digest_of(manifest.chunk_digests);
    const std::size_t stored = zero ? 0 : blob.size_bytes;
    const BlobHeaderBytes header = encode_header(
        BlobHeader{blob.name.kind, manifest.chunk_size_bytes, blob.name.size_bytes, blob.name.uid});
    const wire::Bytes footer = encode_footer(manifest, kBlobHeaderBytes + stored);
    std::vector<unsigned char> bytes;
    bytes.reserve(header.size() + stored + footer.size());
    bytes.insert(bytes.end(), header.begin(), header.end());
    const auto* data = static_cast<const unsigned char*>(blob.data);
    bytes.insert(bytes.end(), data, data + stored);
    bytes.insert(bytes.end(), footer.begin(), footer.end());
    nfs_write(*item.link, item.file, 0, bytes.data(), bytes.size(), NfsStable::kFileSync,
              [this, &item, size_bytes = bytes.size()](const NfsReply& reply) {
                if (!reply.ok()) {
                  *item.status = error_of(reply, "write " + item.temp_name);
                } else if (reply.count != size_bytes || !reply.file_synced) {
                  *item.status =
                      make_error(Code::kIo, "write " + item.temp_name + ": the NFS server took only " +
                                                std::to_string(reply.count) + " bytes, or not to its medium");
                }
                if (!item.status->ok()) return end();
                rename(item);
              });
  }

  void rename(Item& item) {
    CMS_CRASH_POINT("nfs.small_after_write");
    item.renaming = true;
    nfs_rename(*item.link, {root_.tmp, item.temp_name},
               {root_.shard_of_name(item.blob->name), item.file_name}, [this, &item](const NfsReply& reply) {
                 CMS_CRASH_POINT("nfs.small_after_rename");
                 if (!reply.ok()) {
                   item.renaming = !reply.answered;  // Refused: nothing is open.
                   *item.status = absent_is_unavailable(
                       error_of(reply, "rename to " + entry_path(root_, item.blob->name)));
                   return end();
                 }
                 commit(item);
               });
  }

  void commit(Item& item) {
    nfs_commit(*item.link, item.file, [this, &item](const NfsReply& reply) {
      if (!reply.ok()) {
        *item.status = make_error(Code::kUnavailable, error_of(reply, "commit").context);  // To be settled.
      }
      end();
    });
  }

  void end() { in_flight_.end(1); }

  void drop(const Item& item) {
    if (item.link != nullptr) drop_nfs_temp(pool_, *item.link, root_, item.temp_name);
  }

  NfsPool& pool_;
  const NfsRoot& root_;
  std::vector<Item> items_;
  NfsInFlight in_flight_;
};

}  // namespace

void publish_nfs_group(NfsPool& pool, const NfsRoot& root, const SmallBlob* blobs, std::size_t count,
                       std::uint64_t temp_number, Status* statuses) {
  Group(pool, root, blobs, count, temp_number, statuses).run();
}

}  // namespace cms::storage
