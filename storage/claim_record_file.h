#pragma once
// The file of a log's record or of a member's record: a frame of 64 bytes and the record, and zeros up to a whole
// number of sectors. That of a log's record is one sector, always. A member's file is written over and over in
// one piece from its beginning; behind a record that is shorter than a former one it has what that left there,
// and nobody looks at it. docs/formats/claims.md describes both. Pure functions; no I/O.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/ids.h"
#include "base/result.h"
#include "storage/claim_store.h"

namespace cms::storage {

inline constexpr std::uint16_t kClaimFormatVersion = 1;
// One sector of a disk, one WRITE of NFS: either all of it is there, or the digest shows it.
inline constexpr std::size_t kClaimFileBytes = 1024;
inline constexpr std::size_t kClaimFrameBytes = kClaimFileBytes - kRecordBytesMax;
// Of a member's file. More than one sector may be torn: then the digest shows it, until the next good write.
inline constexpr std::size_t kMemberFileBytesMax = kClaimFrameBytes + kMemberBytesMax;
static_assert(kMemberFileBytesMax % kClaimFileBytes == 0, "no room is lost");

enum class ClaimFileKind : std::uint16_t { kRecord = 1, kMember = 2 };

// How many bytes of a file decode_claim_file wants, if it has so many: a log's record may not be longer than it
// should be, and one byte more shows it.
constexpr std::size_t claim_file_read_bytes(ClaimFileKind kind) {
  return kind == ClaimFileKind::kRecord ? kClaimFileBytes + 1 : kMemberFileBytesMax;
}

struct ClaimFile {
  ClaimFileKind kind = ClaimFileKind::kRecord;
  Id128 nonce{};      // Of a record: random, one for each attempt to append. Of a member: zero.
  std::string bytes;  // 1 to kRecordBytesMax; of a member 1 to kMemberBytesMax.
};

// What is to be written from the beginning of the file on. `file_name` is that under which it shall be read; the
// digest covers it.
std::string encode_claim_file(const std::string& file_name, const ClaimFile& file);

// `text`: all of the file, or at least its first claim_file_read_bytes(kind). kCorrupt: it is cut, altered, torn,
// empty, of another kind, or was written for another name. kUnsupported: of a newer format.
Result<ClaimFile> decode_claim_file(const std::string& file_name, ClaimFileKind kind,
                                    const std::string& text);

}  // namespace cms::storage
