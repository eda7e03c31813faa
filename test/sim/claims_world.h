#pragma once
// ClaimsWorld runs one seed of restores: one to three cmsd (RestoreCore and Members, with a shell like cmsd's), two
// to four ECUs (RestoreTarget) with programs that publish, one NAS, and an operator who tells which ECUs are lost.
// After a time of faults everything heals, and then each program runs exactly once. Invariants are
// checked after every event: in claims_ledger.h, claims_nas.h, and at the end here.
//
// With run leases (ClaimsScenario::leases) all ECUs are guarded: claims_world_guarded.cc has their brokers,
// claims_world_leases.cc what each cmsd does for them, claims_world_leases_end.cc faults and end.
#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "base/prng.h"
#include "broker/core/frozen_programs.h"
#include "broker/core/guarded_programs.h"
#include "broker/core/restore_target.h"
#include "broker/core/run_lease.h"
#include "cms/core/leases.h"
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
  ClaimsWorld(std::uint64_t seed, const ClaimsScenario& scenario, ClaimsPlant plant, bool verbose);
  ClaimsWorld(const ClaimsWorld&) = delete;
  ClaimsWorld& operator=(const ClaimsWorld&) = delete;

  // Throws Violation.
  void run();
  std::uint64_t event_count() const { return queue_.run_count(); }
  // Of ClaimsScenario::links: its step came about.
  bool cuts_made() const { return cuts_made_; }

 private:
  struct Pending {  // An append of which the outcome is not known.
    wire::ClaimRecord record{};
    bool draft_there = true;
  };
  // ---- of guarded ECUs
  struct Peer {  // A connection: of the ECU of that number, or of its twin.
    std::size_t ecu = 0;
    bool twin = false;
    std::uint64_t connection = 0;
    friend bool operator<(const Peer& a, const Peer& b) {
      return std::tie(a.ecu, a.twin, a.connection) < std::tie(b.ecu, b.twin, b.connection);
    }
    friend bool operator==(const Peer& a, const Peer& b) { return !(a < b) && !(b < a); }
  };
  struct GuardedSession {  // At a CMS.
    SessionId id{};
    std::uint64_t nonce = 0;
    wire::Enforcer enforcer = wire::Enforcer::kNone;
    Peer peer{};
    Instant heard_at{};
    std::uint64_t programs_changed = 0;
  };
  struct PendingEcu {
    wire::EcuRecord record{};
    bool draft_there = true;
  };
  // How long a CMS has been good for a session: it renews its record, and hears it.
  struct Good {
    SessionId session{};
    Instant since{};
    Instant heard_at{};
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
    Instant away_until{};        // From the NAS.
    Instant unanswered_until{};  // By the NAS, which does what it is asked for.
    std::map<EcuMac, SessionId> sessions{};
    std::map<Lineage, wire::ClaimRecord> known_heads{};
    std::map<std::uint64_t, std::shared_ptr<Pending>> unresolved{};
    Instant ticks_at{};                   // The event of its loop that counts.
    std::optional<Instant> written_at{};  // Its own time when its last good member record was sent.
    ClaimsNas::Members first_seen{};      // For kLivingClaimerOvertaken.
    std::map<Lineage, std::vector<storage::BlobName>> listed{};  // For kListedBeforeClaim.
    // ---- run leases
    std::unique_ptr<core::Leases> leases{};
    std::unique_ptr<core::Members>
        renewed{};  // For kGrantsWithoutRecord: as if it were renewed all the time.
    std::map<EcuMac, GuardedSession> guarded{};
    std::map<std::pair<Peer, std::uint64_t>, Incarnation> hellos_in_work{};  // And nonces.
    struct Fence {
      Lineage lineage{};
      OwnerEpoch owner_epoch = 0;
    };
    std::map<ProgramKey, Fence> fences{};
    std::map<std::uint64_t, std::shared_ptr<PendingEcu>> unresolved_ecu{};
    std::array<std::deque<std::function<void()>>, 2> lanes{};
    bool renewing = false;
    bool renew_wanted = false;
    std::uint64_t round = 0;  // The one that sleeping wakes up for.
    std::map<EcuMac, Good> good{};
    Instant record_at{};                // When its record was written last.
    std::set<SessionId> handed_over{};  // For kLossWithoutLook.
  };
  struct Link {  // To one CMS.
    bool live = false;
    Instant said_at{};
    Instant heard_at{};
    Instant next_heartbeat_at{};
    std::uint64_t number = 0;
    std::uint64_t connection = 1;
    std::map<std::uint64_t, Instant> sent{};  // Heartbeats; the time of the world.
    std::uint64_t answered = 0;
    Instant out_cut_until{};
    Instant in_cut_until{};
    Instant out_last_at{};  // What is sent keeps its order.
    Instant in_last_at{};
  };
  // The broker of a guarded ECU, as EcuCore does it, and who enforces its lease.
  struct Guarded {
    explicit Guarded(std::size_t cms_count) : lease(cms_count), links(cms_count) {}
    wire::Enforcer enforcer = wire::Enforcer::kNone;
    std::uint32_t rate_permille = 1000;
    std::uint64_t broker_life = 0;  // 0: it is down.
    std::uint64_t nonce = 0;
    std::uint64_t session_count = 0;
    broker::RunLease lease;
    broker::GuardedPrograms programs{};
    std::set<broker::RestoreId> goes{};
    std::set<broker::RestoreId> overtaken{};
    std::vector<Link> links;
    std::map<std::size_t, wire::AskPrograms> asks{};
    std::vector<wire::OwnedProgram> gone{};  // For kGoneProgramsTold.
    bool programs_told = false;
    bool asked = false;  // In this session it has told a CMS what runs.
    std::uint64_t programs_changed = 0;
    Duration session_pause{};
    Instant stopped_from = kNever;
    Instant wakes_at = kNever;
    Instant broker_paused_until{};
    Instant paused_until{};  // The whole ECU.
    bool had_lease = false;  // In this boot.
    std::map<ProgramId, std::uint64_t>
        awaited{};  // Own programs that a call of the RTCR waits for; which one.
    std::set<ProgramId> asked_for{};
    Instant leased_until{};  // By the world's time.
    // Who enforces it:
    Instant enforce_at = kNever;
  };
  struct Ecu {
    EcuMac ecu_mac{};
    SessionId session{};
    std::size_t number = 0;
    std::uint64_t boots = 0;
    Duration stood_still{};  // For kSleepingClock.
    std::unique_ptr<Guarded> guarded{};
    bool said_bye = false;
    Instant up_at{};
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
  bool publish(Copy& copy);  // False: it could not.
  void offer(Copy& copy, const StoredBlob& blob);
  void offer_again(Copy& copy, const StoredBlob& blob);

  // Its RTCR; and its broker, in this life of it, once it is not paused.
  static bool is_of(const Ecu& ecu, const Copy& copy) {
    return copy.session.ecu_mac == ecu.ecu_mac && copy.boot == ecu.boots;
  }
  std::uint64_t life_of(const Ecu& ecu) const;
  Instant local(const Ecu& ecu) const;
  void in_rtcr(Ecu& ecu, std::uint64_t boots, Duration delay, std::function<void()> what);
  void to_broker(Ecu& ecu, std::uint64_t life, Duration delay, std::function<void()> what);
  void to_broker_at(Ecu& ecu, Instant local_at, std::function<void()> what);

  // ---- guarded ECUs (claims_world_guarded.cc)
  void boot_guarded(Ecu& ecu);
  void start_broker(Ecu& ecu);
  void kill_broker(Ecu& ecu);
  void wake_broker(Ecu& ecu);
  void on_broker_time(Ecu& ecu);
  void say(Ecu& ecu, std::size_t cms, const wire::ControlBody& body);
  void say_hello(Ecu& ecu, std::size_t cms);
  void send_heartbeat(Ecu& ecu, std::size_t cms);
  void hear(Ecu& ecu, std::size_t cms, Incarnation incarnation, const wire::ControlBody& body);
  void hear_hello_answer(Ecu& ecu, std::size_t cms, const wire::HelloAnswer& answer);
  bool stands_still_here(const Ecu& ecu, ProgramId program_id) const;
  void replace_still(Ecu& ecu, const Lineage& lineage);
  void hear_fenced(Ecu& ecu, const ProgramKey& program, const Lineage& lineage, OwnerEpoch owner_epoch);
  void watch_lease(Ecu& ecu);
  void end_lease(Ecu& ecu);
  bool stands_still(const Ecu& ecu) const;
  void stop_unless_leased(Ecu& ecu, ProgramId program_id);
  void carry_out_stop(Ecu& ecu, const broker::StopEffects& effects);
  void thaw_guarded(Ecu& ecu, std::size_t cms, const wire::Thaw& thaw);
  void answer_asks(Ecu& ecu);
  void tell_programs_changed(Ecu& ecu);
  void tell_programs(Ecu& ecu, std::size_t cms, const wire::AskPrograms& ask);
  void tell_lease(Ecu& ecu);
  void guard_looks(Ecu& ecu);
  bool is_held(const Ecu& ecu, wire::OnIsolation on_isolation) const;
  void begin_guarded_copy(Ecu& ecu, Copy& copy, const wire::Go& go, const broker::RestoreInfo& info,
                          std::uint64_t life);
  void begin_first_copy(Ecu& ecu, Copy& copy);
  void tell_of_copy(Ecu& ecu, const Copy& copy);
  void restart_broker(Ecu& ecu);
  void resume_if_free(Ecu& ecu, ProgramId program_id);
  void note_restored(Ecu& ecu, broker::RestoreId id, const Result<ProgramId>& program_id);
  bool may_publish(Ecu& ecu, Copy& copy);
  bool can_pull(const Cms& cms, Publication& publication);
  void end_program(Ecu& ecu);
  void end_copy(Ecu& ecu, Copy& copy);
  void pause_ecu(Ecu& ecu);
  void check_leases();

  // ---- own programs that an RTCR asks for (claims_world_restarts.cc)
  void want_own(Ecu& ecu, Duration delay_max);
  void await_own(Ecu& ecu, ProgramId program_id, Duration patience);
  void ask_for_own(Ecu& ecu, ProgramId program_id, std::uint64_t call);
  void hear_of_own(Ecu& ecu, const wire::MigrateAnswer& answer);
  bool is_awaited(const Ecu& ecu, const broker::RestoreInfo& info) const;
  void on_own_asked(Cms& cms, const SessionId& session, const wire::Migrate& asked);
  void run_unclaimed(Ecu& ecu, ProgramId program_id, const wire::ClaimRecord& head);
  void restart_in_peace();

  // ---- planned moves (claims_world_moves.cc)
  void ask_for_move();
  void ask_for_drain(Cms& cms);
  std::optional<broker::LastCheckpoint> last_checkpoint_of(const Ecu& ecu, const Copy& copy) const;
  void freeze_guarded(Ecu& ecu, const broker::FreezeProgram& effect);
  void renew_frozen(Ecu& ecu);
  void offer_frozen(Copy& copy, StoredBlob blob);
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
  void read_heads(Cms& cms, const core::ReadHeads& effect,
                  std::vector<std::optional<wire::ClaimRecord>> heads);
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

  // ---- run leases of the cmsd (claims_world_leases.cc)
  template <typename Input>
  void step_leases(Cms& cms, Input input) {
    core::LeaseEffects effects;
    input(*cms.leases, local(cms), effects);
    for (const core::LeaseEffect& effect : effects)
      std::visit([&](const auto& one) { carry_out_lease(cms, one); }, effect);
  }
  void start_leases(Cms& cms);
  void tick_leases(Cms& cms);
  void renew_with_bars(Cms& cms);
  std::vector<core::Members::Seen> members_seen(const Cms& cms) const;
  void end_round(Cms& cms, Instant begun_at);
  void carry_out_lease(Cms& cms, const core::ListEcuLogs& effect);
  void carry_out_lease(Cms& cms, const core::ReadEcuLogs& effect);
  void carry_out_lease(Cms& cms, const core::AppendEcuRecord& effect);
  void carry_out_lease(Cms& cms, const core::SettleEcuAppend& effect);
  void carry_out_lease(Cms& cms, const core::RenewMember& effect);
  void carry_out_lease(Cms& cms, const core::GuardedEnded& effect);
  void carry_out_lease(Cms& cms, const core::MaintenanceChanged& effect);
  void carry_out_lease(Cms& cms, const core::SessionLost& effect);
  void carry_out_lease(Cms& cms, const core::LeaseEvent& effect);
  void lose_session(Cms& cms, const wire::EcuRecord& record);
  void act_without_look(Cms& cms);
  void on_control(Cms& cms, const Peer& peer, Incarnation incarnation, const wire::ControlBody& body);
  void on_hello(Cms& cms, const Peer& peer, const wire::Hello& hello);
  void on_hello_recorded(Cms& cms, const Peer& peer, const wire::Hello& hello,
                         const Result<wire::EcuRecord>& head);
  void answer_hello(Cms& cms, const GuardedSession& session);
  void refuse_hello(Cms& cms, const Peer& peer, const wire::Hello& hello, Code code);
  void on_heartbeat(Cms& cms, GuardedSession& session, const wire::Heartbeat& heartbeat);
  void end_guarded(Cms& cms, const SessionId& session);
  void reconcile(Cms& cms, EcuMac ecu_mac);
  void send(Cms& cms, const Peer& peer, Incarnation incarnation, const wire::ControlBody& body);
  void to_ecu(std::size_t cms, const Peer& peer, std::function<void()> what);
  void tell_fenced(Cms& cms, const ProgramKey& program, const Lineage& lineage, OwnerEpoch owner_epoch);
  void send_fenced(Cms& cms, const GuardedSession& session, const ProgramKey& program,
                   const Cms::Fence& fence);
  void note_good(Cms& cms, const SessionId& session);

  // ---- their workers on the logs of ECUs (claims_world_ecu_logs.cc)
  using EcuHeadThen = std::function<void(Instant asked_at, const Result<std::optional<wire::EcuRecord>>&)>;
  using EcuAppendThen = std::function<void(const Result<core::Leases::AppendEnd>&, std::uint64_t attempt)>;
  EcuAppendThen when_appended(Cms& cms, EcuMac ecu_mac);
  void settle_hello(Cms& cms, std::uint64_t attempt);
  void in_lane(Cms& cms, EcuMac ecu_mac, std::function<void()> job);
  void lane_done(Cms& cms, EcuMac ecu_mac);
  void read_ecu_head(Cms& cms, EcuMac ecu_mac, EcuHeadThen then);
  void append_ecu(Cms& cms, const wire::EcuRecord& record, EcuAppendThen then);
  void settle_ecu(Cms& cms, std::uint64_t attempt, EcuAppendThen then);
  void leave_unresolved_ecu(Cms& cms, const wire::EcuRecord& record, bool draft_there, EcuAppendThen then);
  bool link_ecu(const wire::EcuRecord& record);
  using RecordedThen = std::function<void(Instant asked_at, const Result<wire::EcuRecord>&)>;
  void record_hello(Cms& cms, const wire::Hello& hello, Incarnation incarnation_min, int tries,
                    RecordedThen then);

  // ---- cuts at a step of a loss or a move (claims_world_links.cc)
  void schedule_links();
  void move_first_program();
  void note_step(Step step);
  void make_cut(const Cut& cut);
  void check_links() const;

  // ---- faults and the end, with run leases (claims_world_leases_end.cc)
  void schedule_lease_faults();
  void lose_guarded();
  void cut_links();
  void cut_from_giver(Ecu& ecu, std::size_t giver);
  void send_twin();
  void twin_says_hello(std::size_t ecu, std::size_t cms, std::uint64_t nonce, Instant until);
  void heal_leases();
  // Maintenance (claims_world_maintenance.cc).
  void begin_maintenance();
  void end_maintenance(EcuMac ecu_mac);
  void end_all_maintenance();
  std::string why_not_lost(const SessionId& session) const;
  void die_once_more();
  void boot_later(Ecu& ecu, Duration delay);
  void settle_leases(const std::string& when);
  std::optional<std::string> unsettled_leases() const;
  bool waits_for_word_of_target(const wire::ClaimRecord& head) const;
  bool waits_for_operator(const wire::ClaimRecord& head) const;

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
  bool link_claim(const wire::ClaimRecord& record);
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
  bool steps_count_ = false;  // The occasion has come.
  bool cuts_made_ = false;
  std::deque<Cms> cms_;
  std::deque<Ecu> ecus_;
  std::vector<Lineage> lineages_;
  std::uint64_t last_uid_ = 0;
  std::uint64_t last_attempt_ = 0;
  std::uint64_t last_life_ = 0;  // Of brokers.
  std::uint64_t last_call_ = 0;  // Of RTCRs that ask for their own programs.
  std::set<EcuMac> gone_for_good_;
};

}  // namespace cms::sim
