#pragma once
// What cms-admin is told. Answering takes two steps, because it needs both the core and the disk: the
// loop copies from the core what the question is about (snapshot_of: quick, bounded), then a worker
// asks the index and the store and writes the JSON (answer). cms/admin/README.md describes the
// JSON; its names are the glossary's.
//
// Threads: snapshot_of on the core's thread, answer wherever blocking is allowed; no state of their own.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "base/time.h"
#include "cms/core/cms_core.h"
#include "cms/core/placement.h"
#include "cms/daemon/claims_facts.h"
#include "cms/daemon/index_facts.h"
#include "cms/daemon/lease_facts.h"
#include "cms/daemon/member_facts.h"
#include "cms/daemon/restore_facts.h"
#include "cms/daemon/retention_work.h"
#include "cms/daemon/scrub_facts.h"
#include "schemas/messages.h"
#include "storage/blob_store.h"
#include "storage/checkpoint_index.h"

namespace cms::daemon {

// What the core does not know.
struct DaemonFacts {
  std::string name;
  std::string version;
  std::int64_t pid = 0;
  Duration uptime{};
  std::uint64_t wall_us = 0;  // Now; ages are counted from it.
  std::uint16_t port_base = 0;
  bool draining = false;
  std::size_t peers_configured = 0;
  std::string store_url;
  Duration store_since{};  // How long the store has been in its present state.
  // The store was asked so long ago and has not answered; it may yet.
  std::optional<Duration> store_no_answer_for;
  std::optional<storage::SpaceInfo> space;
  bool reconcile_running = false;
  bool reconcile_done = false;  // Once through all shards since the start.
  std::uint32_t reconcile_shards_done = 0;
  std::string reconcile_trouble;  // Why it does not go on; empty: it does.
  std::uint64_t unknown_files = 0;
  IndexFacts index;
  ScrubFacts scrub;
  QuarantineFacts quarantine;
  ClaimsFacts claims;
  std::size_t store_queue_length = 0;
  std::size_t index_queue_length = 0;
  std::size_t query_queue_length = 0;
  std::uint64_t pull_bytes_per_s = 0;  // Over the last seconds.
  std::uint64_t rss_bytes = 0;
  struct Retention {
    bool sweeping = false;
    std::size_t being_read = 0;  // Checkpoints, by any CMS that is heard.
    std::uint64_t sweep_count = 0;
    std::optional<Duration> last_sweep_ago;
    Duration next_sweep_in{};
    std::string trouble;
    std::uint64_t full_sweep_count = 0;  // Because the store was full, and what these removed.
    std::uint64_t full_removed = 0;
    std::uint64_t full_removed_bytes = 0;
  };
  Retention retention;
  MembersFacts members;
  RestoreFacts restores;
  LeaseFacts leases;
};

// Bounds of one snapshot, and so of the time that the loop spends on it.
inline constexpr std::size_t kSnapshotSessionsMax = 2000;  // Copied. Those of one ECU: up to so many.
inline constexpr std::size_t kSnapshotItemsMax = 2000;     // Copied.
inline constexpr std::size_t kSnapshotLooksMax = 50000;    // Programs looked at.
inline constexpr std::size_t kNeverStoredShownMax = 20;
inline constexpr Duration kSilentAfter = std::chrono::seconds(3);  // Of a session: three heartbeats.
inline constexpr Duration kLateAfter = std::chrono::seconds(10);   // Announced, and no pull has begun.

// What the core says that one request is about.
struct CoreSnapshot {
  struct Session {
    SessionId id{};
    std::string address;
    std::string software;
    bool guarded = false;
    Duration heard_ago{};
    Duration age{};
    std::size_t program_count = 0;
  };
  // A checkpoint that is not stored (yet).
  enum class State { kAnnounced, kPulling, kFailed };
  struct Item {
    CheckpointId checkpoint{};
    State state = State::kAnnounced;
    OwnerEpoch owner_epoch = 0;
    std::uint64_t size_bytes = 0;
    std::uint64_t received_bytes = 0;
    std::uint64_t taken_at_us = 0;
    std::uint64_t pause_us = 0;
    std::uint64_t failed_at_us = 0;
    Duration waiting{};  // Since this CMS first heard of it.
    std::string program_name;
    Code code = Code::kOk;
    std::string reason;  // Why it failed, or why it is not yet stored.
  };
  struct Peer {  // Another cmsd.
    std::string name;
    std::uint64_t incarnation = 0;
    std::string address;
    enum class State { kLive, kSilent, kForeign } state = State::kLive;
    Duration since{};  // How long it has been so.
    bool takes_pulls = false;
    bool pull_every = false;
    std::uint32_t queued = 0;
    std::uint64_t event_count = 0;
    std::uint64_t gap_count = 0;
    std::string fleet_id;  // Of its store; empty: it has not said.
  };
  struct Counts {
    std::size_t sessions = 0;
    std::size_t silent_sessions = 0;
    Duration longest_silence{};
    std::size_t programs = 0;      // Of living sessions.
    std::size_t never_stored = 0;  // Of these: announced or pulled now, and nothing of them is stored.
    std::size_t late = 0;          // Programs with a checkpoint that waits for longer than kLateAfter,
    Duration longest_wait{};       //   and the longest of these.
    std::size_t waiting = 0;       // Programs whose newest checkpoint is held by its publisher alone,
    std::uint64_t waiting_bytes = 0;
    Duration waiting_longest{};
    bool all_looked_at = true;  // There are at most kSnapshotLooksMax programs.
    std::size_t pulls = 0;
    std::uint64_t pull_bytes_done = 0;
    std::uint64_t pull_bytes_total = 0;
    std::size_t queued = 0;
  };

