#include "cms/core/members.h"

#include <algorithm>
#include <set>
#include <utility>

namespace cms::core {
namespace {

// Two looks at most so far apart are taken for continuous.
constexpr Duration kLookGapMax = 2 * kMemberRenewInterval;

}  // namespace

wire::MemberRecord Members::next_record(std::uint64_t wall_us, const std::string& software, bool resigned,
                                        std::vector<SessionId> bars) {
  wire::MemberRecord record;
  record.node = me_.name;
  record.incarnation = me_.incarnation;
  record.counter = ++counter_;
  record.resigned = resigned;
  record.written_at_us = wall_us;
  record.software = software;
  record.bars = std::move(bars);
  return record;
}

void Members::on_written(Instant sent_at) {
  if (!written_at_ || *written_at_ < sent_at) written_at_ = sent_at;
}

bool Members::may_act(Instant now) const { return written_at_ && now - *written_at_ < timers_.self_fence; }

bool Members::blind(Instant now) const { return !read_at_ || now - *read_at_ > kLookGapMax; }

void Members::on_read(Instant begun_at, Instant now, const std::vector<Seen>& seen) {
  // A file may have been read at any moment of the look: what is the same may have changed since its begin,
  // and what is new may have changed until its end. Either way we are the slower to bury.
  if (blind(begun_at)) {
    looking_since_ = now;
    unseen_.clear();
    for (auto& [key, member] : members_) member.changed_at = now;
  }
  read_at_ = now;
  looked_until_ = begun_at;

  std::set<Key> there;
  overlooked_ = false;
  for (const Seen& one : seen) {
    const Key key{one.node, one.incarnation};
    if (key == Key{me_.name, me_.incarnation}) continue;
    there.insert(key);
    const auto known = members_.find(key);
    if (known == members_.end()) {
      if (members_.size() >= kMemberCountMax) {
        overlooked_ = true;
        continue;
      }
      Member fresh;
      if (one.record.ok()) fresh.record = *one.record;
      fresh.record.node = one.node;
      fresh.record.incarnation = one.incarnation;
      fresh.readable = one.record.ok();
      fresh.changed_at = now;
      members_.emplace(key, std::move(fresh));
      continue;
    }
    Member& member = known->second;
    member.readable = one.record.ok();
    if (!one.record.ok()) continue;  // Has not changed, as far as we can tell.
    if (one.record->counter > member.record.counter) {
      member.record = *one.record;
      member.changed_at = now;
    }
  }
  for (auto it = members_.begin(); it != members_.end();) {
    Member& member = it->second;
    member.there = there.count(it->first) != 0;
    const bool forgotten = !member.there && unchanged(member.changed_at) >= kMemberForgetAfter;
    it = forgotten ? members_.erase(it) : std::next(it);
  }
}

Duration Members::unchanged(Instant changed_at) const {
  return std::max(Duration::zero(), looked_until_ - changed_at);
}

bool Members::is_stale(const Writer& life, Instant now) const {
  if (life.name == me_.name && life.incarnation == me_.incarnation) return false;
  if (blind(now)) return false;
  const auto known = members_.find(Key{life.name, life.incarnation});
  if (known == members_.end() && overlooked_) return false;  // It may be one that we have no room for.
  const Instant since = known == members_.end() ? unseen_since(Key{life.name, life.incarnation}, now)
                                                : known->second.changed_at;
  return unchanged(since) >= timers_.member_dead;
}

// A life may have begun after our last look, and have claimed since: its time counts from when we first hear of it.
Instant Members::unseen_since(const Key& life, Instant now) const {
  if (unseen_.size() >= kMemberCountMax && unseen_.count(life) == 0)
    unseen_.clear();  // Their time counts anew.
  return unseen_.emplace(life, now).first->second;
}

std::vector<Writer> Members::removable(Instant now) const {
  std::vector<Writer> lives;
  for (const auto& [key, member] : members_) {
    // Two cmsd of one name cannot both be meant: ours is the one that goes on.
    const Duration patience = key.first == me_.name ? 2 * timers_.member_dead : kMemberForgetAfter;
    if (member.there && !blind(now) && unchanged(member.changed_at) >= patience)
      lives.push_back(Writer{key.first, key.second});
  }
  return lives;
}

}  // namespace cms::core
