#pragma once
// LastCalls bounds how long the end of a process takes: what it was given is called when it was armed and
// not destroyed within the time. It is destroyed after what it is to end.
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

#include "base/time.h"

namespace cms::daemon {

class LastCalls {
 public:
  explicit LastCalls(std::function<void()> end) : end_(std::move(end)) {}
  LastCalls(const LastCalls&) = delete;
  LastCalls& operator=(const LastCalls&) = delete;
  ~LastCalls() {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
    }
    changed_.notify_one();
    if (thread_.joinable()) thread_.join();
  }
  void arm(Duration grace) {
    thread_ = std::thread([this, grace] {
      std::unique_lock lock(mutex_);
      if (changed_.wait_for(lock, grace, [this] { return over_; })) return;
      end_();
    });
  }

 private:
  const std::function<void()> end_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;
  std::thread thread_;
};

}  // namespace cms::daemon
