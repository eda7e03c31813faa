#include "storage/contract/claim_store_contract.h"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <thread>
#include <vector>

#include "storage/claim_names.h"
#include "storage/claim_record_file.h"

namespace cms::storage::testing {

namespace fs = std::filesystem;
using End = Appended::End;
using Read = ClaimStore::Read;

std::string ClaimFixtureOnFiles::slot_file(const LogId& log, Slot slot) {
  std::ifstream file(path() + "/claims/" + slot_path(log, slot), std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void ClaimFixtureOnFiles::put_slot_file(const LogId& log, Slot slot, const std::string& text) {
  std::ofstream(path() + "/claims/" + slot_path(log, slot), std::ios::binary) << text;
}

void ClaimFixtureOnFiles::remove_slot_file(const LogId& log, Slot slot) {
  EXPECT_TRUE(fs::remove(path() + "/claims/" + slot_path(log, slot)));
}

void ClaimFixtureOnFiles::put_member_file(const std::string& node, std::uint64_t node_incarnation,
                                          const std::string& text) {
  std::ofstream(path() + "/nodes/" + member_file_name(node, node_incarnation), std::ios::binary) << text;
}

std::string ClaimFixtureOnFiles::member_file(const std::string& node, std::uint64_t node_incarnation) {
  std::ifstream file(path() + "/nodes/" + member_file_name(node, node_incarnation), std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void ClaimFixtureOnFiles::put_stray_file(std::uint32_t log_shard, const std::string& name) {
  std::ofstream(path() + "/claims/" + log_shard_name(log_shard) + "/" + name) << "not ours";
}

LogId log_in_shard(std::uint32_t log_shard, std::uint64_t low) {
  return log_of(Lineage{std::uint64_t{log_shard} << 56, low});
}

void win(ClaimStore& store, const LogId& log, Slot slot, const std::string& record) {
  const auto appended = store.append(log, slot, record);
  ASSERT_TRUE(appended.ok()) << appended.error().message();
  ASSERT_EQ(appended->end, End::kWon) << to_string(log) << ", slot " << slot;
}

namespace {

std::string bytes_of(const Result<LogRecord>& record) {
  return record ? record->bytes : record.error().message();
}

// Of one life, by node: its bytes, or the word of its error.
std::map<std::string, std::string> members_of(ClaimStore& store) {
  std::map<std::string, std::string> found;
  const auto members = store.list_members();
  EXPECT_TRUE(members.ok());
  if (!members) return found;
  for (const MemberFile& member : *members) {
    found[member.node + "@" + std::to_string(member.node_incarnation)] =
        member.bytes ? *member.bytes : std::string(to_string(member.bytes.error().code));
  }
  return found;
}

using Heads = std::map<LogId, Slot>;
Heads list_shard(ClaimStore& store, std::uint32_t log_shard, std::uint64_t* unknown = nullptr) {
  Heads heads;
  const Status listed = store.list_logs(
      log_shard, [&](const LogId& log, Slot head) { EXPECT_TRUE(heads.emplace(log, head).second); }, unknown);
  EXPECT_TRUE(listed.ok());
  return heads;
}

TEST_P(ClaimStoreContract, EmptyLogHasNoHeadAndTakesSlotOne) {
  const LogId log = log_in_shard(0xab, 1);
  EXPECT_EQ(a().head(log, 0, Read::kAsSeen).error().code, Code::kNotFound);
  EXPECT_EQ(a().head(log, 5, Read::kAsSeen).error().code, Code::kNotFound);
  EXPECT_EQ(a().read(log, 1, Read::kAsSeen).error().code, Code::kNotFound);
  win(a(), log, 1, "genesis");
  for (ClaimStore* store : {&a(), &b()}) {
    for (const Read how : {Read::kAsSeen, Read::kDurable}) {
      const auto head = store->head(log, 0, how);
      ASSERT_TRUE(head.ok()) << head.error().message();
      EXPECT_EQ(head->log, log);
      EXPECT_EQ(head->slot, 1U);
      EXPECT_EQ(head->bytes, "genesis");
      EXPECT_EQ(bytes_of(store->read(log, 1, how)), "genesis");
    }
  }
}

TEST_P(ClaimStoreContract, TakenSlotIsLostToEverybodyAndItsRecordStays) {
  const LogId log = log_in_shard(1, 1);
  win(a(), log, 1, "first");
  const std::string file = fixture().slot_file(log, 1);
  for (ClaimStore* store : {&b(), &a()}) {  // Its own winner, too: each append is an attempt of its own.
    const auto appended = store->append(log, 1, "first");
    ASSERT_TRUE(appended.ok()) << appended.error().message();
    EXPECT_EQ(appended->end, End::kLost);
  }
  EXPECT_EQ(bytes_of(a().read(log, 1, Read::kAsSeen)), "first");
  EXPECT_EQ(fixture().slot_file(log, 1), file);
  EXPECT_EQ(bytes_of(reopened_a().head(log, 0, Read::kDurable)), "first");
}

TEST_P(ClaimStoreContract, RecordsOfEverySizeComeBackBitForBitAndOthersAreRefused) {
  const LogId log = log_in_shard(0xff, 7);
  std::string binary;
  for (std::size_t i = 0; i < kRecordBytesMax; ++i) binary += static_cast<char>(i * 7);
  Slot slot = 0;
  for (const std::size_t size : {std::size_t{1}, std::size_t{2}, kRecordBytesMax - 1, kRecordBytesMax}) {
    win(a(), log, ++slot, binary.substr(0, size));
    EXPECT_EQ(bytes_of(b().read(log, slot, Read::kAsSeen)), binary.substr(0, size));
  }
  EXPECT_EQ(a().append(log, 5, "").error().code, Code::kInvalidArgument);
  EXPECT_EQ(a().append(log, 5, binary + "x").error().code, Code::kInvalidArgument);
  EXPECT_EQ(a().append(log, 0, "x").error().code, Code::kInvalidArgument);
  EXPECT_EQ(a().append(log_of(EcuMac{0}), 1, "x").error().code, Code::kInvalidArgument);
  EXPECT_EQ(a().append(log_of(EcuMac{kEcuMacBitsMax + 1}), 1, "x").error().code, Code::kInvalidArgument);
  EXPECT_EQ(a().append(LogId{LogId::Kind::kEcu, {1, 0x020000000001}}, 1, "x").error().code,
            Code::kInvalidArgument);
  EXPECT_EQ(a().list_logs(
                   kLogShardCount, [](const LogId&, Slot) {}, nullptr)
                .code(),
            Code::kInvalidArgument);
  EXPECT_EQ(b().head(log, 0, Read::kAsSeen)->slot, 4U) << "what was refused left something";
}

TEST_P(ClaimStoreContract, OfManyWhoRaceForASlotOneWinsAndAllSeeTheSame) {
  constexpr Slot kSlots = 200;
  constexpr int kThreadsOfEach = 2;
  const LogId log = log_in_shard(0x42, 42);
  std::vector<std::atomic<int>> winners(kSlots + 1);
  std::vector<std::thread> threads;
  for (int t = 0; t < 2 * kThreadsOfEach; ++t) {
    threads.emplace_back([&, t] {
      ClaimStore& store = t % 2 == 0 ? a() : b();
      for (Slot slot = 1; slot <= kSlots; ++slot) {
        const std::string mine = "thread " + std::to_string(t) + " slot " + std::to_string(slot);
        const auto appended = store.append(log, slot, mine);
        ASSERT_TRUE(appended.ok()) << appended.error().message();
        ASSERT_NE(appended->end, End::kUnresolved);
        const auto seen = store.read(log, slot, Read::kAsSeen);
        ASSERT_TRUE(seen.ok()) << seen.error().message();
        if (appended->end == End::kWon) ++winners[slot];
        EXPECT_EQ(seen->bytes == mine, appended->end == End::kWon) << mine << ", seen " << seen->bytes;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (Slot slot = 1; slot <= kSlots; ++slot) EXPECT_EQ(winners[slot], 1) << slot;
  EXPECT_EQ(a().head(log, 0, Read::kDurable)->slot, kSlots);
  EXPECT_EQ(list_shard(b(), 0x42), (Heads{{log, kSlots}}));
}

TEST_P(ClaimStoreContract, HeadIsFoundFromAnyHintAndWithoutOne) {
  const LogId log = log_in_shard(3, 3);
  constexpr Slot kSlots = 40;  // More than are asked for one by one.
  for (Slot slot = 1; slot <= kSlots; ++slot) win(slot % 2 == 0 ? a() : b(), log, slot, std::to_string(slot));
  for (const Slot hint : {Slot{0}, Slot{1}, Slot{30}, kSlots - 1, kSlots, kSlots + 1, Slot{UINT64_MAX}}) {
    const auto head = a().head(log, hint, Read::kAsSeen);
    ASSERT_TRUE(head.ok()) << hint << ": " << head.error().message();
    EXPECT_EQ(head->slot, kSlots) << hint;
    EXPECT_EQ(head->bytes, std::to_string(kSlots)) << hint;
  }
  // Old slots are removed some day; hints to them are good for nothing, and no more.
  for (Slot slot = 1; slot <= 30; ++slot) fixture().remove_slot_file(log, slot);
  EXPECT_EQ(a().head(log, 7, Read::kAsSeen)->slot, kSlots);
  EXPECT_EQ(a().read(log, 7, Read::kAsSeen).error().code, Code::kNotFound);
}

TEST_P(ClaimStoreContract, LogsOfLineagesAndEcusDoNotMixAndAreListedByShard) {
  const EcuMac mac{0x020000000042};
  const LogId ecu = log_of(mac);
  const LogId same_bits = log_of(Lineage{0, mac.bits});
  const LogId lineage = log_in_shard(0x42, 9);
  win(a(), ecu, 1, "hello");
  win(a(), same_bits, 1, "genesis");
  win(a(), lineage, 1, "1");
  win(b(), lineage, 2, "2");
  EXPECT_EQ(bytes_of(b().read(ecu, 1, Read::kAsSeen)), "hello");
  EXPECT_EQ(bytes_of(b().read(same_bits, 1, Read::kAsSeen)), "genesis");
  fixture().put_stray_file(0x42, "notes.txt");
  fixture().put_stray_file(0x42, slot_file_name(log_in_shard(0x43, 1), 1));  // In another's place.
  fixture().put_stray_file(0x42, slot_file_name(lineage, 1) + ".part");
  std::uint64_t unknown = 0;
  EXPECT_EQ(list_shard(b(), 0x42, &unknown), (Heads{{ecu, 1}, {lineage, 2}}));
  EXPECT_EQ(unknown, 3U);
  EXPECT_EQ(list_shard(b(), 0), (Heads{{same_bits, 1}}));
  EXPECT_EQ(list_shard(b(), 0x43, &unknown), Heads());
  EXPECT_EQ(unknown, 3U);
  EXPECT_EQ(bytes_of(b().head(lineage, 0, Read::kAsSeen)), "2");
}

TEST_P(ClaimStoreContract, DamagedRecordIsNamedAndNeverAppendedOver) {
  const LogId log = log_in_shard(5, 5);
  win(a(), log, 1, "one");
  win(a(), log, 2, "two");
  const std::string good = fixture().slot_file(log, 2);
  ASSERT_EQ(good.size(), kClaimFileBytes);
  std::string flipped = good;
  flipped[100] = static_cast<char>(flipped[100] ^ 1);  // In the padding: all bytes count.
  const std::string of_other_slot = fixture().slot_file(log, 1);
  for (const std::string& bad : {std::string(), good.substr(0, 1), good.substr(0, kClaimFileBytes - 1),
                                 good + "x", flipped, of_other_slot, std::string(kClaimFileBytes, '\0')}) {
    fixture().put_slot_file(log, 2, bad);
    const auto read = b().read(log, 2, Read::kAsSeen);
    ASSERT_FALSE(read.ok());
    EXPECT_EQ(read.error().code, Code::kCorrupt) << read.error().message();
    EXPECT_NE(read.error().context.find(slot_path(log, 2)), std::string::npos) << read.error().message();
    EXPECT_EQ(b().head(log, 0, Read::kDurable).error().code, Code::kCorrupt);
    EXPECT_EQ(b().head(log, 1, Read::kAsSeen).error().code, Code::kCorrupt);
    const auto appended = b().append(log, 2, "over it");
    ASSERT_FALSE(appended.ok());
    EXPECT_EQ(appended.error().code, Code::kCorrupt) << appended.error().message();
    EXPECT_EQ(fixture().slot_file(log, 2), bad) << "the damaged file was touched";
    EXPECT_EQ(list_shard(b(), 5), (Heads{{log, 2}})) << "it is opened by nobody who lists";
  }
  fixture().put_slot_file(log, 2, good);
  EXPECT_EQ(bytes_of(b().head(log, 0, Read::kAsSeen)), "two");
}

TEST_P(ClaimStoreContract, OfANewerFormatIsToldApartFromDamage) {
  const LogId log = log_in_shard(6, 6);
  win(a(), log, 1, "one");
  std::string newer = fixture().slot_file(log, 1);
  newer[8] = 2;  // The version, with a digest that fits (docs/formats/claims.md).
  const std::string covered = slot_file_name(log, 1) + '\n' + newer.substr(0, 48) + newer.substr(64);
  const Digest digest = digest_of(covered.data(), covered.size());
  for (int i = 0; i < 8; ++i) {
    newer[static_cast<std::size_t>(48 + i)] = static_cast<char>(digest.high >> (56 - 8 * i));
    newer[static_cast<std::size_t>(56 + i)] = static_cast<char>(digest.low >> (56 - 8 * i));
  }
  fixture().put_slot_file(log, 1, newer);
  EXPECT_EQ(b().read(log, 1, Read::kAsSeen).error().code, Code::kUnsupported);
  EXPECT_EQ(b().head(log, 0, Read::kAsSeen).error().code, Code::kUnsupported);
  EXPECT_EQ(b().append(log, 1, "x").error().code, Code::kUnsupported);
}

TEST_P(ClaimStoreContract, WhatIsNotUnresolvedCannotBeSettled) {
  EXPECT_EQ(a().settle(0).error().code, Code::kNotFound);
  EXPECT_EQ(a().settle(1).error().code, Code::kNotFound);
  win(a(), log_in_shard(1, 1), 1, "x");
  EXPECT_EQ(a().settle(1).error().code, Code::kNotFound);
}

TEST_P(ClaimStoreContract, MembersAreSeenByAllEachLifeForItself) {
  EXPECT_TRUE(members_of(a()).empty());
  ASSERT_TRUE(a().write_member("a is well").ok());
  ASSERT_TRUE(b().write_member("b").ok());
  EXPECT_EQ(members_of(b()), (std::map<std::string, std::string>{{"a@1", "a is well"}, {"b@2", "b"}}));
  ASSERT_TRUE(a().write_member("a").ok()) << "shorter than before";
  ASSERT_TRUE(reopened_a().write_member("another life").ok());
  EXPECT_EQ(members_of(b()),
            (std::map<std::string, std::string>{{"a@1", "a"}, {"a@3", "another life"}, {"b@2", "b"}}));
  ASSERT_TRUE(b().remove_member("a", 1).ok());
  ASSERT_TRUE(b().remove_member("a", 1).ok()) << "idempotent";
  EXPECT_EQ(b().remove_member("../a", 1).code(), Code::kInvalidArgument);
  EXPECT_EQ(members_of(a()), (std::map<std::string, std::string>{{"a@3", "another life"}, {"b@2", "b"}}));
  // Whoever was taken for dead and lives is seen again.
  ASSERT_TRUE(a().remove_member("b", 2).ok());
  ASSERT_TRUE(b().write_member("I live").ok());
  EXPECT_EQ(members_of(a()),
            (std::map<std::string, std::string>{{"a@3", "another life"}, {"b@2", "I live"}}));
}

TEST_P(ClaimStoreContract, TornMemberRecordIsSeenAsSuch) {
  ASSERT_TRUE(a().write_member("whole").ok());
  fixture().put_member_file("c", 7, "");
  fixture().put_member_file("d", 8, "torn");
  // The record of another life under this name.
  fixture().put_member_file("e", 9,
                            encode_claim_file("e.0000000000000001", {ClaimFileKind::kMember, {}, "x"}));
  fixture().put_member_file("f", 10,
                            encode_claim_file("f.000000000000000a", {ClaimFileKind::kMember, {}, "f"}));
  const LogId log = log_in_shard(1, 1);
  win(a(), log, 1, "a record");
  fixture().put_member_file("g", 11, fixture().slot_file(log, 1));
  EXPECT_EQ(members_of(b()), (std::map<std::string, std::string>{{"a@1", "whole"},
                                                                 {"c@7", "corrupt"},
                                                                 {"d@8", "corrupt"},
                                                                 {"e@9", "corrupt"},
                                                                 {"f@10", "f"},
                                                                 {"g@11", "corrupt"}}));
}

// Of `size` bytes, those of each `seed` others.
std::string bytes_of_size(std::size_t size, unsigned seed) {
  std::string bytes;
  for (std::size_t i = 0; i < size; ++i) bytes += static_cast<char>(i * 7 + i / 251 + seed);
  return bytes;
}

TEST_P(ClaimStoreContract, MemberRecordsOfEverySizeComeBackBitForBitInAnyOrder) {
  constexpr std::size_t kOneSector = kClaimFileBytes - kClaimFrameBytes;
  unsigned seed = 0;
  for (const std::size_t size :
       {std::size_t{1}, kOneSector, kOneSector + 1, kOneSector, kMemberBytesMax - 1, std::size_t{2},
        kMemberBytesMax, 3 * kClaimFileBytes - kClaimFrameBytes, kMemberBytesMax, std::size_t{1}}) {
    const std::string record = bytes_of_size(size, ++seed);
    ASSERT_TRUE(a().write_member(record).ok()) << size;
    EXPECT_TRUE(members_of(b()) == (std::map<std::string, std::string>{{"a@1", record}})) << size;
  }
  EXPECT_EQ(fixture().member_file("a", 1).size(), kMemberFileBytesMax)
      << "what a longer one left is behind it";
  EXPECT_EQ(a().write_member("").code(), Code::kInvalidArgument);
  EXPECT_EQ(a().write_member(std::string(kMemberBytesMax + 1, 'x')).code(), Code::kInvalidArgument);
  EXPECT_TRUE(members_of(b()) == (std::map<std::string, std::string>{{"a@1", bytes_of_size(1, seed)}}))
      << "what was refused changed something";
}

// Some sectors are of the former write, some of the next: the former record, or none, until there is one again.
TEST_P(ClaimStoreContract, MemberRecordTornBetweenSectorsIsCorruptOrTheFormerUntilTheNext) {
  const std::string small = bytes_of_size(100, 1);
  const std::string large = bytes_of_size(kMemberBytesMax, 2);
  const std::string next = bytes_of_size(kMemberBytesMax - 5, 3);
  const auto file_with = [&](const std::string& record) {
    EXPECT_TRUE(a().write_member(record).ok());
    return fixture().member_file("a", 1);
  };
  const auto seen = [&] { return members_of(b()).at("a@1"); };
  const std::string small_file = file_with(small);
  ASSERT_EQ(small_file.size(), kClaimFileBytes);
  const std::string large_file = file_with(large);
  const std::string next_file = file_with(next);
  ASSERT_EQ(large_file.size(), kMemberFileBytesMax);
  ASSERT_EQ(next_file.size(), kMemberFileBytesMax);
  for (std::size_t at = kClaimFileBytes; at < kMemberFileBytesMax; at += kClaimFileBytes) {
    fixture().put_member_file("a", 1, next_file.substr(0, at) + large_file.substr(at));
    EXPECT_EQ(seen(), "corrupt") << at;
    fixture().put_member_file("a", 1, large_file.substr(0, at) + next_file.substr(at));
    EXPECT_EQ(seen(), "corrupt") << at;
    fixture().put_member_file("a", 1, large_file.substr(0, at));  // It was growing.
    EXPECT_EQ(seen(), "corrupt") << at;
    fixture().put_member_file("a", 1, large_file.substr(0, at + 1));
    EXPECT_EQ(seen(), "corrupt") << at;
    std::string hole = large_file;
    fixture().put_member_file("a", 1, hole.replace(at, kClaimFileBytes, kClaimFileBytes, '\0'));
    EXPECT_EQ(seen(), "corrupt") << at;
    // Its first sector has not been written.
    fixture().put_member_file("a", 1, small_file + large_file.substr(kClaimFileBytes, at));
    EXPECT_EQ(seen(), small) << at;
  }
  fixture().put_member_file("a", 1, small_file + "x");
  EXPECT_EQ(seen(), small) << "what is behind the record is nothing";
  fixture().put_member_file("a", 1, small_file + std::string(2 * kMemberFileBytesMax, 'x'));
  EXPECT_EQ(seen(), small);
  fixture().put_member_file(
      "a", 1, next_file.substr(0, 2 * kClaimFileBytes) + large_file.substr(2 * kClaimFileBytes));
  EXPECT_EQ(seen(), "corrupt");
  EXPECT_TRUE(a().write_member(small).ok());
  EXPECT_EQ(seen(), small);
}

TEST_P(ClaimStoreContract, OpeningAgainIsHarmless) {
  const LogId log = log_in_shard(1, 1);
  win(a(), log, 1, "one");
  ASSERT_TRUE(a().open_store().ok());
  EXPECT_EQ(bytes_of(a().head(log, 0, Read::kAsSeen)), "one");
  win(a(), log, 2, "two");
}

TEST_P(ClaimStoreContract, SelfTestFindsAllTraitsAndLeavesNothing) {
  for (int round = 0; round < 2; ++round) {
    const auto test = a().self_test();
    ASSERT_TRUE(test.ok()) << test.error().message();
    std::set<std::string> names;
    for (const StoreTrait& trait : test->traits) {
      EXPECT_TRUE(trait.holds) << trait.name << ": " << trait.detail;
      EXPECT_FALSE(trait.detail.empty());
      names.insert(trait.name);
    }
    EXPECT_EQ(names, (std::set<std::string>{"exclusive create", "hard links", "no link of a removed file",
                                            "rename across directories", "synced writes"}));
    EXPECT_TRUE(test->trusted_with_claims());
    EXPECT_LT(std::abs(test->clock_ahead_ms), 5000) << "one host, one clock";
  }
  std::uint64_t unknown = 0;
  for (std::uint32_t shard = 0; shard < kLogShardCount; ++shard) {
    EXPECT_TRUE(list_shard(b(), shard, &unknown).empty());
  }
  EXPECT_EQ(unknown, 0U);
  EXPECT_FALSE(SelfTest{}.trusted_with_claims()) << "nothing was tried";
}

}  // namespace
}  // namespace cms::storage::testing
