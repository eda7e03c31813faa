#pragma once
// The bytes of a stored checkpoint, shared by every adapter that keeps them in files:
//
//   header (64) | chunks that are not all zero | manifest (FlatBuffer) | trailer (64)
//
// docs/formats/blob-file.md has it byte by byte. Pure functions; no I/O.
// Errors of decode_*: kCorrupt (damaged, or not such a file), kUnsupported (a newer format or a
// feature this program lacks). Nothing read is used before its digest has been checked.
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/result.h"
#include "schemas/messages.h"
#include "storage/blob_store.h"

namespace cms::storage {

inline constexpr std::uint16_t kBlobFormatVersion = 1;
inline constexpr std::size_t kBlobHeaderBytes = 64;
inline constexpr std::size_t kBlobTrailerBytes = 64;
// Bounds the manifest (16 bytes for each chunk) and with it the memory of an open blob.
inline constexpr std::uint64_t kChunkCountMax = std::uint64_t{1} << 24;

struct BlobHeader {
  EntryKind kind = EntryKind::kBlob;
  std::uint32_t chunk_size_bytes = 0;
  std::uint64_t size_bytes = 0;
  std::uint64_t uid = 0;
};
using BlobHeaderBytes = std::array<unsigned char, kBlobHeaderBytes>;
BlobHeaderBytes encode_header(const BlobHeader& header);
Result<BlobHeader> decode_header(const BlobHeaderBytes& bytes);

struct BlobTrailer {
  std::uint64_t manifest_bytes = 0;
  Digest manifest_digest{};
  std::uint64_t file_bytes = 0;
};
using BlobTrailerBytes = std::array<unsigned char, kBlobTrailerBytes>;
BlobTrailerBytes encode_trailer(const BlobTrailer& trailer);
Result<BlobTrailer> decode_trailer(const BlobTrailerBytes& bytes);

// Manifest and trailer as they stand at the end of a file whose chunks end at `offset_bytes`.
wire::Bytes encode_footer(const wire::Manifest& manifest, std::uint64_t offset_bytes);

// The most that a manifest of this many chunks can take; a larger one is not read at all.
std::uint64_t manifest_bytes_max(std::uint64_t chunk_count);
// The most that the file of such a blob can take.
std::uint64_t blob_file_bytes_max(const BlobName& name, std::uint32_t chunk_size_bytes);

// What the file of a complete manifest takes; the index says the same of a checkpoint, whether its row
// was made when it was stored or from a listing of the store.
std::uint64_t blob_file_bytes(const wire::Manifest& manifest);

// kInvalidArgument: what the name and the manifest say is not the same, or beyond the limits.
// Looks at everything but digests and zero bits.
Status check_name_and_manifest(const BlobName& name, const wire::Manifest& manifest);

// The same of what put_small is given: also kInvalidArgument when it is not a blob of one chunk.
Status check_small_blob(const SmallBlob& blob);

// Whether it is the name of a tombstone or of a pin, as put_tombstone and put_pin want it.
bool is_marker_name(const BlobName& name, EntryKind kind);
// The manifest of a tombstone or pin: of a checkpoint without bytes.
wire::Manifest make_marker_manifest(const BlobName& name, const std::string& stored_by,
                                    std::uint64_t stored_at_us);

// How long chunk `index` is, and where each chunk stands in the file (a zero chunk: nowhere; its
// offset is that of the next one). The last element is where the chunks end.
std::uint32_t chunk_length(const wire::Manifest& manifest, std::uint64_t index);
std::vector<std::uint64_t> chunk_offsets(const wire::Manifest& manifest);

// Everything that header, trailer, manifest and name say of each other. kCorrupt: they disagree.
Status check_blob_file(const BlobName& name, const BlobHeader& header, const BlobTrailer& trailer,
                       const wire::Manifest& manifest);

// An empty chunk is not a zero chunk.
bool is_all_zero(const void* data, std::size_t size_bytes);

}  // namespace cms::storage
