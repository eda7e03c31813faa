#pragma once
// RunLease counts an ECU's right to run its programs (docs/adr/0015), without any I/O. It is counted from the sending
// of the heartbeat that a CMS's answer echoes, never from the receipt of that answer: only so does it end here before
// the CMS may act upon its end. Any CMS may prolong it. What has ended is never prolonged, whatever answer comes late:
// only the next session begins another one.
//
// Inputs are calls with the time. Threads: none; one caller at a time. Bounds: kSentCountMax heartbeats per CMS.
#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "base/time.h"
#include "broker/core/cms_index.h"

namespace cms::broker {

// Of what is sent in quick succession the first is remembered, and stands for the others: its time is the earlier one.
inline constexpr Duration kSentInterval = std::chrono::milliseconds(100);
// The newest ones; an answer to an older one prolongs nothing.
inline constexpr std::size_t kSentCountMax = 128;

class RunLease {
 public:
  enum class State { kNone, kLiving, kExpired };

  explicit RunLease(std::size_t cms_count) : cms_(cms_count) {}

  // Nothing that was sent or granted before counts any more.
  void begin_session();
  // What this CMS says of a lease's length. Zero: it grants none.
  void set_length(CmsIndex cms, Duration length);
  // The heartbeat of this number was sent; numbers of one CMS rise, also from one session to the next.
  void on_sent(Instant now, CmsIndex cms, std::uint64_t number);
  // An answer with `leased`. Returns whether the lease lives longer for it.
  bool on_leased(Instant now, CmsIndex cms, std::uint64_t number);
  // Returns whether it has expired by this call: once for each lease.
  bool on_time(Instant now);
  // The session has ended: what it may have had is over.
  void end(Instant now);

  State state() const { return state_; }
  bool lives() const { return state_ == State::kLiving; }
  // kLiving: when it ends, if nothing prolongs it. kExpired: when it did. kNone: kNever.
  Instant ends_at() const { return ends_at_; }
  // Of the sending from which it was first counted. kNone: kNever.
  Instant began_at() const { return began_at_; }
  Instant next_deadline() const { return lives() ? ends_at_ : kNever; }

 private:
  struct Sent {
    std::uint64_t number = 0;
    Instant at{};
  };
  struct Cms {
    Duration length{};
    std::deque<Sent> sent{};
    std::uint64_t last_number = 0;
  };

  State state_ = State::kNone;
  Instant ends_at_ = kNever;
  Instant began_at_ = kNever;
  std::vector<Cms> cms_;
};

}  // namespace cms::broker
