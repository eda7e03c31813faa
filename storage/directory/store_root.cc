#include "storage/directory/store_root.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <string_view>
#include <vector>

#include "base/crash_point.h"
#include "base/prng.h"
#include "storage/store_layout.h"

namespace cms::storage {
namespace {

Result<std::string> first_name(int dir_fd, const std::string& path) {
  std::string found;
  const Status status = visit_names(dir_fd, path, [&](const std::string& name) {
    found = name;
    return false;
  });
  if (!status.ok()) return status.error();
  return found;
}

// An empty directory, or one in which an initialisation of ours was cut short, may be initialised:
// it has nothing but our own directories, and these hold no checkpoint and no record.
Status check_may_initialise(int root_fd, const std::string& path) {
  std::string foreign;
  Status status = visit_names(root_fd, path, [&](const std::string& name) {
    if (!may_be_before_format(name)) foreign = name;
    return foreign.empty();
  });
  if (!status.ok()) return status;
  if (!foreign.empty()) return not_ours(path, foreign);
  for (const char* own : {"claims", "nodes", "quarantine", "d"}) {
    auto dir = open_dir_at(root_fd, own, path + "/" + own);
    if (!dir && dir.error().code == Code::kNotFound && dir.error().os_errno == ENOENT) continue;
    if (!dir) return dir.error();
    const bool shards =
        std::find(kShardedDirs.begin(), kShardedDirs.end(), std::string_view(own)) != kShardedDirs.end();
    Status inner;
    status = visit_names(dir->get(), path + "/" + own, [&](const std::string& name) {
      std::string held = name;
      if (may_be_in_unformatted(own, name)) return true;
      if (shards) {
        const std::string shard_path = path + "/" + own + "/" + name;
        auto shard = open_dir_at(dir->get(), name, shard_path);
        if (shard) {
          const auto first = first_name(shard->get(), shard_path);
          if (!first) {
            inner = first.error();
            return false;
          }
          if (first->empty()) return true;
          held += "/" + *first;
        }
      }
      inner = not_ours(path, std::string(own) + "/" + held);
      return false;
    });
    if (!status.ok()) return status;
    if (!inner.ok()) return inner;
  }
  return ok_status();
}

Status make_directories(int root_fd, const std::string& path) {
  for (const char* name : kOwnDirs) {
    if (Status status = make_dir_at(root_fd, name, path + "/" + name); !status.ok()) return status;
  }
  auto shards = open_dir_at(root_fd, "d", path + "/d");
  if (!shards) return shards.error();
  for (std::uint32_t shard = 0; shard < kShardCount; ++shard) {
    const std::string name = shard_name(shard);
    if (Status status = make_dir_at(shards->get(), name, path + "/d/" + name); !status.ok()) return status;
  }
  if (Status status = sync_dir(shards->get(), path + "/d"); !status.ok()) return status;
  return sync_dir(root_fd, path);
}

Result<UniqueFd> make_own_tmp(int root_fd, const RootOptions& options, const std::string& path) {
  auto all = open_dir_at(root_fd, "tmp", options.path + "/tmp");
  if (!all) return all;
  const std::string name = private_dir_name(options.node, options.node_incarnation);
  if (Status status = make_dir_at(all->get(), name, path); !status.ok()) return status.error();
  return open_dir_at(all->get(), name, path);
}

// Puts the FORMAT file in its place unless another cmsd was faster; either way it is there, and
// durable, after this.
Status publish_format(int root_fd, const RootOptions& options) {
  const std::string tmp_path =
      options.path + "/tmp/" + private_dir_name(options.node, options.node_incarnation);
  auto tmp = make_own_tmp(root_fd, options, tmp_path);
  if (!tmp) return tmp.error();
  const std::string temp_name = "FORMAT." + hex16(random_u64());
  auto file = open_at(tmp->get(), temp_name, O_WRONLY | O_CREAT | O_EXCL, tmp_path + "/" + temp_name);
  if (!file) return file.error();
  const std::uint64_t high = random_u64();
  const std::string text = encode_format(new_format(high, random_u64()));
  Status status = write_all(file->get(), text.data(), text.size(), 0, tmp_path + "/" + temp_name);
  if (status.ok()) status = sync_data(file->get(), tmp_path + "/" + temp_name);
  CMS_CRASH_POINT("store.init_before_format");
  if (status.ok()) {
    status = rename_no_replace(tmp->get(), temp_name, root_fd, "FORMAT", options.path + "/FORMAT");
  }
  if (!status.ok()) (void)::unlinkat(tmp->get(), temp_name.c_str(), 0);  // swept later if this fails
  if (!status.ok() && status.code() != Code::kAlreadyExists) return status;
  CMS_CRASH_POINT("store.init_after_format");
  return sync_dir(root_fd, options.path);
}

// The lock goes with the process, however it ends.
Status take_node_lock(int root_fd, const RootOptions& options) {
  const std::string name = options.node + ".lock";
  const std::string path = options.path + "/nodes/" + name;
  auto nodes = open_dir_at(root_fd, "nodes", options.path + "/nodes");
  if (!nodes) return nodes.error();
  // Not for writing, which would keep people from mounting the file system read-only.
  auto file = open_at(nodes->get(), name, O_RDONLY | O_CREAT, path);
  if (!file) return file.error();
  struct stat opened {};
  struct stat held {};
  if (options.node_lock->valid() && ::fstat(file->get(), &opened) == 0 &&
      ::fstat(options.node_lock->get(), &held) == 0 && opened.st_dev == held.st_dev &&
      opened.st_ino == held.st_ino) {
    return ok_status();
  }
  int locked = ::flock(file->get(), LOCK_EX | LOCK_NB);
  if (locked != 0 && errno == EBADF) {  // The kernel's NFS client wants it open for writing.
    file = open_at(nodes->get(), name, O_RDWR, path);
    if (!file) return file.error();
    locked = ::flock(file->get(), LOCK_EX | LOCK_NB);
  }
  if (locked != 0) {
    if (errno != EWOULDBLOCK) return error_from_errno(errno, "lock " + path);
    return make_error(Code::kAlreadyExists, "another cmsd named '" + options.node + "' has the store " +
                                                options.path + " open; each needs a --name of its own");
  }
  *options.node_lock = std::move(*file);
  return ok_status();
}

// Removes what dead incarnations of our node left in tmp, and says whether there were any. Best
// effort: what stays is tried again at the next start and harms nobody.
bool sweep_tmp(int root_fd, const RootOptions& options) {
  auto all = open_dir_at(root_fd, "tmp", options.path + "/tmp");
  if (!all) return false;
  std::vector<std::string> dead;
  (void)visit_names(all->get(), options.path + "/tmp", [&](const std::string& name) {
    if (is_of_earlier_life(name, options.node, options.node_incarnation)) dead.push_back(name);
    return true;
  });
  for (const std::string& name : dead) {
    auto dir = open_dir_at(all->get(), name, options.path + "/tmp/" + name);
    if (!dir) continue;
    std::vector<std::string> files;
    (void)visit_names(dir->get(), options.path + "/tmp/" + name, [&](const std::string& file) {
      files.push_back(file);
      return true;
    });
    for (const std::string& file : files) (void)::unlinkat(dir->get(), file.c_str(), 0);
    (void)::unlinkat(all->get(), name.c_str(), AT_REMOVEDIR);
  }
  return !dead.empty();
}

}  // namespace

bool syncfs_reports_errors(int fd) {
  constexpr decltype(statfs::f_type) kExt4 = 0xef53;
  constexpr decltype(statfs::f_type) kXfs = 0x58465342;
  struct statfs fs {};
  utsname kernel{};
  int major = 0;
  int minor = 0;
  if (::fstatfs(fd, &fs) != 0 || ::uname(&kernel) != 0) return false;
  if (std::sscanf(kernel.release, "%d.%d", &major, &minor) != 2) return false;
  return (fs.f_type == kExt4 || fs.f_type == kXfs) && (major > 5 || (major == 5 && minor >= 8));
}

Result<std::string> read_format(int root_fd, const std::string& path) {
  auto file = open_at(root_fd, "FORMAT", O_RDONLY, path + "/FORMAT");
  if (!file) return file.error();
  std::string text(kFormatBytesMax + 1, '\0');
  const auto got = read_fully(file->get(), text.data(), text.size(), 0, path + "/FORMAT");
  if (!got) return got.error();
  if (*got > kFormatBytesMax) {
    return make_error(Code::kCorrupt,
                      path + "/FORMAT: longer than " + std::to_string(kFormatBytesMax) + " bytes");
  }
  text.resize(*got);
  return text;
}

Result<std::shared_ptr<const StoreRoot>> open_root(const RootOptions& options) {
  auto root = std::make_shared<StoreRoot>();
  root->path = options.path;
  auto fd = open_dir_at(AT_FDCWD, options.path, options.path);
  if (!fd) return fd.error();
  root->root = std::move(*fd);
  struct stat info {};
  if (::fstat(root->root.get(), &info) != 0) return error_from_errno(errno, "stat " + options.path);
  root->device = info.st_dev;
  root->inode = info.st_ino;

  auto text = read_format(root->root.get(), options.path);
  if (!text && text.error().os_errno == ENOENT) {
    if (!options.fleet_id_expected.empty()) {
      return no_longer_there(options.path, options.fleet_id_expected);
    }
    if (Status status = check_may_initialise(root->root.get(), options.path); !status.ok())
      return status.error();
    if (Status status = make_directories(root->root.get(), options.path); !status.ok()) return status.error();
    if (Status status = publish_format(root->root.get(), options); !status.ok()) return status.error();
    text = read_format(root->root.get(), options.path);
  }
  if (!text) return text.error();
  auto format = accept_format(options.path, *text, options.fleet_id_expected);
  if (!format) return format.error();
  root->format = std::move(*format);

  auto shards = open_dir_at(root->root.get(), "d", options.path + "/d");
  if (!shards) return shards.error();
  root->shards = std::move(*shards);
  root->syncfs_reports_errors = syncfs_reports_errors(root->root.get());
  if (const Status locked = take_node_lock(root->root.get(), options); !locked.ok()) {
    if (locked.code() == Code::kAlreadyExists) return locked.error();
    root->tmp_error = locked.error();  // Nothing can be written; what is there can be read.
    return std::shared_ptr<const StoreRoot>(std::move(root));
  }
  // A name that a dead incarnation gave and did not live to sync must not be listed, and then be
  // acknowledged as STORED, before it is durable.
  if (sweep_tmp(root->root.get(), options) && ::syncfs(root->root.get()) != 0) {
    return error_from_errno(errno, "syncfs " + options.path);
  }
  root->tmp_name = "tmp/" + private_dir_name(options.node, options.node_incarnation);
  root->tmp_path = options.path + "/" + root->tmp_name;
  auto tmp = make_own_tmp(root->root.get(), options, root->tmp_path);
  if (tmp) {
    root->tmp = std::move(*tmp);
  } else {
    root->tmp_error = tmp.error();
  }
  return std::shared_ptr<const StoreRoot>(std::move(root));
}

Status check_still_there(const std::string& path, dev_t device, ino_t inode) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return Error{Code::kUnavailable, errno, "store " + path};
  if (info.st_dev != device || info.st_ino != inode) {
    return make_error(Code::kUnavailable, "store " + path + " is not the directory it was (is it mounted?)");
  }
  return ok_status();
}

Status check_still_there(const StoreRoot& root) {
  return check_still_there(root.path, root.device, root.inode);
}

Status check_writable(const StoreRoot& root) {
  if (Status status = check_still_there(root); !status.ok()) return status;
  if (!root.tmp.valid()) return root.tmp_error;
  return ok_status();
}

Result<SpaceInfo> space_of(const StoreRoot& root) {
  struct statvfs fs {};
  if (::fstatvfs(root.root.get(), &fs) != 0) return error_from_errno(errno, "statvfs " + root.path);
  SpaceInfo space;
  space.total_bytes = std::uint64_t{fs.f_blocks} * fs.f_frsize;
  space.free_bytes = std::uint64_t{fs.f_bavail} * fs.f_frsize;
  return space;
}

Status check_space(const StoreRoot& root, std::uint64_t bytes) {
  const auto space = space_of(root);
  if (!space) return space.error();
  return check_fits(root.path, space->free_bytes, bytes);
}

std::string entry_path(const StoreRoot& root, const BlobName& name) {
  return root.path + "/d/" + shard_name(shard_of(name.lineage)) + "/" + to_file_name(name);
}

}  // namespace cms::storage
