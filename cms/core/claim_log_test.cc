#include "cms/core/claim_log.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace cms::core {
namespace {

using storage::BlobName;
using wire::AbortProof;
using wire::ClaimBlob;
using wire::ClaimKind;
using wire::ClaimReason;
using wire::ClaimRecord;

const EcuMac kEcuA{0x020000000001};
const EcuMac kEcuB{0x020000000002};
const EcuMac kEcuC{0x020000000003};
const Lineage kLineage{0x1234, 0x5678};
const SessionId kFirstSession{kEcuA, 65536};
const SessionId kTarget{kEcuB, 131072};
const ProgramKey kFirstKey{kEcuA, 7};
const ProgramKey kSecondKey{kEcuB, 8};
const Writer kMe{"cms-a", 11};
const Writer kOther{"cms-b", 22};

// Two writers draw different uids, as random ones would.
Stamp stamp(const Writer& writer = kMe) {
  static std::uint64_t uid = 1000;
  return Stamp{writer, ++uid, 1'700'000'000'000'000};
}

BlobName blob(const ProgramKey& program, Incarnation incarnation, Seq seq, OwnerEpoch owner_epoch,
              std::uint64_t uid = 1) {
  BlobName name;
  name.checkpoint = CheckpointId{program, Version{incarnation, seq}};
  name.lineage = kLineage;
  name.owner_epoch = owner_epoch;
  name.size_bytes = 4096;
  name.uid = uid;
  return name;
}

ClaimRecord first() {
  return genesis(stamp(), kLineage, kFirstSession, 7, wire::OnIsolation::kStop, wire::OnLoss::kRestore);
}
ClaimRecord claimed(const ClaimRecord& head, const Writer& writer = kMe, bool has_own = true) {
  return claim(stamp(writer), head, ClaimReason::kLost, has_own);
}
ClaimBlob newest_of_first() { return claim_blob_of(blob(kFirstKey, 65536, 10, 0)); }
ClaimRecord acted(const ClaimRecord& head, const Writer& writer = kMe) {
  return act(stamp(writer), head, kTarget, newest_of_first());
}

// A head of each kind, by the shortest way to it.
ClaimRecord head_of(ClaimKind kind) {
  switch (kind) {
    case ClaimKind::kGenesis: return first();
    case ClaimKind::kClaim: return claimed(first());
    case ClaimKind::kAct: return acted(claimed(first()));
    case ClaimKind::kDone: return done(stamp(), acted(claimed(first())), 8);
    case ClaimKind::kRelease: return release(stamp(), claimed(first()), false, "no eligible target");
    case ClaimKind::kAbort: return abort(stamp(), acted(claimed(first())), AbortProof::kRefused, "no room");
    case ClaimKind::kRetire: return retire(stamp(), first(), "withdrawn");
  }
  ADD_FAILURE();
  return first();
}
constexpr ClaimKind kKinds[] = {ClaimKind::kGenesis, ClaimKind::kClaim, ClaimKind::kAct,   ClaimKind::kDone,
                                ClaimKind::kRelease, ClaimKind::kAbort, ClaimKind::kRetire};

// A record of this kind after `head`, right in everything but perhaps in being there.
ClaimRecord after(const ClaimRecord& head, ClaimKind kind) {
  ClaimRecord next = head_of(kind);
  next.slot = head.slot + 1;
  next.uid = head.uid + 100000;
  next.owner = head.owner;
  next.base = head.base;
  next.attempts = head.attempts;
  if (kind == ClaimKind::kClaim) {
    next.claim_slot = next.slot;
    next.attempts = head.attempts + 1;
  }
  if (kind == ClaimKind::kAct) next.claim_slot = head.claim_slot;
  if (kind == ClaimKind::kDone) {
    next.owner = wire::ClaimOwner{ProgramKey{head.target.ecu_mac, 8}, head.target.incarnation, next.slot};
    next.base = head.checkpoint;
  }
  return next;
}

TEST(ClaimLogTest, WhatMayFollowWhat) {
  // Rows: the head; columns: GENESIS CLAIM ACT DONE RELEASE ABORT RETIRE.
  const std::vector<std::pair<ClaimKind, std::string>> table = {
      {ClaimKind::kGenesis, "-C----R"}, {ClaimKind::kClaim, "-CA-R--"},   {ClaimKind::kAct, "---D-A-"},
      {ClaimKind::kDone, "-C----R"},    {ClaimKind::kRelease, "-C----R"}, {ClaimKind::kAbort, "-C----R"},
      {ClaimKind::kRetire, "-------"}};
  for (const auto& [kind, allowed] : table) {
    const ClaimRecord head = head_of(kind);
    for (std::size_t i = 0; i < allowed.size(); ++i) {
      const Status status = check_successor(&head, after(head, kKinds[i]));
      EXPECT_EQ(status.ok(), allowed[i] != '-')
          << to_string(kKinds[i]) << " after " << to_string(kind) << ": "
          << (status.ok() ? "allowed" : status.error().message());
    }
  }
}

TEST(ClaimLogTest, OnlyGenesisBeginsALog) {
  EXPECT_TRUE(check_successor(nullptr, first()).ok());
  for (const ClaimKind kind : kKinds) {
    if (kind == ClaimKind::kGenesis) continue;
    ClaimRecord record = head_of(kind);
    record.slot = 1;
    EXPECT_FALSE(check_successor(nullptr, record).ok()) << to_string(kind);
  }
  ClaimRecord late = first();
  late.slot = 2;
  EXPECT_FALSE(check_successor(nullptr, late).ok());
}

TEST(ClaimLogTest, ARecordThatBreaksARuleIsRefusedWithTheRule) {
  struct Case {
    ClaimKind head, next;
    std::function<void(ClaimRecord&)> change;
    std::string rule;
  };
  const std::vector<Case> cases = {
      {ClaimKind::kGenesis, ClaimKind::kClaim, [](auto& r) { r.lineage.low ^= 1; }, "of another lineage"},
      {ClaimKind::kGenesis, ClaimKind::kClaim, [](auto& r) { r.slot += 1; }, "not the next slot"},
      {ClaimKind::kGenesis, ClaimKind::kClaim, [](auto& r) { r.owner.program.program_id = 9; },
       "another owner"},
      {ClaimKind::kGenesis, ClaimKind::kClaim, [](auto& r) { r.base = ClaimBlob{}; }, "another base"},
      {ClaimKind::kGenesis, ClaimKind::kClaim, [](auto& r) { r.on_loss = wire::OnLoss::kAsk; },
       "other policies"},
      {ClaimKind::kGenesis, ClaimKind::kClaim, [](auto& r) { r.claim_slot = 1; },
       "does not name its own slot"},
      {ClaimKind::kClaim, ClaimKind::kClaim, [](auto& r) { r.attempts = 1; }, "attempts are not one more"},
      {ClaimKind::kClaim, ClaimKind::kAct, [](auto& r) { r.writer = "cms-b"; },
       "only who claimed may say ACT"},
      {ClaimKind::kClaim, ClaimKind::kAct, [](auto& r) { r.writer_incarnation = 12; },
       "only who claimed may say ACT"},
      {ClaimKind::kClaim, ClaimKind::kAct, [](auto& r) { r.claim_slot = 1; }, "of another claim"},
      {ClaimKind::kClaim, ClaimKind::kAct, [](auto& r) { r.checkpoint.reset(); }, "names no checkpoint"},
      {ClaimKind::kClaim, ClaimKind::kAct, [](auto& r) { r.checkpoint->owner_epoch = 4; },
       "its checkpoint is neither the owner's nor the base"},
      {ClaimKind::kClaim, ClaimKind::kAct, [](auto& r) { r.checkpoint->checkpoint.program = kSecondKey; },
       "its checkpoint is neither the owner's nor the base"},
      {ClaimKind::kClaim, ClaimKind::kRelease, [](auto& r) { r.writer = "cms-b"; },
       "only who claimed may release"},
      {ClaimKind::kAct, ClaimKind::kDone, [](auto& r) { r.owner.program.ecu_mac = kEcuC; },
       "the owner is not the target of ACT"},
      {ClaimKind::kAct, ClaimKind::kDone, [](auto& r) { r.owner.incarnation += 1; },
       "the owner is not the target of ACT"},
      {ClaimKind::kAct, ClaimKind::kDone, [](auto& r) { r.owner.owner_epoch -= 1; },
       "owner_epoch is not its slot"},
      {ClaimKind::kAct, ClaimKind::kDone, [](auto& r) { r.base->uid += 1; },
       "the base is not the checkpoint of ACT"},
      {ClaimKind::kAct, ClaimKind::kAbort, [](auto& r) { r.proof = AbortProof::kNone; }, "without a proof"},
      {ClaimKind::kAct, ClaimKind::kAbort, [](auto& r) { r.owner.owner_epoch = 9; }, "another owner"},
  };
  for (const Case& one : cases) {
    const ClaimRecord head = head_of(one.head);
    ClaimRecord next = after(head, one.next);
    ASSERT_TRUE(check_successor(&head, next).ok()) << one.rule;
    one.change(next);
    const Status status = check_successor(&head, next);
    ASSERT_FALSE(status.ok()) << one.rule;
    EXPECT_EQ(status.code(), Code::kInvalidArgument);
    EXPECT_NE(status.error().context.find(": " + one.rule), std::string::npos) << status.error().context;
  }
}

TEST(ClaimLogTest, ARestoreMovesTheOwnerAndCountsAttempts) {
  const ClaimRecord begun = first();
  EXPECT_EQ(begun.owner.owner_epoch, 0U);
  const ClaimRecord once = claimed(begun);
  EXPECT_EQ(once.attempts, 1U);
  const ClaimRecord taken_over = claimed(once, kOther);
  EXPECT_EQ(taken_over.attempts, 2U) << "a take-over is an attempt more, whatever the owner has stored";
  const ClaimRecord second = act(stamp(kOther), taken_over, kTarget, newest_of_first());
  const ClaimRecord moved = done(stamp(), second, 8);  // Anybody may say DONE.
  EXPECT_EQ(moved.slot, 5U);
  EXPECT_EQ(moved.owner.owner_epoch, 5U);
  EXPECT_EQ(moved.owner.program, kSecondKey);
  EXPECT_EQ(moved.owner.incarnation, kTarget.incarnation);
  EXPECT_EQ(moved.base, newest_of_first());
  EXPECT_EQ(claimed(moved, kMe, false).attempts, 3U) << "it was lost again before it stored anything";
  EXPECT_EQ(claimed(moved, kMe, true).attempts, 1U);
}

// Otherwise a full fleet, at which nobody was asked, would lead to an older state.
TEST(ClaimLogTest, AReleaseWithoutATargetGivesItsAttemptBack) {
  const ClaimRecord once = claimed(first());
  const ClaimRecord untried = release(stamp(), once, true, "no eligible target");
  EXPECT_EQ(untried.attempts, 0U);
  const ClaimRecord again = claimed(untried);
  EXPECT_EQ(again.attempts, 1U);
  const ClaimRecord tried = release(stamp(), again, false, "none was able");
  EXPECT_EQ(tried.attempts, 1U);
  const ClaimRecord second = claimed(tried);
  EXPECT_EQ(second.attempts, 2U);
  const ClaimRecord second_untried = release(stamp(), second, true, "no eligible target");
  EXPECT_EQ(second_untried.attempts, 1U) << "its own, and none of those before";
}

TEST(ClaimLogTest, NoMoreThanTheAttemptOfTheClaimIsGivenBackAndByReleaseAlone) {
  const ClaimRecord open = claimed(release(stamp(), claimed(first()), false, "none was able"));
  ClaimRecord released = release(stamp(), open, true, "no eligible target");
  EXPECT_TRUE(check_successor(&open, released).ok());
  --released.attempts;
  EXPECT_FALSE(check_successor(&open, released).ok());
  const ClaimRecord decided = acted(open);
  ClaimRecord aborted = abort(stamp(), decided, AbortProof::kRefused, "no room");
  EXPECT_TRUE(check_successor(&decided, aborted).ok());
  --aborted.attempts;
  EXPECT_FALSE(check_successor(&decided, aborted).ok());
}

TEST(ClaimLogTest, AttemptsAreCountedAnewAfterDoneOnly) {
  for (const ClaimKind kind : {ClaimKind::kClaim, ClaimKind::kRelease, ClaimKind::kAbort, ClaimKind::kDone}) {
    const ClaimRecord head = head_of(kind);
    ASSERT_EQ(head.attempts, 1U) << to_string(kind);
    EXPECT_EQ(claimed(head, kMe, false).attempts, 2U) << to_string(kind);
    EXPECT_EQ(claimed(head, kMe, true).attempts, kind == ClaimKind::kDone ? 1U : 2U) << to_string(kind);
    ClaimRecord anew = claimed(head, kMe, false);
    anew.attempts = 1;
    EXPECT_EQ(check_successor(&head, anew).ok(), kind == ClaimKind::kDone) << to_string(kind);
  }
}

TEST(ClaimLogTest, WhoseTurnItIs) {
  EXPECT_EQ(turn_of(nullptr, kMe, false), Turn::kUnbegun);
  for (const ClaimKind kind :
       {ClaimKind::kGenesis, ClaimKind::kDone, ClaimKind::kRelease, ClaimKind::kAbort}) {
    const ClaimRecord head = head_of(kind);
    EXPECT_EQ(turn_of(&head, kOther, true), Turn::kNobodys) << to_string(kind);
  }
  const ClaimRecord open = head_of(ClaimKind::kClaim);
  EXPECT_EQ(turn_of(&open, kMe, true), Turn::kMine);
  EXPECT_EQ(turn_of(&open, kOther, true), Turn::kOthers);
  EXPECT_EQ(turn_of(&open, kOther, false), Turn::kOrphaned);
  const Writer my_next_life{kMe.name, kMe.incarnation + 1};
  EXPECT_EQ(turn_of(&open, my_next_life, false), Turn::kOrphaned) << "what it had restored it has forgotten";
  const ClaimRecord decided = head_of(ClaimKind::kAct);
  EXPECT_EQ(turn_of(&decided, kOther, true), Turn::kFinish);
  EXPECT_EQ(turn_of(&decided, kOther, false), Turn::kFinish) << "never a claim over ACT";
  const ClaimRecord ended = head_of(ClaimKind::kRetire);
  EXPECT_EQ(turn_of(&ended, kMe, true), Turn::kEnded);
}

// Schedule: "failed" is told twice, and the second CMS has read an index of before the restore.
TEST(ClaimLogTest, ASecondLossOfTheFormerOwnerClaimsNothing) {
  const ClaimRecord begun = first();
  const ClaimRecord moved = head_of(ClaimKind::kDone);
  EXPECT_TRUE(check_replaces(&begun, begun.owner).ok());
  EXPECT_TRUE(check_replaces(&moved, moved.owner).ok());
  EXPECT_EQ(check_replaces(&moved, begun.owner).code(), Code::kFenced);
  wire::ClaimOwner other_session = begun.owner;
  other_session.incarnation += 1;
  EXPECT_EQ(check_replaces(&begun, other_session).code(), Code::kFenced);
  EXPECT_EQ(check_replaces(nullptr, begun.owner).code(), Code::kNotFound);
  const ClaimRecord ended = head_of(ClaimKind::kRetire);
  EXPECT_EQ(check_replaces(&ended, ended.owner).code(), Code::kWithdrawn);
}

TEST(ClaimLogTest, FencingComparesTheOwnerAndNotTheHead) {
  const ClaimRecord begun = first();
  const ClaimRecord open = head_of(ClaimKind::kClaim);
  const ClaimRecord decided = head_of(ClaimKind::kAct);
  const ClaimRecord moved = head_of(ClaimKind::kDone);
  const ClaimRecord ended = head_of(ClaimKind::kRetire);
  EXPECT_EQ(judge_epoch(nullptr, kFirstKey, 0), Epoch::kCurrent);
  EXPECT_EQ(judge_epoch(nullptr, kFirstKey, 4), Epoch::kReadLog);
  EXPECT_EQ(judge_epoch(&begun, kFirstKey, 0), Epoch::kCurrent);
  EXPECT_EQ(judge_epoch(&open, kFirstKey, 0), Epoch::kCurrent) << "it may live: the claim may be released";
  EXPECT_EQ(judge_epoch(&decided, kFirstKey, 0), Epoch::kCurrent);
  EXPECT_EQ(judge_epoch(&decided, kSecondKey, 4), Epoch::kReadLog) << "DONE was appended meanwhile";
  EXPECT_EQ(judge_epoch(&moved, kFirstKey, 0), Epoch::kFenced);
  EXPECT_EQ(judge_epoch(&moved, kSecondKey, 4), Epoch::kCurrent);
  EXPECT_EQ(judge_epoch(&moved, kFirstKey, 4), Epoch::kFenced) << "the owner is a program, not a number";
  EXPECT_EQ(judge_epoch(&moved, kSecondKey, 9), Epoch::kReadLog);
  EXPECT_EQ(judge_epoch(&ended, kFirstKey, 0), Epoch::kFenced);
}

TEST(ClaimLogTest, TheOwnersNewestIsRestoredFirst) {
  const ClaimRecord open = head_of(ClaimKind::kClaim);
  const BlobName old = blob(kFirstKey, 65536, 9, 0);
  const BlobName newest = blob(kFirstKey, 65536, 10, 0);
  const BlobName newest_again = blob(kFirstKey, 65536, 10, 0, 2);
  const BlobName restarted = blob(kFirstKey, 131072, 1, 0);
  BlobName foreign = blob(kFirstKey, 262144, 1, 0);
  foreign.lineage.low ^= 1;
  BlobName tombstone = blob(kFirstKey, 262144, 1, 0);
  tombstone.kind = storage::EntryKind::kTombstone;
  const auto found = restorable(open, {old, foreign, newest_again, newest, tombstone, restarted});
  EXPECT_EQ(found, (std::vector<BlobName>{restarted, newest, newest_again, old}));
  EXPECT_TRUE(restorable(head_of(ClaimKind::kRetire), {newest}).empty());
}

// Schedule: the target dies between DONE and its first own checkpoint; and a late publication of the
// former owner lies beside.
TEST(ClaimLogTest, UntilTheNewOwnerHasACheckpointItsBaseIsRestored) {
  const ClaimRecord moved = head_of(ClaimKind::kDone);
  const ClaimRecord lost_again = claimed(moved, kMe, false);
  const BlobName base = blob(kFirstKey, 65536, 10, 0);
  const BlobName base_twin = blob(kFirstKey, 65536, 10, 0, 2);
  const BlobName late = blob(kFirstKey, 65536, 11, 0);
  const BlobName own = blob(kSecondKey, 131072, 1, 4);
  EXPECT_EQ(restorable(lost_again, {late, base_twin, base}), std::vector<BlobName>{base});
  EXPECT_EQ(restorable(lost_again, {late, base, own}), std::vector<BlobName>{own});
  EXPECT_TRUE(restorable(lost_again, {late}).empty());
}

TEST(ClaimLogTest, TheLastOfAMoveIsThatOneAndNoOther) {
  const ClaimRecord open = claimed(first());
  const BlobName older = blob(kFirstKey, 65536, 9, 0);
  const BlobName last = blob(kFirstKey, 65536, 10, 0);
  const BlobName twin = blob(kFirstKey, 65536, 10, 0, 2);
  const BlobName newer = blob(kFirstKey, 65536, 11, 0);
  const BlobName foreign = blob(kSecondKey, 65536, 10, 0);
  const BlobName other_epoch = blob(kFirstKey, 65536, 10, 5);
  const Version version{65536, 10};
  EXPECT_EQ(named_last(open, {older, newer, last, foreign, other_epoch}, version),
            std::vector<BlobName>{last});
  EXPECT_EQ(named_last(open, {twin, last}, version).size(), 2U);
  EXPECT_TRUE(named_last(open, {older, newer, foreign, other_epoch}, version).empty());
}

// A program may come back to where it was under the number that it had: its key alone says nothing.
TEST(ClaimLogTest, WhatTheSameKeyStoredInAnEarlierEpochIsNotTheOwners) {
  const ClaimRecord away = head_of(ClaimKind::kDone);
  const ClaimBlob there = claim_blob_of(blob(kSecondKey, 131072, 5, 4));
  const ClaimRecord returning = act(stamp(), claimed(away), SessionId{kEcuA, 196608}, there);
  const ClaimRecord back = done(stamp(), returning, 7);
  ASSERT_EQ(back.owner.program, kFirstKey);
  const BlobName of_before = blob(kFirstKey, 65536, 10, 0);
  const BlobName base = blob(kSecondKey, 131072, 5, 4);
  const BlobName own = blob(kFirstKey, 196608, 1, back.slot);
  EXPECT_EQ(restorable(back, {of_before, base}), std::vector<BlobName>{base});
  EXPECT_EQ(restorable(back, {of_before, base, own}), std::vector<BlobName>{own});
  EXPECT_EQ(judge_epoch(&back, kFirstKey, 0), Epoch::kFenced);
  EXPECT_EQ(stored_word(&back, of_before), StoredWord::kFenced);
  EXPECT_EQ(garbage(&back, {of_before, base, own}), (std::vector<BlobName>{of_before, base}));
}

// Schedule: the name of seq 11 is given, then its writer pauses; another CMS restores seq 10; then the
// writer goes on and would say STORED(11).
TEST(ClaimLogTest, StoredIsSaidOnlyWhenARestoreWouldFindIt) {
  const BlobName ten = blob(kFirstKey, 65536, 10, 0);
  const BlobName eleven = blob(kFirstKey, 65536, 11, 0);
  const BlobName own = blob(kSecondKey, 131072, 1, 4);
  const auto word = [](std::optional<ClaimKind> kind, const BlobName& name) {
    if (!kind) return stored_word(nullptr, name);
    const ClaimRecord head = head_of(*kind);
    return stored_word(&head, name);
  };
  EXPECT_EQ(word(std::nullopt, eleven), StoredWord::kSay);
  EXPECT_EQ(word(std::nullopt, own), StoredWord::kWait) << "its GENESIS and DONE are somewhere";
  for (const ClaimKind kind : {ClaimKind::kGenesis, ClaimKind::kRelease, ClaimKind::kAbort}) {
    EXPECT_EQ(word(kind, eleven), StoredWord::kSay) << to_string(kind);
    EXPECT_EQ(word(kind, own), StoredWord::kWait) << to_string(kind);
  }
  for (const ClaimKind kind : {ClaimKind::kClaim, ClaimKind::kAct}) {
    EXPECT_EQ(word(kind, eleven), StoredWord::kWait) << to_string(kind);
  }
  EXPECT_EQ(word(ClaimKind::kAct, ten), StoredWord::kWait);
  EXPECT_EQ(word(ClaimKind::kDone, ten), StoredWord::kSay) << "it is what was restored";
  EXPECT_EQ(word(ClaimKind::kDone, eleven), StoredWord::kFenced);
  EXPECT_EQ(word(ClaimKind::kDone, own), StoredWord::kSay);
  EXPECT_EQ(word(ClaimKind::kRetire, eleven), StoredWord::kFenced);
}

// Schedule: removal against a claim that names the blob.
TEST(ClaimLogTest, WhatAClaimMayNeedStays) {
  const BlobName nine = blob(kFirstKey, 65536, 9, 0);
  const BlobName ten = blob(kFirstKey, 65536, 10, 0);
  const BlobName ten_twin = blob(kFirstKey, 65536, 10, 0, 2);
  const BlobName eleven = blob(kFirstKey, 65536, 11, 0);
  const std::vector<BlobName> all{nine, ten, ten_twin, eleven};
  const ClaimRecord begun = first();
  EXPECT_EQ(must_stay(&begun, all), (std::vector<BlobName>{eleven, ten}));
  EXPECT_TRUE(garbage(&begun, all).empty());
  EXPECT_EQ(must_stay(nullptr, all), all);
  EXPECT_TRUE(garbage(nullptr, all).empty());
  for (const ClaimKind kind : {ClaimKind::kClaim, ClaimKind::kAct}) {
    const ClaimRecord head = head_of(kind);
    EXPECT_EQ(must_stay(&head, all), all) << to_string(kind);
    EXPECT_TRUE(garbage(&head, all).empty()) << to_string(kind);
  }

  const ClaimRecord moved = head_of(ClaimKind::kDone);  // Restored from ten.
  EXPECT_EQ(must_stay(&moved, all), std::vector<BlobName>{ten});
  EXPECT_TRUE(garbage(&moved, all).empty());
  const BlobName own = blob(kSecondKey, 131072, 1, 4);
  const std::vector<BlobName> with_own{nine, ten, ten_twin, eleven, own};
  EXPECT_EQ(must_stay(&moved, with_own), std::vector<BlobName>{own});
  EXPECT_EQ(garbage(&moved, with_own), all);

  const ClaimRecord ended = head_of(ClaimKind::kRetire);
  EXPECT_TRUE(must_stay(&ended, all).empty());
  EXPECT_EQ(garbage(&ended, all), all);
}

}  // namespace
}  // namespace cms::core
