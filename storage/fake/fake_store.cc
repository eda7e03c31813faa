#include "storage/fake/fake_store.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

#include "storage/blob_file.h"

namespace cms::storage {
namespace {

using Chunk = std::vector<unsigned char>;

struct Blob {
  BlobName name;
  wire::Manifest manifest;
  std::vector<std::shared_ptr<Chunk>> chunks;  // nullptr: all zero
  std::uint64_t stored_bytes = 0;
  bool durable = true;  // Its name is.
};

std::uint64_t stored_bytes_of(const wire::Manifest& manifest) {
  const std::uint64_t chunks_end = chunk_offsets(manifest).back();
  return chunks_end + encode_footer(manifest, chunks_end).size();
}

}  // namespace

struct FakeStore::State {
  mutable std::mutex mutex;
  std::string fleet_id;
  bool opened = false;
  std::uint64_t life = 0;  // Counts crashes.
  std::uint64_t capacity_bytes = std::uint64_t{1} << 40;
  std::uint64_t used_bytes = 0;                                 // Of published blobs and of writers.
  std::map<std::pair<std::uint32_t, std::string>, Blob> blobs;  // by shard and file name
  std::map<std::string, StoredEntry> quarantined;               // by file name
  std::vector<Blob> removed;                                    // since the last crash
  std::map<FakeCall, std::pair<std::uint64_t, Error>> plans;

  static std::pair<std::uint32_t, std::string> key_of(const BlobName& name) {
    return {shard_of(name.lineage), to_file_name(name)};
  }

  // All below: with `mutex` held.
  Status planned(FakeCall call) {
    for (const FakeCall kind : {call, FakeCall::kAny}) {
      const auto plan = plans.find(kind);
      if (plan == plans.end()) continue;
      const Error error = plan->second.second;
      if (--plan->second.first == 0) plans.erase(plan);
      return error;
    }
    return ok_status();
  }
  Status begin(FakeCall call) {
    if (!opened) return make_error(Code::kUnavailable, "the store has not been opened");
    return planned(call);
  }
  Status take_space(std::uint64_t bytes) {
    if (used_bytes + bytes > capacity_bytes) {
      return make_error(Code::kNoSpace, "the store has " + std::to_string(capacity_bytes) + " bytes, " +
                                            std::to_string(used_bytes) + " are in use");
    }
    used_bytes += bytes;
    return ok_status();
  }
  Status put_marker(FakeCall call, const BlobName& name, EntryKind kind) {
    if (!is_marker_name(name, kind)) {
      return make_error(Code::kInvalidArgument, "not the name of such a marker: " + to_file_name(name));
    }
    if (Status status = begin(call); !status.ok()) return status;
    Blob blob;
    blob.name = name;
    blob.manifest = make_marker_manifest(name, "fake", 0);
    blob.chunks = {std::make_shared<Chunk>()};
    blob.stored_bytes = stored_bytes_of(blob.manifest);
    // Fits also when the store is full: ending lives is how space is made.
    if (publish(blob).ok()) used_bytes += blob.stored_bytes;
    return ok_status();
  }
  Status publish(Blob blob) {
    const bool added = blobs.emplace(key_of(blob.name), blob).second;
    return added ? ok_status() : make_error(Code::kAlreadyExists, to_file_name(blob.name));
  }
};

namespace {

class FakeWriter final : public BlobWriter {
 public:
  FakeWriter(std::shared_ptr<FakeStore::State> state, Blob blob)
      : state_(std::move(state)), life_(state_->life), blob_(std::move(blob)) {}
  FakeWriter(const FakeWriter&) = delete;
  FakeWriter& operator=(const FakeWriter&) = delete;
  ~FakeWriter() override {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    if (state_->life == life_) state_->used_bytes -= taken_bytes_;
  }

  Status append(const void* data, std::size_t size_bytes, const Digest& digest) override {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    if (status_.ok()) status_ = append_locked(data, size_bytes, digest);
    return status_;
  }

  Result<wire::Manifest> publish() override {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    if (status_.ok()) status_ = publish_locked();
    if (!status_.ok()) return status_.error();
    status_ = make_error(Code::kInvalidArgument, to_file_name(blob_.name) + " has been published");
    return std::move(blob_.manifest);
  }

