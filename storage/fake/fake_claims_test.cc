// The contract of ClaimStore in memory, and what the fake does on command; with it what the steps of all
// adapters do with calls that are lost, late or refused, at each place and in each order.
#include "storage/fake/fake_claims.h"

#include <gtest/gtest.h>

#include "storage/contract/claim_store_contract.h"

namespace cms::storage::testing {
namespace {

using Call = FakeClaimCall;
using End = Appended::End;
using Fault = FakeClaimFault;
using Read = ClaimStore::Read;

class FakeClaimFixture final : public ClaimFixture {
 public:
  std::unique_ptr<ClaimStore> open(const std::string& node, std::uint64_t node_incarnation) override {
    auto claims = std::make_unique<FakeClaims>(nas_, node, node_incarnation);
    EXPECT_TRUE(claims->open_store().ok());
    return claims;
  }
  std::string slot_file(const LogId& log, Slot slot) override { return nas_.slot_file(log, slot); }
  void put_slot_file(const LogId& log, Slot slot, const std::string& text) override {
    nas_.put_slot_file(log, slot, text);
  }
  void remove_slot_file(const LogId& log, Slot slot) override { nas_.remove_slot_file(log, slot); }
  void put_member_file(const std::string& node, std::uint64_t node_incarnation,
                       const std::string& text) override {
    nas_.put_member_file(node, node_incarnation, text);
  }
  std::string member_file(const std::string& node, std::uint64_t node_incarnation) override {
    return nas_.member_file(node, node_incarnation);
  }
  void put_stray_file(std::uint32_t log_shard, const std::string& name) override {
    nas_.put_stray_file(log_shard, name);
  }

 private:
  FakeClaimNas nas_;
};

INSTANTIATE_TEST_SUITE_P(Fake, ClaimStoreContract, ::testing::Values(+[]() -> std::unique_ptr<ClaimFixture> {
                           return std::make_unique<FakeClaimFixture>();
                         }));

const LogId kLog = log_in_shard(1, 1);

class FakeClaimsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(a_.open_store().ok());
    ASSERT_TRUE(b_.open_store().ok());
  }
  // Until the outcome is known; `tries` at most.
  static Result<Appended> settled(ClaimStore& store, Result<Appended> appended, int tries = 10) {
    while (appended && appended->end == End::kUnresolved && tries-- > 0) {
      appended = store.settle(appended->attempt);
    }
    return appended;
  }
  std::string seen(Slot slot) {
    const auto record = b_.read(kLog, slot, Read::kAsSeen);
    return record ? record->bytes : std::string(to_string(record.error().code));
  }

  FakeClaimNas nas_;
  FakeClaims a_{nas_, "a", 1};
  FakeClaims b_{nas_, "b", 2};
};

TEST_F(FakeClaimsTest, LinkWhoseReplyIsLostIsFoundToHaveWon) {
  a_.fail_next(Call::kLink, 1, Fault::kReplyLost);
  const auto appended = a_.append(kLog, 1, "a's");
  ASSERT_TRUE(appended.ok());
  EXPECT_EQ(appended->end, End::kWon);
  EXPECT_EQ(seen(1), "a's");
  EXPECT_EQ(nas_.draft_count(), 0U);
}

TEST_F(FakeClaimsTest, LinkThatSaysExistsIsNotBelieved) {
  // As when a doubled request's second reply is the one that comes.
  a_.fail_next(Call::kLink, 1, Fault::kReplyLost);
  EXPECT_EQ(a_.append(kLog, 1, "a's")->end, End::kWon);
  // And when nothing is there after all.
  a_.fail_next(Call::kLink, 1, Fault::kRefused, make_error(Code::kAlreadyExists, "it says"));
  const auto appended = a_.append(kLog, 2, "a's");
  ASSERT_FALSE(appended.ok());
  EXPECT_EQ(appended.error().code, Code::kUnavailable) << appended.error().message();
  EXPECT_EQ(seen(2), "not found");
}

