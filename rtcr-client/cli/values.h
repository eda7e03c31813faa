#pragma once
// How durations and sizes are written on the command line.
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace cms::cli {

// "500ms", "30s", "2m" or "1h"; at most a year. kInvalidArgument says what is allowed.
Result<std::chrono::milliseconds> parse_duration(std::string_view text);
// "4096", "64KiB", "256MiB" or "4GiB", from 1; at most 1 PiB.
Result<std::uint64_t> parse_size(std::string_view text);

// For people: "1.5 GiB", "512 B"; "30 s", "1.5 s", "500 ms".
std::string size_text(std::uint64_t size_bytes);
std::string duration_text(std::chrono::milliseconds duration);

}  // namespace cms::cli
