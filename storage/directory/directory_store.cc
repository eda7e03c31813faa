#include "storage/directory/directory_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <mutex>
#include <set>
#include <utility>

#include "base/crash_point.h"
#include "base/time.h"
#include "storage/blob_file_io.h"
#include "storage/directory/blob_io.h"
#include "storage/directory/small_batch.h"
#include "storage/directory/store_root.h"
#include "storage/directory/sync_names.h"
#include "storage/store_layout.h"

namespace cms::storage {
namespace {

class DirectoryStore final : public BlobStore {
 public:
  DirectoryStore(const std::string& directory, const std::string& node, std::uint64_t node_incarnation) {
    options_.path = directory;
    options_.node = node;
    options_.node_incarnation = node_incarnation;
  }

  DirectoryStore(const DirectoryStore&) = delete;
  DirectoryStore& operator=(const DirectoryStore&) = delete;

  ~DirectoryStore() override {
    // Leaving in order: no dead incarnation for the next one to sweep. Not empty? It will.
    if (root_ != nullptr) (void)::unlinkat(root_->root.get(), root_->tmp_name.c_str(), AT_REMOVEDIR);
  }

  Status open_store() override {
    const std::lock_guard<std::mutex> opening(open_mutex_);
    RootOptions options = options_;
    options.fleet_id_expected = fleet_id();
    options.node_lock = &node_lock_;
    auto root = open_root(options);
    if (!root) return root.error();
    const std::lock_guard<std::mutex> lock(root_mutex_);
    root_ = *root;
    if (!root_->tmp.valid()) return root_->tmp_error;
    return ok_status();
  }

  Status probe() override {
    const auto root = current(&check_writable);
    if (!root) return root.error();
    if (Status fits = check_space(**root, 1); !fits.ok()) return fits;
    const std::string name = temp_name_of(next_temp_number_++);
    const std::string path = (*root)->tmp_path + "/" + name;
    auto file = open_at((*root)->tmp.get(), name, O_WRONLY | O_CREAT | O_EXCL, path);
    if (!file) return absent_is_unavailable(file.error());
    std::array<char, 4096> bytes{};
    bytes.fill('p');
    Status status = write_all(file->get(), bytes.data(), bytes.size(), 0, path);
    if (status.ok()) status = sync_data(file->get(), path);
    if (::unlinkat((*root)->tmp.get(), name.c_str(), 0) != 0 && status.ok()) {
      status = error_from_errno(errno, "remove " + path);
    }
    return absent_is_unavailable(status);
  }

  Result<SpaceInfo> space() override {
    const auto root = current(&check_still_there);
    if (!root) return root.error();
    return space_of(**root);
  }

  std::string fleet_id() const override {
    const std::lock_guard<std::mutex> lock(root_mutex_);
    return root_ == nullptr ? std::string() : root_->format.fleet_id;
  }

  Result<std::unique_ptr<BlobWriter>> create(const BlobName& name, wire::Manifest manifest) override {
    if (name.kind != EntryKind::kBlob)
      return make_error(Code::kInvalidArgument, "create: not the name of a blob");
    if (Status status = check_name_and_manifest(name, manifest); !status.ok()) return status.error();
    const auto root = current(&check_writable);
    if (!root) return root.error();
    const std::uint64_t bytes = blob_file_bytes_max(name, manifest.chunk_size_bytes);
    if (Status status = check_space(**root, bytes); !status.ok()) return status.error();
    return make_directory_writer(*root, name, std::move(manifest), temp_name_of(next_temp_number_++));
  }

  std::vector<Status> put_small(const std::vector<SmallBlob>& blobs) override {
    std::vector<Status> statuses(blobs.size());
    const auto root = current(&check_writable);
    if (!root) {
      std::fill(statuses.begin(), statuses.end(), Status(root.error()));
      return statuses;
    }
    for (std::size_t first = 0; first < blobs.size();) {
      // The next run of blobs that may go together.
      std::size_t count = 0;
      std::uint64_t bytes = 0;
      while (first + count < blobs.size() && count < kGroupCountMax && bytes < kGroupBytesMax) {
        const SmallBlob& blob = blobs[first + count];
        statuses[first + count] = check_small_blob(blob);
        if (!statuses[first + count].ok()) break;
        bytes += blob_file_bytes_max(blob.name, blob.manifest.chunk_size_bytes);
        ++count;
      }
      if (count > 0) publish(**root, &blobs[first], count, bytes, &statuses[first]);
      first += count;
      if (first < blobs.size() && !statuses[first].ok()) ++first;
    }
    return statuses;
  }

