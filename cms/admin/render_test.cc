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

TEST(RenderTest, ExplainSaysWhenThereIsNoTarget) {
  const std::string nobody = table_of(wire::AdminMethod::kExplain, R"({"target": null, "targets": []})");
  EXPECT_NE(nobody.find("none: no ECU has a session here"), std::string::npos) << nobody;
  const std::string none =
      table_of(wire::AdminMethod::kExplain, R"({"target": null, "targets": [{"verdict": "silent"}]})");
  EXPECT_NE(none.find("none: no ECU is eligible"), std::string::npos) << none;
}

}  // namespace
}  // namespace cms::admin
