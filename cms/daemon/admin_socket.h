#pragma once
// Makes the admin channel's address ours: a Unix socket with a lock file beside it (so that a second
// cmsd of the same name is refused and one killed by -9 is followed at once), for group cms only.
#include <memory>
#include <string>

#include "base/result.h"
#include "net/socket.h"

namespace cms::daemon {

// Held for as long as the socket is ours.
class AdminLock {
 public:
  // For "ipc://PATH": makes the missing last directory of PATH (mode 0755) and locks PATH.lock. For
  // tcp endpoints there is nothing to lock. kAlreadyExists: another process has it.
  static Result<std::unique_ptr<AdminLock>> take(const std::string& endpoint);
  AdminLock(const AdminLock&) = delete;
  AdminLock& operator=(const AdminLock&) = delete;
  ~AdminLock();

 private:
  AdminLock() = default;
  int fd_ = -1;
  std::string socket_path_;  // Removed at the end; empty for tcp.
};

// Binds and, for a Unix socket, sets mode 0660 and group cms (if there is such a group).
Status bind_admin(zmq::socket_t& socket, const std::string& endpoint);

}  // namespace cms::daemon
