#pragma once
// RestoreCore carries programs on elsewhere, from lost ECUs and, as planned moves, from ECUs that live: it claims a
// lineage in its log, finds the checkpoint, picks a target, has it restored there paused, and only then lets it run
// and writes down who owns it (docs/adr/0010-claim-log.md has the order of the records, claim_log.h what may follow
// what). A planned move has the source freeze the program first, and goes on from the checkpoint that this names as
// its last, or not at all (docs/adr/0014-planned-moves.md).
//
// Inputs are calls with the time; what is to be done comes back as effects. It decides nothing from what it
// remembers: before it acts on a log it has read its head or won its highest slot, and an append that lost, or of
// which the outcome is not known, is followed by reading the head anew. So any number of CMS instances may be
// at work on one lineage, and any of them may die between two steps: what it began is in the log, and
// whoever finds an open claim whose writer is dead goes on.
//
// Threads: none; one caller at a time. No I/O, no clock. Bounds: kRestoreCountMax lineages, of which the ended
// ones are forgotten first; bytes on their way to targets by RestoreConfig.
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/prng.h"
#include "base/result.h"
#include "base/time.h"
#include "cms/core/claim_log.h"
#include "cms/core/members.h"
#include "cms/core/placement.h"
#include "schemas/claim_record.h"
#include "schemas/ecu_record.h"
#include "schemas/messages.h"
#include "storage/blob_store.h"

