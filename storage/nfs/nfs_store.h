#pragma once
// BlobStore on a NAS over NFSv3 (storage/blob_store.h has the promises, docs/formats/store-layout.md the
// layout, docs/adr/0009-blobs-over-nfs.md why it is done as it is).
//
// The same steps as in a directory, with COMMIT for a sync. What the NAS did not answer is kUnavailable,
// and is found out before a name is believed in. After trouble a call connects anew by itself; the
// first ones fail fast while the NAS cannot be reached. open_store also returns kReadOnly, kNoSpace,
// kQuota or kPermission when only our private directory cannot be made; list, open, remove and space
// work then.
#include <cstdint>
#include <memory>
#include <string>

#include "storage/blob_store.h"
#include "storage/nfs/nfs_connection.h"
#include "storage/nfs/nfs_url.h"

namespace cms::storage {

std::unique_ptr<BlobStore> make_nfs_store(const NfsTarget& target, const std::string& node,
                                          std::uint64_t node_incarnation, const NfsTimeouts& timeouts = {});

}  // namespace cms::storage
