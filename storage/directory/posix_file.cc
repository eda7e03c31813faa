#include "storage/directory/posix_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

namespace cms::storage {
namespace {

constexpr mode_t kFileMode = 0640;  // group: the operators, who may read
constexpr mode_t kDirMode = 0750;

Error failed(const char* call, const std::string& path) {
  const int os_errno = errno;
  return error_from_errno(os_errno, std::string(call) + " " + path);
}

}  // namespace

void UniqueFd::reset() {
  // Nothing to learn from close: what matters was synced before, the rest is being dropped.
  if (fd_ >= 0) (void)::close(std::exchange(fd_, -1));
}

Result<UniqueFd> open_at(int dir_fd, const std::string& name, int flags, const std::string& path) {
  int fd = -1;
  do {
    fd = ::openat(dir_fd, name.c_str(), flags | O_CLOEXEC | O_NOCTTY, kFileMode);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) return failed("open", path);
  return UniqueFd(fd);
}

Result<UniqueFd> open_dir_at(int dir_fd, const std::string& name, const std::string& path) {
  return open_at(dir_fd, name, O_RDONLY | O_DIRECTORY, path);
}

Status make_dir_at(int dir_fd, const std::string& name, const std::string& path) {
  if (::mkdirat(dir_fd, name.c_str(), kDirMode) != 0 && errno != EEXIST) return failed("mkdir", path);
  return ok_status();
}

Status visit_names(int dir_fd, const std::string& path,
                   const std::function<bool(const std::string&)>& visit) {
  auto fd = open_dir_at(dir_fd, ".", path);  // of our own: a descriptor has one position only
  if (!fd) return fd.error();
  DIR* dir = ::fdopendir(fd->get());
  if (dir == nullptr) return failed("list", path);
  (void)fd->release();  // closedir closes it
  Status status;
  while (true) {
    errno = 0;
    const dirent* entry = ::readdir(dir);
    if (entry == nullptr) {
      if (errno != 0) status = failed("list", path);
      break;
    }
    const std::string name = entry->d_name;
    if (name != "." && name != ".." && !visit(name)) break;
  }
  (void)::closedir(dir);
  return status;
}

Status write_all(int fd, iovec* parts, int count, std::uint64_t offset, const std::string& path) {
  while (count > 0) {
    if (parts->iov_len == 0) {
      ++parts;
      --count;
      continue;
    }
    const ssize_t written = ::pwritev(fd, parts, count, static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return failed("write", path);
    if (written == 0) return error_from_errno(EIO, "write " + path + " (nothing was taken)");
    offset += static_cast<std::uint64_t>(written);
    auto left = static_cast<std::size_t>(written);
    while (count > 0 && left >= parts->iov_len) {
      left -= parts->iov_len;
      ++parts;
      --count;
    }
    if (count > 0) {
      parts->iov_base = static_cast<char*>(parts->iov_base) + left;
      parts->iov_len -= left;
    }
  }
  return ok_status();
}

Status write_all(int fd, const void* data, std::size_t size_bytes, std::uint64_t offset,
                 const std::string& path) {
  iovec part{const_cast<void*>(data), size_bytes};
  return write_all(fd, &part, 1, offset, path);
}

Result<std::size_t> read_fully(int fd, void* target, std::size_t size_bytes, std::uint64_t offset,
                               const std::string& path) {
  std::size_t done = 0;
  while (done < size_bytes) {
    const ssize_t got =
        ::pread(fd, static_cast<char*>(target) + done, size_bytes - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return failed("read", path);
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  return done;
}

Status sync_data(int fd, const std::string& path) {
  while (::fdatasync(fd) != 0) {
    if (errno != EINTR) return failed("fdatasync", path);
  }
  return ok_status();
}

Status sync_dir(int fd, const std::string& path) {
  while (::fsync(fd) != 0) {
    if (errno != EINTR) return failed("fsync", path);
  }
  return ok_status();
}

Status rename_no_replace(int from_dir, const std::string& from, int to_dir, const std::string& to,
                         const std::string& path) {
  if (::renameat2(from_dir, from.c_str(), to_dir, to.c_str(), RENAME_NOREPLACE) == 0) return ok_status();
  if (errno != EINVAL && errno != ENOSYS) return failed("rename to", path);
  // A file system without the flag (some FUSE, old NFS): link refuses an existing name as well.
  if (::linkat(from_dir, from.c_str(), to_dir, to.c_str(), 0) != 0) return failed("link", path);
  (void)::unlinkat(from_dir, from.c_str(), 0);  // A leftover second name is swept at the next start.
  return ok_status();
}

}  // namespace cms::storage
