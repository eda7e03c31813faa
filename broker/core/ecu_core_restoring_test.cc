// The EcuCore of a target: who may command it, and what becomes of programs that have moved on.
#include "broker/core/ecu_core_fixture_test.h"

namespace cms::broker {
namespace {

class EcuCoreRestoringTest : public EcuCoreTest {
 protected:
  void make_target(std::size_t cms_count = 1) {
    EcuCoreConfig config;
    config.ecu_mac = kMac;
    config.nonce = kNonce;
    config.cms_count = cms_count;
    config.memory_budget_bytes = kBudget;
    config.target.emplace();
    core_ = std::make_unique<EcuCore>(config);
    call([&](Effects& effects) { core_->start(now_, effects); });
  }
  void make_target_live(std::size_t cms_count = 1) {
    make_target(cms_count);
    for (CmsIndex cms = 0; cms < cms_count; ++cms) answer_hello(cms, kIncarnation);
  }
  static wire::Prepare prepare() {
    wire::Prepare prepare;
    prepare.claim = wire::ClaimRef{Lineage{1, 2}, 2, 20};
    prepare.session = SessionId{EcuMac{0x020000000009}, 65536};
    prepare.notification.program_id = 5;
    prepare.notification.seq = 1;
    prepare.bulk_port = 7403;
    return prepare;
  }
  static wire::Go go() { return wire::Go{prepare().claim, 3, 30}; }
  // Up to prepared; its id.
  RestoreId make_prepared() {
    say(0, prepare());
    const auto received = all<ReceiveBlob>();
    EXPECT_EQ(received.size(), 1U);
    wire::Chunk chunk;
    chunk.transfer_id = received.at(0).id;
    chunk.digest = digest_of(nullptr, 0);
    chunk.version = Version{65536, 1};
    chunk.chunk_size_bytes = wire::kChunkSizeBytes;
    chunk.last = true;
    chunk.blob_digest = blob_digest_of({chunk.digest});
    call([&](Effects& effects) { core_->on_restore_bulk(now_, BulkLink{0, 7403}, chunk, {}, effects); });
    EXPECT_EQ(all<PrepareProgram>().size(), 1U);
    call([&](Effects& effects) { core_->on_prepared(now_, received[0].id, ok_status(), effects); });
    return received[0].id;
  }
  void publish_restored(ProgramId program_id, OwnerEpoch owner_epoch) {
    wire::Notification notification;
    notification.program_id = program_id;
    notification.seq = core_->last_seq() + 1;
    notification.size_bytes = 10;
    notification.lineage = prepare().claim.lineage;
    notification.owner_epoch = owner_epoch;
    auto source = std::make_unique<TestSource>(std::string(10, 'x'), &alive_);
    call([&](Effects& effects) { core_->publish(now_, notification, std::move(source), effects); });
  }
};

TEST_F(EcuCoreRestoringTest, HelloTellsWhatItCanDo) {
  make_target();
  EXPECT_EQ(control<wire::Hello>(0).at(0).features, wire::kEcuFeatureMetrics | wire::kEcuFeatureRestores);
  make(1);
  EXPECT_EQ(control<wire::Hello>(0).at(0).features, 0U);
  answer_hello(0, kIncarnation);
  say(0, wire::MetricsAsk{7});
  EXPECT_TRUE(effects_.empty());
  say(0, prepare());
  EXPECT_TRUE(effects_.empty());
}

TEST_F(EcuCoreRestoringTest, MetricsAreAskedOfTheShellAndToldToWhoAsks) {
  make_target_live(2);
  say(1, wire::MetricsAsk{7});
  ASSERT_EQ(all<AskMetrics>().size(), 1U);
  EXPECT_EQ(all<AskMetrics>()[0].number, 7U);
  wire::Metrics metrics;
  metrics.number = 7;
  call([&](Effects& effects) { core_->tell_metrics(1, metrics, effects); });
  ASSERT_EQ(control<wire::Metrics>(1).size(), 1U);
  EXPECT_EQ(all<SendControl>()[0].message.incarnation, kIncarnation);
}

TEST_F(EcuCoreRestoringTest, CommandsForAnotherSessionAreNotObeyed) {
  make_target_live();
  make_prepared();
  for (const Incarnation other : {Incarnation{0}, kIncarnation - 1, kIncarnation + 1}) {
    call([&](Effects& effects) { core_->on_control(now_, 0, wire::ControlMessage{other, go()}, effects); });
    EXPECT_TRUE(effects_.empty()) << other;
  }
  say(0, go());
  ASSERT_EQ(all<RunProgram>().size(), 1U);
  EXPECT_EQ(all<RunProgram>()[0].owner_epoch, 4U);
}

TEST_F(EcuCoreRestoringTest, ANewIncarnationRefusesWhatWasPreparedUnderTheFormer) {
  make_target_live();
  make_prepared();
  publish();
  superseded_by(0, 1, Version{kIncarnation + 1, 1}, std::chrono::hours(1));
  ASSERT_GT(core_->incarnation(), kIncarnation);
  ASSERT_EQ(control<wire::RestoreReport>(0).size(), 1U);
  EXPECT_EQ(control<wire::RestoreReport>(0)[0].state, wire::RestoreState::kRefused);
  EXPECT_EQ(all<DiscardRestore>().size(), 1U);
  answer_hello(0, core_->incarnation());
  say(0, go());
  ASSERT_EQ(control<wire::RestoreReport>(0).size(), 1U);
  EXPECT_EQ(control<wire::RestoreReport>(0)[0].state, wire::RestoreState::kRefused);
  EXPECT_EQ(control<wire::RestoreReport>(0)[0].act_uid, 30U);
}

TEST_F(EcuCoreRestoringTest, StoppingRefusesWhatIsPreparedBeforeTheBye) {
  make_target_live();
  make_prepared();
  call([&](Effects& effects) { core_->stop(effects); });
  EXPECT_EQ(all<DiscardRestore>().size(), 1U);
  const auto sent = all<SendControl>();
  ASSERT_EQ(sent.size(), 2U);
  EXPECT_TRUE(std::holds_alternative<wire::RestoreReport>(sent[0].message.body));
  EXPECT_TRUE(std::holds_alternative<wire::Bye>(sent[1].message.body));
}

TEST_F(EcuCoreRestoringTest, StalledTransfersAreATimerOfTheCore) {
  make_target_live();
  say(0, prepare());
  for (int i = 0; i < 5; ++i) {
    say(0, wire::HeartbeatAnswer{1, 1});
    pass(seconds(1));
  }
  ASSERT_EQ(control<wire::RestoreReport>(0).size(), 1U);
  EXPECT_EQ(control<wire::RestoreReport>(0)[0].code, Code::kTimeout);
}

// ---- fencing

TEST_F(EcuCoreRestoringTest, FencedEndsAllThatIsHeldOfTheProgramAlsoWhatOneCmsHasStored) {
  make_live(2);
  publish(kProgram);
  publish(kProgram + 1);
  receipt(0, 1, ReceiptLevel::kStored);
  publish(kProgram);
  ASSERT_EQ(alive_, 3);
  receipt(1, 1, ReceiptLevel::kFenced, Code::kFenced);
  EXPECT_EQ(told(), (Lines{"FENCED 1!", "FENCED 3!"}));
  EXPECT_EQ(alive_, 1) << "the other program's stays";
  receipt(0, 3, ReceiptLevel::kFenced, Code::kFenced);
  EXPECT_TRUE(told().empty()) << "it was told already";
}

TEST_F(EcuCoreRestoringTest, FencedIsToldAlsoWhenNothingIsHeldAnyMore) {
  make_live(1);
  publish();
  receipt(0, 1, ReceiptLevel::kStored);
  ASSERT_EQ(alive_, 0);
  receipt(0, 1, ReceiptLevel::kFenced, Code::kFenced);
  EXPECT_EQ(told(), Lines{"FENCED 1!"});
  receipt(0, 1, ReceiptLevel::kFenced, Code::kFenced);
  EXPECT_TRUE(told().empty());
  publish();
  receipt(0, 2, ReceiptLevel::kFenced, Code::kFenced);
  EXPECT_EQ(told(), Lines{"FENCED 2!"}) << "a publisher that goes on is told again";
}

TEST_F(EcuCoreRestoringTest, FencedOfAnEarlierProgramDoesNotEndWhoHasItsProgramIdNow) {
  make_target_live();
  publish_restored(5, 4);
  receipt(0, 1, ReceiptLevel::kFenced, Code::kFenced, 5);
  publish_restored(5, 9);
  receipt(0, 1, ReceiptLevel::kFenced, Code::kFenced, 5);
  EXPECT_TRUE(told().empty());
  EXPECT_EQ(core_->held_count(), 1U);
  receipt(0, 3, ReceiptLevel::kFenced, Code::kFenced, 5);
  EXPECT_TRUE(told().empty()) << "nothing of that seq was published";
}

TEST_F(EcuCoreRestoringTest, FencedByAnOwnerOfBeforeItCameBackHereIsNotHeard) {
  make_target_live();
  publish_restored(5, 9);
  wire::Receipt fenced{5, 1, ReceiptLevel::kFenced, Code::kFenced, "why"};
  fenced.lineage = prepare().claim.lineage;
  for (const OwnerEpoch owner_epoch : {4U, 9U}) {
    fenced.owner_epoch = owner_epoch;
    say(0, fenced);
    EXPECT_TRUE(told().empty()) << owner_epoch;
  }
  EXPECT_EQ(core_->held_count(), 1U);
  fenced.owner_epoch = 12;
  say(0, fenced);
  EXPECT_EQ(told(), Lines{"FENCED 1!"});
}

TEST_F(EcuCoreRestoringTest, AFencedProgramMayBeRestoredHereAgain) {
  make_target_live();
  const RestoreId id = make_prepared();
  say(0, go());
  call([&](Effects& effects) { core_->on_running(now_, id, ProgramId{5}, effects); });
  publish_restored(5, 4);
  wire::Prepare again = prepare();
  again.claim.slot = 6;
  say(0, again);
  EXPECT_EQ(control<wire::RestoreReport>(0).at(0).state, wire::RestoreState::kRefused) << "it runs here";
  receipt(0, 1, ReceiptLevel::kFenced, Code::kFenced, 5);
  again.claim.slot = 8;
  say(0, again);
  EXPECT_EQ(control<wire::RestoreReport>(0).at(0).state, wire::RestoreState::kPulling);
}

TEST_F(EcuCoreRestoringTest, ARestoredProgramThatMovedOnIsFencedByTheNextPrepare) {
  make_target_live();
  const RestoreId id = make_prepared();
  say(0, go());
  call([&](Effects& effects) { core_->on_running(now_, id, ProgramId{5}, effects); });
  publish_restored(5, 4);
  wire::Prepare again = prepare();
  again.claim.slot = 10;
  again.notification.owner_epoch = 9;
  say(0, again);
  EXPECT_EQ(told(), Lines{"FENCED 1!"});
  EXPECT_EQ(core_->held_count(), 0U);
}

}  // namespace
}  // namespace cms::broker
