#pragma once
// EcuCore is the publisher's side of the system without any I/O: it keeps the checkpoints that are
// held for the CMS instances, gives them their place in the session's one sequence, tells every CMS
// of them, serves their bytes against credit and reports each step to the publisher as a receipt.
// A guarded session holds a run lease (RunLease, GuardedPrograms): when that ends, what is to stop then is stopped, and
// the next session begins.
// Where the publisher can restore programs too, it also takes the commands of a restore (RestoreTarget), and
// where it can freeze them, those of a planned move (FrozenPrograms).
// The embedded client runs it on its own thread; cms-broker will run the same core for a whole ECU.
//
// Inputs are calls with the time; what is to be done comes back in `Effects`, in order. The core
// owns the BlobSources until they may be freed; dropping one is what frees it.
//
// Threads: none; one caller at a time. Bounds: held memory by memory_budget_bytes, held blobs by
// kHeldCountMax, answers by the limits of schemas/messages.h.
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "base/time.h"
#include "broker/core/blob_source.h"
#include "broker/core/chunk_server.h"
#include "broker/core/cms_index.h"
#include "broker/core/frozen_programs.h"
#include "broker/core/guarded_programs.h"
#include "broker/core/restore_target.h"
#include "broker/core/run_lease.h"
#include "schemas/messages.h"

