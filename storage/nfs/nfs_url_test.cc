// Every form of --store nfs://… that is taken, and every one that is refused, with what is said.
#include "storage/nfs/nfs_url.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace cms::storage {
namespace {

NfsTarget parsed(const std::string& url) {
  const auto target = parse_nfs_url(url);
  EXPECT_TRUE(target.ok()) << url << ": " << (target.ok() ? "" : target.error().message());
  return target.ok() ? *target : NfsTarget{};
}

TEST(NfsUrlTest, HostAndExportAreEnough) {
  const NfsTarget target = parsed("nfs://nas.example/cms");
  EXPECT_EQ(target.host, "nas.example");
  EXPECT_EQ(target.export_path, "/cms");
  EXPECT_EQ(target.nfs_port, 0);
  EXPECT_EQ(target.mount_port, 0);
  EXPECT_FALSE(target.uid.has_value());
  EXPECT_FALSE(target.gid.has_value());
}

TEST(NfsUrlTest, EveryParameterIsTakenInAnyOrder) {
  for (const char* url : {"nfs://nas/cms?nfsport=12049&mountport=12050&uid=7&gid=8",
                          "nfs://nas/cms?gid=8&uid=7&version=3&mountport=12050&nfsport=12049"}) {
    const NfsTarget target = parsed(url);
    EXPECT_EQ(target.nfs_port, 12049) << url;
    EXPECT_EQ(target.mount_port, 12050) << url;
    EXPECT_EQ(target.uid, 7U) << url;
    EXPECT_EQ(target.gid, 8U) << url;
  }
}

TEST(NfsUrlTest, NumbersAreTakenToTheirLimits) {
  const NfsTarget highest =
      parsed("nfs://nas/cms?nfsport=65535&mountport=65535&uid=2147483647&gid=2147483647");
  EXPECT_EQ(highest.nfs_port, 65535);
  EXPECT_EQ(highest.mount_port, 65535);
  EXPECT_EQ(highest.uid, 2147483647U);
  EXPECT_EQ(highest.gid, 2147483647U);
  const NfsTarget lowest = parsed("nfs://nas/cms?nfsport=1&mountport=1&uid=0&gid=0");
  EXPECT_EQ(lowest.nfs_port, 1);
  EXPECT_EQ(lowest.mount_port, 1);
  EXPECT_EQ(lowest.uid, 0U);
  EXPECT_EQ(lowest.gid, 0U);
}

TEST(NfsUrlTest, HostsAreNamesAndAddresses) {
  EXPECT_EQ(parsed("nfs://10.0.0.1/cms").host, "10.0.0.1");
  EXPECT_EQ(parsed("nfs://nas_2-b.Example/cms").host, "nas_2-b.Example");
  EXPECT_EQ(parsed("nfs://[2001:db8::1]/cms").host, "2001:db8::1");
  EXPECT_EQ(parsed("nfs://" + std::string(253, 'a') + "/cms").host, std::string(253, 'a'));
}

TEST(NfsUrlTest, ExportsAreDeepAndLoseTheirLastSlashes) {
  EXPECT_EQ(parsed("nfs://nas/vol/cms 1/store").export_path, "/vol/cms 1/store");
  EXPECT_EQ(parsed("nfs://nas/cms/").export_path, "/cms");
  EXPECT_EQ(parsed("nfs://nas/cms//?uid=1").export_path, "/cms");
  EXPECT_EQ(parsed("nfs://nas/w\u00e4rme").export_path, "/w\u00e4rme");
  EXPECT_EQ(parsed("nfs://nas/" + std::string(1023, 'x')).export_path.size(), 1024U);
}

TEST(NfsUrlTest, TextForPeopleNamesHostAndExport) {
  EXPECT_EQ(to_string(parsed("nfs://nas/cms/?nfsport=1&uid=3")), "nfs://nas/cms");
  EXPECT_EQ(to_string(parsed("nfs://[::1]/cms")), "nfs://[::1]/cms");
}

struct Refused {
  std::string url;
  std::string said;  // Among what is said.
};

TEST(NfsUrlTest, WhatIsWrongIsNamed) {
  using namespace std::string_literals;
  const std::vector<Refused> all = {
      {"", "does not begin with nfs://"},
      {"file:///cms", "does not begin with nfs://"},
      {"NFS://nas/cms", "does not begin with nfs://"},
      {"nfs:/nas/cms", "does not begin with nfs://"},
      {"nfs://", "there is no export"},
      {"nfs://nas", "there is no export"},
      {"nfs://nas?uid=1", "there is no export"},
      {"nfs:///cms", "'' is not a host"},
      {"nfs://nas:2049/cms", "a port is given as nfsport=N"},
      {"nfs://::1/cms", "'::1' is not a host"},
      {"nfs://user@nas/cms", "'user@nas' is not a host"},
      {"nfs://n as/cms", "'n as' is not a host"},
      {"nfs://n\0s/cms"s, "is not a host"},
      {"nfs://" + std::string(254, 'a') + "/cms", "is not a host"},
      {"nfs://[::1/cms", "']' is missing"},
      {"nfs://[]/cms", "'' is not a host"},
      {"nfs://[fe80::1%eth0]/cms", "is not a host"},
      {"nfs://[::1]:2049/cms", "':2049/cms' is not an export"},
      {"nfs://[::1]", "'' is not an export"},
      {"nfs://nas/", "'/' is not an export"},
      {"nfs://nas//", "'/' is not an export"},
      {"nfs://nas/?uid=1", "'/' is not an export"},
      {"nfs://nas/c%20ms", "without '%' and '#'"},
      {"nfs://nas/cms#1", "without '%' and '#'"},
      {"nfs://nas/c\0ms"s, "is not an export"},
      {"nfs://nas/c\nms", "is not an export"},
      {"nfs://nas/c\x7fms", "is not an export"},
      {"nfs://nas/" + std::string(1024, 'x'), "is not an export"},
      {"nfs://nas/cms?", "'' is not NAME=VALUE"},
      {"nfs://nas/cms?uid", "'uid' is not NAME=VALUE"},
      {"nfs://nas/cms?uid=1&", "'' is not NAME=VALUE"},
      {"nfs://nas/cms?uid=1&&gid=1", "'' is not NAME=VALUE"},
      {"nfs://nas/cms?uid=1?gid=1", "'1?gid=1' is not a number"},
      {"nfs://nas/cms?uid=1&uid=1", "'uid' is given twice"},
      {"nfs://nas/cms?port=2049", "'port' is not known; allowed are nfsport, mountport, uid, gid"},
      {"nfs://nas/cms?NFSPORT=2049", "'NFSPORT' is not known"},
      {"nfs://nas/cms?autoreconnect=-1", "'autoreconnect' is not known"},
      {"nfs://nas/cms?nfsport=0", "nfsport: '0' is not a number from 1 to 65535"},
      {"nfs://nas/cms?nfsport=65536", "nfsport: '65536' is not a number from 1 to 65535"},
      {"nfs://nas/cms?mountport=4294967297", "mountport: '4294967297' is not a number"},
      {"nfs://nas/cms?mountport=", "mountport: '' is not a number"},
      {"nfs://nas/cms?uid=-1", "uid: '-1' is not a number from 0 to 2147483647"},
      {"nfs://nas/cms?uid=+1", "uid: '+1' is not a number"},
      {"nfs://nas/cms?uid=0x10", "uid: '0x10' is not a number"},
      {"nfs://nas/cms?gid=2147483648", "gid: '2147483648' is not a number"},
      {"nfs://nas/cms?gid=1 ", "gid: '1 ' is not a number"},
      {"nfs://nas/cms?version=4", "only NFS version 3 is spoken"},
      {"nfs://nas/cms?version=", "only NFS version 3 is spoken"},
  };
  for (const Refused& refused : all) {
    const auto target = parse_nfs_url(refused.url);
    ASSERT_FALSE(target.ok()) << refused.url;
    EXPECT_EQ(target.error().code, Code::kInvalidArgument) << refused.url;
    EXPECT_NE(target.error().context.find(refused.said), std::string::npos)
        << refused.url << ": " << target.error().context;
    EXPECT_NE(target.error().context.find("expected nfs://HOST/EXPORT"), std::string::npos) << refused.url;
  }
}

}  // namespace
}  // namespace cms::storage
