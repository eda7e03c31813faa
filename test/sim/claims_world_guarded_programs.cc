// Guarded ECUs: who enforces their leases, and the programs that run there.
#include <algorithm>
#include <utility>

#include "test/sim/claims_world.h"

namespace cms::sim {

using namespace std::chrono_literals;
using wire::Enforcer;
using wire::OnIsolation;

namespace {

constexpr Duration kGuardActsAfter = 900ms;  // Of its own clock: within T_stop of any.
constexpr Duration kStopsLatest = 1100ms;    // T_stop, by the fastest clock.

}  // namespace

// ---- who enforces it

void ClaimsWorld::tell_lease(Ecu& ecu) {
  Guarded& guarded = *ecu.guarded;
  // While it is not told what runs, what a former broker left may run yet.
  if (guarded.programs_told && stands_still(ecu)) guarded.stopped_from = kNever;
  const Instant enforce_at =
      std::min(guarded.stopped_from, guarded.lease.lives() ? guarded.lease.ends_at() : kNever);
  if (enforce_at == guarded.enforce_at) return;
  guarded.enforce_at = enforce_at;
  guard_looks(ecu);
  if (enforce_at == kNever) return;
  const Duration delay = std::max<Duration>(enforce_at + kGuardActsAfter - local(ecu), Duration::zero()) *
                         1000 / static_cast<std::int64_t>(guarded.rate_permille);
  in_rtcr(ecu, ecu.boots, delay + 1us, [this, &ecu, enforce_at] {
    if (ecu.guarded->enforce_at == enforce_at) guard_looks(ecu);
  });
}

bool ClaimsWorld::is_held(const Ecu& ecu, OnIsolation on_isolation) const {
  if (!ecu.guarded || plant_ == ClaimsPlant::kNoGuard || ecu.guarded->enforcer == Enforcer::kNone)
    return false;
  if (on_isolation != OnIsolation::kStop || ecu.guarded->enforce_at == kNever) return false;
  return local(ecu) >= ecu.guarded->enforce_at + kGuardActsAfter;
}

// A guard stops what may run no more, and lets it go when it may again; a watchdog ends all.
void ClaimsWorld::guard_looks(Ecu& ecu) {
  const bool holds = is_held(ecu, OnIsolation::kStop);
  bool bites = false;
  for (Copy& copy : ledger_.copies()) {
    if (!is_of(ecu, copy) || !copy.running) continue;
    const bool held = holds && copy.strict;
    if (held == copy.held) continue;
    bites = bites || (held && !copy.frozen && !copy.stopped);
    copy.held = held;
    ledger_.check_goes_on(copy);
  }
  if (!bites || ecu.guarded->enforcer != Enforcer::kWatchdog) return;
  if (verbose_) trace("ecu " + to_string(ecu.session) + ": its watchdog bites");
  queue_.after(Duration::zero(), [this, &ecu, boots = ecu.boots] {
    if (ecu.boots != boots || ecu.state == Ecu::State::kDown) return;
    power_off(ecu);
    boot_later(ecu, 3s + random_delay(5s));
  });
}

// Invariant: nothing with on_isolation = stop runs for longer than T_stop after its lease.
void ClaimsWorld::check_leases() {
  queue_.after(250ms, [this] { check_leases(); });
  for (const Ecu& ecu : ecus_) {
    if (ecu.state != Ecu::State::kUp || !ecu.guarded->had_lease || ecu.guarded->enforcer == Enforcer::kNone)
      continue;
    if (queue_.now() <= ecu.guarded->leased_until + kStopsLatest) continue;
    for (const Copy& copy : ledger_.copies()) {
      if (is_of(ecu, copy) && copy.executes() && copy.strict)
        violated(to_string(copy.key()) + " runs long after its lease");
    }
  }
}

// ---- programs

void ClaimsWorld::begin_first_copy(Ecu& ecu, Copy& copy) {
  copy.strict = !prng_.chance(1, 4);
  if (copy.strict) copy.policies.on_isolation = OnIsolation::kStop;
  if (!prng_.chance(1, 5)) copy.policies.on_loss = wire::OnLoss::kRestore;
  tell_of_copy(ecu, copy);
}

void ClaimsWorld::begin_guarded_copy(Ecu& ecu, Copy& copy, const wire::Go& go,
                                     const broker::RestoreInfo& info, std::uint64_t life) {
  copy.policies = info.notification.policies;
  copy.strict = go.on_isolation == OnIsolation::kStop || copy.policies.on_isolation == OnIsolation::kStop;
  if (prng_.chance(1, 3)) copy.policies.on_isolation = OnIsolation::kKeep;
  if (plant_ == ClaimsPlant::kPolicyLoosened) copy.strict = copy.policies.on_isolation == OnIsolation::kStop;
  if (life == life_of(ecu)) return;
  // Its broker is another one by now, and is told of it.
  if (ecu.guarded->programs_told) tell_of_copy(ecu, copy);
}

// Whatever lease lives now: what ran under a former broker may have been given to another ECU before it began.
void ClaimsWorld::tell_of_copy(Ecu& ecu, const Copy& copy) {
  Guarded& guarded = *ecu.guarded;
  const OnIsolation on_isolation = copy.strict ? OnIsolation::kStop : OnIsolation::kKeep;
  guarded.programs.note(copy.program_id, copy.lineage, copy.owner_epoch, on_isolation);
  if (!guarded.had_lease) return;
  broker::StopEffects effects;
  guarded.programs.stop(copy.program_id, effects);
  carry_out_stop(ecu, effects);
}

void ClaimsWorld::restart_broker(Ecu& ecu) {
  if (ecu.state != Ecu::State::kUp || ecu.guarded->broker_life == 0) return;
  if (!ecu.frozen->open().empty())
    return;  // What an RTCR does then with what it has frozen is not simulated.
  if (verbose_) trace("ecu " + to_string(ecu.session) + ": its broker dies");
  kill_broker(ecu);
  in_rtcr(ecu, ecu.boots, random_delay(8s), [this, &ecu] {
    start_broker(ecu);
    if (verbose_) trace("ecu " + to_string(ecu.session) + ": its broker is back");
    to_broker(ecu, life_of(ecu), random_delay(2s), [this, &ecu] {
      for (Copy& copy : ledger_.copies()) {
        if (is_of(ecu, copy) && copy.running) tell_of_copy(ecu, copy);
      }
      ecu.guarded->programs_told = true;
      tell_lease(ecu);
      answer_asks(ecu);
    });
  });
}

void ClaimsWorld::note_restored(Ecu& ecu, broker::RestoreId id, const Result<ProgramId>& program_id) {
  Guarded& guarded = *ecu.guarded;
  guarded.goes.erase(id);
  const bool overtaken = guarded.overtaken.erase(id) != 0;
  const Copy* copy = program_id.ok() ? copy_of(ecu, *program_id) : nullptr;
  if (copy != nullptr) {
    const OnIsolation on_isolation = copy->strict ? OnIsolation::kStop : OnIsolation::kKeep;
    guarded.programs.note(copy->program_id, copy->lineage, copy->owner_epoch, on_isolation);
    if (overtaken) {
      broker::StopEffects effects;
      guarded.programs.stop(copy->program_id, effects);
      carry_out_stop(ecu, effects);
    } else {
      stop_unless_leased(ecu, copy->program_id);
    }
  }
  tell_lease(ecu);
  answer_asks(ecu);
}

bool ClaimsWorld::may_publish(Ecu& ecu, Copy& copy) {
  Guarded& guarded = *ecu.guarded;
  if (guarded.broker_life == 0 || !guarded.programs_told || ecu.session.incarnation == 0) return false;
  if (queue_.now() < std::max(guarded.broker_paused_until, guarded.paused_until)) return false;
  watch_lease(ecu);
  // Nothing is announced before the first lease: what no log knows needs none.
  if (!guarded.lease.lives()) return false;
  if (guarded.programs.is_stopped(copy.program_id) && !ecu.frozen->is_open(copy.program_id)) return false;
  if (faults_on_ && prng_.chance(1, 40)) copy.policies.on_isolation = OnIsolation::kKeep;
  if (plant_ == ClaimsPlant::kPolicyLoosened) {
    copy.strict = copy.policies.on_isolation == OnIsolation::kStop;
    guarded.programs.on_ended(copy.program_id);
  }
  copy.strict = copy.strict || copy.policies.on_isolation == OnIsolation::kStop;
  guarded.programs.note(copy.program_id, copy.lineage, copy.owner_epoch, copy.policies.on_isolation);
  stop_unless_leased(ecu, copy.program_id);
  wake_broker(ecu);
  copy.session = ecu.session;
  return true;
}

// As CmsCore::manifest_of, with the policies that take effect.
bool ClaimsWorld::can_pull(const Cms& cms, Publication& publication) {
  if (!scenario_.leases) return lives(publication.copy->session);
  const Ecu& ecu = ecu_of(publication.copy->session.ecu_mac);
  const Link& link = ecu.guarded->links[cms.number];
  const Instant now = queue_.now();
  const bool there = ecu.state == Ecu::State::kUp && is_of(ecu, *publication.copy) &&
                     ecu.guarded->broker_life != 0 && now >= ecu.guarded->broker_paused_until &&
                     now >= ecu.guarded->paused_until && now >= link.out_cut_until &&
                     now >= link.in_cut_until;
  const auto session = cms.guarded.find(ecu.ecu_mac);
  if (!there || session == cms.guarded.end() || session->second.id != publication.blob.session) return false;
  wire::Policies& policies = publication.blob.notification.policies;
  const bool enforced = session->second.enforcer != Enforcer::kNone;
  if (!enforced || policies.on_isolation != OnIsolation::kStop) policies.on_loss = wire::OnLoss::kAsk;
  return true;
}

// One of its programs ends by itself.
void ClaimsWorld::end_program(Ecu& ecu) {
  if (ecu.state != Ecu::State::kUp || ecu.guarded->broker_life == 0) return;
  for (Copy& copy : ledger_.copies()) {
    if (!is_of(ecu, copy) || !copy.executes() || copy.last_seq == 0) continue;
    end_copy(ecu, copy);
    return;
  }
}

void ClaimsWorld::end_copy(Ecu& ecu, Copy& copy) {
  if (verbose_) trace("ecu " + to_string(ecu.session) + ": " + to_string(copy.key()) + " ends");
  copy.running = false;
  to_broker(ecu, life_of(ecu), Duration::zero(), [this, &ecu, program_id = copy.program_id] {
    Guarded& guarded = *ecu.guarded;
    if (guarded.programs.find(program_id) == nullptr) return;
    guarded.programs.on_ended(program_id);
    ecu.frozen->on_program_ended(program_id);
    ecu.target->on_program_ended(program_id);
    tell_programs_changed(ecu);
    want_own(ecu, 3s);
  });
}

// The broker stands still, or all of the ECU. Its clock runs on.
void ClaimsWorld::pause_ecu(Ecu& ecu) {
  if (ecu.state != Ecu::State::kUp) return;
  Guarded& guarded = *ecu.guarded;
  const Duration time = random_delay(scenario_.broker_pause_max);
  if (queue_.now() < guarded.paused_until) return;
  if (prng_.chance(1, 2)) {
    guarded.broker_paused_until = queue_.now() + time;
    if (verbose_) trace("ecu " + to_string(ecu.session) + ": its broker is paused");
    return;
  }
  guarded.paused_until = queue_.now() + time;
  if (verbose_) trace("ecu " + to_string(ecu.session) + " is paused");
  for (Copy& copy : ledger_.copies()) {
    if (is_of(ecu, copy)) copy.suspended = true;
  }
  in_rtcr(ecu, ecu.boots, time, [this, &ecu, time] {
    if (verbose_) trace("ecu " + to_string(ecu.session) + " goes on");
    if (plant_ == ClaimsPlant::kSleepingClock) ecu.stood_still += time;
    guard_looks(ecu);
    for (Copy& copy : ledger_.copies()) {
      if (!is_of(ecu, copy)) continue;
      copy.suspended = false;
      ledger_.check_goes_on(copy);
    }
  });
}

}  // namespace cms::sim
