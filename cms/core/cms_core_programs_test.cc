#include "cms/core/core_driver_test.h"

namespace cms::core {
namespace {

constexpr ProgramId kProgram = 7;

void withdraw(CoreDriver& cms, const Client& client, Seq up_to, std::uint64_t request_id = 5) {
  cms.say(client, wire::Withdraw{request_id, kProgram, up_to});
}
void withdrawn(CoreDriver& cms, const WithdrawProgram& asked, const Result<Version>& up_to) {
  cms.feed([&](Effects& out) { cms.core.on_withdrawn(cms.now, asked, up_to, out); });
}

// ---- which one is wanted

TEST(CmsProgramsTest, AsksTheIndexBeforeTheFirstPullOfAProgramOnly) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.announce(client, notification_of(kProgram, 1));
  EXPECT_EQ(cms.all<LookUpProgram>().size(), 1U);
  cms.store(client.program(kProgram));
  cms.announce(client, notification_of(kProgram, 2));
  EXPECT_TRUE(cms.all<LookUpProgram>().empty());
  EXPECT_EQ(cms.bulk<wire::Fetch>().size(), 1U);
}

TEST(CmsProgramsTest, ANewerOneSupersedesOneThatWaits) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.store_state(make_error(Code::kUnavailable, "away"));
  cms.announce(client, notification_of(kProgram, 1));
  cms.announce(client, notification_of(kProgram, 2));
  EXPECT_EQ(cms.told(client), Lines{"SUPERSEDED 1"});
  cms.store_state(ok_status());
  ASSERT_EQ(cms.bulk<wire::Fetch>().size(), 1U);
  EXPECT_EQ(cms.bulk<wire::Fetch>()[0].checkpoint.version.seq, 2U);
  EXPECT_EQ(cms.core.counters().superseded, 1U);
}

TEST(CmsProgramsTest, ANewerOneWaitsForTheOneInFlight) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.announce(client, notification_of(kProgram, 1));
  cms.announce(client, notification_of(kProgram, 2));
  EXPECT_TRUE(cms.effects.empty());
  cms.store(client.program(kProgram));
  EXPECT_EQ(cms.told(client), Lines{"STORED 1"});
  ASSERT_EQ(cms.bulk<wire::Fetch>().size(), 1U);
  EXPECT_EQ(cms.bulk<wire::Fetch>()[0].checkpoint.version.seq, 2U);
}

TEST(CmsProgramsTest, AnOlderOneThatComesLateIsSuperseded) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.announce(client, notification_of(kProgram, 3));
  cms.announce(client, notification_of(kProgram, 2));
  EXPECT_EQ(cms.told(client), Lines{"SUPERSEDED 2"}) << "3 is in flight";
  cms.announce(client, notification_of(kProgram, 5));
  cms.announce(client, notification_of(kProgram, 4));
  EXPECT_EQ(cms.told(client), Lines{"SUPERSEDED 4"}) << "5 waits";
  cms.store(client.program(kProgram));
  cms.store(client.program(kProgram));
  cms.announce(client, notification_of(kProgram, 1));
  EXPECT_EQ(cms.told(client), Lines{"SUPERSEDED 1"}) << "5 is stored";
}

TEST(CmsProgramsTest, ALaterIncarnationIsNewer) {
  CoreDriver cms;
  const Client old_one = cms.open();
  Client new_one = client_of(2);
  new_one.ecu_mac = old_one.ecu_mac;
  cms.hello(new_one);
  cms.page(new_one, {notification_of(kProgram, 1)}, 1);
  cms.store(new_one.program(kProgram));
  cms.announce(old_one, notification_of(kProgram, 9));
  EXPECT_EQ(cms.told(old_one), Lines{"SUPERSEDED 9"});
}