namespace cms::core {

inline constexpr std::size_t kRestoreCountMax = 65536;
inline constexpr std::size_t kLossCountMax = 1024;  // Lost ECUs that are remembered.
inline constexpr std::size_t kPlacementCountMax = 4096;
inline constexpr std::size_t kGroupsCountMax = 65536;  // ECUs whose failure groups are remembered.
// Where there are failure groups every ECU is asked for its labels so often: a dead one cannot be asked.
inline constexpr Duration kGroupsAskedEvery = std::chrono::seconds(10);
// Of a lineage whose log, checkpoint or target could not be had: then it is tried again.
inline constexpr Duration kRestoreRetry = std::chrono::milliseconds(500);
inline constexpr Duration kWatchOthers =
    std::chrono::milliseconds(250);  // Between two looks at another's claim.
inline constexpr Duration kCommandRepeat = std::chrono::milliseconds(300);
// So long another's ACT is left to who wrote it.
inline constexpr Duration kOthersActGrace = std::chrono::seconds(1);
inline constexpr Duration kTargetSilenceMax = std::chrono::seconds(3);  // Without a report: another target.
inline constexpr Duration kTargetStuckMax = std::chrono::seconds(60);   // Reports, but nothing comes there.
// All has come, and its RTCR restores it: that may take long.
inline constexpr Duration kTargetPreparesMax = std::chrono::minutes(10);
inline constexpr Duration kPlaceWaitMax =
    std::chrono::seconds(3);  // For a target: then the claim is given back.
inline constexpr Duration kNoTargetRetry = std::chrono::seconds(5);
// Whether what has no target is still to be restored is read in its log that often.
inline constexpr Duration kNoTargetReread = std::chrono::seconds(60);
// So often all targets are asked before there is said to be none, while what they failed at may have been ours and
// may pass: the blob could not be read, or nothing of it came.
inline constexpr int kTargetRoundsMax = 3;
inline constexpr Duration kLogScanInterval = std::chrono::seconds(30);  // For open claims of the dead.
// After so many claims in a row the next older checkpoint is taken, where there is one; the newest may be
// what kills the program.
inline constexpr std::uint32_t kAttemptsBeforeOlder = 3;
inline constexpr std::uint32_t kAttemptsMax = 16;  // Then an operator has to look.

// ---- planned moves
// Of all of ours; each keeps a program from running.
inline constexpr std::size_t kMovesTogetherMax = 8;
inline constexpr Duration kSourceSilenceMax = std::chrono::seconds(5);  // Without an answer: it is given up.
inline constexpr Duration kSourceFreezesMax = std::chrono::seconds(60);
// From frozen to its last checkpoint on the store: that has to be pulled.
inline constexpr Duration kLastStoredMax = std::chrono::minutes(10);
inline constexpr Duration kLastLookedForMin =
    std::chrono::milliseconds(10);  // Every time a listing: then ever more
inline constexpr Duration kLastLookedForMax = std::chrono::milliseconds(200);  //   seldom.
// What is frozen for a claim that we do not work at: so long it is left to who does, and so often looked at then.
inline constexpr Duration kFrozenSettledAfter = std::chrono::seconds(2);
inline constexpr Duration kFrozenForgotten = std::chrono::seconds(10);  // It is not reported any more.
inline constexpr std::size_t kFrozenCountMax = 4096;
inline constexpr std::size_t kDrainCountMax = 1024;

// ---- guarded ECUs
inline constexpr std::size_t kReconcilingCountMax = 20000;
inline constexpr std::size_t kProgramsPerEcuMax = 131072;
inline constexpr Duration kProgramsAskedEvery = std::chrono::seconds(1);
inline constexpr Duration kReconcilingForgotten = std::chrono::seconds(30);  // Of a session that has gone.
// An ECU that was LOST more than once takes nothing for a while, twice as long each time: else programs would be restored
// again and again on one whose link comes and goes.
inline constexpr Duration kFlapPauseMin = std::chrono::minutes(1);
inline constexpr Duration kFlapPauseMax = std::chrono::hours(1);
inline constexpr Duration kFlapForgotten = std::chrono::hours(6);
// A drain tries again what could not be moved, ever more seldom: each attempt may stop the program for a while.
inline constexpr Duration kDrainRetryMin = std::chrono::seconds(5);
inline constexpr Duration kDrainRetryMax = std::chrono::seconds(60);

struct RestoreConfig {
  Writer me;
  std::uint64_t budget_bytes = 512U * 1024 * 1024;  // On their way to targets; one is always allowed.
  std::size_t together_max = 64;                    // Claims of ours that are open at once.
  std::uint16_t bulk_port = 0;                      // Where targets fetch.
  PlacementPolicy placement{};
  std::uint64_t seed = 0;  // Of records' uids.
};

// ---- effects
// The heads of all logs in which one of these ECUs owns a program, or is the target of ACT; of none: of all
// in which a claim is open. on_logs_scanned.
struct ScanLogs {
  std::set<EcuMac> ecu_macs{};
};
// Durably, of what a reconciled ECU says it has. on_heads.
struct ReadHeads {
  EcuMac ecu_mac{};
  std::uint64_t number = 0;
  std::vector<Lineage> lineages{};
};
struct ReadHead {  // Durably. on_head.
  Lineage lineage{};
};
struct AppendRecord {  // on_appended.
  wire::ClaimRecord record{};
};
struct SettleAppend {  // on_appended.
  Lineage lineage{};
  std::uint64_t attempt = 0;
};
// The best checkpoint that can be restored, listed from the store now, made durable and its footer read; the
// `skip` best ones are passed over. With `exact` that one and no other: kNotFound while it is not there. on_found.
struct FindCheckpoint {
  wire::ClaimRecord head{};
  std::size_t skip = 0;
  std::optional<Version> exact{};
};
struct SendToTarget {
  SessionId target{};
  wire::ControlBody body{};
};
// To the session of that ECU that publishes the program.
struct SendToSource {
  ProgramKey program{};
  wire::ControlBody body{};
};
struct ReadFrozen {  // As ReadHead, for what is frozen. on_frozen_head.
  Lineage lineage{};
};
struct AskTargets {};  // For their figures: CmsCore::ask_metrics.
// The lineage has another owner: who sends under the former one is fenced.
struct OwnerChanged {
  Lineage lineage{};
  wire::ClaimOwner from{};
  wire::ClaimOwner to{};
};
struct RestoreEvent {  // For the log.
  bool warning = false;
  std::string text{};
};
using RestoreEffect =
    std::variant<ScanLogs, ReadHeads, ReadHead, AppendRecord, SettleAppend, FindCheckpoint, SendToTarget,
                 SendToSource, ReadFrozen, AskTargets, OwnerChanged, RestoreEvent>;
using RestoreEffects = std::vector<RestoreEffect>;

class RestoreCore {
 public:
  // `members` outlives this: who may act, and whose life has ended.
  RestoreCore(RestoreConfig config, const Members& members);

