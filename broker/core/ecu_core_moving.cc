// The EcuCore of a source: programs that are frozen to be moved to another ECU; and asking for such moves.
#include <utility>

#include "broker/core/ecu_core.h"

#include "base/digest.h"

namespace cms::broker {

// ---- freezing

void EcuCore::on_move_command(Instant now, CmsIndex cms, const wire::ControlBody& body, Effects& effects) {
  if (const auto* thaw = std::get_if<wire::Thaw>(&body)) {
    on_thaw(now, cms, *thaw, effects);
    return;
  }
  if (!may_run_more()) return;  // The CMS repeats it.
  FreezeEffects freeze_effects;
  if (const auto& freeze = std::get<wire::Freeze>(body); config_.freezes) {
    frozen_.on_freeze(cms, freeze, last_checkpoint_of(freeze.program_id, freeze.claim.lineage),
                      freeze_effects);
  } else {
    wire::FreezeReport report;
    report.claim = freeze.claim;
    report.program_id = freeze.program_id;
    report.state = wire::FreezeState::kRefused;
    report.code = Code::kUnsupported;
    report.context = "this RTCR cannot freeze programs";
    freeze_effects.push_back(SendFreezeReport{cms, false, std::move(report)});
  }
  pass_on(freeze_effects, effects);
}

void EcuCore::on_frozen(FreezeId id, const Result<Seq>& last_seq, Effects& effects) {
  if (stopped_) return;
  const auto freezing = frozen_.find(id);
  if (!freezing) return;  // It has ended here.
  FreezeEffects freeze_effects;
  frozen_.on_frozen(id, last_seq, last_checkpoint_of(freezing->program_id, freezing->lineage),
                    freeze_effects);
  pass_on(freeze_effects, effects);
  resume_if_free(freezing->program_id, effects);
}

void EcuCore::pass_on(const FreezeEffects& freeze_effects, Effects& effects) {
  for (const FreezeEffect& effect : freeze_effects) {
    if (const auto* sent = std::get_if<SendFreezeReport>(&effect)) {
      for (CmsIndex cms = 0; cms < cms_.size(); ++cms) {
        if (sent->cms == cms || (sent->to_all && cms_[cms].state == CmsState::kLive))
          effects.push_back(SendControl{cms, wire::ControlMessage{incarnation_, sent->report}});
      }
    } else if (const auto* freeze = std::get_if<FreezeProgram>(&effect)) {
      effects.push_back(*freeze);
    } else if (const auto& thaw = std::get<ThawProgram>(effect); !programs_.hold(thaw)) {
      effects.push_back(thaw);
    }
  }
}

std::optional<LastCheckpoint> EcuCore::last_checkpoint_of(ProgramId program_id, Lineage lineage) const {
  const auto found = lives_.find(program_id);
  if (found == lives_.end()) return std::nullopt;
  const Life& life = found->second;
  if (life.fenced || life.ended || lineage_of_life(program_id, life) != lineage) return std::nullopt;
  // What is held is announced again under an incarnation that the session takes later.
  const Incarnation incarnation = life.stored_under != 0 ? life.stored_under : incarnation_;
  return LastCheckpoint{Version{incarnation, life.last_seq}, life.lost, life.owner_epoch};
}

// `stored_under` 0: it was given up.
void EcuCore::note_last_ended(ProgramId program_id, Seq seq, Incarnation stored_under, Code code,
                              Effects& effects) {
  const auto found = lives_.find(program_id);
  if (found == lives_.end() || found->second.last_seq != seq) return;
  Life& life = found->second;
  life.stored_under = stored_under;
  if (stored_under == 0) life.lost = code == Code::kOk ? Code::kProtocol : code;
  if (!frozen_.is_frozen(program_id)) return;
  const auto last = last_checkpoint_of(program_id, lineage_of_life(program_id, life));
  if (!last) return;
  FreezeEffects freeze_effects;
  frozen_.on_last_checkpoint(program_id, *last, freeze_effects);
  pass_on(freeze_effects, effects);
}

void EcuCore::tell_frozen(CmsIndex cms, Effects& effects) {
  FreezeEffects freeze_effects;
  frozen_.tell(cms, freeze_effects);
  pass_on(freeze_effects, effects);
}

// The session has taken a new incarnation.
void EcuCore::renew_frozen(Effects& effects) {
  FreezeEffects freeze_effects;
  for (const auto& open : frozen_.open()) {
    if (const auto last = last_checkpoint_of(open.program_id, open.lineage))
      frozen_.on_last_checkpoint(open.program_id, *last, freeze_effects);
  }
  pass_on(freeze_effects, effects);
}

// ---- asking for a move

Status EcuCore::request_migration(Instant now, std::uint64_t request_id, ProgramId program_id,
                                  const std::optional<EcuMac>& to, Effects& effects) {
  if (migrations_.size() >= kMigrationCountMax) {
    return make_error(Code::kLimit,
                      std::to_string(kMigrationCountMax) + " requests of migrations wait for an answer");
  }
  if (config_.guarded && to == config_.ecu_mac && programs_.find(program_id) != nullptr)
    return make_error(Code::kPermission,
                      "program " + std::to_string(program_id) + " runs here, as far as was told");
  Migration& migration = migrations_[request_id];
  migration.message.request_id = request_id;
  migration.message.program_id = program_id;
  const auto life = lives_.find(program_id);
  if (life != lives_.end() && !life->second.ended) migration.message.owner_epoch = life->second.owner_epoch;
  migration.message.has_to = to.has_value();
  if (to) migration.message.to_ecu_mac = *to;
  ask_migration(now, migration, effects);
  return ok_status();
}

// Who asks again asks another one first.
void EcuCore::cancel_migration(std::uint64_t request_id) {
  const auto it = migrations_.find(request_id);
  if (it == migrations_.end()) return;
  if (it->second.asked != 0) first_to_ask_ = it->second.cms + 1;
  migrations_.erase(it);
}

// One CMS at a time: two could not both begin it, but the one that does not would say why.
void EcuCore::ask_migration(Instant now, Migration& migration, Effects& effects) {
  auto next = next_to_ask(migration);
  if (!next) {
    migration.asked = 0;  // The next round.
    next = next_to_ask(migration);
  }
  migration.next_ask_at = now + kMigrationRetry;
  if (!next) return;  // Nobody is live; make_live() asks.
  migration.cms = *next;
  migration.asked |= std::uint32_t{1} << *next;
  effects.push_back(SendControl{*next, wire::ControlMessage{incarnation_, migration.message}});
}

std::optional<CmsIndex> EcuCore::next_to_ask(const Migration& migration) const {
  for (std::size_t i = 0; i < cms_.size(); ++i) {
    const CmsIndex cms = (first_to_ask_ + i) % cms_.size();
    if (cms_[cms].state == CmsState::kLive && (migration.asked >> cms & 1U) == 0) return cms;
  }
  return std::nullopt;
}

void EcuCore::on_migrate_answer(Instant now, CmsIndex cms, const wire::MigrateAnswer& answer,
                                Effects& effects) {
  const auto it = migrations_.find(answer.request_id);
  if (it == migrations_.end()) return;
  if (answer.code == Code::kUnavailable) {
    // Another one at once; when all have said so, after a pause.
    if (it->second.cms == cms && next_to_ask(it->second)) ask_migration(now, it->second, effects);
    return;
  }
  migrations_.erase(it);
  effects.push_back(MigrationAnswered{answer.request_id, answer.code, answer.context});
}

}  // namespace cms::broker
