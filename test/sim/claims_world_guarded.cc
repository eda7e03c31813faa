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
constexpr Duration kSessionPauseMax =
    2s;  // Longer than T_dead less T_fence, and an ECU that lives would be LOST.
constexpr Duration kLeaseLivedMin = 60s;

constexpr Duration kLeaseLength = 5s;     // T_fence
constexpr Duration kStopTimeMax = 700ms;  // Of an RTCR that does what it is told.
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
  want_own(ecu, 6s);
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
  guarded.asked = false;
  guarded.programs_told = false;
  guarded.programs_changed = 0;
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
  queue_.at(link.out_last_at, [this, &ecu, number, peer, incarnation, body, life = cms_[number].life] {
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
  say(ecu, cms, wire::Heartbeat{link.number, ecu.last_seq, 0, guarded.programs_changed});
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

void ClaimsWorld::tell_programs_changed(Ecu& ecu) {
  Guarded& guarded = *ecu.guarded;
  ++guarded.programs_changed;
  for (std::size_t cms = 0; cms < guarded.links.size(); ++cms) {
    if (guarded.links[cms].live) send_heartbeat(ecu, cms);
  }
}

void ClaimsWorld::tell_programs(Ecu& ecu, std::size_t cms, const wire::AskPrograms& ask) {
  ecu.guarded->asked = true;
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
    if (ecu.guarded->programs.stands_still(program_id)) told.state = wire::ProgramState::kStopped;
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
  if (const auto* answer = std::get_if<wire::HelloAnswer>(&body))
    return hear_hello_answer(ecu, number, *answer);
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
  } else if (std::holds_alternative<wire::Prepare>(body) || std::holds_alternative<wire::Freeze>(body)) {
    if (guarded.lease.lives()) obey(ecu, number, body);
  } else if (const auto* migrate = std::get_if<wire::MigrateAnswer>(&body)) {
    hear_of_own(ecu, *migrate);
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
    renew_frozen(ecu);
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

bool ClaimsWorld::stands_still_here(const Ecu& ecu, ProgramId program_id) const {
  return ecu.guarded && (ecu.guarded->programs.stands_still(program_id) || ecu.frozen->is_frozen(program_id));
}

// As EcuCore does it: what waits for a word of a CMS is not what goes on.
void ClaimsWorld::replace_still(Ecu& ecu, const Lineage& lineage) {
  std::vector<ProgramId> still;
  for (const auto& [program_id, program] : ecu.guarded->programs.all()) {
    if (program.lineage == lineage && stands_still_here(ecu, program_id)) still.push_back(program_id);
  }
  for (const ProgramId program_id : still) {
    stop_copy(ecu, program_id);
    ecu.frozen->on_program_ended(program_id);
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
  guarded.asked = false;
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
      in_rtcr(
          ecu, ecu.boots, random_delay(kStopTimeMax),
          [this, &ecu, fails, program_id = stop->program_id, life = life_of(ecu)] {
            Copy* copy = copy_of(ecu, program_id);
            if (copy != nullptr && !fails) copy->stopped = true;
            to_broker(ecu, life, random_delay(scenario_.ecu_delay_max / 4), [this, &ecu, fails, program_id] {
              Guarded& guarded = *ecu.guarded;
              guarded.programs.on_stopped(local(ecu), program_id,
                                          fails ? Status(make_error(Code::kIo, "runs on")) : ok_status());
              resume_if_free(ecu, program_id);
              // Who was told that they run has thawed nothing since.
              if (guarded.asked && guarded.programs.stopping_count() == 0) tell_programs_changed(ecu);
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
  const auto claim_slot = ecu.frozen->claim_slot_of(program_id);
  obey_thaw(ecu, static_cast<broker::CmsIndex>(cms), thaw);
  if (!is_here || thaw.record.slot < program->owner_epoch) return;
  if (claim_slot && *claim_slot >= thaw.record.slot) return;  // Of before it was frozen.
  guarded.programs.want_resume(program_id);
  resume_if_free(ecu, program_id);
}

}  // namespace cms::sim
