#include "base/digest.h"

#include <string>

#include <gtest/gtest.h>

namespace cms {
namespace {

// Expected values are from xxhsum 0.8.1 (`printf abc | xxhsum -H2`), which prints the canonical form.
std::string digest_of_text(const std::string& text) { return to_string(digest_of(text.data(), text.size())); }

Id128 id128(const char* text) { return parse_id128(text).value(); }

TEST(DigestTest, AgreesWithXxhsum) {
  EXPECT_EQ(digest_of_text(""), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(digest_of_text("a"), "a96faf705af16834e6c632b61e964e1f");
  EXPECT_EQ(digest_of_text("abc"), "06b05ab6733a618578af5f94892f3950");
  EXPECT_EQ(digest_of_text("message digest"), "34ab715d95e3b6490abfabecb8e3a424");
  EXPECT_EQ(digest_of_text(std::string(1'000'000, '\0')), "ef233fc372a159319d648391f361d99a");
}

TEST(DigestTest, DoesNotDependOnAlignment) {
  const std::string text = "x" + std::string(1'000'000, '\0');
  EXPECT_EQ(to_string(digest_of(text.data() + 1, text.size() - 1)), "ef233fc372a159319d648391f361d99a");
}

TEST(DigestTest, BlobDigestIsTheDigestOfCanonicalChunkDigests) {
  const Digest empty = id128("99aa06d3014798d86001c324468d497f");
  const Digest a = id128("a96faf705af16834e6c632b61e964e1f");
  const Digest abc = id128("06b05ab6733a618578af5f94892f3950");
  EXPECT_EQ(to_string(blob_digest_of({empty})), "88dffc9e4422ed4caabe9acf44c07a05");
  EXPECT_EQ(to_string(blob_digest_of({a, abc})), "c14cabe9e34241398c533e1487e18620");
  EXPECT_NE(blob_digest_of({a, abc}), blob_digest_of({abc, a}));
  EXPECT_EQ(blob_digest_of({}), empty);
}

// printf 'cms-lineage-1\x02\0\0\0\0\x01\0\0\0\0\0\0\0\x07' | xxhsum -H2
TEST(LineageTest, IsTheDigestOfDomainAndKeyInNetworkOrder) {
  EXPECT_EQ(to_string(lineage_of(ProgramKey{EcuMac{0x020000000001}, 7})), "fdef280fd54e22d916bb7f548aa8e70e");
  EXPECT_EQ(to_string(lineage_of(ProgramKey{EcuMac{0xfedcba987654}, UINT64_MAX})),
            "f4276f3d14b58ed472390f4de82e4902");
}

}  // namespace
}  // namespace cms
