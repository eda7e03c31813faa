// What the workers of the cmsd do with the logs of guarded ECUs, step by step, as cms/daemon/ecu_log_worker.cc does.
#include <utility>

#include "cms/core/ecu_log.h"
#include "test/sim/claims_world.h"

namespace cms::sim {

using namespace std::chrono_literals;
using AppendEnd = core::Leases::AppendEnd;
using wire::EcuRecord;

namespace {

constexpr int kHelloTriesMax = 8;
// So long good for a session, nobody can have taken it for lost: T_dead and T_member by the slowest clock, and a look.
constexpr Duration kGoodLong = 25s;

Error away() { return make_error(Code::kUnavailable, "the NAS does not answer"); }

}  // namespace

// One after the other for each ECU.
void ClaimsWorld::in_lane(Cms& cms, EcuMac ecu_mac, std::function<void()> job) {
  auto& lane = cms.lanes[ecu_mac.bits % cms.lanes.size()];
  lane.push_back(std::move(job));
  if (lane.size() > 1) return;
  const auto first = lane.front();
  first();
}

void ClaimsWorld::lane_done(Cms& cms, EcuMac ecu_mac) {
  auto& lane = cms.lanes[ecu_mac.bits % cms.lanes.size()];
  lane.pop_front();
  if (lane.empty()) return;
  const auto next = lane.front();
  next();
}

void ClaimsWorld::read_ecu_head(Cms& cms, EcuMac ecu_mac, EcuHeadThen then) {
  const Instant asked_at = local(cms);
  cms_after(cms, store_delay(), [this, &cms, ecu_mac, asked_at, then = std::move(then)] {
    if (store_fails(cms)) return then(asked_at, away());
    const EcuRecord* seen = nas_.head(ecu_mac);
    if (seen == nullptr) return then(asked_at, std::optional<EcuRecord>{});
    cms_after(cms, store_delay(), [this, &cms, asked_at, then, head = *seen]() mutable {
      if (!nas_.sync(head) || store_fails(cms)) return then(asked_at, away());
      if (plant_ == ClaimsPlant::kMaintenanceOverlooked) head.maintenance = false;
      then(asked_at, std::optional<EcuRecord>(head));
    });
  });
}

// Invariants: an ECU that lives, and that somebody good has heard for long, is not LOST; nothing is where only the NAS fails.
bool ClaimsWorld::link_ecu(const EcuRecord& record) {
  if (!nas_.link(record)) return false;
  if (verbose_) trace("the NAS has " + describe(record));
  if (record.kind == wire::EcuRecordKind::kHello) note_step(Step::kHello);
  if (record.kind == wire::EcuRecordKind::kLost) note_step(Step::kLost);
  if (record.kind != wire::EcuRecordKind::kLost) return true;
  const bool in_peace =
      scenario_.kind == ClaimsScenario::Kind::kOutages || scenario_.kind == ClaimsScenario::Kind::kTwin;
  if (in_peace && gone_for_good_.count(record.ecu_mac) == 0)
    violated("LOST, though nothing has failed but the NAS: " + describe(record));
  for (const Cms& cms : cms_) {
    const auto good = cms.good.find(record.ecu_mac);
    if (cms.core == nullptr || good == cms.good.end()) continue;
    const bool now_good = good->second.session == core::session_of(record) &&
                          queue_.now() - good->second.heard_at < 3s && queue_.now() - cms.record_at < 3s;
    if (now_good && good->second.heard_at - good->second.since >= kGoodLong)
      violated("LOST, though cms " + cms.name + " hears it: " + describe(record));
  }
  return true;
}

void ClaimsWorld::leave_unresolved_ecu(Cms& cms, const EcuRecord& record, bool draft_there,
                                       EcuAppendThen then) {
  const std::uint64_t attempt = ++last_attempt_;
  const auto pending = std::make_shared<PendingEcu>(PendingEcu{record, draft_there});
  cms.unresolved_ecu[attempt] = pending;
  if (draft_there) {
    queue_.after(random_delay(4s), [this, pending] {
      if (pending->draft_there) (void)link_ecu(pending->record);
    });
  }
  cms_after(cms, 100ms + store_delay(), [attempt, then] { then(AppendEnd::kUnresolved, attempt); });
}

void ClaimsWorld::append_ecu(Cms& cms, const EcuRecord& record, EcuAppendThen then) {
  const bool late = faults_on_ && scenario_.ecu_append_late_max != Duration{} && prng_.chance(1, 2);
  const Duration delay = store_delay() + (late ? random_delay(scenario_.ecu_append_late_max) : Duration{});
  cms_after(cms, delay, [this, &cms, record, then = std::move(then)] {
    if (queue_.now() < cms.away_until) return leave_unresolved_ecu(cms, record, prng_.chance(1, 2), then);
    if (queue_.now() < cms.unanswered_until) {
      (void)link_ecu(record);
      return leave_unresolved_ecu(cms, record, false, then);
    }
    if (percent(scenario_.store_fail_percent)) return then(away(), 0);
    if (percent(scenario_.unresolved_percent)) {
      const bool linked = prng_.chance(1, 2) && link_ecu(record);
      return leave_unresolved_ecu(cms, record, !linked, then);
    }
    if (!link_ecu(record)) return cms_after(cms, store_delay(), [then] { then(AppendEnd::kLost, 0); });
    cms_after(cms, store_delay(), [this, &cms, record, then, life = nas_.life()] {
      if (life != nas_.life() && !nas_.holds(record)) return leave_unresolved_ecu(cms, record, true, then);
      (void)nas_.sync(record);
      cms_after(cms, store_delay(), [then] { then(AppendEnd::kWon, 0); });
    });
  });
}

void ClaimsWorld::settle_ecu(Cms& cms, std::uint64_t attempt, EcuAppendThen then) {
  cms_after(cms, store_delay(), [this, &cms, attempt, then = std::move(then)] {
    const auto found = cms.unresolved_ecu.find(attempt);
    if (found == cms.unresolved_ecu.end()) violated("an attempt is settled that nobody knows");
    const EcuRecord record = found->second->record;
    if (store_fails(cms)) return then(AppendEnd::kUnresolved, attempt);
    found->second->draft_there = false;
    const EcuRecord* there = nas_.record(record.ecu_mac, record.slot);
    if (there == nullptr) {
      cms.unresolved_ecu.erase(found);
      return then(away(), 0);
    }
    const bool won = there->uid == record.uid;
    cms_after(cms, store_delay(), [this, &cms, record, won, attempt, then] {
      if (won && !nas_.sync(record)) return then(AppendEnd::kUnresolved, attempt);
      cms.unresolved_ecu.erase(attempt);
      then(won ? AppendEnd::kWon : AppendEnd::kLost, 0);
    });
  });
}

void ClaimsWorld::record_hello(Cms& cms, const wire::Hello& hello, Incarnation incarnation_min, int tries,
                               RecordedThen then) {
  read_ecu_head(cms, hello.ecu_mac,
                [this, &cms, hello, incarnation_min, tries, then = std::move(then)](
                    Instant asked_at, const Result<std::optional<EcuRecord>>& head) {
                  if (!head.ok()) return then(asked_at, head.error());
                  const EcuRecord* record = *head ? &**head : nullptr;
                  switch (core::judge_hello(record, hello)) {
                    case core::HelloIs::kHead: return then(asked_at, *record);
                    case core::HelloIs::kOutdated:
                      return then(asked_at, make_error(Code::kFenced, "it has ended"));
                    case core::HelloIs::kNew: break;
                  }
                  const core::Stamp stamp{cms.me, ++last_uid_, 1};
                  const auto next = core::hello(stamp, record, hello, incarnation_min);
                  if (!next.ok()) return then(asked_at, next.error());
                  append_ecu(cms, *next,
                             [this, &cms, hello, incarnation_min, tries, then, asked_at, next = *next](
                                 const Result<AppendEnd>& end, std::uint64_t attempt) {
                               if (!end.ok()) return then(asked_at, end.error());
                               if (*end == AppendEnd::kWon) return then(asked_at, next);
                               if (*end == AppendEnd::kLost && tries + 1 < kHelloTriesMax)
                                 return record_hello(cms, hello, incarnation_min, tries + 1, then);
                               // Nobody waits for it, but it is to end.
                               if (attempt != 0) settle_hello(cms, attempt);
                               then(asked_at, away());
                             });
                });
}

void ClaimsWorld::settle_hello(Cms& cms, std::uint64_t attempt) {
  cms_after(cms, 500ms, [this, &cms, attempt] {
    settle_ecu(cms, attempt, [this, &cms](const Result<AppendEnd>& end, std::uint64_t again) {
      if (end.ok() && *end == AppendEnd::kUnresolved) settle_hello(cms, again);
    });
  });
}

}  // namespace cms::sim
