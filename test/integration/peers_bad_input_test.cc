// Two cmsd that do not fit together: one name, one index, a --peer that is oneself, another fleet; and
// what may come in on the peer port.
#include <gtest/gtest.h>

#include "net/socket.h"
#include "schemas/messages.h"
#include "test/integration/fleet.h"

namespace cms::test {
namespace {

constexpr const char* kEcu = "02:00:00:00:00:01";

std::string peer_of(const std::string& host, std::uint16_t port_base) {
  return "tcp://" + host + ":" + std::to_string(port_base);
}

// One of a pair that is put together by hand.
CmsdProcess::Options one_of(const std::string& name, std::uint16_t port_base, std::uint16_t peer) {
  CmsdProcess::Options options;
  options.name = name;
  options.port_base = port_base;
  options.arguments = {"--peer", peer_of("127.0.0.1", peer)};
  options.expect_ready = false;
  return options;
}

TEST(PairTest, OneNameOnOneStoreIsRefusedNamingIt) {
  const TempDir dir{memory_or_tmp()};
  const auto bases = free_port_bases(2);
  CmsdProcess::Options options;
  options.name = "twin";
  options.port_base = bases[0];
  CmsdProcess first(dir, options);
  ASSERT_TRUE(first.wait_for_log("the store is ready", 1, kPatience)) << first.log();
  options.port_base = bases[1];
  options.files = "second";  // Another index, another admin socket: the store alone can tell.
  options.expect_ready = false;
  CmsdProcess second(dir, options);
  EXPECT_EQ(second.wait(kPatience), 1) << second.log();
  EXPECT_NE(second.log().find("another cmsd named 'twin' has the store"), std::string::npos) << second.log();
  Publisher publisher(first.endpoint(), kEcu);
  EXPECT_EQ(publisher.wait(publisher.publish(1, 1, 4096)), RTCR_OK) << first.log();
}

TEST(PairTest, OneIndexDirectoryIsRefusedNamingIt) {
  const TempDir dir{memory_or_tmp()};
  Fleet fleet(dir);
  CmsdProcess::Options options;
  options.name = "c";
  options.index_path = fleet[0].index_path();
  options.expect_ready = false;
  CmsdProcess third(dir, options);
  EXPECT_EQ(third.wait(kPatience), 1) << third.log();
  EXPECT_NE(third.log().find(fleet[0].index_path()), std::string::npos) << third.log();
  Publisher publisher(fleet.endpoints(), kEcu);
  EXPECT_EQ(publisher.wait(publisher.publish(1, 1, 4096), RTCR_REPLICATED), RTCR_OK) << fleet.log();
}

// ---- a --peer that is oneself

class SelfTest : public testing::TestWithParam<std::string> {};

TEST_P(SelfTest, IsRefusedAtTheStart) {
  const TempDir dir{memory_or_tmp()};
  CmsdProcess::Options options;
  options.port_base = free_port_bases(1).front();
  options.arguments = {"--peer", peer_of(GetParam(), options.port_base)};
  options.expect_ready = false;
  CmsdProcess cmsd(dir, options);
  EXPECT_EQ(cmsd.wait(kPatience), 2) << cmsd.log();
  EXPECT_NE(cmsd.log().find("this is the one being started"), std::string::npos) << cmsd.log();
  EXPECT_EQ(cmsd.log().find("is ready on"), std::string::npos) << cmsd.log();
}

INSTANTIATE_TEST_SUITE_P(Loopback, SelfTest, testing::Values("127.0.0.1", "127.0.0.2", "localhost"),
                         [](const auto& host) { return "Host" + std::to_string(host.index); });

// The wildcard address leads to this host as well; no list of names would tell.
TEST(PairTest, ASelfThatOnlyShowsWhenItIsHeardEndsItWithTwo) {
  const TempDir dir{memory_or_tmp()};
  CmsdProcess::Options options;
  options.port_base = free_port_bases(1).front();
  options.arguments = {"--peer", peer_of("0.0.0.0", options.port_base)};
  options.expect_ready = false;
  CmsdProcess cmsd(dir, options);
  EXPECT_EQ(cmsd.wait(kPatience), 2) << cmsd.log();
  EXPECT_NE(cmsd.log().find("is this cmsd itself"), std::string::npos) << cmsd.log();
}

// ---- one name, two stores

TEST(PairTest, OfTwoPeersOfOneNameTheYoungerGivesWay) {
  const TempDir dir{memory_or_tmp()};
  const auto bases = free_port_bases(2);
  CmsdProcess::Options options = one_of("twin", bases[0], bases[1]);
  CmsdProcess older(dir, options);
  ASSERT_TRUE(older.wait_for_log("the store is ready", 1, kPatience)) << older.log();
  options = one_of("twin", bases[1], bases[0]);
  options.files = "younger";
  options.store = "store-of-younger";
  CmsdProcess younger(dir, options);
  EXPECT_EQ(younger.wait(kPatience), 1) << younger.log();
  EXPECT_NE(younger.log().find("is named 'twin' as well"), std::string::npos) << younger.log();
  EXPECT_TRUE(older.process().running()) << older.log();
  Publisher publisher(older.endpoint(), kEcu);
  EXPECT_EQ(publisher.wait(publisher.publish(1, 1, 4096)), RTCR_OK) << older.log();
}

// ---- another fleet

TEST(PairTest, APeerOfAnotherFleetIsRefusedAndNothingOfItTaken) {
  const TempDir dir{memory_or_tmp()};
  const auto bases = free_port_bases(2);
  CmsdProcess ours(dir, one_of("ours", bases[0], bases[1]));
  CmsdProcess::Options options = one_of("theirs", bases[1], bases[0]);
  options.store = "store-of-theirs";
  CmsdProcess theirs(dir, options);
  ASSERT_TRUE(ours.wait_for_log("peer theirs at 127.0.0.1 is refused: its store is of fleet", 1, kPatience))
      << ours.log();
  ASSERT_TRUE(theirs.wait_for_log("peer ours at 127.0.0.1 is refused: its store is of fleet", 1, kPatience))
      << theirs.log();
  // Each goes on alone: nothing waits for the other, nothing of it is taken.
  Publisher with_us(ours.endpoint(), kEcu);
  Publisher with_them(theirs.endpoint(), "02:00:00:00:00:02");
  for (std::uint64_t id = 1; id <= 20; ++id) {
    const std::uint64_t here = with_us.publish(id, 1, 4096);
    const std::uint64_t there = with_them.publish(id, 1, 4096);
    ASSERT_EQ(with_us.wait(here), RTCR_OK) << ours.log();
    ASSERT_EQ(with_them.wait(there), RTCR_OK) << theirs.log();
  }
  // Their events came before ours on the way back: what would be taken has been taken.
  const auto index = index_of(ours, Facts::kInNames);
  ASSERT_TRUE(index.has_value());
  EXPECT_EQ(index->size(), 20U);
  for (const auto& [key, row] : *index) EXPECT_EQ(key.find("02:00:00:00:00:02"), std::string::npos) << key;
  EXPECT_EQ(counter_of(theirs, "pulls_started"), 20U);
  EXPECT_EQ(counter_of(ours, "pulls_started"), 20U);
}

// ---- garbage

// A peer as ZeroMQ makes one, that says whatever it is told to.
class Speaker {
 public:
  explicit Speaker(std::uint16_t port_base) : socket_(context_, zmq::socket_type::xpub) {
    socket_.set(zmq::sockopt::linger, 5000);
    socket_.set(zmq::sockopt::rcvtimeo, static_cast<int>(kPatience.count()));
    socket_.connect("tcp://127.0.0.1:" + std::to_string(port_base + net::kPeerPort));
    zmq::message_t subscription;
    EXPECT_TRUE(socket_.recv(subscription).has_value()) << "it does not listen";
  }
  void say(const void* data, std::size_t size_bytes, bool more = false) {
    EXPECT_EQ(net::send(socket_, data, size_bytes, more), net::Sent::kYes);
  }
  void say(const wire::Bytes& bytes) { say(bytes.data(), bytes.size()); }

