#pragma once
// What scrubbing has come to, for people: plain values, copied from the scrubber's thread.
#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/time.h"

namespace cms::daemon {

inline constexpr std::size_t kScrubFoundMax = 20;  // Remembered of a kind.

struct ScrubFound {
  CheckpointId checkpoint{};
  std::string reason;
  std::uint64_t at_us = 0;
};

// Checkpoints that were read again.
struct ScrubCounts {
  std::uint64_t checkpoints = 0;
  std::uint64_t bytes = 0;
  std::uint64_t corrupt = 0;      // Proven and moved to quarantine.
  std::uint64_t misread = 0;      // Wrong once and right then: not the store, but what lies between.
  std::uint64_t unreadable = 0;   // The store could not read them; they stay where they are.
  std::uint64_t unsupported = 0;  // Of a newer format.
};

// One that was asked for.
struct ScrubRun {
  enum class State { kWaiting, kRunning, kDone, kBrokenOff } state = State::kWaiting;
  std::uint64_t id = 0;
  std::string what;  // A KEY, or "all".
  ScrubCounts counts;
  std::uint32_t shards_done = 0;        // Of "all".
  std::uint64_t checkpoints_total = 0;  // Of a KEY.
  Duration took{};                      // So far.
  std::string trouble;                  // Why it was broken off, or what could not be read.
  std::vector<ScrubFound> found;        // The first of them.
};

struct ScrubFacts {
  std::uint64_t rate_bytes_per_s = 0;  // 0: only what is asked for.
  bool waits_for_store = false;
  bool resting = false;           // Until the next round is due.
  std::uint64_t bytes_per_s = 0;  // In the background, over the last seconds.
  std::uint64_t round_started_at_us = 0;
  std::uint32_t shards_done = 0;  // Of this round.
  ScrubCounts round;
  std::uint64_t last_round_ended_at_us = 0;  // 0: none has been finished since the start.
  Duration last_round_took{};
  ScrubCounts last_round;
  ScrubCounts total;              // Since the start, whoever asked.
  std::vector<ScrubFound> found;  // Corrupt ones, the newest last.
  ScrubFound unreadable;          // The last.
  ScrubFound not_moved;           // The last that is corrupt and could not be moved to quarantine.
  std::vector<ScrubRun> runs;     // The last few, the newest last.
};

// What lies in quarantine, whoever put it there.
struct QuarantineFacts {
  std::uint64_t count = 0;
  std::uint64_t stored_bytes = 0;
  CheckpointId newest{};  // By version; of no meaning when there are none.
};

}  // namespace cms::daemon