 private:
  Status alive() const {
    if (state_->life == life_) return ok_status();
    return make_error(Code::kUnavailable, "the store has crashed since");
  }

  Status append_locked(const void* data, std::size_t size_bytes, const Digest& digest) {
    if (Status status = alive(); !status.ok()) return status;
    if (Status status = state_->begin(FakeCall::kAppend); !status.ok()) return status;
    wire::Manifest& manifest = blob_.manifest;
    const std::uint64_t index = manifest.chunk_digests.size();
    if (index >= wire::chunk_count_of(blob_.name.size_bytes, manifest.chunk_size_bytes) ||
        size_bytes != chunk_length(manifest, index)) {
      return make_error(Code::kInvalidArgument, "chunk " + std::to_string(index) + " of " +
                                                    to_file_name(blob_.name) + " has " +
                                                    std::to_string(size_bytes) + " bytes");
    }
    const bool zero = is_all_zero(data, size_bytes);
    if (!zero) {
      if (Status status = state_->take_space(size_bytes); !status.ok()) return status;
      taken_bytes_ += size_bytes;
    }
    const auto* bytes = static_cast<const unsigned char*>(data);
    blob_.chunks.push_back(zero ? nullptr : std::make_shared<Chunk>(bytes, bytes + size_bytes));
    manifest.chunk_digests.push_back(digest);
    manifest.zero_chunks.push_back(zero);
    return ok_status();
  }

  Status publish_locked() {
    if (Status status = alive(); !status.ok()) return status;
    if (Status status = state_->begin(FakeCall::kPublish); !status.ok()) return status;
    wire::Manifest& manifest = blob_.manifest;
    const std::uint64_t count = wire::chunk_count_of(blob_.name.size_bytes, manifest.chunk_size_bytes);
    if (manifest.chunk_digests.size() != count) {
      return make_error(Code::kInvalidArgument, "only " + std::to_string(manifest.chunk_digests.size()) +
                                                    " of the " + std::to_string(count) + " chunks of " +
                                                    to_file_name(blob_.name) + " were appended");
    }
    manifest.blob_digest = blob_digest_of(manifest.chunk_digests);
    blob_.stored_bytes = stored_bytes_of(manifest);
    const std::uint64_t rest = blob_.stored_bytes - std::min(blob_.stored_bytes, taken_bytes_);
    if (Status status = state_->take_space(rest); !status.ok()) return status;
    taken_bytes_ += rest;
    if (Status status = state_->publish(blob_); !status.ok()) return status;
    taken_bytes_ = 0;  // They are the store's now.
    return ok_status();
  }

  const std::shared_ptr<FakeStore::State> state_;
  const std::uint64_t life_;
  Blob blob_;
  std::uint64_t taken_bytes_ = 0;
  Status status_;  // The first error; it stays.
};

class FakeReader final : public BlobReader {
 public:
  FakeReader(std::shared_ptr<FakeStore::State> state, Blob blob)
      : state_(std::move(state)), life_(state_->life), blob_(std::move(blob)) {}

  const wire::Manifest& manifest() const override { return blob_.manifest; }

  Result<std::size_t> read_chunk(std::uint64_t index, void* target) override {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    if (state_->life != life_) return make_error(Code::kUnavailable, "the store has crashed since");
    if (Status status = state_->begin(FakeCall::kReadChunk); !status.ok()) return status.error();
    if (index >= blob_.chunks.size()) {
      return make_error(Code::kInvalidArgument, "there is no chunk " + std::to_string(index));
    }
    const std::size_t length = chunk_length(blob_.manifest, index);
    const std::shared_ptr<Chunk>& chunk = blob_.chunks[index];
    if (chunk == nullptr) {
      std::memset(target, 0, length);
    } else {
      std::copy(chunk->begin(), chunk->end(), static_cast<unsigned char*>(target));
    }
    if (digest_of(target, length) != blob_.manifest.chunk_digests[index]) {
      return make_error(Code::kCorrupt, to_file_name(blob_.name) + ": chunk " + std::to_string(index) +
                                            " does not match its digest");
    }
    return length;
  }