TEST_F(FakeClaimsTest, LateLinkFindsNothingToLinkOnceItsDraftIsRemoved) {
  a_.fail_next(Call::kLink, 1, Fault::kLate);
  const auto appended = a_.append(kLog, 1, "a's");
  ASSERT_FALSE(appended.ok()) << "decided by the removal";
  EXPECT_EQ(appended.error().code, Code::kUnavailable);
  EXPECT_EQ(nas_.run_late(), 1U);
  EXPECT_EQ(seen(1), "not found");
  win(b_, kLog, 1, "b's");
  EXPECT_EQ(seen(1), "b's");
}

TEST_F(FakeClaimsTest, WhileTheRemovalIsNotConfirmedNothingIsKnownAndALateLinkMayStillWin) {
  a_.fail_next(Call::kLink, 1, Fault::kLate);
  a_.fail_next(Call::kRemoveDraft, 2, Fault::kRequestLost);
  const auto appended = a_.append(kLog, 1, "a's");
  ASSERT_TRUE(appended.ok());
  ASSERT_EQ(appended->end, End::kUnresolved);
  EXPECT_EQ(a_.settle(appended->attempt)->end, End::kUnresolved) << "its removal is lost as well";
  EXPECT_EQ(nas_.run_late(), 1U);
  EXPECT_EQ(seen(1), "a's") << "b may see it before a knows";
  EXPECT_EQ(a_.settle(appended->attempt)->end, End::kWon);
  EXPECT_EQ(a_.settle(appended->attempt).error().code, Code::kNotFound) << "told once";
}

TEST_F(FakeClaimsTest, LateLinkLosesToWhoeverWasFaster) {
  a_.fail_next(Call::kLink, 1, Fault::kLate);
  a_.fail_next(Call::kRemoveDraft, 1, Fault::kRequestLost);
  const auto appended = a_.append(kLog, 1, "a's");
  ASSERT_EQ(appended->end, End::kUnresolved);
  win(b_, kLog, 1, "b's");
  EXPECT_EQ(nas_.run_late(), 1U);
  EXPECT_EQ(a_.settle(appended->attempt)->end, End::kLost);
  EXPECT_EQ(seen(1), "b's");
}

TEST_F(FakeClaimsTest, WithoutASyncNothingIsWon) {
  a_.fail_next(Call::kSync, 2, Fault::kRequestLost);
  const auto appended = a_.append(kLog, 1, "a's");
  ASSERT_TRUE(appended.ok());
  ASSERT_EQ(appended->end, End::kUnresolved);
  EXPECT_EQ(seen(1), "a's");
  nas_.crash();
  EXPECT_EQ(a_.settle(appended->attempt)->end, End::kUnresolved) << "the store is not open";
  ASSERT_TRUE(a_.open_store().ok());
  ASSERT_TRUE(b_.open_store().ok());
  const auto after = a_.settle(appended->attempt);
  ASSERT_FALSE(after.ok()) << "its name was not synced";
  EXPECT_EQ(seen(1), "not found");
  win(b_, kLog, 1, "b's");
}

TEST_F(FakeClaimsTest, WhatIsWonOrReadDurablySurvivesACrashOfTheNas) {
  win(a_, kLog, 1, "won");
  a_.fail_next(Call::kSync, UINT64_MAX, Fault::kRequestLost);
  EXPECT_EQ(a_.append(kLog, 2, "read durably")->end, End::kUnresolved);
  EXPECT_TRUE(b_.read(kLog, 2, Read::kDurable).ok());
  EXPECT_EQ(a_.append(kLog, 3, "seen")->end, End::kUnresolved);
  EXPECT_TRUE(b_.read(kLog, 3, Read::kAsSeen).ok());
  ASSERT_TRUE(a_.write_member("member").ok());
  nas_.crash();
  ASSERT_TRUE(b_.open_store().ok());
  EXPECT_EQ(seen(1), "won");
  EXPECT_EQ(seen(2), "read durably");
  EXPECT_EQ(seen(3), "not found");
  EXPECT_EQ(*b_.list_members()->front().bytes, "member");
}

