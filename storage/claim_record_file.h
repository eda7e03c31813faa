#pragma once
// The file of a log's record or of a member's record: a frame of 64 bytes around at most kRecordBytesMax,
// always kClaimFileBytes in all. docs/formats/claims.md describes it. Pure functions; no I/O.
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

enum class ClaimFileKind : std::uint16_t { kRecord = 1, kMember = 2 };

struct ClaimFile {
  ClaimFileKind kind = ClaimFileKind::kRecord;
  Id128 nonce{};      // Of a record: random, one for each attempt to append. Of a member: zero.
  std::string bytes;  // 1 to kRecordBytesMax.
};

// `file_name` is that under which it shall be read; the digest covers it.
std::string encode_claim_file(const std::string& file_name, const ClaimFile& file);

// `text`: all of the file, or at least its first kClaimFileBytes + 1 bytes. kCorrupt: it is cut, altered,
// empty, of another kind, or was written for another name. kUnsupported: of a newer format.
Result<ClaimFile> decode_claim_file(const std::string& file_name, ClaimFileKind kind,
                                    const std::string& text);

}  // namespace cms::storage
