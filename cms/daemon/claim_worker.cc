#include "cms/daemon/claim_worker.h"

#include <algorithm>
#include <set>
#include <utility>

#include <spdlog/spdlog.h>

#include "base/crash_point.h"
#include "cms/daemon/store_workers.h"

namespace cms::daemon {

using core::RestoreCore;
using storage::BlobName;
using storage::ClaimStore;
using storage::IndexRow;
using wire::ClaimRecord;

ClaimWorker::ClaimWorker(const Parts& parts)
    : parts_(parts), historian_("claim-history"), scanner_("claim-scan") {
  for (std::size_t i = 0; i < kClaimLaneCount; ++i) {
    lanes_.push_back(std::make_unique<Worker>("claim-" + std::to_string(i)));
  }
}

void ClaimWorker::stop() {
  scanner_.stop();
  historian_.stop();
  for (const auto& lane : lanes_) lane->stop();
}

template <typename T, typename Job>
void ClaimWorker::post(Worker& worker, Job job, Then<T> then) {
  worker.post([this, job = std::move(job), then = std::move(then)]() mutable {
    Result<T> answer = job();
    parts_.outbox.push([then = std::move(then), answer = std::move(answer)](
                           Instant now, core::Effects& effects) { then(now, effects, answer); });
  });
}

// ---- logs

Status ClaimWorker::for_each_head(const Worker& worker, const std::function<void(const ClaimRecord&)>& visit,
                                  std::size_t* unusable) {
  for (std::uint32_t shard = 0; shard < storage::kLogShardCount; ++shard) {
    if (worker.stopping()) return make_error(Code::kCancelled, "this cmsd ends");
    std::vector<storage::LogSlot> unknown;
    const Status listed = parts_.claims.list_logs(
        shard,
        [&](const storage::LogId& log, storage::Slot head) {
          if (log.kind != storage::LogId::Kind::kLineage) return;
          // Records never change: one that was read is as it was.
          const auto known = parts_.gate.known_head(log.id);
          if (known && known->slot >= head) {
            visit(*known);
          } else {
            unknown.push_back(storage::LogSlot{log, head});
          }
        },
        nullptr);
    if (!listed.ok()) return listed;
    const auto heads = parts_.claims.heads(unknown, ClaimStore::Read::kAsSeen);
    for (std::size_t i = 0; i < heads.size(); ++i) {
      auto head = heads[i].ok() ? claim_record_of(*heads[i]) : Result<ClaimRecord>(heads[i].error());
      if (head.ok()) {
        visit(*head);
      } else if (head.error().code == Code::kCorrupt || head.error().code == Code::kUnsupported) {
        // That lineage is for a person to look at; the others must not wait for it.
        spdlog::error("{} cannot be used: {}", storage::to_string(unknown[i].log), head.error().message());
        if (unusable != nullptr) ++*unusable;
      } else {
        return head.error();
      }
    }
  }
  return ok_status();
}

Result<ClaimWorker::Scanned> ClaimWorker::scan_now(const core::ScanLogs& asked) {
  Scanned scanned;
  std::set<Lineage> seen;
  const Status status = for_each_head(
      scanner_,
      [&](const ClaimRecord& head) {
        const bool open = head.kind == wire::ClaimKind::kClaim || head.kind == wire::ClaimKind::kAct;
        const std::set<EcuMac>& ecus = asked.ecu_macs;
        if (!ecus.empty()) seen.insert(head.lineage);
        const bool wanted =
            ecus.empty() ? open
                         : ecus.count(head.owner.program.ecu_mac) != 0 ||
                               (head.kind == wire::ClaimKind::kAct && ecus.count(head.target.ecu_mac) != 0);
        if (wanted) scanned.heads.push_back(head);
      },
      &scanned.unusable);
  if (!status.ok()) return status.error();
  if (!asked.ecu_macs.empty()) {
    std::vector<ClaimRecord> living;
    for (ClaimRecord& head : scanned.heads) {
      const auto ended = has_ended(head);
      if (!ended.ok()) return ended.error();
      if (!*ended) living.push_back(std::move(head));
    }
    scanned.heads = std::move(living);
  }
  for (const EcuMac ecu_mac : asked.ecu_macs) {
    if (Status begun = begin_missing_logs(ecu_mac, seen, scanned); !begun.ok()) return begun.error();
  }
  return scanned;
}

Status ClaimWorker::begin_missing_logs(EcuMac ecu_mac, const std::set<Lineage>& seen, Scanned& scanned) {
  std::vector<BlobName> missing;
  const Status listed = parts_.index.scan_newest(ecu_mac, std::nullopt, [&](const IndexRow& row) {
    if (row.name.owner_epoch == 0 && seen.count(row.name.lineage) == 0) missing.push_back(row.name);
    return true;
  });
  if (!listed.ok()) return listed;
  for (const BlobName& name : missing) {
    const Status begun = parts_.gate.begin_for_stored(parts_.store, name);
    if (begun.code() == Code::kNotFound) continue;  // It has gone meanwhile.
    if (!begun.ok()) return begun;
    const auto head = parts_.gate.read_head(name.lineage);
    if (!head.ok()) return head.error();
    if (*head && (*head)->owner.program.ecu_mac == ecu_mac) scanned.heads.push_back(**head);
  }
  return ok_status();
}

void ClaimWorker::scan(const core::ScanLogs& asked, Then<Scanned> then) {
  post<Scanned>(
      scanner_, [this, asked] { return scan_now(asked); }, std::move(then));
}

Result<RestoreCore::Head> ClaimWorker::head_now(const Lineage& lineage) {
  RestoreCore::Head head;
  auto record = parts_.gate.read_head(lineage);
  if (!record.ok()) return record.error();
  head.record = std::move(*record);
  if (!head.record) return head;
  if (head.record->kind == wire::ClaimKind::kAct) {
    const auto text =
        parts_.claims.read(storage::log_of(lineage), head.record->claim_slot, ClaimStore::Read::kAsSeen);
    if (!text.ok()) return text.error();
    const auto claim = claim_record_of(*text);
    if (!claim.ok()) return claim.error();
    head.claim_uid = claim->uid;
  }
  const auto newest = parts_.index.newest(head.record->owner.program);
  head.has_own_checkpoint = newest.ok() && *newest && (*newest)->name.lineage == lineage &&
                            (*newest)->name.owner_epoch == head.record->owner.owner_epoch;
  return head;
}

void ClaimWorker::read_head(const Lineage& lineage, Then<RestoreCore::Head> then) {
  post<RestoreCore::Head>(
      lane_of(lineage), [this, lineage] { return head_now(lineage); }, std::move(then));
}

Result<ClaimWorker::Heads> ClaimWorker::heads_now(const std::vector<Lineage>& lineages) {
  Heads heads;
  std::vector<storage::LogSlot> logs;
  logs.reserve(lineages.size());
  for (const Lineage& lineage : lineages) logs.push_back({storage::log_of(lineage), 0});
  for (const auto& read : parts_.claims.heads(logs, ClaimStore::Read::kDurable)) {
    if (!read.ok() && read.error().code != Code::kNotFound) return read.error();
    heads.emplace_back();
    if (!read.ok()) continue;
    const auto record = claim_record_of(*read);
    if (!record.ok()) return record.error();
    heads.back() = *record;
  }
  return heads;
}

void ClaimWorker::read_heads(const std::vector<Lineage>& lineages, Then<Heads> then) {
  post<Heads>(
      scanner_, [this, lineages] { return heads_now(lineages); }, std::move(then));
}

Result<ClaimRecord> ClaimWorker::owned_now(const ProgramKey& program) {
  const auto newest = parts_.index.newest(program);
  if (!newest.ok()) return newest.error();
  const Lineage lineage = *newest ? (*newest)->name.lineage : lineage_of(program);
  if (*newest && (*newest)->name.owner_epoch == 0) {  // It may be of before there were logs.
    const Status begun = parts_.gate.begin_for_stored(parts_.store, (*newest)->name);
    if (!begun.ok() && begun.code() != Code::kNotFound) return begun.error();
  }
  auto head = parts_.gate.read_head(lineage);
  if (!head.ok()) return head.error();
  if (!*head || !((*head)->owner.program == program)) {
    // Or it was moved there, and has stored nothing of its own yet.
    std::optional<ClaimRecord> moved;
    const Status scanned = for_each_head(
        historian_,
        [&](const ClaimRecord& one) {
          if (one.owner.program == program && one.kind != wire::ClaimKind::kRetire) moved = one;
        },
        nullptr);
    if (!scanned.ok()) return scanned.error();
    if (moved) return *moved;
  }
  if (!*head) return make_error(Code::kNotFound, "nothing of " + to_string(program) + " is stored");
  const Status owned = core::check_replaces(
      &**head, wire::ClaimOwner{program, (*head)->owner.incarnation, (*head)->owner.owner_epoch});
  if (!owned.ok()) return owned.error();
  return **head;
}

void ClaimWorker::find_owned(const ProgramKey& program, Then<ClaimRecord> then) {
  post_history<ClaimRecord>([this, program] { return owned_now(program); }, std::move(then));
}

namespace {

Result<ClaimWorker::Appended> end_of(const Result<storage::Appended>& appended) {
  if (!appended.ok()) return appended.error();
  switch (appended->end) {
    case storage::Appended::End::kWon: return ClaimWorker::Appended{RestoreCore::AppendEnd::kWon, 0};
    case storage::Appended::End::kLost: return ClaimWorker::Appended{RestoreCore::AppendEnd::kLost, 0};
    case storage::Appended::End::kUnresolved: break;
  }
  return ClaimWorker::Appended{RestoreCore::AppendEnd::kUnresolved, appended->attempt};
}

}  // namespace

void ClaimWorker::append(const ClaimRecord& record, Then<Appended> then) {
  post<Appended>(
      lane_of(record.lineage),
      [this, record]() -> Result<Appended> {
        switch (record.kind) {
          case wire::ClaimKind::kClaim: CMS_CRASH_POINT("restore.before_claim"); break;
          case wire::ClaimKind::kAct: CMS_CRASH_POINT("restore.before_act"); break;
          case wire::ClaimKind::kDone: CMS_CRASH_POINT("restore.before_done"); break;
          default: break;
        }
        const auto end =
            end_of(parts_.claims.append(storage::log_of(record.lineage), record.slot, text_of(record)));
        if (end.ok() && end->end == RestoreCore::AppendEnd::kWon) parts_.gate.note_head(record);
        switch (record.kind) {
          case wire::ClaimKind::kClaim: CMS_CRASH_POINT("restore.after_claim"); break;
          case wire::ClaimKind::kAct: CMS_CRASH_POINT("restore.after_act"); break;
          case wire::ClaimKind::kDone: CMS_CRASH_POINT("restore.after_done"); break;
          default: break;
        }
        return end;
      },
      std::move(then));
}

void ClaimWorker::settle(const Lineage& lineage, std::uint64_t attempt, Then<Appended> then) {
  post<Appended>(
      lane_of(lineage), [this, attempt] { return end_of(parts_.claims.settle(attempt)); }, std::move(then));
}

// ---- checkpoints

Result<std::vector<BlobName>> ClaimWorker::list_lineage(const Lineage& lineage) {
  std::vector<BlobName> names;
  const Status listed = parts_.store.list(
      storage::shard_of(lineage),
      [&](const storage::StoredEntry& entry) {
        if (entry.name.lineage == lineage) names.push_back(entry.name);
      },
      nullptr);
  if (!listed.ok()) return listed.error();
  // A name that is only listed may go again in a crash of the store's host; what is decided by it may not.
  std::vector<BlobName> blobs;
  std::copy_if(names.begin(), names.end(), std::back_inserter(blobs),
               [](const BlobName& name) { return name.kind == storage::EntryKind::kBlob; });
  const auto durable = parts_.store.make_durable(blobs);
  for (std::size_t i = 0; i < blobs.size(); ++i) {
    if (durable[i].ok()) continue;
    if (durable[i].code() != Code::kNotFound) return durable[i].error();
    names.erase(std::find(names.begin(), names.end(), blobs[i]));
  }
  return names;
}

namespace {

// kWithdrawn: its life has ended. kNotFound: nothing of it is stored. `candidates`: what could be restored, the best first.
Status check_lives(const ProgramKey& owner, const std::vector<BlobName>& listed,
                   const std::vector<BlobName>& candidates) {
  std::optional<Version> withdrawn;
  for (const BlobName& name : listed) {
    if (name.kind != storage::EntryKind::kTombstone || name.checkpoint.program != owner) continue;
    withdrawn = std::max(withdrawn.value_or(Version{}), name.checkpoint.version);
  }
  if (candidates.empty() && !withdrawn)
    return make_error(Code::kNotFound, "nothing of " + to_string(owner) + " is stored");
  if (!withdrawn) return ok_status();
  // The base, of a former owner, has ended with its program too.
  const bool ended = candidates.empty() || candidates.front().checkpoint.program != owner ||
                     candidates.front().checkpoint.version <= *withdrawn;
  return ended ? Status(make_error(Code::kWithdrawn, to_string(owner) + " was withdrawn")) : ok_status();
}

}  // namespace

// A log of a lineage that any life of its key may have does not end with one of these lives.
Result<bool> ClaimWorker::has_ended(const ClaimRecord& head) {
  if (core::is_open(head.kind)) return false;
  const auto known = parts_.index.program(head.owner.program);  // A hint: else each would cost a listing.
  if (!known.ok()) return known.error();
  if (!*known || !(*known)->withdrawn) return false;
  const auto listed = list_lineage(head.lineage);
  if (!listed.ok()) return listed.error();
  return check_lives(head.owner.program, *listed, core::restorable(head, *listed)).code() == Code::kWithdrawn;
}

// Only the two newest are offered: a remover that paused since before the claim may still take an older one.
Result<RestoreCore::Found> ClaimWorker::find_now(const core::FindCheckpoint& asked) {
  constexpr std::size_t kOfferedMax = 2;
  const auto listed = list_lineage(asked.head.lineage);
  if (!listed.ok()) return listed.error();
  const ProgramKey& owner = asked.head.owner.program;
  std::vector<BlobName> candidates = core::restorable(asked.head, *listed);
  if (Status lives = check_lives(owner, *listed, candidates); !lives.ok()) return lives.error();
  if (asked.exact) {
    candidates = core::named_last(asked.head, *listed, *asked.exact);
    if (candidates.empty()) {
      return make_error(Code::kNotFound, to_string(CheckpointId{owner, *asked.exact}) + " is not stored");
    }
  }
  candidates.erase(
      std::unique(candidates.begin(), candidates.end(),
                  [](const BlobName& a, const BlobName& b) { return a.checkpoint == b.checkpoint; }),
      candidates.end());
  if (candidates.size() > kOfferedMax) candidates.resize(kOfferedMax);
  std::rotate(candidates.begin(),
              candidates.begin() + static_cast<std::ptrdiff_t>(std::min(asked.skip, candidates.size() - 1)),
              candidates.end());
  std::string damaged;
  bool gone = false;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    const auto reader = parts_.store.open(candidates[i]);
    if (!reader.ok()) {
      const Code code = reader.error().code;
      if (code != Code::kCorrupt && code != Code::kUnsupported && code != Code::kNotFound)
        return reader.error();
      gone = gone || code == Code::kNotFound;
      damaged = reader.error().message();
      continue;
    }
    const wire::Manifest& manifest = (*reader)->manifest();
    // A target fetches it by its checkpoint; the index of who never heard of it has no row.
    const auto added = parts_.index.add_missing({row_of(candidates[i], manifest)});
    if (!added.ok()) return added.error();
    RestoreCore::Found found;
    found.name = candidates[i];
    found.session = manifest.session;
    found.notification = manifest.notification;
    found.older = candidates.size() - 1 - i;
    found.stored_at_us = manifest.stored_at_us;
    return found;
  }
  if (gone) return make_error(Code::kUnavailable, "a checkpoint went while it was looked for: " + damaged);
  return make_error(asked.exact ? Code::kCorrupt : Code::kNotFound,
                    "what is stored of " + to_string(owner) + " is damaged: " + damaged);
}

