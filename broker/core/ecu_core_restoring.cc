// The EcuCore of a target: the commands of a restore, and the end of programs that have moved on.
#include <algorithm>
#include <utility>

#include "broker/core/ecu_core.h"

#include "base/digest.h"

namespace cms::broker {

using wire::ReceiptLevel;

namespace {

template <typename T>
bool holds(const RestoreEffects& effects) {
  return std::any_of(effects.begin(), effects.end(),
                     [](const RestoreEffect& effect) { return std::holds_alternative<T>(effect); });
}

}  // namespace

// Its CMS and its session have been checked. (A command for another session is not answered: that
// session is over, and what was prepared under it was refused when it ended.)
void EcuCore::on_restore_command(Instant now, CmsIndex cms, const wire::ControlBody& body, Effects& effects) {
  RestoreEffects restore_effects;
  if (const auto* prepare = std::get_if<wire::Prepare>(&body)) {
    if (!may_run_more()) return;  // The CMS repeats it.
    if (config_.only_restarts && !prepare->restarts) return;
    const auto restored = target_->find_restored(prepare->claim.lineage);
    const bool stands_still = restored && !restored->goes && stands_still_here(restored->program_id);
    target_->on_prepare(now, cms, *prepare, stands_still, restore_effects);
  } else if (const auto* go = std::get_if<wire::Go>(&body)) {
    // Without a lease nothing is prepared: this one is refused for good, or is answered what it came to before.
    target_->on_go(now, cms, *go, restore_effects);
    if (config_.guarded && holds<RunProgram>(restore_effects)) replace_still(go->claim.lineage, effects);
    if (const auto restored = target_->find_restored(go->claim.lineage); restored && !restored->goes)
      programs_.note_policy(restored->program_id, restored->lineage, restored->on_isolation);
  } else if (const auto* discard = std::get_if<wire::Discard>(&body)) {
    target_->on_discard(now, cms, *discard, restore_effects);
  } else if (const auto* ask = std::get_if<wire::MetricsAsk>(&body)) {
    effects.push_back(AskMetrics{cms, ask->number});
  }
  pass_on(restore_effects, effects);
}

bool EcuCore::stands_still_here(ProgramId program_id) const {
  return programs_.stands_still(program_id) || frozen_.is_frozen(program_id);
}

// What waits here for a word of a CMS is not what goes on: a checkpoint of it is.
void EcuCore::replace_still(Lineage lineage, Effects& effects) {
  std::vector<ProgramId> still;
  for (const auto& [program_id, program] : programs_.all()) {
    if (program.lineage == lineage && stands_still_here(program_id)) still.push_back(program_id);
  }
  for (const ProgramId program_id : still) {
    Life unpublished;
    const auto life = lives_.find(program_id);
    fence(program_id, life == lives_.end() ? unpublished : life->second,
          "the program goes on here from its newest checkpoint", effects);
  }
}

void EcuCore::pass_on(RestoreEffects& restore_effects, Effects& effects) {
  for (RestoreEffect& effect : restore_effects) {
    if (auto* report = std::get_if<SendReport>(&effect)) {
      if (report->cms < cms_.size() &&
          incarnation_ != 0) {  // Between two sessions nobody is told; who asks is.
        effects.push_back(
            SendControl{report->cms, wire::ControlMessage{incarnation_, std::move(report->report)}});
      }
    } else if (auto* fenced = std::get_if<FenceProgram>(&effect)) {
      Life unpublished;
      const auto life = lives_.find(fenced->program_id);
      fence(fenced->program_id, life == lives_.end() ? unpublished : life->second, fenced->reason, effects);
    } else {
      std::visit(
          [&effects](auto& other) {
            using T = std::decay_t<decltype(other)>;
            if constexpr (!std::is_same_v<T, SendReport> && !std::is_same_v<T, FenceProgram>)
              effects.push_back(std::move(other));
          },
          effect);
    }
  }
}

void EcuCore::on_restore_bulk(Instant now, const BulkLink& link, const wire::BulkBody& message,
                              const ChunkView& bytes, Effects& effects) {
  if (stopped_ || !target_) return;
  RestoreEffects restore_effects;
  target_->on_bulk(now, link, message, bytes, restore_effects);
  pass_on(restore_effects, effects);
}

void EcuCore::on_prepared(Instant now, RestoreId id, const Status& status, Effects& effects) {
  if (!target_) return;
  RestoreEffects restore_effects;
  target_->on_prepared(now, id, status, restore_effects);
  pass_on(restore_effects, effects);
}

void EcuCore::on_running(Instant now, RestoreId id, const Result<ProgramId>& program_id, Effects& effects) {
  if (!target_) return;
  watch_lease(now, effects);
  RestoreEffects restore_effects;
  target_->on_running(now, id, program_id, restore_effects);
  note_restored(now, id, effects);
  pass_on(restore_effects, effects);
  tell_lease({}, effects);
  if (config_.guarded) answer_pending_asks(effects);
}

void EcuCore::on_sink_failed(Instant now, RestoreId id, const Error& error, Effects& effects) {
  if (!target_) return;
  RestoreEffects restore_effects;
  target_->on_sink_failed(now, id, error, restore_effects);
  pass_on(restore_effects, effects);
}

void EcuCore::tell_metrics(CmsIndex cms, wire::Metrics metrics, Effects& effects) const {
  CMS_ASSERT(cms < cms_.size());
  effects.push_back(SendControl{cms, wire::ControlMessage{incarnation_, std::move(metrics)}});
}

void EcuCore::prepare_stop(Effects& effects) {
  ending_ = true;
  if (target_) {
    RestoreEffects restore_effects;
    target_->stop(restore_effects);
    pass_on(restore_effects, effects);
  }
  stop_all(effects);
  tell_lease({}, effects);
}

// ---- fencing

void EcuCore::note_life(const wire::Notification& notification) {
  const auto it = lives_.find(notification.program_id);
  if (it != lives_.end() && it->second.lineage == notification.lineage &&
      it->second.owner_epoch == notification.owner_epoch) {
    it->second.last_seq = notification.seq;
    it->second.fenced = false;
    it->second.ended = false;
    it->second.stored_under = 0;
    it->second.lost = Code::kOk;
    return;
  }
  if (it == lives_.end() && lives_.size() >= kHeldCountMax) {
    // One that has nothing held; no more than kHeldCountMax can have, and this one has nothing yet.
    for (auto old = lives_.begin(); old != lives_.end(); ++old) {
      if (held_of_program_.count(old->first) != 0 || frozen_.is_open(old->first)) continue;
      if (programs_.find(old->first) != nullptr) continue;  // Who is guarded must be told that it was fenced.
      lives_.erase(old);
      break;
    }
  }
  lives_[notification.program_id] = Life{notification.lineage,
                                         notification.owner_epoch,
                                         notification.seq,
                                         notification.seq,
                                         false,
                                         false,
                                         0,
                                         Code::kOk};
}

// The program is somebody else's: the publisher must hear of it, also when the checkpoint was stored or
// freed long ago; and what is held of it is of no use to anybody.
void EcuCore::on_fenced(const wire::Receipt& receipt, Effects& effects) {
  if (fence_guarded(receipt, effects)) return;
  if (receipt.seq == 0 || receipt.seq > last_seq_) return;  // Nothing that we published.
  const auto life = lives_.find(receipt.program_id);
  // Another program has the program_id since; or it was withdrawn.
  if (life == lives_.end() || receipt.seq < life->second.first_seq) return;
  const Lineage own = lineage_of_life(receipt.program_id, life->second);
  if (receipt.lineage != Lineage{} && receipt.lineage != own) return;
  // It has come back here since.
  if (receipt.owner_epoch != 0 && receipt.owner_epoch <= life->second.owner_epoch) return;
  if (target_) target_->on_program_ended(receipt.program_id);
  fence(receipt.program_id, life->second, receipt.reason, effects);
}

// What a guarded session has told that it has is known by its lineage, whether anything of it was published or not.
bool EcuCore::fence_guarded(const wire::Receipt& receipt, Effects& effects) {
  const GuardedPrograms::Program* const program = programs_.find(receipt.program_id);
  if (program == nullptr || program->lineage != receipt.lineage ||
      receipt.owner_epoch <= program->owner_epoch)
    return false;
  if (target_) target_->on_program_ended(receipt.program_id);
  const auto life = lives_.find(receipt.program_id);
  if (life != lives_.end() && lineage_of_life(receipt.program_id, life->second) == receipt.lineage) {
    fence(receipt.program_id, life->second, receipt.reason, effects);
    return true;
  }
  frozen_.on_program_ended(receipt.program_id);
  programs_.on_ended(receipt.program_id);
  effects.push_back(ReceiptEvent{receipt.program_id, last_seq_, ReceiptLevel::kFenced, Code::kFenced,
                                 receipt.reason, true, incarnation_});
  return true;
}

Lineage EcuCore::lineage_of_life(ProgramId program_id, const Life& life) const {
  return life.lineage == Lineage{} ? lineage_of(ProgramKey{config_.ecu_mac, program_id}) : life.lineage;
}

void EcuCore::fence(ProgramId program_id, Life& life, const std::string& reason, Effects& effects) {
  frozen_.on_program_ended(program_id);  // Not thawed: it goes on elsewhere.
  programs_.on_ended(program_id);        // Nor resumed.
  const auto of_program = held_of_program_.find(program_id);
  if (of_program != held_of_program_.end()) {
    const std::set<Seq> seqs = of_program->second;  // A copy: release() edits the set.
    for (const Seq seq : seqs)
      release(held_.find(seq), ReceiptLevel::kFenced, Code::kFenced, reason, effects);
  } else if (!life.fenced) {
    effects.push_back(ReceiptEvent{program_id, life.last_seq, ReceiptLevel::kFenced, Code::kFenced, reason,
                                   true, incarnation_});
  }
  life.fenced = true;
}

}  // namespace cms::broker
