// What StoreWorkers says of a blob that is durable: at once, when the claim that may have overlooked it has ended, or
// not yet, when its log cannot be read. Transfers come from a core with an honest publisher.
#include "cms/daemon/store_workers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "cms/core/core_driver_test.h"
#include "storage/contract/samples.h"
#include "storage/fake/fake_claims.h"
#include "storage/fake/fake_index.h"
#include "storage/fake/fake_store.h"

namespace cms::daemon {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using wire::ClaimRecord;

constexpr ProgramId kProgram = 7;
constexpr ProgramId kOtherProgram = 8;
constexpr std::size_t kSmallBytes = 100;
constexpr std::size_t kLargeBytes = core::kSmallBlobBytesMax + 1;
const SessionId kTarget{EcuMac{0x020000000011}, 65536};

class Storing {
 public:
  Storing() {
    EXPECT_TRUE(store.open_store().ok());
    EXPECT_TRUE(claims_.open_store().ok());
    EXPECT_TRUE(others_claims_.open_store().ok());
    client = cms.open();
  }
  ~Storing() { workers_.stop(); }
  Storing(const Storing&) = delete;
  Storing& operator=(const Storing&) = delete;

  // Announces a checkpoint and hands its bytes over; its seq.
  Seq publish(ProgramId id, std::size_t size_bytes = kSmallBytes) {
    cms.announce(client, core::notification_of(id, ++last_seq_, size_bytes));
    carry_out();
    hand_over(id);
    return last_seq_;
  }
  // As the one pull of that program asks for them.
  void hand_over(ProgramId id) {
    const core::TransferId transfer = cms.transfer_of(client.program(id));
    ASSERT_NE(transfer, 0U);
    wire::Chunk chunk = cms.next_chunk(transfer);
    ASSERT_TRUE(chunk.last) << "these tests publish blobs of one chunk";
    chunk.digest = digest_of(bytes_.data(), chunk.size_bytes);
    chunk.blob_digest = blob_digest_of({chunk.digest});
    cms.feed([&](core::Effects& out) {
      cms.core.on_chunk(cms.now, cms.core.transfers().at(transfer).link, chunk,
                        core::ChunkView{bytes_.data(), chunk.size_bytes, nullptr}, out);
    });
    carry_out();
  }
  // What failed is tried again by and by.
  void await_pull(ProgramId id) {
    for (int i = 0; i < 60 && cms.transfer_of(client.program(id)) == 0; ++i) {
      cms.heartbeat(client, last_seq_);
      carry_out();
      cms.pass(core::kRetryMin);
      carry_out();
    }
  }
  // Turns the loop until `holds`. False: not within a minute.
  bool turn_until(const std::function<bool()>& holds) {
    const Instant deadline = BootClock::now() + std::chrono::minutes(1);
    std::vector<Completion> completions;
    while (!holds()) {
      if (BootClock::now() >= deadline) return false;
      pollfd item{outbox_.waker().fd(), POLLIN, 0};
      // What the group thread has come to without a word is asked for, not told.
      if (::poll(&item, 1, 5) == 1) outbox_.waker().drain();
      outbox_.take(completions);
      for (Completion& completion : completions) {
        cms.feed([&](core::Effects& out) { completion(cms.now, out); });
        carry_out();
      }
    }
    return true;
  }
  bool turn_until_told(std::size_t count) {
    return turn_until([&] { return told.size() >= count; });
  }
  bool was_told(const std::string& line) const {
    return std::find(told.begin(), told.end(), line) != told.end();
  }
  // A blob of the lineage was judged by that record or a later one.
  bool turn_until_seen(const ClaimRecord& record) {
    return turn_until([&] {
      const auto head = gate.known_head(record.lineage);
      return head && head->slot >= record.slot;
    });
  }

