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

// What a store has and what a program takes are written here once more, on purpose.
const std::pair<std::string, std::string> kTimersOfAStore[] = {{"member_self_ms", "3000"},
                                                               {"member_dead_ms", "12000"},
                                                               {"ecu_fence_ms", "5000"},
                                                               {"ecu_stop_ms", "1000"},
                                                               {"ecu_dead_ms", "8000"}};

TEST(StoreFormat, OtherTimersAreRefusedAndNamed) {
  const std::string text = encode_format({kLayoutVersion, "0123456789abcdef0123456789abcdef"});
  ASSERT_TRUE(decode_format(text).ok());
  for (const auto& [key, value] : kTimersOfAStore) {
    const std::string line = "\n" + key + " = " + value + "\n";
    const std::size_t at = text.find(line);
    ASSERT_NE(at, std::string::npos) << text;
    const auto with = [&, key = key](const std::string& other) {
      std::string changed = text;
      return decode_format(changed.replace(at, line.size(), "\n" + key + " = " + other + "\n"));
    };
    EXPECT_TRUE(with(value).ok());
    for (const std::string& other : {value + "0", std::string("0"), std::string("18446744073709551615")}) {
      const auto refused = with(other);
      ASSERT_FALSE(refused.ok()) << key;
      EXPECT_EQ(refused.error().code, Code::kUnsupported);
      EXPECT_NE(refused.error().context.find(key + " is " + other + "; this program has " + value),
                std::string::npos)
          << refused.error().message();
    }
    for (const std::string& no_number : {std::string("soon!"), std::string(), "-" + value, value + ".0"}) {
      const auto refused = with(no_number);
      ASSERT_FALSE(refused.ok()) << key;
      EXPECT_EQ(refused.error().code, Code::kCorrupt);
      EXPECT_NE(refused.error().context.find(key + " is not a number"), std::string::npos);
    }
  }
}

TEST(StoreFormat, AbsentTimersAreThoseOfTheProgram) {
  const std::string text = encode_format({kLayoutVersion, "0123456789abcdef0123456789abcdef"});
  EXPECT_TRUE(decode_format(text.substr(0, text.find("member_self_ms"))).ok()) << "before there were members";
  EXPECT_TRUE(decode_format(text.substr(0, text.find("ecu_fence_ms"))).ok())
      << "before there were run leases";
  for (const auto& [key, value] : kTimersOfAStore) {
    std::string without = text;
    const std::string line = key + " = " + value + "\n";
    EXPECT_TRUE(decode_format(without.replace(text.find(line), line.size(), "")).ok()) << key;
  }
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
