#include "storage/contract/claim_crash.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <new>

#include "base/crash_point.h"
#include "storage/claim_names.h"
#include "storage/claim_record_file.h"
#include "storage/contract/claim_store_contract.h"
#include "storage/contract/samples.h"

namespace cms::storage::testing {
namespace {

namespace fs = std::filesystem;
using End = Appended::End;
using Read = ClaimStore::Read;

constexpr Slot kSlots = 3;

// How far the child came, in memory that outlives it.
struct Progress {
  std::atomic<std::uint64_t> won{0};
  std::atomic<bool> member_written{false};
  std::atomic<bool> many_won{false};
};

const LogId kLog = log_in_shard(0x5a, 1);
// Its slot 1 is put there as by an attempt of the child's whose link's reply was lost.
const LogId kLost = log_in_shard(0x5b, 1);

// Their slot 1 is appended to together.
std::vector<Append> many() {
  std::vector<Append> appends;
  for (std::uint32_t i = 0; i < 5; ++i) appends.push_back({log_in_shard(i, i), 1, "of many"});
  return appends;
}

std::string record_of(Slot slot) { return "record " + std::to_string(slot); }

void append_many(ClaimStore& claims, Progress& progress) {
  for (const auto& end : claims.append_many(many())) {
    ASSERT_TRUE(end.ok()) << end.error().message();
    ASSERT_EQ(end->end, End::kWon);
  }
  progress.many_won = true;
}

void live_a_life(const OpenStores& open, Life life, Progress& progress) {
  const OpenedStores stores = open(1);
  ClaimStore& claims = *stores.claims;
  ASSERT_TRUE(claims.open_store().ok());
  if (life == Life::kManyFirst) append_many(claims, progress);
  const auto tested = claims.self_test();
  ASSERT_TRUE(tested.ok() && tested->trusted_with_claims());
  ASSERT_TRUE(claims.write_member("alive").ok());
  progress.member_written = true;
  for (Slot slot = 1; slot <= kSlots; ++slot) {
    win(claims, kLog, slot, record_of(slot));
    progress.won = slot;
  }
  win(claims, kLost, 1, "first");
  const auto lost = claims.append(kLost, 1, "second");
  ASSERT_TRUE(lost.ok());
  ASSERT_EQ(lost->end, End::kLost);
  if (life == Life::kOneByOne) append_many(claims, progress);
}

}  // namespace

std::vector<std::string> claim_crash_points(const std::string& not_of) {
  std::vector<std::string> points;
  for (const std::string& name : crash_point_names()) {
    if (name.rfind("claims.", 0) == 0 && name.rfind(not_of, 0) != 0) points.push_back(name);
  }
  return points;
}

std::string name_of_crash_point(const ::testing::TestParamInfo<std::string>& point) {
  std::string name = point.param;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return c == '.' || c == ':'; }, '_');
  return name;
}

void expect_survivable_crash(const std::string& point, Life life, const OpenStores& open,
                             const std::string& path) {
  void* shared = ::mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(shared, MAP_FAILED);
  Progress& progress = *new (shared) Progress;
  const int status = run_in_child([&] {
    ASSERT_TRUE(arm_crash_point(point));
    live_a_life(open, life, progress);
  });
  EXPECT_TRUE(was_killed(status)) << "the point was never passed";
  const Slot won = progress.won;
  const bool member_written = progress.member_written;
  const bool many_won = progress.many_won;
  ::munmap(shared, sizeof(Progress));

  const OpenedStores stores = open(2);
  ClaimStore& claims = *stores.claims;
  const Status opened = claims.open_store();
  ASSERT_TRUE(opened.ok()) << opened.error().message();
  const auto test = claims.self_test();
  EXPECT_TRUE(test.ok() && test->trusted_with_claims()) << "what the dead one left is in the way";
  for (Slot slot = 1; slot <= won; ++slot) {
    const auto record = claims.read(kLog, slot, Read::kDurable);
    ASSERT_TRUE(record.ok()) << record.error().message();
    EXPECT_EQ(record->bytes, record_of(slot));
  }
  // One more may be there: it was not told.
  Slot next = won + 1;
  const auto head = claims.head(kLog, 0, Read::kDurable);
  if (won > 0 || head.ok()) {
    ASSERT_TRUE(head.ok()) << head.error().message();
    EXPECT_TRUE(head->slot == won || head->slot == won + 1) << head->slot;
    EXPECT_EQ(head->bytes, record_of(head->slot));
    next = head->slot + 1;
  } else {
    EXPECT_EQ(head.error().code, Code::kNotFound) << head.error().message();
  }
  win(claims, kLog, next, "the next life's");
  for (const Append& one : many()) {
    const auto record = claims.read(one.log, 1, Read::kDurable);
    if (record.ok()) {
      EXPECT_EQ(record->bytes, one.record);
    } else {
      EXPECT_EQ(record.error().code, Code::kNotFound) << record.error().message();
      EXPECT_FALSE(many_won) << to_string(one.log) << " was won";
    }
    const auto again = claims.append(one.log, 1, "the next life's");
    ASSERT_TRUE(again.ok()) << again.error().message();
    EXPECT_EQ(again->end, record.ok() ? End::kLost : End::kWon);
  }
  const auto members = claims.list_members();
  ASSERT_TRUE(members.ok());
  EXPECT_LE(members->size(), 1U);
  if (member_written) {
    ASSERT_EQ(members->size(), 1U);
    EXPECT_EQ(*members->front().bytes, "alive");
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(path + "/claims"), fs::directory_iterator()),
            kLogShardCount);
  EXPECT_EQ(std::distance(fs::directory_iterator(path + "/tmp"), fs::directory_iterator()), 1)
      << "what the dead one left in tmp was not swept";
}

}  // namespace cms::storage::testing
