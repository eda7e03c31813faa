#pragma once
// The virtual clock and what is to happen when. Events of one instant run in the order in which they
// were scheduled, so a run is a function of its seed.
#include <cstdint>
#include <functional>
#include <queue>
#include <utility>
#include <vector>

#include "base/time.h"

namespace cms::sim {

class EventQueue {
 public:
  Instant now() const { return now_; }
  void at(Instant when, std::function<void()> what) {
    events_.push(Event{std::max(when, now_), ++scheduled_count_, std::move(what)});
  }
  void after(Duration delay, std::function<void()> what) { at(now_ + delay, std::move(what)); }

  // Runs the next event, and moves the clock to it, unless it lies behind `until`; then the clock
  // moves to `until` and the answer is false.
  bool run_next(Instant until) {
    if (events_.empty() || events_.top().when > until) {
      now_ = std::max(now_, until);
      return false;
    }
    // top() is const for the order's sake; the closure takes no part in the order.
    const std::function<void()> what = std::move(const_cast<Event&>(events_.top()).what);
    now_ = events_.top().when;
    events_.pop();
    ++run_count_;
    what();
    return true;
  }
  std::uint64_t run_count() const { return run_count_; }

 private:
  struct Event {
    Instant when{};
    std::uint64_t order = 0;
    std::function<void()> what;
  };
  struct Later {
    bool operator()(const Event& a, const Event& b) const {
      return a.when != b.when ? a.when > b.when : a.order > b.order;
    }
  };
  std::priority_queue<Event, std::vector<Event>, Later> events_;
  Instant now_ = Instant{} + std::chrono::hours(1);  // Not 0, as on a real host.
  std::uint64_t scheduled_count_ = 0;
  std::uint64_t run_count_ = 0;
};

}  // namespace cms::sim
