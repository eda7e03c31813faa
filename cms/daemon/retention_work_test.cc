// What retention does to a store and an index in memory: what it proves before it removes, what it
// learns lazily, how it stays within a bound over many programs.
#include "cms/daemon/retention_work.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "cms/daemon/admin_answers.h"
#include "storage/fake/fake_index.h"
#include "storage/fake/fake_store.h"

namespace cms::daemon {
namespace {

using storage::FakeCall;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

constexpr std::uint64_t kSecond = 1'000'000;
constexpr std::uint64_t kHour = 3600 * kSecond;
constexpr std::uint64_t kNow = 1700000000 * kSecond;
constexpr EcuMac kEcu{0x020000000001};
constexpr EcuMac kOtherEcu{0x020000000002};
const ProgramKey kProgram{kEcu, 7};

class RetentionWorkTest : public ::testing::Test {
 protected:
  RetentionWorkTest() { EXPECT_TRUE(store_.open_store().ok()); }

  storage::BlobName put(const ProgramKey& program, Seq seq, std::uint64_t at_us, bool only_name = false,
                        std::uint64_t uid = 0) {
    storage::SmallBlob blob;
    blob.name.checkpoint = CheckpointId{program, Version{1, seq}};
    blob.name.lineage = lineage_of(program);
    blob.name.size_bytes = 100;
    blob.name.uid = uid != 0 ? uid : ++last_uid_;
    blob.manifest.session = SessionId{program.ecu_mac, 1};
    blob.manifest.notification.program_id = program.program_id;
    blob.manifest.notification.seq = seq;
    blob.manifest.notification.lineage = blob.name.lineage;
    blob.manifest.notification.size_bytes = 100;
    blob.manifest.notification.program_name = "engine";
    blob.manifest.chunk_digests = {digest_of(bytes_.data(), bytes_.size())};
    blob.manifest.zero_chunks = {false};
    blob.manifest.blob_digest = blob_digest_of(blob.manifest.chunk_digests);
    blob.manifest.stored_at_us = at_us;
    blob.data = bytes_.data();
    blob.size_bytes = bytes_.size();
    const std::vector<Status> stored = store_.put_small({blob});
    EXPECT_TRUE(stored[0].ok()) << stored[0].error().message();
    storage::IndexRow row;
    row.name = blob.name;
    row.stored_bytes = 100;
    if (!only_name) row.stored_at_us = at_us;
    EXPECT_TRUE(index_.put({row}).ok());
    return blob.name;
  }
  // As a peer did it, unheard here.
  void pin(const storage::BlobName& name) { EXPECT_TRUE(store_.put_pin(storage::pin_name_of(name)).ok()); }

  std::vector<Removal> run(bool apply, RetentionWork::Scope scope = {}) {
    RetentionWork::Run run(work_, std::move(scope), apply);
    std::vector<Removal> removed;
    for (int i = 0; i < 1000 && status_.ok() && !run.done(); ++i) status_ = run.step(now_, removed);
    EXPECT_TRUE(!status_.ok() || run.done());
    judged_ = run.rows_judged();
    return removed;
  }
  static std::vector<std::string> words(const std::vector<Removal>& removed) {
    std::vector<std::string> words;
    for (const Removal& one : removed) words.push_back(to_string(one.row.name.checkpoint) + " " + one.why);
    return words;
  }
  // By program and seq, of the files and of the rows.
  std::vector<std::string> files() {
    std::vector<std::string> found;
    for (std::uint32_t shard = 0; shard < storage::kShardCount; ++shard) {
      EXPECT_TRUE(store_
                      .list(
                          shard,
                          [&](const storage::StoredEntry& entry) {
                            if (entry.name.kind != storage::EntryKind::kBlob) return;
                            found.push_back(short_name(entry.name));
                          },
                          nullptr)
                      .ok());
    }
    std::sort(found.begin(), found.end());
    return found;
  }
  std::vector<std::string> rows() {
    std::vector<std::string> found;
    EXPECT_TRUE(index_
                    .scan(std::nullopt, std::nullopt,
                          [&](const storage::IndexRow& row) {
                            found.push_back(short_name(row.name));
                            return true;
                          })
                    .ok());
    std::sort(found.begin(), found.end());
    return found;
  }
  static std::string short_name(const storage::BlobName& name) {
    const CheckpointId& checkpoint = name.checkpoint;
    return std::to_string(checkpoint.program.ecu_mac.bits & 0xff) + "/" +
           std::to_string(checkpoint.program.program_id) + "." + std::to_string(checkpoint.version.seq);
  }

