#pragma once
// Server is cmsd without its command line: one loop thread (the caller of run) owns all sockets and
// the core; workers do what blocks. A turn: read the clock, take what has come on each channel and
// from the workers, feed the core, carry out its effects.
#include <memory>

#include "base/result.h"
#include "cms/daemon/config.h"

namespace cms::daemon {

class Server {
 public:
  // Takes the admin lock, opens the index and binds all channels; the store may be down.
  // kAlreadyExists: an address, the admin lock or the index belongs to another process (said which).
  static Result<std::unique_ptr<Server>> create(const Config& config);
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  ~Server();

  // Runs until SIGTERM or SIGINT (block both in all threads before create), then finishes the pulls
  // under way, for kDrainMax at most, and returns. An error: this cmsd must not go on; kInvalidArgument:
  // it was started wrongly (a --peer is itself), kAlreadyExists: another one has its name.
  Status run();

 private:
  class Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace cms::daemon
