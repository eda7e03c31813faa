#include "cms/admin/client.h"

#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "base/prng.h"
#include "net/endpoint.h"
#include "net/socket.h"

namespace cms::admin {
namespace {

using Clock = std::chrono::steady_clock;
using Timeout = Client::Timeout;

constexpr std::string_view kIpc = "ipc://";
constexpr std::string_view kTcp = "tcp://";

Error unreachable(const std::string& endpoint, const std::string& why) {
  return make_error(Code::kUnavailable, "no cmsd answers at " + endpoint + ": " + why);
}

Error unreachable(const std::string& endpoint, int os_errno) {
  if (os_errno == EACCES || os_errno == EPERM) {
    return make_error(Code::kPermission,
                      "not allowed to connect to " + endpoint + "; allowed: root and group cms");
  }
  return unreachable(endpoint, std::generic_category().message(os_errno));
}

int connect_within(int fd, const sockaddr* address, socklen_t size, Timeout timeout) {
  if (::connect(fd, address, size) == 0) return 0;
  if (errno != EINPROGRESS) return errno;
  pollfd item{fd, POLLOUT, 0};
  const int ready = ::poll(&item, 1, static_cast<int>(timeout.count()));
  if (ready <= 0) return ready == 0 ? ETIMEDOUT : errno;
  int error = 0;
  socklen_t length = sizeof(error);
  return ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 ? error : errno;
}

int probe(int family, const sockaddr* address, socklen_t size, Timeout timeout) {
  const int fd = ::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return errno;
  const int error = connect_within(fd, address, size, timeout);
  ::close(fd);
  return error;
}

// ZeroMQ connects in the background for ever; a plain connect says at once that nobody listens.
Status probe(const std::string& endpoint, Timeout timeout) {
  if (endpoint.rfind(kIpc, 0) == 0) {
    const std::string path = endpoint.substr(kIpc.size());
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), std::min(path.size(), sizeof(address.sun_path) - 1));
    // EAGAIN: its backlog is full, so somebody is there.
    const int error = probe(AF_UNIX, reinterpret_cast<const sockaddr*>(&address), sizeof(address), timeout);
    return error == 0 || error == EAGAIN ? ok_status() : Status(unreachable(endpoint, error));
  }
  const std::size_t colon = endpoint.rfind(':');
  std::string host = endpoint.substr(kTcp.size(), colon - kTcp.size());
  if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  const int failed = ::getaddrinfo(host.c_str(), endpoint.substr(colon + 1).c_str(), &hints, &list);
  if (failed != 0) return unreachable(endpoint, ::gai_strerror(failed));
  int error = ETIMEDOUT;
  const Clock::time_point deadline = Clock::now() + timeout;
  for (const addrinfo* one = list; one != nullptr && error != 0; one = one->ai_next) {
    const auto left = std::chrono::duration_cast<Timeout>(deadline - Clock::now());
    if (left.count() <= 0) break;
    error = probe(one->ai_family, one->ai_addr, one->ai_addrlen, left);
  }
  ::freeaddrinfo(list);
  return error == 0 ? ok_status() : Status(unreachable(endpoint, error));
}

class ZmqClient final : public Client {
 public:
  ZmqClient(std::string endpoint, Timeout timeout) : endpoint_(std::move(endpoint)), timeout_(timeout) {}

  Status open() { return net::connect(socket_, endpoint_); }

  Result<wire::AdminAnswer> ask(wire::AdminRequest request) override {
    request.request_id = ++last_request_id_;
    if (Status sent = send_frame(wire::encode(wire::AdminBody{request})); !sent.ok()) return sent.error();
    const Clock::time_point deadline = Clock::now() + timeout_;
    while (true) {
      if (Status received = receive(deadline); !received.ok()) return received.error();
      if (frames_.size() != 1) return malformed("an answer of " + std::to_string(frames_.size()) + " frames");
      auto body = wire::decode_admin(frames_[0].data(), frames_[0].size());
      if (!body) return malformed(body.error().context);
      auto* answer = std::get_if<wire::AdminAnswer>(&*body);
      if (answer == nullptr) return malformed("a question instead of an answer");
      if (answer->request_id == request.request_id) return std::move(*answer);
    }
  }

  Status send(const wire::BulkBody& message) override { return send_frame(wire::encode(message)); }

