// The arithmetic of ADR 15: of the timers as they stand in FORMAT, and of what Leases and RunLease make of them when every
// clock is as wrong as it may be.
#include <sstream>
#include <string>

#include "broker/core/ecu_core.h"
#include "broker/core/run_lease.h"
#include "cms/core/cms_core.h"
#include "cms/core/leases_driver_test.h"
#include "cms/core/members.h"
#include "rtcr-client/cli/watchdog.h"
#include "storage/nfs/nfs_claims.h"
#include "storage/store_format.h"

namespace cms::core {
namespace {

using namespace leases_driver;

// As docs/adr/0015-run-leases.md has them, s.
constexpr double kRho = 0.1;
constexpr double kHeartbeat = 1;
constexpr double kStoreCall = 2;
constexpr double kFence = 5;
constexpr double kStop = 1;
constexpr double kSelf = 3;
constexpr double kDead = 8;
constexpr double kMember = 12;

double in_s(Duration duration) { return std::chrono::duration<double>(duration).count(); }

// ---- FORMAT

double timer_of(const std::string& format, const std::string& key) {
  std::istringstream text(format);
  for (std::string line; std::getline(text, line);) {
    if (line.rfind(key + " = ", 0) == 0) return std::stod(line.substr(key.size() + 3)) / 1000;
  }
  ADD_FAILURE() << key << " is not in " << format;
  return 0;
}

TEST(LeaseArithmeticTest, FormatHasTheTimersOfTheAdr) {
  const std::string format = storage::encode_format({storage::kLayoutVersion, std::string(32, 'a')});
  EXPECT_EQ(timer_of(format, "member_self_ms"), kSelf);
  EXPECT_EQ(timer_of(format, "member_dead_ms"), kMember);
  EXPECT_EQ(timer_of(format, "ecu_fence_ms"), kFence);
  EXPECT_EQ(timer_of(format, "ecu_stop_ms"), kStop);
  EXPECT_EQ(timer_of(format, "ecu_dead_ms"), kDead);
}

TEST(LeaseArithmeticTest, WhatIsNotInFormatIsAsTheAdrHasIt) {
  EXPECT_EQ(in_s(broker::kHeartbeatInterval), kHeartbeat);
  EXPECT_EQ(in_s(kMemberRenewInterval), kHeartbeat);
  EXPECT_LE(in_s(storage::kClaimCallMax), kStoreCall);
  EXPECT_EQ(in_s(broker::kFirstStopsMax), kFence);
  EXPECT_EQ(in_s(CmsCoreConfig{}.ecu_dead), kDead);
  EXPECT_EQ(in_s(cli::kStopMax), kStop);
  EXPECT_LE(in_s(cli::kGuardPatience) * (1 + kRho), kStop / 2 * (1 + kRho)) << "half of it is the broker's";
}

TEST(LeaseArithmeticTest, NothingRunsWhenItMayBeLost) {
  const double barred = (1 - kRho) * kDead;
  const double stale = (1 - kRho) * kMember;
  EXPECT_DOUBLE_EQ(barred, 7.2);
  EXPECT_DOUBLE_EQ((1 + kRho) * kFence + kStop, 6.5);
  EXPECT_GT(barred, (1 + kRho) * kFence + kStop);
  EXPECT_DOUBLE_EQ(stale, 10.8);
  EXPECT_DOUBLE_EQ((1 + kRho) * (kSelf + kFence) + kStop, 9.8);
  EXPECT_GT(stale, (1 + kRho) * (kSelf + kFence) + kStop);
  EXPECT_GT(stale, (1 + kRho) * kSelf + kStoreCall) << "a claim that is taken over";
  // A watchdog bites so long after its last kick, which is so old that it fits.
  const double bitten = kFence + in_s(cli::kBittenAfterLeaseMax);
  EXPECT_LT((1 + kRho) * bitten, (1 + kRho) * kFence + kStop);
  EXPECT_GE(bitten - in_s(cli::watchdog_timeout_max(seconds(5))), kHeartbeat) << "there is time to kick it";
}

// ---- the cores

using RealTime = double;  // s

// A clock that shows `rate` seconds for each.
struct Clock {
  double rate = 1;
  Instant at(RealTime real) const {
    return Instant{std::chrono::hours(1)} +
           std::chrono::duration_cast<Duration>(std::chrono::duration<double>(real * rate));
  }
};
constexpr RealTime kStep = 0.01;

struct Pace {
  double rate = 1;          // Of the clock of a cmsd,
  RealTime call_takes = 0;  //   and of its calls to the store.
};

// One cmsd, and an ECU.
class LeaseClocks : public LeasesDriver {
 public:
  using LeasesDriver::append_ended;
  using LeasesDriver::ecu;
  using LeasesDriver::none;
  using LeasesDriver::other;
  // From -20 s on all is well; the ECU's last heartbeat comes at 0.
  void begin(const Pace& pace, RealTime phase) {
    clock = Clock{pace.rate};
    call_takes = pace.call_takes;
    real = -20;
    next_round = real + phase;
    now = clock.at(real);
    record = hello_of(0x11);
    turn_round();
    head_is(record);
    run_until(0, true);
    EXPECT_TRUE(leases->is_leased(now, session_of(record)));
  }
  // Rounds of the member's keeper: a write, then a look; one each second, and when one is wanted.
  void turn_round() {
    if (!in_round && (real >= next_round || wanted)) {
      in_round = true;
      wanted = false;
      round_began = real;
      next_round = real + 1 / clock.rate;
    }
    if (in_round && !written && real >= round_began + call_takes) {
      const Instant sent_at = clock.at(round_began);
      if (writing) write(sent_at, now);
      written = true;
      look_began = real;
    }
    if (in_round && written && real >= look_began + call_takes) {
      look(clock.at(look_began));
      last_look_at = look_began;
      in_round = written = false;
    }
  }
  // Until something is appended (LOST) or handed over, or then.
  template <typename Wanted>
  RealTime run_to(RealTime limit) {
    while (real < limit) {
      step(false);
      if (!all<Wanted>().empty()) return real;
    }
    return limit;
  }
  void run_until(RealTime end, bool beats) {
    while (real < end) step(beats);
  }
  void step(bool beats) {
    real += kStep;
    now = clock.at(real);
    effects.clear();
    if (beats) leases->on_heartbeat(now, session_of(record), effects);
    leases->on_time(now, wall_us, effects);
    turn_round();
    if (reads()) leases->on_head(now, now, kEcu, std::optional(record), effects);
    wanted = wanted || !none<RenewMember>();
  }

