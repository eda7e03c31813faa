// Planned moves in the world of claims: who asks for them, and FrozenPrograms with an RTCR behind it at the source.
#include <utility>

#include "test/sim/claims_world.h"

namespace cms::sim {

using namespace std::chrono_literals;
using wire::ClaimRecord;

// ---- an operator, or an RTCR

void ClaimsWorld::ask_for_move() {
  Cms& cms = cms_[prng_.below(cms_.size())];
  if (cms.core == nullptr || queue_.now() < cms.paused_until) return;
  if (prng_.chance(1, 8)) return ask_for_drain(cms);
  const Lineage lineage = lineages_[prng_.below(lineages_.size())];
  std::optional<EcuMac> only;
  if (prng_.chance(1, 4)) only = ecus_[prng_.below(ecus_.size())].ecu_mac;
  const bool cancels = prng_.chance(1, 4);
  read_head(cms, lineage, [this, &cms, only, cancels](const Result<std::optional<ClaimRecord>>& head) {
    if (!head.ok() || !*head || (*head)->kind == wire::ClaimKind::kRetire) return;
    const ProgramKey program = (*head)->owner.program;
    if (verbose_) trace("cms " + cms.name + " is to move " + to_string(program));
    answer(cms, [&](core::RestoreCore& core, Instant now, core::RestoreEffects& effects) {
      (void)core.move(now, **head, only, effects);
    });
    if (!cancels) return;
    cms_after(cms, random_delay(4s), [this, &cms, program] {
      if (verbose_) trace("cms " + cms.name + " is to leave " + to_string(program) + " where it is");
      answer(cms, [&](core::RestoreCore& core, Instant now, core::RestoreEffects&) {
        (void)core.cancel_move(now, program);
      });
    });
  });
}

void ClaimsWorld::ask_for_drain(Cms& cms) {
  const EcuMac ecu_mac = ecus_[prng_.below(ecus_.size())].ecu_mac;
  if (verbose_) trace("cms " + cms.name + " is to drain " + to_string(ecu_mac));
  answer(cms, [&](core::RestoreCore& core, Instant now, core::RestoreEffects& effects) {
    core.drain_ecu(now, ecu_mac, now + 20s, effects);
  });
  cms_after(cms, random_delay(8s), [this, &cms, ecu_mac] {
    answer(cms, [&](core::RestoreCore& core, Instant now, core::RestoreEffects& effects) {
      (void)core.cancel_drain(now, ecu_mac, effects);
    });
  });
}

// ---- the source

Copy* ClaimsWorld::copy_of(const Ecu& ecu, ProgramId program_id) {
  for (Copy& copy : ledger_.copies()) {
    if (copy.running && is_of(ecu, copy) && copy.program_id == program_id) return &copy;
  }
  return nullptr;
}

void ClaimsWorld::obey_freeze(Ecu& ecu, broker::CmsIndex cms, const wire::Freeze& freeze) {
  std::optional<broker::LastCheckpoint> published;
  const Copy* copy = copy_of(ecu, freeze.program_id);
  if (copy != nullptr && copy->lineage == freeze.claim.lineage) published = last_checkpoint_of(ecu, *copy);
  broker::FreezeEffects effects;
  ecu.frozen->on_freeze(cms, freeze, published, effects);
  carry_out_freeze(ecu, effects);
}

void ClaimsWorld::obey_thaw(Ecu& ecu, broker::CmsIndex cms, const wire::Thaw& thaw) {
  broker::FreezeEffects effects;
  ecu.frozen->on_thaw(cms, thaw, effects);
  carry_out_freeze(ecu, effects);
}

void ClaimsWorld::carry_out_freeze(Ecu& ecu, const broker::FreezeEffects& effects) {
  for (const broker::FreezeEffect& effect : effects) {
    if (const auto* told = std::get_if<broker::SendFreezeReport>(&effect)) {
      for (std::size_t cms = 0; cms < cms_.size(); ++cms) {
        const auto number = static_cast<broker::CmsIndex>(cms);
        if (told->to_all || told->cms == number) report_frozen(ecu, number, told->report);
      }
    } else if (const auto* freeze = std::get_if<broker::FreezeProgram>(&effect)) {
      freeze_program(ecu, *freeze);
    } else if (const auto* thaw = std::get_if<broker::ThawProgram>(&effect)) {
      if (ecu.guarded && ecu.guarded->programs.hold(*thaw)) continue;
      Copy* copy = copy_of(ecu, thaw->program_id);
      if (copy == nullptr) continue;
      if (verbose_) trace("ecu " + to_string(ecu.session) + " thaws " + std::to_string(thaw->program_id));
      ledger_.thaw(*copy);
    }
  }
}

// As EcuCore does it; what is in the store was told to be there.
std::optional<broker::LastCheckpoint> ClaimsWorld::last_checkpoint_of(const Ecu& ecu,
                                                                      const Copy& copy) const {
  if (copy.last_seq == 0) return std::nullopt;
  Version version{ecu.session.incarnation, copy.last_seq};
  const Version former{copy.last_incarnation, copy.last_seq};
  if (nas_.find(CheckpointId{copy.key(), former}) != nullptr) version = former;
  return broker::LastCheckpoint{version, Code::kOk, copy.owner_epoch};
}

// The session has taken a new incarnation, or what was in the store is not there any more.
void ClaimsWorld::renew_frozen(Ecu& ecu) {
  broker::FreezeEffects effects;
  for (const auto& open : ecu.frozen->open()) {
    const Copy* copy = copy_of(ecu, open.program_id);
    if (copy == nullptr) continue;
    if (const auto last = last_checkpoint_of(ecu, *copy))
      ecu.frozen->on_last_checkpoint(open.program_id, *last, effects);
  }
  carry_out_freeze(ecu, effects);
}

// Again until it is in the store, in a later session under its incarnation.
void ClaimsWorld::offer_frozen(Copy& copy, StoredBlob blob) {
  Ecu& ecu = ecu_of(copy.session.ecu_mac);
  const bool there = nas_.find(blob.name.checkpoint) != nullptr;
  if (there || !is_of(ecu, copy) || ecu.session.incarnation == 0) return offer_again(copy, blob);
  if (blob.session != ecu.session) {
    blob.session = copy.session = ecu.session;
    blob.name.checkpoint.version.incarnation = copy.last_incarnation = ecu.session.incarnation;
  }
  renew_frozen(ecu);
  offer(copy, blob);
}

void ClaimsWorld::freeze_guarded(Ecu& ecu, const broker::FreezeProgram& effect) {
  const bool fails = percent(scenario_.refuse_percent);
  in_rtcr(ecu, ecu.boots, random_delay(scenario_.ecu_delay_max),
          [this, &ecu, effect, fails, life = life_of(ecu)] {
            Copy* copy = life_of(ecu) == life ? copy_of(ecu, effect.program_id) : nullptr;
            Result<Seq> seq = make_error(Code::kIo, "cannot be stopped");
            if (copy != nullptr && !fails) {
              copy->frozen = true;
              if (publish(*copy)) {
                seq = copy->last_seq;
              } else {
                copy->frozen = false;  // It runs on, unless it was stopped meanwhile.
                ledger_.check_goes_on(*copy);
              }
            }
            if (verbose_)
              trace("ecu " + to_string(ecu.session) + (seq.ok() ? " freezes " : " cannot freeze ") +
                    std::to_string(effect.program_id));
            to_broker(ecu, life, random_delay(scenario_.ecu_delay_max / 4), [this, &ecu, effect, seq] {
              const Copy* there = copy_of(ecu, effect.program_id);
              std::optional<broker::LastCheckpoint> published;
              if (there != nullptr) published = last_checkpoint_of(ecu, *there);
              broker::FreezeEffects effects;
              ecu.frozen->on_frozen(effect.id, seq, published, effects);
              carry_out_freeze(ecu, effects);
              if (ecu.guarded->programs.find(effect.program_id) != nullptr)
                resume_if_free(ecu, effect.program_id);
            });
          });
}

// The RTCR stops it, publishes what it stands at, and says so.
void ClaimsWorld::freeze_program(Ecu& ecu, const broker::FreezeProgram& effect) {
  if (ecu.guarded) return freeze_guarded(ecu, effect);
  const bool fails = percent(scenario_.refuse_percent);
  queue_.after(random_delay(scenario_.ecu_delay_max), [this, &ecu, effect, fails, session = ecu.session] {
    if (!lives(session)) return;
    Copy* copy = copy_of(ecu, effect.program_id);
    Result<Seq> seq = make_error(Code::kIo, "cannot be stopped");
    std::optional<broker::LastCheckpoint> published;
    if (copy != nullptr && !fails) {
      if (verbose_) trace("ecu " + to_string(session) + " freezes " + std::to_string(effect.program_id));
      copy->frozen = true;
      publish(*copy);
      if (plant_ == ClaimsPlant::kThawedByTime) {
        queue_.after(3s + random_delay(3s), [this, copy, session] {
          if (copy->frozen && lives(session)) ledger_.thaw(*copy);
        });
      }
      seq = copy->last_seq;
      published = broker::LastCheckpoint{Version{session.incarnation, copy->last_seq}, Code::kOk};
    }
    broker::FreezeEffects effects;
    ecu.frozen->on_frozen(effect.id, seq, published, effects);
    carry_out_freeze(ecu, effects);
  });
}

void ClaimsWorld::report_frozen(Ecu& ecu, broker::CmsIndex number, const wire::FreezeReport& told) {
  if (told.state == wire::FreezeState::kFrozen) note_step(Step::kFrozen);
  if (ecu.guarded) return say(ecu, number, told);
  Cms& cms = cms_[number];
  const int count = percent(scenario_.repeat_percent) ? 2 : 1;
  for (int i = 0; i < count; ++i) {
    if (percent(scenario_.drop_percent)) continue;
    const Duration delay = i == 0 ? random_delay(scenario_.net_delay_max) : random_delay(2s);
    cms_after(cms, delay, [this, &cms, told, from = ecu.session] {
      answer(cms, [&](core::RestoreCore& core, Instant now, core::RestoreEffects& effects) {
        core.on_freeze_report(now, from, told, effects);
      });
    });
  }
}

void ClaimsWorld::beat(Ecu& ecu) {
  queue_.after(1s, [this, &ecu, session = ecu.session] {
    if (!(ecu.session == session) || !lives(session)) return;
    for (std::size_t cms = 0; cms < cms_.size(); ++cms) {
      broker::FreezeEffects effects;
      ecu.frozen->tell(static_cast<broker::CmsIndex>(cms), effects);
      carry_out_freeze(ecu, effects);
    }
    beat(ecu);
  });
}

}  // namespace cms::sim
