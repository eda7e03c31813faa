#include "cms/daemon/claims_log.h"

#include <spdlog/spdlog.h>

namespace cms::daemon {

void ClaimsLog::note(const ClaimsFacts& facts) {
  const bool trusted = facts.test && facts.test->trusted_with_claims();
  std::string what = "the store can be trusted with claims";
  if (!facts.test) {
    what = "whether the store can be trusted with claims is not known: " + facts.trouble;
  } else if (!trusted) {
    what = "the store cannot be trusted with claims, and restores will be refused: " +
           what_does_not_hold(*facts.test);
  }
  if (what != said_) spdlog::log(trusted ? spdlog::level::info : spdlog::level::warn, "{}", what);
  said_ = what;
  if (!facts.test) return;
  const std::string clock = clock_in_words(*facts.test);
  if (!clock.empty() && !clock_is_wrong_) spdlog::warn("the clock of the store is {} ours", clock);
  if (clock.empty() && clock_is_wrong_) spdlog::info("the clock of the store agrees with ours again");
  clock_is_wrong_ = !clock.empty();
}

}  // namespace cms::daemon