TEST(CmsProgramsTest, TellsWhichLargerIncarnationIsInTheWayAndForHowLongItIsKnown) {
  CoreDriver driver;
  Client later = client_of(1);
  later.nonce = 2;
  driver.hello(later);
  driver.page(later, {}, 0);
  driver.announce(later, notification_of(7, 5));
  driver.store(later.program(7));
  driver.pass(seconds(3));
  Client low = client_of(1);
  low.nonce = 3;
  low.peer = "low";
  low.incarnation = later.incarnation - 1;  // As given by a CMS that knows less.
  driver.hello(low);
  driver.page(low, {notification_of(7, 1)}, 1);
  auto receipts = driver.sent<wire::Receipt>(low);
  ASSERT_EQ(receipts.size(), 1U);
  EXPECT_EQ(receipts[0].level, wire::ReceiptLevel::kSuperseded);
  EXPECT_EQ(receipts[0].newer, (Version{later.incarnation, 5}));
  EXPECT_EQ(receipts[0].newer_known_ms, 3000U);
  EXPECT_TRUE(receipts[0].newer_lives);

  driver.say(later, wire::Bye{});
  driver.pass(seconds(1));
  driver.announce(low, notification_of(7, 2));
  receipts = driver.sent<wire::Receipt>(low);
  ASSERT_EQ(receipts.size(), 1U);
  EXPECT_EQ(receipts[0].newer_known_ms, 4000U);
  EXPECT_FALSE(receipts[0].newer_lives);
}

TEST(CmsProgramsTest, ANewerOneOfTheSameSessionIsNoLargerIncarnation) {
  CoreDriver driver;
  const Client client = driver.open();
  driver.store_state(make_error(Code::kUnavailable, "away"));
  driver.announce(client, notification_of(7, 1));
  driver.announce(client, notification_of(7, 2));
  const auto receipts = driver.sent<wire::Receipt>(client);
  ASSERT_EQ(receipts.size(), 1U);
  EXPECT_EQ(receipts[0].newer, Version{});
}

TEST(CmsProgramsTest, WhatASessionAnnouncedGoesOnUnderItsLargerIncarnation) {
  CoreDriver driver;
  Client client = driver.open();
  driver.announce(client, notification_of(7, 1, 3 * kMiB));
  driver.deliver_next(driver.transfer_of(client.program(7)));
  client.incarnation += 1 << 20;
  driver.hello(client);
  EXPECT_EQ(driver.core.sessions().size(), 1U);
  EXPECT_TRUE(driver.core.failures().empty());
  EXPECT_EQ(driver.log_count(LogEvent::Level::kWarning), 0U);
  driver.page(client, {notification_of(7, 1, 3 * kMiB)}, 1);
  driver.store(client.program(7));
  EXPECT_EQ(driver.told(client), Lines{"STORED 1"});
}

TEST(CmsProgramsTest, BoundsTheIncarnationsWhoseAgeIsKnown) {
  CoreDriver driver;
  for (std::uint64_t nonce = 1; nonce <= 2 * kKnownPerEcuMax; ++nonce) {
    Client client = client_of(1);
    client.nonce = nonce;
    driver.hello(client);
    driver.say(client, wire::Bye{});
  }
  EXPECT_EQ(driver.core.known_incarnation_count(), kKnownPerEcuMax);
}

TEST(CmsProgramsTest, WhatIsStoredIsAcknowledgedWithoutAPull) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.facts[client.program(kProgram)].newest = Version{client.incarnation, 3};
  cms.announce(client, notification_of(kProgram, 3));
  EXPECT_EQ(cms.told(client), Lines{"STORED 3"});
  EXPECT_EQ(cms.core.counters().pulls_started, 0U);
}

TEST(CmsProgramsTest, WhatIsWithdrawnIsNotTakenInAgain) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.facts[client.program(kProgram)].withdrawn = Version{client.incarnation, 3};
  cms.announce(client, notification_of(kProgram, 3));
  EXPECT_EQ(cms.told(client), Lines{"DROPPED(withdrawn) 3"});
  cms.announce(client, notification_of(kProgram, 4));
  EXPECT_NE(cms.transfer_of(client.program(kProgram)), 0U) << "a new life";
}

TEST(CmsProgramsTest, RefusesADeltaAndKeepsWhatWaits) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.store_state(make_error(Code::kUnavailable, "away"));
  cms.announce(client, notification_of(kProgram, 1));
  wire::Notification delta = notification_of(kProgram, 2);
  delta.kind = wire::CheckpointKind::kDelta;
  cms.announce(client, delta);
  EXPECT_EQ(cms.told(client), Lines{"DROPPED(unsupported) 2"});
  EXPECT_EQ(cms.core.programs().at(client.program(kProgram)).pending->version().seq, 1U);
}

