#include "base/digest.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <array>
#include <cstring>

namespace cms {
namespace {

Digest from_xxh(const XXH128_hash_t& hash) { return Digest{hash.high64, hash.low64}; }

void store_be(unsigned char* target, std::uint64_t value, int octets) {
  for (int i = octets - 1; i >= 0; --i) {
    target[i] = static_cast<unsigned char>(value & 0xff);
    value >>= 8;
  }
}

}  // namespace

Digest digest_of(const void* data, std::size_t size_bytes) {
  return from_xxh(XXH3_128bits(data, size_bytes));
}

Digest blob_digest_of(const std::vector<Digest>& chunk_digests) {
  std::vector<unsigned char> bytes(chunk_digests.size() * 16);
  unsigned char* target = bytes.data();
  for (const Digest& digest : chunk_digests) {
    store_be(target, digest.high, 8);
    store_be(target + 8, digest.low, 8);
    target += 16;
  }
  return digest_of(bytes.data(), bytes.size());
}

Lineage lineage_of(const ProgramKey& key) {
  constexpr char kDomain[] = "cms-lineage-1";
  constexpr std::size_t kDomainSize = sizeof(kDomain) - 1;
  std::array<unsigned char, kDomainSize + 14> bytes{};
  std::memcpy(bytes.data(), kDomain, kDomainSize);
  store_be(bytes.data() + kDomainSize, key.ecu_mac.bits, 6);
  store_be(bytes.data() + kDomainSize + 6, key.program_id, 8);
  return digest_of(bytes.data(), bytes.size());
}

}  // namespace cms
