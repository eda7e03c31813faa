#pragma once
// CmsCore decides everything that cmsd does: which sessions exist, what each has announced, which
// checkpoint is pulled next, when a blob counts as STORED and what its publisher is told. It does no
// I/O and reads no clock: inputs are calls with the time, what is to be done comes back as effects.
//
// A checkpoint goes announced → pulling → stored → current; or superseded, failed, withdrawn
// (docs/architecture.md has the table). Memory holds only what is in motion and the newest stored
// version of programs of living sessions; all else is in the index.
//
// Threads: none; one caller at a time. Bounds: the k…Max below; bytes in flight by
// CmsCoreConfig::pull_budget_bytes.
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/prng.h"
#include "base/result.h"
#include "base/time.h"
#include "broker/core/chunk_receiver.h"
#include "cms/core/effects.h"
#include "cms/core/fair_queue.h"
#include "cms/core/leases.h"
#include "cms/core/peers.h"
#include "cms/core/placement.h"
#include "schemas/claim_record.h"

namespace cms::core {

inline constexpr std::size_t kSessionCountMax = 20000;
inline constexpr std::size_t kProgramsPerSessionMax = 16384;
inline constexpr std::size_t kSeenBeyondMax = 4096;
inline constexpr std::size_t kKnownPerEcuMax = 16;    // Incarnations whose age is known; the largest.
inline constexpr std::size_t kKnownCountMax = 65536;  // Of all ECUs.
inline constexpr std::size_t kLinkCountMax = 256;
inline constexpr std::size_t kTransferCountMax = 4096;
inline constexpr std::size_t kWithdrawalCountMax = 4096;         // Asked of the index and not answered.
inline constexpr std::size_t kFenceCountMax = 65536;             // Of programs that moved; the oldest goes.
inline constexpr std::size_t kFailureCountMax = 1024;            // Remembered for `show` and `status`.
inline constexpr std::size_t kDataAttemptsMax = 3;               // Fetches of a blob whose digest is wrong.
inline constexpr std::uint64_t kSmallBlobBytesMax = 256 * 1024;  // docs/adr/0005
// So many checkpoints of a program may come to wait for the end of one claim: a program that is told lost and is not
// publishes on, and nothing is removed meanwhile. The last one before a move has to be among them.
inline constexpr std::size_t kOvertakenMax = 16;
inline constexpr Duration kTransferStallMax = std::chrono::seconds(5);
inline constexpr Duration kLinkIdleMax = std::chrono::seconds(30);
inline constexpr Duration kListRetry = std::chrono::seconds(2);
inline constexpr Duration kListGrace = std::chrono::milliseconds(50);
inline constexpr Duration kPeerReconcileInterval = std::chrono::seconds(5);
// Figures that are younger are not asked for again; an ECU that does not answer in the other is passed over.
inline constexpr Duration kMetricsAskedAfter = std::chrono::milliseconds(500);
inline constexpr Duration kMetricsWaitMax = std::chrono::seconds(1);
inline constexpr Duration kLiveHeartbeatMax = std::chrono::seconds(3);  // Heard since then: live for placing.
inline constexpr Duration kRetryMin = std::chrono::milliseconds(100);
inline constexpr Duration kRetryMax = std::chrono::seconds(10);

struct CmsCoreConfig {
  std::string name;
  std::uint64_t pull_budget_bytes = 256U * 1024 * 1024;
  Duration ecu_dead = std::chrono::seconds(8);  // T_dead
  std::uint64_t seed = 0;                       // Of transfer uids and jitter.
  std::set<std::string> advertise_allowed;      // Hosts that an ECU may name instead of its own address.
  std::uint64_t incarnation = 1;  // Of this start of cmsd, random: tells peers of one name apart.
  std::size_t peer_count = 0;     // Of other CMS instances that are configured.
  bool pull_every = false;        // Pulls everything, whoever else does.
};

// A checkpoint that could not be stored, for people.
struct Failure {
  CheckpointId checkpoint{};
  Code code = Code::kOk;
  std::string reason;
  std::uint64_t at_us = 0;  // Wall clock.
};

struct Counters {
  std::uint64_t notifications = 0;
  std::uint64_t duplicates = 0;
  std::uint64_t gaps = 0;
  std::uint64_t refused_hellos = 0;
  std::uint64_t unknown_sessions = 0;  // Notifications of sessions that said no Hello here.
  std::uint64_t malformed = 0;
  std::uint64_t pulls_started = 0;
  std::uint64_t pulled_bytes = 0;
  std::uint64_t stored = 0;
  std::uint64_t stored_bytes = 0;
  std::uint64_t superseded = 0;
  std::uint64_t failed = 0;
  std::uint64_t refetched = 0;  // Because of a wrong digest.
  std::uint64_t stalls = 0;
  std::uint64_t store_troubles = 0;  // Transfers that the store could not take.
  std::uint64_t peer_stored = 0;     // Checkpoints that a peer stored and this index took in.
  std::uint64_t taken_over = 0;      // Pulls that were a peer's by rendezvous.
  std::uint64_t reconciled_for_peers = 0;
  std::uint64_t removed = 0;  // By retention.
  std::uint64_t removed_bytes = 0;
  std::uint64_t peer_removed = 0;
  std::uint64_t quarantined = 0;  // Stored blobs that turned out to be damaged, found here.
};

// A lineage that a program key does not own any more: what comes under an older epoch is refused.
struct Fence {
  Lineage lineage{};
  wire::ClaimOwner owner{};  // Who owns it instead.
};

class CmsCore {
 public:
  explicit CmsCore(CmsCoreConfig config);
  // Once, before any input; they outlive this. Without them guarded sessions are refused.
  void set_leases(Leases* leases) { leases_ = leases; }