namespace cms::broker {

inline constexpr std::size_t kHeldCountMax = 65536;
inline constexpr std::size_t kWithdrawCountMax = 1024;
inline constexpr Duration kHeartbeatInterval = std::chrono::seconds(1);  // T_hb
// Without an answer for this long a CMS is taken for silent and its connection is made anew.
inline constexpr Duration kControlSilenceMax = std::chrono::seconds(5);
inline constexpr Duration kHelloRetry = std::chrono::seconds(1);
inline constexpr Duration kRefusedPause = std::chrono::seconds(5);  // After a Hello that was refused.
// The same of a guarded session: its own former one may stand in its way for 2.5 s after it was heard last.
inline constexpr Duration kGuardedRefusedPause = std::chrono::milliseconds(2500);
// A link that flaps costs an append to the ECU's log for each session: after a lease that did not live for
// kLeaseLivedMin the next Hello waits, each time twice as long. The first one does not.
inline constexpr Duration kSessionPauseMin = std::chrono::seconds(1);
inline constexpr Duration kSessionPauseMax = std::chrono::seconds(60);
inline constexpr Duration kLeaseLivedMin = std::chrono::seconds(60);
// What ran before the session did is stopped, and must stand still after as long as a lease lasts (T_fence).
inline constexpr Duration kFirstStopsMax = std::chrono::seconds(5);
// A connection that is not answered is made anew at most this often; ZeroMQ itself dials oftener.
inline constexpr Duration kReconnectInterval = std::chrono::seconds(10);
inline constexpr Duration kWithdrawRetry = std::chrono::seconds(1);
// Two sessions that publish one program by turns may each take a larger incarnation than the other's:
// ever more seldom.
inline constexpr Duration kRenewPauseMin = std::chrono::seconds(1);
inline constexpr Duration kRenewPauseMax = std::chrono::minutes(10);
inline constexpr std::size_t kToldNewerCountMax = 1024;  // Programs.
inline constexpr std::size_t kMigrationCountMax = 1024;  // Asked for and not answered.
// A CMS that does not answer is given so long; then the next one is asked.
inline constexpr Duration kMigrationRetry = std::chrono::seconds(2);

struct EcuCoreConfig {
  EcuMac ecu_mac{};
  std::uint64_t nonce = 0;
  bool guarded = false;
  Id128 boot_id{};                                  // Guarded; not zero then.
  wire::Enforcer enforcer = wire::Enforcer::kNone;  // Guarded.
  Id128 host_id{};
  std::uint16_t bulk_port = 0;
  std::string advertise_host{};
  std::string software{};
  std::size_t cms_count = 1;  // 1..kCmsCountMax
  std::uint64_t memory_budget_bytes = 0;
  // Given: it tells its metrics and takes programs;
  std::optional<RestoreTargetConfig> target{};
  bool only_restarts = false;  //   or takes none but its own, which its RTCR has asked for.
  bool freezes = false;        // The RTCR can freeze programs: they can be moved from here.
};

// What the publisher is told of one of its checkpoints.
struct ReceiptEvent {
  ProgramId program_id = 0;
  Seq seq = 0;
  wire::ReceiptLevel level = wire::ReceiptLevel::kAnnounced;
  Code code = Code::kOk;
  std::string reason{};
  // No further receipt will come and the bytes are no longer held.
  bool final = false;
  Incarnation incarnation = 0;  // That it was announced or stored under; 0: not yet assigned.
};

struct SendControl {
  CmsIndex cms = 0;
  wire::ControlMessage message{};
};
struct SendNotify {
  wire::NotifyMessage message{};
};
struct SendChunk {
  PeerId peer{};
  wire::Chunk header{};
  ChunkView bytes{};
};
struct SendTransferError {
  PeerId peer{};
  wire::TransferError error{};
};
// Close this connection and open a new one; ZeroMQ never recovers from some failures by itself.
struct ReconnectControl {
  CmsIndex cms = 0;
};
struct ReconnectNotify {};
struct WithdrawDone {
  std::uint64_t request_id = 0;
  Code code = Code::kOk;
  std::string context{};
};
// A CMS has begun to move the program, or says why not.
struct MigrationAnswered {
  std::uint64_t request_id = 0;
  Code code = Code::kOk;
  std::string context{};
};
// Something an operator may want to read: a CMS was gained, lost, or refuses us.
struct CmsEvent {
  CmsIndex cms = 0;
  enum class Kind { kLive, kSilent, kRefused } kind = Kind::kLive;
  std::string text{};
};
// Answer it at once, with this number, by tell_metrics().
struct AskMetrics {
  CmsIndex cms = 0;
  std::uint64_t number = 0;
};
// Of a guarded session; whenever one of them has changed.
struct LeaseChanged {
  bool lives = false;
  Instant ends_at = kNever;  // While it lives, unless it is prolonged.
  // From this instant on, unless it is told anew, something that has on_isolation = stop runs and must not. kNever: there
  // is nothing that could. An earlier one than ends_at: of a former lease, after whose end the RTCR has not confirmed all
  // stops yet.
  Instant enforce_at = kNever;
  std::string text{};  // Why it ended; else empty.
};
using Effect =
    std::variant<SendControl, SendNotify, SendChunk, SendTransferError, ReconnectControl, ReconnectNotify,
                 ReceiptEvent, WithdrawDone, CmsEvent, AskMetrics, OpenBulkLink, CloseBulkLink, SendBulk,
                 ReceiveBlob, TakeBytes, PrepareProgram, RunProgram, DiscardRestore, FreezeProgram,
                 ThawProgram, MigrationAnswered, StopProgram, ResumeProgram, LeaseChanged>;
using Effects = std::vector<Effect>;

class EcuCore {
 public:
  explicit EcuCore(EcuCoreConfig config);

  // Says Hello to every CMS. Call once, first.
  void start(Instant now, Effects& effects);

  // Takes a checkpoint in. `notification` has passed wire::check_notification and carries the next
  // seq (last_seq() + 1). Never fails: what cannot be held is reported as DROPPED (kLimit), and so is what
  // is of a frozen or stopped program (kPermission).
  void publish(Instant now, wire::Notification notification, std::unique_ptr<BlobSource> source,
               Effects& effects);
  // The program has ended for good; ends with a WithdrawDone with this id. kLimit: too many open.
  Status withdraw(Instant now, std::uint64_t request_id, ProgramId program_id, Effects& effects);
  void cancel_withdraw(std::uint64_t request_id);
  // Asks one CMS after the other to move the program (to `to`, if given) until one answers; ends with a
  // MigrationAnswered with this id. kLimit: too many open. To this ECU, of a guarded session: to restore its own
  // program here, that does not run any more; kPermission: it does.
  Status request_migration(Instant now, std::uint64_t request_id, ProgramId program_id,
                           const std::optional<EcuMac>& to, Effects& effects);
  void cancel_migration(std::uint64_t request_id);