  Status put_tombstone(const BlobName& name) override { return put_marker(name, EntryKind::kTombstone); }

  Status put_pin(const BlobName& name) override { return put_marker(name, EntryKind::kPin); }

  Result<std::unique_ptr<BlobReader>> open(const BlobName& name) override {
    const auto root = current(&check_still_there);
    if (!root) return root.error();
    return open_directory_reader(**root, name);
  }

  Status remove(const BlobName& name) override {
    const auto root = current(&check_still_there);
    if (!root) return root.error();
    const std::string below = shard_name(shard_of(name.lineage)) + "/" + to_file_name(name);
    if (::unlinkat((*root)->shards.get(), below.c_str(), 0) != 0 && errno != ENOENT) {
      return error_from_errno(errno, "remove " + entry_path(**root, name));
    }
    // Not synced: a blob that a host crash brings back is superseded still, and removed again.
    CMS_CRASH_POINT("store.after_remove");
    return ok_status();
  }

  Result<bool> contains(const BlobName& name) override {
    const auto root = current(&check_still_there);
    if (!root) return root.error();
    const std::string below = shard_name(shard_of(name.lineage)) + "/" + to_file_name(name);
    if (::faccessat((*root)->shards.get(), below.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0) return true;
    if (errno == ENOENT) return false;
    return error_from_errno(errno, "look for " + entry_path(**root, name));
  }

  // Bytes are durable before their name is given: only the names are left.
  std::vector<Status> make_durable(const std::vector<BlobName>& names) override {
    std::vector<Status> statuses(names.size());
    const auto root = current(&check_still_there);
    if (!root) {
      std::fill(statuses.begin(), statuses.end(), Status(root.error()));
      return statuses;
    }
    std::set<std::uint32_t> shards;
    for (std::size_t i = 0; i < names.size(); ++i) {
      const auto there = contains(names[i]);
      if (!there) {
        statuses[i] = there.error();
      } else if (!*there) {
        statuses[i] = make_error(Code::kNotFound, entry_path(**root, names[i]));
      } else {
        shards.insert(shard_of(names[i].lineage));
      }
    }
    const auto synced = sync_shards(**root, shards);
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (statuses[i].ok()) statuses[i] = absent_is_unavailable(synced.at(shard_of(names[i].lineage)));
    }
    return statuses;
  }

  Status quarantine(const BlobName& name, const std::string& why) override {
    const auto root = current(&check_still_there);
    if (!root) return root.error();
    return move_to_quarantine(**root, name, why);
  }

  Status list_quarantine(const std::function<void(const StoredEntry&)>& visit) override {
    const auto root = current(&check_still_there);
    if (!root) return root.error();
    const std::string path = (*root)->path + "/quarantine";
    const auto dir = open_dir_at((*root)->root.get(), "quarantine", path);
    if (!dir) return absent_is_unavailable(dir.error());
    return visit_entries(dir->get(), path, [&](const StoredEntry* entry) {
      if (entry != nullptr) visit(*entry);
    });
  }

  Status list(std::uint32_t shard, const std::function<void(const StoredEntry&)>& visit,
              std::uint64_t* unknown) override {
    if (shard >= kShardCount) {
      return make_error(Code::kInvalidArgument,
                        "shard " + std::to_string(shard) + " is not below " + std::to_string(kShardCount));
    }
    const auto root = current(&check_still_there);
    if (!root) return root.error();
    const std::string path = (*root)->path + "/d/" + shard_name(shard);
    const auto dir = open_dir_at((*root)->shards.get(), shard_name(shard), path);
    if (!dir) return absent_is_unavailable(dir.error());
    return visit_entries(dir->get(), path, [&](const StoredEntry* entry) {
      if (entry != nullptr && shard_of(entry->name.lineage) == shard) {
        visit(*entry);
      } else if (unknown != nullptr) {
        ++*unknown;
      }
    });
  }