  // ---- by another CMS
  ClaimRecord append(const ClaimRecord& record) {
    const auto end = others_claims_.append(storage::log_of(record.lineage), record.slot, text_of(record));
    EXPECT_TRUE(end.ok() && end->end == storage::Appended::End::kWon);
    return record;
  }
  ClaimRecord claim(ProgramId id) {
    const auto head = gate.known_head(lineage_of(client.program(id)));
    EXPECT_TRUE(head.has_value());
    return append(core::claim(stamp(), *head, wire::ClaimReason::kVouched, true));
  }
  core::Stamp stamp() { return core::Stamp{core::Writer{"b", 1}, ++uid_, 1}; }

  core::CoreDriver cms;
  core::Client client;
  storage::FakeStore store;
  storage::FakeIndex index;
  storage::FakeClaimNas nas;
  std::vector<std::string> told;  // "STORED 7/1", in order.

 private:
  void carry_out() {
    const core::Effects effects = cms.effects;
    for (const core::Effect& effect : effects) {
      if (const auto* start = std::get_if<core::StartStore>(&effect)) {
        workers_.start(*start);
      } else if (const auto* append = std::get_if<core::AppendStore>(&effect)) {
        workers_.append(*append);
      } else if (const auto* finish = std::get_if<core::FinishStore>(&effect)) {
        workers_.finish(*finish);
      } else if (const auto* drop = std::get_if<core::DropStore>(&effect)) {
        workers_.drop(*drop);
      } else if (const auto* small = std::get_if<core::StoreSmall>(&effect)) {
        workers_.put_small(*small);
      }
    }
    for (const wire::Receipt& receipt : cms.sent<wire::Receipt>(client)) {
      told.push_back(std::string(wire::to_string(receipt.level)) + " " + std::to_string(receipt.program_id) +
                     "/" + std::to_string(receipt.seq));
    }
  }

  const storage::testing::Data bytes_ = storage::testing::make_data(1, kLargeBytes);
  Seq last_seq_ = 0;
  std::uint64_t uid_ = 100;
  storage::FakeClaims claims_{nas, "a", 1};
  storage::FakeClaims others_claims_{nas, "b", 1};
  Outbox outbox_;

 public:
  LineageGate gate{claims_, index, core::Writer{"a", 1}};

