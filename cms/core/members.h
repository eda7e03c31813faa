#pragma once
// Members: which lives of cmsd are alive, as their records on the store tell, which each renews every
// second. Not to be confused with peers (peers.h), who are heard on the network and live or not for
// pulling only: who may take over a claim is decided by this.
//
// No clock of another host is believed in: a life is stale when its record has not changed for T_member of our
// own time, in which we could read the store; it is never dead at once, resigned or vanished either, since
// what it was about to do may still be on its way. And a life that has not succeeded in renewing its own
// record for T_self must not act on what it has claimed: others may be taking over.
// docs/adr/0011-members.md has the arithmetic.
//
// Threads: none; no I/O. Bounds: kMemberCountMax lives.
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "cms/core/claim_log.h"
#include "schemas/member_record.h"

namespace cms::core {

inline constexpr std::size_t kMemberCountMax = 256;
inline constexpr Duration kMemberRenewInterval = std::chrono::seconds(1);  // T_hb
// What a life that ended leaves is removed after so long; an earlier life of our own, by us, when it is stale.
inline constexpr Duration kMemberForgetAfter = std::chrono::hours(1);

// The store's (FORMAT), so that all that use it have the same: who has others is refused by it.
struct MemberTimers {
  Duration self_fence{};   // T_self, from the sending of the last good write.
  Duration member_dead{};  // T_member
};

class Members {
 public:
  struct Member {
    wire::MemberRecord record;  // As last read whole.
    bool readable = true;       // Its file was whole at the last look.
    bool there = true;          // And it was there.
    Instant changed_at{};       // When we last saw it change; staleness counts from here.
  };

  Members(const Writer& me, const MemberTimers& timers) : me_(me), timers_(timers) {}

  // ---- our own record
  // What to write now; each has a larger counter.
  wire::MemberRecord next_record(std::uint64_t wall_us, const std::string& software, bool resigned,
                                 std::vector<SessionId> bars = {});
  // The write that was sent at `sent_at` is durable.
  void on_written(Instant sent_at);
  // Whether we may act on our claims and answer for leases: others do not hold us for dead yet.
  bool may_act(Instant now) const;
  std::optional<Instant> written_at() const { return written_at_; }  // The sending of the last good one.

  // ---- the others'. One file as it was read; an Error of kCorrupt: there, but torn or altered.
  struct Seen {
    std::string node;
    std::uint64_t incarnation = 0;
    Result<wire::MemberRecord> record;
  };
  // All files, as read between `begun_at` and `now`. Whatever was not seen for a while because the store could
  // not be read has its time counted anew: nobody is held for dead because of our blindness.
  void on_read(Instant begun_at, Instant now, const std::vector<Seen>& seen);

  // Whether that life may be taken for dead. One that was never seen is alive until we have looked for T_member since
  // it was first asked for.
  bool is_stale(const Writer& life, Instant now) const;
  // Lives whose files may be removed now.
  std::vector<Writer> removable(Instant now) const;

  using Key = std::pair<std::string, std::uint64_t>;  // Node and incarnation.
  const std::map<Key, Member>& members() const { return members_; }
  const MemberTimers& timers() const { return timers_; }
  // Since when we have looked without a gap; absent: never.
  std::optional<Instant> looking_since() const { return looking_since_; }
  bool overlooked() const { return overlooked_; }  // At the last look there were more than kMemberCountMax.

 private:
  bool blind(Instant now) const;
  Duration unchanged(Instant changed_at) const;  // Up to the begin of the last look.
  Instant unseen_since(const Key& life, Instant now) const;

  const Writer me_;
  const MemberTimers timers_;
  std::uint64_t counter_ = 0;
  std::optional<Instant> written_at_;
  std::map<Key, Member> members_;
  mutable std::map<Key, Instant> unseen_;  // When lives that no look has shown were first asked for.
  std::optional<Instant> read_at_;         // The last look that succeeded ended then,
  Instant looked_until_{};                 //   and began then.
  std::optional<Instant> looking_since_;
  bool overlooked_ = false;  // At the last look there were more than kMemberCountMax.
};

}  // namespace cms::core
