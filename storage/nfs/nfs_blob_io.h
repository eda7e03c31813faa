#pragma once
// Writes and reads one blob of a store on a NAS; what BlobWriter and BlobReader promise.
#include <memory>
#include <string>

#include "storage/blob_store.h"
#include "storage/nfs/nfs_root.h"

namespace cms::storage {

// Sent and not yet answered, over all writers of a connection; libnfs holds a copy of it.
inline constexpr std::size_t kNfsWriteWindowBytes = 8 * 1024 * 1024;
// Asked for ahead of a reader that goes through a blob in order.
inline constexpr std::size_t kNfsReadAheadBytes = 4 * 1024 * 1024;

// `temp_name` is unique in the private directory of `root`.
Result<std::unique_ptr<BlobWriter>> make_nfs_writer(std::shared_ptr<NfsPool> pool,
                                                    std::shared_ptr<const NfsRoot> root, const BlobName& name,
                                                    wire::Manifest manifest, const std::string& temp_name);
Result<std::unique_ptr<BlobReader>> open_nfs_reader(std::shared_ptr<NfsPool> pool, const NfsRoot& root,
                                                    const BlobName& name);

// What gives a written file, whose bytes are on the medium, its final name, and makes that name last.
struct NfsNaming {
  const NfsRoot& root;
  const std::string& temp_name;
  const NfsHandle& file;
  const BlobName& name;
};
std::string entry_path(const NfsRoot& root, const BlobName& name);
// kAlreadyExists: there is such a name. kUnavailable: no answer, and it could not be found out, or it
// was found out that the name was not given; in the latter case it never will be.
Status give_name(NfsPool& pool, const NfsLink& link, const NfsNaming& naming);
// The end of give_name, when the answer to its RENAME or to what came after was lost.
Status settle_name(NfsPool& pool, const NfsNaming& naming);

}  // namespace cms::storage
