// The contract of ClaimStore in a directory, and what is special to directories.
#include "storage/directory/directory_claims.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>

#include "storage/claim_names.h"
#include "storage/contract/claim_store_contract.h"
#include "storage/contract/samples.h"
#include "storage/directory/directory_store.h"

namespace cms::storage::testing {
namespace {

namespace fs = std::filesystem;
using End = Appended::End;
using Read = ClaimStore::Read;

class DirectoryClaimFixture final : public ClaimFixtureOnFiles {
 public:
  std::unique_ptr<ClaimStore> open(const std::string& node, std::uint64_t node_incarnation) override {
    auto& blobs = blobs_[node];
    blobs.reset();
    blobs = make_directory_store(dir_.path(), node, node_incarnation);
    EXPECT_TRUE(blobs->open_store().ok());
    auto claims = make_directory_claims(dir_.path(), node, node_incarnation);
    const Status opened = claims->open_store();
    EXPECT_TRUE(opened.ok()) << opened.error().message();
    return claims;
  }
  std::string path() const override { return dir_.path(); }

 private:
  const TempDir dir_;
  std::map<std::string, std::unique_ptr<BlobStore>> blobs_;
};

INSTANTIATE_TEST_SUITE_P(Directory, ClaimStoreContract,
                         ::testing::Values(+[]() -> std::unique_ptr<ClaimFixture> {
                           return std::make_unique<DirectoryClaimFixture>();
                         }));

std::size_t count_in(const std::string& path) {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator(path), fs::directory_iterator()));
}

TEST(DirectoryClaims, WithoutAStoreThereAreNone) {
  const TempDir dir;
  const auto claims = make_directory_claims(dir.path(), "a", 1);
  EXPECT_EQ(claims->open_store().code(), Code::kNotFound);
  EXPECT_EQ(count_in(dir.path()), 0U);
  EXPECT_EQ(claims->head(log_in_shard(1, 1), 0, Read::kAsSeen).error().code, Code::kUnavailable);
  EXPECT_EQ(claims->append(log_in_shard(1, 1), 1, "x").error().code, Code::kUnavailable);
  EXPECT_EQ(claims->self_test().error().code, Code::kUnavailable);
}

TEST(DirectoryClaims, OfAStoreOfAnOlderCmsdGetTheirDirectories) {
  const TempDir dir;
  const auto blobs = make_directory_store(dir.path(), "a", 1);
  ASSERT_TRUE(blobs->open_store().ok());
  EXPECT_EQ(count_in(dir.path() + "/claims"), 0U) << "it makes none by itself";
  fs::create_directory(dir.path() + "/claims/07");  // As if cut short.
  const auto claims = make_directory_claims(dir.path(), "a", 1);
  ASSERT_TRUE(claims->open_store().ok());
  EXPECT_EQ(count_in(dir.path() + "/claims"), kLogShardCount);
  struct stat info {};
  ASSERT_EQ(::stat((dir.path() + "/claims/ff").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0750U);
  win(*claims, log_in_shard(0xff, 1), 1, "x");
  ASSERT_EQ(::stat((dir.path() + "/claims/" + slot_path(log_in_shard(0xff, 1), 1)).c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0640U);
  EXPECT_EQ(info.st_nlink, 1U);
  EXPECT_TRUE(fs::is_empty(dir.path() + "/tmp/a.0000000000000001"));
}

TEST(DirectoryClaims, DirectoryThatIsNoLongerThereIsUnavailableAndAnotherStoreIsForeign) {
  const TempDir dir;
  const std::string path = dir.path() + "/store";
  fs::create_directory(path);
  auto blobs = make_directory_store(path, "a", 1);
  ASSERT_TRUE(blobs->open_store().ok());
  const auto claims = make_directory_claims(path, "a", 1);
  ASSERT_TRUE(claims->open_store().ok());
  const LogId log = log_in_shard(1, 1);
  win(*claims, log, 1, "one");
  fs::rename(path, path + ".away");  // Unmounted: what lies beneath is empty.
  fs::create_directory(path);
  EXPECT_EQ(claims->append(log, 2, "two").error().code, Code::kUnavailable);
  EXPECT_EQ(claims->head(log, 0, Read::kAsSeen).error().code, Code::kUnavailable);
  EXPECT_EQ(claims->write_member("x").code(), Code::kUnavailable);
  EXPECT_EQ(claims->open_store().code(), Code::kUnavailable);
  EXPECT_EQ(count_in(path), 0U);
  {
    const auto other = make_directory_store(path, "b", 2);
    ASSERT_TRUE(other->open_store().ok());
  }
  EXPECT_EQ(claims->open_store().code(), Code::kForeign);
  EXPECT_EQ(count_in(path + "/claims"), 0U);
  fs::remove_all(path);
  fs::rename(path + ".away", path);
  EXPECT_EQ(claims->head(log, 0, Read::kAsSeen)->bytes, "one");
  ASSERT_TRUE(claims->open_store().ok());
  win(*claims, log, 2, "two");
}

TEST(DirectoryClaims, FileSystemThatCannotLinkIsFoundOut) {
  // What refuses links for everybody is hard to come by; a directory that allows none does it for a plain
  // user only, a name that is taken by a directory for all.
  const TempDir dir;
  const auto blobs = make_directory_store(dir.path(), "a", 1);
  ASSERT_TRUE(blobs->open_store().ok());
  const auto claims = make_directory_claims(dir.path(), "a", 1);
  ASSERT_TRUE(claims->open_store().ok());
  fs::create_directory(dir.path() + "/claims/" + self_test_name("a", 1, "linked"));
  auto test = claims->self_test();
  ASSERT_TRUE(test.ok());
  EXPECT_FALSE(test->trusted_with_claims());
  for (const StoreTrait& trait : test->traits) {
    const bool of_links = trait.name == "hard links" || trait.name == "no link of a removed file";
    EXPECT_EQ(trait.holds, !of_links) << trait.name << ": " << trait.detail;
  }
  EXPECT_FALSE(test->clock_known);
  EXPECT_NE(test->traits[1].detail.find("already exists"), std::string::npos) << test->traits[1].detail;
  fs::remove(dir.path() + "/claims/" + self_test_name("a", 1, "linked"));
  // What a self-test of an earlier life left is no finding, and goes.
  std::ofstream(dir.path() + "/claims/" + self_test_name("a", 77, "linked")) << "left";
  std::ofstream(dir.path() + "/claims/" + self_test_name("a.b", 77, "linked")) << "another's";
  EXPECT_TRUE(claims->self_test()->trusted_with_claims());
  EXPECT_EQ(count_in(dir.path() + "/claims"), kLogShardCount + 1);
}

}  // namespace
}  // namespace cms::storage::testing
