// A whole file of the store, as the directory store reads it. Digests would stop every change at the
// first gate, so each input is read twice: as it is, and with its digests made right, as a forger
// would.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "manifest_generated.h"
#include "storage/blob_file.h"
#include "storage/directory/blob_io.h"
#include "test/fuzz/fuzz.h"
#include "test/fuzz/limits.h"
#include "test/fuzz/samples.h"

namespace cms::fuzz {
namespace {

using storage::BlobName;
using storage::kBlobHeaderBytes;
using storage::kBlobTrailerBytes;
using wire::Bytes;

constexpr std::size_t kHeaderDigestAt = 48;  // docs/formats/blob-file.md
constexpr std::size_t kManifestDigestAt = 8;
constexpr std::size_t kFileBytesAt = 24;
constexpr std::size_t kTrailerDigestAt = 40;

void put_digest(std::uint8_t* target, const Digest& digest) {
  for (std::size_t i = 0; i < 8; ++i) {
    target[i] = static_cast<std::uint8_t>(digest.high >> (56 - 8 * i));
    target[8 + i] = static_cast<std::uint8_t>(digest.low >> (56 - 8 * i));
  }
}

std::uint64_t little_endian(const std::uint8_t* bytes) {
  std::uint64_t value = 0;
  for (int i = 7; i >= 0; --i) value = value << 8 | bytes[i];
  return value;
}

// The blob digest within a manifest, where it stands; the manifest must be aligned.
void forge_blob_digest(std::uint8_t* manifest, std::size_t size_bytes) {
  flatbuffers::Verifier verifier(manifest, size_bytes);
  if (!verifier.VerifyBuffer<fb::Manifest>(nullptr)) return;
  const auto* root = flatbuffers::GetRoot<fb::Manifest>(manifest);
  if (root->blob_digest() == nullptr || root->chunk_digests() == nullptr) return;
  const Digest digest = digest_of(root->chunk_digests()->data(), root->chunk_digests()->size());
  const fb::Id128 value(digest.high, digest.low);
  const auto at = reinterpret_cast<const std::uint8_t*>(root->blob_digest()) - manifest;
  std::memcpy(manifest + at, &value, sizeof(value));
}

// Where the manifest of `file` stands, by its trailer; empty when that cannot be.
struct Range {
  std::size_t at = 0;
  std::size_t size_bytes = 0;
};
Range manifest_range(const Bytes& file) {
  const std::uint64_t size_bytes = little_endian(file.data() + file.size() - kBlobTrailerBytes);
  if (size_bytes > file.size() - kBlobHeaderBytes - kBlobTrailerBytes) return {};
  return {file.size() - kBlobTrailerBytes - size_bytes, size_bytes};
}

Bytes forged(Bytes file) {
  if (file.size() < kBlobHeaderBytes + kBlobTrailerBytes) return file;
  put_digest(file.data() + kHeaderDigestAt, digest_of(file.data(), kHeaderDigestAt));
  const Range range = manifest_range(file);
  if (range.size_bytes > 0) {
    std::vector<std::uint64_t> aligned(range.size_bytes / 8 + 1);
    auto* manifest = reinterpret_cast<std::uint8_t*>(aligned.data());
    std::memcpy(manifest, file.data() + range.at, range.size_bytes);
    forge_blob_digest(manifest, range.size_bytes);
    std::memcpy(file.data() + range.at, manifest, range.size_bytes);
  }
  std::uint8_t* trailer = file.data() + file.size() - kBlobTrailerBytes;
  put_digest(trailer + kManifestDigestAt, digest_of(file.data() + range.at, range.size_bytes));
  for (std::size_t i = 0; i < 8; ++i) {
    trailer[kFileBytesAt + i] = static_cast<std::uint8_t>(file.size() >> (8 * i));
  }
  put_digest(trailer + kTrailerDigestAt, digest_of(trailer, kTrailerDigestAt));
  return file;
}

// The name that fits what the file says of itself; that of the sample when it says nothing.
BlobName name_for(const Bytes& file) {
  BlobName name = sample_blob_name();
  if (file.size() < kBlobHeaderBytes + kBlobTrailerBytes) return name;
  storage::BlobHeaderBytes header_bytes;
  std::copy_n(file.begin(), kBlobHeaderBytes, header_bytes.begin());
  const auto header = storage::decode_header(header_bytes);
  const Range range = manifest_range(file);
  const auto manifest = wire::decode_manifest(file.data() + range.at, range.size_bytes);
  if (!header.ok() || !manifest.ok()) return name;
  name.kind = header->kind;
  name.size_bytes = header->size_bytes;
  name.uid = header->uid;
  name.checkpoint.program = ProgramKey{manifest->session.ecu_mac, manifest->notification.program_id};
  name.checkpoint.version = Version{manifest->session.incarnation, manifest->notification.seq};
  name.lineage = manifest->notification.lineage;
  name.owner_epoch = manifest->notification.owner_epoch;
  return name;
}

Result<std::unique_ptr<storage::BlobReader>> open(const Bytes& file, const BlobName& name) {
  storage::UniqueFd fd(::memfd_create("blob", MFD_CLOEXEC));
  CMS_ASSERT(fd.valid());
  CMS_ASSERT(::write(fd.get(), file.data(), file.size()) == static_cast<ssize_t>(file.size()));
  return storage::read_blob_file(std::move(fd), name, "blob");
}

void expect_refused(const Bytes& file, const BlobName& name) {
  const auto reader = open(file, name);
  CMS_FUZZ_HOLDS(!reader.ok(), "read under the name of another: " + to_file_name(name));
  expect_printable_error(reader.error(), {Code::kCorrupt, Code::kUnsupported}, 2048);
}

void expect_chunk(storage::BlobReader& reader, std::uint64_t index) {
  const wire::Manifest& manifest = reader.manifest();
  const std::uint32_t length = storage::chunk_length(manifest, index);
  CMS_FUZZ_HOLDS(length <= manifest.chunk_size_bytes, std::to_string(length));
  const std::unique_ptr<std::uint8_t[]> chunk(new std::uint8_t[length]);
  const auto got = reader.read_chunk(index, chunk.get());
  if (!got.ok()) {
    expect_printable_error(got.error(), {Code::kCorrupt}, 2048);
    return;
  }
  CMS_FUZZ_HOLDS(*got == length, std::to_string(*got));
  CMS_FUZZ_HOLDS(digest_of(chunk.get(), length) == manifest.chunk_digests[index], "chunk read");
}

bool read(const Bytes& file) {
  const BlobName name = name_for(file);
  const auto reader = open(file, name);
  if (!reader.ok()) {
    expect_printable_error(reader.error(), {Code::kCorrupt, Code::kUnsupported}, 2048);
    return false;
  }
  const wire::Manifest& manifest = reader.value()->manifest();
  CMS_FUZZ_HOLDS(fits(manifest), "a manifest beyond a limit");
  CMS_FUZZ_HOLDS(storage::check_name_and_manifest(name, manifest).ok(), to_file_name(name));
  // The first chunks and the last: all of a large one would take too long.
  const std::uint64_t count = manifest.chunk_digests.size();
  for (std::uint64_t i = 0; i < std::min<std::uint64_t>(count, 3); ++i) expect_chunk(*reader.value(), i);
  expect_chunk(*reader.value(), count - 1);
  CMS_FUZZ_HOLDS(!reader.value()->read_chunk(count, nullptr).ok(), "a chunk beyond the last");

  // What we would write of it is read as well.
  const auto offsets = storage::chunk_offsets(manifest);
  CMS_FUZZ_HOLDS(offsets.size() == count + 1 && std::is_sorted(offsets.begin(), offsets.end()), "offsets");
  Bytes again(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(offsets.back()));
  const Bytes footer = storage::encode_footer(manifest, offsets.back());
  CMS_FUZZ_HOLDS(footer.size() <= storage::manifest_bytes_max(count) + kBlobTrailerBytes, "footer");
  again.insert(again.end(), footer.begin(), footer.end());
  CMS_FUZZ_HOLDS(open(again, name).ok(), "written again");

  BlobName other = name;
  other.uid ^= 1;
  expect_refused(file, other);
  other = name;
  other.checkpoint.version.seq ^= 1;
  expect_refused(file, other);
  other = name;
  other.kind =
      name.kind == storage::EntryKind::kBlob ? storage::EntryKind::kTombstone : storage::EntryKind::kBlob;
  expect_refused(file, other);
  return true;
}

}  // namespace

bool take(const std::uint8_t* data, std::size_t size_bytes) {
  const Bytes file(data, data + size_bytes);
  const bool taken = read(file);
  (void)read(forged(file));
  return taken;
}

}  // namespace cms::fuzz
