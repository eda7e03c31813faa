#pragma once
#include <string>

#include "base/ids.h"

namespace cms::net {

// Equal for two processes exactly when they share a running kernel and a network namespace: a digest
// of the boot id and the namespace's inode. Zero when the kernel does not tell.
Id128 this_host_id();

// Of the boot that a guarded session tells (docs/adr/0015): a digest of `text`, where a container or a test plays a
// machine of its own; of the running kernel's boot id where it is empty, or zero when the kernel does not tell.
Id128 boot_id_of(const std::string& text);

}  // namespace cms::net
