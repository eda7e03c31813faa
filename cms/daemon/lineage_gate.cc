#include "cms/daemon/lineage_gate.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/crash_point.h"
#include "base/digest.h"
#include "base/time.h"

namespace cms::daemon {

using core::StoredWord;
using storage::ClaimStore;
using wire::ClaimRecord;

namespace {

// A log that no CMS can use: nothing is restored by it either, so that it holds up nobody.
bool is_unusable(const Error& error) {
  return error.code == Code::kCorrupt || error.code == Code::kUnsupported;
}

Error claim_is_open(const ProgramKey& program) {
  return make_error(Code::kUnavailable, "a claim of " + to_string(program) +
                                            " is open, see 'cms-admin history'; try again when it has ended");
}

}  // namespace

Result<ClaimRecord> claim_record_of(const storage::LogRecord& record) {
  auto decoded = wire::decode_claim_record(record.bytes.data(), record.bytes.size());
  if (decoded.ok() && (storage::log_of(decoded->lineage) != record.log || decoded->slot != record.slot)) {
    return make_error(Code::kCorrupt, storage::to_string(record.log) + ", slot " +
                                          std::to_string(record.slot) + ": a record of lineage " +
                                          to_string(decoded->lineage) + ", slot " +
                                          std::to_string(decoded->slot));
  }
  return decoded;
}

std::string text_of(const ClaimRecord& record) {
  const wire::Bytes bytes = wire::encode(record);
  return std::string(bytes.begin(), bytes.end());
}

std::optional<ClaimRecord> LineageGate::known_head(const Lineage& lineage) const {
  const std::lock_guard lock(mutex_);
  const auto found = heads_.find(lineage);
  return found == heads_.end() ? std::nullopt : std::optional(found->second);
}

void LineageGate::note_head(const ClaimRecord& head) {
  const std::lock_guard lock(mutex_);
  const auto found = heads_.find(head.lineage);
  if (found != heads_.end()) {
    if (found->second.slot < head.slot) found->second = head;
  } else if (heads_.size() < kGateHeadsMax) {
    heads_.emplace(head.lineage, head);
  }
}

Result<std::optional<ClaimRecord>> LineageGate::read_head(const Lineage& lineage) {
  const storage::LogId log = storage::log_of(lineage);
  const auto known = known_head(lineage);
  const auto record = claims_.head(log, known ? known->slot : 1, ClaimStore::Read::kDurable);
  if (!record.ok()) {
    if (record.error().code == Code::kNotFound && !known) return std::optional<ClaimRecord>();
    return record.error();
  }
  auto head = claim_record_of(*record);
  if (!head.ok()) return head.error();
  note_head(*head);
  return std::optional(std::move(*head));
}

Result<std::optional<ClaimRecord>> LineageGate::current_head(const Lineage& lineage) {
  const auto known = known_head(lineage);
  const storage::Slot next = known ? known->slot + 1 : 1;
  const auto taken = claims_.has_slot(storage::log_of(lineage), next);
  if (!taken.ok()) return taken.error();
  if (!*taken) return known;
  return read_head(lineage);
}

// Who else writes it first is as good.
Status LineageGate::begin_logs(const std::vector<const Asked*>& asked) {
  std::vector<storage::Append> appends;
  std::vector<ClaimRecord> records;
  for (const Asked* one : asked) {
    const storage::BlobName& name = one->name;
    const core::Stamp stamp{me_, random_u64() | 1, wall_time_us()};
    const SessionId session{name.checkpoint.program.ecu_mac, name.checkpoint.version.incarnation};
    records.push_back(core::genesis(stamp, name.lineage, session, name.checkpoint.program.program_id,
                                    one->policies.on_isolation, one->policies.on_loss));
    appends.push_back(storage::Append{storage::log_of(name.lineage), 1, text_of(records.back())});
  }
  CMS_CRASH_POINT("lineage.before_genesis");
  const auto ends = claims_.append_many(appends);
  Status first;
  for (std::size_t i = 0; i < ends.size(); ++i) {
    if (!ends[i].ok()) {
      if (first.ok()) first = ends[i].error();
    } else if (ends[i]->end == storage::Appended::End::kWon) {
      note_head(records[i]);
    } else if (ends[i]->end == storage::Appended::End::kUnresolved) {
      // Whether it has slot 1 is seen by whoever looks next; to settle it only takes its draft away.
      const std::lock_guard lock(mutex_);
      unsettled_.push_back(ends[i]->attempt);
    }
  }
  return first;
}

// Each holds one of the store's places for attempts until it is known what became of it.
void LineageGate::settle_some() {
  std::vector<std::uint64_t> attempts;
  {
    const std::lock_guard lock(mutex_);
    attempts.swap(unsettled_);
  }
  for (std::size_t i = 0; i < attempts.size(); ++i) {
    const auto end = claims_.settle(attempts[i]);
    if (!end.ok() || end->end != storage::Appended::End::kUnresolved) continue;
    const std::lock_guard lock(mutex_);  // The store does not answer: the others wait as well.
    unsettled_.insert(unsettled_.end(), attempts.begin() + static_cast<std::ptrdiff_t>(i), attempts.end());
    return;
  }
}

Result<std::set<Lineage>> LineageGate::lineages_of(const ProgramKey& program) const {
  std::set<Lineage> lineages{lineage_of(program)};
  const Status scanned = index_.scan_program(program, [&](const storage::IndexRow& row) {
    lineages.insert(row.name.lineage);
    return true;
  });
  if (!scanned.ok()) return scanned.error();
  return lineages;
}

Status LineageGate::retire(const ProgramKey& program, const std::set<Lineage>& lineages,
                           const std::string& why) {
  for (const Lineage& lineage : lineages) {
    const auto head = read_head(lineage);
    if (!head.ok()) return head.error();
    if (!*head || (*head)->owner.program != program || (*head)->kind == wire::ClaimKind::kRetire) continue;
    if (core::is_open((*head)->kind)) return claim_is_open(program);
    const ClaimRecord record = core::retire(core::Stamp{me_, random_u64() | 1, wall_time_us()}, **head, why);
    const auto end = claims_.append(storage::log_of(lineage), record.slot, text_of(record));
    if (!end.ok()) return end.error();
    if (end->end != storage::Appended::End::kWon) {
      if (end->end == storage::Appended::End::kUnresolved) {
        const std::lock_guard lock(mutex_);
        unsettled_.push_back(end->attempt);
      }
      return make_error(Code::kUnavailable, "lineage " + to_string(lineage) + " of " + to_string(program) +
                                                " could not be retired yet");
    }
    note_head(record);
  }
  return ok_status();
}

Status LineageGate::retire_former(const storage::BlobName& name) {
  const ProgramKey& program = name.checkpoint.program;
  if (name.lineage == lineage_of(program)) return ok_status();
  auto former = lineages_of(program);
  if (!former.ok()) return former.error();
  former->erase(name.lineage);
  return retire(program, *former, "a new lineage was opened for " + to_string(program));
}

Status LineageGate::check_owner(const ProgramKey& program, const Lineage& lineage) {
  if (!trusted_) return ok_status();
  const auto head = current_head(lineage);
  if (!head.ok()) {
    return make_error(Code::kUnavailable, "whether " + to_string(program) +
                                              " is still itself is not known: " + head.error().message());
  }
  if (!*head) return ok_status();
  const ProgramKey& owner = (*head)->owner.program;
  if (owner != program) {
    return make_error(Code::kFenced, to_string(program) + " has moved: it is " + to_string(owner) + " now");
  }
  return core::is_open((*head)->kind) ? claim_is_open(program) : ok_status();
}

Status LineageGate::end_lives(const ProgramKey& program) {
  if (!trusted_) return ok_status();
  auto lineages = lineages_of(program);
  if (!lineages.ok()) return lineages.error();
  for (auto lineage = lineages->begin(); lineage != lineages->end();) {
    const auto head = current_head(*lineage);
    if (!head.ok() && is_unusable(head.error())) {
      lineage = lineages->erase(lineage);
      continue;
    }
    if (!head.ok()) return head.error();
    ++lineage;
    if (*head && core::is_open((*head)->kind) && (*head)->owner.program == program)
      return claim_is_open(program);
  }
  lineages->erase(lineage_of(program));
  return retire(program, *lineages, to_string(program) + " was withdrawn");
}

Result<std::vector<storage::BlobName>> LineageGate::ended_may_go(
    const std::vector<storage::BlobName>& names) {
  if (!trusted_) return names;
  std::map<Lineage, std::vector<storage::BlobName>> by_lineage;
  for (const storage::BlobName& name : names) by_lineage[name.lineage].push_back(name);
  std::vector<storage::BlobName> may_go;
  for (const auto& [lineage, ended] : by_lineage) {
    const auto head = current_head(lineage);
    if (!head.ok() && is_unusable(head.error())) continue;
    if (!head.ok()) return head.error();
    std::vector<storage::BlobName> stay;
    const bool moved = *head && (*head)->owner.program != ended.front().checkpoint.program;
    if (*head && (moved || core::is_open((*head)->kind))) stay = core::must_stay(&**head, ended);
    std::copy_if(ended.begin(), ended.end(), std::back_inserter(may_go), [&](const storage::BlobName& name) {
      return std::find(stay.begin(), stay.end(), name) == stay.end();
    });
  }
  return may_go;
}

std::vector<Result<StoredWord>> LineageGate::words(const std::vector<Asked>& asked) {
  if (!trusted_) return std::vector<Result<StoredWord>>(asked.size(), StoredWord::kSay);
  std::vector<Result<StoredWord>> words(asked.size(), make_error(Code::kUnavailable, "not looked at"));
  settle_some();
  std::vector<const Asked*> unbegun;
  std::vector<storage::LogSlot> looks;
  for (const Asked& one : asked) {
    const auto known = known_head(one.name.lineage);
    looks.push_back(storage::LogSlot{storage::log_of(one.name.lineage), known ? known->slot + 1 : 1});
    if (!known && one.name.owner_epoch == 0) unbegun.push_back(&one);
  }
  // An append to a slot that is taken costs more than a look, and most of these are new.
  if (!unbegun.empty()) {
    std::vector<storage::LogSlot> firsts;
    for (const Asked* one : unbegun)
      firsts.push_back(storage::LogSlot{storage::log_of(one->name.lineage), 1});
    const auto taken = claims_.has_slots(firsts);
    std::vector<const Asked*> to_begin;
    for (std::size_t i = 0; i < taken.size(); ++i) {
      if (taken[i].ok() && !*taken[i]) to_begin.push_back(unbegun[i]);
    }
    // Whom it failed has an empty log below.
    to_begin.erase(std::remove_if(to_begin.begin(), to_begin.end(),
                                  [this](const Asked* one) { return !retire_former(one->name).ok(); }),
                   to_begin.end());
    if (!to_begin.empty()) (void)begin_logs(to_begin);
  }
  for (std::size_t i = 0; i < asked.size(); ++i) {
    const auto known = known_head(asked[i].name.lineage);
    looks[i].slot = known ? known->slot + 1 : 1;
  }
  const auto taken = claims_.has_slots(looks);
  // Of whom something has come since, side by side.
  std::vector<storage::LogSlot> grown;
  for (std::size_t i = 0; i < asked.size(); ++i) {
    if (taken[i].ok() && *taken[i]) grown.push_back(looks[i]);
  }
  const auto read = claims_.heads(grown, ClaimStore::Read::kDurable);
  std::size_t next_read = 0;
  for (std::size_t i = 0; i < asked.size(); ++i) {
    const storage::BlobName& name = asked[i].name;
    if (!taken[i].ok()) {
      words[i] = taken[i].error();
      continue;
    }
    if (*taken[i]) {
      const auto& record = read[next_read++];
      const auto head = record.ok() ? claim_record_of(*record) : Result<ClaimRecord>(record.error());
      if (head.ok()) {
        note_head(*head);
        words[i] = core::stored_word(&*head, name);
      } else {
        words[i] = head.error();
      }
      continue;
    }
    const std::optional<ClaimRecord> head = known_head(name.lineage);
    if (!head && name.owner_epoch == 0) {
      words[i] = make_error(Code::kUnavailable,
                            "the claim log of " + to_string(name.checkpoint.program) + " could not be begun");
      continue;
    }
    words[i] = core::stored_word(head ? &*head : nullptr, name);
  }
  return words;
}

Status LineageGate::begin_for_stored(storage::BlobStore& store, const storage::BlobName& name) {
  const auto blob = store.open(name);
  if (!blob.ok()) return blob.error();
  const auto word = words({Asked{name, (*blob)->manifest().notification.policies}});
  return word[0].ok() ? ok_status() : Status(word[0].error());
}

Result<StoredWord> LineageGate::word(storage::BlobStore& store, const storage::BlobName& name) {
  if (!trusted_) return StoredWord::kSay;
  auto head = current_head(name.lineage);
  if (!head.ok()) return head.error();
  if (!*head && name.owner_epoch == 0) {
    if (Status begun = begin_for_stored(store, name); !begun.ok()) return begun.error();
    head = current_head(name.lineage);
    if (!head.ok()) return head.error();
  }
  return core::stored_word(*head ? &**head : nullptr, name);
}

}  // namespace cms::daemon
