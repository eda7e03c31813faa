#include "cms/core/restore.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "base/assert.h"

namespace cms::core {
namespace {

using wire::ClaimKind;
using wire::ClaimRecord;
using Stage = RestoreCore::Stage;

constexpr Duration kPlacementForgotten = std::chrono::seconds(60);

bool appends(Stage stage) {
  return stage == Stage::kClaiming || stage == Stage::kActing || stage == Stage::kFinishing ||
         stage == Stage::kAborting || stage == Stage::kReleasing;
}

// Whether a claim of ours is open in this stage.
bool holds_claim(Stage stage) {
  return stage == Stage::kClaiming || stage == Stage::kFinding || stage == Stage::kPlacing ||
         stage == Stage::kFreezing || stage == Stage::kPreparing || stage == Stage::kActing ||
         stage == Stage::kReleasing;
}

std::string ms(Instant from, Instant to) {
  return std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(to - from).count()) + " ms";
}

}  // namespace

RestoreCore::RestoreCore(RestoreConfig config, const Members& members)
    : config_(std::move(config)),
      members_(members),
      prng_(config_.seed),
      first_{config_.me.incarnation * 0x9e3779b97f4a7c15ULL, 0} {
  CMS_ASSERT(config_.together_max > 0);
}

bool RestoreCore::begin(Instant now, const ClaimRecord& head, wire::ClaimReason reason,
                        RestoreEffects& effects) {
  const auto known = restores_.find(head.lineage);
  if (known != restores_.end() && !known->second.has_ended() && known->second.replaces == head.owner) {
    Restore& restore = known->second;
    restore.only_looks = false;
    restore.insisted = restore.insisted || reason == wire::ClaimReason::kVouched;
    const bool ends_it = restore.is_move() ? reason != wire::ClaimReason::kRequest
                                           : reason != wire::ClaimReason::kReportedDead;
    if (restore.was_asked_for() && ends_it) {
      restore.lost_meanwhile = true;
      restore.lost_reason = reason;
      restore.stop_why = "its ECU is lost";
    }
    if (restore.stage == Stage::kWaiting) restore.next_at = now;
    if (restore.stage == Stage::kNoTarget) read_head(now, restore, effects);
    return true;
  }
  // The worker's answer to what was asked for the former one would be taken for one to this; and an append of it
  // is to be settled.
  if (known != restores_.end() && (known->second.asked || known->second.unresolved != 0)) return false;
  if (known == restores_.end() && restores_.size() >= kRestoreCountMax) {
    for (auto it = restores_.begin(); it != restores_.end();) {
      it = it->second.has_ended() ? restores_.erase(it) : std::next(it);
    }
    if (restores_.size() >= kRestoreCountMax) return false;
  }
  Restore restore;
  restore.lineage = head.lineage;
  restore.replaces = head.owner;
  restore.reason = reason;
  restore.began_at = now;
  restore.insisted = reason == wire::ClaimReason::kVouched;
  Restore& placed = restores_.insert_or_assign(head.lineage, std::move(restore)).first->second;
  open_.insert(head.lineage);
  read_head(now, placed, effects);
  return true;
}

std::size_t RestoreCore::claim_count() const {
  return static_cast<std::size_t>(std::count_if(open_.begin(), open_.end(), [this](const Lineage& lineage) {
    return holds_claim(restores_.at(lineage).stage);
  }));
}

// ---- the log

Stamp RestoreCore::stamp() {
  std::uint64_t uid = prng_.next();
  while (uid == 0) uid = prng_.next();
  return Stamp{config_.me, uid, wall_us_};
}

void RestoreCore::go_to(Instant now, Restore& restore, Stage stage) {
  restore.stage = stage;
  restore.since = now;
  restore.next_at = now;
}

void RestoreCore::wait(Instant now, Restore& restore, Stage stage, Duration pause, std::string why) {
  go_to(now, restore, stage);
  restore.next_at = now + pause;
  restore.why = std::move(why);
}

void RestoreCore::read_head(Instant now, Restore& restore, RestoreEffects& effects) {
  CMS_ASSERT(!restore.asked);
  go_to(now, restore, Stage::kReading);
  restore.asked = true;
  effects.push_back(ReadHead{restore.lineage});
}