  void on_control(Instant now, CmsIndex cms, const wire::ControlMessage& message, Effects& effects);
  void on_bulk(Instant now, const PeerId& peer, const wire::BulkBody& message, Effects& effects);
  // The transport could not reach this puller.
  void on_bulk_peer_gone(const PeerId& peer) { server_.on_peer_gone(peer); }
  // ---- of a target; see RestoreTarget
  void on_restore_bulk(Instant now, const BulkLink& link, const wire::BulkBody& message,
                       const ChunkView& bytes, Effects& effects);
  void on_prepared(Instant now, RestoreId id, const Status& status, Effects& effects);
  void on_running(Instant now, RestoreId id, const Result<ProgramId>& program_id, Effects& effects);
  void on_sink_failed(Instant now, RestoreId id, const Error& error, Effects& effects);
  void tell_metrics(CmsIndex cms, wire::Metrics metrics, Effects& effects) const;
  // ---- of a source; see FrozenPrograms
  void on_frozen(FreezeId id, const Result<Seq>& last_seq, Effects& effects);
  // ---- of a guarded session; see GuardedPrograms. Without one these do nothing.
  // All programs that the RTCR runs have been published, or were restored here. What is published before that ran
  // before the session did, and may run elsewhere by now: with on_isolation = stop it is stopped until a CMS thaws it.
  // What is published afterwards has been started by the RTCR, and stops only for want of a lease.
  void programs_told(Effects& effects);
  // The program has ended by itself. What is held of it stays held.
  void program_ended(Instant now, ProgramId program_id, Effects& effects);
  // The answer to StopProgram. An error: it may still run; it is told once more.
  void on_stopped(Instant now, ProgramId program_id, const Status& status, Effects& effects);
  // First half of stop(): what does not run yet is refused, and what has on_isolation = stop is stopped, for nobody
  // will hold a lease for it. Wait for is_stoppable().
  void prepare_stop(Effects& effects);
  bool is_stoppable() const { return going_count() == 0 && programs_.stopping_count() == 0; }
  std::size_t going_count() const { return target_ ? target_->going_count() : 0; }

  // Timers; call at next_deadline() or later.
  void on_time(Instant now, Effects& effects);
  // Makes up to `chunk_count_max` chunks to send. Returns whether there is more to do at once.
  bool serve(std::size_t chunk_count_max, Effects& effects);
  // Says BYE; what is still held ends as DROPPED (kCancelled). What is frozen is not thawed.
  void stop(Effects& effects);

  Instant next_deadline() const;
  Incarnation incarnation() const { return incarnation_; }
  Seq last_seq() const { return last_seq_; }
  std::uint64_t held_memory_bytes() const { return held_memory_bytes_; }
  std::size_t held_count() const { return held_.size(); }
  // Of all checkpoints together; each chunk counts once, however often it is fetched.
  std::uint64_t served_bytes() const { return served_bytes_; }
  std::size_t live_cms_count() const;

 private:
  enum class CmsState { kSilent, kHelloSent, kLive };
  struct Cms {
    CmsState state = CmsState::kSilent;
    Instant said_at{};       // The last Hello.
    Instant connected_at{};  // The connection was made anew, or lost its session.
    Instant heard_at{};
    Instant next_heartbeat_at{};
    std::uint64_t heartbeat_number = 0;
    std::uint64_t notify_heard = 0;
    Instant notify_heard_at{};
    std::string name{};
  };
  struct Held {
    wire::Notification notification{};
    std::unique_ptr<BlobSource> source{};
    std::vector<Digest> digests{};  // Of the chunks served so far, from the first on; fixed.
    std::uint32_t stored_by = 0;    // Bit per CMS; set as well where something newer took its place.
    Incarnation stored_under = 0;   // Of this session; 0: not stored yet.
    bool superseded = false;        // Held only until the transfer under way has ended.
    bool announced = false;
    bool pulling = false;
  };
  // The CMS had this stored, of another session, when `last_seq` had been published here.
  struct ToldNewer {
    Version version{};
    Seq last_seq = 0;
  };
  // What is published under a program_id, from which seq on; another program may have had it before.
  struct Life {
    Lineage lineage{};
    OwnerEpoch owner_epoch = 0;
    Seq first_seq = 0;
    Seq last_seq = 0;
    bool fenced = false;  // And nothing was published since.
    bool ended = false;   // By itself; the same.
    // Of the last one, when it is not held any more:
    Incarnation stored_under = 0;  // Of this session.
    Code lost = Code::kOk;         // Why it ended without being stored.
  };
  struct Withdrawal {
    ProgramId program_id = 0;
    Seq seq = 0;
    Instant next_send_at{};
  };
  struct Migration {
    wire::Migrate message{};
    CmsIndex cms = 0;         // That was asked last.
    std::uint32_t asked = 0;  // Bit per CMS, in this round.
    Instant next_ask_at{};
  };
  using HeldMap = std::map<Seq, Held>;

