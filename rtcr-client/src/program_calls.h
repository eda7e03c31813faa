#pragma once
// ProgramCalls runs the RTCR's callbacks about single programs, those of moves and those of run leases, on threads of
// their own: those of one program one after the other in the order of the commands, but a stop waits for no freeze, which
// may take long. (It does wait for a thaw or resume: what those let go must stand still in the end.)
//
// Threads: run from any, but none after finish(). Lifetime: its calls refer to what must outlive it or finish().
#include <deque>
#include <functional>
#include <map>
#include <mutex>

#include "base/ids.h"
#include "rtcr-client/src/call_threads.h"

namespace cms::client {

class ProgramCalls {
 public:
  enum class Kind { kFreeze, kThaw, kStop, kResume };

  ProgramCalls(unsigned move_thread_count, unsigned lease_thread_count)
      : move_threads_("rtcr-move", move_thread_count), lease_threads_("rtcr-lease", lease_thread_count) {}
  ProgramCalls(const ProgramCalls&) = delete;
  ProgramCalls& operator=(const ProgramCalls&) = delete;

  void run(ProgramId program_id, Kind kind, std::function<void()> call);
  // Runs what was given and ends the threads.
  void finish();

 private:
  struct Call {
    Kind kind = Kind::kFreeze;
    std::function<void()> run{};
  };
  struct Queue {
    Kind running = Kind::kFreeze;
    std::deque<Call> waiting{};
  };

  void run_calls_of(ProgramId program_id);

  std::mutex mutex_{};                   // Guards what follows up to the threads.
  std::map<ProgramId, Queue> queues_{};  // Of programs that have a call running, or about to.
  // Freezes that take long must not keep stops waiting.
  CallThreads move_threads_;
  CallThreads lease_threads_;
};

}  // namespace cms::client
