#include "broker/core/frozen_programs.h"

#include <algorithm>
#include <utility>

#include "base/assert.h"

namespace cms::broker {

using wire::FreezeState;

// ---- commands

void FrozenPrograms::on_freeze(CmsIndex cms, const wire::Freeze& freeze,
                               const std::optional<LastCheckpoint>& published, FreezeEffects& effects) {
  CMS_ASSERT(freeze.claim.slot > 0);
  const auto it = lineages_.try_emplace(freeze.claim.lineage).first;
  Entry& entry = it->second;
  const bool newer = freeze.claim.slot > std::max(entry.claim.slot, entry.thawed.slot);
  const bool starts = newer && !is_open(entry);
  if (starts) {
    entry.claim = freeze.claim;
    entry.program_id = freeze.program_id;
    if (const Status startable = check_startable(freeze, published); startable.ok()) {
      ended_.erase(std::exchange(entry.end_order, 0));
      entry.state = FreezeState::kFreezing;
      entry.id = ++last_id_;
      open_[entry.program_id] = it->first;
      effects.push_back(FreezeProgram{entry.id, entry.program_id, entry.claim});
    } else {
      refuse(it, startable.code(), startable.error().context);
    }
  } else if (newer && freeze.program_id == entry.program_id) {
    entry.claim = freeze.claim;  // It stays so, now for this one.
  }
  effects.push_back(SendFreezeReport{cms, starts, report_of(entry)});
}

Status FrozenPrograms::check_startable(const wire::Freeze& freeze,
                                       const std::optional<LastCheckpoint>& published) const {
  const std::string program = "program " + std::to_string(freeze.program_id);
  if (!published) return make_error(Code::kNotFound, program + " of this lineage is not published here");
  if (freeze.claim.slot <= published->owner_epoch)
    return make_error(Code::kSuperseded,
                      program + " came here by slot " + std::to_string(published->owner_epoch) + ", later");
  if (is_open(freeze.program_id))
    return make_error(Code::kAlreadyExists, program + " is frozen for a claim of its former lineage");
  if (open_.size() >= kFrozenCountMax)
    return make_error(Code::kLimit, std::to_string(open_.size()) + " programs are frozen");
  return ok_status();
}

void FrozenPrograms::on_thaw(CmsIndex cms, const wire::Thaw& thaw, FreezeEffects& effects) {
  CMS_ASSERT(thaw.record.slot > 0);
  const auto it = lineages_.try_emplace(thaw.record.lineage).first;
  Entry& entry = it->second;
  // A copy of before the program came back under another program_id: that one is fenced, never thawed.
  const bool another = is_open(entry) && entry.program_id != thaw.program_id;
  const bool newer = !another && thaw.record.slot > std::max(entry.claim.slot, entry.thawed.slot);
  const bool was_frozen = entry.state == FreezeState::kFrozen;
  if (newer) {
    entry.thawed = thaw.record;
    if (was_frozen) {
      this->thaw(it, effects);
    } else if (!is_open(entry)) {
      entry.program_id = thaw.program_id;
      end(it, FreezeState::kThawed);
    }  // While it is freezing the RTCR's answer is waited for.
  }
  effects.push_back(SendFreezeReport{cms, newer && was_frozen, report_of(it->second)});
}

// ---- what becomes of it

void FrozenPrograms::on_frozen(FreezeId id, const Result<Seq>& seq,
                               const std::optional<LastCheckpoint>& published, FreezeEffects& effects) {
  const auto freezing = find(id);
  if (!freezing) return;
  const auto it = lineages_.find(freezing->lineage);
  Entry& entry = it->second;
  if (entry.state != FreezeState::kFreezing) return;
  if (entry.thawed.slot > entry.claim.slot) {  // The move was over before the program stood still.
    if (seq.ok()) {
      thaw(it, effects);
    } else {
      end(it, FreezeState::kThawed);
    }
  } else if (!seq.ok()) {
    refuse(it, seq.error().code, seq.error().context);
  } else if (!published || published->version.seq != *seq) {
    effects.push_back(ThawProgram{id, entry.program_id, entry.claim});
    refuse(it, Code::kInvalidArgument,
           "seq " + std::to_string(*seq) + " is not that of the last checkpoint of program " +
               std::to_string(entry.program_id));
  } else {
    entry.state = FreezeState::kFrozen;
    entry.last = *published;
  }
  effects.push_back(SendFreezeReport{{}, true, report_of(it->second)});
}

void FrozenPrograms::on_last_checkpoint(ProgramId program_id, const LastCheckpoint& last,
                                        FreezeEffects& effects) {
  if (!is_frozen(program_id)) return;
  Entry& entry = lineages_.at(open_.at(program_id));
  CMS_ASSERT(entry.last.version.seq == last.version.seq);  // Nothing is published of what is frozen.
  if (entry.last.version == last.version && entry.last.lost == last.lost) return;
  entry.last = last;
  effects.push_back(SendFreezeReport{{}, true, report_of(entry)});
}

void FrozenPrograms::on_program_ended(ProgramId program_id) {
  const auto lineage = open_.find(program_id);
  if (lineage == open_.end()) return;
  const auto it = lineages_.find(lineage->second);
  if (it->second.thawed.slot > it->second.claim.slot) {
    end(it, FreezeState::kThawed);
  } else {
    refuse(it, Code::kNotFound, "program " + std::to_string(program_id) + " has ended here");
  }
}

void FrozenPrograms::thaw(Lineages::iterator it, FreezeEffects& effects) {
  const Entry& entry = it->second;
  CMS_ASSERT(entry.thawed.slot > entry.claim.slot);
  effects.push_back(ThawProgram{entry.id, entry.program_id, entry.thawed});
  end(it, FreezeState::kThawed);
}

void FrozenPrograms::refuse(Lineages::iterator it, Code code, std::string context) {
  it->second.code = code;
  it->second.context = std::move(context);
  end(it, FreezeState::kRefused);
}

void FrozenPrograms::end(Lineages::iterator it, FreezeState state) {
  Entry& entry = it->second;
  CMS_ASSERT(state == FreezeState::kRefused || state == FreezeState::kThawed);
  if (is_open(entry)) open_.erase(entry.program_id);
  entry.state = state;
  ended_.erase(entry.end_order);
  entry.end_order = ++last_end_order_;
  ended_[entry.end_order] = it->first;
  if (ended_.size() <= kThawedCountMax) return;
  lineages_.erase(ended_.begin()->second);
  ended_.erase(ended_.begin());
}

// ---- what is told

wire::FreezeReport FrozenPrograms::report_of(const Entry& entry) {
  wire::FreezeReport report;
  report.state = entry.state;
  report.claim = entry.state == FreezeState::kThawed ? entry.thawed : entry.claim;
  report.program_id = entry.program_id;
  if (entry.state == FreezeState::kFrozen) {
    report.last = entry.last.version;
    report.code = entry.last.lost;
    if (report.code != Code::kOk)
      report.context =
          "its last checkpoint ended without being stored: " + std::string(to_string(report.code));
  } else if (entry.state == FreezeState::kRefused) {
    report.code = entry.code;
    report.context = entry.context;
  }
  return report;
}

void FrozenPrograms::tell(CmsIndex cms, FreezeEffects& effects) const {
  for (const auto& [program_id, lineage] : open_) {
    const Entry& entry = lineages_.at(lineage);
    if (entry.state == FreezeState::kFrozen)
      effects.push_back(SendFreezeReport{cms, false, report_of(entry)});
  }
}

bool FrozenPrograms::is_open(const Entry& entry) {
  return entry.state == FreezeState::kFreezing || entry.state == FreezeState::kFrozen;
}

bool FrozenPrograms::is_frozen(ProgramId program_id) const {
  const auto lineage = open_.find(program_id);
  return lineage != open_.end() && lineages_.at(lineage->second).state == FreezeState::kFrozen;
}

std::vector<FrozenPrograms::Freezing> FrozenPrograms::open() const {
  std::vector<Freezing> result;
  for (const auto& [program_id, lineage] : open_) result.push_back(Freezing{program_id, lineage});
  return result;
}

std::optional<std::uint64_t> FrozenPrograms::claim_slot_of(ProgramId program_id) const {
  const auto lineage = open_.find(program_id);
  if (lineage == open_.end()) return std::nullopt;
  return lineages_.at(lineage->second).claim.slot;
}

std::optional<FrozenPrograms::Freezing> FrozenPrograms::find(FreezeId id) const {
  for (const auto& [program_id, lineage] : open_) {
    if (lineages_.at(lineage).id == id) return Freezing{program_id, lineage};
  }
  return std::nullopt;
}

}  // namespace cms::broker
