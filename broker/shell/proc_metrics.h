#pragma once
// ProcMetrics is what this host has free, by /proc: how busy its CPUs were lately, and its memory.
//
// Threads: one caller at a time. Where /proc does not tell, a figure stays 0, and no program is placed
// here that needs it.
#include <cstdint>
#include <optional>
#include <string_view>

#include "base/time.h"
#include "schemas/messages.h"

namespace cms::broker {

inline constexpr Duration kCpuSampleInterval = std::chrono::seconds(1);

// Since the host's start, of all CPUs together, in the kernel's ticks.
struct CpuTimes {
  std::uint64_t busy = 0;
  std::uint64_t all = 0;
  std::uint32_t cpu_count = 0;
};
// Of the text of /proc/stat. nullopt: it has no line "cpu".
std::optional<CpuTimes> parse_cpu_times(std::string_view text);
// The parts in a thousand that were busy between the two; 0 when no time has passed.
std::uint32_t cpu_load_permille(const CpuTimes& before, const CpuTimes& after);
// Fills in ram_total_bytes and ram_available_bytes from the text of /proc/meminfo.
void parse_memory(std::string_view text, wire::Metrics& metrics);

class ProcMetrics {
 public:
  // The time of the next sample is due; reads /proc/stat, in well under a millisecond.
  void sample(Instant now);
  Instant next_sample_at() const { return sampled_at_ + kCpuSampleInterval; }
  // Reads /proc/meminfo too. `number`, formats and labels are the caller's.
  wire::Metrics metrics(Instant now);

 private:
  Instant sampled_at_{};  // Long ago.
  CpuTimes last_{};
  std::uint32_t load_permille_ = 0;
};

}  // namespace cms::broker