  DaemonFacts facts;
  Status store_status;
  // ecus, show: in order.
  std::vector<Session> sessions;
  std::optional<EcuMac> sessions_end;  // Sessions from this ECU on were not copied.
  // checkpoints, show: by program, newest first within one. status: of the never stored ones those that
  // wait longest, at most kNeverStoredShownMax; then all failures.
  std::vector<Item> items;
  std::optional<ProgramKey> items_end;  // Items from this program on were not copied.
  // status
  std::vector<Peer> peers;  // Heard since the start; by name.
  Counts counts;
  core::Counters counters;
};

CoreSnapshot snapshot_of(const core::CmsCore& core, Instant now, const DaemonFacts& facts,
                         const wire::AdminRequest& request);

// Anything but what changes something (retire, scrub, index_rebuild, pins, retention), which is the loop's,
// and explain.
wire::AdminAnswer answer(const wire::AdminRequest& request, const CoreSnapshot& snapshot,
                         storage::CheckpointIndex& index, storage::BlobStore& store);

inline constexpr std::size_t kExplainTargetsMax = 300;  // Listed, the best first; all are counted.

struct ExplainFacts {
  std::vector<core::Candidate> candidates;  // As they are once the ECUs were asked.
  core::PlacementPolicy policy;
  std::vector<std::string> leaves_groups;  // Of the program's ECU.
};
// Where a program would go now, and for each ECU why, or why not. kNotFound: nothing of the program is stored, or
// not that version.
wire::AdminAnswer explain(const wire::AdminRequest& request, const ExplainFacts& facts,
                          storage::CheckpointIndex& index, storage::BlobStore& store);

std::string status_json(const CoreSnapshot& snapshot, storage::CheckpointIndex& index);
// The other lives of cmsd: what is heard of them on the network beside what their records on the store say.
std::string peers_json(const CoreSnapshot& snapshot);

// The JSON of the other questions; `rows`: of the index, when it can tell.
std::string scrub_status_json(const DaemonFacts& facts);
std::string scrub_run_json(const ScrubRun& run);  // Of one that was begun.
std::string index_status_json(const DaemonFacts& facts, std::optional<std::uint64_t> rows);

inline constexpr std::size_t kPlanListedMax = 5000;  // Removals of one page; all are counted.

// What a pin is now; and a page of a plan, or of what was removed, with how far it has come.
std::string pinned_json(const CheckpointId& checkpoint, bool pinned);
std::string removals_json(const wire::AdminRequest& request, const std::vector<Removal>& removed,
                          std::uint64_t rows_judged, std::uint64_t rows_total, std::uint64_t wall_us);

// The JSON of a retire that was carried out: everything of the program up to this version has ended.
std::string retired_json(const ProgramKey& program, const Version& up_to);

}  // namespace cms::daemon
