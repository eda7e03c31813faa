#include "storage/nfs/nfs_store.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <utility>

#include "base/crash_point.h"
#include "base/time.h"
#include "storage/blob_file_io.h"
#include "storage/nfs/nfs_blob_io.h"
#include "storage/nfs/nfs_many.h"
#include "storage/nfs/nfs_root.h"
#include "storage/nfs/nfs_small_batch.h"
#include "storage/store_layout.h"

namespace cms::storage {
namespace {

// How old a look at the free space may be that a new blob is measured by.
constexpr Duration kSpaceAgeMax = std::chrono::seconds(1);

class NfsStore final : public BlobStore {
 public:
  NfsStore(const NfsTarget& target, const std::string& node, std::uint64_t node_incarnation,
           const NfsTimeouts& timeouts)
      : pool_(std::make_shared<NfsPool>(target, timeouts)) {
    options_.path = to_string(target);
    options_.node = node;
    options_.node_incarnation = node_incarnation;
  }

  NfsStore(const NfsStore&) = delete;
  NfsStore& operator=(const NfsStore&) = delete;

  ~NfsStore() override {
    // Leaving in order: no earlier life for the next one to sweep. Not empty, or not to be reached? It will.
    pool_->litter()->removals().wait_until_at_most(0);
    const auto root = current();
    if (!root || (*root)->tmp.empty()) return;
    const auto link = pool_->get();
    if (!link) return;
    (void)nfs_wait([&](NfsThen then) {
      nfs_rmdir(**link, {(*root)->tmp_all, (*root)->tmp_name}, std::move(then));
    });
  }

  Status open_store() override {
    const std::lock_guard<std::mutex> opening(open_mutex_);
    NfsRootOptions options = options_;
    options.fleet_id_expected = fleet_id();
    auto root = open_nfs_root(*pool_, options);
    if (!root) return root.error();
    const std::lock_guard<std::mutex> lock(root_mutex_);
    root_ = *root;
    if (root_->tmp.empty()) return root_->tmp_error;
    return ok_status();
  }

  Status probe() override {
    const auto root = writable();
    if (!root) return root.error();
    const auto space = look_at_space(**root);
    if (!space) return space.error();
    if (Status fits = check_fits((*root)->path, space->free_bytes, 1); !fits.ok()) return fits;
    const auto link = pool_->get();
    if (!link) return link.error();
    const std::string name = temp_name_of(next_temp_number_++);
    const NfsReply created = nfs_wait([&](NfsThen then) {
      nfs_create(**link, {(*root)->tmp, name}, std::move(then));
    });
    if (!created.answered) pool_->litter()->add(name);
    if (!created.ok()) return absent_is_unavailable(error_of(created, "create " + name));
    std::array<char, 4096> bytes{};
    bytes.fill('p');
    const NfsReply written = nfs_wait([&](NfsThen then) {
      nfs_write(**link, created.handle, 0, bytes.data(), bytes.size(), NfsStable::kFileSync, std::move(then));
    });
    const NfsReply removed = nfs_wait([&](NfsThen then) {
      nfs_remove(**link, {(*root)->tmp, name}, std::move(then));
    });
    if (!removed.answered) pool_->litter()->add(name);
    if (!written.ok()) return absent_is_unavailable(error_of(written, "write " + name));
    if (!removed.ok()) return absent_is_unavailable(error_of(removed, "remove " + name));
    for (const std::string& left : pool_->litter()->take()) drop_nfs_temp(*pool_, **link, **root, left);
    return ok_status();
  }

  Result<SpaceInfo> space() override {
    const auto root = current();
    if (!root) return root.error();
    return look_at_space(**root);
  }

  std::string fleet_id() const override {
    const std::lock_guard<std::mutex> lock(root_mutex_);
    return root_ == nullptr ? std::string() : root_->format.fleet_id;
  }

