#include "cms/daemon/index_keeper.h"

#include "base/sanitized.h"
#include "cms/daemon/daemon_fixture_test.h"
#include "storage/blob_file.h"
#include "storage/directory/directory_store.h"

namespace cms::daemon {
namespace {

using storage::BlobName;
using storage::testing::make_sample;
using storage::testing::publish;
using storage::testing::Sample;
using ::testing::HasSubstr;

// As StoreWorkers does: the file, then its row.
void store_with_row(storage::BlobStore& store, storage::CheckpointIndex& index, const Sample& sample) {
  ASSERT_TRUE(publish(store, sample).ok());
  const auto reader = store.open(sample.name);
  ASSERT_TRUE(reader.ok());
  const wire::Manifest& manifest = (*reader)->manifest();
  storage::IndexRow row;
  row.name = sample.name;
  row.stored_bytes = storage::blob_file_bytes(manifest);
  row.stored_at_us = manifest.stored_at_us;
  row.taken_at_us = manifest.notification.taken_at_us;
  row.pause_us = manifest.notification.pause_us;
  row.program_name = manifest.notification.program_name;
  row.blob_digest = manifest.blob_digest;
  ASSERT_TRUE(index.put({row}).ok());
}

TEST(IndexKeeperTest, ARebuiltIndexEqualsTheOneBefore) {
  storage::FakeStore store;
  Parts parts(store, storage::open_rocksdb_index);
  for (std::uint64_t program_id = 1; program_id <= 200; ++program_id) {
    for (std::uint64_t seq = 1; seq <= 1 + program_id % 3; ++seq)
      store_with_row(store, parts.index(), make_sample(program_id, seq, 10 * program_id));
  }
  ASSERT_TRUE(parts.reconcile());
  const auto before = parts.rows();
  ASSERT_EQ(before.size(), 401U);
  ASSERT_TRUE(parts.index().put_incarnation(EcuMac{0x020000000009}, 99).ok());
  std::optional<Status> begun;
  parts.keeper.rebuild("test", false, [&](const Status& status) { begun = status; });
  ASSERT_TRUE(parts.turn_until([&] {
    return begun && !parts.keeper.progress().running && parts.keeper.progress().done &&
           !parts.keeper.progress().completing;
  }));
  EXPECT_TRUE(begun->ok()) << begun->error().message();
  EXPECT_EQ(parts.rows(), before);
  EXPECT_EQ(parts.keeper.progress().rows_added, 401U);
  EXPECT_EQ(parts.keeper.progress().rows_completed, 401U);
  EXPECT_EQ(*parts.index().max_incarnation(EcuMac{0x020000000009}), Incarnation{99})
      << "no store tells of it";
  EXPECT_EQ(*parts.index().fleet_id(), store.fleet_id());
}

TEST(IndexKeeperTest, WhatIsAskedForWhileItIsRebuiltIsLookedAtFirst) {
  storage::FakeStore store;
  Parts parts(store);
  const Sample sample = make_sample(7, 3, 10);
  store_with_row(store, parts.index(), sample);
  ASSERT_TRUE(parts.reconcile());
  // The worker does these three one after the other; no listing has been taken in between.
  std::optional<Result<BlobName>> newest;
  std::optional<Result<BlobName>> none;
  parts.keeper.rebuild("test", false, [](const Status&) {});
  parts.keeper.resolve(CheckpointId{sample.name.checkpoint.program, {}}, IndexKeeper::Purpose::kGoOn,
                       [&](Result<BlobName> name) { newest = name; });
  parts.keeper.resolve(CheckpointId{ProgramKey{EcuMac{0x020000000001}, 8}, {}}, IndexKeeper::Purpose::kGoOn,
                       [&](Result<BlobName> name) { none = name; });
  ASSERT_TRUE(parts.turn_until([&] { return newest && none; }));
  ASSERT_TRUE(newest->ok()) << newest->error().message();
  EXPECT_TRUE(**newest == sample.name);
  EXPECT_FALSE(none->ok());
}

TEST(IndexKeeperTest, AWithdrawalIsFoundAgainByARebuild) {
  storage::FakeStore store;
  Parts parts(store);
  store_with_row(store, parts.index(), make_sample(7, 3, 10));
  BlobName tombstone = storage::testing::make_name(7, 3, 0);
  tombstone.kind = storage::EntryKind::kTombstone;
  ASSERT_TRUE(store.put_tombstone(tombstone).ok());
  ASSERT_TRUE(parts.reconcile());
  std::optional<Status> begun;
  parts.keeper.rebuild("test", false, [&](const Status& status) { begun = status; });
  ASSERT_TRUE(parts.turn_until([&] { return begun && parts.keeper.progress().done; }));
  const auto row = parts.index().program(ProgramKey{EcuMac{0x020000000001}, 7});
  ASSERT_TRUE(row.ok() && *row);
  EXPECT_EQ((*row)->withdrawn->seq, 3U);
  EXPECT_TRUE(parts.rows().empty());
  EXPECT_EQ(store.blob_count(), 1U) << "the tombstone alone";
}

TEST(IndexKeeperTest, RowsWithoutFilesGoAndMissingOnesComeWithoutLosingWhatOthersKnow) {
  storage::FakeStore store;
  Parts parts(store);
  store_with_row(store, parts.index(), make_sample(1, 1, 10));
  const auto known = parts.rows();
  ASSERT_TRUE(publish(store, make_sample(2, 1, 10)).ok());
  storage::IndexRow ghost;
  ghost.name = storage::testing::make_name(3, 1, 10);
  ghost.name.uid = 0xdead;
  storage::IndexRow other_ghost;
  other_ghost.name = storage::testing::make_name(4, 1, 10);
  other_ghost.name.uid = 0xbeef;
  ASSERT_TRUE(parts.index().put({ghost, other_ghost}).ok());
  ASSERT_TRUE(parts.reconcile());
  const auto rows = parts.rows();
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0], known[0]);
  EXPECT_EQ(parts.keeper.progress().rows_added, 1U);
  EXPECT_EQ(parts.keeper.progress().rows_removed, 2U);
}

