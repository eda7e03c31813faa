#include "storage/fake/fake_index.h"

#include <gtest/gtest.h>

#include "storage/contract/index_contract.h"

namespace cms::storage::testing {
namespace {

class FakeIndexFixture final : public IndexFixture {
 public:
  CheckpointIndex& index() override { return index_; }
  CheckpointIndex& reopened() override { return index_; }

 private:
  FakeIndex index_;
};

INSTANTIATE_TEST_SUITE_P(Fake, CheckpointIndexContract,
                         ::testing::Values(+[]() -> std::unique_ptr<IndexFixture> {
                           return std::make_unique<FakeIndexFixture>();
                         }));

TEST(FakeIndex, PlannedFailuresChangeNothingAndEnd) {
  FakeIndex index;
  index.fail_next(1, make_error(Code::kNoSpace, "planned"));
  EXPECT_EQ(index.put_fleet_id("x").code(), Code::kNoSpace);
  EXPECT_EQ(*index.fleet_id(), "");
}

}  // namespace
}  // namespace cms::storage::testing
