// Every RPC of the steps of claims, lost, late, doubled, cut: never two winners, what is said to be won is
// durable, and what became of an append becomes known.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "storage/claim_names.h"
#include "storage/contract/claim_store_contract.h"
#include "storage/nfs/nfs_claims.h"
#include "storage/nfs/nfs_faults_test.h"
#include "storage/nfs/nfs_store.h"
#include "storage/nfs/nfs_url.h"

namespace cms::storage::testing {
namespace {

namespace fs = std::filesystem;
using End = Appended::End;
using Read = ClaimStore::Read;
using test::Fault;
using test::FaultRule;
using test::Procedure;
using test::WalkFault;
using test::Way;
using Action = Fault::Action;

const LogId kLog = log_in_shard(0x77, 1);

class NfsClaimFaults : public ServerBehindProxy {
 protected:
  void SetUp() override {
    ServerBehindProxy::SetUp();
    if (HasFatalFailure()) return;
    const auto target = parse_nfs_url(server().url());
    for (const auto& [node, claims, through] :
         {std::tuple{"a", &a_, proxy().url()}, std::tuple{"b", &b_, server().url()}}) {
      blobs_.push_back(make_nfs_store(*target, node, 1));
      ASSERT_TRUE(blobs_.back()->open_store().ok());
      *claims = make_nfs_claims(*parse_nfs_url(through), node, 1,
                                through == server().url() ? claim_timeouts() : impatient());
      const Status opened = (*claims)->open_store();
      ASSERT_TRUE(opened.ok()) << opened.error().message();
    }
  }
  void TearDown() override {
    (void)proxy().pass_all();
    a_.reset();
    b_.reset();
  }

  // Broken; the other one is not.
  ClaimStore& a() { return *a_; }
  ClaimStore& b() { return *b_; }
  Slot next_slot() { return ++slot_; }

  // Until the outcome is known.
  Result<Appended> settled(Result<Appended> appended) {
    const auto patience_ends = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (appended && appended->end == End::kUnresolved) {
      if (std::chrono::steady_clock::now() > patience_ends) {
        ADD_FAILURE() << "the outcome does not become known";
        break;
      }
      appended = a().settle(appended->attempt);
    }
    return appended;
  }
  std::string seen(Slot slot, Read how = Read::kAsSeen, const LogId& log = kLog) {
    const auto record = b().read(log, slot, how);
    return record ? record->bytes : std::string(to_string(record.error().code));
  }
  // One of a and b has the slot, and both know.
  void expect_one_winner(Slot slot, const Result<Appended>& mine, const Result<Appended>& others,
                         const LogId& log = kLog) {
    ASSERT_TRUE(others.ok()) << others.error().message();
    ASSERT_NE(others->end, End::kUnresolved);
    const bool won = mine && mine->end == End::kWon;
    EXPECT_NE(won, others->end == End::kWon) << "two winners, or none";
    EXPECT_EQ(seen(slot, Read::kDurable, log), won ? "a's" : "b's");
  }
  void answer(Procedure procedure, Way way, std::uint32_t status, std::size_t times = 1) {
    Fault fault{Action::kAnswer};
    fault.status = status;
    proxy().add(FaultRule{procedure, way, fault, 0, times});
  }
  // What was called since the counts were reset, without what it takes to connect.
  std::vector<Procedure> calls() {
    std::vector<Procedure> calls = proxy().sequence();
    calls.erase(std::remove_if(calls.begin(), calls.end(), &is_of_connecting), calls.end());
    return calls;
  }
  static bool is_of_connecting(Procedure procedure) {
    return procedure == Procedure::kNull || procedure == Procedure::kFsinfo ||
           static_cast<std::uint32_t>(procedure) >= 100;
  }
  void strike(Procedure procedure, Way way, Action action, std::size_t times = 1) {
    proxy().add(FaultRule{procedure, way, Fault{action}, 0, times});
  }

