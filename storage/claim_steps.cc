#include "storage/claim_steps.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "base/crash_point.h"
#include "base/prng.h"
#include "storage/claim_names.h"
#include "storage/claim_record_file.h"
#include "storage/store_layout.h"

namespace cms::storage {
namespace {

// Slots above its hint that are asked for one by one before the log is listed.
constexpr int kProbesMax = 16;

// Whether a refusal of a link says more to a caller than that it was not done.
bool tells_more(Code code) {
  return code == Code::kNoSpace || code == Code::kQuota || code == Code::kReadOnly ||
         code == Code::kPermission || code == Code::kIo || code == Code::kUnsupported;
}

Error of_file(const std::string& path, Error error) {
  error.context = path + ": " + error.context;
  return error;
}

}  // namespace

bool SelfTest::trusted_with_claims() const {
  return !traits.empty() &&
         std::all_of(traits.begin(), traits.end(), [](const StoreTrait& trait) { return trait.holds; });
}

Id128 ClaimSteps::new_nonce() {
  const std::uint64_t high = random_u64();
  return Id128{high, random_u64()};
}

std::string ClaimSteps::path_of(const LogId& log, Slot slot) const {
  return logs_path() + "/" + slot_path(log, slot);
}

// ---- unresolved attempts

Status ClaimSteps::reserve() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (reserved_ >= kUnresolvedMax) {
    return make_error(Code::kLimit, std::to_string(kUnresolvedMax) +
                                        " attempts to append are unresolved or under way; settle some first");
  }
  ++reserved_;
  return ok_status();
}

void ClaimSteps::release() {
  const std::lock_guard<std::mutex> lock(mutex_);
  CMS_ASSERT(reserved_ > 0);
  --reserved_;
}

Result<Appended> ClaimSteps::keep(const Attempt& attempt) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const std::uint64_t number = attempt.number ? *attempt.number : ++last_attempt_;
  const auto kept = unresolved_.emplace(number, attempt.draft).first;
  kept->second.text.clear();
  return Appended{Appended::End::kUnresolved, number};
}

std::vector<std::string> ClaimSteps::take_unresolved_drafts() {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<std::string> names;
  for (const auto& [attempt, draft] : unresolved_) names.push_back(draft.name);
  reserved_ -= unresolved_.size();
  unresolved_.clear();
  return names;
}

// ---- appending

Result<Appended> ClaimSteps::append(const LogId& log, Slot slot, const std::string& record) {
  return append_many({Append{log, slot, record}})[0];
}

std::vector<Result<Appended>> ClaimSteps::append_many(const std::vector<Append>& appends) {
  std::vector<Result<Appended>> ends(appends.size(), Appended{});
  std::map<LogId, Slot> not_won;  // The lowest of each log.
  for (std::size_t next = 0; next < appends.size();) {
    std::vector<std::size_t> group;
    std::set<LogId> logs;
    for (; next < appends.size() && group.size() < kAppendGroupMax; ++next) {
      const Append& append = appends[next];
      const auto below = not_won.find(append.log);
      if (below != not_won.end() && below->second < append.slot) {
        ends[next] = make_error(Code::kUnavailable, "append " + path_of(append.log, append.slot) +
                                                        ": not begun, as slot " +
                                                        std::to_string(below->second) + " was not won");
        continue;
      }
      if (!logs.insert(append.log).second) break;  // After the one before it has ended.
      group.push_back(next);
    }
    append_group(appends, group, ends);
    for (const std::size_t i : group) {
      if (ends[i] && ends[i]->end == Appended::End::kWon) continue;
      const auto lowest = not_won.emplace(appends[i].log, appends[i].slot).first;
      lowest->second = std::min(lowest->second, appends[i].slot);
    }
  }
  return ends;
}

