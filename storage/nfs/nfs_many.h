#pragma once
// Many calls, or short chains of calls, side by side: for what is a wait each and may be repeated.
#include <cstddef>
#include <functional>
#include <vector>

#include "storage/nfs/nfs_root.h"

namespace cms::storage {

// Under way at once, over all connections.
inline constexpr std::size_t kNfsManyInFlight = 64;

// Calls `begin` for 0 .. count-1, and waits. It begins the calls of one on that connection, which `then` ends
// with the last reply. What was not answered is begun once more, on another connection.
std::vector<NfsReply> nfs_for_each(
    NfsPool& pool, std::size_t count,
    const std::function<void(NfsConnection& link, std::size_t i, NfsThen then)>& begin);

}  // namespace cms::storage
