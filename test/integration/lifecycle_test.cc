// The main job with real processes: publishers and cmsd come and go, nothing acknowledged is lost.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>
#include <algorithm>
#include <csignal>
#include <fstream>

#include "base/sanitized.h"
#include "test/support/cmsd_process.h"
#include "test/support/publisher.h"

namespace cms::test {
namespace {

#if CMS_SANITIZED
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

std::vector<std::uint8_t> bytes_of_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void write_file(const std::string& path, const std::vector<std::uint8_t>& bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

std::vector<std::string> publish_command(const CmsdProcess& cmsd, const std::string& program,
                                         const std::string& file) {
  return {program_path("rtcr"), "publish",   "--cms", cmsd.endpoint(), "--ecu-mac",
          "02:00:00:00:00:01",  "--program", program, "--timeout",     "60s",
          "--output",           "json",      file};
}

TEST(LifecycleTest, PublishedByTheCommandAndBackBitForBit) {
  const TempDir dir;
  CmsdProcess cmsd(dir);
  const auto bytes = blob_of(7, 1, 3 * 1024 * 1024 + 1);
  write_file(dir / "image", bytes);
  Process publish(publish_command(cmsd, "7", dir / "image"));
  const std::string output = publish.output();
  ASSERT_EQ(publish.wait(), 0) << output;
  EXPECT_NE(output.find("\"STORED\""), std::string::npos) << output;

  EXPECT_EQ(cmsd.admin({"get", "02:00:00:00:00:01/7", "-o", dir / "by-admin"}).exit_code, 0);
  EXPECT_EQ(bytes_of_file(dir / "by-admin"), bytes);
  Process get({program_path("rtcr"), "get", "--cms", cmsd.endpoint(), "--ecu-mac", "02:00:00:00:00:01",
               "--program", "7", "-o", dir / "by-rtcr"});
  EXPECT_EQ(get.wait(), 0) << get.output();
  EXPECT_EQ(bytes_of_file(dir / "by-rtcr"), bytes);
}

TEST(LifecycleTest, GetOfWhatIsNotThereEndsWithOneAndLeavesNoFile) {
  const TempDir dir;
  CmsdProcess cmsd(dir);
  // "None" is only said once the store has been looked through.
  EXPECT_EQ(cmsd.admin({"--timeout", "60s", "get", "02:00:00:00:00:01/7", "-o", dir / "back"}).exit_code, 1);
  EXPECT_FALSE(std::filesystem::exists(dir / "back"));
  Process get({program_path("rtcr"), "get", "--cms", cmsd.endpoint(), "--ecu-mac", "02:00:00:00:00:01",
               "--program", "7", "--timeout", "60s", "-o", dir / "back"});
  EXPECT_EQ(get.wait(), 1);
  EXPECT_FALSE(std::filesystem::exists(dir / "back"));
}

TEST(LifecycleTest, TermEndsItWithZeroAndTheSameNameStartsAtOnceAfterKill9) {
  const TempDir dir;
  CmsdProcess cmsd(dir);
  EXPECT_EQ(cmsd.terminate(), 0);
  cmsd.start();
  EXPECT_EQ(cmsd.admin({"status"}).exit_code, 0);
  cmsd.kill();
  cmsd.start();
  EXPECT_EQ(cmsd.admin({"status"}).exit_code, 0) << cmsd.log();
}

TEST(LifecycleTest, EmptyCheckpointIsACheckpoint) {
  const TempDir dir;
  CmsdProcess cmsd(dir);
  write_file(dir / "empty", {});
  Process publish(publish_command(cmsd, "0", dir / "empty"));
  EXPECT_EQ(publish.wait(), 0) << publish.output();
  EXPECT_EQ(cmsd.admin({"get", "02:00:00:00:00:01/0", "-o", dir / "back"}).exit_code, 0);
  EXPECT_TRUE(std::filesystem::exists(dir / "back"));
  EXPECT_EQ(std::filesystem::file_size(dir / "back"), 0U);
}

TEST(LifecycleTest, PublisherKilledMidTransferLeavesNothingTornAndDisturbsNobody) {
  const TempDir dir;
  CmsdProcess cmsd(dir);
  Publisher other(cmsd.endpoint(), "02:00:00:00:00:02");
  const auto old_bytes = blob_of(7, 1, 1024 * 1024 + 5);
  write_file(dir / "old", old_bytes);
  Process first(publish_command(cmsd, "7", dir / "old"));
  ASSERT_EQ(first.wait(), 0) << first.output();

  // Sparse: it takes long enough to be killed in the middle, and no disk.
  const std::string large = dir / "large";
  const int fd = ::open(large.c_str(), O_RDWR | O_CREAT, 0644);
  ASSERT_EQ(::ftruncate(fd, 8LL << 30), 0);
  ::close(fd);
  Process publish(publish_command(cmsd, "7", large));
  std::string line;
  while (line.find("PULLING") == std::string::npos) {
    line = publish.read_line();
    ASSERT_FALSE(line.empty());
  }
  publish.signal(SIGKILL);
  ASSERT_EQ(publish.wait(), 128 + SIGKILL);

  EXPECT_EQ(other.wait(other.publish(1, 1, 2 * 1024 * 1024)), RTCR_OK);
  EXPECT_EQ(cmsd.admin({"get", "02:00:00:00:00:01/7", "-o", dir / "back"}).exit_code, 0);
  EXPECT_EQ(bytes_of_file(dir / "back"), old_bytes);
  EXPECT_EQ(cmsd.terminate(), 0);
}

TEST(LifecycleTest, NewestOfEachProgramArrivesWhenCmsdWasDownForAThousandCheckpoints) {
  constexpr std::uint64_t kPrograms = 50;
  constexpr std::uint64_t kGenerations = 20;
  const TempDir dir;
  CmsdProcess cmsd(dir);
  Publisher publisher(cmsd.endpoint(), "02:00:00:00:00:01");
  ASSERT_EQ(publisher.wait(publisher.publish(0, 0, 4096)), RTCR_OK);
  cmsd.kill();
  std::vector<std::uint64_t> newest(kPrograms);
  std::vector<std::uint64_t> older;
  for (std::uint64_t generation = 1; generation <= kGenerations; ++generation) {
    for (std::uint64_t program = 0; program < kPrograms; ++program) {
      if (generation > 1) older.push_back(newest[program]);
      newest[program] = publisher.publish(program, generation, 10000 + program);
    }
  }
  cmsd.start();
  for (std::uint64_t program = 0; program < kPrograms; ++program) {
    ASSERT_EQ(publisher.wait(newest[program]), RTCR_OK) << "program " << program << "\n" << cmsd.log();
    int status = RTCR_OK;
    EXPECT_EQ(publisher.fetch_newest(program, 20000, status),
              blob_of(program, kGenerations, 10000 + program));
  }
  for (const std::uint64_t seq : older) EXPECT_EQ(publisher.wait(seq, RTCR_STORED, 0), RTCR_E_SUPERSEDED);
}

TEST(LifecycleTest, CmsdThatComesLateHearsOfEverything) {
  const TempDir dir;
  CmsdProcess cmsd(dir);
  cmsd.kill();
  Publisher publisher(cmsd.endpoint(), "02:00:00:00:00:01");  // Before any hello.
  const std::uint64_t seq = publisher.publish(3, 1, 100000);
  cmsd.start();
  EXPECT_EQ(publisher.wait(seq), RTCR_OK) << cmsd.log();
}

TEST(LifecycleTest, TwentyFourSessionsOfOneEcuAtOnce) {
  const TempDir dir;
  CmsdProcess cmsd(dir);
  std::vector<std::unique_ptr<Process>> publishers;
  for (int i = 0; i < 24; ++i) {
    const std::string file = dir / ("image-" + std::to_string(i));
    write_file(file, blob_of(static_cast<std::uint64_t>(i), 1, 200000));
    publishers.push_back(std::make_unique<Process>(publish_command(cmsd, std::to_string(i), file)));
  }
  for (const auto& publisher : publishers) EXPECT_EQ(publisher->wait(), 0) << publisher->output();
  for (int i = 0; i < 24; ++i) {
    const std::string back = dir / ("back-" + std::to_string(i));
    ASSERT_EQ(cmsd.admin({"get", "02:00:00:00:00:01/" + std::to_string(i), "-o", back}).exit_code, 0);
    EXPECT_EQ(bytes_of_file(back), blob_of(static_cast<std::uint64_t>(i), 1, 200000));
  }
}

TEST(LifecycleTest, FourGibibytesStayWithinTheMemoryThatIsPromised) {
  constexpr std::uint64_t kBudget = 32ULL << 20;
  const TempDir dir;
  CmsdProcess::Options options;
  options.arguments = {"--pull-budget", "32MiB"};
  CmsdProcess cmsd(dir, options);
  // 4 GiB of which 256 MiB are not zero, spread over all of it; a sanitizer takes ten times as long for each.
  constexpr int kPieces = kSanitized ? 16 : 256;
  const std::string path = dir / "large";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT, 0644);
  ASSERT_EQ(::ftruncate(fd, static_cast<off_t>(kPieces) << 24), 0);
  const auto piece = blob_of(1, 1, 1 << 20);
  for (int i = 0; i < kPieces; ++i) {
    ASSERT_EQ(::pwrite(fd, piece.data(), piece.size(), static_cast<off_t>(i) << 24), 1 << 20);
  }
  Publisher publisher(cmsd.endpoint(), "02:00:00:00:00:01");
  // No promise either: 4 GiB are read, digested and written beside other tests.
  ASSERT_EQ(publisher.wait(publisher.publish_fd(1, fd), RTCR_STORED, 200000), RTCR_OK) << cmsd.log();
  // A sanitizer keeps freed memory back and shadows the rest: then only the bytes are compared.
  if (!kSanitized) {
    EXPECT_LE(cmsd.peak_memory_bytes(), (64ULL << 20) + kBudget);
  }

  Process get({program_path("rtcr"), "get", "--cms", cmsd.endpoint(), "--ecu-mac", "02:00:00:00:00:01",
               "--program", "1", "-o", dir / "back"});
  ASSERT_EQ(get.wait(std::chrono::seconds(200)), 0);
  Process compare({"cmp", path, dir / "back"});
  EXPECT_EQ(compare.wait(), 0) << compare.output();
  ::close(fd);
}

TEST(LifecycleTest, KeepsTheNewestThreeOfEachProgram) {
  const TempDir dir;
  CmsdProcess cmsd(dir);
  Publisher publisher(cmsd.endpoint(), "02:00:00:00:00:01");
  for (std::uint64_t generation = 1; generation <= 5; ++generation) {
    ASSERT_EQ(publisher.wait(publisher.publish(1, generation, 300000)), RTCR_OK);
  }
  // Removal follows the receipt on its own; a restart finishes nothing, it only waits for it.
  EXPECT_EQ(cmsd.terminate(), 0);
  cmsd.start();
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(cmsd.store_path() + "/d")) {
    if (entry.is_regular_file()) ++files;
  }
  EXPECT_LE(files, 4U);  // The removal of the last may have been under way at the end.
  EXPECT_GE(files, 3U);
  int status = RTCR_OK;
  EXPECT_EQ(publisher.fetch_newest(1, 300000, status), blob_of(1, 5, 300000));
}

TEST(LifecycleTest, RetireEndsALifeAndTheNextPublishBeginsAnother) {
  const TempDir dir;
  CmsdProcess cmsd(dir);
  Publisher publisher(cmsd.endpoint(), "02:00:00:00:00:01");
  ASSERT_EQ(publisher.wait(publisher.publish(1, 1, 4096)), RTCR_OK);
  EXPECT_EQ(cmsd.admin({"retire", publisher.key(1)}).exit_code, 0);
  EXPECT_EQ(cmsd.admin({"get", publisher.key(1), "-o", dir / "back"}).exit_code, 1);
  cmsd.kill();
  std::filesystem::remove_all(cmsd.index_path());  // The store alone knows it too.
  cmsd.start();
  EXPECT_EQ(cmsd.admin({"get", publisher.key(1), "-o", dir / "back"}).exit_code, 1);
  ASSERT_EQ(publisher.wait(publisher.publish(1, 2, 4096)), RTCR_OK);
  EXPECT_EQ(cmsd.admin({"get", publisher.key(1), "-o", dir / "back"}).exit_code, 0);
  EXPECT_EQ(bytes_of_file(dir / "back"), blob_of(1, 2, 4096));
}

TEST(LifecycleTest, WithdrawByAFreshSessionEndsWhatOlderOnesPublishedAndNothingElse) {
  const TempDir dir;
  CmsdProcess cmsd(dir);
  {
    Publisher publisher(cmsd.endpoint(), "02:00:00:00:00:01");
    ASSERT_EQ(publisher.wait(publisher.publish(1, 1, 4096)), RTCR_OK);
    ASSERT_EQ(publisher.wait(publisher.publish(2, 1, 4096)), RTCR_OK);
  }
  Process withdraw({program_path("rtcr"), "withdraw", "--cms", cmsd.endpoint(), "--ecu-mac",
                    "02:00:00:00:00:01", "--program", "1", "--timeout", "30s"});
  EXPECT_EQ(withdraw.wait(), 0) << withdraw.output() << cmsd.log();
  EXPECT_EQ(cmsd.admin({"get", "02:00:00:00:00:01/1", "-o", dir / "back"}).exit_code, 1);
  EXPECT_EQ(cmsd.admin({"get", "02:00:00:00:00:01/2", "-o", dir / "back"}).exit_code, 0);

  // Withdrawing first and publishing then, in one session, begins a new life.
  Publisher publisher(cmsd.endpoint(), "02:00:00:00:00:01");
  EXPECT_EQ(publisher.withdraw(2), RTCR_OK) << rtcr_last_error();
  ASSERT_EQ(publisher.wait(publisher.publish(2, 2, 4096)), RTCR_OK);
  EXPECT_EQ(cmsd.admin({"get", "02:00:00:00:00:01/2", "-o", dir / "back"}).exit_code, 0);
  EXPECT_EQ(bytes_of_file(dir / "back"), blob_of(2, 2, 4096));
}

TEST(LifecycleTest, IndexThatWasLostIsFoundAgainInTheStore) {
  const TempDir dir;
  CmsdProcess cmsd(dir);
  {
    Publisher publisher(cmsd.endpoint(), "02:00:00:00:00:01");
    for (std::uint64_t program = 0; program < 20; ++program) publisher.publish(program, 1, 5000);
    for (std::uint64_t seq = 1; seq <= 20; ++seq) ASSERT_EQ(publisher.wait(seq), RTCR_OK);
  }
  cmsd.kill();
  std::filesystem::remove_all(cmsd.index_path());
  cmsd.start();
  Publisher reader(cmsd.endpoint(), "02:00:00:00:00:01");
  for (std::uint64_t program = 0; program < 20; ++program) {
    int status = RTCR_OK;
    EXPECT_EQ(reader.fetch_newest(program, 5000, status), blob_of(program, 1, 5000))
        << rtcr_error_string(status);
  }
  // A session that starts now is newer than all before, and so are its checkpoints.
  ASSERT_EQ(reader.wait(reader.publish(3, 2, 5000)), RTCR_OK);
  int status = RTCR_OK;
  EXPECT_EQ(reader.fetch_newest(3, 5000, status), blob_of(3, 2, 5000));
}

}  // namespace
}  // namespace cms::test