TEST_F(FakeClaimsTest, RemovalThatACrashUndoesBringsNoLateLinkBack) {
  a_.fail_next(Call::kLink, 1, Fault::kLate);
  ASSERT_FALSE(a_.append(kLog, 1, "a's").ok());
  nas_.crash(/*undo_removals=*/true);
  EXPECT_EQ(nas_.draft_count(), 1U) << "the removal was not synced";
  EXPECT_EQ(nas_.run_late(), 0U) << "connections do not outlive the host";
  ASSERT_TRUE(b_.open_store().ok());
  EXPECT_EQ(seen(1), "not found");
}

// Every call of an append, in every way, alone and against another's: never two winners, the outcome becomes
// known, what was won is durable, and what was told to be over never happens.
TEST_F(FakeClaimsTest, EveryCallOfAnAppendStruckInEveryWay) {
  Slot slot = 0;
  int unresolved = 0;
  for (const Call call : {Call::kCreateDraft, Call::kWriteDraft, Call::kLink, Call::kSync, Call::kRemoveDraft,
                          Call::kLookUp, Call::kReadSlot, Call::kAny}) {
    for (const Fault fault : {Fault::kRefused, Fault::kRequestLost, Fault::kReplyLost, Fault::kLate}) {
      for (const std::uint64_t count : {1, 2, 5}) {
        for (const bool link_struck_too : {false, true}) {
          for (const int when_late : {0, 1, 2}) {
            for (const bool crash : {false, true}) {
              SCOPED_TRACE(::testing::Message()
                           << "call " << int(call) << " fault " << int(fault) << " x" << count << " link "
                           << link_struck_too << " late " << when_late << " crash " << crash);
              ++slot;
              if (link_struck_too) a_.fail_next(Call::kLink, 1, Fault::kReplyLost);
              a_.fail_next(call, count, fault, make_error(Code::kIo, "planned"));
              auto mine = a_.append(kLog, slot, "a's");
              if (mine && mine->end == End::kUnresolved) ++unresolved;
              if (when_late == 0) nas_.run_late();
              auto others = b_.append(kLog, slot, "b's");
              ASSERT_TRUE(others.ok()) << others.error().message();
              ASSERT_NE(others->end, End::kUnresolved);
              if (when_late == 1) nas_.run_late();
              mine = settled(a_, mine);
              ASSERT_TRUE(!mine || mine->end != End::kUnresolved);
              for (const Call planned : {call, Call::kLink}) a_.fail_next(planned, 0, fault);
              if (crash) {
                nas_.crash(true);
                ASSERT_TRUE(a_.open_store().ok());
                ASSERT_TRUE(b_.open_store().ok());
              }
              nas_.run_late();
              const bool won = mine && mine->end == End::kWon;
              EXPECT_NE(won, others->end == End::kWon) << "two winners, or none";
              EXPECT_EQ(seen(slot), won ? "a's" : "b's");
              if (HasFailure()) return;
            }
          }
        }
      }
    }
  }
  EXPECT_GT(unresolved, 20) << "the walk does not reach what it is for";
}

