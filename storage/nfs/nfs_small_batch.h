#pragma once
// Publishes many small blobs with many calls in flight, so that nobody waits for round trips one after the
// other. Why it is done as it is, with the measurements: docs/adr/0009-blobs-over-nfs.md.
#include <cstddef>
#include <cstdint>

#include "storage/blob_store.h"
#include "storage/nfs/nfs_root.h"

namespace cms::storage {

// Blobs of which a call is under way at one time, over all connections.
inline constexpr std::size_t kNfsGroupInFlight = 64;

// Publishes blobs[0 .. count) and sets statuses[0 .. count). The blobs have been checked, and the file of
// each fits into one WRITE; `temp_number` is the first of `count` numbers that are unique in the
// private directory.
void publish_nfs_group(NfsPool& pool, const NfsRoot& root, const SmallBlob* blobs, std::size_t count,
                       std::uint64_t temp_number, Status* statuses);

}  // namespace cms::storage
