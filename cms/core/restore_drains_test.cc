// An ECU is drained: all its programs are moved, few at once, and none comes.
#include "cms/core/restore_driver_test.h"

namespace cms::core {
namespace {

using namespace restore_driver;

Lineage lineage_of_index(std::uint64_t index) { return Lineage{1, index}; }

class RestoreDrainsTest : public RestoreDriver {
 protected:
  RestoreDrainsTest() { candidates.front().freezes = true; }

  void drain(std::optional<Instant> deadline = std::nullopt) {
    call([&](auto& out) { core->drain_ecu(now, kLostMac, deadline, out); });
  }
  // It owns so many programs; their heads have been read.
  void drained(std::uint64_t count, std::optional<Instant> deadline = std::nullopt) {
    tick();
    scanned(std::nullopt, std::vector<ClaimRecord>{});
    drain(deadline);
    tick();
    EXPECT_EQ(only<ScanLogs>().ecu_macs, std::set<EcuMac>{kLostMac});
    for (std::uint64_t i = 1; i <= count; ++i) heads.push_back(first_record(lineage_of_index(i), i));
    scanned(kLostMac, heads);
    EXPECT_EQ(all<ReadHead>().size(), count);
    for (const ClaimRecord& head : heads) head_is(head);
  }
  // All claims that are being appended are won; the checkpoints are found.
  void claim_all() {
    for (const AppendRecord& append : all<AppendRecord>()) claimed_now.push_back(append.record);
    for (const ClaimRecord& record : claimed_now) {
      append_ended(AppendEnd::kWon, 0, record.lineage);
      is_found(found_of(record), record.lineage);
    }
  }
  std::size_t in_stage(Stage stage) const {
    std::size_t count = 0;
    for (const auto& [lineage, restore] : core->restores()) count += restore.stage == stage ? 1 : 0;
    return count;
  }

