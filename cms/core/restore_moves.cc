// Of a planned move: its source, which freezes the program, and thaws it when it stays.
#include <utility>

#include "base/assert.h"
#include "cms/core/restore.h"

namespace cms::core {
namespace {

using wire::ClaimRecord;
using Stage = RestoreCore::Stage;

bool is_claim(const wire::ClaimRef& a, const wire::ClaimRef& b) {
  return a.lineage == b.lineage && a.slot == b.slot && a.uid == b.uid;
}

}  // namespace

Status RestoreCore::move(Instant now, const ClaimRecord& head, std::optional<EcuMac> only,
                         RestoreEffects& effects) {
  const std::string program = to_string(head.owner.program);
  const auto known = restores_.find(head.lineage);
  if (known != restores_.end() && !known->second.has_ended() && known->second.replaces == head.owner) {
    const Restore& restore = known->second;
    if (restore.is_move() && restore.asked_here && restore.only == only && restore.stop_why.empty()) {
      return ok_status();
    }
    return make_error(Code::kAlreadyExists, program + " is being " +
                                                (restore.is_move() ? "moved" : "restored") +
                                                " already: " + std::string(to_string(restore.stage)));
  }
  if (draining_) return make_error(Code::kUnavailable, "this cmsd ends; ask another");
  if (is_open(head.kind)) {
    return make_error(Code::kAlreadyExists,
                      program + " is being moved or restored already: claimed by " + head.writer);
  }
  if (!begin(now, head, wire::ClaimReason::kRequest, effects)) {
    return make_error(Code::kLimit, program +
                                        ": too much is being restored, or what was done for it last has "
                                        "not ended on the store yet; ask again");
  }
  Restore& restore = restores_.at(head.lineage);
  restore.asked_here = true;
  restore.only = only;
  return ok_status();
}

Status RestoreCore::cancel_move(Instant, ProgramKey program) {
  for (const Lineage& lineage : open_) {
    Restore& restore = restores_.at(lineage);
    if (!restore.is_move() || !(restore.replaces.program == program)) continue;
    const bool under_act = restore.head && restore.head->kind == wire::ClaimKind::kAct;
    if ((under_act && restore.stage != Stage::kAborting) ||
        (restore.stage == Stage::kActing && (restore.asked || restore.unresolved != 0))) {
      return make_error(Code::kUnavailable,
                        to_string(program) + " may run on " + to_string(restore.target.ecu_mac) + " by now");
    }
    if (restore.stage == Stage::kWatching) {
      return make_error(Code::kUnavailable, to_string(program) + " is being moved by " +
                                                restore.head->writer + "; tell that cmsd");
    }
    if (restore.stop_why.empty()) restore.stop_why = "it was cancelled";
    return ok_status();
  }
  return make_error(Code::kNotFound, to_string(program) + " is not being moved by this cmsd");
}

void RestoreCore::judge_free_move(Instant now, Restore& restore, RestoreEffects& effects) {
  if (restore.lost_meanwhile) return go_on_as_lost(now, restore);
  const bool orphaned = is_open(restore.head->kind);  // It is claimed only to be released.
  if (!orphaned && (restore.has_claimed || !restore.asked_here || !restore.stop_why.empty())) {
    std::string why = restore.stop_why.empty() ? restore.why : restore.stop_why;
    if (why.empty()) why = "its claim has ended";
    return end(now, restore, Stage::kRefused, std::move(why), effects);
  }
  go_to(now, restore, Stage::kQueued);
}

void RestoreCore::go_on_as_lost(Instant now, Restore& restore) {
  restore.reason = restore.lost_reason;
  restore.insisted = restore.reason == wire::ClaimReason::kVouched;
  restore.lost_meanwhile = false;
  restore.stop_why.clear();
  restore.has_claimed = false;
  restore.only.reset();
  restore.restarts.reset();
  restore.last.reset();
  restore.found.reset();
  restore.unable.clear();
  go_to(now, restore, Stage::kQueued);
}

bool RestoreCore::stop_move(Instant now, Restore& restore, RestoreEffects& effects) {
  if (restore.stop_why.empty() || !restore.was_asked_for() || restore.asked || restore.unresolved != 0)
    return false;
  switch (restore.stage) {
    case Stage::kQueued:
      if (is_open(restore.head->kind)) return false;  // Of a dead one: that is ended first.
      [[fallthrough]];
    case Stage::kWatching:
    case Stage::kWaiting:
      if (restore.has_claimed) return false;  // That may be open: the head will tell.
      if (!restore.lost_meanwhile) {
        end(now, restore, Stage::kRefused, restore.stop_why, effects);
      } else {
        go_on_as_lost(now, restore);
        read_head(now, restore, effects);
      }
      return true;
    case Stage::kPreparing:
    case Stage::kActing: command(restore, wire::Discard{claim_of(restore)}, effects); [[fallthrough]];
    case Stage::kFinding:
    case Stage::kPlacing:
    case Stage::kFreezing: release(now, restore, Stage::kRefused, restore.stop_why, effects); return true;
    default: return false;  // Soon, or too late.
  }
}

std::size_t RestoreCore::move_count() const {
  std::size_t count = 0;
  for (const Lineage& lineage : open_) {
    const Restore& restore = restores_.at(lineage);
    if (!restore.is_move()) continue;
    const bool waits = restore.stage == Stage::kWatching || restore.stage == Stage::kQueued;
    if (restore.stage == Stage::kClaiming || (restore.has_claimed && !waits)) ++count;
  }
  return count;
}

// ---- the source

void RestoreCore::send_freeze(Instant now, Restore& restore, RestoreEffects& effects) {
  const std::string source = to_string(restore.replaces.program.ecu_mac);
  if (now - restore.heard_at >= kSourceSilenceMax) {
    return release(now, restore, Stage::kRefused, source + ", which runs it, does not answer", effects);
  }
  if (now - restore.since >= kSourceFreezesMax) {
    return release(now, restore, Stage::kRefused, source + " does not get it stopped", effects);
  }
  restore.next_at = now + kCommandRepeat;
  effects.push_back(SendToSource{restore.replaces.program,
                                 wire::Freeze{claim_of(restore), restore.replaces.program.program_id}});
}

void RestoreCore::send_thaw(const Restore& restore, RestoreEffects& effects) const {
  const ClaimRecord& head = *restore.head;
  if (was_lost(head)) return;  // Its ECU has begun another session; somebody may be restoring it.
  effects.push_back(SendToSource{restore.replaces.program,
                                 wire::Thaw{wire::ClaimRef{restore.lineage, head.slot, head.uid},
                                            restore.replaces.program.program_id, head.on_isolation}});
}

void RestoreCore::on_freeze_report(Instant now, const SessionId& from, const wire::FreezeReport& report,
                                   RestoreEffects& effects) {
  const Lineage& lineage = report.claim.lineage;
  const ProgramKey program{from.ecu_mac, report.program_id};
  const auto found = restores_.find(lineage);
  if (found != restores_.end() && !found->second.has_ended()) {
    Restore& restore = found->second;
    const bool ours =
        restore.head && restore.replaces.program == program && is_claim(report.claim, claim_of(restore));
    if (ours && restore.stage == Stage::kFreezing) return on_source_answered(now, restore, report, effects);
    if (ours && restore.last && report.state == wire::FreezeState::kFrozen) note_frozen(now, restore, report);
    // Whatever it is frozen for: what is done here ends it. One that waits for its turn may wait long.
    if (restore.has_claimed || !restore.is_move()) return;
  }
  if (report.state != wire::FreezeState::kFrozen) {
    if (report.state == wire::FreezeState::kThawed) frozen_.erase(FrozenKey(lineage, program));
    return;
  }
  const bool ours = found != restores_.end() && found->second.is_move() && found->second.has_ended();
  const FrozenKey key(lineage, program);
  if (frozen_.count(key) == 0 && frozen_.size() >= kFrozenCountMax) return;
  const auto [entry, is_new] = frozen_.emplace(key, Frozen{});
  Frozen& frozen = entry->second;
  if (is_new || frozen.claim_slot != report.claim.slot) frozen.since = now;
  if (is_new) frozen.look_at = ours ? now : now + kFrozenSettledAfter;
  frozen.source = from;
  frozen.last = report.last;
  frozen.claim_slot = report.claim.slot;
  frozen.reported_at = now;
}

// It goes on saying so, while its last checkpoint is awaited: under a newer incarnation that has another version, and it
// may have been lost.
void RestoreCore::note_frozen(Instant now, Restore& restore, const wire::FreezeReport& report) {
  restore.source_heard_at = now;
  if (restore.found) return;
  restore.last = report.last;
  if (report.code != Code::kOk && restore.stop_why.empty()) {
    restore.stop_why = to_string(restore.replaces.program.ecu_mac) + ": " + report.context;
  }
}

void RestoreCore::on_source_answered(Instant now, Restore& restore, const wire::FreezeReport& report,
                                     RestoreEffects& effects) {
  restore.heard_at = now;
  const std::string source = to_string(restore.replaces.program.ecu_mac);
  switch (report.state) {
    case wire::FreezeState::kUnknown:
    case wire::FreezeState::kFreezing: return;
    case wire::FreezeState::kFrozen:
      if (report.code != Code::kOk) {
        return release(now, restore, Stage::kRefused, source + ": " + report.context, effects);
      }
      restore.last = report.last;
      restore.found.reset();  // That was an older one.
      restore.frozen_at = now;
      restore.source_heard_at = now;
      return find(now, restore, effects);
    case wire::FreezeState::kRefused:
      return release(
          now, restore, Stage::kRefused,
          source + " does not stop it: " + (report.context.empty() ? "no reason given" : report.context),
          effects);
    case wire::FreezeState::kThawed:
      return read_head(now, restore, effects);  // Our claim is not the last any more.
  }
}

void RestoreCore::prepare_frozen(Instant now, Restore& restore, RestoreEffects& effects) {
  if (!is_there(restore.target) || is_gone(restore.target) || is_drained(restore.target.ecu_mac)) {
    return look_for_target(now, restore, effects);
  }
  restore.received_bytes = 0;
  restore.heard_at = now;
  restore.moved_at = now;
  go_to(now, restore, Stage::kPreparing);
  send_prepare(now, restore, effects);
}

// ---- what is frozen for a claim that nobody here works at

void RestoreCore::look_after_frozen(Instant now, RestoreEffects& effects) {
  for (auto it = frozen_.begin(); it != frozen_.end();) {
    Frozen& frozen = it->second;
    if (now - frozen.reported_at > kFrozenForgotten && !frozen.asked) {
      it = frozen_.erase(it);
      continue;
    }
    if (!frozen.asked && now >= frozen.look_at) {
      frozen.asked = true;
      frozen.look_at = now + kFrozenSettledAfter;
      effects.push_back(ReadFrozen{it->first.first});
    }
    ++it;
  }
}

void RestoreCore::on_frozen_head(Instant now, const Lineage& lineage, const Result<Head>& head,
                                 RestoreEffects& effects) {
  for (auto it = frozen_.lower_bound(FrozenKey(lineage, ProgramKey{}));
       it != frozen_.end() && it->first.first == lineage;) {
    const bool asked = std::exchange(it->second.asked, false);
    const bool settled = asked && head.ok() && head->record &&
                         settle_frozen(now, it->first.second, it->second, *head->record, effects);
    it = settled ? frozen_.erase(it) : std::next(it);
  }
}

bool RestoreCore::settle_frozen(Instant now, const ProgramKey& program, const Frozen& frozen,
                                const ClaimRecord& head, RestoreEffects& effects) {
  if (head.slot < frozen.claim_slot) return false;  // Not a head that there can be.
  if (!(head.owner.program == program)) {
    const wire::ClaimOwner former{program, frozen.source.incarnation, 0};
    effects.push_back(OwnerChanged{head.lineage, former, head.owner});
    // Also who holds nothing any more, and of whom nothing else is known here.
    wire::Receipt fenced;
    fenced.program_id = program.program_id;
    fenced.seq = frozen.last.seq;
    fenced.level = wire::ReceiptLevel::kFenced;
    fenced.code = Code::kFenced;
    fenced.lineage = head.lineage;
    fenced.owner_epoch = head.owner.owner_epoch;
    fenced.reason = "the program goes on as " + to_string(head.owner.program);
    effects.push_back(SendToTarget{frozen.source, std::move(fenced)});
    return true;
  }
  if (!is_open(head.kind)) {
    if (was_lost(head)) return false;  // Somebody may be restoring it, and then it is fenced here.
    effects.push_back(RestoreEvent{
        false, to_string(program) + " goes on where it was, as its move has ended: " + head.text});
    effects.push_back(
        SendToTarget{frozen.source, wire::Thaw{wire::ClaimRef{head.lineage, head.slot, head.uid},
                                               program.program_id, head.on_isolation}});
    return true;
  }
  const Writer writer{head.writer, head.writer_incarnation};
  const bool mine = writer.name == config_.me.name && writer.incarnation == config_.me.incarnation;
  // Who wrote ACT lives, but may be cut from the target, and the program stands still all the while.
  const bool may_help = head.kind == wire::ClaimKind::kAct;
  if (mine || may_help || members_.is_stale(writer, now)) begin(now, head, head.reason, effects);
  return false;
}

}  // namespace cms::core
