#pragma once
// Group commit: publishes many small blobs at the price of a few syncs. Why it is done as it is, with
// the measurements: docs/adr/0005-group-commit.md.
#include <cstddef>
#include <cstdint>

#include "storage/blob_store.h"
#include "storage/directory/store_root.h"

namespace cms::storage {

// Bounds the descriptors and the dirty memory of one group; more blobs go in several groups.
inline constexpr std::size_t kGroupCountMax = 128;
inline constexpr std::uint64_t kGroupBytesMax = 32 * 1024 * 1024;

// Publishes blobs[0 .. count) and sets statuses[0 .. count). The blobs have been checked;
// `temp_number` is the first of `count` numbers that are unique in the private directory.
void publish_group(const StoreRoot& root, const SmallBlob* blobs, std::size_t count,
                   std::uint64_t temp_number, Status* statuses);

}  // namespace cms::storage
