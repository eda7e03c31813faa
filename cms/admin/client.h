#pragma once
// The connection of cms-admin to a cmsd: one DEALER on its admin channel.
//
// Threads: one. Errors: kUnavailable, nobody is there or no answer came in time (exit code 3);
// kPermission, the socket is not for us; kProtocol, what came is not an answer.
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "schemas/messages.h"

namespace cms::admin {

// What surrounds the program; tests have their own.
struct Surroundings {
  std::function<const char*(const char* name)> environment;  // nullptr: not set.
  std::string system_directory = "/run/cms";                 // Where a cmsd of root has its socket.
};
Surroundings process_surroundings();

// What --cms and CMS_ADMIN may be: "ipc://PATH", or "tcp://HOST:PORT" of the notify channel, of which
// the admin channel follows. Returns what to connect to. kInvalidArgument says what is allowed.
Result<std::string> admin_endpoint(const std::string& text);
// The only socket there is. kNotFound: there is none; kInvalidArgument: there are several (listed).
Result<std::string> only_endpoint(const Surroundings& surroundings);

class Client {
 public:
  using Timeout = std::chrono::milliseconds;

  // Fails at once when nobody listens. `timeout`: for connecting, and then for each answer.
  static Result<std::unique_ptr<Client>> connect(const std::string& endpoint, Timeout timeout);
  virtual ~Client() = default;

  // Asks and waits for the answer, whose code may be an error.
  virtual Result<wire::AdminAnswer> ask(wire::AdminRequest request) = 0;

  // Of a transfer. `data` is valid until the next call.
  struct Piece {
    wire::BulkBody message{};
    const void* data = nullptr;  // Of a Chunk.
    std::size_t size_bytes = 0;
  };
  virtual Status send(const wire::BulkBody& message) = 0;
  virtual Result<Piece> next_piece() = 0;

  // The last call failed because no cmsd answered; not because of what it said.
  virtual bool unanswered() const = 0;
};

}  // namespace cms::admin
