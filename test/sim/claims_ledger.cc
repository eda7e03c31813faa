#include "test/sim/claims_ledger.h"

#include <algorithm>

#include "cms/core/restore.h"

namespace cms::sim {

using core::claim_blob_of;
using wire::ClaimKind;
using wire::ClaimRecord;

namespace {

// T_member by the fastest clock, less the length of a look: nobody may be taken for dead sooner.
constexpr Duration kDeadAfterMin = std::chrono::milliseconds(9500);
constexpr Duration kComesBackUnseen = std::chrono::seconds(4);  // Two looks, and what was decided by them.

constexpr Duration kStopTime = std::chrono::seconds(1);  // T_stop

// From then on an older checkpoint than the newest is restored on purpose.
bool takes_older(const ClaimRecord& record) { return record.attempts > core::kAttemptsBeforeOlder; }

std::string number(std::uint64_t value) { return std::to_string(value); }

}  // namespace

std::string describe(const ClaimRecord& record) {
  return std::string(to_string(record.kind)) + " in slot " + number(record.slot) + " by " + record.writer +
         "." + number(record.writer_incarnation) + ", owner " + to_string(record.owner.program) + " (epoch " +
         number(record.owner.owner_epoch) + "), attempts " + number(record.attempts);
}

std::string describe(const wire::EcuRecord& record) {
  return std::string(to_string(record.kind)) + " of " + to_string(record.ecu_mac) + " in slot " +
         number(record.slot) + " by " + record.writer + "." + number(record.writer_incarnation) +
         ", session " + number(record.incarnation);
}

// ---- ECUs

void ClaimsLedger::vouch(const SessionId& session) {
  Incarnation& up_to = vouched_[session.ecu_mac];
  up_to = std::max(up_to, session.incarnation);
}

bool ClaimsLedger::is_vouched(const SessionId& session) const {
  const auto found = vouched_.find(session.ecu_mac);
  return found != vouched_.end() && session.incarnation <= found->second;
}

const Copy* ClaimsLedger::running(const Lineage& lineage) const {
  for (const Copy& copy : copies_) {
    if (copy.executes() && copy.lineage == lineage && !is_vouched(copy.session)) return &copy;
  }
  return nullptr;
}

// Invariant: never two copies that run.
void ClaimsLedger::check_single(const Copy& fresh) const {
  if (is_vouched(fresh.session)) return;
  for (const Copy& copy : copies_) {
    if (&copy == &fresh || !copy.executes() || copy.lineage != fresh.lineage || is_vouched(copy.session))
      continue;
    violated("two copies: " + to_string(fresh.key()) + " (epoch " + number(fresh.owner_epoch) +
             ") starts while " + to_string(copy.key()) + " (epoch " + number(copy.owner_epoch) + ") runs");
  }
}

Copy& ClaimsLedger::start_first(const Lineage& lineage, const SessionId& session, ProgramId program_id) {
  Copy& copy = copies_.emplace_back();
  copy.lineage = lineage;
  copy.session = session;
  copy.program_id = program_id;
  check_single(copy);
  return copy;
}

void ClaimsLedger::thaw(Copy& copy) const {
  copy.frozen = false;
  check_goes_on(copy);
}

// Invariants: Go is obeyed only for an ACT that stands in the log and has not been given up; once for each.
void ClaimsLedger::on_go_obeyed(const SessionId& target, const wire::Go& go, const ClaimRecord* record,
                                const ClaimRecord* after) {
  if (record == nullptr || record->kind != ClaimKind::kAct || record->uid != go.act_uid ||
      record->claim_slot != go.claim.slot) {
    violated("Go is obeyed for slot " + number(go.act_slot) + ", which has " +
             (record == nullptr ? std::string("nothing") : describe(*record)));
  }
  if (!(record->target == target)) violated("Go is obeyed by another target than ACT names");
  if (after != nullptr && after->kind == ClaimKind::kAbort && !is_vouched(target)) {
    violated("Go is obeyed after ABORT in slot " + number(after->slot));
  }
  if (!obeyed_.insert(go.act_uid).second)
    violated("Go is obeyed twice for the ACT in slot " + number(go.act_slot));
}

// Invariant: what runs went on from the checkpoint that ACT names.
void ClaimsLedger::check_restored(const ClaimRecord& act, std::uint64_t state) const {
  if (state == state_of(*act.checkpoint)) return;
  violated("what runs went on from state " + number(state) + ", and ACT names " +
           number(state_of(*act.checkpoint)) + ": " + describe(act));
}

Copy& ClaimsLedger::start_restored(const SessionId& session, ProgramId program_id, const wire::Go& go,
                                   std::uint64_t state, bool held) {
  Copy& copy = copies_.emplace_back();
  copy.lineage = go.claim.lineage;
  copy.session = session;
  copy.program_id = program_id;
  copy.owner_epoch = go.act_slot + 1;
  copy.state = state;
  copy.held = held;
  started_[go.act_uid] = program_id;
  check_goes_on(copy);
  return copy;
}

// ---- guarded ECUs

// Invariant: a session whose loss was acted upon is granted nothing.
void ClaimsLedger::on_leased(const SessionId& session, Instant until) {
  if (was_loss_acted_upon(session))
    violated("a lease for " + to_string(session) + ", whose loss was acted upon");
  Instant& leased_until = leased_[session];
  leased_until = std::max(leased_until, until);
}

// Invariant: a loss is acted upon when the lease has ended, and all had the time to stop.
void ClaimsLedger::on_loss_acted_upon(const SessionId& session, Instant now) {
  lost_.insert(session);
  const auto leased = leased_.find(session);
  if (leased != leased_.end() && now < leased->second + kStopTime)
    violated("the loss of " + to_string(session) + " is acted upon while it may run");
}

// ---- the store

void ClaimsLedger::on_member_written(const std::string& node, std::uint64_t incarnation, Instant now) {
  const auto [known, fresh] = member_written_.try_emplace(std::pair(node, incarnation));
  Renewals& renewals = known->second;
  if (!fresh && now - renewals.last_at >= kDeadAfterMin) renewals.back_at = now;
  renewals.last_at = now;
}

std::uint64_t ClaimsLedger::state_of(const wire::ClaimBlob& blob) const {
  const auto found = blobs_.find(blob.uid);
  if (found == blobs_.end() || !(claim_blob_of(found->second.name) == blob)) {
    violated("a record names " + to_string(blob.checkpoint) + ", which is not what was stored");
  }
  return found->second.state();
}

// What the owner was told STORED; before that, what it was restored from.
std::optional<std::uint64_t> ClaimsLedger::floor(const ClaimRecord& head) const {
  if (const auto lineage = stored_.find(head.lineage); lineage != stored_.end()) {
    const auto own = lineage->second.find(head.owner.owner_epoch);
    if (own != lineage->second.end()) return own->second;
  }
  if (head.base) return state_of(*head.base);
  return std::nullopt;
}

// Invariant: a claim is taken over only from the dead, as the records of members have it. One that has come back just
// now may have been seen so yet.
void ClaimsLedger::check_take_over(Instant now, const ClaimRecord* head, const ClaimRecord& next) const {
  if (next.kind != ClaimKind::kClaim || head == nullptr || head->kind != ClaimKind::kClaim) return;
  if (head->slot + 1 != next.slot) return;
  const auto known = member_written_.find(std::pair(head->writer, head->writer_incarnation));
  if (known == member_written_.end()) return;
  const Renewals& renewals = known->second;
  const bool back = renewals.back_at && now - *renewals.back_at < kComesBackUnseen;
  if (now - renewals.last_at >= kDeadAfterMin || back) return;
  violated("the claim of a living CMS is taken over: " + describe(next) + " over " + describe(*head));
}

// Invariant: while its owner lives, a program goes on only from the state in which that stands still. (A former owner may
// not have heard yet that it is one; if it is frozen it stays so. So does what a lost session owned.)
void ClaimsLedger::check_move(const ClaimRecord& act) const {
  const std::uint64_t state = state_of(*act.checkpoint);
  const SessionId owner{act.owner.program.ecu_mac, act.owner.incarnation};
  for (const Copy& copy : copies_) {
    if (copy.lineage != act.lineage || copy.owner_epoch != act.owner.owner_epoch) continue;
    if (!copy.running || copy.stopped || copy.held || copy.suspended || is_vouched(copy.session)) continue;
    if (copy.frozen && (copy.state == state || was_lost_since(owner))) continue;
    violated("it goes on from state " + number(state) + ", but its source " + to_string(copy.key()) +
             (copy.frozen ? " is frozen in state " : " runs, in state ") + number(copy.state) + ": " +
             describe(act));
  }
}

bool ClaimsLedger::was_lost_since(const SessionId& session) const {
  const auto lost = lost_.lower_bound(session);
  return lost != lost_.end() && lost->ecu_mac == session.ecu_mac;
}

// Invariants: a record follows its head by the rules; what ACT names is never older than what was called STORED; DONE
// comes after the target runs it.
void ClaimsLedger::on_appended(const ClaimRecord* head, const ClaimRecord& next) {
  const Status good = core::check_successor(head, next);
  if (!good.ok()) violated("a record that may not follow: " + good.error().message());
  if (next.kind == ClaimKind::kAct) {
    check_move(next);
    const std::uint64_t state = state_of(*next.checkpoint);
    const std::optional<std::uint64_t> least = floor(*head);
    if (least && state < *least && !takes_older(*head)) {
      violated("ACT names state " + number(state) + ", but " + number(*least) +
               " was STORED: " + describe(next));
    }
  }
  if (next.kind == ClaimKind::kDone) {
    const auto started = started_.find(head->uid);
    if (started == started_.end() || started->second != next.owner.program.program_id) {
      violated("DONE for what its target has not started: " + describe(next));
    }
  }
}

void ClaimsLedger::on_blob(const StoredBlob& blob) { blobs_[blob.name.uid] = blob; }

bool ClaimsLedger::has_stored(const ClaimRecord& head) const {
  const auto lineage = stored_.find(head.lineage);
  return lineage != stored_.end() && lineage->second.count(head.owner.owner_epoch) != 0;
}

bool ClaimsLedger::was_ever_stored(const Lineage& lineage) const { return stored_.count(lineage) != 0; }

// Invariant: STORED is said of nothing that the lineage has passed by.
void ClaimsLedger::on_stored(const storage::BlobName& name, const ClaimRecord* head) {
  const std::uint64_t state = blobs_.at(name.uid).state();
  if (head == nullptr) violated("STORED is said of a lineage that has no log");
  if (name.owner_epoch > head->owner.owner_epoch)
    violated("STORED is said of an owner that the log does not know");
  const bool moved = name.owner_epoch < head->owner.owner_epoch;
  const std::optional<wire::ClaimBlob>& taken = moved ? head->base : head->checkpoint;
  const bool passed_by = taken && taken->owner_epoch == name.owner_epoch && state_of(*taken) < state;
  if (passed_by && !takes_older(*head)) {
    violated("STORED is said of state " + number(state) + ", but the program goes on from " +
             number(state_of(*taken)) + ": " + describe(*head));
  }
  std::uint64_t& stored = stored_[name.lineage][name.owner_epoch];
  stored = std::max(stored, state);
}

// Invariant: there always is something to go on from, and it is not older than what was called STORED.
void ClaimsLedger::check_kept(const Lineage& lineage, const ClaimRecord* head,
                              const std::vector<storage::BlobName>& durable) const {
  if (!was_ever_stored(lineage)) return;
  if (head == nullptr) violated("the log of a lineage is gone");
  const std::optional<std::uint64_t> least = floor(*head);
  if (!least) return;
  const std::vector<storage::BlobName> best = core::restorable(*head, durable);
  if (best.empty() || state_of(claim_blob_of(best.front())) < *least) {
    violated("state " + number(*least) + " was STORED and is gone: " + describe(*head));
  }
  if (head->kind != ClaimKind::kAct) return;
  if (std::none_of(durable.begin(), durable.end(),
                   [&](const storage::BlobName& name) { return claim_blob_of(name) == *head->checkpoint; })) {
    violated("the checkpoint that ACT names is gone: " + describe(*head));
  }
}

}  // namespace cms::sim
