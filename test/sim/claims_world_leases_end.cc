// The world of claims with run leases: what goes wrong, how it heals, and what must be true at the end.
#include <algorithm>
#include <utility>

#include "cms/core/ecu_log.h"
#include "test/sim/claims_world.h"

namespace cms::sim {

using namespace std::chrono_literals;
using Stage = core::RestoreCore::Stage;
using wire::ClaimRecord;
using wire::EcuRecordKind;

namespace {

constexpr Duration kSettleTimeMax = 120s;    // An ECU that flapped waits for up to 60 s before it says Hello.
constexpr Duration kLostAfterMax = 11900ms;  // From an ECU's death to LOST;
constexpr Duration kLostAfterRestartMax = 6s + kLostAfterMax;  // if a cmsd crashes, and comes back in 6 s.
constexpr Duration kHangsMax = 25s;  // A WRITE that an outage has caught, and its round.
constexpr Duration kAllLook = 16s;   // Then everybody has looked for T_member.
constexpr Duration kTwinStays = 10s;
constexpr Duration kWatchdogsBite = 7s;  // After the last cut or pause.
constexpr Duration kToldScannedAfter = 60s;

}  // namespace

void ClaimsWorld::schedule_lease_faults() {
  if (scenario_.links) schedule_links();
  recur(scenario_.loss_every, [this] { lose_guarded(); });
  recur(scenario_.cut_every, [this] { cut_links(); });
  recur(scenario_.broker_pause_every, [this] { pause_ecu(ecus_[prng_.below(ecus_.size())]); });
  recur(scenario_.broker_restart_every, [this] { restart_broker(ecus_[prng_.below(ecus_.size())]); });
  recur(scenario_.program_end_every, [this] { end_program(ecus_[prng_.below(ecus_.size())]); });
  recur(scenario_.twin_every, [this] { send_twin(); });
  recur(scenario_.move_every, [this] { ask_for_move(); });
  recur(scenario_.maintenance_every, [this] { begin_maintenance(); });
  if (scenario_.kind == ClaimsScenario::Kind::kHalfBegun) {
    recur(15s, [this] {  // Until its lease has ended.
      for (Link& link : ecus_[prng_.below(ecus_.size())].guarded->links)
        link.out_cut_until = link.in_cut_until = queue_.now() + 7s;
    });
  }
  recur(scenario_.outage_every, [this] {
    const Duration time = 5s + random_delay(scenario_.outage_max - 5s);
    if (verbose_) trace("the NAS is away, for all");
    for (Cms& cms : cms_) cms.away_until = std::max(cms.away_until, queue_.now() + time);
  });
  recur(scenario_.nas_crash_every, [this] {
    if (verbose_) trace("the NAS crashes");
    nas_.crash();
  });
  recur(scenario_.cms_crash_every, [this] { crash_cms(cms_[prng_.below(cms_.size())]); });
  recur(scenario_.cms_pause_every, [this] {
    Cms& cms = cms_[prng_.below(cms_.size())];
    cms.paused_until = queue_.now() + random_delay(scenario_.cms_pause_max);
    if (verbose_) trace("cms " + cms.name + " is paused");
  });
  recur(scenario_.store_away_every, [this] {
    Cms& cms = cms_[prng_.below(cms_.size())];
    cms.away_until = queue_.now() + random_delay(20s);
    if (verbose_) trace("cms " + cms.name + " is cut from the NAS");
  });
  recur(1s, [this] {
    Cms& cms = cms_[prng_.below(cms_.size())];
    if (cms.core != nullptr) remove_some(cms, lineages_[prng_.below(lineages_.size())], false);
  });
}

void ClaimsWorld::boot_later(Ecu& ecu, Duration delay) {
  queue_.after(delay, [this, &ecu, boots = ecu.boots] {
    if (ecu.boots != boots || ecu.state != Ecu::State::kDown || gone_for_good_.count(ecu.ecu_mac) != 0)
      return;
    boot(ecu);
  });
}

// An ECU dies, or ends in order; it boots anew soon, late, or not before all heals. Seldom an operator vouches for it.
void ClaimsWorld::lose_guarded() {
  Ecu* ecu = &ecus_[prng_.below(ecus_.size())];
  if (prng_.chance(1, 2)) {
    const ClaimRecord* head = nas_.head(lineages_[prng_.below(lineages_.size())]);
    if (head != nullptr)
      ecu = &ecu_of(head->kind == wire::ClaimKind::kAct ? head->target.ecu_mac : head->owner.program.ecu_mac);
  }
  if (ecu->state != Ecu::State::kUp) return;
  if (prng_.chance(1, 6) && ecu->guarded->broker_life != 0) {
    for (std::size_t cms = 0; cms < cms_.size(); ++cms) {
      if (ecu->guarded->links[cms].live) say(*ecu, cms, wire::Bye{});
    }
    power_off(*ecu);
    ecu->said_bye = true;
    return boot_later(*ecu, random_delay(20s));
  }
  power_off(*ecu);
  if (percent(scenario_.told_percent)) {
    const SessionId session = ecu->session;
    const std::size_t first = prng_.below(cms_.size());
    const std::size_t count = 1 + prng_.below(cms_.size());
    for (std::size_t i = 0; i < count; ++i) {
      Cms& cms = cms_[(first + i) % cms_.size()];
      queue_.after(random_delay(3s), [this, session, &cms] { tell_lost(session, cms); });
    }
    queue_.after(3s, [this, session] { boot_when_scanned(session); });
    return;
  }
  if (prng_.chance(1, 2)) return boot_later(*ecu, 3s);
  if (prng_.chance(2, 3)) boot_later(*ecu, random_delay(40s));
}

void ClaimsWorld::cut_links() {
  Ecu& ecu = ecus_[prng_.below(ecus_.size())];
  const std::uint64_t directions = 1 + prng_.below(3);
  const bool all = prng_.chance(1, 3);
  const std::size_t one = prng_.below(cms_.size());
  const Instant until = queue_.now() + 1s + random_delay(scenario_.cut_max);
  for (std::size_t cms = 0; cms < cms_.size(); ++cms) {
    if (!all && cms != one) continue;
    Link& link = ecu.guarded->links[cms];
    if ((directions & 1) != 0) link.out_cut_until = until;
    if ((directions & 2) != 0) link.in_cut_until = until;
  }
  if (verbose_)
    trace("ecu " + to_string(ecu.ecu_mac) + " is cut off, " +
          (directions == 1   ? "it is not heard"
           : directions == 2 ? "it does not hear"
                             : "both ways") +
          (all ? ", all cms" : ", cms " + cms_[one].name));
}

// Who has given it its session hears it no more; who hears it has had no NAS, for about as long as makes it stale.
void ClaimsWorld::cut_from_giver(Ecu& ecu, std::size_t giver) {
  if (!faults_on_ || scenario_.kind != ClaimsScenario::Kind::kHalfBegun || ecu.guarded->session_count == 0)
    return;
  for (std::size_t cms = 0; cms < cms_.size(); ++cms) {
    Link& link = ecu.guarded->links[cms];
    if (cms == giver) {
      link.out_cut_until = link.in_cut_until = queue_.now() + 30s;
    } else {
      cms_[cms].away_until = queue_.now() + 12s + random_delay(2500ms);
    }
  }
}

void ClaimsWorld::send_twin() {
  const std::size_t ecu = prng_.below(ecus_.size());
  const std::uint64_t nonce = prng_.next();
  for (std::size_t cms = 0; cms < cms_.size(); ++cms)
    twin_says_hello(ecu, cms, nonce, queue_.now() + kTwinStays);
}

void ClaimsWorld::twin_says_hello(std::size_t ecu, std::size_t cms, std::uint64_t nonce, Instant until) {
  queue_.after(random_delay(1s), [this, ecu, cms, nonce, until] {
    if (!faults_on_ || queue_.now() >= until) return;
    wire::Hello hello;
    hello.ecu_mac = ecus_[ecu].ecu_mac;
    hello.nonce = nonce;
    hello.guarded = true;
    hello.boot_id = Id128{99, 99};
    hello.enforcer = wire::Enforcer::kGuard;
    // Before it was heard here for the first time nobody can know that there are two.
    const core::Leases* leases = cms_[cms].leases.get();
    const bool heard = leases->ecus().count(hello.ecu_mac) != 0 && leases->ecus().at(hello.ecu_mac).heard;
    if (heard) on_control(cms_[cms], Peer{ecu, true, 1}, 0, hello);
    twin_says_hello(ecu, cms, nonce, until);
  });
}

// ---- the end

void ClaimsWorld::heal_leases() {
  faults_on_ = false;
  if (verbose_) trace("all heals");
  for (Cms& cms : cms_) {
    cms.away_until = cms.unanswered_until = Instant{};
    if (cms.core == nullptr) start_cms(cms);
    step_cms(cms, [&](core::RestoreCore& core, Instant now, core::RestoreEffects& effects) {
      for (const Ecu& ecu : ecus_) (void)core.cancel_drain(now, ecu.ecu_mac, effects);
    });
  }
  std::size_t enforced_up = 0;
  for (Ecu& ecu : ecus_) {
    for (Link& link : ecu.guarded->links) link.out_cut_until = link.in_cut_until = Instant{};
  }
  run_for(std::max(scenario_.cms_pause_max, scenario_.broker_pause_max) + kWatchdogsBite);
  end_all_maintenance();
  for (const Ecu& ecu : ecus_) {
    if (ecu.state == Ecu::State::kUp && ecu.guarded->enforcer != wire::Enforcer::kNone) ++enforced_up;
  }
  for (Ecu& ecu : ecus_) {
    if (ecu.state != Ecu::State::kDown) continue;
    // What somebody vouched for is not the system's to notice; and somebody has to take what is restored.
    const wire::EcuRecord* head = nas_.head(ecu.ecu_mac);
    const bool noticed = head != nullptr && head->kind != EcuRecordKind::kBye && scenario_.told_percent == 0;
    const bool stays = noticed && enforced_up > 0 && prng_.chance(1, 2);
    if (stays) {
      gone_for_good_.insert(ecu.ecu_mac);
    } else {
      const Instant until = queue_.now() + kToldScannedAfter;
      while (!told_is_scanned(ecu.ecu_mac)) {
        run_for(100ms);
        if (queue_.now() >= until) violated("the logs are not scanned for " + to_string(ecu.ecu_mac));
      }
      if (ecu.state == Ecu::State::kDown) boot(ecu);
    }
    if (ecu.guarded->enforcer != wire::Enforcer::kNone && !stays) ++enforced_up;
  }
  settle_leases("after the faults");
  if (scenario_.restart_percent > 0) restart_in_peace();
  if (prng_.chance(1, 2)) die_once_more();
}

// In peace one ECU dies, and perhaps a cmsd with it: the arithmetic says when that is known.
void ClaimsWorld::die_once_more() {
  std::vector<Ecu*> up;
  for (Ecu& ecu : ecus_) {
    const bool good = ecu.state == Ecu::State::kUp && ecu.guarded->enforcer != wire::Enforcer::kNone;
    if (good) up.push_back(&ecu);
  }
  if (up.size() < 2) return;
  Ecu& ecu = *up[prng_.below(up.size())];
  const wire::EcuRecord* head = nas_.head(ecu.ecu_mac);
  if (head == nullptr || head->kind != EcuRecordKind::kHello)
    violated("a session that lives is not in its log");
  run_for(kHangsMax + kAllLook);
  if (verbose_) trace("once more, in peace");
  gone_for_good_.insert(ecu.ecu_mac);
  power_off(ecu);
  const bool cms_dies = cms_.size() > 1 && prng_.chance(1, 2);
  if (cms_dies) crash_cms(cms_[prng_.below(cms_.size())]);
  const Instant died_at = queue_.now();
  // A cmsd that comes back has to be silent to it for T_dead, too.
  const Duration known_after = cms_dies ? kLostAfterRestartMax : kLostAfterMax;
  const Duration bound = known_after + 8 * scenario_.store_delay_max + scenario_.net_delay_max;
  while (nas_.head(ecu.ecu_mac)->kind != EcuRecordKind::kLost) {
    run_for(100ms);
    if (queue_.now() - died_at > bound)
      violated("an ECU that died is not LOST in time: " + to_string(ecu.session) + why_not_lost(ecu.session));
  }
  settle_leases("after an ECU has died in peace");
}

std::string ClaimsWorld::why_not_lost(const SessionId& session) const {
  std::string text;
  for (const Cms& cms : cms_) {
    if (cms.core == nullptr) continue;
    text += "; kept, says " + cms.name + ", by";
    for (const std::string& keeper : cms.leases->kept_by(local(cms), session)) text += " " + keeper;
    const auto ecu = cms.leases->ecus().find(session.ecu_mac);
    if (ecu == cms.leases->ecus().end()) continue;
    text += ecu->second.asked ? ", asked" : "";
    text += ecu->second.appending ? ", appending" : "";
    text += ecu->second.bar_durable_at ? "" : ", its bar is not durable";
    text += cms.members->may_act(local(cms)) ? "" : ", may not act";
  }
  return text;
}

void ClaimsWorld::settle_leases(const std::string& when) {
  Instant until = queue_.now() + kSettleTimeMax;
  std::optional<std::string> trouble;
  do {
    run_for(1s);
    for (const Cms& cms : cms_) {
      if (cms.core == nullptr) continue;
      for (const Ecu& ecu : ecus_) {
        const Duration shunned = cms.core->shunned_for(local(cms), ecu.ecu_mac);
        if (shunned > Duration::zero())
          until = std::max(until, queue_.now() + 2 * shunned + kSettleTimeMax / 2);
      }
    }
    trouble = unsettled_leases();
  } while (trouble && queue_.now() < until);
  if (trouble) violated("not settled " + when + ": " + *trouble);
}

// Invariants at the end: what restores by itself runs once, where the log says; what does not runs where it is, or waits for
// an operator; nothing is stopped; each ECU that lives has its session and its lease.
std::optional<std::string> ClaimsWorld::unsettled_leases() const {
  for (const Ecu& ecu : ecus_) {
    if (ecu.state != Ecu::State::kUp) continue;
    if (!ecu.guarded->lease.lives()) return "ecu " + to_string(ecu.session) + " has no lease";
    for (const Copy& copy : ledger_.copies()) {
      if (!is_of(ecu, copy) || !copy.running || copy.executes()) continue;
      // A source stays frozen until that is known.
      const ClaimRecord* head = nas_.head(copy.lineage);
      if (head != nullptr && copy.frozen && waits_for_word_of_target(*head)) continue;
      return to_string(copy.key()) + " stands still. " + picture(copy.lineage);
    }
  }
  for (const Lineage& lineage : lineages_) {
    const ClaimRecord* head = nas_.head(lineage);
    if (head == nullptr) continue;
    if (waits_for_word_of_target(*head)) continue;
    if (core::is_open(head->kind)) return "a claim is open. " + picture(lineage);
    const Copy* copy = ledger_.running(lineage);
    if (copy == nullptr) {
      if (!ledger_.was_ever_stored(lineage) || waits_for_operator(*head)) continue;
      return "it neither runs nor waits. " + picture(lineage);
    }
    if (!(copy->key() == head->owner.program) || copy->owner_epoch != head->owner.owner_epoch)
      return "it runs elsewhere than the log says. " + picture(lineage);
  }
  for (const Cms& cms : cms_) {
    if (cms.core == nullptr) return "cms " + cms.name + " is down";
    for (const auto& [lineage, restore] : cms.core->restores()) {
      // Who looks for a target may have been overtaken by another, and looks on until there is one.
      const ClaimRecord* head = nas_.head(lineage);
      if (head != nullptr && waits_for_word_of_target(*head)) continue;
      const bool overtaken =
          restore.stage == Stage::kNoTarget && head != nullptr && !(head->owner == restore.replaces);
      if (restore.stage != Stage::kDone && restore.stage != Stage::kRefused && !overtaken)
        return "a CMS is still at work. " + picture(lineage);
    }
  }
  return std::nullopt;
}

// An ECU was told to run it, and is gone: nobody knows whether it does, if it does not stop for certain. An operator is
// asked.
bool ClaimsWorld::waits_for_word_of_target(const ClaimRecord& head) const {
  if (head.kind != wire::ClaimKind::kAct || gone_for_good_.count(head.target.ecu_mac) == 0) return false;
  const wire::EcuRecord* log = nas_.head(head.target.ecu_mac);
  if (log == nullptr || log->kind != EcuRecordKind::kLost) return false;
  if (log->enforcer != wire::Enforcer::kNone && head.on_isolation == wire::OnIsolation::kStop) return false;
  return std::any_of(cms_.begin(), cms_.end(), [&](const Cms& cms) {
    if (cms.core == nullptr) return false;
    const auto loss = cms.core->losses().find(head.target.ecu_mac);
    return loss != cms.core->losses().end() && loss->second.waiting.count(head.lineage) != 0;
  });
}

bool ClaimsWorld::waits_for_operator(const ClaimRecord& head) const {
  if (head.on_loss == wire::OnLoss::kRestore && head.on_isolation == wire::OnIsolation::kStop) return false;
  return std::any_of(cms_.begin(), cms_.end(), [&](const Cms& cms) {
    if (cms.core == nullptr) return false;
    const auto loss = cms.core->losses().find(head.owner.program.ecu_mac);
    if (loss != cms.core->losses().end() && loss->second.waiting.count(head.lineage) != 0) return true;
    const auto reconciling = cms.core->reconcilings().find(head.owner.program.ecu_mac);
    return reconciling != cms.core->reconcilings().end() &&
           reconciling->second.waiting.count(head.lineage) != 0;
  });
}

}  // namespace cms::sim
