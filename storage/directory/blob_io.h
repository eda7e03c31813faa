#pragma once
// Writes and reads one blob of the directory store; what BlobWriter and BlobReader promise.
#include <memory>
#include <string>

#include "storage/blob_store.h"
#include "storage/directory/store_root.h"

namespace cms::storage {

// `temp_name` is unique in the private directory of `root`.
Result<std::unique_ptr<BlobWriter>> make_directory_writer(std::shared_ptr<const StoreRoot> root,
                                                          const BlobName& name, wire::Manifest manifest,
                                                          const std::string& temp_name);
Result<std::unique_ptr<BlobReader>> open_directory_reader(const StoreRoot& root, const BlobName& name);
// The same of an open file, whatever it is; `path` is for people.
Result<std::unique_ptr<BlobReader>> read_blob_file(UniqueFd file, const BlobName& name,
                                                   const std::string& path);

}  // namespace cms::storage
