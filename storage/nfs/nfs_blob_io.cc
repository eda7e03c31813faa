#include "storage/nfs/nfs_blob_io.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "base/crash_point.h"
#include "storage/blob_file_io.h"
#include "storage/store_layout.h"

namespace cms::storage {
namespace {

NfsReply commit(NfsConnection& link, const NfsHandle& file) {
  return nfs_wait([&](NfsThen then) { nfs_commit(link, file, std::move(then)); });
}

// ---- writing

// What the callbacks of a writer's calls leave behind; they may come when the writer has gone.
struct Written {
  std::mutex mutex;
  std::optional<std::uint64_t> verifier;  // Of all WRITEs.
  Status failed;
};

class NfsWriter final : public BlobFileWriter {
 public:
  NfsWriter(std::shared_ptr<NfsPool> pool, std::shared_ptr<const NfsRoot> root, NfsLink link,
            const BlobName& name, wire::Manifest manifest, std::string temp_name, NfsHandle file)
      : BlobFileWriter(name, std::move(manifest)),
        pool_(std::move(pool)),
        root_(std::move(root)),
        link_(std::move(link)),
        temp_name_(std::move(temp_name)),
        temp_path_(root_->path + "/tmp/" + root_->tmp_name + "/" + temp_name_),
        file_(std::move(file)) {}

  ~NfsWriter() override {
    if (!dropped_) drop_nfs_temp(*pool_, *link_, *root_, temp_name_);
  }

 private:
  Status write_at(const void* data, std::size_t size_bytes, std::uint64_t offset_bytes) override {
    const auto* bytes = static_cast<const char*>(data);
    while (size_bytes > 0) {
      const std::size_t part = std::min<std::size_t>(size_bytes, link_->write_bytes_max());
      link_->writes().wait_until_at_most(kNfsWriteWindowBytes - part);
      link_->writes().begin(part);
      in_flight_->begin(1);
      nfs_write(*link_, file_, offset_bytes, bytes, part, NfsStable::kUnstable,
                [link = link_.get(), in_flight = in_flight_, written = written_, part,
                 path = temp_path_](const NfsReply& reply) {
                  link->writes().end(part);
                  note(*written, reply, part, path);
                  in_flight->end(1);
                });
      bytes += part;
      size_bytes -= part;
      offset_bytes += part;
    }
    const std::lock_guard<std::mutex> lock(written_->mutex);
    return written_->failed;
  }

  static void note(Written& written, const NfsReply& reply, std::size_t size_bytes, const std::string& path) {
    const std::lock_guard<std::mutex> lock(written.mutex);
    if (!written.failed.ok()) return;
    if (!reply.ok()) {
      written.failed = error_of(reply, "write " + path);
    } else if (reply.count != size_bytes) {
      // Allowed, but nobody does it below wtmax, and the bytes have gone from here.
      written.failed = make_error(Code::kIo, "write " + path + ": the NFS server took only a part");
    } else if (written.verifier && *written.verifier != reply.verifier) {
      written.failed = restarted(path);
    } else {
      written.verifier = reply.verifier;
    }
  }

  // What it had not yet written to its medium is lost; the publisher has it still.
  static Error restarted(const std::string& path) {
    return make_error(Code::kUnavailable, "write " + path + ": the NFS server has restarted meanwhile");
  }

  Status make_durable(std::uint64_t) override {
    in_flight_->wait_until_at_most(0);
    std::optional<std::uint64_t> verifier;
    {
      const std::lock_guard<std::mutex> lock(written_->mutex);
      if (!written_->failed.ok()) return written_->failed;
      verifier = written_->verifier;
    }
    const NfsReply synced = commit(*link_, file_);
    if (!synced.ok()) return error_of(synced, "commit " + temp_path_);
    if (synced.verifier != verifier) return restarted(temp_path_);
    CMS_CRASH_POINT("nfs.after_data_commit");
    const NfsNaming naming{*root_, temp_name_, file_, name()};
    const NfsNamed named = give_name(naming);
    if (!named.known) return settle_name(*pool_, naming);
    CMS_CRASH_POINT("nfs.after_publish");
    // Now, and not when the writer goes; nobody waits for it.
    drop_nfs_temp(*pool_, *link_, *root_, temp_name_);
    dropped_ = true;
    return named.status;
  }

