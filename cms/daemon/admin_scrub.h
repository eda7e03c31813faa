#pragma once
// The JSON about scrubbing, quarantine and the making of the index. cms/admin/README.md describes it.
//
// Threads: pure functions.
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "cms/daemon/admin_answers.h"

namespace cms::daemon {

// RFC 3339 with milliseconds; null for 0, which means: not known.
nlohmann::ordered_json time_json(std::uint64_t at_us);

// As in `status`.
nlohmann::ordered_json index_json(const DaemonFacts& facts);
nlohmann::ordered_json scrub_json(const DaemonFacts& facts);
nlohmann::ordered_json quarantine_json(const QuarantineFacts& quarantine);

}  // namespace cms::daemon
