// What cmsd takes of memory while large checkpoints go to a NAS and come back from it.
#include <gtest/gtest.h>

#include <string>

#include "base/sanitized.h"
#include "test/integration/nfs_fleet.h"
#include "test/support/cmsd_process.h"
#include "test/support/publisher.h"
#include "test/support/temp_dir.h"

namespace cms::test {
namespace {

constexpr const char* kEcu = "02:00:00:00:00:01";

TEST(NfsMemoryTest, LargeCheckpointsStayWithinTheMemoryThatIsPromised) {
  constexpr std::uint64_t kBudget = 32ULL << 20;
  constexpr std::size_t kSizeBytes = CMS_SANITIZED != 0 ? 16U << 20 : 128U << 20;
  const auto ganesha = start_ganesha();
  ASSERT_NE(ganesha, nullptr);
  const TempDir dir;
  CmsdProcess::Options options;
  options.store_url = ganesha->url();
  options.arguments = {"--pull-budget", "32MiB"};
  CmsdProcess cmsd(dir, options);
  Publisher publisher(cmsd.endpoint(), kEcu);
  for (std::uint64_t program = 1; program <= 2; ++program) {
    const std::uint64_t seq = publisher.publish(program, 1, kSizeBytes);
    ASSERT_EQ(publisher.wait(seq, RTCR_STORED, 200000), RTCR_OK) << cmsd.log();
  }
  EXPECT_TRUE(get_newest(cmsd, publisher.key(1), dir / "back") == blob_of(1, 1, kSizeBytes));
  // A sanitizer keeps freed memory back and shadows the rest.
  if (CMS_SANITIZED == 0) {
    std::printf("%llu MiB at most\n", static_cast<unsigned long long>(cmsd.peak_memory_bytes() >> 20));
    EXPECT_LE(cmsd.peak_memory_bytes(), (64ULL << 20) + kBudget);
  }
}

}  // namespace
}  // namespace cms::test
