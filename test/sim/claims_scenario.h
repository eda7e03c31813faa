#pragma once
// What a seed of the world of claims stands for: how many take part, and how slow and how faulty all is.
#include <cstdint>
#include <optional>

#include "base/prng.h"
#include "base/time.h"
#include "test/sim/links_case.h"
#include "test/sim/scenario.h"

namespace cms::sim {

struct ClaimsScenario {
  std::size_t cms_count = 2;
  std::size_t ecu_count = 2;
  std::size_t program_count = 1;  // Lineages.
  Duration publish_every{};
  std::uint32_t both_pull_percent = 0;  // Of checkpoints: two CMS store them.
  // ECUs
  MeanTime loss_every{};
  std::uint32_t cut_off_percent = 0;  // Of losses: it lives on for a while, whatever the operator vouches.
  std::uint32_t untold_percent = 0;   // Of losses: nobody is told, and it boots anew.
  std::uint32_t refuse_percent = 0;   // Of prepares and runs.
  Duration ecu_delay_max{};           // Of what an RTCR does.
  MeanTime move_every{};              // A program is to be moved, or an ECU drained.
  MeanTime maintenance_every{};       // Of guarded ECUs.
  // The network
  Duration net_delay_max{};  // Each message has its own: they overtake each other.
  std::uint32_t drop_percent = 0;
  std::uint32_t repeat_percent = 0;
  // The CMS
  MeanTime cms_crash_every{};
  MeanTime cms_pause_every{};
  Duration cms_pause_max{};
  std::uint64_t budget_bytes = 0;
  std::size_t together_max = 0;
  // The NAS
  Duration store_delay_max{};
  std::uint32_t store_fail_percent = 0;
  std::uint32_t unresolved_percent = 0;  // Of appends.
  MeanTime store_away_every{};           // From one CMS.
  MeanTime nas_crash_every{};
  Duration fault_time{};

  // ---- run leases: all ECUs are guarded, and nobody tells losses, or seldom
  bool leases = false;
  enum class Kind {
    kAll,
    kOutages,    // Nothing fails but the NAS, for all at once: nothing may be LOST.
    kTwin,       // Nothing fails, but there is a second client with the ecu_mac of an ECU: it may not get in.
    kHalfBegun,  // Sessions have begun at one cmsd and are cut from it, when another comes back to the NAS.
  } kind = Kind::kAll;
  std::uint32_t told_percent = 0;  // Of losses: an operator vouches.
  MeanTime cut_every{};            // An ECU from some cmsd, in one direction or both.
  Duration cut_max{};
  MeanTime broker_pause_every{};  // The broker alone, or the whole ECU.
  Duration broker_pause_max{};
  MeanTime broker_restart_every{};
  MeanTime program_end_every{};
  std::uint32_t restart_percent =
      0;                    // Of the programs that an ECU does not run any more: its RTCR asks for them.
  MeanTime outage_every{};  // Of the NAS, for all.
  Duration outage_max{};
  std::uint32_t write_hangs_percent =
      50;  // Of WRITEs while the NAS is away: they are done when it is back. Others fail.
  Duration ecu_append_late_max{};  // Of every other append to the log of an ECU: it is done so late.
  MeanTime twin_every{};
  std::optional<LinksCase> links{};  // Nothing else goes wrong.
};

ClaimsScenario make_claims_scenario(std::uint64_t seed);
ClaimsScenario make_leases_scenario(std::uint64_t seed);
ClaimsScenario make_links_scenario(std::uint64_t number);  // As links_case.

}  // namespace cms::sim
