#include "rtcr-client/cli/values.h"

#include <array>
#include <cstdio>

#include "base/ids.h"

namespace cms::cli {
namespace {

struct Unit {
  std::string_view name;
  std::uint64_t factor;
};
constexpr std::array<Unit, 4> kTimes{{{"ms", 1}, {"s", 1000}, {"m", 60 * 1000}, {"h", 60 * 60 * 1000}}};
constexpr std::array<Unit, 4> kSizes{
    {{"", 1}, {"KiB", 1024}, {"MiB", std::uint64_t{1} << 20}, {"GiB", std::uint64_t{1} << 30}}};
constexpr std::uint64_t kDurationMsMax = std::uint64_t{365} * 24 * 60 * 60 * 1000;
constexpr std::uint64_t kSizeBytesMax = std::uint64_t{1} << 50;

// The number times its unit; nullopt-like failure when there is none of the units, or beyond `max`.
Result<std::uint64_t> parse(std::string_view text, const std::array<Unit, 4>& units, std::uint64_t max,
                            const char* what, const char* allowed) {
  const std::size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  const auto number = parse_u64(text.substr(0, digits));
  for (const Unit& unit : units) {
    if (number.ok() && text.substr(digits) == unit.name && *number <= max / unit.factor)
      return *number * unit.factor;
  }
  return make_error(Code::kInvalidArgument,
                    "'" + std::string(text) + "' is not a " + what + " (allowed: " + allowed + ")");
}

std::string with_one_decimal(double value, const char* unit) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.1f %s", value, unit);
  return text.data();
}

}  // namespace

Result<std::chrono::milliseconds> parse_duration(std::string_view text) {
  const auto value =
      parse(text, kTimes, kDurationMsMax, "duration", "for example 500ms, 30s, 2m, 1h; at most a year");
  if (!value.ok()) return value.error();
  return std::chrono::milliseconds(*value);
}

Result<std::uint64_t> parse_size(std::string_view text) {
  auto value =
      parse(text, kSizes, kSizeBytesMax, "size", "for example 4096, 64KiB, 256MiB, 4GiB; at most 1 PiB");
  if (value.ok() && *value == 0)
    return make_error(Code::kInvalidArgument, "'0' is not a size (allowed: from 1)");
  return value;
}

std::string size_text(std::uint64_t size_bytes) {
  if (size_bytes < 1024) return std::to_string(size_bytes) + " B";
  static constexpr std::array<const char*, 4> kUnits{"KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(size_bytes) / 1024;
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return with_one_decimal(value, kUnits[unit]);
}

std::string duration_text(std::chrono::milliseconds duration) {
  if (duration.count() < 1000) return std::to_string(duration.count()) + " ms";
  if (duration.count() % 1000 == 0) return std::to_string(duration.count() / 1000) + " s";
  return with_one_decimal(static_cast<double>(duration.count()) / 1000, "s");
}

}  // namespace cms::cli
