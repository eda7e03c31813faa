#pragma once
// What is known of the store's fitness for claims, for the loop and for what is told to people.
#include <optional>
#include <string>

#include "storage/claim_store.h"

namespace cms::daemon {

struct ClaimsFacts {
  std::optional<storage::SelfTest> test;  // Of the last opening of the store; not there: not known.
  std::string trouble;                    // Why it is not known; empty: it was not tried yet.
};

// From here on people are told that the store's clock is wrong, or ours.
inline constexpr std::int64_t kClockAheadMsMax = 5000;

// "hard links: a hard link into claims/ was refused (…)" of each trait that does not hold; empty: all do.
std::string what_does_not_hold(const storage::SelfTest& test);
// "7 s ahead of", "3600 s behind": when that is worth telling; else empty.
std::string clock_in_words(const storage::SelfTest& test);

}  // namespace cms::daemon
