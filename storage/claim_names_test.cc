// Names of records and members, and the bytes of their files.
#include "storage/claim_names.h"

#include <gtest/gtest.h>

#include <string>

#include "base/digest.h"
#include "storage/claim_record_file.h"
#include "storage/store_layout.h"

namespace cms::storage {
namespace {

const LogId kLineageLog = log_of(Lineage{0xab0123456789cdefULL, 0x00000000000000ffULL});
const LogId kEcuLog = log_of(EcuMac{0x0200000000a7ULL});

TEST(ClaimNames, AreThoseOfTheFormat) {
  EXPECT_EQ(slot_path(kLineageLog, 1), "ab/ab0123456789cdef00000000000000ff.0000000000000001.log");
  EXPECT_EQ(slot_path(kEcuLog, 0xfedcba9876543210ULL), "a7/ecu-0200000000a7.fedcba9876543210.log");
  EXPECT_EQ(member_file_name("cms-1.a", 0x1f), "cms-1.a.000000000000001f");
  EXPECT_EQ(draft_file_name(Id128{1, 2}), "00000000000000010000000000000002.draft");
  EXPECT_EQ(log_shard_name(0), "00");
  EXPECT_EQ(log_shard_name(255), "ff");
  EXPECT_EQ(to_string(kEcuLog), "the log of ECU 02:00:00:00:00:a7");
}

TEST(ClaimNames, OfSlotsComeBackAndNothingElseIsTaken) {
  for (const LogId& log : {kLineageLog, kEcuLog, log_of(Lineage{})}) {
    for (const Slot slot : {Slot{1}, Slot{UINT64_MAX}}) {
      const auto parsed = parse_slot_file_name(slot_file_name(log, slot));
      ASSERT_TRUE(parsed.ok());
      EXPECT_EQ(parsed->log, log);
      EXPECT_EQ(parsed->slot, slot);
    }
  }
  for (const char* wrong : {"",
                            ".log",
                            "ab0123456789cdef00000000000000ff.0000000000000000.log",  // There is no slot 0.
                            "ab0123456789cdef00000000000000ff.0000000000000001",
                            "ab0123456789cdef00000000000000ff.0000000000000001.log.log",
                            "ab0123456789cdef00000000000000ff.000000000000001.log",
                            "ab0123456789cdef00000000000000ff.00000000000000001.log",
                            "ab0123456789cdef00000000000000f.0000000000000001.log",
                            "ab0123456789cdef00000000000000fff.0000000000000001.log",
                            "AB0123456789cdef00000000000000ff.0000000000000001.log",
                            "ab0123456789cdef00000000000000ff.000000000000000A.log",
                            "ab0123456789cdef00000000000000ff-0000000000000001.log",
                            " b0123456789cdef00000000000000ff.0000000000000001.log",
                            "ab0123456789cdef00000000000000ff.+000000000000001.log",
                            "ecu-0200000000a7.0000000000000000.log",
                            "ecu-200000000a7.0000000000000001.log",
                            "ecu-000000000000.0000000000000001.log",  // No ECU has these two.
                            "ecu-0100000000a7.0000000000000001.log",
                            "ecu-00000000000000000000000200000000a7.0000000000000001.log",
                            "ECU-0200000000a7.0000000000000001.log"}) {
    const auto parsed = parse_slot_file_name(wrong);
    ASSERT_FALSE(parsed.ok()) << wrong;
    EXPECT_EQ(parsed.error().code, Code::kCorrupt);
  }
}

TEST(ClaimNames, OfMembersAreToldFromLocksAndOthers) {
  for (const std::string node : {"a", "a.lock", "x.0123456789abcdef", "-"}) {
    const auto parsed = parse_member_file_name(member_file_name(node, 0xfedcba9876543210ULL));
    ASSERT_TRUE(parsed.ok()) << node;
    EXPECT_EQ(parsed->node, node);
    EXPECT_EQ(parsed->node_incarnation, 0xfedcba9876543210ULL);
  }
  const std::string long_name(65, 'n');
  for (const std::string& wrong : {std::string(), std::string("a.lock"), std::string("a"),
                                   std::string(".0000000000000001"), std::string("..0000000000000001"),
                                   std::string("a.000000000000001"), std::string("a.00000000000000001"),
                                   std::string("a.000000000000000G"), std::string("a b.0000000000000001"),
                                   std::string("a/b.0000000000000001"), long_name + ".0000000000000001"}) {
    EXPECT_FALSE(parse_member_file_name(wrong).ok()) << wrong;
  }
}

TEST(ClaimNames, OfSelfTestsAreKnownByTheirNode) {
  const std::string name = self_test_name("a.b", 7, "linked");
  EXPECT_TRUE(is_self_test_of(name, "a.b"));
  EXPECT_FALSE(is_self_test_of(name, "a"));
  EXPECT_FALSE(is_self_test_of("selftest.a", "a"));
  EXPECT_FALSE(is_self_test_of("ab", "a"));
}

TEST(ClaimNames, AStoreInTheMakingMayHoldWhatSaysNothing) {
  EXPECT_TRUE(may_be_in_unformatted("claims", self_test_name("b", 1, "linked")));
  EXPECT_FALSE(may_be_in_unformatted("claims", slot_file_name(kLineageLog, 1)));
  EXPECT_FALSE(may_be_in_unformatted("claims", "ab"));  // A directory: may be there when it is empty.
  EXPECT_TRUE(may_be_in_unformatted("nodes", member_file_name("a", 1)));
  EXPECT_TRUE(may_be_in_unformatted("nodes", "a.lock"));
  EXPECT_FALSE(may_be_in_unformatted("nodes", "letter.txt"));
  EXPECT_FALSE(may_be_in_unformatted("quarantine", "a.lock"));
}

// ---- bytes

std::string hex_of(const std::string& bytes) {
  std::string text;
  for (const char c : bytes) {
    text += "0123456789abcdef"[static_cast<unsigned char>(c) >> 4];
    text += "0123456789abcdef"[static_cast<unsigned char>(c) & 0xf];
  }
  return text;
}

TEST(ClaimFile, HasTheBytesOfTheFormat) {
  const std::string text = encode_claim_file(
      "name", {ClaimFileKind::kMember, Id128{0x0102030405060708ULL, 0x090a0b0c0d0e0f10ULL}, "abc"});
  ASSERT_EQ(text.size(), 1024U);
  EXPECT_EQ(hex_of(text.substr(0, 48)),
            "89434d53430d0a1a"  // magic
            "0100"
            "0200"
            "03000000"                            // version, kind, length
            "0102030405060708090a0b0c0d0e0f10"    // nonce
            "00000000000000000000000000000000");  // reserved
  EXPECT_EQ(text.substr(64), "abc" + std::string(957, '\0'));
  const std::string covered = "name\n" + text.substr(0, 48) + text.substr(64);
  EXPECT_EQ(hex_of(text.substr(48, 16)), to_string(digest_of(covered.data(), covered.size())));
}

TEST(ClaimFile, ComesBackUnderItsNameAndAsItsKindOnly) {
  const ClaimFile file{ClaimFileKind::kRecord, Id128{1, 2}, std::string(kRecordBytesMax, '\xff')};
  const std::string text = encode_claim_file("name", file);
  const auto back = decode_claim_file("name", ClaimFileKind::kRecord, text);
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->nonce, file.nonce);
  EXPECT_EQ(back->bytes, file.bytes);
  EXPECT_EQ(decode_claim_file("other", ClaimFileKind::kRecord, text).error().code, Code::kCorrupt);
  EXPECT_EQ(decode_claim_file("name", ClaimFileKind::kMember, text).error().code, Code::kCorrupt);
}

TEST(ClaimFile, OfAMemberIsAsManySectorsAsItTakesAndNoMore) {
  const auto written = [](std::size_t size, char c) {
    return encode_claim_file("name", {ClaimFileKind::kMember, {}, std::string(size, c)});
  };
  EXPECT_EQ(written(1, 'x').size(), 1024U);
  EXPECT_EQ(written(960, 'x').size(), 1024U);
  EXPECT_EQ(written(961, 'x').size(), 2048U);
  EXPECT_EQ(written(1984, 'x').size(), 2048U);
  EXPECT_EQ(kMemberBytesMax, 17344U);
  EXPECT_EQ(written(kMemberBytesMax, 'x').size(), 17408U);
  const std::string text = written(961, 'a');
  EXPECT_EQ(hex_of(text.substr(12, 4)), "c1030000");
  EXPECT_EQ(text.substr(64), std::string(961, 'a') + std::string(1023, '\0'));
  const std::string covered = "name\n" + text.substr(0, 48) + text.substr(64);
  EXPECT_EQ(hex_of(text.substr(48, 16)), to_string(digest_of(covered.data(), covered.size())));
}

// The length is read before the digest can be: whatever it says, nothing beyond the file is looked at.
TEST(ClaimFile, OfAMemberWithALengthThatIsNotTrueIsCorrupt) {
  const std::string text = encode_claim_file("name", {ClaimFileKind::kMember, {}, std::string(2000, 'm')});
  const auto refusal = [&](std::uint32_t length) {
    std::string altered = text;
    for (int i = 0; i < 4; ++i)
      altered[static_cast<std::size_t>(12 + i)] = static_cast<char>(length >> (8 * i));
    const auto decoded = decode_claim_file("name", ClaimFileKind::kMember, altered);
    return decoded.ok() ? make_error(Code::kOk, "") : decoded.error();
  };
  EXPECT_EQ(refusal(2000).code, Code::kOk);
  for (const std::uint32_t length : {0U, 1U, 960U, 961U, 1999U, 2001U, 17344U, 17345U, UINT32_MAX}) {
    EXPECT_EQ(refusal(length).code, Code::kCorrupt) << length;
  }
  EXPECT_EQ(refusal(17344).context, "cut off after 3072 bytes of 17408");
  EXPECT_EQ(refusal(17345).context, "impossible length");
}

TEST(ClaimFile, OfAMemberEndsWithItsRecordWhateverIsBehindIt) {
  const std::string text = encode_claim_file("name", {ClaimFileKind::kMember, {}, "short"});
  const auto seen = [](ClaimFileKind kind, const std::string& file) {
    const auto decoded = decode_claim_file("name", kind, file);
    return decoded.ok() ? decoded->bytes : std::string(to_string(decoded.error().code));
  };
  EXPECT_EQ(seen(ClaimFileKind::kMember, text), "short");
  EXPECT_EQ(seen(ClaimFileKind::kMember, text + "x"), "short");
  EXPECT_EQ(seen(ClaimFileKind::kMember, text + std::string(16384, 'x')), "short");
  std::string altered = text;
  altered[1023] = 'x';
  EXPECT_EQ(seen(ClaimFileKind::kMember, altered), "corrupt")
      << "in the last sector written, all bytes count";
  const std::string record = encode_claim_file("name", {ClaimFileKind::kRecord, {}, "short"});
  EXPECT_EQ(seen(ClaimFileKind::kRecord, record), "short");
  EXPECT_EQ(seen(ClaimFileKind::kRecord, record + "x"), "corrupt");
  const std::string longer = encode_claim_file("name", {ClaimFileKind::kMember, {}, std::string(961, 'x')});
  EXPECT_EQ(seen(ClaimFileKind::kRecord, longer), "corrupt");
  EXPECT_EQ(seen(ClaimFileKind::kRecord, longer.substr(0, 1024)), "corrupt");
}

TEST(ClaimFile, IsCorruptWithAnyBitOtherOrAnyByteMissing) {
  const std::string text = encode_claim_file("name", {ClaimFileKind::kRecord, Id128{1, 2}, "bytes"});
  for (std::size_t i = 0; i < text.size(); ++i) {
    std::string altered = text;
    altered[i] = static_cast<char>(altered[i] ^ (1 << (i % 8)));
    const auto decoded = decode_claim_file("name", ClaimFileKind::kRecord, altered);
    ASSERT_FALSE(decoded.ok()) << "byte " << i;
    EXPECT_EQ(decoded.error().code, Code::kCorrupt) << "byte " << i;
    EXPECT_EQ(decode_claim_file("name", ClaimFileKind::kRecord, text.substr(0, i)).error().code,
              Code::kCorrupt)
        << i;
  }
  EXPECT_EQ(decode_claim_file("name", ClaimFileKind::kRecord, text + '\0').error().code, Code::kCorrupt);
}

}  // namespace
}  // namespace cms::storage
