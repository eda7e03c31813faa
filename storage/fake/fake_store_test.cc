#include "storage/fake/fake_store.h"

#include <gtest/gtest.h>

#include "storage/contract/blob_store_contract.h"
#include "storage/contract/samples.h"

namespace cms::storage::testing {
namespace {

class FakeFixture final : public StoreFixture {
 public:
  FakeFixture() { EXPECT_TRUE(store_.open_store().ok()); }
  BlobStore& store() override { return store_; }
  BlobStore& reopened() override {
    store_.crash();
    EXPECT_TRUE(store_.open_store().ok());
    return store_;
  }
  void unsync(const BlobName& name) override { store_.unsync(name); }
  void damage_chunk(const BlobName& name, std::uint64_t chunk_index) override {
    store_.flip_bit(name, chunk_index, 5);
  }

 private:
  FakeStore store_;
};

INSTANTIATE_TEST_SUITE_P(Fake, BlobStoreContract, ::testing::Values(+[]() -> std::unique_ptr<StoreFixture> {
                           return std::make_unique<FakeFixture>();
                         }));

TEST(FakeStore, PlannedFailuresHitTheirKindOfCallThenEnd) {
  FakeStore store;
  EXPECT_EQ(store.probe().code(), Code::kUnavailable) << "before open_store";
  ASSERT_TRUE(store.open_store().ok());
  store.fail_next(FakeCall::kPublish, 2, make_error(Code::kIo, "planned"));
  EXPECT_EQ(publish(store, make_sample(1, 1, 10)).code(), Code::kIo);
  EXPECT_EQ(publish(store, make_sample(1, 1, 10)).code(), Code::kIo);
  EXPECT_TRUE(publish(store, make_sample(1, 1, 10)).ok());
  store.fail_next(FakeCall::kAny, 1, make_error(Code::kReadOnly, "planned"));
  EXPECT_EQ(store.probe().code(), Code::kReadOnly);
  EXPECT_TRUE(store.probe().ok());
}

TEST(FakeStore, CrashDropsWhatWasNotPublishedAndMayUndoRemovals) {
  FakeStore store;
  ASSERT_TRUE(store.open_store().ok());
  const Sample removed = make_sample(1, 1, 10);
  ASSERT_TRUE(publish(store, removed).ok());
  ASSERT_TRUE(store.remove(removed.name).ok());
  const Sample unfinished = make_sample(2, 1, 10);
  auto writer = store.create(unfinished.name, make_manifest(unfinished.name));
  ASSERT_TRUE(writer.ok());
  store.crash(/*undo_removals=*/true);
  ASSERT_TRUE(store.open_store().ok());
  EXPECT_EQ((*writer)->append(unfinished.data.data(), 10, {}).code(), Code::kUnavailable);
  writer->reset();
  EXPECT_EQ(store.blob_count(), 1U);
  EXPECT_EQ(*read_back(store, removed.name), removed.data);
}

TEST(FakeStore, CrashTakesNamesThatWereLeftUnsyncedAndNotThoseMadeDurable) {
  FakeStore store;
  ASSERT_TRUE(store.open_store().ok());
  const Sample lost = make_sample(1, 1, 10);
  const Sample kept = make_sample(2, 1, 10);
  const Sample removed = make_sample(3, 1, 10);
  for (const Sample* sample : {&lost, &kept, &removed}) {
    ASSERT_TRUE(publish(store, *sample).ok());
    store.unsync(sample->name);
  }
  ASSERT_TRUE(store.make_durable({kept.name})[0].ok());
  ASSERT_TRUE(store.remove(removed.name).ok());
  store.crash(/*undo_removals=*/true);
  ASSERT_TRUE(store.open_store().ok());
  EXPECT_FALSE(*store.contains(lost.name));
  EXPECT_TRUE(*store.contains(kept.name));
  EXPECT_FALSE(*store.contains(removed.name)) << "it never was on the medium";
}

TEST(FakeStore, IsFullAtItsCapacityAndTakesAgainAfterRemoval) {
  FakeStore store;
  ASSERT_TRUE(store.open_store().ok());
  store.set_capacity_bytes(300'000);
  const Sample sample = make_sample(1, 1, 2 * kChunkBytes);
  ASSERT_TRUE(publish(store, sample).ok());
  EXPECT_EQ(publish(store, make_sample(1, 2, 3 * kChunkBytes)).code(), Code::kNoSpace);
  ASSERT_TRUE(store.remove(sample.name).ok());
  EXPECT_TRUE(publish(store, make_sample(1, 2, 3 * kChunkBytes)).ok());
}

}  // namespace
}  // namespace cms::storage::testing
