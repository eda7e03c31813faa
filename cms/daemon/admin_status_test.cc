#include "cms/daemon/admin_fixture_test.h"

namespace cms::daemon {
namespace {

class AdminStatusTest : public AdminFixture {};

TEST_F(AdminStatusTest, StatusOfAnIdleCmsdIsOk) {
  const json status = this->status();
  EXPECT_EQ(status.at("health"), "ok");
  EXPECT_TRUE(status.at("problems").empty());
  EXPECT_EQ(status.at("store").at("state"), "ok");
  EXPECT_EQ(status.at("stored").at("checkpoints"), 0);
  EXPECT_TRUE(status.at("oldest_newest_checkpoint").is_null());
  EXPECT_EQ(status.at("time"), "2023-11-14T22:13:20.000Z");
}

TEST_F(AdminStatusTest, StatusCountsWhatIsStoredAndFindsTheOldestNewest) {
  store({kMac, 1}, {1, 1}, 900);  // Old, but not the newest of its program.
  store({kMac, 1}, {1, 2}, 10);
  store({kMac, 2}, {1, 3}, 300);
  store({kOtherMac, 1}, {1, 1}, 20);
  const json status = this->status();
  const json& stored = status.at("stored");
  EXPECT_EQ(stored.at("checkpoints"), 4);
  EXPECT_EQ(stored.at("programs"), 3);
  EXPECT_EQ(stored.at("ecus"), 2);
  EXPECT_EQ(stored.at("size_bytes"), 12);
  EXPECT_EQ(stored.at("stored_bytes"), 2000);
  EXPECT_EQ(status.at("oldest_newest_checkpoint").at("key"), "02:00:00:00:00:01/2@1.3");
  EXPECT_EQ(status.at("oldest_newest_checkpoint").at("age_s"), 300);
  EXPECT_EQ(status.at("oldest_newest_checkpoint").at("stored_at"), "2023-11-14T22:08:20.000Z");
}

TEST_F(AdminStatusTest, StatusIsDownWhileTheStoreIsAwayAndSaysWhatToDo) {
  core_.on_store_state(now_, make_error(Code::kNoSpace, "write /store/tmp"), effects_);
  facts_.store_since = std::chrono::seconds(90);
  const json status = this->status();
  EXPECT_EQ(status.at("health"), "down");
  EXPECT_THAT(problems(status), ElementsAre(HasSubstr("write /store/tmp")));
  EXPECT_EQ(status.at("problems")[0].at("since_s"), 90);
  EXPECT_THAT(status.at("problems")[0].at("what_to_do").get<std::string>(), HasSubstr("free space"));
  EXPECT_EQ(status.at("store").at("state"), "no space");
}

TEST_F(AdminStatusTest, StoreThatGivesNoAnswerIsWarnedOfBeforeItIsCalledUnavailable) {
  facts_.store_url = "nfs://nas/cms";
  EXPECT_TRUE(status().at("store").at("no_answer_s").is_null());
  facts_.store_no_answer_for = std::chrono::seconds(4);
  const json status = this->status();
  EXPECT_EQ(status.at("health"), "degraded");
  EXPECT_THAT(problems(status), ElementsAre(HasSubstr("no answer for 4 s")));
  EXPECT_EQ(status.at("problems")[0].at("severity"), "warning");
  EXPECT_EQ(status.at("problems")[0].at("since_s"), 4);
  EXPECT_THAT(status.at("problems")[0].at("what_to_do").get<std::string>(), HasSubstr("can be reached"));
  EXPECT_EQ(status.at("store").at("state"), "ok");
  EXPECT_EQ(status.at("store").at("no_answer_s"), 4);
  core_.on_store_state(now_, make_error(Code::kUnavailable, "timed out"), effects_);
  EXPECT_THAT(problems(this->status()), ElementsAre(HasSubstr("nothing can be stored")));
}

TEST_F(AdminStatusTest, StatusListsProgramsNeverStoredLongestWaitingFirst) {
  core_.on_store_state(now_, make_error(Code::kUnavailable, "not mounted"), effects_);
  const SessionId id = session(kMac, 65536);
  for (ProgramId program_id = 100; program_id > 70; --program_id) {
    announce(id, program_id, 101 - program_id);
    pass(std::chrono::milliseconds(100));
  }
  const json never = status().at("never_stored");
  EXPECT_EQ(never.at("count"), 30);
  ASSERT_EQ(never.at("first").size(), kNeverStoredShownMax);
  EXPECT_EQ(never.at("first")[0].at("key"), "02:00:00:00:00:01/100@65536.1");
  EXPECT_EQ(never.at("first")[0].at("age_s"), 3);
  EXPECT_THAT(never.at("first")[0].at("reason").get<std::string>(), HasSubstr("not mounted"));
}

TEST_F(AdminStatusTest, StatusCountsAsNeverStoredWhatFailedForGoodAndOnlyThat) {
  const SessionId id = session(kMac, 65536);
  store({kMac, 2}, {1, 1});
  announce(id, 1, 1);
  announce(id, 2, 2);
  fail({kMac, 1});
  fail({kMac, 2});
  const json status = this->status();
  EXPECT_EQ(status.at("failures"), 2);
  EXPECT_EQ(status.at("never_stored").at("count"), 1);
  EXPECT_EQ(status.at("never_stored").at("first")[0].at("key"), "02:00:00:00:00:01/1@65536.1");
  EXPECT_EQ(status.at("never_stored").at("first")[0].at("state"), "failed");
  EXPECT_EQ(status.at("health"), "degraded");
  EXPECT_THAT(problems(status), ElementsAre(HasSubstr("never stored"), HasSubstr("an older one is kept")));
}

TEST_F(AdminStatusTest, AFailureIsNoProblemOnceANewerCheckpointIsStoredOrTheProgramWithdrawn) {
  const SessionId id = session(kMac, 65536);
  announce(id, 1, 1);
  announce(id, 2, 2);
  fail({kMac, 1});
  fail({kMac, 2});
  store({kMac, 1}, {65536, 3});
  ASSERT_TRUE(index_.put_withdrawn({kMac, 2}, {65536, 2}, kWallUs).ok());
  const json status = this->status();
  EXPECT_EQ(status.at("failures"), 2);
  EXPECT_EQ(status.at("never_stored").at("count"), 0);
  EXPECT_EQ(status.at("health"), "ok");
}

TEST_F(AdminStatusTest, StatusWarnsOfSilentSessionsAFullDiskAndALateQueue) {
  const SessionId id = session(kMac, 65536);
  announce(id, 1, 1);
  announce(id, 2, 2);
  core_.drain();  // What is announced from here on is not pulled.
  announce(id, 3, 3);
  pass(kLateAfter);
  facts_.space = storage::SpaceInfo{1000, 99};
  const json status = this->status();
  EXPECT_EQ(status.at("health"), "degraded");
  EXPECT_EQ(status.at("silent_sessions"), 1);
  EXPECT_THAT(problems(status),
              ElementsAre(HasSubstr("nearly full"), HasSubstr("waits to be pulled"), HasSubstr("not heard")));
  facts_.space = storage::SpaceInfo{1000, 100};
  EXPECT_EQ(problems(this->status()).size(), 2U);
}

// One that dies is not heard by one cmsd a little before the other knows.
TEST_F(AdminStatusTest, AnEcuThatOnlyAnotherHearsIsWarnedOfWhenThatLasts) {
  LeaseFacts::Ecu& ecu = facts_.leases.ecus[kMac];
  ecu.barred = true;
  ecu.kept_by = {"b"};
  ecu.barred_for = std::chrono::milliseconds(3999);
  EXPECT_TRUE(problems(status()).empty());
  ecu.barred_for = std::chrono::seconds(4);
  EXPECT_THAT(problems(status()), ElementsAre(HasSubstr(to_string(kMac) + " (heard by b)")));
}

TEST_F(AdminStatusTest, NoticesDoNotSpoilTheHealth) {
  core_.on_malformed_notify(now_, "10.0.0.9", make_error(Code::kProtocol, "junk"), effects_);
  facts_.reconcile_running = true;
  facts_.unknown_files = 2;
  facts_.draining = true;
  const json status = this->status();
  EXPECT_EQ(status.at("health"), "ok");
  EXPECT_EQ(problems(status).size(), 4U);
  EXPECT_EQ(status.at("counters").at("malformed"), 1);
}

TEST_F(AdminStatusTest, StatusIsAnsweredEvenWhenTheIndexIsNot) {
  index_.fail_next(100, make_error(Code::kIo, "the disk of the index"));
  const json status = this->status();
  EXPECT_EQ(status.at("health"), "down");
  EXPECT_THAT(problems(status), ElementsAre(HasSubstr("the disk of the index")));
  EXPECT_TRUE(status.at("stored").is_null());
}

TEST_F(AdminStatusTest, StatusAddsUpThePulls) {
  const SessionId id = session(kMac, 65536);
  announce(id, 1, 1, 1000);
  announce(id, 2, 2, 2000);
  const json pulls = status().at("pulls");
  EXPECT_EQ(pulls.at("running"), 2);
  EXPECT_EQ(pulls.at("size_bytes"), 3000);
  EXPECT_EQ(pulls.at("received_bytes"), 0);
}

// ---- outages, damage

TEST_F(AdminStatusTest, OfAStoreOnANasItSpeaksOfTheNas) {
  facts_.store_url = "nfs://nas/cms?uid=7";
  const std::pair<Code, const char*> kRemedies[] = {
      {Code::kUnavailable, "see that the NAS of nfs://nas/cms?uid=7 is up and can be reached"},
      {Code::kNotFound, "see that the NAS of nfs://nas/cms?uid=7 exports it"},
      {Code::kReadOnly, "let the NAS export nfs://nas/cms?uid=7 for writing"},
      {Code::kPermission, "that this host may mount it"},
      {Code::kIo, "look at the log of the NAS"},
      {Code::kNoSpace, "free space on nfs://nas/cms?uid=7"},
      {Code::kForeign, "point --store to the fleet's store"},
  };
  for (const auto& [code, remedy] : kRemedies) {
    core_.on_store_state(now_, make_error(code, "the reason"), effects_);
    EXPECT_THAT(status().at("problems")[0].at("what_to_do").get<std::string>(), HasSubstr(remedy))
        << to_string(code);
  }
}

TEST_F(AdminStatusTest, SaysOfEveryTroubleOfTheStoreWhatToDoAndWhatWaits) {
  const SessionId id = session(kMac, 65536);
  const std::pair<Code, const char*> kRemedies[] = {
      {Code::kUnavailable, "is mounted and its host is up"},
      {Code::kNoSpace, "free space on"},
      {Code::kQuota, "raise its quota"},
      {Code::kReadOnly, "for writing"},
      {Code::kPermission, "writable for the user of cmsd"},
      {Code::kForeign, "point --store to the fleet's store"},
      {Code::kUnsupported, "update this cmsd"},
      {Code::kCorrupt, "restore the FORMAT file"},
      {Code::kIo, "the kernel's log"},
  };
  core_.on_store_state(now_, make_error(Code::kUnavailable, "away"), effects_);
  announce(id, 1, 1, 3 * 1024 * 1024);
  announce(id, 2, 2, 2 * 1024 * 1024);
  pass(std::chrono::seconds(7));
  for (const auto& [code, remedy] : kRemedies) {
    core_.on_store_state(now_, make_error(code, "the reason"), effects_);
    facts_.store_since = std::chrono::seconds(90);
    const json status = this->status();
    const json& problem = status.at("problems")[0];
    EXPECT_EQ(status.at("health"), "down");
    EXPECT_EQ(status.at("store").at("state"), to_string(code));
    EXPECT_EQ(problem.at("since_s"), 90);
    EXPECT_THAT(problem.at("what").get<std::string>(),
                testing::AllOf(HasSubstr("nothing can be stored: "), HasSubstr("the reason"),
                               HasSubstr("2 programs' newest checkpoints (5 MiB) wait with their publishers, "
                                         "the first for 7 s")));
    EXPECT_THAT(problem.at("what_to_do").get<std::string>(), HasSubstr(remedy)) << to_string(code);
    EXPECT_EQ(status.at("waiting").at("programs"), 2);
  }
}

TEST_F(AdminStatusTest, AFullDiskAndAQuotaAreToldApart) {
  core_.on_store_state(now_, make_error(Code::kNoSpace, "write"), effects_);
  const std::string full = status().at("problems")[0].at("what_to_do");
  core_.on_store_state(now_, make_error(Code::kQuota, "write"), effects_);
  EXPECT_NE(status().at("problems")[0].at("what_to_do"), full);
  EXPECT_EQ(status().at("store").at("state"), "quota exceeded");
}

TEST_F(AdminStatusTest, WhatIsInQuarantineIsAnAlarmUntilItIsCleared) {
  facts_.quarantine = QuarantineFacts{2, 4096, CheckpointId{{kMac, 7}, {65536, 3}}};
  json status = this->status();
  EXPECT_EQ(status.at("health"), "down");
  EXPECT_THAT(problems(status), ElementsAre(testing::AllOf(HasSubstr("error: 2 stored checkpoints"),
                                                           HasSubstr("02:00:00:00:00:01/7@65536.3"))));
  EXPECT_THAT(status.at("problems")[0].at("what_to_do").get<std::string>(), HasSubstr("quarantine/"));
  EXPECT_EQ(status.at("quarantine").at("checkpoints"), 2);
  facts_.scrub.found = {ScrubFound{CheckpointId{{kMac, 8}, {65536, 4}}, "chunk 3 does not match", kWallUs}};
  EXPECT_THAT(problems(this->status()), ElementsAre(HasSubstr("/8@65536.4: chunk 3 does not match")));
  facts_.quarantine = QuarantineFacts{};
  EXPECT_EQ(this->status().at("health"), "ok");
}

TEST_F(AdminStatusTest, TellsWhetherTheStoreCanBeTrustedWithClaims) {
  json store = status().at("store");
  EXPECT_TRUE(store.at("claims_trusted").is_null()) << "not tried yet";
  EXPECT_TRUE(store.at("self_test").is_null());
  EXPECT_TRUE(store.at("self_test_trouble").is_null());
  EXPECT_TRUE(store.at("clock_ahead_ms").is_null());
  EXPECT_THAT(problems(status()), ElementsAre());

  storage::SelfTest test;
  test.traits = {{"exclusive create", true, "a second one was refused"}, {"hard links", true, "two names"}};
  facts_.claims.test = test;
  store = status().at("store");
  EXPECT_EQ(store.at("claims_trusted"), true);
  EXPECT_EQ(store.at("self_test")[1],
            (json{{"trait", "hard links"}, {"holds", true}, {"detail", "two names"}}));
  EXPECT_TRUE(store.at("clock_ahead_ms").is_null()) << "of this host";
  EXPECT_THAT(problems(status()), ElementsAre());

  test.traits[1] = {"hard links", false, "was refused (NFS status 10004)"};
  facts_.claims.test = test;
  const json status = this->status();
  EXPECT_EQ(status.at("health"), "degraded") << "storing goes on";
  EXPECT_EQ(status.at("store").at("claims_trusted"), false);
  EXPECT_THAT(problems(status),
              ElementsAre("warning: the store cannot be trusted with claims: hard links: was "
                          "refused (NFS status 10004)"));
  EXPECT_THAT(status.at("problems")[0].at("what_to_do").get<std::string>(),
              HasSubstr("restores will be refused until the server of file:///store can do that"));
  core_.on_store_state(now_, make_error(Code::kUnavailable, "away"), effects_);
  EXPECT_EQ(problems(this->status()).size(), 1U) << "of a store that is away that is said, and no more";
}

TEST_F(AdminStatusTest, TellsWhyItIsNotKnownWhetherTheStoreCanBeTrustedWithClaims) {
  facts_.claims.trouble = "no space: create a file";
  const json status = this->status();
  EXPECT_EQ(status.at("health"), "ok");
  EXPECT_TRUE(status.at("store").at("claims_trusted").is_null());
  EXPECT_EQ(status.at("store").at("self_test_trouble"), "no space: create a file");
  EXPECT_THAT(problems(status),
              ElementsAre(HasSubstr("notice: whether the store can be trusted with claims is not "
                                    "known: no space: create a file")));
}

TEST_F(AdminStatusTest, WarnsOfAStoreWhoseClockIsWrongByMoreThanFiveSeconds) {
  storage::SelfTest test;
  test.traits = {{"hard links", true, "two names"}};
  test.clock_known = true;
  for (const std::int64_t ahead_ms : {0, 5000, -5000}) {
    test.clock_ahead_ms = ahead_ms;
    facts_.claims.test = test;
    EXPECT_EQ(status().at("store").at("clock_ahead_ms"), ahead_ms);
    EXPECT_THAT(problems(status()), ElementsAre()) << ahead_ms;
  }
  for (const auto& [ahead_ms, words] :
       {std::pair<std::int64_t, const char*>{5001, "5 s ahead of this host's"},
        {-3600000, "3600 s behind this host's"}}) {
    test.clock_ahead_ms = ahead_ms;
    facts_.claims.test = test;
    EXPECT_THAT(problems(status()),
                ElementsAre(testing::AllOf(HasSubstr("warning: the clock"), HasSubstr(words))));
    EXPECT_EQ(status().at("store").at("claims_trusted"), true) << "no decision is made by it";
  }
}

TEST_F(AdminStatusTest, TellsDamageOfTheStoreFromThatOfTheWayToIt) {
  facts_.scrub.total.misread = 1;
  facts_.scrub.total.unreadable = 2;
  facts_.scrub.unreadable =
      ScrubFound{CheckpointId{{kMac, 8}, {65536, 4}}, "a bad sector", kWallUs - 5000000};
  facts_.scrub.not_moved = ScrubFound{CheckpointId{{kMac, 9}, {65536, 4}}, "read-only", kWallUs};
  const json status = this->status();
  EXPECT_THAT(problems(status),
              ElementsAre(HasSubstr("error: 02:00:00:00:00:01/9@65536.4 is damaged and could not"),
                          HasSubstr("warning: 2 times a stored checkpoint could not be read"),
                          HasSubstr("warning: 1 times a stored checkpoint read wrong once")));
  EXPECT_EQ(status.at("problems")[1].at("since_s"), 5);
}

TEST_F(AdminStatusTest, ShowsARebuildWithItsProgress) {
  facts_.reconcile_running = true;
  facts_.reconcile_done = false;
  facts_.reconcile_shards_done = 1024;
  facts_.index.rebuilding = true;
  facts_.index.reason = "there was none";
  facts_.index.rows_added = 5000;
  facts_.index.took = std::chrono::seconds(2);
  const json status = this->status();
  EXPECT_THAT(problems(status), ElementsAre(HasSubstr("notice: the index is being rebuilt")));
  const json index = json_of(ask_for(AdminMethod::kIndexStatus));
  EXPECT_EQ(index.at("state"), "rebuilding");
  EXPECT_EQ(index.at("rows_per_s"), 2500);
  EXPECT_EQ(index.at("left_s"), 6);
  EXPECT_EQ(index.at("rows"), 0);
  facts_.index.damage = "corrupt: a row";
  EXPECT_EQ(json_of(ask_for(AdminMethod::kIndexStatus)).at("state"), "damaged");
}

TEST_F(AdminStatusTest, ShowsRunsOfScrubbing) {
  ScrubRun run;
  run.id = 3;
  run.what = "all";
  run.state = ScrubRun::State::kRunning;
  run.shards_done = 1024;
  run.counts.checkpoints = 10;
  run.counts.bytes = 4000;
  run.took = std::chrono::seconds(4);
  facts_.scrub.runs = {run};
  const json scrub = json_of(ask_for(AdminMethod::kScrubStatus));
  ASSERT_EQ(scrub.at("runs").size(), 1U);
  const json& shown = scrub.at("runs")[0];
  EXPECT_EQ(shown.at("id"), 3);
  EXPECT_EQ(shown.at("state"), "running");
  EXPECT_EQ(shown.at("bytes_per_s"), 1000);
  EXPECT_EQ(shown.at("left_s"), 12);
  EXPECT_EQ(scrub.at("state"), "off");
}

// ---- the other CMS instances

wire::PeerMessage said_by(const std::string& name, bool takes_pulls, const Id128& fleet_id = Id128{1, 2}) {
  wire::PeerMessage message;
  message.cms_name = name;
  message.incarnation = 5;
  message.fleet_id = fleet_id;
  wire::PeerBeat beat;
  beat.takes_pulls = takes_pulls;
  beat.queued = 3;
  message.body = beat;
  return message;
}

TEST_F(AdminStatusTest, WarnsOfProgramsThatStandStillForAMoveAndTellsOfDrainedEcus) {
  facts_.restores.standing_still = 2;
  facts_.restores.standing_still_program = ProgramKey{kMac, 7};
  facts_.restores.standing_still_for = std::chrono::seconds(40);
  json status = this->status();
  EXPECT_EQ(status.at("health"), "degraded");
  EXPECT_THAT(problems(status), ElementsAre(HasSubstr("02:00:00:00:00:01/7 for 40 s")));
  EXPECT_THAT(status.at("problems")[0].at("what_to_do").get<std::string>(),
              HasSubstr("cms-admin migrate 02:00:00:00:00:01/7 --cancel"));
  facts_.restores = {};
  facts_.restores.drained = 1;
  facts_.restores.drained_ecu = kMac;
  status = this->status();
  EXPECT_EQ(status.at("health"), "ok");
  EXPECT_THAT(problems(status), ElementsAre(HasSubstr("drained")));
}

TEST_F(AdminStatusTest, ShowsALivePeerAndNothingWrongWithIt) {
  core_.set_fleet_id(Id128{1, 2});
  facts_.peers_configured = 1;
  core_.on_peer(now_, "10.0.0.2", said_by("b", true), effects_);
  const json status = this->status();
  EXPECT_EQ(status.at("health"), "ok");
  ASSERT_EQ(status.at("peers").size(), 1U);
  const json& peer = status.at("peers").at(0);
  EXPECT_EQ(peer.at("name"), "b");
  EXPECT_EQ(peer.at("address"), "10.0.0.2");
  EXPECT_EQ(peer.at("state"), "live");
  EXPECT_EQ(peer.at("takes_pulls"), true);
  EXPECT_EQ(peer.at("pull"), "one");
  EXPECT_EQ(peer.at("queued"), 3);
  EXPECT_EQ(peer.at("gaps"), 0);
}

TEST_F(AdminStatusTest, WarnsOfPeersThatAreSilentForeignIdleOrWereNeverHeard) {
  core_.set_fleet_id(Id128{1, 2});
  facts_.peers_configured = 4;
  facts_.uptime = std::chrono::seconds(30);
  core_.on_peer(now_, "10.0.0.2", said_by("b", true), effects_);
  pass(core::kPeerSilentMax);
  core_.on_peer(now_, "10.0.0.3", said_by("c", true, Id128{3, 4}), effects_);
  core_.on_peer(now_, "10.0.0.4", said_by("d", false), effects_);
  now_ += std::chrono::milliseconds(500);
  const json status = this->status();
  EXPECT_EQ(status.at("health"), "degraded");
  EXPECT_THAT(problems(status),
              ElementsAre(HasSubstr("warning: cmsd b at 10.0.0.2 is silent"),
                          HasSubstr("warning: cmsd c at 10.0.0.3 is refused: its store is of fleet " +
                                    to_string(Id128{3, 4})),
                          HasSubstr("warning: cmsd d pulls nothing"),
                          HasSubstr("warning: 1 of 4 configured peers have not been heard")));
  EXPECT_EQ(status.at("peers").at(0).at("state"), "silent");
  EXPECT_EQ(status.at("peers").at(1).at("state"), "refused");
}

}  // namespace
}  // namespace cms::daemon
