#include "storage/claim_record_file.h"

#include <algorithm>
#include <array>

#include "base/digest.h"

namespace cms::storage {
namespace {

// A byte above 127, CR LF and ^Z: a transfer that treats the file as text shows at once.
constexpr std::array<unsigned char, 8> kMagic = {0x89, 'C', 'M', 'S', 'C', '\r', '\n', 0x1a};

constexpr std::size_t kAtVersion = 8;
constexpr std::size_t kAtKind = 10;
constexpr std::size_t kAtLength = 12;
constexpr std::size_t kAtNonce = 16;
constexpr std::size_t kAtDigest = 48;  // 32 to 47 are reserved.
constexpr std::size_t kAtBytes = kClaimFrameBytes;

void put_le(std::string& text, std::size_t at, std::uint64_t value, std::size_t octets) {
  for (std::size_t i = 0; i < octets; ++i) text[at + i] = static_cast<char>(value >> (8 * i));
}

std::uint64_t get_le(const std::string& text, std::size_t at, std::size_t octets) {
  std::uint64_t value = 0;
  for (std::size_t i = octets; i-- > 0;) value = value << 8 | static_cast<unsigned char>(text[at + i]);
  return value;
}

// Most significant byte first, as digests and ids are printed.
void put_id(std::string& text, std::size_t at, const Id128& id) {
  for (std::size_t i = 0; i < 8; ++i) {
    text[at + i] = static_cast<char>(id.high >> (8 * (7 - i)));
    text[at + 8 + i] = static_cast<char>(id.low >> (8 * (7 - i)));
  }
}

Id128 get_id(const std::string& text, std::size_t at) {
  Id128 id;
  for (std::size_t i = 0; i < 8; ++i) {
    id.high = id.high << 8 | static_cast<unsigned char>(text[at + i]);
    id.low = id.low << 8 | static_cast<unsigned char>(text[at + 8 + i]);
  }
  return id;
}

// Of everything but itself, and of the name: a file under the name of another is found out.
Digest digest_for(const std::string& file_name, const std::string& text) {
  const std::string covered = file_name + '\n' + text.substr(0, kAtDigest) + text.substr(kAtBytes);
  return digest_of(covered.data(), covered.size());
}

Error corrupt(const std::string& what) { return make_error(Code::kCorrupt, what); }

constexpr std::size_t record_bytes_max_of(ClaimFileKind kind) {
  return kind == ClaimFileKind::kRecord ? kRecordBytesMax : kMemberBytesMax;
}

// A frame and a record of that length, in whole sectors.
constexpr std::size_t written_bytes(std::size_t record_bytes) {
  return (kClaimFrameBytes + record_bytes + kClaimFileBytes - 1) / kClaimFileBytes * kClaimFileBytes;
}
static_assert(written_bytes(kRecordBytesMax) == kClaimFileBytes);
static_assert(written_bytes(kMemberBytesMax) == kMemberFileBytesMax);

Error cut_off(std::size_t size_bytes, std::size_t whole_bytes) {
  return corrupt("cut off after " + std::to_string(size_bytes) + " bytes of " + std::to_string(whole_bytes));
}

}  // namespace

std::string encode_claim_file(const std::string& file_name, const ClaimFile& file) {
  CMS_ASSERT(!file.bytes.empty() && file.bytes.size() <= record_bytes_max_of(file.kind));
  std::string text(written_bytes(file.bytes.size()), '\0');
  std::copy(kMagic.begin(), kMagic.end(), text.begin());
  put_le(text, kAtVersion, kClaimFormatVersion, 2);
  put_le(text, kAtKind, static_cast<std::uint16_t>(file.kind), 2);
  put_le(text, kAtLength, file.bytes.size(), 4);
  put_id(text, kAtNonce, file.nonce);
  text.replace(kAtBytes, file.bytes.size(), file.bytes);
  put_id(text, kAtDigest, digest_for(file_name, text));
  return text;
}

Result<ClaimFile> decode_claim_file(const std::string& file_name, ClaimFileKind kind,
                                    const std::string& text) {
  if (text.size() < kClaimFileBytes) return cut_off(text.size(), kClaimFileBytes);
  if (kind == ClaimFileKind::kRecord && text.size() > kClaimFileBytes) {
    return corrupt("longer than " + std::to_string(kClaimFileBytes) + " bytes");
  }
  const bool ours = std::equal(kMagic.begin(), kMagic.end(), text.begin(),
                               [](unsigned char a, char b) { return a == static_cast<unsigned char>(b); });
  if (!ours) return corrupt("not the file of a claim (wrong magic)");
  // How much was written with it, and has the digest. So far this may be anything.
  const std::uint64_t length = get_le(text, kAtLength, 4);
  if (length == 0 || length > record_bytes_max_of(kind)) return corrupt("impossible length");
  if (text.size() < written_bytes(length)) return cut_off(text.size(), written_bytes(length));
  const std::string written = text.substr(0, written_bytes(length));
  // Before the version: magic, length and digest stay in every version.
  if (get_id(written, kAtDigest) != digest_for(file_name, written)) {
    return corrupt("its digest is not that of its bytes and its name");
  }
  const std::uint64_t version = get_le(written, kAtVersion, 2);
  if (version > kClaimFormatVersion) {
    return make_error(Code::kUnsupported, "claim format " + std::to_string(version) +
                                              "; this program knows up to " +
                                              std::to_string(kClaimFormatVersion));
  }
  if (version == 0) return corrupt("impossible version");
  if (get_le(written, kAtKind, 2) != static_cast<std::uint16_t>(kind)) return corrupt("of another kind");
  return ClaimFile{kind, get_id(written, kAtNonce), written.substr(kAtBytes, length)};
}

}  // namespace cms::storage