  CheckpointId id_of(const Held& held) const;
  void send_hello(Instant now, CmsIndex cms, Effects& effects);
  void make_live(Instant now, CmsIndex cms, const wire::HelloAnswer& answer, Effects& effects);
  void on_hello_answer(Instant now, CmsIndex cms, const wire::HelloAnswer& answer, Effects& effects);
  void on_list(CmsIndex cms, const wire::List& list, Effects& effects);
  void on_receipt(Instant now, CmsIndex cms, const wire::Receipt& receipt, Effects& effects);
  bool is_outdated(Instant now, const wire::Receipt& receipt) const;
  void note_newer(const wire::Receipt& receipt);
  void renew_incarnation(Instant now, Incarnation above, Effects& effects);
  void leave_incarnation(Effects& effects);
  void begin_next_session(Instant now, Duration pause, Effects& effects);
  void watch_lease(Instant now, Effects& effects);
  void on_leased(Instant now, CmsIndex cms, std::uint64_t number, Effects& effects);
  void end_lease(Instant now, const std::string& why, Effects& effects);
  void stop_all(Effects& effects);
  bool may_run_more() const { return !config_.guarded || (lease_.lives() && !ending_); }
  bool take_guarded(Instant now, const wire::Notification& notification, Effects& effects);
  void stop_unless_leased(Instant now, ProgramId program_id, Effects& effects);
  void stop_one(Instant enforce_at, ProgramId program_id, Effects& effects);
  void tell_programs_changed(Instant now, Effects& effects);
  bool stands_still() const;
  bool any_to_stop() const;
  void note_restored(Instant now, RestoreId id, Effects& effects);
  void on_thaw(Instant now, CmsIndex cms, const wire::Thaw& thaw, Effects& effects);
  void resume_if_free(ProgramId program_id, Effects& effects);
  void retry_stops(Instant now, Effects& effects);
  void pass_on(const StopEffects& stop_effects, Effects& effects);
  void tell_lease(std::string text, Effects& effects);
  void on_ask_programs(CmsIndex cms, const wire::AskPrograms& ask, Effects& effects);
  void answer_pending_asks(Effects& effects);
  void tell_programs(CmsIndex cms, const wire::AskPrograms& ask, Effects& effects);
  void note_life(const wire::Notification& notification);
  Lineage lineage_of_life(ProgramId program_id, const Life& life) const;
  void on_fenced(const wire::Receipt& receipt, Effects& effects);
  bool fence_guarded(const wire::Receipt& receipt, Effects& effects);
  void fence(ProgramId program_id, Life& life, const std::string& reason, Effects& effects);
  void on_restore_command(Instant now, CmsIndex cms, const wire::ControlBody& body, Effects& effects);
  bool stands_still_here(ProgramId program_id) const;
  void replace_still(Lineage lineage, Effects& effects);
  void pass_on(RestoreEffects& restore_effects, Effects& effects);
  void on_move_command(Instant now, CmsIndex cms, const wire::ControlBody& body, Effects& effects);
  void pass_on(const FreezeEffects& freeze_effects, Effects& effects);
  std::optional<LastCheckpoint> last_checkpoint_of(ProgramId program_id, Lineage lineage) const;
  void note_last_ended(ProgramId program_id, Seq seq, Incarnation stored_under, Code code, Effects& effects);
  void tell_frozen(CmsIndex cms, Effects& effects);
  void renew_frozen(Effects& effects);
  void ask_migration(Instant now, Migration& migration, Effects& effects);
  std::optional<CmsIndex> next_to_ask(const Migration& migration) const;
  void on_migrate_answer(Instant now, CmsIndex cms, const wire::MigrateAnswer& answer, Effects& effects);
  void on_stored(CmsIndex cms, HeldMap::iterator it, Effects& effects);
  void on_superseded_elsewhere(CmsIndex cms, HeldMap::iterator it, const wire::Receipt& receipt,
                               Effects& effects);
  void on_withdraw_answer(const wire::WithdrawAnswer& answer, Effects& effects);
  void on_fetch(Instant now, const PeerId& peer, const wire::Fetch& fetch, Effects& effects);
  void send_withdrawal(Instant now, std::uint64_t request_id, Withdrawal& withdrawal, Effects& effects);
  void send_chunk(const ChunkTask& task, Effects& effects);
  void announce(Held& held, Effects& effects);
  void supersede_older(ProgramId program_id, Effects& effects);
  // Replication is judged anew whenever a CMS comes, goes or stores.
  bool is_replicated(const Held& held) const;
  void settle_replicated(Effects& effects);
  bool fits(std::uint64_t memory_bytes) const;
  bool can_go(const Held& held) const;
  bool can_make_room(ProgramId program_id, std::uint64_t memory_bytes) const;
  void make_room(std::uint64_t memory_bytes, Effects& effects);
  HeldMap::iterator release(HeldMap::iterator it, wire::ReceiptLevel level, Code code, std::string reason,
                            Effects& effects);
  void release_older(ProgramId program_id, Seq seq, const std::string& reason, Effects& effects);
  void release_if_superseded(const CheckpointId& checkpoint, Effects& effects);
  void send_heartbeat(Instant now, CmsIndex cms, Effects& effects);
  std::uint32_t waiting_for(CmsIndex cms) const;

