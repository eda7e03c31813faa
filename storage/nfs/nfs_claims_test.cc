// The contract of ClaimStore on a real NFS server, kill -9 at each step, and what the self-test finds of servers
// that cannot do what claims stand on.
#include "storage/nfs/nfs_claims.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "storage/claim_names.h"
#include "storage/contract/claim_crash.h"
#include "storage/contract/claim_store_contract.h"
#include "storage/contract/samples.h"
#include "storage/nfs/nfs_faults_test.h"
#include "storage/nfs/nfs_store.h"
#include "storage/nfs/nfs_url.h"

namespace cms::storage::testing {
namespace {

namespace fs = std::filesystem;
using Read = ClaimStore::Read;
using test::Fault;
using test::FaultRule;
using test::Procedure;
using test::Way;

// One server for all tests of this program; each has a directory of its own below the export.
test::Ganesha& shared_server() {
  static const auto ganesha = test::Ganesha::start();
  if (!ganesha) {
    ADD_FAILURE() << ganesha.error().message();
    std::abort();
  }
  return **ganesha;
}

NfsTarget target_below(const std::string& directory) {
  std::string url = shared_server().url();
  const auto target = parse_nfs_url(url.insert(url.find('?'), "/" + directory));
  EXPECT_TRUE(target.ok());
  return *target;
}

std::string fresh_directory() {
  static int count = 0;
  const std::string name = "c" + std::to_string(++count);
  fs::create_directory(shared_server().export_path() + "/" + name);
  return name;
}

class NfsClaimFixture final : public ClaimFixtureOnFiles {
 public:
  NfsClaimFixture() : directory_(fresh_directory()) {}
  NfsClaimFixture(const NfsClaimFixture&) = delete;
  NfsClaimFixture& operator=(const NfsClaimFixture&) = delete;
  ~NfsClaimFixture() override {
    blobs_.clear();
    fs::remove_all(path());
  }
  std::unique_ptr<ClaimStore> open(const std::string& node, std::uint64_t node_incarnation) override {
    auto& blobs = blobs_[node];
    blobs.reset();
    blobs = make_nfs_store(target_below(directory_), node, node_incarnation);
    EXPECT_TRUE(blobs->open_store().ok());
    auto claims = make_nfs_claims(target_below(directory_), node, node_incarnation);
    const Status opened = claims->open_store();
    EXPECT_TRUE(opened.ok()) << opened.error().message();
    return claims;
  }
  std::string path() const override { return shared_server().export_path() + "/" + directory_; }

