// The index of one cmsd and what keeps it true to the store. As in cmsd, questions of a program wait
// until what the store has of it was looked at since the last reconciling began.
#include <utility>

#include "test/sim/store_workers.h"

namespace cms::sim {

using core::CmsCore;
using core::Effects;
using storage::BlobName;

namespace {

constexpr Duration kReconcileRetry = std::chrono::seconds(5);

}  // namespace

void StoreWorkers::ask_index(std::function<void()> what) {
  index_free_at_ = std::max(index_free_at_, queue_.now() + delay());
  later(index_free_at_ - queue_.now(), std::move(what));
}

std::optional<Error> StoreWorkers::index_fault() {
  if (faults_.fail_per_10k == 0 || !prng_.chance(faults_.fail_per_10k, 10000)) return std::nullopt;
  return make_error(Code::kIo, "the virtual index fails once");
}

IndexPlants StoreWorkers::index_plants() const {
  IndexPlants plants;
  plants.ignore_withdrawn = plant_ == Plant::kWithdrawnResurrected;
  plants.keep_oldest = plant_ == Plant::kRemoveNewest;
  plants.remove_peers_copy = plant_ == Plant::kBothDuplicatesRemoved;
  return plants;
}

// ---- reconciling

void StoreWorkers::run(const core::ReconcileStore&) {
  if (plant_ != Plant::kMissedEventNotReconciled) reconcile();
}

void StoreWorkers::reconcile() {
  ask_index([this] {
    const std::uint64_t round = ++reconcile_round_;
    reconciled_all_ = false;
    reconciled_.clear();
    later(delay() * 4, [this, round] {
      if (round != reconcile_round_) return;
      if (fault()) {
        later(kReconcileRetry, [this, round] {
          if (round == reconcile_round_) reconcile();
        });
        return;
      }
      index_.reconcile_all();
      reconciled_all_ = true;
      for (const core::ReserveIncarnation& asked : std::exchange(waiting_hellos_, {})) reserve(asked);
    });
  });
}

Status StoreWorkers::ensure_reconciled(const ProgramKey& program) {
  if (reconciled_all_ || reconciled_.count(program) != 0) return ok_status();
  if (const std::optional<Error> failed = fault()) return *failed;
  index_.reconcile(program);
  reconciled_.insert(program);
  return ok_status();
}

// ---- questions of the core

void StoreWorkers::run(const core::LookUpProgram& effect) {
  if (!store_looked_at_) {
    held_look_ups_.push_back(effect.program);
    return;
  }
  ask_index([this, program = effect.program] { look_up(program); });
}

void StoreWorkers::look_up(const ProgramKey& program) {
  Result<CmsCore::ProgramFacts> facts = CmsCore::ProgramFacts{};
  const Status ensured = ensure_reconciled(program);
  if (!ensured.ok()) {
    facts = ensured.error();
  } else if (const std::optional<Error> failed = index_fault()) {
    facts = *failed;
  } else {
    facts = CmsCore::ProgramFacts{.newest = index_.newest_version(program),
                                  .withdrawn = index_.withdrawn(program),
                                  .fence = std::nullopt};
  }
  answer([program, facts](CmsCore& core, Instant now, Effects& effects) {
    core.on_program_looked_up(now, program, facts, effects);
  });
}

void StoreWorkers::run(const core::ReserveIncarnation& effect) {
  ask_index([this, asked = effect] {
    if (asked.hello.incarnation == 0 && !index_.complete()) {
      waiting_hellos_.push_back(asked);
    } else {
      reserve(asked);
    }
  });
}

void StoreWorkers::reserve(const core::ReserveIncarnation& asked) {
  Result<Incarnation> given = asked.hello.incarnation;
  if (const std::optional<Error> failed = index_fault()) {
    given = *failed;
  } else {
    if (asked.hello.incarnation == 0) {
      given = next_incarnation(index_.max_incarnation(asked.hello.ecu_mac), asked.hello.nonce);
    }
    if (plant_ != Plant::kIncarnationReused) index_.put_incarnation(asked.hello.ecu_mac, *given);
  }
  answer([asked, given](CmsCore& core, Instant now, Effects& effects) {
    core.on_incarnation_reserved(now, asked, given, effects);
  });
}

// ---- removal

void StoreWorkers::run(const core::WithdrawProgram& effect) {
  ask_index([this, asked = effect] { withdraw(asked); });
}

void StoreWorkers::withdraw(const core::WithdrawProgram& asked) {
  Result<Version> up_to = asked.up_to;
  const Status ensured = ensure_reconciled(asked.program);
  if (asked.newest_too)
    up_to = std::max(asked.up_to, index_.newest_version(asked.program).value_or(Version{}));
  if (!ensured.ok()) {
    up_to = ensured.error();
  } else if (*up_to == Version{}) {
    up_to = make_error(Code::kNotFound, "nothing is known of " + cms::to_string(asked.program));
  } else if (const std::optional<Error> failed = fault()) {
    up_to = *failed;
  } else {
    if (plant_ == Plant::kWithdrawNotDurable) {
      later(std::chrono::seconds(1),
            [this, asked, version = *up_to] { store_.put_tombstone(asked.program, version); });
    } else {
      store_.put_tombstone(asked.program, *up_to);
    }
    index_.mark_withdrawn(asked.program, *up_to);
    for (const BlobName& name : index_.rows_up_to(asked.program, *up_to)) {
      index_.remove(name);
      if (plant_ != Plant::kWithdrawNotDurable) store_.remove(name);
    }
    if (const std::optional<Error> unknown = fault()) up_to = *unknown;  // Done, but nobody knows.
  }
  answer([asked, up_to](CmsCore& core, Instant now, Effects& effects) {
    core.on_withdrawn(now, asked, up_to, effects);
  });
}

void StoreWorkers::run(const core::RemoveBlobs& effect) {
  ask_index([this, names = effect.names] { (void)remove(names); });
}

// What could not be removed is found again by reconciling; a row may outlive its blob until then.
bool StoreWorkers::remove(const std::vector<BlobName>& names) {
  for (const BlobName& name : names) {
    if (fault()) return false;
    store_.remove(name);
    if (index_fault()) return false;
    index_.remove(name);
  }
  return true;
}

// As cmsd does: the newest that stays must be in the store, and what is pinned there stays.
void StoreWorkers::run(const core::ApplyRetention& effect) {
  for (const ProgramKey& program : effect.programs) {
    ask_index([this, program] { apply_retention(program); });
  }
}

void StoreWorkers::run(const core::FreeSpace&) {
  for (const ProgramKey& program : index_.programs()) {
    ask_index([this, program] { apply_retention(program); });
  }
}

void StoreWorkers::apply_retention(const ProgramKey& program) {
  if (fault()) return;
  std::vector<BlobName> beyond = index_.beyond_keep(program, index_plants());
  for (auto newest = index_.newest(program); !beyond.empty() && newest && !store_.has(*newest);
       newest = index_.newest(program)) {
    if (index_plants().keep_oldest) break;
    index_.remove(*newest);
    beyond = index_.beyond_keep(program, index_plants());
  }
  std::vector<storage::IndexRow> removed;
  for (const BlobName& name : beyond) {
    const auto newer = index_.newest(program);
    const bool second = newer && newer->checkpoint == name.checkpoint;
    if (!second && plant_ != Plant::kPinsIgnored && store_.is_pinned(name.checkpoint)) continue;
    if (!remove({name})) break;
    removed.emplace_back();
    removed.back().name = name;
  }
  if (removed.empty()) return;
  answer([removed](CmsCore& core, Instant, Effects& effects) { core.on_removed(removed, effects); });
}

// ---- what peers say

void StoreWorkers::run(const core::NoteRemoved& effect) {
  ask_index([this, blobs = effect.blobs] {
    if (const std::optional<Error> failed = index_fault()) {
      say_not_indexed(*failed);
      return;
    }
    bool missed = false;
    for (const wire::RemovedBlob& blob : blobs) {
      BlobName name;
      name.checkpoint = blob.checkpoint;
      name.owner_epoch = blob.owner_epoch;
      name.uid = blob.uid;
      const auto newest = index_.newest(blob.checkpoint.program);
      const bool is_newest = newest && newest->uid == blob.uid;
      if (!is_newest) index_.remove(name);
      missed = missed || is_newest;
    }
    answer([missed](CmsCore& core, Instant, Effects&) { core.on_peer_removed(0, missed); });
  });
}

void StoreWorkers::say_not_indexed(const Error& error) {
  answer([error](CmsCore& core, Instant now, Effects& effects) {
    core.on_peer_not_indexed(now, error, effects);
  });
}

void StoreWorkers::run(const core::IndexStored& effect) {
  ask_index([this, rows = effect.rows] {
    std::vector<BlobName> taken;
    const Status status = note_stored(rows, taken);
    answer(
        [taken](CmsCore& core, Instant now, Effects& effects) { core.on_peer_indexed(now, taken, effects); });
    if (!status.ok()) say_not_indexed(status.error());
  });
}

Status StoreWorkers::note_stored(const std::vector<storage::IndexRow>& rows, std::vector<BlobName>& taken) {
  if (const std::optional<Error> failed = index_fault()) return *failed;
  Status status;
  for (const storage::IndexRow& row : rows) {
    const bool kept = index_.put(row.name, false, index_plants());
    if (const std::optional<Error> failed = index_fault()) {
      status = *failed;
      break;
    }
    if (!kept) continue;
    taken.push_back(row.name);
    if (plant_ == Plant::kBothDuplicatesRemoved) apply_retention(row.name.checkpoint.program);
  }
  return status;
}

void StoreWorkers::run(const core::NoteWithdrawn& effect) {
  if (plant_ == Plant::kPeerWithdrawalIgnored) return;
  ask_index([this, effect] {
    const std::optional<Version> known = index_.withdrawn(effect.program);
    if (known && effect.up_to <= *known) return;
    const Status status = note_withdrawn(effect);
    if (!status.ok()) {
      say_not_indexed(status.error());
      return;
    }
    answer([effect](CmsCore& core, Instant now, Effects& effects) {
      core.on_peer_withdrawn(now, effect.program, effect.up_to, effects);
    });
  });
}

Status StoreWorkers::note_withdrawn(const core::NoteWithdrawn& effect) {
  if (const std::optional<Error> failed = index_fault()) return *failed;
  index_.mark_withdrawn(effect.program, effect.up_to);
  if (remove(index_.rows_up_to(effect.program, effect.up_to))) return ok_status();
  return make_error(Code::kIo, "what was withdrawn could not be removed");
}

void StoreWorkers::run(const core::NoteIncarnations& effect) {
  ask_index([this, incarnations = effect.incarnations] {
    for (const SessionId& session : incarnations) {
      if (const std::optional<Error> failed = index_fault()) {
        say_not_indexed(*failed);
        return;
      }
      index_.put_incarnation(session.ecu_mac, session.incarnation);
    }
  });
}

}  // namespace cms::sim