void ClaimWorker::find(const core::FindCheckpoint& asked, Then<RestoreCore::Found> then) {
  post<RestoreCore::Found>(
      lane_of(asked.head.lineage), [this, asked] { return find_now(asked); }, std::move(then));
}

Result<std::vector<IndexRow>> ClaimWorker::remove_garbage_now(const Lineage& lineage) {
  const auto listed = list_lineage(lineage);
  if (!listed.ok()) return listed.error();
  const auto head = parts_.gate.read_head(lineage);  // After the listing.
  if (!head.ok()) return head.error();
  std::vector<BlobName> garbage = core::garbage(*head ? &**head : nullptr, *listed);
  // What a person has pinned stays.
  garbage.erase(std::remove_if(garbage.begin(), garbage.end(),
                               [&](const BlobName& name) {
                                 return std::find(listed->begin(), listed->end(),
                                                  storage::pin_name_of(name)) != listed->end();
                               }),
                garbage.end());
  std::vector<IndexRow> rows;
  if (garbage.empty()) return rows;
  const Status removed = parts_.keeper.remove_now(garbage);
  if (!removed.ok()) return removed.error();
  for (const BlobName& name : garbage) {
    IndexRow row;
    row.name = name;
    rows.push_back(std::move(row));
  }
  return rows;
}

