#pragma once
// RestoreKeeper is the shell of RestoreCore in cmsd: its questions go to ClaimWorker, its commands to the
// targets over the control channel, and what it found out to the CmsCore.
//
// Threads: loop only.
#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cms/core/cms_core.h"
#include "cms/core/restore.h"
#include "cms/daemon/claim_worker.h"
#include "cms/daemon/restore_facts.h"

namespace cms::daemon {

class RestoreKeeper {
 public:
  // All of these outlive this.
  RestoreKeeper(const core::RestoreConfig& config, core::CmsCore& core, const core::Members& members,
                const ClaimWorker::Parts& parts);
  ~RestoreKeeper() { stop(); }
  void stop() { worker_.stop(); }  // Idempotent.

  // Once a turn of the loop.
  void on_time(Instant now, std::uint64_t wall_us, core::Effects& effects);
  // This cmsd ends: what it has claimed and not given to a target is given back.
  void drain() { restores_.drain(); }
  Instant next_deadline() const { return std::max(next_at_, rests_until_); }
  void on_report(Instant now, const core::TargetReported& report, core::Effects& effects);
  void on_freeze_report(Instant now, const core::SourceReported& report, core::Effects& effects);
  // The first checkpoint of an owner that a restore made is stored: those of former owners go.
  void on_own_stored(const Lineage& lineage);

  // As of RestoreCore. Nothing happens on a store that cannot be trusted with claims.
  void lose_session(Instant now, const wire::EcuRecord& lost, core::Effects& effects);
  void reconcile(Instant now, const SessionId& session, const wire::EcuRecord& head, core::Effects& effects);
  void on_programs(Instant now, const core::ProgramsTold& told, core::Effects& effects);
  // kUnsupported: the store cannot be trusted with claims.
  Status fail_ecu(Instant now, EcuMac ecu_mac, core::Effects& effects);
  // Moves a program to another ECU, `only` to that one. kUnavailable, kUnsupported: its ECU is not there, or cannot
  // freeze it. kNotFound, kFenced, kWithdrawn: as ClaimWorker::find_owned; kFenced also: `owner_epoch` is given and
  // another. kAlreadyExists, kLimit: as RestoreCore::move.
  using Begun = std::function<void(Instant now, core::Effects& effects, const Status& begun)>;
  void migrate(const ProgramKey& program, std::optional<EcuMac> only, OwnerEpoch owner_epoch, Begun then);
  void on_migrate_asked(const core::MigrateAsked& asked);
  Status cancel_move(Instant now, const ProgramKey& program);
  // kUnsupported: the store cannot be trusted with claims.
  Status drain_ecu(Instant now, EcuMac ecu_mac, std::optional<Duration> deadline, core::Effects& effects);
  Status cancel_drain(Instant now, EcuMac ecu_mac, core::Effects& effects);
  RestoreFacts facts(Instant now) const;
  void history(EcuMac ecu_mac, std::optional<ProgramId> program_id,
               std::function<void(const Result<ClaimWorker::History>&)> then);
  Status can_restore() const;  // kUnsupported: as for fail_ecu.
  // What the loss of that ECU would be.
  void programs_of(EcuMac ecu_mac, ClaimWorker::Then<LostPrograms> then);
  // Those that a restore of now could choose from, with what was just placed there.
  std::vector<core::Candidate> candidates(Instant now) const;
  const core::RestoreCore& core() const { return restores_; }

 private:
  using Start = std::function<Status(Instant, const wire::ClaimRecord&, core::RestoreEffects&)>;

  void begin_owned(const ProgramKey& program, OwnerEpoch owner_epoch, Start start, Begun then);
  void carry_out(Instant now, core::RestoreEffects& todo, core::Effects& effects);
  void carry_out_one(Instant now, const core::ScanLogs& effect, core::Effects& effects);
  void carry_out_one(Instant now, const core::ReadHeads& effect, core::Effects& effects);
  void carry_out_one(Instant now, const core::ReadHead& effect, core::Effects& effects);
  void carry_out_one(Instant now, const core::AppendRecord& effect, core::Effects& effects);
  void carry_out_one(Instant now, const core::SettleAppend& effect, core::Effects& effects);
  void carry_out_one(Instant now, const core::FindCheckpoint& effect, core::Effects& effects);
  void carry_out_one(Instant now, const core::SendToTarget& effect, core::Effects& effects);
  void carry_out_one(Instant now, const core::SendToSource& effect, core::Effects& effects);
  void carry_out_one(Instant now, const core::ReadFrozen& effect, core::Effects& effects);
  void carry_out_one(Instant now, const core::AskTargets& effect, core::Effects& effects);
  void carry_out_one(Instant now, const core::OwnerChanged& effect, core::Effects& effects);
  void carry_out_one(Instant now, const core::RestoreEvent& effect, core::Effects& effects);
  Status can_freeze(const ProgramKey& program) const;
  ClaimWorker::Then<ClaimWorker::Appended> when_appended(const Lineage& lineage);

  core::CmsCore& core_;
  const LineageGate& gate_;
  IndexKeeper& keeper_;
  Outbox& outbox_;
  core::RestoreCore restores_;
  Instant next_at_{};
  Instant rests_until_{};
  ClaimWorker worker_;  // Last: its end precedes that of what it uses.
};

}  // namespace cms::daemon
