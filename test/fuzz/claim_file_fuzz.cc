// The file of a claim's record, and of a member's. A digest would stop every change at the first gate, so
// each input is read three times: as it is, and with its digest made right, as a forger would, with its length and
// with one that fits.
#include <algorithm>

#include "base/digest.h"
#include "storage/claim_record_file.h"
#include "test/fuzz/fuzz.h"
#include "test/fuzz/samples.h"

namespace cms::fuzz {
namespace {

using storage::ClaimFileKind;

constexpr std::size_t kLengthAt = 12;  // docs/formats/claims.md
constexpr std::size_t kDigestAt = 48;
constexpr std::size_t kBytesAt = 64;

// As many sectors as the length asks for, of what is there; without `true_length` its length becomes one that fits.
std::string forged(std::string text, bool true_length) {
  text.resize(std::max(text.size(), storage::kClaimFileBytes));
  std::size_t length = 0;
  for (std::size_t i = 4; i-- > 0;) length = length << 8 | static_cast<unsigned char>(text[kLengthAt + i]);
  if (!true_length) {
    length = 1 + length % storage::kMemberBytesMax;
    text[kLengthAt] = static_cast<char>(length);
    text[kLengthAt + 1] = static_cast<char>(length >> 8);
    text[kLengthAt + 2] = text[kLengthAt + 3] = '\0';
  }
  const std::size_t end = std::min(storage::kMemberFileBytesMax, (kBytesAt + length + 1023) / 1024 * 1024);
  text.resize(std::max(text.size(), end));
  text.replace(0, 8,
               "\x89"
               "CMSC\r\n\x1a");
  const std::string covered = std::string(kClaimFileName) + '\n' + text.substr(0, kDigestAt) +
                              text.substr(kBytesAt, std::max(end, storage::kClaimFileBytes) - kBytesAt);
  const std::string digest = to_string(digest_of(covered.data(), covered.size()));
  for (std::size_t i = 0; i < 16; ++i) {
    text[kDigestAt + i] = static_cast<char>(std::stoul(digest.substr(2 * i, 2), nullptr, 16));
  }
  return text;
}

bool take_text(const std::string& text) {
  int taken = 0;
  for (const ClaimFileKind kind : {ClaimFileKind::kRecord, ClaimFileKind::kMember}) {
    const auto file = storage::decode_claim_file(kClaimFileName, kind, text);
    if (!file.ok()) {
      expect_printable_error(file.error(), {Code::kCorrupt, Code::kUnsupported}, 256);
      continue;
    }
    ++taken;
    CMS_FUZZ_HOLDS(file->kind == kind, std::to_string(static_cast<int>(file->kind)));
    const std::size_t bytes_max =
        kind == ClaimFileKind::kRecord ? storage::kRecordBytesMax : storage::kMemberBytesMax;
    CMS_FUZZ_HOLDS(
        !file->bytes.empty() && file->bytes.size() <= bytes_max && file->bytes.size() < text.size(),
        std::to_string(file->bytes.size()));
    const std::string again_text = encode_claim_file(kClaimFileName, *file);
    const auto again = storage::decode_claim_file(kClaimFileName, kind, again_text);
    CMS_FUZZ_HOLDS(again.ok() && again->nonce == file->nonce && again->bytes == file->bytes, file->bytes);
    CMS_FUZZ_HOLDS(!storage::decode_claim_file("another name", kind, text).ok(), "under another name");
    // What is behind a member's record is nothing; behind a log's there is nothing.
    const auto longer = storage::decode_claim_file(kClaimFileName, kind, text + "x");
    CMS_FUZZ_HOLDS(longer.ok() == (kind == ClaimFileKind::kMember), "with a byte behind it");
    CMS_FUZZ_HOLDS(!longer.ok() || longer->bytes == file->bytes, "with a byte behind it");
  }
  CMS_FUZZ_HOLDS(taken <= 1, "of two kinds");
  return taken == 1;
}

}  // namespace

bool take(const std::uint8_t* data, std::size_t size_bytes) {
  const std::string text(reinterpret_cast<const char*>(data), size_bytes);
  (void)take_text(forged(text, true));
  (void)take_text(forged(text, false));
  return take_text(text);
}

}  // namespace cms::fuzz
