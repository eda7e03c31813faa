// Getting checkpoints back from a CMS on real sockets.
#include "rtcr-client/src/fetch.h"

#include <gtest/gtest.h>

#include <sys/mman.h>
#include <unistd.h>

#include "rtcr-client/src/client_fixture_test.h"

namespace cms::client {
namespace {

using test::FakeCms;
using test::FakePlan;

constexpr std::size_t kBlobBytes = 20 * 1024 * 1024 + 3;  // More than two windows.

CheckpointId checkpoint_of(ProgramId program_id, Incarnation incarnation, Seq seq) {
  return CheckpointId{ProgramKey{*parse_ecu_mac(kEcuMac), program_id}, Version{incarnation, seq}};
}

struct Fetched {
  int status = -1;
  std::string bytes{};
  rtcr_fetched info = rtcr_fetched_init();
};

// By callback, which also sees that everything comes in order and once.
Fetched fetch(const TestClient& client, std::uint64_t program_id,
              const std::function<void(rtcr_fetch&)>& change = {}) {
  Fetched fetched;
  rtcr_fetch given = rtcr_fetch_init();
  given.program_id = program_id;
  given.target = RTCR_TARGET_CALLBACK;
  given.bytes_context = &fetched.bytes;
  given.timeout_ms = kPatienceMs;
  given.on_bytes = [](void* context, const void* data, std::uint64_t size_bytes, std::uint64_t offset_bytes,
                      std::uint64_t) {
    auto* bytes = static_cast<std::string*>(context);
    EXPECT_EQ(bytes->size(), offset_bytes);
    bytes->append(static_cast<const char*>(data), size_bytes);
    return 0;
  };
  if (change) change(given);
  fetched.status = rtcr_fetch_newest(client.get(), &given, &fetched.info);
  return fetched;
}

TEST(FetchTest, NewestComesBackBitForBit) {
  FakeCms cms;
  TestClient client(cms.endpoint());
  const std::string bytes = blob_of(kBlobBytes);
  cms.offer(checkpoint_of(7, 65536, 1), "older");
  cms.offer(checkpoint_of(7, 65536, 2), bytes);
  const Fetched fetched = fetch(client, 7);
  EXPECT_EQ(fetched.status, RTCR_OK) << rtcr_last_error();
  EXPECT_TRUE(fetched.bytes == bytes);
  EXPECT_EQ(fetched.info.incarnation, 65536U);
  EXPECT_EQ(fetched.info.seq, 2U);
  EXPECT_EQ(fetched.info.size_bytes, bytes.size());
}

TEST(FetchTest, AnExactVersionAndAnotherEcusProgramCanBeAskedFor) {
  FakeCms cms;
  TestClient client(cms.endpoint());
  cms.offer(checkpoint_of(7, 65536, 1), "older");
  cms.offer(checkpoint_of(7, 65536, 2), "newer");
  CheckpointId elsewhere = checkpoint_of(7, 1, 1);
  elsewhere.program.ecu_mac = *parse_ecu_mac("02:00:00:00:00:99");
  cms.offer(elsewhere, "elsewhere");
  EXPECT_EQ(fetch(client, 7, [](rtcr_fetch& f) { f.incarnation = 65536, f.seq = 1; }).bytes, "older");
  EXPECT_EQ(fetch(client, 7, [](rtcr_fetch& f) { f.ecu_mac = "02:00:00:00:00:99"; }).bytes, "elsewhere");
  EXPECT_EQ(fetch(client, 7, [](rtcr_fetch& f) { f.seq = 1; }).status, RTCR_E_INVALID_ARGUMENT);
}

TEST(FetchTest, EmptyCheckpointComesBackEmpty) {
  FakeCms cms;
  TestClient client(cms.endpoint());
  cms.offer(checkpoint_of(7, 65536, 1), "");
  const Fetched fetched = fetch(client, 7);
  EXPECT_EQ(fetched.status, RTCR_OK) << rtcr_last_error();
  EXPECT_EQ(fetched.info.seq, 1U);
}

TEST(FetchTest, IntoMemoryAndADescriptor) {
  FakeCms cms;
  TestClient client(cms.endpoint());
  const std::string bytes = blob_of(200000);
  cms.offer(checkpoint_of(7, 65536, 1), bytes);
  std::string memory(bytes.size(), '\0');
  const auto into_memory = [&](rtcr_fetch& f) {
    f.target = RTCR_TARGET_MEMORY;
    f.buffer = memory.data();
    f.capacity_bytes = memory.size();
  };
  EXPECT_EQ(fetch(client, 7, into_memory).status, RTCR_OK) << rtcr_last_error();
  EXPECT_TRUE(memory == bytes);

  const int fd = ::memfd_create("fetch_test", MFD_CLOEXEC);
  EXPECT_EQ(fetch(client, 7, [fd](rtcr_fetch& f) { f.target = RTCR_TARGET_FD, f.fd = fd; }).status, RTCR_OK);
  std::string read(bytes.size() + 1, '\0');
  ASSERT_EQ(::pread(fd, read.data(), read.size(), 0), static_cast<ssize_t>(bytes.size()));
  read.pop_back();
  EXPECT_TRUE(read == bytes);
  ::close(fd);

  memory.resize(bytes.size() - 1);
  const Fetched too_small = fetch(client, 7, into_memory);
  EXPECT_EQ(too_small.status, RTCR_E_LIMIT);
  EXPECT_EQ(too_small.info.size_bytes, bytes.size());
}

TEST(FetchTest, NothingStoredIsToldAtOnce) {
  FakeCms cms;
  TestClient client(cms.endpoint());
  EXPECT_EQ(fetch(client, 7, [](rtcr_fetch& f) { f.timeout_ms = RTCR_FOREVER; }).status, RTCR_E_NOT_FOUND);
}

TEST(FetchTest, ACmsThatIsNotReadyYetIsAskedAgain) {
  FakePlan plan;
  plan.unavailable_count = 2;
  FakeCms cms(plan);
  TestClient client(cms.endpoint());
  cms.offer(checkpoint_of(7, 65536, 1), "state");
  EXPECT_EQ(fetch(client, 7).bytes, "state");
  EXPECT_EQ(cms.state().fetch_count, 3);
}

TEST(FetchTest, ACmsThatNeverGetsReadyEndsInATimeout) {
  FakePlan plan;
  plan.unavailable_count = 1000000;
  FakeCms cms(plan);
  TestClient client(cms.endpoint());
  EXPECT_EQ(fetch(client, 7, [](rtcr_fetch& f) { f.timeout_ms = 300; }).status, RTCR_E_TIMEOUT);
  EXPECT_NE(std::string(rtcr_last_error()).find("reconciling"), std::string::npos);
}

TEST(FetchTest, NobodyThereIsUnavailable) {
  TestClient client("tcp://127.0.0.1:9");
  EXPECT_EQ(fetch(client, 7, [](rtcr_fetch& f) { f.timeout_ms = 100; }).status, RTCR_E_UNAVAILABLE);
}

TEST(FetchTest, ADamagedChunkIsFetchedAgain) {
  FakePlan plan;
  plan.damage_count = 1;
  FakeCms cms(plan);
  TestClient client(cms.endpoint());
  const std::string bytes = blob_of(kBlobBytes);
  cms.offer(checkpoint_of(7, 65536, 1), bytes);
  const Fetched fetched = fetch(client, 7);
  EXPECT_EQ(fetched.status, RTCR_OK) << rtcr_last_error();
  EXPECT_TRUE(fetched.bytes == bytes);
  EXPECT_GE(cms.state().fetch_count, 2);
}

TEST(FetchTest, DamageThatStaysIsNeverGivenOut) {
  FakePlan plan;
  plan.damage_count = 1000000;
  FakeCms cms(plan);
  TestClient client(cms.endpoint());
  cms.offer(checkpoint_of(7, 65536, 1), blob_of(100000));
  const Fetched fetched = fetch(client, 7);
  EXPECT_EQ(fetched.status, RTCR_E_CORRUPT);
  EXPECT_EQ(fetched.bytes, "");
}

TEST(FetchTest, GoesOnWithAnotherCmsWhereTheFirstFellSilent) {
  FakePlan plan;
  plan.silent_after_bytes = 5 * 1024 * 1024;
  FakeCms first(plan);
  FakeCms second;
  TestClient client(first.endpoint() + "," + second.endpoint());
  const std::string bytes = blob_of(kBlobBytes);
  first.offer(checkpoint_of(7, 65536, 1), bytes);
  second.offer(checkpoint_of(7, 65536, 1), bytes);
  const Fetched fetched = fetch(client, 7, [](rtcr_fetch& f) { f.timeout_ms = 3000; });
  EXPECT_EQ(fetched.status, RTCR_OK) << rtcr_last_error();
  EXPECT_TRUE(fetched.bytes == bytes);
  EXPECT_EQ(fetched.info.cms_index, 1U);
}

TEST(FetchTest, ACallbackMayGiveUp) {
  FakeCms cms;
  TestClient client(cms.endpoint());
  cms.offer(checkpoint_of(7, 65536, 1), "state");
  const Fetched fetched = fetch(client, 7, [](rtcr_fetch& f) {
    f.on_bytes = [](void*, const void*, std::uint64_t, std::uint64_t, std::uint64_t) { return 5; };
  });
  EXPECT_EQ(fetched.status, RTCR_E_CANCELLED);
}

TEST(FetchTest, ADescriptorThatEndsTheWaitIsHeeded) {
  FakePlan plan;
  plan.unavailable_count = 1000000;
  FakeCms cms(plan);
  int fds[2];
  ASSERT_EQ(::pipe(fds), 0);
  FetchRequest request;
  request.program = checkpoint_of(7, 1, 1).program;
  request.patience = std::chrono::milliseconds(-1);
  request.cancel_fd = fds[0];
  ASSERT_EQ(::write(fds[1], "x", 1), 1);
  const auto result = fetch_checkpoint(*net::parse_endpoint_list(cms.endpoint()), request,
                                       [](const FetchedBytes&) { return ok_status(); });
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, Code::kCancelled);
  ::close(fds[0]);
  ::close(fds[1]);
}

}  // namespace
}  // namespace cms::client
