#pragma once
// ClaimStore on a NAS over NFSv3 (storage/claim_store.h has the promises, docs/formats/claims.md the layout,
// docs/adr/0010-claim-log.md why it is done as it is).
//
// Its connections are its own: claims never wait behind bulk writes. A call is waited for at most 2 s, then
// it is UNKNOWN; calls that may be repeated are, once.
#include <cstdint>
#include <memory>
#include <string>

#include "storage/claim_store.h"
#include "storage/nfs/nfs_connection.h"
#include "storage/nfs/nfs_url.h"

namespace cms::storage {

// T_rpc of the leases' arithmetic: nothing here takes long on a NAS that is well.
inline constexpr Duration kClaimCallMax = std::chrono::seconds(2);
NfsTimeouts claim_timeouts();

std::unique_ptr<ClaimStore> make_nfs_claims(const NfsTarget& target, const std::string& node,
                                            std::uint64_t node_incarnation,
                                            const NfsTimeouts& timeouts = claim_timeouts());

}  // namespace cms::storage
