#include "rtcr-client/src/call_threads.h"

#include <pthread.h>
#include <sched.h>
#include <exception>
#include <system_error>
#include <utility>

namespace cms::client {

void CallThreads::run_soon(std::function<void()> call) {
  const std::lock_guard<std::mutex> lock(mutex_);
  calls_.push_back(std::move(call));
  if (!ending_ && idle_count_ < calls_.size() && threads_.size() < count_max_) {
    try {
      threads_.emplace_back([this] { run_calls(); });  // Inherits that all signals are blocked.
    } catch (const std::system_error&) {
      if (threads_.empty()) throw;  // As the want of memory: the client's thread fails.
    }
  }
  changed_.notify_one();
}

void CallThreads::finish() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ending_ = true;
    changed_.notify_all();
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void CallThreads::run_calls() {
  (void)pthread_setname_np(pthread_self(), name_);
  // Whatever the client's thread has: these calls are not to be ahead of what runs.
  const sched_param parameters{};
  (void)pthread_setschedparam(pthread_self(), SCHED_OTHER, &parameters);
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    ++idle_count_;
    changed_.wait(lock, [this] { return ending_ || !calls_.empty(); });
    --idle_count_;
    if (calls_.empty()) return;
    std::function<void()> call = std::move(calls_.front());
    calls_.pop_front();
    lock.unlock();
    try {
      call();
    } catch (const std::exception&) {
      // Out of memory. What it was for stays unanswered, and so is not taken for what will not come.
    }
    call = nullptr;  // With what it holds, before the lock.
    lock.lock();
  }
}

}  // namespace cms::client
