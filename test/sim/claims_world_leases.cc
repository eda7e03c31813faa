// Run leases at the cmsd: the shell around Leases as cms/daemon/lease_keeper.cc and member_keeper.cc are, and guarded sessions
// as CmsCore has them.
#include <algorithm>
#include <utility>

#include "cms/core/ecu_log.h"
#include "test/sim/claims_world.h"

namespace cms::sim {

using namespace std::chrono_literals;
using core::Leases;
using core::RestoreCore;
using wire::EcuRecord;

namespace {

constexpr core::LeaseTimers kLeaseTimers{5s, 8s};
constexpr Duration kTurn = 250ms;
constexpr Duration kSessionEnds = 8s;  // At a CMS that does not hear it.
constexpr Duration kTwinRefused = 2s;  // So lately heard, nobody else gets in.

}  // namespace

void ClaimsWorld::start_leases(Cms& cms) {
  cms.renewed = std::make_unique<core::Members>(cms.me, cms.members->timers());
  const bool planted = plant_ == ClaimsPlant::kGrantsWithoutRecord;
  cms.leases =
      std::make_unique<Leases>(cms.me, kLeaseTimers, planted ? *cms.renewed : *cms.members, prng_.next());
  cms.guarded.clear();
  cms.hellos_in_work.clear();
  cms.fences.clear();
  cms.unresolved_ecu.clear();
  for (auto& lane : cms.lanes) lane.clear();
  cms.renewing = false;
  cms.renew_wanted = false;
  ++cms.round;
  cms.good.clear();
  cms.handed_over.clear();
  renew_with_bars(cms);
  tick_leases(cms);
}

void ClaimsWorld::tick_leases(Cms& cms) {
  std::vector<SessionId> silent;
  for (const auto& [ecu_mac, session] : cms.guarded) {
    if (local(cms) - session.heard_at >= kSessionEnds) silent.push_back(session.id);
  }
  for (const SessionId& session : silent) end_guarded(cms, session);
  step_leases(cms, [&](Leases& leases, Instant now, core::LeaseEffects& effects) {
    leases.on_time(now, 1, effects);
  });
  cms_after(cms, kTurn, [this, &cms] { tick_leases(cms); });
}

// ---- the member record, with bars

void ClaimsWorld::renew_with_bars(Cms& cms) {
  if (cms.renewing) return;
  cms.renewing = true;
  ++cms.round;
  const Instant begun_at = queue_.now();
  const Instant sent_at = local(cms);
  const std::vector<SessionId> bars = cms.leases->bars();
  const wire::MemberRecord record = cms.members->next_record(1, "sim", false, bars);
  // A WRITE may hang for as long as the NAS is away, and be done then.
  const bool hangs = queue_.now() < cms.away_until && prng_.below(100) < scenario_.write_hangs_percent;
  const Duration delay = store_delay() + (hangs ? cms.away_until - queue_.now() : Duration::zero());
  cms_after(cms, delay, [this, &cms, begun_at, sent_at, bars, record] {
    const bool unanswered = queue_.now() < cms.unanswered_until && queue_.now() >= cms.away_until;
    bool written = unanswered || !store_fails(cms);
    if (written) {
      nas_.write_member(queue_.now(), record);
      cms.record_at = queue_.now();
      if (!bars.empty()) note_step(Step::kBarred);
      written = !unanswered && !percent(scenario_.store_fail_percent);  // Else its reply is lost.
    }
    cms_after(cms, store_delay(), [this, &cms, begun_at, sent_at, bars, written] {
      const Instant durable_at = local(cms);
      const Instant read_at = local(cms);
      cms_after(cms, store_delay(), [this, &cms, begun_at, sent_at, bars, written, durable_at, read_at] {
        const bool read = !store_fails(cms);
        const std::vector<core::Members::Seen> seen = members_seen(cms);
        const Instant ended_at = local(cms);
        cms_after(cms, random_delay(20ms),
                  [this, &cms, begun_at, sent_at, bars, written, durable_at, read_at, ended_at, read, seen] {
                    if (written) {
                      cms.members->on_written(sent_at);
                      cms.written_at = std::max(cms.written_at.value_or(sent_at), sent_at);
                      cms.leases->on_member_written(sent_at, durable_at, local(cms), bars);
                    }
                    if (read || plant_ == ClaimsPlant::kHelloIsNoLife) {
                      cms.members->on_read(read_at, ended_at, seen);
                      cms.renewed->on_read(read_at, ended_at, seen);
                      step_leases(cms, [&](Leases& leases, Instant now, core::LeaseEffects& effects) {
                        leases.on_members_read(read_at, now, effects);
                      });
                    }
                    end_round(cms, begun_at);
                  });
      });
    });
  });
}

// The next one begins a second after this one did, or at once if Leases wants that.
void ClaimsWorld::end_round(Cms& cms, Instant begun_at) {
  cms.renewing = false;
  if (std::exchange(cms.renew_wanted, false)) return renew_with_bars(cms);
  const Duration rest = std::max<Duration>(begun_at + 1s - queue_.now(), 10ms);
  cms_after(cms, rest, [this, &cms, round = cms.round] {
    if (cms.round == round) renew_with_bars(cms);
  });
}

std::vector<core::Members::Seen> ClaimsWorld::members_seen(const Cms& cms) const {
  std::vector<core::Members::Seen> seen;
  for (const auto& [key, there] : nas_.members()) {
    wire::MemberRecord record = there;
    const auto living = std::find_if(cms_.begin(), cms_.end(),
                                     [&, name = key.first](const Cms& one) { return one.name == name; });
    const bool dead = living->core == nullptr || living->me.incarnation != key.second;
    const bool others = living->number != cms.number || dead;
    // For these it is as if they barred all that we bar.
    if ((plant_ == ClaimsPlant::kDeadAtOnce && dead) || (plant_ == ClaimsPlant::kBarsNotAwaited && others)) {
      record.bars = cms.leases->bars();
      record.counter += 1'000'000'000;
    }
    if (plant_ == ClaimsPlant::kBarsOverlooked) record.bars.clear();
    seen.push_back(core::Members::Seen{key.first, key.second, record});
  }
  return seen;
}

// ---- effects

void ClaimsWorld::carry_out_lease(Cms& cms, const core::ListEcuLogs&) {
  const Instant asked_at = local(cms);
  cms_after(cms, store_delay(), [this, &cms, asked_at] {
    const bool fails = store_fails(cms);
    std::vector<EcuRecord> heads;
    for (const EcuMac ecu_mac : nas_.ecu_macs()) heads.push_back(*nas_.head(ecu_mac));
    if (plant_ == ClaimsPlant::kMaintenanceOverlooked) {
      for (EcuRecord& head : heads) head.maintenance = false;
    }
    cms_after(cms, store_delay(), [this, &cms, asked_at, fails, heads] {
      Result<std::vector<EcuRecord>> listed = std::vector<EcuRecord>{};
      for (const EcuRecord& head : heads) {
        if (nas_.sync(head)) listed->push_back(head);
      }
      if (fails) listed = make_error(Code::kUnavailable, "the NAS does not answer");
      step_leases(cms, [&](Leases& leases, Instant now, core::LeaseEffects& effects) {
        leases.on_listed(asked_at, now, listed, effects);
      });
      act_without_look(cms);
    });
  });
}

void ClaimsWorld::carry_out_lease(Cms& cms, const core::ReadEcuLogs& effect) {
  for (const EcuMac ecu_mac : effect.ecu_macs) {
    in_lane(cms, ecu_mac, [this, &cms, ecu_mac] {
      read_ecu_head(cms, ecu_mac,
                    [this, &cms, ecu_mac](Instant asked_at, const Result<std::optional<EcuRecord>>& head) {
                      step_leases(cms, [&](Leases& leases, Instant now, core::LeaseEffects& effects) {
                        leases.on_head(asked_at, now, ecu_mac, head, effects);
                      });
                      act_without_look(cms);
                      lane_done(cms, ecu_mac);
                    });
    });
  }
}

ClaimsWorld::EcuAppendThen ClaimsWorld::when_appended(Cms& cms, EcuMac ecu_mac) {
  return [this, &cms, ecu_mac](const Result<Leases::AppendEnd>& end, std::uint64_t attempt) {
    step_leases(cms, [&](Leases& leases, Instant now, core::LeaseEffects& effects) {
      leases.on_appended(now, ecu_mac, end, attempt, effects);
    });
    act_without_look(cms);
    lane_done(cms, ecu_mac);
  };
}

void ClaimsWorld::carry_out_lease(Cms& cms, const core::AppendEcuRecord& effect) {
  in_lane(cms, effect.record.ecu_mac, [this, &cms, record = effect.record] {
    append_ecu(cms, record, when_appended(cms, record.ecu_mac));
  });
}

void ClaimsWorld::carry_out_lease(Cms& cms, const core::SettleEcuAppend& effect) {
  in_lane(cms, effect.ecu_mac,
          [this, &cms, effect] { settle_ecu(cms, effect.attempt, when_appended(cms, effect.ecu_mac)); });
}

void ClaimsWorld::carry_out_lease(Cms& cms, const core::RenewMember&) {
  cms.renew_wanted = cms.renewing;
  if (!cms.renewing) cms_after(cms, Duration::zero(), [this, &cms] { renew_with_bars(cms); });
}

void ClaimsWorld::carry_out_lease(Cms& cms, const core::GuardedEnded& effect) {
  if (verbose_) trace("cms " + cms.name + ": " + to_string(effect.session) + " ends: " + effect.why);
  end_guarded(cms, effect.session);
}

void ClaimsWorld::carry_out_lease(Cms& cms, const core::MaintenanceChanged& effect) {
  if (plant_ == ClaimsPlant::kMaintenanceEndUnheeded) return;
  const auto session = cms.guarded.find(effect.session.ecu_mac);
  if (session != cms.guarded.end() && session->second.id == effect.session)
    reconcile(cms, effect.session.ecu_mac);
}

void ClaimsWorld::carry_out_lease(Cms& cms, const core::SessionLost& effect) {
  lose_session(cms, effect.record);
}

void ClaimsWorld::carry_out_lease(Cms& cms, const core::LeaseEvent& effect) {
  if (verbose_) trace("cms " + cms.name + ": " + effect.text);
}

void ClaimsWorld::lose_session(Cms& cms, const EcuRecord& record) {
  if (!cms.handed_over.insert(core::session_of(record)).second) return;
  if (verbose_) trace("cms " + cms.name + " acts on " + describe(record));
  ledger_.on_loss_acted_upon(core::session_of(record), queue_.now());
  step_cms(cms, [&](RestoreCore& core, Instant now, core::RestoreEffects& effects) {
    core.lose_session(now, record, effects);
  });
  tick_at(cms, Duration{});
}

// kLossWithoutLook: LOST is acted upon as soon as it is read.
void ClaimsWorld::act_without_look(Cms& cms) {
  if (plant_ != ClaimsPlant::kLossWithoutLook) return;
  std::vector<EcuRecord> lost;
  for (const auto& [ecu_mac, ecu] : cms.leases->ecus()) {
    if (ecu.head.kind == wire::EcuRecordKind::kLost) lost.push_back(ecu.head);
  }
  for (const EcuRecord& record : lost) lose_session(cms, record);
}

// ---- sessions

void ClaimsWorld::send(Cms& cms, const Peer& peer, Incarnation incarnation, const wire::ControlBody& body) {
  if (peer.twin) return;
  to_ecu(cms.number, peer, [this, peer, number = cms.number, incarnation, body] {
    hear(ecus_[peer.ecu], number, incarnation, body);
  });
}

void ClaimsWorld::to_ecu(std::size_t number, const Peer& peer, std::function<void()> what) {
  Ecu& ecu = ecus_[peer.ecu];
  Link& link = ecu.guarded->links[number];
  if (queue_.now() < link.in_cut_until || percent(scenario_.drop_percent)) return;
  link.in_last_at = std::max(link.in_last_at, queue_.now() + random_delay(scenario_.net_delay_max));
  queue_.at(link.in_last_at, [this, &ecu, number, peer, life = life_of(ecu), what = std::move(what)] {
    const Link& at = ecu.guarded->links[number];
    if (queue_.now() < at.in_cut_until || at.connection != peer.connection) return;
    to_broker(ecu, life, Duration::zero(), what);
  });
}

void ClaimsWorld::on_control(Cms& cms, const Peer& peer, Incarnation incarnation,
                             const wire::ControlBody& body) {
  if (const auto* hello = std::get_if<wire::Hello>(&body)) return on_hello(cms, peer, *hello);
  const auto known = cms.guarded.find(ecus_[peer.ecu].ecu_mac);
  if (known == cms.guarded.end() || !(known->second.peer == peer) ||
      known->second.id.incarnation != incarnation) {
    if (std::holds_alternative<wire::Bye>(body)) return;
    wire::HelloAnswer answer;
    answer.code = Code::kNotFound;
    return send(cms, peer, incarnation, answer);
  }
  GuardedSession& session = known->second;
  session.heard_at = local(cms);
  const SessionId id = session.id;
  if (const auto* beat = std::get_if<wire::Heartbeat>(&body)) {
    on_heartbeat(cms, session, *beat);
  } else if (const auto* report = std::get_if<wire::RestoreReport>(&body)) {
    on_report(cms, id, *report);
  } else if (const auto* frozen = std::get_if<wire::FreezeReport>(&body)) {
    answer(cms, [&](RestoreCore& core, Instant now, core::RestoreEffects& effects) {
      core.on_freeze_report(now, id, *frozen, effects);
    });
  } else if (const auto* programs = std::get_if<wire::Programs>(&body)) {
    answer(cms, [&](RestoreCore& core, Instant now, core::RestoreEffects& effects) {
      core.on_programs(now, id, *programs, effects);
    });
  } else if (const auto* migrate = std::get_if<wire::Migrate>(&body)) {
    on_own_asked(cms, id, *migrate);
  } else if (std::holds_alternative<wire::Bye>(body)) {
    step_leases(cms, [&](Leases& leases, Instant now, core::LeaseEffects& effects) {
      leases.on_bye(now, id, effects);
    });
    end_guarded(cms, id);
  }
}

void ClaimsWorld::on_heartbeat(Cms& cms, GuardedSession& session, const wire::Heartbeat& heartbeat) {
  const SessionId id = session.id;
  const Peer peer = session.peer;
  const bool ended = heartbeat.programs_changed > session.programs_changed;
  session.programs_changed = std::max(session.programs_changed, heartbeat.programs_changed);
  cms.renewed->on_written(local(cms));
  bool leased = false;
  step_leases(cms, [&](Leases& leases, Instant now, core::LeaseEffects& effects) {
    leased = leases.on_heartbeat(now, id, effects);
  });
  note_good(cms, id);
  send(cms, peer, id.incarnation, wire::HeartbeatAnswer{heartbeat.number, 0, leased});
  if (ended) reconcile(cms, id.ecu_mac);
}

void ClaimsWorld::note_good(Cms& cms, const SessionId& session) {
  Good& good = cms.good[session.ecu_mac];
  const EcuRecord* head = cms.leases->head_of(session.ecu_mac);
  const bool goes_on = good.session == session && queue_.now() - good.heard_at < 3s;
  good.session = session;
  good.heard_at = queue_.now();
  const bool renewed = queue_.now() - cms.record_at < 3s;
  if (!goes_on || !renewed || head == nullptr || core::session_of(*head) != session)
    good.since = queue_.now();
}

void ClaimsWorld::on_hello(Cms& cms, const Peer& peer, const wire::Hello& hello) {
  const auto known = cms.guarded.find(hello.ecu_mac);
  const bool same_client = known != cms.guarded.end() && known->second.peer == peer;
  // kHelloIsNoLife: a session that cannot begin yet counts as silent.
  if (peer.twin ? plant_ != ClaimsPlant::kTwinsAdmitted : plant_ != ClaimsPlant::kHelloIsNoLife) {
    const Status may = cms.leases->on_hello(local(cms), hello, same_client);
    if (!may.ok()) return refuse_hello(cms, peer, hello, may.code());
  }
  if (peer.twin) violated("a second client with the ecu_mac " + to_string(hello.ecu_mac) + " is let in");
  if (known != cms.guarded.end()) {
    GuardedSession& session = known->second;
    if (session.nonce == hello.nonce &&
        (hello.incarnation == 0 || hello.incarnation == session.id.incarnation)) {
      session.peer = peer;
      session.heard_at = local(cms);
      return answer_hello(cms, session);
    }
    if (hello.incarnation != 0 && hello.incarnation == session.id.incarnation)
      return refuse_hello(cms, peer, hello, Code::kAlreadyExists);
  }
  const auto [in_work, first] = cms.hellos_in_work.try_emplace({peer, hello.nonce}, hello.incarnation);
  if (!first && in_work->second == hello.incarnation) return;
  in_work->second = hello.incarnation;
  const Incarnation incarnation_min = hello.incarnation != 0 ? hello.incarnation : 1;
  in_lane(cms, hello.ecu_mac, [this, &cms, peer, hello, incarnation_min] {
    record_hello(cms, hello, incarnation_min, 0,
                 [this, &cms, peer, hello](Instant asked_at, const Result<EcuRecord>& head) {
                   if (head.ok()) {
                     step_leases(cms, [&](Leases& leases, Instant now, core::LeaseEffects& effects) {
                       leases.on_head(asked_at, now, head->ecu_mac, std::optional(*head), effects);
                     });
                   }
                   on_hello_recorded(cms, peer, hello, head);
                   lane_done(cms, hello.ecu_mac);
                 });
  });
}

void ClaimsWorld::on_hello_recorded(Cms& cms, const Peer& peer, const wire::Hello& hello,
                                    const Result<EcuRecord>& head) {
  const auto in_work = cms.hellos_in_work.find({peer, hello.nonce});
  if (in_work == cms.hellos_in_work.end() || in_work->second != hello.incarnation) return;
  cms.hellos_in_work.erase(in_work);
  if (!head.ok()) return refuse_hello(cms, peer, hello, head.error().code);
  const SessionId id = core::session_of(*head);
  const auto known = cms.guarded.find(id.ecu_mac);
  if (known != cms.guarded.end() && known->second.id == id) {
    known->second.peer = peer;
    known->second.heard_at = local(cms);
    return answer_hello(cms, known->second);
  }
  GuardedSession fresh;
  fresh.id = id;
  fresh.nonce = hello.nonce;
  fresh.enforcer = hello.enforcer;
  fresh.peer = peer;
  fresh.heard_at = local(cms);
  cms.guarded[id.ecu_mac] = fresh;
  cms.sessions[id.ecu_mac] = id;
  answer_hello(cms, fresh);
  reconcile(cms, id.ecu_mac);
}

void ClaimsWorld::answer_hello(Cms& cms, const GuardedSession& session) {
  wire::HelloAnswer answer;
  answer.nonce = session.nonce;
  answer.incarnation = session.id.incarnation;
  answer.lease_ms = 5000;
  send(cms, session.peer, session.id.incarnation, answer);
  for (const auto& [program, fence] : cms.fences) {
    if (program.ecu_mac == session.id.ecu_mac) send_fenced(cms, session, program, fence);
  }
}

void ClaimsWorld::refuse_hello(Cms& cms, const Peer& peer, const wire::Hello& hello, Code code) {
  wire::HelloAnswer answer;
  answer.nonce = hello.nonce;
  answer.code = code;
  send(cms, peer, hello.incarnation, answer);
}

void ClaimsWorld::end_guarded(Cms& cms, const SessionId& session) {
  const auto known = cms.guarded.find(session.ecu_mac);
  if (known == cms.guarded.end() || known->second.id != session) return;
  cms.guarded.erase(known);
  cms.sessions.erase(session.ecu_mac);
}

void ClaimsWorld::reconcile(Cms& cms, EcuMac ecu_mac) {
  const auto session = cms.guarded.find(ecu_mac);
  const EcuRecord* head = cms.leases->head_of(ecu_mac);
  if (session == cms.guarded.end() || head == nullptr || core::session_of(*head) != session->second.id)
    return;
  const EcuRecord record = *head;
  answer(cms, [&](RestoreCore& core, Instant now, core::RestoreEffects& effects) {
    core.reconcile(now, core::session_of(record), record, effects);
  });
}

// ---- fences

void ClaimsWorld::tell_fenced(Cms& cms, const ProgramKey& program, const Lineage& lineage,
                              OwnerEpoch owner_epoch) {
  Cms::Fence& fence = cms.fences[program];
  fence = Cms::Fence{lineage, owner_epoch};
  const auto session = cms.guarded.find(program.ecu_mac);
  if (session != cms.guarded.end()) send_fenced(cms, session->second, program, fence);
}

void ClaimsWorld::send_fenced(Cms& cms, const GuardedSession& session, const ProgramKey& program,
                              const Cms::Fence& fence) {
  if (session.peer.twin) return;
  to_ecu(cms.number, session.peer, [this, ecu = session.peer.ecu, program, fence] {
    hear_fenced(ecus_[ecu], program, fence.lineage, fence.owner_epoch);
  });
}

}  // namespace cms::sim
