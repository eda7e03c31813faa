#pragma once
// MemberKeeper renews this cmsd's member record on the store each second and watches those of the others
// (cms/core/members.h decides what that means).
//
// Threads: loop only; reading and writing is done by a worker, one round at a time.
#include <optional>
#include <string>

#include "base/result.h"
#include "cms/core/members.h"
#include "cms/daemon/member_facts.h"
#include "cms/daemon/worker.h"
#include "storage/claim_store.h"

namespace cms::daemon {

class MemberKeeper {
 public:
  // `claims` and `outbox` outlive this.
  MemberKeeper(storage::ClaimStore& claims, Outbox& outbox, const core::Writer& me, std::string software);
  ~MemberKeeper() { stop(); }
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
  Instant next_round_at_{};
  bool running_ = false;
  bool stopped_ = false;
  Worker worker_;  // Last: its end precedes that of what it uses.
};

}  // namespace cms::daemon
