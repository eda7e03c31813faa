#pragma once
// The BlobSources of the client: where a publisher's bytes lie until a CMS has them.
//
// Threads: made on the publisher's thread, in constant time; used on the client's; destroyed on any.
#include <cstdint>
#include <memory>
#include <utility>

#include "base/result.h"
#include "broker/core/blob_source.h"
#include "rtcr-client/src/memory.h"
#include "rtcr/rtcr.h"

namespace cms::client {

// Memory of the publisher, which learns by the callback when it is not used any more.
class UserMemory {
 public:
  UserMemory(const void* data, std::uint64_t size_bytes, rtcr_release_fn release, void* context)
      : data_(data), size_bytes_(size_bytes), release_(release), context_(context) {}
  UserMemory(const UserMemory&) = delete;
  UserMemory& operator=(const UserMemory&) = delete;
  ~UserMemory();
  // It was not taken: the callback is not called.
  void disown() { release_ = nullptr; }

 private:
  const void* data_;
  std::uint64_t size_bytes_;
  rtcr_release_fn release_;
  void* context_;
};

// Bytes that do not change for as long as `owner` lives.
std::unique_ptr<broker::BlobSource> make_memory_source(std::shared_ptr<const void> owner, const void* data,
                                                       std::uint64_t memory_bytes);
// An allocation that was published; becomes read-only when it is first looked at.
class AllocationSource final : public broker::BlobSource {
 public:
  explicit AllocationSource(std::shared_ptr<Mapping> mapping) : mapping_(std::move(mapping)) {}
  Result<broker::ChunkView> view(std::uint64_t offset_bytes, std::size_t size_bytes) override;
  std::uint64_t memory_bytes() const override { return mapping_->size_bytes(); }
  // It was not taken after all; the source is of no use afterwards.
  std::shared_ptr<Mapping> give_back() { return std::move(mapping_); }

 private:
  std::shared_ptr<Mapping> mapping_;
  bool read_only_ = false;
};
// Holds nothing and claims `memory_bytes`, more than the budget, so that the core refuses it with the
// receipt that says so.
std::unique_ptr<broker::BlobSource> make_refused_source(std::uint64_t memory_bytes);

struct FileSource {
  std::unique_ptr<broker::BlobSource> source{};
  std::uint64_t size_bytes = 0;
};
// A regular file, read by pread when it is pulled, or a sealed memfd, mapped. `fd` is duplicated.
// kInvalidArgument: not a regular file, or not open for reading. kLimit: out of descriptors.
// Views: kSourceChanged once the file is not as it was here.
Result<FileSource> make_file_source(int fd);

}  // namespace cms::client
