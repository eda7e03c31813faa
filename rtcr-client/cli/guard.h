#pragma once
// The guard of `rtcr ecu --guarded`: the process that enforces the run lease when the broker, which is its child, does
// not (docs/adr/0015). It does nothing else, so that nothing can hold it up. When what is to stand still does not for
// certain, half a second after the lease has ended it kills all its descendants, the broker and the programs; and when the
// broker ends in any other way than in order. When the guard itself is gone the broker does the same with its own.
//
// Both adopt what their descendants leave behind (PR_SET_CHILD_SUBREAPER), so that a program that has left its parents
// is killed too. What runs elsewhere, as a service of its own, is not: that needs another enforcer.
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>

#include "base/time.h"

namespace cms::cli {

// Half of T_stop: the first half is the broker's.
inline constexpr Duration kGuardPatience = std::chrono::milliseconds(500);

// What the broker tells the guard. Any thread of the broker; never waits.
class GuardLink {
 public:
  GuardLink(const GuardLink&) = delete;
  GuardLink& operator=(const GuardLink&) = delete;
  virtual ~GuardLink() = default;
  // From this instant of CLOCK_BOOTTIME on, in ns, unless it is told anew; 0: there is nothing to enforce.
  virtual void enforce_from(std::uint64_t boot_time_ns) = 0;

 protected:
  GuardLink() = default;
};

// Forks; `broker` runs in the child. Returns in both, with the exit code: in the guard that of the broker if that ended
// in order, else 1. Call it before there are threads. What cannot be had (locked memory, real-time priority) is said on
// standard error.
int run_with_guard(const std::function<int(GuardLink&)>& broker);

}  // namespace cms::cli
