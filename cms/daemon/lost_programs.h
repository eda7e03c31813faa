#pragma once
// What would have to go on elsewhere if an ECU were lost.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "cms/core/restore.h"

namespace cms::daemon {

struct LostPrograms {
  struct Program {
    ProgramKey program{};
    Lineage lineage{};
    bool is_open = false;  // A restore of it is under way already; `found` is not asked for then.
    Result<core::RestoreCore::Found> found;  // kNotFound, kWithdrawn: nothing can be restored.
  };
  std::vector<Program> programs;
  std::size_t unusable = 0;  // Logs that cannot be read for what they are: of whom they speak is not known.
};

}  // namespace cms::daemon