  // ---- inputs: messages
  // `peer_address`: the IP address the message came from, to be dialled back.
  void on_control(Instant now, const PeerId& peer, const std::string& peer_address,
                  const wire::ControlMessage& message, Effects& effects);
  void on_notify(Instant now, const wire::NotifyMessage& message, Effects& effects);
  void on_chunk(Instant now, LinkId link, const wire::Chunk& chunk, ChunkView bytes, Effects& effects);
  void on_transfer_error(Instant now, LinkId link, const wire::TransferError& error, Effects& effects);
  // What came could not be decoded; the session behind it, if one is known, is dropped.
  void on_malformed_control(Instant now, const PeerId& peer, const std::string& peer_address,
                            const Error& error, Effects& effects);
  void on_malformed_bulk(Instant now, LinkId link, const Error& error, Effects& effects);
  void on_malformed_notify(Instant now, const std::string& peer_address, const Error& error,
                           Effects& effects);

  // ---- inputs: answers of the workers
  void on_chunk_taken(Instant now, TransferId transfer, std::uint64_t size_bytes, Effects& effects);
  // Durable and indexed.
  void on_transfer_stored(Instant now, TransferId transfer, const storage::IndexRow& row, Effects& effects);
  // Retention removed these from the store and the index, or a pin was put or taken away: the peers are told.
  void on_removed(const std::vector<storage::IndexRow>& rows, Effects& effects);
  void on_pinned(const CheckpointId& checkpoint, bool pinned, Effects& effects);
  // kCorrupt: the bytes do not match the digest. kWithdrawn: the program's life ended meanwhile; kFenced:
  // the lineage has another owner; of both the blob has been removed again. Everything else: the store's trouble.
  void on_transfer_failed(Instant now, TransferId transfer, const Error& error, Effects& effects);
  // It is in the store, and indexed; but a claim is open that may have overlooked it, so that nobody may be told STORED
  // until that has ended. Followed by one of the two above. A newer checkpoint does not wait for that.
  void on_transfer_waits(Instant now, TransferId transfer, Effects& effects);
  struct ProgramFacts {
    std::optional<Version> newest;
    bool newest_waits = false;  // As of on_transfer_waits.
    std::optional<Version> withdrawn;
    std::optional<Fence> fence;
  };
  void on_program_looked_up(Instant now, const ProgramKey& program, const Result<ProgramFacts>& facts,
                            Effects& effects);
  void on_incarnation_reserved(Instant now, const ReserveIncarnation& asked,
                               const Result<Incarnation>& incarnation, Effects& effects);
  // The head of the ECU's log, which is that session's HELLO. kFenced: the session has ended, and must begin anew.
  void on_hello_recorded(Instant now, const RecordHello& asked, const Result<wire::EcuRecord>& head,
                         Effects& effects);
  // What the leases want done since the last call; they are asked by heartbeats.
  LeaseEffects take_lease_effects() { return std::exchange(lease_effects_, {}); }
  // A guarded session may not have a lease here any more.
  void on_guarded_ended(Instant now, const SessionId& session, const std::string& why, Effects& effects);
  void on_withdrawn(Instant now, const WithdrawProgram& asked, const Result<Version>& up_to,
                    Effects& effects);
  // The lineage has another owner: who publishes under the former one is told to stop it.
  void on_owner_changed(Instant now, const ProgramKey& former, const Fence& fence, Effects& effects);
  // A stored blob turned out to be damaged; it has left the store and the index, which now says
  // `facts` of its program. Whoever still holds that checkpoint is asked to announce it again.
  // `found_here`: the peers are told.
  void on_quarantined(Instant now, const storage::BlobName& name, const std::string& why,
                      const ProgramFacts& facts, bool found_here, Effects& effects);

