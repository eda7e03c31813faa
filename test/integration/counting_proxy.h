#pragma once
// Listens on 127.0.0.2 and passes everything on to the same port of 127.0.0.1, counting the bytes of both
// directions: what crosses the network between two programs of a test.
//
// Threads: one that accepts, two for each connection.
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "base/assert.h"

namespace cms::test {

class CountingProxy {
 public:
  static constexpr const char* kHost = "127.0.0.2";

  CountingProxy(std::uint16_t port, std::atomic<std::uint64_t>& bytes) : port_(port), bytes_(bytes) {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int one = 1;
    (void)::setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    const sockaddr_in address = address_of(kHost);
    CMS_ASSERT(::bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
    CMS_ASSERT(::listen(listener_, 64) == 0);
    acceptor_ = std::thread([this] { accept_all(); });
  }
  ~CountingProxy() {
    (void)::shutdown(listener_, SHUT_RDWR);
    acceptor_.join();
    {
      const std::lock_guard lock(mutex_);
      for (const int fd : fds_) (void)::shutdown(fd, SHUT_RDWR);
    }
    for (std::thread& pump : pumps_) pump.join();
    for (const int fd : fds_) ::close(fd);
    ::close(listener_);
  }
  CountingProxy(const CountingProxy&) = delete;
  CountingProxy& operator=(const CountingProxy&) = delete;

 private:
  sockaddr_in address_of(const char* host) const {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port_);
    (void)::inet_pton(AF_INET, host, &address.sin_addr);
    return address;
  }

  void accept_all() {
    int in = -1;
    while ((in = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC)) >= 0) {
      const int out = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      const sockaddr_in address = address_of("127.0.0.1");
      if (::connect(out, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
        ::close(in);  // Nobody is there yet; who connected tries again.
        ::close(out);
        continue;
      }
      const std::lock_guard lock(mutex_);
      fds_.push_back(in);
      fds_.push_back(out);
      pumps_.emplace_back([this, in, out] { pump(in, out); });
      pumps_.emplace_back([this, in, out] { pump(out, in); });
    }
  }

  void pump(int from, int to) {
    std::vector<char> buffer(256 * 1024);
    ssize_t got = 0;
    while ((got = ::recv(from, buffer.data(), buffer.size(), 0)) > 0) {
      bytes_ += static_cast<std::uint64_t>(got);
      for (ssize_t done = 0; done < got;) {
        const ssize_t sent =
            ::send(to, buffer.data() + done, static_cast<std::size_t>(got - done), MSG_NOSIGNAL);
        if (sent <= 0) break;
        done += sent;
      }
    }
    (void)::shutdown(from, SHUT_RDWR);
    (void)::shutdown(to, SHUT_RDWR);
  }

  const std::uint16_t port_;
  std::atomic<std::uint64_t>& bytes_;
  int listener_ = -1;
  std::mutex mutex_;
  std::vector<int> fds_;  // Closed at the end only: a number is never another connection's.
  std::vector<std::thread> pumps_;
  std::thread acceptor_;
};

}  // namespace cms::test