TEST(IndexKeeperTest, GoesOnWithARebuildWhenTheStoreIsBack) {
  storage::FakeStore store;
  Parts parts(store);
  store_with_row(store, parts.index(), make_sample(1, 1, 10));
  ASSERT_TRUE(parts.reconcile());
  const auto before = parts.rows();
  store.fail_next(storage::FakeCall::kList, 1, make_error(Code::kUnavailable, "gone"));
  parts.keeper.rebuild("test", false, [](const Status&) {});
  ASSERT_TRUE(parts.turn_until([&] { return !parts.keeper.progress().trouble.empty(); }));
  EXPECT_FALSE(parts.keeper.progress().done);
  ASSERT_TRUE(parts.reconcile());
  EXPECT_TRUE(parts.keeper.progress().rebuilding);
  EXPECT_EQ(parts.keeper.progress().reason, "test");
  EXPECT_EQ(parts.rows(), before);
}

TEST(IndexKeeperTest, AQuarantinedBlobLeavesStoreAndIndexAndTheCoreHearsWhatIsNewestNow) {
  storage::FakeStore store;
  Parts parts(store);
  store_with_row(store, parts.index(), make_sample(1, 1, 10));
  const Sample newest = make_sample(1, 2, 10);
  store_with_row(store, parts.index(), newest);
  ASSERT_TRUE(parts.reconcile());
  std::optional<Result<bool>> moved;
  parts.keeper.quarantine(newest.name, "because", [&](const Result<bool>& result) { moved = result; });
  ASSERT_TRUE(parts.turn_until([&] { return moved.has_value(); }));
  ASSERT_TRUE(moved->ok());
  EXPECT_TRUE(**moved);
  EXPECT_EQ(parts.rows().size(), 1U);
  EXPECT_EQ(parts.quarantined(), std::vector<std::string>{storage::to_file_name(newest.name)});
  EXPECT_EQ(parts.core.counters().quarantined, 1U);
  ASSERT_EQ(parts.core.failures().count(newest.name.checkpoint), 1U);
  EXPECT_THAT(parts.core.failures().at(newest.name.checkpoint).reason, HasSubstr("because"));
  moved.reset();
  parts.keeper.quarantine(newest.name, "again", [&](const Result<bool>& result) { moved = result; });
  ASSERT_TRUE(parts.turn_until([&] { return moved.has_value(); }));
  EXPECT_FALSE(**moved) << "it is there already";
}