  // ---- inputs: the other CMS instances
  void on_peer(Instant now, const std::string& address, const wire::PeerMessage& message, Effects& effects);
  void on_malformed_peer(Instant now, const std::string& address, const Error& error, Effects& effects);
  // These checkpoints, which a peer has stored, are in the index.
  void on_peer_indexed(Instant now, const std::vector<storage::BlobName>& names, Effects& effects);
  // The index could not take what a peer said: it is to be made true to the store.
  void on_peer_not_indexed(Instant now, const Error& error, Effects& effects);
  void on_peer_withdrawn(Instant now, const ProgramKey& program, const Version& up_to, Effects& effects);
  // A peer's removals: of `count` blobs the rows are gone. `missed`: of one the row was the newest of its
  // program here. Nobody removes the newest: what this index lacks is to be looked for in the store.
  void on_peer_removed(std::size_t count, bool missed);
  // Tells the peers of what was stored since the last call. Once a turn of the loop.
  void tell_peers(Effects& effects);
  // Of the store; known from its first opening on.
  void set_fleet_id(const Id128& fleet_id) { fleet_id_ = fleet_id; }

  // Checkpoints that are being read from the store by this CMS; the next beat tells the peers.
  void set_reading(std::vector<CheckpointId> reading);
  // By any CMS, as far as is known: what retention leaves alone.
  std::set<CheckpointId> being_read() const;
  // Whose programs this CMS removes from: as for pulls.
  PeerTable::Share retention_share() const { return peers_.share(config_.name, takes_pulls()); }

  // While the store is not ok nothing is pulled; publishers keep their blobs.
  void on_store_state(Instant now, const Status& status, Effects& effects);

  // ---- inputs: people and time
  // An operator ends the program's life: everything up to the newest known version. Returns the
  // ticket of the WithdrawProgram effect, by which the caller knows the answer again.
  std::uint64_t retire(const ProgramKey& program, Effects& effects);
  void on_time(Instant now, std::uint64_t wall_us, Effects& effects);
  Instant next_deadline() const { return next_tick_at_; }
  // ---- targets
  // Asks every ECU that can tell what it has free, but for those whose figures are new enough.
  void ask_metrics(Instant now, Effects& effects);
  // How many were asked within kMetricsWaitMax and have not answered.
  std::size_t metrics_awaited(Instant now) const;
  // Each ECU that has a session, once: by the guarded one, else by one that takes restores, else by its newest.
  std::vector<Candidate> candidates(Instant now) const;
  std::vector<Present> present() const;  // The same, without what these have free.
  // The session that publishes the program and can freeze it, as far as this CMS knows; nullptr: there is none.
  struct Session;
  const Session* source_of(const ProgramKey& program) const;
  // No new pulls; those under way go on. Done when transfer_count() is 0.
  void drain() { draining_ = true; }

