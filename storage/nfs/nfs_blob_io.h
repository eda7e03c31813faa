#pragma once
// Writes and reads one blob of a store on a NAS; what BlobWriter and BlobReader promise.
#include <functional>
#include <memory>
#include <string>

#include "storage/blob_store.h"
#include "storage/nfs/nfs_root.h"

namespace cms::storage {

// Sent and not yet answered, over all writers of a connection; libnfs holds a copy of it.
inline constexpr std::size_t kNfsWriteWindowBytes = 8 * 1024 * 1024;
// Asked for ahead of a reader that goes through a blob in order.
inline constexpr std::size_t kNfsReadAheadBytes = 4 * 1024 * 1024;
// A file up to this size is read whole when it is opened, and kept while its reader is: with the LOOKUP two calls.
inline constexpr std::size_t kNfsWholeBytes = 128 * 1024;
// Of a larger one its end, which has the footer.
inline constexpr std::size_t kNfsTailBytes = 64 * 1024;

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

// The answer to LINK and to the COMMIT after it. Not `known`: an answer did not come, or the COMMIT was refused;
// settle_name decides.
struct NfsNamed {
  bool known = true;
  Status status;  // kAlreadyExists: another has the name.
};
// Begins to. `naming` and what it refers to must stay until `then` is called. The private name stays; when the
// name is given, or was refused, it is the caller's to remove.
void nfs_give_name(NfsConnection& link, const NfsNaming& naming, std::function<void(const NfsNamed&)> then);
// When it is not known: removes the private name, and finds out. kUnavailable: no answer, and it could not be found
// out, or it was found out that the name was not given; in the latter case it never will be.
Status settle_name(NfsPool& pool, const NfsNaming& naming);

}  // namespace cms::storage
