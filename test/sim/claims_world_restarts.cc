// Own programs that the RTCR of a guarded ECU has lost and asks for, as rtcr_fetch_newest does (rtcr-client/src/own_restart.h), and what
// restore_keeper.cc does then.
#include <algorithm>
#include <utility>

#include "test/sim/claims_world.h"

namespace cms::sim {

using namespace std::chrono_literals;
using wire::ClaimRecord;

namespace {

constexpr Duration kOwnRunsAfterMax =
    60s;  // In peace, from the asking: with a claim that is tried once more.

}  // namespace

// ---- the RTCR

// It asks for some of what it owned and does not run.
void ClaimsWorld::want_own(Ecu& ecu, Duration delay_max) {
  if (!faults_on_ || scenario_.restart_percent == 0) return;
  std::set<ProgramId> own;
  for (const Copy& copy : ledger_.copies()) {
    if (copy.session.ecu_mac == ecu.ecu_mac) own.insert(copy.program_id);
  }
  for (const ProgramId program_id : own) {
    if (copy_of(ecu, program_id) != nullptr || !percent(scenario_.restart_percent)) continue;
    in_rtcr(ecu, ecu.boots, random_delay(delay_max),
            [this, &ecu, program_id] { await_own(ecu, program_id, 3s + random_delay(20s)); });
  }
}

void ClaimsWorld::await_own(Ecu& ecu, ProgramId program_id, Duration patience) {
  if (copy_of(ecu, program_id) != nullptr) return;
  const std::uint64_t call = ++last_call_;
  if (!ecu.guarded->awaited.try_emplace(program_id, call).second) return;
  ecu.guarded->asked_for.insert(program_id);
  in_rtcr(ecu, ecu.boots, patience, [&ecu, program_id, call] {
    const auto awaited = ecu.guarded->awaited.find(program_id);
    if (awaited != ecu.guarded->awaited.end() && awaited->second == call) ecu.guarded->awaited.erase(awaited);
  });
  ask_for_own(ecu, program_id, call);
}

// One cmsd, and another if that does not answer; or two at once.
void ClaimsWorld::ask_for_own(Ecu& ecu, ProgramId program_id, std::uint64_t call) {
  const Guarded& guarded = *ecu.guarded;
  const auto awaited = guarded.awaited.find(program_id);
  if (awaited == guarded.awaited.end() || awaited->second != call) return;
  if (guarded.broker_life != 0 && guarded.programs.find(program_id) == nullptr) {
    const std::size_t first = prng_.below(cms_.size());
    const std::size_t count = prng_.chance(1, 3) ? 2 : 1;
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t cms = (first + i) % cms_.size();
      wire::Migrate migrate;
      migrate.request_id = call;
      migrate.program_id = program_id;
      migrate.has_to = true;
      migrate.to_ecu_mac = ecu.ecu_mac;
      if (guarded.links[cms].live) say(ecu, cms, migrate);
    }
  }
  in_rtcr(ecu, ecu.boots, 1s + random_delay(1s),
          [this, &ecu, program_id, call] { ask_for_own(ecu, program_id, call); });
}

// What cannot be done now is asked for again by and by, but for what is not its own any more.
void ClaimsWorld::hear_of_own(Ecu& ecu, const wire::MigrateAnswer& answer) {
  if (answer.code != Code::kNotFound) return;
  std::map<ProgramId, std::uint64_t>& awaited = ecu.guarded->awaited;
  const auto call = std::find_if(awaited.begin(), awaited.end(),
                                 [&](const auto& one) { return one.second == answer.request_id; });
  if (call != awaited.end()) awaited.erase(call);
}

// Invariant: nothing is restored as what its RTCR has asked for that it has not.
bool ClaimsWorld::is_awaited(const Ecu& ecu, const broker::RestoreInfo& info) const {
  if (!info.restarts) return true;
  if (ecu.guarded->asked_for.count(*info.restarts) == 0)
    violated("ecu " + to_string(ecu.session) + " is to restart " + std::to_string(*info.restarts) +
             ", which it has not asked for");
  return ecu.guarded->awaited.count(*info.restarts) != 0;
}

// ---- the cmsd