  Result<std::unique_ptr<BlobWriter>> create(const BlobName& name, wire::Manifest manifest) override {
    if (name.kind != EntryKind::kBlob)
      return make_error(Code::kInvalidArgument, "create: not the name of a blob");
    if (Status status = check_name_and_manifest(name, manifest); !status.ok()) return status.error();
    const auto root = writable();
    if (!root) return root.error();
    const std::uint64_t bytes = blob_file_bytes_max(name, manifest.chunk_size_bytes);
    if (Status status = check_space(**root, bytes); !status.ok()) return status.error();
    return make_nfs_writer(pool_, *root, name, std::move(manifest), temp_name_of(next_temp_number_++));
  }

  std::vector<Status> put_small(const std::vector<SmallBlob>& blobs) override {
    std::vector<Status> statuses(blobs.size());
    const auto root = writable();
    if (!root) {
      std::fill(statuses.begin(), statuses.end(), Status(root.error()));
      return statuses;
    }
    std::vector<SmallBlob> group;
    std::vector<std::size_t> places;  // group[i] is blobs[places[i]]
    std::set<std::string>
        names;  // Blobs of a group go their ways side by side, and would not see each other.
    std::uint64_t bytes = 0;
    for (std::size_t i = 0; i < blobs.size(); ++i) {
      statuses[i] = check_small_blob(blobs[i]);
      if (statuses[i].ok() && !names.insert(to_file_name(blobs[i].name)).second) {
        statuses[i] =
            make_error(Code::kAlreadyExists, to_file_name(blobs[i].name) + " is twice in its group");
      }
      if (!statuses[i].ok()) continue;
      const std::uint64_t file_bytes = blob_file_bytes_max(blobs[i].name, blobs[i].manifest.chunk_size_bytes);
      if (file_bytes > kOneWriteBytes) {
        statuses[i] = put_by_writer(blobs[i]);
        continue;
      }
      bytes += file_bytes;
      group.push_back(blobs[i]);
      places.push_back(i);
    }
    std::vector<Status> published(group.size());
    if (const Status fits = check_space(**root, bytes); !fits.ok()) {
      std::fill(published.begin(), published.end(), fits);
    } else {
      publish_nfs_group(*pool_, **root, group.data(), group.size(), next_temp_number_.fetch_add(group.size()),
                        published.data());
    }
    for (std::size_t i = 0; i < group.size(); ++i) statuses[places[i]] = std::move(published[i]);
    return statuses;
  }

  Status put_tombstone(const BlobName& name) override { return put_marker(name, EntryKind::kTombstone); }
  Status put_pin(const BlobName& name) override { return put_marker(name, EntryKind::kPin); }

  Result<std::unique_ptr<BlobReader>> open(const BlobName& name) override {
    const auto root = current();
    if (!root) return root.error();
    return open_nfs_reader(pool_, **root, name);
  }

  Status remove(const BlobName& name) override {
    const auto root = current();
    if (!root) return root.error();
    // Names are never reused, so a second try, or one that comes late, does no harm.
    const NfsReply removed = on_living_link([&](NfsConnection& link, NfsThen then) {
      nfs_remove(link, {(*root)->shard_of_name(name), to_file_name(name)}, std::move(then));
    });
    CMS_CRASH_POINT("nfs.after_remove");
    if (removed.ok() || removed.is(NfsStatus::kNoEntry)) return ok_status();
    return error_of(removed, "remove " + entry_path(**root, name));
  }

  Result<bool> contains(const BlobName& name) override {
    const auto root = current();
    if (!root) return root.error();
    const NfsReply found = look_up((*root)->shard_of_name(name), to_file_name(name));
    if (found.ok()) return true;
    if (found.is(NfsStatus::kNoEntry)) return false;
    return error_of(found, "look for " + entry_path(**root, name));
  }

