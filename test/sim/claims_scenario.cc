#include "test/sim/claims_scenario.h"

#include <initializer_list>

namespace cms::sim {
namespace {

template <typename T>
T one_of(Prng& prng, std::initializer_list<T> choices) {
  return *(choices.begin() + prng.below(choices.size()));
}

}  // namespace

ClaimsScenario make_claims_scenario(std::uint64_t seed) {
  using namespace std::chrono_literals;
  constexpr MeanTime kNever{};
  Prng prng(seed ^ 0xc1a135);
  ClaimsScenario s;
  s.cms_count = one_of<std::size_t>(prng, {1, 2, 2, 2, 3, 3});
  s.ecu_count = 2 + prng.below(3);
  s.program_count = 1 + prng.below(4);
  s.publish_every = one_of<Duration>(prng, {300ms, 800ms, 2s});
  s.both_pull_percent = one_of<std::uint32_t>(prng, {0, 0, 30});
  s.loss_every = one_of<MeanTime>(prng, {3s, 6s, 12s});
  s.cut_off_percent = one_of<std::uint32_t>(prng, {0, 25, 60});
  s.untold_percent = one_of<std::uint32_t>(prng, {0, 0, 10});
  s.refuse_percent = one_of<std::uint32_t>(prng, {0, 0, 10, 35});
  s.ecu_delay_max = one_of<Duration>(prng, {10ms, 200ms, 2s});
  s.net_delay_max = one_of<Duration>(prng, {2ms, 50ms, 400ms, 2s});
  s.drop_percent = one_of<std::uint32_t>(prng, {0, 5, 20});
  s.repeat_percent = one_of<std::uint32_t>(prng, {0, 10, 30});
  s.cms_crash_every = one_of<MeanTime>(prng, {kNever, 8s, 20s});
  s.cms_pause_every = one_of<MeanTime>(prng, {kNever, 10s, 20s});
  s.cms_pause_max = one_of<Duration>(prng, {1s, 5s, 20s});
  s.budget_bytes = one_of<std::uint64_t>(prng, {1, 100, 1'000'000});
  s.together_max = one_of<std::size_t>(prng, {1, 2, 64});
  s.store_delay_max = one_of<Duration>(prng, {2ms, 40ms, 400ms});
  s.store_fail_percent = one_of<std::uint32_t>(prng, {0, 0, 5});
  s.unresolved_percent = one_of<std::uint32_t>(prng, {0, 5, 25});
  s.store_away_every = one_of<MeanTime>(prng, {kNever, kNever, 10s});
  s.nas_crash_every = one_of<MeanTime>(prng, {kNever, 3s, 10s});
  s.fault_time = one_of<Duration>(prng, {15s, 25s, 40s});
  s.move_every = one_of<MeanTime>(prng, {kNever, 1s, 3s});
  return s;
}

ClaimsScenario make_leases_scenario(std::uint64_t seed) {
  using namespace std::chrono_literals;
  constexpr MeanTime kNever{};
  Prng prng(seed ^ 0x1ea5e5);
  ClaimsScenario s;
  s.leases = true;
  s.cms_count = one_of<std::size_t>(prng, {1, 2, 2, 2, 3, 3});
  s.ecu_count = 2 + prng.below(3);
  s.program_count = 1 + prng.below(4);
  s.publish_every = one_of<Duration>(prng, {300ms, 800ms, 2s});
  s.both_pull_percent = one_of<std::uint32_t>(prng, {0, 0, 30});
  s.ecu_delay_max = one_of<Duration>(prng, {10ms, 200ms, 1s});
  s.net_delay_max = one_of<Duration>(prng, {2ms, 50ms, 300ms});
  s.budget_bytes = one_of<std::uint64_t>(prng, {100, 1'000'000});
  s.together_max = one_of<std::size_t>(prng, {1, 64});
  s.store_delay_max = one_of<Duration>(prng, {2ms, 40ms, 250ms});
  s.fault_time = one_of<Duration>(prng, {40s, 60s, 90s});
  const std::uint64_t kind = prng.below(16);
  if (kind == 0) {
    s.kind = ClaimsScenario::Kind::kTwin;
    s.twin_every = 10s;
    return s;
  }
  if (kind <= 2) {
    s.kind = ClaimsScenario::Kind::kOutages;
    s.outage_every = 20s;
    s.outage_max = one_of<Duration>(prng, {5s, 9s, 25s});
    s.write_hangs_percent = one_of<std::uint32_t>(prng, {0, 50});
    return s;
  }
  if (kind <= 5) {
    s.kind = ClaimsScenario::Kind::kHalfBegun;
    s.cms_count = 2;
    s.store_delay_max = 250ms;
    s.unresolved_percent = one_of<std::uint32_t>(prng, {10, 60});
    s.ecu_append_late_max = one_of<Duration>(prng, {0s, 3s});
    s.fault_time = 180s;
    return s;
  }
  s.loss_every = one_of<MeanTime>(prng, {kNever, 10s, 20s, 40s});
  s.told_percent = one_of<std::uint32_t>(prng, {0, 0, 0, 30});
  s.cut_every = one_of<MeanTime>(prng, {kNever, 5s, 10s, 20s});
  s.cut_max = one_of<Duration>(prng, {6s, 15s, 40s});
  s.broker_pause_every = one_of<MeanTime>(prng, {kNever, kNever, 10s, 20s});
  s.broker_pause_max = one_of<Duration>(prng, {5s, 15s, 30s});
  s.broker_restart_every = one_of<MeanTime>(prng, {kNever, kNever, 15s});
  s.program_end_every = one_of<MeanTime>(prng, {kNever, kNever, 15s});
  s.refuse_percent = one_of<std::uint32_t>(prng, {0, 0, 10});
  s.drop_percent = one_of<std::uint32_t>(prng, {0, 0, 5});
  s.repeat_percent = one_of<std::uint32_t>(prng, {0, 10});
  s.cms_crash_every = one_of<MeanTime>(prng, {kNever, kNever, 10s, 20s});
  s.cms_pause_every = one_of<MeanTime>(prng, {kNever, kNever, 10s, 20s});
  s.cms_pause_max = one_of<Duration>(prng, {5s, 20s});
  s.store_fail_percent = one_of<std::uint32_t>(prng, {0, 0, 5});
  s.unresolved_percent = one_of<std::uint32_t>(prng, {0, 5, 25});
  s.store_away_every = one_of<MeanTime>(prng, {kNever, kNever, 10s, 20s});
  s.outage_every = one_of<MeanTime>(prng, {kNever, kNever, 20s});
  s.outage_max = one_of<Duration>(prng, {5s, 9s, 15s});
  s.nas_crash_every = one_of<MeanTime>(prng, {kNever, kNever, 10s});
  s.restart_percent = one_of<std::uint32_t>(prng, {0, 0, 30, 80});
  s.move_every = one_of<MeanTime>(prng, {kNever, kNever, 3s, 10s});
  s.maintenance_every = one_of<MeanTime>(prng, {kNever, kNever, 15s});
  return s;
}

ClaimsScenario make_links_scenario(std::uint64_t number) {
  using namespace std::chrono_literals;
  ClaimsScenario s;
  s.leases = true;
  s.links = links_case(number);
  s.cms_count = 2;
  s.ecu_count = 3;
  s.program_count = 4;
  s.publish_every = 800ms;
  s.ecu_delay_max = 50ms;
  s.net_delay_max = 20ms;
  s.store_delay_max = 20ms;
  s.budget_bytes = 1'000'000;
  s.together_max = 64;
  s.write_hangs_percent = 0;
  s.fault_time = 55s;
  return s;
}

}  // namespace cms::sim
