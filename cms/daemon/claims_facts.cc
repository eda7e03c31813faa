#include "cms/daemon/claims_facts.h"

#include <cstdint>
#include <cstdlib>

namespace cms::daemon {

std::string what_does_not_hold(const storage::SelfTest& test) {
  std::string text;
  for (const storage::StoreTrait& trait : test.traits) {
    if (trait.holds) continue;
    text += (text.empty() ? "" : "; ") + trait.name + ": " + trait.detail;
  }
  return text;
}

std::string clock_in_words(const storage::SelfTest& test) {
  const std::int64_t off_ms = std::abs(test.clock_ahead_ms);
  if (!test.clock_known || off_ms <= kClockAheadMsMax) return {};
  return std::to_string(off_ms / 1000) + " s " + (test.clock_ahead_ms > 0 ? "ahead of" : "behind");
}

}  // namespace cms::daemon