TEST(CmsProgramsTest, KeepsTheLineageThatIsSaidAndFillsInTheOneThatIsNot) {
  CoreDriver cms;
  const Client client = cms.open();
  wire::Notification moved = notification_of(8, 1, kMiB);
  moved.lineage = Lineage{1, 2};
  cms.announce(client, moved);
  EXPECT_EQ(cms.all<StartStore>().at(0).name.lineage, (Lineage{1, 2}));
  cms.announce(client, notification_of(kProgram, 2, kMiB));
  const StartStore started = cms.all<StartStore>().at(0);
  EXPECT_EQ(started.name.lineage, lineage_of(client.program(kProgram)));
  EXPECT_EQ(started.manifest.notification.lineage, started.name.lineage);
}

TEST(CmsProgramsTest, BoundsTheProgramsOfASession) {
  CoreDriver cms;
  const Client client = cms.open();
  for (Seq seq = 1; seq <= kProgramsPerSessionMax; ++seq) cms.announce(client, notification_of(seq, seq));
  cms.announce(client, notification_of(0, kProgramsPerSessionMax + 1));
  EXPECT_EQ(cms.told(client), Lines{"DROPPED(limit reached) " + std::to_string(kProgramsPerSessionMax + 1)});
  EXPECT_EQ(cms.core.programs().size(), kProgramsPerSessionMax);
}

TEST(CmsProgramsTest, TriesTheIndexAgainAndLogsItsTroubleOnce) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.index_trouble = Code::kIo;
  std::size_t line_count = 0;
  for (Seq seq = 1; seq <= 20; ++seq) {
    cms.announce(client, notification_of(seq, seq));
    line_count += cms.log_count();
  }
  EXPECT_EQ(line_count, 1U);
  cms.index_trouble = Code::kOk;
  cms.pass(kRetryMin);
  EXPECT_EQ(cms.core.transfer_count(), 20U);
}

TEST(CmsProgramsTest, ForgetsAProgramWhoseSessionsHaveEnded) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.announce(client, notification_of(kProgram, 1));
  cms.store(client.program(kProgram));
  EXPECT_EQ(cms.core.programs().size(), 1U);
  cms.say(client, wire::Bye{});
  EXPECT_TRUE(cms.core.programs().empty());
}

// ---- programs that have moved on

const Lineage kLineage{0x1234, 0x5678};

void moved(CoreDriver& cms, const ProgramKey& from, const ProgramKey& to, OwnerEpoch owner_epoch,
           const Lineage& lineage = kLineage) {
  const Fence fence{lineage, wire::ClaimOwner{to, 65536, owner_epoch}};
  cms.feed([&](Effects& out) { cms.core.on_owner_changed(cms.now, from, fence, out); });
}
void say_hello(CoreDriver& cms, Client& client, Seq last_seq) {
  wire::Hello hello = cms.hello_of(client);
  hello.last_seq = last_seq;
  cms.say(client, hello);
  client.incarnation = cms.sent<wire::HelloAnswer>(client).at(0).incarnation;
}

TEST(CmsProgramsTest, AnEcuThatComesBackIsToldOfEachProgramThatItOwnsNoMore) {
  CoreDriver cms;
  Client client = client_of(1);
  const Lineage other{1, 8};
  moved(cms, client.program(kProgram), client_of(2).program(70), 4);
  moved(cms, client.program(8), client_of(3).program(80), 12, other);
  moved(cms, client_of(2).program(9), client_of(3).program(90), 20, Lineage{1, 9});
  EXPECT_TRUE(cms.effects.empty()) << "nobody publishes them";
  client.incarnation = 65536;            // As before it was lost.
  for (const Seq last_seq : {5U, 6U}) {  // Then once more on a new connection: what was told may be lost.
    say_hello(cms, client, last_seq);
    const auto told = cms.sent<wire::Receipt>(client);
    ASSERT_EQ(told.size(), 2U);
    for (const wire::Receipt& receipt : told) {
      EXPECT_EQ(receipt.level, wire::ReceiptLevel::kFenced);
      EXPECT_EQ(receipt.code, Code::kFenced);
      EXPECT_EQ(receipt.seq, last_seq) << "whatever it has published of them";
    }
    EXPECT_EQ(told[0].program_id, kProgram);
    EXPECT_EQ(told[0].lineage, kLineage);
    EXPECT_EQ(told[0].owner_epoch, 4U);
    EXPECT_EQ(told[0].reason, "the program goes on as 02:00:00:00:00:02/70 (owner_epoch 4)");
    EXPECT_EQ(told[1].program_id, 8U);
    EXPECT_EQ(told[1].lineage, other);
    EXPECT_EQ(told[1].owner_epoch, 12U);
    client.peer = "another connection";
  }
}

