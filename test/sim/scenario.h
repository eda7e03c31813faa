#pragma once
// What one seed stands for: how many take part, how large and how often they publish, how slow and
// how faulty the world is. Some seeds are quiet in some respect, so that rare paths get time.
#include <cstdint>

#include "base/prng.h"
#include "base/time.h"

namespace cms::sim {

// A fault that comes up after a random time around `mean`; never when it is zero.
using MeanTime = Duration;

// kFaulty: whatever the knobs say. The others are for promises that hold only while all is well.
enum class Kind {
  kFaulty,
  kQuiet,     // Nothing is faulty: nothing is pulled twice.
  kTakeOver,  // One fault: a CMS dies while it pulls, the other takes over in time.
  kCut,  // One fault: a CMS knows nothing of a life of the clients, and gives them their next incarnation.
};

struct Scenario {
  std::uint64_t seed = 0;
  Kind kind = Kind::kFaulty;
  // Who takes part.
  std::size_t ecu_count = 1;         // Different ecu_macs.
  std::size_t sessions_per_ecu = 1;  // Clients that live at once on one ecu_mac.
  bool shared_programs = false;      // They publish the same program_ids.
  std::size_t program_count = 1;     // Of one client.
  std::size_t cms_count = 1;         // Named in --cms.
  std::size_t cms_live_count = 1;    // The others are never there.
  // What they do.
  Duration publish_interval{};
  std::uint64_t blob_bytes_max = 0;
  std::uint64_t memory_budget_bytes = 0;
  std::uint64_t pull_budget_bytes = 0;
  MeanTime withdraw_every{};
  MeanTime retire_every{};
  MeanTime pin_every{};
  MeanTime client_restart_every{};
  std::uint32_t source_fail_per_10k = 0;  // Of chunks read.
  // The network.
  Duration net_delay_max{};
  std::uint32_t notify_drop_percent = 0;
  std::uint32_t notify_repeat_percent = 0;
  std::uint32_t notify_stuck_percent = 0;  // Of the times a notify connection is made.
  MeanTime control_break_every{};
  std::uint32_t control_drop_percent = 0;  // Of messages to clients: a ROUTER drops when its queue is full.
  MeanTime bulk_break_every{};
  MeanTime stall_every{};
  std::uint32_t stuck_percent = 0;    // Of breaks: a connection that never recovers by itself.
  std::uint32_t corrupt_per_10k = 0;  // Of chunks.
  std::uint32_t lie_per_10k = 0;      // Of chunks: their header says what is not so.
  MeanTime malformed_every{};
  bool encode_frames = false;  // Every message passes encode and decode.
  // The store.
  Duration store_delay_max{};
  MeanTime outage_every{};
  Duration outage_max{};
  std::uint32_t store_fail_per_10k = 0;  // Of single operations.
  MeanTime cms_crash_every{};
  Duration cms_down_max{};
  std::uint32_t index_lost_percent = 0;  // Of crashes.
  Duration late_join_max{};              // When the second CMS starts for the first time.
  // Between two CMS.
  bool pull_every = false;
  std::uint32_t peer_drop_percent = 0;
  std::uint32_t peer_repeat_percent = 0;
  MeanTime peer_break_every{};
  MeanTime peer_cut_every{};  // One way or both.
  Duration peer_cut_max{};
  Duration peer_delay_max{};
  // How long it all goes wrong.
  Duration publish_from{};
  Duration fault_time{};
};

Scenario make_scenario(std::uint64_t seed);

// A random time around `mean`: evenly from 0 to twice of it.
Duration around(Prng& prng, Duration mean);

}  // namespace cms::sim
