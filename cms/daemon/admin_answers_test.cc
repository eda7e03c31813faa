#include "cms/daemon/admin_answers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "storage/fake/fake_index.h"
#include "storage/fake/fake_store.h"

namespace cms::daemon {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using wire::AdminMethod;

constexpr EcuMac kMac{0x020000000001};
constexpr EcuMac kOtherMac{0x020000000002};
constexpr std::uint64_t kWallUs = 1700000000000000;  // 2023-11-14T22:13:20Z
const Instant kStart{std::chrono::hours(1)};

wire::AdminRequest ask_for(AdminMethod method) {
  wire::AdminRequest request;
  request.request_id = 5;
  request.method = method;
  return request;
}

wire::AdminRequest ask_for(AdminMethod method, const ProgramKey& program) {
  wire::AdminRequest request = ask_for(method);
  request.has_ecu_mac = request.has_program_id = true;
  request.ecu_mac = program.ecu_mac;
  request.program_id = program.program_id;
  return request;
}

// A core driven by hand, an index and a store in memory.
class AdminAnswersTest : public ::testing::Test {
 protected:
  AdminAnswersTest() : core_(config()) {
    EXPECT_TRUE(store_.open_store().ok());
    core_.on_store_state(now_, ok_status(), effects_);
    core_.on_time(now_, kWallUs, effects_);
    facts_.name = "a";
    facts_.wall_us = kWallUs;
    facts_.store_url = "file:///store";
    facts_.reconcile_done = true;
    facts_.space = storage::SpaceInfo{1000, 500};
  }
  static core::CmsCoreConfig config() {
    core::CmsCoreConfig config;
    config.name = "a";
    config.ecu_dead = std::chrono::seconds(100);
    return config;
  }

  // A living session, `incarnation` assigned.
  SessionId session(EcuMac ecu_mac, Incarnation incarnation) {
    wire::Hello hello;
    hello.ecu_mac = ecu_mac;
    hello.nonce = incarnation;
    hello.bulk_port = 7600;
    hello.software = "rtcr-client 1";
    core::ReserveIncarnation asked;
    asked.peer = std::to_string(ecu_mac.bits) + "." + std::to_string(incarnation);
    asked.peer_address = "10.0.0.7";
    asked.hello = hello;
    core_.on_control(now_, asked.peer, asked.peer_address, wire::ControlMessage{0, hello}, effects_);
    core_.on_incarnation_reserved(now_, asked, incarnation, effects_);
    return SessionId{ecu_mac, incarnation};
  }
  // The index has answered what is stored of it, so that it is pulled when its turn comes.
  void announce(const SessionId& id, ProgramId program_id, Seq seq, std::uint64_t size_bytes = 1000) {
    wire::NotifyMessage message;
    message.session = id;
    wire::Notification notification;
    notification.program_id = program_id;
    notification.seq = seq;
    notification.size_bytes = size_bytes;
    notification.program_name = "engine";
    message.body = notification;
    core_.on_notify(now_, message, effects_);
    const ProgramKey key{id.ecu_mac, program_id};
    core::CmsCore::ProgramFacts facts;
    const auto newest = index_.newest(key);
    if (newest.ok() && *newest) facts.newest = (*newest)->name.checkpoint.version;
    core_.on_program_looked_up(now_, key, facts, effects_);
  }
  // Its blob does not match its digest, three times.
  void fail(const ProgramKey& program) {
    for (std::size_t i = 0; i < core::kDataAttemptsMax; ++i) {
      const core::TransferId transfer = core_.programs().at(program).transfer;
      ASSERT_NE(transfer, 0U);
      core_.on_transfer_failed(now_, transfer, make_error(Code::kCorrupt, "wrong bytes"), effects_);
      pass(std::chrono::milliseconds(400));  // Longer than the back-off, shorter than silence.
    }
  }
  void pass(Duration duration) {
    now_ += duration;
    core_.on_time(now_, kWallUs, effects_);
  }