// The same of many at once: what strikes one of them is nothing to the others.
TEST_F(FakeClaimsTest, EveryCallOfManyAppendsStruckInEveryWay) {
  const std::vector<LogId> logs = {log_in_shard(1, 1), log_in_shard(1, 2), log_in_shard(2, 1)};
  Slot slot = 0;
  int unresolved = 0;
  int others_won = 0;
  for (const Call call : {Call::kCreateDraft, Call::kWriteDraft, Call::kLink, Call::kSync, Call::kRemoveDraft,
                          Call::kLookUp, Call::kReadSlot, Call::kAny}) {
    for (const Fault fault : {Fault::kRefused, Fault::kRequestLost, Fault::kReplyLost, Fault::kLate}) {
      for (const std::uint64_t skip : {0, 1, 2}) {
        for (const std::uint64_t count : {1, 2, 5}) {
          for (const bool links_struck_too : {false, true}) {
            for (const bool crash : {false, true}) {
              SCOPED_TRACE(::testing::Message()
                           << "call " << int(call) << " fault " << int(fault) << " after " << skip << " x"
                           << count << " links " << links_struck_too << " crash " << crash);
              ++slot;
              if (links_struck_too) a_.fail_next(Call::kLink, 3, Fault::kReplyLost);
              a_.fail_next(call, count, fault, make_error(Code::kIo, "planned"), skip);
              std::vector<Append> appends;
              for (const LogId& log : logs) appends.push_back({log, slot, "a's"});
              auto mine = a_.append_many(appends);
              std::vector<bool> others;
              for (const LogId& log : logs) {
                const auto appended = b_.append(log, slot, "b's");
                ASSERT_TRUE(appended.ok()) << appended.error().message();
                others.push_back(appended->end == End::kWon);
                others_won += others.back() ? 1 : 0;
              }
              for (auto& end : mine) {
                if (end && end->end == End::kUnresolved) ++unresolved;
                end = settled(a_, end);
                ASSERT_TRUE(!end || end->end != End::kUnresolved);
              }
              for (const Call planned : {call, Call::kLink}) a_.fail_next(planned, 0, fault);
              if (crash) {
                nas_.crash(true);
                ASSERT_TRUE(a_.open_store().ok());
                ASSERT_TRUE(b_.open_store().ok());
              }
              nas_.run_late();
              for (std::size_t i = 0; i < logs.size(); ++i) {
                const bool won = mine[i] && mine[i]->end == End::kWon;
                EXPECT_NE(won, others[i]) << "two winners, or none";
                EXPECT_EQ(b_.read(logs[i], slot, Read::kAsSeen)->bytes, won ? "a's" : "b's");
              }
              if (HasFailure()) return;
            }
          }
        }
      }
    }
  }
  EXPECT_GT(unresolved, 20) << "the walk does not reach what it is for";
  EXPECT_GT(others_won, 20);
}

TEST_F(FakeClaimsTest, NothingIsAppendedInOneCallAboveWhatIsUnresolved) {
  a_.fail_next(Call::kSync, 2, Fault::kRequestLost);
  const auto ends = a_.append_many({{kLog, 1, "1"}, {kLog, 2, "2"}});
  EXPECT_EQ(ends[0]->end, End::kUnresolved);
  ASSERT_FALSE(ends[1].ok()) << "a crash of the NAS would leave a hole";
  EXPECT_EQ(ends[1].error().code, Code::kUnavailable);
  EXPECT_EQ(seen(2), "not found");
}

TEST_F(FakeClaimsTest, ManyMoreThanMayBeUnresolvedCanBeAppendedAndThoseThatMayAreKept) {
  std::vector<Append> appends;
  constexpr std::size_t kCount = ClaimStore::kUnresolvedMax + 500;
  for (std::size_t i = 0; i < kCount; ++i) appends.push_back({log_in_shard(3, i), 1, "x"});
  for (const auto& end : a_.append_many(appends)) ASSERT_EQ(end->end, End::kWon);
  for (Append& append : appends) append.slot = 2;
  a_.fail_next(Call::kLink, UINT64_MAX, Fault::kRequestLost);
  a_.fail_next(Call::kRemoveDraft, UINT64_MAX, Fault::kRequestLost);
  const auto ends = a_.append_many(appends);
  for (std::size_t i = 0; i < kCount; ++i) {
    if (i < ClaimStore::kUnresolvedMax) {
      ASSERT_EQ(ends[i]->end, End::kUnresolved) << i;
    } else {
      ASSERT_EQ(ends[i].error().code, Code::kLimit) << i;
    }
  }
}

