#pragma once
// Marks the time in which the user's code runs inside a call of ours, so that a function that would
// wait for the very thread it is on can refuse instead.

namespace cms::client {

class CallbackScope {
 public:
  CallbackScope() { ++depth_; }
  CallbackScope(const CallbackScope&) = delete;
  CallbackScope& operator=(const CallbackScope&) = delete;
  ~CallbackScope() { --depth_; }

  // Whether the calling thread is inside a callback.
  static bool active() { return depth_ > 0; }

 private:
  inline static thread_local int depth_ = 0;
};

}  // namespace cms::client