void ClaimSteps::append_group(const std::vector<Append>& appends, const std::vector<std::size_t>& group,
                              std::vector<Result<Appended>>& ends) {
  std::vector<Draft> drafts;
  std::vector<std::size_t> places;  // drafts[i] is of appends[places[i]]
  for (const std::size_t i : group) {
    const auto& [log, slot, record] = appends[i];
    Status may = ok_status();
    if (slot == 0) {
      may = make_error(Code::kInvalidArgument, "slots are numbered from 1");
    } else if (!is_valid_log(log)) {
      may = make_error(Code::kInvalidArgument, "there can be no " + to_string(log));
    } else {
      may = check_record_bytes(record);
    }
    if (may.ok()) may = reserve();
    if (!may.ok()) {
      ends[i] = may.error();
      continue;
    }
    Draft draft{log, slot, new_nonce(), {}, {}};
    draft.name = draft_file_name(draft.nonce);
    draft.text = encode_claim_file(slot_file_name(log, slot), {ClaimFileKind::kRecord, draft.nonce, record});
    drafts.push_back(std::move(draft));
    places.push_back(i);
  }
  if (drafts.empty()) return;
  const std::vector<Try> tries = link_drafts(drafts);
  CMS_ASSERT(tries.size() == drafts.size());
  std::vector<Attempt> open;
  std::vector<std::size_t> open_places;
  for (std::size_t i = 0; i < tries.size(); ++i) {
    switch (tries[i].linked) {
      case Linked::kNever:
        release();
        ends[places[i]] = tries[i].why;
        break;
      case Linked::kSure:
        release();
        ends[places[i]] = Appended{Appended::End::kWon, 0};
        break;
      case Linked::kOpen:
        open.push_back(Attempt{std::nullopt, std::move(drafts[i]), tries[i].why});
        open_places.push_back(places[i]);
        break;
    }
  }
  if (open.empty()) return;
  CMS_CRASH_POINT("claims.before_removal");
  auto resolved = resolve(open);
  for (std::size_t i = 0; i < resolved.size(); ++i) ends[open_places[i]] = std::move(resolved[i]);
}

Result<Appended> ClaimSteps::settle(std::uint64_t attempt) {
  Draft draft;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = unresolved_.find(attempt);
    if (found == unresolved_.end()) {
      return make_error(Code::kNotFound, "attempt " + std::to_string(attempt) + " is not unresolved");
    }
    draft = std::move(found->second);
    unresolved_.erase(found);  // Its place stays reserved.
  }
  return resolve({Attempt{attempt, std::move(draft), Error{Code::kUnavailable, 0, "settled"}}})[0];
}

// The link may have been done, may be done later, or never. Removing the private name first decides it: a
// late link then finds nothing to link, and the slot tells. Only answers count.
std::vector<Result<Appended>> ClaimSteps::resolve(const std::vector<Attempt>& attempts) {
  std::vector<Result<Appended>> ends(attempts.size(), Appended{});
  std::vector<Draft> drafts;
  for (const Attempt& attempt : attempts) drafts.push_back(attempt.draft);
  const std::vector<Status> removed = remove_drafts(drafts);
  CMS_ASSERT(removed.size() == attempts.size());
  std::vector<std::size_t> decided;  // Of `attempts`.
  std::vector<LogSlot> slots;
  for (std::size_t i = 0; i < attempts.size(); ++i) {
    if (!removed[i].ok()) {
      ends[i] = keep(attempts[i]);
      continue;
    }
    decided.push_back(i);
    slots.push_back({drafts[i].log, drafts[i].slot});
  }
  if (decided.empty()) return ends;
  CMS_CRASH_POINT("claims.after_removal");
  const auto texts = read_slots(slots, Read::kAsSeen);
  CMS_ASSERT(texts.size() == decided.size());
  std::vector<std::size_t> ours;  // Of `decided`.
  std::vector<LogSlot> our_slots;
  for (std::size_t i = 0; i < decided.size(); ++i) {
    const Attempt& attempt = attempts[decided[i]];
    Result<Appended>& end = ends[decided[i]];
    const std::string path = path_of(slots[i].log, slots[i].slot);
    if (!texts[i] && texts[i].error().code == Code::kNotFound) {
      release();
      const Code code = tells_more(attempt.why.code) ? attempt.why.code : Code::kUnavailable;
      end = Error{code, attempt.why.os_errno,
                  "append " + path + ": not done, and never will be: " + attempt.why.context};
      continue;
    }
    if (!texts[i]) {
      end = keep(attempt);
      continue;
    }
    const auto file =
        decode_claim_file(slot_file_name(slots[i].log, slots[i].slot), ClaimFileKind::kRecord, *texts[i]);
    if (!file) {
      release();
      end = of_file(path, file.error());
    } else if (file->nonce != attempt.draft.nonce) {
      release();
      end = Appended{Appended::End::kLost, 0};
    } else {
      ours.push_back(i);
      our_slots.push_back(slots[i]);
    }
  }
  if (ours.empty()) return ends;
  // Read once more with the sync: between the two a crash of the store's host may have taken it away.
  const auto synced = read_slots(our_slots, Read::kDurable);
  CMS_ASSERT(synced.size() == ours.size());
  for (std::size_t i = 0; i < ours.size(); ++i) {
    const std::size_t at = decided[ours[i]];
    if (!synced[i] || *synced[i] != *texts[ours[i]]) {
      ends[at] = keep(attempts[at]);
      continue;
    }
    release();
    ends[at] = Appended{Appended::End::kWon, 0};
  }
  return ends;
}

