// Where a program would go, and why.
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "cms/daemon/admin_answers.h"
#include "cms/daemon/admin_json.h"
#include "cms/daemon/admin_words.h"

namespace cms::daemon {
namespace {

Json needs_json(const core::Demand& demand) {
  const wire::Requirements& needs = demand.requirements;
  return Json{{"arch", needs.arch},
              {"os", needs.os},
              {"checkpoint_format", needs.checkpoint_format},
              {"format_version", needs.format_version},
              {"ram_bytes", core::ram_bytes_of(demand)},
              {"cpu_permille", core::cpu_permille_of(demand.real_time)},
              {"tight", demand.real_time.tight},
              {"labels", needs.labels}};
}

Json metrics_json(const core::Candidate& candidate) {
  if (!candidate.metrics) return Json();
  const wire::Metrics& metrics = *candidate.metrics;
  Json formats = Json::array();
  for (const wire::CheckpointFormat& format : metrics.formats) {
    formats.push_back(Json{{"name", format.name}, {"version_max", format.version_max}});
  }
  return Json{{"age_ms", milliseconds(candidate.metrics_age)},
              {"cpu_count", metrics.cpu_count},
              {"cpu_load_permille", metrics.cpu_load_permille},
              {"ram_total_bytes", metrics.ram_total_bytes},
              {"ram_available_bytes", metrics.ram_available_bytes},
              {"arch", metrics.arch},
              {"os", metrics.os},
              {"formats", std::move(formats)},
              {"labels", metrics.labels},
              {"draining", metrics.draining}};
}

Json target_json(const core::TargetVerdict& verdict, const core::Candidate& candidate) {
  const bool eligible = verdict.ineligible == core::Ineligible::kNo;
  Json json{{"ecu_mac", to_string(verdict.session.ecu_mac)},
            {"incarnation", verdict.session.incarnation},
            {"eligible", eligible},
            {"verdict", std::string(core::to_string(verdict.ineligible))},
            {"why", verdict.why}};
  const auto of_eligible = [&](std::uint32_t value) { return eligible ? Json(value) : Json(); };
  json["score"] = of_eligible(verdict.score);
  json["cpu_free_permille"] = of_eligible(verdict.cpu_free_permille);
  json["ram_free_permille"] = of_eligible(verdict.ram_free_permille);
  json["shared_group"] = verdict.shared_group.empty() ? Json() : Json(verdict.shared_group);
  json["near_cms"] = verdict.near_cms;
  std::uint64_t promised = 0;
  for (const core::Hosted& one : candidate.hosted) promised += one.real_time_permille;
  json["promised_permille"] = promised;
  json["metrics"] = metrics_json(candidate);
  return json;
}

Result<Json> explained(const wire::AdminRequest& request, const ExplainFacts& seen,
                       storage::CheckpointIndex& index, storage::BlobStore& store) {
  const ProgramKey program{request.ecu_mac, request.program_id};
  const auto row =
      request.has_version ? index.find(CheckpointId{program, request.version}) : index.newest(program);
  if (!row) return row.error();
  if (!*row) {
    return make_error(
        Code::kNotFound,
        "nothing of " +
            (request.has_version ? to_string(CheckpointId{program, request.version}) : to_string(program)) +
            " is stored");
  }
  const auto blob = store.open((*row)->name);
  if (!blob) return blob.error();
  const wire::Notification& facts = (*blob)->manifest().notification;
  core::Demand demand;
  demand.program = program;
  demand.lineage = (*row)->name.lineage;
  demand.size_bytes = facts.size_bytes;
  demand.requirements = facts.requirements;
  demand.real_time = facts.real_time;
  demand.leaves_groups = seen.leaves_groups;

  std::map<SessionId, const core::Candidate*> by_session;
  for (const core::Candidate& candidate : seen.candidates) by_session[candidate.session] = &candidate;
  Json targets = Json::array();
  const std::vector<core::TargetVerdict> verdicts = core::rank(demand, seen.candidates, seen.policy);
  std::map<std::string, std::size_t> counts;
  for (const core::TargetVerdict& verdict : verdicts) {
    ++counts[std::string(core::to_string(verdict.ineligible))];
    if (targets.size() < kExplainTargetsMax) {
      targets.push_back(target_json(verdict, *by_session.at(verdict.session)));
    }
  }
  Json json{{"key", to_string(program)},
            {"checkpoint", to_string((*row)->name.checkpoint)},
            {"program_name", facts.program_name},
            {"needs", needs_json(demand)}};
  const bool somewhere = !verdicts.empty() && verdicts.front().ineligible == core::Ineligible::kNo;
  json["target"] = somewhere ? Json(to_string(verdicts.front().session.ecu_mac)) : Json();
  json["verdicts"] = counts;
  json["targets"] = std::move(targets);
  return json;
}

}  // namespace

wire::AdminAnswer explain(const wire::AdminRequest& request, const ExplainFacts& facts,
                          storage::CheckpointIndex& index, storage::BlobStore& store) {
  wire::AdminAnswer answer;
  answer.request_id = request.request_id;
  const auto json = explained(request, facts, index, store);
  if (json.ok()) {
    answer.json = dump(*json);
    CMS_ASSERT(answer.json.size() <= wire::kJsonBytesMax);
    return answer;
  }
  answer.code = json.error().code;
  answer.context = json.error().code == Code::kNotFound ? json.error().context : json.error().message();
  return answer;
}

}  // namespace cms::daemon
