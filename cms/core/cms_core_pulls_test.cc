#include "cms/core/core_driver_test.h"

namespace cms::core {
namespace {

constexpr ProgramId kProgram = 7;

CmsCoreConfig with_budget(std::uint64_t bytes) {
  CmsCoreConfig config = default_config();
  config.pull_budget_bytes = bytes;
  return config;
}

// ---- the way of a blob

TEST(CmsPullsTest, ASmallBlobGoesToTheStoreInOnePiece) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.announce(client, notification_of(kProgram, 1, kSmallBlobBytesMax));
  EXPECT_TRUE(cms.all<StartStore>().empty());
  const TransferId id = cms.transfer_of(client.program(kProgram));
  wire::Chunk chunk = cms.next_chunk(id);
  chunk.digest = Digest{1, 2};
  chunk.blob_digest = Digest{3, 4};
  cms.deliver(cms.core.transfers().at(id).link, chunk, chunk.size_bytes);
  ASSERT_EQ(cms.all<StoreSmall>().size(), 1U);
  const StoreSmall effect = cms.all<StoreSmall>()[0];
  EXPECT_EQ(effect.digest, chunk.digest);
  EXPECT_EQ(effect.blob_digest, chunk.blob_digest);
  EXPECT_EQ(effect.name.size_bytes, kSmallBlobBytesMax);
  EXPECT_EQ(effect.manifest.stored_by, "a");
  EXPECT_TRUE(cms.told(client).empty()) << "not before it is durable";
  cms.stored(id);
  EXPECT_EQ(cms.told(client), Lines{"STORED 1"});
}

TEST(CmsPullsTest, ALargeBlobIsStartedAppendedAndFinished) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.announce(client, notification_of(kProgram, 1, kMiB + 5));
  ASSERT_EQ(cms.all<StartStore>().size(), 1U);
  EXPECT_EQ(cms.all<StartStore>()[0].name.checkpoint,
            (CheckpointId{client.program(kProgram), Version{client.incarnation, 1}}));
  EXPECT_EQ(cms.all<StartStore>()[0].manifest.session, client.session());
  const TransferId id = cms.transfer_of(client.program(kProgram));
  cms.deliver_next(id);
  EXPECT_EQ(cms.all<AppendStore>().size(), 1U);
  EXPECT_TRUE(cms.all<FinishStore>().empty());
  cms.deliver_next(id);
  EXPECT_EQ(cms.all<AppendStore>().size(), 1U);
  EXPECT_EQ(cms.all<FinishStore>().size(), 1U);
  cms.stored(id);
  EXPECT_EQ(cms.told(client), Lines{"STORED 1"});
  ASSERT_EQ(cms.all<ApplyRetention>().size(), 1U);
  EXPECT_EQ(cms.all<ApplyRetention>()[0].programs, std::vector<ProgramKey>{client.program(kProgram)});
  EXPECT_EQ(cms.core.in_flight_bytes(), 0U);
  EXPECT_EQ(cms.core.counters().stored_bytes, kMiB + 5);
}

TEST(CmsPullsTest, GivesCreditOnlyForWhatTheStoreHasTaken) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.announce(client, notification_of(kProgram, 1, 100 * kMiB));
  EXPECT_EQ(cms.bulk<wire::Fetch>().at(0).limit_bytes, 8 * kMiB);
  const TransferId id = cms.transfer_of(client.program(kProgram));
  for (int i = 0; i < 8; ++i) {
    cms.deliver_next(id);
    EXPECT_TRUE(cms.bulk<wire::Credit>().empty());
  }
  cms.taken(id, 4 * kMiB);
  ASSERT_EQ(cms.bulk<wire::Credit>().size(), 1U);
  EXPECT_EQ(cms.bulk<wire::Credit>()[0].limit_bytes, 12 * kMiB);
}

// ---- who is next

