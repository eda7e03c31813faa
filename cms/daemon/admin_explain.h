#pragma once
// `cms-admin explain KEY`: where a program would go now, and for each ECU why, or why not.
//
// Threads: none; blocks on the index and the store.
#include <vector>

#include "cms/core/placement.h"
#include "schemas/messages.h"
#include "storage/blob_store.h"
#include "storage/checkpoint_index.h"

namespace cms::daemon {

inline constexpr std::size_t kExplainTargetsMax = 300;  // Listed, the best first; all are counted.

// `candidates`: as the core has them once the ECUs were asked. kNotFound: nothing of the program is stored,
// or not that version.
wire::AdminAnswer explain(const wire::AdminRequest& request, const std::vector<core::Candidate>& candidates,
                          storage::CheckpointIndex& index, storage::BlobStore& store);

}  // namespace cms::daemon
