#pragma once
// How blocking work leaves the loop and how its result comes back: a Worker is one thread with a
// queue of jobs; an Outbox takes what the loop shall do next and wakes it.
//
// Threads: post() and push() from any; Outbox::take() from the loop. Bounds: what is posted is
// bounded by whoever posts (credit, sessions, admin requests), so the queues are not.
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/time.h"
#include "cms/core/effects.h"
#include "net/socket.h"

namespace cms::daemon {

// Runs on the loop's thread, with the time and the list of effects to add to.
using Completion = std::function<void(Instant now, core::Effects& effects)>;

class Outbox {
 public:
  void push(Completion completion) {
    bool was_empty = false;
    {
      const std::lock_guard lock(mutex_);
      was_empty = completions_.empty();
      completions_.push_back(std::move(completion));
    }
    if (was_empty) waker_.wake();
  }
  // Everything pushed so far, in order; `taken` is reused.
  void take(std::vector<Completion>& taken) {
    taken.clear();
    const std::lock_guard lock(mutex_);
    taken.swap(completions_);
  }
  const net::Waker& waker() const { return waker_; }

 private:
  net::Waker waker_;
  std::mutex mutex_;
  std::vector<Completion> completions_;
};

class Worker {
 public:
  // `name`: at most 15 characters, seen in ps and gdb.
  explicit Worker(const std::string& name);
  ~Worker() { stop(); }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void post(std::function<void()> job);
  // Jobs not yet begun are dropped; waits for the one under way. Idempotent.
  void stop();
  std::size_t queue_length() const;
  // For a job that takes long: it should end now.
  bool stopping() const;

 private:
  void run();

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> jobs_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace cms::daemon
