#include "rtcr-client/cli/output_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cerrno>
#include <cstdlib>
#include <utility>

namespace cms::cli {
namespace {

// The file that a link names is replaced, not the link.
std::string resolved(const std::string& path) {
  char* real = ::realpath(path.c_str(), nullptr);
  if (real == nullptr) return path;
  std::string result(real);
  std::free(real);
  return result;
}

Status sync_folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return error_from_errno(errno, "open " + folder);
  const bool synced = ::fsync(fd) == 0;
  const int sync_errno = errno;
  ::close(fd);
  // Some file systems have no fsync for folders: then the rename is as durable as it gets.
  if (!synced && sync_errno != EINVAL) return error_from_errno(sync_errno, "sync " + folder);
  return ok_status();
}

}  // namespace

Result<std::unique_ptr<OutputFile>> OutputFile::create(const std::string& path) {
  const auto made = [](int fd, std::string target, std::string part) {
    return std::unique_ptr<OutputFile>(new OutputFile(fd, std::move(target), std::move(part)));
  };
  if (path == "-") return made(STDOUT_FILENO, "standard output", "");
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd < 0) return error_from_errno(errno, "open " + path);
    return made(fd, path, "");
  }
  const std::string target = resolved(path);
  std::string part = target + ".part-XXXXXX";
  const int fd = ::mkostemp(part.data(), O_CLOEXEC);
  if (fd < 0) return error_from_errno(errno, "create " + target + ".part-*");
  return made(fd, target, part);
}

OutputFile::~OutputFile() {
  if (fd_ >= 0 && fd_ != STDOUT_FILENO) ::close(fd_);
  if (!part_path_.empty()) ::unlink(part_path_.c_str());
}

Status OutputFile::write(const void* data, std::size_t size_bytes) {
  const char* at = static_cast<const char*>(data);
  while (size_bytes > 0) {
    const ssize_t count = ::write(fd_, at, size_bytes);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return error_from_errno(errno, "write " + path_);
    at += count;
    size_bytes -= static_cast<std::size_t>(count);
  }
  return ok_status();
}

Status OutputFile::finish() {
  if (part_path_.empty()) return ok_status();
  if (::fsync(fd_) != 0) return error_from_errno(errno, "sync " + part_path_);
  const int closed = ::close(std::exchange(fd_, -1));
  if (closed != 0) return error_from_errno(errno, "close " + part_path_);
  if (::rename(part_path_.c_str(), path_.c_str()) != 0) return error_from_errno(errno, "rename to " + path_);
  part_path_.clear();
  return sync_folder_of(path_);
}

}  // namespace cms::cli