 private:
  StoreWorkers workers_{{}, cms.core, store, index, gate, outbox_, [](const Lineage&) {}};
};

// ---- under an open claim

TEST(StoreWorkersTest, WhatLiesUnderAnOpenClaimIsStoredWhenThatHasEndedWithoutANewOwner) {
  for (const std::size_t size_bytes : {kSmallBytes, kLargeBytes}) {
    Storing s;
    s.publish(kProgram);
    ASSERT_TRUE(s.turn_until_told(1));
    const ClaimRecord claimed = s.claim(kProgram);
    s.publish(kProgram, size_bytes);
    ASSERT_TRUE(s.turn_until_seen(claimed));
    EXPECT_THAT(s.told, ElementsAre("STORED 7/1"));
    s.append(core::release(s.stamp(), claimed, false, "no target"));
    ASSERT_TRUE(s.turn_until_told(2));
    EXPECT_THAT(s.told, ElementsAre("STORED 7/1", "STORED 7/2"));
    EXPECT_EQ(s.store.blob_count(), 2U);
  }
}

TEST(StoreWorkersTest, WhatARestoreHasOverlookedIsRemovedAndItsPublisherFenced) {
  Storing s;
  s.publish(kProgram);
  ASSERT_TRUE(s.turn_until_told(1));
  const auto base = s.index.newest(s.client.program(kProgram));
  ASSERT_TRUE(base.ok() && *base);
  const ClaimRecord claimed = s.claim(kProgram);
  s.publish(kProgram);
  ASSERT_TRUE(s.turn_until_seen(claimed));
  const ClaimRecord acted =
      s.append(core::act(s.stamp(), claimed, kTarget, core::claim_blob_of((*base)->name)));
  ASSERT_TRUE(s.turn_until_seen(acted));
  EXPECT_THAT(s.told, ElementsAre("STORED 7/1")) << "under ACT it is not decided either";
  s.append(core::done(s.stamp(), acted, 1));
  ASSERT_TRUE(s.turn_until_told(2));
  EXPECT_THAT(s.told, ElementsAre("STORED 7/1", "FENCED 7/2"));
  EXPECT_EQ(s.store.blob_count(), 1U);
  EXPECT_TRUE(*s.store.contains((*base)->name));
  EXPECT_EQ(*s.index.row_count(), 1U);
}

TEST(StoreWorkersTest, WhatWaitsForAClaimIsJudgedAlsoWhileNewOnesComeAllTheTime) {
  Storing s;
  s.publish(kProgram);
  ASSERT_TRUE(s.turn_until_told(1));
  const ClaimRecord claimed = s.claim(kProgram);
  s.publish(kProgram);
  ASSERT_TRUE(s.turn_until_seen(claimed));
  s.append(core::release(s.stamp(), claimed, false, "no target"));
  s.publish(kOtherProgram);
  EXPECT_TRUE(s.turn_until([&] {
    if (s.was_told("STORED 7/2")) return true;
    if (s.cms.transfer_of(s.client.program(kOtherProgram)) == 0) s.publish(kOtherProgram);
    return false;
  }));
}

TEST(StoreWorkersTest, NewOnesAreStoredWhileOthersWaitForAClaim) {
  Storing s;
  s.publish(kProgram);
  ASSERT_TRUE(s.turn_until_told(1));
  ClaimRecord claimed = s.claim(kProgram);
  s.publish(kProgram);
  for (std::size_t i = 0; i < 3; ++i) {
    ASSERT_TRUE(s.turn_until_seen(claimed));  // The first time by itself, then again and again.
    s.publish(kOtherProgram);
    ASSERT_TRUE(s.turn_until_told(2 + i));
    claimed = s.append(core::claim(s.stamp(), claimed, wire::ClaimReason::kVouched, true));
  }
  EXPECT_THAT(s.told, ElementsAre("STORED 7/1", "STORED 8/3", "STORED 8/4", "STORED 8/5"));
}

// ---- with a log that cannot be used

TEST(StoreWorkersTest, ALogThatCannotBeUsedLosesNoCheckpoint) {
  Storing s;
  s.publish(kProgram);
  ASSERT_TRUE(s.turn_until_told(1));
  const storage::LogId log = storage::log_of(lineage_of(s.client.program(kProgram)));
  s.nas.put_slot_file(log, 2, "no record");
  s.publish(kProgram);
  // More often than a blob is fetched whose own bytes are wrong.
  for (std::uint64_t i = 1; i <= core::kDataAttemptsMax + 1; ++i) {
    ASSERT_TRUE(s.turn_until([&] { return s.cms.core.counters().store_troubles == i; }));
    EXPECT_THAT(s.told, ElementsAre("STORED 7/1"));
    s.await_pull(kProgram);
    s.hand_over(kProgram);
  }
  EXPECT_THAT(s.cms.core.failures(), IsEmpty());
  ASSERT_TRUE(s.turn_until([&] { return s.cms.transfer_of(s.client.program(kProgram)) == 0; }));
  EXPECT_EQ(s.store.blob_count(), 2U) << "of the one that is fetched again and again the store keeps one";
  s.publish(kOtherProgram);
  ASSERT_TRUE(s.turn_until_told(2));
  EXPECT_EQ(s.told.back(), "STORED 8/3") << "it holds up nobody else";
  s.nas.remove_slot_file(log, 2);
  s.await_pull(kProgram);
  s.hand_over(kProgram);
  ASSERT_TRUE(s.turn_until_told(3));
  EXPECT_EQ(s.told.back(), "STORED 7/2");
}

}  // namespace
}  // namespace cms::daemon
