// What a cmsd does for a while, as it tells it when asked.
#include <algorithm>
#include <utility>

#include "cms/admin/render_parts.h"

namespace cms::admin {
namespace {

std::string percent_of(std::uint64_t done, std::uint64_t total) {
  std::string text = std::to_string(total == 0 ? 0 : std::min(done, total) * 100 / total) + "%";
  return std::string(4 - std::min<std::size_t>(4, text.size()), ' ') + text;
}

std::string left_at(const Json& json) {
  return field(json, "left_s").is_null() ? "" : ", " + age_at(json, "left_s") + " left";
}

}  // namespace

Result<std::uint64_t> scrub_id(const std::string& json) {
  const Json run = parse_shallow(json);
  if (!run.is_object() || !field(run, "id").is_number_unsigned()) return no_answer();
  return number_at(run, "id");
}

Result<TaskState> scrub_state(const std::string& json, std::uint64_t id) {
  const Json status = parse_shallow(json);
  if (!status.is_object() || !field(status, "runs").is_array()) return no_answer();
  for (const Json& run : field(status, "runs")) {
    if (!run.is_object() || !field(run, "id").is_number_unsigned() || number_at(run, "id") != id) continue;
    TaskState task;
    const std::string state = text_at(run, "state");
    const bool all = !field(run, "shards_total").is_null();
    task.ended = state == "done" || state == "broken off";
    task.json = run.dump(-1, ' ', false, Json::error_handler_t::replace);
    if (state == "broken off") {
      task.failure = "broken off: " + text_at(run, "trouble");
    } else if (task.ended && number_at(run, "corrupt") > 0) {
      task.failure = text_at(run, "corrupt") + " damaged checkpoints were found and put into quarantine";
    } else if (task.ended && number_at(run, "unreadable") > 0) {
      task.failure = text_at(run, "unreadable") + " checkpoints could not be read";
    } else if (task.ended && !all && number_at(run, "checkpoints_total") == 0) {
      task.failure = "nothing is stored of " + text_at(run, "what");
    }
    task.progress = (all ? percent_of(number_at(run, "shards_done"), number_at(run, "shards_total"))
                         : percent_of(number_at(run, "checkpoints"), number_at(run, "checkpoints_total"))) +
                    "  " + (state == "waiting" ? "waits for another scrub or the store" : counts_text(run)) +
                    "  " + size_at(run, "bytes_per_s") + "/s" + left_at(run);
    return task;
  }
  return make_error(Code::kNotFound, "cmsd does not know of this scrub any more; was it started again?");
}

Result<TaskState> index_state(const std::string& json) {
  const Json index = parse_shallow(json);
  if (!index.is_object() || !field(index, "state").is_string()) return no_answer();
  TaskState task;
  const std::string state = text_at(index, "state");
  const std::string trouble = text_at(index, "trouble");
  task.json = json;
  if (state == "ok") {
    task.ended = true;
  } else if (state == "waiting" && trouble != "-") {
    task.ended = true;
    task.failure = "broken off: " + trouble + "; cmsd goes on by itself when it can";
  } else if (state == "completing") {
    task.progress = "100%  " + text_at(index, "rows") + " rows; reading times and names, " +
                    text_at(index, "rows_completed") + " read";
  } else {
    task.progress = percent_of(number_at(index, "shards_done"), number_at(index, "shards_total")) + "  " +
                    text_at(index, "rows_added") + " rows  " + text_at(index, "rows_per_s") + "/s" +
                    left_at(index);
  }
  return task;
}

namespace {

Result<TaskState> restores_state(const std::string& json, const std::string& verb, const std::string& past) {
  const Json whole = parse_shallow(json);
  if (!whole.is_object() || !field(whole, "state").is_string()) return no_answer();
  TaskState task;
  task.json = json;
  const std::uint64_t total = number_at(whole, "total");
  const std::uint64_t ended = number_at(whole, "done") + number_at(whole, "refused");
  task.ended = text_at(whole, "state") == "ended";
  task.done = number_at(whole, "done");
  if (task.ended && number_at(whole, "refused") > 0) {
    task.failure =
        text_at(whole, "refused") + " of " + text_at(whole, "total") + " programs could not be " + past;
  }
  if (task.ended && task.failure.empty() && !field(whole, "trouble").is_null()) {
    task.failure = text_at(whole, "trouble");
  }
  task.progress = percent_of(ended, total) + "  " + text_at(whole, "done") + " of " +
                  text_at(whole, "total") + " programs " + verb + ", " + text_at(whole, "refused") +
                  " refused  " + text_at(whole, "per_s") + "/s" + left_at(whole);
  if (!field(whole, "trouble").is_null()) task.progress += "  (" + text_at(whole, "trouble") + ")";
  return task;
}

}  // namespace

Result<TaskState> loss_state(const std::string& json) {
  return restores_state(json, "run again", "restored");
}

Result<TaskState> moves_state(const std::string& json) {
  auto task = restores_state(json, "moved", "moved");
  if (!task.ok() || !task->ended) return task;
  const std::string stopped_by = text_at(parse_shallow(json), "stopped_by");
  if (stopped_by != "-" && !task->failure.empty()) task->failure += ": " + stopped_by;
  return task;
}

Result<TaskState> maintenance_state(const std::string& json, bool wanted) {
  const Json whole = parse_shallow(json);
  const Json& lease = field(whole, "lease");
  if (!field(lease, "maintenance").is_boolean()) return no_answer();
  TaskState task;
  task.json = json;
  task.ended = field(lease, "maintenance_asked").is_null();
  if (task.ended && field(lease, "maintenance") != wanted)
    task.failure = "it could not be written to the store; try again";
  task.progress = "being written to the store";
  return task;
}

}  // namespace cms::admin
