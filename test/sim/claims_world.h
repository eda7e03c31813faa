#pragma once
// ClaimsWorld runs one seed of restores: one to three cmsd (RestoreCore and Members, with a shell like cmsd's), two
// to four ECUs (RestoreTarget) with programs that publish, one NAS, and an operator who tells which ECUs are lost.
// After a time of faults everything heals, and then each program runs exactly once. Invariants are
// checked after every event: in claims_ledger.h, claims_nas.h, and at the end here.
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/prng.h"
#include "broker/core/frozen_programs.h"
#include "broker/core/restore_target.h"
#include "cms/core/members.h"
#include "cms/core/restore.h"
#include "test/sim/claims_ledger.h"
#include "test/sim/claims_nas.h"
#include "test/sim/claims_plants.h"
#include "test/sim/claims_scenario.h"
#include "test/sim/event_queue.h"

namespace cms::sim {

class ClaimsWorld {
 public:
  ClaimsWorld(std::uint64_t seed, ClaimsPlant plant, bool verbose);
  ClaimsWorld(const ClaimsWorld&) = delete;
  ClaimsWorld& operator=(const ClaimsWorld&) = delete;

  // Throws Violation.
  void run();
  std::uint64_t event_count() const { return queue_.run_count(); }

 private:
  struct Pending {  // An append of which the outcome is not known.
    wire::ClaimRecord record{};
    bool draft_there = true;
  };
  struct Cms {
    std::size_t number = 0;
    std::string name{};
    core::Writer me{};
    std::unique_ptr<core::Members> members{};
    std::unique_ptr<core::RestoreCore> core{};  // Null: dead.
    std::uint64_t life = 0;
    std::uint32_t rate_permille = 1000;  // Of its clock.
    Instant paused_until{};
    Instant away_until{};  // From the NAS.
    std::map<EcuMac, SessionId> sessions{};
    std::map<Lineage, wire::ClaimRecord> known_heads{};
    std::map<std::uint64_t, std::shared_ptr<Pending>> unresolved{};
    Instant ticks_at{};                   // The event of its loop that counts.
    std::optional<Instant> written_at{};  // Its own time when its last good member record was sent.
    ClaimsNas::Members first_seen{};      // For kLivingClaimerOvertaken.
    std::map<Lineage, std::vector<storage::BlobName>> listed{};  // For kListedBeforeClaim.
  };
  struct Ecu {
    EcuMac ecu_mac{};
    SessionId session{};
    enum class State { kUp, kCutOff, kDown } state = State::kDown;  // kCutOff: lives, but is told lost.
    Instant down_at{};
    bool lost = false;  // It was hit by a loss that is under way.
    std::unique_ptr<broker::RestoreTarget> target{};
    std::unique_ptr<broker::FrozenPrograms> frozen{};
    std::map<broker::RestoreId, broker::RestoreInfo> restores{};
    std::map<broker::RestoreId, wire::Go> goes{};
    std::map<std::uint64_t, broker::RestoreInfo> prepared_claims{};  // By uid; for kQueuedGoExecuted.
    ProgramId next_program = 100;
    Seq last_seq = 0;
    Instant wakes_at = kNever;
  };
  struct Publication {
    StoredBlob blob{};
    Copy* copy = nullptr;
    int tries = 0;
  };

  // ---- life (claims_world.cc)
  template <typename What>
  void recur(MeanTime every, What what) {
    if (every == MeanTime{}) return;
    queue_.after(around(prng_, every), [this, every, what] {
      if (!faults_on_) return;
      what();
      recur(every, what);
    });
  }
  void schedule_faults();
  void lose_ecu();
  void tell_lost(const SessionId& session, Cms& cms);
  void boot_when_scanned(const SessionId& session);
  bool told_is_scanned(EcuMac ecu_mac) const;
  void heal();
  void power_cycle_what_needs_it();
  std::optional<std::string> unsettled() const;
  std::string picture(const Lineage& lineage) const;
  void run_for(Duration time);
  Duration random_delay(Duration max) {
    return Duration(static_cast<std::int64_t>(prng_.below(static_cast<std::uint64_t>(max.count()) + 1)));
  }
  bool percent(std::uint32_t chance) { return faults_on_ && prng_.below(100) < chance; }
  void trace(const std::string& line) const;

  // ---- ECUs (claims_world_ecu.cc)
  void boot(Ecu& ecu);
  void power_off(Ecu& ecu);
  Ecu& ecu_of(EcuMac ecu_mac);
  bool lives(const SessionId& session) const;
  void hello(Ecu& ecu, std::size_t cms, Duration delay);
  void command(std::size_t cms, const SessionId& target, const wire::ControlBody& body);
  void obey(Ecu& ecu, std::size_t cms, const wire::ControlBody& body);
  void obey_queued_go(Ecu& ecu, const wire::Go& go);
  template <typename Input>
  void step_ecu(Ecu& ecu, Input input) {
    broker::RestoreEffects effects;
    input(*ecu.target, effects);
    carry_out(ecu, effects);
  }
  void carry_out(Ecu& ecu, broker::RestoreEffects& effects);
  void serve(Ecu& ecu, const broker::BulkLink& link, const wire::Fetch& fetch);
  void prepare_program(Ecu& ecu, broker::RestoreId id);
  void run_program(Ecu& ecu, broker::RestoreId id);
  void report(Ecu& ecu, const broker::SendReport& effect);
  void stop_copy(Ecu& ecu, ProgramId program_id);
  void publish_by_and_by(Copy& copy);
  void publish(Copy& copy);
  void offer(Copy& copy, const StoredBlob& blob);
  void offer_again(Copy& copy, const StoredBlob& blob);