TEST(CmsPullsTest, EcusTakeTurns) {
  CoreDriver cms(with_budget(8 * kMiB));
  const Client greedy = cms.open(1);
  const Client modest = cms.open(2);
  for (Seq seq = 1; seq <= 3; ++seq) cms.announce(greedy, notification_of(seq, seq, 9 * kMiB));
  cms.announce(modest, notification_of(1, 1, 9 * kMiB));
  std::vector<EcuMac> order;
  while (cms.core.transfer_count() > 0) {
    ASSERT_EQ(cms.core.transfer_count(), 1U);
    const ProgramKey program = cms.core.transfers().begin()->second.program;
    order.push_back(program.ecu_mac);
    cms.store(program);
  }
  // The second of the greedy one stood at the head already when the modest one came.
  EXPECT_EQ(order, (std::vector<EcuMac>{greedy.ecu_mac, greedy.ecu_mac, modest.ecu_mac, greedy.ecu_mac}));
}

TEST(CmsPullsTest, NeverHasMoreInFlightThanTheBudget) {
  CoreDriver cms(with_budget(16 * kMiB));
  const Client client = cms.open();
  for (Seq seq = 1; seq <= 5; ++seq) {
    cms.announce(client, notification_of(seq, seq, seq <= 3 ? 100 * kMiB : 1));
    EXPECT_LE(cms.core.in_flight_bytes(), 16 * kMiB);
  }
  EXPECT_EQ(cms.core.in_flight_bytes(), 16 * kMiB) << "a window for each, whatever the size";
  EXPECT_EQ(cms.core.transfer_count(), 2U);
  cms.store(client.program(1));
  EXPECT_NE(cms.transfer_of(client.program(3)), 0U);
  EXPECT_EQ(cms.core.in_flight_bytes(), 16 * kMiB);
}

TEST(CmsPullsTest, SmallOnesDoNotStarveALargeOne) {
  CoreDriver cms(with_budget(8 * kMiB));
  const Client small = cms.open(1);
  const Client large = cms.open(2);
  cms.announce(small, notification_of(1, 1, 4 * kMiB));
  cms.announce(large, notification_of(1, 1, 8 * kMiB));
  for (Seq seq = 2; seq <= 10; ++seq) cms.announce(small, notification_of(seq, seq, kMiB));
  EXPECT_EQ(cms.core.transfer_count(), 1U) << "the large one is next, however small the others are";
  cms.store(small.program(1));
  EXPECT_NE(cms.transfer_of(large.program(1)), 0U);
  cms.store(large.program(1));
  EXPECT_EQ(cms.core.transfer_count(), 8U);
}

TEST(CmsPullsTest, BoundsConnectionsAndClosesTheIdleForTheNext) {
  CoreDriver cms;
  std::vector<Client> clients;
  for (std::uint64_t number = 1; number <= kLinkCountMax + 1; ++number) {
    clients.push_back(cms.open(number));
    cms.announce(clients.back(), notification_of(kProgram, 1));
  }
  EXPECT_EQ(cms.core.transfer_count(), kLinkCountMax);
  EXPECT_EQ(cms.transfer_of(clients.back().program(kProgram)), 0U);
  cms.store(clients.front().program(kProgram));
  EXPECT_EQ(cms.all<CloseLink>().size(), 1U);
  EXPECT_EQ(cms.all<OpenLink>().size(), 1U);
  EXPECT_NE(cms.transfer_of(clients.back().program(kProgram)), 0U);
}

TEST(CmsPullsTest, ClosesAConnectionThatIsIdle) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.announce(client, notification_of(kProgram, 1));
  cms.store(client.program(kProgram));
  std::size_t closed_count = 0;
  for (Duration passed{0}; passed < kLinkIdleMax; passed += seconds(5)) {
    EXPECT_EQ(closed_count, 0U);
    cms.heartbeat(client, 1);
    cms.pass(seconds(5));
    closed_count += cms.all<CloseLink>().size();
  }
  EXPECT_EQ(closed_count, 1U);
  cms.announce(client, notification_of(kProgram, 2));
  EXPECT_EQ(cms.all<OpenLink>().size(), 1U);
}

// ---- lies

