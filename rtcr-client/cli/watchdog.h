#pragma once
// The watchdog as the enforcer of a run lease (docs/adr/0015): the guard of `rtcr ecu --guarded` kicks it, and it resets
// the host when that does not happen: because what is to stop may still run, or because the guard itself stands still,
// is starved, or gone. So it ends also what the guard cannot reach.
//
// After each kick it bites within its timeout, whatever happens then. So a kick is allowed only as long as that bite comes
// early enough: by the end of T_stop after the lease, by the slowest clock.
#include <chrono>
#include <memory>
#include <string>

#include "base/result.h"
#include "base/time.h"
#include "broker/core/ecu_core.h"
#include "rtcr-client/cli/guard.h"
#include "rtcr-client/cli/watchdog_device.h"

namespace cms::cli {

// T_stop: from the end of the lease until nothing runs any more, in real time; the watchdog's own may be slow by a tenth.
inline constexpr Duration kStopMax = std::chrono::seconds(1);
inline constexpr Duration kBittenAfterLeaseMax = kStopMax * 9 / 10;
// T_fence.
inline constexpr Duration kLeaseLength = broker::kFirstStopsMax;
// What is asked for: a guard without real-time priority may be held up for a while.
inline constexpr std::chrono::seconds kWatchdogTimeout{2};
inline constexpr Duration kKickInterval = std::chrono::milliseconds(100);

// ---- when to kick; pure

// The longest timeout that leaves time to kick between two heartbeats of a lease of this length; below 1 s: none.
constexpr std::chrono::seconds watchdog_timeout_max(Duration lease_length) {
  return std::chrono::floor<std::chrono::seconds>(lease_length + kBittenAfterLeaseMax -
                                                  broker::kHeartbeatInterval);
}
// Up to when a watchdog of this timeout may be kicked, as it looks at `now`; kNever: for as long as that stays so.
Instant kick_allowed_until(Instant now, const LeaseTerms& lease, Duration timeout);

// ---- the watchdog

class Watchdog {
 public:
  // Opens the device and sets its timeout. kInvalidArgument, kUnsupported: it is none, or not such a one; then it is off
  // again. kLimit: what it takes is too long, or the lease too short for any.
  static Result<std::unique_ptr<Watchdog>> open(const std::string& path);
  static Result<std::unique_ptr<Watchdog>> start(std::unique_ptr<WatchdogDevice> device,
                                                 const std::string& path,
                                                 Duration lease_length = kLeaseLength);
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;
  // It stays armed, unless it was disarmed.
  ~Watchdog();

  std::chrono::seconds timeout() const { return timeout_; }
  // Kicks it when that is due and allowed; returns when to look again.
  Instant look(Instant now, const LeaseTerms& lease);
  // Nothing is left to be enforced.
  void disarm();
  // In another process that has it by a fork.
  void close() { device_->close(); }

 private:
  Watchdog(std::unique_ptr<WatchdogDevice> device, std::chrono::seconds timeout);
  void kick(Instant allowed_until);
  void end_at(Instant when);

  const std::unique_ptr<WatchdogDevice> device_;
  const std::chrono::seconds timeout_;
  timer_t last_moment_{};  // Kills this process.
  Instant next_kick_at_{};
  bool complained_ = false;
};

}  // namespace cms::cli