TEST_F(FakeClaimsTest, UnresolvedAttemptsAreBounded) {
  a_.fail_next(Call::kLink, UINT64_MAX, Fault::kRequestLost);
  a_.fail_next(Call::kRemoveDraft, UINT64_MAX, Fault::kRequestLost);
  std::uint64_t last = 0;
  for (std::size_t i = 1; i <= ClaimStore::kUnresolvedMax; ++i) {
    const auto appended = a_.append(kLog, i, "x");
    ASSERT_TRUE(appended.ok());
    ASSERT_EQ(appended->end, End::kUnresolved);
    EXPECT_NE(appended->attempt, last);
    last = appended->attempt;
  }
  EXPECT_EQ(a_.append(kLog, 5000, "x").error().code, Code::kLimit);
  EXPECT_EQ(nas_.draft_count(), ClaimStore::kUnresolvedMax) << "nothing was begun for it";
  a_.fail_next(Call::kRemoveDraft, 0, Fault::kRequestLost);
  EXPECT_EQ(a_.settle(last).error().code, Code::kUnavailable) << "not done, and never will be";
  a_.fail_next(Call::kLink, 0, Fault::kRequestLost);
  win(a_, kLog, 5000, "x");
}

TEST_F(FakeClaimsTest, RefusalsOfALinkAreToldWhenNothingWasDone) {
  for (const Code code :
       {Code::kNoSpace, Code::kQuota, Code::kReadOnly, Code::kPermission, Code::kUnsupported}) {
    a_.fail_next(Call::kLink, 1, Fault::kRefused, make_error(code, "planned"));
    const auto appended = a_.append(kLog, 1, "a's");
    ASSERT_FALSE(appended.ok());
    EXPECT_EQ(appended.error().code, code);
  }
  win(a_, kLog, 1, "a's");
}

TEST_F(FakeClaimsTest, MemberThatIsCutOffKnowsNothingAndSettlesAfterwards) {
  a_.fail_next(Call::kLink, 1, Fault::kReplyLost);
  a_.fail_next(Call::kRemoveDraft, 1, Fault::kReplyLost);
  const auto appended = a_.append(kLog, 1, "a's");
  ASSERT_EQ(appended->end, End::kUnresolved);
  a_.set_cut(true);
  EXPECT_EQ(a_.settle(appended->attempt)->end, End::kUnresolved);
  EXPECT_EQ(a_.head(kLog, 0, Read::kAsSeen).error().code, Code::kUnavailable);
  EXPECT_EQ(a_.append(kLog, 2, "a's").error().code, Code::kUnavailable);
  EXPECT_EQ(a_.write_member("a").code(), Code::kUnavailable);
  EXPECT_EQ(a_.list_members().error().code, Code::kUnavailable);
  EXPECT_EQ(a_.self_test().error().code, Code::kUnavailable);
  a_.set_cut(false);
  EXPECT_EQ(a_.settle(appended->attempt)->end, End::kWon);
}

TEST_F(FakeClaimsTest, LateMemberWriteShowsTheFormerRecordUntilTheNext) {
  a_.fail_next(Call::kWriteMember, 1, Fault::kLate);
  EXPECT_EQ(a_.write_member("1").code(), Code::kUnavailable);
  ASSERT_TRUE(a_.write_member("2").ok());
  EXPECT_EQ(nas_.run_late(), 1U);
  EXPECT_EQ(*b_.list_members()->front().bytes, "1");
  ASSERT_TRUE(a_.write_member("3").ok());
  EXPECT_EQ(*b_.list_members()->front().bytes, "3");
}

TEST_F(FakeClaimsTest, SelfTestFindsWhatItIsTold) {
  nas_.set_trait("hard links", false, "none here");
  nas_.set_clock_ahead_ms(-7000);
  const auto test = a_.self_test();
  ASSERT_TRUE(test.ok());
  EXPECT_FALSE(test->trusted_with_claims());
  EXPECT_EQ(test->traits.size(), 5U);
  EXPECT_TRUE(test->clock_known);
  EXPECT_EQ(test->clock_ahead_ms, -7000);
}

TEST(FakeClaims, IsTheSameInEveryRun) {
  const auto run = [] {
    FakeClaimNas nas;
    FakeClaims a(nas, "a", 1);
    EXPECT_TRUE(a.open_store().ok());
    win(a, kLog, 1, "x");
    win(a, kLog, 2, "x");
    return nas.slot_file(kLog, 1) + nas.slot_file(kLog, 2);
  };
  EXPECT_EQ(run(), run());
}

}  // namespace
}  // namespace cms::storage::testing
