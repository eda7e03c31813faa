#include "cms/core/fair_queue.h"

#include <vector>

#include <gtest/gtest.h>

namespace cms::core {
namespace {

constexpr EcuMac kA{0x020000000001};
constexpr EcuMac kB{0x020000000002};

std::vector<ProgramKey> drained(FairQueue queue) {
  std::vector<ProgramKey> order;
  for (; !queue.empty(); queue.pop()) order.push_back(queue.front());
  return order;
}

TEST(FairQueueTest, TakesOneOfEachEcuInTurnAndKeepsTheOrderWithinIt) {
  FairQueue queue;
  for (const ProgramId program_id : {3U, 1U, 2U}) queue.push(ProgramKey{kA, program_id});
  queue.push(ProgramKey{kB, 9});
  EXPECT_EQ(drained(queue), (std::vector<ProgramKey>{{kA, 3}, {kB, 9}, {kA, 1}, {kA, 2}}));
}

TEST(FairQueueTest, HoldsAProgramOnce) {
  FairQueue queue;
  queue.push(ProgramKey{kA, 1});
  queue.push(ProgramKey{kA, 1});
  EXPECT_EQ(queue.size(), 1U);
  queue.pop();
  EXPECT_TRUE(queue.empty());
  queue.push(ProgramKey{kA, 1});
  EXPECT_EQ(queue.size(), 1U);
}

TEST(FairQueueTest, LookingDoesNotTake) {
  FairQueue queue;
  queue.push(ProgramKey{kA, 1});
  queue.push(ProgramKey{kB, 1});
  EXPECT_EQ(queue.front(), queue.front());
  EXPECT_EQ(queue.size(), 2U);
}

}  // namespace
}  // namespace cms::core
