// Durations and sizes of the command line.
#include "rtcr-client/cli/values.h"

#include "test/fuzz/fuzz.h"

bool cms::fuzz::take(const std::uint8_t* data, std::size_t size_bytes) {
  const std::string_view text(reinterpret_cast<const char*>(data), size_bytes);
  const auto duration = cli::parse_duration(text);
  if (duration.ok()) {
    constexpr std::chrono::hours kYear(365 * 24);
    CMS_FUZZ_HOLDS(duration->count() >= 0 && *duration <= kYear, std::string(text));
    const auto again = cli::parse_duration(std::to_string(duration->count()) + "ms");
    CMS_FUZZ_HOLDS(again.ok() && *again == *duration, std::string(text));
    CMS_FUZZ_HOLDS(!cli::duration_text(*duration).empty(), std::string(text));
  } else {
    expect_error(duration.error(), {Code::kInvalidArgument}, size_bytes + 256);
  }
  const auto size = cli::parse_size(text);
  if (size.ok()) {
    CMS_FUZZ_HOLDS(*size >= 1 && *size <= std::uint64_t{1} << 50, std::string(text));
    const auto again = cli::parse_size(std::to_string(*size));
    CMS_FUZZ_HOLDS(again.ok() && *again == *size, std::string(text));
    CMS_FUZZ_HOLDS(!cli::size_text(*size).empty(), std::string(text));
  } else {
    expect_error(size.error(), {Code::kInvalidArgument}, size_bytes + 256);
  }
  return duration.ok() || size.ok();
}