TEST(IndexKeeperTest, APeersWordOfAQuarantineCountsOnlyWhenTheFileIsGone) {
  storage::FakeStore store;
  Parts parts(store);
  const Sample here = make_sample(1, 1, 10);
  const Sample gone = make_sample(1, 2, 10);
  store_with_row(store, parts.index(), here);
  store_with_row(store, parts.index(), gone);
  ASSERT_TRUE(parts.reconcile());
  ASSERT_TRUE(store.quarantine(gone.name, "by the peer").ok());
  parts.keeper.note_quarantined(core::NoteQuarantined{{here.name, gone.name}});
  ASSERT_TRUE(parts.turn_until([&] { return parts.core.failures().size() == 1; }));
  EXPECT_EQ(parts.rows().size(), 1U);
  EXPECT_EQ(parts.core.failures().count(gone.name.checkpoint), 1U);
  EXPECT_EQ(parts.core.counters().quarantined, 0U) << "found there, not here";
}

// ---- names that a crash of the store's host would take away

// As a cmsd leaves it that died between giving the name and making it durable.
Sample left_unsynced(storage::FakeStore& store, std::uint64_t program_id, std::uint64_t seq) {
  const Sample sample = make_sample(program_id, seq, 10);
  EXPECT_TRUE(publish(store, sample).ok());
  store.unsync(sample.name);
  return sample;
}

// Rows are there from their names alone: nothing can be opened.
void reconcile_by_names(Parts& parts, storage::FakeStore& store) {
  store.fail_next(storage::FakeCall::kOpen, 1'000'000, make_error(Code::kUnavailable, "planned"));
  ASSERT_TRUE(parts.reconcile());
  store.fail_next(storage::FakeCall::kOpen, 0, {});
}

void crash_host(storage::FakeStore& store) {
  store.crash();
  ASSERT_TRUE(store.open_store().ok());
}

// Asks as the core does, and waits until it was answered.
void look_up(Parts& parts, std::uint64_t program_id) {
  bool answered = false;
  parts.keeper.look_up(core::LookUpProgram{ProgramKey{EcuMac{0x020000000001}, program_id}});
  parts.keeper.post([&] { parts.outbox.push([&answered](Instant, core::Effects&) { answered = true; }); });
  ASSERT_TRUE(parts.turn_until([&] { return answered; }));
}

TEST(IndexKeeperTest, WhatTheCoreIsToldToBeStoredSurvivesACrashOfTheStoresHost) {
  storage::FakeStore store;
  Parts parts(store);
  const Sample asked_for = left_unsynced(store, 1, 1);
  const Sample not_asked_for = left_unsynced(store, 2, 1);
  reconcile_by_names(parts, store);
  ASSERT_EQ(parts.rows().size(), 2U);
  look_up(parts, 1);
  crash_host(store);
  EXPECT_TRUE(*store.contains(asked_for.name));
  EXPECT_FALSE(*store.contains(not_asked_for.name)) << "or this test shows nothing";
}

TEST(IndexKeeperTest, ACompletedRowHasANameThatLasts) {
  storage::FakeStore store;
  Parts parts(store);
  std::vector<Sample> samples;
  for (std::uint64_t program_id = 1; program_id <= 100; ++program_id)
    samples.push_back(left_unsynced(store, program_id, 1));
  ASSERT_TRUE(parts.reconcile());
  EXPECT_EQ(parts.keeper.progress().rows_completed, 100U);
  crash_host(store);
  for (const Sample& sample : samples) EXPECT_TRUE(*store.contains(sample.name));
}

TEST(IndexKeeperTest, ARowIsNotCompletedWhileItsNameCannotBeMadeToLast) {
  storage::FakeStore store;
  Parts parts(store);
  const Sample sample = left_unsynced(store, 1, 1);
  store.fail_next(storage::FakeCall::kMakeDurable, 1, make_error(Code::kUnavailable, "planned"));
  ASSERT_TRUE(parts.reconcile());
  EXPECT_EQ(parts.keeper.progress().rows_completed, 0U);
  EXPECT_EQ((*parts.index().newest(sample.name.checkpoint.program))->stored_at_us, 0U);
  parts.keeper.reconcile();
  ASSERT_TRUE(parts.turn_until([&] { return parts.keeper.progress().rows_completed == 1; }));
  EXPECT_NE((*parts.index().newest(sample.name.checkpoint.program))->stored_at_us, 0U);
}

