#pragma once
// Time as the cores see it. A core never reads a clock: every input carries `now`, an instant of
// the host's CLOCK_BOOTTIME (it goes on during suspend and never jumps). Only durations travel
// between hosts, never instants. Wall time is data for people, never compared to decide anything.
#include <chrono>
#include <cstdint>

namespace cms {

using Duration = std::chrono::nanoseconds;

struct BootClock {
  using duration = Duration;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<BootClock>;
  static constexpr bool is_steady = true;
  static time_point now();  // For shells and daemons; a core takes it as an argument.
};
using Instant = BootClock::time_point;

inline constexpr Instant kNever = Instant::max();

// Microseconds since 1970-01-01 UTC.
std::uint64_t wall_time_us();

}  // namespace cms
