#pragma once
// RetentionKeeper is retention in a running cmsd: it judges programs when something of them was stored,
// goes through all of them from time to time (rules of time need no event to come true) and at once
// when the store is full, and does what operators ask: pins, plans, and applying them.
//
// Threads: the methods are called by the loop and do not block; the work runs on IndexKeeper's worker,
// in steps. Bounds: programs waiting to be judged are each there once; kRequestsMax of operators.
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cms/core/cms_core.h"
#include "cms/daemon/admin_answers.h"
#include "cms/daemon/index_keeper.h"
#include "cms/daemon/lineage_gate.h"
#include "cms/daemon/retention_work.h"
#include "schemas/messages.h"

namespace cms::daemon {

inline constexpr Duration kSweepInterval = std::chrono::minutes(10);
inline constexpr Duration kSweepAgainAfter =
    std::chrono::seconds(5);                                      // One that failed; a store that stays full.
inline constexpr Duration kFullInVain = std::chrono::minutes(1);  // Full, and the rules free nothing.
// So long a pin is looked at once more before it is called good: nobody who did not see it removes later.
inline constexpr Duration kPinSettle = std::chrono::seconds(1);
inline constexpr std::size_t kRequestsMax = 64;
inline constexpr std::size_t kDueAtOnceMax = 256;
inline constexpr Duration kAnswerWithin = std::chrono::milliseconds(200);

class RetentionKeeper {
 public:
  using Answer = std::function<void(const wire::AdminAnswer&)>;

  RetentionKeeper(core::CmsCore& core, storage::BlobStore& store, storage::CheckpointIndex& index,
                  LineageGate& gate, Outbox& outbox, IndexKeeper& keeper,
                  const core::RetentionPolicy& policy);

  // ---- effects of the core
  void apply(const core::ApplyRetention& effect);
  void free_space();
  void note_removed(core::NoteRemoved effect);
  void note_pinned(core::NotePinned effect);

  // ---- time and people
  // `usable`: the store is, and the index has been compared with all of it.
  void on_time(Instant now, bool usable);
  static bool answers(wire::AdminMethod method);
  // `then` is called once, on the loop.
  void on_request(const wire::AdminRequest& request, Answer then);

  DaemonFacts::Retention facts(Instant now) const;  // For `status`.

 private:
  struct Request;
  struct Sweep;
  RetentionNow now() const;
  // All but what the claim rules hold: everything while a claim is open, else the owner's two newest, and what it was
  // restored from while it has none of its own.
  std::vector<Status> remove_unclaimed(const std::vector<storage::BlobName>& names);
  void judge_due();
  void start_sweep(bool full);
  void sweep_on(std::shared_ptr<Sweep> sweep);
  void tell(const std::vector<Removal>& removed, core::Effects& effects);
  void walk(std::shared_ptr<Request> request);
  void pin(std::shared_ptr<Request> request);
  void look_at_pin(std::shared_ptr<Request> request);
  void unpin(std::shared_ptr<Request> request);
  void refuse(const std::shared_ptr<Request>& request, const Error& error);
  void end(const std::shared_ptr<Request>& request, wire::AdminAnswer answer);

  core::CmsCore& core_;
  storage::BlobStore& store_;
  storage::CheckpointIndex& index_;
  LineageGate& gate_;
  Outbox& outbox_;
  IndexKeeper& keeper_;
  const core::RetentionPolicy policy_;
  RetentionWork work_;            // The worker's.
  DaemonFacts::Retention facts_;  // But for the times.
  std::optional<Instant> last_sweep_at_;
  Instant next_sweep_at_{};
  Instant next_full_at_{};
  std::set<ProgramKey> due_;
  bool judging_ = false;
  bool full_wanted_ = false;
  std::size_t request_count_ = 0;
  std::deque<std::pair<Instant, std::shared_ptr<Request>>> unsettled_;  // Pins to be looked at again.
};

}  // namespace cms::daemon
