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
    if (restore.stage == Stage::kStarting || restore.stage == Stage::kFinishing ||
        (restore.stage == Stage::kActing && (restore.asked || restore.unresolved != 0))) {
      return make_error(Code::kUnavailable,
                        to_string(program) + " may run on " + to_string(restore.target.ecu_mac) + " by now");
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
  restore.reason = wire::ClaimReason::kVouched;
  restore.insisted = true;
  restore.lost_meanwhile = false;
  restore.stop_why.clear();
  restore.has_claimed = false;
  restore.only.reset();
  restore.last.reset();
  restore.found.reset();
  restore.unable.clear();
  go_to(now, restore, Stage::kQueued);
}

bool RestoreCore::stop_move(Instant now, Restore& restore, RestoreEffects& effects) {
  if (restore.stop_why.empty() || !restore.is_move() || restore.asked || restore.unresolved != 0)
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
  effects.push_back(SendToSource{
      restore.replaces.program,
      wire::Thaw{wire::ClaimRef{restore.lineage, head.slot, head.uid}, restore.replaces.program.program_id}});
}

void RestoreCore::on_freeze_report(Instant now, const SessionId& from, const wire::FreezeReport& report,
                                   RestoreEffects& effects) {
  const Lineage& lineage = report.claim.lineage;
  const ProgramKey program{from.ecu_mac, report.program_id};
  const auto found = restores_.find(lineage);
  if (found != restores_.end() && !found->second.has_ended()) {
    Restore& restore = found->second;
    if (restore.stage == Stage::kFreezing && restore.replaces.program == program &&
        is_claim(report.claim, claim_of(restore))) {
      on_source_answered(now, restore, report, effects);
    }
    return;  // Whatever it is frozen for: what is done here ends it.
  }
  if (report.state != wire::FreezeState::kFrozen) {
    if (report.state == wire::FreezeState::kThawed) frozen_.erase(lineage);
    return;
  }
  const bool ours = found != restores_.end() && found->second.is_move();
  if (frozen_.count(lineage) == 0 && frozen_.size() >= kFrozenCountMax) return;
  const auto [entry, is_new] = frozen_.emplace(lineage, Frozen{});
  Frozen& frozen = entry->second;
  if (is_new || frozen.claim_slot != report.claim.slot) {
    frozen.since = now;
    frozen.look_at = ours ? now : now + kFrozenSettledAfter;
  }
  frozen.source = from;
  frozen.program_id = report.program_id;
  frozen.claim_slot = report.claim.slot;
  frozen.reported_at = now;
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
      effects.push_back(ReadFrozen{it->first});
    }
    ++it;
  }
}

void RestoreCore::on_frozen_head(Instant now, const Lineage& lineage, const Result<Head>& head,
                                 RestoreEffects& effects) {
  const auto entry = frozen_.find(lineage);
  if (entry == frozen_.end() || !std::exchange(entry->second.asked, false)) return;
  if (!head.ok() || !head->record) return;  // It says again that it is frozen.
  const ClaimRecord& record = *head->record;
  const Frozen& frozen = entry->second;
  if (record.slot < frozen.claim_slot) return;  // Not a head that there can be.
  const ProgramKey program{frozen.source.ecu_mac, frozen.program_id};
  if (!(record.owner.program == program)) {
    const wire::ClaimOwner former{program, frozen.source.incarnation, 0};
    effects.push_back(OwnerChanged{lineage, former, record.owner});
    frozen_.erase(entry);
  } else if (!is_open(record.kind)) {
    effects.push_back(RestoreEvent{
        false, to_string(program) + " goes on where it was, as its move has ended: " + record.text});
    effects.push_back(SendToTarget{
        frozen.source, wire::Thaw{wire::ClaimRef{lineage, record.slot, record.uid}, frozen.program_id}});
    frozen_.erase(entry);
  } else {
    const Writer writer{record.writer, record.writer_incarnation};
    const bool mine = writer.name == config_.me.name && writer.incarnation == config_.me.incarnation;
    if (mine || members_.is_stale(writer, now)) begin(now, record, record.reason, effects);
  }
}

}  // namespace cms::core
