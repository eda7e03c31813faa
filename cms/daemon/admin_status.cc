// What `cms-admin status` is told: the state of this cmsd, and what is wrong with what to do about it.
#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "cms/daemon/admin_json.h"
#include "cms/daemon/admin_listing.h"

namespace cms::daemon {
namespace {

using Item = CoreSnapshot::Item;
using State = CoreSnapshot::State;

constexpr Duration kStatusScanMax = std::chrono::seconds(2);  // status shall answer within 5 s.
constexpr std::size_t kClockRows = 4096;                      // Rows between two looks at the clock.

struct IndexTotals {
  std::uint64_t checkpoints = 0;
  std::uint64_t programs = 0;
  std::uint64_t ecus = 0;
  std::uint64_t size_bytes = 0;
  std::uint64_t stored_bytes = 0;
  bool complete = true;  // False: there was no time for all rows; only `checkpoints` is of all.
  std::optional<storage::IndexRow> oldest_newest;  // Of the rows whose time is known.
};

Status add_up(storage::CheckpointIndex& index, IndexTotals& totals) {
  const auto count = index.row_count();
  if (!count) return count.error();
  totals.checkpoints = *count;
  const Instant deadline = BootClock::now() + kStatusScanMax;
  std::size_t looks = 0;
  std::optional<ProgramKey> last;
  return index.scan(std::nullopt, std::nullopt, [&](const storage::IndexRow& row) {
    if (++looks % kClockRows == 0 && BootClock::now() >= deadline) {
      totals.complete = false;
      return false;
    }
    totals.size_bytes += row.name.size_bytes;
    totals.stored_bytes += row.stored_bytes;
    const ProgramKey& program = row.name.checkpoint.program;
    if (last == program) return true;
    ++totals.programs;
    if (!last || last->ecu_mac != program.ecu_mac) ++totals.ecus;
    last = program;
    if (row.stored_at_us != 0 &&
        (!totals.oldest_newest || row.stored_at_us < totals.oldest_newest->stored_at_us)) {
      totals.oldest_newest = row;
    }
    return true;
  });
}

// Failures remembered that matter still: nothing newer of the program has been stored since.
struct Lasting {
  std::vector<const Item*> never_stored;
  std::vector<const Item*> out_of_date;  // What is stored is older than what failed.
};

Status find_lasting(const CoreSnapshot& snapshot, storage::CheckpointIndex& index, Lasting& lasting) {
  std::map<ProgramKey, const Item*> newest_failure;
  for (const Item& item : snapshot.items) {
    if (item.state != State::kFailed) continue;
    const Item*& newest = newest_failure[item.checkpoint.program];
    if (newest == nullptr || newest->checkpoint.version < item.checkpoint.version) newest = &item;
  }
  for (const auto& [program, failure] : newest_failure) {
    const auto row = index.newest(program);
    if (!row) return row.error();
    const auto facts = index.program(program);
    if (!facts) return facts.error();
    if (*facts && is_withdrawn(failure->checkpoint.version, (*facts)->withdrawn)) continue;
    if (!*row) {
      lasting.never_stored.push_back(failure);
    } else if ((*row)->name.checkpoint.version < failure->checkpoint.version) {
      lasting.out_of_date.push_back(failure);
    }
  }
  return ok_status();
}

class Problems {
 public:
  // error: nothing can be stored. warning: somebody should look. notice: good to know.
  enum class Severity { kNotice, kWarning, kError };

  void add(Severity severity, std::string what, Json since_s, std::string what_to_do) {
    static constexpr const char* kNames[] = {"notice", "warning", "error"};
    list_.push_back(Json{{"severity", kNames[static_cast<int>(severity)]},
                         {"what", std::move(what)},
                         {"since_s", std::move(since_s)},
                         {"what_to_do", std::move(what_to_do)}});
    worst_ = std::max(worst_, severity);
  }
  const char* health() const {
    return worst_ == Severity::kError ? "down" : worst_ == Severity::kWarning ? "degraded" : "ok";
  }
  const Json& list() const { return list_; }

