#include "schemas/claim_record.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "claim_generated.h"
#include "schemas/samples_test.h"

namespace cms::wire {
namespace {

ClaimRecord sample(ClaimKind kind) { return claim_records().at(static_cast<std::size_t>(kind) - 1); }

Result<ClaimRecord> through_bytes(const ClaimRecord& record) {
  const Bytes bytes = encode(record);
  return decode_claim_record(bytes.data(), bytes.size());
}

// The record's bytes with one scalar changed where the FlatBuffer has it: what encode() would never write.
template <typename Change>
Error refusal_of(const ClaimRecord& record, const Change& change) {
  Bytes bytes = encode(record);
  change(*flatbuffers::GetMutableRoot<fb::ClaimRecord>(bytes.data()));
  const auto decoded = decode_claim_record(bytes.data(), bytes.size());
  return decoded.ok() ? make_error(Code::kOk, "it was taken") : decoded.error();
}

template <typename T>
void put(fb::ClaimRecord& table, flatbuffers::voffset_t field, T value) {
  auto* at = reinterpret_cast<flatbuffers::Table&>(table).GetAddressOf(field);
  ASSERT_NE(at, nullptr) << "encode() leaves out a field of its default value";
  flatbuffers::WriteScalar(const_cast<std::uint8_t*>(at), value);
}

TEST(ClaimRecordTest, EachKindSurvives) {
  const std::vector<ClaimRecord> records = claim_records();
  ASSERT_EQ(records.size(), 7U) << "one of each kind";
  for (const ClaimRecord& record : records) {
    SCOPED_TRACE(to_string(record.kind));
    const auto again = through_bytes(record);
    ASSERT_TRUE(again.ok()) << again.error().message();
    EXPECT_TRUE(same(record, *again));
  }
}

TEST(ClaimRecordTest, TheLongestOneFits) {
  ClaimRecord act = sample(ClaimKind::kAct);
  act.slot = UINT64_MAX;
  act.claim_slot = UINT64_MAX - 1;
  act.owner.owner_epoch = UINT64_MAX - 2;
  act.base = act.checkpoint;
  act.writer.assign(kWriterBytesMax, 'w');
  act.text.assign(kClaimTextBytesMax, 't');
  const auto again = through_bytes(act);  // Asserts the size.
  ASSERT_TRUE(again.ok()) << again.error().message();
  EXPECT_TRUE(same(act, *again));
}

TEST(ClaimRecordTest, TextIsCleanedAndCut) {
  ClaimRecord release = sample(ClaimKind::kRelease);
  release.text = "tab\there " + std::string(kClaimTextBytesMax, 'x');
  const auto again = through_bytes(release);
  ASSERT_TRUE(again.ok()) << again.error().message();
  EXPECT_EQ(again->text, "tab?here " + std::string(kClaimTextBytesMax - 9, 'x'));
}

TEST(ClaimRecordTest, EveryCutIsCorrupt) {
  const Bytes bytes = encode(sample(ClaimKind::kAct));
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    const auto decoded = decode_claim_record(bytes.data(), size);
    if (!decoded.ok()) {
      EXPECT_EQ(decoded.error().code, Code::kCorrupt) << size;
      continue;
    }
    // FlatBuffers may end in padding.
    EXPECT_TRUE(same(*decoded, sample(ClaimKind::kAct))) << size;
    EXPECT_GE(size + 8, bytes.size());
  }
}

TEST(ClaimRecordTest, ANewerFormatIsUnsupported) {
  const Error error = refusal_of(sample(ClaimKind::kClaim), [](fb::ClaimRecord& table) {
    put<std::uint16_t>(table, fb::ClaimRecord::VT_FORMAT_VERSION, kClaimFormatVersion + 1);
  });
  EXPECT_EQ(error.code, Code::kUnsupported);
  EXPECT_EQ(error.context, "ClaimRecord.format_version: 2 (allowed: up to 1)");
}

TEST(ClaimRecordTest, WhatIsBeyondItsLimitIsCorruptAndNamed) {
  const std::vector<std::pair<std::string, std::function<void(fb::ClaimRecord&)>>> cases = {
      {"ClaimRecord.format_version",
       [](auto& t) { put<std::uint16_t>(t, fb::ClaimRecord::VT_FORMAT_VERSION, 0); }},
      {"ClaimRecord.kind", [](auto& t) { put<std::uint8_t>(t, fb::ClaimRecord::VT_KIND, 8); }},
      {"ClaimRecord.slot", [](auto& t) { put<std::uint64_t>(t, fb::ClaimRecord::VT_SLOT, 0); }},
      {"ClaimRecord.uid", [](auto& t) { put<std::uint64_t>(t, fb::ClaimRecord::VT_UID, 0); }},
      {"ClaimRecord.writer_incarnation",
       [](auto& t) { put<std::uint64_t>(t, fb::ClaimRecord::VT_WRITER_INCARNATION, 0); }},
      {"ClaimRecord.on_isolation",
       [](auto& t) { put<std::uint8_t>(t, fb::ClaimRecord::VT_ON_ISOLATION, 2); }},
      {"ClaimRecord.on_loss", [](auto& t) { put<std::uint8_t>(t, fb::ClaimRecord::VT_ON_LOSS, 2); }},
      {"ClaimRecord.reason", [](auto& t) { put<std::uint8_t>(t, fb::ClaimRecord::VT_REASON, 6); }},
      {"ClaimRecord.attempts", [](auto& t) { put<std::uint32_t>(t, fb::ClaimRecord::VT_ATTEMPTS, 0); }},
      {"ClaimRecord.claim_slot", [](auto& t) { put<std::uint64_t>(t, fb::ClaimRecord::VT_CLAIM_SLOT, 0); }},
      {"ClaimRecord.claim_slot", [](auto& t) { put<std::uint64_t>(t, fb::ClaimRecord::VT_CLAIM_SLOT, 3); }},
      {"ClaimRecord.ecu_mac", [](auto& t) { put<std::uint64_t>(t, fb::ClaimRecord::VT_TARGET_ECU_MAC, 0); }},
      {"ClaimRecord.target.incarnation",
       [](auto& t) { put<std::uint64_t>(t, fb::ClaimRecord::VT_TARGET_INCARNATION, 0); }},
  };
  for (const auto& [field, change] : cases) {
    const Error error = refusal_of(sample(ClaimKind::kAct), change);
    EXPECT_EQ(error.code, Code::kCorrupt) << field;
    EXPECT_EQ(error.context.substr(0, error.context.find(':')), field) << error.context;
  }
}

// A record of one kind called another: each says more or less than that other has to.
TEST(ClaimRecordTest, FieldsThatAreNotOfTheKindAreCorrupt) {
  for (const ClaimRecord& record : claim_records()) {
    for (std::uint8_t kind = 1; kind <= 7; ++kind) {
      const auto as = static_cast<ClaimKind>(kind);
      // These two differ in nothing but what is free to differ.
      const auto plain = [](ClaimKind k) { return k == ClaimKind::kRelease || k == ClaimKind::kRetire; };
      if (as == record.kind || (plain(as) && plain(record.kind))) continue;
      if (plain(as) && record.kind == ClaimKind::kDone) continue;  // Its owner may own it after RELEASE, too.
      const Error error = refusal_of(
          record, [&](fb::ClaimRecord& table) { put<std::uint8_t>(table, fb::ClaimRecord::VT_KIND, kind); });
      EXPECT_EQ(error.code, Code::kCorrupt) << to_string(record.kind) << " as " << to_string(as);
    }
  }
}

TEST(ClaimRecordTest, AnOwnerEpochIsThatOfAnEarlierDone) {
  const auto with_epoch = [](std::uint64_t epoch) {
    return [epoch](fb::ClaimRecord& table) {
      auto* owner = const_cast<fb::ClaimOwner*>(table.owner());
      auto* words = reinterpret_cast<std::uint64_t*>(owner);
      words[3] = flatbuffers::EndianScalar(epoch);
    };
  };
  const auto code_of = [&](ClaimKind kind, std::uint64_t epoch) {
    return refusal_of(sample(kind), with_epoch(epoch)).code;
  };
  EXPECT_EQ(code_of(ClaimKind::kDone, 4), Code::kOk) << "slot 4";
  EXPECT_EQ(code_of(ClaimKind::kDone, 3), Code::kCorrupt);
  EXPECT_EQ(code_of(ClaimKind::kDone, 5), Code::kCorrupt);
  EXPECT_EQ(code_of(ClaimKind::kRelease, 4), Code::kOk) << "slot 6";
  EXPECT_EQ(code_of(ClaimKind::kRelease, 6), Code::kCorrupt);
  EXPECT_EQ(code_of(ClaimKind::kRelease, 1), Code::kCorrupt) << "slot 1 is GENESIS";
  EXPECT_EQ(code_of(ClaimKind::kRelease, 0), Code::kCorrupt) << "with a base";
  EXPECT_EQ(code_of(ClaimKind::kGenesis, 0), Code::kOk);
  EXPECT_EQ(code_of(ClaimKind::kClaim, 1), Code::kCorrupt) << "without a base";
}

}  // namespace
}  // namespace cms::wire
