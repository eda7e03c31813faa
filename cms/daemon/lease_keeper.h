#pragma once
// LeaseKeeper is the shell of Leases in cmsd: its questions go to EcuLogWorker, its bars into the member record, and what
// it found out to the CmsCore and the restores.
//
// Threads: loop only.
#include <optional>
#include <string>
#include <vector>

#include "cms/core/cms_core.h"
#include "cms/core/leases.h"
#include "cms/daemon/ecu_log_worker.h"
#include "cms/daemon/lease_facts.h"
#include "cms/daemon/member_keeper.h"
#include "cms/daemon/restore_keeper.h"

namespace cms::daemon {

class LeaseKeeper : public MemberWatcher {
 public:
  // All of these outlive this.
  LeaseKeeper(const core::Writer& me, core::CmsCore& core, MemberKeeper& members, RestoreKeeper& restores,
              storage::ClaimStore& claims, Outbox& outbox);
  ~LeaseKeeper() override { stop(); }
  LeaseKeeper(const LeaseKeeper&) = delete;
  LeaseKeeper& operator=(const LeaseKeeper&) = delete;
  void stop() { worker_.stop(); }  // Idempotent.

  // Once a turn of the loop, after all messages of ECUs.
  void on_time(Instant now, std::uint64_t wall_us, core::Effects& effects);
  Instant next_deadline() const { return next_at_; }
  void record_hello(const core::RecordHello& asked);
  // A guarded session has begun, or a program of it has ended.
  void on_guarded_begun(Instant now, const core::GuardedBegun& begun, core::Effects& effects);
  // As Leases::set_maintenance; kUnsupported: the store cannot be trusted with claims.
  Status set_maintenance(Instant now, EcuMac ecu_mac, bool maintenance, core::Effects& effects);

  std::vector<SessionId> bars() override { return leases_.bars(); }
  void on_written(Instant sent_at, Instant durable_at, Instant now,
                  const std::vector<SessionId>& bars) override;
  void on_read(Instant begun_at, Instant now, core::Effects& effects) override;

  const core::Leases& leases() const { return leases_; }
  LeaseFacts facts(Instant now) const;

 private:
  void reconcile(Instant now, const SessionId& session, core::Effects& effects);
  void carry_out(Instant now, core::LeaseEffects& todo, core::Effects& effects);
  void carry_out_one(Instant now, const core::ListEcuLogs& effect, core::Effects& effects);
  void carry_out_one(Instant now, const core::ReadEcuLogs& effect, core::Effects& effects);
  void carry_out_one(Instant now, const core::AppendEcuRecord& effect, core::Effects& effects);
  void carry_out_one(Instant now, const core::SettleEcuAppend& effect, core::Effects& effects);
  void carry_out_one(Instant now, const core::RenewMember& effect, core::Effects& effects);
  void carry_out_one(Instant now, const core::GuardedEnded& effect, core::Effects& effects);
  void carry_out_one(Instant now, const core::MaintenanceChanged& effect, core::Effects& effects);
  void carry_out_one(Instant now, const core::SessionLost& effect, core::Effects& effects);
  void carry_out_one(Instant now, const core::LeaseEvent& effect, core::Effects& effects);
  EcuLogWorker::Then<EcuLogWorker::Appended> when_appended(EcuMac ecu_mac);

  core::CmsCore& core_;
  MemberKeeper& members_;
  RestoreKeeper& restores_;
  core::Leases leases_;
  Instant next_at_{};
  EcuLogWorker worker_;  // Last: its end precedes that of what it uses.
};

}  // namespace cms::daemon