 private:
  const std::string directory_;
  std::map<std::string, std::unique_ptr<BlobStore>> blobs_;
};

INSTANTIATE_TEST_SUITE_P(Nfs, ClaimStoreContract, ::testing::Values(+[]() -> std::unique_ptr<ClaimFixture> {
                           return std::make_unique<NfsClaimFixture>();
                         }));

// ---- kill -9

class NfsClaimsCrash : public ::testing::TestWithParam<std::string> {
 protected:
  static void crash_in(Life life) {
    const std::string directory = fresh_directory();
    const OpenStores open = [&](std::uint64_t node_incarnation) {
      OpenedStores stores;
      stores.blobs = make_nfs_store(target_below(directory), "a", node_incarnation);
      EXPECT_TRUE(stores.blobs->open_store().ok());
      stores.claims = make_nfs_claims(target_below(directory), "a", node_incarnation);
      return stores;
    };
    expect_survivable_crash(GetParam(), life, open, shared_server().export_path() + "/" + directory);
  }
};

TEST_P(NfsClaimsCrash, LeavesEverySlotWholeOrAbsentAndNothingWonIsLost) { crash_in(Life::kOneByOne); }
TEST_P(NfsClaimsCrash, AmongManyLeavesEachSlotWholeOrAbsent) { crash_in(Life::kManyFirst); }

INSTANTIATE_TEST_SUITE_P(EveryPoint, NfsClaimsCrash,
                         ::testing::ValuesIn(claim_crash_points("claims.directory_")), &name_of_crash_point);
// When some of many have gone that far.
INSTANTIATE_TEST_SUITE_P(LaterPassages, NfsClaimsCrash,
                         ::testing::Values("claims.nfs_draft_created:3", "claims.nfs_draft_synced:3",
                                           "claims.nfs_linked:3", "claims.nfs_won:3"),
                         &name_of_crash_point);

// ---- the self-test, of servers as they should not be

class NfsSelfTest : public ServerBehindProxy {
 protected:
  void SetUp() override {
    ServerBehindProxy::SetUp();
    if (HasFatalFailure()) return;
    blobs_ = make_nfs_store(*parse_nfs_url(server().url()), "a", 1);
    ASSERT_TRUE(blobs_->open_store().ok());
    // Making the directories of the logs may take a busy server longer than the impatient one waits.
    ASSERT_TRUE(make_nfs_claims(*parse_nfs_url(server().url()), "a", 1)->open_store().ok());
    claims_ = make_nfs_claims(*parse_nfs_url(proxy().url()), "a", 1, impatient());
    const Status opened = claims_->open_store();
    ASSERT_TRUE(opened.ok()) << opened.error().message();
  }
  void TearDown() override {
    (void)proxy().pass_all();
    EXPECT_TRUE(claims_->self_test()->trusted_with_claims()) << "the next one finds all well";
    claims_.reset();
    blobs_.reset();
    EXPECT_TRUE(fs::is_empty(server().export_path() + "/tmp")) << "something was left in tmp";
    for (const auto& entry : fs::directory_iterator(server().export_path() + "/claims")) {
      EXPECT_TRUE(entry.is_directory()) << entry.path();
    }
  }

  // The traits that do not hold, and what is said of them.
  std::map<std::string, std::string> failing_with(const FaultRule& rule) {
    proxy().add(rule);
    const auto test = claims_->self_test();
    (void)proxy().pass_all();
    std::map<std::string, std::string> failing;
    EXPECT_TRUE(test.ok()) << test.error().message();
    if (!test) return failing;
    EXPECT_EQ(test->traits.size(), 5U);
    for (const StoreTrait& trait : test->traits) {
      if (!trait.holds) failing[trait.name] = trait.detail;
    }
    EXPECT_EQ(test->trusted_with_claims(), failing.empty());
    return failing;
  }
  static FaultRule answer(Procedure procedure, std::uint32_t status, std::size_t skip = 0,
                          std::size_t times = 0) {
    Fault fault{Fault::Action::kAnswer};
    fault.status = status;
    return FaultRule{procedure, Way::kRequest, fault, skip, times};
  }
  static bool says(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  }

