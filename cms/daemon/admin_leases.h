#pragma once
// What `cms-admin status` tells of guarded ECUs: what waits for an operator, who is heard by one cmsd only, maintenance,
// and how long the store may still be away.
//
// Threads: pure functions.
#include <vector>

#include "cms/daemon/admin_answers.h"
#include "cms/daemon/admin_findings.h"

namespace cms::daemon {

void find_lease_problems(const CoreSnapshot& snapshot, std::vector<Problem>& problems);

}  // namespace cms::daemon
