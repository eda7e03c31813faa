#pragma once
// Thin layer over cppzmq: sockets with every option that matters set in one place, by the rules that
// docs/adr/0003 gives for libzmq 4.3.4, and no exception for what is expected (nobody there, full).
//
// Threads: a socket belongs to the thread that uses it.
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <zmq.hpp>

#include "base/result.h"
#include "net/endpoint.h"

namespace cms::net {

// What a frame may have at most, by channel; a larger one ends its connection.
inline constexpr std::int64_t kControlFrameMax = 64 * 1024;
inline constexpr std::int64_t kBulkFrameMax = 4 * 1024 * 1024 + 64 * 1024;

// ECU side.
zmq::socket_t make_notify_pub(zmq::context_t& context);
zmq::socket_t make_control_dealer(zmq::context_t& context);
zmq::socket_t make_bulk_router(zmq::context_t& context);
// CMS side (and whoever fetches).
zmq::socket_t make_notify_sub(zmq::context_t& context);
zmq::socket_t make_control_router(zmq::context_t& context);
zmq::socket_t make_bulk_dealer(zmq::context_t& context);
zmq::socket_t make_peer_pub(zmq::context_t& context);  // Connects to the other CMS instances.
zmq::socket_t make_peer_sub(zmq::context_t& context);
zmq::socket_t make_admin_router(zmq::context_t& context);
zmq::socket_t make_admin_dealer(zmq::context_t& context);

// kAlreadyExists: the address is in use. Others by errno; the endpoint stands in the error.
Status bind(zmq::socket_t& socket, const std::string& endpoint);
// Binds the first free port of the range on `host` ("*": all) and returns it. kAlreadyExists: none.
Result<std::uint16_t> bind_in_range(zmq::socket_t& socket, const std::string& host, const PortRange& range);
// ZeroMQ connects in the background; an error here is a malformed endpoint.
Status connect(zmq::socket_t& socket, const std::string& endpoint);

// All frames of the next message, without waiting; nullopt: there is none. `frames` is reused.
bool receive(zmq::socket_t& socket, std::vector<zmq::message_t>& frames);

enum class Sent { kYes, kFull, kUnreachable };
// Sends without waiting. kUnreachable: only from a ROUTER whose peer has gone.
Sent send(zmq::socket_t& socket, zmq::message_t&& frame, bool more);
Sent send(zmq::socket_t& socket, const void* data, std::size_t size_bytes, bool more);

// Waits until one of the items is ready or the time is over. An interruption (a debugger, a stop and a
// continue) ends the wait early, with nothing ready.
void poll(std::vector<zmq::pollitem_t>& items, std::chrono::milliseconds timeout);

// The IP address a received frame came from; empty when not known.
std::string peer_address_of(zmq::message_t& frame);

// An eventfd that other threads use to wake a loop. The constructor throws zmq::error_t, as that of a
// socket does: a library must not end its process for want of a descriptor.
class Waker {
 public:
  Waker();
  ~Waker();
  Waker(const Waker&) = delete;
  Waker& operator=(const Waker&) = delete;
  int fd() const { return fd_; }
  void wake() const;   // Any thread; async-signal-safe.
  void drain() const;  // The loop.

 private:
  int fd_;
};

}  // namespace cms::net
