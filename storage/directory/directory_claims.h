#pragma once
// ClaimStore in a directory (storage/claim_store.h has the promises, docs/formats/claims.md the layout).
// The directory may be shared between hosts by a mount that gives the same promises as a local one: link(2)
// to a name that exists fails, and what was linked is seen by all. What link(2) returns is not believed
// when it says that it failed: a mount may have repeated it.
#include <cstdint>
#include <memory>
#include <string>

#include "storage/claim_store.h"

namespace cms::storage {

std::unique_ptr<ClaimStore> make_directory_claims(const std::string& directory, const std::string& node,
                                                  std::uint64_t node_incarnation);

}  // namespace cms::storage
