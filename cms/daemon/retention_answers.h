#pragma once
// What cms-admin is told of retention: JSON as cms/admin/README.md describes it, and the texts by which
// one page tells where the next goes on.
//
// Threads: pure functions.
#include <cstdint>
#include <string>
#include <vector>

#include "cms/daemon/retention_work.h"
#include "schemas/messages.h"

namespace cms::daemon {

inline constexpr std::size_t kPlanListedMax = 5000;  // Of one page; all are counted.

std::string pinned_json(const CheckpointId& checkpoint, bool pinned);

// A page of a plan, or of what was removed. `rows_judged` of `rows_total`: how far it has come.
std::string removals_json(const wire::AdminRequest& request, const std::vector<Removal>& removed,
                          std::uint64_t rows_judged, std::uint64_t rows_total, std::uint64_t wall_us);

// AdminAnswer::next for a run that may stop, and the way back. kInvalidArgument: not such a text.
std::string position_of(const RetentionWork::Run& run);
Status start_at(const std::string& position, RetentionWork::Run& run);

}  // namespace cms::daemon
