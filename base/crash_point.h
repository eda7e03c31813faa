#pragma once
// Named places at which a test lets the process die as if by kill -9, to prove that what is left
// behind can be lived with. They are in every build, so that what is tested is what runs; a place
// not armed costs one relaxed load.
//
// Armed by the environment at start, CMS_CRASH_POINT=NAME[:N][:stop] (the N-th passage kills, 1 when not
// given; with stop the process stands still there, SIGSTOP, until somebody sends SIGCONT), or by
// arm_crash_point. Threads: any.
#include <atomic>
#include <string>
#include <string_view>
#include <vector>

namespace cms {

// Arms one place, instead of the one armed before; an empty `spec` disarms. False: `spec` is not
// NAME[:N][:stop] with N from 1, or no place of this program has the name; nothing is armed then.
bool arm_crash_point(std::string_view spec);
// Every place linked into this program, sorted, each once.
std::vector<std::string> crash_point_names();

namespace internal {
extern std::atomic<const char*> armed_crash_point;  // nullptr: none
void pass_crash_point(const char* name);
}  // namespace internal

}  // namespace cms

// `name` is a literal, "area.after_what". The names are collected in a section of their own, so that
// they can be listed without being passed. Not for inline functions and templates.
#define CMS_CRASH_POINT(name)                                                                                \
  do {                                                                                                       \
    __attribute__((section("cms_crash_points"), used)) static const char* const cms_crash_point_name = name; \
    if (::cms::internal::armed_crash_point.load(std::memory_order_relaxed) != nullptr) {                     \
      ::cms::internal::pass_crash_point(cms_crash_point_name);                                               \
    }                                                                                                        \
  } while (false)
