// Which syncs the directory store makes for names that others gave.
#include "storage/directory/sync_names.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "storage/contract/samples.h"
#include "storage/directory/directory_store.h"
#include "storage/store_layout.h"

namespace cms::storage::testing {
namespace {

struct Seen {
  std::mutex mutex;
  std::set<ino_t> synced;        // By fsync.
  std::set<dev_t> synced_whole;  // By syncfs.
  int fail_with = 0;             // The next fsync of a directory.
};
Seen& seen() {
  static Seen one;
  return one;
}

}  // namespace
}  // namespace cms::storage::testing

// The linker takes these for the C library's.
extern "C" int fsync(int fd) {
  auto& seen = cms::storage::testing::seen();
  struct stat info {};
  if (::fstat(fd, &info) == 0) {
    const std::lock_guard<std::mutex> lock(seen.mutex);
    if (S_ISDIR(info.st_mode) && seen.fail_with != 0) {
      errno = seen.fail_with;
      seen.fail_with = 0;
      return -1;
    }
    seen.synced.insert(info.st_ino);
  }
  return static_cast<int>(::syscall(SYS_fsync, fd));
}

extern "C" int syncfs(int fd) noexcept {
  auto& seen = cms::storage::testing::seen();
  struct stat info {};
  if (::fstat(fd, &info) == 0) {
    const std::lock_guard<std::mutex> lock(seen.mutex);
    seen.synced_whole.insert(info.st_dev);
  }
  return static_cast<int>(::syscall(SYS_syncfs, fd));
}

namespace cms::storage::testing {
namespace {

class SyncNamesTest : public ::testing::Test {
 protected:
  // Making a store takes thousands of directories, so few tests are on a disk.
  void open_in(const char* base) {
    dir_.emplace(base);
    store_ = make_directory_store(dir_->path(), "a", 1);
    ASSERT_TRUE(store_->open_store().ok());
    for (std::uint64_t program_id = 1; program_id <= 5; ++program_id) {
      const Sample sample = make_sample(program_id, 1, 10);
      ASSERT_TRUE(publish(*store_, sample).ok());
      names_.push_back(sample.name);
    }
    seen().synced.clear();
    seen().synced_whole.clear();
  }
  bool is_synced(const BlobName& name) {
    struct stat info {};
    const std::string shard = dir_->path() + "/d/" + shard_name(shard_of(name.lineage));
    EXPECT_EQ(::stat(shard.c_str(), &info), 0);
    return seen().synced.count(info.st_ino) == 1 || seen().synced_whole.count(info.st_dev) == 1;
  }

  std::optional<TempDir> dir_;
  std::unique_ptr<BlobStore> store_;
  std::vector<BlobName> names_;
};

TEST_F(SyncNamesTest, EveryShardOfANameThatIsMadeDurableIsSynced) {
  // Where every sync is one of a directory; and, as a rule, where syncfs is to be relied on.
  for (const char* base : {"/dev/shm", "/var/tmp"}) {
    names_.clear();
    open_in(base);
    for (const Status& status : store_->make_durable(names_)) EXPECT_TRUE(status.ok());
    for (const BlobName& name : names_) EXPECT_TRUE(is_synced(name)) << base << " " << to_file_name(name);
  }
}

TEST_F(SyncNamesTest, OneNameCostsOneSyncOfItsShard) {
  open_in("/dev/shm");
  EXPECT_TRUE(store_->make_durable({names_[1]})[0].ok());
  EXPECT_TRUE(is_synced(names_[1]));
  EXPECT_EQ(seen().synced.size(), 1U);
  EXPECT_TRUE(seen().synced_whole.empty());
}

TEST_F(SyncNamesTest, NameWhoseSyncFailedIsNotCalledDurable) {
  open_in("/dev/shm");
  seen().fail_with = EIO;
  EXPECT_EQ(store_->make_durable({names_[0]})[0].code(), Code::kIo);
}

}  // namespace
}  // namespace cms::storage::testing
