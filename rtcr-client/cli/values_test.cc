#include "rtcr-client/cli/values.h"

#include <gtest/gtest.h>

#include "rtcr-client/cli/terminal.h"

namespace cms::cli {
namespace {

using std::chrono::milliseconds;

TEST(DurationTest, HasAUnit) {
  EXPECT_EQ(parse_duration("500ms").value(), milliseconds(500));
  EXPECT_EQ(parse_duration("30s").value(), milliseconds(30000));
  EXPECT_EQ(parse_duration("2m").value(), milliseconds(120000));
  EXPECT_EQ(parse_duration("1h").value(), milliseconds(3600000));
  EXPECT_EQ(parse_duration("0s").value(), milliseconds(0));
}

TEST(DurationTest, EverythingElseIsRefusedWithWhatIsAllowed) {
  for (const char* text : {"", "5", "s", "-5s", "5 s", "1.5s", "5S", "9000h", "99999999999999999999s"}) {
    const auto duration = parse_duration(text);
    ASSERT_FALSE(duration.ok()) << text;
    EXPECT_NE(duration.error().context.find("500ms, 30s, 2m, 1h"), std::string::npos);
  }
}

TEST(SizeTest, HasABinaryUnitOrNone) {
  EXPECT_EQ(parse_size("4096").value(), 4096U);
  EXPECT_EQ(parse_size("64KiB").value(), 65536U);
  EXPECT_EQ(parse_size("256MiB").value(), 268435456U);
  EXPECT_EQ(parse_size("4GiB").value(), 4294967296U);
  for (const char* text : {"", "0", "4k", "4KB", "MiB", "1048577GiB"})
    EXPECT_FALSE(parse_size(text).ok()) << text;
}

TEST(ProgressTest, TellsBytesRateAndTimeLeft) {
  EXPECT_EQ(progress_line("published", 3 * 1048576, 4 * 1048576, std::chrono::seconds(3)),
            "published: 3.0 MiB of 4.0 MiB, 1.0 MiB/s, 2 s left");
  EXPECT_EQ(progress_line("get", 512, std::nullopt, std::chrono::seconds(1)), "get: 512 B, 512 B/s");
}

}  // namespace
}  // namespace cms::cli
