#pragma once
// CallThreads runs what may take long, the callbacks of a restore or of a move, away from the client's thread:
// on up to so many threads of its own, which are made when they are first needed.
//
// Threads: run_soon from any, but none after finish() but those of the calls. Lifetime: its calls refer to
// what must outlive it or finish().
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include "base/result.h"
#include "rtcr-client/src/callback_scope.h"

namespace cms::client {

inline constexpr unsigned kCallThreadCount = 4;
inline constexpr unsigned kCallThreadCountMax = 64;

class CallThreads {
 public:
  // `name`: of each thread, at most 15 bytes, of static storage. `count_max`: 1..kCallThreadCountMax.
  CallThreads(const char* name, unsigned count_max) : name_(name), count_max_(count_max) {}
  CallThreads(const CallThreads&) = delete;
  CallThreads& operator=(const CallThreads&) = delete;
  ~CallThreads() { finish(); }

  // Calls given one after the other begin in that order, but run at once. What one throws ends nothing but it.
  void run_soon(std::function<void()> call);
  // Runs what was given and ends the threads.
  void finish();

 private:
  void run_calls();

  const char* const name_;
  const unsigned count_max_;
  std::mutex mutex_{};  // Guards what follows.
  std::condition_variable changed_{};
  std::deque<std::function<void()>> calls_{};
  unsigned idle_count_ = 0;
  bool ending_ = false;
  std::vector<std::thread> threads_{};
};

// Callbacks do not throw. What does is what is made for them, before they are called, or for their refusal,
// after it: so it is true that what they were to do was not done.
template <typename Answer, typename Call>
Answer called(const Call& call) {
  const CallbackScope scope;
  try {
    return call();
  } catch (const std::bad_alloc&) {
    return make_error(Code::kLimit, "out of memory");
  }
}

}  // namespace cms::client