  storage::IndexRow row(const ProgramKey& program, const Version& version, std::uint64_t age_s = 60) {
    storage::IndexRow row;
    row.name.checkpoint = CheckpointId{program, version};
    row.name.lineage = lineage_of(program);
    row.name.size_bytes = 3;
    row.name.uid = 1;
    row.stored_bytes = 500;
    row.stored_at_us = kWallUs - age_s * 1000000;
    row.program_name = "engine";
    return row;
  }
  void store(const ProgramKey& program, const Version& version, std::uint64_t age_s = 60) {
    EXPECT_TRUE(index_.put({row(program, version, age_s)}).ok());
  }

  wire::AdminAnswer answer_to(const wire::AdminRequest& request) {
    const CoreSnapshot snapshot = snapshot_of(core_, now_, facts_, request);
    wire::AdminAnswer made = answer(request, snapshot, index_, store_);
    EXPECT_EQ(made.request_id, request.request_id);
    EXPECT_LE(made.json.size(), wire::kJsonBytesMax);
    return made;
  }
  json json_of(const wire::AdminRequest& request) {
    const wire::AdminAnswer made = answer_to(request);
    EXPECT_EQ(made.code, Code::kOk) << made.context;
    return json::parse(made.json);
  }
  json status() { return json_of(ask_for(AdminMethod::kStatus)); }
  // "KEY state" of every entry on all pages.
  std::vector<std::string> list(wire::AdminRequest request, std::size_t* pages = nullptr) {
    std::vector<std::string> entries;
    while (true) {
      const wire::AdminAnswer made = answer_to(request);
      EXPECT_EQ(made.code, Code::kOk) << made.context;
      if (pages != nullptr) ++*pages;
      const json page = json::parse(made.json);
      for (const auto& entry : page.at("checkpoints")) {
        entries.push_back(entry.at("key").get<std::string>() + " " + entry.at("state").get<std::string>());
      }
      if (made.next.empty()) return entries;
      EXPECT_LE(made.next.size(), wire::kNameBytesMax);
      EXPECT_NE(made.next, request.continue_after);
      request.continue_after = made.next;
    }
  }
  static std::vector<std::string> problems(const json& status) {
    std::vector<std::string> found;
    for (const auto& problem : status.at("problems")) {
      EXPECT_FALSE(problem.at("what_to_do").get<std::string>().empty());
      found.push_back(problem.at("severity").get<std::string>() + ": " +
                      problem.at("what").get<std::string>());
    }
    return found;
  }