  // ---- inputs: people
  // An operator vouches that nothing runs on that ECU any more: all its programs are restored elsewhere.
  // Again for the same one: what is open or was refused is tried again. on_time must have told the sessions that
  // there are now: one that comes later is not meant.
  void fail_ecu(Instant now, EcuMac ecu_mac, RestoreEffects& effects);

  // ---- inputs: guarded ECUs
  // That session is LOST, and nobody can grant it a lease any more: what it owned and the log says to restore is
  // restored; the rest waits for an operator.
  void lose_session(Instant now, const wire::EcuRecord& lost, RestoreEffects& effects);
  // That session has begun, or a program of it has ended: `head` of its ECU's log. Again for the same one: from the
  // beginning.
  void reconcile(Instant now, const SessionId& session, const wire::EcuRecord& head, RestoreEffects& effects);
  void on_programs(Instant now, const SessionId& from, const wire::Programs& page, RestoreEffects& effects);
  // In the order of asked.lineages, as many; nullopt: the log is empty.
  void on_heads(Instant now, const ReadHeads& asked,
                const Result<std::vector<std::optional<wire::ClaimRecord>>>& heads, RestoreEffects& effects);

  // ---- inputs: people
  // Moves a program to another ECU. `head`: of its lineage, read just now, of which the program is the owner. `only`:
  // to that ECU. Again while it moves: nothing. kAlreadyExists: it is being restored or moved already, to elsewhere or
  // by another CMS. kLimit: too many restores are open.
  Status move(Instant now, const wire::ClaimRecord& head, std::optional<EcuMac> only,
              RestoreEffects& effects);
  // It stays where it is, if it can still. kNotFound: it does not move. kUnavailable: its target may run it by now.
  Status cancel_move(Instant now, ProgramKey program);
  // The RTCR of a guarded session asks for its own program, which does not run any more: it is claimed as reported dead,
  // and restored nowhere but there. `head` is that of the program's log. Errors as move().
  Status restart(Instant now, const wire::ClaimRecord& head, const SessionId& session,
                 RestoreEffects& effects);
  // Moves all programs of an ECU, and places none there until cancel_drain. What cannot be moved is tried again by
  // and by, until `deadline`: then no more is moved. Again for the same one: what could not be moved is tried again
  // now, and the deadline is the new one.
  void drain_ecu(Instant now, EcuMac ecu_mac, std::optional<Instant> deadline, RestoreEffects& effects);
  // What has not moved yet stays. kNotFound: it is not drained.
  Status cancel_drain(Instant now, EcuMac ecu_mac, RestoreEffects& effects);

  // ---- inputs: answers of the workers
  // `unusable`: so many logs could not be read for what they are; a person has to look at them.
  void on_logs_scanned(Instant now, const ScanLogs& asked,
                       const Result<std::vector<wire::ClaimRecord>>& heads, RestoreEffects& effects,
                       std::size_t unusable = 0);
  struct Head {
    std::optional<wire::ClaimRecord> record{};  // Absent: the log is empty.
    std::uint64_t claim_uid = 0;                // Of ACT: the uid of the CLAIM that it follows from.
    // The index says that something of this owner was stored. A hint: it only counts attempts.
    bool has_own_checkpoint = false;
  };
  void on_head(Instant now, const Lineage& lineage, const Result<Head>& head, RestoreEffects& effects);
  enum class AppendEnd : std::uint8_t { kWon, kLost, kUnresolved };
  void on_appended(Instant now, const Lineage& lineage, const Result<AppendEnd>& end, std::uint64_t attempt,
                   RestoreEffects& effects);
  struct Found {
    storage::BlobName name{};
    SessionId session{};  // That published it.
    wire::Notification notification{};
    std::size_t older = 0;           // How many there are behind it.
    std::uint64_t stored_at_us = 0;  // Wall clock; for people.
  };
  // kNotFound: nothing can be restored; with `exact` it may come yet, and kCorrupt: it is damaged. kWithdrawn: the
  // program has ended for good.
  void on_found(Instant now, const Lineage& lineage, const Result<Found>& found, RestoreEffects& effects);

