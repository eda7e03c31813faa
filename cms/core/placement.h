#pragma once
// Where a program goes: every ECU that could take it is filtered by what the program must have, then
// ranked by CPU load and RAM usage, counting what was placed there since these were measured. Each verdict
// says why, so that `cms-admin explain` and `plan` show what a restore would do (docs/adr/0013-placement.md).
//
// Threads: pure functions; no I/O, no clock, no chance: equal inputs give equal answers, on every CMS.
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "schemas/messages.h"

namespace cms::core {

// Older figures say too little about an ECU on which programs come and go.
inline constexpr Duration kMetricsFreshMax = std::chrono::seconds(5);
// What a program is taken to need of one CPU when it does not say (no period and wcet).
inline constexpr std::uint32_t kCpuPermilleUnknown = 50;

// What an operator has told of all placing: but for near_ecus the same on every CMS of a fleet.
struct PlacementPolicy {
  // Keys of labels KEY=VALUE. ECUs with the same VALUE are a failure group: they are likely to fail together.
  std::vector<std::string> failure_groups{};
  std::uint32_t real_time_max_permille =
      800;  // Of an ECU's CPUs: what its real-time programs may be promised.
  // On this CMS's own host, or next to it: what is restored there need not cross the network.
  std::set<EcuMac> near_ecus{};
};
// Those of an ECU's labels that name a failure group.
std::vector<std::string> failure_groups_of(const std::vector<std::string>& labels,
                                           const PlacementPolicy& policy);

// What the program must have. Empty and zero mean: any. A label `!NAME` says what must not be there: an ECU
// that has the label NAME, or runs another program that says `!NAME`.
struct Demand {
  ProgramKey program{};  // As it is known now.
  Lineage lineage{};
  std::uint64_t size_bytes = 0;  // Of its checkpoint: the least RAM that it takes.
  wire::Requirements requirements{};
  wire::RealTime real_time{};
  bool owner_may_take = false;  // It may go on where it was, and goes there first: that ECU has come back.
  bool needs_guard =
      false;  // The log says that it is restored by itself: only where a run lease is enforced.
  std::optional<EcuMac> only{};  // An operator has chosen.
  // The failure groups of the ECU that it leaves: one that shares none of them is better, whatever its score.
  std::vector<std::string> leaves_groups{};
};
std::uint64_t ram_bytes_of(const Demand& demand);
// In thousandths of one CPU: wcet over period, at most a whole one.
std::uint32_t cpu_permille_of(const wire::RealTime& real_time);

// Which of two is to be placed first: one that is tight, then the shortest deadline, then the highest priority. Who
// names no deadline comes last.
bool more_urgent(const wire::RealTime& a, const wire::RealTime& b);

// A program that runs on an ECU, as far as it matters to who may come there: it is real-time, or excludes.
struct Hosted {
  Lineage lineage{};
  std::uint32_t real_time_permille = 0;  // Of one CPU, promised to it; 0: it is not real-time.
  std::vector<std::string> excludes{};   // NAME of its labels `!NAME`.
};
// Nothing, if it does not matter.
std::optional<Hosted> hosted_of(const Lineage& lineage, const wire::Requirements& requirements,
                                const wire::RealTime& real_time);

// What was placed on an ECU since its figures were measured, and is therefore not in them.
struct Reservation {
  std::uint64_t ram_bytes = 0;
  std::uint64_t cpu_permille = 0;  // Of one CPU.
};
Reservation reservation_of(const Demand& demand);

struct Candidate {
  SessionId session{};
  bool live = false;            // Heard within the last heartbeats.
  bool takes_restores = false;  // By its hello.
  bool freezes = false;         // By the hello of any of its sessions: its programs can be moved.
  bool enforced = false;        // It holds a run lease, and has somebody who enforces it.
  Duration shunned{};           // For so long nothing is placed there: it was LOST.
  std::optional<wire::Metrics> metrics{};
  Duration metrics_age{};  // Since they were measured.
  Reservation reserved{};
  std::vector<Hosted> hosted{};  // There, or placed there just now.
};

// The session by which an ECU is here, without its figures.
struct Present {
  SessionId session{};
  bool freezes = false;  // As in Candidate.
};

// Why an ECU is not eligible, in the order in which it is asked.
enum class Ineligible : std::uint8_t {
  kNo,  // It is eligible.
  kNotChosen,
  kOwner,
  kSilent,
  kNoRestores,
  kNotGuarded,
  kFlapping,
  kNoMetrics,
  kStaleMetrics,
  kDraining,
  kArch,
  kOs,
  kFormat,
  kLabels,
  kExcluded,
  kRam,
  kCpu,
};
std::string_view to_string(Ineligible ineligible);  // "draining"

struct TargetVerdict {
  SessionId session{};
  Ineligible ineligible = Ineligible::kNo;
  std::string why{};                    // "needs aarch64, is x86_64"; empty: eligible.
  std::uint32_t score = 0;              // 0 to 1000, the mean of the next two; of eligible ones.
  std::uint32_t cpu_free_permille = 0;  // Of all its CPUs, with the program there.
  std::uint32_t ram_free_permille = 0;
  std::string
      shared_group{};  // "power=a": it fails together with the ECU that the program leaves; of eligible ones.
  bool near_cms =
      false;  // It comes first for that: the program is tight, and some CPU is left; of eligible ones.
};
// One for each candidate: the eligible ones first, the best first, those of a shared failure group behind all
// others, those near the CMS before the others of theirs where the program is tight; then those that are not
// eligible, by ecu_mac. Of equal ones rendezvous hashing of the program decides, so that many programs spread.
std::vector<TargetVerdict> rank(const Demand& demand, const std::vector<Candidate>& candidates,
                                const PlacementPolicy& policy = {});
// The best one of rank(), without the others' verdicts; those in `unable` are passed over. nullopt: none is eligible.
// Of many ECUs this costs a tenth.
std::optional<SessionId> pick(const Demand& demand, const std::vector<Candidate>& candidates,
                              const std::set<EcuMac>& unable, const PlacementPolicy& policy = {});
// What the program is to take there is counted from now on.
void reserve(const Demand& demand, Candidate& candidate);
// rank(), for one of many: what the best one is to take is counted there from now on.
std::vector<TargetVerdict> place_next(const Demand& demand, std::vector<Candidate>& candidates,
                                      const PlacementPolicy& policy = {});

}  // namespace cms::core