  Instant now_ = kStart;
  core::Effects effects_;
  core::CmsCore core_;
  storage::FakeIndex index_;
  storage::FakeStore store_;
  DaemonFacts facts_;
};

// ---- status

TEST_F(AdminAnswersTest, StatusOfAnIdleCmsdIsOk) {
  const json status = this->status();
  EXPECT_EQ(status.at("health"), "ok");
  EXPECT_TRUE(status.at("problems").empty());
  EXPECT_EQ(status.at("store").at("state"), "ok");
  EXPECT_EQ(status.at("stored").at("checkpoints"), 0);
  EXPECT_TRUE(status.at("oldest_newest_checkpoint").is_null());
  EXPECT_EQ(status.at("time"), "2023-11-14T22:13:20.000Z");
}

TEST_F(AdminAnswersTest, StatusCountsWhatIsStoredAndFindsTheOldestNewest) {
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

TEST_F(AdminAnswersTest, StatusIsDownWhileTheStoreIsAwayAndSaysWhatToDo) {
  core_.on_store_state(now_, make_error(Code::kNoSpace, "write /store/tmp"), effects_);
  facts_.store_since = std::chrono::seconds(90);
  const json status = this->status();
  EXPECT_EQ(status.at("health"), "down");
  EXPECT_THAT(problems(status), ElementsAre(HasSubstr("write /store/tmp")));
  EXPECT_EQ(status.at("problems")[0].at("since_s"), 90);
  EXPECT_THAT(status.at("problems")[0].at("what_to_do").get<std::string>(), HasSubstr("free space"));
  EXPECT_EQ(status.at("store").at("state"), "no space");
}

TEST_F(AdminAnswersTest, StatusListsProgramsNeverStoredLongestWaitingFirst) {
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

TEST_F(AdminAnswersTest, StatusCountsAsNeverStoredWhatFailedForGoodAndOnlyThat) {
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

TEST_F(AdminAnswersTest, AFailureIsNoProblemOnceANewerCheckpointIsStoredOrTheProgramWithdrawn) {
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

TEST_F(AdminAnswersTest, StatusWarnsOfSilentSessionsAFullDiskAndALateQueue) {
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

TEST_F(AdminAnswersTest, NoticesDoNotSpoilTheHealth) {
  core_.on_malformed_notify(now_, "10.0.0.9", make_error(Code::kProtocol, "junk"), effects_);
  facts_.reconcile_running = true;
  facts_.unknown_files = 2;
  facts_.draining = true;
  const json status = this->status();
  EXPECT_EQ(status.at("health"), "ok");
  EXPECT_EQ(problems(status).size(), 4U);
  EXPECT_EQ(status.at("counters").at("malformed"), 1);
}

TEST_F(AdminAnswersTest, StatusIsAnsweredEvenWhenTheIndexIsNot) {
  index_.fail_next(100, make_error(Code::kIo, "the disk of the index"));
  const json status = this->status();
  EXPECT_EQ(status.at("health"), "down");
  EXPECT_THAT(problems(status), ElementsAre(HasSubstr("the disk of the index")));
  EXPECT_TRUE(status.at("stored").is_null());
}

TEST_F(AdminAnswersTest, StatusAddsUpThePulls) {
  const SessionId id = session(kMac, 65536);
  announce(id, 1, 1, 1000);
  announce(id, 2, 2, 2000);
  const json pulls = status().at("pulls");
  EXPECT_EQ(pulls.at("running"), 2);
  EXPECT_EQ(pulls.at("size_bytes"), 3000);
  EXPECT_EQ(pulls.at("received_bytes"), 0);
}

// ---- ecus

TEST_F(AdminAnswersTest, EcusMergesSessionsWithWhatIsStored) {
  session(kMac, 65536);
  session(kMac, 131072);
  store({kOtherMac, 1}, {1, 1}, 60);
  store({kOtherMac, 1}, {1, 2}, 30);
  const json ecus = json_of(ask_for(AdminMethod::kEcus)).at("ecus");
  ASSERT_EQ(ecus.size(), 2U);
  EXPECT_EQ(ecus[0].at("ecu_mac"), "02:00:00:00:00:01");
  EXPECT_EQ(ecus[0].at("live"), true);
  EXPECT_EQ(ecus[0].at("session_count"), 2);
  EXPECT_EQ(ecus[0].at("sessions")[0].at("incarnation"), 65536);
  EXPECT_EQ(ecus[0].at("sessions")[0].at("address"), "tcp://10.0.0.7:7600");
  EXPECT_EQ(ecus[0].at("sessions")[0].at("software"), "rtcr-client 1");
  EXPECT_EQ(ecus[0].at("checkpoints"), 0);
  EXPECT_TRUE(ecus[0].at("newest_age_s").is_null());
  EXPECT_EQ(ecus[1].at("live"), false);
  EXPECT_EQ(ecus[1].at("checkpoints"), 2);
  EXPECT_EQ(ecus[1].at("stored_bytes"), 1000);
  EXPECT_EQ(ecus[1].at("newest_age_s"), 30);

  wire::AdminRequest one = ask_for(AdminMethod::kEcus);
  one.has_ecu_mac = true;
  one.ecu_mac = kOtherMac;
  EXPECT_EQ(json_of(one).at("ecus").size(), 1U);
}

TEST_F(AdminAnswersTest, EcusBeyondOnePageAllComeOnce) {
  constexpr std::uint64_t kEcuCount = kSnapshotSessionsMax * 2 + 10;
  for (std::uint64_t i = 0; i < kEcuCount; ++i) {
    session(EcuMac{kMac.bits + i}, 65536);
    if (i % 3 == 0) store({EcuMac{kMac.bits + i}, 1}, {65536, 1});
  }
  wire::AdminRequest request = ask_for(AdminMethod::kEcus);
  std::uint64_t next_bits = kMac.bits;
  std::uint64_t stored_count = 0;
  for (std::size_t pages = 1;; ++pages) {
    const wire::AdminAnswer made = answer_to(request);
    const json page = json::parse(made.json);
    for (const auto& ecu : page.at("ecus")) {
      ASSERT_EQ(ecu.at("ecu_mac"), to_string(EcuMac{next_bits++}));
      EXPECT_EQ(ecu.at("session_count"), 1);
      stored_count += ecu.at("checkpoints").get<std::uint64_t>();
    }
    if (made.next.empty()) {
      EXPECT_GE(pages, 3U);
      break;
    }
    request.continue_after = made.next;
  }
  EXPECT_EQ(next_bits, kMac.bits + kEcuCount);
  EXPECT_EQ(stored_count, (kEcuCount + 2) / 3);
}

TEST_F(AdminAnswersTest, AnEcuWithMoreSessionsThanAreCopiedIsListedOnceAndTheNextOneToo) {
  for (std::uint64_t i = 1; i <= kSnapshotSessionsMax + 5; ++i) session(kMac, i << 16);
  session(kOtherMac, 65536);
  wire::AdminRequest request = ask_for(AdminMethod::kEcus);
  const wire::AdminAnswer first = answer_to(request);
  const json ecus = json::parse(first.json).at("ecus");
  ASSERT_EQ(ecus.size(), 1U);
  EXPECT_EQ(ecus[0].at("session_count"), kSnapshotSessionsMax);
  EXPECT_EQ(first.next, to_string(kOtherMac));
  request.continue_after = first.next;
  EXPECT_EQ(json_of(request).at("ecus").size(), 1U);
}

// ---- checkpoints

TEST_F(AdminAnswersTest, CheckpointsListsTheNewestAndWhatIsInMotion) {
  store({kMac, 1}, {1, 1});
  store({kMac, 1}, {1, 2});
  store({kMac, 5}, {1, 7});
  store({kOtherMac, 1}, {1, 1});
  const SessionId id = session(kMac, 65536);
  announce(id, 5, 1);
  announce(id, 3, 2);
  announce(id, 5, 3);  // The pull of the older one goes on.
  EXPECT_THAT(list(ask_for(AdminMethod::kCheckpoints)),
              ElementsAre("02:00:00:00:00:01/1@1.2 current", "02:00:00:00:00:01/3@65536.2 pulling",
                          "02:00:00:00:00:01/5@65536.3 announced", "02:00:00:00:00:01/5@65536.1 pulling",
                          "02:00:00:00:00:01/5@1.7 current", "02:00:00:00:00:02/1@1.1 current"));
}

TEST_F(AdminAnswersTest, CheckpointsCanBeOfOneEcuOneProgramOrBoth) {
  for (const EcuMac ecu_mac : {kMac, kOtherMac}) {
    for (const ProgramId program_id : {1, 2, 3}) store({ecu_mac, program_id}, {1, 1});
  }
  announce(session(kMac, 65536), 2, 1);
  wire::AdminRequest request = ask_for(AdminMethod::kCheckpoints);
  request.has_program_id = true;
  request.program_id = 2;
  EXPECT_THAT(list(request),
              ElementsAre("02:00:00:00:00:01/2@65536.1 pulling", "02:00:00:00:00:01/2@1.1 current",
                          "02:00:00:00:00:02/2@1.1 current"));
  request.has_ecu_mac = true;
  request.ecu_mac = kOtherMac;
  EXPECT_THAT(list(request), ElementsAre("02:00:00:00:00:02/2@1.1 current"));
  request.all = true;
  EXPECT_THAT(list(request), ElementsAre("02:00:00:00:00:02/2@1.1 current"));
  request.has_program_id = false;
  EXPECT_EQ(list(request).size(), 3U);
}

TEST_F(AdminAnswersTest, AllCheckpointsIncludeOlderVersionsAndOldFailures) {
  const SessionId id = session(kMac, 65536);
  announce(id, 1, 1);
  fail({kMac, 1});
  store({kMac, 1}, {1, 1});
  store({kMac, 1}, {65536, 2});
  wire::AdminRequest request = ask_for(AdminMethod::kCheckpoints);
  EXPECT_THAT(list(request), ElementsAre("02:00:00:00:00:01/1@65536.2 current"));
  request.all = true;
  EXPECT_THAT(list(request),
              ElementsAre("02:00:00:00:00:01/1@65536.2 current", "02:00:00:00:00:01/1@1.1 stored",
                          "02:00:00:00:00:01/1@65536.1 failed"));
}

TEST_F(AdminAnswersTest, AFailureNewerThanWhatIsStoredIsListedWithItsReason) {
  store({kMac, 1}, {1, 1});
  announce(session(kMac, 65536), 1, 1);
  fail({kMac, 1});
  const json checkpoints = json_of(ask_for(AdminMethod::kCheckpoints)).at("checkpoints");
  ASSERT_EQ(checkpoints.size(), 2U);
  EXPECT_EQ(checkpoints[0].at("state"), "failed");
  EXPECT_EQ(checkpoints[0].at("code"), "corrupt");
  EXPECT_THAT(checkpoints[0].at("reason").get<std::string>(), HasSubstr("wrong bytes"));
  EXPECT_EQ(checkpoints[1].at("state"), "current");
  EXPECT_EQ(checkpoints[1].at("age_s"), 60);
  EXPECT_EQ(checkpoints[1].at("size_bytes"), 3);
}

TEST_F(AdminAnswersTest, WithdrawnRowsSaySo) {
  store({kMac, 1}, {1, 1});
  ASSERT_TRUE(index_.put_withdrawn({kMac, 1}, {1, 1}, kWallUs).ok());
  EXPECT_THAT(list(ask_for(AdminMethod::kCheckpoints)), ElementsAre("02:00:00:00:00:01/1@1.1 withdrawn"));
}

TEST_F(AdminAnswersTest, CheckpointsBeyondOnePageAllComeOnceInOrder) {
  // Programs of every kind, among them one whose versions do not fit on a page.
  std::vector<std::string> expected_newest;
  std::vector<std::string> expected_all;
  std::vector<storage::IndexRow> rows;
  const SessionId id = session(kMac, 65536);
  Seq seq = 0;
  for (ProgramId program_id = 0; program_id < 6000; ++program_id) {
    const ProgramKey key{kMac, program_id};
    const bool announced = program_id % 2 == 0;
    const Seq versions = program_id == 3000 ? 5000 : program_id % 3;
    for (Seq version = 1; version <= versions; ++version) rows.push_back(row(key, {1, version}));
    if (announced) {
      const std::string pending = to_string(CheckpointId{key, {65536, ++seq}}) + " announced";
      expected_newest.push_back(pending);
      expected_all.push_back(pending);
    }
    for (Seq version = versions; version > 0; --version) {
      const bool newest = version == versions;
      expected_all.push_back(to_string(CheckpointId{key, {1, version}}) + (newest ? " current" : " stored"));
      if (newest) expected_newest.push_back(expected_all.back());
    }
  }
  ASSERT_TRUE(index_.put(rows).ok());
  core_.drain();
  seq = 0;
  for (ProgramId program_id = 0; program_id < 6000; program_id += 2) announce(id, program_id, ++seq);

  wire::AdminRequest request = ask_for(AdminMethod::kCheckpoints);
  std::size_t pages = 0;
  EXPECT_EQ(list(request, &pages), expected_newest);
  EXPECT_GE(pages, 2U);
  request.all = true;
  pages = 0;
  EXPECT_EQ(list(request, &pages), expected_all);
  EXPECT_GE(pages, 4U);
}

TEST_F(AdminAnswersTest, WhatIsOnlyAnnouncedAllComesOnceInOrderBeyondOnePage) {
  core_.drain();
  const SessionId id = session(kMac, 65536);
  std::vector<std::string> expected;
  for (ProgramId program_id = 0; program_id < kSnapshotItemsMax * 2 + 10; ++program_id) {
    announce(id, program_id, program_id + 1);
    expected.push_back(to_string(CheckpointId{{kMac, program_id}, {65536, program_id + 1}}) + " announced");
  }
  std::size_t pages = 0;
  EXPECT_EQ(list(ask_for(AdminMethod::kCheckpoints), &pages), expected);
  EXPECT_EQ(pages, 3U);
}

TEST_F(AdminAnswersTest, AWrongCursorIsRefused) {
  for (const AdminMethod method : {AdminMethod::kEcus, AdminMethod::kCheckpoints}) {
    for (const char* cursor :
         {"x", "02:00:00:00:00:01/", "02:00:00:00:00:01/1#", "02:00:00:00:00:01/1@1.1",
          "02:00:00:00:00:01/1@1.1#", "02:00:00:00:00:01/1@1.1#1", "#", "02:00:00:00:00:01/1#1.1"}) {
      wire::AdminRequest request = ask_for(method);
      request.continue_after = cursor;
      EXPECT_EQ(answer_to(request).code, Code::kInvalidArgument) << cursor;
    }
  }
}

TEST_F(AdminAnswersTest, ErrorsOfTheIndexAreTheAnswer) {
  for (const AdminMethod method : {AdminMethod::kEcus, AdminMethod::kCheckpoints, AdminMethod::kShow}) {
    index_.fail_next(1, make_error(Code::kIo, "the disk of the index"));
    const wire::AdminAnswer made = answer_to(ask_for(method, {kMac, 1}));
    EXPECT_EQ(made.code, Code::kIo);
    EXPECT_THAT(made.context, HasSubstr("the disk of the index"));
  }
}

// ---- show

TEST_F(AdminAnswersTest, ShowOfNothingKnownIsNotFound) {
  EXPECT_EQ(answer_to(ask_for(AdminMethod::kShow, {kMac, 1})).code, Code::kNotFound);
  facts_.reconcile_done = false;
  EXPECT_THAT(answer_to(ask_for(AdminMethod::kShow, {kMac, 1})).context, HasSubstr("yet"));
  EXPECT_EQ(answer_to(ask_for(AdminMethod::kShow)).code, Code::kInvalidArgument);
}

TEST_F(AdminAnswersTest, ShowReadsTheManifestAndTellsWhatIsInMotion) {
  const ProgramKey program{kMac, 7};
  storage::IndexRow stored = row(program, {1, 4});
  wire::Manifest manifest;
  manifest.session = SessionId{kMac, 1};
  manifest.notification.program_id = 7;
  manifest.notification.seq = 4;
  manifest.notification.lineage = stored.name.lineage;
  manifest.notification.size_bytes = 3;
  manifest.notification.pause_us = 250;
  manifest.notification.requirements.arch = "aarch64";
  manifest.notification.policies.on_loss = wire::OnLoss::kRestore;
  manifest.chunk_digests = {digest_of("abc", 3)};
  manifest.zero_chunks = {false};
  manifest.blob_digest = blob_digest_of(manifest.chunk_digests);
  manifest.stored_by = "b";
  manifest.stored_at_us = kWallUs - 5000000;
  storage::SmallBlob blob;
  blob.name = stored.name;
  blob.manifest = manifest;
  blob.data = "abc";
  blob.size_bytes = 3;
  ASSERT_TRUE(store_.put_small({blob}).front().ok());
  stored.stored_at_us = 0;  // As after a rebuild.
  ASSERT_TRUE(index_.put({stored}).ok());
  announce(session(kMac, 65536), 7, 1, 1000);

  const json shown = json_of(ask_for(AdminMethod::kShow, program));
  EXPECT_EQ(shown.at("key"), "02:00:00:00:00:01/7");
  EXPECT_EQ(shown.at("stored_count"), 1);
  const json& checkpoint = shown.at("checkpoint");
  EXPECT_EQ(checkpoint.at("state"), "current");
  EXPECT_EQ(checkpoint.at("age_s"), 5);
  EXPECT_EQ(checkpoint.at("manifest").at("chunks"), 1);
  EXPECT_EQ(checkpoint.at("manifest").at("stored_by"), "b");
  EXPECT_EQ(checkpoint.at("manifest").at("blob_digest"), to_string(manifest.blob_digest));
  EXPECT_EQ(checkpoint.at("manifest").at("requirements").at("arch"), "aarch64");
  EXPECT_EQ(checkpoint.at("manifest").at("policies").at("on_loss"), "restore");
  ASSERT_EQ(shown.at("in_motion").size(), 1U);
  EXPECT_EQ(shown.at("in_motion")[0].at("state"), "pulling");
  EXPECT_EQ(shown.at("sessions").size(), 1U);
  EXPECT_TRUE(shown.at("withdrawn").is_null());
}

TEST_F(AdminAnswersTest, ShowOfOneVersionIsOfExactlyThat) {
  const ProgramKey program{kMac, 7};
  store(program, {1, 4});
  store(program, {1, 5});
  announce(session(kMac, 65536), 7, 1);
  wire::AdminRequest request = ask_for(AdminMethod::kShow, program);
  request.has_version = true;
  request.version = {1, 4};
  const json shown = json_of(request);
  EXPECT_EQ(shown.at("key"), "02:00:00:00:00:01/7@1.4");
  EXPECT_EQ(shown.at("checkpoint").at("state"), "stored");
  EXPECT_TRUE(shown.at("checkpoint").at("manifest").is_null());  // The store has no such file.
  EXPECT_FALSE(shown.at("checkpoint").at("manifest_error").is_null());
  EXPECT_TRUE(shown.at("in_motion").empty());
  request.version = {65536, 1};
  EXPECT_TRUE(json_of(request).at("checkpoint").is_null());
  request.version = {65536, 2};
  EXPECT_EQ(answer_to(request).code, Code::kNotFound);
}

TEST_F(AdminAnswersTest, ShowTellsFailuresAndTombstones) {
  const ProgramKey program{kMac, 7};
  announce(session(kMac, 65536), 7, 1);
  fail(program);
  json shown = json_of(ask_for(AdminMethod::kShow, program));
  ASSERT_EQ(shown.at("failures").size(), 1U);
  EXPECT_THAT(shown.at("failures")[0].at("reason").get<std::string>(), HasSubstr("wrong bytes"));

  ASSERT_TRUE(index_.put_withdrawn({kMac, 8}, {65536, 2}, kWallUs - 3000000).ok());
  shown = json_of(ask_for(AdminMethod::kShow, {kMac, 8}));
  EXPECT_EQ(shown.at("withdrawn").at("seq"), 2);
  EXPECT_EQ(shown.at("withdrawn").at("age_s"), 3);
  EXPECT_TRUE(shown.at("checkpoint").is_null());
}

TEST(RetiredJsonTest, SaysUpToWhichVersion) {
  const json retired = json::parse(retired_json({kMac, 7}, {65536, 3}));
  EXPECT_EQ(retired.at("key"), "02:00:00:00:00:01/7@65536.3");
  EXPECT_EQ(retired.at("state"), "withdrawn");
}

}  // namespace
}  // namespace cms::daemon