  std::vector<std::unique_ptr<BlobStore>> blobs_;
  std::unique_ptr<ClaimStore> a_;
  std::unique_ptr<ClaimStore> b_;
  Slot slot_ = 0;
};

class NfsClaimWalk : public NfsClaimFaults {
 protected:
  void walk(const std::function<void()>& scenario, std::size_t calls_min,
            const std::vector<WalkFault>& faults = walked_faults()) {
    const auto result = test::walk_faults(
        proxy(),
        [&](const test::WalkStep& step) {
          SCOPED_TRACE(step.name);
          scenario();
        },
        faults, 3);
    EXPECT_GE(result.calls, calls_min);
    EXPECT_GT(result.runs, result.calls);
    RecordProperty("runs", static_cast<int>(result.runs));
  }
  // Tries again as whoever reads does.
  void until_ok(const std::function<Status()>& call) {
    const auto patience_ends = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (true) {
      const Status status = call();
      if (status.ok()) return;
      ASSERT_EQ(status.code(), Code::kUnavailable) << status.error().message();
      ASSERT_LT(std::chrono::steady_clock::now(), patience_ends) << status.error().message();
    }
  }
};

TEST_F(NfsClaimWalk, AppendThatNobodyWasFasterThan) {
  walk(
      [&] {
        const Slot slot = next_slot();
        auto mine = a().append(kLog, slot, "a's");
        // Before what is late is executed; the outcome is not known to a perhaps.
        const auto others = b().append(kLog, slot, "b's");
        ASSERT_TRUE(proxy().release());
        mine = settled(mine);
        expect_one_winner(slot, mine, others);
      },
      5);
}

TEST_F(NfsClaimWalk, AppendWhoseLateCallsAreExecutedBeforeAnother) {
  walk(
      [&] {
        const Slot slot = next_slot();
        auto mine = a().append(kLog, slot, "a's");
        ASSERT_TRUE(proxy().release());
        const auto others = b().append(kLog, slot, "b's");
        mine = settled(mine);
        expect_one_winner(slot, mine, others);
      },
      5);
}

TEST_F(NfsClaimWalk, AppendThatLoses) {
  walk(
      [&] {
        const Slot slot = next_slot();
        const auto others = b().append(kLog, slot, "b's");
        auto mine = a().append(kLog, slot, "a's");
        ASSERT_TRUE(proxy().release());
        mine = settled(mine);
        expect_one_winner(slot, mine, others);
        EXPECT_TRUE(!mine || mine->end == End::kLost);
      },
      6);
}

// Three at once, one of which is lost from the start.
TEST_F(NfsClaimWalk, ManyAppendsAtOnce) {
  const std::vector<LogId> logs = {log_in_shard(0x70, 1), log_in_shard(0x71, 1), log_in_shard(0x71, 2)};
  for (const bool late_before_others : {false, true}) {
    walk(
        [&] {
          const Slot slot = next_slot();
          std::vector<Append> appends;
          for (const LogId& log : logs) appends.push_back({log, slot, "a's"});
          const auto first = b().append(logs[1], slot, "b's");
          auto mine = a().append_many(appends);
          ASSERT_EQ(mine.size(), logs.size());
          if (late_before_others) {
            ASSERT_TRUE(proxy().release());
          }
          const std::vector<Result<Appended>> others = {b().append(logs[0], slot, "b's"), first,
                                                        b().append(logs[2], slot, "b's")};
          ASSERT_TRUE(proxy().release());
          for (std::size_t i = 0; i < logs.size(); ++i) {
            SCOPED_TRACE(i);
            expect_one_winner(slot, settled(mine[i]), others[i], logs[i]);
          }
        },
        2 * 5 + 6, late_before_others ? std::vector<WalkFault>{WalkFault::kRequestLate} : walked_faults());
  }
}

TEST_F(NfsClaimWalk, ManySlotsAndHeads) {
  std::vector<LogSlot> hints;
  std::vector<LogSlot> next;
  for (std::uint32_t i = 0; i < 3; ++i) {
    const LogId log = log_in_shard(0x60 + i, i);
    for (Slot slot = 1; slot <= 2; ++slot) win(b(), log, slot, std::to_string(slot));
    hints.push_back({log, i});  // None, too small, right.
    next.push_back({log, i + 1});
  }
  std::vector<WalkFault> faults;
  for (const WalkFault fault : walked_faults()) {
    if (fault != WalkFault::kRequestLate) faults.push_back(fault);
  }
  walk(
      [&] {
        until_ok([&]() -> Status {
          for (const auto& head : a().heads(hints, Read::kDurable)) {
            if (!head) return head.error();
            EXPECT_EQ(head->slot, 2U);
            EXPECT_EQ(head->bytes, "2");
          }
          return ok_status();
        });
        until_ok([&]() -> Status {
          const auto taken = a().has_slots(next);
          for (std::size_t i = 0; i < taken.size(); ++i) {
            if (!taken[i]) return taken[i].error();
            EXPECT_EQ(*taken[i], i < 2) << i;
          }
          return ok_status();
        });
      },
      12, faults);
}

TEST_F(NfsClaimWalk, HeadReadAndLists) {
  for (Slot slot = 1; slot <= 3; ++slot) win(b(), kLog, slot, std::to_string(slot));
  const std::string of_several_sectors(kMemberBytesMax, 'b');
  ASSERT_TRUE(b().write_member(of_several_sectors).ok());
  std::vector<WalkFault> faults;
  for (const WalkFault fault : walked_faults()) {  // That it is executed late is nothing to a reader.
    if (fault != WalkFault::kRequestLate) faults.push_back(fault);
  }
  walk(
      [&] {
        for (const Slot hint : {Slot{0}, Slot{2}}) {
          until_ok([&]() -> Status {
            const auto head = a().head(kLog, hint, hint == 2 ? Read::kDurable : Read::kAsSeen);
            if (!head) return head.error();
            EXPECT_EQ(head->slot, 3U);
            EXPECT_EQ(head->bytes, "3");
            return ok_status();
          });
        }
        until_ok([&] {
          std::map<LogId, Slot> heads;
          const Status listed = a().list_logs(
              0x77, [&](const LogId& log, Slot head) { heads[log] = head; }, nullptr);
          EXPECT_TRUE(!listed.ok() || heads == (std::map<LogId, Slot>{{kLog, 3}}));
          return listed;
        });
        until_ok([&]() -> Status {
          const auto members = a().list_members();
          if (!members) return members.error();
          EXPECT_EQ(members->size(), 1U);
          EXPECT_TRUE(*members->front().bytes == of_several_sectors);
          return ok_status();
        });
      },
      10, faults);
}

TEST_F(NfsClaimWalk, MemberRecord) {
  int count = 0;
  walk(
      [&] {
        std::string record = "record " + std::to_string(++count);
        if (count % 2 == 0) record.resize(kMemberBytesMax, 'x');
        until_ok([&] { return b().remove_member("a", 1); });  // Each time a new file.
        until_ok([&] { return a().write_member(record); });
        ASSERT_TRUE(proxy().release());
        const auto members = b().list_members();
        ASSERT_TRUE(members.ok());
        ASSERT_EQ(members->size(), 1U);
        ASSERT_TRUE(members->front().bytes.ok()) << members->front().bytes.error().message();
        EXPECT_TRUE(*members->front().bytes == record);
        until_ok([&] { return a().remove_member("nobody", 1); });
      },
      4);
}

// What became of the link of an attempt that is unresolved.
enum class Link { kDone, kNeverDone, kLateBefore, kLateAfter };

TEST_F(NfsClaimFaults, EveryCallOfSettlingStruckInEveryWay) {
  std::map<End, int> ends;
  int errors = 0;
  const auto run = [&](Link link, const std::function<void()>& break_settling) {
    const Slot slot = next_slot();
    const bool late = link == Link::kLateBefore || link == Link::kLateAfter;
    strike(Procedure::kLink, link == Link::kDone ? Way::kReply : Way::kRequest,
           late ? Action::kHold : Action::kCut);
    strike(Procedure::kRemove, Way::kRequest, Action::kCut, 2);
    auto mine = a().append(kLog, slot, "a's");
    ASSERT_TRUE(mine.ok()) << mine.error().message();
    ASSERT_EQ(mine->end, End::kUnresolved);
    ASSERT_TRUE(link != Link::kLateBefore || proxy().release());
    break_settling();
    mine = settled(mine);
    ASSERT_TRUE(proxy().release());
    const auto others = b().append(kLog, slot, "b's");
    expect_one_winner(slot, mine, others);
    EXPECT_EQ(mine.ok(), link == Link::kDone || link == Link::kLateBefore);
    if (mine) {
      ++ends[mine->end];
    } else {
      ++errors;
    }
    (void)proxy().pass_all();
  };
  std::size_t count = 0;
  run(Link::kDone, [&] {
    proxy().decide_by([&](const test::SeenRpc& rpc) {
      if (rpc.way == Way::kRequest && !is_of_connecting(rpc.procedure)) ++count;
      return Fault{};
    });
  });
  ASSERT_EQ(count, 6U) << "REMOVE, LOOKUP, READ, LOOKUP, READ, COMMIT";
  const std::map<WalkFault, std::pair<Way, Action>> ways = {
      {WalkFault::kRequestLost, {Way::kRequest, Action::kDrop}},
      {WalkFault::kReplyLost, {Way::kReply, Action::kDrop}},
      {WalkFault::kRequestCut, {Way::kRequest, Action::kCut}},
      {WalkFault::kReplyCut, {Way::kReply, Action::kCut}},
      {WalkFault::kRequestLate, {Way::kRequest, Action::kLate}},
      {WalkFault::kRequestDoubled, {Way::kRequest, Action::kDouble}}};
  for (const WalkFault fault : walked_faults()) {
    const auto way = ways.find(fault);
    if (way == ways.end()) continue;
    for (const Link link : {Link::kDone, Link::kNeverDone, Link::kLateBefore, Link::kLateAfter}) {
      // The others take the same ways, and their time.
      if (fault != WalkFault::kReplyCut && link != Link::kDone) continue;
      for (std::size_t index = 0; index < count; ++index) {
        SCOPED_TRACE(::testing::Message() << "fault " << static_cast<int>(fault) << " link "
                                          << static_cast<int>(link) << " call " << index);
        std::size_t seen = 0;
        std::size_t struck = SIZE_MAX;  // The call that is.
        run(link, [&] {
          proxy().decide_by([&](const test::SeenRpc& rpc) {
            if (rpc.way == Way::kRequest && !is_of_connecting(rpc.procedure) && seen++ == index) {
              struck = rpc.call_index;
            }
            const bool strikes = rpc.call_index == struck && rpc.way == way->second.first;
            return strikes ? Fault{way->second.second} : Fault{};
          });
        });
        if (HasFailure()) return;
      }
    }
  }
  EXPECT_GT(ends[End::kWon], 0);
  EXPECT_GT(errors, 0);
}

// ---- what a link returned is not the answer

TEST_F(NfsClaimFaults, LinkThatSaysExistsThoughItWasDoneHasWon) {
  answer(Procedure::kLink, Way::kReply, 17);
  const auto appended = a().append(kLog, 1, "a's");
  ASSERT_TRUE(appended.ok()) << appended.error().message();
  EXPECT_EQ(appended->end, End::kWon);
  EXPECT_EQ(seen(1), "a's");
}

TEST_F(NfsClaimFaults, LinkThatSaysAnythingElseThoughItWasDoneHasWon) {
  Slot slot = 0;
  for (const std::uint32_t status : {1U, 2U, 5U, 13U, 18U, 28U, 30U, 69U, 70U, 10004U, 10006U, 10008U}) {
    answer(Procedure::kLink, Way::kReply, status);
    const auto appended = a().append(kLog, ++slot, "a's");
    ASSERT_TRUE(appended.ok()) << status << ": " << appended.error().message();
    EXPECT_EQ(appended->end, End::kWon) << status;
    EXPECT_EQ(seen(slot), "a's");
  }
}

TEST_F(NfsClaimFaults, CreateThatSaysExistsOfOurOwnNameWasDoubled) {
  answer(Procedure::kCreate, Way::kReply, 17);
  win(a(), kLog, 1, "a's");
}

TEST_F(NfsClaimFaults, LateLinkAfterAnothersAppendFindsNothingToLink) {
  strike(Procedure::kLink, Way::kRequest, Action::kHold);
  const auto mine = a().append(kLog, 1, "a's");
  ASSERT_FALSE(mine.ok()) << "its private name has gone, and the slot was free";
  EXPECT_EQ(mine.error().code, Code::kUnavailable);
  EXPECT_EQ(proxy().held(), 1U);
  win(b(), kLog, 1, "b's");
  ASSERT_TRUE(proxy().release());
  EXPECT_EQ(seen(1), "b's");
  // Nor does it when nobody has the slot.
  strike(Procedure::kLink, Way::kRequest, Action::kHold);
  ASSERT_FALSE(a().append(kLog, 2, "a's").ok());
  ASSERT_TRUE(proxy().release());
  EXPECT_EQ(seen(2), "not found");
}

TEST_F(NfsClaimFaults, WhatIsRefusedIsToldAndTheSlotIsFree) {
  const std::map<std::uint32_t, Code> expected = {{28, Code::kNoSpace},     {69, Code::kQuota},
                                                  {30, Code::kReadOnly},    {13, Code::kPermission},
                                                  {5, Code::kIo},           {10004, Code::kUnsupported},
                                                  {70, Code::kUnavailable}, {10008, Code::kUnavailable},
                                                  {17, Code::kUnavailable}};
  for (const auto& [status, code] : expected) {
    for (const Procedure procedure : {Procedure::kLink, Procedure::kWrite, Procedure::kCreate}) {
      if (status == 17 && procedure != Procedure::kLink) continue;
      answer(procedure, Way::kRequest, status, 2);  // A stale handle is tried again.
      const auto appended = a().append(kLog, 1, "a's");
      (void)proxy().pass_all();
      ASSERT_FALSE(appended.ok()) << status << " to " << to_string(procedure);
      EXPECT_EQ(appended.error().code, code) << appended.error().message();
      EXPECT_EQ(seen(1), "not found");
    }
  }
  win(a(), kLog, 1, "a's");
}

// ---- what is won is durable

TEST_F(NfsClaimFaults, WithoutAnAnswerToACommitNothingIsWon) {
  for (const bool answered : {false, true}) {
    const Slot slot = next_slot();
    if (answered) {
      answer(Procedure::kCommit, Way::kRequest, 5, 0);
    } else {
      strike(Procedure::kCommit, Way::kRequest, Action::kCut, 0);
    }
    auto mine = a().append(kLog, slot, "a's");
    ASSERT_TRUE(mine.ok()) << mine.error().message();
    ASSERT_EQ(mine->end, End::kUnresolved);
    ASSERT_EQ(seen(slot), "a's") << "it is there, but not for sure";
    for (int tries = 0; tries < 3; ++tries) {
      mine = a().settle(mine->attempt);
      ASSERT_TRUE(mine.ok()) << mine.error().message();
      EXPECT_EQ(mine->end, End::kUnresolved);
    }
    EXPECT_FALSE(a().read(kLog, slot, Read::kDurable).ok());
    (void)proxy().pass_all();
    EXPECT_EQ(a().settle(mine->attempt)->end, End::kWon);
    EXPECT_TRUE(a().read(kLog, slot, Read::kDurable).ok());
  }
}

TEST_F(NfsClaimFaults, CommitOfAnotherLifeOfTheServerIsNoProofThatTheNameIsThere) {
  proxy().reset_counts();
  strike(Procedure::kCommit, Way::kReply, Action::kFlip);
  win(a(), kLog, 1, "a's");
  // CREATE, WRITE, LINK, COMMIT; then it is found out, and committed again.
  ASSERT_TRUE(proxy().wait_for_calls(Procedure::kCommit, 2));
  EXPECT_EQ(calls(), (std::vector<Procedure>{Procedure::kCreate, Procedure::kWrite, Procedure::kLink,
                                             Procedure::kCommit, Procedure::kRemove, Procedure::kLookup,
                                             Procedure::kRead, Procedure::kLookup, Procedure::kRead,
                                             Procedure::kCommit}));
}

TEST_F(NfsClaimFaults, WonSlotTakesFiveCallsAndALostOneSix) {
  proxy().reset_counts();
  win(a(), kLog, 1, "a's");
  ASSERT_TRUE(proxy().wait_for_calls(Procedure::kRemove, 1));
  EXPECT_EQ(calls(), (std::vector<Procedure>{Procedure::kCreate, Procedure::kWrite, Procedure::kLink,
                                             Procedure::kCommit, Procedure::kRemove}));
  proxy().reset_counts();
  EXPECT_EQ(a().append(kLog, 1, "a's")->end, End::kLost);
  EXPECT_EQ(calls(), (std::vector<Procedure>{Procedure::kCreate, Procedure::kWrite, Procedure::kLink,
                                             Procedure::kRemove, Procedure::kLookup, Procedure::kRead}));
}

TEST_F(NfsClaimFaults, AskingForASlotTakesOneCallAndForAKnownHeadFour) {
  win(b(), kLog, 1, "b's");
  proxy().reset_counts();
  EXPECT_FALSE(*a().has_slot(kLog, 2));
  EXPECT_EQ(calls(), std::vector<Procedure>{Procedure::kLookup});
  proxy().reset_counts();
  EXPECT_EQ(a().head(kLog, 1, Read::kDurable)->slot, 1U);
  EXPECT_EQ(calls(), (std::vector<Procedure>{Procedure::kLookup, Procedure::kLookup, Procedure::kRead,
                                             Procedure::kCommit}));
}

TEST_F(NfsClaimFaults, ManyGoSideBySide) {
  constexpr std::size_t kCount = 20;
  std::vector<Append> appends;
  for (std::size_t i = 0; i < kCount; ++i) appends.push_back({log_in_shard(0x10, i), 1, "c's"});
  const auto blobs = make_nfs_store(*parse_nfs_url(server().url()), "c", 1);
  ASSERT_TRUE(blobs->open_store().ok());
  const auto c = make_nfs_claims(*parse_nfs_url(proxy().url()), "c", 1);
  ASSERT_TRUE(c->open_store().ok());
  for (const Procedure procedure :
       {Procedure::kCreate, Procedure::kWrite, Procedure::kLink, Procedure::kCommit}) {
    for (Append& append : appends) append.slot = next_slot();
    strike(procedure, Way::kRequest, Action::kHold, kCount);
    std::vector<Result<Appended>> ends;
    std::thread appender([&] { ends = c->append_many(appends); });
    EXPECT_TRUE(proxy().wait_for_held(kCount)) << to_string(procedure);
    EXPECT_TRUE(proxy().release());
    appender.join();
    for (const auto& end : ends) EXPECT_EQ(end->end, End::kWon) << to_string(procedure);
  }
}

TEST_F(NfsClaimFaults, ServerThatGoesInTheMiddleOfManyLeavesNoneInDoubtForLong) {
  constexpr std::size_t kCount = 40;
  std::vector<Append> appends;
  for (std::size_t i = 0; i < kCount; ++i) appends.push_back({log_in_shard(0x20, i), 1, "a's"});
  Fault cut{Action::kCut};
  proxy().add(FaultRule{Procedure::kLink, Way::kReply, cut, kCount / 2, 0});
  auto ends = a().append_many(appends);
  (void)proxy().pass_all();
  for (std::size_t i = 0; i < kCount; ++i) {
    const auto end = settled(ends[i]);
    EXPECT_EQ(seen(1, Read::kDurable, appends[i].log), end && end->end == End::kWon ? "a's" : "not found")
        << i;
  }
}

TEST_F(NfsClaimFaults, ShortWriteIsNoRecord) {
  strike(Procedure::kWrite, Way::kReply, Action::kShortWrite);
  EXPECT_EQ(a().append(kLog, 1, "a's").error().code, Code::kIo);
  strike(Procedure::kWrite, Way::kReply, Action::kShortWrite);
  EXPECT_EQ(a().write_member("x").code(), Code::kIo);
  EXPECT_EQ(seen(1), "not found");
}

// ---- outages

TEST_F(NfsClaimFaults, KilledAndRestartedServerHasEverythingThatWasWon) {
  Slot next = 1;
  for (int round = 0; round < 4; ++round) {
    for (int i = 0; i < 5; ++i) win(b(), kLog, next++, "b's");
    server().kill9();
    EXPECT_EQ(b().append(kLog, next, "b's").error().code, Code::kUnavailable);
    EXPECT_EQ(b().head(kLog, 1, Read::kAsSeen).error().code, Code::kUnavailable);
    const Status restarted = server().restart();
    ASSERT_TRUE(restarted.ok()) << restarted.error().message();
    const auto patience_ends = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    auto head = b().head(kLog, next - 1, Read::kDurable);
    while (!head && std::chrono::steady_clock::now() < patience_ends) {
      head = b().head(kLog, next - 1, Read::kDurable);
    }
    ASSERT_TRUE(head.ok()) << head.error().message();
    EXPECT_EQ(head->slot, next - 1);
  }
}

TEST_F(NfsClaimFaults, DirectoriesThatWereReplacedAreFoundAgain) {
  const std::string shard = server().export_path() + "/claims/" + log_shard_name(0x77);
  // As after a restore of the export: the same names, other handles.
  const auto replace = [&] {
    fs::rename(shard, shard + ".old");
    fs::copy(shard + ".old", shard);
    fs::remove_all(shard + ".old");
  };
  // The first link may lead nowhere; it is said that it did.
  const auto win_at_last = [&](Slot slot, const std::string& record) {
    const auto appended = a().append(kLog, slot, record);
    if (appended) {
      EXPECT_EQ(appended->end, End::kWon);
    } else {
      EXPECT_EQ(appended.error().code, Code::kUnavailable) << appended.error().message();
      win(a(), kLog, slot, record);
    }
    EXPECT_EQ(a().head(kLog, 0, Read::kDurable)->bytes, record);
    EXPECT_TRUE(fs::exists(shard + "/" + slot_file_name(kLog, slot)));
  };
  win_at_last(1, "one");
  replace();
  win_at_last(2, "two");
  replace();
  win_at_last(3, "three");
  fs::remove_all(shard);  // Somebody tidied up.
  win_at_last(1, "a new log");
}

TEST_F(NfsClaimFaults, WhatIsUnresolvedAtTheEndIsCancelled) {
  strike(Procedure::kLink, Way::kRequest, Action::kHold);
  strike(Procedure::kRemove, Way::kRequest, Action::kCut, 2);
  ASSERT_EQ(a().append(kLog, 1, "a's")->end, End::kUnresolved);
  const std::string tmp = server().export_path() + "/tmp/a.0000000000000001";
  EXPECT_FALSE(fs::is_empty(tmp));
  a_.reset();
  EXPECT_TRUE(fs::is_empty(tmp));
  ASSERT_TRUE(proxy().release());
  EXPECT_EQ(seen(1), "not found");
}

}  // namespace
}  // namespace cms::storage::testing