 private:
  const std::shared_ptr<FakeStore::State> state_;
  const std::uint64_t life_;
  const Blob blob_;
};

}  // namespace

FakeStore::FakeStore(std::string fleet_id) : state_(std::make_shared<State>()) {
  state_->fleet_id = std::move(fleet_id);
}
FakeStore::~FakeStore() = default;

Status FakeStore::open_store() {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  if (Status status = state_->planned(FakeCall::kOpenStore); !status.ok()) return status;
  state_->opened = true;
  return ok_status();
}

Status FakeStore::probe() {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->begin(FakeCall::kProbe);
}

Result<SpaceInfo> FakeStore::space() {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  if (Status status = state_->begin(FakeCall::kSpace); !status.ok()) return status.error();
  SpaceInfo space;
  space.total_bytes = state_->capacity_bytes;
  space.free_bytes = state_->capacity_bytes - std::min(state_->capacity_bytes, state_->used_bytes);
  return space;
}

std::string FakeStore::fleet_id() const {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->opened ? state_->fleet_id : std::string();
}

Result<std::unique_ptr<BlobWriter>> FakeStore::create(const BlobName& name, wire::Manifest manifest) {
  if (name.kind != EntryKind::kBlob)
    return make_error(Code::kInvalidArgument, "create: not the name of a blob");
  if (Status status = check_name_and_manifest(name, manifest); !status.ok()) return status.error();
  const std::lock_guard<std::mutex> lock(state_->mutex);
  if (Status status = state_->begin(FakeCall::kCreate); !status.ok()) return status.error();
  const std::uint64_t bytes = blob_file_bytes_max(name, manifest.chunk_size_bytes);
  if (Status status = state_->take_space(bytes); !status.ok()) return status.error();
  state_->used_bytes -= bytes;  // Taken as they are appended.
  Blob blob;
  blob.name = name;
  blob.manifest = std::move(manifest);
  blob.manifest.chunk_digests.clear();
  blob.manifest.zero_chunks.clear();
  return std::unique_ptr<BlobWriter>(std::make_unique<FakeWriter>(state_, std::move(blob)));
}

std::vector<Status> FakeStore::put_small(const std::vector<SmallBlob>& blobs) {
  std::vector<Status> statuses;
  for (const SmallBlob& small : blobs) {
    const auto put = [&]() -> Status {
      if (Status status = check_small_blob(small); !status.ok()) return status;
      const std::lock_guard<std::mutex> lock(state_->mutex);
      if (Status status = state_->begin(FakeCall::kPutSmall); !status.ok()) return status;
      Blob blob;
      blob.name = small.name;
      blob.manifest = small.manifest;
      const bool zero = is_all_zero(small.data, small.size_bytes);
      blob.manifest.zero_chunks = {zero};
      blob.manifest.blob_digest = blob_digest_of(blob.manifest.chunk_digests);
      const auto* bytes = static_cast<const unsigned char*>(small.data);
      blob.chunks = {zero ? nullptr : std::make_shared<Chunk>(bytes, bytes + small.size_bytes)};
      blob.stored_bytes = stored_bytes_of(blob.manifest);
      if (Status status = state_->take_space(blob.stored_bytes); !status.ok()) return status;
      const Status published = state_->publish(blob);
      if (!published.ok()) state_->used_bytes -= blob.stored_bytes;
      return published;
    };
    statuses.push_back(put());
  }
  return statuses;
}

Status FakeStore::put_tombstone(const BlobName& name) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->put_marker(FakeCall::kPutTombstone, name, EntryKind::kTombstone);
}

Status FakeStore::put_pin(const BlobName& name) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->put_marker(FakeCall::kPutPin, name, EntryKind::kPin);
}

Result<std::unique_ptr<BlobReader>> FakeStore::open(const BlobName& name) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  if (Status status = state_->begin(FakeCall::kOpen); !status.ok()) return status.error();
  const auto found = state_->blobs.find(State::key_of(name));
  if (found == state_->blobs.end()) return make_error(Code::kNotFound, to_file_name(name));
  return std::unique_ptr<BlobReader>(std::make_unique<FakeReader>(state_, found->second));
}

Status FakeStore::remove(const BlobName& name) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  if (Status status = state_->begin(FakeCall::kRemove); !status.ok()) return status;
  const auto found = state_->blobs.find(State::key_of(name));
  if (found == state_->blobs.end()) return ok_status();
  state_->used_bytes -= found->second.stored_bytes;
  state_->removed.push_back(std::move(found->second));
  state_->blobs.erase(found);
  return ok_status();
}

