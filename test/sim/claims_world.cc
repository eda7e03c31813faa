// The life of the world of claims: its faults, its operator, how it heals, and what must be true at the end.
#include "test/sim/claims_world.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "base/digest.h"

namespace cms::sim {

using namespace std::chrono_literals;
using Stage = core::RestoreCore::Stage;
using wire::ClaimKind;
using wire::ClaimRecord;

namespace {

constexpr std::uint64_t kEventCountMax = 1'000'000;  // Far beyond any healthy run.
constexpr Duration kSettleTimeMax = 90s;  // Take-over after T_member, a scan of the logs, waits for a target.
constexpr int kHealRoundsMax = 3;
constexpr Duration kScanTimeMax = 30s;
constexpr Duration kCutOffMax = 6s;  // A life that is told lost.

bool is_open(const ClaimRecord& record) {
  return record.kind == ClaimKind::kClaim || record.kind == ClaimKind::kAct;
}

}  // namespace

ClaimsWorld::ClaimsWorld(std::uint64_t seed, const ClaimsScenario& scenario, ClaimsPlant plant, bool verbose)
    : scenario_(scenario),
      plant_(plant),
      verbose_(verbose),
      prng_(seed),
      begun_at_(queue_.now()),
      nas_(ledger_) {}

void ClaimsWorld::trace(const std::string& line) const {
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(queue_.now() - begun_at_).count();
  std::printf("%4lld.%06lld  %s\n", static_cast<long long>(us / 1000000),
              static_cast<long long>(us % 1000000), line.c_str());
}

void ClaimsWorld::run_for(Duration time) {
  const Instant until = queue_.now() + time;
  while (queue_.run_next(until)) {
    if (queue_.run_count() > kEventCountMax) violated("too many events: something runs in circles");
  }
}

void ClaimsWorld::run() {
  for (std::size_t i = 0; i < scenario_.cms_count; ++i) {
    Cms& cms = cms_.emplace_back();
    cms.number = i;
    cms.name = std::string(1, static_cast<char>('a' + i));
  }
  for (std::size_t i = 0; i < scenario_.ecu_count; ++i) {
    Ecu& ecu = ecus_.emplace_back();
    ecu.ecu_mac = EcuMac{0x020000000001 + i};
    ecu.number = i;
    boot(ecu);
  }
  for (Cms& cms : cms_) start_cms(cms);
  for (std::size_t i = 0; i < scenario_.program_count; ++i) {
    Ecu& ecu = ecus_[i % ecus_.size()];
    const ProgramId program_id = i + 1;
    lineages_.push_back(lineage_of(ProgramKey{ecu.ecu_mac, program_id}));
    Copy& copy = ledger_.start_first(lineages_.back(), ecu.session, program_id);
    copy.boot = ecu.boots;
    if (scenario_.leases) begin_first_copy(ecu, copy);
    publish_by_and_by(copy);
  }
  if (scenario_.leases) {
    schedule_lease_faults();
    check_leases();
    run_for(scenario_.fault_time);
    if (scenario_.links) check_links();
    return heal_leases();
  }
  schedule_faults();
  run_for(scenario_.fault_time);
  heal();
}

// ---- faults

void ClaimsWorld::schedule_faults() {
  recur(scenario_.loss_every, [this] { lose_ecu(); });
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
  recur(scenario_.store_away_every,
        [this] { cms_[prng_.below(cms_.size())].away_until = queue_.now() + random_delay(6s); });
  recur(scenario_.move_every, [this] { ask_for_move(); });
  recur(1s, [this] {
    Cms& cms = cms_[prng_.below(cms_.size())];
    if (cms.core != nullptr) remove_some(cms, lineages_[prng_.below(lineages_.size())], false);
  });
}

// An ECU dies, or is cut off and dies later; some CMS are told, each once or twice, before it boots anew. Often it
// is the one that is being told to run something.
void ClaimsWorld::lose_ecu() {
  Ecu* ecu = &ecus_[prng_.below(ecus_.size())];
  if (prng_.chance(1, 2)) {
    const ClaimRecord* head = nas_.head(lineages_[prng_.below(lineages_.size())]);
    if (head != nullptr)
      ecu = &ecu_of(head->kind == ClaimKind::kAct ? head->target.ecu_mac : head->owner.program.ecu_mac);
  }
  if (ecu->state != Ecu::State::kUp || ecu->lost) return;
  ecu->lost = true;
  const SessionId session = ecu->session;
  const bool told = !percent(scenario_.untold_percent);
  const bool cut_off = told && percent(scenario_.cut_off_percent);
  if (cut_off) {
    ecu->state = Ecu::State::kCutOff;
  } else {
    power_off(*ecu);
  }
  if (!told) {
    queue_.after(random_delay(5s), [this, ecu, session] {
      if (ecu->session == session) boot(*ecu);
    });
    return;
  }
  const std::size_t first = prng_.below(cms_.size());
  const std::size_t count = prng_.chance(1, 3) ? cms_.size() : 1 + prng_.below(cms_.size());
  Duration last_told{};
  for (std::size_t i = 0; i < count; ++i) {
    Cms& cms = cms_[(first + i) % cms_.size()];
    Duration delay = random_delay(1s);
    const int times = prng_.chance(1, 4) ? 2 : 1;
    for (int time = 0; time < times; ++time) {
      queue_.after(delay, [this, session, &cms] { tell_lost(session, cms); });
      last_told = std::max(last_told, delay);
      delay += random_delay(4s);
    }
  }
  const Duration dies_after = last_told + random_delay(kCutOffMax);
  queue_.after(dies_after, [this, ecu, session] {
    power_off(*ecu);
    boot_when_scanned(session);
  });
}

// The operator is as good as its word: it is off, or cut off from whatever could notice that it runs.
void ClaimsWorld::tell_lost(const SessionId& session, Cms& cms) {
  const Ecu& ecu = ecu_of(session.ecu_mac);
  if (!(ecu.session == session) || ecu.state == Ecu::State::kUp) return;
  if (cms.core == nullptr || queue_.now() < cms.paused_until)
    return;  // cms-admin says that it did not answer.
  if (verbose_) trace("cms " + cms.name + " is told that " + to_string(session) + " is lost");
  ledger_.vouch(session);
  step_cms(cms, [&](core::RestoreCore& core, Instant now, core::RestoreEffects& effects) {
    core.fail_ecu(now, session.ecu_mac, effects);
  });
  tick_at(cms, Duration{});
}

bool ClaimsWorld::told_is_scanned(EcuMac ecu_mac) const {
  return std::all_of(cms_.begin(), cms_.end(), [&](const Cms& cms) {
    if (cms.core == nullptr) return true;
    const auto loss = cms.core->losses().find(ecu_mac);
    return loss == cms.core->losses().end() || loss->second.scanned;
  });
}

// What an operator has told about an ECU is about what ran before it boots: it stays off until the CMS have seen
// in the logs what that was.
void ClaimsWorld::boot_when_scanned(const SessionId& session) {
  queue_.after(random_delay(500ms), [this, session] {
    const Ecu& ecu = ecu_of(session.ecu_mac);
    if (!(ecu.session == session) || ecu.state != Ecu::State::kDown) return;
    if (!told_is_scanned(ecu.ecu_mac)) return boot_when_scanned(session);
    queue_.after(random_delay(3s), [this, session] {
      Ecu& down = ecu_of(session.ecu_mac);
      if (down.session == session && down.state == Ecu::State::kDown) boot(down);
    });
  });
}

// ---- the end

void ClaimsWorld::heal() {
  faults_on_ = false;
  if (verbose_) trace("all heals");
  for (Cms& cms : cms_) {
    cms.away_until = Instant{};
    if (cms.core == nullptr) start_cms(cms);
    step_cms(cms, [&](core::RestoreCore& core, Instant now, core::RestoreEffects& effects) {
      for (const Ecu& ecu : ecus_) (void)core.cancel_drain(now, ecu.ecu_mac, effects);
    });
  }
  run_for(kCutOffMax + scenario_.cms_pause_max);
  std::optional<std::string> trouble;
  for (int round = 0; round < kHealRoundsMax; ++round) {
    power_cycle_what_needs_it();
    const Instant until = queue_.now() + kSettleTimeMax;
    do {
      run_for(1s);
      trouble = unsettled();
    } while (trouble && queue_.now() < until);
    if (!trouble) return;
  }
  violated("not settled after the faults: " + *trouble);
}

// What an operator does who sees programs of sessions that are over: the ECU is switched off, all CMS are told, and
// it is switched on again when they have looked at the logs.
void ClaimsWorld::power_cycle_what_needs_it() {
  std::set<EcuMac> needed;
  for (const Lineage& lineage : lineages_) {
    const ClaimRecord* head = nas_.head(lineage);
    if (head == nullptr) continue;
    const SessionId owner{head->owner.program.ecu_mac, head->owner.incarnation};
    // What is frozen is for the CMS to settle.
    const bool there = std::any_of(ledger_.copies().begin(), ledger_.copies().end(), [&](const Copy& copy) {
      return copy.lineage == lineage && copy.running && !ledger_.is_vouched(copy.session);
    });
    const bool owner_runs = lives(owner) && !ledger_.is_vouched(owner) && there;
    if (!owner_runs) needed.insert(owner.ecu_mac);
    const bool target_gone =
        head->kind == ClaimKind::kAct && (!lives(head->target) || ledger_.is_vouched(head->target));
    if (target_gone) needed.insert(head->target.ecu_mac);
  }
  for (const EcuMac ecu_mac : needed) power_off(ecu_of(ecu_mac));
  for (const EcuMac ecu_mac : needed) {
    for (Cms& cms : cms_) tell_lost(ecu_of(ecu_mac).session, cms);
  }
  const Instant until = queue_.now() + kScanTimeMax;
  for (const Ecu& ecu : ecus_) {
    while (ecu.state == Ecu::State::kDown && !told_is_scanned(ecu.ecu_mac)) {
      if (queue_.now() >= until) violated("the logs are not scanned for " + to_string(ecu.ecu_mac));
      run_for(100ms);
    }
  }
  for (Ecu& ecu : ecus_) {
    if (ecu.state == Ecu::State::kDown) boot(ecu);
  }
}

// Invariants at the end: each program that had anything STORED runs once, where the log says; no claim is open; no
// CMS is at work any more.
std::optional<std::string> ClaimsWorld::unsettled() const {
  for (const Lineage& lineage : lineages_) {
    const ClaimRecord* head = nas_.head(lineage);
    if (head != nullptr && is_open(*head)) return "a claim is open. " + picture(lineage);
    const Copy* copy = ledger_.running(lineage);
    for (const Copy& one : ledger_.copies()) {
      if (one.lineage == lineage && one.running && one.frozen && !ledger_.is_vouched(one.session)) {
        return to_string(one.key()) + " is frozen. " + picture(lineage);
      }
    }
    if (copy == nullptr) {
      if (!ledger_.was_ever_stored(lineage)) continue;  // Nothing to go on from.
      return "it does not run. " + picture(lineage);
    }
    if (head != nullptr &&
        (!(copy->key() == head->owner.program) || copy->owner_epoch != head->owner.owner_epoch)) {
      return "it runs elsewhere than the log says. " + picture(lineage);
    }
  }
  for (const Cms& cms : cms_) {
    for (const auto& [lineage, restore] : cms.core->restores()) {
      if (restore.stage != Stage::kDone && restore.stage != Stage::kRefused) {
        return "a CMS is still at work. " + picture(lineage);
      }
    }
  }
  return std::nullopt;
}

std::string ClaimsWorld::picture(const Lineage& lineage) const {
  const ClaimRecord* head = nas_.head(lineage);
  std::string text =
      "lineage " + to_string(lineage) + ", head: " + (head == nullptr ? "none" : describe(*head));
  if (const Copy* copy = ledger_.running(lineage)) {
    text += "; runs as " + to_string(copy->key()) + ", epoch " + std::to_string(copy->owner_epoch);
  }
  for (const Cms& cms : cms_) {
    if (cms.core == nullptr) continue;
    const auto restore = cms.core->restores().find(lineage);
    if (restore == cms.core->restores().end()) continue;
    text += "; cms " + cms.name + ": " + std::string(to_string(restore->second.stage)) + " (" +
            restore->second.why + ")";
  }
  return text;
}

}  // namespace cms::sim
