#pragma once
// StoreWatch opens the store, notices when it can no longer be written, and opens it again when it is
// back, so that no restart is ever needed for that. After each opening it has the claims of the store test
// whether the store can be trusted with them.
//
// Threads: loop only; the looking is done by a worker, at most one look at a time.
#include <functional>
#include <optional>

#include "base/result.h"
#include "cms/daemon/claims_facts.h"
#include "cms/daemon/scrub_facts.h"
#include "cms/daemon/worker.h"
#include "storage/blob_store.h"
#include "storage/claim_store.h"

namespace cms::daemon {

// A store that takes so long to answer is said to give none. Its calls have a longer patience: on a busy
// medium a sync takes its time, and nothing is given up before.
inline constexpr Duration kNoAnswerAfter = std::chrono::seconds(1);

class StoreWatch {
 public:
  // `on_change` runs on the loop: first when the first look has ended, then whenever the store has
  // become usable (ok) or unusable, or is unusable for another reason. So does `on_claims`: after each test
  // of the claims, or try to make one.
  StoreWatch(storage::BlobStore& store, storage::ClaimStore& claims, Outbox& outbox,
             std::function<void(Instant now, const Status& status, core::Effects& effects)> on_change,
             std::function<void(const ClaimsFacts& facts)> on_claims);
  void stop() { worker_.stop(); }

  // Looks when it is time to: at once the first time, each second while the store is unusable, each
  // two seconds otherwise.
  void on_time(Instant now);
  // Something could not be stored: looks soon.
  void suspect(Instant now);

  const Status& status() const { return status_; }
  Instant since() const { return since_; }  // Of the present status.
  // How long the look under way has waited, when that is kNoAnswerAfter or longer.
  std::optional<Duration> no_answer_for(Instant now) const;
  const std::optional<storage::SpaceInfo>& space() const { return space_; }
  const ClaimsFacts& claims() const { return claims_facts_; }
  const QuarantineFacts& quarantine() const { return quarantine_; }  // At the last look.

 private:
  void look();

  storage::BlobStore& store_;
  storage::ClaimStore& claims_;
  Outbox& outbox_;
  std::function<void(Instant, const Status&, core::Effects&)> on_change_;
  std::function<void(const ClaimsFacts&)> on_claims_;
  Status status_ = make_error(Code::kUnavailable, "the store has not been looked at yet");
  Instant since_{};
  std::optional<storage::SpaceInfo> space_;
  QuarantineFacts quarantine_;
  ClaimsFacts claims_facts_;
  Instant next_look_at_{};
  bool looked_ = false;
  bool suspected_ = true;
  bool looking_ = false;
  Instant look_began_at_{};
  Worker worker_;  // Last: its end precedes that of what it uses.
};

}  // namespace cms::daemon