 private:
  // Calls `visit` for each name in a directory: with nullptr when it is not that of an entry.
  static Status visit_entries(int dir_fd, const std::string& path,
                              const std::function<void(const StoredEntry*)>& visit) {
    Status failed;
    const Status status = visit_names(dir_fd, path, [&](const std::string& file_name) {
      struct stat info {};
      if (::fstatat(dir_fd, file_name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
        if (errno == ENOENT) return true;  // removed meanwhile
        failed = error_from_errno(errno, "stat " + path + "/" + file_name);
        return false;
      }
      const auto name = parse_file_name(file_name);
      if (name && S_ISREG(info.st_mode)) {
        const StoredEntry entry{*name, static_cast<std::uint64_t>(info.st_size)};
        visit(&entry);
      } else {
        visit(nullptr);
      }
      return true;
    });
    return status.ok() ? failed : status;
  }

  Status put_marker(const BlobName& name, EntryKind kind) {
    if (!is_marker_name(name, kind)) {
      return make_error(Code::kInvalidArgument, "not the name of such a marker: " + to_file_name(name));
    }
    const auto root = current(&check_writable);
    if (!root) return root.error();
    SmallBlob marker;
    marker.name = name;
    marker.manifest = make_marker_manifest(name, options_.node, wall_time_us());
    Status status;
    // No check of the space: ending lives is how space is made, and the reserve is for this.
    publish_group(**root, &marker, 1, next_temp_number_++, &status);
    if (status.code() != Code::kAlreadyExists) return status;
    // Put there before, perhaps by an incarnation that died before it had synced the name.
    const std::string shard = shard_name(shard_of(name.lineage));
    const std::string path = (*root)->path + "/d/" + shard;
    const auto dir = open_dir_at((*root)->shards.get(), shard, path);
    return dir ? sync_dir(dir->get(), path) : absent_is_unavailable(dir.error());
  }

  static Status move_to_quarantine(const StoreRoot& root, const BlobName& name, const std::string& why) {
    const std::string path = root.path + "/quarantine/" + to_file_name(name);
    const auto dir = open_dir_at(root.root.get(), "quarantine", root.path + "/quarantine");
    if (!dir) return absent_is_unavailable(dir.error());
    const std::string shard = shard_name(shard_of(name.lineage));
    const auto from = open_dir_at(root.shards.get(), shard, root.path + "/d/" + shard);
    if (!from) return absent_is_unavailable(from.error());
    if (::renameat(from->get(), to_file_name(name).c_str(), dir->get(), to_file_name(name).c_str()) != 0) {
      return errno == ENOENT ? ok_status() : Status(error_from_errno(errno, "move to " + path));
    }
    CMS_CRASH_POINT("store.after_quarantine");
    // For people, and so only as good as it goes.
    const auto text = open_at(dir->get(), to_file_name(name) + ".why", O_WRONLY | O_CREAT | O_TRUNC, path);
    if (text) (void)write_all(text->get(), why.data(), why.size(), 0, path);
    Status status = sync_dir(dir->get(), root.path + "/quarantine");
    if (status.ok()) status = sync_dir(from->get(), root.path + "/d/" + shard);
    return status;
  }

  Result<std::shared_ptr<const StoreRoot>> current(Status (*check)(const StoreRoot&)) const {
    std::shared_ptr<const StoreRoot> root;
    {
      const std::lock_guard<std::mutex> lock(root_mutex_);
      root = root_;
    }
    if (root == nullptr)
      return make_error(Code::kUnavailable, "store " + options_.path + " has not been opened");
    if (Status status = check(*root); !status.ok()) return status.error();
    return root;
  }

  void publish(const StoreRoot& root, const SmallBlob* blobs, std::size_t count, std::uint64_t bytes,
               Status* statuses) {
    if (const Status status = check_space(root, bytes); !status.ok()) {
      std::fill(statuses, statuses + count, status);
      return;
    }
    publish_group(root, blobs, count, next_temp_number_.fetch_add(count), statuses);
  }

  RootOptions options_;
  std::mutex open_mutex_;          // One open_store at a time.
  UniqueFd node_lock_;             // Under open_mutex_.
  mutable std::mutex root_mutex_;  // Guards root_; never held across I/O.
  std::shared_ptr<const StoreRoot> root_;
  std::atomic<std::uint64_t> next_temp_number_{0};
};

}  // namespace

std::unique_ptr<BlobStore> make_directory_store(const std::string& directory, const std::string& node,
                                                std::uint64_t node_incarnation) {
  return std::make_unique<DirectoryStore>(directory, node, node_incarnation);
}

}  // namespace cms::storage
