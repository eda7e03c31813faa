#pragma once
#include "base/ids.h"

namespace cms::net {

// Equal for two processes exactly when they share a running kernel and a network namespace: a digest
// of the boot id and the namespace's inode. Zero when the kernel does not tell.
Id128 this_host_id();

}  // namespace cms::net
