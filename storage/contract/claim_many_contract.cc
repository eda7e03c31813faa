// What every ClaimStore must do with many at once: each ends as it would by itself.
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "storage/claim_names.h"
#include "storage/contract/claim_store_contract.h"

namespace cms::storage::testing {
namespace {

using End = Appended::End;
using Read = ClaimStore::Read;

// More than go together, and not a multiple of it.
constexpr std::size_t kMany = 2 * ClaimStore::kAppendGroupMax + 44;

// Over many shards, several in some.
std::vector<LogId> many_logs() {
  std::vector<LogId> logs;
  for (std::size_t i = 0; i < kMany; ++i)
    logs.push_back(log_in_shard(static_cast<std::uint32_t>(i % 100), i));
  return logs;
}

std::string word_of(const Result<Appended>& appended) {
  if (!appended) return std::string(to_string(appended.error().code));
  switch (appended->end) {
    case End::kWon: return "won";
    case End::kLost: return "lost";
    case End::kUnresolved: break;
  }
  return "unresolved";
}
std::vector<std::string> words_of(const std::vector<Result<Appended>>& ends) {
  std::vector<std::string> words;
  for (const auto& end : ends) words.push_back(word_of(end));
  return words;
}
using Words = std::vector<std::string>;

std::string bytes_of(const Result<LogRecord>& record) {
  return record ? record->bytes : std::string(to_string(record.error().code));
}

TEST_P(ClaimStoreContract, ManyAppendsEndEachForItself) {
  const std::vector<LogId> logs = many_logs();
  std::vector<Append> appends;
  Words expected;
  for (std::size_t i = 0; i < kMany; ++i) {
    appends.push_back({logs[i], 1, "a's " + std::to_string(i)});
    expected.emplace_back("won");
    if (i % 7 == 3) {
      win(b(), logs[i], 1, "b's");
      expected.back() = "lost";
    }
  }
  appends[11].record.clear();
  appends[20].slot = 0;
  appends[30].log = log_of(EcuMac{0});
  for (const std::size_t refused : {11, 20, 30}) expected[refused] = "invalid argument";
  EXPECT_EQ(words_of(a().append_many(appends)), expected);
  for (std::size_t i = 0; i < kMany; ++i) {
    const std::string there = expected[i] == "won"    ? appends[i].record
                              : expected[i] == "lost" ? "b's"
                                                      : "not found";
    EXPECT_EQ(bytes_of(b().read(logs[i], 1, Read::kDurable)), there) << i;
  }
  EXPECT_TRUE(a().append_many({}).empty());
}

TEST_P(ClaimStoreContract, ManyAppendsOfOneLogGoInTheirOrder) {
  const LogId one = log_in_shard(1, 1);
  const LogId other = log_in_shard(2, 2);
  EXPECT_EQ(
      words_of(a().append_many(
          {{one, 1, "1"}, {other, 1, "x"}, {one, 2, "2"}, {one, 3, "3"}, {other, 1, "y"}, {one, 3, "late"}})),
      (Words{"won", "won", "won", "won", "lost", "lost"}));
  for (Slot slot = 1; slot <= 3; ++slot) {
    EXPECT_EQ(bytes_of(b().read(one, slot, Read::kAsSeen)), std::to_string(slot));
  }
  EXPECT_EQ(bytes_of(b().head(other, 0, Read::kAsSeen)), "x");
}

TEST_P(ClaimStoreContract, NoneOfManyAppendsLeavesAHole) {
  const LogId lost = log_in_shard(1, 1);
  const LogId refused = log_in_shard(1, 2);
  const LogId fine = log_in_shard(1, 3);
  win(b(), lost, 1, "b's");
  EXPECT_EQ(words_of(a().append_many({{lost, 1, "a's"},
                                      {lost, 2, "above"},
                                      {refused, 1, ""},
                                      {refused, 2, "above"},
                                      {fine, 1, "1"},
                                      {fine, 2, "2"},
                                      {refused, 1, "again"}})),
            (Words{"lost", "unavailable", "invalid argument", "unavailable", "won", "won", "won"}));
  EXPECT_EQ(b().head(lost, 0, Read::kAsSeen)->slot, 1U);
  EXPECT_EQ(b().head(refused, 0, Read::kAsSeen)->slot, 1U);
  EXPECT_EQ(b().head(fine, 0, Read::kAsSeen)->slot, 2U);
}

TEST_P(ClaimStoreContract, OfTwoWhoAppendToTheSameManyOneWinsEach) {
  const std::vector<LogId> logs = many_logs();
  std::vector<std::atomic<int>> winners(kMany);
  std::vector<std::thread> threads;
  for (const bool is_a : {true, false}) {
    threads.emplace_back([&, is_a] {
      std::vector<Append> appends;
      for (const LogId& log : logs) appends.push_back({log, 1, is_a ? "a's" : "b's"});
      const auto ends = (is_a ? a() : b()).append_many(appends);
      ASSERT_EQ(ends.size(), kMany);
      for (std::size_t i = 0; i < kMany; ++i) {
        ASSERT_TRUE(ends[i].ok()) << ends[i].error().message();
        ASSERT_NE(ends[i]->end, End::kUnresolved);
        if (ends[i]->end != End::kWon) continue;
        ++winners[i];
        EXPECT_EQ(bytes_of(b().read(logs[i], 1, Read::kAsSeen)), is_a ? "a's" : "b's");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (std::size_t i = 0; i < kMany; ++i) EXPECT_EQ(winners[i], 1) << i;
}

TEST_P(ClaimStoreContract, SlotIsSaidToBeTakenFromItsAppendOnAndNoEarlier) {
  const LogId log = log_in_shard(9, 1);
  EXPECT_FALSE(*b().has_slot(log, 1));
  win(a(), log, 1, "1");
  EXPECT_TRUE(*b().has_slot(log, 1));
  EXPECT_FALSE(*b().has_slot(log, 2));
  EXPECT_FALSE(*b().has_slot(log, 0));
  EXPECT_FALSE(*b().has_slot(log, UINT64_MAX));
  EXPECT_FALSE(*b().has_slot(log_of(EcuMac{0}), 1));
  win(a(), log, 2, "2");
  EXPECT_TRUE(*b().has_slot(log, 2));
  fixture().put_slot_file(log, 3, "damaged");
  EXPECT_TRUE(*b().has_slot(log, 3)) << "it is not read";

  std::vector<LogSlot> asked;
  std::vector<bool> expected;
  for (const LogId& other : many_logs()) {
    const bool taken = other.id.low % 3 == 0;
    if (taken && other.id.low < 30) win(a(), other, 1, "x");
    asked.push_back({other, 1});
    expected.push_back(taken && other.id.low < 30);
  }
  asked[4].slot = 0;
  asked[5] = {log, 2};
  expected[5] = true;
  const auto taken = b().has_slots(asked);
  ASSERT_EQ(taken.size(), asked.size());
  for (std::size_t i = 0; i < asked.size(); ++i) {
    ASSERT_TRUE(taken[i].ok()) << taken[i].error().message();
    EXPECT_EQ(*taken[i], expected[i]) << i;
  }
  EXPECT_TRUE(b().has_slots({}).empty());
}

TEST_P(ClaimStoreContract, HeadsOfManyAreThoseThatEachHas) {
  const std::vector<LogId> logs = many_logs();
  const auto head_of = [](std::size_t i) { return static_cast<Slot>(i % 4); };  // 0: an empty log.
  for (Slot slot = 1; slot <= 3; ++slot) {
    std::vector<Append> appends;
    for (std::size_t i = 0; i < kMany; ++i) {
      if (slot <= head_of(i))
        appends.push_back({logs[i], slot, std::to_string(i) + "." + std::to_string(slot)});
    }
    for (const auto& end : a().append_many(appends)) ASSERT_EQ(word_of(end), "won");
  }
  // Hints of every kind: none, right, too small, too large.
  std::vector<LogSlot> asked;
  for (std::size_t i = 0; i < kMany; ++i) asked.push_back({logs[i], (i / 4) % 5});
  asked[100].slot = UINT64_MAX;
  fixture().put_slot_file(logs[50], 2, "damaged");  // Its head.
  const LogId long_one = log_in_shard(200, 1);
  constexpr Slot kLong = 30;  // More than are asked for one by one.
  for (Slot slot = 1; slot <= kLong; ++slot) win(a(), long_one, slot, std::to_string(slot));
  asked.push_back({long_one, 2});
  asked.push_back({long_one, kLong - 1});
  asked.push_back({log_of(EcuMac{0}), 1});
  for (const Read how : {Read::kAsSeen, Read::kDurable}) {
    const auto heads = b().heads(asked, how);
    ASSERT_EQ(heads.size(), asked.size());
    for (std::size_t i = 0; i < kMany; ++i) {
      const std::string expected = i == 50           ? "corrupt"
                                   : head_of(i) == 0 ? "not found"
                                                     : std::to_string(i) + "." + std::to_string(head_of(i));
      EXPECT_EQ(bytes_of(heads[i]), expected) << i << " from " << asked[i].slot;
      if (!heads[i]) continue;
      EXPECT_EQ(heads[i]->log, logs[i]);
      EXPECT_EQ(heads[i]->slot, head_of(i));
    }
    EXPECT_EQ(bytes_of(heads[kMany]), std::to_string(kLong));
    EXPECT_EQ(bytes_of(heads[kMany + 1]), std::to_string(kLong));
    EXPECT_EQ(bytes_of(heads[kMany + 2]), "not found");
  }
  EXPECT_TRUE(b().heads({}, Read::kAsSeen).empty());
}

}  // namespace
}  // namespace cms::storage::testing
