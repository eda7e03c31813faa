// Where the bytes of a checkpoint may lie: files, memfds, allocations, copies; and the memory budget.
#include "rtcr-client/src/sources.h"
#include "base/sanitized.h"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <fstream>
#include <sstream>

#include "rtcr-client/src/client_fixture_test.h"

namespace cms::client {
namespace {

using test::FakeCms;
using test::FakePlan;
using test::FakeState;

constexpr std::uint64_t kMiB = 1024 * 1024;

// A pull stops after 1 MiB, until the plan changes.
FakePlan stops_after_a_mebibyte() {
  FakePlan plan;
  plan.credit_bytes_max = kMiB;
  return plan;
}

bool wait_for_a_mebibyte(const FakeCms& cms, std::uint64_t seq) {
  return cms.wait_until([seq](const FakeState& state) {
    const auto it = state.pulled_bytes.find(seq);
    return it != state.pulled_bytes.end() && it->second >= kMiB;
  });
}

class File {
 public:
  explicit File(const std::string& bytes) {
    fd_ = ::mkostemp(path_.data(), O_CLOEXEC);
    EXPECT_GE(fd_, 0);
    EXPECT_EQ(::pwrite(fd_, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() {
    ::close(fd_);
    ::unlink(path_.c_str());
  }
  int fd() const { return fd_; }
  const std::string& path() const { return path_; }

 private:
  std::string path_ = testing::TempDir() + "sources_test_XXXXXX";
  int fd_ = -1;
};

int memfd_with(const std::string& bytes, int seals) {
  const int fd = ::memfd_create("sources_test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  EXPECT_EQ(::pwrite(fd, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  EXPECT_EQ(::fcntl(fd, F_ADD_SEALS, seals), 0);
  return fd;
}

rtcr_checkpoint of_fd(int fd) {
  rtcr_checkpoint checkpoint = rtcr_checkpoint_init();
  checkpoint.source = RTCR_SOURCE_FD;
  checkpoint.program_id = 7;
  checkpoint.fd = fd;
  return checkpoint;
}

TEST(FileSourceTest, FileArrivesWholeAndTheCallerMayCloseItsDescriptor) {
  FakeCms cms;
  TestClient client(cms.endpoint());
  const std::string bytes = blob_of(2 * kMiB + 5);
  const File file(bytes);
  const int fd = ::open(file.path().c_str(), O_RDONLY | O_CLOEXEC);
  const std::uint64_t seq = client.publish(of_fd(fd));
  ::close(fd);
  EXPECT_EQ(client.wait(seq, RTCR_STORED), RTCR_OK) << rtcr_last_error();
  EXPECT_TRUE(cms.state().pulled.at(seq) == bytes);
}

TEST(FileSourceTest, FileThatGrowsWhileItIsHeldIsDropped) {
  FakeCms cms(stops_after_a_mebibyte());
  TestClient client(cms.endpoint());
  const File file(blob_of(3 * kMiB));
  const std::uint64_t seq = client.publish(of_fd(file.fd()));
  ASSERT_TRUE(wait_for_a_mebibyte(cms, seq));
  ASSERT_EQ(::pwrite(file.fd(), "x", 1, static_cast<off_t>(3 * kMiB)), 1);
  cms.set_plan(FakePlan{});
  EXPECT_EQ(client.wait(seq, RTCR_STORED), RTCR_E_DROPPED);
  EXPECT_EQ(client.final_receipt(seq).code, static_cast<std::uint32_t>(RTCR_E_SOURCE_CHANGED));
  ASSERT_TRUE(cms.wait_until([&](const FakeState& state) { return state.pull_errors.count(seq) != 0; }));
  EXPECT_EQ(cms.state().pull_errors.at(seq), Code::kSourceChanged);
}

TEST(FileSourceTest, FileThatIsRewrittenWithTheSameSizeIsDropped) {
  FakeCms cms(stops_after_a_mebibyte());
  TestClient client(cms.endpoint());
  const File file(blob_of(3 * kMiB));
  const std::uint64_t seq = client.publish(of_fd(file.fd()));
  ASSERT_TRUE(wait_for_a_mebibyte(cms, seq));
  const timespec times[2] = {{0, UTIME_OMIT}, {1, 0}};  // As a write later than the clock's tick would.
  ASSERT_EQ(::futimens(file.fd(), times), 0);
  cms.set_plan(FakePlan{});
  EXPECT_EQ(client.wait(seq, RTCR_STORED), RTCR_E_DROPPED);
  EXPECT_EQ(client.final_receipt(seq).code, static_cast<std::uint32_t>(RTCR_E_SOURCE_CHANGED));
}

TEST(FileSourceTest, FileThatChangesAfterItWasStoredChangesNothing) {
  FakeCms cms;
  TestClient client(cms.endpoint());
  const File file("state");
  const std::uint64_t seq = client.publish(of_fd(file.fd()));
  EXPECT_EQ(client.wait(seq, RTCR_STORED), RTCR_OK);
  ASSERT_EQ(::ftruncate(file.fd(), 0), 0);
  EXPECT_EQ(client.wait(seq, RTCR_REPLICATED), RTCR_OK);
}

TEST(FileSourceTest, DescriptorsThatCannotBePublishedAreRefused) {
  FakeCms cms;
  TestClient client(cms.endpoint());
  const auto refused = [&](const rtcr_checkpoint& checkpoint) {
    EXPECT_EQ(rtcr_publish(client.get(), &checkpoint, nullptr), RTCR_E_INVALID_ARGUMENT);
    return std::string(rtcr_last_error());
  };
  int pipe_fds[2];
  ASSERT_EQ(::pipe2(pipe_fds, O_CLOEXEC), 0);
  EXPECT_NE(refused(of_fd(pipe_fds[0])).find("not a regular file"), std::string::npos);
  ::close(pipe_fds[0]);
  ::close(pipe_fds[1]);
  EXPECT_NE(refused(of_fd(-1)).find("not open"), std::string::npos);
  const File file("state");
  const int write_only = ::open(file.path().c_str(), O_WRONLY | O_CLOEXEC);
  EXPECT_NE(refused(of_fd(write_only)).find("for reading"), std::string::npos);
  ::close(write_only);
  rtcr_checkpoint wrong_size = of_fd(file.fd());
  wrong_size.size_bytes = 6;
  EXPECT_NE(refused(wrong_size).find("size_bytes: 6"), std::string::npos);
}

TEST(MemfdSourceTest, SealedOneIsMappedAndCountsAsMemory) {
  FakeCms cms(stops_after_a_mebibyte());
  TestClient client(cms.endpoint());
  const std::string bytes = blob_of(2 * kMiB);
  const int fd = memfd_with(bytes, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
  const std::uint64_t seq = client.publish(of_fd(fd));
  ::close(fd);
  ASSERT_TRUE(wait_for_a_mebibyte(cms, seq));
  rtcr_stats stats = rtcr_stats_init();
  ASSERT_EQ(rtcr_get_stats(client.get(), &stats), RTCR_OK);
  EXPECT_EQ(stats.held_memory_bytes, 2 * kMiB);
  cms.set_plan(FakePlan{});
  EXPECT_EQ(client.wait(seq, RTCR_STORED), RTCR_OK);
  EXPECT_TRUE(cms.state().pulled.at(seq) == bytes);
}

TEST(MemfdSourceTest, UnsealedOneIsReadLikeAFileAndDroppedWhenItChanges) {
  FakeCms cms(stops_after_a_mebibyte());
  TestClient client(cms.endpoint());
  const int fd = memfd_with(blob_of(2 * kMiB), F_SEAL_SHRINK);  // Can still be written to.
  const std::uint64_t seq = client.publish(of_fd(fd));
  ASSERT_TRUE(wait_for_a_mebibyte(cms, seq));
  ASSERT_EQ(::ftruncate(fd, 3 * kMiB), 0);
  cms.set_plan(FakePlan{});
  EXPECT_EQ(client.wait(seq, RTCR_STORED), RTCR_E_DROPPED);
  ::close(fd);
}

rtcr_checkpoint of_allocation(void* data, std::uint64_t size_bytes) {
  rtcr_checkpoint checkpoint = rtcr_checkpoint_init();
  checkpoint.source = RTCR_SOURCE_ALLOC;
  checkpoint.program_id = 7;
  checkpoint.data = data;
  checkpoint.size_bytes = size_bytes;
  return checkpoint;
}

// "rw-s" and so on of the mapping that begins at `address`; empty: there is none.
std::string permissions_at(const void* address) {
  std::ostringstream begin;
  begin << std::hex << reinterpret_cast<std::uintptr_t>(address) << '-';
  std::ifstream maps("/proc/self/maps");
  std::string line;
  while (std::getline(maps, line)) {
    if (line.rfind(begin.str(), 0) == 0) return line.substr(line.find(' ') + 1, 4);
  }
  return "";
}

TEST(AllocationTest, ArrivesIsReadOnlyWhileHeldAndGoneWhenStored) {
  FakeCms cms(stops_after_a_mebibyte());
  TestClient client(cms.endpoint());
  const std::string bytes = blob_of(2 * kMiB);
  void* data = nullptr;
  ASSERT_EQ(rtcr_alloc(client.get(), bytes.size(), &data), RTCR_OK) << rtcr_last_error();
  EXPECT_EQ(permissions_at(data), "rw-s");
  bytes.copy(static_cast<char*>(data), bytes.size());
  const std::uint64_t seq = client.publish(of_allocation(data, bytes.size()));
  ASSERT_TRUE(wait_for_a_mebibyte(cms, seq));
  EXPECT_EQ(permissions_at(data), "r--s");
  cms.set_plan(FakePlan{});
  EXPECT_EQ(client.wait(seq, RTCR_STORED), RTCR_OK);
  EXPECT_TRUE(cms.state().pulled.at(seq) == bytes);
  client.close();
  EXPECT_EQ(permissions_at(data), "");
}

TEST(AllocationTest, BelongsToTheClientOnceItIsPublished) {
  FakeCms cms;
  TestClient client(cms.endpoint());
  void* data = nullptr;
  ASSERT_EQ(rtcr_alloc(client.get(), 10, &data), RTCR_OK);
  const rtcr_checkpoint too_large = of_allocation(data, 4097);
  EXPECT_EQ(rtcr_publish(client.get(), &too_large, nullptr), RTCR_E_INVALID_ARGUMENT);
  rtcr_checkpoint wrong = of_allocation(data, 10);
  wrong.chunk_size_bytes = 5;
  EXPECT_EQ(rtcr_publish(client.get(), &wrong, nullptr), RTCR_E_INVALID_ARGUMENT);
  EXPECT_EQ(permissions_at(data), "rw-s") << "still the caller's after an error";
  const rtcr_checkpoint good = of_allocation(data, 10);
  EXPECT_EQ(client.wait(client.publish(good), RTCR_STORED), RTCR_OK);
  EXPECT_EQ(rtcr_publish(client.get(), &good, nullptr), RTCR_E_INVALID_ARGUMENT);
  EXPECT_EQ(rtcr_free(client.get(), data), RTCR_E_INVALID_ARGUMENT);
}

TEST(AllocationTest, UnpublishedOneIsFreedByTheCallerOrTheClose) {
  FakeCms cms;
  TestClient client(cms.endpoint());
  void* freed = nullptr;
  void* forgotten = nullptr;
  ASSERT_EQ(rtcr_alloc(client.get(), 10, &freed), RTCR_OK);
  ASSERT_EQ(rtcr_alloc(client.get(), 10, &forgotten), RTCR_OK);
  EXPECT_EQ(rtcr_free(client.get(), freed), RTCR_OK);
  EXPECT_EQ(rtcr_free(client.get(), freed), RTCR_E_INVALID_ARGUMENT);
  int on_stack = 0;
  EXPECT_EQ(rtcr_free(client.get(), &on_stack), RTCR_E_INVALID_ARGUMENT);
  client.close();
  EXPECT_EQ(permissions_at(forgotten), "");
}

// Sanitizers make mlock do nothing; there is nothing to be seen then.
#if CMS_SANITIZED
constexpr bool kMlockWorks = false;
#elif defined(__has_feature)
constexpr bool kMlockWorks = !(__has_feature(address_sanitizer) || __has_feature(thread_sanitizer));
#else
constexpr bool kMlockWorks = true;
#endif

TEST(AllocationTest, IsLockedWhereThatWasAskedFor) {
  FakeCms cms;
  TestClient client(cms.endpoint(), [](rtcr_options& options) { options.flags = RTCR_LOCK_MEMORY; });
  void* data = nullptr;
  ASSERT_EQ(rtcr_alloc(client.get(), 4096, &data), RTCR_OK) << rtcr_last_error();
  if (kMlockWorks) {
    unsigned char resident = 0;
    ASSERT_EQ(::mincore(data, 4096, &resident), 0);
    EXPECT_EQ(resident & 1, 1) << "locked pages are there before they are touched";
  }
  const std::string bytes = blob_of(10000);
  EXPECT_EQ(client.wait(client.publish_copy(7, bytes), RTCR_STORED), RTCR_OK) << rtcr_last_error();
  EXPECT_TRUE(cms.state().pulled.at(1) == bytes);
}

// ---- the budget

TEST(BudgetTest, CopyThatDoesNotFitIsDroppedByReceiptAndOthersGoOn) {
  FakePlan plan;
  plan.pull = false;
  FakeCms cms(plan);
  TestClient client(cms.endpoint(), [](rtcr_options& options) { options.memory_budget_bytes = 2 * kMiB; });
  const std::uint64_t first = client.publish_copy(7, blob_of(1500 * 1024));
  EXPECT_EQ(client.wait(first, RTCR_ANNOUNCED), RTCR_OK);
  const std::uint64_t second = client.publish_copy(8, blob_of(1500 * 1024));
  const rtcr_receipt receipt = client.final_receipt(second);
  EXPECT_EQ(receipt.level, static_cast<std::uint32_t>(RTCR_DROPPED));
  EXPECT_EQ(receipt.code, static_cast<std::uint32_t>(RTCR_E_LIMIT));
  cms.set_plan(FakePlan{});
  EXPECT_EQ(client.wait(first, RTCR_STORED), RTCR_OK);
}

TEST(BudgetTest, CopyLargerThanTheBudgetIsNeverMade) {
  FakeCms cms;
  TestClient client(cms.endpoint(), [](rtcr_options& options) { options.memory_budget_bytes = kMiB; });
  rtcr_checkpoint checkpoint = rtcr_checkpoint_init();
  checkpoint.source = RTCR_SOURCE_COPY;
  checkpoint.data = "x";  // It is not read: it has one byte.
  checkpoint.size_bytes = std::uint64_t{1} << 40;
  const std::uint64_t seq = client.publish(checkpoint);
  EXPECT_EQ(client.wait(seq, RTCR_STORED), RTCR_E_DROPPED);
  EXPECT_EQ(client.final_receipt(seq).code, static_cast<std::uint32_t>(RTCR_E_LIMIT));
}

TEST(BudgetTest, ANewerCopyTakesThePlaceOfTheOneNobodyPulls) {
  FakePlan plan;
  plan.pull = false;
  FakeCms cms(plan);
  TestClient client(cms.endpoint(), [](rtcr_options& options) { options.memory_budget_bytes = kMiB; });
  std::uint64_t last = 0;
  for (std::uint32_t i = 0; i < 10; ++i) {
    const std::string bytes = blob_of(900 * 1024, i);
    last = client.publish_copy(7, bytes);
    EXPECT_EQ(client.wait(last, RTCR_ANNOUNCED), RTCR_OK);
  }
  EXPECT_EQ(client.final_receipt(last - 1).level, static_cast<std::uint32_t>(RTCR_SUPERSEDED));
  cms.set_plan(FakePlan{});
  EXPECT_EQ(client.wait(last, RTCR_STORED), RTCR_OK);
}

TEST(BudgetTest, AllocationsBeyondTwiceTheBudgetAreRefused) {
  FakeCms cms;
  TestClient client(cms.endpoint(), [](rtcr_options& options) { options.memory_budget_bytes = kMiB; });
  void* first = nullptr;
  void* second = nullptr;
  ASSERT_EQ(rtcr_alloc(client.get(), 2 * kMiB, &first), RTCR_OK);
  EXPECT_EQ(rtcr_alloc(client.get(), 1, &second), RTCR_E_LIMIT);
  EXPECT_EQ(rtcr_alloc(client.get(), UINT64_MAX, &second), RTCR_E_LIMIT);
  ASSERT_EQ(rtcr_free(client.get(), first), RTCR_OK);
  EXPECT_EQ(rtcr_alloc(client.get(), 1, &second), RTCR_OK);
}

}  // namespace
}  // namespace cms::client
