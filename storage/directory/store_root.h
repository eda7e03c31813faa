#pragma once
// An opened store directory: found, initialised or refused; with descriptors of the places where
// everything else happens. docs/formats/store-layout.md shows the layout.
#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "storage/blob_store.h"
#include "storage/directory/posix_file.h"
#include "storage/store_format.h"

namespace cms::storage {

struct StoreRoot {
  std::string path;  // For people and for the check that it is still there.
  UniqueFd root;
  UniqueFd shards;  // DIR/d
  UniqueFd tmp;     // DIR/tmp/<node>.<incarnation>; invalid: nothing can be written, see `tmp_error`.
  Error tmp_error{};
  std::string tmp_name;  // "tmp/<node>.<incarnation>"
  std::string tmp_path;
  StoreFormat format;
  dev_t device = 0;
  ino_t inode = 0;
  bool syncfs_reports_errors = false;  // On this file system; as below.
};

struct RootOptions {
  std::string path;
  std::string node;
  std::uint64_t node_incarnation = 0;
  std::string fleet_id_expected;  // Empty: any. Else an empty or other store is not taken for ours.
  // Holds DIR/nodes/<node>.lock from the first opening on; not closed by open_root. One cmsd would
  // sweep the other's private directory if two had one name.
  UniqueFd* node_lock = nullptr;
};

// Opens the store, initialising an empty one; see BlobStore::open_store for the errors. When only
// our private directory cannot be made (read-only, full), the root is usable for reading and
// removing: then tmp is invalid. kAlreadyExists: another process on this host has the store open under
// this node name.
Result<std::shared_ptr<const StoreRoot>> open_root(const RootOptions& options);

// The text of the FORMAT file; `path` is for people. kNotFound: there is none. kCorrupt: it is too long.
Result<std::string> read_format(int root_fd, const std::string& path);

// kUnavailable: the path no longer leads to the directory that was opened (a mount that went away).
Status check_still_there(const StoreRoot& root);
Status check_still_there(const std::string& path, dev_t device, ino_t inode);
// The same, and that it can be written to.
Status check_writable(const StoreRoot& root);
// kNoSpace: fewer than `bytes` and a reserve are free.
Status check_space(const StoreRoot& root, std::uint64_t bytes);
Result<SpaceInfo> space_of(const StoreRoot& root);

// Whether syncfs on the file system of `fd` tells of every write-back error. Since Linux 5.8 it fails when any
// page of the file system could not be written since the descriptor was opened; of the file systems, those
// on which we rely on that are listed.
bool syncfs_reports_errors(int fd);

std::string entry_path(const StoreRoot& root, const BlobName& name);

}  // namespace cms::storage