void RestoreCore::on_head(Instant now, const Lineage& lineage, const Result<Head>& head,
                          RestoreEffects& effects) {
  const auto found = restores_.find(lineage);
  if (found == restores_.end() || !std::exchange(found->second.asked, false)) return;
  Restore& restore = found->second;
  if (!head.ok()) {
    if (std::exchange(restore.only_looks, false))
      return wait(now, restore, Stage::kNoTarget, kNoTargetRetry, restore.why);
    wait(now, restore, Stage::kWaiting, kRestoreRetry, head.error().message());
    return;
  }
  restore.head = head->record;
  restore.claim_uid = head->claim_uid;
  restore.has_own_checkpoint = head->has_own_checkpoint;
  judge_head(now, restore, effects);
}

void RestoreCore::judge_head(Instant now, Restore& restore, RestoreEffects& effects) {
  if (!restore.head)
    return end(now, restore, Stage::kRefused, "its log is empty: nothing of it was STORED", effects);
  const ClaimRecord& head = *restore.head;
  const Status replaces = check_replaces(&head, restore.replaces);
  if (replaces.code() == Code::kFenced) return end_moved(now, restore, effects);
  if (!replaces.ok()) return end(now, restore, Stage::kRefused, replaces.error().message(), effects);
  const Writer writer{head.writer, head.writer_incarnation};
  switch (turn_of(&head, config_.me, !members_.is_stale(writer, now))) {
    case Turn::kNobodys:
    case Turn::kOrphaned:
      if (std::exchange(restore.only_looks, false))
        return wait(now, restore, Stage::kNoTarget, kNoTargetRetry, restore.why);
      if (restore.is_move()) return judge_free_move(now, restore, effects);
      if (judge_free_restart(now, restore, effects)) return;
      if (head.attempts >= kAttemptsMax && !restore.insisted) {
        return end(now, restore, Stage::kRefused,
                   std::to_string(head.attempts) + " claims in a row did not bring it to life", effects);
      }
      return go_to(now, restore, Stage::kQueued);
    case Turn::kMine:
      restore.claim_uid = head.uid;
      restore.claimed_at = now;
      restore.has_claimed = true;
      if (restore.is_move() && !restore.asked_here) {
        return release(now, restore, Stage::kRefused, "nobody asks for it any more", effects);
      }
      if (restore.found && restore.found_for == head.uid) return look_for_target(now, restore, effects);
      return find(now, restore, effects);
    case Turn::kOthers:
      return wait(now, restore, Stage::kWatching, kWatchOthers, "claimed by " + head.writer);
    case Turn::kFinish: break;
    case Turn::kUnbegun:
    case Turn::kEnded: return;  // Both were answered above.
  }
  // Whoever ACT names may be told to run it, by any of us; who wrote it gets the time to do so.
  if (restore.act_uid != head.uid) {
    restore.act_uid = head.uid;
    restore.act_seen_at = now;
    restore.acted_at = now;
  }
  restore.target = head.target;
  if (const auto proof = proof_of_end(head)) return abort_gone(now, restore, *proof, effects);
  const bool mine = writer.name == config_.me.name && writer.incarnation == config_.me.incarnation;
  if (!mine && now - restore.act_seen_at < kOthersActGrace && !members_.is_stale(writer, now)) {
    return wait(now, restore, Stage::kWatching, kWatchOthers, "being started by " + head.writer);
  }
  go_to(now, restore, Stage::kStarting);
  send_go(now, restore, effects);
}

void RestoreCore::append(Instant now, Restore& restore, ClaimRecord record, Stage stage,
                         RestoreEffects& effects) {
  CMS_ASSERT(!restore.asked && appends(stage));
  go_to(now, restore, stage);
  restore.asked = true;
  restore.appending = std::move(record);
  effects.push_back(AppendRecord{restore.appending});
}

