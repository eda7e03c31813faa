#pragma once
// What every BlobStore must do. A test program links blob_store_contract.cc and instantiates the suite
// with its adapter:
//   INSTANTIATE_TEST_SUITE_P(Directory, BlobStoreContract, testing::Values(&make_directory_fixture));
#include <gtest/gtest.h>

#include <memory>

#include "storage/blob_store.h"

namespace cms::storage::testing {

class StoreFixture {
 public:
  virtual ~StoreFixture() = default;
  // An opened, empty store.
  virtual BlobStore& store() = 0;
  // As a new process would find it: another instance where there is one, opened.
  virtual BlobStore& reopened() = 0;
  // As if whoever gave this name had died before it was durable. Nothing, where a test cannot make the
  // medium forget.
  virtual void unsync(const BlobName& /*name*/) {}
  // Damages one byte of a stored chunk behind the store's back.
  virtual void damage_chunk(const BlobName& name, std::uint64_t chunk_index) = 0;
};
using MakeStoreFixture = std::unique_ptr<StoreFixture> (*)();

class BlobStoreContract : public ::testing::TestWithParam<MakeStoreFixture> {
 protected:
  void SetUp() override { fixture_ = GetParam()(); }
  BlobStore& store() { return fixture_->store(); }
  StoreFixture& fixture() { return *fixture_; }

 private:
  std::unique_ptr<StoreFixture> fixture_;
};

}  // namespace cms::storage::testing
