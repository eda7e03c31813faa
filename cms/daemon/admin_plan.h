#pragma once
// Where all programs of an ECU would go if it were lost now: a dry run of what `ecu failed` would begin.
//
// Threads: a pure function; it takes as long as programs times ECUs make it: for a worker.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cms/core/placement.h"
#include "cms/daemon/lost_programs.h"
#include "schemas/messages.h"

namespace cms::daemon {

inline constexpr std::size_t kPlanProgramsShownMax = 5000;  // Of one answer; all are counted.
inline constexpr std::size_t kPlanVerdictsShownMax =
    20;  // ECUs of one program without a target; all are counted.

struct PlanFacts {
  LostPrograms lost;
  std::vector<core::Candidate> candidates;  // With what was just placed there.
  core::PlacementPolicy policy;
  std::vector<std::string> leaves_groups;  // Of the ECU.
  bool has_session = false;                // The ECU, here.
  std::uint64_t wall_us = 0;
};
// Each program is placed as a restore would, the most urgent first, and counts for the next ones. kNotFound: the
// ECU is not known. kCancelled: `stopping` said so.
wire::AdminAnswer plan(const wire::AdminRequest& request, PlanFacts facts,
                       const std::function<bool()>& stopping);

}  // namespace cms::daemon