  EcuCoreConfig config_;
  std::uint64_t nonce_;              // Of the present session; the first one has config_'s.
  std::uint64_t session_count_ = 0;  // That came after the first one.
  Incarnation incarnation_ = 0;
  Instant assigned_at_{};  // When the session had its first incarnation.
  Instant renew_from_{};   // Not before that.
  Duration renew_pause_ = kRenewPauseMin;
  std::map<ProgramId, ToldNewer> told_newer_{};
  Seq last_seq_ = 0;
  std::vector<Cms> cms_;
  HeldMap held_{};
  std::map<ProgramId, std::set<Seq>> held_of_program_{};
  std::uint64_t held_memory_bytes_ = 0;
  std::uint64_t served_bytes_ = 0;
  ChunkServer server_{};
  std::map<std::uint64_t, Withdrawal> withdrawals_{};
  std::map<std::uint64_t, Migration> migrations_{};
  CmsIndex first_to_ask_ = 0;  // For a migration; modulo their count.
  // At most kHeldCountMax, and those of what is frozen. Of a guarded session none that has not ended.
  std::map<ProgramId, Life> lives_{};
  FrozenPrograms frozen_{};
  // ---- of a guarded session
  RunLease lease_;
  GuardedPrograms programs_{};
  Duration session_pause_{};       // Before the next session's Hello.
  Instant stopped_from_ = kNever;  // The end of a lease after which not all stops are confirmed yet.
  std::set<RestoreId>
      overtaken_{};  // They were told to run under a lease that has ended, and have not answered.
  LeaseChanged lease_told_{};
  std::map<CmsIndex, wire::AskPrograms>
      pending_asks_{};  // Until the RTCR has told its programs; the newest of each.
  bool programs_told_ = false;
  bool asked_ = false;  // Some CMS was told the programs in this session.
  std::uint64_t programs_changed_count_ = 0;
  bool ending_ = false;  // prepare_stop() was called.
  std::optional<RestoreTarget> target_{};
  Instant next_beat_at_ = kNever;
  bool stopped_ = false;
};

}  // namespace cms::broker
