#pragma once
// Mover is the MoveHandler of the library: it lets the RTCR's callbacks freeze and thaw programs. Those may
// take their time, so they run on threads of its own.
//
// Threads: the functions of MoveHandler on the client's thread; the callbacks on up to thread_count others,
// those of one program one after the other, in the order of the commands. Lifetime: destroy it when the loop
// has ended and still lives; it waits for the callbacks.
#include <deque>
#include <functional>
#include <map>
#include <mutex>

#include "base/ids.h"
#include "base/result.h"
#include "broker/shell/ecu_loop.h"
#include "rtcr-client/src/call_threads.h"
#include "schemas/messages.h"

namespace cms::client {

// What a callback is told.
struct MoveJob {
  ProgramId program_id = 0;
  wire::ClaimRef claim{};  // At a thaw the record that ends it.
};

struct MoveOptions {
  unsigned thread_count = kCallThreadCount;
  // Neither may throw. The seq is that of the program's last checkpoint.
  std::function<Result<Seq>(const MoveJob&)> freeze{};
  std::function<void(const MoveJob&)> thaw{};
};

class Mover final : public broker::MoveHandler {
 public:
  // On a thread of the Mover: EcuLoop::frozen.
  using Answer = std::function<void(broker::FreezeId id, const Result<Seq>& last_seq)>;

  Mover(const MoveOptions& options, Answer answer);
  Mover(const Mover&) = delete;
  Mover& operator=(const Mover&) = delete;
  ~Mover() override = default;

  // Any thread. A freeze that has not begun is not called any more.
  void end_freezing();
  void freeze(const broker::FreezeProgram& freeze) override;
  void thaw(const broker::ThawProgram& thaw) override;

 private:
  void run_in_order(ProgramId program_id, std::function<void()> call);
  void run_calls_of(ProgramId program_id);

  const MoveOptions options_;
  const Answer answer_;
  std::mutex mutex_{};  // Guards what follows up to the threads.
  // Of programs that have a call running: those that wait for its end, at most two.
  std::map<ProgramId, std::deque<std::function<void()>>> waiting_{};
  bool ending_ = false;
  CallThreads threads_;  // Last: they use what is above.
};

}  // namespace cms::client
