// Kills a process at every named point of the store and looks at what it leaves behind.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <atomic>
#include <filesystem>
#include <new>
#include <set>

#include "base/crash_point.h"
#include "storage/contract/samples.h"
#include "storage/directory/directory_store.h"

namespace cms::storage::testing {
namespace {

namespace fs = std::filesystem;

constexpr int kSmallCount = 5;

// How far the child came, in memory that outlives it.
struct Progress {
  std::atomic<bool> large_acknowledged{false};
  std::atomic<bool> small_acknowledged{false};
  std::atomic<bool> tombstone_acknowledged{false};
};

Sample large_sample() { return make_sample(1, 1, 3 * kChunkBytes + 1); }
Sample small_sample(int i) { return make_sample(10 + static_cast<std::uint64_t>(i), 1, 1000); }
BlobName tombstone_name() {
  BlobName name = make_name(2, 9, 0);
  name.kind = EntryKind::kTombstone;
  return name;
}
Sample removed_sample() { return make_sample(3, 1, 10); }
Sample quarantined_sample() { return make_sample(4, 1, 10); }

void live_a_life(const std::string& path, Progress& progress) {
  const auto store = make_directory_store(path, "a", 1);
  ASSERT_TRUE(store->open_store().ok());
  ASSERT_TRUE(publish(*store, large_sample()).ok());
  progress.large_acknowledged = true;
  std::vector<Sample> samples;
  for (int i = 0; i < kSmallCount; ++i) samples.push_back(small_sample(i));
  std::vector<SmallBlob> blobs;
  for (const Sample& sample : samples) blobs.push_back(small_blob_of(sample));
  for (const Status& status : store->put_small(blobs)) ASSERT_TRUE(status.ok());
  progress.small_acknowledged = true;
  ASSERT_TRUE(store->put_tombstone(tombstone_name()).ok());
  progress.tombstone_acknowledged = true;
  ASSERT_TRUE(publish(*store, removed_sample()).ok());
  ASSERT_TRUE(store->remove(removed_sample().name).ok());
  ASSERT_TRUE(publish(*store, quarantined_sample()).ok());
  ASSERT_TRUE(store->quarantine(quarantined_sample().name, "damaged").ok());
}

class StoreCrash : public ::testing::TestWithParam<std::string> {
 protected:
  StoreCrash() {
    void* shared =
        ::mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(shared, MAP_FAILED);
    progress_ = new (shared) Progress;
  }
  ~StoreCrash() override { ::munmap(progress_, sizeof(Progress)); }

  Progress* progress_ = nullptr;
};

TEST_P(StoreCrash, LeavesEveryBlobWholeOrAbsentAndNothingAcknowledgedIsLost) {
  const TempDir dir;
  const int status = run_in_child([&] {
    ASSERT_TRUE(arm_crash_point(GetParam()));
    live_a_life(dir.path(), *progress_);
  });
  ASSERT_TRUE(was_killed(status)) << "the point was never passed";

  const auto store = make_directory_store(dir.path(), "a", 2);
  const Status opened = store->open_store();
  ASSERT_TRUE(opened.ok()) << opened.error().message();
  std::set<std::string> names;
  for (const StoredEntry& entry : list_all(*store)) {
    names.insert(to_file_name(entry.name));
    const auto data = read_back(*store, entry.name);
    EXPECT_TRUE(data.ok()) << data.error().message();
  }
  if (progress_->large_acknowledged) {
    EXPECT_EQ(*read_back(*store, large_sample().name), large_sample().data);
  }
  for (int i = 0; progress_->small_acknowledged && i < kSmallCount; ++i) {
    EXPECT_EQ(*read_back(*store, small_sample(i).name), small_sample(i).data);
  }
  if (progress_->tombstone_acknowledged) {
    EXPECT_EQ(names.count(to_file_name(tombstone_name())), 1U);
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(dir.path() + "/tmp"), fs::directory_iterator()), 1)
      << "what the dead incarnation left in tmp was not swept";

  // The next life takes the same blobs, but for those that were there after all.
  for (const Sample& sample : {large_sample(), small_sample(0), small_sample(4)}) {
    const bool was_there = names.count(to_file_name(sample.name)) == 1;
    EXPECT_EQ(publish(*store, sample).code(), was_there ? Code::kAlreadyExists : Code::kOk);
    EXPECT_EQ(*read_back(*store, sample.name), sample.data);
  }
}

// Every point of the store there is: one that live_a_life never passes fails its test.
std::vector<std::string> store_crash_points() {
  std::vector<std::string> points;
  for (const std::string& name : crash_point_names()) {
    if (name.rfind("store.", 0) == 0) points.push_back(name);
  }
  for (const char* in_the_middle :
       {"store.after_chunk:3", "store.small_after_write:3", "store.small_after_rename:3"}) {
    points.push_back(in_the_middle);
  }
  return points;
}

INSTANTIATE_TEST_SUITE_P(EveryPoint, StoreCrash, ::testing::ValuesIn(store_crash_points()),
                         [](const auto& point) {
                           std::string name = point.param;
                           for (char& c : name) {
                             if (c == '.' || c == ':') c = '_';
                           }
                           return name;
                         });

}  // namespace
}  // namespace cms::storage::testing