 private:
  Json list_ = Json::array();
  Severity worst_ = Severity::kNotice;
};
using Severity = Problems::Severity;

std::string remedy_for_store(Code code, const std::string& url) {
  switch (code) {
    case Code::kNoSpace:
    case Code::kQuota:
      return "free space on " + url + " or start cmsd with a lower --keep-latest; it goes on by itself";
    case Code::kNotFound:
    case Code::kUnavailable:
      return "see that " + url + " is mounted and its host is up; cmsd goes on by itself";
    case Code::kReadOnly:
    case Code::kPermission: return "make " + url + " writable for the user of cmsd; it goes on by itself";
    case Code::kForeign: return "point --store to the fleet's store or to an empty directory";
    case Code::kUnsupported: return "update this cmsd: the store is of a newer format";
    default: return "look at the log of cmsd and at the host of " + url;
  }
}

void find_store_problems(const CoreSnapshot& snapshot, Problems& problems) {
  const DaemonFacts& facts = snapshot.facts;
  if (!snapshot.store_status.ok()) {
    const Error& error = snapshot.store_status.error();
    problems.add(Severity::kError, "nothing can be stored: " + error.message(),
                 seconds_json(facts.store_since), remedy_for_store(error.code, facts.store_url));
  } else if (facts.space && facts.space->free_bytes < facts.space->total_bytes / 10) {
    problems.add(Severity::kWarning,
                 "the store is nearly full: " + std::to_string(facts.space->free_bytes / (1024 * 1024)) +
                     " MiB of " + std::to_string(facts.space->total_bytes / (1024 * 1024)) + " MiB are free",
                 nullptr, "free space on " + facts.store_url + ", retire programs or lower --keep-latest");
  }
  if (!facts.reconcile_trouble.empty() && snapshot.store_status.ok()) {
    problems.add(Severity::kWarning,
                 "the index cannot be compared with the store: " + facts.reconcile_trouble, nullptr,
                 "look at the log of cmsd; it tries again by itself");
  } else if (facts.reconcile_running) {
    problems.add(Severity::kNotice, "the index is being compared with the store", nullptr,
                 "nothing; wait for the end");
  }
  if (facts.unknown_files > 0) {
    problems.add(Severity::kNotice,
                 std::to_string(facts.unknown_files) + " files in the store are not checkpoints", nullptr,
                 "see who writes to " + facts.store_url + "; cmsd leaves them alone");
  }
}

void find_checkpoint_problems(const CoreSnapshot& snapshot, const Lasting& lasting, Problems& problems) {
  const std::uint64_t wall_us = snapshot.facts.wall_us;
  const auto add_failures = [&](const std::vector<const Item*>& failures, const char* what) {
    if (failures.empty()) return;
    const Item& oldest =
        **std::min_element(failures.begin(), failures.end(),
                           [](const Item* a, const Item* b) { return a->failed_at_us < b->failed_at_us; });
    const std::string key = to_string(oldest.checkpoint);
    problems.add(
        Severity::kWarning,
        std::to_string(failures.size()) + what + key + ": " + std::string(to_string(oldest.code)) + ": " +
            oldest.reason,
        age_json(wall_us, oldest.failed_at_us),
        "see 'cms-admin show " + key + "'; it ends when a newer checkpoint is stored or the program retired");
  };
  add_failures(lasting.never_stored, " programs were never stored and their last checkpoint failed, first ");
  add_failures(lasting.out_of_date, " programs' newest checkpoint failed and an older one is kept, first ");
  // While the store is away everything waits; that is one problem, not two.
  if (snapshot.counts.late > 0 && snapshot.store_status.ok()) {
    problems.add(Severity::kWarning,
                 std::to_string(snapshot.counts.late) + " programs' newest checkpoint waits to be pulled",
                 seconds_json(snapshot.counts.longest_wait),
                 "see the reasons in 'cms-admin checkpoints'; can this host reach their ECUs?");
  }
}

const char* to_text(CoreSnapshot::Peer::State state) {
  using PeerState = CoreSnapshot::Peer::State;
  return state == PeerState::kLive ? "live" : state == PeerState::kSilent ? "silent" : "refused";
}

void find_cms_problems(const CoreSnapshot& snapshot, Problems& problems) {
  using PeerState = CoreSnapshot::Peer::State;
  std::size_t heard_count = 0;
  for (const CoreSnapshot::Peer& peer : snapshot.peers) {
    ++heard_count;
    if (peer.state == PeerState::kSilent) {
      problems.add(Severity::kWarning,
                   "cmsd " + peer.name + " at " + peer.address + " is silent; this one pulls for it",
                   seconds_json(peer.since), "see that it runs, and that this host is among its peers");
    } else if (peer.state == PeerState::kForeign) {
      problems.add(
          Severity::kWarning,
          "cmsd " + peer.name + " at " + peer.address + " is refused: its store is of fleet " + peer.fleet_id,
          seconds_json(peer.since), "point both to one store, or take it out of the lists of peers");
    } else if (!peer.takes_pulls) {
      problems.add(Severity::kWarning,
                   "cmsd " + peer.name + " pulls nothing: it is ending, or its store is away", nullptr,
                   "see 'cms-admin status' of that one");
    }
  }
  if (heard_count < snapshot.facts.peers_configured) {
    problems.add(Severity::kWarning,
                 std::to_string(snapshot.facts.peers_configured - heard_count) + " of " +
                     std::to_string(snapshot.facts.peers_configured) +
                     " configured peers have not been heard since the start",
                 seconds_json(snapshot.facts.uptime),
                 "see that they run and that their --peer lists name this cmsd");
  }
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

void find_session_problems(const CoreSnapshot& snapshot, Problems& problems) {
  if (snapshot.counts.silent_sessions > 0) {
    problems.add(Severity::kWarning,
                 std::to_string(snapshot.counts.silent_sessions) + " sessions are not heard any more",
                 seconds_json(snapshot.counts.longest_silence),
                 "see 'cms-admin ecus'; are these ECUs and their network up?");
  }
  if (snapshot.counters.malformed > 0) {
    problems.add(
        Severity::kNotice,
        std::to_string(snapshot.counters.malformed) + " malformed messages have come since the start",
        nullptr, "look for 'malformed' in the log of cmsd: who sent them?");
  }
  if (snapshot.facts.draining) {
    problems.add(Severity::kNotice, "this cmsd is about to end: it finishes its pulls and begins no new ones",
                 nullptr, "nothing");
  }
}

Json counters_json(const core::Counters& counters) {
  return Json{{"notifications", counters.notifications},
              {"duplicates", counters.duplicates},
              {"gaps", counters.gaps},
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
              {"reconciled_for_peers", counters.reconciled_for_peers}};
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
  Problems problems;
  find_store_problems(snapshot, problems);
  IndexTotals totals;
  Lasting lasting;
  Status indexed = add_up(index, totals);
  if (indexed.ok()) indexed = find_lasting(snapshot, index, lasting);
  if (!indexed.ok()) {
    problems.add(
        Severity::kError, "the index cannot be read: " + indexed.error().message(), nullptr,
        "look at the disk of --index; when it is damaged, stop cmsd, move the index away and start it again");
  }
  find_checkpoint_problems(snapshot, lasting, problems);
  find_cms_problems(snapshot, problems);
  find_session_problems(snapshot, problems);

  Json json;
  json["health"] = problems.health();
  json["problems"] = problems.list();
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
  store["total_bytes"] = facts.space ? Json(facts.space->total_bytes) : Json();
  store["free_bytes"] = facts.space ? Json(facts.space->free_bytes) : Json();
  store["reconcile"] = Json{{"running", facts.reconcile_running},
                            {"done", facts.reconcile_done},
                            {"shards_done", facts.reconcile_shards_done},
                            {"shards_total", storage::kShardCount}};
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
  json["failures"] = std::count_if(snapshot.items.begin(), snapshot.items.end(),
                                   [](const Item& item) { return item.state == State::kFailed; });
  json["queues"] = Json{{"store", facts.store_queue_length},
                        {"index", facts.index_queue_length},
                        {"query", facts.query_queue_length}};
  json["rss_bytes"] = facts.rss_bytes;
  json["counters"] = counters_json(snapshot.counters);
  return dump(json);
}

}  // namespace cms::daemon
