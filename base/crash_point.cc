#include "base/crash_point.h"

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "base/ids.h"

// Made by the linker around the section; weak, for programs without any place.
extern "C" {
extern const char* const __start_cms_crash_points[] __attribute__((weak, visibility("hidden")));
extern const char* const __stop_cms_crash_points[] __attribute__((weak, visibility("hidden")));
}

namespace cms {

namespace internal {
std::atomic<const char*> armed_crash_point{nullptr};
}

namespace {

constexpr std::string_view kStop = ":stop";

std::atomic<std::uint64_t> passages_left{0};
std::atomic<int> signal_at_the_point{SIGKILL};

// Points at the linker's copy of the name, which lives as long as the program.
const char* find_name(std::string_view name) {
  for (const char* const* at = __start_cms_crash_points; at != __stop_cms_crash_points; ++at) {
    if (name == *at) return *at;
  }
  return nullptr;
}

const bool armed_by_environment = [] {
  const char* spec = std::getenv("CMS_CRASH_POINT");
  if (spec == nullptr || *spec == '\0') return false;
  if (arm_crash_point(spec)) return true;
  // Not an error: the variable is inherited by programs that lack the place meant for another one.
  std::fprintf(stderr, "CMS_CRASH_POINT=%s: this program has no such crash point\n", spec);
  return false;
}();

}  // namespace

bool arm_crash_point(std::string_view spec) {
  internal::armed_crash_point.store(nullptr, std::memory_order_relaxed);
  if (spec.empty()) return true;
  std::uint64_t passages = 1;
  const bool stops = spec.size() > kStop.size() && spec.substr(spec.size() - kStop.size()) == kStop;
  if (stops) spec.remove_suffix(kStop.size());
  const std::size_t colon = spec.find(':');
  if (colon != std::string_view::npos) {
    const auto parsed = parse_u64(spec.substr(colon + 1));
    if (!parsed || *parsed == 0) return false;
    passages = *parsed;
  }
  const char* name = find_name(spec.substr(0, colon));
  if (name == nullptr) return false;
  passages_left.store(passages, std::memory_order_relaxed);
  signal_at_the_point.store(stops ? SIGSTOP : SIGKILL, std::memory_order_relaxed);
  internal::armed_crash_point.store(name, std::memory_order_relaxed);
  return true;
}

std::vector<std::string> crash_point_names() {
  std::vector<std::string> names(__start_cms_crash_points, __stop_cms_crash_points);
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

void internal::pass_crash_point(const char* name) {
  const char* armed = armed_crash_point.load(std::memory_order_relaxed);
  if (armed == nullptr || std::string_view(armed) != name) return;
  if (passages_left.fetch_sub(1, std::memory_order_relaxed) != 1) return;
  std::raise(signal_at_the_point.load(std::memory_order_relaxed));
}

}  // namespace cms