void RestoreCore::on_appended(Instant now, const Lineage& lineage, const Result<AppendEnd>& end,
                              std::uint64_t attempt, RestoreEffects& effects) {
  const auto found = restores_.find(lineage);
  if (found == restores_.end() || !std::exchange(found->second.asked, false)) return;
  Restore& restore = found->second;
  restore.unresolved = 0;
  if (!end.ok()) {
    // It was not appended and never will be. The head tells what to do now.
    wait(now, restore, Stage::kWaiting, kRestoreRetry, end.error().message());
    return;
  }
  switch (*end) {
    case AppendEnd::kWon: restore.head = restore.appending; return on_won(now, restore, effects);
    case AppendEnd::kLost: return read_head(now, restore, effects);
    case AppendEnd::kUnresolved:
      restore.unresolved = attempt;
      restore.next_at = now + kRestoreRetry;
      restore.why = "the store has not said who has slot " + std::to_string(restore.appending.slot);
      return;
  }
}

void RestoreCore::on_won(Instant now, Restore& restore, RestoreEffects& effects) {
  const ClaimRecord& head = *restore.head;
  switch (head.kind) {
    case ClaimKind::kClaim:
      restore.claim_uid = head.uid;
      restore.claimed_at = now;
      restore.has_claimed = true;
      if (!restore.stop_why.empty()) {
        return release(now, restore, Stage::kRefused, restore.stop_why, effects);
      }
      return find(now, restore, effects);
    case ClaimKind::kAct:
      restore.acted_at = now;
      go_to(now, restore, Stage::kStarting);
      restore.heard_at = now;
      return send_go(now, restore, effects);
    case ClaimKind::kDone: return end_moved(now, restore, effects);
    case ClaimKind::kRelease:
      if (restore.lost_meanwhile) return go_on_as_lost(now, restore);
      if (restore.after_release == Stage::kRefused) {
        return this->end(now, restore, Stage::kRefused, restore.why, effects);
      }
      if (restore.after_release == Stage::kWaiting) {
        return wait(now, restore, Stage::kWaiting, kRestoreRetry, restore.why);
      }
      restore.rounds = 0;
      return wait(now, restore, Stage::kNoTarget, kNoTargetRetry, restore.why);
    case ClaimKind::kAbort: return judge_head(now, restore, effects);
    case ClaimKind::kGenesis:
    case ClaimKind::kRetire: break;
  }
  CMS_ASSERT(false);
}

void RestoreCore::claim_queued(Instant now, RestoreEffects& effects) {
  if (draining_ || !members_.may_act(now)) return;
  std::size_t held = claim_count();
  std::size_t moves = move_count();
  // Each CMS begins elsewhere, so that two that were told of one loss do not run into each other at every step.
  const auto first = open_.lower_bound(first_);
  std::vector<Lineage> order(first, open_.end());
  order.insert(order.end(), open_.begin(), first);
  for (const Lineage& lineage : order) {
    Restore& restore = restores_.at(lineage);
    if (restore.stage != Stage::kQueued) continue;
    if (held >= config_.together_max) return;
    const ClaimRecord& head = *restore.head;
    if (head.kind == ClaimKind::kClaim &&
        !members_.is_stale(Writer{head.writer, head.writer_incarnation}, now)) {
      wait(now, restore, Stage::kWatching, kWatchOthers, head.writer + ", who claimed it, is back");
      continue;
    }
    if (restore.is_move() && head.kind == ClaimKind::kClaim) {
      restore.stop_why = head.writer + ", who moved it, has died";
    } else if (restore.is_move()) {
      const Present* source = find_present(restore.replaces.program.ecu_mac);
      if (source == nullptr || !source->freezes) {
        end(now, restore, Stage::kRefused,
            source == nullptr ? "its ECU is not connected" : "its RTCR cannot freeze programs", effects);
        continue;
      }
      if (moves >= kMovesTogetherMax) continue;
      ++moves;
    }
    ++held;
    restore.insisted = false;
    restore.tried = false;
    restore.may_pass = false;
    append(now, restore, claim(stamp(), *restore.head, restore.reason, restore.has_own_checkpoint),
           Stage::kClaiming, effects);
  }
}

void RestoreCore::release(Instant now, Restore& restore, Stage after, std::string why,
                          RestoreEffects& effects) {
  if (restore.is_move()) after = Stage::kRefused;
  restore.after_release = after;
  restore.why = why;
  effects.push_back(
      RestoreEvent{true, to_string(restore.replaces.program) +
                             (restore.is_move() ? " stays where it is: " : " is not restored: ") + why});
  append(now, restore, core::release(stamp(), *restore.head, !restore.tried, std::move(why)),
         Stage::kReleasing, effects);
}

