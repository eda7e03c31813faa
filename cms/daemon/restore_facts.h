#pragma once
// What there is to say of restores in `cms-admin status`.
#include <cstddef>
#include <string>

#include "base/ids.h"
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
  // Frozen for a move, for long.
  std::size_t standing_still = 0;
  ProgramKey standing_still_program{};  // The one that does for longest,
  Duration standing_still_for{};        //   as far as this CMS knows.
  // Nothing is placed there.
  std::size_t drained = 0;
  EcuMac drained_ecu{};  // One of them.
};

}  // namespace cms::daemon
