// What is wrong is named, refused or survived: stores, second instances, messages.
#include <gtest/gtest.h>
#include <fstream>

#include "net/socket.h"
#include "schemas/messages.h"
#include "test/support/cmsd_process.h"
#include "test/support/publisher.h"
#include "test/support/small_tmpfs.h"

namespace cms::test {
namespace {

CmsdProcess::Options without_store() {
  CmsdProcess::Options options;
  options.make_store = false;
  return options;
}

TEST(StoreTroubleTest, MissingStoreIsSaidAndTakenIntoUseWhenItComes) {
  const TempDir dir;
  CmsdProcess cmsd(dir, without_store());
  Publisher publisher(cmsd.endpoint(), "02:00:00:00:00:01");
  const std::uint64_t seq = publisher.publish(1, 1, 4096);
  const auto status = cmsd.admin({"status"});
  EXPECT_EQ(status.exit_code, 0);
  EXPECT_NE(status.output.find(cmsd.store_path()), std::string::npos) << status.output;
  EXPECT_EQ(publisher.wait(seq, RTCR_STORED, 0), RTCR_E_TIMEOUT);
  std::filesystem::create_directory(cmsd.store_path());
  EXPECT_EQ(publisher.wait(seq), RTCR_OK) << cmsd.log();
}

TEST(StoreTroubleTest, ForeignDirectoryIsRefusedUntouched) {
  const TempDir dir;
  std::filesystem::create_directory(dir / "store");
  std::ofstream(dir / "store/letter.txt") << "not ours";
  CmsdProcess cmsd(dir, without_store());
  Publisher publisher(cmsd.endpoint(), "02:00:00:00:00:01");
  const std::uint64_t seq = publisher.publish(1, 1, 4096);
  EXPECT_NE(cmsd.admin({"status"}).output.find("foreign"), std::string::npos);
  EXPECT_EQ(publisher.wait(seq, RTCR_STORED, 0), RTCR_E_TIMEOUT);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir / "store"), {}), 1);
  std::filesystem::remove(dir / "store/letter.txt");
  EXPECT_EQ(publisher.wait(seq), RTCR_OK) << cmsd.log();
}

TEST(StoreTroubleTest, NewerFormatIsRefusedNamingBothVersions) {
  const TempDir dir;
  {
    CmsdProcess cmsd(dir);
    Publisher publisher(cmsd.endpoint(), "02:00:00:00:00:01");
    ASSERT_EQ(publisher.wait(publisher.publish(1, 1, 4096)), RTCR_OK);
    EXPECT_EQ(cmsd.terminate(), 0);
  }
  std::ifstream in(dir / "store/FORMAT");
  std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const std::string newer = text;
  const std::size_t at = text.find("layout_version = 1");
  ASSERT_NE(at, std::string::npos) << text;
  text.replace(at, 18, "layout_version = 9");
  std::ofstream(dir / "store/FORMAT") << text;
  CmsdProcess cmsd(dir, without_store());
  const std::string said = cmsd.admin({"status"}).output;
  EXPECT_NE(said.find('9'), std::string::npos) << said;
  EXPECT_NE(said.find("unsupported"), std::string::npos) << said;
}

// Needs a file system of its own: the tests of store trouble run as root, as .ci/run does.
TEST(StoreTroubleTest, FullStoreAcknowledgesNothingAndGoesOnWhenThereIsRoom) {
  const TempDir dir;
  std::filesystem::create_directory(dir / "store");
  SmallTmpfs store(dir / "store", 24);
  ASSERT_TRUE(store.mounted());
  {
    CmsdProcess cmsd(dir, without_store());
    Publisher publisher(cmsd.endpoint(), "02:00:00:00:00:01");
    ASSERT_EQ(publisher.wait(publisher.publish(1, 1, 4096)), RTCR_OK) << cmsd.log();
    const std::uint64_t large = publisher.publish(2, 1, 40 << 20);
    // One that fits still goes, whatever the large one does.
    EXPECT_EQ(publisher.wait(publisher.publish(3, 1, 4096)), RTCR_OK) << cmsd.log();
    EXPECT_EQ(publisher.wait(large, RTCR_STORED, 0), RTCR_E_TIMEOUT);
    ASSERT_TRUE(store.resize(200));
    EXPECT_EQ(publisher.wait(large), RTCR_OK) << cmsd.log();

    ASSERT_TRUE(store.set_read_only(true));
    const std::uint64_t held = publisher.publish(1, 2, 4096);
    std::string said;
    while (said.find("read-only") == std::string::npos) said = cmsd.admin({"status"}).output;
    EXPECT_EQ(publisher.wait(held, RTCR_STORED, 0), RTCR_E_TIMEOUT);
    ASSERT_TRUE(store.set_read_only(false));
    EXPECT_EQ(publisher.wait(held), RTCR_OK) << cmsd.log();
  }
}