  // ---- inputs: targets
  void on_report(Instant now, const SessionId& from, const wire::RestoreReport& report,
                 RestoreEffects& effects);

  // ---- inputs: sources of planned moves
  void on_freeze_report(Instant now, const SessionId& from, const wire::FreezeReport& report,
                        RestoreEffects& effects);
  void on_frozen_head(Instant now, const Lineage& lineage, const Result<Head>& head, RestoreEffects& effects);

  // ---- inputs: time
  // `present`: as CmsCore::present. If wants_targets() then, on_targets is to follow.
  void on_time(Instant now, std::uint64_t wall_us, std::vector<Present> present, RestoreEffects& effects);
  // Whether somebody is to be placed, or the failure groups are to be learned: else nobody needs to look at all ECUs.
  bool wants_targets(Instant now) const;
  // `candidates`, of this moment: as CmsCore::candidates. `awaited`: ECUs whose figures are on their way.
  void on_targets(Instant now, std::vector<Candidate> candidates, std::size_t awaited,
                  RestoreEffects& effects);
  // How often on_time wants to be called now.
  Duration pace() const;
  // This cmsd ends: nothing more is claimed, and what was not given to a target yet is given back.
  void drain() { draining_ = true; }
  // Of ours, not yet given back or given to a target.
  std::size_t claim_count() const;
  // What this CMS has placed on an ECU that its figures do not show yet.
  void add_reservations(Instant now, std::vector<Candidate>& candidates) const;
  const PlacementPolicy& policy() const { return config_.placement; }
  // The failure groups of an ECU, as `candidates` have it, or as it said last; empty: it never did, or there are none.
  std::vector<std::string> groups_of(EcuMac ecu_mac, const std::vector<Candidate>& candidates = {}) const;

  // ---- for status pages
  enum class Stage : std::uint8_t {
    kReading,    // The log's head.
    kQueued,     // For its turn: others are more urgent, or the budget is used up.
    kWatching,   // Another CMS is at work on it.
    kClaiming,   // CLAIM is being appended.
    kFinding,    // The checkpoint.
    kPlacing,    // A target is looked for.
    kFreezing,   // The source is to stop it, and to publish its last checkpoint.
    kPreparing,  // The target pulls it and restores it, paused.
    kActing,     // ACT is being appended.
    kStarting,   // Go was sent; the target's answer is awaited.
    kFinishing,  // DONE is being appended.
    kAborting,   // ABORT is being appended.
    kReleasing,  // RELEASE is being appended.
    kWaiting,    // For what could not be had just now: see `why`.
    kNoTarget,   // No ECU can take it: given back, and tried again by and by.
    kDone,
    kRefused,  // It cannot be done: see `why`.
  };
  struct Restore {
    bool has_ended() const { return stage == Stage::kDone || stage == Stage::kRefused; }
    bool is_move() const { return reason == wire::ClaimReason::kRequest; }    // Planned: its source lives.
    bool was_asked_for() const { return is_move() || restarts.has_value(); }  // Once, and for one place only.

