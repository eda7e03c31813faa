#include "rtcr-client/cli/watchdog.h"

#include <linux/watchdog.h>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <utility>

#include "base/assert.h"

namespace cms::cli {
namespace {

using std::chrono::seconds;

std::string text_of(Duration duration) {
  const auto tenths = std::chrono::floor<std::chrono::milliseconds>(duration).count() / 100;
  return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + " s";
}

std::string allowed_text(Duration lease_length) {
  return "after the last renewal of a run lease of " + text_of(lease_length) +
         " it must have bitten within " + text_of(lease_length + kBittenAfterLeaseMax) +
         ", and be kicked for " + text_of(broker::kHeartbeatInterval) +
         " of that, from one heartbeat to the next: ";
}

Status check_driver(WatchdogDevice& device, const std::string& path) {
  const auto options = device.options();
  if (!options.ok()) {
    Error error = options.error();
    error.code = Code::kInvalidArgument;
    error.context += ": it is no watchdog";
    return error;
  }
  const auto lacks = [&](const char* option, const char* what) {
    return make_error(Code::kUnsupported, path + ": its driver " + option + ": " + what);
  };
  if ((*options & WDIOF_MAGICCLOSE) == 0)
    return lacks("has no WDIOF_MAGICCLOSE", "it would be switched off by the end of a guard that is killed");
  if ((*options & WDIOF_ALARMONLY) != 0) return lacks("says WDIOF_ALARMONLY", "it resets nothing");
  return ok_status();
}

// Some drivers refuse what is too short for them, others take something longer.
Result<seconds> set_shortest(WatchdogDevice& device, const std::string& path, Duration lease_length) {
  const seconds longest = watchdog_timeout_max(lease_length);
  if (longest < seconds(1))
    return make_error(Code::kLimit, path + ": " + allowed_text(lease_length) +
                                        "that leaves less than 1 s, and its timeout is in whole seconds");
  Status set = ok_status();
  for (seconds wanted = std::min(kWatchdogTimeout, longest); wanted <= longest; wanted += seconds(1)) {
    set = device.set_timeout(wanted);
    if (set.ok()) break;
  }
  const auto timeout = device.timeout();
  if (!timeout.ok())
    return make_error(Code::kUnsupported, "it does not tell its timeout: " + timeout.error().message());
  if (*timeout >= seconds(1) && *timeout <= longest) return *timeout;
  return make_error(Code::kLimit,
                    path + ": its timeout is " + std::to_string(timeout->count()) + " s" +
                        (set.ok() ? "" : ", and it takes no other (" + set.error().message() + ")") + "; " +
                        allowed_text(lease_length) + "1 to " + std::to_string(longest.count()) +
                        " s are allowed");
}

}  // namespace

Instant kick_allowed_until(Instant now, const LeaseTerms& lease, Duration timeout) {
  const auto bitten_in_time = [timeout](Instant end) { return end + kBittenAfterLeaseMax - timeout; };
  if (lease.enforce_at != kNever) return bitten_in_time(lease.enforce_at);
  // Nothing runs that would have to stop; but until its end something may be started.
  if (lease.ends_at != kNever && now < lease.ends_at) return bitten_in_time(lease.ends_at);
  return kNever;
}

Result<std::unique_ptr<Watchdog>> Watchdog::open(const std::string& path) {
  auto device = open_watchdog_device(path);
  if (!device.ok()) return device.error();
  return start(std::move(device).value(), path);
}

Result<std::unique_ptr<Watchdog>> Watchdog::start(std::unique_ptr<WatchdogDevice> device,
                                                  const std::string& path, Duration lease_length) {
  if (const Status usable = check_driver(*device, path); !usable.ok()) {
    // What is no watchdog must not be written to.
    if (usable.error().code == Code::kUnsupported) (void)device->disarm();
    return usable.error();
  }
  const auto timeout = set_shortest(*device, path, lease_length);
  if (!timeout.ok()) {
    (void)device->disarm();
    return timeout.error();
  }
  return std::unique_ptr<Watchdog>(new Watchdog(std::move(device), *timeout));
}

Watchdog::Watchdog(std::unique_ptr<WatchdogDevice> device, seconds timeout)
    : device_(std::move(device)), timeout_(timeout) {
  sigevent kill_us{};
  kill_us.sigev_notify = SIGEV_SIGNAL;
  kill_us.sigev_signo = SIGKILL;
  CMS_ASSERT(::timer_create(CLOCK_BOOTTIME, &kill_us, &last_moment_) == 0);
}

Watchdog::~Watchdog() { (void)::timer_delete(last_moment_); }

Instant Watchdog::look(Instant now, const LeaseTerms& lease) {
  if (now < next_kick_at_) return next_kick_at_;
  if (const Instant until = kick_allowed_until(now, lease, timeout_); now <= until) {
    kick(until);
    next_kick_at_ = now + kKickInterval;
  }
  return now + kKickInterval;
}

// Between the look at the clock and the kick this process may be stopped, or starved, and a kick that comes when it goes
// on would have the watchdog bite too late. So the kernel ends it at the last moment at which it may kick.
void Watchdog::kick(Instant allowed_until) {
  if (allowed_until != kNever) end_at(allowed_until);
  const Status kicked = device_->kick();
  if (allowed_until != kNever) end_at(kNever);
  if (kicked.ok() || std::exchange(complained_, true)) return;
  std::fprintf(stderr, "rtcr: the watchdog cannot be kicked, and will reset this host: %s\n",
               kicked.error().message().c_str());
}

void Watchdog::end_at(Instant when) {
  itimerspec at{};  // Zero: never.
  if (when != kNever) {
    const auto since_boot = when.time_since_epoch();
    const auto whole = std::chrono::floor<seconds>(since_boot);
    at.it_value.tv_sec = static_cast<time_t>(whole.count());
    at.it_value.tv_nsec = static_cast<long>((since_boot - whole).count());
  }
  CMS_ASSERT(::timer_settime(last_moment_, TIMER_ABSTIME, &at, nullptr) == 0);
}

void Watchdog::disarm() {
  if (const Status disarmed = device_->disarm(); !disarmed.ok())
    std::fprintf(stderr, "rtcr: the watchdog cannot be disarmed, and will reset this host: %s\n",
                 disarmed.error().message().c_str());
  device_->close();
}

}  // namespace cms::cli
