// cms-admin: migrate, ecu drain and ecu maintenance.
#include "cms/admin/cli_fixture_test.h"

namespace cms::admin {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using wire::AdminMethod;

constexpr EcuMac kEcu{0x020000000001};

class CliMovesTest : public CliTest {
 protected:
  // Answers "moving" so often before what is asked about has ended as `last` says.
  std::vector<Message> answer(const wire::AdminRequest& request, const std::string& last) {
    asked_.push_back(request);
    const std::string moving = R"({"state":"moving","total":1,"done":0,"refused":0,"per_s":0,"left_s":null})";
    return answer_with(request, Code::kOk, "", asked_.size() < 3 ? moving : last);
  }

  std::vector<wire::AdminRequest> asked_;
};

TEST_F(CliMovesTest, MigrateTellsOnceAndThenAsksHowFarItIs) {
  FakeCmsd cmsd(endpoint_, [&](const Frame& frame) {
    return answer(
        request_in(frame),
        R"({"program":"02:00:00:00:00:01/7","state":"ended","total":1,"done":1,"refused":0,"per_s":1,
                      "left_s":null,"shown":1,"restores":[{"program":"02:00:00:00:00:01/7","state":"done",
                      "runs_as":"02:00:00:00:00:02/0","target":"02:00:00:00:00:02","attempts":1,"took_ms":80}]})");
  });
  EXPECT_EQ(run_at({"migrate", "02:00:00:00:00:01/7", "--to", "02:00:00:00:00:02"}), kExitDone) << err_;
  EXPECT_THAT(out_,
              AllOf(HasSubstr("02:00:00:00:00:01/7"), HasSubstr("done"), HasSubstr("02:00:00:00:00:02/0")));
  ASSERT_EQ(asked_.size(), 3U);
  for (const wire::AdminRequest& request : asked_) {
    EXPECT_EQ(request.method, AdminMethod::kMigrate);
    EXPECT_EQ(request.ecu_mac, kEcu);
    EXPECT_EQ(request.program_id, 7U);
    EXPECT_FALSE(request.cancel);
    EXPECT_EQ(request.all, &request != &asked_.front());
  }
  EXPECT_TRUE(asked_.front().has_to);
  EXPECT_EQ(asked_.front().to_ecu_mac, EcuMac{0x020000000002});
}

TEST_F(CliMovesTest, WhatCouldNotBeMovedIsExitCode1) {
  FakeCmsd cmsd(endpoint_, [&](const Frame& frame) {
    return answer(request_in(frame),
                  R"({"ecu_mac":"02:00:00:00:00:01","state":"ended","total":3,"done":2,"refused":1,
                                         "per_s":1,"stopped_by":"the drain's deadline has passed","restores":[]})");
  });
  EXPECT_EQ(run_at({"ecu", "drain", "02:00:00:00:00:01", "--deadline", "10m"}), kExitFailed);
  EXPECT_EQ(err_, "cms-admin: 1 of 3 programs could not be moved: the drain's deadline has passed\n");
  EXPECT_THAT(out_, HasSubstr("3: 2 run elsewhere, 1 refused"));
  EXPECT_EQ(asked_.front().method, AdminMethod::kEcuDrain);
  EXPECT_EQ(asked_.front().ecu_mac, kEcu);
  EXPECT_FALSE(asked_.front().has_program_id);
  EXPECT_EQ(asked_.front().deadline_ms, 600000U);
}

TEST_F(CliMovesTest, CancelSaysSoAndIsDoneWhenNothingMovesAnyMore) {
  FakeCmsd cmsd(endpoint_, [&](const Frame& frame) {
    return answer(request_in(frame),
                  R"({"ecu_mac":"02:00:00:00:00:01","state":"ended","total":3,"done":2,"refused":1,
                                         "per_s":1,"stopped_by":"the drain was cancelled","restores":[]})");
  });
  EXPECT_EQ(run_at({"ecu", "drain", "02:00:00:00:00:01", "--cancel"}), kExitDone) << err_;
  EXPECT_TRUE(asked_.front().cancel);
  EXPECT_FALSE(asked_.front().all);
  EXPECT_TRUE(asked_.back().all);
  EXPECT_FALSE(asked_.back().cancel);  // Only asks.
}

