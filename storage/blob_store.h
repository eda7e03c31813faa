#pragma once
// BlobStore keeps checkpoints on a medium that outlives this host: a directory, later the NAS over
// NFS. A blob is one file with a unique, never reused name that carries every key of the index, so
// that an index can be rebuilt from names alone. It is written in a private place, chunk by chunk,
// and appears under its name only when whole and durable. After a crash at any point it is either
// whole or absent. docs/formats/blob-file.md has the bytes.
//
// Threads: every call blocks on I/O; never call from a loop. One instance may be used from several
//   threads at once; one writer or reader from one thread at a time. Writers and readers must be
//   destroyed before their store.
// Errors: any call may return kUnavailable (store unreachable: retry), kIo, kPermission, kReadOnly;
//   others are listed at the call. After any error of a writer, destroy it: its bytes are dropped.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "schemas/messages.h"

namespace cms::storage {

// What a file in a shard is. A tombstone ends the life of a program: everything of the program up
// to and including its version is gone for good and must not be taken in again. A pin keeps the
// checkpoint that it names from being removed by retention.
enum class EntryKind : std::uint8_t { kBlob, kTombstone, kPin };

// What the name of a stored file says; equal to the index row's keys.
struct BlobName {
  EntryKind kind = EntryKind::kBlob;
  CheckpointId checkpoint{};
  Lineage lineage{};
  OwnerEpoch owner_epoch = 0;
  std::uint64_t size_bytes = 0;  // Of the checkpoint, not of the file.
  std::uint64_t uid = 0;         // Random; two stores of one checkpoint have two.
};
bool operator==(const BlobName& a, const BlobName& b);
std::string to_file_name(const BlobName& name);
// kCorrupt: not a name that to_file_name makes.
Result<BlobName> parse_file_name(const std::string& file_name);
// The pin of a stored checkpoint, whichever of its blobs is given: size and uid are 0.
BlobName pin_name_of(const BlobName& blob);

inline constexpr std::uint32_t kShardCount = 4096;
// By lineage, so that a moved program stays in its shard: the 12 highest bits.
constexpr std::uint32_t shard_of(const Lineage& lineage) {
  return static_cast<std::uint32_t>(lineage.high >> 52);
}

struct StoredEntry {
  BlobName name;
  std::uint64_t stored_bytes = 0;  // Of the file.
};

struct SpaceInfo {
  std::uint64_t total_bytes = 0;
  std::uint64_t free_bytes = 0;  // For us, without the reserve of root.
};

// A blob of a single chunk, put together with others.
struct SmallBlob {
  BlobName name;
  wire::Manifest manifest;  // Digests included; the store believes them (the caller checked).
  const void* data = nullptr;
  std::size_t size_bytes = 0;
};

class BlobWriter {
 public:
  virtual ~BlobWriter() = default;  // Not published? The bytes are dropped.
  // Appends the next chunk in order, exactly chunk_size_bytes of the manifest but for the last;
  // `data` is not kept after return. A chunk that is all zero takes no space. Starts write-back
  // early, so that publish() has little left to wait for.
  // kNoSpace, kQuota: nothing of this chunk is kept; destroy the writer, try again later.
  virtual Status append(const void* data, std::size_t size_bytes, const Digest& digest) = 0;
  // Makes the bytes and then the name durable; only then can open() and list() see it. Call once,
  // last. The manifest is the one given to create, completed here with digests and zero bits;
  // returns it. kInvalidArgument: fewer or more bytes were appended than the name says.
  virtual Result<wire::Manifest> publish() = 0;
};

class BlobReader {
 public:
  virtual ~BlobReader() = default;
  virtual const wire::Manifest& manifest() const = 0;
  // Fills `target` (at least chunk_size_bytes) with chunk `index` and returns its length, after
  // its digest has been checked. kCorrupt: use nothing of `target`. kNotFound: removed meanwhile.
  virtual Result<std::size_t> read_chunk(std::uint64_t index, void* target) = 0;
};

class BlobStore {
 public:
  virtual ~BlobStore() = default;

