#include "cms/admin/render.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <utility>

#include "cms/admin/render_parts.h"

namespace cms::admin {
namespace {

// ---- the answers

// Whether the store can be trusted with claims, and what it means if not.
std::string claims_line(const Json& store) {
  const auto trusted = store.find("claims_trusted");
  if (trusted == store.end()) return {};  // Of an older cmsd.
  if (*trusted == true) return line("claims", "the store can be trusted with claims");
  if (trusted->is_null()) {
    const Json& trouble = field(store, "self_test_trouble");
    return line("claims", "not known whether the store can be trusted with claims: " +
                              (trouble.is_null() ? "not tried yet" : text_of(trouble)));
  }
  std::string traits;
  for (const Json& trait : field(store, "self_test")) {
    if (field(trait, "holds") == false) traits += (traits.empty() ? "" : ", ") + text_at(trait, "trait");
  }
  return line("claims", "the store cannot be trusted with claims (" + traits +
                            "): restores will be refused, storing goes on");
}

std::string status_table(const Json& json, const Style& style) {
  const std::string health = text_at(json, "health");
  std::string out = line("health", coloured(health, health, style));
  for (const Json& problem : field(json, "problems")) {
    const std::string severity = text_at(problem, "severity");
    const std::string since =
        field(problem, "since_s").is_null() ? "" : " (for " + age_at(problem, "since_s") + ")";
    out += line("  " + severity, coloured(text_at(problem, "what"), severity, style) + since);
    out += line("", "to do: " + text_at(problem, "what_to_do"));
  }
  out += line("cmsd", text_at(json, "name") + ", version " + text_at(json, "version") + ", pid " +
                          text_at(json, "pid") + ", port base " + text_at(json, "port_base") + ", up " +
                          age_at(json, "uptime_s"));
  const Json& store = field(json, "store");
  const std::string no_answer =
      field(store, "no_answer_s").is_null() ? "" : ", no answer for " + age_at(store, "no_answer_s");
  out += line("store", text_at(store, "url") + ", " + text_at(store, "state") + " for " +
                           age_at(store, "since_s") + no_answer + ", " + size_at(store, "free_bytes") +
                           " of " + size_at(store, "total_bytes") + " free");
  out += claims_line(store);
  const Json& reconcile = field(store, "reconcile");
  if (field(reconcile, "running") == true) {
    out += line("comparing index",
                text_at(reconcile, "shards_done") + " of " + text_at(reconcile, "shards_total") + " shards");
  }
  const Json& index = field(json, "index");
  const std::string index_now = text_at(index, "state");
  if (index_now == "rebuilding" || index_now == "completing" || index_now == "damaged") {
    out +=
        line("index", index_now + ": " + text_at(index, "reason") + ", " + text_at(index, "rows_added") +
                          " rows, " + text_at(index, "rows_per_s") + " rows/s" +
                          (field(index, "left_s").is_null() ? "" : ", " + age_at(index, "left_s") + " left"));
  }
  const Json& scrub = field(json, "scrub");
  if (!scrub.is_null()) {
    const Json& last = field(scrub, "last_round");
    out +=
        line("scrub", text_at(scrub, "state") + ", " + text_at(scrub, "shards_done") + " of " +
                          text_at(scrub, "shards_total") + " shards, " + size_at(scrub, "bytes_per_s") +
                          "/s; last whole round " +
                          (last.is_null() ? "-"
                                          : text_at(last, "ended_at") + " (" + text_at(last, "checkpoints") +
                                                " checkpoints, " + size_at(last, "bytes") + ", " +
                                                text_at(last, "corrupt") + " corrupt)"));
  }
  const Json& restores = field(json, "restores");
  if (number_at(restores, "done") + number_at(restores, "under_way") + number_at(restores, "without_target") +
          number_at(restores, "refused") >
      0) {
    out += line("restores", text_at(restores, "done") + " programs run elsewhere, " +
                                text_at(restores, "under_way") + " under way, " +
                                text_at(restores, "without_target") + " without a target, " +
                                text_at(restores, "refused") + " refused");
  }
  const Json& quarantine = field(json, "quarantine");
  if (!quarantine.is_null() && field(quarantine, "checkpoints") != 0) {
    out += line("quarantine", text_at(quarantine, "checkpoints") + " checkpoints, " +
                                  size_at(quarantine, "stored_bytes") + ", newest " +
                                  text_at(quarantine, "newest"));
  }
  for (const Json& peer : field(json, "peers")) {
    const bool live = text_at(peer, "state") == "live";
    out += line("peer " + text_at(peer, "name"),
                text_at(peer, "state") + " at " + text_at(peer, "address") + " for " +
                    age_at(peer, "since_s") + (live ? ", " + text_at(peer, "queued") + " queued there" : "") +
                    ", " + text_at(peer, "events") + " events, " + text_at(peer, "gaps") + " gaps");
  }
  const Json& stored = field(json, "stored");
  out += line("stored", text_at(stored, "checkpoints") + " checkpoints of " + text_at(stored, "programs") +
                            " programs of " + text_at(stored, "ecus") + " ECUs, " +
                            size_at(stored, "size_bytes") + " in " + size_at(stored, "stored_bytes"));
  if (field(stored, "complete") == false) {
    out += line("", "too many to add up in time: all but the number of checkpoints is of a part of them");
  }
  const Json& oldest = field(json, "oldest_newest_checkpoint");
  out += line("oldest newest",
              oldest.is_null() ? "-" : text_at(oldest, "key") + ", " + age_at(oldest, "age_s") + " old");
  out += line("sessions", text_at(json, "sessions") + ", " + text_at(json, "silent_sessions") + " silent");
  const Json& pulls = field(json, "pulls");
  out += line("pulls", text_at(pulls, "running") + " running (" + size_at(pulls, "received_bytes") + " of " +
                           size_at(pulls, "size_bytes") + ", " + size_at(pulls, "bytes_per_s") + "/s), " +
                           text_at(pulls, "queued") + " queued");
  const Json& never = field(json, "never_stored");
  out += line("never stored", text_at(never, "count") + " programs");
  for (const Json& program : field(never, "first")) {
    out += "  " + text_at(program, "key") + "  " + text_at(program, "state") + " for " +
           age_at(program, "age_s") + ": " + text_at(program, "reason") + '\n';
  }
  const Json& counters = field(json, "counters");
  out += line("since the start",
              text_at(counters, "notifications") + " notifications, " + text_at(counters, "stored") +
                  " stored (" + size_at(counters, "stored_bytes") + "), " + text_at(counters, "superseded") +
                  " superseded, " + text_at(counters, "failed") + " failed, " +
                  text_at(counters, "malformed") + " malformed");
  const Json& retention = field(json, "retention");
  if (!retention.is_null()) {
    const Json& full = field(retention, "full");
    const bool was_full = field(full, "sweeps").is_number_unsigned() && field(full, "sweeps") != 0;
    out += line("retention",
                text_at(field(json, "counters"), "removed") + " removed, " +
                    size_at(field(json, "counters"), "removed_bytes") + "; last sweep " +
                    age_at(retention, "last_sweep_age_s") + " ago, next in " +
                    age_at(retention, "next_sweep_in_s") +
                    (was_full ? "; the store was full: " + text_at(full, "removed") + " of these, " +
                                    size_at(full, "removed_bytes") + ", at once for it"
                              : ""));
  }
  out += line("memory", size_at(json, "rss_bytes"));
  return out;
}

std::string retention_table(const Json& json) {
  const bool applied = field(json, "applied") == true;
  const std::string sum = text_at(json, "count") +
                          (text_at(json, "count") == "1" ? " checkpoint" : " checkpoints") + ", " +
                          size_at(json, "stored_bytes");
  if (applied) return "removed " + sum + "; " + text_at(json, "judged") + " judged\n";
  Table table({"KEY", ">SIZE", ">STORED", ">AGE", "WHY"});
  for (const Json& removal : field(json, "removals")) {
    table.add({text_at(removal, "key"), size_at(removal, "size_bytes"), size_at(removal, "stored_bytes"),
               age_at(removal, "age_s"), text_at(removal, "why")});
  }
  if (table.empty()) return "nothing is to go; " + text_at(json, "judged") + " checkpoints judged\n";
  return table.text() + sum + " would go; " + text_at(json, "judged") + " judged\n";
}

std::string pinned_line(const Json& json) {
  return text_at(json, "key") +
         (field(json, "pinned") == true ? " is pinned: retention leaves it\n" : " is not pinned\n");
}

// The sums of all pages.
void add_up_retention(Json& whole, const Json& page) {
  for (const char* name : {"count", "stored_bytes", "judged"}) {
    if (!field(whole, name).is_number_unsigned() || !field(page, name).is_number_unsigned()) continue;
    whole[name] = whole[name].get<std::uint64_t>() + page[name].get<std::uint64_t>();
  }
}

// "leased", "barred, in maintenance"; "-": it is not guarded.
std::string lease_word(const Json& lease) {
  if (!lease.is_object()) return "-";
  return text_at(lease, "state") + (field(lease, "maintenance") == true ? ", in maintenance" : "");
}

std::string lease_lines(const Json& json) {
  const Json& lease = field(json, "lease");
  std::string out = line("ECU", text_at(json, "ecu_mac"));
  out += line("run lease", lease_word(lease) + ", session " + text_at(lease, "incarnation") +
                               ", enforced by " + text_at(lease, "enforcer"));
  out += line("heard", field(lease, "heartbeat_ago_ms").is_null()
                           ? "never by this cmsd"
                           : text_at(lease, "heartbeat_ago_ms") + " ms ago");
  out += line("waiting", text_at(lease, "waiting") + " programs wait for an operator");
  return out;
}

std::string ecus_table(const Json& json) {
  Table table({"ECU_MAC", "LIVE", "LEASE", ">SESSIONS", ">CHECKPOINTS", ">SIZE", ">NEWEST", ">HEARD",
               "ADDRESS", "SOFTWARE"});
  for (const Json& ecu : field(json, "ecus")) {
    const Json& sessions = field(ecu, "sessions");
    const Json last = sessions.empty() ? Json::object() : sessions.back();
    const std::string heard =
        field(last, "heard_ago_ms").is_null() ? "-" : text_at(last, "heard_ago_ms") + " ms";
    table.add({text_at(ecu, "ecu_mac"), text_at(ecu, "live"), lease_word(field(ecu, "lease")),
               text_at(ecu, "session_count"), text_at(ecu, "checkpoints"), size_at(ecu, "size_bytes"),
               age_at(ecu, "newest_age_s"), heard, text_at(last, "address"), text_at(last, "software")});
  }
  return table.empty() ? "no ECU is known\n" : table.text();
}

std::string checkpoints_table(const Json& json) {
  Table table({"KEY", "STATE", ">SIZE", ">STORED", ">AGE", "NAME", "REASON"});
  for (const Json& checkpoint : field(json, "checkpoints")) {
    const std::string reason = text_at(checkpoint, "reason");
    table.add({text_at(checkpoint, "key"),
               text_at(checkpoint, "state") + (field(checkpoint, "pinned") == true ? ", pinned" : ""),
               size_at(checkpoint, "size_bytes"), size_at(checkpoint, "stored_bytes"),
               age_at(checkpoint, "age_s"), text_at(checkpoint, "program_name"),
               reason == "-" ? "" : reason});
  }
  return table.empty() ? "no checkpoint is known\n" : table.text();
}

std::string manifest_lines(const Json& manifest) {
  std::string out = line("taken at", text_at(manifest, "taken_at") + ", stood still for " +
                                         text_at(manifest, "pause_us") + " us");
  out += line("stored at", text_at(manifest, "stored_at") + " by " + text_at(manifest, "stored_by"));
  out += line("digest", text_at(manifest, "blob_digest"));
  out += line("chunks", text_at(manifest, "chunks") + " of " + size_at(manifest, "chunk_size_bytes") + ", " +
                            text_at(manifest, "zero_chunks") + " all zero");
  const Json& needs = field(manifest, "requirements");
  out += line("needs", "arch " + text_at(needs, "arch") + ", os " + text_at(needs, "os") + ", format " +
                           text_at(needs, "checkpoint_format") + " " + text_at(needs, "format_version") +
                           ", RAM " + size_at(needs, "ram_bytes") + ", labels " + text_at(needs, "labels"));
  const Json& real_time = field(manifest, "real_time");
  out +=
      line("real time", "priority " + text_at(real_time, "priority") + ", period " +
                            text_at(real_time, "period_us") + " us, deadline " +
                            text_at(real_time, "deadline_us") + " us, wcet " + text_at(real_time, "wcet_us") +
                            " us" + (field(real_time, "tight") == Json(true) ? ", tight" : ""));
  const Json& policies = field(manifest, "policies");
  out +=
      line("policies", "release " + text_at(policies, "release") + ", on_isolation " +
                           text_at(policies, "on_isolation") + ", on_loss " + text_at(policies, "on_loss"));
  return out;
}

std::string milliseconds_at(const Json& object, const char* name) {
  const Json& value = field(object, name);
  return value.is_number_unsigned() ? std::to_string(value.get<std::uint64_t>()) + " ms" : "-";
}

std::string peers_table(const Json& json) {
  std::string out = line("name", text_at(json, "name") + ", incarnation " + text_at(json, "incarnation"));
  out += line("record", field(json, "renewed_ago_ms").is_null()
                            ? "never renewed"
                            : "renewed " + milliseconds_at(json, "renewed_ago_ms") + " ago");
  out += line("acts on claims", text_at(json, "acts"));
  if (!field(json, "trouble").is_null()) out += line("trouble", text_at(json, "trouble"));
  const Json& peers = field(json, "peers");
  if (peers.empty()) return out + line("peers", "none is heard, and the store has no record of one");
  Table table({"PEER", "INCARNATION", "NETWORK", ">FOR", "ADDRESS", "RECORD", ">UNCHANGED", "SOFTWARE"});
  for (const Json& peer : peers) {
    const bool readable = field(peer, "record_readable") != false;
    table.add({text_at(peer, "name"), text_at(peer, "incarnation"), text_at(peer, "network"),
               age_at(peer, "since_s"), text_at(peer, "address"),
               text_at(peer, "record") + (readable ? "" : ", damaged"),
               milliseconds_at(peer, "record_unchanged_ms"), text_at(peer, "software")});
  }
  return out + "\n" + table.text();
}

std::string show_table(const Json& json) {
  std::string out = line("key", text_at(json, "key"));
  const Json& withdrawn = field(json, "withdrawn");
  if (!withdrawn.is_null()) {
    out += line("withdrawn", "up to " + text_at(withdrawn, "incarnation") + "." + text_at(withdrawn, "seq") +
                                 ", " + age_at(withdrawn, "age_s") + " ago");
  }
  out += line("stored versions", text_at(json, "stored_count"));
  const Json& checkpoint = field(json, "checkpoint");
  if (checkpoint.is_null()) {
    out += line("checkpoint", "none is stored");
  } else {
    out += line("checkpoint", text_at(checkpoint, "key") + ", " + text_at(checkpoint, "state") +
                                  (field(checkpoint, "pinned") == true ? ", pinned" : ""));
    out += line("name", text_at(checkpoint, "program_name"));
    out += line("size", size_at(checkpoint, "size_bytes") + " in " + size_at(checkpoint, "stored_bytes") +
                            ", " + age_at(checkpoint, "age_s") + " old");
    out += line("lineage",
                text_at(checkpoint, "lineage") + ", owner_epoch " + text_at(checkpoint, "owner_epoch"));
    const Json& manifest = field(checkpoint, "manifest");
    out += manifest.is_null() ? line("manifest", "cannot be read: " + text_at(checkpoint, "manifest_error"))
                              : manifest_lines(manifest);
  }
  for (const Json& item : field(json, "in_motion")) {
    const Json& received = field(item, "received_bytes");
    out += line(text_at(item, "state"),
                text_at(item, "key") + ", " + size_at(item, "size_bytes") +
                    (received.is_null() ? "" : ", " + size_at(item, "received_bytes") + " received") +
                    ", for " + age_at(item, "age_s") +
                    (text_at(item, "reason") == "-" ? "" : ": " + text_at(item, "reason")));
  }
  for (const Json& item : field(json, "failures")) {
    out += line("failed", text_at(item, "key") + ", " + age_at(item, "age_s") +
                              " ago: " + text_at(item, "code") + ": " + text_at(item, "reason"));
  }
  for (const Json& session : field(json, "sessions")) {
    out +=
        line("session", text_at(session, "incarnation") + " at " + text_at(session, "address") + ", heard " +
                            text_at(session, "heard_ago_ms") + " ms ago, " + text_at(session, "software"));
  }
  return out;
}

// Of one run.
std::string scrub_table(const Json& run) {
  std::string out = line("scrub", text_at(run, "what") + ", " + text_at(run, "state"));
  out += line("read", counts_text(run) + ", " + size_at(run, "bytes_per_s") + "/s");
  if (!field(run, "trouble").is_null()) out += line("trouble", text_at(run, "trouble"));
  for (const Json& found : field(run, "found")) {
    out += line("corrupt", text_at(found, "key") + ", put into quarantine: " + text_at(found, "reason"));
  }
  return out;
}

std::string index_table(const Json& json) {
  std::string out = line("index", text_at(json, "state") + ", " + text_at(json, "rows") + " rows");
  if (field(json, "rebuild") == true) out += line("rebuilt because", text_at(json, "reason"));
  out +=
      line("last round", text_at(json, "shards_done") + " of " + text_at(json, "shards_total") + " shards, " +
                             text_at(json, "rows_added") + " rows added, " + text_at(json, "rows_removed") +
                             " removed, " + text_at(json, "rows_per_s") + " rows/s");
  if (!field(json, "trouble").is_null()) out += line("trouble", text_at(json, "trouble"));
  if (!field(json, "old_index").is_null())
    out += line("damaged one", "moved to " + text_at(json, "old_index"));
  return out;
}

std::string printed(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace

Result<std::string> render(wire::AdminMethod method, const std::vector<std::string>& pages,
                           const Style& style) {
  const bool retention =
      method == wire::AdminMethod::kRetentionPlan || method == wire::AdminMethod::kRetentionApply;
  const char* list = method == wire::AdminMethod::kEcus          ? "ecus"
                     : method == wire::AdminMethod::kCheckpoints ? "checkpoints"
                     : retention                                 ? "removals"
                                                                 : nullptr;
  Json whole;
  for (const std::string& page : pages) {
    Json json = parse_shallow(page);
    if (!json.is_object() || (list != nullptr && !field(json, list).is_array())) return no_answer();
    if (whole.is_null()) {
      whole = std::move(json);
    } else {
      if (list == nullptr) return no_answer();
      for (Json& entry : json[list]) whole[list].push_back(std::move(entry));
      if (retention) add_up_retention(whole, json);
    }
  }
  if (whole.is_null()) return no_answer();
  if (style.json) return printed(whole);
  switch (method) {
    case wire::AdminMethod::kStatus: return status_table(whole, style);
    case wire::AdminMethod::kEcus: return ecus_table(whole);
    case wire::AdminMethod::kCheckpoints: return checkpoints_table(whole);
    case wire::AdminMethod::kShow: return show_table(whole);
    case wire::AdminMethod::kPin:
    case wire::AdminMethod::kUnpin: return pinned_line(whole);
    case wire::AdminMethod::kRetentionPlan:
    case wire::AdminMethod::kRetentionApply: return retention_table(whole);
    case wire::AdminMethod::kScrub:
    case wire::AdminMethod::kScrubStatus: return scrub_table(whole);
    case wire::AdminMethod::kIndexRebuild:
    case wire::AdminMethod::kIndexStatus: return index_table(whole);
    case wire::AdminMethod::kExplain: return is_plan(whole) ? plan_table(whole) : explain_table(whole);
    case wire::AdminMethod::kPeers: return peers_table(whole);
    case wire::AdminMethod::kEcuFailed:
    case wire::AdminMethod::kMigrate:
    case wire::AdminMethod::kEcuDrain:
    case wire::AdminMethod::kRestores: return restores_table(whole);
    case wire::AdminMethod::kEcuMaintenance: return lease_lines(whole);
    case wire::AdminMethod::kHistory: return history_table(whole);
    case wire::AdminMethod::kRetire: break;
  }
  return "retired everything up to " + text_at(whole, "key") + "; older checkpoints are removed\n";
}

JudgedPage judged_of(const std::string& page) {
  const Json json = Json::parse(page, nullptr, false);
  JudgedPage counts;
  if (!json.is_object()) return counts;
  if (const Json& judged = field(json, "judged"); judged.is_number_unsigned())
    counts.judged = judged.get<std::uint64_t>();
  if (const Json& all = field(json, "checkpoints"); all.is_number_unsigned())
    counts.checkpoints = all.get<std::uint64_t>();
  return counts;
}

std::string render_got(const Got& got, const std::string& path, double seconds,
                       const std::vector<std::string>& passed_over, const Style& style) {
  if (style.json) {
    return printed(Json{{"key", to_string(got.checkpoint)},
                        {"ecu_mac", to_string(got.checkpoint.program.ecu_mac)},
                        {"program_id", got.checkpoint.program.program_id},
                        {"incarnation", got.checkpoint.version.incarnation},
                        {"seq", got.checkpoint.version.seq},
                        {"size_bytes", got.size_bytes},
                        {"blob_digest", to_string(got.blob_digest)},
                        {"file", path},
                        {"passed_over", passed_over},
                        {"duration_s", seconds}});
  }
  const double rate = seconds > 0 ? static_cast<double>(got.size_bytes) / seconds : 0;
  return to_string(got.checkpoint) + ": " + human_size(got.size_bytes) + " verified and written to " +
         printable(path) + " (" + human_size(static_cast<std::uint64_t>(rate)) + "/s)\n";
}

}  // namespace cms::admin
