// Of a restore: the checkpoint, the target that is to run it, and what that answers.
#include <algorithm>
#include <utility>

#include "base/assert.h"
#include "cms/core/restore.h"

namespace cms::core {
namespace {

using Stage = RestoreCore::Stage;

// A program shows in the figures of its ECU only when it has been restored there.
constexpr Duration kPlacementShows = std::chrono::seconds(5);

bool is_at_target(const RestoreCore::Restore& restore, EcuMac ecu_mac) {
  switch (restore.stage) {
    case Stage::kFinding:
      if (!restore.last) return false;
      [[fallthrough]];
    case Stage::kFreezing:
    case Stage::kPreparing:
    case Stage::kActing:
    case Stage::kStarting:
    case Stage::kFinishing:
    case Stage::kDone: return restore.target.ecu_mac == ecu_mac;
    default: return false;
  }
}

std::string no_target(const std::vector<TargetVerdict>& verdicts) {
  if (verdicts.empty()) return "no ECU is connected";
  constexpr std::size_t kToldMax = 4;
  std::string why = "no eligible target:";
  for (std::size_t i = 0; i < verdicts.size() && i < kToldMax; ++i) {
    why += (i == 0 ? " " : "; ") + to_string(verdicts[i].session.ecu_mac) + ": " + verdicts[i].why;
  }
  if (verdicts.size() > kToldMax) why += "; and " + std::to_string(verdicts.size() - kToldMax) + " more";
  return why;
}

}  // namespace

// ---- the checkpoint

void RestoreCore::find(Instant now, Restore& restore, RestoreEffects& effects) {
  CMS_ASSERT(!restore.asked);
  go_to(now, restore, Stage::kFinding);
  restore.skip = restore.head->attempts > kAttemptsBeforeOlder && !restore.is_move() ? 1 : 0;
  restore.asked = true;
  effects.push_back(FindCheckpoint{*restore.head, restore.skip, restore.last});
}

void RestoreCore::on_found(Instant now, const Lineage& lineage, const Result<Found>& found,
                           RestoreEffects& effects) {
  const auto known = restores_.find(lineage);
  if (known == restores_.end() || !std::exchange(known->second.asked, false)) return;
  Restore& restore = known->second;
  if (found.ok()) {
    restore.found = *found;
    restore.found_for = restore.claim_uid;
    if (restore.last) return prepare_frozen(now, restore, effects);
    return look_for_target(now, restore, effects);
  }
  const Code code = found.error().code;
  if (restore.last && code != Code::kCorrupt && code != Code::kWithdrawn) {
    return wait_for_last(now, restore, found.error(), effects);
  }
  if (code == Code::kNotFound || code == Code::kWithdrawn || (code == Code::kCorrupt && restore.last)) {
    return release(now, restore, Stage::kRefused, found.error().message(), effects);
  }
  restore.why = found.error().message();
  restore.next_at = now + kRestoreRetry;
}

void RestoreCore::wait_for_last(Instant now, Restore& restore, const Error& error, RestoreEffects& effects) {
  const bool missing = error.code == Code::kNotFound;
  restore.why = missing ? "its last checkpoint is not on the store yet" : error.message();
  if (now - restore.frozen_at >= kLastStoredMax) {
    return release(now, restore, Stage::kRefused, error.message(), effects);
  }
  if (missing && now - restore.source_heard_at >= kSourceSilenceMax) {  // Who would be pulled from has gone.
    return release(now, restore, Stage::kRefused,
                   to_string(restore.replaces.program.ecu_mac) + " has gone with its last checkpoint",
                   effects);
  }
  if (now - restore.heard_at >= kFrozenSettledAfter) {  // Has somebody else ended the claim meanwhile?
    restore.heard_at = now;
    return read_head(now, restore, effects);
  }
  const Duration pause = std::max<Duration>((now - restore.frozen_at) / 4, kLastLookedForMin);
  restore.next_at = now + (missing ? std::min<Duration>(pause, kLastLookedForMax) : kRestoreRetry);
}

// ---- the target

void RestoreCore::look_for_target(Instant now, Restore& restore, RestoreEffects& effects) {
  if (restore.restarts) return place_restart(now, restore, effects);
  go_to(now, restore, Stage::kPlacing);
  effects.push_back(AskTargets{});
}

bool RestoreCore::is_there(const SessionId& session) const {
  const Present* present = find_present(session.ecu_mac);
  return present != nullptr && present->session == session;
}

const Present* RestoreCore::find_present(EcuMac ecu_mac) const {
  const auto found = std::lower_bound(
      present_.begin(), present_.end(), ecu_mac,
      [](const Present& present, EcuMac wanted) { return present.session.ecu_mac < wanted; });
  return found == present_.end() || found->session.ecu_mac != ecu_mac ? nullptr : &*found;
}

bool RestoreCore::wants_targets(Instant now) const {
  if (!config_.placement.failure_groups.empty() && now >= next_groups_at_) return true;
  return std::any_of(open_.begin(), open_.end(), [&](const Lineage& lineage) {
    const Restore& restore = restores_.at(lineage);
    return restore.stage == Stage::kPlacing || (restore.stage == Stage::kNoTarget && now >= restore.next_at);
  });
}

void RestoreCore::on_targets(Instant now, std::vector<Candidate> candidates, std::size_t awaited,
                             RestoreEffects& effects) {
  note_groups(now, candidates, effects);
  place_all(now, std::move(candidates), awaited, effects);
}

Demand RestoreCore::demand_of(const Restore& restore) const {
  Demand demand;
  demand.program = restore.replaces.program;
  demand.lineage = restore.lineage;
  demand.size_bytes = restore.found->name.size_bytes;
  demand.requirements = restore.found->notification.requirements;
  demand.real_time = restore.found->notification.real_time;
  demand.only = restore.only;
  demand.owner_may_take =
      restore.reason == wire::ClaimReason::kLost || restore.reason == wire::ClaimReason::kReportedDead;
  demand.needs_guard = restore.head && restores_by_itself(*restore.head);
  demand.leaves_groups = groups_of(demand.program.ecu_mac);
  return demand;
}

std::vector<std::string> RestoreCore::groups_of(EcuMac ecu_mac,
                                                const std::vector<Candidate>& candidates) const {
  for (const Candidate& candidate : candidates) {
    if (candidate.session.ecu_mac == ecu_mac && candidate.metrics)
      return failure_groups_of(candidate.metrics->labels, config_.placement);
  }
  const auto found = groups_.find(ecu_mac);
  return found == groups_.end() ? std::vector<std::string>() : found->second;
}

void RestoreCore::note_groups(Instant now, const std::vector<Candidate>& candidates,
                              RestoreEffects& effects) {
  if (config_.placement.failure_groups.empty()) return;
  for (const Candidate& candidate : candidates) {
    if (!candidate.metrics) continue;
    const EcuMac ecu_mac = candidate.session.ecu_mac;
    if (groups_.size() >= kGroupsCountMax && groups_.count(ecu_mac) == 0) continue;
    groups_[ecu_mac] = failure_groups_of(candidate.metrics->labels, config_.placement);
  }
  if (now < next_groups_at_) return;
  next_groups_at_ = now + kGroupsAskedEvery;
  effects.push_back(AskTargets{});
}

void RestoreCore::add_reservations(Instant now, std::vector<Candidate>& candidates) const {
  std::map<EcuMac, Candidate*> by_ecu;
  for (Candidate& candidate : candidates) {
    by_ecu.emplace(candidate.session.ecu_mac, &candidate);
    candidate.shunned = shunned_for(now, candidate.session.ecu_mac);
    if (candidate.metrics && is_drained(candidate.session.ecu_mac)) candidate.metrics->draining = true;
  }
  for (const Placement& placement : placements_) {
    const auto found = by_ecu.find(placement.ecu_mac);
    if (found == by_ecu.end()) continue;
    std::vector<Hosted>& hosted = found->second->hosted;
    const auto restore = restores_.find(placement.lineage);
    // It counts until the target says itself that it runs it, or has it no more.
    if (placement.hosted && restore != restores_.end() && is_at_target(restore->second, placement.ecu_mac) &&
        std::none_of(hosted.begin(), hosted.end(),
                     [&](const Hosted& one) { return one.lineage == placement.lineage; })) {
      hosted.push_back(*placement.hosted);
    }
    const bool freezes =
        restore != restores_.end() && restore->second.target.ecu_mac == placement.ecu_mac &&
        (restore->second.stage == Stage::kFreezing || restore->second.stage == Stage::kFinding);
    if (!freezes && placement.at + kPlacementShows < now - found->second->metrics_age) continue;
    found->second->reserved.ram_bytes += placement.reservation.ram_bytes;
    found->second->reserved.cpu_permille += placement.reservation.cpu_permille;
  }
}

std::uint64_t RestoreCore::bytes_under_way() const {
  std::uint64_t bytes = 0;
  for (const Lineage& lineage : open_) {
    const Restore& restore = restores_.at(lineage);
    if (restore.stage == Stage::kPreparing || restore.stage == Stage::kFreezing) {
      bytes += restore.found->name.size_bytes;
    }
  }
  return bytes;
}

void RestoreCore::place_all(Instant now, std::vector<Candidate> candidates, std::size_t awaited,
                            RestoreEffects& effects) {
  std::vector<Restore*> waiting;
  std::vector<Restore*> without_target;
  bool figures_are_new = false;  // Nobody waits yet longer than an answer takes.
  for (const Lineage& lineage : open_) {
    Restore& restore = restores_.at(lineage);
    if (restore.stage == Stage::kPlacing) waiting.push_back(&restore);
    if (restore.stage == Stage::kNoTarget && now >= restore.next_at) without_target.push_back(&restore);
  }
  if (waiting.empty() && without_target.empty()) return;
  effects.push_back(AskTargets{});
  for (const Restore* restore : waiting) {
    if (awaited == 0 || now - restore->since >= kPlaceWaitMax / 3) figures_are_new = true;
  }
  candidates.erase(std::remove_if(candidates.begin(), candidates.end(),
                                  [this](const Candidate& candidate) { return is_gone(candidate.session); }),
                   candidates.end());
  add_reservations(now, candidates);
  if (!draining_) {
    for (Restore* restore : without_target) look_again(now, *restore, candidates, effects);
  }
  if (!figures_are_new) return;
  std::sort(waiting.begin(), waiting.end(), [](const Restore* a, const Restore* b) {
    const wire::RealTime& first = a->found->notification.real_time;
    const wire::RealTime& second = b->found->notification.real_time;
    if (more_urgent(first, second)) return true;
    return !more_urgent(second, first) && a->lineage < b->lineage;
  });
  std::uint64_t bytes = bytes_under_way();
  for (Restore* restore : waiting) {
    const std::uint64_t size_bytes = restore->found->name.size_bytes;
    if (bytes > 0 && bytes + size_bytes > config_.budget_bytes) return;  // None overtakes a more urgent one.
    if (place(now, *restore, candidates, effects)) bytes += size_bytes;
  }
}

bool RestoreCore::place(Instant now, Restore& restore, std::vector<Candidate>& candidates,
                        RestoreEffects& effects) {
  const Demand demand = demand_of(restore);
  if (const auto best = pick(demand, candidates, restore.unable, config_.placement)) {
    set_target(now, restore, *best);
    reserve(demand, *std::find_if(candidates.begin(), candidates.end(),
                                  [&](const Candidate& candidate) { return candidate.session == *best; }));
    if (placements_.size() >= kPlacementCountMax) placements_.erase(placements_.begin());
    placements_.push_back(Placement{demand.lineage, best->ecu_mac, reservation_of(demand),
                                    hosted_of(demand.lineage, demand.requirements, demand.real_time), now});
    if (restore.is_move() && !restore.last) {
      go_to(now, restore, Stage::kFreezing);
      send_freeze(now, restore, effects);
      return true;
    }
    go_to(now, restore, Stage::kPreparing);
    send_prepare(now, restore, effects);
    return true;
  }
  const bool figures_had_time = now - restore.since >= kPlaceWaitMax / 3;
  if (restore.may_pass && !restore.is_move() && figures_had_time && ++restore.rounds < kTargetRoundsMax) {
    // Who refused a claim refuses it for good: it takes another one.
    restore.tried = false;  // It was nobody's failure, and says nothing about the checkpoint.
    restore.unable.clear();
    release(now, restore, Stage::kWaiting, restore.why, effects);
    return false;
  }
  if (now - restore.since < kPlaceWaitMax) return false;
  std::vector<TargetVerdict> verdicts = rank(demand, candidates, config_.placement);
  verdicts.erase(std::remove_if(verdicts.begin(), verdicts.end(),
                                [&](const TargetVerdict& verdict) {
                                  return restore.unable.count(verdict.session.ecu_mac) != 0;
                                }),
                 verdicts.end());
  const std::size_t unable = std::exchange(restore.unable, {}).size();
  std::string why = unable > 0 && verdicts.empty() ? "" : no_target(verdicts);
  if (unable > 0) {
    why += (why.empty() ? "" : "; ") + std::to_string(unable) + " could not, the last: " + restore.why;
  }
  release(now, restore, Stage::kNoTarget, std::move(why), effects);
  return false;
}

void RestoreCore::set_target(Instant now, Restore& restore, const SessionId& target) {
  restore.target = target;
  restore.placed_at = now;
  restore.received_bytes = 0;
  restore.tried = !restore.was_asked_for();  // What fails then says nothing about the checkpoint.
  restore.heard_at = now;
  restore.moved_at = now;
}

void RestoreCore::look_again(Instant now, Restore& restore, const std::vector<Candidate>& candidates,
                             RestoreEffects& effects) {
  const Demand demand = demand_of(restore);
  if (pick(demand, candidates, {}, config_.placement)) return read_head(now, restore, effects);
  if (now - restore.since >= kNoTargetReread) {
    restore.only_looks = true;
    return read_head(now, restore, effects);
  }
  const std::vector<TargetVerdict> verdicts = rank(demand, candidates, config_.placement);
  const bool figures_come = std::any_of(verdicts.begin(), verdicts.end(), [](const auto& verdict) {
    return verdict.ineligible == Ineligible::kNoMetrics || verdict.ineligible == Ineligible::kStaleMetrics;
  });
  restore.next_at = now + (figures_come ? kRestoreRetry : kNoTargetRetry);
}

wire::ClaimRef RestoreCore::claim_of(const Restore& restore) const {
  return wire::ClaimRef{restore.lineage, restore.head->claim_slot, restore.claim_uid};
}

void RestoreCore::command(Restore& restore, wire::ControlBody body, RestoreEffects& effects) const {
  effects.push_back(SendToTarget{restore.target, std::move(body)});
}

bool RestoreCore::is_stuck(Instant now, const Restore& restore) const {
  if (restore.received_bytes >= restore.found->name.size_bytes && restore.received_bytes > 0) {
    return now - restore.moved_at >= kTargetPreparesMax;
  }
  // It may have others of ours to pull first.
  const auto target = targets_moved_.find(restore.target.ecu_mac);
  const Instant moved_at =
      target == targets_moved_.end() ? restore.moved_at : std::max(restore.moved_at, target->second);
  return now - moved_at >= kTargetStuckMax;
}

void RestoreCore::give_back(Instant now, Restore& restore, RestoreEffects& effects) {
  if (restore.asked || restore.unresolved != 0) return;
  if (restore.stage != Stage::kFinding && restore.stage != Stage::kPlacing &&
      restore.stage != Stage::kFreezing && restore.stage != Stage::kPreparing) {
    return;
  }
  if (restore.stage == Stage::kPreparing) command(restore, wire::Discard{claim_of(restore)}, effects);
  restore.tried = false;  // It is nobody's failure.
  release(now, restore, Stage::kNoTarget, "this cmsd ends", effects);
}

void RestoreCore::send_prepare(Instant now, Restore& restore, RestoreEffects& effects) {
  restore.next_at = now + kCommandRepeat;
  command(
      restore,
      wire::Prepare{claim_of(restore), restore.found->session, restore.found->notification, config_.bulk_port,
                    restore.restarts ? std::optional(restore.replaces.program.program_id) : std::nullopt},
      effects);
}

void RestoreCore::send_go(Instant now, Restore& restore, RestoreEffects& effects) {
  restore.next_at = now + kCommandRepeat;
  command(restore,
          wire::Go{claim_of(restore), restore.head->slot, restore.head->uid, restore.head->on_isolation},
          effects);
}

void RestoreCore::refused_by_target(Instant now, Restore& restore, const wire::RestoreReport& report,
                                    RestoreEffects& effects) {
  const bool may_pass = report.code == Code::kTimeout || report.code == Code::kUnavailable;
  next_target(now, restore, report.context.empty() ? "it refused" : report.context, effects, may_pass);
}

void RestoreCore::next_target(Instant now, Restore& restore, std::string why, RestoreEffects& effects,
                              bool may_pass) {
  if (restore.restarts) {
    command(restore, wire::Discard{claim_of(restore)}, effects);
    return release(now, restore, Stage::kRefused, to_string(restore.target.ecu_mac) + ": " + why, effects);
  }
  restore.may_pass = restore.may_pass || may_pass;
  effects.push_back(RestoreEvent{true, to_string(restore.replaces.program) + " goes to another target than " +
                                           to_string(restore.target.ecu_mac) + ": " + why});
  command(restore, wire::Discard{claim_of(restore)}, effects);
  restore.unable.insert(restore.target.ecu_mac);
  restore.why = std::move(why);
  go_to(now, restore, Stage::kPlacing);
}

void RestoreCore::on_report(Instant now, const SessionId& from, const wire::RestoreReport& report,
                            RestoreEffects& effects) {
  const auto found = restores_.find(report.claim.lineage);
  if (found == restores_.end()) return;
  Restore& restore = found->second;
  if (!restore.head || !(from == restore.target)) return;
  if (report.claim.slot != restore.head->claim_slot || report.claim.uid != restore.claim_uid) return;
  if (restore.stage == Stage::kPreparing) {
    restore.heard_at = now;
    switch (report.state) {
      case wire::RestoreState::kUnknown: return;
      case wire::RestoreState::kPulling:
        if (report.received_bytes > restore.received_bytes) {
          restore.received_bytes = report.received_bytes;
          restore.moved_at = now;
          targets_moved_[from.ecu_mac] = now;
        }
        return;
      case wire::RestoreState::kPrepared:
        targets_moved_[from.ecu_mac] = now;
        restore.received_bytes = report.received_bytes;
        restore.prepared_at = now;
        go_to(now, restore, Stage::kActing);
        return step(now, restore, effects);
      case wire::RestoreState::kRunning:
        return next_target(now, restore, "it says that it runs what it was not told to run", effects);
      case wire::RestoreState::kRefused:
      case wire::RestoreState::kDiscarded: return refused_by_target(now, restore, report, effects);
    }
    return;
  }
  if (restore.stage == Stage::kActing && !restore.asked && restore.unresolved == 0 &&
      (report.state == wire::RestoreState::kRefused || report.state == wire::RestoreState::kDiscarded)) {
    return refused_by_target(now, restore, report, effects);
  }
  if (restore.stage != Stage::kStarting || restore.asked || report.act_uid != restore.head->uid) return;
  restore.heard_at = now;
  if (report.state == wire::RestoreState::kRunning) {
    append(now, restore, done(stamp(), *restore.head, report.program_id), Stage::kFinishing, effects);
  } else if (report.state == wire::RestoreState::kRefused || report.state == wire::RestoreState::kDiscarded) {
    abort(now, restore, wire::AbortProof::kRefused, report.context.empty() ? "it refused" : report.context,
          effects);
  }
}

}  // namespace cms::core
