#include "storage/nfs/nfs_root.h"

#include <map>
#include <utility>

#include "base/crash_point.h"
#include "base/prng.h"
#include "storage/blob_file_io.h"
#include "storage/store_layout.h"

namespace cms::storage {
namespace {

constexpr std::size_t kMkdirsInFlight = 64;

NfsReply lookup(NfsConnection& link, const NfsHandle& directory, const std::string& name) {
  return nfs_wait_lookup(link, {directory, name});
}

std::vector<std::string> shard_names() {
  std::vector<std::string> names;
  for (std::uint32_t shard = 0; shard < kShardCount; ++shard) names.push_back(shard_name(shard));
  return names;
}

// The first name in a directory, empty when there is none; `allowed` ones do not count.
Result<std::string> first_name(NfsConnection& link, const NfsHandle& directory, const std::string& path,
                               const std::function<bool(const std::string&)>& allowed) {
  std::string found;
  const Status status = nfs_list(link, directory, path, [&](const NfsEntry& entry) {
    if (!allowed(entry.name)) found = entry.name;
    return found.empty();
  });
  if (!status.ok()) return status.error();
  return found;
}

// There may be directories in `sharded`, and nothing in them.
Status check_shards_are_empty(NfsConnection& link, const NfsHandle& root, const std::string& path,
                              const std::string& sharded) {
  const NfsReply shards = lookup(link, root, sharded);
  if (shards.is(NfsStatus::kNoEntry)) return ok_status();
  if (!shards.ok()) return error_of(shards, path + "/" + sharded);
  std::vector<std::string> names;
  const Status listed = nfs_list(link, shards.handle, path + "/" + sharded, [&](NfsEntry entry) {
    names.push_back(std::move(entry.name));
    return true;
  });
  if (!listed.ok()) return listed;
  for (const std::string& name : names) {
    if (may_be_in_unformatted(sharded, name)) continue;
    const std::string below = sharded + "/" + name;
    const NfsReply shard = lookup(link, shards.handle, name);
    if (!shard.ok()) return error_of(shard, path + "/" + below);
    if (!shard.attributes.is_directory) return not_ours(path, below);
    const auto held =
        first_name(link, shard.handle, path + "/" + below, [](const std::string&) { return false; });
    if (!held) return held.error();
    if (!held->empty()) return not_ours(path, below + "/" + *held);
  }
  return ok_status();
}

Status check_may_initialise(NfsConnection& link, const NfsHandle& root, const std::string& path) {
  const auto foreign = first_name(link, root, path, &may_be_before_format);
  if (!foreign) return foreign.error();
  if (!foreign->empty()) return not_ours(path, *foreign);
  for (const std::string own : {"nodes", "quarantine"}) {
    const NfsReply directory = lookup(link, root, own);
    if (directory.is(NfsStatus::kNoEntry)) continue;
    if (!directory.ok()) return error_of(directory, path + "/" + own);
    const auto held = first_name(link, directory.handle, path + "/" + own,
                                 [&](const std::string& name) { return may_be_in_unformatted(own, name); });
    if (!held) return held.error();
    if (!held->empty()) return not_ours(path, own + "/" + *held);
  }
  for (const std::string sharded : kShardedDirs) {
    if (Status status = check_shards_are_empty(link, root, path, sharded); !status.ok()) return status;
  }
  return ok_status();
}

Status make_directories(NfsConnection& link, const NfsHandle& root, const std::string& path) {
  NfsHandle shards;
  for (const std::string name : kOwnDirs) {
    auto made = ensure_nfs_directory(link, root, name, path + "/" + name);
    if (!made) return made.error();
    if (name == "d") shards = std::move(*made);
  }
  return make_nfs_directories(link, shards, path + "/d", shard_names());
}

// Puts the FORMAT file in its place unless another cmsd was faster; either way it is there after this.
Status publish_format(NfsConnection& link, const NfsHandle& root, const NfsRootOptions& options) {
  const NfsReply tmp_all = lookup(link, root, "tmp");
  if (!tmp_all.ok()) return error_of(tmp_all, options.path + "/tmp");
  const std::string dir_name = private_dir_name(options.node, options.node_incarnation);
  const auto tmp = ensure_nfs_directory(link, tmp_all.handle, dir_name, options.path + "/tmp/" + dir_name);
  if (!tmp) return tmp.error();
  const std::string temp_name = "FORMAT." + hex16(random_u64());
  const std::string path = options.path + "/tmp/" + dir_name + "/" + temp_name;
  const NfsReply created = nfs_wait([&](NfsThen then) {
    nfs_create(link, {*tmp, temp_name}, std::move(then));
  });
  if (!created.ok()) return error_of(created, "create " + path);
  const std::uint64_t high = random_u64();
  const std::string text = encode_format(new_format(high, random_u64()));
  const NfsReply written = nfs_wait([&](NfsThen then) {
    nfs_write(link, created.handle, 0, text.data(), text.size(), NfsStable::kFileSync, std::move(then));
  });
  if (!written.ok()) return error_of(written, "write " + path);
  if (written.count != text.size()) return make_error(Code::kIo, "write " + path + ": cut short");
  CMS_CRASH_POINT("nfs.init_before_format");
  // Refused when there is one; whatever came of it, the reading afterwards tells.
  const std::string format_name = "FORMAT";
  const NfsReply linked = nfs_wait([&](NfsThen then) {
    nfs_link(link, created.handle, {root, format_name}, std::move(then));
  });
  (void)nfs_wait([&](NfsThen then) { nfs_remove(link, {*tmp, temp_name}, std::move(then)); });
  if (!linked.ok() && !linked.is(NfsStatus::kExists))
    return error_of(linked, "link " + options.path + "/FORMAT");
  const NfsReply format = lookup(link, root, format_name);
  if (!format.ok()) return error_of(format, options.path + "/FORMAT");
  const NfsReply synced = nfs_wait([&](NfsThen then) { nfs_commit(link, format.handle, std::move(then)); });
  if (!synced.ok()) return error_of(synced, "commit " + options.path + "/FORMAT");
  CMS_CRASH_POINT("nfs.init_after_format");
  return ok_status();
}

Result<std::vector<NfsHandle>> shard_handles(NfsConnection& link, const NfsHandle& root,
                                             const std::string& path) {
  const NfsReply d = lookup(link, root, "d");
  if (!d.ok()) return absent_is_unavailable(error_of(d, path + "/d")).error();
  const std::vector<std::string> names = shard_names();
  auto shards = find_nfs_directories(link, d.handle, path + "/d", names);
  if (!shards) return absent_is_unavailable(shards.error()).error();
  for (std::size_t shard = 0; shard < names.size(); ++shard) {
    if ((*shards)[shard].empty())
      return make_error(Code::kUnavailable, path + "/d/" + names[shard] + " does not exist");
  }
  return shards;
}

// Removes what earlier lives of our node left in tmp. Best effort: what stays is tried again at the next
// start and harms nobody. A request of theirs that comes late finds its file gone.
void sweep_tmp(NfsConnection& link, const NfsRoot& root, const NfsRootOptions& options) {
  std::vector<NfsEntry> dead;
  (void)nfs_list(link, root.tmp_all, root.path + "/tmp", [&](NfsEntry entry) {
    if (is_of_earlier_life(entry.name, options.node, options.node_incarnation)) {
      dead.push_back(std::move(entry));
    }
    return true;
  });
  for (const NfsEntry& life : dead) {
    const NfsReply directory = lookup(link, root.tmp_all, life.name);
    if (!directory.ok()) continue;
    std::vector<std::string> files;
    (void)nfs_list(link, directory.handle, root.path + "/tmp/" + life.name, [&](NfsEntry entry) {
      files.push_back(std::move(entry.name));
      return true;
    });
    for (const std::string& file : files) {
      (void)nfs_wait([&](NfsThen then) { nfs_remove(link, {directory.handle, file}, std::move(then)); });
    }
    (void)nfs_wait([&](NfsThen then) { nfs_rmdir(link, {root.tmp_all, life.name}, std::move(then)); });
  }
}

}  // namespace

NfsPool::NfsPool(NfsTarget target, const NfsTimeouts& timeouts)
    : target_(std::move(target)), timeouts_(timeouts) {}

Result<NfsLink> NfsPool::get() {
  const std::size_t turn = next_++ % slots_.size();
  auto link = get_of(slots_[turn]);
  if (link || closed_) return link;
  // One that has just failed to connect is left alone for a while; meanwhile another may be well.
  for (std::size_t i = 1; i < slots_.size(); ++i) {
    Slot& slot = slots_[(turn + i) % slots_.size()];
    const std::unique_lock<std::mutex> lock(slot.mutex, std::try_to_lock);  // Else it is being connected.
    if (lock.owns_lock() && slot.link != nullptr && slot.link->alive()) return slot.link;
  }
  return link;
}

Result<NfsLink> NfsPool::get_of(Slot& slot) {
  const std::lock_guard<std::mutex> lock(slot.mutex);
  if (closed_) return make_error(Code::kUnavailable, to_string(target_) + ": this cmsd is ending");
  if (slot.link != nullptr && slot.link->alive()) return slot.link;
  if (BootClock::now() < slot.not_before) return slot.failed;
  slot.link.reset();
  auto opened = NfsConnection::open(target_, timeouts_, closed_);
  if (!opened) {
    slot.failed = opened.error();
    slot.not_before = BootClock::now() + timeouts_.connect_pause;
    return opened.error();
  }
  slot.link = std::move(*opened);
  return slot.link;
}

void NfsPool::close() {
  closed_ = true;  // Who is connecting now ends.
  for (Slot& slot : slots_) {
    const std::lock_guard<std::mutex> lock(slot.mutex);
    if (slot.link != nullptr) slot.link->close();
  }
}

void NfsLitter::add(const std::string& temp_name) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (names_.size() < kCountMax) names_.push_back(temp_name);
}

