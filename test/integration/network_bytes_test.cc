// What a checkpoint costs on the network, counted where the bytes pass: everything between a publisher
// and two cmsd, and between the two, goes through a counting proxy.
#include <gtest/gtest.h>

#include "net/endpoint.h"
#include "test/integration/counting_proxy.h"
#include "test/integration/fleet.h"

namespace cms::test {
namespace {

constexpr std::uint64_t kCheckpoints = 30;

// Bytes on the network per byte of checkpoint, from publish to REPLICATED of all of them.
double network_bytes_per_byte(const std::string& pull) {
  const TempDir dir{memory_or_tmp()};
  std::atomic<std::uint64_t> bytes{0};
  const std::vector<std::uint16_t> bases = free_port_bases(3);
  const std::uint16_t bulk_port = bases[2];
  std::vector<std::unique_ptr<CountingProxy>> proxies;
  proxies.push_back(std::make_unique<CountingProxy>(bulk_port, bytes));
  for (int i = 0; i < 2; ++i) {
    for (const std::uint16_t channel : {net::kNotifyPort, net::kControlPort, net::kPeerPort})
      proxies.push_back(
          std::make_unique<CountingProxy>(static_cast<std::uint16_t>(bases[i] + channel), bytes));
  }
  const std::string host = CountingProxy::kHost;
  Fleet::Options options;
  options.port_bases = {bases[0], bases[1]};
  options.peer_hosts = {host, host};
  options.arguments = {"--pull", pull, "--allow-advertise", host};
  Fleet fleet(dir, options);

  const std::string cms =
      "tcp://" + host + ":" + std::to_string(bases[0]) + ",tcp://" + host + ":" + std::to_string(bases[1]);
  const std::string ports = std::to_string(bulk_port);
  rtcr_options client = rtcr_options_init();
  client.cms = cms.c_str();
  client.ecu_mac = "02:00:00:00:00:01";
  client.bulk_ports = ports.c_str();
  client.bulk_host = "127.0.0.1";
  client.advertise_host = host.c_str();
  Publisher publisher(client);
  wait_until_both_pull(fleet, publisher);

  const std::uint64_t bytes_before = bytes;
  Prng prng(1);
  std::uint64_t size_bytes = 0;
  std::vector<std::uint64_t> seqs;
  for (std::uint64_t id = 1; id <= kCheckpoints; ++id) {
    const std::size_t size = (1 << 20) + prng.below(3 << 20);
    size_bytes += size;
    seqs.push_back(publisher.publish(id, 1, size));
  }
  for (const std::uint64_t seq : seqs)
    EXPECT_EQ(publisher.wait(seq, RTCR_REPLICATED), RTCR_OK) << fleet.log();
  const double ratio = static_cast<double>(bytes - bytes_before) / static_cast<double>(size_bytes);
  std::printf("--pull %s: %.3f bytes on the network per byte of checkpoint\n", pull.c_str(), ratio);
  return ratio;
}

TEST(NetworkBytesTest, ACheckpointCrossesTheNetworkOnce) {
  const double ratio = network_bytes_per_byte("one");
  EXPECT_GE(ratio, 1.0);
  EXPECT_LE(ratio, 1.1);
}

// Shows that the count counts.
TEST(NetworkBytesTest, WithPullEveryItCrossesTwice) {
  const double ratio = network_bytes_per_byte("every");
  EXPECT_GE(ratio, 1.9);
  EXPECT_LE(ratio, 2.2);
}

}  // namespace
}  // namespace cms::test
