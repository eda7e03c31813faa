#include "cms/daemon/replaceable_index.h"

#include <atomic>
#include <fstream>
#include <thread>

#include "cms/daemon/daemon_fixture_test.h"

namespace cms::daemon {
namespace {

namespace fs = std::filesystem;
using storage::testing::TempDir;

constexpr EcuMac kMac{0x020000000001};

storage::IndexRow row_of(std::uint64_t program_id, std::uint64_t seq) {
  storage::IndexRow row;
  row.name = storage::testing::make_name(program_id, seq, 10);
  row.stored_bytes = 200;
  row.stored_at_us = 1700000000000000;
  return row;
}

std::vector<std::string> siblings_of(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(fs::path(directory).parent_path()))
    names.push_back(entry.path().filename().string());
  return names;
}

TEST(ReplaceableIndexTest, TakesTheIncarnationsAlongAndNothingElse) {
  const TempDir dir;
  const std::string path = dir.path() + "/index";
  {
    auto index = ReplaceableIndex::open(path);
    ASSERT_TRUE(index.ok()) << index.error().message();
    ASSERT_TRUE((*index)->put({row_of(1, 1)}).ok());
    ASSERT_TRUE((*index)->put_incarnation(kMac, 77 << 16).ok());
    ASSERT_TRUE((*index)->put_fleet_id("f").ok());
    const auto replaced = (*index)->replace(false);
    ASSERT_TRUE(replaced.ok()) << replaced.error().message();
    EXPECT_TRUE(replaced->incarnations_complete);
    EXPECT_EQ(*(*index)->row_count(), 0U);
    EXPECT_EQ(*(*index)->fleet_id(), "");
    EXPECT_EQ(*(*index)->max_incarnation(kMac), Incarnation{77 << 16});
    ASSERT_TRUE((*index)->put({row_of(2, 1)}).ok());
  }
  EXPECT_EQ(siblings_of(path), std::vector<std::string>{"index"});
  const auto again = ReplaceableIndex::open(path);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(*(*again)->row_count(), 1U);
  EXPECT_EQ(*(*again)->max_incarnation(kMac), Incarnation{77 << 16});
  EXPECT_EQ((*again)->opening(), "");
}

TEST(ReplaceableIndexTest, GoesOnWithAReplacementThatADeathInterrupted) {
  const TempDir dir;
  const std::string path = dir.path() + "/index";
  {
    auto fresh = storage::open_rocksdb_index(path + ".cmsd-rebuilding");
    ASSERT_TRUE(fresh.ok());
    ASSERT_TRUE((*fresh)->put_incarnation(kMac, 5).ok());
  }
  fs::create_directory(path + ".cmsd-replaced");
  const auto index = ReplaceableIndex::open(path);
  ASSERT_TRUE(index.ok());
  EXPECT_EQ(*(*index)->max_incarnation(kMac), Incarnation{5});
  EXPECT_NE((*index)->opening(), "");
  EXPECT_EQ(siblings_of(path), std::vector<std::string>{"index"});
}

TEST(ReplaceableIndexTest, ForgetsAReplacementThatHadNotComeToItsPlace) {
  const TempDir dir;
  const std::string path = dir.path() + "/index";
  {
    auto index = storage::open_rocksdb_index(path);
    ASSERT_TRUE((*index)->put({row_of(1, 1)}).ok());
    (void)storage::open_rocksdb_index(path + ".cmsd-rebuilding");
  }
  const auto index = ReplaceableIndex::open(path);
  ASSERT_TRUE(index.ok());
  EXPECT_EQ(*(*index)->row_count(), 1U);
  EXPECT_EQ(siblings_of(path), std::vector<std::string>{"index"});
}

TEST(ReplaceableIndexTest, ADamagedOneIsKeptAsideAndBegunAnew) {
  const TempDir dir;
  const std::string path = dir.path() + "/index";
  { ASSERT_TRUE((*storage::open_rocksdb_index(path))->put({row_of(1, 1)}).ok()); }
  std::ofstream(path + "/CURRENT") << "nonsense\n";
  const auto index = ReplaceableIndex::open(path + "/");
  ASSERT_TRUE(index.ok()) << index.error().message();
  EXPECT_EQ(*(*index)->row_count(), 0U);
  EXPECT_THAT((*index)->opening(), ::testing::HasSubstr(path + ".damaged-"));
  EXPECT_EQ(siblings_of(path).size(), 2U);
}

TEST(ReplaceableIndexTest, NoticesThatACallMetDamageOrThatItsDirectoryIsGone) {
  const TempDir dir;
  const std::string path = dir.path() + "/index";
  auto index = ReplaceableIndex::open(path);
  ASSERT_TRUE(index.ok());
  ASSERT_TRUE((*index)->put({row_of(1, 1)}).ok());
  EXPECT_FALSE((*index)->find(row_of(1, 2).name.checkpoint)->has_value());
  EXPECT_EQ((*index)->damage(), std::nullopt);
  fs::remove_all(path);
  EXPECT_FALSE((*index)->put({row_of(2, 1)}).ok());
  EXPECT_TRUE((*index)->damage().has_value());
  ASSERT_TRUE((*index)->replace(true).ok());
  EXPECT_EQ((*index)->damage(), std::nullopt);
  EXPECT_TRUE((*index)->put({row_of(2, 1)}).ok());
}

TEST(ReplaceableIndexTest, WaitsForScansAndTheirCallsBack) {
  const TempDir dir;
  auto index = ReplaceableIndex::open(dir.path() + "/index", fake_indexes());
  ASSERT_TRUE(index.ok());
  ASSERT_TRUE((*index)->put({row_of(1, 1), row_of(1, 2)}).ok());
  std::atomic<bool> replaced{false};
  std::thread replacing;
  std::size_t visited = 0;
  const Status scanned = (*index)->scan(std::nullopt, std::nullopt, [&](const storage::IndexRow& row) {
    if (visited++ == 0) {
      replacing = std::thread([&] {
        EXPECT_TRUE((*index)->replace(false).ok());
        replaced = true;
      });
    }
    // Whether or not the other thread waits by now: it must not get in between, nor we be locked out.
    for (int i = 0; i < 1000; ++i) EXPECT_TRUE((*index)->find(row.name.checkpoint)->has_value());
    EXPECT_FALSE(replaced);
    return true;
  });
  EXPECT_TRUE(scanned.ok());
  replacing.join();
  EXPECT_EQ(visited, 2U);
  EXPECT_EQ(*(*index)->row_count(), 0U);
}

}  // namespace
}  // namespace cms::daemon