std::vector<std::string> NfsLitter::take() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return std::exchange(names_, {});
}

void drop_nfs_temp(NfsPool& pool, NfsConnection& link, const NfsRoot& root, const std::string& temp_name) {
  pool.litter()->removals().begin(1);
  nfs_remove(link, {root.tmp, temp_name}, [litter = pool.litter(), temp_name](const NfsReply& reply) {
    if (!reply.answered) litter->add(temp_name);
    litter->removals().end(1);
  });
}

Result<NfsHandle> ensure_nfs_directory(NfsConnection& link, const NfsHandle& parent, const std::string& name,
                                       const std::string& path) {
  NfsReply found = lookup(link, parent, name);
  if (found.is(NfsStatus::kNoEntry)) {
    const NfsReply made = nfs_wait([&](NfsThen then) { nfs_mkdir(link, {parent, name}, std::move(then)); });
    if (!made.ok() && !made.is(NfsStatus::kExists)) return error_of(made, "make " + path);
    found = lookup(link, parent, name);
  }
  if (!found.ok()) return error_of(found, path);
  if (!found.attributes.is_directory) return make_error(Code::kForeign, path + " is not a directory");
  return std::move(found.handle);
}

Result<std::string> read_nfs_format(NfsConnection& link, const NfsHandle& root, const std::string& path) {
  const NfsReply found = lookup(link, root, "FORMAT");
  if (!found.ok()) return error_of(found, path + "/FORMAT");
  std::string text(kFormatBytesMax + 1, '\0');
  const NfsReply got = nfs_wait(
      [&](NfsThen then) { nfs_read(link, found.handle, 0, text.data(), text.size(), std::move(then)); });
  if (!got.ok()) return error_of(got, "read " + path + "/FORMAT");
  if (got.count > kFormatBytesMax) {
    return make_error(Code::kCorrupt,
                      path + "/FORMAT: longer than " + std::to_string(kFormatBytesMax) + " bytes");
  }
  text.resize(got.count);
  return text;
}