  // ---- for status pages
  struct Session {
    SessionId id{};
    std::uint64_t nonce = 0;
    PeerId peer;
    std::string peer_address;
    std::string host;  // Where its blobs are fetched.
    std::uint16_t bulk_port = 0;
    bool guarded = false;
    wire::Enforcer enforcer = wire::Enforcer::kNone;
    std::uint64_t programs_changed = 0;  // Guarded: as the last heartbeat told.
    std::uint64_t features = 0;          // wire::kEcuFeature…
    std::string software;
    Instant heard_at{};
    Instant since{};
    Seq applied_seq = 0;        // Every notification up to here has been dealt with.
    std::set<Seq> seen_beyond;  // Dealt with, but beyond a gap; at most kSeenBeyondMax.
    std::uint64_t notify_heard = 0;
    std::uint32_t idle_heartbeats = 0;  // In a row: it waits for receipts, but nothing is in motion here.
    std::optional<Seq> list_from;       // A LIST is wanted or under way from here on.
    bool list_sent = false;
    Instant list_at{};  // When it is due (again).
    std::set<ProgramId> programs;
    LinkId link = 0;  // 0: none.
    std::set<TransferId> transfers;
    Instant link_used_at{};
    std::optional<wire::Metrics> metrics;
    Instant measured_at{};
    std::uint64_t metrics_asked = 0;          // The number of the last question.
    std::optional<Instant> metrics_asked_at;  // While it is open.
  };
  struct Announcement {
    SessionId session{};
    wire::Notification notification;
    Instant announced_at{};  // When this CMS first heard of it.
    Version version() const { return Version{session.incarnation, notification.seq}; }
  };
  struct Program {
    enum class Known { kNo, kAsking, kYes } known = Known::kNo;  // newest_stored and withdrawn are
    std::optional<Version> newest_stored;
    bool newest_waits = false;  // Nobody may be told so yet: whether one may is asked again.
    std::size_t overtaken = 0;  // So many that had to wait made way for newer ones, since one was STORED.
    std::optional<Version> withdrawn;
    std::optional<Announcement> pending;  // The newest announced and not being pulled.
    TransferId transfer = 0;              // 0: none.
    std::size_t data_attempts = 0;        // Of `pending`, whose bytes were wrong so often.
    // The oldest announcement after the last STORED: from then on a peer has time to pull.
    std::optional<Instant> unstored_since;
    std::uint32_t retries = 0;
    std::string trouble;  // Why the last try for `pending` failed; empty: none has.
    std::optional<Fence> fence;
    Lineage lineage{};  // Last announced; zero: nothing was.
    Instant not_before{};
    std::optional<Instant> delayed_until;  // Its entry in delayed_.
    std::size_t session_count = 0;         // Living sessions that have announced it.
  };
  struct Transfer {
    ProgramKey program{};
    Announcement announcement;
    broker::ChunkReceiver receiver;
    storage::BlobName name;
    LinkId link = 0;
    std::uint64_t reserved_bytes = 0;
    std::uint64_t taken_bytes = 0;
    std::uint64_t received_bytes = 0;
    Instant progress_at{};
    std::size_t stalls = 0;
    std::size_t data_attempts = 0;
    bool small = false;
    bool finishing = false;  // All bytes are with the store.
    bool waits = false;      // It is stored, and nobody may be told so yet.
  };
  const std::map<SessionId, Session>& sessions() const { return sessions_; }
  const std::map<ProgramKey, Program>& programs() const { return programs_; }
  const std::map<TransferId, Transfer>& transfers() const { return transfers_; }
  const std::map<CheckpointId, Failure>& failures() const { return failures_; }
  const PeerTable& peers() const { return peers_; }
  const Counters& counters() const { return counters_; }
  const Status& store_status() const { return store_status_; }
  std::uint64_t in_flight_bytes() const { return in_flight_bytes_; }
  std::size_t transfer_count() const { return transfers_.size(); }
  std::size_t known_incarnation_count() const { return known_since_.size(); }
  std::size_t queued_count() const { return queue_.size() + delayed_.size(); }