TEST(CmsPullsTest, ALyingChunkEndsItsSessionAndDisturbsNobodyElse) {
  const std::uint64_t size = 20 * kMiB;
  const auto expect_dropped = [&](auto lie, const char* what) {
    CoreDriver cms;
    const Client liar = cms.open(1);
    const Client other = cms.open(2);
    cms.announce(liar, notification_of(kProgram, 1, size));
    cms.announce(other, notification_of(kProgram, 1, size));
    const TransferId id = cms.transfer_of(liar.program(kProgram));
    wire::Chunk chunk = cms.next_chunk(id);
    std::size_t frame_bytes = chunk.size_bytes;
    lie(chunk, frame_bytes);
    cms.deliver(cms.core.transfers().at(id).link, chunk, frame_bytes);
    EXPECT_EQ(cms.core.sessions().count(liar.session()), 0U) << what;
    EXPECT_EQ(cms.all<DropStore>().size(), 1U) << what;
    EXPECT_EQ(cms.core.counters().malformed, 1U) << what;
    EXPECT_EQ(cms.core.in_flight_bytes(), 8 * kMiB) << what;
    cms.store(other.program(kProgram));
    EXPECT_EQ(cms.told(other), Lines{"STORED 1"}) << what;
  };
  using C = wire::Chunk;
  expect_dropped([](C& c, std::size_t&) { c.offset_bytes = kMiB; }, "offset");
  expect_dropped([](C&, std::size_t& frame) { --frame; }, "size");
  expect_dropped([](C& c, std::size_t&) { ++c.blob_size_bytes; }, "blob size");
  expect_dropped([](C& c, std::size_t&) { ++c.version.seq; }, "seq");
  expect_dropped([](C& c, std::size_t&) { c.last = true; }, "end mark");
}

TEST(CmsPullsTest, AChunkBeyondTheCreditEndsItsSession) {
  CoreDriver cms;
  const Client liar = cms.open();
  cms.announce(liar, notification_of(kProgram, 1, 20 * kMiB));
  const TransferId id = cms.transfer_of(liar.program(kProgram));
  for (int i = 0; i < 8; ++i) cms.deliver_next(id);
  EXPECT_EQ(cms.core.sessions().size(), 1U);
  cms.deliver_next(id);
  EXPECT_TRUE(cms.core.sessions().empty());
}

TEST(CmsPullsTest, ChunksOfAnotherConnectionAreIgnored) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.announce(client, notification_of(kProgram, 1));
  const TransferId id = cms.transfer_of(client.program(kProgram));
  const wire::Chunk chunk = cms.next_chunk(id);
  cms.deliver(cms.core.transfers().at(id).link + 1, chunk, chunk.size_bytes);
  EXPECT_TRUE(cms.effects.empty());
  wire::Chunk of_nothing = chunk;
  of_nothing.transfer_id = id + 1;
  cms.deliver(cms.core.transfers().at(id).link, of_nothing, chunk.size_bytes);
  EXPECT_TRUE(cms.effects.empty());
  EXPECT_EQ(cms.core.sessions().size(), 1U);
}

// ---- damage

TEST(CmsPullsTest, ABlobWithAWrongDigestFailsAtTheThirdFetch) {
  CoreDriver cms;
  const Client client = cms.open();
  const ProgramKey program = client.program(kProgram);
  cms.announce(client, notification_of(kProgram, 1, 4 * kMiB));
  for (int attempt = 1; attempt <= 2; ++attempt) {
    cms.deliver_next(cms.transfer_of(program));
    cms.failed(cms.transfer_of(program), Code::kCorrupt);
    EXPECT_TRUE(cms.told(client).empty());
    cms.pass(seconds(1));
    ASSERT_NE(cms.transfer_of(program), 0U) << "fetched again";
  }
  cms.failed(cms.transfer_of(program), Code::kCorrupt, "chunk 0 does not match its digest");
  EXPECT_EQ(cms.told(client), Lines{"DROPPED(corrupt) 1"});
  EXPECT_EQ(cms.core.transfer_count(), 0U);
  EXPECT_EQ(cms.core.counters().refetched, 2U);
  ASSERT_EQ(cms.core.failures().size(), 1U);
  const Failure& failure = cms.core.failures().begin()->second;
  EXPECT_EQ(failure.code, Code::kCorrupt);
  EXPECT_NE(failure.reason.find("chunk 0 does not match its digest"), std::string::npos);
  EXPECT_EQ(cms.sent<wire::Receipt>(client).at(0).reason, failure.reason);
}