TEST(IndexKeeperTest, ANameThatWasTakenAwayIsNotTheNewestAnyMore) {
  storage::FakeStore store;
  Parts parts(store);
  const Sample older = make_sample(1, 1, 10);
  store_with_row(store, parts.index(), older);
  left_unsynced(store, 1, 2);
  reconcile_by_names(parts, store);
  ASSERT_EQ((*parts.index().newest(older.name.checkpoint.program))->name.checkpoint.version.seq, 2U);
  crash_host(store);
  look_up(parts, 1);
  EXPECT_TRUE((*parts.index().newest(older.name.checkpoint.program))->name == older.name);
}

TEST(IndexKeeperTest, ATombstoneThatWasFoundLasts) {
  storage::FakeStore store;
  Parts parts(store);
  ASSERT_TRUE(publish(store, make_sample(7, 3, 10)).ok());
  BlobName tombstone = storage::testing::make_name(7, 3, 0);
  tombstone.kind = storage::EntryKind::kTombstone;
  ASSERT_TRUE(store.put_tombstone(tombstone).ok());
  store.unsync(tombstone);
  ASSERT_TRUE(parts.reconcile());
  crash_host(store);
  EXPECT_TRUE(*store.contains(tombstone));
  EXPECT_EQ(store.blob_count(), 1U) << "the tombstone alone";
}

// ---- many, in a real directory and a real index

// A hundred thousand checkpoints; a sanitizer takes ten times as long.
TEST(IndexKeeperTest, RebuildsManyCheckpointsEqual) {
  constexpr std::uint64_t kPrograms = CMS_SANITIZED != 0 ? 10000 : 50000;
  const storage::testing::TempDir dir;
  const auto store = storage::make_directory_store(dir.path(), "a", 1);
  ASSERT_TRUE(store->open_store().ok());
  Parts parts(*store, storage::open_rocksdb_index);
  std::vector<storage::testing::Sample> samples;
  for (std::uint64_t program_id = 1; program_id <= kPrograms; ++program_id) {
    samples.push_back(make_sample(program_id, 1, 16));
    samples.push_back(make_sample(program_id, 2, 16));
    if (samples.size() < 1000) continue;
    std::vector<storage::SmallBlob> blobs;
    std::vector<storage::IndexRow> rows;
    for (const Sample& sample : samples) {
      blobs.push_back(storage::testing::small_blob_of(sample));
      wire::Manifest& manifest = blobs.back().manifest;
      manifest.zero_chunks = {false};
      manifest.blob_digest = blob_digest_of(manifest.chunk_digests);
      storage::IndexRow row;
      row.name = sample.name;
      row.stored_bytes = storage::blob_file_bytes(manifest);
      row.stored_at_us = manifest.stored_at_us;
      row.taken_at_us = manifest.notification.taken_at_us;
      row.pause_us = manifest.notification.pause_us;
      row.program_name = manifest.notification.program_name;
      row.blob_digest = manifest.blob_digest;
      rows.push_back(std::move(row));
    }
    for (const Status& status : store->put_small(blobs)) ASSERT_TRUE(status.ok()) << status.error().message();
    ASSERT_TRUE(parts.index().put(rows).ok());
    samples.clear();
  }
  const auto before = parts.rows();
  ASSERT_EQ(before.size(), 2 * kPrograms);
  std::optional<Status> begun;
  parts.keeper.rebuild("test", false, [&](const Status& status) { begun = status; });
  ASSERT_TRUE(parts.turn_until(
      [&] { return begun && parts.keeper.progress().done && !parts.keeper.progress().completing; }));
  EXPECT_TRUE(parts.rows() == before);
  const double seconds = std::chrono::duration<double>(parts.keeper.progress().took).count();
  std::printf("%.0f rows/s\n", static_cast<double>(before.size()) / seconds);
}

}  // namespace
}  // namespace cms::daemon
