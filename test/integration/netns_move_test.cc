// One of three programs of the ECU `e` is moved to `first` by the cmsd `a`, in a network that is really cut: `a` stands still
// at a named point, links are cut, and it goes on. The programs count into one ledger: none runs twice, none goes back.
//
// | `a` is                          | cut from each other | the end, before it is healed                                  |
// | ------------------------------- | ------------------- | ------------------------------------------------------------- |
// | about to freeze it              | a–e                 | RELEASE by a: it was never frozen                             |
// |                                 | a–e, b–e            | e is LOST: all three are restored elsewhere                   |
// |                                 | a–first             | RELEASE by a, `first` being silent: thawed by b               |
// | about to write ACT              | a–first             | finished by b: b tells `first` to run it, and writes DONE     |
// | about to tell `first` to run it | a–first             | the same                                                      |
// |                                 | a–first, b–first    | ABORT when `first` is LOST: e goes on                         |
// |                                 | a–e                 | DONE by a; b tells e that it has gone                         |
// |                                 | a–e, b–e            | DONE by a; then e is LOST, and the other two are restored     |
// |                                 | a–b                 | DONE by a                                                     |
// | about to write DONE             | a–first             | DONE by a                                                     |
// | about to tell of DONE           | a–e                 | b tells e that it has gone                                    |
#include <gtest/gtest.h>

#include <csignal>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "test/integration/leases.h"
#include "test/integration/ledger.h"
#include "test/integration/netns_fleet.h"

namespace cms::test {
namespace {

using nlohmann::json;

constexpr std::size_t kAll = CountingEcus::kPrograms;

struct Case {
  const char* name;
  const char* point;
  std::vector<std::pair<std::string, std::string>> cut;
  bool is_moved =
      false;  // By plan: it goes on at `first` from where it stood. Else who asked is told that it was not.
  std::size_t elsewhere = 0;  // So many programs go on as second copies.
  const char* head = "";      // Of its log.
};
void PrintTo(const Case& one, std::ostream* out) { *out << one.name; }

class NetnsMoveTest : public testing::TestWithParam<Case> {
 protected:
  NetnsMoveTest() : dir_(memory_or_tmp()) {}

  void SetUp() override {
    if (const std::string reason = Netns::why_not(); !reason.empty()) GTEST_SKIP() << reason;
    net_ = make_hosts();
    ASSERT_FALSE(HasFailure());
    Fleet::Options options = fleet_on(*net_);
    options.crash_points[0] = std::string("restore.") + GetParam().point + ":stop";
    fleet_ = std::make_unique<Fleet>(dir_, options);
    ecus_ = std::make_unique<CountingEcus>(
        dir_, *fleet_,
        std::map<std::string, Host>{{CountingEcus::kMac, host_of(*net_, "e")},
                                    {CountingEcus::kFirstMac, host_of(*net_, "first")},
                                    {CountingEcus::kSecondMac, host_of(*net_, "second")}});
    ASSERT_NO_FATAL_FAILURE(ecus_->begin());
  }
  CmsdProcess& a() { return (*fleet_)[0]; }
  CmsdProcess& b() { return (*fleet_)[1]; }
  bool is_cut_from_all(const std::string& host) const {
    std::size_t links = 0;
    for (const auto& [one, other] : GetParam().cut) links += other == host ? 1 : 0;
    return links == 2;
  }
  // The newest record of the program's log, as `b` reads it.
  std::string head() {
    const json history = json::parse(b().admin({"history", kKey, "--output", "json"}).output, nullptr, false);
    if (!history.is_object() || history.value("records", json::array()).empty()) return history.dump();
    return history.at("records").back().value("kind", "");
  }

