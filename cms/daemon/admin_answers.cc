// The JSON of the admin channel; admin_listing.cc decides what stands on which page.
#include "cms/daemon/admin_answers.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "cms/daemon/admin_json.h"
#include "cms/daemon/admin_listing.h"
#include "cms/daemon/admin_restores.h"
#include "cms/daemon/admin_words.h"

namespace cms::daemon {
namespace {

using Item = CoreSnapshot::Item;
using State = CoreSnapshot::State;

constexpr std::size_t kSessionsShownMax = 100;  // Of one ECU or program.
constexpr std::size_t kFailuresShownMax = 20;

Json row_json(const storage::IndexRow& row, const char* state, std::uint64_t wall_us) {
  Json json = identity_json(row.name.checkpoint);
  json["state"] = state;
  json["size_bytes"] = row.name.size_bytes;
  json["stored_bytes"] = row.stored_bytes;
  json["stored_at"] = time_json(row.stored_at_us);
  json["stored_at_us"] = row.stored_at_us == 0 ? Json() : Json(row.stored_at_us);
  json["age_s"] = age_json(wall_us, row.stored_at_us);
  json["taken_at"] = time_json(row.taken_at_us);
  json["pause_us"] = row.pause_us;
  json["program_name"] = row.program_name;
  json["lineage"] = to_string(row.name.lineage);
  json["owner_epoch"] = row.name.owner_epoch;
  json["pinned"] = row.pinned;
  return json;
}

Json item_json(const Item& item, std::uint64_t wall_us) {
  Json json = identity_json(item.checkpoint);
  json["state"] = to_text(item.state);
  if (item.state == State::kFailed) {
    json["failed_at"] = time_json(item.failed_at_us);
    json["age_s"] = age_json(wall_us, item.failed_at_us);
    json["code"] = to_string(item.code);
  } else {
    json["size_bytes"] = item.size_bytes;
    json["age_s"] = seconds_json(item.waiting);
    json["taken_at"] = time_json(item.taken_at_us);
    json["pause_us"] = item.pause_us;
    json["program_name"] = item.program_name;
    json["owner_epoch"] = item.owner_epoch;
  }
  if (item.state == State::kPulling) json["received_bytes"] = item.received_bytes;
  json["reason"] = item.reason;
  return json;
}

Json session_json(const CoreSnapshot::Session& session) {
  return Json{{"incarnation", session.id.incarnation},
              {"address", session.address},
              {"software", session.software},
              {"guarded", session.guarded},
              {"heard_ago_ms", milliseconds(session.heard_ago)},
              {"age_s", seconds_json(session.age)},
              {"programs", session.program_count}};
}

// ---- pages: {"NAME": [entry, …]}

class JsonPage final : public ListPage {
 public:
  JsonPage(const char* name, const DaemonFacts& facts)
      : text_("{\"" + std::string(name) + "\":["), facts_(facts), wall_us_(facts.wall_us) {}

  void add(const EcuEntry& ecu) override {
    Json sessions = Json::array();
    for (std::size_t i = 0; i < std::min(ecu.session_count, kSessionsShownMax); ++i) {
      sessions.push_back(session_json(ecu.sessions[i]));
    }
    const auto guarded = facts_.leases.ecus.find(ecu.ecu_mac);
    append(Json{{"ecu_mac", to_string(ecu.ecu_mac)},
                {"live", ecu.session_count > 0},
                {"session_count", ecu.session_count},
                {"sessions", std::move(sessions)},
                {"lease", guarded == facts_.leases.ecus.end() ? Json() : lease_json(guarded->second)},
                {"checkpoints", ecu.checkpoint_count},
                {"size_bytes", ecu.size_bytes},
                {"stored_bytes", ecu.stored_bytes},
                {"newest_stored_at", time_json(ecu.newest_at_us)},
                {"newest_age_s", age_json(wall_us_, ecu.newest_at_us)}});
  }
  void add(const storage::IndexRow& row, const char* state) override {
    append(row_json(row, state, wall_us_));
  }
  void add(const Item& item) override { append(item_json(item, wall_us_)); }
  std::size_t size_bytes() const override { return text_.size(); }
  std::string finish() && { return std::move(text_) + "]}"; }

 private:
  void append(const Json& entry) {
    if (text_.back() != '[') text_ += ',';
    text_ += dump(entry);
  }

