#pragma once
// `cms-admin peers`: what is heard of the other cmsd on the network beside what their records on the store say.
//
// Threads: none; a pure function.
#include <string>

#include "cms/daemon/admin_answers.h"

namespace cms::daemon {

// The JSON of the answer.
std::string peers_answer(const CoreSnapshot& snapshot);

}  // namespace cms::daemon
