#include "rtcr-client/src/program_calls.h"

#include <algorithm>
#include <exception>
#include <utility>

namespace cms::client {

void ProgramCalls::run(ProgramId program_id, Kind kind, std::function<void()> call) {
  const bool is_move = kind == Kind::kFreeze || kind == Kind::kThaw;
  CallThreads& threads = is_move ? move_threads_ : lease_threads_;
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto [it, idle] = queues_.try_emplace(program_id);
  Queue& queue = it->second;
  if (idle) {
    queue.running = kind;  // As good as begun.
    queue.waiting.push_back(Call{kind, std::move(call)});
    threads.run_soon([this, program_id] { run_calls_of(program_id); });
    return;
  }
  if (kind != Kind::kStop) {
    queue.waiting.push_back(Call{kind, std::move(call)});
    return;
  }
  const auto after = std::find_if(queue.waiting.rbegin(), queue.waiting.rend(), [](const Call& waiting) {
                       return waiting.kind != Kind::kFreeze;
                     }).base();
  if (after == queue.waiting.begin() && queue.running == Kind::kFreeze) {
    threads.run_soon(std::move(call));  // Beside it.
  } else {
    queue.waiting.insert(after, Call{kind, std::move(call)});
  }
}

void ProgramCalls::finish() {
  move_threads_.finish();
  lease_threads_.finish();
}

void ProgramCalls::run_calls_of(ProgramId program_id) {
  std::unique_lock<std::mutex> lock(mutex_);
  Queue& queue = queues_.at(program_id);
  while (!queue.waiting.empty()) {
    const Call call = std::move(queue.waiting.front());
    queue.waiting.pop_front();
    queue.running = call.kind;
    lock.unlock();
    try {
      call.run();
    } catch (const std::exception&) {
      // Out of memory. Its freeze or stop stays unanswered; what comes after it must be called.
    }
    lock.lock();
  }
  queues_.erase(program_id);
}

}  // namespace cms::client