  std::string text_;
  const DaemonFacts& facts_;
  std::uint64_t wall_us_;
};

// ---- retention

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

// ---- show

Json manifest_json(const wire::Manifest& manifest) {
  const wire::Notification& facts = manifest.notification;
  const wire::Requirements& needs = facts.requirements;
  Json json;
  json["chunk_size_bytes"] = manifest.chunk_size_bytes;
  json["chunks"] = manifest.chunk_digests.size();
  json["zero_chunks"] = std::count(manifest.zero_chunks.begin(), manifest.zero_chunks.end(), true);
  json["blob_digest"] = to_string(manifest.blob_digest);
  json["stored_by"] = manifest.stored_by;
  json["stored_at"] = time_json(manifest.stored_at_us);
  json["kind"] = facts.kind == wire::CheckpointKind::kFull ? "full" : "delta";
  json["taken_at"] = time_json(facts.taken_at_us);
  json["pause_us"] = facts.pause_us;
  json["program_name"] = facts.program_name;
  json["requirements"] = Json{{"arch", needs.arch},
                              {"os", needs.os},
                              {"checkpoint_format", needs.checkpoint_format},
                              {"format_version", needs.format_version},
                              {"ram_bytes", needs.ram_bytes},
                              {"labels", needs.labels}};
  json["real_time"] = Json{{"priority", facts.real_time.priority},
                           {"period_us", facts.real_time.period_us},
                           {"deadline_us", facts.real_time.deadline_us},
                           {"wcet_us", facts.real_time.wcet_us},
                           {"tight", facts.real_time.tight}};
  json["policies"] =
      Json{{"release", facts.policies.release == wire::Release::kStored ? "stored" : "replicated"},
           {"on_isolation", facts.policies.on_isolation == wire::OnIsolation::kStop ? "stop" : "keep"},
           {"on_loss", facts.policies.on_loss == wire::OnLoss::kRestore ? "restore" : "ask"}};
  return json;
}

Json stored_json(const storage::IndexRow& row, const char* state, std::uint64_t wall_us,
                 storage::BlobStore& store) {
  storage::IndexRow known = row;
  Json manifest;
  Json trouble;
  if (const auto blob = store.open(row.name); blob.ok()) {
    const wire::Manifest& read = (*blob)->manifest();
    manifest = manifest_json(read);
    if (known.stored_at_us == 0) {  // A row made from a file's name alone.
      known.stored_at_us = read.stored_at_us;
      known.taken_at_us = read.notification.taken_at_us;
      known.pause_us = read.notification.pause_us;
      known.program_name = read.notification.program_name;
    }
  } else {
    trouble = blob.error().message();
  }
  Json json = row_json(known, state, wall_us);
  json["manifest"] = std::move(manifest);
  json["manifest_error"] = std::move(trouble);
  return json;
}

Status show(const wire::AdminRequest& request, const CoreSnapshot& snapshot, storage::CheckpointIndex& index,
            storage::BlobStore& store, wire::AdminAnswer& answer) {
  if (!request.has_ecu_mac || !request.has_program_id) {
    return make_error(Code::kInvalidArgument, "show needs an ecu_mac and a program_id");
  }
  const ProgramKey program{request.ecu_mac, request.program_id};
  const std::uint64_t wall_us = snapshot.facts.wall_us;
  const auto newest = index.newest(program);
  if (!newest) return newest.error();
  const auto row = request.has_version ? index.find(CheckpointId{program, request.version}) : newest;
  if (!row) return row.error();
  const auto facts = index.program(program);
  if (!facts) return facts.error();
  std::uint64_t stored_count = 0;
  Status status =
      index.scan_program(program, [&](const storage::IndexRow&) { return ++stored_count < kPageLooksMax; });
  if (!status.ok()) return status;

  Json json{{"key", to_string(program)},
            {"ecu_mac", to_string(program.ecu_mac)},
            {"program_id", program.program_id}};
  if (request.has_version) json["key"] = to_string(CheckpointId{program, request.version});
  std::optional<Version> withdrawn;
  Json& tombstone = json["withdrawn"];
  if (*facts && (*facts)->withdrawn) {
    withdrawn = (*facts)->withdrawn;
    tombstone = Json{{"incarnation", withdrawn->incarnation},
                     {"seq", withdrawn->seq},
                     {"withdrawn_at", time_json((*facts)->withdrawn_at_us)},
                     {"age_s", age_json(wall_us, (*facts)->withdrawn_at_us)}};
  }
  json["stored_count"] = stored_count;
  Json& checkpoint = json["checkpoint"];
  if (*row) {
    const Version& version = (*row)->name.checkpoint.version;
    const bool current = *newest && (*newest)->name.checkpoint.version == version;
    const char* state = is_withdrawn(version, withdrawn) ? "withdrawn" : current ? "current" : "stored";
    checkpoint = stored_json(**row, state, wall_us, store);
  }
  Json& in_motion = json["in_motion"] = Json::array();
  Json& failures = json["failures"] = Json::array();
  std::size_t known_count = 0;
  for (const Item& item : snapshot.items) {
    if (request.has_version && item.checkpoint.version != request.version) continue;
    ++known_count;
    Json& list = item.state == State::kFailed ? failures : in_motion;
    if (list.size() < kFailuresShownMax) list.push_back(item_json(item, wall_us));
  }
  Json& sessions = json["sessions"] = Json::array();
  for (const CoreSnapshot::Session& session : snapshot.sessions) {
    if (request.has_version && session.id.incarnation != request.version.incarnation) continue;
    if (sessions.size() < kSessionsShownMax) sessions.push_back(session_json(session));
  }

  const bool ended = withdrawn && (!request.has_version || is_withdrawn(request.version, withdrawn));
  const bool announced = !request.has_version && !snapshot.sessions.empty();
  if (!*row && known_count == 0 && !ended && !announced) {
    std::string context = json["key"].get<std::string>() + " is not known here";
    if (!snapshot.facts.reconcile_done) context += " yet; the index is still being compared with the store";
    return make_error(Code::kNotFound, std::move(context));
  }
  answer.json = dump(json);
  return ok_status();
}

}  // namespace

wire::AdminAnswer answer(const wire::AdminRequest& request, const CoreSnapshot& snapshot,
                         storage::CheckpointIndex& index, storage::BlobStore& store) {
  wire::AdminAnswer answer;
  answer.request_id = request.request_id;
  Status status;
  switch (request.method) {
    case wire::AdminMethod::kStatus: answer.json = status_json(snapshot, index); break;
    case wire::AdminMethod::kEcus:
    case wire::AdminMethod::kCheckpoints: {
      const bool ecus = request.method == wire::AdminMethod::kEcus;
      JsonPage page(ecus ? "ecus" : "checkpoints", snapshot.facts);
      auto next =
          ecus ? list_ecus(request, snapshot, index, page) : list_checkpoints(request, snapshot, index, page);
      if (next.ok()) {
        answer.next = std::move(*next);
        answer.json = std::move(page).finish();
      } else {
        status = std::move(next).error();
      }
      break;
    }
    case wire::AdminMethod::kShow: status = show(request, snapshot, index, store, answer); break;
    case wire::AdminMethod::kScrubStatus: answer.json = scrub_status_json(snapshot.facts); break;
    case wire::AdminMethod::kPeers: answer.json = peers_json(snapshot); break;
    case wire::AdminMethod::kIndexStatus: {
      const auto rows = index.row_count();
      answer.json =
          index_status_json(snapshot.facts, rows.ok() ? std::optional<std::uint64_t>(*rows) : std::nullopt);
      break;
    }
    case wire::AdminMethod::kRetire:
    case wire::AdminMethod::kPin:
    case wire::AdminMethod::kUnpin:
    case wire::AdminMethod::kRetentionPlan:
    case wire::AdminMethod::kRetentionApply:
    case wire::AdminMethod::kScrub:
    case wire::AdminMethod::kIndexRebuild:
    case wire::AdminMethod::kExplain:
    case wire::AdminMethod::kEcuFailed:
    case wire::AdminMethod::kRestores:
    case wire::AdminMethod::kHistory:
    case wire::AdminMethod::kMigrate:
    case wire::AdminMethod::kEcuDrain:
    case wire::AdminMethod::kEcuMaintenance: CMS_ASSERT(false); break;
  }
  if (!status.ok()) {
    answer.code = status.error().code;
    answer.context = status.error().context.empty() ? status.error().message() : status.error().context;
  }
  CMS_ASSERT(answer.json.size() <= wire::kJsonBytesMax);
  return answer;
}

std::string scrub_status_json(const DaemonFacts& facts) {
  Json json = scrub_object(facts);
  json["quarantine"] = quarantine_object(facts.quarantine);
  Json& runs = json["runs"] = Json::array();
  for (const ScrubRun& run : facts.scrub.runs) runs.push_back(run_json(run));
  return dump(json);
}

std::string scrub_run_json(const ScrubRun& run) { return dump(run_json(run)); }

std::string index_status_json(const DaemonFacts& facts, std::optional<std::uint64_t> rows) {
  Json json = index_object(facts);
  json["rows"] = rows ? Json(*rows) : Json();
  return dump(json);
}

std::string pinned_json(const CheckpointId& checkpoint, bool pinned) {
  Json json = identity_json(checkpoint);
  json["pinned"] = pinned;
  return dump(json);
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
  return dump(json);
}

std::string retired_json(const ProgramKey& program, const Version& up_to) {
  Json json = identity_json(CheckpointId{program, up_to});
  json["state"] = "withdrawn";
  return dump(json);
}

}  // namespace cms::daemon