  NfsNamed give_name(const NfsNaming& naming) {
    NfsNamed named;
    NfsInFlight in_flight;
    in_flight.begin(1);
    nfs_give_name(*link_, naming, [&](const NfsNamed& end) {
      named = end;
      in_flight.end(1);
    });
    in_flight.wait_until_at_most(0);
    return named;
  }

  const std::shared_ptr<NfsPool> pool_;
  const std::shared_ptr<const NfsRoot> root_;
  const NfsLink link_;
  const std::string temp_name_;
  const std::string temp_path_;
  const NfsHandle file_;
  const std::shared_ptr<NfsInFlight> in_flight_ = std::make_shared<NfsInFlight>();
  const std::shared_ptr<Written> written_ = std::make_shared<Written>();
  bool dropped_ = false;
};

// ---- reading

class NfsReader final : public BlobFileReader {
 public:
  // `tail`: the end of the file, from `tail_at`; it has been read.
  NfsReader(std::shared_ptr<NfsPool> pool, NfsLink link, NfsHandle file, const std::string& path,
            wire::Manifest manifest, std::vector<char> tail, std::uint64_t tail_at)
      : BlobFileReader(path, std::move(manifest)),
        pool_(std::move(pool)),
        link_(std::move(link)),
        file_(std::move(file)),
        tail_(std::move(tail)),
        tail_at_(tail_at) {}

  ~NfsReader() override {
    for (const auto& chunk : ahead_) chunk->in_flight.wait_until_at_most(0);
  }

 private:
  // A chunk that was asked for before it was wanted.
  struct Ahead {
    std::uint64_t index = 0;
    std::vector<char> bytes;
    NfsInFlight in_flight;
    std::mutex mutex;
    std::size_t got_bytes = 0;
    Status failed;
  };

  Result<std::size_t> read_stored_chunk(std::uint64_t index, void* target) override {
    const std::uint64_t offset = offset_of(index);
    const std::size_t length = chunk_length(manifest(), index);
    if (offset >= tail_at_ && offset - tail_at_ + length <= tail_.size()) {
      std::memcpy(target, tail_.data() + (offset - tail_at_), length);
      return length;
    }
    const bool in_order = index == next_;
    next_ = index + 1;
    std::shared_ptr<Ahead> ahead;
    while (!ahead_.empty() && ahead == nullptr) {
      ahead_.front()->in_flight.wait_until_at_most(0);
      if (ahead_.front()->index == index) ahead = ahead_.front();
      ahead_.pop_front();  // Others have been passed over.
    }
    if (in_order) ask_ahead(index);
    if (ahead != nullptr && ahead->failed.ok()) {
      std::memcpy(target, ahead->bytes.data(), ahead->got_bytes);
      return ahead->got_bytes;
    }
    return read_now(index, target);
  }

  void ask_ahead(std::uint64_t index) {
    std::size_t asked_bytes = 0;
    for (const auto& ahead : ahead_) asked_bytes += ahead->bytes.size();
    std::uint64_t at = ahead_.empty() ? index + 1 : ahead_.back()->index + 1;
    for (; at < chunk_count() && asked_bytes < kNfsReadAheadBytes; ++at) {
      if (manifest().zero_chunks[at]) continue;
      auto ahead = std::make_shared<Ahead>();
      ahead->index = at;
      ahead->bytes.resize(chunk_length(manifest(), at));
      asked_bytes += ahead->bytes.size();
      ask(*link_, at, ahead->bytes.data(), *ahead);
      ahead_.push_back(std::move(ahead));
    }
  }

