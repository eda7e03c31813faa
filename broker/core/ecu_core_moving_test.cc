// The EcuCore of a source: which programs can be frozen, what is told of their last checkpoint whatever
// becomes of it, and who is asked for moves.
#include "broker/core/ecu_core_fixture_test.h"

#include "base/digest.h"

namespace cms::broker {
namespace {

using wire::FreezeState;

class EcuCoreMovingTest : public EcuCoreTest {
 protected:
  void make_source_live(std::size_t cms_count = 1) {
    EcuCoreConfig config;
    config.ecu_mac = kMac;
    config.nonce = kNonce;
    config.cms_count = cms_count;
    config.memory_budget_bytes = kBudget;
    config.freezes = true;
    core_ = std::make_unique<EcuCore>(config);
    call([&](Effects& effects) { core_->start(now_, effects); });
    EXPECT_EQ(control<wire::Hello>(0).at(0).features, wire::kEcuFeatureFreezes);
    for (CmsIndex cms = 0; cms < cms_count; ++cms) answer_hello(cms, kIncarnation);
  }
  static wire::ClaimRef at(std::uint64_t slot) {
    return wire::ClaimRef{lineage_of(ProgramKey{kMac, kProgram}), slot, slot * 10};
  }
  void freeze(std::uint64_t slot, CmsIndex cms = 0) { say(cms, wire::Freeze{at(slot), kProgram}); }
  void thaw(std::uint64_t slot, CmsIndex cms = 0) { say(cms, wire::Thaw{at(slot), kProgram}); }
  void answer(FreezeId id, const Result<Seq>& seq) {
    call([&](Effects& effects) { core_->on_frozen(id, seq, effects); });
  }
  // Up to the RTCR's call; its id.
  FreezeId make_freezing(std::uint64_t slot = 2) {
    freeze(slot);
    const auto calls = all<FreezeProgram>();
    EXPECT_EQ(calls.size(), 1U);
    return calls.empty() ? 0 : calls[0].id;
  }
  // Its last checkpoint has this seq.
  Seq make_frozen(wire::Release release = wire::Release::kReplicated) {
    const FreezeId id = make_freezing();
    publish(kProgram, 100, release);
    answer(id, core_->last_seq());
    EXPECT_EQ(told_state(), "frozen 2");
    return core_->last_seq();
  }
  wire::FreezeReport report(CmsIndex cms = 0) const {
    const auto reports = control<wire::FreezeReport>(cms);
    EXPECT_EQ(reports.size(), 1U);
    return reports.empty() ? wire::FreezeReport{} : reports.back();
  }
  std::string told_state(CmsIndex cms = 0) const {
    const wire::FreezeReport said = report(cms);
    return std::string(to_string(said.state)) + " " + std::to_string(said.claim.slot);
  }
  // What every heartbeat tells.
  wire::FreezeReport beat_report(CmsIndex cms = 0) {
    pass(kHeartbeatInterval);
    EXPECT_EQ(control<wire::Heartbeat>(cms).size(), 1U);
    return report(cms);
  }
  // Another session's checkpoint stands in the way, which proves that ours is outdated.
  void renew(Seq seq) {
    superseded_by(0, seq, Version{kIncarnation + 10 * 65536, 1}, seconds(3600));
    EXPECT_GT(core_->incarnation(), kIncarnation);
    answer_hello(0, core_->incarnation());
  }
};

TEST_F(EcuCoreMovingTest, WithoutAHandlerNothingIsFrozenAndThatIsSaid) {
  make_live(1);
  EXPECT_EQ(core_->last_seq(), 0U);
  publish();
  freeze(2);
  EXPECT_TRUE(all<FreezeProgram>().empty());
  EXPECT_EQ(told_state(), "refused 2");
  EXPECT_EQ(report().code, Code::kUnsupported);
  EXPECT_EQ(report().claim.uid, 20U);
  thaw(3);
  EXPECT_EQ(told_state(), "thawed 3");
}

TEST_F(EcuCoreMovingTest, OnlyWhatThisSessionPublishesIsFrozen) {
  make_source_live();
  freeze(2);
  EXPECT_EQ(report().code, Code::kNotFound) << "nothing is published";
  publish();
  say(0, wire::Freeze{wire::ClaimRef{Lineage{5, 5}, 2, 20}, kProgram});
  EXPECT_EQ(report().code, Code::kNotFound) << "another lineage";
  receipt(0, 1, ReceiptLevel::kFenced, Code::kFenced);
  freeze(3);
  EXPECT_EQ(report().code, Code::kNotFound) << "fenced";
  publish();
  call([&](Effects& effects) { ASSERT_TRUE(core_->withdraw(now_, 1, kProgram, effects).ok()); });
  freeze(4);
  EXPECT_EQ(report().code, Code::kNotFound) << "withdrawn";
  publish();
  freeze(5);
  EXPECT_EQ(told_state(), "freezing 5");
  EXPECT_EQ(all<FreezeProgram>().size(), 1U);
}

TEST_F(EcuCoreMovingTest, TheLastCheckpointIsThatOfTheAnswerAndHeartbeatsTellItToEveryCms) {
  make_source_live(2);
  publish();
  const FreezeId id = make_freezing();
  EXPECT_EQ(told_state(0), "freezing 2");
  EXPECT_EQ(told_state(1), "freezing 2");
  pass(kHeartbeatInterval);
  EXPECT_TRUE(control<wire::FreezeReport>(0).empty()) << "it may yet refuse";
  publish();
  EXPECT_EQ(told(), (Lines{"SUPERSEDED 1!", "ANNOUNCED 2"})) << "the ordinary path";
  publish(8);
  answer(id, Seq{2});
  for (const CmsIndex cms : {0U, 1U}) {
    EXPECT_EQ(told_state(cms), "frozen 2");
    EXPECT_EQ(report(cms).last, (Version{kIncarnation, 2}));
    EXPECT_EQ(report(cms).code, Code::kOk);
  }
  pass(kHeartbeatInterval);
  for (const CmsIndex cms : {0U, 1U}) {
    EXPECT_EQ(control<wire::Heartbeat>(cms).size(), 1U);
    EXPECT_EQ(told_state(cms), "frozen 2");
  }
}

TEST_F(EcuCoreMovingTest, WhatIsPublishedOfAFrozenProgramIsDropped) {
  make_source_live();
  publish();
  const Seq last = make_frozen();
  publish();
  EXPECT_EQ(told(), (Lines{"DROPPED 3!"})) << "and the last one stays";
  EXPECT_EQ(all<ReceiptEvent>()[0].code, Code::kPermission);
  EXPECT_NE(all<ReceiptEvent>()[0].reason.find("frozen"), std::string::npos);
  EXPECT_EQ(alive_, 1);
  EXPECT_EQ(beat_report().last.seq, last);
  publish(8);
  EXPECT_EQ(told(), Lines{"ANNOUNCED 4"}) << "another program";
  thaw(3);
  EXPECT_EQ(all<ThawProgram>().size(), 1U);
  publish();
  EXPECT_EQ(told(), (Lines{"SUPERSEDED 2!", "ANNOUNCED 5"}));
}

TEST_F(EcuCoreMovingTest, AnAnswerMustNameTheNewestOfThatProgram) {
  make_source_live();
  publish();
  publish(8);
  FreezeId id = make_freezing(2);
  answer(id, Seq{2});
  EXPECT_EQ(told_state(), "refused 2") << "of another program";
  EXPECT_EQ(all<ThawProgram>().size(), 1U);
  id = make_freezing(3);
  publish();
  answer(id, Seq{1});
  EXPECT_EQ(told_state(), "refused 3") << "not the newest";
  id = make_freezing(4);
  answer(id, Seq{3});
  EXPECT_EQ(told_state(), "frozen 4") << "one that stood still already";
}

TEST_F(EcuCoreMovingTest, ALastCheckpointThatFoundNoRoomIsToldAsLost) {
  make_source_live();
  publish();
  const FreezeId id = make_freezing();
  publish(kProgram, 2 * kBudget);
  EXPECT_EQ(told(), Lines{"DROPPED 2!"});
  answer(id, Seq{2});
  EXPECT_EQ(told_state(), "frozen 2");
  EXPECT_EQ(report().last.seq, 2U);
  EXPECT_EQ(report().code, Code::kLimit);
  EXPECT_FALSE(report().context.empty());
  EXPECT_EQ(beat_report().code, Code::kLimit);
}

TEST_F(EcuCoreMovingTest, ALastCheckpointThatIsDroppedLaterIsToldAtOnce) {
  make_source_live();
  publish();
  const Seq last = make_frozen();
  receipt(0, last, ReceiptLevel::kDropped, Code::kNoSpace);
  EXPECT_EQ(told_state(), "frozen 2");
  EXPECT_EQ(report().code, Code::kNoSpace);
}

TEST_F(EcuCoreMovingTest, WhatIsSupersededByAnotherSessionIsLostAndWhatIsStoredIsNot) {
  make_source_live(2);
  publish();
  Seq last = make_frozen();
  superseded_by(1, last, Version{kIncarnation + 65536, 1}, Duration::zero());
  EXPECT_EQ(report().code, Code::kSuperseded);
  thaw(3);
  const FreezeId id = make_freezing(4);
  publish(kProgram, 100, wire::Release::kStored);
  last = core_->last_seq();
  receipt(0, last, ReceiptLevel::kStored);
  EXPECT_EQ(core_->held_count(), 0U);
  answer(id, last);
  EXPECT_EQ(report().code, Code::kOk);
  EXPECT_EQ(report().last, (Version{kIncarnation, last}));
}

TEST_F(EcuCoreMovingTest, WhatIsHeldIsToldUnderTheNewIncarnationOfItsSession) {
  make_source_live();
  publish(8);  // What makes it renew is another program's.
  publish();
  const Seq last = make_frozen();
  superseded_by(0, 1, Version{kIncarnation + 10 * 65536, 1}, seconds(3600), false, 8);
  ASSERT_GT(core_->incarnation(), kIncarnation);
  EXPECT_TRUE(control<wire::FreezeReport>(0).empty()) << "no CMS knows the new session";
  answer_hello(0, core_->incarnation());
  EXPECT_EQ(beat_report().last, (Version{core_->incarnation(), last}));
  EXPECT_EQ(report().state, FreezeState::kFrozen);
  EXPECT_TRUE(all<ThawProgram>().empty());
}

TEST_F(EcuCoreMovingTest, WhatWasStoredAndFreedKeepsItsIncarnation) {
  make_source_live();
  publish(8);
  publish();
  const Seq last = make_frozen(wire::Release::kStored);
  receipt(0, last, ReceiptLevel::kStored);
  EXPECT_TRUE(control<wire::FreezeReport>(0).empty()) << "nothing has changed";
  superseded_by(0, 1, Version{kIncarnation + 10 * 65536, 1}, seconds(3600), false, 8);
  answer_hello(0, core_->incarnation());
  EXPECT_EQ(beat_report().last, (Version{kIncarnation, last}));
  EXPECT_EQ(report().code, Code::kOk);
}

TEST_F(EcuCoreMovingTest, TheIncarnationThatWasRenewedWhileItWasFreezingIsTold) {
  make_source_live();
  publish();
  const FreezeId id = make_freezing();
  publish();
  renew(2);
  answer(id, Seq{2});
  EXPECT_EQ(report().last, (Version{core_->incarnation(), 2}));
}

TEST_F(EcuCoreMovingTest, ACmsThatComesOrGoesThawsNothing) {
  make_source_live();
  publish();
  const Seq last = make_frozen();
  pass(kControlSilenceMax);
  EXPECT_EQ(core_->live_cms_count(), 0U);
  pass(std::chrono::hours(24));
  EXPECT_TRUE(all<ThawProgram>().empty());
  answer_hello(0, kIncarnation);
  EXPECT_TRUE(all<ThawProgram>().empty());
  EXPECT_EQ(beat_report().last.seq, last) << "so a CMS that knows nothing can settle it";
  thaw(3);
  EXPECT_EQ(all<ThawProgram>().size(), 1U);
}

TEST_F(EcuCoreMovingTest, FencedIsTheEndWithoutAThaw) {
  make_source_live();
  publish();
  const Seq last = make_frozen();
  receipt(0, last, ReceiptLevel::kFenced, Code::kFenced);
  EXPECT_EQ(told(), (Lines{"FENCED 2!"}));
  EXPECT_TRUE(all<ThawProgram>().empty());
  EXPECT_TRUE(control<wire::FreezeReport>(0).empty());
  pass(kHeartbeatInterval);
  EXPECT_TRUE(control<wire::FreezeReport>(0).empty());
  thaw(9);
  EXPECT_TRUE(all<ThawProgram>().empty());
  // And while it is freezing.
  publish();
  const FreezeId id = make_freezing(10);
  receipt(0, core_->last_seq(), ReceiptLevel::kFenced, Code::kFenced);
  answer(id, core_->last_seq());
  EXPECT_TRUE(effects_.empty());
}

TEST_F(EcuCoreMovingTest, WithdrawAndStopEndItWithoutAThaw) {
  make_source_live();
  publish();
  make_frozen();
  call([&](Effects& effects) { ASSERT_TRUE(core_->withdraw(now_, 1, kProgram, effects).ok()); });
  EXPECT_TRUE(all<ThawProgram>().empty());
  EXPECT_TRUE(control<wire::FreezeReport>(0).empty());
  publish();
  EXPECT_EQ(told(), Lines{"ANNOUNCED 3"}) << "another program may have the program_id";
  const FreezeId id = make_freezing(5);
  answer(id, Seq{3});
  call([&](Effects& effects) { core_->stop(effects); });
  EXPECT_TRUE(all<ThawProgram>().empty());
  EXPECT_TRUE(control<wire::FreezeReport>(0).empty());
  EXPECT_EQ(control<wire::Bye>(0).size(), 1U);
  answer(id, Seq{3});
  EXPECT_TRUE(effects_.empty());
}

TEST_F(EcuCoreMovingTest, TheLifeOfWhatIsFrozenIsNotForgotten) {
  make_source_live();
  publish(kProgram, 0, wire::Release::kStored);
  const FreezeId id = make_freezing();
  receipt(0, 1, ReceiptLevel::kStored);  // Nothing is held of it.
  answer(id, Seq{1});
  for (ProgramId program_id = 1000; program_id < 1000 + kHeldCountMax + 1; ++program_id) {
    publish(program_id, 0, wire::Release::kStored);
    receipt(0, core_->last_seq(), ReceiptLevel::kStored, Code::kOk, program_id);
  }
  receipt(0, 1, ReceiptLevel::kFenced, Code::kFenced);
  EXPECT_EQ(told(), Lines{"FENCED 1!"});
}

TEST_F(EcuCoreMovingTest, AClaimBelowTheOwnerEpochIsOver) {
  make_source_live();
  wire::Notification notification;
  notification.program_id = kProgram;
  notification.seq = 1;
  notification.lineage = at(2).lineage;
  notification.owner_epoch = 6;
  call([&](Effects& effects) {
    core_->publish(now_, notification, std::make_unique<TestSource>("", &alive_), effects);
  });
  freeze(5);
  EXPECT_EQ(report().code, Code::kSuperseded);
  freeze(7);
  EXPECT_EQ(told_state(), "freezing 7");
}

// ---- asking for a move

class MigrationTest : public EcuCoreMovingTest {
 protected:
  void request(std::uint64_t request_id, const std::optional<EcuMac>& to = std::nullopt) {
    call([&](Effects& effects) {
      ASSERT_TRUE(core_->request_migration(now_, request_id, kProgram, to, effects).ok());
    });
  }
  // Which CMS was asked just now; -1: none.
  int asked() const {
    int found = -1;
    for (CmsIndex cms = 0; cms < 3; ++cms) {
      if (control<wire::Migrate>(cms).empty()) continue;
      EXPECT_EQ(found, -1) << "one at a time";
      found = static_cast<int>(cms);
    }
    return found;
  }
};

TEST_F(MigrationTest, OneCmsIsAskedAndItsAnswerTold) {
  make_live(3);
  request(5, EcuMac{0x020000000009});
  EXPECT_EQ(asked(), 0);
  const wire::Migrate sent = control<wire::Migrate>(0).at(0);
  EXPECT_EQ(sent.request_id, 5U);
  EXPECT_EQ(sent.program_id, kProgram);
  EXPECT_EQ(sent.owner_epoch, 0U);
  EXPECT_TRUE(sent.has_to);
  EXPECT_EQ(sent.to_ecu_mac, EcuMac{0x020000000009});
  say(0, wire::MigrateAnswer{4, Code::kOk, {}});
  EXPECT_TRUE(effects_.empty()) << "another request's";
  say(0, wire::MigrateAnswer{5, Code::kNotFound, "no target"});
  ASSERT_EQ(all<MigrationAnswered>().size(), 1U);
  EXPECT_EQ(all<MigrationAnswered>()[0].request_id, 5U);
  EXPECT_EQ(all<MigrationAnswered>()[0].code, Code::kNotFound);
  EXPECT_EQ(all<MigrationAnswered>()[0].context, "no target");
  pass(kMigrationRetry);
  EXPECT_EQ(asked(), -1);
}

TEST_F(MigrationTest, TheOwnerEpochIsThatOfWhatIsPublished) {
  make_live(1);
  wire::Notification notification;
  notification.program_id = kProgram;
  notification.seq = 1;
  notification.lineage = Lineage{1, 2};
  notification.owner_epoch = 6;
  call([&](Effects& effects) {
    core_->publish(now_, notification, std::make_unique<TestSource>("", &alive_), effects);
  });
  request(1);
  EXPECT_EQ(control<wire::Migrate>(0).at(0).owner_epoch, 6U);
  EXPECT_FALSE(control<wire::Migrate>(0).at(0).has_to);
}

TEST_F(MigrationTest, WithoutAnAnswerTheNextLiveOneIsAskedRoundAndRound) {
  make_live(3);
  pass(milliseconds(500));
  request(5);
  pass(milliseconds(1500));
  EXPECT_EQ(core_->next_deadline(), now_ + milliseconds(500)) << "before the next heartbeat";
  pass(milliseconds(499));
  EXPECT_EQ(asked(), -1);
  pass(milliseconds(1));
  EXPECT_EQ(asked(), 1);
  say(2, wire::HeartbeatAnswer{1, 1});
  pass(kMigrationRetry);
  EXPECT_EQ(asked(), 2);
  // By now two are silent.
  say(2, wire::HeartbeatAnswer{2, 1});
  pass(kMigrationRetry);
  EXPECT_EQ(asked(), 2);
  say(0, wire::MigrateAnswer{5, Code::kOk, {}});
  EXPECT_EQ(all<MigrationAnswered>().size(), 1U) << "a late answer is one";
}

TEST_F(MigrationTest, WhoIsUnavailableIsNotAskedAgainBeforeItsTime) {
  make_live(3);
  request(5);
  say(0, wire::MigrateAnswer{5, Code::kUnavailable, "the store is away"});
  EXPECT_EQ(asked(), 1);
  EXPECT_TRUE(all<MigrationAnswered>().empty());
  say(0, wire::MigrateAnswer{5, Code::kUnavailable, "once more"});
  EXPECT_EQ(asked(), -1) << "another one is asked";
  say(1, wire::MigrateAnswer{5, Code::kUnavailable, "away"});
  EXPECT_EQ(asked(), 2);
  say(2, wire::MigrateAnswer{5, Code::kUnavailable, "away"});
  EXPECT_EQ(asked(), -1) << "no round without a pause";
  pass(kMigrationRetry);
  EXPECT_EQ(asked(), 0);
}

TEST_F(MigrationTest, WhoBecomesLiveIsAskedAtOnceWhenNobodyWas) {
  make(2);
  request(5);
  EXPECT_EQ(asked(), -1);
  answer_hello(1, kIncarnation);
  EXPECT_EQ(asked(), 1);
  answer_hello(0, kIncarnation);
  EXPECT_EQ(asked(), -1) << "one at a time";
}

TEST_F(MigrationTest, WhoAsksAgainAfterNoAnswerAsksAnotherOneFirst) {
  make_live(3);
  request(5);
  core_->cancel_migration(5);
  request(6);
  EXPECT_EQ(asked(), 1);
  pass(kMigrationRetry);
  EXPECT_EQ(asked(), 2);
  core_->cancel_migration(6);
  request(7);
  EXPECT_EQ(asked(), 0);
}

TEST_F(MigrationTest, CancelledAndStoppedRequestsAreNotAskedAndTooManyAreRefused) {
  make_live(1);
  request(5);
  core_->cancel_migration(5);
  pass(kMigrationRetry);
  EXPECT_EQ(asked(), -1);
  for (std::uint64_t i = 0; i < kMigrationCountMax; ++i) request(10 + i);
  call([&](Effects& effects) {
    EXPECT_EQ(core_->request_migration(now_, 9999, kProgram, std::nullopt, effects).code(), Code::kLimit);
  });
  EXPECT_TRUE(effects_.empty());
  call([&](Effects& effects) { core_->stop(effects); });
  EXPECT_EQ(core_->next_deadline(), kNever);
}

}  // namespace
}  // namespace cms::broker
