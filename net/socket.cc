#include "net/socket.h"

#include <sys/eventfd.h>
#include <unistd.h>
#include <cerrno>

namespace cms::net {
namespace {

// Where nothing else is said: LINGER 0 everywhere (a default of -1 would hang the end of the process),
// TCP keep-alive finds dead peers in about 25 s where no heartbeat of our own does it sooner.
zmq::socket_t make(zmq::context_t& context, zmq::socket_type type) {
  zmq::socket_t socket(context, type);
  socket.set(zmq::sockopt::linger, 0);
  socket.set(zmq::sockopt::tcp_keepalive, 1);
  socket.set(zmq::sockopt::tcp_keepalive_idle, 10);
  socket.set(zmq::sockopt::tcp_keepalive_intvl, 5);
  socket.set(zmq::sockopt::tcp_keepalive_cnt, 3);
  socket.set(zmq::sockopt::handshake_ivl, 10000);
  socket.set(zmq::sockopt::ipv6, 1);
  return socket;
}

void set_connecting(zmq::socket_t& socket) {
  socket.set(zmq::sockopt::reconnect_ivl, 100);  // + up to as much by chance
  socket.set(zmq::sockopt::reconnect_ivl_max, 2000);
  socket.set(zmq::sockopt::connect_timeout, 3000);
}

}  // namespace

zmq::socket_t make_notify_pub(zmq::context_t& context) {
  zmq::socket_t socket = make(context, zmq::socket_type::pub);
  // At most 2 MiB. What is lost beyond it LIST brings, but when it was the end of a burst only after
  // the next heartbeat, so a burst of many programs should fit.
  socket.set(zmq::sockopt::sndhwm, 2048);
  set_connecting(socket);
  return socket;
}

zmq::socket_t make_control_dealer(zmq::context_t& context) {
  zmq::socket_t socket = make(context, zmq::socket_type::dealer);
  socket.set(zmq::sockopt::sndhwm, 1000);
  socket.set(zmq::sockopt::rcvhwm, 0);
  socket.set(zmq::sockopt::maxmsgsize, kControlFrameMax);
  socket.set(zmq::sockopt::linger, 500);  // For BYE.
  set_connecting(socket);
  return socket;
}

zmq::socket_t make_bulk_router(zmq::context_t& context) {
  zmq::socket_t socket = make(context, zmq::socket_type::router);
  socket.set(zmq::sockopt::router_mandatory, 1);
  socket.set(zmq::sockopt::router_handover, 1);
  socket.set(zmq::sockopt::sndhwm, 16384);  // A fuse; credit is the limit.
  socket.set(zmq::sockopt::rcvhwm, 16384);
  socket.set(zmq::sockopt::maxmsgsize, kControlFrameMax);
  socket.set(zmq::sockopt::backlog, 128);
  return socket;
}

zmq::socket_t make_notify_sub(zmq::context_t& context) {
  zmq::socket_t socket = make(context, zmq::socket_type::sub);
  socket.set(zmq::sockopt::subscribe, "");
  socket.set(zmq::sockopt::rcvhwm, 100000);
  socket.set(zmq::sockopt::maxmsgsize, kControlFrameMax);
  socket.set(zmq::sockopt::backlog, 1024);
  return socket;
}

zmq::socket_t make_control_router(zmq::context_t& context) {
  zmq::socket_t socket = make(context, zmq::socket_type::router);
  socket.set(zmq::sockopt::router_mandatory, 1);
  socket.set(zmq::sockopt::router_handover, 1);
  socket.set(zmq::sockopt::sndhwm, 20000);
  socket.set(zmq::sockopt::rcvhwm, 20000);
  socket.set(zmq::sockopt::maxmsgsize, kControlFrameMax);
  socket.set(zmq::sockopt::backlog, 1024);
  return socket;
}

zmq::socket_t make_bulk_dealer(zmq::context_t& context) {
  zmq::socket_t socket = make(context, zmq::socket_type::dealer);
  socket.set(zmq::sockopt::sndhwm, 16384);
  socket.set(zmq::sockopt::rcvhwm, 0);  // Credit bounds what can arrive.
  socket.set(zmq::sockopt::maxmsgsize, kBulkFrameMax);
  set_connecting(socket);
  return socket;
}

zmq::socket_t make_peer_pub(zmq::context_t& context) {
  zmq::socket_t socket = make(context, zmq::socket_type::pub);
  socket.set(zmq::sockopt::sndhwm, 20000);  // Some MiB; what is lost beyond it the store tells.
  set_connecting(socket);
  // A peer that is back must hear us well within the second after which we are taken for silent.
  socket.set(zmq::sockopt::reconnect_ivl, 100);
  socket.set(zmq::sockopt::reconnect_ivl_max, 400);
  socket.set(zmq::sockopt::connect_timeout, 1000);
  return socket;
}

zmq::socket_t make_peer_sub(zmq::context_t& context) {
  zmq::socket_t socket = make(context, zmq::socket_type::sub);
  socket.set(zmq::sockopt::subscribe, "");
  socket.set(zmq::sockopt::rcvhwm, 20000);
  socket.set(zmq::sockopt::maxmsgsize, kControlFrameMax);
  return socket;
}

zmq::socket_t make_admin_router(zmq::context_t& context) {
  zmq::socket_t socket = make(context, zmq::socket_type::router);
  socket.set(zmq::sockopt::router_mandatory, 1);
  socket.set(zmq::sockopt::sndhwm, 1000);
  socket.set(zmq::sockopt::rcvhwm, 1000);
  socket.set(zmq::sockopt::maxmsgsize, kControlFrameMax);
  return socket;
}

zmq::socket_t make_admin_dealer(zmq::context_t& context) {
  zmq::socket_t socket = make(context, zmq::socket_type::dealer);
  socket.set(zmq::sockopt::rcvhwm, 0);
  socket.set(zmq::sockopt::maxmsgsize, kBulkFrameMax);
  set_connecting(socket);
  return socket;
}

Status bind(zmq::socket_t& socket, const std::string& endpoint) {
  try {
    socket.bind(endpoint);
  } catch (const zmq::error_t& error) {
    if (error.num() == EADDRINUSE) {
      return make_error(Code::kAlreadyExists, "cannot listen on " + endpoint + ": the address is in use");
    }
    return error_from_errno(error.num(), "cannot listen on " + endpoint);
  }
  return ok_status();
}

Result<std::uint16_t> bind_in_range(zmq::socket_t& socket, const std::string& host, const PortRange& range) {
  for (unsigned port = range.first; port <= range.last; ++port) {
    const Status bound = bind(socket, "tcp://" + host + ":" + std::to_string(port));
    if (bound.ok()) return static_cast<std::uint16_t>(port);
    if (bound.code() != Code::kAlreadyExists) return bound.error();
  }
  return make_error(Code::kAlreadyExists, "all ports from " + std::to_string(range.first) + " to " +
                                              std::to_string(range.last) + " are in use");
}

Status connect(zmq::socket_t& socket, const std::string& endpoint) {
  try {
    socket.connect(endpoint);
  } catch (const zmq::error_t& error) {
    return error_from_errno(error.num(), "cannot connect to " + endpoint);
  }
  return ok_status();
}

bool receive(zmq::socket_t& socket, std::vector<zmq::message_t>& frames) {
  frames.clear();
  while (true) {
    zmq::message_t frame;
    if (!socket.recv(frame, zmq::recv_flags::dontwait)) return false;
    const bool more = frame.more();
    frames.push_back(std::move(frame));
    if (!more) return true;
  }
}

Sent send(zmq::socket_t& socket, zmq::message_t&& frame, bool more) {
  const auto flags = more ? zmq::send_flags::dontwait | zmq::send_flags::sndmore : zmq::send_flags::dontwait;
  try {
    return socket.send(std::move(frame), flags) ? Sent::kYes : Sent::kFull;
  } catch (const zmq::error_t& error) {
    if (error.num() == EHOSTUNREACH) return Sent::kUnreachable;
    throw;  // Our own misuse of a socket.
  }
}

Sent send(zmq::socket_t& socket, const void* data, std::size_t size_bytes, bool more) {
  return send(socket, zmq::message_t(data, size_bytes), more);
}

void poll(std::vector<zmq::pollitem_t>& items, std::chrono::milliseconds timeout) {
  try {
    zmq::poll(items, timeout);
  } catch (const zmq::error_t& error) {
    if (error.num() != EINTR) throw;  // Our own misuse.
    for (zmq::pollitem_t& item : items) item.revents = 0;
  }
}

std::string peer_address_of(zmq::message_t& frame) {
  try {
    const char* address = frame.gets("Peer-Address");
    if (address == nullptr) return {};
    constexpr std::string_view kMapped = "::ffff:";  // An IPv4 peer on an IPv6 socket.
    std::string_view text(address);
    if (text.substr(0, kMapped.size()) == kMapped) text.remove_prefix(kMapped.size());
    return std::string(text);
  } catch (const zmq::error_t&) {
    return {};
  }
}

Waker::Waker() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (fd_ < 0) throw zmq::error_t(errno);
}
Waker::~Waker() { ::close(fd_); }

void Waker::wake() const {
  const std::uint64_t one = 1;
  // Fails only when the counter is full, that is, when the loop is about to wake anyway.
  (void)!::write(fd_, &one, sizeof(one));
}

void Waker::drain() const {
  std::uint64_t count = 0;
  (void)!::read(fd_, &count, sizeof(count));
}

}  // namespace cms::net