void RestoreCore::abort(Instant now, Restore& restore, wire::AbortProof proof, std::string why,
                        RestoreEffects& effects) {
  effects.push_back(RestoreEvent{true, to_string(restore.replaces.program) + " was not started on " +
                                           to_string(restore.target.ecu_mac) + ": " + why});
  restore.unable.insert(restore.target.ecu_mac);
  restore.why = why;
  append(now, restore, core::abort(stamp(), *restore.head, proof, std::move(why)), Stage::kAborting, effects);
}

void RestoreCore::abort_gone(Instant now, Restore& restore, wire::AbortProof proof, RestoreEffects& effects) {
  const bool lost = proof == wire::AbortProof::kLost;
  abort(now, restore, proof, lost ? "its session is LOST" : "an operator says that its ECU is gone", effects);
}

void RestoreCore::end(Instant now, Restore& restore, Stage stage, std::string why, RestoreEffects& effects) {
  go_to(now, restore, stage);
  restore.ended_at = now;
  started_.erase(restore.lineage);
  restore.why = std::move(why);
  open_.erase(restore.lineage);
  if (stage != Stage::kRefused) return;
  effects.push_back(RestoreEvent{
      true, to_string(restore.replaces.program) +
                (restore.is_move() ? " was not moved: " : " cannot be restored: ") + restore.why});
  // Who is frozen for a claim of ours goes on at once; for another's, when it says next that it is frozen.
  if (restore.is_move() && restore.has_claimed && restore.head && !is_open(restore.head->kind))
    send_thaw(restore, effects);
}

void RestoreCore::end_moved(Instant now, Restore& restore, RestoreEffects& effects) {
  const wire::ClaimOwner owner = restore.head->owner;
  restore.runs_as = owner.program;
  const bool by_us = restore.stage == Stage::kFinishing && restore.head->kind == ClaimKind::kDone;
  if (by_us) restore.started_at = now;
  effects.push_back(OwnerChanged{restore.lineage, restore.replaces, owner});
  if (by_us) {
    std::string text = to_string(restore.replaces.program) + " runs as " + to_string(owner.program) + ", " +
                       ms(restore.began_at, now) +
                       (restore.is_move() ? " after its move was asked for" : " after its loss was told");
    if (restore.last) text += "; it stood still for " + ms(restore.frozen_at, now);
    if (restore.placed_at != Instant{} && restore.claimed_at != Instant{}) {
      text += " (claimed after " + ms(restore.began_at, restore.claimed_at) + ", placed " +
              ms(restore.claimed_at, restore.placed_at) + ", prepared " +
              ms(restore.placed_at, restore.prepared_at) + ", ACT " +
              ms(restore.prepared_at, restore.acted_at) + ", started and DONE " + ms(restore.acted_at, now) +
              ")";
    }
    effects.push_back(RestoreEvent{false, std::move(text)});
  }
  end(now, restore, Stage::kDone, {}, effects);
}

// ---- time

Duration RestoreCore::pace() const {
  constexpr Duration kWorking = std::chrono::milliseconds(20);
  constexpr Duration kIdle = std::chrono::seconds(1);
  if (!scanned_ecus_.empty() || scans_open_claims_) return kWorking;
  for (const Lineage& lineage : open_) {
    const Stage stage = restores_.at(lineage).stage;
    if (stage != Stage::kWatching && stage != Stage::kWaiting && stage != Stage::kNoTarget) return kWorking;
  }
  return open_.empty() ? kIdle : kWatchOthers;
}

