#include "cms/daemon/admin_socket.h"

#include <fcntl.h>
#include <grp.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cerrno>

namespace cms::daemon {
namespace {

constexpr std::string_view kIpc = "ipc://";
constexpr char kGroup[] = "cms";

std::string path_of(const std::string& endpoint) {
  return endpoint.compare(0, kIpc.size(), kIpc) == 0 ? endpoint.substr(kIpc.size()) : std::string();
}

}  // namespace

Result<std::unique_ptr<AdminLock>> AdminLock::take(const std::string& endpoint) {
  std::unique_ptr<AdminLock> lock(new AdminLock());
  const std::string socket_path = path_of(endpoint);
  if (socket_path.empty()) return lock;
  const std::size_t slash = socket_path.rfind('/');
  if (slash != std::string::npos && slash > 0) {
    const std::string directory = socket_path.substr(0, slash);
    if (::mkdir(directory.c_str(), 0755) != 0 && errno != EEXIST) {
      return error_from_errno(errno, "cannot make the directory of the admin socket, " + directory);
    }
  }
  const std::string lock_path = socket_path + ".lock";
  lock->fd_ = ::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0640);
  if (lock->fd_ < 0) return error_from_errno(errno, "cannot open " + lock_path);
  if (::flock(lock->fd_, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) {
      return make_error(
          Code::kAlreadyExists,
          "another cmsd has " + lock_path + " locked: one with this --name (or --admin) is running already");
    }
    return error_from_errno(errno, "cannot lock " + lock_path);
  }
  lock->socket_path_ = socket_path;  // Only now is it ours to remove.
  return lock;
}

AdminLock::~AdminLock() {
  // The lock file stays: removing it would let two processes hold "the" lock.
  if (!socket_path_.empty()) ::unlink(socket_path_.c_str());
  if (fd_ >= 0) ::close(fd_);
}

Status bind_admin(zmq::socket_t& socket, const std::string& endpoint) {
  const std::string path = path_of(endpoint);
  if (path.empty()) return net::bind(socket, endpoint);
  const mode_t old_mask = ::umask(0117);  // Never wider than 0660, not even for a moment.
  const Status bound = net::bind(socket, endpoint);
  ::umask(old_mask);
  if (!bound.ok()) return bound;
  if (::chmod(path.c_str(), 0660) != 0) return error_from_errno(errno, "cannot set the mode of " + path);
  const group* entry = ::getgrnam(kGroup);
  // Without the group, or the right to give to it, the socket stays with our own.
  if (entry != nullptr) (void)!::chown(path.c_str(), static_cast<uid_t>(-1), entry->gr_gid);
  return ok_status();
}

}  // namespace cms::daemon