  Result<Piece> next_piece() override {
    if (Status received = receive(Clock::now() + timeout_); !received.ok()) return received.error();
    auto body = wire::decode_bulk(frames_[0].data(), frames_[0].size());
    if (!body) return malformed(body.error().context);
    Piece piece;
    piece.message = std::move(*body);
    const bool chunk = std::holds_alternative<wire::Chunk>(piece.message);
    if (frames_.size() != (chunk ? 2U : 1U))
      return malformed("a message of " + std::to_string(frames_.size()) + " frames");
    if (chunk) {
      piece.data = frames_[1].data();
      piece.size_bytes = frames_[1].size();
    }
    return piece;
  }

  bool unanswered() const override { return unanswered_; }

 private:
  Error malformed(const std::string& what) const {
    return make_error(Code::kProtocol, "what answers at " + endpoint_ + " is no cmsd of our kind: " + what);
  }

  Status send_frame(const wire::Bytes& bytes) {
    unanswered_ = net::send(socket_, bytes.data(), bytes.size(), false) != net::Sent::kYes;
    if (!unanswered_) return ok_status();
    return unreachable(endpoint_, "it takes no more messages");
  }

  Status receive(Clock::time_point deadline) {
    unanswered_ = false;
    while (!net::receive(socket_, frames_)) {
      const auto left = std::chrono::ceil<Timeout>(deadline - Clock::now());
      if (left.count() <= 0) {
        unanswered_ = true;
        return unreachable(endpoint_, "no answer within " + std::to_string(timeout_.count()) + " ms");
      }
      zmq::pollitem_t item{socket_.handle(), 0, ZMQ_POLLIN, 0};
      try {
        zmq::poll(&item, 1, left);
      } catch (const zmq::error_t& error) {
        if (error.num() != EINTR) return error_from_errno(error.num(), "wait for " + endpoint_);
      }
    }
    return ok_status();
  }

  std::string endpoint_;
  Timeout timeout_;
  bool unanswered_ = false;
  std::uint64_t last_request_id_ = random_u64() >> 1;
  zmq::context_t context_;
  zmq::socket_t socket_ = net::make_admin_dealer(context_);
  std::vector<zmq::message_t> frames_;
};

}  // namespace

Surroundings process_surroundings() {
  Surroundings surroundings;
  surroundings.environment = [](const char* name) -> const char* { return std::getenv(name); };
  return surroundings;
}

Result<std::string> admin_endpoint(const std::string& text) {
  if (text.rfind(kIpc, 0) == 0 && text.size() > kIpc.size() &&
      text.size() - kIpc.size() < sizeof(sockaddr_un::sun_path)) {
    return text;
  }
  if (text.rfind(kTcp, 0) == 0) {
    const auto notify = net::parse_endpoint(text);
    if (!notify) return notify.error();
    return notify->channel(net::kAdminPort);
  }
  return make_error(Code::kInvalidArgument,
                    "'" + text.substr(0, 200) +
                        "' is not where a cmsd can be; allowed: ipc://PATH of its admin "
                        "socket, or tcp://HOST:PORT with its port base");
}

Result<std::string> only_endpoint(const Surroundings& surroundings) {
  std::vector<std::string> directories = {surroundings.system_directory};
  if (const char* runtime = surroundings.environment("XDG_RUNTIME_DIR");
      runtime != nullptr && *runtime == '/') {
    directories.push_back(std::string(runtime) + "/cms");
  }
  std::vector<std::string> found;
  std::string places;
  for (const std::string& directory : directories) {
    places += (places.empty() ? "" : " or ") + directory;
    std::error_code ignored;  // Not there, or not for us: then there is no socket for us either.
    for (std::filesystem::directory_iterator it(directory, ignored), end; !ignored && it != end;
         it.increment(ignored)) {
      if (it->path().extension() == ".sock") found.push_back(std::string(kIpc) + it->path().string());
    }
  }
  if (found.size() == 1) return found.front();
  if (found.empty()) {
    return make_error(Code::kNotFound,
                      "no cmsd found: no socket in " + places + "; say where it is with --cms or CMS_ADMIN");
  }
  std::sort(found.begin(), found.end());
  std::string list;
  for (const std::string& endpoint : found) list += "\n  --cms " + endpoint;
  return make_error(Code::kInvalidArgument, "several cmsds are here; say which one:" + list);
}

Result<std::unique_ptr<Client>> Client::connect(const std::string& endpoint, Timeout timeout) {
  if (Status status = probe(endpoint, timeout); !status.ok()) return status.error();
  auto client = std::make_unique<ZmqClient>(endpoint, timeout);
  if (Status status = client->open(); !status.ok()) return status.error();
  return std::unique_ptr<Client>(std::move(client));
}

}  // namespace cms::admin