// ---- reading

Result<LogRecord> ClaimSteps::record_in(const LogSlot& at, const Result<std::string>& text) const {
  if (!text) return text.error();
  auto file = decode_claim_file(slot_file_name(at.log, at.slot), ClaimFileKind::kRecord, *text);
  if (!file) return of_file(path_of(at.log, at.slot), file.error());
  return LogRecord{at.log, at.slot, std::move(file->bytes)};
}

Result<LogRecord> ClaimSteps::read(const LogId& log, Slot slot, Read how) {
  if (slot == 0 || !is_valid_log(log)) {
    return make_error(Code::kNotFound, "there is no slot " + std::to_string(slot) + " in " + to_string(log));
  }
  const LogSlot at{log, slot};
  return record_in(at, read_slots({at}, how)[0]);
}

Result<bool> ClaimSteps::has_slot(const LogId& log, Slot slot) { return has_slots({{log, slot}})[0]; }

std::vector<Result<bool>> ClaimSteps::has_slots(const std::vector<LogSlot>& slots) {
  std::vector<Result<bool>> taken(slots.size(), false);
  std::vector<LogSlot> asked;
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < slots.size(); ++i) {
    if (slots[i].slot == 0 || !is_valid_log(slots[i].log)) continue;
    asked.push_back(slots[i]);
    places.push_back(i);
  }
  if (asked.empty()) return taken;
  auto found = find_slots(asked);
  CMS_ASSERT(found.size() == asked.size());
  for (std::size_t i = 0; i < found.size(); ++i) taken[places[i]] = std::move(found[i]);
  return taken;
}

Result<LogRecord> ClaimSteps::head(const LogId& log, Slot hint, Read how) {
  return heads({{log, hint}}, how)[0];
}

std::vector<Result<LogRecord>> ClaimSteps::heads(const std::vector<LogSlot>& logs, Read how) {
  std::vector<Result<LogRecord>> heads(logs.size(), LogRecord{});
  std::vector<LogSlot> tops = logs;  // Known, or said, to be taken.
  std::vector<std::size_t> probed;
  std::vector<std::size_t> unknown;  // To be listed.
  for (std::size_t i = 0; i < logs.size(); ++i) {
    if (!is_valid_log(logs[i].log)) {
      heads[i] = make_error(Code::kNotFound, "there can be no " + to_string(logs[i].log));
    } else if (logs[i].slot == 0) {
      unknown.push_back(i);
    } else {
      probed.push_back(i);
    }
  }
  // Logs have no holes, so a slot that is not taken has the head below it.
  std::vector<std::size_t> found;
  for (int probes = 0; probes < kProbesMax && !probed.empty(); ++probes) {
    std::vector<std::size_t> asked;
    std::vector<LogSlot> next;
    for (const std::size_t i : probed) {
      if (tops[i].slot == UINT64_MAX) {
        unknown.push_back(i);
        continue;
      }
      asked.push_back(i);
      next.push_back({tops[i].log, tops[i].slot + 1});
    }
    const auto taken = has_slots(next);
    probed.clear();
    for (std::size_t i = 0; i < asked.size(); ++i) {
      if (!taken[i]) {
        heads[asked[i]] = taken[i].error();
      } else if (*taken[i]) {
        ++tops[asked[i]].slot;
        probed.push_back(asked[i]);
      } else {
        found.push_back(asked[i]);
      }
    }
  }
  unknown.insert(unknown.end(), probed.begin(), probed.end());
  if (!found.empty()) {
    std::vector<LogSlot> slots;
    for (const std::size_t i : found) slots.push_back(tops[i]);
    const auto texts = read_slots(slots, how);
    CMS_ASSERT(texts.size() == found.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
      if (!texts[i] && texts[i].error().code == Code::kNotFound) {
        unknown.push_back(found[i]);  // The hint was wrong, or is too old.
      } else {
        heads[found[i]] = record_in(slots[i], texts[i]);
      }
    }
  }
  if (!unknown.empty()) find_heads_by_listing(logs, unknown, how, heads);
  return heads;
}