TEST(CmsPullsTest, ANewerOneStartsAfreshAfterDamage) {
  CoreDriver cms;
  const Client client = cms.open();
  const ProgramKey program = client.program(kProgram);
  cms.announce(client, notification_of(kProgram, 1));
  cms.failed(cms.transfer_of(program), Code::kCorrupt);
  cms.announce(client, notification_of(kProgram, 2));
  EXPECT_EQ(cms.told(client), Lines{"SUPERSEDED 1"});
  ASSERT_NE(cms.transfer_of(program), 0U) << "at once";
  EXPECT_EQ(cms.core.transfers().at(cms.transfer_of(program)).data_attempts, 0U);
}

TEST(CmsPullsTest, NoTextOfAnErrorIsTooMuchForAReceipt) {
  CoreDriver cms;  // It encodes what the core says, and encode() asserts.
  const Client client = cms.open();
  wire::Notification notification = notification_of(kProgram, 1);
  notification.program_name = std::string(wire::kNameBytesMax, 'n');
  notification.requirements.os = std::string(wire::kNameBytesMax, 'o');
  for (Seq seq = 1; seq <= kDataAttemptsMax; ++seq) {
    cms.announce(client, notification);
    cms.failed(cms.transfer_of(client.program(kProgram)), Code::kCorrupt, std::string(100000, '\x01'));
    cms.pass(kRetryMax / 2);
    cms.heartbeat(client, 1);
    cms.pass(kRetryMax / 2);
  }
  EXPECT_EQ(cms.core.failures().size(), 1U);
}

// ---- a store in trouble

TEST(CmsPullsTest, TroubleOfTheStoreLosesNothing) {
  CoreDriver cms;
  const Client client = cms.open();
  const ProgramKey program = client.program(kProgram);
  cms.announce(client, notification_of(kProgram, 1, 4 * kMiB));
  cms.deliver_all(cms.transfer_of(program));
  cms.failed(cms.transfer_of(program), Code::kNoSpace);
  EXPECT_TRUE(cms.told(client).empty());
  EXPECT_TRUE(cms.core.failures().empty());
  EXPECT_EQ(cms.core.in_flight_bytes(), 0U);
  cms.pass(kRetryMin);
  cms.store(program);
  EXPECT_EQ(cms.told(client), Lines{"STORED 1"});
}

TEST(CmsPullsTest, TriesAgainWithGrowingPausesUpToABound) {
  CoreDriver cms;
  const Client client = cms.open();
  const ProgramKey program = client.program(kProgram);
  cms.announce(client, notification_of(kProgram, 1));
  Duration full = kRetryMin;
  for (int attempt = 0; attempt < 12; ++attempt) {
    cms.failed(cms.transfer_of(program), Code::kIo);
    const Duration pause = cms.core.programs().at(program).not_before - cms.now;
    EXPECT_GE(pause, full / 2) << attempt;
    EXPECT_LE(pause, full) << attempt;
    EXPECT_LE(cms.core.next_deadline(), cms.now + pause);
    cms.pass(pause - Duration(1));
    cms.heartbeat(client, 1);
    EXPECT_EQ(cms.transfer_of(program), 0U);
    cms.pass(Duration(1));
    ASSERT_NE(cms.transfer_of(program), 0U);
    full = std::min<Duration>(2 * full, kRetryMax);
    if (full > seconds(8)) break;  // Longer ones need more heartbeats than this loop gives.
  }
  EXPECT_GT(full, seconds(8)) << "it has grown";
}

TEST(CmsPullsTest, PausesNeverExceedTheirBound) {
  CoreDriver cms;
  const Client client = cms.open();
  const ProgramKey program = client.program(kProgram);
  cms.announce(client, notification_of(kProgram, 1));
  for (int attempt = 0; attempt < 40; ++attempt) {
    cms.failed(cms.transfer_of(program), Code::kIo);
    EXPECT_LE(cms.core.programs().at(program).not_before - cms.now, kRetryMax);
    for (int i = 0; i < 2; ++i) {
      cms.pass(kRetryMax / 2);
      cms.heartbeat(client, 1);
    }
    ASSERT_NE(cms.transfer_of(program), 0U);
  }
}

