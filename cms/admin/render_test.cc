#include "cms/admin/render.h"

#include <gtest/gtest.h>

#include <string>

namespace cms::admin {
namespace {

std::string table_of(wire::AdminMethod method, const std::string& json) {
  const auto table = render(method, {json}, Style{});
  return table.ok() ? *table : table.error().message();
}

TEST(RenderTest, ExplainShowsEachEcuWithItsVerdict) {
  EXPECT_EQ(table_of(wire::AdminMethod::kExplain, R"({
    "key": "02:00:00:00:00:01/7", "checkpoint": "02:00:00:00:00:01/7@65536.3", "program_name": "pump",
    "needs": {"arch": "x86_64", "os": "", "checkpoint_format": "criu", "format_version": 3,
              "ram_bytes": 104857600, "cpu_permille": 50, "labels": ["gpu", "front"]},
    "target": "02:00:00:00:00:03", "verdicts": {"eligible": 1, "ram": 2},
    "targets": [
      {"ecu_mac": "02:00:00:00:00:03", "verdict": "eligible", "why": "", "score": 550,
       "cpu_free_permille": 500, "ram_free_permille": 600},
      {"ecu_mac": "02:00:00:00:00:02", "verdict": "ram", "why": "needs 100 MiB of RAM, 99 MiB are free",
       "score": null, "cpu_free_permille": null, "ram_free_permille": null}]})"),
            "key                   02:00:00:00:00:01/7, pump\n"
            "checkpoint            02:00:00:00:00:01/7@65536.3\n"
            "needs                 100.0 MiB of RAM, 5 % of a CPU, arch x86_64, os -, format criu 3, labels "
            "gpu, front\n"
            "target                02:00:00:00:00:03\n"
            "\n"
            "ECU                VERDICT   SCORE  CPU FREE  RAM FREE  WHY\n"
            "02:00:00:00:00:03  eligible    550      50 %      60 %  -\n"
            "02:00:00:00:00:02  ram           -         -         -  needs 100 MiB of RAM, 99 MiB are free\n"
            "and 1 more that are not better\n");
}

TEST(RenderTest, ExplainSaysWhatComesFirstForBeingNear) {
  const std::string near = table_of(wire::AdminMethod::kExplain, R"({
    "needs": {"tight": true}, "target": "02:00:00:00:00:03",
    "targets": [
      {"ecu_mac": "02:00:00:00:00:03", "verdict": "eligible", "why": "", "score": 50, "near_cms": true},
      {"ecu_mac": "02:00:00:00:00:04", "verdict": "eligible", "why": "", "score": 60, "near_cms": true,
       "shared_group": "power=a"}]})");
  EXPECT_NE(near.find(", tight, arch"), std::string::npos) << near;
  EXPECT_NE(near.find("-  near the CMS, for a tight program\n"), std::string::npos) << near;
  EXPECT_NE(near.find("may fail together: power=a; near the CMS"), std::string::npos) << near;
}

TEST(RenderTest, ExplainSaysWhenThereIsNoTarget) {
  const std::string nobody = table_of(wire::AdminMethod::kExplain, R"({"target": null, "targets": []})");
  EXPECT_NE(nobody.find("none: no ECU has a session here"), std::string::npos) << nobody;
  const std::string none =
      table_of(wire::AdminMethod::kExplain, R"({"target": null, "targets": [{"verdict": "silent"}]})");
  EXPECT_NE(none.find("none: no ECU is eligible"), std::string::npos) << none;
}