void ClaimSteps::find_heads_by_listing(const std::vector<LogSlot>& logs,
                                       const std::vector<std::size_t>& unknown, Read how,
                                       std::vector<Result<LogRecord>>& heads) {
  std::map<std::uint32_t, Result<LogLister>> listed;
  std::vector<std::size_t> places;
  std::vector<LogSlot> slots;
  for (const std::size_t i : unknown) {
    const LogId& log = logs[i].log;
    const std::uint32_t shard = log_shard_of(log);
    auto lister = listed.find(shard);
    if (lister == listed.end()) lister = listed.emplace(shard, list_shard(shard)).first;
    if (!lister->second) {
      heads[i] = lister->second.error();
    } else if (const Slot top = lister->second->head_of(log); top == 0) {
      heads[i] = make_error(Code::kNotFound, to_string(log) + " is empty");
    } else {
      places.push_back(i);
      slots.push_back({log, top});
    }
  }
  if (slots.empty()) return;
  const auto texts = read_slots(slots, how);
  CMS_ASSERT(texts.size() == slots.size());
  for (std::size_t i = 0; i < slots.size(); ++i) {
    auto record = record_in(slots[i], texts[i]);
    if (!record && record.error().code == Code::kNotFound) {
      // Old ones are removed only when there are newer ones.
      record = make_error(Code::kUnavailable, path_of(slots[i].log, slots[i].slot) + " has gone meanwhile");
    }
    heads[places[i]] = std::move(record);
  }
}

Status ClaimSteps::list_logs(std::uint32_t log_shard,
                             const std::function<void(const LogId&, Slot head)>& visit,
                             std::uint64_t* unknown) {
  if (Status status = check_log_shard(log_shard); !status.ok()) return status;
  const auto lister = list_shard(log_shard);
  if (!lister) return lister.error();
  lister->tell(visit, unknown);
  return ok_status();
}

// ---- listing

void LogLister::add(const std::string& file_name) {
  const auto name = parse_slot_file_name(file_name);
  if (!name || log_shard_of(name->log) != log_shard_) {
    ++unknown_;
    return;
  }
  Slot& head = heads_[name->log];
  head = std::max(head, name->slot);
}

Slot LogLister::head_of(const LogId& log) const {
  const auto found = heads_.find(log);
  return found == heads_.end() ? 0 : found->second;
}

void LogLister::tell(const std::function<void(const LogId&, Slot head)>& visit,
                     std::uint64_t* unknown) const {
  if (unknown != nullptr) *unknown += unknown_;
  for (const auto& [log, head] : heads_) visit(log, head);
}

// ---- members

MemberFile member_file_of(const MemberName& name, const std::string& path, const std::string& text) {
  auto file =
      decode_claim_file(member_file_name(name.node, name.node_incarnation), ClaimFileKind::kMember, text);
  if (file) return MemberFile{name.node, name.node_incarnation, std::move(file->bytes)};
  return MemberFile{name.node, name.node_incarnation, of_file(path, file.error())};
}

// ---- arguments

Status check_node_name(const std::string& node) {
  if (is_node_name(node)) return ok_status();
  return make_error(Code::kInvalidArgument, "'" + node + "' is not a node name");
}

Status check_log_shard(std::uint32_t log_shard) {
  if (log_shard < kLogShardCount) return ok_status();
  return make_error(Code::kInvalidArgument, "log shard " + std::to_string(log_shard) + " is not below " +
                                                std::to_string(kLogShardCount));
}

namespace {
Status check_size(const char* what, const std::string& record, std::size_t bytes_max) {
  if (!record.empty() && record.size() <= bytes_max) return ok_status();
  return make_error(Code::kInvalidArgument, std::string(what) + " has 1 to " + std::to_string(bytes_max) +
                                                " bytes, not " + std::to_string(record.size()));
}
}  // namespace

Status check_record_bytes(const std::string& record) {
  return check_size("a record", record, kRecordBytesMax);
}

Status check_member_bytes(const std::string& record) {
  return check_size("a member's record", record, kMemberBytesMax);
}

}  // namespace cms::storage
