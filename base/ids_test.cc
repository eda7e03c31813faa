#include "base/ids.h"

#include <gtest/gtest.h>

namespace cms {
namespace {

constexpr EcuMac kEcu{0x020000000001};

TEST(EcuMacTest, PrintsOctetsFirstHighest) {
  EXPECT_EQ(to_string(EcuMac{0x02a1b2c3d4e5}), "02:a1:b2:c3:d4:e5");
  EXPECT_EQ(to_string(EcuMac{0x1}), "00:00:00:00:00:01");
}

TEST(EcuMacTest, ParsesEitherCase) {
  EXPECT_EQ(parse_ecu_mac("02:a1:b2:c3:d4:e5").value(), EcuMac{0x02a1b2c3d4e5});
  EXPECT_EQ(parse_ecu_mac("02:A1:B2:C3:D4:E5").value(), EcuMac{0x02a1b2c3d4e5});
  EXPECT_EQ(parse_ecu_mac("fe:ff:ff:ff:ff:ff").value(), EcuMac{0xfeffffffffff});
}

TEST(EcuMacTest, RefusesWhatCannotNameAnEcu) {
  for (const char* text : {"", "02:00:00:00:00", "02:00:00:00:00:01:", "02:00:00:00:00:1",
                           "02-00-00-00-00-01", "0200:00:00:00:001", "0g:00:00:00:00:01", " 2:00:00:00:00:01",
                           "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01"}) {
    const auto parsed = parse_ecu_mac(text);
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_EQ(parsed.error().code, Code::kInvalidArgument);
    EXPECT_NE(parsed.error().context.find(text), std::string::npos) << parsed.error().context;
  }
  EXPECT_FALSE(is_valid_ecu_mac(EcuMac{0x1000000000000}));
  EXPECT_FALSE(is_valid_ecu_mac(EcuMac{0x1020000000001}));
}

TEST(Id128Test, PrintsAndParses32Digits) {
  const Id128 id{0x0123456789abcdef, 0x00000000000000ff};
  EXPECT_EQ(to_string(id), "0123456789abcdef00000000000000ff");
  EXPECT_EQ(parse_id128("0123456789abcdef00000000000000ff").value(), id);
  EXPECT_EQ(to_string(Id128{}), std::string(32, '0'));
}

TEST(Id128Test, RefusesOtherLengthsAndDigits) {
  EXPECT_FALSE(parse_id128("").ok());
  EXPECT_FALSE(parse_id128(std::string(31, '0')).ok());
  EXPECT_FALSE(parse_id128(std::string(33, '0')).ok());
  EXPECT_FALSE(parse_id128(std::string(31, '0') + "g").ok());
}

TEST(ParseU64Test, TakesTheWholeRange) {
  EXPECT_EQ(parse_u64("0").value(), 0U);
  EXPECT_EQ(parse_u64("18446744073709551615").value(), UINT64_MAX);
}

TEST(ParseU64Test, RefusesAnythingElse) {
  for (const char* text : {"", "-1", "+1", " 1", "1 ", "0x10", "1.0", "18446744073709551616", "ten"}) {
    EXPECT_FALSE(parse_u64(text).ok()) << text;
  }
}

TEST(KeyTest, ParsesAProgramAndACheckpoint) {
  const Key newest = parse_key("02:00:00:00:00:01/7").value();
  EXPECT_EQ(newest.program, (ProgramKey{kEcu, 7}));
  EXPECT_FALSE(newest.has_version);

  const Key exact = parse_key("02:00:00:00:00:01/18446744073709551615@65536.3").value();
  EXPECT_EQ(exact.program, (ProgramKey{kEcu, UINT64_MAX}));
  EXPECT_TRUE(exact.has_version);
  EXPECT_EQ(exact.version, (Version{65536, 3}));
}

TEST(KeyTest, ParsesWhatToStringPrints) {
  const CheckpointId id{ProgramKey{kEcu, 0}, Version{65536, 3}};
  EXPECT_EQ(to_string(id.program), "02:00:00:00:00:01/0");
  EXPECT_EQ(to_string(SessionId{kEcu, 65536}), "02:00:00:00:00:01@65536");
  EXPECT_EQ(to_string(id), "02:00:00:00:00:01/0@65536.3");
  const Key key = parse_key(to_string(id)).value();
  EXPECT_EQ((CheckpointId{key.program, key.version}), id);
}

TEST(KeyTest, RefusesAnythingElseAndShowsTheForm) {
  for (const char* text :
       {"", "/", "02:00:00:00:00:01", "02:00:00:00:00:01/", "/7", "02:00:00:00:00:01/7@",
        "02:00:00:00:00:01/7@1", "02:00:00:00:00:01/7@1.", "02:00:00:00:00:01/7@.1",
        "02:00:00:00:00:01/7@1.2.3", "02:00:00:00:00:01/7@1@2", "02:00:00:00:00:01/7@0.1",
        "02:00:00:00:00:01/7@1.0", "02:00:00:00:00:01/-7", "01:00:00:00:00:01/7", "02:00:00:00:00:01/7 "}) {
    const auto key = parse_key(text);
    ASSERT_FALSE(key.ok()) << text;
    EXPECT_EQ(key.error().code, Code::kInvalidArgument);
    EXPECT_NE(key.error().context.find("ecu_mac/program_id[@incarnation.seq]"), std::string::npos);
  }
}

TEST(VersionTest, IncarnationOutweighsSeq) {
  EXPECT_LT((Version{1, 9}), (Version{2, 1}));
  EXPECT_LT((Version{2, 1}), (Version{2, 2}));
  EXPECT_FALSE((Version{2, 2}) < (Version{2, 2}));
  EXPECT_LE((Version{2, 2}), (Version{2, 2}));
  EXPECT_FALSE((Version{2, 2}) <= (Version{1, 9}));
}

TEST(CheckpointIdTest, OrdersByEcuThenProgramThenVersion) {
  const CheckpointId a{ProgramKey{EcuMac{2}, 9}, Version{9, 9}};
  const CheckpointId b{ProgramKey{EcuMac{4}, 1}, Version{1, 1}};
  const CheckpointId c{ProgramKey{EcuMac{4}, 2}, Version{1, 1}};
  const CheckpointId d{ProgramKey{EcuMac{4}, 2}, Version{1, 2}};
  EXPECT_LT(a, b);
  EXPECT_LT(b, c);
  EXPECT_LT(c, d);
  EXPECT_FALSE(d < a);
}

}  // namespace
}  // namespace cms