  std::vector<Status> remove_many(const std::vector<BlobName>& names) override {
    const auto root = current();
    if (!root) return std::vector<Status>(names.size(), root.error());
    std::vector<std::string> file_names;
    for (const BlobName& name : names) file_names.push_back(to_file_name(name));
    const auto replies =
        nfs_for_each(*pool_, names.size(), [&](NfsConnection& link, std::size_t i, NfsThen then) {
          nfs_remove(link, {(*root)->shard_of_name(names[i]), file_names[i]}, std::move(then));
        });
    CMS_CRASH_POINT("nfs.after_remove");
    std::vector<Status> statuses(names.size());
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (replies[i].ok() || replies[i].is(NfsStatus::kNoEntry)) continue;
      statuses[i] = error_of(replies[i], "remove " + entry_path(**root, names[i]));
    }
    return statuses;
  }

  std::vector<Result<bool>> contains_many(const std::vector<BlobName>& names) override {
    const auto root = current();
    if (!root) return std::vector<Result<bool>>(names.size(), root.error());
    std::vector<std::string> file_names;
    for (const BlobName& name : names) file_names.push_back(to_file_name(name));
    const auto replies =
        nfs_for_each(*pool_, names.size(), [&](NfsConnection& link, std::size_t i, NfsThen then) {
          nfs_lookup(link, {(*root)->shard_of_name(names[i]), file_names[i]}, std::move(then));
        });
    std::vector<Result<bool>> there;
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (replies[i].ok() || replies[i].is(NfsStatus::kNoEntry)) {
        there.emplace_back(replies[i].ok());
      } else {
        there.emplace_back(error_of(replies[i], "look for " + entry_path(**root, names[i])));
      }
    }
    return there;
  }

