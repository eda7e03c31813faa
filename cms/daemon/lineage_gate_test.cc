#include "cms/daemon/lineage_gate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/digest.h"
#include "storage/contract/samples.h"
#include "storage/fake/fake_claims.h"
#include "storage/fake/fake_index.h"
#include "storage/fake/fake_store.h"

namespace cms::daemon {
namespace {

using core::StoredWord;
using storage::BlobName;
using storage::FakeClaimCall;
using storage::FakeClaimFault;
using storage::testing::make_name;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using wire::ClaimKind;
using wire::ClaimRecord;

const SessionId kTarget{EcuMac{0x020000000011}, 1};

class Gate {
 public:
  Gate() { EXPECT_TRUE(claims.open_store().ok()); }

  Result<StoredWord> word(const BlobName& name) {
    auto words = gate.words({LineageGate::Asked{name, wire::Policies{}}});
    return words.at(0);
  }
  // A row as StoreWorkers puts it, after its log was begun.
  void stored(const BlobName& name) {
    const auto said = word(name);
    ASSERT_TRUE(said.ok()) << said.error().message();
    ASSERT_EQ(*said, StoredWord::kSay);
    storage::IndexRow row;
    row.name = name;
    ASSERT_TRUE(index.put({row}).ok());
  }
  ClaimRecord head(const Lineage& lineage) {
    LineageGate other(claims, index, core::Writer{"c", 1});  // Remembers nothing.
    const auto head = other.read_head(lineage);
    EXPECT_TRUE(head.ok() && *head);
    return head.ok() && *head ? **head : ClaimRecord{};
  }
  // By the other CMS.
  void append(const ClaimRecord& record) {
    const auto end = claims.append(storage::log_of(record.lineage), record.slot, text_of(record));
    ASSERT_TRUE(end.ok() && end->end == storage::Appended::End::kWon);
  }
  void claim(const Lineage& lineage) {
    append(core::claim(stamp(), head(lineage), wire::ClaimReason::kVouched, true));
  }
  // The claim is made on `name`, and the program runs at the target from now on.
  void move(const BlobName& name) {
    claim(name.lineage);
    append(core::act(stamp(), head(name.lineage), kTarget, core::claim_blob_of(name)));
    append(core::done(stamp(), head(name.lineage), 1));
  }

  storage::FakeClaimNas nas;
  storage::FakeClaims claims{nas, "a", 1};
  storage::FakeIndex index;
  LineageGate gate{claims, index, core::Writer{"a", 1}};

