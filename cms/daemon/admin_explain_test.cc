#include "cms/daemon/admin_fixture_test.h"
#include "storage/contract/samples.h"

namespace cms::daemon {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;

class AdminExplainTest : public ::testing::Test {
 protected:
  AdminExplainTest() { EXPECT_TRUE(store_.open_store().ok()); }

  // Stores a checkpoint of kMac/7 that needs these.
  CheckpointId store(Seq seq, const wire::Requirements& requirements, bool tight = false) {
    const storage::testing::Sample sample = storage::testing::make_sample(7, seq, 1000);
    storage::SmallBlob blob = storage::testing::small_blob_of(sample);
    blob.manifest.notification.program_name = "pump";
    blob.manifest.notification.requirements = requirements;
    blob.manifest.notification.real_time.tight = tight;
    EXPECT_TRUE(store_.put_small({blob})[0].ok());
    storage::IndexRow row;
    row.name = sample.name;
    EXPECT_TRUE(index_.put({row}).ok());
    return sample.name.checkpoint;
  }

  static core::Candidate candidate(EcuMac ecu_mac, std::uint32_t load, std::uint64_t free_mib) {
    core::Candidate candidate;
    candidate.session = SessionId{ecu_mac, 65536};
    candidate.live = true;
    candidate.takes_restores = true;
    candidate.metrics = wire::Metrics{};
    candidate.metrics->cpu_count = 2;
    candidate.metrics->cpu_load_permille = load;
    candidate.metrics->ram_total_bytes = 1000 * kMiB;
    candidate.metrics->ram_available_bytes = free_mib * kMiB;
    candidate.metrics->arch = "x86_64";
    return candidate;
  }

  wire::AdminAnswer ask(const std::vector<core::Candidate>& candidates, Version version = {}) {
    wire::AdminRequest request = ask_for(AdminMethod::kExplain, ProgramKey{kMac, 7});
    request.has_version = version != Version{};
    request.version = version;
    return explain(request, ExplainFacts{candidates, policy_, {}}, index_, store_);
  }

  core::PlacementPolicy policy_;
  storage::FakeIndex index_;
  storage::FakeStore store_;
};

TEST_F(AdminExplainTest, EachEcuHasItsVerdictTheBestFirst) {
  wire::Requirements needs;
  needs.arch = "x86_64";
  needs.ram_bytes = 100 * kMiB;
  const CheckpointId stored = store(1, needs);
  const EcuMac third{0x020000000003}, fourth{0x020000000004};
  const auto answer = ask({candidate(kMac, 0, 900), candidate(kOtherMac, 0, 99), candidate(third, 475, 600),
                           candidate(fourth, 775, 600)});
  ASSERT_EQ(answer.code, Code::kOk) << answer.context;
  EXPECT_EQ(answer.request_id, 5U);
  const json explained = json::parse(answer.json);
  EXPECT_EQ(explained.at("key"), "02:00:00:00:00:01/7");
  EXPECT_EQ(explained.at("checkpoint"), to_string(stored));
  EXPECT_EQ(explained.at("program_name"), "pump");
  EXPECT_EQ(explained.at("needs").at("ram_bytes"), 100 * kMiB);
  EXPECT_EQ(explained.at("needs").at("cpu_permille"), 50);
  EXPECT_EQ(explained.at("target"), "02:00:00:00:00:03");
  const json& targets = explained.at("targets");
  ASSERT_EQ(targets.size(), 4U);
  EXPECT_EQ(targets[0].at("ecu_mac"), "02:00:00:00:00:03");
  EXPECT_EQ(targets[0].at("eligible"), true);
  EXPECT_EQ(targets[0].at("cpu_free_permille"), 500) << "2 CPUs: 950 of 2000 used, 50 the program";
  EXPECT_EQ(targets[0].at("ram_free_permille"), 500);
  EXPECT_EQ(targets[0].at("score"), 500);
  EXPECT_EQ(targets[0].at("metrics").at("cpu_load_permille"), 475);
  EXPECT_EQ(targets[1].at("ecu_mac"), "02:00:00:00:00:04");
  EXPECT_EQ(targets[1].at("score"), 350);
  EXPECT_EQ(targets[2].at("verdict"), "owner");
  EXPECT_TRUE(targets[2].at("score").is_null());
  EXPECT_EQ(targets[3].at("verdict"), "ram");
  EXPECT_EQ(targets[3].at("why"), "needs 100 MiB of RAM, 99 MiB are free");
  EXPECT_EQ(explained.at("verdicts"), (json{{"eligible", 2}, {"owner", 1}, {"ram", 1}}));
}

TEST_F(AdminExplainTest, ATightProgramIsShownToGoNearTheCms) {
  store(1, {}, true);
  policy_.near_ecus = {kOtherMac};
  const json explained =
      json::parse(ask({candidate(kOtherMac, 900, 500), candidate(EcuMac{0x020000000003}, 0, 900)}).json);
  EXPECT_EQ(explained.at("needs").at("tight"), true);
  EXPECT_EQ(explained.at("target"), to_string(kOtherMac));
  EXPECT_EQ(explained.at("targets")[0].at("near_cms"), true);
  EXPECT_EQ(explained.at("targets")[1].at("near_cms"), false);
}

TEST_F(AdminExplainTest, TheCheckpointAskedForDecidesTheNeeds) {
  wire::Requirements needs;
  needs.arch = "aarch64";
  const CheckpointId first = store(1, needs);
  store(2, {});
  EXPECT_EQ(json::parse(ask({candidate(kOtherMac, 0, 500)}).json).at("target"), "02:00:00:00:00:02");
  const json older = json::parse(ask({candidate(kOtherMac, 0, 500)}, first.version).json);
  EXPECT_TRUE(older.at("target").is_null());
  EXPECT_EQ(older.at("targets")[0].at("verdict"), "arch");
}

TEST_F(AdminExplainTest, OfAnUnknownProgramThereIsNothingToExplain) {
  EXPECT_EQ(ask({}).code, Code::kNotFound);
  EXPECT_EQ(ask({}).context, "nothing of 02:00:00:00:00:01/7 is stored");
  store(1, {});
  EXPECT_EQ(ask({}, Version{9, 2}).context, "nothing of 02:00:00:00:00:01/7@9.2 is stored");
  const json alone = json::parse(ask({}).json);
  EXPECT_TRUE(alone.at("target").is_null());
  EXPECT_EQ(alone.at("targets"), json::array());
}

TEST_F(AdminExplainTest, AFleetIsCountedAndItsBestAreListed) {
  store(1, {});
  std::vector<core::Candidate> fleet;
  for (std::uint64_t i = 2; i < 2 + kExplainTargetsMax + 50; ++i) {
    fleet.push_back(candidate(EcuMac{0x020000000000 + i}, 100, i == 300 ? 900 : 500));
  }
  const json explained = json::parse(ask(fleet).json);
  EXPECT_EQ(explained.at("targets").size(), kExplainTargetsMax);
  EXPECT_EQ(explained.at("verdicts").at("eligible"), kExplainTargetsMax + 50);
  EXPECT_EQ(explained.at("target"), to_string(EcuMac{0x020000000000 + 300}));
}

}  // namespace
}  // namespace cms::daemon