TEST(StoreTroubleTest, StoreWithLessFreeThanItsReserveIsSaidToBeFull) {
  const TempDir dir;
  std::filesystem::create_directory(dir / "store");
  const SmallTmpfs store(dir / "store", 24);
  ASSERT_TRUE(store.mounted());
  CmsdProcess cmsd(dir, without_store());
  Publisher publisher(cmsd.endpoint(), "02:00:00:00:00:01");
  ASSERT_EQ(publisher.wait(publisher.publish(1, 1, 4096)), RTCR_OK) << cmsd.log();
  store.fill("filler");
  const std::string filler = dir / "store/filler";
  std::filesystem::resize_file(filler, std::filesystem::file_size(filler) - (512U << 10));
  const std::uint64_t held = publisher.publish(2, 1, 4096);
  std::string said;
  while (said.find("nothing can be stored: no space") == std::string::npos)
    said = cmsd.admin({"status"}).output;
  EXPECT_EQ(publisher.wait(held, RTCR_STORED, 0), RTCR_E_TIMEOUT);
  std::filesystem::remove(filler);
  EXPECT_EQ(publisher.wait(held), RTCR_OK) << cmsd.log();
}

TEST(SecondInstanceTest, SameNameIsRefusedAndSaysSo) {
  const TempDir dir;
  CmsdProcess first(dir);
  CmsdProcess::Options options;
  options.expect_ready = false;
  CmsdProcess second(dir, options);
  EXPECT_EQ(second.wait(), 1);
  EXPECT_NE(second.log().find("is running already"), std::string::npos) << second.log();
  EXPECT_EQ(first.admin({"status"}).exit_code, 0);
}

TEST(SecondInstanceTest, SameIndexIsRefusedAndSaysWhich) {
  const TempDir dir;
  CmsdProcess first(dir);
  CmsdProcess::Options options;
  options.name = "b";
  options.expect_ready = false;
  options.index_path = first.index_path();
  CmsdProcess second(dir, options);
  EXPECT_EQ(second.wait(), 1);
  EXPECT_NE(second.log().find(first.index_path()), std::string::npos) << second.log();
}

TEST(UsageTest, WrongFlagsAndKeysAreNamedWithTwo) {
  const TempDir dir;
  Process flag({program_path("cmsd"), "--nmae", "a"}, {{}, "/dev/null", dir / "err"});
  EXPECT_EQ(flag.wait(), 2);
  std::ofstream(dir / "cmsd.toml") << "name = \"a\"\nstroe = \"file:///x\"\n";
  Process key({program_path("cmsd"), "--config", dir / "cmsd.toml"}, {{}, "/dev/null", dir / "err"});
  EXPECT_EQ(key.wait(), 2);
  std::ifstream file(dir / "err");
  const std::string said((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  EXPECT_NE(said.find("--nmae"), std::string::npos) << said;
  EXPECT_NE(said.find("stroe"), std::string::npos) << said;
  Process publish({program_path("rtcr"), "publish", "--cms", "here"}, {{}, "/dev/null", dir / "err2"});
  EXPECT_EQ(publish.wait(), 2);
}

// Anything may come in on a port; a session beside it must not notice.
TEST(MalformedTest, GarbageOnEveryChannelIsCountedAndDisturbsNobody) {
  const TempDir dir;
  CmsdProcess cmsd(dir);
  Publisher publisher(cmsd.endpoint(), "02:00:00:00:00:01");
  ASSERT_EQ(publisher.wait(publisher.publish(1, 1, 4096)), RTCR_OK);

  zmq::context_t context;
  const auto endpoint = net::parse_endpoint(cmsd.endpoint());
  ASSERT_TRUE(endpoint.ok());
  Prng prng(1);
  const wire::Bytes hello = wire::encode(
      wire::ControlMessage{0, wire::Hello{1, 1, 0, EcuMac{2}, 0, 7, false, {}, 7600, "", "", 0}});
  std::vector<zmq::socket_t> sockets;
  for (const std::uint16_t channel : {net::kControlPort, net::kBulkPort}) {
    sockets.push_back(net::make_control_dealer(context));
    sockets.back().set(zmq::sockopt::linger, 2000);
    ASSERT_TRUE(net::connect(sockets.back(), endpoint->channel(channel)).ok());
    for (int i = 0; i < 200; ++i) {
      wire::Bytes bytes = hello;
      for (int flips = 0; flips < 3; ++flips) {
        const std::uint64_t at = prng.below(bytes.size());
        bytes[at] = static_cast<std::uint8_t>(prng.next());
      }
      bytes.resize(prng.below(bytes.size()) + 1);
      ASSERT_EQ(net::send(sockets.back(), bytes.data(), bytes.size(), false), net::Sent::kYes);
    }
    // Frames that are too many, and one that is too large.
    ASSERT_EQ(net::send(sockets.back(), "a", 1, true), net::Sent::kYes);
    ASSERT_EQ(net::send(sockets.back(), "b", 1, false), net::Sent::kYes);
    const std::vector<char> large(200000);
    ASSERT_EQ(net::send(sockets.back(), large.data(), large.size(), false), net::Sent::kYes);
  }
  std::string said;
  while (said.find("malformed") == std::string::npos || said.find("\"malformed\": 0") != std::string::npos) {
    said = cmsd.admin({"status", "--output", "json"}).output;
    ASSERT_FALSE(said.empty());
  }
  EXPECT_EQ(publisher.wait(publisher.publish(1, 2, 4096)), RTCR_OK);
  EXPECT_EQ(cmsd.terminate(), 0);
}

}  // namespace
}  // namespace cms::test
