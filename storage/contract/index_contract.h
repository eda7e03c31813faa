#pragma once
// What every CheckpointIndex must do; see blob_store_contract.h for how it is instantiated.
#include <gtest/gtest.h>

#include <memory>

#include "storage/checkpoint_index.h"

namespace cms::storage::testing {

class IndexFixture {
 public:
  virtual ~IndexFixture() = default;
  virtual CheckpointIndex& index() = 0;
  // As the next process finds it, where the index is more than memory.
  virtual CheckpointIndex& reopened() = 0;
};
using MakeIndexFixture = std::unique_ptr<IndexFixture> (*)();

class CheckpointIndexContract : public ::testing::TestWithParam<MakeIndexFixture> {
 protected:
  void SetUp() override { fixture_ = GetParam()(); }
  CheckpointIndex& index() { return fixture_->index(); }
  IndexFixture& fixture() { return *fixture_; }

 private:
  std::unique_ptr<IndexFixture> fixture_;
};

}  // namespace cms::storage::testing