  void TestBody() override {}  // Several in one test.

  Clock clock;
  RealTime real = 0;
  RealTime call_takes = 0;
  RealTime next_round = 0;
  RealTime round_began = 0;
  RealTime look_began = 0;
  RealTime last_look_at = 0;
  bool in_round = false;
  bool written = false;
  bool wanted = false;
  EcuRecord record;
};

// When the lease of an ECU whose last heartbeat was sent at 0 has ended and its programs stand still.
RealTime all_stand_still(double rate) {
  const Clock clock{rate};
  broker::RunLease lease(1);
  lease.begin_session();
  lease.set_length(0, seconds(5));
  lease.on_sent(clock.at(0), 0, 1);
  EXPECT_TRUE(lease.on_leased(clock.at(kStep), 0, 1));
  RealTime end = 0;
  while (!lease.on_time(clock.at(end))) end += kStep;
  return end + kStop;
}

constexpr RealTime kPhases[] = {0, 0.25, 0.5, 0.75, 0.99};  // Of the rounds, at the last heartbeat.
constexpr Pace kPaces[] = {{0.9, 0}, {0.9, 0.9}, {1, 0.5}, {1.1, 0}};

TEST(LeaseArithmeticTest, AnEcuIsLostWhenItsProgramsStandStillAndSoonEnough) {
  for (const Pace& pace : kPaces) {
    for (const RealTime phase : kPhases) {
      SCOPED_TRACE(std::to_string(pace.rate) + ", " + std::to_string(pace.call_takes) + ", " +
                   std::to_string(phase));
      LeaseClocks cms;
      cms.begin(pace, phase);
      const RealTime lost_at = cms.run_to<AppendEcuRecord>(30);
      EXPECT_GT(lost_at, all_stand_still(0.9));
      EXPECT_GE(lost_at, (1 - kRho) * kDead);
      EXPECT_LE(lost_at, 11.9) << "T_dead/(1-r) + T_hb + T_rpc";
      cms.append_ended(AppendEnd::kWon);
      EXPECT_TRUE(cms.none<SessionLost>()) << "one look more";
      const RealTime restored_from = cms.run_to<SessionLost>(60);
      EXPECT_GT(restored_from, lost_at);
      EXPECT_LE(restored_from, lost_at + kHeartbeat / (1 - kRho) + kStoreCall);
    }
  }
}

TEST(LeaseArithmeticTest, TheSameWhenACmsdDiesWithIt) {
  for (const Pace& pace : kPaces) {
    for (const RealTime phase : kPhases) {
      SCOPED_TRACE(std::to_string(pace.rate) + ", " + std::to_string(pace.call_takes) + ", " +
                   std::to_string(phase));
      LeaseClocks cms;
      cms.other();
      cms.begin(pace, phase);
      cms.other().renews = false;
      const RealTime lost_at = cms.run_to<AppendEcuRecord>(30);
      EXPECT_GE(lost_at, (1 - kRho) * kMember - 1 / pace.rate - 2 * pace.call_takes)
          << "its record was seen then";
      EXPECT_LE(lost_at, 16.3) << "T_member/(1-r) + T_hb + T_rpc";
    }
  }
}

// The other one alone hears the ECU, writes its record for the last time at 0, and grants for as long as it may.
TEST(LeaseArithmeticTest, WhatAStaleMemberGrantedLastIsOverBeforeItCounts) {
  // That one's clock is slow, as is the ECU's.
  const Clock slow{0.9};
  Members granting{kOther, MemberTimers{seconds(3), seconds(12)}};
  granting.on_written(slow.at(0));
  RealTime granted_at = 0;
  while (granting.may_act(slow.at(granted_at))) granted_at += kStep;
  const RealTime stand_still_at = granted_at + all_stand_still(0.9);
  EXPECT_NEAR(stand_still_at, (kSelf + kFence) / (1 - kRho) + kStop, 3 * kStep);
  for (const RealTime phase : kPhases) {
    LeaseClocks cms;
    cms.other();
    cms.begin({1.1, 0}, phase);
    // We have barred it long before; it is the other that keeps it.
    cms.run_until(15, false);
    ASSERT_TRUE(cms.ecu().barred);
    cms.other().renews = false;
    const RealTime last_write_at = cms.last_look_at;
    const RealTime lost_at = cms.run_to<AppendEcuRecord>(45) - last_write_at;
    EXPECT_GT(lost_at, stand_still_at);
    EXPECT_GE(lost_at, (1 - kRho) * kMember);
  }
}

}  // namespace
}  // namespace cms::core
