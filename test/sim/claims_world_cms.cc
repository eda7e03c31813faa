// The cmsd of the world of claims: their lives, their clocks, and the shell around RestoreCore, as
// cms/daemon/restore_keeper.cc and member_keeper.cc are.
#include <algorithm>
#include <utility>

#include "test/sim/claims_world.h"

namespace cms::sim {

using namespace std::chrono_literals;
using core::RestoreCore;
using wire::ClaimKind;
using wire::ClaimRecord;

namespace {

constexpr core::MemberTimers kTimers{3s, 12s};
constexpr Duration kSilentAfter = 3s;   // Then an ECU is not taken for a target.
constexpr Duration kSessionEnds = 10s;  // Then it is forgotten.

wire::Metrics figures() {
  wire::Metrics metrics;
  metrics.cpu_count = 4;
  metrics.ram_total_bytes = 1 << 20;
  metrics.ram_available_bytes = 1 << 19;
  return metrics;
}

}  // namespace

// ---- lives

void ClaimsWorld::start_cms(Cms& cms) {
  ++cms.life;
  cms.me = core::Writer{cms.name, cms.life};
  cms.rate_permille = 900 + static_cast<std::uint32_t>(prng_.below(201));
  cms.members = std::make_unique<core::Members>(cms.me, kTimers);
  core::RestoreConfig config;
  config.me = cms.me;
  config.budget_bytes = scenario_.budget_bytes;
  config.together_max = scenario_.together_max;
  config.bulk_port = static_cast<std::uint16_t>(7400 + cms.number);
  config.seed = prng_.next();
  cms.core = std::make_unique<RestoreCore>(config, *cms.members);
  cms.sessions.clear();
  cms.known_heads.clear();
  cms.unresolved.clear();
  cms.listed.clear();
  cms.written_at.reset();
  if (verbose_) trace("cms " + cms.name + " starts, life " + std::to_string(cms.life));
  if (scenario_.leases) {
    start_leases(cms);
  } else {
    for (Ecu& ecu : ecus_) hello(ecu, cms.number, random_delay(1s));
    renew(cms);
  }
  tick_at(cms, random_delay(100ms));
}

void ClaimsWorld::crash_cms(Cms& cms) {
  if (cms.core == nullptr) return;
  if (verbose_) trace("cms " + cms.name + " crashes");
  ++cms.life;  // What it has begun is heard by nobody.
  if (scenario_.leases && prng_.chance(1, 3) && queue_.now() >= cms.away_until)  // In order: it resigns.
    nas_.write_member(queue_.now(), cms.members->next_record(1, "sim", true, cms.leases->bars()));
  cms.leases.reset();
  cms.core.reset();
  cms.members.reset();
  cms.paused_until = Instant{};
  queue_.after(random_delay(6s), [this, &cms] {
    if (cms.core == nullptr) start_cms(cms);
  });
}

Instant ClaimsWorld::local(const Cms& cms) const {
  return Instant{} + 1h + (queue_.now() - begun_at_) * static_cast<std::int64_t>(cms.rate_permille) / 1000;
}

void ClaimsWorld::run_in(Cms& cms, std::uint64_t life, const std::function<void()>& what) {
  if (cms.core == nullptr || cms.life != life) return;
  if (queue_.now() < cms.paused_until) {
    queue_.at(cms.paused_until, [this, &cms, life, what] { run_in(cms, life, what); });
    return;
  }
  what();
}

void ClaimsWorld::cms_after(Cms& cms, Duration delay, std::function<void()> what) {
  queue_.after(delay, [this, &cms, life = cms.life, what = std::move(what)] { run_in(cms, life, what); });
}

// ---- the loop

void ClaimsWorld::tick_at(Cms& cms, Duration delay) {
  const Instant at = queue_.now() + delay;
  cms.ticks_at = at;
  cms_after(cms, delay, [this, &cms, at] {
    if (cms.ticks_at == at) tick(cms);
  });
}

void ClaimsWorld::tick(Cms& cms) {
  if (plant_ == ClaimsPlant::kSelfFenceIgnored) cms.members->on_written(local(cms));
  step_cms(cms, [&](RestoreCore& core, Instant now, core::RestoreEffects& effects) {
    std::vector<core::Present> present;
    const std::vector<core::Candidate> targets = candidates(cms);
    for (const core::Candidate& one : targets) present.push_back(core::Present{one.session, one.freezes});
    core.on_time(now, 1, std::move(present), effects);
    if (core.wants_targets(now)) core.on_targets(now, targets, 0, effects);
  });
  const Duration pace = std::max<Duration>(cms.core->pace(), 60ms);
  tick_at(cms, pace / 2 + random_delay(pace));
}

// Its member record: written, then the others' are read.
void ClaimsWorld::renew(Cms& cms) {
  const Instant sent_at = local(cms);
  const wire::MemberRecord record = cms.members->next_record(1, "sim", false);
  cms_after(cms, store_delay(), [this, &cms, sent_at, record] {
    const bool written = !store_fails(cms);
    if (written) nas_.write_member(queue_.now(), record);
    cms_after(cms, store_delay(), [this, &cms, sent_at, written] {
      if (written) {
        cms.members->on_written(sent_at);
        cms.written_at = std::max(cms.written_at.value_or(sent_at), sent_at);
      }
      const Instant begun_at = local(cms);
      cms_after(cms, store_delay(), [this, &cms, begun_at] {
        if (!store_fails(cms)) {
          std::vector<core::Members::Seen> seen;
          for (const auto& [key, there] : nas_.members()) {
            const bool cached = plant_ == ClaimsPlant::kLivingClaimerOvertaken;
            const auto first = cms.first_seen.emplace(key, there).first;
            seen.push_back(core::Members::Seen{key.first, key.second, cached ? first->second : there});
          }
          cms.members->on_read(begun_at, local(cms), seen);
        }
        cms_after(cms, 700ms, [this, &cms] { renew(cms); });
      });
    });
  });
}

std::vector<core::Candidate> ClaimsWorld::candidates(const Cms& cms) const {
  std::vector<core::Candidate> all;
  for (const auto& [ecu_mac, session] : cms.guarded) {
    const Instant now = local(cms);
    core::Candidate candidate;
    candidate.session = session.id;
    candidate.live = now - session.heard_at <= kSilentAfter && cms.leases->may_be_leased(now, session.id);
    candidate.enforced = session.enforcer != wire::Enforcer::kNone;
    candidate.takes_restores = true;
    candidate.freezes = true;
    candidate.metrics = figures();
    candidate.metrics->draining = cms.leases->in_maintenance(ecu_mac);
    all.push_back(std::move(candidate));
  }
  if (scenario_.leases) return all;
  for (const auto& [ecu_mac, session] : cms.sessions) {
    const auto ecu = std::find_if(ecus_.begin(), ecus_.end(),
                                  [&, mac = ecu_mac](const Ecu& one) { return one.ecu_mac == mac; });
    const bool there = ecu->session == session && ecu->state != Ecu::State::kDown;
    const Duration silent = there ? Duration{} : queue_.now() - ecu->down_at;
    if (silent > kSessionEnds) continue;
    core::Candidate candidate;
    candidate.session = session;
    candidate.live = silent < kSilentAfter;
    candidate.takes_restores = true;
    candidate.freezes = true;
    candidate.metrics = figures();
    all.push_back(std::move(candidate));
  }
  return all;
}

// ---- effects

void ClaimsWorld::carry_out(Cms& cms, core::RestoreEffects& effects) {
  for (const core::RestoreEffect& effect : effects) {
    std::visit([&](const auto& one) { carry_out_one(cms, one); }, effect);
  }
}

void ClaimsWorld::carry_out_one(Cms& cms, const core::ScanLogs& effect) {
  cms_after(cms, store_delay(), [this, &cms, effect] {
    Result<std::vector<ClaimRecord>> answered = make_error(Code::kUnavailable, "the NAS does not answer");
    if (!store_fails(cms)) {
      std::vector<ClaimRecord> heads;
      for (const Lineage& lineage : nas_.lineages()) {
        if (const ClaimRecord* head = nas_.head(lineage)) heads.push_back(*head);
      }
      answered = std::move(heads);
    }
    if (plant_ == ClaimsPlant::kOwnerNotCompared && answered.ok() && !effect.ecu_macs.empty()) {
      // As from an index that does not know of moves: all that was ever begun there.
      for (ClaimRecord& head : *answered) {
        const ClaimRecord* first = nas_.record(head.lineage, 1);
        if (first != nullptr && effect.ecu_macs.count(first->owner.program.ecu_mac) != 0) head = *first;
      }
    }
    if (plant_ == ClaimsPlant::kMoveTakenOverAsLoss && answered.ok()) {
      for (ClaimRecord& head : *answered) {
        if (head.kind == ClaimKind::kClaim) head.reason = wire::ClaimReason::kVouched;
      }
    }
    cms_after(cms, store_delay(), [this, &cms, effect, answered] {
      answer(cms, [&](RestoreCore& core, Instant now, core::RestoreEffects& effects) {
        core.on_logs_scanned(now, effect, answered, effects);
      });
    });
  });
}

void ClaimsWorld::carry_out_one(Cms& cms, const core::ReadHeads& effect) {
  read_heads(cms, effect, std::vector<std::optional<ClaimRecord>>{});
}

void ClaimsWorld::read_heads(Cms& cms, const core::ReadHeads& effect,
                             std::vector<std::optional<ClaimRecord>> heads) {
  const auto tell = [this, &cms, effect](const Result<std::vector<std::optional<ClaimRecord>>>& read) {
    answer(cms, [&](RestoreCore& core, Instant now, core::RestoreEffects& effects) {
      core.on_heads(now, effect, read, effects);
    });
  };
  if (heads.size() == effect.lineages.size()) {
    if (plant_ == ClaimsPlant::kLostThawed) {  // As if its present session owned it.
      for (auto& head : heads) {
        const auto session = cms.sessions.find(effect.ecu_mac);
        if (head && session != cms.sessions.end()) head->owner.incarnation = session->second.incarnation;
      }
    }
    return cms_after(cms, Duration::zero(), [tell, heads = std::move(heads)] { tell(heads); });
  }
  const Lineage lineage = effect.lineages[heads.size()];
  read_head(cms, lineage,
            [this, &cms, effect, tell,
             heads = std::move(heads)](const Result<std::optional<ClaimRecord>>& head) mutable {
              if (!head.ok()) return tell(head.error());
              heads.push_back(*head);
              read_heads(cms, effect, std::move(heads));
            });
}

void ClaimsWorld::carry_out_one(Cms& cms, const core::ReadHead& effect) {
  const Lineage lineage = effect.lineage;
  if (plant_ == ClaimsPlant::kListedBeforeClaim && cms.listed.count(lineage) == 0) {
    cms.listed[lineage] = nas_.list(lineage);
  }
  read_head(cms, lineage, [this, &cms, lineage](const Result<std::optional<ClaimRecord>>& record) {
    Result<RestoreCore::Head> answered = RestoreCore::Head{};
    if (!record.ok()) {
      answered = record.error();
    } else if (*record) {
      RestoreCore::Head head;
      head.record = *record;
      if (head.record->kind == ClaimKind::kAct) {
        const ClaimRecord* claim = nas_.record(lineage, head.record->claim_slot);
        if (claim == nullptr) violated("ACT without its CLAIM");
        head.claim_uid = claim->uid;
      }
      head.has_own_checkpoint = ledger_.has_stored(*head.record);
      const auto restore = cms.core->restores().find(lineage);
      if (plant_ == ClaimsPlant::kOwnerNotCompared && restore != cms.core->restores().end()) {
        head.record->owner = restore->second.replaces;
      }
      answered = std::move(head);
    }
    answer(cms, [&](RestoreCore& core, Instant now, core::RestoreEffects& effects) {
      core.on_head(now, lineage, answered, effects);
    });
  });
}

// Invariant: who has not renewed its record in time neither claims nor acts.
void ClaimsWorld::carry_out_one(Cms& cms, const core::AppendRecord& effect) {
  const bool acts = effect.record.kind == ClaimKind::kClaim || effect.record.kind == ClaimKind::kAct;
  if (acts && (!cms.written_at || local(cms) - *cms.written_at >= kTimers.self_fence)) {
    violated("a CMS whose record is old appends " + describe(effect.record));
  }
  const auto known = cms.core->restores().find(effect.record.lineage);
  const bool restarts = known != cms.core->restores().end() && known->second.restarts;
  if (restarts && effect.record.kind == ClaimKind::kAct && effect.record.target != *known->second.restarts)
    violated("what its RTCR has asked for is to run elsewhere: " + describe(effect.record));
  ledger_.check_take_over(queue_.now(), nas_.head(effect.record.lineage), effect.record);
  append(cms, effect.record);
  if (plant_ == ClaimsPlant::kGoUnderClaim && effect.record.kind == ClaimKind::kAct) {
    const auto& restore = cms.core->restores().at(effect.record.lineage);
    const wire::ClaimRef claim{restore.lineage, effect.record.claim_slot, restore.claim_uid};
    command(cms.number, effect.record.target, wire::Go{claim, effect.record.slot, effect.record.uid});
  }
}

void ClaimsWorld::carry_out_one(Cms& cms, const core::SendToTarget& effect) {
  const auto session = cms.sessions.find(effect.target.ecu_mac);
  if (session == cms.sessions.end() || !(session->second == effect.target)) return;
  if (std::holds_alternative<wire::Go>(effect.body)) note_step(Step::kGone);
  if (scenario_.leases) {
    return send(cms, cms.guarded.at(effect.target.ecu_mac).peer, effect.target.incarnation, effect.body);
  }
  command(cms.number, effect.target, effect.body);
  const auto* go = std::get_if<wire::Go>(&effect.body);
  if (plant_ != ClaimsPlant::kDoneBeforeAnswer || go == nullptr) return;
  wire::RestoreReport early;
  early.claim = go->claim;
  early.act_uid = go->act_uid;
  early.state = wire::RestoreState::kRunning;
  early.program_id = 99;
  cms_after(cms, Duration{}, [this, &cms, early, from = effect.target] { on_report(cms, from, early); });
}

void ClaimsWorld::carry_out_one(Cms& cms, const core::SendToSource& effect) {
  const auto session = cms.sessions.find(effect.program.ecu_mac);
  if (scenario_.leases && session != cms.sessions.end()) {
    return send(cms, cms.guarded.at(effect.program.ecu_mac).peer, session->second.incarnation, effect.body);
  }
  if (session != cms.sessions.end()) command(cms.number, session->second, effect.body);
}

void ClaimsWorld::carry_out_one(Cms& cms, const core::ReadFrozen& effect) {
  read_head(cms, effect.lineage,
            [this, &cms, lineage = effect.lineage](const Result<std::optional<ClaimRecord>>& record) {
              Result<RestoreCore::Head> head = RestoreCore::Head{};
              if (record.ok()) {
                head->record = *record;
              } else {
                head = record.error();
              }
              answer(cms, [&](RestoreCore& core, Instant now, core::RestoreEffects& effects) {
                core.on_frozen_head(now, lineage, head, effects);
              });
            });
}

void ClaimsWorld::carry_out_one(Cms&, const core::AskTargets&) {}

// As CmsCore does it: whoever still sends under the former owner is told that it has moved on.
void ClaimsWorld::carry_out_one(Cms& cms, const core::OwnerChanged& effect) {
  if (scenario_.leases) return tell_fenced(cms, effect.from.program, effect.lineage, effect.to.owner_epoch);
  const auto session = cms.sessions.find(effect.from.program.ecu_mac);
  if (session == cms.sessions.end() || session->second.incarnation != effect.from.incarnation) return;
  for (Copy& copy : ledger_.copies()) {
    if (copy.lineage == effect.lineage && copy.session == session->second &&
        copy.owner_epoch < effect.to.owner_epoch) {
      fence(copy);
    }
  }
}

void ClaimsWorld::carry_out_one(Cms& cms, const core::RestoreEvent& effect) {
  if (verbose_) trace("cms " + cms.name + ": " + effect.text);
}

void ClaimsWorld::on_report(Cms& cms, const SessionId& from, wire::RestoreReport told) {
  answer(cms, [&](RestoreCore& core, Instant now, core::RestoreEffects& effects) {
    core.on_report(now, from, told, effects);
  });
}

}  // namespace cms::sim
