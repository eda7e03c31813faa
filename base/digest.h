#pragma once
// Digests find damage: XXH3-128 (github.com/Cyan4973/xxHash), in its canonical (big-endian) form.
// They do not stop a forger; that is the business of authenticated transport and sealing.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/ids.h"

namespace cms {

using Digest = Id128;

Digest digest_of(const void* data, std::size_t size_bytes);
// The digest of a blob is the digest of its chunk digests, each in canonical form, in order.
Digest blob_digest_of(const std::vector<Digest>& chunk_digests);

// The lineage that a program has from its first checkpoint on, until a restore hands it to another
// key: XXH3-128 of "cms-lineage-1", then ecu_mac (6 octets) and program_id (8), both big-endian.
Lineage lineage_of(const ProgramKey& key);

}  // namespace cms