  // In parts that the server gives at once; `ahead` must stay until all have ended.
  void ask(NfsConnection& link, std::uint64_t index, char* target, Ahead& ahead) {
    const std::size_t length = chunk_length(manifest(), index);
    for (std::size_t at = 0; at < length;) {
      const std::size_t part = std::min<std::size_t>(length - at, link.read_bytes_max());
      ahead.in_flight.begin(1);
      nfs_read(link, file_, offset_of(index) + at, target + at, part,
               [&ahead, part, path = this->path()](const NfsReply& reply) {
                 {
                   const std::lock_guard<std::mutex> lock(ahead.mutex);
                   if (reply.is(NfsStatus::kStale)) {
                     ahead.failed = make_error(Code::kNotFound, "read " + path + ": removed meanwhile");
                   } else if (!reply.ok()) {
                     ahead.failed = error_of(reply, "read " + path);
                   } else if (reply.count != part && !reply.eof) {
                     ahead.failed =
                         make_error(Code::kIo, "read " + path + ": the NFS server gave only a part");
                   } else {
                     ahead.got_bytes += reply.count;
                   }
                 }
                 ahead.in_flight.end(1);
               });
      at += part;
    }
  }

  Result<std::size_t> read_now(std::uint64_t index, void* target) {
    const auto once = [&]() -> Result<std::size_t> {
      Ahead now;
      ask(*link_, index, static_cast<char*>(target), now);
      now.in_flight.wait_until_at_most(0);
      if (!now.failed.ok()) return now.failed.error();
      return now.got_bytes;
    };
    auto got = once();
    if (got || got.error().code != Code::kUnavailable || link_->alive()) return got;
    // Only the connection broke: reading again does no harm.
    for (const auto& ahead : ahead_) ahead->in_flight.wait_until_at_most(0);
    ahead_.clear();
    auto link = pool_->get();
    if (!link) return got;
    link_ = std::move(*link);
    return once();
  }

