#include "rtcr-client/src/mover.h"

#include <exception>
#include <utility>

namespace cms::client {

Mover::Mover(const MoveOptions& options, Answer answer)
    : options_(options), answer_(std::move(answer)), threads_("rtcr-move", options.thread_count) {}

void Mover::end_freezing() {
  const std::lock_guard<std::mutex> lock(mutex_);
  ending_ = true;
}

void Mover::freeze(const broker::FreezeProgram& freeze) {
  run_in_order(freeze.program_id, [this, id = freeze.id, job = MoveJob{freeze.program_id, freeze.claim}] {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (ending_) return;
    }
    answer_(id, called<Result<Seq>>([&] { return options_.freeze(job); }));
  });
}

void Mover::thaw(const broker::ThawProgram& thaw) {
  run_in_order(thaw.program_id, [this, job = MoveJob{thaw.program_id, thaw.record}] {
    const CallbackScope scope;
    options_.thaw(job);
  });
}

void Mover::run_in_order(ProgramId program_id, std::function<void()> call) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto [it, idle] = waiting_.try_emplace(program_id);
  it->second.push_back(std::move(call));
  if (idle) threads_.run_soon([this, program_id] { run_calls_of(program_id); });
}

void Mover::run_calls_of(ProgramId program_id) {
  std::unique_lock<std::mutex> lock(mutex_);
  auto& calls = waiting_.at(program_id);
  while (!calls.empty()) {
    const std::function<void()> call = std::move(calls.front());
    calls.pop_front();
    lock.unlock();
    try {
      call();
    } catch (const std::exception&) {
      // Out of memory. Its freeze stays unanswered; what comes after it is a thaw, and must be called.
    }
    lock.lock();
  }
  waiting_.erase(program_id);
}

}  // namespace cms::client