Status make_nfs_directories(NfsConnection& link, const NfsHandle& parent, const std::string& path,
                            const std::vector<std::string>& names) {
  NfsInFlight in_flight;
  std::mutex mutex;
  Status failed;
  for (const std::string& name : names) {
    in_flight.wait_until_at_most(kMkdirsInFlight);
    in_flight.begin(1);
    nfs_mkdir(link, {parent, name}, [&, name](const NfsReply& reply) {
      if (!reply.ok() && !reply.is(NfsStatus::kExists)) {
        const std::lock_guard<std::mutex> lock(mutex);
        if (failed.ok()) failed = error_of(reply, "make " + path + "/" + name);
      }
      in_flight.end(1);
    });
  }
  in_flight.wait_until_at_most(0);
  return failed;
}

Result<std::vector<NfsHandle>> find_nfs_directories(NfsConnection& link, const NfsHandle& parent,
                                                    const std::string& path,
                                                    const std::vector<std::string>& names) {
  std::map<std::string, std::size_t> places;
  for (std::size_t i = 0; i < names.size(); ++i) places[names[i]] = i;
  std::vector<NfsHandle> handles(names.size());
  std::vector<std::size_t> untold;  // The server need not tell handles.
  const Status listed = nfs_list(link, parent, path, [&](NfsEntry entry) {
    const auto place = places.find(entry.name);
    if (place == places.end()) return true;
    if (entry.handle.empty()) untold.push_back(place->second);
    handles[place->second] = std::move(entry.handle);
    return true;
  });
  if (!listed.ok()) return listed.error();
  for (const std::size_t i : untold) {
    NfsReply found = lookup(link, parent, names[i]);
    if (!found.ok()) return error_of(found, path + "/" + names[i]);
    handles[i] = std::move(found.handle);
  }
  return handles;
}

