#include "test/sim/scenario.h"

#include <algorithm>
#include <initializer_list>

namespace cms::sim {
namespace {

template <typename T>
T one_of(Prng& prng, std::initializer_list<T> choices) {
  return *(choices.begin() + prng.below(choices.size()));
}

void make_quiet(Prng& prng, Scenario& s) {
  using namespace std::chrono_literals;
  constexpr std::uint64_t kKiB = 1024;
  Scenario quiet;
  quiet.seed = s.seed;
  quiet.kind = s.kind;
  quiet.ecu_count = s.ecu_count;
  quiet.sessions_per_ecu = s.sessions_per_ecu;
  quiet.shared_programs = s.shared_programs;
  quiet.program_count = std::min<std::size_t>(s.program_count, 4);
  quiet.cms_count = 2;
  quiet.cms_live_count = 2;
  quiet.publish_interval = one_of<Duration>(prng, {200ms, 500ms, 2s});
  quiet.client_restart_every = one_of<MeanTime>(prng, {MeanTime{}, 3s});
  quiet.publish_from = 3s;  // By then all have met.
  quiet.blob_bytes_max = one_of<std::uint64_t>(prng, {64 * kKiB, 512 * kKiB});
  quiet.memory_budget_bytes = 256 * kKiB * kKiB;
  quiet.pull_budget_bytes = 64 * kKiB * kKiB;
  quiet.net_delay_max = one_of<Duration>(prng, {400us, 4ms});
  quiet.peer_delay_max = quiet.net_delay_max;
  quiet.store_delay_max = one_of<Duration>(prng, {400us, 4ms});
  quiet.encode_frames = s.encode_frames;
  quiet.fault_time = 10s;
  s = quiet;
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
  const auto cms_dice = prng.below(10);
  s.cms_count = cms_dice < 3 ? 1 : 2;
  s.cms_live_count = cms_dice < 4 ? 1 : 2;

  s.publish_interval = one_of<Duration>(prng, {50ms, 200ms, 500ms, 2s});
  s.blob_bytes_max = one_of<std::uint64_t>(prng, {64 * kKiB, 256 * kKiB, 512 * kKiB, 20 * kMiB});
  s.memory_budget_bytes = prng.chance(1, 4) ? s.blob_bytes_max + prng.below(s.blob_bytes_max) : 256 * kMiB;
  s.pull_budget_bytes = one_of<std::uint64_t>(prng, {8 * kMiB, 12 * kMiB, 64 * kMiB});
  s.withdraw_every = one_of<MeanTime>(prng, {kNot, 1s, 10s});
  s.retire_every = one_of<MeanTime>(prng, {kNot, kNot, 5s});
  s.pin_every = 1s;
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
  if (s.cms_live_count > 1) {
    s.index_lost_percent = one_of<std::uint32_t>(prng, {0, 0, 20});
    s.late_join_max = one_of<Duration>(prng, {kNot, kNot, 20s});
    s.pull_every = prng.chance(1, 6);
    s.peer_drop_percent = one_of<std::uint32_t>(prng, {0, 0, 2, 30});
    s.peer_repeat_percent = one_of<std::uint32_t>(prng, {0, 0, 5});
    s.peer_break_every = one_of<MeanTime>(prng, {kNot, 1s, 8s});
    s.peer_cut_every = one_of<MeanTime>(prng, {kNot, kNot, 6s});
    s.peer_cut_max = one_of<Duration>(prng, {500ms, 3s, 15s});
    s.peer_delay_max = one_of<Duration>(prng, {400us, 4ms, 60ms, 400ms});
    const auto kind_dice = prng.below(8);
    constexpr Kind kKinds[] = {Kind::kQuiet, Kind::kTakeOver, Kind::kCut};
    if (kind_dice < std::size(kKinds)) s.kind = kKinds[kind_dice];
  }
  if (s.kind != Kind::kFaulty) make_quiet(prng, s);
  if (s.program_count > 4) s.blob_bytes_max = std::min(s.blob_bytes_max, 256 * kKiB);
  if (s.blob_bytes_max > kMiB) s.publish_interval = std::max<Duration>(s.publish_interval, 500ms);
  return s;
}

}  // namespace cms::sim
