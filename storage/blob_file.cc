#include "storage/blob_file.h"

#include <algorithm>
#include <cstring>
#include <string>

namespace cms::storage {
namespace {

// A byte above 127, CR LF and ^Z: a transfer that treats the file as text shows at once.
constexpr std::array<unsigned char, 8> kHeaderMagic = {0x89, 'C', 'M', 'S', 'B', '\r', '\n', 0x1a};
constexpr std::array<unsigned char, 8> kEndMagic = {'C', 'M', 'S', 'E', 'N', 'D', '\r', '\n'};

constexpr std::uint32_t kFlagTombstone = 1;
constexpr std::uint32_t kFlagPin = 2;

// Offsets within the header.
constexpr std::size_t kAtVersion = 8;
constexpr std::size_t kAtHeaderBytes = 10;
constexpr std::size_t kAtFlags = 12;
constexpr std::size_t kAtChunkSize = 16;
constexpr std::size_t kAtSize = 24;
constexpr std::size_t kAtUid = 32;
constexpr std::size_t kAtHeaderDigest = 48;
// Offsets within the trailer.
constexpr std::size_t kAtManifestBytes = 0;
constexpr std::size_t kAtManifestDigest = 8;
constexpr std::size_t kAtFileBytes = 24;
constexpr std::size_t kAtTrailerDigest = 40;
constexpr std::size_t kAtEndMagic = 56;

template <typename Bytes>
void put_le(Bytes& bytes, std::size_t at, std::uint64_t value, std::size_t octets) {
  for (std::size_t i = 0; i < octets; ++i) bytes[at + i] = static_cast<unsigned char>(value >> (8 * i));
}

template <typename Bytes>
std::uint64_t get_le(const Bytes& bytes, std::size_t at, std::size_t octets) {
  std::uint64_t value = 0;
  for (std::size_t i = octets; i-- > 0;) value = value << 8 | bytes[at + i];
  return value;
}

// Digests stand in canonical form, most significant byte first, as xxhsum prints them.
template <typename Bytes>
void put_digest(Bytes& bytes, std::size_t at, const Digest& digest) {
  for (std::size_t i = 0; i < 8; ++i) {
    bytes[at + i] = static_cast<unsigned char>(digest.high >> (8 * (7 - i)));
    bytes[at + 8 + i] = static_cast<unsigned char>(digest.low >> (8 * (7 - i)));
  }
}

template <typename Bytes>
Digest get_digest(const Bytes& bytes, std::size_t at) {
  Digest digest;
  for (std::size_t i = 0; i < 8; ++i) {
    digest.high = digest.high << 8 | bytes[at + i];
    digest.low = digest.low << 8 | bytes[at + 8 + i];
  }
  return digest;
}

std::uint32_t flags_of(EntryKind kind) {
  switch (kind) {
    case EntryKind::kBlob: break;
    case EntryKind::kTombstone: return kFlagTombstone;
    case EntryKind::kPin: return kFlagPin;
  }
  return 0;
}

Error corrupt(const std::string& what) { return make_error(Code::kCorrupt, what); }

}  // namespace

BlobHeaderBytes encode_header(const BlobHeader& header) {
  BlobHeaderBytes bytes{};
  std::copy(kHeaderMagic.begin(), kHeaderMagic.end(), bytes.begin());
  put_le(bytes, kAtVersion, kBlobFormatVersion, 2);
  put_le(bytes, kAtHeaderBytes, kBlobHeaderBytes, 2);
  put_le(bytes, kAtFlags, flags_of(header.kind), 4);
  put_le(bytes, kAtChunkSize, header.chunk_size_bytes, 4);
  put_le(bytes, kAtSize, header.size_bytes, 8);
  put_le(bytes, kAtUid, header.uid, 8);
  put_digest(bytes, kAtHeaderDigest, digest_of(bytes.data(), kAtHeaderDigest));
  return bytes;
}

Result<BlobHeader> decode_header(const BlobHeaderBytes& bytes) {
  if (!std::equal(kHeaderMagic.begin(), kHeaderMagic.end(), bytes.begin())) {
    return corrupt("header: not a stored checkpoint (wrong magic)");
  }
  // Before the version: the digest stays in its place in every version.
  if (get_digest(bytes, kAtHeaderDigest) != digest_of(bytes.data(), kAtHeaderDigest)) {
    return corrupt("header: digest does not match");
  }
  const std::uint64_t version = get_le(bytes, kAtVersion, 2);
  if (version > kBlobFormatVersion) {
    return make_error(Code::kUnsupported, "blob format " + std::to_string(version) +
                                              "; this program knows up to " +
                                              std::to_string(kBlobFormatVersion));
  }
  if (version == 0 || get_le(bytes, kAtHeaderBytes, 2) != kBlobHeaderBytes) {
    return corrupt("header: impossible version or length");
  }
  const std::uint64_t flags = get_le(bytes, kAtFlags, 4);
  BlobHeader header;
  for (const EntryKind kind : {EntryKind::kBlob, EntryKind::kTombstone, EntryKind::kPin}) {
    if (flags == flags_of(kind)) header.kind = kind;
  }
  if (flags != flags_of(header.kind)) {
    return make_error(Code::kUnsupported, "blob flags " + std::to_string(flags) + "; this program knows 0, " +
                                              std::to_string(kFlagTombstone) + " and " +
                                              std::to_string(kFlagPin));
  }
  header.chunk_size_bytes = static_cast<std::uint32_t>(get_le(bytes, kAtChunkSize, 4));
  header.size_bytes = get_le(bytes, kAtSize, 8);
  header.uid = get_le(bytes, kAtUid, 8);
  if (header.chunk_size_bytes < wire::kChunkSizeBytesMin ||
      header.chunk_size_bytes > wire::kChunkSizeBytesMax || header.size_bytes > wire::kBlobSizeBytesMax ||
      wire::chunk_count_of(header.size_bytes, header.chunk_size_bytes) > kChunkCountMax) {
    return corrupt("header: sizes beyond the limits");
  }
  return header;
}

BlobTrailerBytes encode_trailer(const BlobTrailer& trailer) {
  BlobTrailerBytes bytes{};
  put_le(bytes, kAtManifestBytes, trailer.manifest_bytes, 8);
  put_digest(bytes, kAtManifestDigest, trailer.manifest_digest);
  put_le(bytes, kAtFileBytes, trailer.file_bytes, 8);
  put_digest(bytes, kAtTrailerDigest, digest_of(bytes.data(), kAtTrailerDigest));
  std::copy(kEndMagic.begin(), kEndMagic.end(), bytes.begin() + kAtEndMagic);
  return bytes;
}

Result<BlobTrailer> decode_trailer(const BlobTrailerBytes& bytes) {
  if (!std::equal(kEndMagic.begin(), kEndMagic.end(), bytes.begin() + kAtEndMagic)) {
    return corrupt("trailer: the file does not end as a stored checkpoint does (cut off?)");
  }
  if (get_digest(bytes, kAtTrailerDigest) != digest_of(bytes.data(), kAtTrailerDigest)) {
    return corrupt("trailer: digest does not match");
  }
  BlobTrailer trailer;
  trailer.manifest_bytes = get_le(bytes, kAtManifestBytes, 8);
  trailer.manifest_digest = get_digest(bytes, kAtManifestDigest);
  trailer.file_bytes = get_le(bytes, kAtFileBytes, 8);
  return trailer;
}

wire::Bytes encode_footer(const wire::Manifest& manifest, std::uint64_t offset_bytes) {
  wire::Bytes footer = wire::encode(manifest);
  BlobTrailer trailer;
  trailer.manifest_bytes = footer.size();
  trailer.manifest_digest = digest_of(footer.data(), footer.size());
  trailer.file_bytes = offset_bytes + footer.size() + kBlobTrailerBytes;
  const BlobTrailerBytes bytes = encode_trailer(trailer);
  footer.insert(footer.end(), bytes.begin(), bytes.end());
  return footer;
}

std::uint64_t manifest_bytes_max(std::uint64_t chunk_count) {
  return 16 * 1024 + chunk_count * 16 + (chunk_count + 7) / 8;  // strings and fields, digests, zero bits
}

std::uint64_t blob_file_bytes_max(const BlobName& name, std::uint32_t chunk_size_bytes) {
  return kBlobHeaderBytes + name.size_bytes +
         manifest_bytes_max(wire::chunk_count_of(name.size_bytes, chunk_size_bytes)) + kBlobTrailerBytes;
}

std::uint64_t blob_file_bytes(const wire::Manifest& manifest) {
  const std::uint64_t chunks_end = chunk_offsets(manifest).back();
  return chunks_end + encode_footer(manifest, chunks_end).size();
}

Status check_name_and_manifest(const BlobName& name, const wire::Manifest& manifest) {
  const wire::Notification& notification = manifest.notification;
  const CheckpointId said{{manifest.session.ecu_mac, notification.program_id},
                          {manifest.session.incarnation, notification.seq}};
  if (said != name.checkpoint || notification.lineage != name.lineage ||
      notification.owner_epoch != name.owner_epoch || notification.size_bytes != name.size_bytes) {
    return make_error(Code::kInvalidArgument,
                      "the manifest of " + to_string(said) + " does not belong to " + to_file_name(name));
  }
  const std::uint32_t chunk_size = manifest.chunk_size_bytes;
  if (chunk_size < wire::kChunkSizeBytesMin || chunk_size > wire::kChunkSizeBytesMax) {
    return make_error(Code::kInvalidArgument, "chunk_size_bytes " + std::to_string(chunk_size) +
                                                  " is not from " + std::to_string(wire::kChunkSizeBytesMin) +
                                                  " to " + std::to_string(wire::kChunkSizeBytesMax));
  }
  if (name.size_bytes > wire::kBlobSizeBytesMax ||
      wire::chunk_count_of(name.size_bytes, chunk_size) > kChunkCountMax) {
    return make_error(Code::kInvalidArgument, "size_bytes " + std::to_string(name.size_bytes) +
                                                  " in chunks of " + std::to_string(chunk_size) +
                                                  ": at most " + std::to_string(wire::kBlobSizeBytesMax) +
                                                  " bytes and " + std::to_string(kChunkCountMax) +
                                                  " chunks are allowed");
  }
  return ok_status();
}

Status check_small_blob(const SmallBlob& blob) {
  if (blob.name.kind != EntryKind::kBlob) {
    return make_error(Code::kInvalidArgument, "put_small: not the name of a blob");
  }
  if (Status status = check_name_and_manifest(blob.name, blob.manifest); !status.ok()) return status;
  if (blob.size_bytes != blob.name.size_bytes || blob.size_bytes > blob.manifest.chunk_size_bytes ||
      blob.manifest.chunk_digests.size() != 1) {
    return make_error(Code::kInvalidArgument,
                      "put_small: " + to_file_name(blob.name) + " is not a blob of one chunk");
  }
  return ok_status();
}

bool is_marker_name(const BlobName& name, EntryKind kind) {
  return name.kind == kind && name.size_bytes == 0 && (kind != EntryKind::kPin || name.uid == 0);
}

wire::Manifest make_marker_manifest(const BlobName& name, const std::string& stored_by,
                                    std::uint64_t stored_at_us) {
  wire::Manifest manifest;
  manifest.session = SessionId{name.checkpoint.program.ecu_mac, name.checkpoint.version.incarnation};
  manifest.notification.program_id = name.checkpoint.program.program_id;
  manifest.notification.seq = name.checkpoint.version.seq;
  manifest.notification.lineage = name.lineage;
  manifest.notification.owner_epoch = name.owner_epoch;
  manifest.notification.chunk_size_bytes = manifest.chunk_size_bytes;
  manifest.chunk_digests = {digest_of("", 0)};
  manifest.zero_chunks = {false};
  manifest.blob_digest = blob_digest_of(manifest.chunk_digests);
  manifest.stored_by = stored_by;
  manifest.stored_at_us = stored_at_us;
  return manifest;
}

std::uint32_t chunk_length(const wire::Manifest& manifest, std::uint64_t index) {
  const std::uint64_t before = index * manifest.chunk_size_bytes;
  CMS_ASSERT(before <= manifest.notification.size_bytes);
  return static_cast<std::uint32_t>(
      std::min<std::uint64_t>(manifest.chunk_size_bytes, manifest.notification.size_bytes - before));
}

std::vector<std::uint64_t> chunk_offsets(const wire::Manifest& manifest) {
  std::vector<std::uint64_t> offsets;
  offsets.reserve(manifest.chunk_digests.size() + 1);
  std::uint64_t at = kBlobHeaderBytes;
  for (std::size_t i = 0; i < manifest.chunk_digests.size(); ++i) {
    offsets.push_back(at);
    if (!manifest.zero_chunks[i]) at += chunk_length(manifest, i);
  }
  offsets.push_back(at);
  return offsets;
}

Status check_blob_file(const BlobName& name, const BlobHeader& header, const BlobTrailer& trailer,
                       const wire::Manifest& manifest) {
  if (header.kind != name.kind || header.size_bytes != name.size_bytes || header.uid != name.uid) {
    return corrupt("the header is of another checkpoint than the name");
  }
  if (const Status status = check_name_and_manifest(name, manifest); !status.ok()) {
    return corrupt(status.error().context);
  }
  const std::uint64_t count = wire::chunk_count_of(name.size_bytes, manifest.chunk_size_bytes);
  if (manifest.chunk_size_bytes != header.chunk_size_bytes || manifest.chunk_digests.size() != count ||
      manifest.zero_chunks.size() != count) {
    return corrupt("header and manifest disagree about the chunks");
  }
  if (manifest.blob_digest != blob_digest_of(manifest.chunk_digests)) {
    return corrupt("manifest: the blob digest is not that of its chunk digests");
  }
  if (chunk_offsets(manifest).back() + trailer.manifest_bytes + kBlobTrailerBytes != trailer.file_bytes) {
    return corrupt("the chunks of the manifest do not fill the file");
  }
  return ok_status();
}

bool is_all_zero(const void* data, std::size_t size_bytes) {
  const auto* bytes = static_cast<const unsigned char*>(data);
  if (size_bytes == 0) return false;
  // Program state that is not zero mostly shows it in one of these three bytes or at the start.
  if (bytes[0] != 0 || bytes[size_bytes / 2] != 0 || bytes[size_bytes - 1] != 0) return false;
  return std::memcmp(bytes, bytes + 1, size_bytes - 1) == 0;  // each byte equals the one before
}

}  // namespace cms::storage
