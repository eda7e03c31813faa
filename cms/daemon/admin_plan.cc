#include "cms/daemon/admin_plan.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "cms/daemon/admin_findings.h"
#include "cms/daemon/admin_json.h"

namespace cms::daemon {
namespace {

using Program = LostPrograms::Program;

struct Counts {
  std::size_t placed = 0;
  std::size_t without_target = 0;
  std::size_t not_restorable = 0;
  std::size_t under_way = 0;
  std::size_t ended = 0;
};

// What is on its way to one target.
struct Load {
  std::size_t programs = 0;
  core::Reservation sum{};
};

core::Demand demand_of(const Program& program, const PlanFacts& facts) {
  core::Demand demand;
  demand.program = program.program;
  demand.lineage = program.lineage;
  demand.size_bytes = program.found->name.size_bytes;
  demand.requirements = program.found->notification.requirements;
  demand.real_time = program.found->notification.real_time;
  demand.leaves_groups = facts.leaves_groups;
  return demand;
}

// What can be placed first, and that in the order in which a restore would place it.
bool comes_first(const Program& a, const Program& b) {
  if (a.found.ok() != b.found.ok()) return a.found.ok();
  if (!a.found.ok()) return a.program < b.program;
  const wire::RealTime& first = a.found->notification.real_time;
  const wire::RealTime& second = b.found->notification.real_time;
  if (core::more_urgent(first, second)) return true;
  return !core::more_urgent(second, first) && a.lineage < b.lineage;
}

Json program_json(const Program& program) {
  Json json{{"key", to_string(program.program)}};
  if (!program.found.ok()) {
    for (const char* name : {"program_name", "checkpoint", "size_bytes", "age_s", "target"})
      json[name] = Json();
    json["why"] = program.found.error().context;
    return json;
  }
  const wire::Notification& facts = program.found->notification;
  json["program_name"] = facts.program_name;
  json["checkpoint"] = to_string(program.found->name.checkpoint);
  json["size_bytes"] = program.found->name.size_bytes;
  return json;
}

void add_verdicts(const std::vector<core::TargetVerdict>& verdicts, Json& json) {
  const bool placed = !verdicts.empty() && verdicts.front().ineligible == core::Ineligible::kNo;
  json["target"] = placed ? Json(to_string(verdicts.front().session.ecu_mac)) : Json();
  json["score"] = placed ? Json(verdicts.front().score) : Json();
  if (placed) {
    const std::string& shared = verdicts.front().shared_group;
    json["shared_group"] = shared.empty() ? Json() : Json(shared);
    json["near_cms"] = verdicts.front().near_cms;
    return;
  }
  json["why"] = verdicts.empty() ? "no ECU is connected" : "no ECU is eligible";
  std::map<std::string, std::size_t> counts;
  Json ecus = Json::array();
  for (const core::TargetVerdict& verdict : verdicts) {
    const std::string word(core::to_string(verdict.ineligible));
    ++counts[word];
    if (ecus.size() >= kPlanVerdictsShownMax) continue;
    ecus.push_back(
        Json{{"ecu_mac", to_string(verdict.session.ecu_mac)}, {"verdict", word}, {"why", verdict.why}});
  }
  json["verdicts"] = counts;
  json["ecus"] = std::move(ecus);
}

Result<std::string> planned(EcuMac ecu_mac, PlanFacts facts, const std::function<bool()>& stopping) {
  std::vector<Program>& programs = facts.lost.programs;
  if (programs.empty() && facts.lost.unusable == 0 && !facts.has_session) {
    return make_error(
        Code::kNotFound,
        "ECU " + to_string(ecu_mac) + " is not known: it has no session here, and nothing of it is stored");
  }
  std::sort(programs.begin(), programs.end(), comes_first);
  Counts counts;
  std::map<EcuMac, Load> loads;
  std::optional<std::uint64_t> oldest_age_s;
  Json list = Json::array();
  for (const Program& program : programs) {
    if (stopping()) return make_error(Code::kCancelled, "this cmsd ends");
    Json json = program_json(program);
    if (program.found.ok()) {
      const auto age_s = age_of(facts.wall_us, program.found->stored_at_us);
      json["age_s"] = age_s ? Json(*age_s) : Json();
      if (age_s) oldest_age_s = std::max(oldest_age_s.value_or(0), *age_s);
      const core::Demand demand = demand_of(program, facts);
      const auto verdicts = core::place_next(demand, facts.candidates, facts.policy);
      const core::Reservation reservation = core::reservation_of(demand);
      json["ram_bytes"] = reservation.ram_bytes;
      json["cpu_permille"] = reservation.cpu_permille;
      add_verdicts(verdicts, json);
      if (json["target"].is_null()) {
        ++counts.without_target;
      } else {
        ++counts.placed;
        Load& load = loads[verdicts.front().session.ecu_mac];
        ++load.programs;
        load.sum.ram_bytes += reservation.ram_bytes;
        load.sum.cpu_permille += reservation.cpu_permille;
      }
    } else if (program.is_open) {
      ++counts.under_way;
    } else if (program.found.error().code == Code::kWithdrawn) {
      ++counts.ended;
    } else {
      ++counts.not_restorable;
    }
    if (list.size() < kPlanProgramsShownMax) list.push_back(std::move(json));
  }
  Json whole{{"ecu_mac", to_string(ecu_mac)},
             {"connected", facts.has_session},
             {"total", programs.size()},
             {"placed", counts.placed},
             {"without_target", counts.without_target},
             {"not_restorable", counts.not_restorable},
             {"under_way", counts.under_way},
             {"ended", counts.ended},
             {"unusable_logs", facts.lost.unusable}};
  whole["oldest_age_s"] = oldest_age_s ? Json(*oldest_age_s) : Json();
  whole["failure_groups"] = facts.leaves_groups;
  Json targets = Json::array();
  for (const auto& [target, load] : loads) {
    targets.push_back(Json{{"ecu_mac", to_string(target)},
                           {"programs", load.programs},
                           {"ram_bytes", load.sum.ram_bytes},
                           {"cpu_permille", load.sum.cpu_permille}});
  }
  whole["targets"] = std::move(targets);
  while (true) {  // As many as fit.
    whole["shown"] = list.size();
    whole["programs"] = list;
    std::string text = dump(whole);
    if (text.size() <= wire::kJsonBytesMax) return text;
    list.erase(list.begin() + static_cast<std::ptrdiff_t>(list.size() / 2), list.end());
  }
}

}  // namespace

wire::AdminAnswer plan(const wire::AdminRequest& request, PlanFacts facts,
                       const std::function<bool()>& stopping) {
  wire::AdminAnswer answer;
  answer.request_id = request.request_id;
  auto text = planned(request.ecu_mac, std::move(facts), stopping);
  if (text.ok()) {
    answer.json = std::move(*text);
  } else {
    answer.code = text.error().code;
    answer.context = text.error().context;
  }
  return answer;
}

}  // namespace cms::daemon
