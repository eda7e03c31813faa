#pragma once
// The guard of `rtcr ecu --guarded`: the process that enforces the run lease when the broker, which is its child, does
// not (docs/adr/0015). It does nothing else, so that nothing can hold it up. When what is to stand still does not for
// certain, half a second after the lease has ended it kills all its descendants, the broker and the programs; and when the
// broker ends in any other way than in order. When the guard itself is gone the broker does the same with its own.
//
// With a watchdog (watchdog.h) the guard kicks that for as long as it may, so that it bites where neither of the two ends
// the programs; it is disarmed when the broker has ended in order and nothing is to be enforced any more.
//
// Both adopt what their descendants leave behind (PR_SET_CHILD_SUBREAPER), so that a program that has left its parents
// is killed too. What runs elsewhere, as a service of its own, is not: that needs a watchdog.
#include <functional>

#include "base/time.h"

namespace cms::cli {

// Half of T_stop: the first half is the broker's.
inline constexpr Duration kGuardPatience = std::chrono::milliseconds(500);

class Watchdog;

// How the run lease stands.
struct LeaseTerms {
  Instant ends_at = kNever;  // Unless it is renewed; kNever: it does not live.
  // From then on what is to stop must stand still, unless it is told anew; kNever: there is nothing to enforce. Never
  // after ends_at.
  Instant enforce_at = kNever;
};

// What the broker tells the guard. Any thread of the broker; never waits.
class GuardLink {
 public:
  GuardLink(const GuardLink&) = delete;
  GuardLink& operator=(const GuardLink&) = delete;
  virtual ~GuardLink() = default;
  virtual void tell(const LeaseTerms& lease) = 0;

 protected:
  GuardLink() = default;
};

// Forks; `broker` runs in the child. Returns in both, with the exit code: in the guard that of the broker if that ended
// in order, else 1. Call it before there are threads. What cannot be had (locked memory, real-time priority) is said on
// standard error. `watchdog`: nullptr, there is none.
int run_with_guard(const std::function<int(GuardLink&)>& broker, Watchdog* watchdog = nullptr);

}  // namespace cms::cli