void ClaimWorker::remove_garbage(const Lineage& lineage, Then<std::vector<IndexRow>> then) {
  // Among removals and reconciling, which must not overtake each other.
  parts_.keeper.post([this, lineage, then = std::move(then)]() mutable {
    auto removed = remove_garbage_now(lineage);
    parts_.outbox.push([then = std::move(then), removed = std::move(removed)](
                           Instant now, core::Effects& effects) { then(now, effects, removed); });
  });
}

// ---- history

Result<ClaimWorker::History> ClaimWorker::history_now(EcuMac ecu_mac, std::optional<ProgramId> program_id) {
  History history;
  std::vector<ClaimRecord> heads;
  const auto touches = [&](const ClaimRecord& record) {
    const auto is_it = [&](const ProgramKey& key) {
      return key.ecu_mac == ecu_mac && (!program_id || key.program_id == *program_id);
    };
    return is_it(record.owner.program) || (record.base && is_it(record.base->checkpoint.program)) ||
           (record.checkpoint && is_it(record.checkpoint->checkpoint.program)) ||
           (!program_id && record.target.ecu_mac == ecu_mac);
  };
  std::set<Lineage> own;
  if (program_id) {
    const ProgramKey key{ecu_mac, *program_id};
    own.insert(lineage_of(key));
    const auto newest = parts_.index.newest(key);
    if (newest.ok() && *newest) own.insert((*newest)->name.lineage);
    for (const Lineage& lineage : own) {
      auto head = parts_.gate.read_head(lineage);
      if (!head.ok()) return head.error();
      if (*head) heads.push_back(**head);
    }
  }
  if (heads.empty()) {  // Or it runs under that key only just now, with nothing stored yet.
    const Status scanned = for_each_head(
        historian_,
        [&](const ClaimRecord& head) {
          if (!program_id || touches(head)) heads.push_back(head);
        },
        nullptr);
    if (!scanned.ok()) return scanned.error();
  }
  for (const ClaimRecord& head : heads) {
    if (historian_.stopping()) return make_error(Code::kCancelled, "this cmsd ends");
    std::vector<ClaimRecord> log;
    bool wanted = own.count(head.lineage) != 0 || touches(head);
    const storage::Slot first = head.slot > kHistoryRecordsMax ? head.slot - kHistoryRecordsMax + 1 : 1;
    if (first > 1) history.more = true;
    for (storage::Slot slot = first; slot < head.slot; ++slot) {
      const auto text = parts_.claims.read(storage::log_of(head.lineage), slot, ClaimStore::Read::kAsSeen);
      if (!text.ok()) return text.error();
      auto record = claim_record_of(*text);
      if (!record.ok()) return record.error();
      wanted = wanted || touches(*record);
      log.push_back(std::move(*record));
    }
    log.push_back(head);
    if (!wanted) continue;
    if (history.records.size() + log.size() > kHistoryRecordsMax) {
      history.more = true;
      if (!history.records.empty()) break;
    }
    std::move(log.begin(), log.end(), std::back_inserter(history.records));
  }
  return history;
}

