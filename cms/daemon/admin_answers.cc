// The JSON of the admin channel; admin_listing.cc decides what stands on which page.
#include "cms/daemon/admin_answers.h"

#include <algorithm>
#include <array>
#include <ctime>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "cms/daemon/admin_listing.h"

namespace cms::daemon {
namespace {

using Json = nlohmann::ordered_json;
using Item = CoreSnapshot::Item;
using State = CoreSnapshot::State;

constexpr Duration kStatusScanMax = std::chrono::seconds(2);  // status shall answer within 5 s.
constexpr std::size_t kClockRows = 4096;                      // Rows between two looks at the clock.
constexpr std::size_t kSessionsShownMax = 100;                // Of one ECU or program.
constexpr std::size_t kFailuresShownMax = 20;

// ---- values

std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

// RFC 3339 with milliseconds; null for 0, which means: not known.
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

Json age_json(std::uint64_t wall_us, std::uint64_t at_us) {
  if (at_us == 0) return nullptr;
  return wall_us > at_us ? (wall_us - at_us) / 1000000 : 0;
}

Json seconds_json(Duration duration) {
  return std::max<std::int64_t>(0, std::chrono::duration_cast<std::chrono::seconds>(duration).count());
}

std::int64_t milliseconds(Duration duration) {
  return std::max<std::int64_t>(0, std::chrono::duration_cast<std::chrono::milliseconds>(duration).count());
}

const char* to_text(State state) {
  switch (state) {
    case State::kAnnounced: return "announced";
    case State::kPulling: return "pulling";
    case State::kFailed: return "failed";
  }
  return "";
}

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

// ---- status

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

void find_peer_problems(const CoreSnapshot& snapshot, Problems& problems) {
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
              {"store_troubles", counters.store_troubles}};
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
  find_peer_problems(snapshot, problems);

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
    case wire::AdminMethod::kRetire: CMS_ASSERT(false); break;
  }
  if (!status.ok()) {
    answer.code = status.error().code;
    answer.context = status.error().context.empty() ? status.error().message() : status.error().context;
  }
  CMS_ASSERT(answer.json.size() <= wire::kJsonBytesMax);
  return answer;
}

std::string retired_json(const ProgramKey& program, const Version& up_to) {
  Json json = identity_json(CheckpointId{program, up_to});
  json["state"] = "withdrawn";
  return dump(json);
}

}  // namespace cms::daemon
