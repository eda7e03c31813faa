#pragma once
// BlobSource is the seam between the core and the place where a publisher's bytes lie: memory that
// was handed over, a copy, a file. The bytes must not change while the source lives.
#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/result.h"

namespace cms::broker {

// A piece of a blob. `data` is valid for as long as `owner` lives.
struct ChunkView {
  const void* data = nullptr;
  std::size_t size_bytes = 0;
  std::shared_ptr<const void> owner{};
};

// Threads: used by the core's thread only; destroyed wherever the last ChunkView goes, which may be
// a thread of the transport. The destructor gives the memory back to the publisher.
class BlobSource {
 public:
  BlobSource() = default;
  BlobSource(const BlobSource&) = delete;
  BlobSource& operator=(const BlobSource&) = delete;
  virtual ~BlobSource() = default;

  // The bytes [offset_bytes, offset_bytes + size_bytes), which the caller keeps inside the blob.
  // kSourceChanged: the file was altered; the blob is worthless. kIo: could not be read.
  virtual Result<ChunkView> view(std::uint64_t offset_bytes, std::size_t size_bytes) = 0;
  // What it takes from the memory budget.
  virtual std::uint64_t memory_bytes() const = 0;
};

}  // namespace cms::broker