    Lineage lineage{};
    wire::ClaimOwner replaces{};
    wire::ClaimReason reason = wire::ClaimReason::kNone;
    Stage stage = Stage::kReading;
    std::optional<wire::ClaimRecord> head{};
    std::uint64_t claim_uid = 0;
    bool has_own_checkpoint = false;
    std::optional<Found> found{};
    // The uid of the claim that it was found for. It stays that claim's: a target that has prepared it answers for
    // the claim, and would run it whatever a later ACT named.
    std::uint64_t found_for = 0;
    std::size_t skip = 0;
    SessionId target{};
    std::set<EcuMac> unable{};  // Targets that could not, in this claim or the one before.
    bool tried = false;         // A target was asked, in this claim.
    bool may_pass = false;      // One of them failed, in this claim, at what may go well next time;
    int rounds = 0;             //   so often all of them did.
    std::uint64_t received_bytes = 0;
    std::string why{};  // Of kWaiting and kRefused, or what the last target said.
    ProgramKey runs_as{};
    Instant began_at{};
    Instant claimed_at{};
    Instant placed_at{};
    Instant prepared_at{};
    Instant acted_at{};
    Instant started_at{};  // It ran from here on.
    Instant ended_at{};
    Instant since{};                // In this stage.
    Instant next_at{};              // When on_time looks at it again.
    Instant heard_at{};             // Of the target.
    Instant moved_at{};             // When the target last got on.
    std::uint64_t unresolved = 0;   // An append whose outcome is not known.
    wire::ClaimRecord appending{};  // While asked, or unresolved, in a stage that appends.
    Stage after_release{};          // What comes after kReleasing.
    std::uint64_t act_uid = 0;      // Another's ACT that is watched,
    Instant act_seen_at{};          //   and since when.
    bool insisted = false;          // An operator told it just now: it is tried however often it failed.
    bool only_looks = false;        // Its head is read, and nothing is claimed: it has no target.
    std::optional<SessionId> restarts{};  // That asked for its own program, and is the only target.
    // ---- of a planned move
    bool asked_here = false;        // Not one whose mover has died: those are only ended.
    bool has_claimed = false;       // Once: a second time only if it is asked for again.
    std::optional<EcuMac> only{};   // The target that was asked for.
    std::optional<Version> last{};  // That the source has named, frozen.
    Instant frozen_at{};
    Instant source_heard_at{};    // When it said last that it is frozen.
    std::string stop_why{};       // Not empty: it is not to be moved any more.
    bool lost_meanwhile = false;  // Its ECU: it is restored as soon as the move has ended.
    wire::ClaimReason lost_reason = wire::ClaimReason::kVouched;
    int failures = 0;    // So often it could not be moved.
    bool asked = false;  // The worker has a question or an append of it.
  };
  struct Loss {
    Instant told_at{};
    wire::ClaimReason reason = wire::ClaimReason::kVouched;  // Or kLost.
    Incarnation session = 0;  // That was there then; 0: none. kLost: that is LOST.
    bool scanned = false;     // All logs were looked at since it was told.
    Instant next_scan_at{};   // While it is not.
    std::string trouble{};
    std::size_t unusable =
        0;  // Logs that could not be read: whether it owns what these are about is not known.
    std::set<Lineage> lineages{};
    std::set<Lineage> waiting{};  // For an operator.
  };
  struct Reconciling {
    enum class Step : std::uint8_t { kScanning, kAsking, kReading, kPausing, kSettled };
    bool is_settled() const { return step == Step::kSettled; }

