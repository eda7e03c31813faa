#pragma once
// What the world of claims knows and no part of the system does: which copies of a program run, which state each
// went on from, what was called STORED, and what an operator vouched for. The invariants that are about more
// than one part stand here; each throws Violation.
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "cms/core/claim_log.h"
#include "schemas/claim_record.h"
#include "schemas/ecu_record.h"
#include "storage/blob_store.h"
#include "test/sim/ledger.h"

namespace cms::sim {

// One run of a program on one ECU.
struct Copy {
  Lineage lineage{};
  SessionId session{};
  ProgramId program_id = 0;
  OwnerEpoch owner_epoch = 0;
  std::uint64_t state = 0;  // Grows by one with each checkpoint.
  bool running = true;
  bool frozen = false;               // It stands still, for a move, in this state.
  Seq last_seq = 0;                  // Of its newest checkpoint; 0: none yet.
  std::uint64_t boot = 0;            // Of its ECU.
  Incarnation last_incarnation = 0;  // Of its newest checkpoint.
  wire::Policies policies{};         // As it publishes them.
  // ---- on a guarded ECU
  bool strict = false;     // on_isolation = stop, as was ever heard there.
  bool stopped = false;    // By the RTCR, for want of a lease,
  bool held = false;       //   or by who enforces that.
  bool suspended = false;  // With the whole ECU.
  bool executes() const { return running && !frozen && !stopped && !held && !suspended; }
  ProgramKey key() const { return ProgramKey{session.ecu_mac, program_id}; }
};

// A checkpoint as it stands in the store. Its state is in `taken_at_us`.
struct StoredBlob {
  storage::BlobName name{};
  SessionId session{};
  wire::Notification notification{};
  bool durable = false;
  std::uint64_t state() const { return notification.taken_at_us; }
};

class ClaimsLedger {
 public:
  // ---- ECUs
  // An operator vouches that nothing runs on that ECU: what its sessions up to this one run counts no more.
  void vouch(const SessionId& session);
  bool is_vouched(const SessionId& session) const;
  // The first owner of a lineage, which no restore has made.
  Copy& start_first(const Lineage& lineage, const SessionId& session, ProgramId program_id);
  // A target obeys a Go. `record`: what the log has in the slot that it names as ACT; `after`: in the next one.
  void on_go_obeyed(const SessionId& target, const wire::Go& go, const wire::ClaimRecord* record,
                    const wire::ClaimRecord* after);
  // What is about to run went on from this state.
  void check_restored(const wire::ClaimRecord& act, std::uint64_t state) const;
  // `held`: it does not execute yet.
  Copy& start_restored(const SessionId& session, ProgramId program_id, const wire::Go& go,
                       std::uint64_t state, bool held = false);
  // A frozen one goes on.
  void thaw(Copy& copy) const;
  // It executes again, or for the first time.
  void check_goes_on(const Copy& copy) const {
    if (copy.executes()) check_single(copy);
  }

  // ---- guarded ECUs
  // An ECU has taken an answer with `leased`: its session may run until then.
  void on_leased(const SessionId& session, Instant until);
  // Somebody acts on the LOST of that session.
  void on_loss_acted_upon(const SessionId& session, Instant now);
  bool was_loss_acted_upon(const SessionId& session) const { return lost_.count(session) != 0; }

  std::deque<Copy>& copies() { return copies_; }
  const std::deque<Copy>& copies() const { return copies_; }
  const Copy* running(const Lineage& lineage) const;  // That counts.

  // ---- the store
  void on_member_written(const std::string& node, std::uint64_t incarnation, Instant now);
  // A CMS decides to append `next`; `head` is what the log has now.
  void check_take_over(Instant now, const wire::ClaimRecord* head, const wire::ClaimRecord& next) const;
  // It stands in its slot from now on.
  void on_appended(const wire::ClaimRecord* head, const wire::ClaimRecord& next);
  void on_blob(const StoredBlob& blob);
  void on_stored(const storage::BlobName& blob, const wire::ClaimRecord* head);
  bool has_stored(const wire::ClaimRecord& head) const;  // Of the owner itself.
  bool was_ever_stored(const Lineage& lineage) const;
  // Of what is durable, after something was removed or lost: whether what was called STORED is there.
  void check_kept(const Lineage& lineage, const wire::ClaimRecord* head,
                  const std::vector<storage::BlobName>& durable) const;

 private:
  std::optional<std::uint64_t> floor(const wire::ClaimRecord& head) const;
  std::uint64_t state_of(const wire::ClaimBlob& blob) const;
  void check_single(const Copy& fresh) const;
  void check_move(const wire::ClaimRecord& act) const;

  std::deque<Copy> copies_;
  std::map<EcuMac, Incarnation> vouched_;
  std::map<SessionId, Instant> leased_;
  // That session, or a later one of its ECU.
  bool was_lost_since(const SessionId& session) const;
  std::set<SessionId> lost_;
  std::map<std::uint64_t, StoredBlob> blobs_;                      // By uid: all that ever were.
  std::map<Lineage, std::map<OwnerEpoch, std::uint64_t>> stored_;  // The largest state of each owner.
  std::map<std::uint64_t, ProgramId> started_;                     // By the uid of ACT.
  std::set<std::uint64_t> obeyed_;                                 // Uids of ACTs.
  struct Renewals {
    Instant last_at{};
    std::optional<Instant> back_at{};  // When one came after a gap that looked like death.
  };
  std::map<std::pair<std::string, std::uint64_t>, Renewals> member_written_;  // By life.
};

std::string describe(const wire::ClaimRecord& record);
std::string describe(const wire::EcuRecord& record);

}  // namespace cms::sim
