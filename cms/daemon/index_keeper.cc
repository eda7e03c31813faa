#include "cms/daemon/index_keeper.h"

#include <algorithm>
#include <utility>

#include "base/crash_point.h"
#include "base/digest.h"
#include "base/prng.h"
#include "cms/daemon/store_workers.h"

namespace cms::daemon {

using storage::BlobName;
using storage::EntryKind;
using storage::IndexRow;

IndexKeeper::IndexKeeper(core::CmsCore& core, storage::BlobStore& store, ReplaceableIndex& index,
                         LineageGate& gate, Outbox& outbox, bool has_peers)
    : core_(core),
      store_(store),
      index_(index),
      gate_(gate),
      outbox_(outbox),
      has_peers_(has_peers),
      lister_(store, [this] { worker_.post([this] { take_listings(); }); }),
      worker_("index") {
  // Marked once all shards have been through: then it knows every incarnation that was ever given, and
  // sessions can be opened while the store is still away. Not with peers: while this cmsd was down they
  // gave others, whose checkpoints are in the store.
  const auto fleet_id = index_.fleet_id();
  rows_complete_ = !has_peers_ && fleet_id.ok() && !fleet_id->empty();
  incarnations_complete_ = rows_complete_;
}

void IndexKeeper::stop() {
  lister_.stop();
  worker_.stop();
}

IndexFacts IndexKeeper::facts(Instant now) const {
  IndexFacts facts;
  facts.rebuilding = progress_.rebuilding;
  facts.reason = progress_.reason;
  facts.old_index = progress_.old_index;
  facts.rows_added = progress_.rows_added;
  facts.rows_removed = progress_.rows_removed;
  facts.took = progress_.running ? now - progress_.started_at : progress_.took;
  facts.completing = progress_.completing;
  facts.rows_completed = progress_.rows_completed;
  facts.damage = index_.damage().value_or("");
  return facts;
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
    const Status ensured = ensure_shard(effect.program);
    const auto facts =
        ensured.ok() ? judged_facts_of(effect.program) : Result<core::CmsCore::ProgramFacts>(ensured.error());
    outbox_.push([this, program = effect.program, facts](Instant now, core::Effects& effects) {
      core_.on_program_looked_up(now, program, facts, effects);
    });
  });
}

Result<core::CmsCore::ProgramFacts> IndexKeeper::facts_of(const ProgramKey& program) {
  core::CmsCore::ProgramFacts found;
  const auto newest = lasting_newest(program);
  if (!newest.ok()) return newest.error();
  if (*newest) found.newest = (*newest)->name.checkpoint.version;
  const auto row = index_.program(program);
  if (!row.ok()) return row.error();
  if (*row) found.withdrawn = (*row)->withdrawn;
  return found;
}

// The same, of which the publisher may be told: what was stored before a claim that overlooked it is not.
Result<core::CmsCore::ProgramFacts> IndexKeeper::judged_facts_of(const ProgramKey& program) {
  auto found = facts_of(program);
  if (!found.ok() || !found->newest) return found;
  const auto newest = index_.newest(program);
  if (!newest.ok()) return newest.error();
  if (!*newest) return found;
  const storage::BlobName& name = (*newest)->name;
  const auto word = gate_.word(store_, name);
  if (!word.ok()) {
    // Its file cannot be used, or has gone: it counts for nothing, and comes again from its publisher.
    if (word.error().code != Code::kNotFound && word.error().code != Code::kCorrupt) return word.error();
    found->newest.reset();
    return found;
  }
  switch (*word) {
    case core::StoredWord::kSay: break;
    case core::StoredWord::kWait: found->newest_waits = true; break;
    case core::StoredWord::kFenced: found->newest.reset(); break;
  }
  // Also of what its lineage's new owner was restored from.
  const auto head = gate_.known_head(name.lineage);
  if (head && head->owner.program != program) found->fence = core::Fence{name.lineage, head->owner};
  return found;
}

// The newest, which no crash of the store's host takes away: publishers are told that it is STORED.
Result<std::optional<IndexRow>> IndexKeeper::lasting_newest(const ProgramKey& program) {
  while (true) {
    auto newest = index_.newest(program);
    if (!newest.ok() || !*newest || (*newest)->stored_at_us != 0) return newest;
    const Status lasts = store_.make_durable({(*newest)->name})[0];
    if (lasts.ok()) return newest;
    if (lasts.code() != Code::kNotFound) return lasts.error();
    const Status forgotten = forget_now({(*newest)->name});  // It has gone since it was listed.
    if (!forgotten.ok()) return forgotten.error();
  }
}

