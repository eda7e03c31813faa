#include "broker/core/guarded_programs.h"

#include <algorithm>

#include "base/assert.h"

namespace cms::broker {

void GuardedPrograms::note(ProgramId program_id, Lineage lineage, OwnerEpoch owner_epoch,
                           wire::OnIsolation on_isolation) {
  CMS_ASSERT(lineage != Lineage{});
  Program& program = programs_[program_id];
  if (program.lineage != lineage) program = Program{};
  program.lineage = lineage;
  program.owner_epoch = owner_epoch;
  program.stops = program.stops || on_isolation == wire::OnIsolation::kStop;
}

void GuardedPrograms::note_policy(ProgramId program_id, Lineage lineage, wire::OnIsolation on_isolation) {
  const auto it = programs_.find(program_id);
  if (it == programs_.end() || it->second.lineage != lineage) return;
  it->second.stops = it->second.stops || on_isolation == wire::OnIsolation::kStop;
}

void GuardedPrograms::stop(ProgramId program_id, StopEffects& effects) {
  Program& program = programs_.at(program_id);
  if (!program.stops) return;
  program.resumes = false;
  if (program.stopped) return;
  program.stopped = true;
  ++stopping_[program_id].unanswered_count;
  effects.push_back(StopProgram{program_id});
}

void GuardedPrograms::on_stopped(Instant now, ProgramId program_id, const Status& status) {
  const auto it = stopping_.find(program_id);
  if (it == stopping_.end()) return;
  Stopping& stopping = it->second;
  CMS_ASSERT(stopping.unanswered_count > 0);
  const bool matters = programs_.count(program_id) != 0;  // Else it is the RTCR's to end it: it is not ours.
  if (!status.ok() && matters) {
    stopping.retry_at = now + kStopRetry;
  } else if (--stopping.unanswered_count == 0) {
    stopping_.erase(it);
  }
}

void GuardedPrograms::on_time(Instant now, StopEffects& effects) {
  for (auto& [program_id, stopping] : stopping_) {
    if (now < stopping.retry_at) continue;
    stopping.retry_at = kNever;
    effects.push_back(StopProgram{program_id});
  }
}

Instant GuardedPrograms::next_deadline() const {
  Instant deadline = kNever;
  for (const auto& [program_id, stopping] : stopping_) deadline = std::min(deadline, stopping.retry_at);
  return deadline;
}

bool GuardedPrograms::hold(const ThawProgram& thaw) {
  const auto it = programs_.find(thaw.program_id);
  if (it == programs_.end() || !it->second.stopped) return false;
  it->second.thaw = thaw;
  return true;
}

void GuardedPrograms::want_resume(ProgramId program_id) {
  Program& program = programs_.at(program_id);
  program.resumes = program.stopped;
}

bool GuardedPrograms::can_resume(ProgramId program_id) const {
  const Program* const program = find(program_id);
  return program != nullptr && program->stopped && program->resumes && stopping_.count(program_id) == 0;
}

void GuardedPrograms::resume(ProgramId program_id, StopEffects& effects) {
  CMS_ASSERT(can_resume(program_id));
  Program& program = programs_.at(program_id);
  program.stopped = false;
  program.resumes = false;
  if (program.thaw) effects.push_back(*program.thaw);
  program.thaw.reset();
  effects.push_back(ResumeProgram{program_id});
}

const GuardedPrograms::Program* GuardedPrograms::find(ProgramId program_id) const {
  const auto it = programs_.find(program_id);
  return it == programs_.end() ? nullptr : &it->second;
}

bool GuardedPrograms::is_stopped(ProgramId program_id) const {
  const Program* const program = find(program_id);
  return program != nullptr && program->stopped;
}

}  // namespace cms::broker
