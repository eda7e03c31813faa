// The C ABI towards callers of other versions, and towards null pointers.
#include <gtest/gtest.h>

#include <cstdint>

#include "rtcr-client/src/client_fixture_test.h"

namespace cms::client {
namespace {

using test::FakeCms;

struct LaterCheckpoint {
  rtcr_checkpoint known;
  std::uint64_t later;
};

TEST(AbiTest, ALaterCallersStructIsTakenWhileItsNewFieldsAreZero) {
  FakeCms cms;
  TestClient client(cms.endpoint());
  LaterCheckpoint checkpoint{rtcr_checkpoint_init(), 0};
  checkpoint.known.struct_size = sizeof(checkpoint);
  checkpoint.known.source = RTCR_SOURCE_COPY;
  EXPECT_EQ(rtcr_publish(client.get(), &checkpoint.known, nullptr), RTCR_OK) << rtcr_last_error();
  checkpoint.later = 1;
  EXPECT_EQ(rtcr_publish(client.get(), &checkpoint.known, nullptr), RTCR_E_UNSUPPORTED);
}

TEST(AbiTest, AStructSizeThatNoVersionHadIsRefused) {
  FakeCms cms;
  TestClient client(cms.endpoint());
  rtcr_checkpoint checkpoint = rtcr_checkpoint_init();
  constexpr std::uint32_t kFirstVersion = offsetof(rtcr_checkpoint, tight);
  for (const std::uint32_t size : {std::uint32_t{0}, kFirstVersion - 1, UINT32_MAX}) {
    checkpoint.struct_size = size;
    EXPECT_EQ(rtcr_publish(client.get(), &checkpoint, nullptr), RTCR_E_INVALID_ARGUMENT) << size;
  }
  checkpoint.struct_size = kFirstVersion;
  checkpoint.source = RTCR_SOURCE_COPY;
  EXPECT_EQ(rtcr_publish(client.get(), &checkpoint, nullptr), RTCR_OK) << rtcr_last_error();
  rtcr_stats stats = rtcr_stats_init();
  stats.struct_size = 4;
  EXPECT_EQ(rtcr_get_stats(client.get(), &stats), RTCR_E_INVALID_ARGUMENT);
}

TEST(AbiTest, ALaterCallersResultIsFilledAsFarAsItIsKnown) {
  FakeCms cms;
  TestClient client(cms.endpoint());
  struct LaterStats {
    rtcr_stats known;
    std::uint64_t later;
  } stats{rtcr_stats_init(), 77};
  stats.known.struct_size = sizeof(stats);
  EXPECT_EQ(rtcr_get_stats(client.get(), &stats.known), RTCR_OK);
  EXPECT_EQ(stats.known.struct_size, sizeof(stats));
  EXPECT_EQ(stats.later, 0U);
}

TEST(AbiTest, NullPointersAreRefusedOrHarmless) {
  EXPECT_EQ(rtcr_close(nullptr), RTCR_OK);
  EXPECT_EQ(rtcr_open(nullptr, nullptr), RTCR_E_INVALID_ARGUMENT);
  EXPECT_EQ(rtcr_publish(nullptr, nullptr, nullptr), RTCR_E_INVALID_ARGUMENT);
  EXPECT_EQ(rtcr_poll_fd(nullptr), -1);
  FakeCms cms;
  TestClient client(cms.endpoint());
  EXPECT_EQ(rtcr_publish(client.get(), nullptr, nullptr), RTCR_E_INVALID_ARGUMENT);
  EXPECT_EQ(rtcr_next_receipt(client.get(), nullptr), RTCR_E_INVALID_ARGUMENT);
  EXPECT_EQ(rtcr_fetch_newest(client.get(), nullptr, nullptr), RTCR_E_INVALID_ARGUMENT);
  EXPECT_EQ(rtcr_alloc(client.get(), 1, nullptr), RTCR_E_INVALID_ARGUMENT);
  EXPECT_EQ(rtcr_free(client.get(), nullptr), RTCR_OK);
}

TEST(AbiTest, EveryStatusAndLevelHasAWord) {
  EXPECT_STREQ(rtcr_error_string(RTCR_OK), "ok");
  EXPECT_STREQ(rtcr_error_string(RTCR_E_NO_SPACE), "no space");
  EXPECT_STREQ(rtcr_error_string(RTCR_E_ENDED), "ended");
  EXPECT_STREQ(rtcr_error_string(-1), "unknown status");
  EXPECT_STREQ(rtcr_level_string(RTCR_STORED), "STORED");
  EXPECT_STREQ(rtcr_level_string(8), "UNKNOWN");
  EXPECT_STREQ(rtcr_version(), "0.1.0");
}

}  // namespace
}  // namespace cms::client