template <typename T, typename Job>
void ClaimWorker::post_history(Job job, Then<T> then) {
  if (historian_.queue_length() >= kHistoriesMax) {
    parts_.outbox.push([then = std::move(then)](Instant now, core::Effects& effects) {
      then(now, effects,
           make_error(Code::kLimit, std::to_string(kHistoriesMax) + " histories are being read already"));
    });
    return;
  }
  post<T>(historian_, std::move(job), std::move(then));
}

void ClaimWorker::history(EcuMac ecu_mac, std::optional<ProgramId> program_id, Then<History> then) {
  post_history<History>([this, ecu_mac, program_id] { return history_now(ecu_mac, program_id); },
                        std::move(then));
}

// ---- what a loss would be

Result<LostPrograms> ClaimWorker::programs_now(EcuMac ecu_mac) {
  LostPrograms lost;
  std::vector<ClaimRecord> heads;
  std::set<Lineage> seen;
  Status status = for_each_head(
      historian_,
      [&](const ClaimRecord& head) {
        seen.insert(head.lineage);
        const bool would_run = head.kind == wire::ClaimKind::kAct && head.target.ecu_mac == ecu_mac;
        if (head.kind == wire::ClaimKind::kRetire) return;
        if (head.owner.program.ecu_mac == ecu_mac || would_run) heads.push_back(head);
      },
      &lost.unusable);
  if (!status.ok()) return status.error();
  // What was stored before there were logs gets its own only when the loss is told.
  status = parts_.index.scan_newest(ecu_mac, std::nullopt, [&](const IndexRow& row) {
    if (row.name.owner_epoch != 0 || seen.count(row.name.lineage) != 0) return true;
    ClaimRecord first;
    first.lineage = row.name.lineage;
    first.owner = wire::ClaimOwner{row.name.checkpoint.program, row.name.checkpoint.version.incarnation, 0};
    heads.push_back(std::move(first));
    return true;
  });
  if (!status.ok()) return status.error();
  for (const ClaimRecord& head : heads) {
    if (historian_.stopping()) return make_error(Code::kCancelled, "this cmsd ends");
    if (core::is_open(head.kind)) {
      lost.programs.push_back(
          {head.owner.program, head.lineage, true, make_error(Code::kUnavailable, "is being restored")});
      continue;
    }
    // As RestoreCore::find, once it had claimed it.
    const auto newest = parts_.index.newest(head.owner.program);
    const bool lived = head.kind == wire::ClaimKind::kDone && newest.ok() && *newest &&
                       (*newest)->name.lineage == head.lineage &&
                       (*newest)->name.owner_epoch == head.owner.owner_epoch;
    const std::uint32_t attempts = lived ? 1 : head.attempts + 1;
    const std::size_t skip = attempts > core::kAttemptsBeforeOlder ? 1 : 0;
    lost.programs.push_back(
        {head.owner.program, head.lineage, false, find_now(core::FindCheckpoint{head, skip})});
  }
  return lost;
}

void ClaimWorker::programs_of(EcuMac ecu_mac, Then<LostPrograms> then) {
  post_history<LostPrograms>([this, ecu_mac] { return programs_now(ecu_mac); }, std::move(then));
}

}  // namespace cms::daemon
