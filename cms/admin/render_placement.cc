// Where programs would go: of one, and of all of an ECU.
#include <utility>

#include "cms/admin/render_parts.h"

namespace cms::admin {
namespace {

std::string permille_at(const Json& object, const char* name) {
  const Json& value = field(object, name);
  return value.is_number_unsigned() ? std::to_string(value.get<std::uint64_t>() / 10) + " %" : "-";
}

// Why an ECU is not eligible, or what speaks for or against one that is, beside its score.
std::string why_of(const Json& verdict) {
  const Json& shared = field(verdict, "shared_group");
  const std::string near =
      field(verdict, "near_cms") == Json(true) ? "near the CMS, for a tight program" : "";
  if (shared.is_null()) return near.empty() ? text_at(verdict, "why") : near;
  return "may fail together: " + text_of(shared) + (near.empty() ? "" : "; " + near);
}

std::string count_at(const Json& object, const char* name, const std::string& what) {
  const std::uint64_t count = number_at(object, name);
  return count == 0 ? std::string() : ", " + std::to_string(count) + " " + what;
}

// The ECUs that cannot take a program, of each that none can.
std::string refusals(const Json& programs) {
  std::string out;
  for (const Json& program : programs) {
    const Json& ecus = field(program, "ecus");
    if (!ecus.is_array() || ecus.empty()) continue;
    Table table({"ECU", "VERDICT", "WHY"});
    for (const Json& one : ecus)
      table.add({text_at(one, "ecu_mac"), text_at(one, "verdict"), text_at(one, "why")});
    std::uint64_t total = 0;
    for (const auto& [verdict, count] : field(program, "verdicts").items()) {
      if (count.is_number_unsigned()) total += count.get<std::uint64_t>();
    }
    out += "\n" + text_at(program, "key") + " fits nowhere:\n" + table.text();
    if (total > ecus.size()) out += "and " + std::to_string(total - ecus.size()) + " more\n";
  }
  return out;
}

}  // namespace

std::string explain_table(const Json& json) {
  const Json& needs = field(json, "needs");
  std::string out = line("key", text_at(json, "key") + ", " + text_at(json, "program_name"));
  out += line("checkpoint", text_at(json, "checkpoint"));
  std::string labels;
  for (const Json& label : field(needs, "labels")) labels += (labels.empty() ? "" : ", ") + text_of(label);
  out += line("needs", size_at(needs, "ram_bytes") + " of RAM, " + permille_at(needs, "cpu_permille") +
                           " of a CPU" + (field(needs, "tight") == Json(true) ? ", tight" : "") + ", arch " +
                           text_at(needs, "arch") + ", os " + text_at(needs, "os") + ", format " +
                           text_at(needs, "checkpoint_format") + " " + text_at(needs, "format_version") +
                           ", labels " + (labels.empty() ? "-" : labels));
  const Json& target = field(json, "target");
  const Json& targets = field(json, "targets");
  out += line("target", !target.is_null() ? text_of(target)
                        : targets.empty() ? "none: no ECU has a session here"
                                          : "none: no ECU is eligible");
  if (targets.empty()) return out;
  Table table({"ECU", "VERDICT", ">SCORE", ">CPU FREE", ">RAM FREE", "WHY"});
  for (const Json& one : targets) {
    table.add({text_at(one, "ecu_mac"), text_at(one, "verdict"), text_at(one, "score"),
               permille_at(one, "cpu_free_permille"), permille_at(one, "ram_free_permille"), why_of(one)});
  }
  out += "\n" + table.text();
  std::uint64_t total = 0;
  for (const auto& [verdict, count] : field(json, "verdicts").items()) {
    if (count.is_number_unsigned()) total += count.get<std::uint64_t>();
  }
  if (total > targets.size()) {
    out += "and " + std::to_string(total - targets.size()) + " more that are not better\n";
  }
  return out;
}

bool is_plan(const Json& json) { return !field(json, "unusable_logs").is_null(); }

std::string plan_table(const Json& json) {
  std::string out =
      line("if it fails",
           text_at(json, "ecu_mac") + (field(json, "connected") == true ? ", connected" : ", not connected"));
  if (number_at(json, "total") == 0) {
    out += line("programs", "none: nothing is stored that would have to go on elsewhere");
  } else {
    out +=
        line("programs", text_at(json, "total") + ": " + text_at(json, "placed") + " would go on elsewhere" +
                             count_at(json, "without_target", "would fit nowhere") +
                             count_at(json, "not_restorable", "cannot be restored") +
                             count_at(json, "under_way", "are being restored already") +
                             count_at(json, "ended", "have ended for good"));
    out += line("oldest checkpoint", age_at(json, "oldest_age_s") + " old");
  }
  if (number_at(json, "unusable_logs") > 0) {
    out +=
        line("trouble", text_at(json, "unusable_logs") + " claim logs cannot be used, see the log of cmsd");
  }
  const Json& programs = field(json, "programs");
  Table table({"PROGRAM", "NAME", ">SIZE", ">AGE", ">CPU", "TARGET", ">SCORE", "WHY"});
  for (const Json& one : programs) {
    table.add({text_at(one, "key"), text_at(one, "program_name"), size_at(one, "size_bytes"),
               age_at(one, "age_s"), permille_at(one, "cpu_permille"), text_at(one, "target"),
               text_at(one, "score"), why_of(one)});
  }
  if (!table.empty()) out += "\n" + table.text();
  if (number_at(json, "total") > programs.size()) {
    out += "and " + std::to_string(number_at(json, "total") - programs.size()) + " more\n";
  }
  Table targets({"TARGET", ">PROGRAMS", ">RAM", ">CPU"});
  for (const Json& one : field(json, "targets")) {
    targets.add({text_at(one, "ecu_mac"), text_at(one, "programs"), size_at(one, "ram_bytes"),
                 permille_at(one, "cpu_permille")});
  }
  if (!targets.empty()) out += "\n" + targets.text();
  return out + refusals(programs) + "\nThis is a dry run: nothing was moved.\n";
}

std::string plan_failure(const std::string& text) {
  const Json json = parse_shallow(text);
  if (!json.is_object() || !is_plan(json)) return {};
  const std::uint64_t left = number_at(json, "without_target") + number_at(json, "not_restorable");
  if (left > 0) {
    return std::to_string(left) + " of " + text_at(json, "total") + " programs would not go on elsewhere";
  }
  if (number_at(json, "unusable_logs") == 0) return {};
  return text_at(json, "unusable_logs") +
         " claim logs cannot be used: whether these programs would go on is not known";
}

}  // namespace cms::admin