TEST(CmsProgramsTest, WhoHasPublishedNothingIsToldWhenItDoesUnderTheFormerEpoch) {
  CoreDriver cms;
  Client client = client_of(1);
  moved(cms, client.program(kProgram), client_of(2).program(70), 4);
  say_hello(cms, client, 0);
  EXPECT_TRUE(cms.told(client).empty());
  wire::Notification notification = notification_of(kProgram, 1);
  notification.lineage = kLineage;
  cms.announce(client, notification);
  EXPECT_EQ(cms.told(client), Lines{"FENCED 1"});
  EXPECT_EQ(cms.sent<wire::Receipt>(client).at(0).owner_epoch, 4U);
  EXPECT_EQ(cms.core.transfer_count(), 0U);
  notification.seq = 2;
  notification.lineage = Lineage{5, 5};  // Another program, to which the number was given.
  cms.announce(client, notification);
  EXPECT_TRUE(cms.told(client).empty());
  EXPECT_EQ(cms.core.transfer_count(), 1U);
}

TEST(CmsProgramsTest, AProgramThatCameBackIsFencedWhereItWasAndNotWhereItIs) {
  CoreDriver cms;
  Client home = client_of(1);
  Client away = client_of(2);
  moved(cms, home.program(kProgram), away.program(70), 4);
  moved(cms, away.program(70), home.program(kProgram), 7);
  say_hello(cms, home, 9);
  EXPECT_TRUE(cms.told(home).empty());
  say_hello(cms, away, 3);
  EXPECT_EQ(cms.told(away), Lines{"FENCED 3"});
  EXPECT_EQ(cms.sent<wire::Receipt>(away).at(0).owner_epoch, 7U);
}

TEST(CmsProgramsTest, AnotherProgramUnderTheKeyOfOneThatMovedGoesOn) {
  CoreDriver cms;
  const Client client = cms.open();
  wire::Notification notification = notification_of(kProgram, 1);
  notification.lineage = Lineage{5, 5};
  cms.announce(client, notification);
  cms.store(client.program(kProgram));
  moved(cms, client.program(kProgram), client_of(2).program(70), 4);
  EXPECT_TRUE(cms.told(client).empty());
  notification.seq = 2;
  cms.announce(client, notification);
  cms.store(client.program(kProgram));
  EXPECT_EQ(cms.told(client), Lines{"STORED 2"});
}

TEST(CmsProgramsTest, ForgetsTheOldestOfTooManyMoves) {
  CoreDriver cms;
  Client client = client_of(1);
  const ProgramKey to = client_of(3).program(70);
  moved(cms, client.program(kProgram), to, 3);
  for (ProgramId id = 1; id < kFenceCountMax; ++id) moved(cms, client_of(2).program(id), to, 4);
  moved(cms, client_of(2).program(1), to, 8);  // Again: it takes no more room.
  say_hello(cms, client, 5);
  EXPECT_EQ(cms.told(client), Lines{"FENCED 5"});
  moved(cms, client_of(2).program(kFenceCountMax), to, 4);
  say_hello(cms, client, 5);
  EXPECT_TRUE(cms.told(client).empty());
}

// ---- withdrawing

TEST(CmsProgramsTest, WithdrawsDurablyBeforeItAnswers) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.announce(client, notification_of(kProgram, 1));
  cms.store(client.program(kProgram));
  withdraw(cms, client, 1);
  const auto asked = cms.all<WithdrawProgram>();
  ASSERT_EQ(asked.size(), 1U);
  EXPECT_EQ(asked[0].program, client.program(kProgram));
  EXPECT_EQ(asked[0].up_to, (Version{client.incarnation, 1}));
  EXPECT_FALSE(asked[0].newest_too);
  EXPECT_TRUE(cms.sent<wire::WithdrawAnswer>(client).empty());
  withdrawn(cms, asked[0], asked[0].up_to);
  ASSERT_EQ(cms.sent<wire::WithdrawAnswer>(client).size(), 1U);
  EXPECT_EQ(cms.sent<wire::WithdrawAnswer>(client)[0].request_id, 5U);
  EXPECT_EQ(cms.sent<wire::WithdrawAnswer>(client)[0].code, Code::kOk);
  EXPECT_FALSE(cms.core.programs().at(client.program(kProgram)).newest_stored.has_value());
}