TEST(RenderTest, PlanShowsWhereEachProgramWouldGoAndWhatFitsNowhere) {
  const std::string json = R"({
    "ecu_mac": "02:00:00:00:00:01", "connected": true, "total": 3, "placed": 1, "without_target": 1,
    "not_restorable": 0, "under_way": 0, "ended": 1, "unusable_logs": 0, "oldest_age_s": 75,
    "failure_groups": ["power=a"],
    "targets": [{"ecu_mac": "02:00:00:00:00:03", "programs": 1, "ram_bytes": 104857600, "cpu_permille": 250}],
    "shown": 3,
    "programs": [
      {"key": "02:00:00:00:00:01/7", "program_name": "pump", "checkpoint": "02:00:00:00:00:01/7@65536.3",
       "size_bytes": 1048576, "age_s": 12, "ram_bytes": 104857600, "cpu_permille": 250,
       "target": "02:00:00:00:00:03", "score": 550, "shared_group": "power=a"},
      {"key": "02:00:00:00:00:01/8", "program_name": "fan", "checkpoint": "02:00:00:00:00:01/8@65536.4",
       "size_bytes": 17, "age_s": 75, "ram_bytes": 104857600, "cpu_permille": 50, "target": null, "score": null,
       "why": "no ECU is eligible", "verdicts": {"owner": 1, "ram": 2},
       "ecus": [{"ecu_mac": "02:00:00:00:00:01", "verdict": "owner", "why": "the program is to leave it"},
                {"ecu_mac": "02:00:00:00:00:03", "verdict": "ram",
                 "why": "needs 100 MiB of RAM, 99 MiB are free"}]},
      {"key": "02:00:00:00:00:01/9", "program_name": null, "checkpoint": null, "size_bytes": null,
       "age_s": null, "target": null, "why": "02:00:00:00:00:01/9 was withdrawn"}]})";
  EXPECT_EQ(
      table_of(wire::AdminMethod::kExplain, json),
      "if it fails           02:00:00:00:00:01, connected\n"
      "programs              3: 1 would go on elsewhere, 1 would fit nowhere, 1 have ended for good\n"
      "oldest checkpoint     1m 15s old\n"
      "\n"
      "PROGRAM              NAME     SIZE     AGE   CPU  TARGET             SCORE  WHY\n"
      "02:00:00:00:00:01/7  pump  1.0 MiB     12s  25 %  02:00:00:00:00:03    550  may fail together: "
      "power=a\n"
      "02:00:00:00:00:01/8  fan      17 B  1m 15s   5 %  -                      -  no ECU is eligible\n"
      "02:00:00:00:00:01/9  -           -       -     -  -                      -  02:00:00:00:00:01/9 was "
      "withdrawn\n"
      "\n"
      "TARGET             PROGRAMS        RAM   CPU\n"
      "02:00:00:00:00:03         1  100.0 MiB  25 %\n"
      "\n"
      "02:00:00:00:00:01/8 fits nowhere:\n"
      "ECU                VERDICT  WHY\n"
      "02:00:00:00:00:01  owner    the program is to leave it\n"
      "02:00:00:00:00:03  ram      needs 100 MiB of RAM, 99 MiB are free\n"
      "and 1 more\n"
      "\n"
      "This is a dry run: nothing was moved.\n");
  EXPECT_EQ(plan_failure(json), "1 of 3 programs would not go on elsewhere");
}

TEST(RenderTest, APlanFailsByWhatWouldNotGoOn) {
  EXPECT_EQ(plan_failure(R"({"total": 2, "placed": 1, "ended": 1, "unusable_logs": 0})"), "");
  EXPECT_EQ(plan_failure(R"({"total": 2, "not_restorable": 2, "unusable_logs": 0})"),
            "2 of 2 programs would not go on elsewhere");
  EXPECT_EQ(plan_failure(R"({"total": 0, "unusable_logs": 3})"),
            "3 claim logs cannot be used: whether these programs would go on is not known");
  EXPECT_EQ(plan_failure("no JSON"), "");
  const std::string nothing = table_of(
      wire::AdminMethod::kExplain,
      R"({"ecu_mac": "02:00:00:00:00:01", "connected": true, "total": 0, "unusable_logs": 0, "programs": []})");
  EXPECT_NE(nothing.find("programs              none: nothing is stored"), std::string::npos) << nothing;
}

TEST(RenderTest, PeersShowsBothViewsSideBySide) {
  EXPECT_EQ(table_of(wire::AdminMethod::kPeers, R"({
    "name": "a", "incarnation": "0000000000000abc", "acts": true, "renewed_ago_ms": 740, "trouble": null,
    "peers": [
      {"name": "b", "incarnation": "0000000000000005", "network": "live", "since_s": 75, "address": "10.0.0.8",
       "record": "renewed", "record_readable": true, "record_unchanged_ms": 300, "software": "cmsd 1"},
      {"name": "c", "incarnation": "0000000000000006", "network": null, "since_s": null, "address": null,
       "record": "stale", "record_readable": false, "record_unchanged_ms": 40000, "software": ""}]})"),
            "name                  a, incarnation 0000000000000abc\n"
            "record                renewed 740 ms ago\n"
            "acts on claims        yes\n"
            "\n"
            "PEER  INCARNATION       NETWORK     FOR  ADDRESS   RECORD          UNCHANGED  SOFTWARE\n"
            "b     0000000000000005  live     1m 15s  10.0.0.8  renewed            300 ms  cmsd 1\n"
            "c     0000000000000006  -             -  -         stale, damaged   40000 ms  -\n");
}

TEST(RenderTest, PeersSaysWhenThereIsNone) {
  const std::string none = table_of(wire::AdminMethod::kPeers,
                                    R"({"name": "a", "acts": false, "trouble": "no answer", "peers": []})");
  EXPECT_NE(none.find("record                never renewed\n"), std::string::npos) << none;
  EXPECT_NE(none.find("acts on claims        no\n"), std::string::npos) << none;
  EXPECT_NE(none.find("trouble               no answer\n"), std::string::npos) << none;
  EXPECT_NE(none.find("none is heard"), std::string::npos) << none;
}

}  // namespace
}  // namespace cms::admin