TEST(CmsPullsTest, TroubleOfTheStoreIsLoggedOnceAMinute) {
  CoreDriver cms;
  const Client client = cms.open();
  std::size_t line_count = 0;
  for (Seq seq = 1; seq <= 100; ++seq) {
    cms.announce(client, notification_of(seq, seq));
    cms.failed(cms.transfer_of(client.program(seq)), Code::kNoSpace);
    line_count += cms.log_count();
  }
  EXPECT_EQ(line_count, 1U);
}

TEST(CmsPullsTest, PullsNothingWhileTheStoreIsAway) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.announce(client, notification_of(1, 1));
  cms.failed(cms.transfer_of(client.program(1)), Code::kUnavailable);
  cms.store_state(make_error(Code::kUnavailable, "away"));
  EXPECT_EQ(cms.log_count(LogEvent::Level::kError), 1U);
  cms.store_state(make_error(Code::kUnavailable, "away"));
  EXPECT_EQ(cms.log_count(), 0U) << "the same again is no news";
  cms.announce(client, notification_of(2, 2));
  cms.pass(seconds(1));
  EXPECT_EQ(cms.core.transfer_count(), 0U);
  cms.store_state(ok_status());
  EXPECT_EQ(cms.core.transfer_count(), 2U) << "at once, whatever their back-off";
}

TEST(CmsPullsTest, TheStoreComesBackWhenAWaitingProgramHasGone) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.announce(client, notification_of(kProgram, 1));
  cms.failed(cms.transfer_of(client.program(kProgram)), Code::kUnavailable);
  cms.store_state(make_error(Code::kUnavailable, "away"));
  cms.say(client, wire::Bye{});
  cms.store_state(ok_status());
  EXPECT_EQ(cms.core.transfer_count(), 0U);
}

TEST(CmsPullsTest, DrainingStartsNothingNew) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.announce(client, notification_of(1, 1));
  cms.core.drain();
  cms.announce(client, notification_of(2, 2));
  cms.store(client.program(1));
  EXPECT_EQ(cms.told(client), Lines{"STORED 1"});
  EXPECT_EQ(cms.core.transfer_count(), 0U);
}

// ---- a publisher in trouble

TEST(CmsPullsTest, AStalledTransferResumesOnANewConnectionAndIsGivenUpAtLast) {
  CoreDriver cms;
  const Client client = cms.open();
  const ProgramKey program = client.program(kProgram);
  cms.announce(client, notification_of(kProgram, 1, 20 * kMiB));
  const TransferId id = cms.transfer_of(program);
  const LinkId link = cms.core.transfers().at(id).link;
  cms.deliver_next(id);
  cms.taken(id, kMiB);
  std::size_t line_count = 0;
  for (int stall = 1; stall <= 2; ++stall) {
    cms.pass(kTransferStallMax - milliseconds(1));
    EXPECT_TRUE(cms.all<OpenLink>().empty());
    cms.heartbeat(client, 1);
    cms.pass(milliseconds(1));
    line_count += cms.log_count();
    EXPECT_EQ(cms.all<CloseLink>().size(), 1U);
    EXPECT_EQ(cms.all<OpenLink>().size(), 1U);
    ASSERT_EQ(cms.bulk<wire::Fetch>().size(), 1U);
    EXPECT_EQ(cms.bulk<wire::Fetch>()[0].transfer_id, id);
    EXPECT_EQ(cms.bulk<wire::Fetch>()[0].offset_bytes, kMiB);
  }
  EXPECT_EQ(line_count, 1U);
  EXPECT_NE(cms.core.transfers().at(id).link, link);
  cms.heartbeat(client, 1);
  cms.pass(kTransferStallMax);
  EXPECT_EQ(cms.core.transfers().count(id), 0U);
  EXPECT_EQ(cms.all<DropStore>().size(), 1U);
  EXPECT_TRUE(cms.told(client).empty()) << "it is still wanted";
  EXPECT_EQ(cms.core.counters().stalls, 3U);
  cms.pass(kRetryMin);
  EXPECT_NE(cms.transfer_of(program), 0U);
}

TEST(CmsPullsTest, AChunkEndsAStall) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.announce(client, notification_of(kProgram, 1, 20 * kMiB));
  const TransferId id = cms.transfer_of(client.program(kProgram));
  for (int i = 0; i < 6; ++i) {
    cms.heartbeat(client, 1);
    cms.pass(kTransferStallMax);
    cms.deliver_next(id);
    cms.taken(id, kMiB);
  }
  EXPECT_EQ(cms.core.transfers().count(id), 1U);
}

