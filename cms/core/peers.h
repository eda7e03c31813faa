#pragma once
// PeerTable knows the other CMS instances by what they say on the peer channel: who is live, who may
// be named for a pull, what each is at, and whether one of its events was missed. Live or not is for
// pulling only; what is stored and who owns a program is decided by the store.
//
// Threads: none. Bounds: wire::kPeerCountMax peers, forgotten when silent for kPeerForgetAfter.
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "base/time.h"
#include "schemas/messages.h"

namespace cms::core {

inline constexpr Duration kPeerBeatInterval = std::chrono::milliseconds(250);
inline constexpr Duration kPeerSilentMax = std::chrono::seconds(1);
inline constexpr Duration kPeerForgetAfter = std::chrono::minutes(10);
// How long a program's checkpoint may wait for the peer that is to pull it, from its oldest
// announcement after its last STORED: while nothing is known of that pull; while that peer is at work
// but has not come to it.
inline constexpr Duration kPeerPullMax = std::chrono::seconds(2);
inline constexpr Duration kPeerBusyMax = std::chrono::seconds(10);
// So long after its start a cmsd waits for its peers to tell which incarnations they gave away.
inline constexpr Duration kGreetingMax = std::chrono::milliseconds(1500);

class PeerTable {
 public:
  struct Peer {
    std::string name;
    std::string address;  // Where its messages come from.
    std::uint64_t incarnation = 0;
    bool foreign = false;  // Of another fleet: nothing of it counts.
    Id128 fleet_id{};
    Instant heard_at{};
    Instant since{};  // Live, silent or foreign since then.
    bool live = false;
    bool takes_pulls = false;
    bool pull_every = false;
    std::uint32_t queued = 0;
    std::uint64_t pulled_bytes = 0;
    Instant progress_at{};          // When pulled_bytes last grew.
    std::set<ProgramKey> pulling;   // As of its last beat.
    std::uint64_t event = 0;        // The last event taken.
    std::uint64_t event_count = 0;  // Taken in all.
    std::uint64_t gap_count = 0;
    std::uint64_t features = 0;  // wire::kPeerFeature…, as of its last beat.
    std::vector<CheckpointId> reading;
    bool greeted = false;  // We know all incarnations that it gave away.
  };
  struct Heard {
    Peer* peer = nullptr;   // Null: not to be listened to (foreign, too many).
    bool missed = false;    // Events of it were lost: the store knows more than we.
    bool changed = false;   // It may be named for pulls now and was not before, or the other way round.
    bool repeated = false;  // An event that was taken already.
    bool newly_foreign = false;
    bool newly_live = false;
  };

  // Takes note of the sender of a message. `fleet_id`: ours; zero while we do not know it.
  Heard on_message(Instant now, const std::string& address, const Id128& fleet_id,
                   const wire::PeerMessage& message);
  // Who has fallen silent since the last call: their events may be missing for good.
  std::vector<std::string> fallen_silent(Instant now);

  // The peer that rendezvous hashing names for this program among the live ones that take pulls and
  // `own_name`, if that takes them as well; null: it is ours.
  const Peer* puller_of(const ProgramKey& program, const std::string& own_name, bool own_takes_pulls) const;
  // The same for many programs, as of now; may be asked on another thread.
  class Share {
   public:
    bool is_ours(const ProgramKey& program) const;

   private:
    friend class PeerTable;
    std::string own_name_;
    bool own_takes_pulls_ = false;
    std::vector<std::string> others_;
  };
  Share share(const std::string& own_name, bool own_takes_pulls) const;
  // All that live know it, so that it may be said to all.
  bool all_know(std::uint64_t feature) const;
  std::size_t greeted_count() const;
  std::vector<std::uint64_t> ungreeted() const;  // Incarnations of live ones, for PeerBeat.
  const std::map<std::string, Peer>& peers() const { return peers_; }

 private:
  std::map<std::string, Peer> peers_;  // By name.
};

// How much a CMS is entitled to a program (rendezvous or highest-random-weight hashing, Thaler and
// Ravishankar 1998): the one with the highest weight pulls, so that the loss of one moves only its own
// programs, and every CMS with the same view names the same one.
std::uint64_t rendezvous_weight(const std::string& cms_name, const ProgramKey& program);

}  // namespace cms::core
