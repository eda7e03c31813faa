// Exports that cannot be used, or are full: the status says which and what to do, nothing in them is
// touched, the publishers keep what they have, and it goes on by itself when it is mended.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <map>
#include <tuple>

#include "test/integration/nfs_fleet.h"

namespace cms::test {
namespace {

namespace fs = std::filesystem;

constexpr const char* kEcu = "02:00:00:00:00:01";
constexpr std::size_t kSmallBytes = 4096;

// All that is in an export: sizes and times of last change by path, and the bytes of files.
std::map<std::string, std::tuple<fs::file_time_type, std::string>> contents_of(const std::string& path) {
  std::map<std::string, std::tuple<fs::file_time_type, std::string>> all;
  all[path] = {fs::last_write_time(path), ""};
  for (const auto& entry : fs::recursive_directory_iterator(path)) {
    std::ifstream file(entry.path(), std::ios::binary);
    all[entry.path()] = {
        fs::last_write_time(entry.path()),
        entry.is_regular_file() ? std::string(std::istreambuf_iterator<char>(file), {}) : std::string()};
  }
  return all;
}

CmsdProcess::Options on(const std::string& name, const std::string& url) {
  CmsdProcess::Options options;
  options.name = name;
  options.store_url = url;
  return options;
}

struct Trouble {
  std::string state;       // Of the store, in the status.
  std::string what;        // In what is said of it,
  std::string what_to_do;  // and what to do.
};

// A cmsd that cannot use its store stays up and says so; publishers keep what they have; when `mend` has
// returned it is STORED.
void expect_trouble(const std::string& url, const std::string& name, const Trouble& trouble,
                    const std::function<void()>& mend) {
  SCOPED_TRACE(name);
  const TempDir dir{memory_or_tmp()};
  CmsdProcess cmsd(dir, on(name, url));
  Publisher publisher(cmsd.endpoint(), kEcu);
  const std::uint64_t seq = publisher.publish(1, 1, kSmallBytes);
  const std::string said = problems_of(wait_for_store_state(cmsd, trouble.state));
  EXPECT_TRUE(says(said, "nothing can be stored: "));
  EXPECT_TRUE(says(said, trouble.what));
  EXPECT_TRUE(says(said, trouble.what_to_do));
  EXPECT_TRUE(says(cmsd.log(), trouble.what));
  EXPECT_EQ(publisher.wait(seq, RTCR_STORED, 0), RTCR_E_TIMEOUT);
  const pid_t pid = cmsd.process().pid();
  EXPECT_TRUE(cmsd.process().running());
  mend();
  EXPECT_EQ(publisher.wait(seq, RTCR_STORED, kBackMax.count()), RTCR_OK) << cmsd.log();
  EXPECT_EQ(get_newest(cmsd, publisher.key(1), dir / "back"), blob_of(1, 1, kSmallBytes));
  EXPECT_EQ(problems_of(wait_for_store_state(cmsd, "ok")).find("nothing can be stored"), std::string::npos);
  EXPECT_EQ(cmsd.process().pid(), pid);
  EXPECT_EQ(cmsd.terminate(), 0);
}

class NfsTroubleTest : public testing::Test {
 protected:
  void SetUp() override {
    ganesha_ = start_ganesha();
    ASSERT_NE(ganesha_, nullptr);
    proxy_ = start_proxy(*ganesha_);
    ASSERT_NE(proxy_, nullptr);
  }
  // A directory of the export.
  std::string path(const std::string& directory) const { return ganesha_->export_path() + "/" + directory; }
  std::string url(const std::string& directory) const { return url_below(ganesha_->url(), directory); }
  // Keeps one checkpoint of program 9 in that directory.
  void make_store(const std::string& directory) {
    fs::create_directory(path(directory));
    const TempDir dir{memory_or_tmp()};
    CmsdProcess cmsd(dir, on("maker", url(directory)));
    Publisher publisher(cmsd.endpoint(), "02:00:00:00:00:09");
    ASSERT_EQ(publisher.wait(publisher.publish(9, 1, kSmallBytes)), RTCR_OK) << cmsd.log();
    EXPECT_EQ(cmsd.terminate(), 0);
  }