    SessionId session{};
    bool enforced = false;
    bool maintenance = false;
    Step step = Step::kScanning;
    Instant begun_at{};
    Instant there_at{};
    Instant next_at{};
    std::uint64_t number = 0;  // Of the question.
    int rounds = 0;
    std::vector<wire::ClaimRecord> owned{};
    std::vector<wire::OwnedProgram> programs{};
    // ---- as of its last end
    std::size_t running = 0;
    std::size_t restored = 0;
    std::set<Lineage> waiting{};  // Died, and wait for an operator.
  };
  const std::map<EcuMac, Reconciling>& reconcilings() const { return reconcilings_; }
  // Programs of an ECU that are not restored before an operator says so.
  std::size_t waiting_count(EcuMac ecu_mac) const;
  // For how long nothing is placed on an ECU that was LOST.
  Duration shunned_for(Instant now, EcuMac ecu_mac) const;
  struct Progress {
    bool scanned = false;
    std::size_t total = 0;
    std::size_t done = 0;
    std::size_t refused = 0;  // Those without a target among them.
  };
  Progress progress_of(EcuMac ecu_mac) const;
  struct Drain {
    Instant told_at{};
    std::optional<Instant> deadline{};
    bool scanned = false;
    Instant next_look_at{};
    std::string trouble{};
    std::string ended_why{};  // Not empty: no more is moved.
    bool cancelled = false;   // Then programs may be placed there again.
    std::set<Lineage> lineages{};
  };
  const std::map<EcuMac, Drain>& drains() const { return drains_; }
  Progress progress_of_drain(EcuMac ecu_mac) const;
  struct Frozen {
    SessionId source{};
    Version last{};
    std::uint64_t claim_slot = 0;
    Instant since{};  // When it was first reported to be frozen for that claim.
    Instant look_at{};
    Instant reported_at{};
    bool asked = false;
  };
  // What is frozen for claims that this CMS does not work at. A lineage may have a stale copy, too.
  using FrozenKey = std::pair<Lineage, ProgramKey>;
  const std::map<FrozenKey, Frozen>& frozen() const { return frozen_; }
  // Whether no program is to be placed there.
  bool is_drained(EcuMac ecu_mac) const;
  const std::map<Lineage, Restore>& restores() const { return restores_; }
  const std::map<EcuMac, Loss>& losses() const { return losses_; }
  // The life of an ECU that ended up to this incarnation: an operator or its log said so.
  bool is_gone(const SessionId& session) const;