 private:
  // sessions
  void on_hello(Instant now, const PeerId& peer, const std::string& peer_address, const wire::Hello& hello,
                Effects& effects);
  void answer_hello(const Session& session, Effects& effects);
  bool may_be_guarded(Instant now, const PeerId& peer, const wire::Hello& hello, Effects& effects);
  bool renew_lease(Instant now, Session& session, const wire::Heartbeat& heartbeat, Effects& effects);
  void refuse_hello(Instant now, const PeerId& peer, const wire::Hello& hello, Code code, std::string context,
                    Effects& effects);
  void open_session(Instant now, const ReserveIncarnation& asked, Incarnation incarnation, Effects& effects);
  void rebind(Session& session, const PeerId& peer, const std::string& peer_address,
              const wire::Hello& hello);
  void end_session(Instant now, SessionId id, Code code, const std::string& why, Effects& effects);
  void on_heartbeat(Instant now, Session& session, const wire::Heartbeat& heartbeat, Effects& effects);
  void on_list_page(Instant now, Session& session, const wire::ListPage& page, Effects& effects);
  void note_known(Instant now, const SessionId& id);
  void want_list(Session& session, Seq from_seq, Instant at);
  void send_list(Instant now, Session& session, Effects& effects);
  void mark_applied(Session& session, Seq seq);
  void check_sessions(Instant now, Effects& effects);
  void on_withdraw(Session& session, const wire::Withdraw& withdraw, Effects& effects);
  Session* session_of_peer(const PeerId& peer, Incarnation incarnation);
  void note_malformed(Instant now, const std::string& whose, const Error& error, Effects& effects);
  // Once a minute and thing.
  bool worth_a_line(Instant now, const std::string& what);
  static void on_metrics(Instant now, Session& session, const wire::Metrics& metrics);
  // programs
  void note_hosted(const ProgramKey& key, const Announcement& announcement);
  void take(Instant now, Session& session, const wire::Notification& notification, Effects& effects);
  void consider(Instant now, const ProgramKey& key, Program& program, Effects& effects);
  void drop_pending(Program& program, Code code, const std::string& reason, Effects& effects);
  // Tells the publisher that `newer` takes its place.
  void supersede(Instant now, const Announcement& announcement, const Version& newer, std::string reason,
                 Effects& effects);
  void supersede_pending(Instant now, Program& program, const Version& newer, std::string reason,
                         Effects& effects);
  void set_pending(Program& program, Announcement announcement);
  void clear_pending(Program& program);
  void delay(const ProgramKey& key, Program& program, Instant until);  // Then it is considered again.
  void end_delay(const ProgramKey& key, Program& program);
  void forget_if_idle(const ProgramKey& key);
  void send_receipt(const Announcement& announcement, wire::ReceiptLevel level, Code code, std::string reason,
                    Effects& effects);
  void send_receipt(const SessionId& session, wire::Receipt receipt, Effects& effects);
  // Whether it is refused for its epoch; then its publisher was told.
  bool refuse_fenced(const Program& program, const Announcement& announcement, Effects& effects);
  void tell_fenced(const SessionId& session, ProgramId program_id, Seq seq, const Fence& fence,
                   Effects& effects);
  // Tells a session that has come (back) which of its programs run elsewhere by now.
  void tell_fences(const Session& session, Seq last_seq, Effects& effects);
  void remember_failure(const CheckpointId& checkpoint, Code code, const std::string& reason);
  void note_stored(Program& program, const Version& version);
  void ask_retention(const std::set<ProgramKey>& programs, Effects& effects) const;
  void apply_withdrawn(Instant now, const ProgramKey& key, const Version& up_to, Effects& effects);
  // Asks the store's trouble to be met by freeing what the rules allow.
  static void free_space_when_full(const Error& error, Effects& effects);
  // peers
  bool takes_pulls() const { return store_status_.ok() && !draining_; }
  // When this CMS may pull it: at once when it is ours, later when a peer is to do it.
  Instant pull_at(Instant now, const ProgramKey& key, const Program& program) const;
  void say(wire::PeerBody body, Effects& effects);
  void say_beat(Instant now, Effects& effects);
  void greet(Instant now, std::uint64_t incarnation, Effects& effects);
  bool may_assign(Instant now) const;
  void release_hellos(Instant now, Effects& effects);
  void on_namesake(Instant now, const std::string& address, const wire::PeerMessage& message,
                   Effects& effects);
  void reconsider_all(Instant now, Effects& effects);
  void check_peers(Instant now, Effects& effects);
  // pulls
  void schedule(Instant now, Effects& effects);
  wire::Manifest manifest_of(const Announcement& announcement) const;
  bool start_pull(Instant now, const ProgramKey& key, Program& program, Effects& effects);
  bool open_link(Instant now, Session& session, Effects& effects);
  void close_link(Session& session, Effects& effects);
  Session* session_of_link(LinkId link);
  void fetch_failed(Instant now, TransferId id, const Error& error, Effects& effects);
  void end_transfer(TransferId id, bool store_done, Effects& effects);
  void put_back(Instant now, TransferId id, const Error& why, Effects& effects);  // Pends it again.
  void retry_later(Instant now, const ProgramKey& key, Program& program);
  void check_stalls(Instant now, Effects& effects);

