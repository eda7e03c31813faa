#include "cms/daemon/admin_restores.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "cms/daemon/admin_json.h"
#include "cms/daemon/admin_words.h"

namespace cms::daemon {
namespace {

using core::RestoreCore;
using Stage = RestoreCore::Stage;

std::int64_t ms_between(Instant from, Instant to) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(to - from).count();
}

Json restore_json(const RestoreCore::Restore& restore, Instant now) {
  const bool ended = restore.ended_at != Instant{};
  Json json{{"program", to_string(restore.replaces.program)},
            {"lineage", to_string(restore.lineage)},
            {"reason", std::string(wire::to_string(restore.reason))},
            {"state", std::string(core::to_string(restore.stage))}};
  json["runs_as"] = restore.runs_as == ProgramKey{} ? Json() : Json(to_string(restore.runs_as));
  json["target"] = restore.target == SessionId{} ? Json() : Json(to_string(restore.target.ecu_mac));
  json["checkpoint"] = restore.found ? Json(to_string(restore.found->name.checkpoint)) : Json();
  json["size_bytes"] = restore.found ? Json(restore.found->name.size_bytes) : Json();
  json["received_bytes"] = restore.received_bytes;
  json["attempts"] = restore.head ? Json(restore.head->attempts) : Json();
  json["took_ms"] = ms_between(restore.began_at, ended ? restore.ended_at : now);
  // Each step, in ms after it began; null: not come to.
  const auto step = [&](const char* name, Instant at) {
    json[name] = at == Instant{} ? Json() : Json(ms_between(restore.began_at, at));
  };
  step("claimed_ms", restore.claimed_at);
  step("placed_ms", restore.placed_at);
  step("frozen_ms", restore.frozen_at);
  step("prepared_ms", restore.prepared_at);
  step("acted_ms", restore.acted_at);
  step("started_ms", restore.started_at);
  json["why"] = restore.why.empty() ? Json() : Json(restore.why);
  return json;
}

// The answer with `found` as its last part, as many of them as fit.
std::string with_list(Json json, std::vector<const RestoreCore::Restore*> found, Instant now) {
  std::stable_sort(found.begin(), found.end(), [](const auto* a, const auto* b) {
    return (a->stage == Stage::kDone) < (b->stage == Stage::kDone);
  });
  for (std::size_t shown = std::min(found.size(), kRestoresShownMax);; shown /= 2) {
    Json list = Json::array();
    for (std::size_t i = 0; i < shown; ++i) list.push_back(restore_json(*found[i], now));
    json["shown"] = shown;
    json["restores"] = std::move(list);
    std::string text = dump(json);
    if (text.size() <= wire::kJsonBytesMax) return text;
  }
}

std::vector<const RestoreCore::Restore*> restores_of(const RestoreCore& restores,
                                                     const std::set<Lineage>& lineages) {
  std::vector<const RestoreCore::Restore*> found;
  for (const Lineage& lineage : lineages) {
    const auto restore = restores.restores().find(lineage);
    if (restore != restores.restores().end()) found.push_back(&restore->second);
  }
  return found;
}

std::string progress_json(Json json, const RestoreCore::Progress& progress, bool all, Instant told_at,
                          const std::string& trouble, std::vector<const RestoreCore::Restore*> found,
                          Instant now) {
  const std::size_t ended = progress.done + progress.refused;
  const double seconds = std::chrono::duration<double>(now - told_at).count();
  const double rate = seconds > 0 ? static_cast<double>(ended) / seconds : 0;
  json["total"] = progress.total;
  json["done"] = progress.done;
  json["refused"] = progress.refused;
  json["per_s"] = static_cast<std::uint64_t>(rate);
  json["left_s"] = rate > 0 && !all
                       ? Json(static_cast<std::uint64_t>(static_cast<double>(progress.total - ended) / rate))
                       : Json();
  json["trouble"] = trouble.empty() ? Json() : Json(trouble);
  return with_list(std::move(json), std::move(found), now);
}

std::string what_of(const wire::ClaimRecord& record) {
  switch (record.kind) {
    case wire::ClaimKind::kClaim:
      return std::string(wire::to_string(record.reason)) + ", attempt " + std::to_string(record.attempts);
    case wire::ClaimKind::kAct:
      return "may run on " + to_string(record.target.ecu_mac) + " from " +
             to_string(record.checkpoint->checkpoint);
    case wire::ClaimKind::kDone: return "from " + to_string(record.base->checkpoint);
    case wire::ClaimKind::kAbort: return std::string(wire::to_string(record.proof)) + ": " + record.text;
    case wire::ClaimKind::kGenesis:
    case wire::ClaimKind::kRelease:
    case wire::ClaimKind::kRetire: break;
  }
  return record.text;
}

}  // namespace

Result<std::string> loss_json(const RestoreCore& restores, EcuMac ecu_mac, Instant now) {
  const auto loss = restores.losses().find(ecu_mac);
  if (loss == restores.losses().end()) {
    return make_error(Code::kNotFound, "nobody told this cmsd that " + to_string(ecu_mac) + " is lost");
  }
  const RestoreCore::Progress progress = restores.progress_of(ecu_mac);
  const bool all = progress.scanned && progress.done + progress.refused == progress.total;
  Json json{{"ecu_mac", to_string(ecu_mac)},
            {"state", all                ? "ended"
                      : progress.scanned ? "restoring"
                                         : "reading the claim logs"}};
  return progress_json(std::move(json), progress, all, loss->second.told_at, loss->second.trouble,
                       restores_of(restores, loss->second.lineages), now);
}

