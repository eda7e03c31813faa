#include "net/socket.h"

#include <gtest/gtest.h>

#include "net/host_id.h"

namespace cms::net {
namespace {

bool wait_readable(zmq::socket_t& socket) {
  zmq::pollitem_t item{socket.handle(), 0, ZMQ_POLLIN, 0};
  zmq::poll(&item, 1, std::chrono::seconds(10));
  return (item.revents & ZMQ_POLLIN) != 0;
}

TEST(SocketTest, CarriesAllFramesAndTheAddressOfThePeer) {
  zmq::context_t context;
  zmq::socket_t router = make_control_router(context);
  const auto port = bind_in_range(router, "127.0.0.1", PortRange{7600, 7999});
  ASSERT_TRUE(port.ok());
  zmq::socket_t dealer = make_control_dealer(context);
  ASSERT_TRUE(connect(dealer, "tcp://127.0.0.1:" + std::to_string(*port)).ok());
  ASSERT_EQ(send(dealer, "ab", 2, true), Sent::kYes);
  ASSERT_EQ(send(dealer, "", 0, false), Sent::kYes);

  ASSERT_TRUE(wait_readable(router));
  std::vector<zmq::message_t> frames;
  ASSERT_TRUE(receive(router, frames));
  ASSERT_EQ(frames.size(), 3U);
  EXPECT_EQ(frames[1].to_string(), "ab");
  EXPECT_EQ(frames[2].size(), 0U);
  EXPECT_EQ(peer_address_of(frames[1]), "127.0.0.1");
  EXPECT_FALSE(receive(router, frames));
}

TEST(SocketTest, RouterSaysThatAPeerIsGone) {
  zmq::context_t context;
  zmq::socket_t router = make_control_router(context);
  EXPECT_EQ(send(router, "nobody", 6, true), Sent::kUnreachable);
}

TEST(SocketTest, TakesTheNextFreePortAndSaysWhenThereIsNone) {
  zmq::context_t context;
  zmq::socket_t first = make_bulk_router(context);
  const auto port = bind_in_range(first, "127.0.0.1", PortRange{7600, 7999});
  ASSERT_TRUE(port.ok());
  zmq::socket_t second = make_bulk_router(context);
  const auto none = bind_in_range(second, "127.0.0.1", PortRange{*port, *port});
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.error().code, Code::kAlreadyExists);
}

TEST(HostIdTest, IsTheSameForTheSameHost) {
  EXPECT_EQ(this_host_id(), this_host_id());
  EXPECT_NE(this_host_id(), Id128{});
}

}  // namespace
}  // namespace cms::net
