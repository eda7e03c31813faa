#include "storage/blob_store.h"

namespace cms::storage {

// One after the other, where a call is no wait worth sharing.
std::vector<Status> BlobStore::remove_many(const std::vector<BlobName>& names) {
  std::vector<Status> removed;
  removed.reserve(names.size());
  for (const BlobName& name : names) removed.push_back(remove(name));
  return removed;
}

std::vector<Result<bool>> BlobStore::contains_many(const std::vector<BlobName>& names) {
  std::vector<Result<bool>> there;
  there.reserve(names.size());
  for (const BlobName& name : names) there.push_back(contains(name));
  return there;
}

}  // namespace cms::storage
