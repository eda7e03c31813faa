#pragma once
// How the index is being made true to the store, for people: plain values.
#include <cstdint>
#include <string>

#include "base/time.h"

namespace cms::daemon {

struct IndexFacts {
  bool rebuilding = false;  // From nothing, in this round or the one that was last.
  std::string reason;       // Why.
  std::string old_index;    // Where a damaged one was moved to.
  std::uint64_t rows_added = 0;
  std::uint64_t rows_removed = 0;
  Duration took{};          // This round so far, or the one that was last.
  bool completing = false;  // Times and names are being read, which file names do not have.
  std::uint64_t rows_completed = 0;
  std::string damage;  // Why it has to be rebuilt; empty: it has not.
};

}  // namespace cms::daemon
