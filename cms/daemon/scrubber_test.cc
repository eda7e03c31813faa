#include "cms/daemon/scrubber.h"

#include <fstream>
#include <iterator>

#include "cms/core/peers.h"
#include "cms/daemon/daemon_fixture_test.h"
#include "storage/directory/directory_store.h"

namespace cms::daemon {
namespace {

namespace fs = std::filesystem;
using storage::FakeCall;
using storage::FakeStore;
using storage::testing::make_sample;
using storage::testing::publish;
using storage::testing::Sample;
using ::testing::HasSubstr;

const ProgramKey kProgram{EcuMac{0x020000000001}, 7};

Scrubber::Config fast() { return {"a", std::uint64_t{1} << 40, std::chrono::hours(24), 5}; }

bool round_ended(const Parts& parts) { return parts.scrubber.facts().last_round_ended_at_us != 0; }

TEST(ScrubberTest, ARoundFindsAFlippedBitAndTheNextOlderOneIsNewest) {
  FakeStore store;
  Parts parts(store, fake_indexes(), fast());
  const Sample older = make_sample(7, 1, 3 * kChunkBytes);
  const Sample newest = make_sample(7, 2, 3 * kChunkBytes);
  const Sample other = make_sample(8, 1, 10);
  for (const Sample* sample : {&older, &newest, &other}) ASSERT_TRUE(publish(store, *sample).ok());
  ASSERT_TRUE(parts.reconcile());
  store.flip_bit(newest.name, 2, 17);
  parts.scrubber.on_store_state(true);
  ASSERT_TRUE(parts.turn_until([&] { return round_ended(parts) && parts.core.counters().quarantined == 1; }));
  const ScrubFacts facts = parts.scrubber.facts();
  EXPECT_EQ(facts.last_round.checkpoints, 3U);
  EXPECT_EQ(facts.last_round.corrupt, 1U);
  EXPECT_EQ(facts.last_round.bytes, 5 * kChunkBytes + 10) << "no byte behind the damage counts";
  ASSERT_EQ(facts.found.size(), 1U);
  EXPECT_EQ(facts.found[0].checkpoint, newest.name.checkpoint);
  EXPECT_THAT(facts.found[0].reason, HasSubstr("chunk 2"));
  EXPECT_EQ(parts.quarantined(), std::vector<std::string>{storage::to_file_name(newest.name)});
  EXPECT_EQ((*parts.index().newest(kProgram))->name, older.name);
}

TEST(ScrubberTest, ARunOverAProgramReadsThatProgramAndSaysWhatItFound) {
  FakeStore store;
  Parts parts(store);
  const Sample good = make_sample(7, 1, 10);
  const Sample bad = make_sample(7, 2, 10);
  const Sample other = make_sample(8, 1, 10);
  for (const Sample* sample : {&good, &bad, &other}) ASSERT_TRUE(publish(store, *sample).ok());
  ASSERT_TRUE(parts.reconcile());
  store.flip_bit(bad.name, 0, 3);
  store.flip_bit(other.name, 0, 3);
  const ScrubRun one = parts.scrub(kProgram, good.name.checkpoint.version);
  EXPECT_EQ(one.counts.checkpoints, 1U);
  EXPECT_EQ(one.counts.corrupt, 0U);
  const ScrubRun run = parts.scrub(kProgram);
  EXPECT_EQ(run.what, to_string(kProgram));
  EXPECT_EQ(run.counts.checkpoints, 2U);
  EXPECT_EQ(run.checkpoints_total, 2U);
  ASSERT_EQ(run.found.size(), 1U);
  EXPECT_EQ(run.found[0].checkpoint, bad.name.checkpoint);
  EXPECT_EQ(parts.rows().size(), 2U) << "done means that it is gone";
  const ScrubRun all = parts.scrub();
  EXPECT_EQ(all.shards_done, storage::kShardCount);
  EXPECT_EQ(all.counts.checkpoints, 2U);
  EXPECT_EQ(all.counts.corrupt, 1U);
  EXPECT_EQ(parts.rows().size(), 1U);
}

TEST(ScrubberTest, WhatReadsWrongOnceAndRightThenStays) {
  FakeStore store;
  Parts parts(store);
  const Sample sample = make_sample(7, 1, 2 * kChunkBytes);
  ASSERT_TRUE(publish(store, sample).ok());
  ASSERT_TRUE(parts.reconcile());
  for (const FakeCall call : {FakeCall::kReadChunk, FakeCall::kOpen}) {
    store.fail_next(call, 1, make_error(Code::kCorrupt, "a bad cable"));
    const ScrubRun run = parts.scrub(kProgram);
    EXPECT_EQ(run.counts.misread, 1U);
    EXPECT_EQ(run.counts.corrupt, 0U);
    EXPECT_EQ(run.counts.checkpoints, 1U);
  }
  EXPECT_TRUE(parts.quarantined().empty());
  store.fail_next(FakeCall::kOpen, 2, make_error(Code::kCorrupt, "its footer"));
  EXPECT_EQ(parts.scrub(kProgram).counts.corrupt, 1U) << "twice in a row";
  EXPECT_EQ(parts.quarantined().size(), 1U);
}

TEST(ScrubberTest, WhatCannotBeReadIsNotTakenForDamaged) {
  FakeStore store;
  Parts parts(store);
  ASSERT_TRUE(publish(store, make_sample(7, 1, 10)).ok());
  ASSERT_TRUE(parts.reconcile());
  store.fail_next(FakeCall::kReadChunk, 1, make_error(Code::kIo, "a bad sector"));
  const ScrubRun unreadable = parts.scrub(kProgram);
  EXPECT_EQ(unreadable.state, ScrubRun::State::kDone);
  EXPECT_EQ(unreadable.counts.unreadable, 1U);
  EXPECT_THAT(unreadable.trouble, HasSubstr("a bad sector"));
  store.fail_next(FakeCall::kReadChunk, 1, make_error(Code::kUnavailable, "the NAS is off"));
  const ScrubRun away = parts.scrub();
  EXPECT_EQ(away.state, ScrubRun::State::kBrokenOff);
  EXPECT_THAT(away.trouble, HasSubstr("the NAS is off"));
  // In between the two looks: no proof.
  store.fail_next(FakeCall::kOpen, 1, make_error(Code::kUnsupported, "of a newer format"));
  EXPECT_EQ(parts.scrub(kProgram).counts.unsupported, 1U);
  EXPECT_TRUE(parts.quarantined().empty());
  EXPECT_EQ(parts.rows().size(), 1U);
}

TEST(ScrubberTest, ADamagedOneThatCannotBeMovedStaysIndexedAndIsToldOf) {
  FakeStore store;
  Parts parts(store);
  const Sample sample = make_sample(7, 1, 10);
  ASSERT_TRUE(publish(store, sample).ok());
  ASSERT_TRUE(parts.reconcile());
  store.flip_bit(sample.name, 0, 0);
  store.fail_next(FakeCall::kQuarantine, 1, make_error(Code::kReadOnly, "mounted read-only"));
  EXPECT_EQ(parts.scrub(kProgram).counts.corrupt, 1U);
  EXPECT_THAT(parts.scrubber.facts().not_moved.reason, HasSubstr("read-only"));
  EXPECT_EQ(parts.rows().size(), 1U);
  EXPECT_EQ(parts.scrub(kProgram).counts.corrupt, 1U);
  EXPECT_TRUE(parts.rows().empty());
}

TEST(ScrubberTest, OfSeveralCmsEachReadsItsShare) {
  FakeStore store;
  Parts parts(store, fake_indexes(), fast());
  std::uint64_t own = 0;
  for (std::uint64_t program_id = 1; program_id <= 40; ++program_id) {
    const Sample sample = make_sample(program_id, 1, 10);
    ASSERT_TRUE(publish(store, sample).ok());
    const ProgramKey& program = sample.name.checkpoint.program;
    if (core::rendezvous_weight("a", program) > core::rendezvous_weight("b", program)) ++own;
  }
  parts.scrubber.set_peers({"b"});
  parts.scrubber.on_store_state(true);
  ASSERT_TRUE(parts.turn_until([&] { return round_ended(parts); }));
  EXPECT_EQ(parts.scrubber.facts().last_round.checkpoints, own);
  EXPECT_GT(own, 0U);
  EXPECT_LT(own, 40U);
}

TEST(ScrubberTest, ASuspectIsProvenByTheSecondLookOrNot) {
  FakeStore store;
  Parts parts(store);
  const Sample sample = make_sample(7, 1, 2 * kChunkBytes);
  ASSERT_TRUE(publish(store, sample).ok());
  ASSERT_TRUE(parts.reconcile());
  const auto verdict = [&](std::optional<std::uint64_t> chunk) {
    std::optional<Result<bool>> said;
    parts.scrubber.suspect(sample.name, chunk,
                           [&](const Result<bool>& damaged, core::Effects&) { said = damaged; });
    EXPECT_TRUE(parts.turn_until([&] { return said.has_value(); }));
    return *said;
  };
  EXPECT_FALSE(*verdict(1));
  EXPECT_FALSE(*verdict(std::nullopt));
  store.flip_bit(sample.name, 1, 5);
  EXPECT_FALSE(*verdict(0)) << "that chunk is well";
  store.fail_next(FakeCall::kReadChunk, 1, make_error(Code::kUnavailable, "away"));
  EXPECT_EQ(verdict(1).error().code, Code::kUnavailable);
  EXPECT_TRUE(*verdict(1));
  EXPECT_TRUE(*verdict(1)) << "it has gone by now";
  EXPECT_EQ(parts.quarantined().size(), 1U);
}

TEST(ScrubberTest, TheWaitingAreBounded) {
  FakeStore store;
  Parts parts(store);
  for (std::size_t i = 0; i < kScrubRunsMax; ++i)  // The store is away: all wait.
    ASSERT_TRUE(parts.scrubber.start_run(kProgram, Version{1, i + 1}).ok());
  EXPECT_EQ(parts.scrubber.start_run(kProgram, std::nullopt).error().code, Code::kLimit);
  parts.scrubber.on_store_state(true);
  ASSERT_TRUE(
      parts.turn_until([&] { return parts.scrubber.facts().runs.back().state == ScrubRun::State::kDone; }));
  const auto first = parts.scrubber.start_run(std::nullopt, std::nullopt);
  ASSERT_TRUE(first.ok()) << "the oldest that is done makes room";
}

// ---- bad bytes in a real directory: whatever they are, they are named and moved

class BadFileTest : public ::testing::TestWithParam<int> {};

TEST_P(BadFileTest, IsQuarantinedWithItsReasonAndNeverReturned) {
  const storage::testing::TempDir dir;
  const auto store = storage::make_directory_store(dir.path(), "a", 1);
  ASSERT_TRUE(store->open_store().ok());
  Parts parts(*store);
  const Sample good = make_sample(7, 1, 3 * kChunkBytes + 5);
  const Sample bad = make_sample(7, 2, 3 * kChunkBytes + 5);
  ASSERT_TRUE(publish(*store, good).ok());
  ASSERT_TRUE(publish(*store, bad).ok());
  ASSERT_TRUE(parts.reconcile());
  std::string path;
  std::string good_path;
  for (const auto& entry : fs::recursive_directory_iterator(dir.path() + "/d")) {
    if (entry.path().filename() == storage::to_file_name(bad.name)) path = entry.path();
    if (entry.path().filename() == storage::to_file_name(good.name)) good_path = entry.path();
  }
  const auto size = static_cast<std::int64_t>(fs::file_size(path));
  const auto flip = [&](std::int64_t at) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(at < 0 ? size + at : at);
    const char byte = static_cast<char>(file.get());
    file.seekp(at < 0 ? size + at : at);
    file.put(static_cast<char>(byte ^ 0x10));
  };
  const auto cut = [&](std::int64_t to) { fs::resize_file(path, static_cast<std::uintmax_t>(to)); };
  switch (GetParam()) {
    case 0: cut(0); break;
    case 1: cut(100); break;
    case 2: cut(size - 1); break;
    case 3: cut(size / 2); break;
    case 4: cut(size + 4096); break;
    case 5: flip(3); break;     // the magic
    case 6: flip(24); break;    // the size in the header
    case 7: flip(64); break;    // the first byte of the blob
    case 8: flip(-1); break;    // the end magic
    case 9: flip(-60); break;   // the length of the manifest
    case 10: flip(-80); break;  // the manifest
    case 11: fs::copy_file(good_path, path, fs::copy_options::overwrite_existing); break;
    case 12: std::ofstream(path, std::ios::trunc) << "#!/bin/sh\necho I am no checkpoint\n"; break;
    case 13: std::ofstream(path, std::ios::trunc) << std::string(300000, '\0'); break;
    default: FAIL();
  }
  const ScrubRun run = parts.scrub();
  EXPECT_EQ(run.counts.corrupt, 1U) << run.trouble;
  ASSERT_EQ(run.found.size(), 1U);
  EXPECT_EQ(run.found[0].checkpoint, bad.name.checkpoint);
  EXPECT_FALSE(fs::exists(path));
  const std::string moved = dir.path() + "/quarantine/" + storage::to_file_name(bad.name);
  EXPECT_TRUE(fs::exists(moved));
  std::ifstream why(moved + ".why");
  const std::string text{std::istreambuf_iterator<char>(why), {}};
  EXPECT_THAT(text, HasSubstr(run.found[0].reason));
  const auto newest = parts.index().newest(kProgram);
  ASSERT_TRUE(newest.ok() && *newest);
  EXPECT_EQ((*newest)->name, good.name);
  EXPECT_EQ(*storage::testing::read_back(*store, good.name), good.data);
}

INSTANTIATE_TEST_SUITE_P(Kinds, BadFileTest, ::testing::Range(0, 14));

}  // namespace
}  // namespace cms::daemon
