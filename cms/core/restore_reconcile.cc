// A guarded session that has begun is reconciled with the claim logs: what its ECU owns and runs goes on, what it owns and
// does not run has died, what it runs and does not own is fenced (docs/adr/0015-run-leases.md).
#include <algorithm>
#include <string>
#include <utility>

#include "cms/core/restore.h"

namespace cms::core {

using wire::ClaimKind;
using wire::ClaimReason;
using wire::ClaimRecord;
using Stage = RestoreCore::Stage;
using Step = RestoreCore::Reconciling::Step;

namespace {

// What is left of a program that has moved away and come back, as another: that it is there says nothing of that one.
bool is_former_copy(EcuMac ecu_mac, const wire::OwnedProgram& program,
                    const std::optional<ClaimRecord>& head) {
  return head && head->kind != ClaimKind::kRetire && head->owner.program.ecu_mac == ecu_mac &&
         judge_epoch(&*head, ProgramKey{ecu_mac, program.program_id}, program.owner_epoch) == Epoch::kFenced;
}

}  // namespace

void RestoreCore::reconcile(Instant now, const SessionId& session, const wire::EcuRecord& head,
                            RestoreEffects& effects) {
  const EcuMac ecu_mac = session.ecu_mac;
  note_lost(ecu_mac, head.lost_incarnation);
  if (reconcilings_.size() >= kReconcilingCountMax && reconcilings_.count(ecu_mac) == 0) {
    const auto settled = std::find_if(reconcilings_.begin(), reconcilings_.end(),
                                      [](const auto& one) { return one.second.is_settled(); });
    if (settled != reconcilings_.end()) reconcilings_.erase(settled);
  }
  Reconciling& reconciling = reconcilings_[ecu_mac];
  reconciling = Reconciling{};
  reconciling.session = session;
  reconciling.there_at = now;
  reconciling.enforced = head.enforcer != wire::Enforcer::kNone;
  reconciling.maintenance = head.maintenance;
  begin_reconciling(now, reconciling, effects);
}

void RestoreCore::begin_reconciling(Instant now, Reconciling& reconciling, RestoreEffects& effects) {
  reconciling.step = Step::kScanning;
  reconciling.begun_at = now;
  reconciling.next_at = now + kRestoreRetry;
  ask_scan(now, reconciling.session.ecu_mac, effects);
}

void RestoreCore::reconciling_scanned(Instant now, EcuMac ecu_mac, Instant asked_at,
                                      const Result<std::vector<ClaimRecord>>& heads,
                                      RestoreEffects& effects) {
  const auto found = reconcilings_.find(ecu_mac);
  if (found == reconcilings_.end() || found->second.step != Step::kScanning) return;
  Reconciling& reconciling = found->second;
  // Of before the session began, or the scan failed: on_time asks for another one.
  if (!heads.ok() || asked_at < reconciling.begun_at) return;
  reconciling.owned.clear();
  for (const ClaimRecord& head : *heads) {
    const bool owned = head.owner.program.ecu_mac == ecu_mac && head.kind != ClaimKind::kRetire;
    const bool starting = head.kind == ClaimKind::kAct && head.target.ecu_mac == ecu_mac;
    if (owned || starting) reconciling.owned.push_back(head);
  }
  // Asked after the heads were read: what is not there now has died under the owner that they name.
  reconciling.step = Step::kAsking;
  reconciling.number = ++last_question_;
  reconciling.programs.clear();
  ask_programs(now, reconciling, effects);
}

void RestoreCore::ask_programs(Instant now, Reconciling& reconciling, RestoreEffects& effects) {
  reconciling.next_at = now + kProgramsAskedEvery;
  const ProgramId from = reconciling.programs.empty() ? 0 : reconciling.programs.back().program_id + 1;
  effects.push_back(SendToTarget{reconciling.session, wire::AskPrograms{reconciling.number, from}});
}

void RestoreCore::on_programs(Instant now, const SessionId& from, const wire::Programs& page,
                              RestoreEffects& effects) {
  const auto found = reconcilings_.find(from.ecu_mac);
  if (found == reconcilings_.end()) return;
  Reconciling& reconciling = found->second;
  if (reconciling.step != Step::kAsking || reconciling.session != from || page.number != reconciling.number)
    return;
  std::vector<wire::OwnedProgram>& programs = reconciling.programs;
  for (const wire::OwnedProgram& program : page.programs) {
    const auto place = std::lower_bound(
        programs.begin(), programs.end(), program.program_id,
        [](const wire::OwnedProgram& one, ProgramId program_id) { return one.program_id < program_id; });
    // Else a second answer to a question that was repeated.
    if (place == programs.end() || place->program_id != program.program_id) programs.insert(place, program);
  }
  if (!page.end && programs.size() < kProgramsPerEcuMax) return ask_programs(now, reconciling, effects);
  if (!page.end) {  // What it has not told of yet is not dead.
    programs.clear();
    reconciling.owned.clear();
    reconciling.step = Step::kPausing;
    reconciling.next_at = now + kLogScanInterval;
    effects.push_back(RestoreEvent{true, "ECU " + to_string(from.ecu_mac) + " says that it runs more than " +
                                             std::to_string(kProgramsPerEcuMax) +
                                             " programs and is not reconciled"});
    return;
  }
  reconciling.step = Step::kReading;
  read_programs(reconciling, effects);
}

void RestoreCore::read_programs(Reconciling& reconciling, RestoreEffects& effects) {
  ReadHeads read{reconciling.session.ecu_mac, reconciling.number, {}};
  for (const wire::OwnedProgram& program : reconciling.programs) read.lineages.push_back(program.lineage);
  reconciling.next_at = kNever;
  effects.push_back(std::move(read));
}

void RestoreCore::on_heads(Instant now, const ReadHeads& asked,
                           const Result<std::vector<std::optional<ClaimRecord>>>& heads,
                           RestoreEffects& effects) {
  const auto found = reconcilings_.find(asked.ecu_mac);
  if (found == reconcilings_.end()) return;
  Reconciling& reconciling = found->second;
  if (reconciling.step != Step::kReading || reconciling.number != asked.number) return;
  if (!heads.ok()) {
    reconciling.next_at = now + kRestoreRetry;
    return;
  }
  CMS_ASSERT(heads->size() == reconciling.programs.size());
  reconciling.running = reconciling.restored = 0;
  reconciling.waiting.clear();
  bool settled = true;
  std::set<Lineage> there;
  for (std::size_t i = 0; i < heads->size(); ++i) {
    const wire::OwnedProgram& program = reconciling.programs[i];
    if (!is_former_copy(reconciling.session.ecu_mac, program, (*heads)[i])) there.insert(program.lineage);
    if (!settle_program(now, reconciling, program, (*heads)[i], effects)) settled = false;
  }
  for (const ClaimRecord& head : reconciling.owned) {
    if (!settle_owned(now, reconciling, head, there, effects)) settled = false;
  }
  reconciling.owned.clear();
  reconciling.programs.clear();
  if (settled) {
    reconciling.step = Step::kSettled;
    reconciling.next_at = kNever;
    std::string text = "ECU " + to_string(asked.ecu_mac) +
                       " is reconciled: " + std::to_string(reconciling.running) + " programs run";
    if (reconciling.restored > 0) text += ", " + std::to_string(reconciling.restored) + " are to be restored";
    if (!reconciling.waiting.empty())
      text += ", " + std::to_string(reconciling.waiting.size()) + " have died and wait for an operator";
    effects.push_back(RestoreEvent{!reconciling.waiting.empty(), std::move(text)});
    return;
  }
  reconciling.step = Step::kPausing;
  reconciling.next_at = now + std::min<Duration>(kFrozenSettledAfter * (1 << std::min(reconciling.rounds, 4)),
                                                 kLogScanInterval);
  ++reconciling.rounds;
}

// One that the ECU says it has. False: it is to be looked at again.
bool RestoreCore::settle_program(Instant now, Reconciling& reconciling, const wire::OwnedProgram& program,
                                 const std::optional<ClaimRecord>& head, RestoreEffects& effects) {
  const ProgramKey key{reconciling.session.ecu_mac, program.program_id};
  if (!head) {  // Nothing of it was ever STORED: nobody can have restored it.
    thaw_program(reconciling, program, wire::ClaimRef{program.lineage, 1, 1}, wire::OnIsolation::kKeep,
                 effects);
    return program.state != wire::ProgramState::kStopped;
  }
  switch (judge_epoch(&*head, key, program.owner_epoch)) {
    case Epoch::kReadLog:
      if (head->slot < program.owner_epoch) return false;  // It is being started there.
      [[fallthrough]];  // Its ACT ended with ABORT: else DONE would stand in the slot that is its epoch.
    case Epoch::kFenced:
      if (head->kind != ClaimKind::kRetire) fence_program(reconciling, program, *head, effects);
      return true;
    case Epoch::kCurrent: break;
  }
  // Somebody may be restoring it by the word of the log.
  if (was_lost(*head)) {
    // What has not stopped yet is not to run elsewhere.
    if (program.state != wire::ProgramState::kRunning)
      (void)restore_there(now, reconciling, *head, ClaimReason::kLost, effects);
    return reconciling.maintenance;  // Else until it is fenced here.
  }
  // A move settles what it has frozen; what a claim was begun for by mistake goes on when that has ended.
  if (is_open(head->kind)) return program.state != wire::ProgramState::kStopped;
  thaw_program(reconciling, program, wire::ClaimRef{program.lineage, head->slot, head->uid},
               head->on_isolation, effects);
  // It was told before it had a lease, or not at all? Then it is told again.
  return program.state != wire::ProgramState::kStopped;
}

void RestoreCore::fence_program(const Reconciling& reconciling, const wire::OwnedProgram& program,
                                const ClaimRecord& head, RestoreEffects& effects) {
  wire::ClaimOwner former;
  former.program = ProgramKey{reconciling.session.ecu_mac, program.program_id};
  former.incarnation = reconciling.session.incarnation;
  former.owner_epoch = program.owner_epoch;
  wire::ClaimOwner owner = head.owner;
  owner.owner_epoch = std::max(owner.owner_epoch, program.owner_epoch + 1);  // Else it is not obeyed.
  effects.push_back(OwnerChanged{program.lineage, former, owner});
  // Also who has announced nothing to this cmsd since that began.
  wire::Receipt fenced;
  fenced.program_id = program.program_id;
  fenced.seq = 1;
  fenced.level = wire::ReceiptLevel::kFenced;
  fenced.code = Code::kFenced;
  fenced.lineage = program.lineage;
  fenced.owner_epoch = owner.owner_epoch;
  fenced.reason = "the program goes on as " + to_string(owner.program);
  effects.push_back(SendToTarget{reconciling.session, std::move(fenced)});
}

void RestoreCore::thaw_program(Reconciling& reconciling, const wire::OwnedProgram& program,
                               const wire::ClaimRef& record, wire::OnIsolation on_isolation,
                               RestoreEffects& effects) {
  ++reconciling.running;
  effects.push_back(SendToTarget{reconciling.session, wire::Thaw{record, program.program_id, on_isolation}});
}

// One that the ECU owns, or is to run, by its log. False: it is to be looked at again.
bool RestoreCore::settle_owned(Instant now, Reconciling& reconciling, const ClaimRecord& head,
                               const std::set<Lineage>& there, RestoreEffects& effects) {
  const SessionId& session = reconciling.session;
  if (head.kind == ClaimKind::kAct && head.target.ecu_mac == session.ecu_mac) {
    // Told to this session: it may have ended again before DONE, which nobody would look at then.
    return head.target != session && settle_started(now, reconciling, head, effects);
  }
  if (there.count(head.lineage) != 0) return true;  // settle_program has judged it by a newer head.
  if (is_open(head.kind)) return false;
  if (was_lost(head)) return restore_there(now, reconciling, head, ClaimReason::kLost, effects);
  if (restores_by_itself(head) && reconciling.enforced && !reconciling.maintenance) {
    return restore_there(now, reconciling, head, ClaimReason::kReportedDead, effects);
  }
  reconciling.waiting.insert(head.lineage);
  return true;
}

bool RestoreCore::restore_there(Instant now, Reconciling& reconciling, const ClaimRecord& head,
                                ClaimReason reason, RestoreEffects& effects) {
  if (reconciling.maintenance) {
    reconciling.waiting.insert(head.lineage);
    return true;
  }
  ++reconciling.restored;
  const auto known = restores_.find(head.lineage);
  const bool was_tried = known != restores_.end() && known->second.replaces == head.owner &&
                         known->second.reason == reason && known->second.stage == Stage::kRefused &&
                         !known->second.restarts;
  // Its RTCR may have given up waiting for it: then it is restored all the same.
  const bool restarts =
      known != restores_.end() && !known->second.has_ended() && known->second.restarts.has_value();
  return was_tried || (begin(now, head, reason, effects) && !restarts);
}

// An earlier session of this ECU was told to run it: whether it does is known now.
bool RestoreCore::settle_started(Instant now, Reconciling& reconciling, const ClaimRecord& head,
                                 RestoreEffects& effects) {
  if (!begin(now, head, head.reason, effects)) return false;
  Started started;
  started.act_uid = head.uid;
  for (const wire::OwnedProgram& program : reconciling.programs) {
    if (program.lineage == head.lineage && program.owner_epoch == head.slot + 1)
      started.runs_as = program.program_id;
  }
  started_[head.lineage] = started;
  return false;  // Until DONE or ABORT is there.
}

void RestoreCore::look_after_reconcilings(Instant now, RestoreEffects& effects) {
  for (auto it = reconcilings_.begin(); it != reconcilings_.end();) {
    Reconciling& reconciling = it->second;
    if (is_there(reconciling.session)) reconciling.there_at = now;
    if (now - reconciling.there_at >= kReconcilingForgotten) {
      it = reconcilings_.erase(it);  // The session has ended; the next one is reconciled anew.
      continue;
    }
    ++it;
    if (now < reconciling.next_at) continue;
    switch (reconciling.step) {
      case Step::kScanning:
        reconciling.next_at = now + kRestoreRetry;
        if (!is_scan_open(reconciling.session.ecu_mac)) ask_scan(now, reconciling.session.ecu_mac, effects);
        break;
      case Step::kAsking: ask_programs(now, reconciling, effects); break;
      case Step::kReading: read_programs(reconciling, effects); break;
      case Step::kPausing: begin_reconciling(now, reconciling, effects); break;
      case Step::kSettled: break;
    }
  }
}

}  // namespace cms::core
