// Lost ECUs, restores, and the claim logs behind them.
#include <utility>

#include "cms/admin/render_parts.h"

namespace cms::admin {

std::string restores_table(const Json& whole) {
  std::string out;
  if (!field(whole, "ecu_mac").is_null()) {
    out += line("ECU", text_at(whole, "ecu_mac"));
    out += line("programs", text_at(whole, "total") + ": " + text_at(whole, "done") + " run elsewhere, " +
                                text_at(whole, "refused") + " refused");
    if (!field(whole, "stopped_by").is_null()) out += line("stopped by", text_at(whole, "stopped_by"));
    if (!field(whole, "trouble").is_null()) out += line("trouble", text_at(whole, "trouble"));
  }
  Table table({"PROGRAM", "STATE", "RUNS AS", "TARGET", ">ATTEMPT", ">MS", "WHY"});
  for (const Json& one : field(whole, "restores")) {
    table.add({text_at(one, "program"), text_at(one, "state"), text_at(one, "runs_as"),
               text_at(one, "target"), text_at(one, "attempts"), text_at(one, "took_ms"),
               text_at(one, "why")});
  }
  if (!table.empty()) return out + table.text();
  return out.empty() ? "nothing was restored since this cmsd began\n" : out;
}

std::string history_table(const Json& whole) {
  Table table({"AT", "LINEAGE", ">SLOT", "RECORD", "BY", "OWNER", "WHAT"});
  for (const Json& one : field(whole, "records")) {
    table.add({text_at(one, "at"), text_at(one, "lineage").substr(0, 8), text_at(one, "slot"),
               text_at(one, "kind"), text_at(one, "by"), text_at(one, "owner"), text_at(one, "what")});
  }
  if (table.empty()) return "no claim log names it: nothing of it was ever stored\n";
  std::string out = table.text();
  if (field(whole, "more") == true) out += "and more; ask for one KEY\n";
  return out;
}

}  // namespace cms::admin