TEST_F(CliMovesTest, CancelOfAMoveThatHadComeAboutSaysSo) {
  FakeCmsd cmsd(endpoint_, [&](const Frame& frame) {
    return answer(request_in(frame),
                  R"({"program":"02:00:00:00:00:01/7","state":"ended","total":1,"done":1,"refused":0,
                                         "per_s":1,"restores":[]})");
  });
  EXPECT_EQ(run_at({"migrate", "02:00:00:00:00:01/7", "--cancel"}), kExitFailed);
  EXPECT_EQ(err_, "cms-admin: it had moved already\n");
}

TEST_F(CliMovesTest, ARefusalIsSaid) {
  FakeCmsd cmsd(endpoint_, [](const Frame& frame) {
    return answer_with(request_in(frame), Code::kUnsupported, "the RTCR cannot freeze programs", "");
  });
  EXPECT_EQ(run_at({"migrate", "02:00:00:00:00:01/7"}), kExitFailed);
  EXPECT_EQ(err_, "cms-admin: the RTCR cannot freeze programs\n");
}

TEST_F(CliMovesTest, WrongUsageNamesWhatIsAllowed) {
  EXPECT_EQ(run_at({"migrate"}), kExitUsage);
  EXPECT_EQ(run_at({"migrate", "02:00:00:00:00:01/7@1.2"}), kExitUsage);
  EXPECT_THAT(err_, HasSubstr("without a version"));
  EXPECT_EQ(run_at({"migrate", "02:00:00:00:00:01/7", "--to", "host"}), kExitUsage);
  EXPECT_THAT(err_, HasSubstr("--to"));
  EXPECT_EQ(run_at({"migrate", "02:00:00:00:00:01/7", "--to", "02:00:00:00:00:02", "--cancel"}), kExitUsage);
  EXPECT_THAT(err_, HasSubstr("--cancel goes alone"));
  EXPECT_EQ(run_at({"ecu", "drain"}), kExitUsage);
  EXPECT_EQ(run_at({"ecu", "drain", "02:00:00:00:00:01", "--deadline", "soon"}), kExitUsage);
  EXPECT_THAT(err_, HasSubstr("--deadline: 'soon'"));
}

// ---- maintenance

class CliMaintenanceTest : public CliTest {
 protected:
  // What a cmsd says of it, and of what it was told, one after the other.
  int run_with(const std::string& word, const std::vector<std::string>& leases) {
    FakeCmsd cmsd(endpoint_, [&](const Frame& frame) {
      asked_.push_back(request_in(frame));
      const std::string& lease = leases[std::min(asked_.size(), leases.size()) - 1];
      return answer_with(asked_.back(), Code::kOk, "",
                         R"({"ecu_mac":"02:00:00:00:00:01","lease":{"state":"leased",)" + lease + "}}");
    });
    return run_at({"ecu", "maintenance", "02:00:00:00:00:01", word});
  }
  std::vector<wire::AdminRequest> asked_;
};

TEST_F(CliMaintenanceTest, ItIsSoWhenTheCmsdHasNothingMoreToWrite) {
  // A cmsd that has not read the log yet may say that it is so already, or that it is not.
  const std::string before = R"("maintenance":false,"maintenance_asked":false)";
  const std::string read = R"("maintenance":true,"maintenance_asked":false)";
  const std::string after = R"("maintenance":false,"maintenance_asked":null)";
  EXPECT_EQ(run_with("off", {before, before, read, after}), kExitDone) << err_;
  ASSERT_EQ(asked_.size(), 4U);
  for (const wire::AdminRequest& request : asked_) {
    EXPECT_EQ(request.method, AdminMethod::kEcuMaintenance);
    EXPECT_TRUE(request.cancel);
    EXPECT_EQ(request.all, &request != &asked_.front());
  }
}

TEST_F(CliMaintenanceTest, WhatCouldNotBeWrittenIsExitCode1) {
  EXPECT_EQ(run_with("on", {R"("maintenance":false,"maintenance_asked":true)",
                            R"("maintenance":false,"maintenance_asked":null)"}),
            kExitFailed);
  EXPECT_THAT(err_, HasSubstr("it could not be written to the store; try again"));
}

}  // namespace
}  // namespace cms::admin