TEST(CmsPullsTest, ASlowStoreIsNoStall) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.announce(client, notification_of(kProgram, 1, 20 * kMiB));
  cms.deliver_next(cms.transfer_of(client.program(kProgram)));
  for (int i = 0; i < 6; ++i) {
    cms.heartbeat(client, 1);
    cms.pass(kTransferStallMax);
  }
  EXPECT_EQ(cms.core.counters().stalls, 0U);
}

TEST(CmsPullsTest, APublisherThatGaveItUpIsNotAskedAgain) {
  CoreDriver cms;
  const Client client = cms.open();
  const ProgramKey program = client.program(kProgram);
  const auto answer = [&](Code code) {
    const TransferId id = cms.transfer_of(program);
    const LinkId link = cms.core.transfers().at(id).link;
    cms.feed([&](Effects& out) { cms.core.on_transfer_error(cms.now, link, {id, code, "why"}, out); });
  };
  cms.announce(client, notification_of(kProgram, 1));
  answer(Code::kNotFound);
  cms.pass(seconds(1));
  EXPECT_EQ(cms.transfer_of(program), 0U);
  EXPECT_TRUE(cms.core.failures().empty());
  cms.announce(client, notification_of(kProgram, 2));
  answer(Code::kSourceChanged);
  cms.pass(seconds(1));
  EXPECT_EQ(cms.transfer_of(program), 0U);
  EXPECT_EQ(cms.core.failures().size(), 1U);
  cms.announce(client, notification_of(kProgram, 3));
  answer(Code::kLimit);
  cms.pass(seconds(1));
  EXPECT_NE(cms.transfer_of(program), 0U) << "it is only busy";
}

TEST(CmsPullsTest, TheNextSessionsCheckpointTakesOverFromADeadOnes) {
  CoreDriver cms;
  const Client old_one = cms.open(1);
  cms.announce(old_one, notification_of(kProgram, 1, 4 * kMiB));
  cms.pass(seconds(4));
  Client new_one = client_of(2);
  new_one.ecu_mac = old_one.ecu_mac;
  cms.hello(new_one);
  cms.page(new_one, {notification_of(kProgram, 1, 4 * kMiB)}, 1);
  EXPECT_EQ(cms.core.transfer_count(), 1U);
  cms.pass(seconds(4));
  EXPECT_EQ(cms.core.sessions().count(old_one.session()), 0U);
  const TransferId id = cms.transfer_of(new_one.program(kProgram));
  ASSERT_NE(id, 0U);
  EXPECT_EQ(cms.core.transfers().at(id).announcement.session, new_one.session());
}

TEST(CmsPullsTest, WhatTheStoreHasCompletelySurvivesItsSession) {
  CoreDriver cms;
  const Client client = cms.open();
  const ProgramKey program = client.program(kProgram);
  cms.announce(client, notification_of(kProgram, 1));
  const TransferId id = cms.transfer_of(program);
  cms.deliver_all(id);
  cms.say(client, wire::Bye{});
  EXPECT_EQ(cms.core.transfer_count(), 1U);
  cms.stored(id);
  EXPECT_EQ(cms.core.counters().stored, 1U);
  EXPECT_TRUE(cms.core.programs().empty());
  EXPECT_TRUE(cms.core.failures().empty());
}

TEST(CmsPullsTest, ASessionThatCameBackTwiceLeavesNothingPendingBehind) {
  CoreDriver cms;
  Client client = cms.open();
  const ProgramKey program = client.program(kProgram);
  cms.announce(client, notification_of(kProgram, 1));
  const TransferId id = cms.transfer_of(program);
  cms.deliver_all(id);
  cms.say(client, wire::Bye{});
  cms.hello(client);  // Back, but its LIST is not answered yet.
  cms.failed(id, Code::kIo);
  cms.say(client, wire::Bye{});
  cms.pass(seconds(1));
  EXPECT_EQ(cms.core.transfer_count(), 0U);
  EXPECT_TRUE(cms.core.programs().empty());
}

}  // namespace
}  // namespace cms::core
