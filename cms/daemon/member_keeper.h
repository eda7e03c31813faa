#pragma once
// MemberKeeper renews this cmsd's member record on the store each second and watches those of the others
// (cms/core/members.h decides what that means).
//
// Threads: loop only; reading and writing is done by a worker, one round at a time.
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "cms/core/members.h"
#include "cms/daemon/member_facts.h"
#include "cms/daemon/worker.h"
#include "storage/claim_store.h"

namespace cms::daemon {

// Who has a word in our record, and looks at those of the others. Called on the loop.
class MemberWatcher {
 public:
  virtual ~MemberWatcher() = default;
  virtual std::vector<SessionId> bars() = 0;
  // A record with those bars, sent at `sent_at`, was durable at `durable_at`.
  virtual void on_written(Instant sent_at, Instant durable_at, Instant now,
                          const std::vector<SessionId>& bars) = 0;
  virtual void on_read(Instant begun_at, Instant now, core::Effects& effects) = 0;

 protected:
  MemberWatcher() = default;
  MemberWatcher(const MemberWatcher&) = default;
  MemberWatcher& operator=(const MemberWatcher&) = default;
};

class MemberKeeper {
 public:
  // `claims` and `outbox` outlive this.
  MemberKeeper(storage::ClaimStore& claims, Outbox& outbox, const core::Writer& me, std::string software);
  ~MemberKeeper() { stop(); }
  // Once, first; it outlives this.
  void set_watcher(MemberWatcher* watcher) { watcher_ = watcher; }
  // The next round is due now.
  void renew_soon() { next_round_at_ = Instant{}; }
  // Says in our record that we end, if the store answers; what is under way is waited for. Idempotent.
  void stop();

  // Once a turn of the loop. `store_usable`: it can be reached; else only our own time runs on. Begins a round each second.
  void on_time(Instant now, bool store_usable);

  const core::Members& members() const { return members_; }
  MembersFacts facts(Instant now) const;

 private:
  void round(Instant now);

  storage::ClaimStore& claims_;
  Outbox& outbox_;
  const core::Writer me_;
  const std::string software_;
  core::Members members_;
  Status status_ = make_error(Code::kUnavailable, "not yet written");  // How the last round ended.
  MemberWatcher* watcher_ = nullptr;
  Instant next_round_at_{};
  bool running_ = false;
  bool stopped_ = false;
  Worker worker_;  // Last: its end precedes that of what it uses.
};

}  // namespace cms::daemon