  const std::vector<std::uint8_t> bytes_ = std::vector<std::uint8_t>(100, 7);
  std::uint64_t last_uid_ = 0;
  storage::FakeStore store_;
  storage::FakeIndex index_;
  core::RetentionPolicy policy_;
  RetentionNow now_{kNow, {}};
  RetentionWork work_{store_,
                      index_,
                      policy_,
                      {[this](const ProgramKey&) { return ensured_; },
                       [this](const std::vector<storage::BlobName>& names) {
                         batches_.push_back(names.size());
                         std::vector<Status> removed = store_.remove_many(names);
                         for (std::size_t i = 0; i < names.size(); ++i) {
                           if (removed[i].ok()) removed[i] = index_.remove({names[i]});
                         }
                         return removed;
                       },
                       [this](const std::vector<storage::BlobName>& names) { return index_.remove(names); }}};
  Status ensured_;
  Status status_;
  std::vector<std::size_t> batches_;  // How many were removed at once.
  std::uint64_t judged_ = 0;
};

TEST_F(RetentionWorkTest, PlanShowsWhatApplyRemovesAndTouchesNothing) {
  for (Seq seq = 1; seq <= 5; ++seq) put(kProgram, seq, kNow - 10 * kHour + seq);
  const auto planned = words(run(false));
  EXPECT_THAT(planned, ElementsAre("02:00:00:00:00:01/7@1.1 beyond keep_latest 3",
                                   "02:00:00:00:00:01/7@1.2 beyond keep_latest 3"));
  EXPECT_EQ(files().size(), 5U);
  EXPECT_EQ(judged_, 5U);
  EXPECT_EQ(words(run(true)), planned);
  EXPECT_THAT(files(), ElementsAre("1/7.3", "1/7.4", "1/7.5"));
  EXPECT_EQ(rows(), files());
  EXPECT_THAT(run(true), IsEmpty());
}

TEST_F(RetentionWorkTest, RemovesOfManyProgramsTogetherAndWhatCannotBeRemovedStays) {
  for (ProgramId id = 1; id <= 50; ++id) {
    for (Seq seq = 1; seq <= 4; ++seq) put(ProgramKey{kEcu, id}, seq, kNow);
  }
  store_.fail_next(FakeCall::kRemove, 1, make_error(Code::kIo, "planned"));
  const auto removed = run(true);
  EXPECT_EQ(status_.code(), Code::kIo);
  // Two looks for each: the newest and a pin.
  EXPECT_THAT(batches_, ElementsAre(kLooksTogetherMax / 2));
  EXPECT_EQ(removed.size(), kLooksTogetherMax / 2 - 1) << "what has gone is told, what has not is not";
  EXPECT_EQ(files().size(), 200 - removed.size());
  EXPECT_EQ(rows(), files());
  status_ = ok_status();
  EXPECT_EQ(run(true).size(), 50 - removed.size());
  EXPECT_EQ(files().size(), 150U);
}

TEST_F(RetentionWorkTest, GoesThroughExactlyTheProgramsAskedFor) {
  RetentionWork::Scope scope;
  for (ProgramId id = 1; id <= 9; ++id) {
    for (Seq seq = 1; seq <= 4; ++seq) put(ProgramKey{kEcu, id}, seq, kNow);
    if (id % 2 == 0) scope.programs.push_back(ProgramKey{kEcu, id});
  }
  EXPECT_EQ(run(true, scope).size(), 4U);
  EXPECT_EQ(judged_, 16U);
  EXPECT_EQ(files().size(), 32U);
}

// ---- names that a crash of the store's host would take away

TEST_F(RetentionWorkTest, NothingGoesForANewestThatWouldNotLast) {
  for (Seq seq = 1; seq <= 3; ++seq) put(kProgram, seq, kNow);
  const storage::BlobName newest = put(kProgram, 4, kNow, /*only_name=*/true);
  store_.unsync(newest);
  store_.fail_next(FakeCall::kMakeDurable, 1, make_error(Code::kUnavailable, "planned"));
  EXPECT_THAT(run(true), IsEmpty());
  EXPECT_EQ(status_.code(), Code::kUnavailable);
  EXPECT_EQ(files().size(), 4U);
  status_ = ok_status();
  EXPECT_EQ(run(true).size(), 1U);
  store_.crash();
  ASSERT_TRUE(store_.open_store().ok());
  EXPECT_THAT(files(), ElementsAre("1/7.2", "1/7.3", "1/7.4"));
}

TEST_F(RetentionWorkTest, OfTwoStoresOfACheckpointTheOneThatStaysLasts) {
  const storage::BlobName stays = put(kProgram, 1, kNow, /*only_name=*/true, 5);
  store_.unsync(stays);
  put(kProgram, 1, kNow, false, 6);  // This one its publisher was told to be STORED.
  put(kProgram, 2, kNow);
  EXPECT_EQ(run(true).size(), 1U);
  store_.crash();
  ASSERT_TRUE(store_.open_store().ok());
  EXPECT_THAT(files(), ElementsAre("1/7.1", "1/7.2"));
}

TEST_F(RetentionWorkTest, LooksForThePinInTheStoreNotInTheIndex) {
  std::vector<storage::BlobName> names;
  for (Seq seq = 1; seq <= 5; ++seq) names.push_back(put(kProgram, seq, kNow));
  pin(names[0]);
  EXPECT_THAT(words(run(false)), ElementsAre("02:00:00:00:00:01/7@1.2 beyond keep_latest 3"));
  run(true);
  EXPECT_THAT(files(), ElementsAre("1/7.1", "1/7.3", "1/7.4", "1/7.5"));
  EXPECT_TRUE((*index_.find(names[0].checkpoint))->pinned) << "listings do not show it";
  // Unpinned by a peer, and the index was not told.
  EXPECT_TRUE(store_.remove(storage::pin_name_of(names[0])).ok());
  run(true);
  EXPECT_EQ(files().size(), 3U);
}

TEST_F(RetentionWorkTest, WhatIsReadStays) {
  const storage::BlobName read = put(kProgram, 1, kNow);
  for (Seq seq = 2; seq <= 5; ++seq) put(kProgram, seq, kNow);
  now_.being_read.insert(read.checkpoint);
  run(true);
  EXPECT_THAT(files(), ElementsAre("1/7.1", "1/7.3", "1/7.4", "1/7.5"));
  now_.being_read.clear();
  run(true);
  EXPECT_THAT(files(), ElementsAre("1/7.3", "1/7.4", "1/7.5"));
}

// The index says that there are newer ones, but the files have gone (quarantined, or an index of yesterday).
TEST_F(RetentionWorkTest, RowsWithoutFilesDoNotCostTheLastGoodOne) {
  policy_.fleet.keep_latest = 1;
  put(kProgram, 1, kNow);
  const storage::BlobName second = put(kProgram, 2, kNow);
  const storage::BlobName third = put(kProgram, 3, kNow);
  EXPECT_TRUE(store_.remove(second).ok() && store_.remove(third).ok());
  EXPECT_THAT(run(true), IsEmpty());
  EXPECT_THAT(files(), ElementsAre("1/7.1"));
  EXPECT_THAT(rows(), ElementsAre("1/7.1"));
}

TEST_F(RetentionWorkTest, ReadsTimesThatOnlyFootersKnowWhenRulesNeedThem) {
  for (Seq seq = 1; seq <= 4; ++seq) put(kProgram, seq, kNow - (5 - seq) * kHour, true);
  store_.fail_next(FakeCall::kOpen, 1000, make_error(Code::kIo, "must not be opened"));
  EXPECT_THAT(words(run(false)), ElementsAre("02:00:00:00:00:01/7@1.1 beyond keep_latest 3"));
  ASSERT_TRUE(status_.ok()) << "a rule of versions opened a file";
  store_.fail_next(FakeCall::kOpen, 0, Error{});
  policy_.fleet.max_age_s = 2 * 3600 + 1800;
  EXPECT_THAT(words(run(true)), ElementsAre("02:00:00:00:00:01/7@1.1 beyond keep_latest 3",
                                            "02:00:00:00:00:01/7@1.2 older than max_age 150m"));
  const auto row = index_.find(CheckpointId{kProgram, Version{1, 3}});
  EXPECT_EQ((*row)->stored_at_us, kNow - 2 * kHour) << "it is opened anew each time";
  EXPECT_EQ((*row)->program_name, "engine");
}

TEST_F(RetentionWorkTest, AFooterThatCannotBeReadMakesNothingOld) {
  policy_.fleet.max_age_s = 60;
  put(kProgram, 1, kNow - kHour, true);
  put(kProgram, 2, kNow, true);
  store_.fail_next(FakeCall::kOpen, 1000, make_error(Code::kCorrupt, "damaged"));
  EXPECT_THAT(run(true), IsEmpty());
  EXPECT_TRUE(status_.ok());
}

TEST_F(RetentionWorkTest, OnlyOurShareIsLookedAt) {
  for (ProgramId id = 1; id <= 8; ++id) {
    for (Seq seq = 1; seq <= 4; ++seq) put(ProgramKey{kEcu, id}, seq, kNow);
  }
  core::PeerTable peers;
  wire::PeerMessage beat;
  beat.cms_name = "b";
  beat.incarnation = 5;
  beat.body = wire::PeerBeat{1, true};
  (void)peers.on_message(Instant{std::chrono::hours(1)}, "10.0.0.1", Id128{}, beat);
  wire::PeerMessage other = beat;
  other.cms_name = "a";
  core::PeerTable peers_of_b;
  (void)peers_of_b.on_message(Instant{std::chrono::hours(1)}, "10.0.0.1", Id128{}, other);
  const auto mine = run(true, RetentionWork::Scope{std::nullopt, std::nullopt, peers.share("a", true)});
  const auto theirs =
      run(true, RetentionWork::Scope{std::nullopt, std::nullopt, peers_of_b.share("b", true)});
  EXPECT_FALSE(mine.empty() || theirs.empty());
  EXPECT_EQ(mine.size() + theirs.size(), 8U) << "each is removed once";
  EXPECT_EQ(files().size(), 24U);
  // Without pulls of our own nothing is ours.
  EXPECT_THAT(run(false, RetentionWork::Scope{std::nullopt, std::nullopt, peers.share("a", false)}),
              IsEmpty());
}

TEST_F(RetentionWorkTest, BoundsOfEcuAndFleetTakeTheOldestOfAllPrograms) {
  const ProgramKey first{kEcu, 1};
  const ProgramKey second{kEcu, 2};
  const ProgramKey other{kOtherEcu, 1};
  put(first, 1, kNow - 9 * kHour);
  put(second, 1, kNow - 8 * kHour, true);  // Its time is in its footer only.
  put(other, 1, kNow - 7 * kHour);
  put(first, 2, kNow - 6 * kHour);
  put(second, 2, kNow - 5 * kHour, true);
  put(other, 2, kNow - 4 * kHour);
  policy_.ecus[kEcu].max_bytes = 300;
  policy_.fleet.max_bytes = 350;
  const auto planned = words(run(false));
  EXPECT_THAT(planned, ElementsAre("02:00:00:00:00:01/1@1.1 max_bytes 300 bytes of the ECU: oldest first",
                                   "02:00:00:00:00:01/2@1.1 max_bytes 350 bytes of the fleet: oldest first",
                                   "02:00:00:00:00:02/1@1.1 max_bytes 350 bytes of the fleet: oldest first"));
  EXPECT_EQ(files().size(), 6U);
  EXPECT_EQ(words(run(true)), planned);
  // The newest of each stay, though they are more than allowed.
  policy_.fleet.max_bytes = 1;
  EXPECT_THAT(run(true), IsEmpty());
  EXPECT_THAT(files(), ElementsAre("1/1.2", "1/2.2", "2/1.2"));
}

TEST_F(RetentionWorkTest, ABoundLeavesWhatIsPinnedInTheStore) {
  const storage::BlobName pinned = put(kProgram, 1, kNow - 3 * kHour);
  put(kProgram, 2, kNow - 2 * kHour);
  put(kProgram, 3, kNow - kHour);
  pin(pinned);
  policy_.fleet.max_bytes = 200;
  run(true);
  run(true);  // The first found the pin in the store.
  EXPECT_THAT(files(), ElementsAre("1/7.1", "1/7.3"));
}

TEST_F(RetentionWorkTest, OneEcuOnly) {
  for (Seq seq = 1; seq <= 4; ++seq) {
    put(ProgramKey{kEcu, 1}, seq, kNow);
    put(ProgramKey{kOtherEcu, 1}, seq, kNow);
  }
  EXPECT_THAT(words(run(false, RetentionWork::Scope{kOtherEcu, std::nullopt, std::nullopt})),
              ElementsAre("02:00:00:00:00:02/1@1.1 beyond keep_latest 3"));
}

TEST_F(RetentionWorkTest, ManyRemovalsTakeSeveralStepsAndAllComeToAnEnd) {
  policy_.fleet.keep_latest = 1;
  for (Seq seq = 1; seq <= 2 * kStepRemovalsMax + 10; ++seq) put(kProgram, seq, kNow);
  RetentionWork::Run once(work_, {}, true);
  std::vector<Removal> removed;
  ASSERT_TRUE(once.step(now_, removed).ok());
  EXPECT_EQ(removed.size(), kStepRemovalsMax);
  EXPECT_FALSE(once.done());
  run(true);
  EXPECT_EQ(files().size(), 1U);
}

TEST_F(RetentionWorkTest, AFailingStoreEndsTheRunAndNothingIsForgotten) {
  for (Seq seq = 1; seq <= 5; ++seq) put(kProgram, seq, kNow);
  store_.fail_next(FakeCall::kContains, 1, make_error(Code::kUnavailable, "away"));
  EXPECT_THAT(run(true), IsEmpty());
  EXPECT_EQ(status_.code(), Code::kUnavailable);
  EXPECT_EQ(rows().size(), 5U);
  status_ = ok_status();
  ensured_ = make_error(Code::kUnavailable, "away");
  EXPECT_THAT(run(true), IsEmpty());
  EXPECT_EQ(status_.code(), Code::kUnavailable);
}

TEST_F(RetentionWorkTest, SecondStoreGoesAlthoughTheCheckpointIsPinned) {
  const storage::BlobName kept = put(kProgram, 1, kNow, false, 1);
  put(kProgram, 1, kNow, false, 2);
  pin(kept);
  EXPECT_EQ(run(true).size(), 1U);
  EXPECT_TRUE(*store_.contains(kept));
  EXPECT_EQ(files().size(), 1U);
}

TEST_F(RetentionWorkTest, PagesGoOnWhereTheyEnded) {
  for (ProgramId id = 1; id <= 3; ++id) {
    for (Seq seq = 1; seq <= 4; ++seq) put(ProgramKey{kEcu, id}, seq, kNow);
  }
  RetentionWork::Run second(work_, {}, false);
  ASSERT_TRUE(start_at("02:00:00:00:00:01/2", second).ok());
  std::vector<Removal> removed;
  ASSERT_TRUE(second.step(now_, removed).ok());
  EXPECT_THAT(words(removed), ElementsAre("02:00:00:00:00:01/3@1.1 beyond keep_latest 3"));
  RetentionWork::Run wrong(work_, {}, false);
  EXPECT_EQ(start_at("nonsense", wrong).code(), Code::kInvalidArgument);
  EXPECT_EQ(start_at("02:00:00:00:00:01/2@1.1", wrong).code(), Code::kInvalidArgument);
  wire::AdminRequest request;
  request.method = wire::AdminMethod::kRetentionPlan;
  const auto json = nlohmann::json::parse(removals_json(request, removed, 4, 12, kNow));
  EXPECT_EQ(json.at("count"), 1);
  EXPECT_EQ(json.at("stored_bytes"), 100);
  EXPECT_EQ(json.at("applied"), false);
  EXPECT_EQ(json.at("removals").at(0).at("why"), "beyond keep_latest 3");
  EXPECT_EQ(json.at("removals").at(0).at("key"), "02:00:00:00:00:01/3@1.1");
  EXPECT_EQ(json.at("removals").at(0).at("stored_at"), "2023-11-14T22:13:20.000Z");
}

}  // namespace
}  // namespace cms::daemon