  // Makes the store usable: checks that it is ours and of a format we know, or initialises an empty
  // one, makes our private directory and sweeps what our dead incarnations left. Call before all
  // else, again after kUnavailable; idempotent.
  // kNotFound: the place itself does not exist. kForeign: it is not empty and has no FORMAT.
  // kUnsupported: of a newer format. Nothing has been changed after these.
  virtual Status open_store() = 0;
  // Proves that a write reaches the medium (a small file is written, synced, removed).
  // kNoSpace: not even the smallest blob would be taken.
  virtual Status probe() = 0;
  virtual Result<SpaceInfo> space() = 0;
  virtual std::string fleet_id() const = 0;  // From FORMAT; empty before open_store.

  // Starts a blob. `manifest` has everything but digests, zero bits and blob digest.
  // kNoSpace: less is free than the blob needs.
  virtual Result<std::unique_ptr<BlobWriter>> create(const BlobName& name, wire::Manifest manifest) = 0;
  // Publishes many small blobs at the price of a few syncs (group commit): after return each has
  // its own result; an ok one is as durable as after BlobWriter::publish.
  virtual std::vector<Status> put_small(const std::vector<SmallBlob>& blobs) = 0;
  // Publishes a tombstone, durable on return. Idempotent but for its uid.
  virtual Status put_tombstone(const BlobName& name) = 0;
  // Publishes a pin (pin_name_of), durable on return. Idempotent.
  virtual Status put_pin(const BlobName& name) = 0;

  // kNotFound: no such blob. kCorrupt, kUnsupported: header or footer cannot be used.
  virtual Result<std::unique_ptr<BlobReader>> open(const BlobName& name) = 0;
  virtual Status remove(const BlobName& name) = 0;  // Idempotent: an absent one is success.
  // Whether an entry of this name, of whatever kind, is there; opens nothing.
  virtual Result<bool> contains(const BlobName& name) = 0;
  // The same of many, each with its own result; where each is a wait, side by side.
  virtual std::vector<Status> remove_many(const std::vector<BlobName>& names);
  virtual std::vector<Result<bool>> contains_many(const std::vector<BlobName>& names);
  // Makes names last that somebody else gave, and may not have lived to make durable (what list() shows):
  // an ok one is then as durable as after BlobWriter::publish. Each has its own result; kNotFound: there
  // is no such name. Cheapest with many at once.
  virtual std::vector<Status> make_durable(const std::vector<BlobName>& names) = 0;
  // Takes an entry that must not be read any more out of its shard, for a person to look at: it moves
  // to quarantine/ under its name, with `why` as text beside it. Idempotent: an absent one is success.
  virtual Status quarantine(const BlobName& name, const std::string& why) = 0;
  // Calls `visit` for each entry in quarantine, in no order.
  virtual Status list_quarantine(const std::function<void(const StoredEntry&)>& visit) = 0;

  // Calls `visit` for each entry of a shard, in no order; files that are not ours to read are
  // counted in *`unknown` (may be null) and left alone. A name published before the call and not
  // removed meanwhile is among them.
  virtual Status list(std::uint32_t shard, const std::function<void(const StoredEntry&)>& visit,
                      std::uint64_t* unknown) = 0;

  // Gives what ends the calls of this store for good, for the end of a process whose medium may never answer
  // again: those under way end soon and later ones at once, with kUnavailable where an answer would have
  // to be waited for. It may be called by any thread, also while the store is destroyed and afterwards.
  // What waits in the kernel of this host (a directory) cannot be ended.
  virtual std::function<void()> call_ender() {
    return [] {};
  }
};

// Where a store is, in the form of --store: file:///DIR, or nfs://HOST/EXPORT with parameters
// (storage/nfs/nfs_url.h). kInvalidArgument names what is allowed. `node` is the cmsd's name (letters, digits, '-', '_', '.', at most 64), `node_incarnation`
// random at every start.
Status check_store_url(const std::string& url);

struct StoreOptions {
  std::string url;
  std::string node;
  std::uint64_t node_incarnation = 0;
};
Result<std::unique_ptr<BlobStore>> make_blob_store(const StoreOptions& options);

}  // namespace cms::storage
