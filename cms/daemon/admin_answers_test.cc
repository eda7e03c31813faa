#include "cms/daemon/admin_fixture_test.h"

namespace cms::daemon {
namespace {

class AdminAnswersTest : public AdminFixture {};

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

TEST_F(AdminAnswersTest, EcusHasAlsoThoseOfWhichThereIsOnlyALog) {
  constexpr EcuMac kBarredMac{0x020000000003};
  session(kMac, 65536);
  store({kOtherMac, 1}, {1, 1});
  for (const EcuMac ecu_mac : {kMac, kOtherMac, kBarredMac}) facts_.leases.ecus[ecu_mac].barred = true;
  const json ecus = json_of(ask_for(AdminMethod::kEcus)).at("ecus");
  ASSERT_EQ(ecus.size(), 3U);
  EXPECT_EQ(ecus[2].at("ecu_mac"), "02:00:00:00:00:03");
  EXPECT_EQ(ecus[2].at("live"), false);
  EXPECT_EQ(ecus[2].at("checkpoints"), 0);
  EXPECT_EQ(ecus[2].at("lease").at("state"), "barred");

  wire::AdminRequest one = ask_for(AdminMethod::kEcus);
  one.has_ecu_mac = true;
  for (const EcuMac ecu_mac : {kMac, kOtherMac, kBarredMac}) {
    one.ecu_mac = ecu_mac;
    EXPECT_EQ(json_of(one).at("ecus").size(), 1U) << to_string(ecu_mac);
  }
}

TEST_F(AdminAnswersTest, EcusBeyondOnePageAllComeOnce) {
  constexpr std::uint64_t kEcuCount = kSnapshotSessionsMax * 3;
  for (std::uint64_t i = 0; i < kEcuCount; ++i) {
    const EcuMac ecu_mac{kMac.bits + i};
    if (i % 5 != 0) session(ecu_mac, 65536);
    if (i % 5 == 0 || i % 2 == 0) facts_.leases.ecus[ecu_mac];
    if (i % 3 == 0) store({ecu_mac, 1}, {65536, 1});
  }
  wire::AdminRequest request = ask_for(AdminMethod::kEcus);
  std::uint64_t next_bits = kMac.bits;
  std::uint64_t stored_count = 0;
  for (std::size_t pages = 1;; ++pages) {
    const wire::AdminAnswer made = answer_to(request);
    const json page = json::parse(made.json);
    for (const auto& ecu : page.at("ecus")) {
      EXPECT_EQ(ecu.at("session_count"), (next_bits - kMac.bits) % 5 == 0 ? 0 : 1);
      ASSERT_EQ(ecu.at("ecu_mac"), to_string(EcuMac{next_bits++}));
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
    for (const ProgramId program_id : {1U, 2U, 3U}) store({ecu_mac, program_id}, {1, 1});
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
