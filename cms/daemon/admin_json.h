#pragma once
// Internal to the admin answers: how values are written as JSON (cms/admin/README.md).
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "base/ids.h"
#include "base/time.h"
#include "cms/daemon/admin_answers.h"
#include "storage/checkpoint_index.h"

namespace cms::daemon {

using Json = nlohmann::ordered_json;

std::string dump(const Json& json);
// RFC 3339 with milliseconds; null for 0, which means: not known.
Json time_json(std::uint64_t at_us);
Json age_json(std::uint64_t wall_us, std::uint64_t at_us);  // Seconds; null when `at_us` is not known.
Json seconds_json(Duration duration);
std::int64_t milliseconds(Duration duration);
const char* to_text(CoreSnapshot::State state);
Json identity_json(const CheckpointId& checkpoint);

// admin_status.cc
std::string status_json(const CoreSnapshot& snapshot, storage::CheckpointIndex& index);

}  // namespace cms::daemon
