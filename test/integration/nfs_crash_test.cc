// kill -9 of cmsd at every named point of a store on a NAS, two cmsd that make one store at once, and what
// is read over NFS: newest checkpoints, and a new index.
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <set>

#include "base/crash_point.h"
#include "test/integration/nfs_fleet.h"

namespace cms::test {
namespace {

namespace fs = std::filesystem;

constexpr const char* kEcu = "02:00:00:00:00:01";
constexpr int kKilled = 128 + SIGKILL;
constexpr std::size_t kSmallBytes = 4096;
constexpr std::size_t kLargeBytes = 5 * 1024 * 1024 + 17;

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::vector<std::string> points_with(const std::function<bool(const std::string&)>& wanted) {
  std::vector<std::string> points;
  for (const std::string& name : crash_point_names()) {
    if (name.rfind("nfs.", 0) == 0 && wanted(name)) points.push_back(name);
  }
  return points;
}
bool is_of_init(const std::string& name) { return has(name, "init"); }
bool is_of_removal(const std::string& name) { return has(name, "remove") || has(name, "quarantine"); }

std::vector<std::string> names_in(const std::string& path) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(path)) names.push_back(entry.path().filename());
  return names;
}

// Blobs in order of their names: those of one program from the oldest to the newest.
std::vector<fs::path> blobs_in(const std::string& store) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(store + "/d")) {
    if (entry.path().extension() == ".ckpt") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

class NfsCrashTest : public testing::Test {
 protected:
  void SetUp() override {
    ganesha_ = start_ganesha();
    ASSERT_NE(ganesha_, nullptr);
  }
  // On a directory of the export.
  CmsdProcess::Options on(const std::string& name) {
    fs::create_directory(path(name));
    CmsdProcess::Options options;
    options.name = name;
    options.store_url = url_below(ganesha_->url(), name);
    options.arguments = {"--keep-latest", "2"};
    return options;
  }
  std::string path(const std::string& directory) const { return ganesha_->export_path() + "/" + directory; }
  static void wait_for_store(const CmsdProcess& cmsd) {
    const std::size_t starts = cmsd.count_in_log("is ready on port base");
    EXPECT_TRUE(cmsd.wait_for_log("the store is ready", starts, kPatience)) << cmsd.log();
  }
  // The private directories of this store.
  std::vector<std::string> lives(const std::string& directory) const {
    return names_in(path(directory) + "/tmp");
  }
  // The one that is left is not that of the dead one.
  void expect_swept(const std::string& directory, const std::vector<std::string>& dead) const {
    const auto left = lives(directory);
    EXPECT_EQ(left.size(), 1U);
    EXPECT_NE(left, dead);
  }

  std::unique_ptr<Ganesha> ganesha_;
  const TempDir dir_{memory_or_tmp()};
};

TEST_F(NfsCrashTest, KilledWhilePublishingKeepsEverythingAcknowledgedAndStoresTheRest) {
  const auto points =
      points_with([](const std::string& name) { return !is_of_init(name) && !is_of_removal(name); });
  EXPECT_GE(points.size(), 8U);
  CmsdProcess cmsd(dir_, on("publish"));
  Publisher publisher(cmsd.endpoint(), kEcu);
  std::uint64_t generation = 0;
  for (const std::string& point : points) {
    SCOPED_TRACE(point);
    const std::size_t size_bytes = has(point, "small") ? kSmallBytes : kLargeBytes;
    // What is there before must be there afterwards.
    ASSERT_EQ(publisher.wait(publisher.publish(1, ++generation, size_bytes)), RTCR_OK) << cmsd.log();
    EXPECT_EQ(cmsd.terminate(), 0);
    EXPECT_EQ(lives("publish"), std::vector<std::string>()) << "one that ended in order left something";
    cmsd.start(point);
    const std::uint64_t struck = publisher.publish(1, ++generation, size_bytes);
    ASSERT_EQ(cmsd.wait(kPatience), kKilled) << "the point was never passed\n" << cmsd.log();
    const auto dead = lives("publish");
    EXPECT_EQ(dead.size(), 1U);
    const bool acknowledged = publisher.wait(struck, RTCR_STORED, 0) == RTCR_OK;
    cmsd.start();
    wait_for_store(cmsd);
    const auto found = get_newest(cmsd, publisher.key(1), dir_ / "back");
    EXPECT_TRUE(found == blob_of(1, generation, size_bytes) ||
                (!acknowledged && found == blob_of(1, generation - 1, size_bytes)))
        << cmsd.log();
    ASSERT_EQ(publisher.wait(struck, RTCR_STORED, kPatience.count()), RTCR_OK) << cmsd.log();
    EXPECT_TRUE(get_newest(cmsd, publisher.key(1), dir_ / "back") == blob_of(1, generation, size_bytes));
    expect_swept("publish", dead);
  }
}

TEST_F(NfsCrashTest, KilledWhileMakingAStoreIsFinishedByTheNextOne) {
  const auto points = points_with(&is_of_init);
  EXPECT_GE(points.size(), 2U);
  for (std::size_t i = 0; i < points.size(); ++i) {
    SCOPED_TRACE(points[i]);
    auto options = on("init" + std::to_string(i));
    options.crash_point = points[i];
    CmsdProcess cmsd(dir_, options);
    ASSERT_EQ(cmsd.wait(kPatience), kKilled) << "the point was never passed\n" << cmsd.log();
    const auto dead = lives(options.name);
    EXPECT_EQ(dead.size(), 1U);
    cmsd.start();
    Publisher publisher(cmsd.endpoint(), kEcu);
    ASSERT_EQ(publisher.wait(publisher.publish(1, 1, kSmallBytes)), RTCR_OK) << cmsd.log();
    expect_swept(options.name, dead);
  }
}

TEST_F(NfsCrashTest, KilledWhileRemovingKeepsTheNewestAndGoesOn) {
  CmsdProcess cmsd(dir_, on("remove"));
  Publisher publisher(cmsd.endpoint(), kEcu);
  for (std::uint64_t generation = 1; generation <= 2; ++generation)
    ASSERT_EQ(publisher.wait(publisher.publish(1, generation, kSmallBytes)), RTCR_OK) << cmsd.log();
  EXPECT_EQ(cmsd.terminate(), 0);
  cmsd.start("nfs.after_remove");
  const std::uint64_t third = publisher.publish(1, 3, kSmallBytes);  // --keep-latest 2
  ASSERT_EQ(cmsd.wait(kPatience), kKilled) << cmsd.log();
  cmsd.start();
  ASSERT_EQ(publisher.wait(third, RTCR_STORED, kPatience.count()), RTCR_OK) << cmsd.log();
  EXPECT_TRUE(get_newest(cmsd, publisher.key(1), dir_ / "back") == blob_of(1, 3, kSmallBytes));
  ASSERT_EQ(publisher.wait(publisher.publish(1, 4, kSmallBytes)), RTCR_OK) << cmsd.log();
  const auto start = TestClock::now();
  while (blobs_in(path("remove")).size() > 2 && since(start) < kPatience) (void)status_of(cmsd);
  EXPECT_EQ(blobs_in(path("remove")).size(), 2U) << cmsd.log();
}

TEST_F(NfsCrashTest, KilledWhilePuttingIntoQuarantineServesTheOlderOne) {
  CmsdProcess cmsd(dir_, on("quarantine"));
  Publisher publisher(cmsd.endpoint(), kEcu);
  for (std::uint64_t generation = 1; generation <= 2; ++generation)
    ASSERT_EQ(publisher.wait(publisher.publish(1, generation, kSmallBytes, true)), RTCR_OK) << cmsd.log();
  ASSERT_EQ(blobs_in(path("quarantine")).size(), 2U);
  const fs::path damaged = blobs_in(path("quarantine"))[1];
  std::fstream file(damaged, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(64 + 100);
  file.put('x').put('y').put('z');
  file.close();
  EXPECT_EQ(cmsd.terminate(), 0);
  cmsd.start("nfs.after_quarantine");
  wait_for_store(cmsd);
  (void)cmsd.admin({"scrub", publisher.key(1)});
  ASSERT_EQ(cmsd.wait(kPatience), kKilled) << cmsd.log();
  EXPECT_FALSE(fs::exists(damaged));
  EXPECT_TRUE(fs::exists(path("quarantine") + "/quarantine/" + damaged.filename().string()));
  cmsd.start();
  wait_for_store(cmsd);
  const auto start = TestClock::now();
  std::optional<std::vector<std::uint8_t>> found;
  while (found != blob_of(1, 1, kSmallBytes) && since(start) < kPatience)
    found = get_newest(cmsd, publisher.key(1), dir_ / "back");
  EXPECT_TRUE(found == blob_of(1, 1, kSmallBytes)) << cmsd.log();
}

// ---- two at once

TEST_F(NfsCrashTest, TwoThatMakeAStoreAtOnceMakeOne) {
  const auto proxy = start_proxy(*ganesha_);
  ASSERT_NE(proxy, nullptr);
  // Both have found nothing, and are about to put a FORMAT in its place.
  proxy->add(FaultRule{Procedure::kLink, Way::kRequest, Fault{Fault::Action::kHold}, 0, 2});
  const auto bases = free_port_bases(2);
  std::vector<std::unique_ptr<CmsdProcess>> both;
  for (std::size_t i = 0; i < 2; ++i) {
    CmsdProcess::Options options;
    options.name = i == 0 ? "first" : "second";
    options.store_url = proxy->url();
    options.port_base = bases[i];
    options.arguments = {"--peer", "tcp://127.0.0.1:" + std::to_string(bases[1 - i])};
    both.push_back(std::make_unique<CmsdProcess>(dir_, options));
  }
  ASSERT_TRUE(proxy->wait_for_held(2));
  EXPECT_FALSE(fs::exists(ganesha_->export_path() + "/FORMAT"));
  ASSERT_TRUE(proxy->release());
  Publisher publisher(both[0]->endpoint() + "," + both[1]->endpoint(), kEcu);
  // Of one fleet: each refuses a peer of another.
  EXPECT_EQ(publisher.wait(publisher.publish(1, 1, kSmallBytes), RTCR_REPLICATED), RTCR_OK)
      << both[0]->log() << both[1]->log();
  for (const auto& cmsd : both) {
    EXPECT_TRUE(get_newest(*cmsd, publisher.key(1), dir_ / "back") == blob_of(1, 1, kSmallBytes));
    const auto status = status_of(*cmsd);
    ASSERT_EQ(status.at("peers").size(), 1U);
    EXPECT_EQ(status["peers"][0]["state"], "live") << status.dump(1);
  }
  EXPECT_EQ(lives("").size(), 2U);
  std::set<std::string> names;
  for (const std::string& name : names_in(ganesha_->export_path())) names.insert(name);
  EXPECT_EQ(names, (std::set<std::string>{"FORMAT", "claims", "d", "nodes", "quarantine", "tmp"}));
}

// ---- reading

TEST_F(NfsCrashTest, NewestIsGotByBothProgramsAndAnIndexIsMadeAnewFromTheNas) {
  CmsdProcess cmsd(dir_, on("index"));
  Publisher publisher(cmsd.endpoint(), kEcu);
  constexpr std::uint64_t kPrograms = 20;
  const auto size_of = [](std::uint64_t id) { return id % 10 == 0 ? kLargeBytes : kSmallBytes * id; };
  std::vector<std::uint64_t> seqs;
  for (std::uint64_t id = 1; id <= kPrograms; ++id) seqs.push_back(publisher.publish(id, 1, size_of(id)));
  for (const std::uint64_t seq : seqs) ASSERT_EQ(publisher.wait(seq), RTCR_OK) << cmsd.log();
  const auto rows = index_of(cmsd, Facts::kInNames);
  ASSERT_TRUE(rows.has_value());
  EXPECT_EQ(rows->size(), kPrograms);
  cmsd.kill();
  fs::remove_all(cmsd.index_path());
  cmsd.start();
  const auto start = TestClock::now();
  auto again = index_of(cmsd, Facts::kInNames);
  while (again != rows && since(start) < kPatience) again = index_of(cmsd, Facts::kInNames);
  EXPECT_EQ(again, rows) << cmsd.log();
  for (std::uint64_t id = 1; id <= kPrograms; ++id) {
    EXPECT_TRUE(get_newest(cmsd, publisher.key(id), dir_ / "back") == blob_of(id, 1, size_of(id))) << id;
    if (id % 10 != 0) continue;
    Process get({program_path("rtcr"), "get", "--cms", cmsd.endpoint(), "--ecu-mac", kEcu, "--program",
                 std::to_string(id), "-o", dir_ / "back-by-rtcr"});
    ASSERT_EQ(get.wait(), 0);
    Process compare({"cmp", dir_ / "back", dir_ / "back-by-rtcr"});
    EXPECT_EQ(compare.wait(), 0) << compare.output();
  }
}

}  // namespace
}  // namespace cms::test
