#pragma once
// The descendants of this process, as /proc shows them.
//
// Threads: any. Calls read /proc; kill_descendants blocks until none is left.
#include <sys/types.h>
#include <set>
#include <vector>

namespace cms::cli {

// Of `ancestor`, without itself and without zombies.
std::vector<pid_t> descendants_of(pid_t ancestor);
// With SIGKILL, again and again until there is none (one that forks meanwhile is met in the next round). Those that
// are left behind by others come to this process if it adopts them.
void kill_descendants();
// Takes the exit codes of children that have ended but for those in `others`, whom somebody else waits for.
void reap_children(const std::set<pid_t>& others);

}  // namespace cms::cli
