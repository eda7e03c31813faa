// How this cmsd is, and its peers.
#include <algorithm>
#include <array>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "cms/daemon/admin_answers.h"
#include "cms/daemon/admin_findings.h"
#include "cms/daemon/admin_json.h"
#include "cms/daemon/admin_words.h"

namespace cms::daemon {
namespace {

using Item = CoreSnapshot::Item;
using State = CoreSnapshot::State;

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

Json heard_json(const CoreSnapshot& snapshot) {
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

}  // namespace

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
  json["peers"] = heard_json(snapshot);
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

// ---- peers: what is heard of them on the network beside what their records on the store say

namespace {

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

}  // namespace

std::string peers_json(const CoreSnapshot& snapshot) {
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

}  // namespace cms::daemon