void RestoreCore::step(Instant now, Restore& restore, RestoreEffects& effects) {
  if (restore.asked || now < restore.next_at) return;
  switch (restore.stage) {
    case Stage::kWatching:
    case Stage::kWaiting: return read_head(now, restore, effects);
    case Stage::kFinding: return find(now, restore, effects);
    case Stage::kFreezing: return send_freeze(now, restore, effects);
    case Stage::kPreparing:
      if (!is_there(restore.target)) return next_target(now, restore, "its session has ended", effects);
      if (is_gone(restore.target)) return next_target(now, restore, "it is lost", effects);
      if (is_drained(restore.target.ecu_mac)) return next_target(now, restore, "it is drained", effects);
      if (now - restore.heard_at >= kTargetSilenceMax) return next_target(now, restore, "no answer", effects);
      if (is_stuck(now, restore)) return next_target(now, restore, "it does not get on", effects);
      return send_prepare(now, restore, effects);
    case Stage::kActing:
      if (restore.unresolved != 0) break;
      if (!is_there(restore.target) || is_gone(restore.target)) {
        return next_target(now, restore, "its session has ended", effects);
      }
      if (is_drained(restore.target.ecu_mac)) return next_target(now, restore, "it is drained", effects);
      if (!members_.may_act(now)) {
        restore.next_at = now + kRestoreRetry;  // Others may be taking over; the log will tell.
        return;
      }
      return append(now, restore,
                    act(stamp(), *restore.head, restore.target, claim_blob_of(restore.found->name)),
                    Stage::kActing, effects);
    case Stage::kStarting:
      if (const auto proof = proof_of_end(*restore.head)) return abort_gone(now, restore, *proof, effects);
      if (const auto started = started_.find(restore.lineage);
          started != started_.end() && started->second.act_uid == restore.head->uid) {
        const std::optional<ProgramId> runs_as = started->second.runs_as;
        started_.erase(started);
        if (runs_as)
          return append(now, restore, done(stamp(), *restore.head, *runs_as), Stage::kFinishing, effects);
        return abort(now, restore, wire::AbortProof::kRefused,
                     "its ECU has begun a new session and does not run it", effects);
      }
      send_go(now, restore, effects);
      // It may have answered another of us.
      if (now - restore.since >= kOthersActGrace) read_head(now, restore, effects);
      return;
    case Stage::kClaiming:
    case Stage::kFinishing:
    case Stage::kAborting:
    case Stage::kReleasing: break;
    case Stage::kReading:
    case Stage::kQueued:
    case Stage::kPlacing:
    case Stage::kNoTarget:
    case Stage::kDone:
    case Stage::kRefused: return;
  }
  if (restore.unresolved == 0) return;
  restore.asked = true;
  restore.next_at = now + kRestoreRetry;
  effects.push_back(SettleAppend{restore.lineage, restore.unresolved});
}

void RestoreCore::on_time(Instant now, std::uint64_t wall_us, std::vector<Present> present,
                          RestoreEffects& effects) {
  wall_us_ = wall_us;
  present_ = std::move(present);
  look_for_losses(now, effects);
  look_after_drains(now, effects);
  look_after_frozen(now, effects);
  look_after_reconcilings(now, effects);
  // A step may end a restore, and so take it out of open_.
  const std::vector<Lineage> open(open_.begin(), open_.end());
  for (const Lineage& lineage : open) {
    Restore& restore = restores_.at(lineage);
    if (stop_move(now, restore, effects)) continue;
    if (draining_) give_back(now, restore, effects);
    step(now, restore, effects);
  }
  claim_queued(now, effects);
  placements_.erase(
      std::remove_if(placements_.begin(), placements_.end(),
                     [now](const Placement& one) { return now - one.at > kPlacementForgotten; }),
      placements_.end());
}

std::string_view to_string(Stage stage) {
  switch (stage) {
    case Stage::kReading: return "reading the log";
    case Stage::kQueued: return "queued";
    case Stage::kWatching: return "watched";
    case Stage::kClaiming: return "claiming";
    case Stage::kFinding: return "finding the checkpoint";
    case Stage::kPlacing: return "looking for a target";
    case Stage::kFreezing: return "freezing";
    case Stage::kPreparing: return "preparing";
    case Stage::kActing: return "acting";
    case Stage::kStarting: return "starting";
    case Stage::kFinishing: return "finishing";
    case Stage::kAborting: return "aborting";
    case Stage::kReleasing: return "releasing";
    case Stage::kWaiting: return "waiting";
    case Stage::kNoTarget: return "no target";
    case Stage::kDone: return "done";
    case Stage::kRefused: return "refused";
  }
  return "?";
}

}  // namespace cms::core
