// The EcuCore of a guarded session (docs/adr/0015): its run lease, what stops when that ends and goes on afterwards, and
// what it tells of the programs that it runs.
#include <algorithm>
#include <string>
#include <utility>

#include "broker/core/ecu_core.h"

#include "base/assert.h"
#include "base/digest.h"

namespace cms::broker {

using wire::ReceiptLevel;

// ---- the lease

void EcuCore::watch_lease(Instant now, Effects& effects) {
  if (config_.guarded && lease_.on_time(now)) end_lease(now, "no CMS has renewed the run lease", effects);
}

void EcuCore::on_leased(Instant now, CmsIndex cms, std::uint64_t number, Effects& effects) {
  if (lease_.on_leased(now, cms, number)) tell_lease({}, effects);
}

// With the lease ends the session: a lease that has ended is never renewed.
void EcuCore::end_lease(Instant now, const std::string& why, Effects& effects) {
  CMS_ASSERT(config_.guarded);
  lease_.end(now);
  const Instant ended_at = lease_.ends_at();
  if (ended_at - lease_.began_at() >= kLeaseLivedMin) session_pause_ = Duration::zero();
  const Duration pause = session_pause_;
  session_pause_ = std::clamp<Duration>(2 * pause, kSessionPauseMin, kSessionPauseMax);
  if (target_) {
    for (const RestoreId id : target_->going()) overtaken_.insert(id);
  }
  stop_all(effects);
  if (!stands_still()) stopped_from_ = std::min(stopped_from_, ended_at);
  if (!ending_) begin_next_session(now, pause, effects);
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(pause).count();
  tell_lease(pause == Duration::zero()
                 ? why
                 : why + "; the next session begins in " + std::to_string(seconds) + " s",
             effects);
}

// ---- stopping

void EcuCore::stop_all(Effects& effects) {
  StopEffects stop_effects;
  for (const auto& [program_id, program] : programs_.all()) {
    if (!frozen_.is_frozen(program_id)) programs_.stop(program_id, stop_effects);  // Those stand still.
  }
  pass_on(stop_effects, effects);
}

void EcuCore::stop_unless_leased(Instant now, ProgramId program_id, Effects& effects) {
  if (!may_run_more()) stop_one(lease_.lives() ? kNever : now, program_id, effects);
}

// `enforce_at`: from when on it must stand still for certain.
void EcuCore::stop_one(Instant enforce_at, ProgramId program_id, Effects& effects) {
  if (frozen_.is_frozen(program_id)) return;
  StopEffects stop_effects;
  programs_.stop(program_id, stop_effects);
  if (stop_effects.empty()) return;
  stopped_from_ = std::min(stopped_from_, enforce_at);
  pass_on(stop_effects, effects);
}

bool EcuCore::stands_still() const {
  if (programs_.stopping_count() > 0) return false;
  return std::none_of(overtaken_.begin(), overtaken_.end(), [this](RestoreId id) {
    const auto restored = target_->find_restored(id);
    return restored && restored->on_isolation == wire::OnIsolation::kStop;
  });
}

// What the end of the present lease would stop.
bool EcuCore::any_to_stop() const {
  if (programs_.any_to_stop() || programs_.stopping_count() > 0) return true;
  if (going_count() == 0) return false;
  const auto going = target_->going();
  return std::any_of(going.begin(), going.end(), [this](RestoreId id) {
    return target_->find_restored(id)->on_isolation == wire::OnIsolation::kStop;
  });
}

void EcuCore::on_stopped(Instant now, ProgramId program_id, const Status& status, Effects& effects) {
  if (stopped_ || !config_.guarded) return;
  watch_lease(now, effects);
  programs_.on_stopped(now, program_id, status);
  resume_if_free(program_id, effects);
  // Who was told that they run has thawed nothing since.
  if (asked_ && programs_.stopping_count() == 0) tell_programs_changed(now, effects);
  tell_lease({}, effects);
}

void EcuCore::retry_stops(Instant now, Effects& effects) {
  StopEffects stop_effects;
  programs_.on_time(now, stop_effects);
  pass_on(stop_effects, effects);
}

void EcuCore::pass_on(const StopEffects& stop_effects, Effects& effects) {
  for (const StopEffect& effect : stop_effects)
    std::visit([&effects](const auto& one) { effects.push_back(one); }, effect);
}

// ---- going on

void EcuCore::on_thaw(Instant now, CmsIndex cms, const wire::Thaw& thaw, Effects& effects) {
  const ProgramId program_id = thaw.program_id;
  programs_.note_policy(program_id, thaw.record.lineage, thaw.on_isolation);
  const GuardedPrograms::Program* const program = programs_.find(program_id);
  const bool is_here = program != nullptr && program->lineage == thaw.record.lineage;
  if (is_here && program->stops && !may_run_more()) {  // The CMS repeats it.
    stop_unless_leased(now, program_id, effects);
    return;
  }
  const auto claim_slot = frozen_.claim_slot_of(program_id);
  FreezeEffects freeze_effects;
  frozen_.on_thaw(cms, thaw, freeze_effects);
  pass_on(freeze_effects, effects);
  // One of before the program came here, or of before it was frozen, says nothing of now.
  const bool is_outdated =
      is_here && (thaw.record.slot < program->owner_epoch || (claim_slot && *claim_slot >= thaw.record.slot));
  if (!is_here || is_outdated) return;
  programs_.want_resume(program_id);
  resume_if_free(program_id, effects);
}

// What is freezing or frozen goes on when that is over.
void EcuCore::resume_if_free(ProgramId program_id, Effects& effects) {
  if (!lease_.lives() || ending_ || frozen_.is_open(program_id) || !programs_.can_resume(program_id)) return;
  StopEffects stop_effects;
  programs_.resume(program_id, stop_effects);
  pass_on(stop_effects, effects);
}

// Whether the present lease, and what must stand still, is as the RTCR was told.
void EcuCore::tell_lease(std::string text, Effects& effects) {
  if (!config_.guarded) return;
  if (stands_still()) stopped_from_ = kNever;
  LeaseChanged changed;
  changed.lives = lease_.lives();
  if (changed.lives) changed.ends_at = lease_.ends_at();
  changed.enforce_at = std::min(stopped_from_, any_to_stop() ? changed.ends_at : kNever);
  const bool same = changed.lives == lease_told_.lives && changed.ends_at == lease_told_.ends_at &&
                    changed.enforce_at == lease_told_.enforce_at;
  if (same && text.empty()) return;
  lease_told_ = changed;
  changed.text = std::move(text);
  effects.push_back(std::move(changed));
}

// ---- the programs

// Whether what was published is to be held.
bool EcuCore::take_guarded(Instant now, const wire::Notification& notification, Effects& effects) {
  watch_lease(now, effects);
  const ProgramId program_id = notification.program_id;
  const auto drop = [&](Code code, std::string why) {
    effects.push_back(ReceiptEvent{program_id, notification.seq, ReceiptLevel::kDropped, code, std::move(why),
                                   true, incarnation_});
    return false;
  };
  // (While it is freezing its last checkpoint is awaited.)
  if (programs_.is_stopped(program_id) && !frozen_.is_open(program_id))
    return drop(Code::kPermission, "the program is stopped until a CMS lets it go on");
  if (!programs_.has_room_for(program_id))
    return drop(Code::kLimit,
                std::to_string(kGuardedProgramCountMax) + " programs run here that have not ended");
  const Lineage lineage = notification.lineage == Lineage{}
                              ? lineage_of(ProgramKey{config_.ecu_mac, program_id})
                              : notification.lineage;
  // Running before this session, or before this process, it may have been given to another ECU since.
  const GuardedPrograms::Program* const known = programs_.find(program_id);
  const bool ran_before = !programs_told_ && (known == nullptr || known->lineage != lineage);
  programs_.note(program_id, lineage, notification.owner_epoch, notification.policies.on_isolation);
  if (ran_before) {
    stop_one(now + kFirstStopsMax, program_id, effects);
  } else {
    stop_unless_leased(now, program_id, effects);
  }
  tell_lease({}, effects);
  return true;
}

// The RTCR has answered whether it runs.
void EcuCore::note_restored(Instant now, RestoreId id, Effects& effects) {
  if (!config_.guarded) return;
  const bool overtaken = overtaken_.erase(id) != 0;
  const auto restored = target_->find_restored(id);
  if (!restored || restored->goes) return;
  programs_.note(restored->program_id, restored->lineage, restored->owner_epoch, restored->on_isolation);
  if (!overtaken) {
    stop_unless_leased(now, restored->program_id, effects);
    return;
  }
  // Whatever lives now: that one may have been given to another ECU before this lease began.
  StopEffects stop_effects;
  programs_.stop(restored->program_id, stop_effects);
  pass_on(stop_effects, effects);
}

void EcuCore::program_ended(Instant now, ProgramId program_id, Effects& effects) {
  if (stopped_ || !config_.guarded || programs_.find(program_id) == nullptr) return;
  watch_lease(now, effects);
  programs_.on_ended(program_id);
  frozen_.on_program_ended(program_id);
  if (target_) target_->on_program_ended(program_id);
  if (const auto life = lives_.find(program_id); life != lives_.end()) life->second.ended = true;
  tell_programs_changed(now, effects);
  tell_lease({}, effects);
}

void EcuCore::tell_programs_changed(Instant now, Effects& effects) {
  ++programs_changed_count_;
  for (CmsIndex cms = 0; cms < cms_.size(); ++cms) {
    if (cms_[cms].state == CmsState::kLive) send_heartbeat(now, cms, effects);
  }
}

void EcuCore::programs_told(Effects& effects) {
  if (stopped_ || !config_.guarded) return;
  programs_told_ = true;
  answer_pending_asks(effects);
}

// Not while it is open whether something runs: what is missing has died.
void EcuCore::answer_pending_asks(Effects& effects) {
  if (!programs_told_ || going_count() > 0) return;
  for (const auto& [cms, ask] : std::exchange(pending_asks_, {})) tell_programs(cms, ask, effects);
}

void EcuCore::on_ask_programs(CmsIndex cms, const wire::AskPrograms& ask, Effects& effects) {
  if (!config_.guarded) return;
  pending_asks_[cms] = ask;
  answer_pending_asks(effects);
}

void EcuCore::tell_programs(CmsIndex cms, const wire::AskPrograms& ask, Effects& effects) {
  asked_ = true;
  wire::Programs page;
  page.number = ask.number;
  const auto& all = programs_.all();
  for (auto it = all.lower_bound(ask.from_program_id); it != all.end(); ++it) {
    const auto& [program_id, program] = *it;
    if (page.programs.size() == wire::kProgramsPageCountMax) {
      page.next_program_id = program_id;
      page.end = false;
      break;
    }
    wire::OwnedProgram told;
    told.program_id = program_id;
    told.lineage = program.lineage;
    told.owner_epoch = program.owner_epoch;
    if (program.stopped && !programs_.is_stopping(program_id)) told.state = wire::ProgramState::kStopped;
    if (frozen_.is_frozen(program_id)) told.state = wire::ProgramState::kFrozen;
    page.programs.push_back(told);
  }
  effects.push_back(SendControl{cms, wire::ControlMessage{incarnation_, std::move(page)}});
}

}  // namespace cms::broker
