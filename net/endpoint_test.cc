#include "net/endpoint.h"

#include <gtest/gtest.h>

namespace cms::net {
namespace {

TEST(EndpointTest, DerivesEveryChannelFromTheNotifyPort) {
  const auto endpoint = parse_endpoint("tcp://10.0.0.1:7400");
  ASSERT_TRUE(endpoint.ok());
  EXPECT_EQ(endpoint->channel(kNotifyPort), "tcp://10.0.0.1:7400");
  EXPECT_EQ(endpoint->channel(kControlPort), "tcp://10.0.0.1:7401");
  EXPECT_EQ(endpoint->channel(kBulkPort), "tcp://10.0.0.1:7403");
}

TEST(EndpointTest, KeepsBracketsAroundIpv6) {
  const auto endpoint = parse_endpoint("tcp://[fe80::1]:7400");
  ASSERT_TRUE(endpoint.ok());
  EXPECT_EQ(endpoint->host, "fe80::1");
  EXPECT_EQ(endpoint->channel(kControlPort), "tcp://[fe80::1]:7401");
}

TEST(EndpointTest, RefusesWhatIsNoEndpointAndSaysWhatIsAllowed) {
  for (const char* text :
       {"", "10.0.0.1:7400", "tcp://", "tcp://h", "tcp://h:", "tcp://h:0", "tcp://h:65530", "tcp://h:x",
        "tcp://:7400", "tcp://fe80::1:7400", "tcp://a b:7400", "tcp://a\n:7400", "tcp://[[::1]]:7400",
        "tcp://a]:7400", "tcp://\xc3\xa4:7400", "ipc:///tmp/x"}) {
    const auto endpoint = parse_endpoint(text);
    ASSERT_FALSE(endpoint.ok()) << text;
    EXPECT_EQ(endpoint.error().code, Code::kInvalidArgument);
    EXPECT_NE(endpoint.error().context.find("tcp://HOST:PORT"), std::string::npos)
        << endpoint.error().context;
  }
  EXPECT_FALSE(parse_endpoint(std::string("tcp://a\0b:7400", 14)).ok());  // libzmq would dial "a".
  EXPECT_TRUE(parse_endpoint("tcp://h:65529").ok());
}

TEST(EndpointTest, ListRefusesAnEndpointNamedTwice) {
  EXPECT_EQ(parse_endpoint_list("tcp://a:1,tcp://b:1,tcp://a:2")->size(), 3U);
  EXPECT_FALSE(parse_endpoint_list("tcp://a:1,tcp://a:1").ok());
  EXPECT_FALSE(parse_endpoint_list("tcp://a:1,").ok());
}

TEST(PortRangeTest, TakesARangeOrOnePort) {
  EXPECT_EQ(parse_port_range("7600-7999")->last, 7999);
  EXPECT_EQ(parse_port_range("7600")->last, 7600);
  for (const char* text : {"", "-", "7-6", "0-3", "1-65536", "a-b"})
    EXPECT_FALSE(parse_port_range(text).ok()) << text;
}

}  // namespace
}  // namespace cms::net
