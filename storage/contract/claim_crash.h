#pragma once
// The life of a process that is killed at a named point of its claims, and what must be true afterwards; for
// every adapter that keeps them as files.
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "storage/blob_store.h"
#include "storage/claim_store.h"

namespace cms::storage::testing {

struct OpenedStores {
  std::unique_ptr<BlobStore> blobs;    // Opened.
  std::unique_ptr<ClaimStore> claims;  // Not opened yet; goes first.
};
// Of node "a".
using OpenStores = std::function<OpenedStores(std::uint64_t node_incarnation)>;

// Every point of claims that is linked in but those of another adapter, whose names begin with `not_of`: one
// that is never passed fails its test.
std::vector<std::string> claim_crash_points(const std::string& not_of);
std::string name_of_crash_point(const ::testing::TestParamInfo<std::string>& point);

// Whether many appends at once come first in that life, or last.
enum class Life { kOneByOne, kManyFirst };

// `point`: as arm_crash_point has it. `path`: of the store, as this process sees it; it is empty. A failed expectation says what is wrong. The
// calling process should have no threads.
void expect_survivable_crash(const std::string& point, Life life, const OpenStores& open,
                             const std::string& path);

}  // namespace cms::storage::testing
