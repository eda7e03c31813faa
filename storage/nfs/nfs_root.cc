#include "storage/nfs/nfs_root.h"

#include <cstdlib>
#include <utility>

#include "base/crash_point.h"
#include "base/prng.h"
#include "storage/blob_file_io.h"
#include "storage/store_layout.h"

namespace cms::storage {
namespace {

constexpr std::size_t kMkdirsInFlight = 64;

NfsReply lookup(NfsConnection& link, const NfsHandle& directory, const std::string& name) {
  return nfs_wait([&](NfsThen then) { nfs_lookup(link, {directory, name}, std::move(then)); });
}

Result<std::string> read_format(NfsConnection& link, const NfsHandle& root, const std::string& path) {
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

Status check_may_initialise(NfsConnection& link, const NfsHandle& root, const std::string& path) {
  const auto foreign = first_name(link, root, path, &may_be_before_format);
  if (!foreign) return foreign.error();
  if (!foreign->empty()) return not_ours(path, *foreign);
  for (const std::string own : {"claims", "nodes", "quarantine"}) {
    const NfsReply directory = lookup(link, root, own);
    if (directory.is(NfsStatus::kNoEntry)) continue;
    if (!directory.ok()) return error_of(directory, path + "/" + own);
    const auto held = first_name(link, directory.handle, path + "/" + own,
                                 [&](const std::string& name) { return may_be_in_unformatted(own, name); });
    if (!held) return held.error();
    if (!held->empty()) return not_ours(path, own + "/" + *held);
  }
  const NfsReply shards = lookup(link, root, "d");
  if (shards.is(NfsStatus::kNoEntry)) return ok_status();
  if (!shards.ok()) return error_of(shards, path + "/d");
  std::vector<std::string> names;
  const Status listed = nfs_list(link, shards.handle, path + "/d", [&](NfsEntry entry) {
    names.push_back(std::move(entry.name));
    return true;
  });
  if (!listed.ok()) return listed;
  for (const std::string& name : names) {
    const NfsReply shard = lookup(link, shards.handle, name);
    if (!shard.ok()) return error_of(shard, path + "/d/" + name);
    if (!shard.attributes.is_directory) return not_ours(path, "d/" + name);
    const auto held =
        first_name(link, shard.handle, path + "/d/" + name, [](const std::string&) { return false; });
    if (!held) return held.error();
    if (!held->empty()) return not_ours(path, "d/" + name + "/" + *held);
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
  NfsInFlight in_flight;
  std::mutex mutex;
  Status failed;
  for (std::uint32_t shard = 0; shard < kShardCount; ++shard) {
    in_flight.wait_until_at_most(kMkdirsInFlight);
    in_flight.begin(1);
    const std::string name = shard_name(shard);
    nfs_mkdir(link, {shards, name}, [&, name](const NfsReply& reply) {
      if (!reply.ok() && !reply.is(NfsStatus::kExists)) {
        const std::lock_guard<std::mutex> lock(mutex);
        if (failed.ok()) failed = error_of(reply, "make " + path + "/d/" + name);
      }
      in_flight.end(1);
    });
  }
  in_flight.wait_until_at_most(0);
  return failed;
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
  std::vector<NfsHandle> shards(kShardCount);
  const Status listed = nfs_list(link, d.handle, path + "/d", [&](NfsEntry entry) {
    const std::size_t shard = std::strtoul(entry.name.c_str(), nullptr, 16);
    if (shard < kShardCount && shard_name(static_cast<std::uint32_t>(shard)) == entry.name) {
      shards[shard] = std::move(entry.handle);
    }
    return true;
  });
  if (!listed.ok()) return listed.error();
  for (std::uint32_t shard = 0; shard < kShardCount; ++shard) {
    if (!shards[shard].empty()) continue;
    const NfsReply found = lookup(link, d.handle, shard_name(shard));  // The server need not tell handles.
    if (!found.ok()) return absent_is_unavailable(error_of(found, path + "/d/" + shard_name(shard))).error();
    shards[shard] = found.handle;
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
  Slot& slot = slots_[next_++ % slots_.size()];
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
  nfs_remove(link, {root.tmp, temp_name}, [litter = pool.litter(), temp_name](const NfsReply& reply) {
    if (!reply.answered) litter->add(temp_name);
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

Result<std::shared_ptr<const NfsRoot>> open_nfs_root(NfsPool& pool, const NfsRootOptions& options) {
  const auto got = pool.get();
  if (!got) return got.error();
  NfsConnection& link = **got;
  auto root = std::make_shared<NfsRoot>();
  root->path = options.path;
  root->root = link.root();

  auto text = read_format(link, root->root, options.path);
  if (!text && text.error().code == Code::kNotFound) {
    if (!options.fleet_id_expected.empty()) return no_longer_there(options.path, options.fleet_id_expected);
    Status status = check_may_initialise(link, root->root, options.path);
    if (status.ok()) status = make_directories(link, root->root, options.path);
    if (status.ok()) status = publish_format(link, root->root, options);
    if (!status.ok()) return status.error();
    text = read_format(link, root->root, options.path);
  }
  if (!text) return text.error();
  auto format = decode_format(*text);
  if (!format) return make_error(format.error().code, options.path + "/" + format.error().context);
  root->format = std::move(*format);
  if (Status status = check_fleet(options.path, root->format, options.fleet_id_expected); !status.ok()) {
    return status.error();
  }

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
