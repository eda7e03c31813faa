// Of a restore's beginning: ECUs that are lost, as an operator or their own logs say, the scans of the claim logs, and open
// claims of dead cmsd.
#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "cms/core/restore.h"

namespace cms::core {

using wire::ClaimKind;
using wire::ClaimReason;
using wire::ClaimRecord;
using Stage = RestoreCore::Stage;

namespace {

// One of a session is so until a scan finds nothing of it: a slow CMS may yet have written that the session owns what an
// ACT had told it to run. An operator's word is about what was there when it was said.
bool is_open_loss(const RestoreCore::Loss& loss) {
  return !loss.scanned || (loss.reason == ClaimReason::kLost && loss.next_scan_at != kNever);
}

// What each ECU has to do with: of thousands that share a scan none goes through the heads of the others.
std::map<EcuMac, std::vector<ClaimRecord>> by_ecu(const std::vector<ClaimRecord>& heads) {
  std::map<EcuMac, std::vector<ClaimRecord>> found;
  for (const ClaimRecord& head : heads) {
    found[head.owner.program.ecu_mac].push_back(head);
    if (head.kind == ClaimKind::kAct && head.target.ecu_mac != head.owner.program.ecu_mac)
      found[head.target.ecu_mac].push_back(head);
  }
  return found;
}

}  // namespace

RestoreCore::Loss& RestoreCore::renew_loss(Instant now, EcuMac ecu_mac, ClaimReason reason) {
  if (losses_.size() >= kLossCountMax && losses_.count(ecu_mac) == 0) {
    const auto oldest = std::min_element(losses_.begin(), losses_.end(), [](const auto& a, const auto& b) {
      return a.second.told_at < b.second.told_at;
    });
    losses_.erase(oldest);
  }
  Loss& loss = losses_[ecu_mac];
  loss = Loss{};
  loss.told_at = now;
  loss.next_scan_at = now;
  loss.reason = reason;
  return loss;
}

void RestoreCore::fail_ecu(Instant now, EcuMac ecu_mac, RestoreEffects& effects) {
  Loss& loss = renew_loss(now, ecu_mac, ClaimReason::kVouched);
  if (const Present* present = find_present(ecu_mac)) {
    loss.session = present->session.incarnation;
    Incarnation& gone = gone_[ecu_mac].vouched;
    gone = std::max(gone, present->session.incarnation);
  }
  effects.push_back(RestoreEvent{true, "ECU " + to_string(ecu_mac) + " is lost, as an operator says"});
  ask_scan(now, ecu_mac, effects);
}

void RestoreCore::lose_session(Instant now, const wire::EcuRecord& lost, RestoreEffects& effects) {
  const EcuMac ecu_mac = lost.ecu_mac;
  note_lost(ecu_mac, lost.lost_incarnation);
  const auto told = reconcilings_.find(ecu_mac);  // What it has told is of before.
  if (told != reconcilings_.end() && told->second.session.incarnation <= lost.incarnation)
    reconcilings_.erase(told);
  const auto known = losses_.find(ecu_mac);
  // What an operator has said goes further.
  if (known != losses_.end() && known->second.reason == ClaimReason::kVouched && !known->second.scanned)
    return;
  Loss& loss = renew_loss(now, ecu_mac, ClaimReason::kLost);
  loss.session = lost.incarnation;
  Flaps& flaps = flaps_[ecu_mac];
  if (now - flaps.lost_at >= kFlapForgotten) flaps.count = 0;
  flaps.count = std::min(flaps.count + 1, 16);
  flaps.lost_at = now;
  if (flaps_.size() > kLossCountMax) {
    flaps_.erase(std::min_element(flaps_.begin(), flaps_.end(), [](const auto& a, const auto& b) {
      return a.second.lost_at < b.second.lost_at;
    }));
  }
  ask_scan(now, ecu_mac, effects);
}

void RestoreCore::note_lost(EcuMac ecu_mac, Incarnation lost_incarnation) {
  if (lost_incarnation == 0) return;
  Incarnation& gone = gone_[ecu_mac].lost;
  gone = std::max(gone, lost_incarnation);
}

bool RestoreCore::is_gone(const SessionId& session) const {
  const auto gone = gone_.find(session.ecu_mac);
  return gone != gone_.end() && session.incarnation <= std::max(gone->second.vouched, gone->second.lost);
}

std::optional<wire::AbortProof> RestoreCore::proof_of_end(const ClaimRecord& act) const {
  const auto gone = gone_.find(act.target.ecu_mac);
  if (gone == gone_.end()) return std::nullopt;
  if (act.target.incarnation <= gone->second.vouched) return wire::AbortProof::kVouched;
  // What is not stopped when a lease ends may run on, wherever its ECU is.
  if (act.target.incarnation <= gone->second.lost && act.on_isolation == wire::OnIsolation::kStop)
    return wire::AbortProof::kLost;
  return std::nullopt;
}

bool RestoreCore::restores_by_itself(const ClaimRecord& head) {
  return head.on_loss == wire::OnLoss::kRestore && head.on_isolation == wire::OnIsolation::kStop;
}

bool RestoreCore::was_lost(const ClaimRecord& head) const {
  const auto gone = gone_.find(head.owner.program.ecu_mac);
  return gone != gone_.end() && head.owner.incarnation <= gone->second.lost && restores_by_itself(head);
}

std::size_t RestoreCore::waiting_count(EcuMac ecu_mac) const {
  std::set<Lineage> waiting;
  Instant since{};
  if (const auto loss = losses_.find(ecu_mac); loss != losses_.end()) {
    waiting = loss->second.waiting;
    since = loss->second.told_at;
  }
  if (const auto reconciling = reconcilings_.find(ecu_mac); reconciling != reconcilings_.end()) {
    waiting = reconciling->second.waiting;  // It is back, and says itself what it has.
    since = reconciling->second.begun_at;
  }
  return static_cast<std::size_t>(std::count_if(waiting.begin(), waiting.end(), [&](const Lineage& lineage) {
    const auto restore = restores_.find(lineage);
    if (restore == restores_.end() || restore->second.stage == Stage::kRefused) return true;
    // Of before: it came to that ECU so.
    return restore->second.stage == Stage::kDone && restore->second.ended_at < since;
  }));
}

Duration RestoreCore::shunned_for(Instant now, EcuMac ecu_mac) const {
  const auto found = flaps_.find(ecu_mac);
  if (found == flaps_.end() || found->second.count < 2) return Duration::zero();
  const Duration pause = std::min<Duration>(kFlapPauseMin * (1 << (found->second.count - 2)), kFlapPauseMax);
  return std::max(Duration::zero(), found->second.lost_at + pause - now);
}

// ---- scans

// Many ECUs share a scan: it reads the heads of all logs.
void RestoreCore::ask_scan(Instant now, EcuMac ecu_mac, RestoreEffects& effects) {
  if (!scanned_ecus_.empty()) {
    wanted_ecus_.insert(ecu_mac);
    return;
  }
  scanned_ecus_.insert(ecu_mac);
  scan_asked_at_ = now;
  effects.push_back(ScanLogs{scanned_ecus_});
}

bool RestoreCore::is_scan_open(EcuMac ecu_mac) const {
  return scanned_ecus_.count(ecu_mac) != 0 || wanted_ecus_.count(ecu_mac) != 0;
}

void RestoreCore::look_for_losses(Instant now, RestoreEffects& effects) {
  for (const auto& [ecu_mac, loss] : losses_) {
    if (is_open_loss(loss) && now >= loss.next_scan_at && !is_scan_open(ecu_mac))
      ask_scan(now, ecu_mac, effects);
  }
  // Open claims of those who have died: looked for when one does, and now and then.
  std::size_t stale = 0;
  for (const auto& [key, member] : members_.members()) {
    if (members_.is_stale(Writer{key.first, key.second}, now)) ++stale;
  }
  if (stale > stale_count_) next_scan_at_ = now;
  stale_count_ = stale;
  if (now < next_scan_at_ || !members_.may_act(now) || scans_open_claims_) return;
  next_scan_at_ = now + kLogScanInterval;
  scans_open_claims_ = true;
  effects.push_back(ScanLogs{});
}

void RestoreCore::on_logs_scanned(Instant now, const ScanLogs& asked,
                                  const Result<std::vector<ClaimRecord>>& heads, RestoreEffects& effects,
                                  std::size_t unusable) {
  if (asked.ecu_macs.empty()) {
    if (std::exchange(scans_open_claims_, false)) open_claims_scanned(now, heads, effects);
    return;
  }
  if (scanned_ecus_.empty()) return;
  const Instant asked_at = scan_asked_at_;
  auto heads_of = heads.ok() ? by_ecu(*heads) : std::map<EcuMac, std::vector<ClaimRecord>>();
  for (const EcuMac ecu_mac : std::exchange(scanned_ecus_, {})) {
    const Result<std::vector<ClaimRecord>> its =
        heads.ok() ? Result<std::vector<ClaimRecord>>(std::move(heads_of[ecu_mac])) : heads.error();
    drain_scanned(now, ecu_mac, asked_at, its, unusable, effects);
    reconciling_scanned(now, ecu_mac, asked_at, its, effects);
    loss_scanned(now, ecu_mac, asked_at, its, unusable, effects);
  }
  // All that came to be wanted meanwhile by one scan.
  wanted_ecus_.merge(scanned_ecus_);
  if (wanted_ecus_.empty()) return;
  scanned_ecus_ = std::exchange(wanted_ecus_, {});
  scan_asked_at_ = now;
  effects.push_back(ScanLogs{scanned_ecus_});
}

void RestoreCore::open_claims_scanned(Instant now, const Result<std::vector<ClaimRecord>>& heads,
                                      RestoreEffects& effects) {
  if (!heads.ok()) {
    next_scan_at_ = now + kRestoreRetry;
    return;
  }
  const std::map<Lineage, std::uint64_t> acts_before = std::exchange(acts_seen_, {});
  for (const ClaimRecord& head : *heads) {
    if (!is_open(head.kind)) {
      look_for_late_log(now, head);
      continue;
    }
    const Writer writer{head.writer, head.writer_incarnation};
    const bool mine = writer.name == config_.me.name && writer.incarnation == config_.me.incarnation;
    bool ours = mine || members_.is_stale(writer, now);
    if (!ours && head.kind == ClaimKind::kAct) {
      // Who wrote it lives, but may be cut from the target.
      const auto before = acts_before.find(head.lineage);
      ours = before != acts_before.end() && before->second == head.uid;
      acts_seen_.emplace(head.lineage, head.uid);
    }
    if (ours && open_.count(head.lineage) == 0) begin(now, head, head.reason, effects);
  }
}

// What was being stored when its session was LOST: its log was begun when that had been settled.
void RestoreCore::look_for_late_log(Instant now, const ClaimRecord& head) {
  if (head.kind == ClaimKind::kRetire || !was_lost(head)) return;
  const auto loss = losses_.find(head.owner.program.ecu_mac);
  if (loss == losses_.end() || loss->second.reason != ClaimReason::kLost || is_open_loss(loss->second))
    return;
  const auto known = restores_.find(head.lineage);
  const bool is_known =
      known != restores_.end() && known->second.replaces == head.owner && !known->second.restarts;
  if (!is_known && head.owner.incarnation <= loss->second.session) loss->second.next_scan_at = now;
}

void RestoreCore::loss_scanned(Instant now, EcuMac ecu_mac, Instant asked_at,
                               const Result<std::vector<ClaimRecord>>& heads, std::size_t unusable,
                               RestoreEffects& effects) {
  const auto found = losses_.find(ecu_mac);
  // It was for something else: what the ECU owns by now is not what was told lost.
  if (found == losses_.end() || !is_open_loss(found->second)) return;
  Loss& loss = found->second;
  if (!heads.ok()) {
    loss.trouble = heads.error().message();
    loss.next_scan_at = now + kRestoreRetry;
    return;
  }
  bool all_begun = true;
  bool found_some = false;
  loss.waiting.clear();
  for (const ClaimRecord& head : *heads) {
    const bool owned = head.owner.program.ecu_mac == ecu_mac;
    const bool was_target = head.kind == ClaimKind::kAct && head.target.ecu_mac == ecu_mac;
    if (head.kind == ClaimKind::kRetire || (!owned && !was_target)) continue;
    if (loss.reason == ClaimReason::kLost) {
      const bool by_itself = was_lost(head) || (head.kind == ClaimKind::kAct && proof_of_end(head));
      const Incarnation of = owned ? head.owner.incarnation : head.target.incarnation;
      if (!by_itself && of <= loss.session) loss.waiting.insert(head.lineage);
      if (!by_itself) continue;
      const auto known = restores_.find(head.lineage);
      const bool again = loss.scanned && known != restores_.end() && known->second.replaces == head.owner &&
                         !known->second.restarts;
      if (again && (known->second.stage == Stage::kRefused || known->second.stage == Stage::kNoTarget))
        continue;
      found_some = true;
      if (again && !known->second.has_ended()) continue;  // It is at work.
      if (!lost_head(now, loss, head, effects)) all_begun = false;
      continue;
    }
    const SessionId session{ecu_mac, was_target ? head.target.incarnation : head.owner.incarnation};
    // It has come since: what it runs is not what the operator spoke of.
    if (is_there(session) && session.incarnation > loss.session) continue;
    Incarnation& gone = gone_[ecu_mac].vouched;
    gone = std::max(gone, session.incarnation);
    if (!begin(now, head, owned ? ClaimReason::kVouched : head.reason, effects)) all_begun = false;
    loss.lineages.insert(head.lineage);
  }
  loss.unusable = unusable;
  loss.trouble.clear();
  if (unusable > 0) {
    loss.trouble = std::to_string(unusable) + " claim logs cannot be used, see the log of cmsd";
  }
  if (loss.told_at > asked_at) {
    loss.next_scan_at = now;  // Told again since: what came in between has not been seen.
    return;
  }
  if (!all_begun) {
    loss.next_scan_at = now + kRestoreRetry;
    return;
  }
  loss.next_scan_at = found_some && loss.reason == ClaimReason::kLost ? now + kLogScanInterval : kNever;
  if (std::exchange(loss.scanned, true)) return;
  std::string text = "ECU " + to_string(ecu_mac) + ": " + std::to_string(loss.lineages.size()) +
                     " programs are to go on elsewhere";
  if (!loss.waiting.empty()) {
    text += ", " + std::to_string(loss.waiting.size()) + " wait for an operator (cms-admin ecu failed)";
  }
  effects.push_back(RestoreEvent{!loss.waiting.empty(), std::move(text)});
}

// Of a session that is LOST; nobody has to be asked. False: not now.
bool RestoreCore::lost_head(Instant now, Loss& loss, const ClaimRecord& head, RestoreEffects& effects) {
  loss.lineages.insert(head.lineage);
  return begin(now, head, was_lost(head) ? ClaimReason::kLost : head.reason, effects);
}

RestoreCore::Progress RestoreCore::progress_of(EcuMac ecu_mac) const {
  const auto loss = losses_.find(ecu_mac);
  if (loss == losses_.end()) return Progress{};
  return progress_of(loss->second.lineages, loss->second.scanned);
}

RestoreCore::Progress RestoreCore::progress_of(const std::set<Lineage>& lineages, bool scanned) const {
  Progress progress;
  progress.scanned = scanned;
  progress.total = lineages.size();
  for (const Lineage& lineage : lineages) {
    const auto restore = restores_.find(lineage);
    if (restore == restores_.end() || restore->second.stage == Stage::kDone) {
      ++progress.done;
    } else if (restore->second.stage == Stage::kRefused || restore->second.stage == Stage::kNoTarget) {
      ++progress.refused;
    }
  }
  return progress;
}

}  // namespace cms::core
