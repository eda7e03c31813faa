#pragma once
// Names, manifests and bytes for tests of stores and indexes.
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "storage/blob_store.h"

namespace cms::storage::testing {

using Data = std::vector<unsigned char>;

inline constexpr std::uint32_t kChunkBytes = wire::kChunkSizeBytesMin;

// A name of program `program_id` of ECU 02:00:00:00:00:01, lineage as computed by all.
BlobName make_name(std::uint64_t program_id, std::uint64_t seq, std::uint64_t size_bytes);
wire::Manifest make_manifest(const BlobName& name, std::uint32_t chunk_size_bytes = kChunkBytes);
// Bytes that no codec makes smaller, the same for the same seed.
Data make_data(std::uint64_t seed, std::size_t size_bytes);

struct Sample {
  BlobName name;
  Data data;
};
Sample make_sample(std::uint64_t program_id, std::uint64_t seq, std::size_t size_bytes);
// Refers to the sample's bytes.
SmallBlob small_blob_of(const Sample& sample);

// Through a writer, chunk by chunk.
Status publish(BlobStore& store, const Sample& sample);
Result<Data> read_back(BlobStore& store, const BlobName& name);
std::vector<StoredEntry> list_all(BlobStore& store);

// A directory that goes away with everything in it, below $TMPDIR if set, else in memory (/dev/shm: a
// store makes thousands of directories), else in /tmp.
class TempDir {
 public:
  TempDir();
  explicit TempDir(const std::string& base);
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir();
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Runs `work` in a forked child and returns its wait status; it exits with 1 when an expectation in
// it failed (and has printed it). The parent should have no threads.
int run_in_child(const std::function<void()>& work);
bool exited_well(int wait_status);
bool was_killed(int wait_status);
// Makes the calling (child) process able to mount, which nobody else then sees: as root at once, as a
// plain user by a namespace of its own. False: this system forbids it.
bool enter_private_mounts();

}  // namespace cms::storage::testing
