#include "rtcr-client/src/mover.h"

#include <utility>

namespace cms::client {

Mover::Mover(const MoveOptions& options, ProgramCalls& calls, Answer answer)
    : options_(options), calls_(calls), answer_(std::move(answer)) {}

void Mover::end_freezing() { ending_ = true; }

void Mover::freeze(const broker::FreezeProgram& freeze) {
  calls_.run(freeze.program_id, ProgramCalls::Kind::kFreeze,
             [this, id = freeze.id, job = MoveJob{freeze.program_id, freeze.claim}] {
               if (ending_) return;
               answer_(id, called<Result<Seq>>([&] { return options_.freeze(job); }));
             });
}

void Mover::thaw(const broker::ThawProgram& thaw) {
  calls_.run(thaw.program_id, ProgramCalls::Kind::kThaw, [this, job = MoveJob{thaw.program_id, thaw.record}] {
    const CallbackScope scope;
    options_.thaw(job);
  });
}

}  // namespace cms::client