  // ---- planned moves (claims_world_moves.cc)
  void ask_for_move();
  void ask_for_drain(Cms& cms);
  void obey_freeze(Ecu& ecu, broker::CmsIndex cms, const wire::Freeze& freeze);
  void obey_thaw(Ecu& ecu, broker::CmsIndex cms, const wire::Thaw& thaw);
  void carry_out_freeze(Ecu& ecu, const broker::FreezeEffects& effects);
  void freeze_program(Ecu& ecu, const broker::FreezeProgram& effect);
  void report_frozen(Ecu& ecu, broker::CmsIndex cms, const wire::FreezeReport& told);
  void beat(Ecu& ecu);
  Copy* copy_of(const Ecu& ecu, ProgramId program_id);

  // ---- the cmsd (claims_world_cms.cc)
  void start_cms(Cms& cms);
  void crash_cms(Cms& cms);
  Instant local(const Cms& cms) const;
  // Runs `what` in this life of it, once it is not paused.
  void cms_after(Cms& cms, Duration delay, std::function<void()> what);
  void run_in(Cms& cms, std::uint64_t life, const std::function<void()>& what);
  void tick(Cms& cms);
  void tick_at(Cms& cms, Duration delay);
  void renew(Cms& cms);
  std::vector<core::Candidate> candidates(const Cms& cms) const;
  template <typename Input>
  void step_cms(Cms& cms, Input input) {
    core::RestoreEffects effects;
    input(*cms.core, local(cms), effects);
    carry_out(cms, effects);
  }
  // An answer of a worker; its loop runs on.
  template <typename Input>
  void answer(Cms& cms, Input input) {
    step_cms(cms, input);
    tick_at(cms, Duration{});
  }
  void carry_out(Cms& cms, core::RestoreEffects& effects);
  void carry_out_one(Cms& cms, const core::ScanLogs& effect);
  void carry_out_one(Cms& cms, const core::ReadHeads& effect);
  void carry_out_one(Cms& cms, const core::ReadHead& effect);
  void carry_out_one(Cms& cms, const core::AppendRecord& effect);
  void carry_out_one(Cms& cms, const core::SettleAppend& effect);
  void carry_out_one(Cms& cms, const core::FindCheckpoint& effect);
  void carry_out_one(Cms& cms, const core::SendToTarget& effect);
  void carry_out_one(Cms& cms, const core::SendToSource& effect);
  void carry_out_one(Cms& cms, const core::ReadFrozen& effect);
  void carry_out_one(Cms& cms, const core::AskTargets& effect);
  void carry_out_one(Cms& cms, const core::OwnerChanged& effect);
  void carry_out_one(Cms& cms, const core::RestoreEvent& effect);
  void on_report(Cms& cms, const SessionId& from, wire::RestoreReport report);

  // ---- their workers (claims_world_workers.cc)
  bool store_fails(const Cms& cms);
  Duration store_delay() { return random_delay(scenario_.store_delay_max); }
  void note_head(Cms& cms, const wire::ClaimRecord& head);
  // Reads the head durably, by steps; null: the log is empty.
  using HeadThen = std::function<void(const Result<std::optional<wire::ClaimRecord>>&)>;
  void read_head(Cms& cms, const Lineage& lineage, HeadThen then);
  // Makes durable what is listed now.
  using ListThen = std::function<void(const std::vector<storage::BlobName>&)>;
  void list_durably(Cms& cms, const Lineage& lineage, ListThen then);
  void append(Cms& cms, const wire::ClaimRecord& record);
  void appended(Cms& cms, const wire::ClaimRecord& record, core::RestoreCore::AppendEnd end,
                std::uint64_t attempt);
  void leave_unresolved(Cms& cms, const wire::ClaimRecord& record, bool draft_there);
  void find(Cms& cms, const core::FindCheckpoint& asked);
  void store(Cms& cms, Publication publication);
  void retry_store(Cms& cms, Publication publication);
  void ask_word(Cms& cms, Publication publication);
  void judge(Cms& cms, const Publication& publication, const std::optional<wire::ClaimRecord>& head);
  void fence(Copy& copy);
  void remove_some(Cms& cms, const Lineage& lineage, bool garbage_only);

  const ClaimsScenario scenario_;
  const ClaimsPlant plant_;
  const bool verbose_;
  Prng prng_;
  EventQueue queue_;
  const Instant begun_at_;
  ClaimsLedger ledger_;
  ClaimsNas nas_;
  bool faults_on_ = true;
  std::deque<Cms> cms_;
  std::deque<Ecu> ecus_;
  std::vector<Lineage> lineages_;
  std::uint64_t last_uid_ = 0;
  std::uint64_t last_attempt_ = 0;
};

}  // namespace cms::sim
