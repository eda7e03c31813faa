#include "cms/daemon/member_keeper.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <functional>
#include <string>
#include <vector>

#include "storage/fake/fake_claims.h"

namespace cms::daemon {
namespace {

using ::testing::HasSubstr;
using State = MembersFacts::Member::State;

// A cmsd's share of it, with a loop that the test turns.
class Life {
 public:
  Life(const storage::FakeClaimNas& nas, const std::string& name, std::uint64_t incarnation)
      : claims(nas, name, incarnation), keeper(claims, outbox, core::Writer{name, incarnation}, "cmsd 1") {}

  // One round, from its beginning to its end.
  void round() {
    keeper.on_time(now_, true);
    now_ += core::kMemberRenewInterval;
    std::vector<Completion> completions;
    while (completions.empty()) {
      pollfd item{outbox.waker().fd(), POLLIN, 0};
      ASSERT_EQ(::poll(&item, 1, 20000), 1) << "the round does not end";
      outbox.waker().drain();
      outbox.take(completions);
    }
    core::Effects effects;
    for (Completion& completion : completions) completion(BootClock::now(), effects);
  }
  MembersFacts facts() const { return keeper.facts(BootClock::now()); }

  storage::FakeClaims claims;
  Outbox outbox;
  MemberKeeper keeper;

 private:
  Instant now_ = BootClock::now();
};

class MemberKeeperTest : public ::testing::Test {
 protected:
  storage::FakeClaimNas nas;
  Life a{nas, "cms-a", 11};
  Life b{nas, "cms-b", 22};
};

TEST_F(MemberKeeperTest, TwoSeeEachOther) {
  EXPECT_FALSE(a.facts().may_act);
  a.round();
  EXPECT_TRUE(a.facts().may_act);
  EXPECT_EQ(a.facts().trouble, "");
  EXPECT_TRUE(a.facts().members.empty());
  b.round();
  a.round();
  for (const auto& [facts, node, incarnation] :
       {std::tuple{a.facts(), "cms-b", 22U}, {b.facts(), "cms-a", 11U}}) {
    ASSERT_EQ(facts.members.size(), 1U);
    EXPECT_EQ(facts.members[0].node, node);
    EXPECT_EQ(facts.members[0].incarnation, incarnation);
    EXPECT_EQ(facts.members[0].state, State::kRenewed);
    EXPECT_EQ(facts.members[0].software, "cmsd 1");
    EXPECT_TRUE(facts.members[0].readable);
  }
}

TEST_F(MemberKeeperTest, ARoundIsDueEachSecondAndOnlyWithAStore) {
  const Instant now = BootClock::now();
  a.keeper.on_time(now, false);
  EXPECT_FALSE(a.claims.list_members().ok()) << "it has not even opened its store";
  a.round();
  b.round();
  const auto counter = [&] {
    const auto files = b.claims.list_members();
    for (const storage::MemberFile& file : *files) {
      if (file.node == "cms-a")
        return wire::decode_member_record(file.bytes->data(), file.bytes->size())->counter;
    }
    return std::uint64_t{0};
  };
  const std::uint64_t first = counter();
  EXPECT_GT(first, 0U);
  a.round();
  EXPECT_GT(counter(), first);
}

TEST_F(MemberKeeperTest, WhoEndsInOrderSaysSo) {
  b.round();
  b.keeper.stop();
  a.round();
  ASSERT_EQ(a.facts().members.size(), 1U);
  EXPECT_EQ(a.facts().members[0].state, State::kResigned);
}

TEST_F(MemberKeeperTest, ADamagedOrForeignRecordIsShownAsSuch) {
  b.round();
  nas.put_member_file("cms-b", 22, "not a member's record");
  nas.put_member_file("cms-c", 33, "");
  a.round();
  const MembersFacts facts = a.facts();
  ASSERT_EQ(facts.members.size(), 2U);
  EXPECT_FALSE(facts.members[0].readable);
  EXPECT_FALSE(facts.members[1].readable);
  EXPECT_EQ(facts.trouble, "");
}

TEST_F(MemberKeeperTest, WithoutTheStoreNothingIsRenewedAndItGoesOnByItself) {
  a.round();
  a.claims.set_cut(true);
  a.round();
  EXPECT_NE(a.facts().trouble, "");
  a.claims.set_cut(false);
  a.round();
  EXPECT_EQ(a.facts().trouble, "");
  EXPECT_TRUE(a.facts().may_act);
}

TEST_F(MemberKeeperTest, AWriteThatWasNotAnsweredIsNoRenewal) {
  a.claims.fail_next(storage::FakeClaimCall::kWriteMember, 1, storage::FakeClaimFault::kReplyLost);
  a.round();
  EXPECT_FALSE(a.facts().may_act);
  EXPECT_FALSE(a.facts().written_ago);
  a.round();
  EXPECT_TRUE(a.facts().may_act);
}

}  // namespace
}  // namespace cms::daemon
