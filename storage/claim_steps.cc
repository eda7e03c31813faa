#include "storage/claim_steps.h"

#include <algorithm>
#include <utility>

#include "base/crash_point.h"
#include "base/prng.h"
#include "storage/claim_names.h"
#include "storage/claim_record_file.h"
#include "storage/store_layout.h"

namespace cms::storage {
namespace {

// Slots above its hint that head() asks for one by one before it lists.
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

Result<Appended> ClaimSteps::keep(std::optional<std::uint64_t> attempt, const Draft& draft) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const std::uint64_t number = attempt ? *attempt : ++last_attempt_;
  unresolved_.emplace(number, draft);
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
  if (slot == 0) return make_error(Code::kInvalidArgument, "slots are numbered from 1");
  if (!is_valid_log(log)) return make_error(Code::kInvalidArgument, "there can be no " + to_string(log));
  if (Status status = check_record_bytes(record); !status.ok()) return status.error();
  if (Status status = reserve(); !status.ok()) return status.error();
  Draft draft{log, slot, new_nonce(), {}};
  draft.name = draft_file_name(draft.nonce);
  const Try tried = link_draft(
      draft, encode_claim_file(slot_file_name(log, slot), {ClaimFileKind::kRecord, draft.nonce, record}));
  switch (tried.linked) {
    case Linked::kNever: release(); return tried.why;
    case Linked::kSure: release(); return Appended{Appended::End::kWon, 0};
    case Linked::kOpen: break;
  }
  CMS_CRASH_POINT("claims.before_removal");
  return resolve(std::nullopt, draft, tried.why);
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
  return resolve(attempt, draft, Error{Code::kUnavailable, 0, "settled"});
}

// The link may have been done, may be done later, or never. Removing the private name first decides it: a
// late link then finds nothing to link, and the slot tells. Only answers count.
Result<Appended> ClaimSteps::resolve(std::optional<std::uint64_t> attempt, const Draft& draft,
                                     const Error& why) {
  if (!remove_draft(draft).ok()) return keep(attempt, draft);
  CMS_CRASH_POINT("claims.after_removal");
  const std::string path = path_of(draft.log, draft.slot);
  const auto text = read_slot(draft.log, draft.slot, Read::kAsSeen);
  if (!text && text.error().code == Code::kNotFound) {
    release();
    const Code code = tells_more(why.code) ? why.code : Code::kUnavailable;
    return Error{code, why.os_errno, "append " + path + ": not done, and never will be: " + why.context};
  }
  if (!text) return keep(attempt, draft);
  const auto file = decode_claim_file(slot_file_name(draft.log, draft.slot), ClaimFileKind::kRecord, *text);
  if (!file) {
    release();
    return of_file(path, file.error());
  }
  if (file->nonce != draft.nonce) {
    release();
    return Appended{Appended::End::kLost, 0};
  }
  // Read once more with the sync: between the two a crash of the store's host may have taken it away.
  const auto synced = read_slot(draft.log, draft.slot, Read::kDurable);
  if (!synced || *synced != *text) return keep(attempt, draft);
  release();
  return Appended{Appended::End::kWon, 0};
}

// ---- reading

Result<LogRecord> ClaimSteps::read(const LogId& log, Slot slot, Read how) {
  if (slot == 0 || !is_valid_log(log)) {
    return make_error(Code::kNotFound, "there is no slot " + std::to_string(slot) + " in " + to_string(log));
  }
  const auto text = read_slot(log, slot, how);
  if (!text) return text.error();
  auto file = decode_claim_file(slot_file_name(log, slot), ClaimFileKind::kRecord, *text);
  if (!file) return of_file(path_of(log, slot), file.error());
  return LogRecord{log, slot, std::move(file->bytes)};
}

Result<LogRecord> ClaimSteps::head(const LogId& log, Slot hint, Read how) {
  if (!is_valid_log(log)) return make_error(Code::kNotFound, "there can be no " + to_string(log));
  if (hint != 0) {
    auto taken = has_slot(log, hint);
    if (!taken) return taken.error();
    Slot top = hint;
    for (int probes = 0; *taken && probes < kProbesMax && top != UINT64_MAX; ++probes) {
      taken = has_slot(log, top + 1);
      if (!taken) return taken.error();
      if (!*taken) return read(log, top, how);
      ++top;
    }
  }
  const auto top = highest_slot(log);
  if (!top) return top.error();
  if (*top == 0) return make_error(Code::kNotFound, to_string(log) + " is empty");
  auto record = read(log, *top, how);
  if (!record && record.error().code == Code::kNotFound) {
    // Old ones are removed only when there are newer ones.
    return make_error(Code::kUnavailable, path_of(log, *top) + " has gone meanwhile");
  }
  return record;
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

Status check_record_bytes(const std::string& record) {
  if (!record.empty() && record.size() <= kRecordBytesMax) return ok_status();
  return make_error(Code::kInvalidArgument, "a record has 1 to " + std::to_string(kRecordBytesMax) +
                                                " bytes, not " + std::to_string(record.size()));
}

}  // namespace cms::storage