 private:
  // False: not now; it is to be scanned again.
  bool begin(Instant now, const wire::ClaimRecord& head, wire::ClaimReason reason, RestoreEffects& effects);
  Loss& renew_loss(Instant now, EcuMac ecu_mac, wire::ClaimReason reason);
  void look_for_losses(Instant now, RestoreEffects& effects);
  void ask_scan(Instant now, EcuMac ecu_mac, RestoreEffects& effects);
  bool is_scan_open(EcuMac ecu_mac) const;
  void open_claims_scanned(Instant now, const Result<std::vector<wire::ClaimRecord>>& heads,
                           RestoreEffects& effects);
  void look_for_late_log(Instant now, const wire::ClaimRecord& head);
  void loss_scanned(Instant now, EcuMac ecu_mac, Instant asked_at,
                    const Result<std::vector<wire::ClaimRecord>>& heads, std::size_t unusable,
                    RestoreEffects& effects);
  bool lost_head(Instant now, Loss& loss, const wire::ClaimRecord& head, RestoreEffects& effects);
  void note_lost(EcuMac ecu_mac, Incarnation lost_incarnation);
  // That the target of ACT will not run it any more; nullopt: it may.
  std::optional<wire::AbortProof> proof_of_end(const wire::ClaimRecord& act) const;
  // By its policies nobody has to be asked.
  static bool restores_by_itself(const wire::ClaimRecord& head);
  // Its owner's session was LOST, so that anybody may restore it.
  bool was_lost(const wire::ClaimRecord& head) const;
  // ---- guarded sessions
  void begin_reconciling(Instant now, Reconciling& reconciling, RestoreEffects& effects);
  void reconciling_scanned(Instant now, EcuMac ecu_mac, Instant asked_at,
                           const Result<std::vector<wire::ClaimRecord>>& heads, RestoreEffects& effects);
  void ask_programs(Instant now, Reconciling& reconciling, RestoreEffects& effects);
  static void read_programs(Reconciling& reconciling, RestoreEffects& effects);
  bool settle_program(Instant now, Reconciling& reconciling, const wire::OwnedProgram& program,
                      const std::optional<wire::ClaimRecord>& head, RestoreEffects& effects);
  static void fence_program(const Reconciling& reconciling, const wire::OwnedProgram& program,
                            const wire::ClaimRecord& head, RestoreEffects& effects);
  static void thaw_program(Reconciling& reconciling, const wire::OwnedProgram& program,
                           const wire::ClaimRef& record, wire::OnIsolation on_isolation,
                           RestoreEffects& effects);
  bool settle_owned(Instant now, Reconciling& reconciling, const wire::ClaimRecord& head,
                    const std::set<Lineage>& there, RestoreEffects& effects);
  bool restore_there(Instant now, Reconciling& reconciling, const wire::ClaimRecord& head,
                     wire::ClaimReason reason, RestoreEffects& effects);
  bool settle_started(Instant now, Reconciling& reconciling, const wire::ClaimRecord& head,
                      RestoreEffects& effects);
  void look_after_reconcilings(Instant now, RestoreEffects& effects);
  void step(Instant now, Restore& restore, RestoreEffects& effects);
  void go_to(Instant now, Restore& restore, Stage stage);
  void read_head(Instant now, Restore& restore, RestoreEffects& effects);
  void judge_head(Instant now, Restore& restore, RestoreEffects& effects);
  void append(Instant now, Restore& restore, wire::ClaimRecord record, Stage stage, RestoreEffects& effects);
  void on_won(Instant now, Restore& restore, RestoreEffects& effects);
  void claim_queued(Instant now, RestoreEffects& effects);
  void find(Instant now, Restore& restore, RestoreEffects& effects);
  void look_for_target(Instant now, Restore& restore, RestoreEffects& effects);
  static void set_target(Instant now, Restore& restore, const SessionId& target);
  void place_restart(Instant now, Restore& restore, RestoreEffects& effects);
  bool judge_free_restart(Instant now, Restore& restore, RestoreEffects& effects);
  void place_all(Instant now, std::vector<Candidate> candidates, std::size_t awaited,
                 RestoreEffects& effects);
  bool place(Instant now, Restore& restore, std::vector<Candidate>& candidates, RestoreEffects& effects);
  // Of one without a target: whether there is one now. It is claimed only then, so that waiting leaves no records.
  void look_again(Instant now, Restore& restore, const std::vector<Candidate>& candidates,
                  RestoreEffects& effects);
  // `may_pass`: what it failed at may go well at the next try, there too.
  void next_target(Instant now, Restore& restore, std::string why, RestoreEffects& effects,
                   bool may_pass = false);
  void refused_by_target(Instant now, Restore& restore, const wire::RestoreReport& report,
                         RestoreEffects& effects);
  void command(Restore& restore, wire::ControlBody body, RestoreEffects& effects) const;
  void send_prepare(Instant now, Restore& restore, RestoreEffects& effects);
  void send_go(Instant now, Restore& restore, RestoreEffects& effects);
  // What comes after it: kNoTarget, kRefused, kWaiting (the next claim).
  void release(Instant now, Restore& restore, Stage after, std::string why, RestoreEffects& effects);
  void abort(Instant now, Restore& restore, wire::AbortProof proof, std::string why, RestoreEffects& effects);
  void abort_gone(Instant now, Restore& restore, wire::AbortProof proof, RestoreEffects& effects);
  void wait(Instant now, Restore& restore, Stage stage, Duration pause, std::string why);
  void end(Instant now, Restore& restore, Stage stage, std::string why, RestoreEffects& effects);
  void end_moved(Instant now, Restore& restore, RestoreEffects& effects);
  wire::ClaimRef claim_of(const Restore& restore) const;
  bool is_there(const SessionId& session) const;
  // The session by which an ECU is here; nullptr: it is not.
  const Present* find_present(EcuMac ecu_mac) const;
  Demand demand_of(const Restore& restore) const;
  void note_groups(Instant now, const std::vector<Candidate>& candidates, RestoreEffects& effects);
  // Of a restore that is being prepared: its target has done nothing for too long.
  bool is_stuck(Instant now, const Restore& restore) const;
  // This cmsd ends: another has to do it, and shall not wait until our life is taken for dead.
  void give_back(Instant now, Restore& restore, RestoreEffects& effects);
  // ---- planned moves
  // No claim is open, or that of a dead one.
  void judge_free_move(Instant now, Restore& restore, RestoreEffects& effects);
  // True: it is one that is to end, and does.
  bool stop_move(Instant now, Restore& restore, RestoreEffects& effects);
  void send_freeze(Instant now, Restore& restore, RestoreEffects& effects);
  void send_thaw(const Restore& restore, RestoreEffects& effects) const;
  void on_source_answered(Instant now, Restore& restore, const wire::FreezeReport& report,
                          RestoreEffects& effects);
  static void note_frozen(Instant now, Restore& restore, const wire::FreezeReport& report);
  // The last checkpoint is there.
  void prepare_frozen(Instant now, Restore& restore, RestoreEffects& effects);
  // It is not there, or it cannot be said whether it is.
  void wait_for_last(Instant now, Restore& restore, const Error& error, RestoreEffects& effects);
  void go_on_as_lost(Instant now, Restore& restore);
  std::size_t move_count() const;
  void drain_scanned(Instant now, EcuMac ecu_mac, Instant asked_at,
                     const Result<std::vector<wire::ClaimRecord>>& heads, std::size_t unusable,
                     RestoreEffects& effects);
  void look_after_drains(Instant now, RestoreEffects& effects);
  // False: not now.
  bool move_for_drain(Instant now, const wire::ClaimRecord& head, int failures, RestoreEffects& effects);
  void stop_drain(EcuMac ecu_mac, Drain& drain, const std::string& why, RestoreEffects& effects);
  Progress progress_of(const std::set<Lineage>& lineages, bool scanned) const;
  void look_after_frozen(Instant now, RestoreEffects& effects);
  // True: nothing is left to do for it.
  bool settle_frozen(Instant now, const ProgramKey& program, const Frozen& frozen,
                     const wire::ClaimRecord& head, RestoreEffects& effects);
  std::uint64_t bytes_under_way() const;
  Stamp stamp();

