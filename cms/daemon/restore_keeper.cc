#include "cms/daemon/restore_keeper.h"

#include <algorithm>
#include <utility>

#include <spdlog/spdlog.h>

namespace cms::daemon {
namespace {

// A turn goes through all sessions and restores, and almost each answer asks for one: of thousands it would take all
// of the loop. It takes a fifth at most.
constexpr int kRestShare = 4;

}  // namespace

RestoreKeeper::RestoreKeeper(const core::RestoreConfig& config, core::CmsCore& core,
                             const core::Members& members, const ClaimWorker::Parts& parts)
    : core_(core),
      gate_(parts.gate),
      keeper_(parts.keeper),
      outbox_(parts.outbox),
      restores_(config, members),
      worker_(parts) {}

void RestoreKeeper::on_time(Instant now, std::uint64_t wall_us, core::Effects& effects) {
  if (now < next_deadline()) return;
  const Instant begun_at = BootClock::now();
  next_at_ = now + restores_.pace();
  core::RestoreEffects todo;
  restores_.on_time(now, wall_us, core_.present(), todo);
  if (restores_.wants_targets(now)) {
    restores_.on_targets(now, core_.candidates(now), core_.metrics_awaited(now), todo);
  }
  carry_out(now, todo, effects);
  rests_until_ = now + kRestShare * (BootClock::now() - begun_at);
}

Status RestoreKeeper::can_restore() const {
  if (gate_.trusted()) return ok_status();
  return make_error(Code::kUnsupported,
                    "the store cannot be trusted with claims, see 'cms-admin status'; nothing is restored");
}

Status RestoreKeeper::fail_ecu(Instant now, EcuMac ecu_mac, core::Effects& effects) {
  if (Status can = can_restore(); !can.ok()) return can;
  // The word is about the sessions that are there now.
  next_at_ = rests_until_ = now;
  on_time(now, wall_time_us(), effects);
  core::RestoreEffects todo;
  restores_.fail_ecu(now, ecu_mac, todo);
  carry_out(now, todo, effects);
  next_at_ = now;
  return ok_status();
}

void RestoreKeeper::lose_session(Instant now, const wire::EcuRecord& lost, core::Effects& effects) {
  if (!can_restore().ok()) return;
  core::RestoreEffects todo;
  restores_.lose_session(now, lost, todo);
  carry_out(now, todo, effects);
  next_at_ = now;
}

void RestoreKeeper::reconcile(Instant now, const SessionId& session, const wire::EcuRecord& head,
                              core::Effects& effects) {
  if (!can_restore().ok()) return;
  core::RestoreEffects todo;
  restores_.reconcile(now, session, head, todo);
  carry_out(now, todo, effects);
  next_at_ = now;
}

void RestoreKeeper::on_programs(Instant now, const core::ProgramsTold& told, core::Effects& effects) {
  core::RestoreEffects todo;
  restores_.on_programs(now, told.session, told.page, todo);
  carry_out(now, todo, effects);
  next_at_ = now;
}

RestoreFacts RestoreKeeper::facts(Instant now) const {
  constexpr Duration kLong = std::chrono::seconds(10);
  using Stage = core::RestoreCore::Stage;
  RestoreFacts facts;
  const auto stands_still = [&](const ProgramKey& program, Instant since) {
    if (now - since < kLong) return;
    ++facts.standing_still;
    if (now - since <= facts.standing_still_for) return;
    facts.standing_still_for = now - since;
    facts.standing_still_program = program;
  };
  for (const auto& [lineage, restore] : restores_.restores()) {
    if (restore.last && !restore.has_ended()) stands_still(restore.replaces.program, restore.frozen_at);
    switch (restore.stage) {
      case Stage::kDone: ++facts.done; break;
      case Stage::kRefused:
        if (restore.is_move()) break;  // It goes on where it was.
        ++facts.refused;
        facts.refused_why = to_string(restore.replaces.program) + ": " + restore.why;
        break;
      case Stage::kNoTarget:
        ++facts.without_target;
        facts.without_target_why = restore.why;
        break;
      case Stage::kStarting:
        if (now - restore.acted_at >= kLong) {
          ++facts.unanswered;
          facts.unanswered_target = to_string(restore.target.ecu_mac);
        }
        ++facts.under_way;
        break;
      default: ++facts.under_way; break;
    }
  }
  for (const auto& [key, frozen] : restores_.frozen()) stands_still(key.second, frozen.since);
  for (const auto& [ecu_mac, drain] : restores_.drains()) {
    if (!restores_.is_drained(ecu_mac)) continue;
    ++facts.drained;
    facts.drained_ecu = ecu_mac;
  }
  return facts;
}

void RestoreKeeper::on_report(Instant now, const core::TargetReported& report, core::Effects& effects) {
  core::RestoreEffects todo;
  restores_.on_report(now, report.target, report.report, todo);
  carry_out(now, todo, effects);
}

void RestoreKeeper::on_freeze_report(Instant now, const core::SourceReported& report,
                                     core::Effects& effects) {
  core::RestoreEffects todo;
  restores_.on_freeze_report(now, report.source, report.report, todo);
  carry_out(now, todo, effects);
}

// ---- planned moves

Status RestoreKeeper::can_freeze(const ProgramKey& program) const {
  const std::string ecu = "ECU " + to_string(program.ecu_mac);
  const auto any = core_.sessions().lower_bound(SessionId{program.ecu_mac, 0});
  if (any == core_.sessions().end() || any->first.ecu_mac != program.ecu_mac) {
    return make_error(Code::kUnavailable,
                      ecu + " is not connected to this cmsd; if it is gone for good, tell 'ecu failed'");
  }
  if (core_.source_of(program) != nullptr) return ok_status();
  return make_error(Code::kUnsupported,
                    "the RTCR of " + ecu + " cannot freeze programs: it has no move handler");
}

void RestoreKeeper::migrate(const ProgramKey& program, std::optional<EcuMac> only, OwnerEpoch owner_epoch,
                            Begun then) {
  Status can = can_restore();
  if (can.ok()) can = can_freeze(program);
  if (can.ok() && only && *only == program.ecu_mac) {
    can = make_error(Code::kInvalidArgument, to_string(program) + " is on " + to_string(*only) + " already");
  }
  if (!can.ok()) {
    outbox_.push([then, can](Instant now, core::Effects& effects) { then(now, effects, can); });
    return;
  }
  begin_owned(
      program, owner_epoch,
      [this, only](Instant now, const wire::ClaimRecord& head, core::RestoreEffects& todo) {
        return restores_.move(now, head, only, todo);
      },
      std::move(then));
}

// By the head of what the program owns, read from the store; `owner_epoch`: that whoever asks knows of, or 0.
void RestoreKeeper::begin_owned(const ProgramKey& program, OwnerEpoch owner_epoch, Start start, Begun then) {
  const auto begin = [this, program, owner_epoch, start, then](Instant at, core::Effects& effects,
                                                               const Result<wire::ClaimRecord>& head) {
    Status begun = head.ok() ? ok_status() : Status(head.error());
    if (begun.ok() && owner_epoch != 0 && owner_epoch != head->owner.owner_epoch) {
      begun = make_error(Code::kFenced, to_string(program) + " is owned under owner_epoch " +
                                            std::to_string(head->owner.owner_epoch) + ", not " +
                                            std::to_string(owner_epoch));
    }
    if (begun.ok()) {
      core::RestoreEffects todo;
      begun = start(at, *head, todo);
      carry_out(at, todo, effects);
      next_at_ = at;
    }
    then(at, effects, begun);
  };
  // All that the store has of it is in the index then.
  keeper_.prepare(program, [this, program, begin](const Status& prepared) {
    if (prepared.ok()) return worker_.find_owned(program, begin);
    outbox_.push([begin, error = prepared.error()](Instant now, core::Effects& effects) {
      begin(now, effects, error);
    });
  });
}

void RestoreKeeper::on_migrate_asked(const core::MigrateAsked& asked) {
  const wire::Migrate& migrate_asked = asked.migrate;
  const ProgramKey program{asked.session.ecu_mac, migrate_asked.program_id};
  auto then = [this, session = asked.session, request_id = migrate_asked.request_id,
               anywhere = !migrate_asked.has_to](Instant, core::Effects& effects, const Status& begun) {
    const auto there = core_.sessions().find(session);
    if (there == core_.sessions().end()) return;  // It asks again, elsewhere.
    wire::MigrateAnswer answer{request_id, begun.code(), begun.ok() ? "" : begun.error().context};
    // Another CMS was asked before, and has begun it.
    if (anywhere && answer.code == Code::kAlreadyExists) answer.code = Code::kOk;
    effects.push_back(
        core::SendControl{there->second.peer, wire::ControlMessage{session.incarnation, std::move(answer)}});
  };
  const auto there = core_.sessions().find(asked.session);
  const bool guarded = there != core_.sessions().end() && there->second.guarded;
  if (!guarded || !migrate_asked.has_to || migrate_asked.to_ecu_mac != program.ecu_mac) {
    migrate(program, migrate_asked.has_to ? std::optional(migrate_asked.to_ecu_mac) : std::nullopt,
            migrate_asked.owner_epoch, std::move(then));
    return;
  }
  if (const Status can = can_restore(); !can.ok()) {
    outbox_.push([then, can](Instant now, core::Effects& effects) { then(now, effects, can); });
    return;
  }
  begin_owned(
      program, migrate_asked.owner_epoch,
      [this, session = asked.session](Instant now, const wire::ClaimRecord& head,
                                      core::RestoreEffects& todo) {
        return restores_.restart(now, head, session, todo);
      },
      std::move(then));
}

Status RestoreKeeper::cancel_move(Instant now, const ProgramKey& program) {
  next_at_ = now;
  return restores_.cancel_move(now, program);
}

Status RestoreKeeper::drain_ecu(Instant now, EcuMac ecu_mac, std::optional<Duration> deadline,
                                core::Effects& effects) {
  if (Status can = can_restore(); !can.ok()) return can;
  core::RestoreEffects todo;
  restores_.drain_ecu(now, ecu_mac, deadline ? std::optional(now + *deadline) : std::nullopt, todo);
  carry_out(now, todo, effects);
  next_at_ = now;
  return ok_status();
}

Status RestoreKeeper::cancel_drain(Instant now, EcuMac ecu_mac, core::Effects& effects) {
  core::RestoreEffects todo;
  Status cancelled = restores_.cancel_drain(now, ecu_mac, todo);
  carry_out(now, todo, effects);
  next_at_ = now;
  return cancelled;
}

void RestoreKeeper::on_own_stored(const Lineage& lineage) {
  worker_.remove_garbage(lineage, [this, lineage](Instant, core::Effects& effects,
                                                  const Result<std::vector<storage::IndexRow>>& removed) {
    if (removed.ok()) {
      core_.on_removed(*removed, effects);
      if (!removed->empty()) {
        spdlog::info("lineage {}: {} checkpoints of former owners were removed", to_string(lineage),
                     removed->size());
      }
    } else {
      spdlog::warn("lineage {}: what former owners left cannot be removed: {}", to_string(lineage),
                   removed.error().message());
    }
  });
}

void RestoreKeeper::history(EcuMac ecu_mac, std::optional<ProgramId> program_id,
                            std::function<void(const Result<ClaimWorker::History>&)> then) {
  worker_.history(ecu_mac, program_id,
                  [then = std::move(then)](Instant, core::Effects&,
                                           const Result<ClaimWorker::History>& history) { then(history); });
}

void RestoreKeeper::programs_of(EcuMac ecu_mac, ClaimWorker::Then<LostPrograms> then) {
  worker_.programs_of(ecu_mac, std::move(then));
}

std::vector<core::Candidate> RestoreKeeper::candidates(Instant now) const {
  std::vector<core::Candidate> found = core_.candidates(now);
  found.erase(std::remove_if(found.begin(), found.end(),
                             [this](const core::Candidate& one) { return restores_.is_gone(one.session); }),
              found.end());
  restores_.add_reservations(now, found);
  return found;
}

// ---- effects

void RestoreKeeper::carry_out(Instant now, core::RestoreEffects& todo, core::Effects& effects) {
  for (const core::RestoreEffect& effect : todo) {
    std::visit([&](const auto& one) { carry_out_one(now, one, effects); }, effect);
  }
}

void RestoreKeeper::carry_out_one(Instant, const core::ScanLogs& effect, core::Effects&) {
  worker_.scan(effect, [this, effect](Instant now, core::Effects& effects,
                                      const Result<ClaimWorker::Scanned>& scanned) {
    core::RestoreEffects todo;
    if (scanned.ok()) {
      restores_.on_logs_scanned(now, effect, scanned->heads, todo, scanned->unusable);
    } else {
      restores_.on_logs_scanned(now, effect, scanned.error(), todo);
    }
    carry_out(now, todo, effects);
    next_at_ = now;
  });
}

void RestoreKeeper::carry_out_one(Instant, const core::ReadHeads& effect, core::Effects&) {
  worker_.read_heads(effect.lineages, [this, effect](Instant now, core::Effects& effects,
                                                     const Result<ClaimWorker::Heads>& heads) {
    core::RestoreEffects todo;
    restores_.on_heads(now, effect, heads, todo);
    carry_out(now, todo, effects);
    next_at_ = now;
  });
}

void RestoreKeeper::carry_out_one(Instant, const core::ReadHead& effect, core::Effects&) {
  worker_.read_head(effect.lineage,
                    [this, lineage = effect.lineage](Instant now, core::Effects& effects,
                                                     const Result<core::RestoreCore::Head>& head) {
                      core::RestoreEffects todo;
                      restores_.on_head(now, lineage, head, todo);
                      carry_out(now, todo, effects);
                      next_at_ = now;
                    });
}

ClaimWorker::Then<ClaimWorker::Appended> RestoreKeeper::when_appended(const Lineage& lineage) {
  return [this, lineage](Instant now, core::Effects& effects, const Result<ClaimWorker::Appended>& appended) {
    core::RestoreEffects todo;
    if (appended.ok()) {
      restores_.on_appended(now, lineage, appended->end, appended->attempt, todo);
    } else {
      restores_.on_appended(now, lineage, appended.error(), 0, todo);
    }
    carry_out(now, todo, effects);
    next_at_ = now;
  };
}

void RestoreKeeper::carry_out_one(Instant, const core::AppendRecord& effect, core::Effects&) {
  worker_.append(effect.record, when_appended(effect.record.lineage));
}

void RestoreKeeper::carry_out_one(Instant, const core::SettleAppend& effect, core::Effects&) {
  worker_.settle(effect.lineage, effect.attempt, when_appended(effect.lineage));
}

void RestoreKeeper::carry_out_one(Instant, const core::FindCheckpoint& effect, core::Effects&) {
  worker_.find(effect, [this, lineage = effect.head.lineage](Instant now, core::Effects& effects,
                                                             const Result<core::RestoreCore::Found>& found) {
    core::RestoreEffects todo;
    restores_.on_found(now, lineage, found, todo);
    carry_out(now, todo, effects);
    next_at_ = now;
  });
}

void RestoreKeeper::carry_out_one(Instant, const core::SendToTarget& effect, core::Effects& effects) {
  const auto session = core_.sessions().find(effect.target);
  if (session == core_.sessions().end()) return;  // Repeated, or given up when it stays away.
  effects.push_back(
      core::SendControl{session->second.peer, wire::ControlMessage{effect.target.incarnation, effect.body}});
}

void RestoreKeeper::carry_out_one(Instant, const core::SendToSource& effect, core::Effects& effects) {
  const core::CmsCore::Session* source = core_.source_of(effect.program);
  if (source == nullptr) return;  // As above.
  effects.push_back(
      core::SendControl{source->peer, wire::ControlMessage{source->id.incarnation, effect.body}});
}

void RestoreKeeper::carry_out_one(Instant, const core::ReadFrozen& effect, core::Effects&) {
  worker_.read_head(effect.lineage,
                    [this, lineage = effect.lineage](Instant now, core::Effects& effects,
                                                     const Result<core::RestoreCore::Head>& head) {
                      core::RestoreEffects todo;
                      restores_.on_frozen_head(now, lineage, head, todo);
                      carry_out(now, todo, effects);
                      next_at_ = now;
                    });
}

void RestoreKeeper::carry_out_one(Instant now, const core::AskTargets&, core::Effects& effects) {
  core_.ask_metrics(now, effects);
}

void RestoreKeeper::carry_out_one(Instant now, const core::OwnerChanged& effect, core::Effects& effects) {
  core_.on_owner_changed(now, effect.from.program, core::Fence{effect.lineage, effect.to}, effects);
}

void RestoreKeeper::carry_out_one(Instant, const core::RestoreEvent& effect, core::Effects&) {
  if (effect.warning) {
    spdlog::warn("{}", effect.text);
  } else {
    spdlog::info("{}", effect.text);
  }
}

}  // namespace cms::daemon
