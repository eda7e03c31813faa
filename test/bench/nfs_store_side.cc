#include "test/bench/nfs_store_side.h"

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "base/prng.h"
#include "test/bench/bench.h"

namespace cms::bench {
namespace {

constexpr std::uint32_t kChunkBytes = 1024 * 1024;

[[noreturn]] void fail(const Error& error) {
  std::cerr << "nfs_bench: our store: " << error.message() << '\n';
  std::exit(1);
}

storage::BlobName name_of(std::uint64_t program_id, std::uint64_t size_bytes) {
  storage::BlobName name;
  name.checkpoint = CheckpointId{{EcuMac{0x020000000001}, program_id}, {1, 1}};
  name.lineage = lineage_of(name.checkpoint.program);
  name.size_bytes = size_bytes;
  name.uid = random_u64();
  return name;
}

wire::Manifest manifest_of(const storage::BlobName& name) {
  wire::Manifest manifest;
  manifest.session = SessionId{name.checkpoint.program.ecu_mac, name.checkpoint.version.incarnation};
  manifest.notification.program_id = name.checkpoint.program.program_id;
  manifest.notification.seq = name.checkpoint.version.seq;
  manifest.notification.lineage = name.lineage;
  manifest.notification.size_bytes = name.size_bytes;
  manifest.notification.chunk_size_bytes = kChunkBytes;
  manifest.chunk_size_bytes = kChunkBytes;
  return manifest;
}

class StoreSide : public Side {
 public:
  StoreSide(storage::BlobStore& store, std::string name) : store_(store), name_(std::move(name)) {}
  std::string name() const override { return name_; }
  void clean_up() override {
    for (const storage::BlobName& name : names_) {
      const Status removed = store_.remove(name);
      if (!removed.ok()) fail(removed.error());
    }
    names_.clear();
  }

 protected:
  void write(const Source& source) {
    const storage::BlobName name = name_of(1, source.size_bytes);
    auto writer = store_.create(name, manifest_of(name));
    if (!writer.ok()) fail(writer.error());
    for (std::uint64_t at = 0; at < source.size_bytes; at += kChunkBytes) {
      const std::size_t length = std::min<std::uint64_t>(kChunkBytes, source.size_bytes - at);
      const Digest digest = digest_of(static_cast<const char*>(source.data) + at, length);
      const Status appended = (*writer)->append(static_cast<const char*>(source.data) + at, length, digest);
      if (!appended.ok()) fail(appended.error());
    }
    const auto published = (*writer)->publish();
    if (!published.ok()) fail(published.error());
    names_.push_back(name);
  }

  storage::BlobStore& store_;
  std::vector<storage::BlobName> names_;

 private:
  const std::string name_;
};

class StoreWrite final : public StoreSide {
 public:
  explicit StoreWrite(storage::BlobStore& store) : StoreSide(store, "our store") {}
  double store(const Source& source) override {
    const Stopwatch watch;
    write(source);
    return watch.seconds();
  }
};

class StoreRead final : public StoreSide {
 public:
  explicit StoreRead(storage::BlobStore& store) : StoreSide(store, "our store") {}
  double store(const Source& source) override {
    write(source);
    std::vector<char> chunk(kChunkBytes);
    const Stopwatch watch;
    auto reader = store_.open(names_.back());
    if (!reader.ok()) fail(reader.error());
    const std::uint64_t count = (source.size_bytes + kChunkBytes - 1) / kChunkBytes;
    for (std::uint64_t i = 0; i < count; ++i) {
      const auto got = (*reader)->read_chunk(i, chunk.data());
      if (!got.ok()) fail(got.error());
    }
    return watch.seconds();
  }
};

class StoreMany final : public StoreSide {
 public:
  StoreMany(storage::BlobStore& store, std::size_t count, std::size_t group)
      : StoreSide(store, "our store, groups of " + std::to_string(group)), count_(count), group_(group) {}
  double store(const Source& source) override {
    const std::uint64_t size_bytes = source.size_bytes / count_;
    const Stopwatch watch;
    for (std::size_t first = 0; first < count_; first += group_) {
      std::vector<storage::SmallBlob> blobs;
      for (std::size_t i = first; i < std::min(count_, first + group_); ++i) {
        blobs.push_back(
            small_blob_of(i, 1, static_cast<const char*>(source.data) + i * size_bytes, size_bytes));
        names_.push_back(blobs.back().name);
      }
      for (const Status& status : store_.put_small(blobs)) {
        if (!status.ok()) fail(status.error());
      }
    }
    return watch.seconds();
  }

 private:
  const std::size_t count_;
  const std::size_t group_;
};

}  // namespace

storage::SmallBlob small_blob_of(std::uint64_t program_id, std::uint64_t seq, const void* data,
                                 std::uint64_t size_bytes) {
  storage::SmallBlob blob;
  blob.name = name_of(program_id, size_bytes);
  blob.name.checkpoint.version.seq = seq;
  blob.manifest = manifest_of(blob.name);
  blob.data = data;
  blob.size_bytes = size_bytes;
  blob.manifest.chunk_digests = {digest_of(data, size_bytes)};
  blob.manifest.zero_chunks = {false};
  blob.manifest.blob_digest = blob_digest_of(blob.manifest.chunk_digests);
  return blob;
}

std::unique_ptr<Side> make_store_write(storage::BlobStore& store) {
  return std::make_unique<StoreWrite>(store);
}
std::unique_ptr<Side> make_store_read(storage::BlobStore& store) {
  return std::make_unique<StoreRead>(store);
}
std::unique_ptr<Side> make_store_many(storage::BlobStore& store, std::size_t count, std::size_t group) {
  return std::make_unique<StoreMany>(store, count, group);
}

}  // namespace cms::bench