 private:
  zmq::context_t context_;
  zmq::socket_t socket_;
};

TEST(PeerPortTest, GarbageIsCountedLoggedOnceAndDisturbsNobody) {
  const TempDir dir{memory_or_tmp()};
  Fleet fleet(dir);
  Publisher publisher(fleet.endpoints(), kEcu);
  wait_until_both_pull(fleet, publisher);

  Prng prng(1);
  Speaker speaker(fleet[0].port_base());
  constexpr std::uint64_t kRandom = 500;
  for (std::uint64_t i = 0; i < kRandom; ++i) {
    wire::Bytes bytes(1 + prng.below(2000));
    for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(prng.next());
    speaker.say(bytes);
  }
  // True messages with a few wrong bytes, or cut short. Some are still true and count for nothing.
  wire::PeerMessage message;
  message.cms_name = "z";
  message.incarnation = 5;
  message.fleet_id = Id128{1, 2};
  message.event = 1;
  wire::StoredCheckpoint stored;
  stored.checkpoint = CheckpointId{ProgramKey{EcuMac{0x020000000009}, 9}, Version{65536, 1}};
  stored.size_bytes = 4096;
  stored.uid = 3;
  stored.lineage = Id128{1, 1};
  message.body = wire::PeerStored{{stored}};
  const wire::Bytes whole = wire::encode(message);
  for (int i = 0; i < 500; ++i) {
    wire::Bytes bytes = whole;
    for (int flips = 0; flips < 3; ++flips) {
      const std::uint64_t at = prng.below(bytes.size());
      bytes[at] = static_cast<std::uint8_t>(prng.next());
    }
    if (i % 2 == 0) bytes.resize(1 + prng.below(bytes.size()));
    speaker.say(bytes);
  }
  speaker.say("a", 1, true);
  speaker.say("b", 1);
  speaker.say(whole);  // Of another fleet.
  ASSERT_TRUE(fleet[0].wait_for_log("peer z at 127.0.0.1 is refused", 1, kPatience)) << fleet.log();
  const std::vector<char> large(200000);  // Larger than a frame may be: ends the connection.
  speaker.say(large.data(), large.size());

  EXPECT_GE(counter_of(fleet[0], "malformed").value_or(0), kRandom);
  EXPECT_EQ(fleet[0].count_in_log("bad message from the peer channel, 127.0.0.1"), 1U) << fleet[0].log();
  std::vector<std::uint64_t> seqs;
  for (std::uint64_t id = 1; id <= 20; ++id) seqs.push_back(publisher.publish(id, 1, 4096));
  for (const std::uint64_t seq : seqs)
    EXPECT_EQ(publisher.wait(seq, RTCR_REPLICATED, kTakenOverMax.count()), RTCR_OK) << fleet.log();
  EXPECT_TRUE(indexes_agree(fleet, 22, Facts::kAll));
  EXPECT_EQ(fleet[0].count_in_log("peer b is silent"), 0U) << fleet[0].log();
  for (std::size_t i = 0; i < 2; ++i) EXPECT_EQ(fleet[i].terminate(), 0) << fleet[i].log();
}

}  // namespace
}  // namespace cms::test
