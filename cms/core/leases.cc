#include "cms/core/leases.h"

#include <algorithm>
#include <functional>
#include <set>
#include <tuple>
#include <utility>

namespace cms::core {
namespace {

using wire::EcuRecord;
using wire::EcuRecordKind;

// Two turns of the loop further apart than that: we stood still, and what was sent meanwhile is yet to be read.
constexpr Duration kTurnGapMax = std::chrono::seconds(2);
// The log of a session that others bar and we do not, or that we bar and others do not.
constexpr Duration kBarredBySomeReadEvery = std::chrono::seconds(5);
// So many of the latter per look, those of the smallest addresses that are due: who is cut off from all has the list.
constexpr std::size_t kKeptReadCountMax = 32;

std::string seconds(Duration time) {
  return std::to_string(std::chrono::duration_cast<std::chrono::seconds>(time).count()) + " s";
}

std::string name_of(const Members::Key& key) { return key.first; }

}  // namespace

Stamp Leases::stamp() {
  std::uint64_t uid = prng_.next();
  while (uid == 0) uid = prng_.next();
  return Stamp{me_, uid, wall_us_};
}

const EcuRecord* Leases::head_of(EcuMac ecu_mac) const {
  const auto found = ecus_.find(ecu_mac);
  return found == ecus_.end() ? nullptr : &found->second.head;
}

bool Leases::in_maintenance(EcuMac ecu_mac) const {
  const EcuRecord* head = head_of(ecu_mac);
  return head != nullptr && head->maintenance;
}

// ---- granting

// A record that was read while others could already have held us for dead says nothing of now.
bool Leases::is_confirmed(const Ecu& ecu) const { return may_act_since_ && ecu.read_at >= *may_act_since_; }

bool Leases::may_grant(Instant now, const Ecu& ecu) const {
  return ecu.head.kind == EcuRecordKind::kHello && !ecu.barred && is_confirmed(ecu) && members_.may_act(now);
}

bool Leases::on_heartbeat(Instant now, const SessionId& session, LeaseEffects& effects) {
  const auto found = ecus_.find(session.ecu_mac);
  if (found == ecus_.end()) {
    if (unknown_.size() < kGuardedCountMax) unknown_.emplace(session.ecu_mac, false);
    read_wanted(now, effects);
    return false;
  }
  Ecu& ecu = found->second;
  if (session_of(ecu.head) != session) {
    if (session.incarnation > ecu.head.incarnation) ecu.stale = true;
    read_wanted(now, effects);
    return false;
  }
  if (ecu.head.kind != EcuRecordKind::kHello) return false;
  ecu.heard_at = now;
  ecu.heartbeat_at = now;
  ecu.heard = true;
  if (may_grant(now, ecu)) {
    ecu.granted_at = now;
    return true;
  }
  // One that never had a lease does not end by itself; and in maintenance nobody says LOST.
  if (is_barred_by_all(now, session))
    effects.push_back(GuardedEnded{session, "it is heard again, and every cmsd bars it"});
  if (!ecu.barred && !is_confirmed(ecu)) {
    ecu.stale = true;
    read_wanted(now, effects);
  }
  return false;
}

void Leases::on_bye(Instant now, const SessionId& session, LeaseEffects& effects) {
  const auto found = ecus_.find(session.ecu_mac);
  if (found == ecus_.end()) return;
  Ecu& ecu = found->second;
  if (session_of(ecu.head) != session || ecu.head.kind != EcuRecordKind::kHello) return;
  ecu.said_bye = true;
  say_byes(now, effects);
}

void Leases::say_byes(Instant now, LeaseEffects& effects) {
  for (auto& [ecu_mac, ecu] : ecus_) {
    if (!ecu.said_bye || !is_free(ecu) || now < ecu.next_at) continue;
    if (ecu.head.kind == EcuRecordKind::kHello) append(ecu, bye(stamp(), ecu.head), effects);
  }
}

Status Leases::on_hello(Instant now, const wire::Hello& hello, bool same_client) {
  const auto found = ecus_.find(hello.ecu_mac);
  if (found == ecus_.end()) return ok_status();
  Ecu& ecu = found->second;
  if (ecu.head.nonce == hello.nonce) {
    const SessionId session = session_of(ecu.head);
    if (!is_barred_by_all(now, session)) return ok_status();
    return make_error(Code::kFenced, "session " + to_string(session) +
                                         " was silent, and every cmsd bars it; begin a new one");
  }
  const bool lives =
      ecu.head.kind == EcuRecordKind::kHello && ecu.heard && now - ecu.heartbeat_at < kGuardedHeardLately;
  if (!lives || same_client) {
    ecu.heard_at = now;  // It lives, even if its HELLO cannot be written: the store may be away.
    return ok_status();
  }
  return make_error(Code::kAlreadyExists, "another guarded session of " + to_string(hello.ecu_mac) + " (" +
                                              std::to_string(ecu.head.incarnation) +
                                              ") was heard just now; an ECU has one at a time");
}

bool Leases::is_leased(Instant now, const SessionId& session) const {
  const auto found = ecus_.find(session.ecu_mac);
  if (found == ecus_.end() || session_of(found->second.head) != session) return false;
  const Ecu& ecu = found->second;
  return ecu.heard && may_grant(now, ecu) && now - ecu.heartbeat_at < timers_.ecu_fence;
}

bool Leases::may_be_leased(Instant now, const SessionId& session) const {
  if (is_leased(now, session)) return true;
  const auto found = ecus_.find(session.ecu_mac);
  if (found == ecus_.end() || session_of(found->second.head) != session) return false;
  const Ecu& ecu = found->second;
  return ecu.barred && ecu.head.kind == EcuRecordKind::kHello && ecu.heard &&
         now - ecu.heartbeat_at < timers_.ecu_fence && !kept_by(now, session).empty();
}

bool Leases::is_barred_by_all(Instant now, const SessionId& session) const {
  const auto found = ecus_.find(session.ecu_mac);
  if (found == ecus_.end() || session_of(found->second.head) != session) return false;
  const Ecu& ecu = found->second;
  if (!ecu.barred || ecu.head.kind != EcuRecordKind::kHello) return false;
  return members_.may_act(now) && !members_.overlooked() && kept_by(now, session).empty();
}

// ---- the logs

void Leases::read_wanted(Instant now, LeaseEffects& effects) {
  ReadEcuLogs read;
  for (auto& [ecu_mac, asked] : unknown_) {
    if (!std::exchange(asked, true)) read.ecu_macs.push_back(ecu_mac);
  }
  for (auto& [ecu_mac, ecu] : ecus_) {
    if (!ecu.stale || !is_free(ecu) || now < ecu.next_at) continue;  // What is not resolved is settled first.
    ecu.asked = true;
    ecu.stale = false;
    read.ecu_macs.push_back(ecu_mac);
  }
  if (!read.ecu_macs.empty()) effects.push_back(std::move(read));
}

void Leases::on_head(Instant asked_at, Instant now, EcuMac ecu_mac,
                     const Result<std::optional<EcuRecord>>& head, LeaseEffects& effects) {
  unknown_.erase(ecu_mac);
  const auto found = ecus_.find(ecu_mac);
  if (found != ecus_.end() && found->second.unresolved == 0 && !found->second.appending)
    found->second.asked = false;
  if (!head.ok()) {
    if (found == ecus_.end()) return;
    found->second.stale = true;
    found->second.next_at = now + kEcuLogRetry;
    return;
  }
  if (!*head) return;
  take_head(asked_at, now, **head, effects);
  if (const auto taken = ecus_.find(ecu_mac); taken != ecus_.end()) grant_wish(now, taken->second, effects);
}

void Leases::take_head(Instant asked_at, Instant now, const EcuRecord& record, LeaseEffects& effects) {
  auto found = ecus_.find(record.ecu_mac);
  if (found == ecus_.end()) {
    if (ecus_.size() >= kGuardedCountMax) return;
    found = ecus_.emplace(record.ecu_mac, Ecu{}).first;
    found->second.heard_at = now;
  } else if (record.slot < found->second.head.slot) {
    return;  // Read before what we know was written.
  } else if (record.slot == found->second.head.slot) {
    found->second.read_at = std::max(found->second.read_at, asked_at);
    return;
  }
  Ecu& ecu = found->second;
  const SessionId former = session_of(ecu.head);
  const bool another = former != session_of(record);
  const bool otherwise = !another && record.maintenance != ecu.head.maintenance;
  ecu.head = record;
  ecu.read_at = asked_at;
  ecu.stale = false;
  if (another) {
    ecu.heard_at = now;
    ecu.heard = false;
    ecu.barred = false;
    ecu.bar_durable_at.reset();
    ecu.lost_known_at.reset();
    ecu.handed_over = false;
    ecu.said_bye = false;
    if (former.incarnation != 0)
      effects.push_back(
          GuardedEnded{former, "session " + std::to_string(record.incarnation) + " of this ECU has begun"});
  }
  if (otherwise) effects.push_back(MaintenanceChanged{session_of(record)});
  if (record.kind == EcuRecordKind::kHello) return;
  if (record.kind == EcuRecordKind::kBye) {
    ecu.barred = false;  // It went while we did not hear it: that is no loss any more.
    ecu.bar_durable_at.reset();
    effects.push_back(GuardedEnded{session_of(record), "it said BYE"});
    return;
  }
  if (ecu.lost_known_at) return;
  ecu.lost_known_at = now;
  if (may_bar(now, ecu)) ecu.barred = true;  // Else when what we granted is over.
  effects.push_back(GuardedEnded{session_of(record), "it is LOST, says " + record.writer});
  effects.push_back(RenewMember{});
}

bool Leases::may_bar(Instant now, const Ecu& ecu) const {
  return !ecu.granted_at || now - *ecu.granted_at >= timers_.ecu_dead;
}

void Leases::on_listed(Instant asked_at, Instant now, const Result<std::vector<EcuRecord>>& heads,
                       LeaseEffects& effects) {
  listing_ = false;
  if (!heads.ok()) {
    next_list_at_ = now + kEcuLogRetry;
    return;
  }
  for (const EcuRecord& head : *heads) take_head(asked_at, now, head, effects);
}

bool Leases::is_free(const Ecu& ecu) { return !ecu.asked && !ecu.appending && ecu.unresolved == 0; }

void Leases::append(Ecu& ecu, EcuRecord record, LeaseEffects& effects) {
  CMS_ASSERT(is_free(ecu));
  ecu.asked = true;
  ecu.appending = record;
  effects.push_back(AppendEcuRecord{std::move(record)});
}

void Leases::on_appended(Instant now, EcuMac ecu_mac, const Result<AppendEnd>& end, std::uint64_t attempt,
                         LeaseEffects& effects) {
  const auto found = ecus_.find(ecu_mac);
  if (found == ecus_.end() || !found->second.appending) return;
  Ecu& ecu = found->second;
  ecu.asked = false;
  if (end.ok() && *end == AppendEnd::kUnresolved) {
    ecu.unresolved = attempt;
    ecu.next_at = now + kEcuLogRetry;
    return;
  }
  ecu.unresolved = 0;
  const EcuRecord record = *std::exchange(ecu.appending, std::nullopt);
  if (end.ok() && *end == AppendEnd::kWon) {
    if (record.kind == EcuRecordKind::kLost && ecu.head.kind == EcuRecordKind::kHello) {
      effects.push_back(
          LeaseEvent{true, "ECU " + to_string(ecu_mac) + " is LOST: nobody has heard its session " +
                               std::to_string(record.incarnation) + " for " + seconds(timers_.ecu_dead)});
    }
    // Read since our record was renewed: the head that it followed was.
    take_head(ecu.read_at, now, record, effects);
    return grant_wish(now, ecu, effects);
  }
  ecu.stale = true;
  ecu.next_at = end.ok() ? now : now + kEcuLogRetry;
  read_wanted(now, effects);
}

// ---- the members

std::vector<SessionId> Leases::bars() const {
  std::vector<SessionId> bars;
  std::vector<std::tuple<Instant, std::uint64_t, SessionId>> lost;
  for (const auto& [ecu_mac, ecu] : ecus_) {
    if (!ecu.barred) continue;
    if (ecu.lost_known_at) {
      lost.emplace_back(*ecu.lost_known_at, ecu.head.written_at_us, session_of(ecu.head));
    } else {
      bars.push_back(session_of(ecu.head));
    }
  }
  // The newest losses: who acts on them looks for our bar.
  std::sort(lost.begin(), lost.end(), std::greater<>());
  for (const auto& [known_at, written_at_us, session] : lost) bars.push_back(session);
  if (bars.size() <= wire::kBarCountMax) return bars;
  // What others bar, too, is or becomes a loss. What only we do not hear must not be in its way: who hears nobody bars all.
  std::set<SessionId> shared;
  for (const auto& [key, member] : members_.members())
    shared.insert(member.record.bars.begin(), member.record.bars.end());
  std::stable_partition(bars.begin(), bars.end(),
                        [&](const SessionId& session) { return shared.count(session) != 0; });
  bars.resize(wire::kBarCountMax);
  return bars;
}

void Leases::on_member_written(Instant sent_at, Instant durable_at, Instant now,
                               const std::vector<SessionId>& bars) {
  // Was there a time in which others may have held us for dead? Then what we knew has to be read anew.
  const Duration self_fence = members_.timers().self_fence;
  if (!written_at_ || now - *written_at_ >= self_fence) may_act_since_ = now;
  if (!written_at_ || *written_at_ < sent_at) written_at_ = sent_at;
  for (const SessionId& bar : bars) {
    const auto found = ecus_.find(bar.ecu_mac);
    if (found == ecus_.end() || session_of(found->second.head) != bar) continue;
    if (!found->second.bar_durable_at) found->second.bar_durable_at = durable_at;
  }
}

std::vector<std::string> Leases::kept_by(Instant now, const SessionId& session) const {
  std::vector<std::string> keepers;
  for (const auto& [key, member] : members_.members()) {
    const auto& bars = member.record.bars;
    if (std::find(bars.begin(), bars.end(), session) != bars.end()) continue;
    if (!members_.is_stale(Writer{key.first, key.second}, now)) keepers.push_back(name_of(key));
  }
  return keepers;
}

// Who keeps it may have read of its BYE or of another session of it.
void Leases::read_kept(Instant now) {
  std::size_t count = 0;
  for (auto& [ecu_mac, ecu] : ecus_) {
    if (!ecu.barred || ecu.head.kind != EcuRecordKind::kHello || !is_free(ecu)) continue;
    if (now - ecu.read_at < kBarredBySomeReadEvery || kept_by(now, session_of(ecu.head)).empty()) continue;
    ecu.stale = true;
    if (++count == kKeptReadCountMax) return;
  }
}

void Leases::on_members_read(Instant begun_at, Instant now, LeaseEffects& effects) {
  // What others bar, and we do not.
  for (const auto& [key, member] : members_.members()) {
    for (const SessionId& bar : member.record.bars) {
      const auto found = ecus_.find(bar.ecu_mac);
      if (found == ecus_.end()) {
        if (unknown_.size() < kGuardedCountMax) unknown_.emplace(bar.ecu_mac, false);
      } else if (found->second.head.incarnation < bar.incarnation) {
        found->second.stale = true;
      } else if (session_of(found->second.head) == bar && !found->second.barred && is_free(found->second) &&
                 found->second.head.kind == EcuRecordKind::kHello &&
                 now - found->second.read_at >= kBarredBySomeReadEvery) {
        found->second.stale = true;  // It may be LOST by now; or we alone hear it, for long.
      }
    }
  }
  read_kept(now);
  read_wanted(now, effects);
  if (!members_.may_act(now) || members_.overlooked()) return;
  const std::optional<Instant> looking = members_.looking_since();
  const bool seen_long = looking && begun_at - *looking >= members_.timers().member_dead;
  for (auto& [ecu_mac, ecu] : ecus_) {
    if (!ecu.barred || ecu.handed_over || ecu.head.maintenance) continue;
    const SessionId session = session_of(ecu.head);
    if (ecu.lost_known_at) {
      if (!seen_long || begun_at < *ecu.lost_known_at || !kept_by(now, session).empty()) continue;
      ecu.handed_over = true;
      effects.push_back(SessionLost{ecu.head});
      continue;
    }
    if (ecu.head.kind != EcuRecordKind::kHello || !seen_long || !is_free(ecu)) continue;
    if (!ecu.bar_durable_at || begun_at < *ecu.bar_durable_at) continue;
    if (!kept_by(now, session).empty()) continue;
    append(ecu, lost(stamp(), ecu.head), effects);
  }
}

// ---- people and time

Status Leases::set_maintenance(Instant now, EcuMac ecu_mac, bool maintenance, LeaseEffects& effects) {
  const auto found = ecus_.find(ecu_mac);
  if (found == ecus_.end()) {
    if (unknown_.size() < kGuardedCountMax) unknown_.emplace(ecu_mac, false);
    read_wanted(now, effects);
    return make_error(
        Code::kNotFound,
        "no guarded session of " + to_string(ecu_mac) +
            " is known here; its log is read now, in case another cmsd has just begun one: try again");
  }
  if (!members_.may_act(now)) {
    return make_error(Code::kUnavailable,
                      "the log of " + to_string(ecu_mac) + " cannot be written just now; try again");
  }
  found->second.wish = Ecu::Wish{maintenance, now};
  grant_wish(now, found->second, effects);
  read_wanted(now, effects);
  return ok_status();
}

// Another cmsd may have done it, or the contrary, since the log was read here: only what is read afterwards tells.
void Leases::grant_wish(Instant now, Ecu& ecu, LeaseEffects& effects) {
  if (!ecu.wish) return;
  if (now - ecu.wish->at >= kMaintenanceTriedFor) {
    ecu.wish.reset();
    effects.push_back(LeaseEvent{true, "what was said of maintenance of ECU " + to_string(ecu.head.ecu_mac) +
                                           " could not be written for " + seconds(kMaintenanceTriedFor)});
  } else if (ecu.read_at < ecu.wish->at) {
    ecu.stale = true;
  } else if (ecu.head.maintenance == ecu.wish->maintenance) {
    ecu.wish.reset();
  } else if (is_free(ecu) && !ecu.stale && now >= ecu.next_at && members_.may_act(now)) {
    append(ecu, with_maintenance(stamp(), ecu.head, ecu.wish->maintenance), effects);
  }
}

void Leases::bar_silent(Instant now, LeaseEffects& effects) {
  bool changed = false;
  for (auto& [ecu_mac, ecu] : ecus_) {
    if (ecu.barred || ecu.said_bye || !may_bar(now, ecu)) continue;
    if (ecu.lost_known_at) {
      ecu.barred = changed = true;
      continue;
    }
    if (ecu.head.kind != EcuRecordKind::kHello) continue;
    if (now - ecu.heard_at < timers_.ecu_dead) continue;
    ecu.barred = true;
    ecu.bar_durable_at.reset();
    changed = true;
    effects.push_back(LeaseEvent{true, "session " + to_string(session_of(ecu.head)) + " was silent for " +
                                           seconds(timers_.ecu_dead) + " and is barred here" +
                                           (ecu.head.maintenance ? " (in maintenance: no loss)" : "")});
    effects.push_back(GuardedEnded{session_of(ecu.head), "it was silent and is barred"});
  }
  if (changed) effects.push_back(RenewMember{});
}

void Leases::on_time(Instant now, std::uint64_t wall_us, LeaseEffects& effects) {
  wall_us_ = wall_us;
  // While we stood still nobody could be heard.
  if (time_at_ && now - *time_at_ > kTurnGapMax) {
    const Duration gap = now - *time_at_;
    for (auto& [ecu_mac, ecu] : ecus_) ecu.heard_at = std::min(ecu.heard_at + gap, now);
  }
  time_at_ = now;
  bar_silent(now, effects);
  for (auto& [ecu_mac, ecu] : ecus_) {
    if (ecu.unresolved == 0 || ecu.asked || now < ecu.next_at) continue;
    ecu.asked = true;  // Cleared by on_appended.
    effects.push_back(SettleEcuAppend{ecu_mac, ecu.unresolved});
  }
  say_byes(now, effects);
  for (auto& [ecu_mac, ecu] : ecus_) grant_wish(now, ecu, effects);
  read_wanted(now, effects);
  if (!listing_ && now >= next_list_at_ && written_at_) {
    listing_ = true;
    next_list_at_ = now + kEcuLogsListedEvery;
    effects.push_back(ListEcuLogs{});
  }
}

}  // namespace cms::core
