#include "cms/core/members.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

namespace cms::core {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

const Writer kMe{"cms-a", 11};
const Writer kOther{"cms-b", 22};
const Writer kOtherNext{"cms-b", 23};

class MembersTest : public ::testing::Test {
 protected:
  static Members::Seen seen(const Writer& life, std::uint64_t counter) {
    wire::MemberRecord record;
    record.node = life.name;
    record.incarnation = life.incarnation;
    record.counter = counter;
    return Members::Seen{life.name, life.incarnation, record};
  }
  static Members::Seen torn(const Writer& life) {
    return Members::Seen{life.name, life.incarnation, make_error(Code::kCorrupt, "torn")};
  }
  // A look that takes no time.
  void look(const std::vector<Members::Seen>& files) { members.on_read(now, now, files); }
  // So many seconds, with a look in each; the other is seen with this counter, or one more each second.
  void look_for(int count, std::uint64_t counter, bool renewing = false) {
    for (int i = 0; i < count; ++i) {
      now += seconds(1);
      look({seen(kOther, renewing ? ++counter : counter)});
    }
  }
  bool stale(const Writer& life = kOther) const { return members.is_stale(life, now); }

  Instant now{std::chrono::hours(1)};
  Members members{kMe, MemberTimers{seconds(3), seconds(12)}};
};

TEST_F(MembersTest, EachRecordHasALargerCounter) {
  const auto first = members.next_record(1, "cmsd 1", false);
  const auto second = members.next_record(2, "cmsd 1", true);
  EXPECT_EQ(first.node, "cms-a");
  EXPECT_EQ(first.incarnation, 11U);
  EXPECT_GT(second.counter, first.counter);
  EXPECT_FALSE(first.resigned);
  EXPECT_TRUE(second.resigned);
}

TEST_F(MembersTest, ActingEndsWithTSelfAfterTheSendingOfTheLastGoodWrite) {
  EXPECT_FALSE(members.may_act(now));
  const Instant sent = now;
  members.on_written(sent);
  EXPECT_TRUE(members.may_act(sent + milliseconds(2999)));
  EXPECT_FALSE(members.may_act(sent + seconds(3)));
  members.on_written(sent + seconds(5));
  members.on_written(sent + seconds(4));  // Its answer came later.
  EXPECT_TRUE(members.may_act(sent + milliseconds(7999)));
}

TEST_F(MembersTest, WhoRenewsIsNeverStale) {
  look_for(100, 1, true);
  EXPECT_FALSE(stale());
}

TEST_F(MembersTest, WhoDoesNotRenewIsStaleAfterTMember) {
  look({seen(kOther, 5)});
  look_for(11, 5);
  EXPECT_FALSE(stale());
  look_for(1, 5);
  EXPECT_TRUE(stale());
  look_for(1, 6);
  EXPECT_FALSE(stale()) << "it was only slow";
}

TEST_F(MembersTest, ResigningVanishingAndTearingDoNotKillAtOnce) {
  look({seen(kOther, 5)});
  now += seconds(1);
  look({});
  EXPECT_FALSE(stale());
  for (int i = 0; i < 10; ++i) {
    now += seconds(1);
    look({torn(kOther)});
  }
  EXPECT_FALSE(stale());
  now += seconds(1);
  look({});
  EXPECT_TRUE(stale());
}

TEST_F(MembersTest, ANextLifeSaysNothingAboutTheFormer) {
  look({seen(kOther, 5)});
  for (int i = 0; i < 5; ++i) {
    now += seconds(1);
    look({seen(kOther, 5), seen(kOtherNext, static_cast<std::uint64_t>(i) + 1)});
  }
  EXPECT_FALSE(stale());
  EXPECT_FALSE(stale(kOtherNext));
}

// An outage of the store stops everybody's renewing, and ours of looking.
TEST_F(MembersTest, NobodyIsBuriedForOurBlindness) {
  look_for(5, 1, true);
  now += seconds(60);
  EXPECT_FALSE(stale()) << "we have not looked";
  look({seen(kOther, 6)});
  EXPECT_FALSE(stale());
  look_for(11, 6);
  EXPECT_FALSE(stale());
  look_for(1, 6);
  EXPECT_TRUE(stale());
}

TEST_F(MembersTest, ALookThatTookLongIsOldNews) {
  look({seen(kOther, 5)});
  for (int i = 0; i < 10; ++i) {
    now += seconds(1);
    look({seen(kOther, 5)});
  }
  // Ten seconds unchanged. The next look begins in time and ends late: the file may have been read first.
  const Instant begun = now + seconds(1);
  now += seconds(9);
  members.on_read(begun, now, {seen(kOther, 5)});
  EXPECT_FALSE(stale());
  now += seconds(1);
  look({seen(kOther, 5)});
  EXPECT_TRUE(stale());
}

TEST_F(MembersTest, ALifeThatWasNeverSeenIsAliveUntilWeHaveLookedForTMember) {
  EXPECT_FALSE(stale());
  look({});
  EXPECT_FALSE(stale());
  for (int i = 0; i < 11; ++i) {
    now += seconds(1);
    look({});
  }
  EXPECT_FALSE(stale()) << "it may have written its claim before its first record that we could see";
  now += seconds(1);
  look({});
  EXPECT_TRUE(stale());
}

TEST_F(MembersTest, ALifeThatBeganAfterOurLastLookIsAlive) {
  look_for(30, 5, true);
  EXPECT_FALSE(stale(kOtherNext)) << "its first record and its claim may be younger than our last look";
  look_for(11, 40, true);
  EXPECT_FALSE(stale(kOtherNext));
  look_for(1, 60, true);
  EXPECT_TRUE(stale(kOtherNext));
}

TEST_F(MembersTest, WeAreNeverStaleToOurselves) {
  for (int i = 0; i < 20; ++i) {
    now += seconds(1);
    look({seen(kMe, 1)});
  }
  EXPECT_FALSE(stale(kMe));
  EXPECT_TRUE(members.members().empty());
}

TEST_F(MembersTest, FilesOfTheDeadGoAfterAnHourOursSooner) {
  const Writer my_former{kMe.name, 10};
  const auto both = [&] { look({seen(kOther, 5), seen(my_former, 7)}); };
  both();
  const auto names = [&] {
    std::string text;
    for (const Writer& life : members.removable(now))
      text += life.name + "." + std::to_string(life.incarnation) + " ";
    return text;
  };
  for (int i = 0; i < 23; ++i) now += seconds(1), both();
  EXPECT_EQ(names(), "");
  now += seconds(1), both();
  EXPECT_EQ(names(), "cms-a.10 ");
  for (int i = 24; i < 3599; ++i) now += seconds(1), both();
  EXPECT_EQ(names(), "cms-a.10 ");
  now += seconds(1), both();
  EXPECT_EQ(names(), "cms-a.10 cms-b.22 ");
  now += seconds(1);
  look({});
  EXPECT_TRUE(members.members().empty()) << "gone, and forgotten";
}

TEST_F(MembersTest, TheTableIsBounded) {
  std::vector<Members::Seen> many;
  for (std::uint64_t i = 1; i <= 2 * kMemberCountMax; ++i) many.push_back(seen(Writer{"n", i}, 1));
  for (int i = 0; i < 20; ++i) now += seconds(1), look(many);
  EXPECT_EQ(members.members().size(), kMemberCountMax);
  EXPECT_FALSE(stale(Writer{"n", 2 * kMemberCountMax})) << "there was no room to watch it";
}

}  // namespace
}  // namespace cms::core
