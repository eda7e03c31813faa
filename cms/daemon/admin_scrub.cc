#include "cms/daemon/admin_scrub.h"

#include <array>
#include <ctime>

#include "cms/daemon/admin_findings.h"

namespace cms::daemon {

using Json = nlohmann::ordered_json;

namespace {

double seconds_in(Duration duration) { return std::chrono::duration<double>(duration).count(); }

std::uint64_t per_second(std::uint64_t count, Duration duration) {
  const double seconds = seconds_in(duration);
  return seconds > 0 ? static_cast<std::uint64_t>(static_cast<double>(count) / seconds) : 0;
}

// What is left when so many of all shards took so long; they are alike, their names being hashes.
Json left_json(std::uint64_t done, std::uint64_t total, Duration took) {
  if (done == 0 || done > total) return nullptr;
  return static_cast<std::uint64_t>(
      seconds_in(took) / static_cast<double>(done) * static_cast<double>(total - done) + 0.5);
}

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

const char* to_text(ScrubRun::State state) {
  switch (state) {
    case ScrubRun::State::kWaiting: return "waiting";
    case ScrubRun::State::kRunning: return "running";
    case ScrubRun::State::kDone: return "done";
    case ScrubRun::State::kBrokenOff: return "broken off";
  }
  return "";
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
                   : all ? left_json(run.shards_done, storage::kShardCount, run.took)
                         : left_json(run.counts.checkpoints, run.checkpoints_total, run.took);
  json["trouble"] = run.trouble.empty() ? Json() : Json(run.trouble);
  json["found"] = found_list(run.found);
  return json;
}

std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace

Json time_json(std::uint64_t at_us) {
  if (at_us == 0) return nullptr;
  const auto seconds = static_cast<std::time_t>(at_us / 1000000);
  std::tm utc{};
  if (::gmtime_r(&seconds, &utc) == nullptr || utc.tm_year > 9999 - 1900) return nullptr;
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%S", &utc);
  const std::string ms = std::to_string(1000 + at_us / 1000 % 1000).substr(1);
  return std::string(text.data()) + "." + ms + "Z";
}

Json index_json(const DaemonFacts& facts) {
  const IndexFacts& index = facts.index;
  const bool running = facts.reconcile_running;
  const char* state = !index.damage.empty()              ? "damaged"
                      : running && index.rebuilding      ? "rebuilding"
                      : running                          ? "comparing"
                      : !facts.reconcile_trouble.empty() ? "waiting"
                      : index.completing                 ? "completing"
                      : facts.reconcile_done             ? "ok"
                                                         : "waiting";
  return Json{
      {"state", state},
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
      {"left_s", running ? left_json(facts.reconcile_shards_done, storage::kShardCount, index.took) : Json()},
      {"completing", index.completing},
      {"rows_completed", index.rows_completed}};
}

Json quarantine_json(const QuarantineFacts& quarantine) {
  return Json{{"checkpoints", quarantine.count},
              {"stored_bytes", quarantine.stored_bytes},
              {"newest", quarantine.count == 0 ? Json() : Json(to_string(quarantine.newest))}};
}

Json scrub_json(const DaemonFacts& facts) {
  const ScrubFacts& scrub = facts.scrub;
  const char* state = scrub.rate_bytes_per_s == 0 ? "off"
                      : scrub.waits_for_store     ? "waiting for the store"
                      : scrub.resting             ? "resting"
                                                  : "reading";
  Json json{{"state", state},
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

std::string scrub_status_json(const DaemonFacts& facts) {
  Json json = scrub_json(facts);
  json["quarantine"] = quarantine_json(facts.quarantine);
  Json& runs = json["runs"] = Json::array();
  for (const ScrubRun& run : facts.scrub.runs) runs.push_back(run_json(run));
  return dump(json);
}

std::string scrub_run_json(const ScrubRun& run) { return dump(run_json(run)); }

std::string index_status_json(const DaemonFacts& facts, std::optional<std::uint64_t> rows) {
  Json json = index_json(facts);
  json["rows"] = rows ? Json(*rows) : Json();
  return dump(json);
}

}  // namespace cms::daemon
