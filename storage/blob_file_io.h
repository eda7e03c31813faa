#pragma once
// BlobWriter and BlobReader of an adapter that keeps each blob in one file: everything but the I/O.
// The adapter says how bytes get to a place in the file and back, and how the whole becomes durable.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "storage/blob_file.h"
#include "storage/blob_store.h"

namespace cms::storage {

class BlobFileWriter : public BlobWriter {
 public:
  BlobFileWriter(const BlobFileWriter&) = delete;
  BlobFileWriter& operator=(const BlobFileWriter&) = delete;

  // To be called once, first.
  Status write_header();
  Status append(const void* data, std::size_t size_bytes, const Digest& digest) final;
  Result<wire::Manifest> publish() final;

 protected:
  BlobFileWriter(const BlobName& name, wire::Manifest manifest);

  // The bytes of one step; they come without gaps. kNotFound means that our private directory has gone.
  virtual Status write_at(const void* data, std::size_t size_bytes, std::uint64_t offset_bytes) = 0;
  // All bytes have been written, `file_bytes` of them: makes them durable, then gives the name.
  virtual Status make_durable(std::uint64_t file_bytes) = 0;

  const BlobName& name() const { return name_; }

 private:
  Status keep(Status status);

  const BlobName name_;
  wire::Manifest manifest_;
  const std::uint64_t chunk_count_;
  std::uint64_t offset_bytes_ = kBlobHeaderBytes;
  Status status_;  // The first error; it stays.
};

// Fills `target` from `offset_bytes` on and returns how many bytes there were: fewer than asked only at
// the end of the file.
using ReadAt =
    std::function<Result<std::size_t>(void* target, std::size_t size_bytes, std::uint64_t offset_bytes)>;

// The manifest of a file of `file_bytes`, after everything around it has been checked. kCorrupt,
// kUnsupported; errors of `read_at` as they are. `path` is for people.
Result<wire::Manifest> read_manifest(const BlobName& name, std::uint64_t file_bytes, const std::string& path,
                                     const ReadAt& read_at);

class BlobFileReader : public BlobReader {
 public:
  BlobFileReader(const BlobFileReader&) = delete;
  BlobFileReader& operator=(const BlobFileReader&) = delete;

  const wire::Manifest& manifest() const final { return manifest_; }
  Result<std::size_t> read_chunk(std::uint64_t index, void* target) final;

 protected:
  BlobFileReader(std::string path, wire::Manifest manifest);

  // The stored bytes of chunk `index`, which is not all zero; as ReadAt.
  virtual Result<std::size_t> read_stored_chunk(std::uint64_t index, void* target) = 0;

  const std::string& path() const { return path_; }
  std::uint64_t chunk_count() const { return manifest_.chunk_digests.size(); }
  std::uint64_t offset_of(std::uint64_t index) const { return offsets_[index]; }

 private:
  Error corrupt(std::uint64_t index, const char* what) const;

  const std::string path_;
  const wire::Manifest manifest_;
  const std::vector<std::uint64_t> offsets_;
};

// Inside an open store a missing directory means that somebody took it away: retry after
// open_store. Files that may rightly be absent do not pass here.
Status absent_is_unavailable(Status status);

}  // namespace cms::storage
