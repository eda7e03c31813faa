#include "schemas/member_record.h"

#include <gtest/gtest.h>

#include <string>

#include "member_generated.h"
#include "schemas/samples_test.h"

namespace cms::wire {
namespace {

Result<MemberRecord> decoded(std::uint16_t version, const std::string& node, std::uint64_t incarnation,
                             std::uint64_t counter, std::size_t software_bytes) {
  flatbuffers::FlatBufferBuilder builder;
  const auto name = builder.CreateString(node);
  const auto software = builder.CreateString(std::string(software_bytes, 's'));
  builder.Finish(fb::CreateMemberRecord(builder, version, name, incarnation, counter, false, 0, software),
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

TEST(MemberRecordTest, TheLongestOneFits) {
  MemberRecord record = member_records().front();
  record.node.assign(kNodeBytesMax, 'n');
  record.software.assign(kNameBytesMax, 's');
  EXPECT_LE(encode(record).size(), kMemberRecordBytesMax);
}

}  // namespace
}  // namespace cms::wire
