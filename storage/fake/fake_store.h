#pragma once
// FakeStore keeps blobs in memory, for simulators and for tests of what uses a store. It passes the
// same contract tests as the real adapters, and fails, fills up, tears and crashes on command.
//
// A host crash loses what was not durable: bytes of unpublished writers go, names that were left unsynced
// go, and, as on a real file system, removed blobs may come back, because removals are not synced.
// Threads: thread-safe. Deterministic: draws no random numbers, reads no clock.
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "storage/blob_store.h"

namespace cms::storage {

// Which calls a planned failure hits.
enum class FakeCall : std::uint8_t {
  kAny,
  kOpenStore,
  kProbe,
  kSpace,
  kCreate,
  kAppend,
  kPublish,
  kPutSmall,
  kPutTombstone,
  kPutPin,
  kOpen,
  kReadChunk,
  kRemove,
  kContains,
  kMakeDurable,
  kQuarantine,
  kList
};

class FakeStore final : public BlobStore {
 public:
  explicit FakeStore(std::string fleet_id = "00000000000000000000000000000001");
  ~FakeStore() override;

  Status open_store() override;
  Status probe() override;
  Result<SpaceInfo> space() override;
  std::string fleet_id() const override;
  Result<std::unique_ptr<BlobWriter>> create(const BlobName& name, wire::Manifest manifest) override;
  std::vector<Status> put_small(const std::vector<SmallBlob>& blobs) override;
  Status put_tombstone(const BlobName& name) override;
  Status put_pin(const BlobName& name) override;
  Result<std::unique_ptr<BlobReader>> open(const BlobName& name) override;
  Status remove(const BlobName& name) override;
  Result<bool> contains(const BlobName& name) override;
  std::vector<Status> make_durable(const std::vector<BlobName>& names) override;
  Status quarantine(const BlobName& name, const std::string& why) override;
  Status list_quarantine(const std::function<void(const StoredEntry&)>& visit) override;
  Status list(std::uint32_t shard, const std::function<void(const StoredEntry&)>& visit,
              std::uint64_t* unknown) override;

  // The next `count` calls of that kind fail with `error` and do nothing; replaces an earlier plan for
  // the kind. put_small and make_durable count each blob.
  void fail_next(FakeCall call, std::uint64_t count, Error error);
  // Less room than the blobs in it take is allowed: then it is full.
  void set_capacity_bytes(std::uint64_t capacity_bytes);
  // Inverts one bit of a stored chunk, which must exist and not be all zero.
  void flip_bit(const BlobName& name, std::uint64_t chunk_index, std::size_t byte_index);
  // As if whoever gave this name had died before it was durable: it is there, and goes with the next crash
  // unless make_durable was called for it.
  void unsync(const BlobName& name);
  // The host dies and comes back: writers and readers of before fail with kUnavailable, the store
  // must be opened again. With `undo_removals`, blobs removed since the last crash are back.
  void crash(bool undo_removals = false);
  std::size_t blob_count() const;

  struct State;  // Shared with writers and readers; in the .cc.

 private:
  std::shared_ptr<State> state_;
};

}  // namespace cms::storage
