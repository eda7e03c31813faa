// The JSON of the admin channel; admin_listing.cc decides what stands on which page.
#include "cms/daemon/admin_answers.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "cms/daemon/admin_findings.h"
#include "cms/daemon/admin_listing.h"
#include "cms/daemon/admin_words.h"

namespace cms::daemon {
namespace {

using Json = nlohmann::ordered_json;
using Item = CoreSnapshot::Item;
using State = CoreSnapshot::State;

constexpr std::size_t kSessionsShownMax = 100;  // Of one ECU or program.
constexpr std::size_t kFailuresShownMax = 20;

// ---- values

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
  JsonPage(const char* name, std::uint64_t wall_us)
      : text_("{\"" + std::string(name) + "\":["), wall_us_(wall_us) {}

  void add(const EcuEntry& ecu) override {
    Json sessions = Json::array();
    for (std::size_t i = 0; i < std::min(ecu.session_count, kSessionsShownMax); ++i) {
      sessions.push_back(session_json(ecu.sessions[i]));
    }
    append(Json{{"ecu_mac", to_string(ecu.ecu_mac)},
                {"live", ecu.session_count > 0},
                {"session_count", ecu.session_count},
                {"sessions", std::move(sessions)},
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
  std::uint64_t wall_us_;
};

// ---- scrubbing, quarantine, the making of the index

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

// ---- status

Json problems_json(const std::vector<Problem>& problems) {
  static constexpr const char* kNames[] = {"notice", "warning", "error"};
  Json list = Json::array();
  for (const Problem& problem : problems) {
    list.push_back(Json{{"severity", kNames[static_cast<int>(problem.severity)]},
                        {"what", problem.what},
                        {"since_s", optional_json(problem.since_s)},
                        {"what_to_do", problem.what_to_do}});
  }
  return list;
}

// The part of the store's object that is about claims.
void add_claims(const ClaimsFacts& claims, Json& store) {
  store["claims_trusted"] = claims.test ? Json(claims.test->trusted_with_claims()) : Json();
  store["self_test"] = nullptr;
  if (claims.test) {
    Json list = Json::array();
    for (const storage::StoreTrait& trait : claims.test->traits) {
      list.push_back(Json{{"trait", trait.name}, {"holds", trait.holds}, {"detail", trait.detail}});
    }
    store["self_test"] = std::move(list);
  }
  store["self_test_trouble"] = claims.trouble.empty() ? Json() : Json(claims.trouble);
  const bool clock_known = claims.test && claims.test->clock_known;
  store["clock_ahead_ms"] = clock_known ? Json(claims.test->clock_ahead_ms) : Json();
}

Json peers_json(const CoreSnapshot& snapshot) {
  Json peers = Json::array();
  for (const CoreSnapshot::Peer& peer : snapshot.peers) {
    peers.push_back(Json{{"name", peer.name},
                         {"address", peer.address},
                         {"state", to_text(peer.state)},
                         {"since_s", seconds_json(peer.since)},
                         {"takes_pulls", peer.takes_pulls},
                         {"pull", peer.pull_every ? "every" : "one"},
                         {"queued", peer.queued},
                         {"events", peer.event_count},
                         {"gaps", peer.gap_count},
                         {"fleet_id", peer.fleet_id.empty() ? Json() : Json(peer.fleet_id)}});
  }
  return peers;
}

Json counters_json(const core::Counters& counters) {
  return Json{{"notifications", counters.notifications},
              {"duplicates", counters.duplicates},
              {"gaps", counters.gaps},
              {"refused_hellos", counters.refused_hellos},
              {"unknown_sessions", counters.unknown_sessions},
              {"malformed", counters.malformed},
              {"pulls_started", counters.pulls_started},
              {"pulled_bytes", counters.pulled_bytes},
              {"stored", counters.stored},
              {"stored_bytes", counters.stored_bytes},
              {"superseded", counters.superseded},
              {"failed", counters.failed},
              {"refetched", counters.refetched},
              {"stalls", counters.stalls},
              {"store_troubles", counters.store_troubles},
              {"peer_stored", counters.peer_stored},
              {"taken_over", counters.taken_over},
              {"reconciled_for_peers", counters.reconciled_for_peers},
              {"removed", counters.removed},
              {"removed_bytes", counters.removed_bytes},
              {"peer_removed", counters.peer_removed},
              {"quarantined", counters.quarantined}};
}

Json retention_json(const DaemonFacts::Retention& retention) {
  return Json{
      {"sweeping", retention.sweeping},
      {"being_read", retention.being_read},
      {"sweeps", retention.sweep_count},
      {"last_sweep_age_s", retention.last_sweep_ago ? seconds_json(*retention.last_sweep_ago) : Json()},
      {"next_sweep_in_s", seconds_json(retention.next_sweep_in)},
      {"trouble", retention.trouble.empty() ? Json() : Json(retention.trouble)},
      {"full", Json{{"sweeps", retention.full_sweep_count},
                    {"removed", retention.full_removed},
                    {"removed_bytes", retention.full_removed_bytes}}}};
}

Json never_stored_json(const CoreSnapshot& snapshot, const Lasting& lasting) {
  std::set<ProgramKey> listed;
  Json first = Json::array();
  std::size_t count = snapshot.counts.never_stored;
  const auto add = [&](const Item& item) {
    if (first.size() >= kNeverStoredShownMax) return;
    first.push_back(
        Json{{"key", to_string(item.checkpoint)},
             {"state", to_text(item.state)},
             {"age_s", item.state == State::kFailed ? age_json(snapshot.facts.wall_us, item.failed_at_us)
                                                    : seconds_json(item.waiting)},
             {"reason", item.reason}});
  };
  for (const Item& item : snapshot.items) {
    if (item.state == State::kFailed) continue;
    listed.insert(item.checkpoint.program);
    add(item);
  }
  for (const Item* failure : lasting.never_stored) {
    if (listed.count(failure->checkpoint.program) != 0) continue;
    ++count;
    add(*failure);
  }
  return Json{{"count", count}, {"complete", snapshot.counts.all_looked_at}, {"first", std::move(first)}};
}

std::string status_json(const CoreSnapshot& snapshot, storage::CheckpointIndex& index) {
  const DaemonFacts& facts = snapshot.facts;
  IndexTotals totals;
  Lasting lasting;
  Status indexed = add_up(index, totals);
  if (indexed.ok()) indexed = find_lasting(snapshot, index, lasting);
  const std::vector<Problem> problems = find_problems(snapshot, indexed, lasting);

  Json json;
  json["health"] = health_of(problems);
  json["problems"] = problems_json(problems);
  json["name"] = facts.name;
  json["version"] = facts.version;
  json["pid"] = facts.pid;
  json["port_base"] = facts.port_base;
  json["uptime_s"] = seconds_json(facts.uptime);
  json["time"] = time_json(facts.wall_us);
  Json& store = json["store"];
  store["url"] = facts.store_url;
  store["state"] = to_string(snapshot.store_status.code());
  store["reason"] = snapshot.store_status.ok() ? Json() : Json(snapshot.store_status.error().message());
  store["since_s"] = seconds_json(facts.store_since);
  store["no_answer_s"] = facts.store_no_answer_for ? seconds_json(*facts.store_no_answer_for) : Json();
  store["total_bytes"] = facts.space ? Json(facts.space->total_bytes) : Json();
  store["free_bytes"] = facts.space ? Json(facts.space->free_bytes) : Json();
  store["reconcile"] = Json{{"running", facts.reconcile_running},
                            {"done", facts.reconcile_done},
                            {"shards_done", facts.reconcile_shards_done},
                            {"shards_total", storage::kShardCount}};
  add_claims(facts.claims, store);
  json["index"] = index_object(facts);
  json["scrub"] = scrub_object(facts);
  json["restores"] = Json{{"under_way", facts.restores.under_way},
                          {"done", facts.restores.done},
                          {"without_target", facts.restores.without_target},
                          {"unanswered", facts.restores.unanswered},
                          {"refused", facts.restores.refused}};
  json["quarantine"] = quarantine_object(facts.quarantine);
  json["peers"] = peers_json(snapshot);
  json["sessions"] = snapshot.counts.sessions;
  json["silent_sessions"] = snapshot.counts.silent_sessions;
  Json& stored = json["stored"];
  if (indexed.ok()) {
    stored = Json{{"checkpoints", totals.checkpoints},
                  {"programs", totals.programs},
                  {"ecus", totals.ecus},
                  {"size_bytes", totals.size_bytes},
                  {"stored_bytes", totals.stored_bytes},
                  {"complete", totals.complete}};
  }
  Json& oldest = json["oldest_newest_checkpoint"];
  if (indexed.ok() && totals.oldest_newest) {
    oldest = Json{{"key", to_string(totals.oldest_newest->name.checkpoint)},
                  {"stored_at", time_json(totals.oldest_newest->stored_at_us)},
                  {"age_s", age_json(facts.wall_us, totals.oldest_newest->stored_at_us)}};
  }
  json["never_stored"] = never_stored_json(snapshot, lasting);
  json["pulls"] = Json{{"running", snapshot.counts.pulls},
                       {"queued", snapshot.counts.queued},
                       {"received_bytes", snapshot.counts.pull_bytes_done},
                       {"size_bytes", snapshot.counts.pull_bytes_total},
                       {"bytes_per_s", facts.pull_bytes_per_s}};
  json["waiting"] = Json{{"programs", snapshot.counts.waiting},
                         {"size_bytes", snapshot.counts.waiting_bytes},
                         {"longest_s", seconds_json(snapshot.counts.waiting_longest)}};
  json["failures"] = std::count_if(snapshot.items.begin(), snapshot.items.end(),
                                   [](const Item& item) { return item.state == State::kFailed; });
  json["queues"] = Json{{"store", facts.store_queue_length},
                        {"index", facts.index_queue_length},
                        {"query", facts.query_queue_length}};
  json["retention"] = retention_json(facts.retention);
  json["rss_bytes"] = facts.rss_bytes;
  json["counters"] = counters_json(snapshot.counters);
  return dump(json);
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
                           {"wcet_us", facts.real_time.wcet_us}};
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

// ---- peers: what is heard of them on the network beside what their records on the store say

using Life = std::pair<std::string, std::uint64_t>;  // Name and incarnation.

std::string hex16(std::uint64_t value) {
  std::array<char, 17> text{};
  std::snprintf(text.data(), text.size(), "%016llx", static_cast<unsigned long long>(value));
  return text.data();
}

const char* record_text(MembersFacts::Member::State state) {
  switch (state) {
    case MembersFacts::Member::State::kRenewed: return "renewed";
    case MembersFacts::Member::State::kResigned: return "resigned";
    case MembersFacts::Member::State::kStale: return "stale";
  }
  return "";
}

std::string peers_answer(const CoreSnapshot& snapshot) {
  const MembersFacts& facts = snapshot.facts.members;
  std::map<Life, std::pair<const CoreSnapshot::Peer*, const MembersFacts::Member*>> lives;
  for (const CoreSnapshot::Peer& peer : snapshot.peers) lives[{peer.name, peer.incarnation}].first = &peer;
  for (const MembersFacts::Member& member : facts.members) {
    lives[{member.node, member.incarnation}].second = &member;
  }
  Json peers = Json::array();
  for (const auto& [life, known] : lives) {
    const auto& [peer, member] = known;
    Json json{{"name", life.first}, {"incarnation", hex16(life.second)}};
    json["network"] = peer != nullptr ? Json(to_text(peer->state)) : Json();
    json["since_s"] = peer != nullptr ? Json(seconds_of(peer->since)) : Json();
    json["address"] = peer != nullptr ? Json(peer->address) : Json();
    json["takes_pulls"] = peer != nullptr ? Json(peer->takes_pulls) : Json();
    json["record"] = member != nullptr ? Json(record_text(member->state)) : Json();
    json["record_readable"] = member != nullptr ? Json(member->readable) : Json();
    json["record_unchanged_ms"] = member != nullptr ? Json(milliseconds(member->unchanged)) : Json();
    json["software"] = member != nullptr ? Json(member->software) : Json();
    peers.push_back(std::move(json));
  }
  Json json{{"name", snapshot.facts.name}, {"incarnation", hex16(facts.incarnation)}};
  json["acts"] = facts.may_act;
  json["renewed_ago_ms"] = facts.written_ago ? Json(milliseconds(*facts.written_ago)) : Json();
  json["trouble"] = facts.trouble.empty() ? Json() : Json(facts.trouble);
  json["peers"] = std::move(peers);
  return dump(json);
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
      JsonPage page(ecus ? "ecus" : "checkpoints", snapshot.facts.wall_us);
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
    case wire::AdminMethod::kPeers: answer.json = peers_answer(snapshot); break;
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
    case wire::AdminMethod::kHistory: CMS_ASSERT(false); break;
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
