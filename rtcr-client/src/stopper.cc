#include "rtcr-client/src/stopper.h"

#include "rtcr-client/src/callback_scope.h"

namespace cms::client {

void Stopper::stop(ProgramId program_id) {
  calls_.run(program_id, ProgramCalls::Kind::kStop, [this, program_id] {
    answer_(program_id, called<Status>([&] { return options_.stop(program_id); }));
  });
}

void Stopper::resume(ProgramId program_id) {
  calls_.run(program_id, ProgramCalls::Kind::kResume, [this, program_id] {
    const CallbackScope scope;
    options_.resume(program_id);
  });
}

void Stopper::lease_changed(const broker::LeaseChanged& lease) {
  if (!options_.on_lease) return;
  const CallbackScope scope;
  options_.on_lease(lease);
}

}  // namespace cms::client
