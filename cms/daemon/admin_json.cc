#include "cms/daemon/admin_json.h"

#include <nlohmann/json.hpp>

#include "cms/daemon/admin_words.h"

namespace cms::daemon {
namespace {

Json found_json(const ScrubFound& found) {
  return Json{{"key", to_string(found.checkpoint)}, {"reason", found.reason}, {"at", time_json(found.at_us)}};
}

Json found_list(const std::vector<ScrubFound>& found) {
  Json list = Json::array();
  for (const ScrubFound& one : found) list.push_back(found_json(one));
  return list;
}

Json counts_json(const ScrubCounts& counts) {
  return Json{{"checkpoints", counts.checkpoints}, {"bytes", counts.bytes},
              {"corrupt", counts.corrupt},         {"misread", counts.misread},
              {"unreadable", counts.unreadable},   {"unsupported", counts.unsupported}};
}

}  // namespace

std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

Json time_json(std::uint64_t at_us) {
  const auto text = time_text(at_us);
  return text ? Json(*text) : Json();
}

Json optional_json(const std::optional<std::uint64_t>& value) { return value ? Json(*value) : Json(); }

Json age_json(std::uint64_t wall_us, std::uint64_t at_us) { return optional_json(age_of(wall_us, at_us)); }

Json seconds_json(Duration duration) { return seconds_of(duration); }

Json identity_json(const CheckpointId& checkpoint) {
  return Json{{"key", to_string(checkpoint)},
              {"ecu_mac", to_string(checkpoint.program.ecu_mac)},
              {"program_id", checkpoint.program.program_id},
              {"incarnation", checkpoint.version.incarnation},
              {"seq", checkpoint.version.seq}};
}

Json run_json(const ScrubRun& run) {
  Json json{{"id", run.id}, {"what", run.what}, {"state", to_text(run.state)}};
  json.update(counts_json(run.counts));
  const bool all = run.what == "all";
  json["shards_done"] = all ? Json(run.shards_done) : Json();
  json["shards_total"] = all ? Json(storage::kShardCount) : Json();
  json["checkpoints_total"] = all ? Json() : Json(run.checkpoints_total);
  json["duration_s"] = seconds_in(run.took);
  json["bytes_per_s"] = per_second(run.counts.bytes, run.took);
  json["left_s"] = run.state != ScrubRun::State::kRunning ? Json()
                   : all
                       ? optional_json(seconds_left(run.shards_done, storage::kShardCount, run.took))
                       : optional_json(seconds_left(run.counts.checkpoints, run.checkpoints_total, run.took));
  json["trouble"] = run.trouble.empty() ? Json() : Json(run.trouble);
  json["found"] = found_list(run.found);
  return json;
}

Json index_object(const DaemonFacts& facts) {
  const IndexFacts& index = facts.index;
  return Json{
      {"state", index_state(facts)},
      {"rebuild", index.rebuilding},
      {"reason", index.reason.empty() ? Json() : Json(index.reason)},
      {"damage", index.damage.empty() ? Json() : Json(index.damage)},
      {"old_index", index.old_index.empty() ? Json() : Json(index.old_index)},
      {"trouble", facts.reconcile_trouble.empty() ? Json() : Json(facts.reconcile_trouble)},
      {"shards_done", facts.reconcile_shards_done},
      {"shards_total", storage::kShardCount},
      {"rows_added", index.rows_added},
      {"rows_removed", index.rows_removed},
      {"duration_s", seconds_in(index.took)},
      {"rows_per_s", per_second(index.rows_added, index.took)},
      {"left_s", facts.reconcile_running ? optional_json(seconds_left(facts.reconcile_shards_done,
                                                                      storage::kShardCount, index.took))
                                         : Json()},
      {"completing", index.completing},
      {"rows_completed", index.rows_completed}};
}

Json quarantine_object(const QuarantineFacts& quarantine) {
  return Json{{"checkpoints", quarantine.count},
              {"stored_bytes", quarantine.stored_bytes},
              {"newest", quarantine.count == 0 ? Json() : Json(to_string(quarantine.newest))}};
}

Json scrub_object(const DaemonFacts& facts) {
  const ScrubFacts& scrub = facts.scrub;
  Json json{{"state", scrub_state(scrub)},
            {"rate_bytes_per_s", scrub.rate_bytes_per_s},
            {"bytes_per_s", scrub.bytes_per_s},
            {"shards_done", scrub.shards_done},
            {"shards_total", storage::kShardCount}};
  json["round"] = counts_json(scrub.round);
  json["round"]["started_at"] = time_json(scrub.round_started_at_us);
  Json& last = json["last_round"];
  if (scrub.last_round_ended_at_us != 0) {
    last = counts_json(scrub.last_round);
    last["ended_at"] = time_json(scrub.last_round_ended_at_us);
    last["duration_s"] = seconds_in(scrub.last_round_took);
  }
  json["total"] = counts_json(scrub.total);
  json["found"] = found_list(scrub.found);
  return json;
}

}  // namespace cms::daemon
