#pragma once
// The few system calls of the directory store, each looped until done (EINTR, short writes) and with
// errors that name the path. A path here is for people; files are reached through directory
// descriptors, so that a mount that goes away is never replaced by what lies beneath it.
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include "base/result.h"

namespace cms::storage {

class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~UniqueFd() { reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset();

 private:
  int fd_ = -1;
};

Result<UniqueFd> open_at(int dir_fd, const std::string& name, int flags, const std::string& path);
Result<UniqueFd> open_dir_at(int dir_fd, const std::string& name, const std::string& path);
// An existing directory is success.
Status make_dir_at(int dir_fd, const std::string& name, const std::string& path);

// Calls `visit` with each name in a directory, in no order, until it returns false.
Status visit_names(int dir_fd, const std::string& path, const std::function<bool(const std::string&)>& visit);

// Writes all buffers at `offset`; changes `parts`.
Status write_all(int fd, iovec* parts, int count, std::uint64_t offset, const std::string& path);
Status write_all(int fd, const void* data, std::size_t size_bytes, std::uint64_t offset,
                 const std::string& path);
// Returns the bytes read: fewer than asked only at the end of the file.
Result<std::size_t> read_fully(int fd, void* target, std::size_t size_bytes, std::uint64_t offset,
                               const std::string& path);

// A failed sync is final for the file: the kernel may have dropped the pages and say "clean" next
// time. Whoever gets an error here must not try again, but drop the file.
Status sync_data(int fd, const std::string& path);
Status sync_dir(int fd, const std::string& path);

// Moves a file to a name that must not exist yet; atomic. kAlreadyExists: it does.
Status rename_no_replace(int from_dir, const std::string& from, int to_dir, const std::string& to,
                         const std::string& path);

}  // namespace cms::storage