  const std::shared_ptr<NfsPool> pool_;
  NfsLink link_;
  const NfsHandle file_;
  const std::vector<char> tail_;
  const std::uint64_t tail_at_;
  std::deque<std::shared_ptr<Ahead>> ahead_;  // In order of index.
  std::uint64_t next_ = 0;                    // The chunk that reading in order asks for next.
};

}  // namespace

std::string entry_path(const NfsRoot& root, const BlobName& name) {
  return root.path + "/d/" + shard_name(shard_of(name.lineage)) + "/" + to_file_name(name);
}

Result<std::unique_ptr<BlobWriter>> make_nfs_writer(std::shared_ptr<NfsPool> pool,
                                                    std::shared_ptr<const NfsRoot> root, const BlobName& name,
                                                    wire::Manifest manifest, const std::string& temp_name) {
  pool->litter()->removals().wait_until_at_most(kNfsRemovalsInFlight);
  auto link = pool->get();
  if (!link) return link.error();
  const NfsReply created = nfs_wait([&](NfsThen then) {
    nfs_create(**link, {root->tmp, temp_name}, std::move(then));
  });
  const std::string path = root->path + "/tmp/" + root->tmp_name + "/" + temp_name;
  if (!created.answered) pool->litter()->add(temp_name);
  if (!created.ok()) return absent_is_unavailable(error_of(created, "create " + path)).error();
  NfsHandle file = created.handle;
  if (file.empty()) {  // The server need not tell.
    const NfsReply found = nfs_wait_lookup(**link, {root->tmp, temp_name});
    if (!found.ok()) return absent_is_unavailable(error_of(found, path)).error();
    file = found.handle;
  }
  auto writer = std::make_unique<NfsWriter>(std::move(pool), std::move(root), std::move(*link), name,
                                            std::move(manifest), temp_name, std::move(file));
  CMS_CRASH_POINT("nfs.after_create");
  if (const Status status = writer->write_header(); !status.ok()) return status.error();
  return std::unique_ptr<BlobWriter>(std::move(writer));
}

Result<std::unique_ptr<BlobReader>> open_nfs_reader(std::shared_ptr<NfsPool> pool, const NfsRoot& root,
                                                    const BlobName& name) {
  auto link = pool->get();
  if (!link) return link.error();
  const std::string path = entry_path(root, name);
  const NfsReply found = nfs_wait_lookup(**link, {root.shard_of_name(name), to_file_name(name)});
  if (!found.ok()) return error_of(found, path);
  NfsAttributes attributes = found.attributes;
  if (!attributes.known) {
    const NfsReply asked =
        nfs_wait([&](NfsThen then) { nfs_getattr(**link, found.handle, std::move(then)); });
    if (!asked.ok()) return error_of(asked, path);
    attributes = asked.attributes;
  }
  if (!attributes.is_file) return make_error(Code::kCorrupt, path + ": not a file");
  // One READ gives all of a small blob, and the footer of most others.
  const std::uint64_t wanted = attributes.size_bytes <= kNfsWholeBytes ? kNfsWholeBytes : kNfsTailBytes;
  const std::uint64_t tail_bytes =
      std::min<std::uint64_t>({attributes.size_bytes, wanted, (*link)->read_bytes_max()});
  const std::uint64_t tail_at = attributes.size_bytes - tail_bytes;
  std::vector<char> tail;
  const auto read_at = [&](void* target, std::size_t size_bytes,
                           std::uint64_t offset_bytes) -> Result<std::size_t> {
    const auto read = [&](void* into, std::size_t length, std::uint64_t at) -> Result<std::size_t> {
      std::size_t done = 0;
      while (done < length) {
        const std::size_t part = std::min<std::size_t>(length - done, (*link)->read_bytes_max());
        const NfsReply reply = nfs_wait([&](NfsThen then) {
          nfs_read(**link, found.handle, at + done, static_cast<char*>(into) + done, part, std::move(then));
        });
        if (reply.is(NfsStatus::kStale)) {
          return make_error(Code::kNotFound, "read " + path + ": removed meanwhile");
        }
        if (!reply.ok()) return error_of(reply, "read " + path);
        done += reply.count;
        if (reply.eof || reply.count == 0) break;
      }
      return done;
    };
    if (offset_bytes < tail_at) return read(target, size_bytes, offset_bytes);
    if (tail.empty()) {
      tail.resize(tail_bytes);
      const auto got = read(tail.data(), tail.size(), tail_at);
      if (!got) return got;
      tail.resize(*got);
    }
    const std::size_t from = std::min<std::size_t>(offset_bytes - tail_at, tail.size());
    const std::size_t length = std::min(size_bytes, tail.size() - from);
    std::memcpy(target, tail.data() + from, length);
    return length;
  };
  auto manifest = read_manifest(name, attributes.size_bytes, path, read_at);
  if (!manifest) return manifest.error();
  return std::unique_ptr<BlobReader>(std::make_unique<NfsReader>(
      std::move(pool), std::move(*link), found.handle, path, std::move(*manifest), std::move(tail), tail_at));
}

namespace {

// The file has a second name: ours, that is, as nobody else gives it one.
bool has_its_name(const NfsReply& asked) {
  return asked.ok() && asked.attributes.known && asked.attributes.link_count > 1;
}

void commit_name(NfsConnection& link, const NfsHandle& file,
                 const std::function<void(const NfsNamed&)>& then) {
  nfs_commit(link, file, [then](const NfsReply& synced) {
    if (synced.ok()) return then(NfsNamed{});
    then(NfsNamed{false, error_of(synced, "commit")});
  });
}

bool has_no_links(const NfsReply& linked) {
  return linked.is(NfsStatus::kNotSupported) || linked.is(NfsStatus::kNotPermitted) ||
         linked.is(NfsStatus::kOtherDevice);
}

// On a NAS without hard links, which claims are refused on and storing is not. RENAME replaces what has the name;
// ours are unique, and a look before keeps a mistake from destroying a blob.
void rename_instead(NfsConnection& link, const NfsNaming& naming,
                    const std::function<void(const NfsNamed&)>& then) {
  const auto refused = [&naming](const NfsReply& reply) {
    return NfsNamed{
        true, absent_is_unavailable(error_of(reply, "rename to " + entry_path(naming.root, naming.name)))};
  };
  const auto on_renamed = [&link, &naming, then, refused](const NfsReply& renamed) {
    if (renamed.ok()) return commit_name(link, naming.file, then);
    then(renamed.answered ? refused(renamed) : NfsNamed{false, error_of(renamed, "rename")});
  };
  const auto on_looked = [&link, &naming, then, refused, on_renamed](const NfsReply& before) {
    if (before.ok()) {
      return then(NfsNamed{true, make_error(Code::kAlreadyExists, entry_path(naming.root, naming.name))});
    }
    if (!before.is(NfsStatus::kNoEntry)) return then(refused(before));
    nfs_rename(link, {naming.root.tmp, naming.temp_name},
               {naming.root.shard_of_name(naming.name), to_file_name(naming.name)}, on_renamed);
  };
  nfs_lookup(link, {naming.root.shard_of_name(naming.name), to_file_name(naming.name)}, on_looked);
}

}  // namespace

// LINK never replaces what has the name; and unlike RENAME, which some servers hold up for as much as a second while
// others put names into that directory, it is done at once.
void nfs_give_name(NfsConnection& link, const NfsNaming& naming, std::function<void(const NfsNamed&)> then) {
  const auto on_linked = [&link, &naming, then = std::move(then)](const NfsReply& linked) {
    CMS_CRASH_POINT("nfs.after_link");
    if (linked.ok()) return commit_name(link, naming.file, then);
    if (!linked.answered) return then(NfsNamed{false, error_of(linked, "link")});
    if (has_no_links(linked)) return rename_instead(link, naming, then);
    if (!linked.is(NfsStatus::kExists)) {
      return then(NfsNamed{
          true, absent_is_unavailable(error_of(linked, "link to " + entry_path(naming.root, naming.name)))});
    }
    // Another's, or the request came twice.
    nfs_getattr(link, naming.file, [&link, &naming, then](const NfsReply& asked) {
      if (has_its_name(asked)) return commit_name(link, naming.file, then);
      if (!asked.ok()) return then(NfsNamed{false, error_of(asked, "ask for the names")});
      then(NfsNamed{true, make_error(Code::kAlreadyExists, entry_path(naming.root, naming.name))});
    });
  };
  nfs_link(link, naming.file, {naming.root.shard_of_name(naming.name), to_file_name(naming.name)}, on_linked);
}

// The name may have been given, may be given later, or never. Removing the private name first decides
// it: a late LINK then finds nothing to link. Only an answer counts.
Status settle_name(NfsPool& pool, const NfsNaming& naming) {
  const auto link = pool.get();
  if (!link) return link.error();
  const std::string path = entry_path(naming.root, naming.name);
  const NfsReply removed = nfs_wait([&](NfsThen then) {
    nfs_remove(**link, {naming.root.tmp, naming.temp_name}, std::move(then));
  });
  if (!removed.ok() && !removed.is(NfsStatus::kNoEntry)) return error_of(removed, "settle the name " + path);
  const NfsReply found =
      nfs_wait_lookup(**link, {naming.root.shard_of_name(naming.name), to_file_name(naming.name)});
  if (found.is(NfsStatus::kNoEntry)) {
    return make_error(Code::kUnavailable, "link to " + path + ": not done, and cancelled");
  }
  if (!found.ok()) return error_of(found, "settle the name " + path);
  if (found.handle != naming.file) {  // It could be ours under another handle, if the server has several.
    const NfsReply ours = nfs_wait([&](NfsThen then) { nfs_getattr(**link, naming.file, std::move(then)); });
    const bool same = ours.ok() && ours.attributes.known && found.attributes.known &&
                      ours.attributes.file_id == found.attributes.file_id;
    if (!same && (ours.ok() || ours.is_stale())) return make_error(Code::kAlreadyExists, path);
    if (!same) return error_of(ours, "settle the name " + path);
  }
  const NfsReply synced = commit(**link, found.handle);
  return synced.ok() ? ok_status() : Status(error_of(synced, "commit " + path));
}

}  // namespace cms::storage
