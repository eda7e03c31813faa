// Clients of other versions: what a newer and an older one say is understood, what cannot be is refused.
#include <gtest/gtest.h>
#include <functional>
#include <mutex>
#include <thread>

#include "net/socket.h"
#include "schemas/messages.h"
#include "test/support/cmsd_process.h"
#include "test/support/publisher.h"

namespace cms::test {
namespace {

constexpr const char* kProxyHost = "127.0.0.2";  // cmsd of tests listen on 127.0.0.1 only.

// Stands between one client and the control channel of a cmsd and alters each Hello, so that the client
// speaks as one of another version does. The notify channel leads nowhere: LIST makes up for it.
class HelloAlteringProxy {
 public:
  HelloAlteringProxy(const CmsdProcess& cmsd, std::function<void(wire::Hello&)> alter)
      : alter_(std::move(alter)), endpoint_("tcp://" + std::string(kProxyHost) + ":" + port_of(cmsd)) {
    const auto ours = net::parse_endpoint(endpoint_);
    const auto theirs = net::parse_endpoint(cmsd.endpoint());
    EXPECT_TRUE(net::bind(client_, ours->channel(net::kControlPort)).ok());
    EXPECT_TRUE(net::connect(cms_, theirs->channel(net::kControlPort)).ok());
    thread_ = std::thread([this] { run(); });
  }
  ~HelloAlteringProxy() {
    stop_.wake();
    thread_.join();
  }
  const std::string& endpoint() const { return endpoint_; }

 private:
  static std::string port_of(const CmsdProcess& cmsd) { return std::to_string(cmsd.port_base()); }

  void run() {
    std::vector<zmq::message_t> frames;
    std::string client_id;
    std::vector<zmq::pollitem_t> items = {{client_.handle(), 0, ZMQ_POLLIN, 0},
                                          {cms_.handle(), 0, ZMQ_POLLIN, 0},
                                          {nullptr, stop_.fd(), ZMQ_POLLIN, 0}};
    while ((items[2].revents & ZMQ_POLLIN) == 0) {
      net::poll(items, std::chrono::seconds(60));
      while (net::receive(client_, frames)) {
        client_id = frames.front().to_string();
        auto message = wire::decode_control(frames.back().data(), frames.back().size());
        ASSERT_TRUE(message.ok()) << message.error().message();
        if (auto* hello = std::get_if<wire::Hello>(&message->body)) alter_(*hello);
        const wire::Bytes bytes = wire::encode(*message);
        (void)net::send(cms_, bytes.data(), bytes.size(), false);
      }
      while (net::receive(cms_, frames)) {
        (void)net::send(client_, client_id.data(), client_id.size(), true);
        (void)net::send(client_, frames.back().data(), frames.back().size(), false);
      }
    }
  }

  std::function<void(wire::Hello&)> alter_;
  std::string endpoint_;
  zmq::context_t context_;
  zmq::socket_t client_ = net::make_control_router(context_);
  zmq::socket_t cms_ = net::make_control_dealer(context_);
  net::Waker stop_;
  std::thread thread_;
};

struct Refusals {
  std::mutex mutex;
  std::vector<std::string> texts;
  std::size_t count() {
    const std::lock_guard<std::mutex> lock(mutex);
    return texts.size();
  }
};

void note_refusal(void* context, const rtcr_event* event) {
  if (event->kind != RTCR_CMS_REFUSED) return;
  auto& refusals = *static_cast<Refusals*>(context);
  const std::lock_guard<std::mutex> lock(refusals.mutex);
  refusals.texts.emplace_back(event->text);
}

TEST(VersionsTest, AClientThatSpeaksTheNextVersionAsWellGetsOnWithToday) {
  const TempDir dir;
  CmsdProcess cmsd(dir);
  HelloAlteringProxy proxy(cmsd, [](wire::Hello& hello) {
    hello.protocol_version = wire::kProtocolVersion + 1;
    hello.protocol_version_min = wire::kProtocolVersion;
    hello.features = UINT64_MAX;
  });
  Publisher publisher(proxy.endpoint(), "02:00:00:00:00:01");
  EXPECT_EQ(publisher.wait(publisher.publish(1, 1, 3000000)), RTCR_OK) << cmsd.log();
  EXPECT_EQ(publisher.withdraw(1), RTCR_OK) << cmsd.log();
}

TEST(VersionsTest, AClientThatSaysNothingOptionalGetsOnWithToday) {
  const TempDir dir;
  CmsdProcess cmsd(dir);
  HelloAlteringProxy proxy(cmsd, [](wire::Hello& hello) {
    wire::Hello old;
    old.protocol_version = old.protocol_version_min = wire::kProtocolVersionMin;
    old.ecu_mac = hello.ecu_mac;
    old.incarnation = hello.incarnation;
    old.nonce = hello.nonce;
    old.bulk_port = hello.bulk_port;
    hello = old;
  });
  Publisher publisher(proxy.endpoint(), "02:00:00:00:00:01");
  EXPECT_EQ(publisher.wait(publisher.publish(1, 1, 3000000)), RTCR_OK) << cmsd.log();
}

TEST(VersionsTest, AClientOfVersionsThatAreNotSpokenIsToldAndHarmsNobody) {
  const TempDir dir;
  CmsdProcess cmsd(dir);
  HelloAlteringProxy proxy(cmsd, [](wire::Hello& hello) {
    hello.protocol_version = wire::kProtocolVersion + 2;
    hello.protocol_version_min = wire::kProtocolVersion + 1;
  });
  Refusals refusals;
  rtcr_options options = rtcr_options_init();
  options.cms = proxy.endpoint().c_str();
  options.ecu_mac = "02:00:00:00:00:01";
  options.bulk_host = "127.0.0.1";
  options.on_event = note_refusal;
  options.event_context = &refusals;
  Publisher refused(options);
  Publisher other(cmsd.endpoint(), "02:00:00:00:00:02");
  const std::uint64_t seq = refused.publish(1, 1, 4096);
  const std::string said = "protocol versions " + std::to_string(wire::kProtocolVersion + 1) + " to " +
                           std::to_string(wire::kProtocolVersion + 2) + " are spoken there";
  // Until it has tried again.
  for (std::uint64_t generation = 1; refusals.count() < 2; ++generation)
    ASSERT_EQ(other.wait(other.publish(1, generation, 4096)), RTCR_OK) << cmsd.log();
  EXPECT_NE(refusals.texts.front().find(said), std::string::npos) << refusals.texts.front();
  EXPECT_EQ(cmsd.count_in_log(said), 1U) << cmsd.log();
  EXPECT_NE(cmsd.admin({"status", "--output", "json"}).output.find("\"refused_hellos\""), std::string::npos);
  EXPECT_EQ(refused.wait(seq, RTCR_STORED, 0), RTCR_E_TIMEOUT);
}

}  // namespace
}  // namespace cms::test
