#include "storage/nfs/nfs_small_batch.h"

#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "base/crash_point.h"
#include "storage/blob_file_io.h"
#include "storage/nfs/nfs_blob_io.h"
#include "storage/store_layout.h"

// Each blob goes its way alone, from the answer of one call to the next:
//   CREATE in our private directory, WRITE to the medium, LINK, COMMIT, and a REMOVE of the private name that nobody
//   waits for.
// What could not be answered is settled afterwards, one by one, on another connection.
namespace cms::storage {
namespace {

class Group {
 public:
  Group(NfsPool& pool, const NfsRoot& root, const SmallBlob* blobs, std::size_t count,
        std::uint64_t temp_number, Status* statuses)
      : pool_(pool), root_(root) {
    for (std::size_t i = 0; i < count; ++i) {
      items_.emplace_back(root, blobs[i], temp_name_of(temp_number + i), statuses[i]);
    }
  }

  void run() {
    pool_.litter()->removals().wait_until_at_most(kNfsRemovalsInFlight);
    for (Item& item : items_) {
      in_flight_.wait_until_at_most(kNfsGroupInFlight - 1);
      auto link = pool_.get();
      if (!link) {
        item.status = link.error();
        continue;
      }
      item.link = std::move(*link);
      in_flight_.begin(1);
      start(item);
    }
    in_flight_.wait_until_at_most(0);
    for (Item& item : items_) {
      if (item.in_doubt) item.status = settle_name(pool_, item.naming);
      if (!item.status.ok()) drop(item);
      item.link.reset();
    }
    CMS_CRASH_POINT("nfs.small_after_publish");
  }

 private:
  struct Item {
    Item(const NfsRoot& root, const SmallBlob& small, std::string private_name, Status& end)
        : blob(small),
          temp_name(std::move(private_name)),
          status(end),
          naming{root, temp_name, file, blob.name} {}
    Item(const Item&) = delete;
    Item& operator=(const Item&) = delete;

    const SmallBlob& blob;
    const std::string temp_name;
    Status& status;
    NfsLink link;
    NfsHandle file;
    const NfsNaming naming;
    bool in_doubt = false;  // Whether it has its name.
  };

  // All that follow run on the connection's thread, or on the caller's when the connection is dead.
  void start(Item& item) {
    nfs_create(*item.link, {root_.tmp, item.temp_name}, [this, &item](const NfsReply& reply) {
      item.file = reply.handle;
      if (!reply.ok()) {
        item.status = absent_is_unavailable(error_of(reply, "create " + item.temp_name));
      } else if (item.file.empty()) {
        item.status = make_error(Code::kUnsupported, "the NFS server's CREATE does not tell the handle");
      }
      if (!item.status.ok()) return end();
      write(item);
    });
  }

  void write(Item& item) {
    CMS_CRASH_POINT("nfs.small_after_create");
    const SmallBlob& blob = item.blob;
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
                  item.status = error_of(reply, "write " + item.temp_name);
                } else if (reply.count != size_bytes || !reply.file_synced) {
                  item.status =
                      make_error(Code::kIo, "write " + item.temp_name + ": the NFS server took only " +
                                                std::to_string(reply.count) + " bytes, or not to its medium");
                }
                if (!item.status.ok()) return end();
                give_name(item);
              });
  }

  void give_name(Item& item) {
    CMS_CRASH_POINT("nfs.small_after_write");
    nfs_give_name(*item.link, item.naming, [this, &item](const NfsNamed& named) {
      item.in_doubt = !named.known;
      item.status = named.status;
      if (named.known && named.status.ok()) {
        CMS_CRASH_POINT("nfs.small_after_commit");
        drop(item);
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
  std::deque<Item> items_;  // They stay where they are.
  NfsInFlight in_flight_;
};

}  // namespace

void publish_nfs_group(NfsPool& pool, const NfsRoot& root, const SmallBlob* blobs, std::size_t count,
                       std::uint64_t temp_number, Status* statuses) {
  Group(pool, root, blobs, count, temp_number, statuses).run();
}

}  // namespace cms::storage
