#pragma once
// What every ClaimStore must do. A test program links claim_store_contract.cc and instantiates the suite
// with its adapter:
//   INSTANTIATE_TEST_SUITE_P(Directory, ClaimStoreContract, testing::Values(&make_directory_fixture));
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "storage/claim_store.h"

namespace cms::storage::testing {

class ClaimFixture {
 public:
  virtual ~ClaimFixture() = default;
  // A new instance on the one store of this fixture, opened; a life of its own of that node. Several may be
  // there at once, of one node only when the former has gone. They go before the fixture.
  virtual std::unique_ptr<ClaimStore> open(const std::string& node, std::uint64_t node_incarnation) = 0;

  // Behind the store's back: all bytes of a slot's file, empty when there is none; puts it there, or in the
  // place of what is there; takes it away. The same of a member's file.
  virtual std::string slot_file(const LogId& log, Slot slot) = 0;
  virtual void put_slot_file(const LogId& log, Slot slot, const std::string& text) = 0;
  virtual void remove_slot_file(const LogId& log, Slot slot) = 0;
  virtual void put_member_file(const std::string& node, std::uint64_t node_incarnation,
                               const std::string& text) = 0;
  virtual std::string member_file(const std::string& node, std::uint64_t node_incarnation) = 0;
  virtual void put_stray_file(std::uint32_t log_shard, const std::string& name) = 0;
};
using MakeClaimFixture = std::unique_ptr<ClaimFixture> (*)();

// The same for adapters that keep them as files below a directory that the test can reach.
class ClaimFixtureOnFiles : public ClaimFixture {
 public:
  std::string slot_file(const LogId& log, Slot slot) override;
  void put_slot_file(const LogId& log, Slot slot, const std::string& text) override;
  void remove_slot_file(const LogId& log, Slot slot) override;
  void put_member_file(const std::string& node, std::uint64_t node_incarnation,
                       const std::string& text) override;
  std::string member_file(const std::string& node, std::uint64_t node_incarnation) override;
  void put_stray_file(std::uint32_t log_shard, const std::string& name) override;

 protected:
  virtual std::string path() const = 0;  // Of the store.
};

class ClaimStoreContract : public ::testing::TestWithParam<MakeClaimFixture> {
 protected:
  void SetUp() override {
    fixture_ = GetParam()();
    a_ = fixture().open("a", 1);
    b_ = fixture().open("b", 2);
  }
  ClaimFixture& fixture() { return *fixture_; }
  ClaimStore& a() { return *a_; }
  ClaimStore& b() { return *b_; }
  ClaimStore& reopened_a() {
    a_.reset();
    a_ = fixture().open("a", 3);
    return *a_;
  }

 private:
  std::unique_ptr<ClaimFixture> fixture_;
  std::unique_ptr<ClaimStore> a_;
  std::unique_ptr<ClaimStore> b_;
};

// A log of a lineage, in shard `log_shard`.
LogId log_in_shard(std::uint32_t log_shard, std::uint64_t low);
// Expects that the slot is won.
void win(ClaimStore& store, const LogId& log, Slot slot, const std::string& record);

}  // namespace cms::storage::testing
