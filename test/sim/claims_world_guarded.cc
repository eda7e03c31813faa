// Guarded ECUs: their brokers, as EcuCore does it, with RunLease and GuardedPrograms; RTCRs that stop and resume programs;
// and who enforces the lease when the broker does not.
#include <algorithm>
#include <utility>

#include "test/sim/claims_world.h"

namespace cms::sim {

using namespace std::chrono_literals;
using wire::Enforcer;
using wire::OnIsolation;

namespace {

// As EcuCore.
constexpr Duration kHeartbeatInterval = 1s;
constexpr Duration kControlSilenceMax = 5s;
constexpr Duration kHelloRetry = 1s;
constexpr Duration kRefusedPause = 2500ms;
constexpr Duration kSessionPauseMin = 1s;
constexpr Duration kSessionPauseMax = 2s;  // Longer than T_dead less T_fence, and an ECU that lives would be LOST.
constexpr Duration kLeaseLivedMin = 60s;

constexpr Duration kLeaseLength = 5s;    // T_fence
constexpr Duration kStopTimeMax = 700ms;  // Of an RTCR that does what it is told.
constexpr Duration kGuardActsAfter = 900ms;  // Of its own clock: within T_stop of any.
constexpr Duration kStopsLatest = 1100ms;    // T_stop, by the fastest clock.
constexpr std::size_t kSentCountMax = 64;

}  // namespace

std::uint64_t ClaimsWorld::life_of(const Ecu& ecu) const {
  return ecu.guarded ? ecu.guarded->broker_life : ecu.boots;
}

Instant ClaimsWorld::local(const Ecu& ecu) const {
  if (!ecu.guarded) return queue_.now();
  const Duration passed = queue_.now() - begun_at_ - ecu.stood_still;
  return Instant{} + 1h + passed * static_cast<std::int64_t>(ecu.guarded->rate_permille) / 1000;
}

void ClaimsWorld::in_rtcr(Ecu& ecu, std::uint64_t boots, Duration delay, std::function<void()> what) {
  queue_.after(delay, [this, &ecu, boots, what = std::move(what)] {
    if (ecu.state == Ecu::State::kDown || ecu.boots != boots) return;
    if (ecu.guarded && queue_.now() < ecu.guarded->paused_until)
      return in_rtcr(ecu, boots, ecu.guarded->paused_until - queue_.now(), what);
    what();
  });
}

void ClaimsWorld::to_broker(Ecu& ecu, std::uint64_t life, Duration delay, std::function<void()> what) {
  queue_.after(delay, [this, &ecu, life, what = std::move(what)] {
    if (ecu.state == Ecu::State::kDown || life_of(ecu) != life) return;
    if (!ecu.guarded) return what();
    if (life == 0) return;
    const Instant paused_until = std::max(ecu.guarded->paused_until, ecu.guarded->broker_paused_until);
    if (queue_.now() < paused_until) return to_broker(ecu, life, paused_until - queue_.now(), what);
    watch_lease(ecu);
    what();
    if (life_of(ecu) == life) wake_broker(ecu);
  });
}

void ClaimsWorld::to_broker_at(Ecu& ecu, Instant local_at, std::function<void()> what) {
  Duration delay = std::max<Duration>(local_at - local(ecu), Duration::zero());
  if (ecu.guarded) delay = delay * 1000 / static_cast<std::int64_t>(ecu.guarded->rate_permille) + 1us;
  to_broker(ecu, life_of(ecu), delay, std::move(what));
}

// ---- lives

void ClaimsWorld::boot_guarded(Ecu& ecu) {
  auto fresh = std::make_unique<Guarded>(cms_.size());
  fresh->rate_permille = 900 + static_cast<std::uint32_t>(prng_.below(201));
  if (ecu.guarded) {
    fresh->enforcer = ecu.guarded->enforcer;
    fresh->gone = std::move(ecu.guarded->gone);
    for (std::size_t cms = 0; cms < cms_.size(); ++cms) {
      Link& link = fresh->links[cms];
      const Link& former = ecu.guarded->links[cms];
      link.connection = former.connection + 1;
      link.out_cut_until = former.out_cut_until;
      link.in_cut_until = former.in_cut_until;
    }
  } else if (ecu.number >= 2 && prng_.chance(1, 3)) {
    fresh->enforcer = Enforcer::kNone;
  } else {
    fresh->enforcer = prng_.chance(1, 4) ? Enforcer::kWatchdog : Enforcer::kGuard;
  }
  ecu.guarded = std::move(fresh);
  ecu.said_bye = false;
  ecu.up_at = queue_.now();
  start_broker(ecu);
  ecu.guarded->programs_told = true;  // Nothing runs there yet.
}

void ClaimsWorld::start_broker(Ecu& ecu) {
  Guarded& guarded = *ecu.guarded;
  guarded.broker_life = ++last_life_;
  guarded.nonce = prng_.next();
  guarded.session_count = guarded.had_lease ? 1 : 0;  // What runs may do so only with a lease.
  guarded.lease = broker::RunLease(cms_.size());
  guarded.programs = broker::GuardedPrograms{};
  guarded.goes.clear();
  guarded.overtaken.clear();
  guarded.asks.clear();
  guarded.programs_told = false;
  guarded.ended = 0;
  guarded.session_pause = Duration::zero();
  // Until it is told what runs, and that has stopped, the former one's lease counts.
  guarded.stopped_from = guarded.enforce_at;
  guarded.wakes_at = kNever;
  ecu.session.incarnation = 0;
  ecu.target = std::make_unique<broker::RestoreTarget>(broker::RestoreTargetConfig{});
  ecu.frozen = std::make_unique<broker::FrozenPrograms>();
  ecu.wakes_at = kNever;
  for (std::size_t cms = 0; cms < cms_.size(); ++cms) {
    Link& link = guarded.links[cms];
    ++link.connection;
    link.live = false;
    link.number = 0;
    link.sent.clear();
    link.said_at = local(ecu) - kHelloRetry + random_delay(1s);
  }
  wake_broker(ecu);
}

// What runs, runs on; what was only prepared is dropped.
void ClaimsWorld::kill_broker(Ecu& ecu) {
  ecu.guarded->broker_life = 0;
  ecu.restores.clear();
  ecu.goes.clear();
  ecu.prepared_claims.clear();
}

// ---- time

void ClaimsWorld::wake_broker(Ecu& ecu) {
  Guarded& guarded = *ecu.guarded;
  Instant next = std::min(guarded.lease.next_deadline(), guarded.programs.next_deadline());
  for (const Link& link : guarded.links) {
    next = std::min(next, link.live ? std::min(link.next_heartbeat_at, link.heard_at + kControlSilenceMax)
                                    : link.said_at + kHelloRetry);
  }
  if (next >= guarded.wakes_at) return;
  guarded.wakes_at = next;
  to_broker_at(ecu, next, [this, &ecu] {
    ecu.guarded->wakes_at = kNever;
    on_broker_time(ecu);
  });
}

void ClaimsWorld::on_broker_time(Ecu& ecu) {
  Guarded& guarded = *ecu.guarded;
  const Instant now = local(ecu);
  for (std::size_t cms = 0; cms < guarded.links.size(); ++cms) {
    Link& link = guarded.links[cms];
    if (!link.live) {
      if (now - link.said_at >= kHelloRetry) say_hello(ecu, cms);
    } else if (now - link.heard_at >= kControlSilenceMax) {
      ++link.connection;
      say_hello(ecu, cms);
    } else if (now >= link.next_heartbeat_at) {
      send_heartbeat(ecu, cms);
    }
  }
  broker::StopEffects effects;
  guarded.programs.on_time(now, effects);
  carry_out_stop(ecu, effects);
}

// ---- what it says

void ClaimsWorld::say(Ecu& ecu, std::size_t number, const wire::ControlBody& body) {
  Link& link = ecu.guarded->links[number];
  const Incarnation incarnation = ecu.session.incarnation;
  if (incarnation == 0 && !std::holds_alternative<wire::Hello>(body)) return;
  if (queue_.now() < link.out_cut_until || percent(scenario_.drop_percent)) return;
  link.out_last_at = std::max(link.out_last_at, queue_.now() + random_delay(scenario_.net_delay_max));
  const Peer peer{ecu.number, false, link.connection};
  queue_.at(link.out_last_at,
            [this, &ecu, number, peer, incarnation, body, life = cms_[number].life] {
              if (queue_.now() < ecu.guarded->links[number].out_cut_until) return;
              Cms& cms = cms_[number];
              run_in(cms, life, [this, &cms, peer, incarnation, body] { on_control(cms, peer, incarnation, body); });
            });
}

void ClaimsWorld::say_hello(Ecu& ecu, std::size_t cms) {
  Guarded& guarded = *ecu.guarded;
  Link& link = guarded.links[cms];
  link.live = false;
  link.said_at = local(ecu);
  wire::Hello hello;
  hello.ecu_mac = ecu.ecu_mac;
  hello.incarnation = ecu.session.incarnation;
  hello.nonce = guarded.nonce;
  hello.guarded = true;
  hello.boot_id = Id128{ecu.number + 1, ecu.boots};
  hello.enforcer = guarded.enforcer;
  hello.last_seq = ecu.last_seq;
  say(ecu, cms, hello);
}

void ClaimsWorld::send_heartbeat(Ecu& ecu, std::size_t cms) {
  Guarded& guarded = *ecu.guarded;
  Link& link = guarded.links[cms];
  const Instant now = local(ecu);
  link.next_heartbeat_at = now + kHeartbeatInterval;
  ++link.number;
  link.sent[link.number] = queue_.now();
  if (link.sent.size() > kSentCountMax) link.sent.erase(link.sent.begin());
  say(ecu, cms, wire::Heartbeat{link.number, ecu.last_seq, 0, guarded.ended});
  if (plant_ != ClaimsPlant::kLeaseFromReceipt)
    guarded.lease.on_sent(now, static_cast<broker::CmsIndex>(cms), link.number);
  broker::FreezeEffects effects;
  ecu.frozen->tell(static_cast<broker::CmsIndex>(cms), effects);
  carry_out_freeze(ecu, effects);
}

// It is not said what runs while that is open.
void ClaimsWorld::answer_asks(Ecu& ecu) {
  if (!ecu.guarded->programs_told || !ecu.guarded->goes.empty()) return;
  for (const auto& [cms, ask] : std::exchange(ecu.guarded->asks, {})) tell_programs(ecu, cms, ask);
}

void ClaimsWorld::tell_programs(Ecu& ecu, std::size_t cms, const wire::AskPrograms& ask) {
  wire::Programs page;
  page.number = ask.number;
  std::map<ProgramId, wire::OwnedProgram> all;
  if (plant_ == ClaimsPlant::kGoneProgramsTold) {
    for (const wire::OwnedProgram& gone : ecu.guarded->gone) all[gone.program_id] = gone;
  }
  for (const auto& [program_id, program] : ecu.guarded->programs.all()) {
    wire::OwnedProgram told;
    told.program_id = program_id;
    told.lineage = program.lineage;
    told.owner_epoch = program.owner_epoch;
    if (program.stopped) told.state = wire::ProgramState::kStopped;
    if (ecu.frozen->is_frozen(program_id)) told.state = wire::ProgramState::kFrozen;
    all[program_id] = told;
  }
  for (const auto& [program_id, program] : all) {
    if (program_id >= ask.from_program_id) page.programs.push_back(program);
  }
  say(ecu, cms, page);
}

// ---- what it hears

void ClaimsWorld::hear(Ecu& ecu, std::size_t number, Incarnation incarnation, const wire::ControlBody& body) {
  Guarded& guarded = *ecu.guarded;
  const auto cms = static_cast<broker::CmsIndex>(number);
  if (const auto* answer = std::get_if<wire::HelloAnswer>(&body)) return hear_hello_answer(ecu, number, *answer);
  if (ecu.session.incarnation == 0 || incarnation != ecu.session.incarnation) return;
  Link& link = guarded.links[number];
  if (const auto* beat = std::get_if<wire::HeartbeatAnswer>(&body)) {
    link.heard_at = local(ecu);
    if (!beat->leased) return;
    const bool from_receipt = plant_ == ClaimsPlant::kLeaseFromReceipt && beat->number > link.answered;
    link.answered = std::max(link.answered, beat->number);
    if (from_receipt) guarded.lease.on_sent(local(ecu), cms, beat->number);
    if (!guarded.lease.on_leased(local(ecu), cms, beat->number)) return;
    guarded.had_lease = true;
    const auto sent = link.sent.find(beat->number);
    if (sent == link.sent.end()) violated("a lease for a heartbeat that was never sent");
    const Instant until =
        sent->second + kLeaseLength * 1000 / static_cast<std::int64_t>(guarded.rate_permille);
    guarded.leased_until = std::max(guarded.leased_until, until);
    ledger_.on_leased(ecu.session, until);
    tell_lease(ecu);
  } else if (const auto* ask = std::get_if<wire::AskPrograms>(&body)) {
    guarded.asks[number] = *ask;
    answer_asks(ecu);
  } else if (const auto* thaw = std::get_if<wire::Thaw>(&body)) {
    thaw_guarded(ecu, number, *thaw);
  } else if (const auto* prepare = std::get_if<wire::Prepare>(&body)) {
    if (!guarded.lease.lives()) return;
    give_way(ecu, prepare->claim);
    obey(ecu, number, body);
  } else if (std::holds_alternative<wire::Freeze>(body)) {
    if (guarded.lease.lives()) obey(ecu, number, body);
  } else {
    obey(ecu, number, body);
  }
}

void ClaimsWorld::hear_hello_answer(Ecu& ecu, std::size_t number, const wire::HelloAnswer& answer) {
  Guarded& guarded = *ecu.guarded;
  Link& link = guarded.links[number];
  const Instant now = local(ecu);
  if (answer.code == Code::kNotFound) {
    if (link.live || now - link.said_at >= kHelloRetry) say_hello(ecu, number);
    return;
  }
  if (answer.nonce != guarded.nonce) return;
  if (answer.code == Code::kFenced) return end_lease(ecu);
  if (answer.code != Code::kOk) {
    link.live = false;
    link.said_at = now + kRefusedPause - kHelloRetry;
    return;
  }
  if (ecu.session.incarnation == 0) {
    ecu.session.incarnation = answer.incarnation;
    if (verbose_) trace("ecu " + to_string(ecu.session) + " has begun");
    cut_from_giver(ecu, number);
    for (std::size_t other = 0; other < guarded.links.size(); ++other) {
      if (other != number) say_hello(ecu, other);
    }
  }
  if (answer.incarnation != ecu.session.incarnation) return;
  link.heard_at = now;
  guarded.lease.set_length(static_cast<broker::CmsIndex>(number), std::chrono::milliseconds(answer.lease_ms));
  if (link.live) return;
  link.live = true;
  link.next_heartbeat_at = now;
}

// What stands still for want of a lease, and is to be restored here, will never be thawed: its session was LOST.
void ClaimsWorld::give_way(Ecu& ecu, const wire::ClaimRef& claim) {
  std::vector<ProgramId> stopped;
  for (const auto& [program_id, program] : ecu.guarded->programs.all()) {
    if (program.lineage == claim.lineage && program.stopped && program.owner_epoch < claim.slot)
      stopped.push_back(program_id);
  }
  for (const ProgramId program_id : stopped) {
    stop_copy(ecu, program_id);
    ecu.target->on_program_ended(program_id);
    ecu.guarded->programs.on_ended(program_id);
  }
}

void ClaimsWorld::hear_fenced(Ecu& ecu, const ProgramKey& program, const Lineage& lineage,
                              OwnerEpoch owner_epoch) {
  for (Copy& copy : ledger_.copies()) {
    if (!is_of(ecu, copy) || !copy.running || copy.program_id != program.program_id) continue;
    if (copy.lineage != lineage || copy.owner_epoch >= owner_epoch) continue;
    if (verbose_) trace("ecu " + to_string(ecu.session) + " fences " + to_string(program));
    stop_copy(ecu, copy.program_id);
    ecu.target->on_program_ended(copy.program_id);
    ecu.guarded->programs.on_ended(copy.program_id);
  }
}

// ---- the lease

void ClaimsWorld::watch_lease(Ecu& ecu) {
  if (ecu.guarded->lease.on_time(local(ecu))) end_lease(ecu);
}

void ClaimsWorld::end_lease(Ecu& ecu) {
  Guarded& guarded = *ecu.guarded;
  const Instant now = local(ecu);
  guarded.lease.end(now);
  const Instant ended_at = guarded.lease.ends_at();
  if (verbose_) trace("ecu " + to_string(ecu.session) + ": its lease has ended");
  if (ended_at - guarded.lease.began_at() >= kLeaseLivedMin) guarded.session_pause = Duration::zero();
  const Duration pause = guarded.session_pause;
  guarded.session_pause = std::clamp<Duration>(2 * pause, kSessionPauseMin, kSessionPauseMax);
  guarded.overtaken.insert(guarded.goes.begin(), guarded.goes.end());
  broker::StopEffects effects;
  for (const auto& [program_id, program] : guarded.programs.all()) {
    if (!ecu.frozen->is_frozen(program_id)) guarded.programs.stop(program_id, effects);
  }
  carry_out_stop(ecu, effects);
  if (!stands_still(ecu)) guarded.stopped_from = std::min(guarded.stopped_from, ended_at);
  step_ecu(ecu, [](broker::RestoreTarget& target, broker::RestoreEffects& todo) {
    target.end_session("the session that it was prepared under has ended", todo);
  });
  ecu.session.incarnation = 0;
  ++guarded.session_count;
  guarded.nonce = prng_.next();
  guarded.asks.clear();
  guarded.lease.begin_session();
  for (std::size_t cms = 0; cms < guarded.links.size(); ++cms) {
    Link& link = guarded.links[cms];
    if (link.live && now - link.heard_at > 2 * kHeartbeatInterval) ++link.connection;
    link.live = false;
    link.answered = 0;
    if (pause == Duration::zero()) {
      say_hello(ecu, cms);
    } else {
      link.said_at = now + pause - kHelloRetry;
    }
  }
  tell_lease(ecu);
}

bool ClaimsWorld::stands_still(const Ecu& ecu) const {
  const Guarded& guarded = *ecu.guarded;
  if (guarded.programs.stopping_count() > 0) return false;
  return std::none_of(guarded.overtaken.begin(), guarded.overtaken.end(), [&](broker::RestoreId id) {
    return ecu.goes.at(id).on_isolation == OnIsolation::kStop;
  });
}

void ClaimsWorld::stop_unless_leased(Ecu& ecu, ProgramId program_id) {
  Guarded& guarded = *ecu.guarded;
  if (guarded.lease.lives() || guarded.session_count == 0 || ecu.frozen->is_frozen(program_id)) return;
  broker::StopEffects effects;
  guarded.programs.stop(program_id, effects);
  if (!effects.empty()) guarded.stopped_from = std::min(guarded.stopped_from, local(ecu));
  carry_out_stop(ecu, effects);
}

void ClaimsWorld::carry_out_stop(Ecu& ecu, const broker::StopEffects& effects) {
  for (const broker::StopEffect& effect : effects) {
    if (const auto* stop = std::get_if<broker::StopProgram>(&effect)) {
      const bool fails = percent(scenario_.refuse_percent);
      in_rtcr(ecu, ecu.boots, random_delay(kStopTimeMax),
              [this, &ecu, fails, program_id = stop->program_id, life = life_of(ecu)] {
                Copy* copy = copy_of(ecu, program_id);
                if (copy != nullptr && !fails) copy->stopped = true;
                to_broker(ecu, life, random_delay(scenario_.ecu_delay_max / 4), [this, &ecu, fails, program_id] {
                  Guarded& guarded = *ecu.guarded;
                  guarded.programs.on_stopped(local(ecu), program_id,
                                              fails ? Status(make_error(Code::kIo, "runs on")) : ok_status());
                  resume_if_free(ecu, program_id);
                  tell_lease(ecu);
                });
              });
    } else if (const auto* resume = std::get_if<broker::ResumeProgram>(&effect)) {
      Copy* copy = copy_of(ecu, resume->program_id);
      if (copy == nullptr) continue;
      if (verbose_) trace("ecu " + to_string(ecu.session) + " resumes " + std::to_string(copy->program_id));
      copy->stopped = false;
      ledger_.check_goes_on(*copy);
    } else if (const auto* thaw = std::get_if<broker::ThawProgram>(&effect)) {
      Copy* copy = copy_of(ecu, thaw->program_id);
      if (copy != nullptr) ledger_.thaw(*copy);
    }
  }
}

void ClaimsWorld::resume_if_free(Ecu& ecu, ProgramId program_id) {
  Guarded& guarded = *ecu.guarded;
  if (!guarded.lease.lives() || ecu.frozen->is_open(program_id) || !guarded.programs.can_resume(program_id))
    return;
  broker::StopEffects effects;
  guarded.programs.resume(program_id, effects);
  carry_out_stop(ecu, effects);
}

void ClaimsWorld::thaw_guarded(Ecu& ecu, std::size_t cms, const wire::Thaw& thaw) {
  Guarded& guarded = *ecu.guarded;
  const ProgramId program_id = thaw.program_id;
  const bool loosens = plant_ == ClaimsPlant::kPolicyLoosened;
  if (!loosens) guarded.programs.note_policy(program_id, thaw.record.lineage, thaw.on_isolation);
  Copy* copy = copy_of(ecu, program_id);
  if (copy != nullptr && !loosens && thaw.on_isolation == OnIsolation::kStop) copy->strict = true;
  const broker::GuardedPrograms::Program* program = guarded.programs.find(program_id);
  const bool is_here = program != nullptr && program->lineage == thaw.record.lineage;
  if (is_here && program->stops && !guarded.lease.lives()) return stop_unless_leased(ecu, program_id);
  obey_thaw(ecu, static_cast<broker::CmsIndex>(cms), thaw);
  if (!is_here || thaw.record.slot < program->owner_epoch) return;
  guarded.programs.want_resume(program_id);
  resume_if_free(ecu, program_id);
}

// ---- who enforces it

void ClaimsWorld::tell_lease(Ecu& ecu) {
  Guarded& guarded = *ecu.guarded;
  // While it is not told what runs, what a former broker left may run yet.
  if (guarded.programs_told && stands_still(ecu)) guarded.stopped_from = kNever;
  const Instant enforce_at = std::min(guarded.stopped_from, guarded.lease.lives() ? guarded.lease.ends_at() : kNever);
  if (enforce_at == guarded.enforce_at) return;
  guarded.enforce_at = enforce_at;
  guard_looks(ecu);
  if (enforce_at == kNever) return;
  const Duration delay = std::max<Duration>(enforce_at + kGuardActsAfter - local(ecu), Duration::zero()) * 1000 /
                         static_cast<std::int64_t>(guarded.rate_permille);
  in_rtcr(ecu, ecu.boots, delay + 1us, [this, &ecu, enforce_at] {
    if (ecu.guarded->enforce_at == enforce_at) guard_looks(ecu);
  });
}

bool ClaimsWorld::is_held(const Ecu& ecu, OnIsolation on_isolation) const {
  if (!ecu.guarded || plant_ == ClaimsPlant::kNoGuard || ecu.guarded->enforcer == Enforcer::kNone) return false;
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

void ClaimsWorld::begin_guarded_copy(Ecu& ecu, Copy& copy, const wire::Go& go, const broker::RestoreInfo& info,
                                     std::uint64_t life) {
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
  if (!guarded.lease.lives() || guarded.programs.is_stopped(copy.program_id)) return false;
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
                     now >= ecu.guarded->paused_until && now >= link.out_cut_until && now >= link.in_cut_until;
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
    if (verbose_) trace("ecu " + to_string(ecu.session) + ": " + to_string(copy.key()) + " ends");
    copy.running = false;
    to_broker(ecu, life_of(ecu), Duration::zero(), [this, &ecu, program_id = copy.program_id] {
      Guarded& guarded = *ecu.guarded;
      if (guarded.programs.find(program_id) == nullptr) return;
      guarded.programs.on_ended(program_id);
      ecu.frozen->on_program_ended(program_id);
      ecu.target->on_program_ended(program_id);
      ++guarded.ended;
      for (std::size_t cms = 0; cms < guarded.links.size(); ++cms) {
        if (guarded.links[cms].live) send_heartbeat(ecu, cms);
      }
    });
    return;
  }
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
