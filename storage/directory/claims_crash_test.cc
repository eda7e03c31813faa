// Kills a process at every named point of the claims in a directory, and looks at what it leaves behind.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <filesystem>
#include <new>

#include "base/crash_point.h"
#include "storage/contract/claim_crash.h"
#include "storage/contract/samples.h"
#include "storage/directory/directory_claims.h"
#include "storage/directory/directory_store.h"

namespace cms::storage::testing {
namespace {

class DirectoryClaimsCrash : public ::testing::TestWithParam<std::string> {};

TEST_P(DirectoryClaimsCrash, LeavesEverySlotWholeOrAbsentAndNothingWonIsLost) {
  const TempDir dir;
  const OpenStores open = [&](std::uint64_t node_incarnation) {
    OpenedStores stores;
    stores.blobs = make_directory_store(dir.path(), "a", node_incarnation);
    EXPECT_TRUE(stores.blobs->open_store().ok());
    stores.claims = make_directory_claims(dir.path(), "a", node_incarnation);
    return stores;
  };
  expect_survivable_crash(GetParam(), open, dir.path());
}

INSTANTIATE_TEST_SUITE_P(EveryPoint, DirectoryClaimsCrash,
                         ::testing::ValuesIn(claim_crash_points("claims.nfs_")), &name_of_crash_point);

}  // namespace
}  // namespace cms::storage::testing