  // LOOKUP and COMMIT on one connection: none outlives a crash of the server, which may undo a name.
  std::vector<Status> make_durable(const std::vector<BlobName>& names) override {
    const auto root = current();
    if (!root) return std::vector<Status>(names.size(), root.error());
    std::vector<std::string> file_names;
    for (const BlobName& name : names) file_names.push_back(to_file_name(name));
    const auto replies =
        nfs_for_each(*pool_, names.size(), [&](NfsConnection& link, std::size_t i, NfsThen then) {
          nfs_lookup(link, {(*root)->shard_of_name(names[i]), file_names[i]},
                     [&link, then = std::move(then)](const NfsReply& found) {
                       if (!found.ok()) return then(found);
                       nfs_commit(link, found.handle, then);
                     });
        });
    std::vector<Status> statuses(names.size());
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (replies[i].ok()) continue;
      statuses[i] = error_of(replies[i], "make durable " + entry_path(**root, names[i]));
      if (replies[i].is(NfsStatus::kStale)) {
        statuses[i] = make_error(Code::kNotFound, entry_path(**root, names[i]) + ": removed meanwhile");
      }
    }
    return statuses;
  }

  Status quarantine(const BlobName& name, const std::string& why) override {
    const auto root = current();
    if (!root) return root.error();
    const std::string file_name = to_file_name(name);
    const std::string what = "move to quarantine " + entry_path(**root, name);
    // Twice, or late, it does no harm: the name is never given again.
    const NfsReply moved = on_living_link([&](NfsConnection& link, NfsThen then) {
      nfs_rename(link, {(*root)->shard_of_name(name), file_name}, {(*root)->quarantine, file_name},
                 std::move(then));
    });
    if (!moved.ok() && !moved.is(NfsStatus::kNoEntry)) return error_of(moved, what);
    CMS_CRASH_POINT("nfs.after_quarantine");
    const NfsReply found = look_up((*root)->quarantine, file_name);
    if (found.is(NfsStatus::kNoEntry)) return ok_status();  // It was absent.
    if (!found.ok()) return error_of(found, what);
    write_why(**root, file_name + ".why", why);
    const NfsReply synced = on_living_link(
        [&](NfsConnection& link, NfsThen then) { nfs_commit(link, found.handle, std::move(then)); });
    return synced.ok() ? ok_status() : Status(error_of(synced, what));
  }

  Status list_quarantine(const std::function<void(const StoredEntry&)>& visit) override {
    const auto root = current();
    if (!root) return root.error();
    return visit_entries((*root)->quarantine, (*root)->path + "/quarantine", [&](const StoredEntry* entry) {
      if (entry != nullptr) visit(*entry);
    });
  }

  std::function<void()> call_ender() override {
    return [pool = pool_] { pool->close(); };
  }

  Status list(std::uint32_t shard, const std::function<void(const StoredEntry&)>& visit,
              std::uint64_t* unknown) override {
    if (shard >= kShardCount) {
      return make_error(Code::kInvalidArgument,
                        "shard " + std::to_string(shard) + " is not below " + std::to_string(kShardCount));
    }
    const auto root = current();
    if (!root) return root.error();
    const std::string path = (*root)->path + "/d/" + shard_name(shard);
    return visit_entries((*root)->shards[shard], path, [&](const StoredEntry* entry) {
      if (entry != nullptr && shard_of(entry->name.lineage) == shard) {
        visit(*entry);
      } else if (unknown != nullptr) {
        ++*unknown;
      }
    });
  }

 private:
  // Of the file of a small blob; every server takes so much at once, or is asked by the writer, which
  // divides.
  static constexpr std::uint64_t kOneWriteBytes = 512 * 1024;

  Result<std::shared_ptr<const NfsRoot>> current() const {
    const std::lock_guard<std::mutex> lock(root_mutex_);
    if (root_ == nullptr)
      return make_error(Code::kUnavailable, "store " + options_.path + " has not been opened");
    return root_;
  }

  Result<std::shared_ptr<const NfsRoot>> writable() const {
    auto root = current();
    if (root && (*root)->tmp.empty()) return (*root)->tmp_error;
    return root;
  }

  // For calls that may be repeated: a second time, on another connection, when the first broke.
  NfsReply on_living_link(const std::function<void(NfsConnection&, NfsThen)>& begin) {
    NfsReply reply;
    for (int attempt = 0; attempt < 2 && !reply.answered; ++attempt) {
      const auto link = pool_->get();
      if (!link) {
        reply.trouble = link.error().context;
        break;
      }
      reply = nfs_wait([&](NfsThen then) { begin(**link, std::move(then)); });
    }
    return reply;
  }

  NfsReply look_up(const NfsHandle& directory, const std::string& name) {
    return on_living_link([&](NfsConnection& link, NfsThen then) {
      nfs_lookup(link, {directory, name}, std::move(then));
    });
  }

  Result<SpaceInfo> look_at_space(const NfsRoot& root) {
    const NfsReply reply = on_living_link(
        [&](NfsConnection& link, NfsThen then) { nfs_fsstat(link, root.root, std::move(then)); });
    if (!reply.ok()) return error_of(reply, "ask for the space of " + root.path);
    const std::lock_guard<std::mutex> lock(space_mutex_);
    space_.total_bytes = reply.total_bytes;
    space_.free_bytes = std::min(reply.free_bytes, reply.total_bytes);
    space_at_ = BootClock::now();
    return space_;
  }

  // Not one call for each blob: what has been begun since the last look is counted.
  Status check_space(const NfsRoot& root, std::uint64_t bytes) {
    bool fresh = false;
    {
      const std::lock_guard<std::mutex> lock(space_mutex_);
      fresh = space_at_ != Instant{} && BootClock::now() - space_at_ < kSpaceAgeMax;
    }
    if (!fresh) {
      const auto looked = look_at_space(root);
      if (!looked) return looked.error();
    }
    const std::lock_guard<std::mutex> lock(space_mutex_);
    const Status fits = check_fits(root.path, space_.free_bytes, bytes);
    if (fits.ok()) space_.free_bytes -= bytes;
    return fits;
  }

  Status put_by_writer(const SmallBlob& blob) {
    auto writer = create(blob.name, blob.manifest);
    if (!writer) return writer.error();
    const Status appended = (*writer)->append(blob.data, blob.size_bytes, blob.manifest.chunk_digests[0]);
    if (!appended.ok()) return appended;
    const auto published = (*writer)->publish();
    return published ? ok_status() : Status(published.error());
  }

  Status put_marker(const BlobName& name, EntryKind kind) {
    if (!is_marker_name(name, kind)) {
      return make_error(Code::kInvalidArgument, "not the name of such a marker: " + to_file_name(name));
    }
    const auto root = writable();
    if (!root) return root.error();
    SmallBlob marker;
    marker.name = name;
    marker.manifest = make_marker_manifest(name, options_.node, wall_time_us());
    Status status;
    // No check of the space: ending lives is how space is made, and the reserve is for this.
    publish_nfs_group(*pool_, **root, &marker, 1, next_temp_number_++, &status);
    if (status.code() != Code::kAlreadyExists) return status;
    // Put there before, perhaps by somebody who died before the name was safe.
    const NfsReply found = look_up((*root)->shard_of_name(name), to_file_name(name));
    if (!found.ok()) return absent_is_unavailable(error_of(found, entry_path(**root, name)));
    const NfsReply synced = on_living_link(
        [&](NfsConnection& link, NfsThen then) { nfs_commit(link, found.handle, std::move(then)); });
    return synced.ok() ? ok_status() : Status(error_of(synced, "commit " + entry_path(**root, name)));
  }

  // For people, and so only as good as it goes.
  void write_why(const NfsRoot& root, const std::string& file_name, const std::string& why) {
    const auto link = pool_->get();
    if (!link) return;
    const NfsReply created = nfs_wait([&](NfsThen then) {
      nfs_create(**link, {root.quarantine, file_name}, std::move(then));
    });
    if (!created.ok() || created.handle.empty()) return;
    (void)nfs_wait([&](NfsThen then) {
      nfs_write(**link, created.handle, 0, why.data(), std::min<std::size_t>(why.size(), 4096),
                NfsStable::kFileSync, std::move(then));
    });
  }

  // Calls `visit` for each name in a directory: with nullptr when it is not that of an entry.
  Status visit_entries(const NfsHandle& directory, const std::string& path,
                       const std::function<void(const StoredEntry*)>& visit) {
    const auto link = pool_->get();
    if (!link) return link.error();
    Status failed;
    const Status listed = nfs_list(**link, directory, path, [&](NfsEntry entry) {
      const auto name = parse_file_name(entry.name);
      NfsAttributes attributes = entry.attributes;
      if (name && !attributes.known) {  // The server need not tell.
        const NfsReply found = look_up(directory, entry.name);
        if (found.is(NfsStatus::kNoEntry)) return true;  // Removed meanwhile.
        if (!found.ok()) failed = error_of(found, path + "/" + entry.name);
        attributes = found.attributes;
      }
      if (!failed.ok()) return false;
      if (name && attributes.is_file) {
        const StoredEntry stored{*name, attributes.size_bytes};
        visit(&stored);
      } else {
        visit(nullptr);
      }
      return true;
    });
    if (!listed.ok()) return absent_is_unavailable(listed);
    return failed;
  }

  NfsRootOptions options_;
  const std::shared_ptr<NfsPool> pool_;
  std::mutex open_mutex_;          // One open_store at a time.
  mutable std::mutex root_mutex_;  // Guards root_; never held across I/O.
  std::shared_ptr<const NfsRoot> root_;
  std::mutex space_mutex_;  // Guards the two below.
  SpaceInfo space_;
  Instant space_at_{};
  std::atomic<std::uint64_t> next_temp_number_{0};
};

}  // namespace

std::unique_ptr<BlobStore> make_nfs_store(const NfsTarget& target, const std::string& node,
                                          std::uint64_t node_incarnation, const NfsTimeouts& timeouts) {
  return std::make_unique<NfsStore>(target, node, node_incarnation, timeouts);
}

}  // namespace cms::storage
