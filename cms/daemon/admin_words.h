#pragma once
// The words and numbers in which answers of the admin channel tell states and progress; admin_answers.cc
// writes them as JSON.
//
// Threads: none; pure functions.
#include <cstdint>
#include <optional>
#include <vector>

#include "base/time.h"
#include "cms/daemon/admin_answers.h"
#include "cms/daemon/admin_findings.h"

namespace cms::daemon {

const char* to_text(CoreSnapshot::State state);
const char* to_text(CoreSnapshot::Peer::State state);
const char* to_text(ScrubRun::State state);
const char* scrub_state(const ScrubFacts& scrub);
const char* index_state(const DaemonFacts& facts);
const char* health_of(const std::vector<Problem>& problems);

std::int64_t milliseconds(Duration duration);  // Never negative.
double seconds_in(Duration duration);
std::uint64_t per_second(std::uint64_t count, Duration duration);
// What is left when so many of all took so long; nullopt: it cannot be told yet.
std::optional<std::uint64_t> seconds_left(std::uint64_t done, std::uint64_t total, Duration took);

}  // namespace cms::daemon
