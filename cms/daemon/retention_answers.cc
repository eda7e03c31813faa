#include "cms/daemon/retention_answers.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cms/daemon/admin_answers.h"
#include "cms/daemon/admin_findings.h"

namespace cms::daemon {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kAtBounds = "bounds";

Json identity_json(const CheckpointId& checkpoint) {
  return Json{{"key", to_string(checkpoint)},
              {"ecu_mac", to_string(checkpoint.program.ecu_mac)},
              {"program_id", checkpoint.program.program_id},
              {"incarnation", checkpoint.version.incarnation},
              {"seq", checkpoint.version.seq}};
}

Json removal_json(const Removal& removal, std::uint64_t wall_us) {
  Json json = identity_json(removal.row.name.checkpoint);
  const auto stored_at = time_text(removal.row.stored_at_us);
  const auto age_s = age_of(wall_us, removal.row.stored_at_us);
  json["size_bytes"] = removal.row.name.size_bytes;
  json["stored_bytes"] = removal.row.stored_bytes;
  json["stored_at"] = stored_at ? Json(*stored_at) : Json();
  json["age_s"] = age_s ? Json(*age_s) : Json();
  json["why"] = removal.why;
  return json;
}

}  // namespace

std::string pinned_json(const CheckpointId& checkpoint, bool pinned) {
  Json json = identity_json(checkpoint);
  json["pinned"] = pinned;
  return json.dump();
}

std::string removals_json(const wire::AdminRequest& request, const std::vector<Removal>& removed,
                          std::uint64_t rows_judged, std::uint64_t rows_total, std::uint64_t wall_us) {
  std::uint64_t stored_bytes = 0;
  for (const Removal& one : removed) stored_bytes += one.row.stored_bytes;
  Json json{{"removals", Json::array()}, {"applied", request.method == wire::AdminMethod::kRetentionApply},
            {"count", removed.size()},   {"stored_bytes", stored_bytes},
            {"judged", rows_judged},     {"checkpoints", rows_total}};
  for (std::size_t i = 0; i < std::min(removed.size(), kPlanListedMax); ++i) {
    json["removals"].push_back(removal_json(removed[i], wall_us));
  }
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string position_of(const RetentionWork::Run& run) {
  return run.programs_done() ? kAtBounds : to_string(run.after().value_or(ProgramKey{}));
}

Status start_at(const std::string& position, RetentionWork::Run& run) {
  if (position.empty()) return ok_status();
  if (position == kAtBounds) {
    run.start_at_bounds();
    return ok_status();
  }
  const auto key = parse_key(position);
  if (!key.ok() || key->has_version) {
    return make_error(Code::kInvalidArgument, "continue_after is not the 'next' of an answer to retention");
  }
  run.start_behind(key->program);
  return ok_status();
}

}  // namespace cms::daemon