  const std::string kKey = std::string(CountingEcus::kMac) + "/1";
  TempDir dir_;
  std::unique_ptr<Netns> net_;
  std::unique_ptr<Fleet> fleet_;
  std::unique_ptr<CountingEcus> ecus_;
};

TEST_P(NetnsMoveTest, OneOfSourceAndTargetGoesOn) {
  const Case& cut = GetParam();
  const json shown = json::parse(b().admin({"show", kKey, "--output", "json"}).output, nullptr, false);
  const std::string lineage = shown.at("checkpoint").at("lineage");
  Process move({program_path("cms-admin"), "--cms", a().admin(), "--timeout", "60s", "migrate", kKey, "--to",
                CountingEcus::kFirstMac});
  ASSERT_TRUE(a().process().wait_stopped()) << "the point was never passed\n" << ecus_->log();
  for (const auto& [one, other] : cut.cut) net_->cut(one, other);
  a().process().signal(SIGCONT);

  EXPECT_EQ(move.wait(kPatience), cut.is_moved ? 0 : 1) << move.output() << ecus_->log();
  EXPECT_TRUE(ecus_->go_on(cut.elsewhere));
  const std::size_t fenced = cut.is_moved && !is_cut_from_all("e") ? 1 : 0;
  EXPECT_TRUE(ecus_->until([&] { return ecus_->ecu().count("fenced") == fenced; })) << ecus_->log();
  EXPECT_EQ(head(), cut.head);

  net_->heal();
  for (CmsdProcess* cmsd : {&a(), &b()}) {
    for (const char* ecu_mac : {CountingEcus::kMac, CountingEcus::kFirstMac, CountingEcus::kSecondMac})
      EXPECT_TRUE(comes_to(*cmsd, ecu_mac, [&](const json& lease) {
        return lease.value("state", "") == "leased" || !lease.value("kept_by", json::array()).empty();
      })) << ecus_->log();
  }
  EXPECT_TRUE(ecus_->until([&] { return ecus_->ecu().count("fenced") == cut.elsewhere; })) << ecus_->log();
  EXPECT_TRUE(ecus_->go_on(cut.elsewhere));
  ecus_->expect_single();
  if (cut.is_moved) ecus_->ledger().expect_moved(lineage);
}

INSTANTIATE_TEST_SUITE_P(Netns, NetnsMoveTest,
                         testing::Values(Case{.name = "TheSourceBeforeItIsFrozen",
                                              .point = "after_claim",
                                              .cut = {{"a", "e"}},
                                              .head = "RELEASE"},
                                         Case{.name = "TheSourceFromAllBeforeItIsFrozen",
                                              .point = "after_claim",
                                              .cut = {{"a", "e"}, {"b", "e"}},
                                              .elsewhere = kAll,
                                              .head = "DONE"},
                                         Case{.name = "TheTargetBeforeItIsAsked",
                                              .point = "after_claim",
                                              .cut = {{"a", "first"}},
                                              .head = "RELEASE"},
                                         Case{.name = "TheTargetBeforeAct",
                                              .point = "before_act",
                                              .cut = {{"a", "first"}},
                                              .is_moved = true,
                                              .elsewhere = 1,
                                              .head = "DONE"},
                                         Case{.name = "TheTargetBeforeItIsTold",
                                              .point = "after_act",
                                              .cut = {{"a", "first"}},
                                              .is_moved = true,
                                              .elsewhere = 1,
                                              .head = "DONE"},
                                         Case{.name = "TheTargetFromAllBeforeItIsTold",
                                              .point = "after_act",
                                              .cut = {{"a", "first"}, {"b", "first"}},
                                              .head = "ABORT"},
                                         Case{.name = "TheSourceWhenItIsFrozen",
                                              .point = "after_act",
                                              .cut = {{"a", "e"}},
                                              .is_moved = true,
                                              .elsewhere = 1,
                                              .head = "DONE"},
                                         Case{.name = "TheSourceFromAllWhenItIsFrozen",
                                              .point = "after_act",
                                              .cut = {{"a", "e"}, {"b", "e"}},
                                              .is_moved = true,
                                              .elsewhere = kAll,
                                              .head = "DONE"},
                                         Case{.name = "TheCmsWhenItIsFrozen",
                                              .point = "after_act",
                                              .cut = {{"a", "b"}},
                                              .is_moved = true,
                                              .elsewhere = 1,
                                              .head = "DONE"},
                                         Case{.name = "TheTargetWhenItHasIt",
                                              .point = "before_done",
                                              .cut = {{"a", "first"}},
                                              .is_moved = true,
                                              .elsewhere = 1,
                                              .head = "DONE"},
                                         Case{.name = "TheSourceWhenItHasGone",
                                              .point = "after_done",
                                              .cut = {{"a", "e"}},
                                              .is_moved = true,
                                              .elsewhere = 1,
                                              .head = "DONE"}),
                         [](const testing::TestParamInfo<Case>& one) { return std::string(one.param.name); });

}  // namespace
}  // namespace cms::test
