// RestoreTarget: the transfer, the limits and the ends that the orders of restore_target_orders_test.cc do not reach.
#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "broker/core/restore_target_driver_test.h"

namespace cms::broker {
namespace {

// ---- the transfer

TEST(RestoreTargetTest, PullsInWindowsVerifiesAndHandsTheBytesOnInOrder) {
  Target target;
  const std::uint64_t size_bytes = 2 * kRestoreWindowBytes;
  const std::string piece(wire::kChunkSizeBytesMin, 'p');
  target.prepare(prepare_of(claim_of(2), size_bytes));
  EXPECT_EQ(target.told(), "pulling");
  ASSERT_EQ(target.all<OpenBulkLink>().size(), 1U);
  EXPECT_TRUE(target.all<OpenBulkLink>()[0].link == kLink);
  const auto fetch = std::get<wire::Fetch>(target.all<SendBulk>().at(0).message);
  EXPECT_EQ(fetch.limit_bytes, kRestoreWindowBytes);
  EXPECT_EQ(to_string(fetch.checkpoint), "02:00:00:00:00:09/7@65536.3");

  std::vector<Digest> digests;
  std::uint64_t limit_bytes = fetch.limit_bytes;
  for (std::uint64_t offset = 0; offset < size_bytes; offset += piece.size()) {
    ASSERT_LE(offset + piece.size(), limit_bytes) << "no credit came in time";
    wire::Chunk chunk = Target::chunk_of(1, piece);
    digests.push_back(chunk.digest);
    chunk.offset_bytes = offset;
    chunk.blob_size_bytes = size_bytes;
    chunk.last = offset + piece.size() == size_bytes;
    chunk.blob_digest = chunk.last ? blob_digest_of(digests) : Digest{};
    target.bulk(chunk, piece);
    ASSERT_EQ(target.all<TakeBytes>().size(), 1U);
    EXPECT_EQ(target.all<TakeBytes>()[0].offset_bytes, offset);
    for (const SendBulk& sent : target.all<SendBulk>()) {
      limit_bytes = std::get<wire::Credit>(sent.message).limit_bytes;
      EXPECT_LE(limit_bytes - offset, kRestoreWindowBytes + piece.size());
    }
  }
  EXPECT_EQ(target.all<PrepareProgram>().size(), 1U);
  EXPECT_EQ(target.all<CloseBulkLink>().size(), 1U);
}

TEST(RestoreTargetTest, ATransferThatFailsMakesTheClaimRefusedForThatReason) {
  const std::string bytes(100, 'b');
  const auto refusal_after = [&](const std::function<void(Target&)>& fail) {
    Target target;
    target.prepare(prepare_of(claim_of(2), bytes.size()));
    fail(target);
    EXPECT_EQ(target.all<DiscardRestore>().size(), 1U);
    EXPECT_EQ(target.all<CloseBulkLink>().size(), 1U);
    EXPECT_TRUE(target.all<PrepareProgram>().empty());
    const std::string told = target.told();
    target.prepare(prepare_of(claim_of(2), bytes.size()));
    EXPECT_EQ(target.told(), told) << "a refusal is final";
    EXPECT_EQ(target.effects.size(), 1U);
    return told;
  };
  EXPECT_EQ(refusal_after([](Target& target) {
              target.bulk(wire::TransferError{1, Code::kUnavailable, "store away"});
            }),
            "refused unavailable");
  EXPECT_EQ(refusal_after([&](Target& target) {
              std::string damaged = bytes;
              damaged[50] = 'x';
              target.bulk(Target::chunk_of(1, bytes), damaged);
            }),
            "refused corrupt");
  EXPECT_EQ(refusal_after([&](Target& target) {
              wire::Chunk chunk = Target::chunk_of(1, bytes);
              chunk.blob_digest = Digest{1, 1};
              target.bulk(chunk, bytes);
            }),
            "refused corrupt");
  EXPECT_EQ(refusal_after([&](Target& target) {
              wire::Chunk chunk = Target::chunk_of(1, bytes);
              chunk.version.seq = 4;
              target.bulk(chunk, bytes);
            }),
            "refused protocol violation");
  EXPECT_EQ(refusal_after([](Target& target) {
              target.call([&](RestoreEffects& out) {
                target.core.on_sink_failed(target.now, 1, make_error(Code::kNoSpace, "full"), out);
              });
            }),
            "refused no space");
  EXPECT_EQ(refusal_after([](Target& target) {
              target.pass(kRestoreStallMax - Duration(1));
              EXPECT_TRUE(target.effects.empty());
              EXPECT_EQ(target.core.next_deadline(), target.now + Duration(1));
              target.pass(Duration(1));
              EXPECT_TRUE(std::holds_alternative<wire::Cancel>(target.all<SendBulk>().at(0).message));
            }),
            "refused timeout");
}

TEST(RestoreTargetTest, ForeignLinksAndTransfersAreNotHeard) {
  Target target;
  target.prepare(prepare_of(claim_of(2), 5));
  target.bulk(Target::chunk_of(1, "bytes"), "bytes", BulkLink{1, kLink.port});
  EXPECT_TRUE(target.effects.empty());
  target.bulk(Target::chunk_of(2, "bytes"), "bytes");
  EXPECT_TRUE(target.effects.empty());
  target.blob(1, "bytes");
  EXPECT_EQ(target.all<PrepareProgram>().size(), 1U);
}

// ---- claims

TEST(RestoreTargetTest, ANewerClaimDropsWhatWasPreparedAndTellsThoseWhoAsked) {
  Target target;
  const RestoreId first = target.make_prepared(claim_of(2));
  target.prepare(prepare_of(claim_of(4)), 1);
  ASSERT_EQ(target.all<DiscardRestore>().size(), 1U);
  EXPECT_EQ(target.all<DiscardRestore>()[0].id, first);
  EXPECT_EQ(target.told(0), "refused fenced");
  EXPECT_EQ(target.told(1), "pulling");
  target.go(go_of(claim_of(2)));
  EXPECT_EQ(target.told(), "refused fenced");
  EXPECT_EQ(target.reports().at(0).act_uid, go_of(claim_of(2)).act_uid);
}

TEST(RestoreTargetTest, ACommandOfTheSameSlotAndAnotherUidIsRefused) {
  Target target;
  target.make_prepared(claim_of(2));
  wire::ClaimRef other = claim_of(2);
  other.uid = 9;
  target.go(go_of(other));
  EXPECT_EQ(target.told(), "refused fenced");
  EXPECT_TRUE(target.all<RunProgram>().empty());
  target.go(go_of(claim_of(2)));
  EXPECT_EQ(target.all<RunProgram>().size(), 1U);
}

TEST(RestoreTargetTest, EveryCmsThatSaysGoIsAnsweredWithTheSameProgram) {
  Target target;
  const RestoreId id = target.make_prepared(claim_of(2));
  for (const CmsIndex cms : {0U, 1U, 2U}) {
    target.go(go_of(claim_of(2)), cms);
    EXPECT_EQ(target.all<RunProgram>().size(), cms == 0 ? 1U : 0U);
    EXPECT_EQ(target.told(cms), "prepared");
  }
  EXPECT_EQ(target.core.going_count(), 1U);
  target.running(id, ProgramId{40});
  for (const CmsIndex cms : {0U, 1U, 2U}) {
    ASSERT_EQ(target.reports(cms).size(), 1U);
    EXPECT_EQ(target.reports(cms)[0].program_id, 40U);
    EXPECT_EQ(target.reports(cms)[0].act_uid, go_of(claim_of(2)).act_uid);
  }
  EXPECT_TRUE(target.reports(3).empty());
  EXPECT_EQ(target.core.going_count(), 0U);
}

TEST(RestoreTargetTest, AnotherActOfAClaimIsRefusedByItsUidAlone) {
  Target target;
  const RestoreId id = target.make_prepared(claim_of(2));
  target.go(go_of(claim_of(2)));
  target.running(id, ProgramId{40});
  target.go(go_of(claim_of(2), 77));
  EXPECT_EQ(target.told(), "refused fenced");
  EXPECT_EQ(target.reports().at(0).act_uid, 77U);
  target.go(go_of(claim_of(2)));
  EXPECT_EQ(target.told(), "running");
}

TEST(RestoreTargetTest, WhatRunsIsReplacedOnlyOnceSomebodyElseHasOwnedIt) {
  Target target;
  const RestoreId id = target.make_prepared(claim_of(2));  // ACT in 3, its epoch is 4.
  target.go(go_of(claim_of(2)));
  target.running(id, ProgramId{40});
  target.prepare(prepare_of(claim_of(5), 0, 4));
  EXPECT_EQ(target.told(), "refused already exists");
  target.prepare(prepare_of(claim_of(2)));
  EXPECT_EQ(target.told(), "running");
  target.prepare(prepare_of(claim_of(5), 0, 9));
  EXPECT_EQ(target.told(), "refused fenced") << "that claim was refused for good";
  target.prepare(prepare_of(claim_of(10), 0, 9));
  EXPECT_EQ(target.told(), "pulling");
  ASSERT_EQ(target.all<FenceProgram>().size(), 1U);
  EXPECT_EQ(target.all<FenceProgram>()[0].program_id, 40U);
}

TEST(RestoreTargetTest, WhatWasToldToRunAndLostItsClaimIsFencedWhenItRuns) {
  Target target;
  const RestoreId id = target.make_prepared(claim_of(2));
  target.go(go_of(claim_of(2)));
  target.prepare(prepare_of(claim_of(10), 0, 9));
  EXPECT_EQ(target.told(), "pulling");
  EXPECT_EQ(target.core.going_count(), 0U);
  target.running(id, ProgramId{40});
  ASSERT_EQ(target.all<FenceProgram>().size(), 1U);
  EXPECT_TRUE(target.reports().empty());
}

TEST(RestoreTargetTest, AProgramThatEndedMayComeBack) {
  Target target;
  const RestoreId id = target.make_prepared(claim_of(2));
  target.go(go_of(claim_of(2)));
  target.running(id, ProgramId{40});
  target.core.on_program_ended(40);
  target.go(go_of(claim_of(2)));
  EXPECT_EQ(target.told(), "running") << "it did run";
  target.prepare(prepare_of(claim_of(5)));
  EXPECT_EQ(target.told(), "pulling");
  EXPECT_TRUE(target.all<FenceProgram>().empty());
}

TEST(RestoreTargetTest, TheEndOfTheSessionRefusesWhatDoesNotRun) {
  Target target;
  const RestoreId running = target.make_prepared(claim_of(2, Lineage{1, 1}));
  target.go(go_of(claim_of(2, Lineage{1, 1})));
  target.running(running, ProgramId{40});
  const RestoreId prepared = target.make_prepared(claim_of(2, Lineage{2, 2}));
  target.prepare(prepare_of(claim_of(2, Lineage{3, 3}), 5));
  target.call([&](RestoreEffects& out) { target.core.end_session("over", out); });
  EXPECT_EQ(target.reports().size(), 2U);
  ASSERT_EQ(target.all<DiscardRestore>().size(), 2U);
  EXPECT_EQ(target.all<DiscardRestore>()[0].id, prepared);
  EXPECT_EQ(target.core.open_count(), 0U);
  target.go(go_of(claim_of(2, Lineage{2, 2})));
  EXPECT_EQ(target.told(), "refused cancelled");
  target.go(go_of(claim_of(2, Lineage{1, 1})));
  EXPECT_EQ(target.told(), "running");
  target.prepare(prepare_of(claim_of(3, Lineage{2, 2})));
  EXPECT_EQ(target.told(), "pulling") << "a new claim of the new session";
  target.call([&](RestoreEffects& out) { target.core.stop(out); });
  target.prepare(prepare_of(claim_of(4, Lineage{2, 2})));
  EXPECT_EQ(target.told(), "refused cancelled");
}

// ---- what nobody asks for any more

TEST(RestoreTargetTest, WhatIsPreparedAndAskedForByNobodyIsRefusedForGood) {
  Target target;
  target.prepare(prepare_of(claim_of(2)));
  const RestoreId id = target.all<ReceiveBlob>().at(0).id;
  target.blob(id);
  target.pass(std::chrono::hours(1));
  EXPECT_TRUE(target.effects.empty()) << "its RTCR works on it";
  target.prepared(id);
  EXPECT_EQ(target.core.next_deadline(), target.now + kRestoreForgottenAfter);
  target.pass(kRestoreForgottenAfter - Duration(1));
  EXPECT_TRUE(target.effects.empty());
  target.pass(Duration(1));
  EXPECT_EQ(target.told(), "refused timeout");
  ASSERT_EQ(target.all<DiscardRestore>().size(), 1U);
  EXPECT_EQ(target.all<DiscardRestore>()[0].id, id);
  EXPECT_EQ(target.core.open_count(), 0U);
  EXPECT_EQ(target.core.next_deadline(), kNever);
  target.prepare(prepare_of(claim_of(2)));
  EXPECT_EQ(target.told(), "refused timeout") << "who claimed it was slow, and asks again";
  target.go(go_of(claim_of(2)));
  EXPECT_EQ(target.told(), "refused timeout");
  EXPECT_TRUE(target.all<RunProgram>().empty());
  target.prepare(prepare_of(claim_of(5)));
  EXPECT_EQ(target.told(), "pulling") << "a new claim is another matter";
}

TEST(RestoreTargetTest, WhatIsAskedForAgainStaysPrepared) {
  Target target;
  target.make_prepared(claim_of(2));
  for (int i = 0; i < 3; ++i) {
    target.pass(kRestoreForgottenAfter - Duration(1));
    EXPECT_TRUE(target.effects.empty());
    target.prepare(prepare_of(claim_of(2)));
    EXPECT_EQ(target.told(), "prepared");
  }
  target.go(go_of(claim_of(2)));
  EXPECT_EQ(target.all<RunProgram>().size(), 1U);
}

TEST(RestoreTargetTest, WhatWasToldToRunIsNotForgotten) {
  Target target;
  const RestoreId id = target.make_prepared(claim_of(2));
  target.go(go_of(claim_of(2)));
  target.pass(2 * kRestoreForgottenAfter);
  EXPECT_TRUE(target.effects.empty()) << "its RTCR has not answered yet";
  target.running(id, ProgramId{40});
  target.pass(2 * kRestoreForgottenAfter);
  EXPECT_TRUE(target.effects.empty());
  target.go(go_of(claim_of(2)));
  EXPECT_EQ(target.told(), "running");
}

// ---- limits

TEST(RestoreTargetTest, TransfersBeyondTheLimitWaitForTheirTurn) {
  Target target;
  for (std::uint64_t i = 1; i <= kRestoreTransferCountMax + 2; ++i) {
    target.prepare(prepare_of(claim_of(2, Lineage{i, i}), 5));
    EXPECT_EQ(target.told(), "pulling");
    EXPECT_EQ(target.all<ReceiveBlob>().size(), i <= kRestoreTransferCountMax ? 1U : 0U) << i;
    EXPECT_EQ(target.all<OpenBulkLink>().size(), i == 1 ? 1U : 0U);
  }
  target.discard(claim_of(2, Lineage{9, 9}));  // It was waiting.
  EXPECT_TRUE(target.all<DiscardRestore>().empty());
  target.blob(1, "bytes");
  ASSERT_EQ(target.all<ReceiveBlob>().size(), 1U);
  EXPECT_EQ(target.all<ReceiveBlob>()[0].id, kRestoreTransferCountMax + 2);
  EXPECT_TRUE(target.all<CloseBulkLink>().empty());
}

TEST(RestoreTargetTest, WhateverEndsATransferMakesRoomForTheNext) {
  const auto started_by = [](const std::function<void(Target&, const wire::ClaimRef&)>& end) {
    Target target;
    for (std::uint64_t i = 1; i <= kRestoreTransferCountMax + 1; ++i)
      target.prepare(prepare_of(claim_of(2, Lineage{i, i}), 5));
    end(target, claim_of(3, Lineage{1, 1}));
    return target.all<ReceiveBlob>().size();
  };
  EXPECT_EQ(started_by([](Target& target, const wire::ClaimRef&) {
              target.discard(claim_of(2, Lineage{1, 1}));
            }),
            1U);
  EXPECT_EQ(started_by([](Target& target, const wire::ClaimRef& newer) { target.discard(newer); }), 1U);
  EXPECT_EQ(started_by([](Target& target, const wire::ClaimRef& newer) { target.go(go_of(newer)); }), 1U);
  EXPECT_EQ(
      started_by([](Target& target, const wire::ClaimRef& newer) { target.prepare(prepare_of(newer, 5)); }),
      1U);
}

TEST(RestoreTargetTest, WindowsTogetherAreBounded) {
  Target target;
  const std::uint64_t count_max = kRestoreWindowsBytesMax / kRestoreWindowBytes;
  for (std::uint64_t i = 1; i <= count_max + 1; ++i) {
    target.prepare(prepare_of(claim_of(2, Lineage{i, i}), kRestoreWindowBytes));
    EXPECT_EQ(target.all<ReceiveBlob>().size(), i <= count_max ? 1U : 0U) << i;
  }
}

TEST(RestoreTargetTest, ReceivedBytesAreBoundedAndGivenBack) {
  Target target(RestoreTargetConfig{10});
  target.prepare(prepare_of(claim_of(2, Lineage{1, 1}), 11));
  EXPECT_EQ(target.told(), "refused limit reached");
  target.prepare(prepare_of(claim_of(2, Lineage{2, 2}), 6));
  EXPECT_EQ(target.told(), "pulling");
  target.prepare(prepare_of(claim_of(2, Lineage{3, 3}), 5));
  EXPECT_EQ(target.told(), "refused limit reached");
  target.discard(claim_of(2, Lineage{2, 2}));
  target.prepare(prepare_of(claim_of(3, Lineage{3, 3}), 5));
  EXPECT_EQ(target.told(), "pulling");
  const RestoreId id = target.all<ReceiveBlob>().at(0).id;
  target.blob(id, "bytes");
  target.discard(claim_of(3, Lineage{3, 3}));
  EXPECT_TRUE(target.all<DiscardRestore>().empty()) << "the RTCR works on it";
  target.prepare(prepare_of(claim_of(3, Lineage{4, 4}), 6));
  EXPECT_EQ(target.told(), "refused limit reached");
  target.prepared(id);
  EXPECT_EQ(target.all<DiscardRestore>().size(), 1U);
  target.prepare(prepare_of(claim_of(4, Lineage{4, 4}), 10));
  EXPECT_EQ(target.told(), "pulling");
}

TEST(RestoreTargetTest, OpenOnesAreBounded) {
  Target target;
  for (std::uint64_t i = 1; i <= kRestoreOpenCountMax; ++i)
    target.prepare(prepare_of(claim_of(2, Lineage{i, i}), 5));
  EXPECT_EQ(target.told(), "pulling");
  target.prepare(prepare_of(claim_of(2, Lineage{0, 1}), 5));
  EXPECT_EQ(target.told(), "refused limit reached");
  EXPECT_EQ(target.core.open_count(), kRestoreOpenCountMax);
}

TEST(RestoreTargetTest, ForgetsTheOldestEndedOneAndNeverARunningOne) {
  Target target;
  const RestoreId id = target.make_prepared(claim_of(2, Lineage{9, 0}));
  target.go(go_of(claim_of(2, Lineage{9, 0})));
  target.running(id, ProgramId{40});
  for (std::uint64_t i = 1; i <= kRestoreEndedCountMax + 1; ++i) target.discard(claim_of(2, Lineage{i, i}));
  EXPECT_EQ(target.core.known_count(), kRestoreEndedCountMax + 1);
  target.go(go_of(claim_of(2, Lineage{9, 0})));
  EXPECT_EQ(target.told(), "running");
  target.go(go_of(claim_of(2, Lineage{2, 2})));
  EXPECT_EQ(target.told(), "refused cancelled") << "still known";
}

}  // namespace
}  // namespace cms::broker
