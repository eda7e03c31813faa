// `cms-admin peers`: two views of the same cmsd side by side.
#include "cms/daemon/admin_fixture_test.h"

namespace cms::daemon {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class AdminPeersTest : public AdminFixture {
 protected:
  json peers() {
    const wire::AdminRequest request = ask_for(AdminMethod::kPeers);
    const auto answered = answer(request, snapshot_of(core_, now_, facts_, request), index_, store_);
    EXPECT_EQ(answered.code, Code::kOk) << answered.context;
    return json::parse(answered.json);
  }
  void hear(const std::string& name, std::uint64_t incarnation) {
    wire::PeerMessage message;
    message.cms_name = name;
    message.incarnation = incarnation;
    wire::PeerBeat beat;
    beat.takes_pulls = true;
    message.body = beat;
    core_.on_peer(now_, "10.0.0.8", message, effects_);
  }
  static MembersFacts::Member member(const std::string& node, std::uint64_t incarnation,
                                     MembersFacts::Member::State state, Duration unchanged) {
    MembersFacts::Member one;
    one.node = node;
    one.incarnation = incarnation;
    one.state = state;
    one.unchanged = unchanged;
    one.software = "cmsd 1";
    return one;
  }
};

TEST_F(AdminPeersTest, AloneThereIsOnlyOurOwnRecord) {
  facts_.members.incarnation = 0xabc;
  json alone = peers();
  EXPECT_EQ(alone.at("name"), "a");
  EXPECT_EQ(alone.at("incarnation"), "0000000000000abc");
  EXPECT_EQ(alone.at("acts"), false);
  EXPECT_TRUE(alone.at("renewed_ago_ms").is_null());
  EXPECT_TRUE(alone.at("trouble").is_null());
  EXPECT_EQ(alone.at("peers"), json::array());
  facts_.members.may_act = true;
  facts_.members.written_ago = milliseconds(740);
  facts_.members.trouble = "list nodes: no answer";
  alone = peers();
  EXPECT_EQ(alone.at("acts"), true);
  EXPECT_EQ(alone.at("renewed_ago_ms"), 740);
  EXPECT_EQ(alone.at("trouble"), "list nodes: no answer");
}

TEST_F(AdminPeersTest, EachLifeIsOneWithWhatIsHeardAndWhatItsRecordSays) {
  using State = MembersFacts::Member::State;
  hear("b", 5);
  hear("d", 7);
  facts_.members.members = {member("b", 4, State::kStale, seconds(40)),
                            member("b", 5, State::kRenewed, milliseconds(300)),
                            member("c", 6, State::kResigned, seconds(2))};
  facts_.members.members[2].readable = false;
  const json all = peers().at("peers");
  ASSERT_EQ(all.size(), 4U);
  EXPECT_EQ(all[0].at("name"), "b");
  EXPECT_EQ(all[0].at("incarnation"), "0000000000000004");
  EXPECT_TRUE(all[0].at("network").is_null()) << "a former life is not heard";
  EXPECT_EQ(all[0].at("record"), "stale");
  EXPECT_EQ(all[0].at("record_unchanged_ms"), 40000);
  EXPECT_EQ(all[1].at("network"), "live");
  EXPECT_EQ(all[1].at("address"), "10.0.0.8");
  EXPECT_EQ(all[1].at("takes_pulls"), true);
  EXPECT_EQ(all[1].at("record"), "renewed");
  EXPECT_EQ(all[1].at("software"), "cmsd 1");
  EXPECT_EQ(all[2].at("name"), "c");
  EXPECT_EQ(all[2].at("record"), "resigned");
  EXPECT_EQ(all[2].at("record_readable"), false);
  EXPECT_EQ(all[3].at("name"), "d");
  EXPECT_TRUE(all[3].at("record").is_null()) << "heard, but not on this store";
}

}  // namespace
}  // namespace cms::daemon