  std::vector<ClaimRecord> heads;
  std::vector<ClaimRecord> claimed_now;
};

TEST_F(RestoreDrainsTest, FewAreMovedAtOnceAndNoneToAnEcuThatIsDrainedToo) {
  add_target(kFirst);
  add_target(kSecond);
  call([&](auto& out) { core->drain_ecu(now, kSecond.ecu_mac, std::nullopt, out); });
  tick();
  scanned(kSecond.ecu_mac, std::vector<ClaimRecord>{});
  drained(20);
  tick();
  EXPECT_EQ(all<AppendRecord>().size(), kMovesTogetherMax);
  const RestoreEffects appends = effects;
  tick();
  EXPECT_TRUE(none<AppendRecord>());  // However long the store takes.
  effects = appends;
  claim_all();
  tick();
  EXPECT_EQ(in_stage(Stage::kFreezing), kMovesTogetherMax);
  EXPECT_EQ(in_stage(Stage::kQueued), 20 - kMovesTogetherMax);
  for (const auto& [lineage, restore] : core->restores()) {
    if (restore.stage == Stage::kFreezing) {
      EXPECT_EQ(restore.target, kFirst);
    }
  }
  const RestoreCore::Progress progress = core->progress_of_drain(kLostMac);
  EXPECT_TRUE(progress.scanned);
  EXPECT_EQ(progress.total, 20U);
  EXPECT_EQ(progress.done + progress.refused, 0U);
}

TEST_F(RestoreDrainsTest, NothingIsRestoredToADrainedEcuUntilTheDrainIsCancelled) {
  add_target(kFirst);
  drained(0);
  std::vector<Candidate> counted = candidates;
  core->add_reservations(now, counted);
  EXPECT_TRUE(counted.front().metrics->draining);
  EXPECT_FALSE(counted.back().metrics->draining);
  call([&](auto& out) { EXPECT_TRUE(core->cancel_drain(now, kLostMac, out).ok()); });
  counted = candidates;
  core->add_reservations(now, counted);
  EXPECT_FALSE(counted.front().metrics->draining);
  call([&](auto& out) { EXPECT_EQ(core->cancel_drain(now, kLostMac, out).code(), Code::kNotFound); });
}

TEST_F(RestoreDrainsTest, WhatIsPreparedOnAnEcuThatIsDrainedGoesElsewhere) {
  add_target(kFirst);
  preparing();
  add_target(kSecond);
  call([&](auto& out) { core->drain_ecu(now, kFirst.ecu_mac, std::nullopt, out); });
  tick(kCommandRepeat);
  EXPECT_EQ(commands<wire::Discard>().size(), 1U);
  ASSERT_EQ(commands<wire::Prepare>().size(), 1U);
  EXPECT_EQ(commands<wire::Prepare>().front().first, kSecond);
}

TEST_F(RestoreDrainsTest, WhatIsBeingStartedThereIsWaitedFor) {
  tick();
  scanned(std::nullopt, std::vector<ClaimRecord>{});
  call([&](auto& out) { core->drain_ecu(now, kFirst.ecu_mac, std::nullopt, out); });
  tick();
  const ClaimRecord claimed =
      cms::core::claim(stamp(kOther), first_record(), wire::ClaimReason::kVouched, true);
  const ClaimRecord act =
      cms::core::act(stamp(kOther), claimed, kFirst, claim_blob_of(found_of(claimed).name));
  scanned(kFirst.ecu_mac, std::vector<ClaimRecord>{act});
  EXPECT_FALSE(core->progress_of_drain(kFirst.ecu_mac).scanned);
  tick(kRestoreRetry);
  scanned(kFirst.ecu_mac, std::vector<ClaimRecord>{cms::core::done(stamp(kOther), act, 3)});
  EXPECT_TRUE(core->progress_of_drain(kFirst.ecu_mac).scanned);
  EXPECT_EQ(core->progress_of_drain(kFirst.ecu_mac).total, 1U);
}

TEST_F(RestoreDrainsTest, ACancelLeavesWhatHasNotMovedWhereItIs) {
  add_target(kFirst);
  drained(12);
  tick();
  claim_all();
  tick();
  call([&](auto& out) { EXPECT_TRUE(core->cancel_drain(now, kLostMac, out).ok()); });
  tick();
  const std::vector<AppendRecord> releases = all<AppendRecord>();
  EXPECT_EQ(releases.size(), kMovesTogetherMax);
  for (const AppendRecord& release : releases) {
    EXPECT_EQ(release.record.kind, ClaimKind::kRelease);
    append_ended(AppendEnd::kWon, 0, release.record.lineage);
    EXPECT_EQ(all<SendToSource>().size(), 1U);  // Thaw.
  }
  EXPECT_EQ(in_stage(Stage::kRefused), 12U);
  for (int i = 0; i < 100; ++i) {
    tick(seconds(1));
    ASSERT_TRUE(none<AppendRecord>());
  }
}

TEST_F(RestoreDrainsTest, WhatCouldNotBeMovedIsTriedAgainEverMoreSeldomUntilTheDeadline) {
  const Instant deadline = now + std::chrono::minutes(10);
  drained(1, deadline);
  const Lineage lineage = lineage_of_index(1);
  ClaimRecord head = heads.front();
  std::vector<Instant> tries;
  while (now < deadline + std::chrono::minutes(5)) {
    tick(milliseconds(500));
    for (const AppendRecord& append : all<AppendRecord>()) {
      head = append.record;
      append_ended(AppendEnd::kWon, 0, lineage);
      if (head.kind != ClaimKind::kClaim) continue;
      tries.push_back(now);
      is_found(found_of(head), lineage);
    }
    if (stage(lineage) == Stage::kReading) head_is(head);
  }
  ASSERT_GE(tries.size(), 5U);
  EXPECT_LE(tries.size(), 16U);
  for (std::size_t i = 1; i < tries.size(); ++i) EXPECT_GE(tries[i] - tries[i - 1], kDrainRetryMin);
  EXPECT_LE(tries.back(), deadline);
  EXPECT_GT(tries.back(), deadline - 2 * kDrainRetryMax);
  EXPECT_TRUE(core->is_drained(kLostMac));
  EXPECT_NE(core->drains().at(kLostMac).ended_why.find("deadline"), std::string::npos);
}

TEST_F(RestoreDrainsTest, WhatAnotherCmsMovesIsWaitedForNotFoughtOver) {
  add_target(kFirst);
  tick();
  scanned(std::nullopt, std::vector<ClaimRecord>{});
  drain();
  tick();
  const ClaimRecord first = first_record();
  const ClaimRecord others = cms::core::claim(stamp(kOther), first, wire::ClaimReason::kRequest, true);
  scanned(kLostMac, std::vector<ClaimRecord>{others});
  head_is(others);
  EXPECT_EQ(stage(), Stage::kWatching);
  const ClaimRecord act = cms::core::act(stamp(kOther), others, kFirst, claim_blob_of(found_of(others).name));
  tick(kWatchOthers);
  head_is(cms::core::done(stamp(kOther), act, 3));
  EXPECT_EQ(stage(), Stage::kDone);
  EXPECT_EQ(core->progress_of_drain(kLostMac).done, 1U);
}

TEST_F(RestoreDrainsTest, AnEcuThatWasLostOnceIsDrainedNotRestoredFrom) {
  add_target(kFirst);
  tick();
  scanned(std::nullopt, std::vector<ClaimRecord>{});
  fail(kLostMac);
  scanned(kLostMac, std::vector<ClaimRecord>{});
  candidates.erase(candidates.begin());  // It has come back, and its session is not known here yet.
  drain();
  tick();
  const ClaimRecord head = first_record();
  scanned(kLostMac, std::vector<ClaimRecord>{head});
  EXPECT_EQ(core->restores().at(kLineage).reason, wire::ClaimReason::kRequest);
  EXPECT_EQ(core->progress_of(kLostMac).total, 0U);
}

TEST_F(RestoreDrainsTest, OneThatEndsBeforeTheLogsWereReadSaysSo) {
  tick();
  scanned(std::nullopt, std::vector<ClaimRecord>{});
  drain(now + seconds(1));
  tick();
  tick(seconds(2));
  EXPECT_FALSE(core->progress_of_drain(kLostMac).scanned);
  EXPECT_FALSE(core->drains().at(kLostMac).ended_why.empty());
  EXPECT_NE(core->drains().at(kLostMac).trouble.find("were not read"), std::string::npos);
}

TEST_F(RestoreDrainsTest, AScanThatFailsIsAskedForAgain) {
  tick();
  scanned(std::nullopt, std::vector<ClaimRecord>{});
  drain();
  tick();
  scanned(kLostMac, make_error(Code::kUnavailable, "the NAS does not answer"));
  EXPECT_FALSE(core->drains().at(kLostMac).trouble.empty());
  tick(kRestoreRetry);
  EXPECT_EQ(only<ScanLogs>().ecu_macs, std::set<EcuMac>{kLostMac});
  scanned(kLostMac, std::vector<ClaimRecord>{});
  EXPECT_TRUE(core->drains().at(kLostMac).trouble.empty());
  EXPECT_TRUE(core->progress_of_drain(kLostMac).scanned);
}

}  // namespace
}  // namespace cms::core