Result<std::string> drain_json(const RestoreCore& restores, EcuMac ecu_mac, Instant now) {
  const auto found = restores.drains().find(ecu_mac);
  if (found == restores.drains().end()) {
    return make_error(Code::kNotFound, "nobody told this cmsd to drain " + to_string(ecu_mac));
  }
  const RestoreCore::Drain& drain = found->second;
  const RestoreCore::Progress progress = restores.progress_of_drain(ecu_mac);
  // What could not be moved is tried again, also when nobody waits for it any more; with a deadline one waits.
  const bool may_go_on = drain.deadline && drain.ended_why.empty() && progress.refused > 0;
  const bool all = (progress.scanned || !drain.ended_why.empty()) &&
                   progress.done + progress.refused == progress.total && !may_go_on;
  Json json{{"ecu_mac", to_string(ecu_mac)},
            {"state", all                ? "ended"
                      : progress.scanned ? "moving"
                                         : "reading the claim logs"},
            {"cancelled", drain.cancelled}};
  json["stopped_by"] = drain.ended_why.empty() ? Json() : Json(drain.ended_why);
  return progress_json(std::move(json), progress, all, drain.told_at, drain.trouble,
                       restores_of(restores, drain.lineages), now);
}

Result<std::string> move_json(const RestoreCore& restores, const ProgramKey& program, Instant now) {
  const RestoreCore::Restore* move = nullptr;
  for (const auto& [lineage, one] : restores.restores()) {
    if (!(one.replaces.program == program) || !(one.is_move() || one.asked_here)) continue;
    if (move == nullptr || one.began_at > move->began_at) move = &one;
  }
  if (move == nullptr) {
    return make_error(Code::kNotFound,
                      "this cmsd moves " + to_string(program) + " neither now nor did it before");
  }
  RestoreCore::Progress progress;
  progress.scanned = true;
  progress.total = 1;
  progress.done = move->stage == Stage::kDone ? 1 : 0;
  progress.refused = move->stage == Stage::kRefused ? 1 : 0;
  Json json{{"program", to_string(program)}, {"state", move->has_ended() ? "ended" : "moving"}};
  return progress_json(std::move(json), progress, move->has_ended(), move->began_at, {}, {move}, now);
}

std::string restores_json(const RestoreCore& restores, std::optional<EcuMac> ecu_mac, Instant now) {
  std::vector<const RestoreCore::Restore*> found;
  for (const auto& [lineage, restore] : restores.restores()) {
    if (!ecu_mac || restore.replaces.program.ecu_mac == *ecu_mac) found.push_back(&restore);
  }
  Json json{{"count", found.size()}};
  return with_list(std::move(json), std::move(found), now);
}

std::string history_json(const std::vector<wire::ClaimRecord>& records, bool more) {
  Json list = Json::array();
  for (const wire::ClaimRecord& record : records) {  // Each far below a kilobyte: they always fit.
    const auto at = time_text(record.written_at_us);
    list.push_back(Json{{"at", at ? Json(*at) : Json()},
                        {"at_us", record.written_at_us},
                        {"lineage", to_string(record.lineage)},
                        {"slot", record.slot},
                        {"kind", std::string(wire::to_string(record.kind))},
                        {"by", record.writer},
                        {"owner", to_string(record.owner.program)},
                        {"owner_epoch", record.owner.owner_epoch},
                        {"attempts", record.attempts},
                        {"what", what_of(record)}});
  }
  return dump(Json{{"records", std::move(list)}, {"more", more}});
}

// ---- run leases

namespace {

const char* state_of(const LeaseFacts::Ecu& ecu) {
  switch (ecu.head.kind) {
    case wire::EcuRecordKind::kLost: return "lost";
    case wire::EcuRecordKind::kBye: return "ended";
    case wire::EcuRecordKind::kHello: break;
  }
  if (ecu.leased) return "leased";
  return ecu.barred ? "barred" : "no lease";
}

}  // namespace

Json lease_json(const LeaseFacts::Ecu& ecu) {
  return Json{{"state", state_of(ecu)},
              {"incarnation", ecu.head.incarnation},
              {"enforcer", to_string(ecu.head.enforcer)},
              {"maintenance", ecu.head.maintenance},
              {"maintenance_asked", ecu.maintenance_asked ? Json(*ecu.maintenance_asked) : Json()},
              {"heartbeat_ago_ms", ecu.heartbeat_ago ? Json(milliseconds(*ecu.heartbeat_ago)) : Json()},
              {"kept_by", ecu.kept_by},
              {"shunned_for_s", seconds_json(ecu.shunned_for)},
              {"waiting", ecu.waiting}};
}

Result<std::string> ecu_lease_json(const LeaseFacts& leases, EcuMac ecu_mac) {
  const auto found = leases.ecus.find(ecu_mac);
  if (found == leases.ecus.end()) {
    return make_error(Code::kNotFound, "no guarded session of " + to_string(ecu_mac) + " is known here");
  }
  Json json{{"ecu_mac", to_string(ecu_mac)}};
  json["lease"] = lease_json(found->second);
  return dump(json);
}

}  // namespace cms::daemon
