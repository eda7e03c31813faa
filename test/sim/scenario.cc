#include "test/sim/scenario.h"

#include <initializer_list>

namespace cms::sim {
namespace {

template <typename T>
T one_of(Prng& prng, std::initializer_list<T> choices) {
  return *(choices.begin() + prng.below(choices.size()));
}

}  // namespace

Duration around(Prng& prng, Duration mean) {
  const auto bound = static_cast<std::uint64_t>(mean.count()) * 2 + 1;
  return Duration(static_cast<std::int64_t>(prng.below(bound)));
}

Scenario make_scenario(std::uint64_t seed) {
  using namespace std::chrono_literals;
  constexpr std::uint64_t kKiB = 1024;
  constexpr std::uint64_t kMiB = 1024 * kKiB;
  constexpr Duration kNot{};
  Prng prng(seed ^ 0x5ce7a210);
  Scenario s;
  s.seed = seed;
  s.ecu_count = 1 + prng.below(6);
  s.sessions_per_ecu = one_of<std::size_t>(prng, {1, 1, 1, 2, 3});
  s.shared_programs = prng.chance(1, 2);
  s.program_count = one_of<std::size_t>(prng, {1, 2, 3, 4, 150});  // 150: LIST takes several pages.
  s.cms_count = one_of<std::size_t>(prng, {1, 1, 1, 2});

  s.publish_interval = one_of<Duration>(prng, {50ms, 200ms, 500ms, 2s});
  s.blob_bytes_max = one_of<std::uint64_t>(prng, {64 * kKiB, 256 * kKiB, 512 * kKiB, 20 * kMiB});
  s.memory_budget_bytes = prng.chance(1, 4) ? s.blob_bytes_max + prng.below(s.blob_bytes_max) : 256 * kMiB;
  s.pull_budget_bytes = one_of<std::uint64_t>(prng, {8 * kMiB, 12 * kMiB, 64 * kMiB});
  s.withdraw_every = one_of<MeanTime>(prng, {kNot, 1s, 10s});
  s.retire_every = one_of<MeanTime>(prng, {kNot, kNot, 5s});
  s.client_restart_every = one_of<MeanTime>(prng, {kNot, 3s, 10s});

  s.net_delay_max = one_of<Duration>(prng, {400us, 4ms, 60ms});
  s.notify_drop_percent = one_of<std::uint32_t>(prng, {0, 2, 20, 70});
  s.notify_repeat_percent = one_of<std::uint32_t>(prng, {0, 5});
  s.notify_stuck_percent = one_of<std::uint32_t>(prng, {0, 20});
  s.control_break_every = one_of<MeanTime>(prng, {kNot, 60ms, 1s, 8s});
  s.bulk_break_every = one_of<MeanTime>(prng, {kNot, 1s, 8s});
  s.stall_every = one_of<MeanTime>(prng, {kNot, kNot, 5s});
  s.stuck_percent = one_of<std::uint32_t>(prng, {0, 10, 40});
  s.corrupt_per_10k = one_of<std::uint32_t>(prng, {0, 0, 10, 500, 3000});
  s.malformed_every = one_of<MeanTime>(prng, {kNot, kNot, 6s});
  s.encode_frames = prng.chance(1, 4);

  s.store_delay_max = one_of<Duration>(prng, {400us, 4ms, 60ms});
  s.outage_every = one_of<MeanTime>(prng, {kNot, 2s, 8s});
  s.outage_max = one_of<Duration>(prng, {200ms, 5s});
  s.store_fail_per_10k = one_of<std::uint32_t>(prng, {0, 20, 300});
  s.cms_crash_every = one_of<MeanTime>(prng, {kNot, 2s, 8s});
  s.cms_down_max = one_of<Duration>(prng, {100ms, 2s, 15s});
  s.fault_time = one_of<Duration>(prng, {5s, 15s, 30s});
  s.lie_per_10k = one_of<std::uint32_t>(prng, {0, 0, 20, 300});
  s.control_drop_percent = one_of<std::uint32_t>(prng, {0, 0, 5, 30});
  s.source_fail_per_10k = one_of<std::uint32_t>(prng, {0, 0, 30});
  if (s.program_count > 4) s.blob_bytes_max = std::min(s.blob_bytes_max, 256 * kKiB);
  if (s.blob_bytes_max > kMiB) s.publish_interval = std::max<Duration>(s.publish_interval, 500ms);
  return s;
}

}  // namespace cms::sim
