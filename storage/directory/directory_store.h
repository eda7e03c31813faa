#pragma once
// BlobStore on a directory of a local or mounted file system (storage/blob_store.h has the promises,
// docs/formats/store-layout.md the layout).
//
// open_store also returns kReadOnly, kNoSpace, kQuota or kPermission when only our private directory
// cannot be made; list, open, remove and space work then, so that a full store can be read and thinned.
// The file system must keep a name from outliving its bytes when told so by fdatasync, rename, fsync
// of the directory; every local Linux file system does.
#include <memory>
#include <string>

#include "storage/blob_store.h"

namespace cms::storage {

std::unique_ptr<BlobStore> make_directory_store(const std::string& directory, const std::string& node,
                                                std::uint64_t node_incarnation);

}  // namespace cms::storage