TEST(CmsProgramsTest, ASessionThatPublishedNothingWithdrawsWhatOlderOnesHave) {
  CoreDriver cms;
  const Client client = cms.open();
  withdraw(cms, client, 0);
  const auto asked = cms.all<WithdrawProgram>();
  ASSERT_EQ(asked.size(), 1U);
  // Everything of older sessions, and nothing that this one will publish; a version that can be stored.
  EXPECT_LT(asked[0].up_to, (Version{client.incarnation, 1}));
  EXPECT_EQ(asked[0].up_to.incarnation, client.incarnation - 1);
  EXPECT_GE(asked[0].up_to.seq, 1U);
}

TEST(CmsProgramsTest, AWithdrawalThatCannotEndAnythingIsDoneAtOnce) {
  CoreDriver cms;
  Client client = client_of(1);
  client.incarnation = 1;  // It says so itself; no CMS gives it out.
  cms.hello(client);
  withdraw(cms, client, 0);
  EXPECT_TRUE(cms.all<WithdrawProgram>().empty());
  ASSERT_EQ(cms.sent<wire::WithdrawAnswer>(client).size(), 1U);
  EXPECT_EQ(cms.sent<wire::WithdrawAnswer>(client)[0].code, Code::kOk);
}

TEST(CmsProgramsTest, ARepeatedWithdrawalIsWorkedOnOnce) {
  CoreDriver cms;
  const Client client = cms.open();
  withdraw(cms, client, 1);
  const WithdrawProgram asked = cms.all<WithdrawProgram>().at(0);
  withdraw(cms, client, 1);
  EXPECT_TRUE(cms.effects.empty());
  withdrawn(cms, asked, asked.up_to);
  withdraw(cms, client, 1);  // Its answer was lost.
  EXPECT_EQ(cms.all<WithdrawProgram>().size(), 1U);
}

TEST(CmsProgramsTest, AWithdrawalThatTheStoreCannotTakeIsToBeRepeated) {
  CoreDriver cms;
  const Client client = cms.open();
  std::size_t line_count = 0;
  for (int i = 0; i < 10; ++i) {
    withdraw(cms, client, 1);
    withdrawn(cms, cms.all<WithdrawProgram>().at(0), make_error(Code::kReadOnly, "store"));
    ASSERT_EQ(cms.sent<wire::WithdrawAnswer>(client).size(), 1U);
    EXPECT_EQ(cms.sent<wire::WithdrawAnswer>(client)[0].code, Code::kUnavailable);
    line_count += cms.log_count();
  }
  EXPECT_EQ(line_count, 1U);
}

TEST(CmsProgramsTest, WithdrawingEndsWhatWaitsAndWhatIsInFlight) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.announce(client, notification_of(kProgram, 1, 4 * kMiB));
  cms.announce(client, notification_of(kProgram, 2));
  withdraw(cms, client, 2);
  withdrawn(cms, cms.all<WithdrawProgram>().at(0), Version{client.incarnation, 2});
  EXPECT_EQ(cms.told(client), (Lines{"DROPPED(withdrawn) 1", "DROPPED(withdrawn) 2"}));
  EXPECT_EQ(cms.all<DropStore>().size(), 1U);
  EXPECT_EQ(cms.bulk<wire::Cancel>().size(), 1U);
  EXPECT_EQ(cms.core.transfer_count(), 0U);
  EXPECT_EQ(cms.core.in_flight_bytes(), 0U);
}

TEST(CmsProgramsTest, ANewerOneBehindAWithdrawnPullIsPulled) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.announce(client, notification_of(kProgram, 1));
  withdraw(cms, client, 1);
  const WithdrawProgram asked = cms.all<WithdrawProgram>().at(0);
  cms.announce(client, notification_of(kProgram, 2));
  withdrawn(cms, asked, asked.up_to);
  ASSERT_EQ(cms.bulk<wire::Fetch>().size(), 1U);
  EXPECT_EQ(cms.bulk<wire::Fetch>()[0].checkpoint.version.seq, 2U);
}