void IndexKeeper::reserve_incarnation(core::ReserveIncarnation effect) {
  worker_.post([this, effect = std::move(effect)]() mutable {
    if (effect.hello.incarnation == 0 && !incarnations_complete_) {
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
    incarnation = next_incarnation(*max_known, hello.nonce);
  }
  const Status put = index_.put_incarnation(hello.ecu_mac, incarnation);
  if (!put.ok()) return put.error();
  return incarnation;
}

void IndexKeeper::resolve(CheckpointId checkpoint, Purpose purpose,
                          std::function<void(Result<BlobName>)> then) {
  ask([this, checkpoint, purpose, then = std::move(then)]() mutable {
    const auto name = [&]() -> Result<BlobName> {
      const Status ensured = ensure_shard(checkpoint.program);
      if (!ensured.ok()) return ensured.error();
      const auto row =
          checkpoint.version.seq == 0 ? index_.newest(checkpoint.program) : index_.find(checkpoint);
      if (!row.ok()) return row.error();
      if (checkpoint.version.seq == 0 && purpose == Purpose::kGoOn) {
        const Lineage lineage = *row ? (*row)->name.lineage : lineage_of(checkpoint.program);
        if (Status own = gate_.check_owner(checkpoint.program, lineage); !own.ok()) return own.error();
      }
      if (*row) return (*row)->name;
      if (!rows_complete_) {
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
  worker_.post([this, name = std::move(name)] { (void)forget_now({name}); });  // Found again if it fails.
}

Status IndexKeeper::forget_now(const std::vector<BlobName>& names) {
  for (const BlobName& name : names) {
    if (work_.running) removed_uids_.insert(name.uid);
  }
  return index_.remove(names);
}

// The file first: a row without its file is found by reconciling, a file without a row as well, but
// only the former is never handed out.
std::vector<Status> IndexKeeper::remove_each_now(const std::vector<BlobName>& names) {
  std::vector<Status> removed = store_.remove_many(names);
  std::vector<BlobName> gone;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (!removed[i].ok()) continue;
    gone.push_back(names[i]);
    if (work_.running) removed_uids_.insert(names[i].uid);
  }
  CMS_CRASH_POINT("cmsd.after_remove");
  const Status forgotten = index_.remove(gone);
  for (Status& one : removed) {
    if (one.ok()) one = forgotten;
  }
  return removed;
}

Status IndexKeeper::remove_now(const std::vector<BlobName>& names) {
  for (Status& removed : remove_each_now(names)) {
    if (!removed.ok()) return std::move(removed);
  }
  return ok_status();
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
  if (Status ended = gate_.end_lives(effect.program); !ended.ok()) return ended.error();
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
  for (const Status& removed : store_.remove_many(pins)) {
    if (!removed.ok()) return removed;
  }
  const auto may_go = gate_.ended_may_go(ended);
  return may_go.ok() ? remove_now(*may_go) : may_go.error();
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

// ---- what is damaged

// The file first: a row without its file is found by reconciling, and never handed out.
void IndexKeeper::quarantine(BlobName name, std::string why, std::function<void(const Result<bool>&)> then) {
  worker_.post([this, name = std::move(name), why = std::move(why), then = std::move(then)]() mutable {
    core::CmsCore::ProgramFacts facts;
    const auto moved = [&]() -> Result<bool> {
      const auto there = store_.contains(name);
      if (!there.ok()) return there.error();
      if (*there) {
        const Status quarantined = store_.quarantine(name, why);
        if (!quarantined.ok()) return quarantined.error();
        CMS_CRASH_POINT("cmsd.after_quarantine");
      }
      if (work_.running) removed_uids_.insert(name.uid);
      const Status removed = index_.remove({name});
      if (!removed.ok()) return removed.error();
      const auto found = facts_of(name.checkpoint.program);
      if (!found.ok()) return found.error();
      facts = *found;
      return *there;
    }();
    outbox_.push([this, name = std::move(name), why = std::move(why), facts, moved, then = std::move(then)](
                     Instant now, core::Effects& effects) {
      if (moved.ok()) core_.on_quarantined(now, name, why, facts, *moved, effects);
      then(moved);
    });
  });
}

void IndexKeeper::note_quarantined(core::NoteQuarantined effect) {
  worker_.post([this, effect = std::move(effect)] {
    for (const BlobName& name : effect.names) {
      core::CmsCore::ProgramFacts facts;
      const auto noted = [&]() -> Result<bool> {
        const auto there = store_.contains(name);
        if (!there.ok()) return there.error();
        if (*there) return false;  // The store is the record, not what a peer says.
        if (work_.running) removed_uids_.insert(name.uid);
        const Status removed = index_.remove({name});
        if (!removed.ok()) return removed.error();
        const auto found = facts_of(name.checkpoint.program);
        if (!found.ok()) return found.error();
        facts = *found;
        return true;
      }();
      outbox_.push([this, name, facts, noted](Instant now, core::Effects& effects) {
        if (!noted.ok()) {
          core_.on_peer_not_indexed(now, noted.error(), effects);
        } else if (*noted) {
          core_.on_quarantined(now, name, "a peer found it damaged", facts, false, effects);
        }
      });
    }
  });
}

}  // namespace cms::daemon
