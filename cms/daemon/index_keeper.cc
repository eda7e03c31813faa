#include "cms/daemon/index_keeper.h"

#include <algorithm>
#include <utility>

#include "base/crash_point.h"
#include "base/prng.h"
#include "cms/daemon/store_workers.h"

namespace cms::daemon {

using storage::BlobName;
using storage::EntryKind;
using storage::IndexRow;

IndexKeeper::IndexKeeper(core::CmsCore& core, storage::BlobStore& store, storage::CheckpointIndex& index,
                         Outbox& outbox, bool has_peers)
    : core_(core), store_(store), index_(index), outbox_(outbox), has_peers_(has_peers), worker_("index") {
  // Marked once all shards have been through: then it knows every incarnation that was ever given, and
  // sessions can be opened while the store is still away. Not with peers: while this cmsd was down they
  // gave others, whose checkpoints are in the store.
  const auto fleet_id = index_.fleet_id();
  index_complete_ = !has_peers_ && fleet_id.ok() && !fleet_id->empty();
}

void IndexKeeper::report() {
  outbox_.push([this, progress = work_](Instant, core::Effects&) { progress_ = progress; });
}

void IndexKeeper::ask(std::function<void()> job) {
  if (store_looked_at_ || held_.size() >= kHeldMax) {
    worker_.post(std::move(job));
  } else {
    held_.push_back(std::move(job));
  }
}

void IndexKeeper::on_store_looked_at() {
  store_looked_at_ = true;
  for (std::function<void()>& job : held_) worker_.post(std::move(job));
  held_.clear();
}

void IndexKeeper::prepare(const ProgramKey& program, std::function<void(const Status&)> then) {
  ask([this, program, then = std::move(then)]() mutable {
    const Status ensured = ensure_shard(program);
    outbox_.push([then = std::move(then), ensured](Instant, core::Effects&) { then(ensured); });
  });
}

// ---- questions of the core

void IndexKeeper::look_up(core::LookUpProgram effect) {
  ask([this, effect] {
    const auto facts = [&]() -> Result<core::CmsCore::ProgramFacts> {
      const Status ensured = ensure_shard(effect.program);
      if (!ensured.ok()) return ensured.error();
      core::CmsCore::ProgramFacts found;
      const auto newest = index_.newest(effect.program);
      if (!newest.ok()) return newest.error();
      if (*newest) found.newest = (*newest)->name.checkpoint.version;
      const auto row = index_.program(effect.program);
      if (!row.ok()) return row.error();
      if (*row) found.withdrawn = (*row)->withdrawn;
      return found;
    }();
    outbox_.push([this, program = effect.program, facts](Instant now, core::Effects& effects) {
      core_.on_program_looked_up(now, program, facts, effects);
    });
  });
}

void IndexKeeper::reserve_incarnation(core::ReserveIncarnation effect) {
  worker_.post([this, effect = std::move(effect)]() mutable {
    if (effect.hello.incarnation == 0 && !index_complete_) {
      waiting_hellos_.push_back(std::move(effect));  // Answered when reconciling has ended.
      return;
    }
    const auto incarnation = reserve_now(effect.hello);
    outbox_.push([this, effect = std::move(effect), incarnation](Instant now, core::Effects& effects) {
      core_.on_incarnation_reserved(now, effect, incarnation, effects);
    });
  });
}

Result<Incarnation> IndexKeeper::reserve_now(const wire::Hello& hello) {
  Incarnation incarnation = hello.incarnation;
  if (incarnation == 0) {
    const auto max_known = index_.max_incarnation(hello.ecu_mac);
    if (!max_known.ok()) return max_known.error();
    incarnation = core::next_incarnation(*max_known, hello.nonce);
  }
  const Status put = index_.put_incarnation(hello.ecu_mac, incarnation);
  if (!put.ok()) return put.error();
  return incarnation;
}

void IndexKeeper::resolve(CheckpointId checkpoint, std::function<void(Result<BlobName>)> then) {
  ask([this, checkpoint, then = std::move(then)]() mutable {
    const auto name = [&]() -> Result<BlobName> {
      const Status ensured = ensure_shard(checkpoint.program);
      if (!ensured.ok()) return ensured.error();
      const auto row =
          checkpoint.version.seq == 0 ? index_.newest(checkpoint.program) : index_.find(checkpoint);
      if (!row.ok()) return row.error();
      if (*row) return (*row)->name;
      if (!index_complete_) {
        // A program that moved here keeps the shard of its lineage, which may not have been through.
        return make_error(Code::kUnavailable, "the store is still being looked through; try again");
      }
      return make_error(Code::kNotFound,
                        checkpoint.version.seq == 0
                            ? "no checkpoint of " + to_string(checkpoint.program) + " is stored"
                            : to_string(checkpoint) + " is not stored");
    }();
    outbox_.push([then = std::move(then), name](Instant, core::Effects&) { then(name); });
  });
}

// ---- removal

void IndexKeeper::remove(core::RemoveBlobs effect) {
  worker_.post([this, effect = std::move(effect)] {
    const Status removed = remove_now(effect.names);
    if (removed.ok()) return;
    outbox_.push([error = removed.error()](Instant, core::Effects& effects) {
      effects.push_back(
          core::LogEvent{core::LogEvent::Level::kWarning, "could not remove: " + error.message()});
    });
  });
}

void IndexKeeper::forget(BlobName name) {
  worker_.post([this, name = std::move(name)] { (void)index_.remove({name}); });  // Found again if it fails.
}

// The file first: a row without its file is found by reconciling, a file without a row as well, but
// only the former is never handed out.
Status IndexKeeper::remove_now(const std::vector<BlobName>& names) {
  for (const BlobName& name : names) {
    const Status removed = store_.remove(name);
    if (!removed.ok()) return removed;
  }
  CMS_CRASH_POINT("cmsd.after_remove");
  return index_.remove(names);
}

void IndexKeeper::withdraw(core::WithdrawProgram effect, std::function<void(const Result<Version>&)> then) {
  worker_.post([this, effect = std::move(effect), then = std::move(then)]() mutable {
    const auto up_to = withdraw_now(effect);
    outbox_.push([this, effect = std::move(effect), then = std::move(then), up_to](Instant now,
                                                                                   core::Effects& effects) {
      core_.on_withdrawn(now, effect, up_to, effects);
      if (then) then(up_to);
    });
  });
}

Result<Version> IndexKeeper::withdraw_now(const core::WithdrawProgram& effect) {
  const Status ensured = ensure_shard(effect.program);
  if (!ensured.ok()) return ensured.error();
  Version up_to = effect.up_to;
  Lineage lineage = effect.lineage;
  const auto newest = index_.newest(effect.program);
  if (!newest.ok()) return newest.error();
  if (*newest) {
    lineage = (*newest)->name.lineage;
    if (effect.newest_too) up_to = std::max(up_to, (*newest)->name.checkpoint.version);
  }
  if (up_to == Version{}) {
    return make_error(Code::kNotFound, "nothing is known of " + to_string(effect.program));
  }
  BlobName tombstone;
  tombstone.kind = EntryKind::kTombstone;
  tombstone.checkpoint = CheckpointId{effect.program, up_to};
  tombstone.lineage = lineage;
  tombstone.uid = random_u64();
  const Status put = store_.put_tombstone(tombstone);
  if (!put.ok()) return put.error();
  CMS_CRASH_POINT("cmsd.after_tombstone");
  const Status marked = mark_withdrawn(effect.program, up_to);
  if (!marked.ok()) return marked.error();
  return up_to;
}

// The tombstone is durable.
Status IndexKeeper::mark_withdrawn(const ProgramKey& program, const Version& up_to) {
  const Status marked = index_.put_withdrawn(program, up_to, wall_time_us());
  if (!marked.ok()) return marked;
  std::vector<BlobName> ended;
  std::vector<BlobName> pins;
  const Status scanned = index_.scan_program(program, [&](const IndexRow& row) {
    if (!(row.name.checkpoint.version <= up_to)) return true;
    ended.push_back(row.name);
    if (row.pinned) pins.push_back(storage::pin_name_of(row.name));
    return true;
  });
  if (!scanned.ok()) return scanned;
  for (const BlobName& pin : pins) {
    const Status removed = store_.remove(pin);
    if (!removed.ok()) return removed;
  }
  return remove_now(ended);
}

// ---- what peers say. What fails here is found again by reconciling, which is asked for.

void IndexKeeper::note_stored(core::IndexStored effect) {
  worker_.post([this, effect = std::move(effect)] {
    std::vector<BlobName> names;
    const auto taken = [&]() -> Status {
      const Status put = index_.put(effect.rows);
      if (!put.ok()) return put;
      CMS_CRASH_POINT("cmsd.after_peer_index");
      for (const IndexRow& row : effect.rows) {
        const Status settled = settle(store_, index_, row.name);
        if (settled.code() == Code::kWithdrawn) continue;
        if (!settled.ok()) return settled;
        names.push_back(row.name);
      }
      return ok_status();
    }();
    outbox_.push([this, names, taken](Instant now, core::Effects& effects) {
      core_.on_peer_indexed(now, names, effects);
      if (!taken.ok()) core_.on_peer_not_indexed(now, taken.error(), effects);
    });
  });
}

void IndexKeeper::note_withdrawn(core::NoteWithdrawn effect) {
  worker_.post([this, effect] {
    const auto known = index_.program(effect.program);
    if (known.ok() && *known && (*known)->withdrawn && effect.up_to <= *(*known)->withdrawn) return;
    const Status marked = mark_withdrawn(effect.program, effect.up_to);
    outbox_.push([this, effect, marked](Instant now, core::Effects& effects) {
      if (marked.ok()) {
        core_.on_peer_withdrawn(now, effect.program, effect.up_to, effects);
      } else {
        core_.on_peer_not_indexed(now, marked.error(), effects);
      }
    });
  });
}

void IndexKeeper::note_incarnations(core::NoteIncarnations effect) {
  worker_.post([this, effect = std::move(effect)] {
    for (const SessionId& session : effect.incarnations) {
      const auto known = index_.max_incarnation(session.ecu_mac);
      if (known.ok() && session.incarnation <= *known) continue;
      const Status put = index_.put_incarnation(session.ecu_mac, session.incarnation);
      if (put.ok()) continue;
      outbox_.push([this, error = put.error()](Instant now, core::Effects& effects) {
        core_.on_peer_not_indexed(now, error, effects);
      });
      return;
    }
  });
}

// ---- reconciling

void IndexKeeper::reconcile() {
  worker_.post([this] {
    work_ = Progress{};
    work_.running = true;
    ++round_;
    reconciled_.reset();
    seen_uids_.clear();
    const auto fleet_id = index_.fleet_id();
    if (!fleet_id.ok()) {
      work_.trouble = fleet_id.error().message();
    } else if (!fleet_id->empty() && *fleet_id != store_.fleet_id()) {
      work_.trouble = "foreign: the index mirrors the store of fleet " + *fleet_id +
                      ", this store is of fleet " + store_.fleet_id() +
                      "; name another --index, or remove that directory to have it rebuilt";
    } else {
      index_complete_ = !fleet_id->empty() && (!has_peers_ || index_complete_);
      report();
      reconcile_next(0, round_);
      return;
    }
    work_.running = false;
    report();
  });
}

// One shard, then it queues itself again, so that questions are answered in between.
void IndexKeeper::reconcile_next(std::uint32_t shard, std::uint64_t round) {
  for (; shard < storage::kShardCount && reconciled_.test(shard); ++shard) {
  }
  Status status = shard < storage::kShardCount ? reconcile_shard(shard) : finish_reconcile();
  if (!status.ok()) {
    // The store went away: it starts over when the store is back.
    work_.running = false;
    work_.trouble = status.error().message();
    report();
    return;
  }
  if (shard == storage::kShardCount) return;
  constexpr std::uint32_t kReportEvery = 64;
  if (work_.shards_done % kReportEvery == 0) report();
  worker_.post([this, shard, round] {
    if (work_.running && round == round_) reconcile_next(shard + 1, round);
  });
}

Status IndexKeeper::reconcile_shard(std::uint32_t shard) {
  std::vector<storage::StoredEntry> entries;
  std::map<ProgramKey, Version> ended;
  std::map<CheckpointId, BlobName> pins;
  std::uint64_t unknown = 0;
  const Status listed = store_.list(
      shard,
      [&](const storage::StoredEntry& entry) {
        const CheckpointId& checkpoint = entry.name.checkpoint;
        if (entry.name.kind == EntryKind::kTombstone) {
          Version& up_to = ended[checkpoint.program];
          up_to = std::max(up_to, checkpoint.version);
        } else if (entry.name.kind == EntryKind::kPin) {
          pins.emplace(checkpoint, entry.name);
        } else {
          entries.push_back(entry);
        }
      },
      &unknown);
  if (!listed.ok()) return listed;
  for (const auto& [program, up_to] : ended) {
    const auto known = index_.program(program);
    if (!known.ok()) return known.error();
    if (*known && (*known)->withdrawn && up_to <= *(*known)->withdrawn) continue;
    const Status put = index_.put_withdrawn(program, up_to, wall_time_us());
    if (!put.ok()) return put;
  }
  std::vector<IndexRow> missing;
  std::vector<BlobName> resurrected;
  for (const storage::StoredEntry& entry : entries) {
    const auto tombstone = ended.find(entry.name.checkpoint.program);
    if (tombstone != ended.end() && entry.name.checkpoint.version <= tombstone->second) {
      resurrected.push_back(entry.name);
      continue;
    }
    seen_uids_.push_back(entry.name.uid);
    const auto row = index_.find(entry.name.checkpoint);
    if (!row.ok()) return row.error();
    const bool pinned = pins.count(entry.name.checkpoint) != 0;
    if (*row && (*row)->pinned != pinned) {
      const Status set = index_.set_pinned(entry.name.checkpoint, pinned);
      if (!set.ok()) return set;
    }
    if (*row && (*row)->name == entry.name) continue;
    IndexRow added;
    added.name = entry.name;
    added.pinned = pinned;
    added.stored_bytes = entry.stored_bytes;
    missing.push_back(std::move(added));
  }
  if (!missing.empty()) {
    const Status put = index_.put(missing);
    if (!put.ok()) return put;
  }
  for (const auto& [checkpoint, pin] : pins) {
    const auto tombstone = ended.find(checkpoint.program);
    if (tombstone == ended.end() || tombstone->second < checkpoint.version) continue;
    const Status gone = store_.remove(pin);
    if (!gone.ok()) return gone;
  }
  const Status removed = remove_now(resurrected);
  if (!removed.ok()) return removed;
  reconciled_.set(shard);
  ++work_.shards_done;
  work_.rows_added += missing.size();
  work_.rows_removed += resurrected.size();
  work_.unknown_files += unknown;
  return ok_status();
}

Status IndexKeeper::ensure_shard(const ProgramKey& program) {
  const std::uint32_t shard = storage::shard_of(lineage_of(program));
  return reconciled_.test(shard) ? ok_status() : reconcile_shard(shard);
}

// Rows whose files have gone are looked for only when the counts say that there are some.
Status IndexKeeper::finish_reconcile() {
  const auto row_count = index_.row_count();
  if (!row_count.ok()) return row_count.error();
  if (*row_count > seen_uids_.size()) {
    // Rows without a file, or whose file came after its shard was listed: only these are looked at.
    std::sort(seen_uids_.begin(), seen_uids_.end());
    std::vector<BlobName> gone;
    Status trouble;
    const Status scanned = index_.scan(std::nullopt, std::nullopt, [&](const IndexRow& row) {
      if (std::binary_search(seen_uids_.begin(), seen_uids_.end(), row.name.uid)) return true;
      const auto opened = store_.open(row.name);
      if (opened.ok()) return true;
      if (opened.error().code == Code::kNotFound) {
        gone.push_back(row.name);
      } else if (opened.error().code == Code::kUnavailable) {
        trouble = opened.error();
        return false;
      }
      return true;
    });
    if (!scanned.ok()) return scanned;
    if (!trouble.ok()) return trouble;
    const Status removed = index_.remove(gone);
    if (!removed.ok()) return removed;
    work_.rows_removed += gone.size();
  }
  seen_uids_ = {};
  const Status marked = index_.put_fleet_id(store_.fleet_id());
  if (!marked.ok()) return marked;
  index_complete_ = true;
  work_.running = false;
  work_.done = true;
  report();
  std::vector<core::ReserveIncarnation> hellos;
  hellos.swap(waiting_hellos_);
  for (core::ReserveIncarnation& hello : hellos) {
    const auto incarnation = reserve_now(hello.hello);
    outbox_.push([this, hello = std::move(hello), incarnation](Instant now, core::Effects& effects) {
      core_.on_incarnation_reserved(now, hello, incarnation, effects);
    });
  }
  return ok_status();
}

}  // namespace cms::daemon
