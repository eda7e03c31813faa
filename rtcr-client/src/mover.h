#pragma once
// Mover is the MoveHandler of the library: it lets the RTCR's callbacks freeze and thaw programs.
//
// Threads: the functions of MoveHandler on the client's thread; the callbacks on those of ProgramCalls. Lifetime:
// destroy it when the loop and the calls have ended.
#include <atomic>
#include <functional>

#include "base/ids.h"
#include "base/result.h"
#include "broker/shell/ecu_loop.h"
#include "rtcr-client/src/call_threads.h"
#include "rtcr-client/src/program_calls.h"
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
  // On a thread of the calls: EcuLoop::frozen.
  using Answer = std::function<void(broker::FreezeId id, const Result<Seq>& last_seq)>;

  Mover(const MoveOptions& options, ProgramCalls& calls, Answer answer);
  Mover(const Mover&) = delete;
  Mover& operator=(const Mover&) = delete;
  ~Mover() override = default;

  // Any thread. A freeze that has not begun is not called any more.
  void end_freezing();
  void freeze(const broker::FreezeProgram& freeze) override;
  void thaw(const broker::ThawProgram& thaw) override;

 private:
  const MoveOptions options_;
  ProgramCalls& calls_;
  const Answer answer_;
  std::atomic<bool> ending_{false};
};

}  // namespace cms::client
