// An ECU is drained: all its programs are moved to others, and none is placed there.
#include <algorithm>
#include <utility>

#include "cms/core/restore.h"

namespace cms::core {

using wire::ClaimRecord;
using Stage = RestoreCore::Stage;

void RestoreCore::drain_ecu(Instant now, EcuMac ecu_mac, std::optional<Instant> deadline,
                            RestoreEffects& effects) {
  if (drains_.size() >= kDrainCountMax && drains_.count(ecu_mac) == 0) {
    const auto oldest = std::min_element(drains_.begin(), drains_.end(), [](const auto& a, const auto& b) {
      return std::make_pair(!a.second.cancelled, a.second.told_at) <
             std::make_pair(!b.second.cancelled, b.second.told_at);
    });
    drains_.erase(oldest);
  }
  Drain& drain = drains_[ecu_mac];
  drain = Drain{};
  drain.told_at = now;
  drain.deadline = deadline;
  drain.next_look_at = now;
  effects.push_back(RestoreEvent{false, "ECU " + to_string(ecu_mac) + " is drained"});
}

Status RestoreCore::cancel_drain(Instant, EcuMac ecu_mac, RestoreEffects& effects) {
  const auto drain = drains_.find(ecu_mac);
  if (drain == drains_.end() || drain->second.cancelled) {
    return make_error(Code::kNotFound, to_string(ecu_mac) + " is not drained by this cmsd");
  }
  drain->second.cancelled = true;
  stop_drain(ecu_mac, drain->second, "the drain was cancelled", effects);
  return ok_status();
}

bool RestoreCore::is_drained(EcuMac ecu_mac) const {
  const auto drain = drains_.find(ecu_mac);
  return drain != drains_.end() && !drain->second.cancelled;
}

void RestoreCore::stop_drain(EcuMac ecu_mac, Drain& drain, const std::string& why, RestoreEffects& effects) {
  if (drain.ended_why.empty()) {
    effects.push_back(RestoreEvent{false, "ECU " + to_string(ecu_mac) + ": " + why});
  }
  drain.ended_why = why;
  if (!drain.scanned) drain.trouble = "the claim logs were not read by then";
  for (const Lineage& lineage : drain.lineages) {
    const auto restore = restores_.find(lineage);
    if (restore == restores_.end() || restore->second.has_ended() || !restore->second.is_move()) continue;
    if (restore->second.stop_why.empty()) restore->second.stop_why = why;
  }
}

void RestoreCore::drain_scanned(Instant now, EcuMac ecu_mac, Instant asked_at,
                                const Result<std::vector<ClaimRecord>>& heads, std::size_t unusable,
                                RestoreEffects& effects) {
  const auto found = drains_.find(ecu_mac);
  if (found == drains_.end() || found->second.scanned || !found->second.ended_why.empty()) return;
  Drain& drain = found->second;
  if (!heads.ok()) {
    drain.trouble = heads.error().message();
    drain.next_look_at = now + kRestoreRetry;
    return;
  }
  drain.trouble.clear();
  if (unusable > 0) {
    drain.trouble = std::to_string(unusable) + " claim logs cannot be used, see the log of cmsd";
  }
  if (drain.told_at > asked_at) return;  // Asked before: what came in between has not been seen.
  bool all_begun = true;
  for (const ClaimRecord& head : *heads) {
    // What is being started there will have to go, too.
    if (head.kind == wire::ClaimKind::kAct && head.target.ecu_mac == ecu_mac) all_begun = false;
    if (head.kind == wire::ClaimKind::kRetire || head.owner.program.ecu_mac != ecu_mac) continue;
    drain.lineages.insert(head.lineage);
    if (!move_for_drain(now, head, 0, effects)) all_begun = false;
  }
  if (!all_begun) {
    drain.next_look_at = now + kRestoreRetry;
    return;
  }
  drain.scanned = true;
  effects.push_back(RestoreEvent{false, "ECU " + to_string(ecu_mac) + ": " +
                                            std::to_string(drain.lineages.size()) +
                                            " programs are to be moved"});
}

// Also what another moves already: it is waited for.
bool RestoreCore::move_for_drain(Instant now, const ClaimRecord& head, int failures,
                                 RestoreEffects& effects) {
  if (!begin(now, head, wire::ClaimReason::kRequest, effects)) return false;
  Restore& restore = restores_.at(head.lineage);
  if (!restore.is_move()) return true;
  restore.asked_here = true;
  restore.failures = failures;
  return true;
}

void RestoreCore::look_after_drains(Instant now, RestoreEffects& effects) {
  for (auto& [ecu_mac, drain] : drains_) {
    if (!drain.ended_why.empty() || now < drain.next_look_at) continue;
    if (drain.deadline && now >= *drain.deadline) {
      stop_drain(ecu_mac, drain, "the drain's deadline has passed", effects);
      continue;
    }
    drain.next_look_at = now + kRestoreRetry;
    if (!drain.scanned) {
      if (!is_scan_open(ecu_mac)) ask_scan(now, ecu_mac, effects);
      continue;
    }
    for (const Lineage& lineage : drain.lineages) {
      const auto found = restores_.find(lineage);
      if (found == restores_.end()) continue;
      const Restore& restore = found->second;
      if (restore.stage != Stage::kRefused || !restore.is_move() || !restore.head) continue;
      const Duration pause =
          std::min<Duration>(kDrainRetryMin * (1 << std::min(restore.failures, 8)), kDrainRetryMax);
      if (now - restore.ended_at < pause) continue;
      const ClaimRecord head = *restore.head;
      move_for_drain(now, head, restore.failures + 1, effects);
    }
  }
}

RestoreCore::Progress RestoreCore::progress_of_drain(EcuMac ecu_mac) const {
  const auto drain = drains_.find(ecu_mac);
  if (drain == drains_.end()) return Progress{};
  return progress_of(drain->second.lineages, drain->second.scanned);
}

}  // namespace cms::core