  std::unique_ptr<Ganesha> ganesha_;
  std::unique_ptr<RpcFaultProxy> proxy_;
};

TEST_F(NfsTroubleTest, ExportThatDoesNotExistIsSaidAndUsedWhenItComes) {
  const auto before = contents_of(ganesha_->export_path());
  // Ganesha does not tell that it is not there.
  const Trouble trouble{"permission denied", "or has no such export", "see that the NAS exports nfs://"};
  expect_trouble(url("later"), "noexport", trouble, [&] {
    EXPECT_EQ(contents_of(ganesha_->export_path()), before);
    fs::create_directory(path("later"));
  });
}

TEST_F(NfsTroubleTest, MountThatIsRefusedIsSaid) {
  const std::map<std::uint32_t, Trouble> refusals = {
      {2, {"not found", "the server has no such export", "see that the NAS of nfs://"}},
      {13, {"permission denied", "the server does not let us mount it", "that this host may mount it"}}};
  for (const auto& [answer, trouble] : refusals) {
    Fault refused{Fault::Action::kAnswer};
    refused.status = answer;
    proxy_->add(FaultRule{Procedure::kMountMnt, Way::kRequest, refused, 0, 0});
    const std::string directory = "refused" + std::to_string(answer);
    fs::create_directory(path(directory));
    const auto before = contents_of(path(directory));
    expect_trouble(url_below(proxy_->url(), directory), directory, trouble, [&] {
      EXPECT_EQ(contents_of(path(directory)), before);
      ASSERT_TRUE(proxy_->pass_all());
    });
  }
}

TEST_F(NfsTroubleTest, ForeignExportIsNotTouched) {
  std::ofstream(ganesha_->export_path() + "/letter.txt") << "not ours";
  const auto before = contents_of(ganesha_->export_path());
  expect_trouble(ganesha_->url(), "foreign",
                 {"foreign", "letter.txt", "point --store to the fleet's store or to an empty"}, [&] {
                   EXPECT_EQ(contents_of(ganesha_->export_path()), before);
                   fs::remove(ganesha_->export_path() + "/letter.txt");
                 });
}

TEST_F(NfsTroubleTest, StoreOfANewerLayoutIsNotTouched) {
  make_store("newer");
  std::ifstream in(path("newer/FORMAT"));
  const std::string ours(std::istreambuf_iterator<char>(in), {});
  std::string newer = ours;
  const std::size_t at = newer.find("layout_version = 1");
  ASSERT_NE(at, std::string::npos) << newer;
  std::ofstream(path("newer/FORMAT")) << newer.replace(at, 18, "layout_version = 9");
  const auto before = contents_of(path("newer"));
  expect_trouble(url("newer"), "newer", {"unsupported", "9", "update this cmsd"}, [&] {
    EXPECT_EQ(contents_of(path("newer")), before);
    std::ofstream(path("newer/FORMAT")) << ours;
  });
}

TEST_F(NfsTroubleTest, ReadOnlyExportIsSaidAndItsStoreIsServed) {
  make_store("store");
  fs::create_directory(path("empty"));
  ASSERT_TRUE(ganesha_->set_read_only(true).ok());
  const auto before = contents_of(ganesha_->export_path());
  {
    const TempDir dir{memory_or_tmp()};
    CmsdProcess cmsd(dir, on("reader", url("store")));
    (void)wait_for_store_state(cmsd, "read-only");
    const auto start = TestClock::now();
    std::optional<std::vector<std::uint8_t>> found;
    while (!found && since(start) < kPatience)  // Its index is new, and filled from the store.
      found = get_newest(cmsd, "02:00:00:00:00:09/9", dir / "back");
    EXPECT_TRUE(found == blob_of(9, 1, kSmallBytes)) << cmsd.log();
    EXPECT_EQ(cmsd.terminate(), 0);
  }
  const Trouble trouble{"read-only", "the export is read-only", "for writing"};
  expect_trouble(url("empty"), "readonly", trouble, [&] {
    EXPECT_EQ(contents_of(ganesha_->export_path()), before);
    ASSERT_TRUE(ganesha_->set_read_only(false).ok());
  });
}

TEST_F(NfsTroubleTest, UserThatMayNotWriteIsSaid) {
  fs::create_directory(path("mine"));
  const auto before = contents_of(path("mine"));
  expect_trouble(url("mine") + "&uid=12345&gid=12345", "stranger",
                 {"permission denied", "the NFS server refuses", "writable for the user of cmsd"}, [&] {
                   EXPECT_EQ(contents_of(path("mine")), before);
                   fs::permissions(path("mine"), fs::perms::all);
                 });
}

TEST_F(NfsTroubleTest, QuotaIsToldFromAFullDisk) {
  for (const Procedure procedure : {Procedure::kWrite, Procedure::kCreate}) {
    const TempDir dir{memory_or_tmp()};
    const std::string directory = to_string(procedure);
    fs::create_directory(path(directory));
    CmsdProcess cmsd(dir, on(directory, url_below(proxy_->url(), directory)));
    Publisher publisher(cmsd.endpoint(), kEcu);
    ASSERT_EQ(publisher.wait(publisher.publish(1, 1, kSmallBytes)), RTCR_OK) << cmsd.log();
    Fault over{Fault::Action::kAnswer};
    over.status = 69;  // NFS3ERR_DQUOT
    proxy_->add(FaultRule{procedure, Way::kRequest, over, 0, 0});
    const std::uint64_t small = publisher.publish(1, 2, kSmallBytes);
    const std::uint64_t large = publisher.publish(2, 2, 3 << 20);
    const std::string said = problems_of(wait_for_store_state(cmsd, "quota exceeded"));
    EXPECT_TRUE(says(said, "the quota on the NAS is used up"));
    EXPECT_TRUE(says(said, "raise its quota"));
    for (const std::uint64_t seq : {small, large})
      EXPECT_EQ(publisher.wait(seq, RTCR_STORED, 0), RTCR_E_TIMEOUT);
    ASSERT_TRUE(proxy_->pass_all());
    for (const std::uint64_t seq : {small, large})
      EXPECT_EQ(publisher.wait(seq, RTCR_STORED, kBackMax.count()), RTCR_OK) << cmsd.log();
    EXPECT_EQ(get_newest(cmsd, publisher.key(2), dir / "back"), blob_of(2, 2, 3 << 20));
  }
}

// ---- a NAS that claims cannot stand on

// Until the status says of claims what it should; the status then.
nlohmann::json wait_for_claims(const CmsdProcess& cmsd, const nlohmann::json& trusted) {
  const auto start = TestClock::now();
  nlohmann::json status = status_of(cmsd);
  while (status["store"]["claims_trusted"] != trusted && since(start) < kPatience) status = status_of(cmsd);
  EXPECT_EQ(status["store"]["claims_trusted"], trusted) << status.dump(1) << cmsd.log();
  return status;
}

TEST_F(NfsTroubleTest, NasThatLostItsLinksIsSaidStoringGoesOnAndItIsTestedAgainWhenItIsBack) {
  make_store("links");
  Fault no_links{Fault::Action::kAnswer};
  no_links.status = 10004;  // NFS3ERR_NOTSUPP
  proxy_->add(FaultRule{Procedure::kLink, Way::kRequest, no_links, 0, 0});
  const TempDir dir{memory_or_tmp()};
  CmsdProcess cmsd(dir, on("links", url_below(proxy_->url(), "links")));
  const auto status = wait_for_claims(cmsd, false);
  EXPECT_EQ(status["store"]["state"], "ok");
  EXPECT_EQ(status["health"], "degraded");
  EXPECT_TRUE(says(problems_of(status), "the store cannot be trusted with claims: hard links: "));
  EXPECT_TRUE(says(problems_of(status), "NFS status 10004"));
  EXPECT_TRUE(says(problems_of(status), "restores will be refused"));
  const auto printed = cmsd.admin({"status"});
  EXPECT_TRUE(says(printed.output,
                   "the store cannot be trusted with claims (hard links, no link of a removed "
                   "file): restores will be refused, storing goes on"));
  EXPECT_EQ(cmsd.count_in_log("the store cannot be trusted with claims"), 1U) << cmsd.log();
  Publisher publisher(cmsd.endpoint(), kEcu);
  EXPECT_EQ(publisher.wait(publisher.publish(1, 1, kSmallBytes)), RTCR_OK) << cmsd.log();
  // It is mended, and then away for a moment.
  ASSERT_TRUE(proxy_->pass_all());
  ganesha_->kill9();
  EXPECT_EQ(wait_for_store_state(cmsd, "unavailable")["store"]["self_test_trouble"],
            "the store is not usable");
  ASSERT_TRUE(ganesha_->restart().ok());
  const auto mended = wait_for_claims(cmsd, true);
  EXPECT_EQ(mended["store"]["self_test"].size(), 5U) << mended.dump(1);
  EXPECT_EQ(cmsd.count_in_log("the store can be trusted with claims"), 1U) << cmsd.log();
  EXPECT_EQ(cmsd.terminate(), 0);
}

TEST_F(NfsTroubleTest, NasWithAWrongClockIsSaid) {
  Fault skew{Fault::Action::kSkew};
  skew.skew_s = -90;
  proxy_->add(FaultRule{Procedure::kGetattr, Way::kReply, skew, 0, 0});
  const TempDir dir{memory_or_tmp()};
  fs::create_directory(path("clock"));
  CmsdProcess cmsd(dir, on("clock", url_below(proxy_->url(), "clock")));
  const auto status = wait_for_claims(cmsd, true);
  EXPECT_NEAR(status["store"]["clock_ahead_ms"].get<double>(), -90000, 5000);
  EXPECT_TRUE(says(problems_of(status), " s behind this host's"));
  EXPECT_TRUE(says(cmsd.log(), "the clock of the store is "));
  EXPECT_EQ(cmsd.terminate(), 0);
}

TEST_F(NfsTroubleTest, SelfTestThatCannotBeMadeIsSaidAndMadeLater) {
  make_store("later");
  Fault io{Fault::Action::kAnswer};
  io.status = 5;
  proxy_->add(FaultRule{Procedure::kLink, Way::kRequest, io, 0, 0});
  const TempDir dir{memory_or_tmp()};
  CmsdProcess cmsd(dir, on("later", url_below(proxy_->url(), "later")));
  EXPECT_TRUE(cmsd.wait_for_log("whether the store can be trusted with claims is not known: ", 1, kPatience));
  const auto status = wait_for_claims(cmsd, nullptr);
  EXPECT_TRUE(says(status["store"]["self_test_trouble"].get<std::string>(), "self-test")) << status.dump(1);
  ASSERT_TRUE(proxy_->pass_all());
  (void)wait_for_claims(cmsd, true);
  EXPECT_EQ(cmsd.terminate(), 0);
}

// ---- a NAS that is full

// Takes what is left of an export.
void fill(const fs::path& path) {
  std::ofstream file(path / "filler", std::ios::binary | std::ios::app);
  const std::vector<char> bytes(64 * 1024, 'f');
  while (file.write(bytes.data(), static_cast<std::streamsize>(bytes.size())).flush()) {
  }
}

TEST(NfsFullTest, FullNasIsSaidAndEverythingIsStoredWhenThereIsRoom) {
  Ganesha::Options options;
  options.size_bytes_max = 40 << 20;
  const auto ganesha = start_ganesha(options);
  ASSERT_NE(ganesha, nullptr);
  const TempDir dir{memory_or_tmp()};
  Fleet::Options on_nas;
  on_nas.store_urls = {ganesha->url(), ganesha->url()};
  Fleet fleet(dir, on_nas);
  Publisher publisher(fleet.endpoints(), kEcu);
  wait_until_both_pull(fleet, publisher);
  // More than there is room for: some go, the others fill it up or do not fit.
  struct One {
    std::uint64_t id;
    std::size_t size_bytes;
    std::uint64_t seq;
  };
  std::vector<One> all;
  for (std::uint64_t id = 1; id <= 12; ++id)
    all.push_back({id, std::size_t{id % 3 == 0 ? 12U << 20 : 1U << 20}, 0});
  for (One& one : all) one.seq = publisher.publish(one.id, 1, one.size_bytes);
  for (std::size_t i = 0; i < 2; ++i) EXPECT_TRUE(fleet[i].wait_for_log("no space", 1, kPatience));
  // Until even a small one has no room: what did not fit is given back a while after it has failed.
  bool stored = true;
  for (std::uint64_t id = 20; stored && id < 60; ++id) {
    fill(ganesha->export_path());
    all.push_back({id, kSmallBytes, publisher.publish(id, 1, kSmallBytes)});
    stored = publisher.wait(all.back().seq, RTCR_STORED, 3000) == RTCR_OK;
  }
  ASSERT_FALSE(stored) << "there is always room";
  for (std::size_t i = 0; i < 2; ++i) {
    const std::string said = problems_of(wait_for_store_state(fleet[i], "no space"));
    EXPECT_TRUE(says(said, "nothing can be stored: no space: "));
    EXPECT_TRUE(says(said, "free space on nfs://"));
  }
  std::size_t kept = 0;
  for (const One& one : all) kept += publisher.wait(one.seq, RTCR_STORED, 0) == RTCR_OK ? 0 : 1;
  EXPECT_GE(kept, 1U) << "four of the large ones do not fit";
  ASSERT_TRUE(ganesha->resize(200 << 20).ok());
  const auto start = TestClock::now();
  for (const One& one : all) {
    EXPECT_EQ(
        publisher.wait(one.seq, RTCR_STORED, std::max(kBackMax - since(start), milliseconds(0)).count()),
        RTCR_OK)
        << one.id << "\n"
        << fleet.log();
  }
  std::printf("%zu of %zu waited; all STORED %lld ms after there is room\n", kept, all.size(),
              static_cast<long long>(since(start).count()));
  for (const One& one : all)
    EXPECT_TRUE(get_newest(fleet[one.id % 2], publisher.key(one.id), dir / "back") ==
                blob_of(one.id, 1, one.size_bytes));
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(fleet[i].log().find("corrupt"), std::string::npos) << fleet[i].log();
    (void)wait_for_store_state(fleet[i], "ok");
  }
}

}  // namespace
}  // namespace cms::test
