#pragma once
// The parts that several answers of the admin channel are made of, as JSON.
//
// Threads: none; pure functions.
#include <cstdint>
#include <optional>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "base/ids.h"
#include "base/time.h"
#include "cms/daemon/admin_answers.h"

namespace cms::daemon {

using Json = nlohmann::ordered_json;

std::string dump(const Json& json);   // On one line; what is no UTF-8 is replaced.
Json time_json(std::uint64_t at_us);  // Null: before or after what a calendar has.
Json optional_json(const std::optional<std::uint64_t>& value);
Json age_json(std::uint64_t wall_us, std::uint64_t at_us);  // Seconds.
Json seconds_json(Duration duration);
Json identity_json(const CheckpointId& checkpoint);

// The index, and how far its making has come.
Json index_object(const DaemonFacts& facts);
Json quarantine_object(const QuarantineFacts& quarantine);
Json scrub_object(const DaemonFacts& facts);
Json run_json(const ScrubRun& run);

}  // namespace cms::daemon
