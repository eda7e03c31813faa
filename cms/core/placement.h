#pragma once
// Where a program goes: every ECU that could take it is filtered by what the program must have, then
// ranked by CPU load and RAM usage, counting what was placed there since these were measured. Each verdict
// says why, so that `cms-admin explain` shows what a restore would do.
//
// Threads: pure functions; no I/O, no clock, no chance: equal inputs give equal answers, on every CMS.
#include <cstdint>
#include <optional>
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

// What the program must have. Empty and zero mean: any.
struct Demand {
  ProgramKey program{};          // As it is known now.
  std::uint64_t size_bytes = 0;  // Of its checkpoint: the least RAM that it takes.
  wire::Requirements requirements{};
  wire::RealTime real_time{};
  bool owner_may_take = false;   // It may go on where it was: that ECU has come back.
  std::optional<EcuMac> only{};  // An operator has chosen.
};
std::uint64_t ram_bytes_of(const Demand& demand);
// In thousandths of one CPU: wcet over period, at most a whole one.
std::uint32_t cpu_permille_of(const wire::RealTime& real_time);

// What was placed on an ECU since its figures were measured, and is therefore not in them.
struct Reservation {
  std::uint64_t ram_bytes = 0;
  std::uint64_t cpu_permille = 0;  // Of one CPU.
};

struct Candidate {
  SessionId session{};
  bool live = false;            // Heard within the last heartbeats.
  bool takes_restores = false;  // By its hello.
  std::optional<wire::Metrics> metrics{};
  Duration metrics_age{};  // Since they were measured.
  Reservation reserved{};
};

// Why an ECU is not eligible, in the order in which it is asked.
enum class Ineligible : std::uint8_t {
  kNo,  // It is eligible.
  kNotChosen,
  kOwner,
  kSilent,
  kNoRestores,
  kNoMetrics,
  kStaleMetrics,
  kDraining,
  kArch,
  kOs,
  kFormat,
  kLabels,
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
};
// One for each candidate: the eligible ones first, the best first; then the others, by ecu_mac. Of equal
// ones rendezvous hashing of the program decides, so that many programs spread.
std::vector<TargetVerdict> rank(const Demand& demand, const std::vector<Candidate>& candidates);

}  // namespace cms::core
