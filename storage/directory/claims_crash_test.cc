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

class DirectoryClaimsCrash : public ::testing::TestWithParam<std::string> {
 protected:
  static void crash_in(Life life) {
    const TempDir dir;
    const OpenStores open = [&](std::uint64_t node_incarnation) {
      OpenedStores stores;
      stores.blobs = make_directory_store(dir.path(), "a", node_incarnation);
      EXPECT_TRUE(stores.blobs->open_store().ok());
      stores.claims = make_directory_claims(dir.path(), "a", node_incarnation);
      return stores;
    };
    expect_survivable_crash(GetParam(), life, open, dir.path());
  }
};

TEST_P(DirectoryClaimsCrash, LeavesEverySlotWholeOrAbsentAndNothingWonIsLost) { crash_in(Life::kOneByOne); }
TEST_P(DirectoryClaimsCrash, AmongManyLeavesEachSlotWholeOrAbsent) { crash_in(Life::kManyFirst); }

INSTANTIATE_TEST_SUITE_P(EveryPoint, DirectoryClaimsCrash,
                         ::testing::ValuesIn(claim_crash_points("claims.nfs_")), &name_of_crash_point);
// When some of many have gone that far.
INSTANTIATE_TEST_SUITE_P(LaterPassages, DirectoryClaimsCrash,
                         ::testing::Values("claims.directory_draft_created:3", "claims.directory_linked:3"),
                         &name_of_crash_point);

}  // namespace
}  // namespace cms::storage::testing