void ClaimsWorld::on_own_asked(Cms& cms, const SessionId& session, const wire::Migrate& asked) {
  const ProgramKey program{session.ecu_mac, asked.program_id};
  const auto tell = [this, &cms, session, request_id = asked.request_id](Code code) {
    const auto there = cms.guarded.find(session.ecu_mac);
    if (there == cms.guarded.end() || there->second.id != session) return;
    send(cms, there->second.peer, session.incarnation, wire::MigrateAnswer{request_id, code, {}});
  };
  const auto lineage = std::find_if(lineages_.begin(), lineages_.end(), [&](const Lineage& one) {
    const ClaimRecord* head = nas_.head(one);
    return head != nullptr && head->owner.program == program;
  });
  if (lineage == lineages_.end()) return tell(Code::kNotFound);
  read_head(cms, *lineage,
            [this, &cms, session, program, tell](const Result<std::optional<ClaimRecord>>& head) {
              if (!head.ok()) return tell(head.error().code);
              if (!*head || (*head)->kind == wire::ClaimKind::kRetire || !((*head)->owner.program == program))
                return tell(Code::kNotFound);
              if (plant_ == ClaimsPlant::kRestartUnclaimed)
                return run_unclaimed(ecu_of(session.ecu_mac), program.program_id, **head);
              answer(cms, [&](core::RestoreCore& core, Instant now, core::RestoreEffects& effects) {
                const Status begun = core.restart(now, **head, session, effects);
                if (verbose_)
                  trace("cms " + cms.name + " is to restart " + to_string(program) + " for " +
                        to_string(session) + (begun.ok() ? "" : ": " + begun.error().context));
                tell(begun.code());
              });
            });
}

// kRestartUnclaimed: as a client without a lease fetches.
void ClaimsWorld::run_unclaimed(Ecu& ecu, ProgramId program_id, const ClaimRecord& head) {
  const auto best = core::restorable(head, nas_.list(head.lineage));
  const bool waits = ecu.state == Ecu::State::kUp && ecu.guarded->awaited.erase(program_id) != 0;
  if (best.empty() || !waits || copy_of(ecu, program_id) != nullptr) return;
  const StoredBlob* blob = nas_.find(best.front().checkpoint);
  wire::Go go;
  go.claim.lineage = head.lineage;
  go.act_slot = head.owner.owner_epoch - 1;
  broker::RestoreInfo info;
  info.notification = blob->notification;
  Copy& copy = ledger_.start_restored(ecu.session, program_id, go, blob->state());
  copy.boot = ecu.boots;
  begin_guarded_copy(ecu, copy, go, info, 0);
  publish_by_and_by(copy);
}

// ---- the end

// Invariant: what an RTCR asks for in peace runs there soon, or where it is restored by itself.
void ClaimsWorld::restart_in_peace() {
  for (const Lineage& lineage : lineages_) {
    if (nas_.head(lineage) == nullptr || !ledger_.was_ever_stored(lineage)) continue;
    const ClaimRecord head = *nas_.head(lineage);
    if (waits_for_word_of_target(head)) continue;
    const ProgramKey program = head.owner.program;
    Ecu& ecu = ecu_of(program.ecu_mac);
    if (ecu.state != Ecu::State::kUp || !prng_.chance(1, 2)) continue;
    for (Copy& copy : ledger_.copies()) {
      if (is_of(ecu, copy) && copy.running && copy.program_id == program.program_id) end_copy(ecu, copy);
    }
    run_for(random_delay(1s));
    if (ecu.state != Ecu::State::kUp || ledger_.running(lineage) != nullptr) continue;
    if (verbose_) trace("in peace ecu " + to_string(ecu.session) + " asks for " + to_string(program));
    await_own(ecu, program.program_id, kOwnRunsAfterMax);
    const bool by_itself =
        head.on_loss == wire::OnLoss::kRestore && head.on_isolation == wire::OnIsolation::kStop;
    const Instant until = queue_.now() + kOwnRunsAfterMax;
    const Copy* copy = nullptr;
    while ((copy = ledger_.running(lineage)) == nullptr) {
      run_for(100ms);
      if (queue_.now() >= until)
        violated("its RTCR has asked for it, and it does not run. " + picture(lineage));
    }
    if (!by_itself && !(copy->key() == program))
      violated("it runs elsewhere than its RTCR has asked. " + picture(lineage));
  }
  settle_leases("after RTCRs have asked for their programs");
}

}  // namespace cms::sim