  std::unique_ptr<BlobStore> blobs_;
  std::unique_ptr<ClaimStore> claims_;
};

TEST_F(NfsSelfTest, ServerWithoutHardLinksIsFoundOut) {
  for (const std::uint32_t status : {10004U, 18U, 1U, 13U, 22U}) {
    const auto failing = failing_with(answer(Procedure::kLink, status));
    ASSERT_EQ(failing.size(), 2U) << status;
    EXPECT_TRUE(says(failing.at("hard links"), "NFS status " + std::to_string(status)))
        << failing.at("hard links");
    EXPECT_TRUE(says(failing.at("no link of a removed file"), "not tried"));
  }
}

TEST_F(NfsSelfTest, ServerThatReplacesALinkIsFoundOut) {
  const auto failing = failing_with(answer(Procedure::kLink, 0, 1, 1));
  ASSERT_EQ(failing.size(), 1U);
  EXPECT_TRUE(says(failing.at("hard links"), "a second link to that name was done"));
}

TEST_F(NfsSelfTest, ServerThatLinksWhatWasRemovedIsFoundOut) {
  const auto failing = failing_with(answer(Procedure::kLink, 0, 2, 1));
  ASSERT_EQ(failing.size(), 1U);
  EXPECT_TRUE(says(failing.at("no link of a removed file"), "was done"));
}

TEST_F(NfsSelfTest, ServerThatOnlyCountsLinksIsFoundOut) {
  // It says that it made the first one, and did not.
  proxy().add(answer(Procedure::kLink, 0, 0, 1));
  const auto failing = failing_with(answer(Procedure::kLink, 17, 1, 1));
  ASSERT_EQ(failing.size(), 1U);
  EXPECT_TRUE(says(failing.at("hard links"), "has 1 names")) << failing.at("hard links");
}

TEST_F(NfsSelfTest, ServerThatCannotRenameAcrossDirectoriesIsFoundOut) {
  const auto failing = failing_with(answer(Procedure::kRename, 18));
  ASSERT_EQ(failing.size(), 1U);
  EXPECT_TRUE(says(failing.at("rename across directories"), "NFS status 18"));
}

TEST_F(NfsSelfTest, ServerWhoseExclusiveCreateLiesIsFoundOut) {
  const auto failing = failing_with(answer(Procedure::kCreate, 0, 1, 1));
  ASSERT_EQ(failing.size(), 1U);
  EXPECT_TRUE(says(failing.at("exclusive create"), "a second guarded CREATE of a file was done"));
}

TEST_F(NfsSelfTest, ServerWhoseVerifierChangesIsFoundOut) {
  // The last word of a reply to COMMIT is of its verifier.
  const auto failing = failing_with({Procedure::kCommit, Way::kReply, Fault{Fault::Action::kFlip}, 0, 0});
  ASSERT_EQ(failing.size(), 1U);
  EXPECT_TRUE(says(failing.at("synced writes"), "by another life"));
}

TEST_F(NfsSelfTest, TellsByHowMuchTheServersClockIsWrong) {
  for (const std::int32_t skew_s : {0, 60, -3600}) {
    Fault skew{Fault::Action::kSkew};
    skew.skew_s = skew_s;
    proxy().add(FaultRule{Procedure::kGetattr, Way::kReply, skew, 0, 0});
    const auto test = claims_->self_test();
    ASSERT_TRUE(test.ok()) << test.error().message();
    EXPECT_TRUE(test->trusted_with_claims()) << "clocks decide nothing";
    EXPECT_TRUE(test->clock_known);
    EXPECT_NEAR(static_cast<double>(test->clock_ahead_ms), skew_s * 1000.0, 2000.0);
    (void)proxy().pass_all();
  }
}

TEST_F(NfsSelfTest, WhatSaysNothingAboutTheServersAbilitiesIsAnError) {
  const std::map<std::uint32_t, Code> expected = {{28, Code::kNoSpace},     {69, Code::kQuota},
                                                  {30, Code::kReadOnly},    {5, Code::kIo},
                                                  {70, Code::kUnavailable}, {10008, Code::kUnavailable}};
  for (const auto& [status, code] : expected) {
    for (const Procedure procedure :
         {Procedure::kCreate, Procedure::kWrite, Procedure::kLink, Procedure::kRename, Procedure::kCommit}) {
      proxy().add(answer(procedure, status));
      const auto test = claims_->self_test();
      (void)proxy().pass_all();
      ASSERT_FALSE(test.ok()) << status << " to " << to_string(procedure);
      EXPECT_EQ(test.error().code, code) << test.error().message();
    }
  }
}

TEST_F(NfsSelfTest, EveryLostAnswerIsUnavailableAndNothingIsLeft) {
  const auto result = test::walk_faults(proxy(),
                                        [&](const test::WalkStep& step) {
                                          SCOPED_TRACE(step.name);
                                          const auto test = claims_->self_test();
                                          if (test) {
                                            EXPECT_TRUE(test->trusted_with_claims());
                                          } else {
                                            EXPECT_EQ(test.error().code, Code::kUnavailable)
                                                << test.error().message();
                                          }
                                        },
                                        {test::WalkFault::kRequestCut, test::WalkFault::kReplyCut});
  EXPECT_GT(result.calls, 12U);
}

}  // namespace
}  // namespace cms::storage::testing