TEST(CmsProgramsTest, AWithdrawnOneThatIsFinishingIsRemovedWhenStored) {
  CoreDriver cms;
  const Client client = cms.open();
  cms.announce(client, notification_of(kProgram, 1));
  const TransferId id = cms.transfer_of(client.program(kProgram));
  const storage::BlobName name = cms.core.transfers().at(id).name;
  cms.deliver_all(id);
  withdraw(cms, client, 1);
  withdrawn(cms, cms.all<WithdrawProgram>().at(0), Version{client.incarnation, 1});
  EXPECT_TRUE(cms.told(client).empty());
  cms.stored(id);
  EXPECT_EQ(cms.told(client), Lines{"DROPPED(withdrawn) 1"});
  ASSERT_EQ(cms.all<RemoveBlobs>().size(), 1U);
  ASSERT_EQ(cms.all<RemoveBlobs>()[0].names.size(), 1U);
  EXPECT_EQ(cms.all<RemoveBlobs>()[0].names[0].uid, name.uid);
  EXPECT_EQ(cms.core.counters().stored, 0U);
}

TEST(CmsProgramsTest, BoundsWithdrawalsInWork) {
  CoreDriver cms;
  const Client client = cms.open();
  for (std::uint64_t id = 1; id <= kWithdrawalCountMax; ++id) {
    withdraw(cms, client, 1, id);
    ASSERT_EQ(cms.all<WithdrawProgram>().size(), 1U);
  }
  withdraw(cms, client, 1, kWithdrawalCountMax + 1);
  EXPECT_TRUE(cms.all<WithdrawProgram>().empty());
  ASSERT_EQ(cms.sent<wire::WithdrawAnswer>(client).size(), 1U);
  EXPECT_EQ(cms.sent<wire::WithdrawAnswer>(client)[0].code, Code::kUnavailable);
}

TEST(CmsProgramsTest, RetiringCoversTheNewestThatIsKnown) {
  CoreDriver cms;
  const Client client = cms.open();
  const auto up_to = [&] {
    cms.feed([&](Effects& out) { cms.core.retire(client.program(kProgram), out); });
    const WithdrawProgram asked = cms.all<WithdrawProgram>().at(0);
    EXPECT_TRUE(asked.newest_too);
    EXPECT_EQ(asked.lineage, lineage_of(client.program(kProgram)));
    return asked.up_to;
  };
  EXPECT_EQ(up_to(), Version{}) << "nothing known here: the index knows";
  cms.announce(client, notification_of(kProgram, 1));
  EXPECT_EQ(up_to(), (Version{client.incarnation, 1})) << "in flight";
  cms.announce(client, notification_of(kProgram, 2));
  EXPECT_EQ(up_to(), (Version{client.incarnation, 2})) << "waiting";
  cms.store(client.program(kProgram));
  cms.store(client.program(kProgram));
  EXPECT_EQ(up_to(), (Version{client.incarnation, 2})) << "stored";
}

TEST(CmsProgramsTest, RetiringGivesTheTicketOfItsEffect) {
  CoreDriver cms;
  std::uint64_t ticket = 0;
  cms.feed([&](Effects& out) { ticket = cms.core.retire(ProgramKey{ecu_mac_of(1), kProgram}, out); });
  EXPECT_EQ(cms.all<WithdrawProgram>().at(0).ticket, ticket);
}

// ---- failures

TEST(CmsProgramsTest, RemembersTheLatestFailuresOnly) {
  CoreDriver cms;
  const Client client = cms.open();
  for (Seq seq = 1; seq <= kFailureCountMax + 2; ++seq) {
    cms.pass(milliseconds(1));
    cms.announce(client, notification_of(seq, seq));
    cms.feed([&](Effects& out) {
      const TransferId id = cms.transfer_of(client.program(seq));
      const wire::TransferError error{id, Code::kSourceChanged, "the file was altered"};
      cms.core.on_transfer_error(cms.now, cms.core.transfers().at(id).link, error, out);
    });
    cms.heartbeat(client, seq);
  }
  const auto& failures = cms.core.failures();
  EXPECT_EQ(failures.size(), kFailureCountMax);
  EXPECT_EQ(failures.begin()->first.version.seq, 3U) << "the two oldest are gone";
  EXPECT_EQ(failures.begin()->second.code, Code::kSourceChanged);
  EXPECT_EQ(failures.begin()->second.reason, "the file was altered");
}

}  // namespace
}  // namespace cms::core
