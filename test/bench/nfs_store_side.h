#pragma once
// Our store on a NAS as sides of nfs_bench: digests, header, footer, the name made sure of, all as cmsd has
// it; without network to a publisher, index and receipts.
#include <memory>

#include "storage/blob_store.h"
#include "test/bench/sides.h"

namespace cms::bench {

// The bytes of a Source as one blob through BlobWriter. `store` must outlive it.
std::unique_ptr<Side> make_store_write(storage::BlobStore& store);
// The same, read back through BlobReader; the writing does not count.
std::unique_ptr<Side> make_store_read(storage::BlobStore& store);
// The bytes of a Source as so many blobs through put_small, in groups of at most `group`.
std::unique_ptr<Side> make_store_many(storage::BlobStore& store, std::size_t count, std::size_t group);

// A blob of one chunk with digests and all, of a name that nobody has; `data` must stay.
storage::SmallBlob small_blob_of(std::uint64_t program_id, std::uint64_t seq, const void* data,
                                 std::uint64_t size_bytes);

}  // namespace cms::bench
