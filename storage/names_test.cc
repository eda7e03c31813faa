#include <gtest/gtest.h>

#include "storage/blob_file.h"
#include "storage/blob_store.h"
#include "storage/store_format.h"

namespace cms::storage {
namespace {

BlobName sample() {
  BlobName name;
  name.checkpoint = CheckpointId{{EcuMac{0x0200000000ab}, 7}, {65536, 3}};
  name.lineage = Lineage{0xabc0000000000001, 2};
  name.owner_epoch = 4;
  name.size_bytes = 0x1000;
  name.uid = 0xffffffffffffffff;
  return name;
}

// Written out by hand: files of today must be found by the programs of all years to come.
constexpr char kSampleFileName[] =
    "0200000000ab-0000000000000007-abc00000000000010000000000000002-0000000000000004-"
    "0000000000010000-0000000000000003-0000000000001000-ffffffffffffffff.ckpt";

TEST(FileName, IsTheDocumentedText) {
  EXPECT_EQ(to_file_name(sample()), kSampleFileName);
  BlobName tombstone = sample();
  tombstone.kind = EntryKind::kTombstone;
  const std::string text = to_file_name(tombstone);
  EXPECT_EQ(text.substr(text.size() - 5), ".gone");
  EXPECT_EQ(to_file_name(pin_name_of(sample())),
            "0200000000ab-0000000000000007-abc00000000000010000000000000002-0000000000000004-"
            "0000000000010000-0000000000000003-0000000000000000-0000000000000000.pin");
}

TEST(FileName, ParsesBackToTheSameName) {
  const auto name = parse_file_name(kSampleFileName);
  ASSERT_TRUE(name.ok());
  EXPECT_TRUE(*name == sample());
  EXPECT_EQ(shard_of(name->lineage), 0xabcU);
}

TEST(FileName, RefusesEverythingElse) {
  const std::string good = kSampleFileName;
  for (std::size_t length = 0; length < good.size(); ++length) {
    EXPECT_FALSE(parse_file_name(good.substr(0, length)).ok()) << length;
  }
  EXPECT_FALSE(parse_file_name(good + "x").ok());
  EXPECT_FALSE(parse_file_name("x" + good).ok());
  for (std::size_t at = 0; at < good.size(); ++at) {
    for (const char wrong : {'g', 'A', '/', '\0'}) {
      std::string text = good;
      text[at] = wrong;
      if (text == good) continue;
      EXPECT_EQ(parse_file_name(text).error().code, Code::kCorrupt) << text;
    }
  }
}

// What stands on a medium may be anything; what is said of it goes to logs and terminals.
TEST(FileName, IsNotQuotedWhenItIsRefused) {
  EXPECT_EQ(parse_file_name("\033[2J").error().context.find('\033'), std::string::npos);
}

TEST(StoreFormat, OtherTimersOfMembersAreRefusedAndAbsentOnesAreOurs) {
  const std::string text = encode_format({kLayoutVersion, "0123456789abcdef0123456789abcdef"});
  EXPECT_NE(text.find("member_self_ms = 3000\n"), std::string::npos) << text;
  const std::size_t at = text.find("member_dead_ms = 12000\n");
  ASSERT_NE(at, std::string::npos) << text;
  EXPECT_TRUE(decode_format(text).ok());
  EXPECT_TRUE(decode_format(text.substr(0, text.find("member_self_ms"))).ok()) << "a store of before";
  std::string other = text;
  other.replace(at, 22, "member_dead_ms = 20000");
  const auto refused = decode_format(other);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, Code::kUnsupported);
  EXPECT_NE(refused.error().context.find("member_dead_ms is 20000; this program has 12000"),
            std::string::npos);
  other.replace(at, 22, "member_dead_ms = soon!");
  EXPECT_EQ(decode_format(other).error().code, Code::kCorrupt);
}

TEST(StoreFormat, RefusalsNameTheLineAndDoNotQuoteIt) {
  const std::string context = decode_format("# a store\n\n\033[2J\n").error().context;
  EXPECT_NE(context.find("line 3"), std::string::npos) << context;
  EXPECT_EQ(context.find('\033'), std::string::npos);
  EXPECT_NE(decode_format("a = 1\na = 2").error().context.find("line 2"), std::string::npos);
}

TEST(IsAllZero, FindsASingleByteAnywhere) {
  std::vector<unsigned char> bytes(1000);
  EXPECT_TRUE(is_all_zero(bytes.data(), bytes.size()));
  EXPECT_TRUE(is_all_zero(bytes.data(), 1));
  EXPECT_FALSE(is_all_zero(bytes.data(), 0)) << "an empty chunk is not a zero chunk";
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    bytes[at] = 1;
    ASSERT_FALSE(is_all_zero(bytes.data(), bytes.size())) << at;
    bytes[at] = 0;
  }
}

}  // namespace
}  // namespace cms::storage