Result<bool> FakeStore::contains(const BlobName& name) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  if (Status status = state_->begin(FakeCall::kContains); !status.ok()) return status.error();
  return state_->blobs.count(State::key_of(name)) == 1;
}

std::vector<Status> FakeStore::make_durable(const std::vector<BlobName>& names) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  std::vector<Status> statuses;
  for (const BlobName& name : names) {
    statuses.push_back(state_->begin(FakeCall::kMakeDurable));
    if (!statuses.back().ok()) continue;
    const auto found = state_->blobs.find(State::key_of(name));
    if (found == state_->blobs.end()) {
      statuses.back() = make_error(Code::kNotFound, to_file_name(name));
    } else {
      found->second.durable = true;
    }
  }
  return statuses;
}

Status FakeStore::quarantine(const BlobName& name, const std::string& /*why: for people*/) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  if (Status status = state_->begin(FakeCall::kQuarantine); !status.ok()) return status;
  const auto found = state_->blobs.find(State::key_of(name));
  if (found == state_->blobs.end()) return ok_status();
  // Still takes its room, as it does on a medium.
  state_->quarantined[to_file_name(name)] = StoredEntry{name, found->second.stored_bytes};
  state_->blobs.erase(found);
  return ok_status();
}

Status FakeStore::list_quarantine(const std::function<void(const StoredEntry&)>& visit) {
  std::vector<StoredEntry> entries;
  {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    if (Status status = state_->begin(FakeCall::kList); !status.ok()) return status;
    for (const auto& [name, entry] : state_->quarantined) entries.push_back(entry);
  }
  for (const StoredEntry& entry : entries) visit(entry);
  return ok_status();
}

Status FakeStore::list(std::uint32_t shard, const std::function<void(const StoredEntry&)>& visit,
                       std::uint64_t* /*unknown: nobody else writes here*/) {
  if (shard >= kShardCount) {
    return make_error(Code::kInvalidArgument,
                      "shard " + std::to_string(shard) + " is not below " + std::to_string(kShardCount));
  }
  std::vector<StoredEntry> entries;  // `visit` may call back into the store
  {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    if (Status status = state_->begin(FakeCall::kList); !status.ok()) return status;
    for (auto at = state_->blobs.lower_bound({shard, ""});
         at != state_->blobs.end() && at->first.first == shard; ++at) {
      entries.push_back(StoredEntry{at->second.name, at->second.stored_bytes});
    }
  }
  for (const StoredEntry& entry : entries) visit(entry);
  return ok_status();
}

void FakeStore::fail_next(FakeCall call, std::uint64_t count, Error error) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  state_->plans.erase(call);
  if (count > 0) state_->plans.emplace(call, std::make_pair(count, std::move(error)));
}

void FakeStore::set_capacity_bytes(std::uint64_t capacity_bytes) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  state_->capacity_bytes = capacity_bytes;
}

void FakeStore::flip_bit(const BlobName& name, std::uint64_t chunk_index, std::size_t byte_index) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  const auto found = state_->blobs.find(State::key_of(name));
  CMS_ASSERT(found != state_->blobs.end());
  std::shared_ptr<Chunk>& chunk = found->second.chunks.at(chunk_index);
  CMS_ASSERT(chunk != nullptr && byte_index < chunk->size());
  (*chunk)[byte_index] ^= 1;
}

void FakeStore::unsync(const BlobName& name) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  const auto found = state_->blobs.find(State::key_of(name));
  CMS_ASSERT(found != state_->blobs.end());
  found->second.durable = false;
}

void FakeStore::crash(bool undo_removals) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  ++state_->life;
  state_->opened = false;
  if (undo_removals) {
    for (Blob& blob : state_->removed) state_->blobs.emplace(State::key_of(blob.name), std::move(blob));
  }
  state_->removed.clear();
  for (auto at = state_->blobs.begin(); at != state_->blobs.end();) {
    at = at->second.durable ? std::next(at) : state_->blobs.erase(at);
  }
  state_->used_bytes = 0;
  for (const auto& [key, blob] : state_->blobs) state_->used_bytes += blob.stored_bytes;
  for (const auto& [key, entry] : state_->quarantined) state_->used_bytes += entry.stored_bytes;
}

std::size_t FakeStore::blob_count() const {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->blobs.size();
}

}  // namespace cms::storage
