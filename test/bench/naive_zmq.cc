// What a team would write first: the whole checkpoint as one ZeroMQ message, DEALER to ROUTER; the
// other process writes it, syncs and answers. Sent without a copy, to be no easier to beat than it is.
#include <cstdlib>
#include <filesystem>
#include <iostream>

#include <zmq.hpp>

#include "base/assert.h"
#include "test/bench/sides.h"
#include "test/support/process.h"

namespace cms::bench {
namespace {

class NaiveZmq : public Side {
 public:
  explicit NaiveZmq(const std::string& directory)
      : target_(directory + "/zmq"), socket_(context_, zmq::socket_type::dealer) {
    const std::uint16_t port = free_port();
    const std::string endpoint = "tcp://127.0.0.1:" + std::to_string(port);
    sink_ = std::make_unique<test::Process>(
        std::vector<std::string>{"/proc/self/exe", "--naive-sink", endpoint, "--dir", directory});
    wait_for_port(port);
    socket_.set(zmq::sockopt::linger, 0);
    socket_.set(zmq::sockopt::rcvtimeo, 120000);
    socket_.connect(endpoint);
  }
  std::string name() const override { return "one ZeroMQ message"; }
  double store(const Source& source) override {
    const Stopwatch watch;
    zmq::message_t message(
        const_cast<void*>(source.data), source.size_bytes, [](void*, void*) {}, nullptr);
    (void)socket_.send(std::move(message), zmq::send_flags::none);
    zmq::message_t answer;
    if (!socket_.recv(answer)) {
      std::cerr << "store_bench: no answer to the one ZeroMQ message\n";
      std::exit(1);
    }
    return watch.seconds();
  }
  void clean_up() override { std::filesystem::remove(target_); }

 private:
  std::string target_;
  zmq::context_t context_;
  zmq::socket_t socket_;
  std::unique_ptr<test::Process> sink_;
};

}  // namespace

std::unique_ptr<Side> make_naive_zmq(const std::string& directory) {
  return std::make_unique<NaiveZmq>(directory);
}

// Ends when its parent does (test::Process).
int run_naive_sink(const std::string& endpoint, const std::string& directory) {
  zmq::context_t context;
  zmq::socket_t socket(context, zmq::socket_type::router);
  socket.bind(endpoint);
  while (true) {
    zmq::message_t peer;
    zmq::message_t body;
    if (!socket.recv(peer) || !peer.more()) continue;
    if (!socket.recv(body)) continue;
    write_file(directory + "/zmq", body.data(), body.size());
    (void)socket.send(std::move(peer), zmq::send_flags::sndmore);
    (void)socket.send(zmq::str_buffer("ACK"), zmq::send_flags::none);
  }
}

}  // namespace cms::bench