  const RestoreConfig config_;
  const Members& members_;
  Prng prng_;
  std::uint64_t wall_us_ = 0;
  std::map<Lineage, Restore> restores_;
  std::set<Lineage> open_;  // Of restores_: neither done nor refused.
  std::map<EcuMac, Loss> losses_;
  struct Gone {
    Incarnation vouched = 0;
    Incarnation lost = 0;
  };
  std::map<EcuMac, Gone> gone_;  // Of an ECU that was lost: its sessions up to here.
  struct Flaps {
    int count = 0;
    Instant lost_at{};
  };
  std::map<EcuMac, Flaps> flaps_;
  std::map<EcuMac, Reconciling> reconcilings_;
  std::uint64_t last_question_ = 0;
  // What an ECU says in a newer session of what an ACT told an earlier one to run.
  struct Started {
    std::uint64_t act_uid = 0;
    std::optional<ProgramId> runs_as{};
  };
  std::map<Lineage, Started> started_;
  struct Placement {
    Lineage lineage{};
    EcuMac ecu_mac{};
    Reservation reservation{};
    std::optional<Hosted> hosted{};
    Instant at{};
  };
  std::vector<Placement> placements_;
  std::vector<Present> present_;  // As on_time was last told, by ecu_mac.
  std::map<EcuMac, Drain> drains_;
  std::map<FrozenKey, Frozen> frozen_;
  std::set<EcuMac> scanned_ecus_;  // Of the scan that is open,
  Instant scan_asked_at_{};        //   asked for then.
  std::set<EcuMac> wanted_ecus_;   // For the next one.
  bool scans_open_claims_ = false;
  Instant next_scan_at_{};                      // For open claims of the dead.
  std::map<Lineage, std::uint64_t> acts_seen_;  // Of others that live, at the last such scan: their uids.
  std::map<EcuMac, Instant> targets_moved_;     // When a restore there last got on.
  std::map<EcuMac, std::vector<std::string>> groups_;  // Of each ECU that said so: its failure groups.
  Instant next_groups_at_{};
  bool draining_ = false;
  const Lineage first_;          // The lineage at which this CMS begins to claim.
  std::size_t stale_count_ = 0;  // Of the members, at the last look.
};

std::string_view to_string(RestoreCore::Stage stage);  // "preparing"

}  // namespace cms::core
