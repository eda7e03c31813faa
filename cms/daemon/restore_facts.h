#pragma once
// What there is to say of restores in `cms-admin status`.
#include <cstddef>
#include <string>

#include "base/time.h"

namespace cms::daemon {

struct RestoreFacts {
  std::size_t under_way = 0;
  std::size_t done = 0;  // Since this cmsd began, as far as it is remembered.
  std::size_t without_target = 0;
  std::string without_target_why;  // Of one of them.
  std::size_t refused = 0;
  std::string refused_why;  // Of one of them, with its program.
  // Under ACT for long: their targets neither answer nor are told gone.
  std::size_t unanswered = 0;
  std::string unanswered_target;  // Of one of them.
};

}  // namespace cms::daemon