  CmsCoreConfig config_;
  Prng prng_;
  std::map<SessionId, Session> sessions_;
  std::map<PeerId, SessionId> session_of_peer_;
  std::map<LinkId, SessionId> session_of_link_;
  std::map<SessionId, Instant> known_since_;  // Of living and ended sessions, here and elsewhere.
  // By (peer, nonce), with the incarnation that the client asked for last.
  std::map<std::pair<PeerId, std::uint64_t>, Incarnation> hellos_in_work_;
  std::map<ProgramKey, Program> programs_;
  std::map<TransferId, Transfer> transfers_;
  struct WithdrawRequest {
    SessionId session{};
    std::uint64_t request_id = 0;
  };
  std::map<std::uint64_t, WithdrawRequest> withdraw_requests_;  // By ticket.
  std::map<CheckpointId, Failure> failures_;
  std::map<ProgramKey, Fence> fences_;   // Of all that were told by on_owner_changed.
  std::map<ProgramKey, Hosted> hosted_;  // Of programs_ that living sessions run: who matters to placing.
  std::map<std::string, Instant> logged_at_;  // By what: a peer, a kind of trouble.
  FairQueue queue_;
  std::set<std::pair<Instant, ProgramKey>> delayed_;
  Leases* leases_ = nullptr;
  LeaseEffects lease_effects_;
  Status store_status_ = make_error(Code::kUnavailable, "the store has not been opened yet");
  Counters counters_;
  std::uint64_t in_flight_bytes_ = 0;
  LinkId last_link_ = 0;
  TransferId last_transfer_ = 0;
  std::uint64_t last_ticket_ = 0;
  std::uint64_t wall_us_ = 0;
  Instant next_tick_at_{};
  bool draining_ = false;

  PeerTable peers_;
  Id128 fleet_id_{};
  std::optional<Instant> started_at_;  // The first on_time.
  Instant next_beat_at_{};
  Instant last_beat_at_{};
  std::uint64_t last_event_ = 0;
  std::vector<wire::StoredCheckpoint> stored_untold_;
  std::vector<CheckpointId> reading_;
  std::vector<ReserveIncarnation> held_hellos_;  // Until peers have told what they gave away.
  std::map<std::uint64_t, Instant> greeted_at_;  // By a peer's incarnation.
  bool reconcile_wanted_ = false;
  bool unheard_looked_for_ = false;
  Instant next_reconcile_at_{};
};

// "tcp://10.0.0.7:7600"; an IPv6 address is put in brackets.
std::string endpoint_of(const std::string& host, std::uint16_t port);

}  // namespace cms::core