 private:
  core::Stamp stamp() { return core::Stamp{core::Writer{"b", 1}, ++uid_, 1}; }
  std::uint64_t uid_ = 100;
};

BlobName in_lineage_of_its_own(std::uint64_t program_id, std::uint64_t seq) {
  BlobName name = make_name(program_id, seq, 10);
  name.lineage = Lineage{0xab, program_id};
  return name;
}

TEST(LineageGateTest, BeginsTheLogBeforeStoredIsSaid) {
  Gate g;
  const BlobName name = make_name(7, 1, 10);
  g.stored(name);
  EXPECT_EQ(g.head(name.lineage).kind, ClaimKind::kGenesis);
  EXPECT_TRUE(g.head(name.lineage).owner.program == name.checkpoint.program);
}

TEST(LineageGateTest, WhatIsUnderAnOpenClaimWaitsAndWhatHasMovedIsFenced) {
  Gate g;
  const BlobName first = make_name(7, 1, 10);
  g.stored(first);
  g.claim(first.lineage);
  const BlobName second = make_name(7, 2, 10);
  EXPECT_EQ(*g.word(second), StoredWord::kWait);
  g.append(core::act(core::Stamp{core::Writer{"b", 1}, 1, 1}, g.head(first.lineage), kTarget,
                     core::claim_blob_of(first)));
  g.append(core::done(core::Stamp{core::Writer{"b", 1}, 2, 1}, g.head(first.lineage), 1));
  EXPECT_EQ(*g.word(second), StoredWord::kFenced);
  EXPECT_EQ(*g.word(first), StoredWord::kSay) << "it lives on in what was restored from it";
}

TEST(LineageGateTest, WithdrawingEndsInItsLogALineageThatNoNextLifeBeginsAgain) {
  Gate g;
  const BlobName name = in_lineage_of_its_own(7, 1);
  g.stored(name);
  ASSERT_TRUE(g.gate.end_lives(name.checkpoint.program).ok());
  EXPECT_EQ(g.head(name.lineage).kind, ClaimKind::kRetire);
  EXPECT_TRUE(g.gate.end_lives(name.checkpoint.program).ok()) << "again is as good";
  EXPECT_EQ(g.head(name.lineage).slot, 2U);
}

TEST(LineageGateTest, TheNextLifeOfAKeyWithoutALineageOfItsOwnIsNotFenced) {
  Gate g;
  const BlobName name = make_name(7, 1, 10);
  ASSERT_TRUE(name.lineage == lineage_of(name.checkpoint.program));
  g.stored(name);
  ASSERT_TRUE(g.gate.end_lives(name.checkpoint.program).ok());
  EXPECT_EQ(g.head(name.lineage).kind, ClaimKind::kGenesis);
  g.stored(make_name(7, 2, 10));
}

TEST(LineageGateTest, NothingIsWithdrawnWhileAClaimIsOpen) {
  for (const BlobName& name : {make_name(7, 1, 10), in_lineage_of_its_own(7, 1)}) {
    Gate g;
    g.stored(name);
    g.claim(name.lineage);
    const Status ended = g.gate.end_lives(name.checkpoint.program);
    EXPECT_EQ(ended.code(), Code::kUnavailable);
    EXPECT_THAT(ended.error().context, HasSubstr("a claim of 02:00:00:00:00:01/7 is open"));
    EXPECT_EQ(g.head(name.lineage).kind, ClaimKind::kClaim);
  }
}

TEST(LineageGateTest, AProgramThatHasMovedIsNotEndedByItsFormerKey) {
  Gate g;
  const BlobName name = in_lineage_of_its_own(7, 1);
  g.stored(name);
  g.move(name);
  EXPECT_TRUE(g.gate.end_lives(name.checkpoint.program).ok());
  EXPECT_EQ(g.head(name.lineage).kind, ClaimKind::kDone);
}

TEST(LineageGateTest, WithdrawingWaitsForALogThatCannotBeReadAndNotForOneThatNobodyCan) {
  Gate g;
  const BlobName name = in_lineage_of_its_own(7, 1);
  g.stored(name);
  g.claims.set_cut(true);
  EXPECT_EQ(g.gate.end_lives(name.checkpoint.program).code(), Code::kUnavailable);
  EXPECT_FALSE(g.gate.ended_may_go({name}).ok());
  g.claims.set_cut(false);
  g.nas.put_slot_file(storage::log_of(name.lineage), 2, "no record");
  EXPECT_TRUE(g.gate.end_lives(name.checkpoint.program).ok());
  EXPECT_THAT(*g.gate.ended_may_go({name}), IsEmpty()) << "what it says is not known";
}

TEST(LineageGateTest, AProgramGoesOnWhereItIsOnlyWhileNobodyElseMay) {
  Gate g;
  const BlobName name = make_name(7, 1, 10);
  const ProgramKey& program = name.checkpoint.program;
  EXPECT_TRUE(g.gate.check_owner(program, name.lineage).ok()) << "of before there were claims";
  g.stored(name);
  EXPECT_TRUE(g.gate.check_owner(program, name.lineage).ok());
  g.claim(name.lineage);
  EXPECT_EQ(g.gate.check_owner(program, name.lineage).code(), Code::kUnavailable);
  g.append(core::act(core::Stamp{core::Writer{"b", 1}, 1, 1}, g.head(name.lineage), kTarget,
                     core::claim_blob_of(name)));
  EXPECT_EQ(g.gate.check_owner(program, name.lineage).code(), Code::kUnavailable);
  g.append(core::done(core::Stamp{core::Writer{"b", 1}, 2, 1}, g.head(name.lineage), 4));
  const Status moved = g.gate.check_owner(program, name.lineage);
  EXPECT_EQ(moved.code(), Code::kFenced);
  EXPECT_THAT(moved.error().context, HasSubstr("it is 02:00:00:00:00:11/4 now"));
  EXPECT_TRUE(g.gate.check_owner(ProgramKey{kTarget.ecu_mac, 4}, name.lineage).ok());
  g.claims.set_cut(true);
  EXPECT_EQ(g.gate.check_owner(program, name.lineage).code(), Code::kUnavailable);
  g.gate.set_trusted(false);
  EXPECT_TRUE(g.gate.check_owner(program, name.lineage).ok());
}

TEST(LineageGateTest, OfWhatATombstoneEndsOnlyThatStaysThatOthersAreRestoredFrom) {
  Gate g;
  const BlobName own = make_name(1, 1, 10);
  const BlobName claimed = make_name(2, 1, 10);
  const BlobName older = make_name(3, 1, 10);
  const BlobName base = make_name(3, 2, 10);
  for (const BlobName& name : {own, claimed, older, base}) g.stored(name);
  g.claim(claimed.lineage);
  g.move(base);
  const auto may_go = g.gate.ended_may_go({own, claimed, older, base});
  ASSERT_TRUE(may_go.ok()) << may_go.error().message();
  EXPECT_THAT(*may_go, testing::UnorderedElementsAre(own, older));
  g.gate.set_trusted(false);
  EXPECT_EQ(g.gate.ended_may_go({own, claimed, older, base})->size(), 4U) << "then there are no claims";
}

TEST(LineageGateTest, AStoreWhoseAnswersAreLostIsAskedAgainAndNothingIsSaidMeanwhile) {
  Gate g;
  const BlobName name = make_name(7, 1, 10);
  g.claims.fail_next(FakeClaimCall::kLink, 1, FakeClaimFault::kReplyLost);
  g.claims.fail_next(FakeClaimCall::kLookUp, 1, FakeClaimFault::kRequestLost);
  EXPECT_FALSE(g.word(name).ok());
  g.stored(name);
  EXPECT_EQ(g.head(name.lineage).slot, 1U);
}

// ---- logs that cannot be used

TEST(LineageGateTest, ALogThatCannotBeUsedHoldsUpItsOwnLineageOnly) {
  Gate g;
  const BlobName own = make_name(7, 1, 10);
  g.stored(own);
  g.nas.put_slot_file(storage::log_of(own.lineage), 2, "no record");
  const BlobName next = make_name(7, 2, 10);
  const auto words = g.gate.words({{next, wire::Policies{}}, {make_name(8, 1, 10), wire::Policies{}}});
  ASSERT_EQ(words.size(), 2U);
  ASSERT_FALSE(words[0].ok());
  EXPECT_EQ(words[0].error().code, Code::kCorrupt);
  ASSERT_TRUE(words[1].ok()) << words[1].error().message();
  EXPECT_EQ(*words[1], StoredWord::kSay);
  g.nas.remove_slot_file(storage::log_of(own.lineage), 2);
  EXPECT_EQ(*g.word(next), StoredWord::kSay);
}

// ---- appends of which the outcome is not known

// Each keeps its draft, and one of the store's places for attempts, until it is known.
TEST(LineageGateTest, AnUnresolvedGenesisIsSettledWhenTheStoreAnswersAgain) {
  Gate g;
  const BlobName name = make_name(7, 1, 10);
  g.claims.fail_next(FakeClaimCall::kLink, 1, FakeClaimFault::kReplyLost);
  g.claims.fail_next(FakeClaimCall::kRemoveDraft, 2, FakeClaimFault::kRequestLost);
  EXPECT_EQ(*g.word(name), StoredWord::kSay) << "its slot says whose it is";
  EXPECT_EQ(g.nas.draft_count(), 1U);
  EXPECT_EQ(*g.word(make_name(8, 1, 10)), StoredWord::kSay);
  EXPECT_EQ(g.nas.draft_count(), 1U) << "there was no answer to the removal, again";
  EXPECT_EQ(*g.word(make_name(9, 1, 10)), StoredWord::kSay);
  EXPECT_EQ(g.nas.draft_count(), 0U);
  EXPECT_EQ(g.head(name.lineage).slot, 1U);
}

TEST(LineageGateTest, AGenesisThatIsLinkedLateIsTheOneOfItsLog) {
  Gate g;
  const BlobName name = make_name(7, 1, 10);
  g.claims.fail_next(FakeClaimCall::kLink, 1, FakeClaimFault::kLate);
  g.claims.fail_next(FakeClaimCall::kRemoveDraft, 2, FakeClaimFault::kRequestLost);
  const auto word = g.word(name);
  ASSERT_FALSE(word.ok()) << "its log may not be begun";
  EXPECT_EQ(word.error().code, Code::kUnavailable);
  EXPECT_EQ(g.nas.run_late(), 1U);
  EXPECT_EQ(*g.word(name), StoredWord::kSay);
  EXPECT_EQ(*g.word(name), StoredWord::kSay);
  EXPECT_EQ(g.nas.draft_count(), 0U);
  EXPECT_EQ(g.head(name.lineage).slot, 1U);
}

TEST(LineageGateTest, AGenesisThatIsLinkedAfterItWasSettledIsNone) {
  Gate g;
  const BlobName name = make_name(7, 1, 10);
  g.claims.fail_next(FakeClaimCall::kLink, 1, FakeClaimFault::kLate);
  g.claims.fail_next(FakeClaimCall::kRemoveDraft, 2, FakeClaimFault::kRequestLost);
  EXPECT_FALSE(g.word(name).ok());
  EXPECT_EQ(g.nas.draft_count(), 1U);
  (void)g.gate.words({});
  (void)g.gate.words({});
  EXPECT_EQ(g.nas.draft_count(), 0U);
  g.stored(name);
  const std::uint64_t uid = g.head(name.lineage).uid;
  EXPECT_EQ(g.nas.run_late(), 1U);
  EXPECT_EQ(g.head(name.lineage).uid, uid);
  EXPECT_EQ(g.head(name.lineage).slot, 1U);
}

TEST(LineageGateTest, WhenOneCannotBeSettledTheOthersAreKeptAsWell) {
  Gate g;
  g.claims.fail_next(FakeClaimCall::kLink, 3, FakeClaimFault::kReplyLost);
  g.claims.fail_next(FakeClaimCall::kRemoveDraft, 4, FakeClaimFault::kRequestLost);
  (void)g.gate.words({{make_name(1, 1, 10), {}}, {make_name(2, 1, 10), {}}, {make_name(3, 1, 10), {}}});
  EXPECT_EQ(g.nas.draft_count(), 3U);
  (void)g.gate.words({});
  EXPECT_EQ(g.nas.draft_count(), 3U) << "the first had no answer, the others were not tried";
  (void)g.gate.words({});
  EXPECT_EQ(g.nas.draft_count(), 0U);
}

TEST(LineageGateTest, OneThatIsRefusedDoesNotHideOneThatIsNotKnown) {
  Gate g;
  g.claims.fail_next(FakeClaimCall::kCreateDraft, 1, FakeClaimFault::kRefused,
                     make_error(Code::kNoSpace, "full"));
  g.claims.fail_next(FakeClaimCall::kLink, 1, FakeClaimFault::kReplyLost);
  // The first removal is that of what was refused.
  g.claims.fail_next(FakeClaimCall::kRemoveDraft, 1, FakeClaimFault::kRequestLost, {}, 1);
  const auto words = g.gate.words({{make_name(1, 1, 10), {}}, {make_name(2, 1, 10), {}}});
  EXPECT_FALSE(words.at(0).ok());
  EXPECT_EQ(*words.at(1), StoredWord::kSay);
  EXPECT_EQ(g.nas.draft_count(), 1U);
  (void)g.gate.words({});
  EXPECT_EQ(g.nas.draft_count(), 0U);
}

// ---- what was stored without a log

TEST(LineageGateTest, StoredIsNotSaidAgainOfWhatHasNoLogBeforeThatIsBegun) {
  Gate g;
  storage::FakeStore store;
  ASSERT_TRUE(store.open_store().ok());
  const storage::testing::Sample sample = storage::testing::make_sample(7, 1, 10);
  const auto missing = g.gate.word(store, sample.name);
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().code, Code::kNotFound);
  EXPECT_TRUE(g.nas.slot_file(storage::log_of(sample.name.lineage), 1).empty());
  ASSERT_TRUE(storage::testing::publish(store, sample).ok());
  EXPECT_EQ(*g.gate.word(store, sample.name), StoredWord::kSay);
  EXPECT_EQ(g.head(sample.name.lineage).kind, ClaimKind::kGenesis);
  EXPECT_TRUE(g.head(sample.name.lineage).owner.program == sample.name.checkpoint.program);
}

}  // namespace
}  // namespace cms::daemon
