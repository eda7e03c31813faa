#pragma once
// Stopper is the LeaseHandler of the library: it lets the RTCR's callbacks stop programs when the run lease of a guarded
// session ends, and let them go on.
//
// Threads: the functions of LeaseHandler on the client's thread, where on_lease is called too; stop and resume on those
// of ProgramCalls. Lifetime: destroy it when the loop and the calls have ended.
#include <functional>
#include <string>

#include "base/ids.h"
#include "base/result.h"
#include "broker/shell/ecu_loop.h"
#include "rtcr-client/src/call_threads.h"
#include "rtcr-client/src/program_calls.h"
#include "schemas/messages.h"

namespace cms::client {

struct LeaseOptions {
  unsigned thread_count = kCallThreadCount;
  wire::Enforcer enforcer = wire::Enforcer::kNone;
  std::string boot_id{};  // Empty: the kernel's.
  // None may throw. An error: it may still run.
  std::function<Status(ProgramId)> stop{};
  std::function<void(ProgramId)> resume{};
  std::function<void(const broker::LeaseChanged&)> on_lease{};  // May be empty.
};

class Stopper final : public broker::LeaseHandler {
 public:
  // On a thread of the calls: EcuLoop::stopped.
  using Answer = std::function<void(ProgramId program_id, const Status& status)>;

  Stopper(const LeaseOptions& options, ProgramCalls& calls, Answer answer)
      : options_(options), calls_(calls), answer_(std::move(answer)) {}
  Stopper(const Stopper&) = delete;
  Stopper& operator=(const Stopper&) = delete;
  ~Stopper() override = default;

  void stop(ProgramId program_id) override;
  void resume(ProgramId program_id) override;
  void lease_changed(const broker::LeaseChanged& lease) override;

 private:
  const LeaseOptions options_;
  ProgramCalls& calls_;
  const Answer answer_;
};

}  // namespace cms::client
