#include "cms/daemon/lease_keeper.h"

#include <utility>

#include <spdlog/spdlog.h>

#include "storage/store_format.h"

namespace cms::daemon {
namespace {

constexpr Duration kTurn = std::chrono::milliseconds(250);

core::LeaseTimers timers() {
  return core::LeaseTimers{std::chrono::milliseconds(storage::kEcuFenceMs),
                           std::chrono::milliseconds(storage::kEcuDeadMs)};
}

}  // namespace

LeaseKeeper::LeaseKeeper(const core::Writer& me, core::CmsCore& core, MemberKeeper& members,
                         RestoreKeeper& restores, storage::ClaimStore& claims, Outbox& outbox)
    : core_(core),
      members_(members),
      restores_(restores),
      leases_(me, timers(), members.members(), random_u64()),
      worker_(claims, outbox, me) {
  core_.set_leases(&leases_);
  members_.set_watcher(this);
}

void LeaseKeeper::on_time(Instant now, std::uint64_t wall_us, core::Effects& effects) {
  core::LeaseEffects todo = core_.take_lease_effects();
  if (now >= next_at_) {
    next_at_ = now + kTurn;
    leases_.on_time(now, wall_us, todo);
  }
  carry_out(now, todo, effects);
}

void LeaseKeeper::on_written(Instant sent_at, Instant durable_at, Instant now,
                             const std::vector<SessionId>& bars) {
  leases_.on_member_written(sent_at, durable_at, now, bars);
}

void LeaseKeeper::on_read(Instant begun_at, Instant now, core::Effects& effects) {
  core::LeaseEffects todo;
  leases_.on_members_read(begun_at, now, todo);
  carry_out(now, todo, effects);
}

void LeaseKeeper::record_hello(const core::RecordHello& asked) {
  worker_.record_hello(asked, [this, asked](Instant now, core::Effects& effects,
                                            const Result<EcuLogWorker::Recorded>& recorded) {
    if (!recorded.ok()) return core_.on_hello_recorded(now, asked, recorded.error(), effects);
    core::LeaseEffects todo;
    leases_.on_head(recorded->asked_at, now, recorded->head.ecu_mac, std::optional(recorded->head), todo);
    carry_out(now, todo, effects);
    core_.on_hello_recorded(now, asked, recorded->head, effects);
  });
}

void LeaseKeeper::on_guarded_begun(Instant now, const core::GuardedBegun& begun, core::Effects& effects) {
  reconcile(now, begun.session, effects);
}

void LeaseKeeper::reconcile(Instant now, const SessionId& session, core::Effects& effects) {
  const wire::EcuRecord* head = leases_.head_of(session.ecu_mac);
  if (head != nullptr && core::session_of(*head) == session)
    restores_.reconcile(now, session, *head, effects);
}

Status LeaseKeeper::set_maintenance(Instant now, EcuMac ecu_mac, bool maintenance, core::Effects& effects) {
  if (Status can = restores_.can_restore(); !can.ok()) return can;
  core::LeaseEffects todo;
  Status begun = leases_.set_maintenance(now, ecu_mac, maintenance, todo);
  carry_out(now, todo, effects);
  return begun;
}

LeaseFacts LeaseKeeper::facts(Instant now) const {
  LeaseFacts facts;
  for (const auto& [ecu_mac, ecu] : leases_.ecus()) {
    LeaseFacts::Ecu one;
    one.head = ecu.head;
    if (ecu.heard) one.heartbeat_ago = now - ecu.heartbeat_at;
    const SessionId session = core::session_of(ecu.head);
    one.leased = leases_.is_leased(now, session);
    one.barred = ecu.barred;
    if (ecu.bar_durable_at) one.barred_for = now - *ecu.bar_durable_at;
    if (ecu.wish) one.maintenance_asked = ecu.wish->maintenance;
    if (ecu.barred && !ecu.lost_known_at) one.kept_by = leases_.kept_by(now, session);
    one.shunned_for = restores_.core().shunned_for(now, ecu_mac);
    one.waiting = restores_.core().waiting_count(ecu_mac);
    facts.ecus.emplace(ecu_mac, std::move(one));
  }
  const std::optional<Instant> written_at = members_.members().written_at();
  if (written_at && !facts.ecus.empty()) {
    const Duration bound =
        members_.members().timers().self_fence + leases_.timers().ecu_fence - 2 * core::kMemberRenewInterval;
    const Duration away = now - *written_at;
    facts.outage_left = std::max<Duration>(Duration::zero(), bound - away);
    facts.stopped_by_outage = away > bound;
  }
  return facts;
}

// ---- effects

void LeaseKeeper::carry_out(Instant now, core::LeaseEffects& todo, core::Effects& effects) {
  for (const core::LeaseEffect& effect : todo) {
    std::visit([&](const auto& one) { carry_out_one(now, one, effects); }, effect);
  }
}

void LeaseKeeper::carry_out_one(Instant, const core::ListEcuLogs&, core::Effects&) {
  worker_.list([this](Instant now, core::Effects& effects, const Result<EcuLogWorker::Heads>& heads) {
    core::LeaseEffects todo;
    if (!heads.ok()) {
      leases_.on_listed(now, now, heads.error(), todo);
    } else {
      std::vector<wire::EcuRecord> records;
      for (const auto& [ecu_mac, head] : heads->heads) {
        if (!head.ok()) {
          spdlog::warn("the log of ECU {} cannot be read: {}", to_string(ecu_mac), head.error().message());
        } else if (*head) {
          records.push_back(**head);
        }
      }
      leases_.on_listed(heads->asked_at, now, std::move(records), todo);
    }
    carry_out(now, todo, effects);
  });
}

void LeaseKeeper::carry_out_one(Instant, const core::ReadEcuLogs& effect, core::Effects&) {
  worker_.read(effect.ecu_macs,
               [this](Instant now, core::Effects& effects, const Result<EcuLogWorker::Heads>& heads) {
                 core::LeaseEffects todo;
                 for (const auto& [ecu_mac, head] : heads->heads)
                   leases_.on_head(heads->asked_at, now, ecu_mac, head, todo);
                 carry_out(now, todo, effects);
               });
}

EcuLogWorker::Then<EcuLogWorker::Appended> LeaseKeeper::when_appended(EcuMac ecu_mac) {
  return
      [this, ecu_mac](Instant now, core::Effects& effects, const Result<EcuLogWorker::Appended>& appended) {
        core::LeaseEffects todo;
        if (appended.ok()) {
          leases_.on_appended(now, ecu_mac, appended->end, appended->attempt, todo);
        } else {
          leases_.on_appended(now, ecu_mac, appended.error(), 0, todo);
        }
        carry_out(now, todo, effects);
      };
}

void LeaseKeeper::carry_out_one(Instant, const core::AppendEcuRecord& effect, core::Effects&) {
  worker_.append(effect.record, when_appended(effect.record.ecu_mac));
}

void LeaseKeeper::carry_out_one(Instant, const core::SettleEcuAppend& effect, core::Effects&) {
  worker_.settle(effect.ecu_mac, effect.attempt, when_appended(effect.ecu_mac));
}

void LeaseKeeper::carry_out_one(Instant, const core::RenewMember&, core::Effects&) { members_.renew_soon(); }

void LeaseKeeper::carry_out_one(Instant now, const core::GuardedEnded& effect, core::Effects& effects) {
  core_.on_guarded_ended(now, effect.session, effect.why, effects);
}

void LeaseKeeper::carry_out_one(Instant now, const core::MaintenanceChanged& effect, core::Effects& effects) {
  if (core_.sessions().count(effect.session) != 0) reconcile(now, effect.session, effects);
}

void LeaseKeeper::carry_out_one(Instant now, const core::SessionLost& effect, core::Effects& effects) {
  restores_.lose_session(now, effect.record, effects);
}

void LeaseKeeper::carry_out_one(Instant, const core::LeaseEvent& effect, core::Effects&) {
  if (effect.warning) {
    spdlog::warn("{}", effect.text);
  } else {
    spdlog::info("{}", effect.text);
  }
}

}  // namespace cms::daemon
