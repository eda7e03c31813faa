#include "broker/core/run_lease.h"

#include <algorithm>

#include "base/assert.h"

namespace cms::broker {

void RunLease::begin_session() {
  state_ = State::kNone;
  ends_at_ = kNever;
  began_at_ = kNever;
  for (Cms& cms : cms_) {
    cms.length = Duration::zero();
    cms.sent.clear();
    cms.last_number = 0;
  }
}

void RunLease::set_length(CmsIndex cms, Duration length) {
  CMS_ASSERT(cms < cms_.size());
  CMS_ASSERT(length >= Duration::zero());
  cms_[cms].length = length;
}

void RunLease::on_sent(Instant now, CmsIndex cms, std::uint64_t number) {
  CMS_ASSERT(cms < cms_.size());
  Cms& to = cms_[cms];
  CMS_ASSERT(number > to.last_number);
  to.last_number = number;
  if (!to.sent.empty() && now - to.sent.back().at < kSentInterval) return;
  to.sent.push_back(Sent{number, now});
  if (to.sent.size() > kSentCountMax) to.sent.pop_front();
}

bool RunLease::on_leased(Instant now, CmsIndex cms, std::uint64_t number) {
  CMS_ASSERT(cms < cms_.size());
  (void)on_time(now);
  const Cms& from = cms_[cms];
  if (state_ == State::kExpired || from.length == Duration::zero() || number > from.last_number) return false;
  // The one itself, or that which stands for it.
  const auto after = std::upper_bound(from.sent.begin(), from.sent.end(), number,
                                      [](std::uint64_t asked, const Sent& sent) { return asked < sent.number; });
  if (after == from.sent.begin()) return false;  // Of a former session, or too old.
  const Instant sent_at = std::prev(after)->at;
  const Instant ends_at = sent_at + from.length;
  if (ends_at <= now || (lives() && ends_at <= ends_at_)) return false;
  if (!lives()) began_at_ = sent_at;
  state_ = State::kLiving;
  ends_at_ = ends_at;
  return true;
}

bool RunLease::on_time(Instant now) {
  if (!lives() || now < ends_at_) return false;
  state_ = State::kExpired;
  return true;
}

void RunLease::end(Instant now) {
  if (state_ == State::kNone) began_at_ = now;
  if (state_ != State::kExpired) ends_at_ = std::min(ends_at_, now);
  state_ = State::kExpired;
}

}  // namespace cms::broker
