#include "schemas/member_record.h"

#include <gtest/gtest.h>

#include <string>

#include "member_generated.h"
#include "schemas/samples_test.h"

namespace cms::wire {
namespace {

Result<MemberRecord> decoded(std::uint16_t version, const std::string& node, std::uint64_t incarnation,
                             std::uint64_t counter, std::size_t software_bytes,
                             const std::vector<fb::Bar>& bars = {}) {
  flatbuffers::FlatBufferBuilder builder;
  const auto name = builder.CreateString(node);
  const auto software = builder.CreateString(std::string(software_bytes, 's'));
  const auto barred = builder.CreateVectorOfStructs(bars);
  builder.Finish(
      fb::CreateMemberRecord(builder, version, name, incarnation, counter, false, 0, software, barred),
      fb::MemberRecordIdentifier());
  return decode_member_record(builder.GetBufferPointer(), builder.GetSize());
}

std::string refused_field(const Result<MemberRecord>& record) {
  if (record.ok()) return "";
  EXPECT_EQ(record.error().code, Code::kCorrupt);
  return record.error().context.substr(0, record.error().context.find(':'));
}

TEST(MemberRecordTest, Survives) {
  for (const MemberRecord& record : member_records()) {
    const Bytes bytes = encode(record);
    const auto again = decode_member_record(bytes.data(), bytes.size());
    ASSERT_TRUE(again.ok()) << again.error().message();
    EXPECT_TRUE(same(record, *again));
  }
}

TEST(MemberRecordTest, IsCheckedAtTheLimitAndOver) {
  const std::string longest(64, 'n');
  EXPECT_EQ(refused_field(decoded(1, longest, 1, 1, 128)), "");
  EXPECT_EQ(refused_field(decoded(0, longest, 1, 1, 0)), "MemberRecord.format_version");
  EXPECT_EQ(refused_field(decoded(1, "", 1, 1, 0)), "MemberRecord.node");
  EXPECT_EQ(refused_field(decoded(1, longest + "n", 1, 1, 0)), "MemberRecord.node");
  EXPECT_EQ(refused_field(decoded(1, "a\x1b[2J", 1, 1, 0)), "MemberRecord.node");
  EXPECT_EQ(refused_field(decoded(1, longest, 0, 1, 0)), "MemberRecord.incarnation");
  EXPECT_EQ(refused_field(decoded(1, longest, 1, 0, 0)), "MemberRecord.counter");
  EXPECT_EQ(refused_field(decoded(1, longest, 1, 1, 129)), "MemberRecord.software");
  EXPECT_EQ(decoded(2, longest, 1, 1, 0).error().code, Code::kUnsupported);
}

TEST(MemberRecordTest, BarsAreCheckedAtTheLimitAndOver) {
  const auto with = [](std::size_t count, std::uint64_t ecu_mac, std::uint64_t incarnation) {
    std::vector<fb::Bar> bars(count, fb::Bar(0x020000000001, 1));
    if (count > 0) bars.back() = fb::Bar(ecu_mac, incarnation);
    return refused_field(decoded(1, "a", 1, 1, 0, bars));
  };
  EXPECT_EQ(with(0, 0, 0), "");
  EXPECT_EQ(with(1024, 0xfeffffffffff, UINT64_MAX), "");
  EXPECT_EQ(with(1024, 0, 1), "MemberRecord.ecu_mac");
  EXPECT_EQ(with(1024, 0x010000000001, 1), "MemberRecord.ecu_mac") << "multicast";
  EXPECT_EQ(with(1024, 0x1000000000002, 1), "MemberRecord.ecu_mac") << "more than 48 bits";
  EXPECT_EQ(with(1024, 0x020000000001, 0), "MemberRecord.bars.incarnation");
  // With short names this is not too long for a record, so that it is the count that is refused.
  EXPECT_EQ(with(1025, 0x020000000001, 1), "MemberRecord.bars");
}

TEST(MemberRecordTest, WithoutBarsItBarsNobody) {
  flatbuffers::FlatBufferBuilder builder;
  const auto name = builder.CreateString("a");
  builder.Finish(fb::CreateMemberRecord(builder, 1, name, 1, 1), fb::MemberRecordIdentifier());
  const auto record = decode_member_record(builder.GetBufferPointer(), builder.GetSize());
  ASSERT_TRUE(record.ok()) << record.error().message();
  EXPECT_TRUE(record->bars.empty());
}

TEST(MemberRecordTest, TheLongestOneFits) {
  MemberRecord record = member_records().front();
  record.node.assign(kNodeBytesMax, 'n');
  record.incarnation = record.counter = record.written_at_us = UINT64_MAX;
  record.software.assign(kNameBytesMax, 's');
  EXPECT_LE(encode(record).size(), 384U) << "without bars";
  for (std::uint64_t i = 1; i <= kBarCountMax; ++i) {
    record.bars.push_back(SessionId{EcuMac{0x020000000000 + i}, UINT64_MAX - i});
  }
  const Bytes bytes = encode(record);
  EXPECT_LE(bytes.size(), kMemberRecordBytesMax);
  const auto again = decode_member_record(bytes.data(), bytes.size());
  ASSERT_TRUE(again.ok()) << again.error().message();
  EXPECT_TRUE(same(record, *again));
}

TEST(MemberRecordDeathTest, EncodeStopsAtOneBarTooMany) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  MemberRecord record = member_records().front();
  record.bars.assign(kBarCountMax + 1, kSession);
  EXPECT_DEATH((void)encode(record), "");
}

}  // namespace
}  // namespace cms::wire
