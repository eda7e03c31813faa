// What is done to stored checkpoints, and what the peers are told of it: retention, pins, quarantine.
#include "cms/core/two_cms_test.h"

namespace cms::core {
namespace {

// ---- retention

TEST(CmsPeersTest, RetentionIsTheBusinessOfTheOneThatRendezvousNames) {
  TwoCms cms;
  const Client client = cms.open_with_peer();
  const ProgramId ours = program_of("a", "b", client);
  const ProgramId theirs = program_of("b", "a", client);
  // Whoever has stored it.
  for (const ProgramId id : {ours, theirs}) {
    cms.indexed(CheckpointId{client.program(id), Version{client.incarnation, 1}});
    EXPECT_EQ(cms.all<ApplyRetention>().size(), id == ours ? 1U : 0U);
  }
  EXPECT_TRUE(cms.core.retention_share().is_ours(client.program(ours)));
  EXPECT_FALSE(cms.core.retention_share().is_ours(client.program(theirs)));
  cms.pass(kPeerSilentMax + kPeerBeatInterval);
  EXPECT_TRUE(cms.core.retention_share().is_ours(client.program(theirs))) << "nobody removes from it now";
}

TEST(CmsPeersTest, TellsOfRemovalsOnlyWhenAllThatLiveKnowTheMessage) {
  TwoCms cms;
  cms.hear(TwoCms::beat());
  std::vector<storage::IndexRow> rows(wire::kPeerRemovedCountMax + 1);
  for (storage::IndexRow& row : rows) {
    row.name.checkpoint = CheckpointId{ProgramKey{EcuMac{0x020000000001}, 1}, Version{1, 1}};
    row.stored_bytes = 10;
  }
  cms.feed([&](Effects& out) { cms.core.on_removed(rows, out); });
  EXPECT_TRUE(cms.told_peers<wire::PeerRemoved>().empty()) << "an older peer was told";
  wire::PeerBeat beat = TwoCms::beat();
  beat.features = wire::kPeerFeatureRetention;
  cms.hear(beat);
  cms.feed([&](Effects& out) { cms.core.on_removed(rows, out); });
  EXPECT_EQ(cms.told_peers<wire::PeerRemoved>().size(), 2U) << "not in pages";
  cms.feed([&](Effects& out) { cms.core.on_pinned(rows[0].name.checkpoint, true, out); });
  EXPECT_EQ(cms.told_peers<wire::PeerPinned>().size(), 1U);
  EXPECT_EQ(cms.core.counters().removed, 2 * rows.size());
  EXPECT_EQ(cms.core.counters().removed_bytes, 20 * rows.size());
}

TEST(CmsPeersTest, PassesOnWhatAPeerRemovedAndPinned) {
  TwoCms cms;
  cms.hear(TwoCms::beat());
  const CheckpointId checkpoint{ProgramKey{EcuMac{0x020000000001}, 1}, Version{1, 1}};
  cms.hear(wire::PeerRemoved{{wire::RemovedBlob{checkpoint, 2, 3}}});
  ASSERT_EQ(cms.all<NoteRemoved>().size(), 1U);
  EXPECT_EQ(cms.all<NoteRemoved>()[0].blobs[0].uid, 3U);
  cms.hear(wire::PeerPinned{checkpoint, true});
  ASSERT_EQ(cms.all<NotePinned>().size(), 1U);
  EXPECT_TRUE(cms.all<NotePinned>()[0].pinned);
}

TEST(CmsPeersTest, ARemovalOfWhatIsTheNewestHereShowsThatSomethingWasMissed) {
  TwoCms cms;
  cms.hear(TwoCms::beat());
  cms.greeted();
  cms.pass_with_peer(2 * kPeerReconcileInterval);
  const std::uint64_t before = cms.core.counters().reconciled_for_peers;
  cms.core.on_peer_removed(3, false);
  cms.pass_with_peer(2 * kPeerReconcileInterval);
  EXPECT_EQ(cms.core.counters().reconciled_for_peers, before);
  cms.core.on_peer_removed(0, true);
  cms.pass_with_peer(2 * kPeerReconcileInterval);
  EXPECT_EQ(cms.core.counters().reconciled_for_peers, before + 1);
  EXPECT_EQ(cms.core.counters().peer_removed, 3U);
}

TEST(CmsPeersTest, WhatIsReadIsToldWithTheBeatAndKnownOfPeersThatLive) {
  TwoCms cms;
  const CheckpointId ours{ProgramKey{EcuMac{0x020000000001}, 1}, Version{1, 1}};
  const CheckpointId theirs{ProgramKey{EcuMac{0x020000000001}, 2}, Version{1, 1}};
  cms.core.set_reading({ours});
  wire::PeerBeat beat = TwoCms::beat();
  beat.reading = {theirs};
  cms.hear(beat);
  EXPECT_EQ(cms.core.being_read(), (std::set<CheckpointId>{ours, theirs}));
  cms.pass(kPeerBeatInterval);
  ASSERT_FALSE(cms.told_peers<wire::PeerBeat>().empty());
  EXPECT_EQ(cms.told_peers<wire::PeerBeat>().back().reading, std::vector<CheckpointId>{ours});
  cms.pass(kPeerSilentMax + kPeerBeatInterval);
  EXPECT_EQ(cms.core.being_read(), std::set<CheckpointId>{ours}) << "a silent peer keeps things for ever";
  cms.core.set_reading(std::vector<CheckpointId>(wire::kPeerReadingCountMax + 1, ours));
  cms.pass(kPeerBeatInterval);
}

TEST(CmsPeersTest, AFullStoreAsksForSpace) {
  TwoCms cms;
  const Client client = cms.open_with_peer();
  const ProgramId ours = program_of("a", "b", client);
  cms.announce(client, notification_of(ours, 1));
  const TransferId id = cms.transfer_of(client.program(ours));
  cms.deliver_all(id);
  cms.failed(id, Code::kIo);
  EXPECT_TRUE(cms.all<FreeSpace>().empty());
  cms.feed([&](Effects& out) { cms.core.on_store_state(cms.now, make_error(Code::kNoSpace, "full"), out); });
  EXPECT_EQ(cms.all<FreeSpace>().size(), 1U);
}

// ---- damage found in the store

storage::BlobName name_of(const ProgramKey& program, const Version& version) {
  storage::BlobName name;
  name.checkpoint = CheckpointId{program, version};
  name.lineage = lineage_of(program);
  name.uid = 5;
  return name;
}

TEST(CmsQuarantineTest, WhatItsPublisherStillHoldsIsPulledAgain) {
  TwoCms cms;
  const Client client = cms.open_with_peer();
  const ProgramKey program = client.program(7);
  const wire::Notification notification = notification_of(7, 1);
  cms.announce(client, notification);
  if (cms.transfer_of(program) == 0) cms.pass_with_peer(kPeerBusyMax, cms.beat(false));
  cms.store(program);
  const Version version{client.incarnation, 1};
  cms.feed([&](Effects& out) {
    cms.core.on_quarantined(cms.now, name_of(program, version), "chunk 0", CmsCore::ProgramFacts{}, true,
                            out);
  });
  const auto told = cms.told_peers<wire::PeerQuarantined>();
  ASSERT_EQ(told.size(), 1U);
  ASSERT_EQ(told[0].checkpoints.size(), 1U);
  EXPECT_EQ(told[0].checkpoints[0].checkpoint, (CheckpointId{program, version}));
  EXPECT_EQ(told[0].checkpoints[0].uid, 5U);
  EXPECT_EQ(cms.core.programs().at(program).newest_stored, std::nullopt);
  ASSERT_EQ(cms.core.failures().count(CheckpointId{program, version}), 1U);
  ASSERT_EQ(cms.sent<wire::List>(client).size(), 1U);
  EXPECT_EQ(cms.sent<wire::List>(client)[0].from_seq, 1U);
  wire::ListPage page;
  page.notifications = {notification};
  page.last_seq = 1;
  page.end = true;
  cms.say(client, page);
  cms.pass_with_peer(kPeerBusyMax, cms.beat(false));
  ASSERT_NE(cms.transfer_of(program), 0U) << "although it was STORED before";
  cms.store(program);
  EXPECT_TRUE(cms.core.failures().empty());
}

TEST(CmsQuarantineTest, OfAnOlderOneOrOfOneOfTwoBlobsNothingIsLost) {
  TwoCms cms;
  const Client client = cms.open_with_peer();
  const ProgramKey program = client.program(7);
  const Version older{client.incarnation, 1};
  const Version newest{client.incarnation, 2};
  cms.indexed(CheckpointId{program, newest});
  for (const Version& version : {older, newest}) {
    CmsCore::ProgramFacts facts;
    facts.newest = newest;
    cms.feed([&](Effects& out) {
      cms.core.on_quarantined(cms.now, name_of(program, version), "why", facts, true, out);
    });
    EXPECT_TRUE(cms.sent<wire::List>(client).empty());
    EXPECT_TRUE(cms.core.failures().empty());
  }
  EXPECT_EQ(cms.core.counters().quarantined, 2U);
}

TEST(CmsQuarantineTest, APeersWordIsCheckedAndNotPassedOn) {
  TwoCms cms;
  const Client client = cms.open_with_peer();
  const ProgramKey program = client.program(7);
  wire::StoredCheckpoint gone;
  gone.checkpoint = CheckpointId{program, Version{client.incarnation, 1}};
  gone.lineage = lineage_of(program);
  gone.uid = 5;
  cms.hear(wire::PeerQuarantined{{gone}});
  const auto noted = cms.all<NoteQuarantined>();
  ASSERT_EQ(noted.size(), 1U);
  ASSERT_EQ(noted[0].names.size(), 1U);
  EXPECT_TRUE(noted[0].names[0] == name_of(program, gone.checkpoint.version));
  cms.feed([&](Effects& out) {
    cms.core.on_quarantined(cms.now, noted[0].names[0], "a peer", CmsCore::ProgramFacts{}, false, out);
  });
  EXPECT_TRUE(cms.told_peers<wire::PeerQuarantined>().empty());
  EXPECT_EQ(cms.core.counters().quarantined, 0U);
}

}  // namespace
}  // namespace cms::core
