#pragma once
// GuardedPrograms knows what runs at a guarded session (docs/adr/0015), without any I/O: what a CMS is told when it
// asks for the programs, which of them stop when the run lease ends, and which stand still for want of one.
// - Nothing that may run is missing here: an entry goes only when its program has ended, was withdrawn, or was fenced.
// - The strictest on_isolation that was heard of a program counts, for as long as its lineage is here.
// - A stopped program goes on only by resume(), after the RTCR has confirmed that it stood still; and when it was
//   frozen for a move that is over, it is thawed then and not before.
//
// Threads: none; one caller at a time. Bounds: kGuardedProgramCountMax; who adds asks has_room_for() first.
#include <cstddef>
#include <map>
#include <optional>
#include <set>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "base/time.h"
#include "broker/core/frozen_programs.h"
#include "schemas/messages.h"

namespace cms::broker {

// What is published; what is restored has its own bound (kRestoreRunningCountMax) and comes on top.
inline constexpr std::size_t kGuardedProgramCountMax = 65536;
// A stop that failed is tried again after so long.
inline constexpr Duration kStopRetry = std::chrono::seconds(1);

// ---- effects for the RTCR
struct StopProgram {  // For want of a run lease. Ends with on_stopped().
  ProgramId program_id = 0;
};
struct ResumeProgram {  // It goes on.
  ProgramId program_id = 0;
};
using StopEffect = std::variant<StopProgram, ResumeProgram, ThawProgram>;
using StopEffects = std::vector<StopEffect>;

class GuardedPrograms {
 public:
  struct Program {
    Lineage lineage{};  // Never zero.
    OwnerEpoch owner_epoch = 0;
    bool stops = false;                 // Its on_isolation.
    bool stopped = false;               // Or on its way there: it does not go on by itself.
    bool resumes = false;               // As soon as it stands still.
    std::optional<ThawProgram> thaw{};  // When it is resumed.
  };

  bool has_room_for(ProgramId program_id) const {
    return programs_.size() < kGuardedProgramCountMax || programs_.count(program_id) != 0;
  }
  // It runs here, or was published by what runs here. With another lineage it is another program.
  void note(ProgramId program_id, Lineage lineage, OwnerEpoch owner_epoch, wire::OnIsolation on_isolation);
  // What the log says. Not of a program that is not here.
  void note_policy(ProgramId program_id, Lineage lineage, wire::OnIsolation on_isolation);
  // It is here no more. Whether it has stopped is still waited for.
  void on_ended(ProgramId program_id);

  // Stops it if its policy says so.
  void stop(ProgramId program_id, StopEffects& effects);
  // The RTCR's answer. An error: it may still run; stop is tried again.
  void on_stopped(Instant now, ProgramId program_id, const Status& status);
  void on_time(Instant now, StopEffects& effects);
  Instant next_deadline() const;
  // Whether the thaw waits until the program is resumed.
  bool hold(const ThawProgram& thaw);
  // A stopped program is to go on, once it stands still.
  void want_resume(ProgramId program_id);
  bool can_resume(ProgramId program_id) const;
  void resume(ProgramId program_id, StopEffects& effects);

  // nullptr: not here.
  const Program* find(ProgramId program_id) const;
  bool is_stopped(ProgramId program_id) const;
  // For certain: the RTCR has said so.
  bool stands_still(ProgramId program_id) const { return is_stopped(program_id) && !is_stopping(program_id); }
  // It was told to, and the RTCR has not said that it has.
  bool is_stopping(ProgramId program_id) const { return stopping_.count(program_id) != 0; }
  // Told to stop, and the RTCR has not said that it has.
  std::size_t stopping_count() const { return stopping_.size(); }
  // Whether there is one that stops when the lease ends, and has not been told to.
  bool any_to_stop() const { return !to_stop_.empty(); }
  const std::map<ProgramId, Program>& all() const { return programs_; }

 private:
  struct Stopping {
    std::size_t unanswered_count = 0;  // More than one when another program has the program_id since.
    Instant retry_at = kNever;
  };

  void sort_in(ProgramId program_id, const Program& program);

  std::map<ProgramId, Program> programs_{};
  std::map<ProgramId, Stopping> stopping_{};
  std::set<ProgramId> to_stop_{};
};

}  // namespace cms::broker