Result<std::shared_ptr<const NfsRoot>> open_nfs_root(NfsPool& pool, const NfsRootOptions& options) {
  const auto got = pool.get();
  if (!got) return got.error();
  NfsConnection& link = **got;
  auto root = std::make_shared<NfsRoot>();
  root->path = options.path;
  root->root = link.root();

  auto text = read_nfs_format(link, root->root, options.path);
  if (!text && text.error().code == Code::kNotFound) {
    if (!options.fleet_id_expected.empty()) return no_longer_there(options.path, options.fleet_id_expected);
    Status status = check_may_initialise(link, root->root, options.path);
    if (status.ok()) status = make_directories(link, root->root, options.path);
    if (status.ok()) status = publish_format(link, root->root, options);
    if (!status.ok()) return status.error();
    text = read_nfs_format(link, root->root, options.path);
  }
  if (!text) return text.error();
  auto format = accept_format(options.path, *text, options.fleet_id_expected);
  if (!format) return format.error();
  root->format = std::move(*format);

  auto shards = shard_handles(link, root->root, options.path);
  if (!shards) return shards.error();
  root->shards = std::move(*shards);
  for (const auto& [name, handle] : {std::pair<const char*, NfsHandle*>{"tmp", &root->tmp_all},
                                     {"quarantine", &root->quarantine},
                                     {"claims", &root->claims},
                                     {"nodes", &root->nodes}}) {
    NfsReply found = lookup(link, root->root, name);
    if (!found.ok()) return absent_is_unavailable(error_of(found, options.path + "/" + name)).error();
    *handle = std::move(found.handle);
  }
  root->tmp_name = private_dir_name(options.node, options.node_incarnation);
  sweep_tmp(link, *root, options);
  auto tmp =
      ensure_nfs_directory(link, root->tmp_all, root->tmp_name, options.path + "/tmp/" + root->tmp_name);
  if (tmp) {
    root->tmp = std::move(*tmp);
  } else {
    root->tmp_error = tmp.error();
  }
  return std::shared_ptr<const NfsRoot>(std::move(root));
}

}  // namespace cms::storage
