// Who is granted a run lease, by what was read of its ECU's log; maintenance; BYE; bounds and clocks.
#include "cms/core/leases_driver_test.h"

namespace cms::core {
namespace {

using namespace leases_driver;

class LeasesTest : public LeasesDriver {
 protected:
  Code set_maintenance(bool maintenance) {
    Status status = ok_status();
    call([&](auto& out) { status = leases->set_maintenance(now, kEcu, maintenance, out); });
    return status.code();
  }
  Code says_hello(std::uint64_t nonce) { return leases->on_hello(now, hello_said(nonce), false).code(); }
};

// ---- granting

TEST_F(LeasesTest, GrantsToTheSessionThatItHasReadAsTheHead) {
  const EcuRecord record = hello_of(0x11);
  renew();
  EXPECT_FALSE(beat(record)) << "nothing is known of its log";
  EXPECT_TRUE(reads());
  head_is(record);
  EXPECT_FALSE(leases->is_leased(now, session_of(record))) << "it has not asked since";
  EXPECT_TRUE(beat(record));
  EXPECT_TRUE(leases->is_leased(now, session_of(record)));
  EXPECT_FALSE(leases->is_leased(now, SessionId{kEcu, record.incarnation + 1}));
}

TEST_F(LeasesTest, AnUnknownLogIsAskedForOnce) {
  renew();
  beat(hello_of(0x11));
  EXPECT_TRUE(reads());
  beat(hello_of(0x11));
  EXPECT_FALSE(reads()) << "the question is open";
  call([&](auto& out) { leases->on_head(now, now, kEcu, make_error(Code::kUnavailable, "away"), out); });
  beat(hello_of(0x11));
  EXPECT_TRUE(reads()) << "it is asked for anew";
  call([&](auto& out) { leases->on_head(now, now, kEcu, std::optional<EcuRecord>(), out); });
  EXPECT_FALSE(beat(hello_of(0x11)));
}

TEST_F(LeasesTest, NeitherAnOlderNorANewerSessionThanTheHeadHasALease) {
  const EcuRecord first = hello_of(0x11);
  const EcuRecord second = hello_of(0x22, &first);
  const EcuRecord third = hello_of(0x33, &second);
  renew();
  head_is(second);
  EXPECT_FALSE(beat(first));
  EXPECT_FALSE(reads()) << "it has ended";
  EXPECT_FALSE(beat(third));
  EXPECT_TRUE(reads()) << "the log has gone on";
  head_is(third);
  EXPECT_TRUE(beat(third));
}

TEST_F(LeasesTest, NothingIsGrantedByWhoMayNotAct) {
  const EcuRecord record = leased();
  writing = false;
  const Instant written_at = *members.written_at();
  now = written_at + milliseconds(2999);
  EXPECT_TRUE(beat(record));
  now = written_at + seconds(3);
  EXPECT_FALSE(beat(record)) << "T_self";
  EXPECT_FALSE(leases->is_leased(now, session_of(record)));
}

TEST_F(LeasesTest, AHeadReadBeforeAGapInOurRenewalsIsReadAnew) {
  const EcuRecord record = leased();
  now += seconds(4);  // Our record was not renewed: others may have held us for dead, and it for LOST.
  write(now, now);
  EXPECT_FALSE(beat(record));
  EXPECT_TRUE(reads());
  head_is(record, now - milliseconds(1));
  EXPECT_FALSE(beat(record)) << "that reading began before";
  EXPECT_TRUE(reads());
  head_is(record, now);
  EXPECT_TRUE(beat(record));
}

TEST_F(LeasesTest, TheGapEndsWhenTheRenewalIsKnownToBeDurable) {
  const EcuRecord record = leased();
  const Instant sent_at = now + milliseconds(100);
  now += seconds(4);  // Sent at once, but durable only now.
  write(sent_at, now);
  head_is(record, sent_at + seconds(1));
  EXPECT_FALSE(beat(record)) << "up to now we were dead for others";
}

TEST_F(LeasesTest, WhatFollowsInTimeIsNoGap) {
  const EcuRecord record = leased();
  const Instant written_at = *members.written_at();
  now = written_at + milliseconds(2999);
  write(now - milliseconds(500), now);
  EXPECT_TRUE(beat(record));
  EXPECT_FALSE(reads());
  now += milliseconds(2499);  // By the sending of the last one.
  write(now, now);
  EXPECT_TRUE(beat(record));
}

TEST_F(LeasesTest, AHeadReadBeforeOurFirstRecordIsReadAnew) {
  const EcuRecord record = hello_of(0x11);
  head_is(record);
  now += milliseconds(1);
  renew();
  EXPECT_FALSE(beat(record));
  EXPECT_TRUE(reads());
}

TEST_F(LeasesTest, ALeaseIsTakenForEndedTFenceAfterTheLastHeartbeat) {
  const EcuRecord record = leased();
  EXPECT_TRUE(beat(record));
  const Instant heard_at = now;
  const auto is_leased = [&](Duration after) {
    now = heard_at + after;
    members.on_written(now);
    return leases->is_leased(now, session_of(record));
  };
  EXPECT_TRUE(is_leased(milliseconds(4999)));
  EXPECT_FALSE(is_leased(seconds(5)));
}

TEST_F(LeasesTest, AnOlderHeadThanTheOneKnownSaysNothing) {
  const EcuRecord first = hello_of(0x11);
  const EcuRecord second = hello_of(0x22, &first);
  renew();
  head_is(second);
  EXPECT_TRUE(beat(second));
  head_is(first);
  EXPECT_TRUE(none<GuardedEnded>());
  EXPECT_EQ(leases->head_of(kEcu)->nonce, 0x22U);
  EXPECT_TRUE(beat(second));
}

TEST_F(LeasesTest, ANewSessionEndsTheFormerOne) {
  const EcuRecord first = leased();
  const EcuRecord second = hello_of(0x22, &first);
  head_is(second);
  ASSERT_EQ(all<GuardedEnded>().size(), 1U);
  EXPECT_EQ(all<GuardedEnded>()[0].session, session_of(first));
  EXPECT_FALSE(beat(first));
  EXPECT_TRUE(beat(second));
}

TEST_F(LeasesTest, AReadThatFailedIsAskedForAgain) {
  const EcuRecord record = leased();
  now += seconds(4);
  write(now, now);
  beat(record);
  ASSERT_TRUE(reads());
  call([&](auto& out) { leases->on_head(now, now, kEcu, make_error(Code::kUnavailable, "away"), out); });
  beat(record);
  EXPECT_FALSE(reads()) << "not at once";
  now += kEcuLogRetry;
  turn_of_loop();
  EXPECT_TRUE(reads());
}

TEST_F(LeasesTest, AllLogsAreListedWhenOurFirstRecordIsThereAndNowAndThen) {
  turn_of_loop();
  EXPECT_TRUE(none<ListEcuLogs>()) << "what was read now would be no word";
  renew();
  turn_of_loop();
  EXPECT_EQ(all<ListEcuLogs>().size(), 1U);
  now += kEcuLogsListedEvery;
  turn_of_loop();
  EXPECT_TRUE(none<ListEcuLogs>()) << "the first one is open";
  call([&](auto& out) { leases->on_listed(now, now, make_error(Code::kUnavailable, "away"), out); });
  turn_of_loop();
  EXPECT_TRUE(none<ListEcuLogs>());
  now += kEcuLogRetry;
  turn_of_loop();
  EXPECT_EQ(all<ListEcuLogs>().size(), 1U);
  listed({hello_of(0x11)});
  EXPECT_NE(leases->head_of(kEcu), nullptr);
  now += kEcuLogsListedEvery - milliseconds(1);
  turn_of_loop();
  EXPECT_TRUE(none<ListEcuLogs>());
  now += milliseconds(1);
  turn_of_loop();
  EXPECT_EQ(all<ListEcuLogs>().size(), 1U);
}

// ---- Hello

TEST_F(LeasesTest, AnotherHelloIsRefusedWhileTheFormerSessionIsHeard) {
  const EcuRecord record = leased();
  EXPECT_TRUE(leases->on_hello(now, hello_said(0x99, ecu_mac_of(9)), false).ok()) << "nothing is known";
  beat(record);
  EXPECT_EQ(leases->on_hello(now + milliseconds(2499), hello_said(0x22), false).code(), Code::kAlreadyExists);
  EXPECT_TRUE(leases->on_hello(now + milliseconds(2499), hello_said(0x11), false).ok()) << "the same start";
  EXPECT_TRUE(leases->on_hello(now + milliseconds(2499), hello_said(0x22), true).ok()) << "the same client";
  EXPECT_TRUE(leases->on_hello(now + milliseconds(2500), hello_said(0x22), false).ok());
}

TEST_F(LeasesTest, ASessionThatWasNeverHeardHereRefusesNobody) {
  renew();
  head_is(hello_of(0x11));
  EXPECT_TRUE(leases->on_hello(now, hello_said(0x22), false).ok());
}

TEST_F(LeasesTest, ASessionThatHasEndedRefusesNobody) {
  const EcuRecord record = leased();
  beat(record);
  head_is(lost(stamp(), record));
  EXPECT_TRUE(leases->on_hello(now, hello_said(0x22), false).ok());
}

TEST_F(LeasesTest, WhoSaysHelloIsNotSilent) {
  const EcuRecord record = leased();
  beating.clear();
  for (int i = 0; i < 20; ++i) {
    pass(seconds(1));
    EXPECT_TRUE(leases->on_hello(now, hello_said(0x22), true).ok());
  }
  EXPECT_FALSE(ecu().barred) << "its HELLO cannot be written, since the store is away";
  EXPECT_FALSE(leases->is_leased(now, session_of(record))) << "only heartbeats renew";
}

TEST_F(LeasesTest, ARefusedHelloIsNoSignOfLifeOfTheFormerSession) {
  const EcuRecord record = leased();
  beat(record);
  const Instant heard_at = ecu().heard_at;
  now += seconds(2);
  ASSERT_FALSE(leases->on_hello(now, hello_said(0x22), false).ok());
  EXPECT_EQ(ecu().heard_at, heard_at);
}

// ---- BYE

TEST_F(LeasesTest, ByeIsAppendedAndNothingIsLostThen) {
  const EcuRecord record = leased();
  beating.clear();
  call([&](auto& out) { leases->on_bye(now, session_of(record), out); });
  ASSERT_EQ(appended().size(), 1U);
  EXPECT_EQ(appended()[0].kind, EcuRecordKind::kBye);
  EXPECT_EQ(appended()[0].slot, 2U);
  append_ended(AppendEnd::kWon);
  EXPECT_EQ(all<GuardedEnded>().size(), 1U);
  pass(seconds(30));
  EXPECT_TRUE(appended().empty());
  EXPECT_TRUE(none<SessionLost>());
  EXPECT_FALSE(ecu().barred);
  EXPECT_FALSE(beat(record));
}

TEST_F(LeasesTest, ByeOfAnotherSessionThanTheHeadIsNotAppended) {
  const EcuRecord record = leased();
  call([&](auto& out) { leases->on_bye(now, SessionId{kEcu, record.incarnation - 1}, out); });
  EXPECT_TRUE(appended().empty());
  call([&](auto& out) { leases->on_bye(now, SessionId{ecu_mac_of(5), 1}, out); });
  EXPECT_TRUE(appended().empty());
}

TEST_F(LeasesTest, ByeIsAppendedAgainUntilTheStoreTakesIt) {
  const EcuRecord record = leased();
  beating.clear();
  call([&](auto& out) { leases->on_bye(now, session_of(record), out); });
  append_ended(make_error(Code::kUnavailable, "away"));
  EXPECT_TRUE(appended().empty()) << "not at once";
  pass(seconds(1));
  ASSERT_EQ(appended().size(), 1U);
  EXPECT_EQ(appended()[0].kind, EcuRecordKind::kBye);
  pass(seconds(20));
  EXPECT_FALSE(ecu().barred) << "it has gone in order, whenever that is written";
}

// Two CMS; it talked to the other only, and was barred here for that. It goes in order, and then the other cmsd dies.
TEST_F(LeasesTest, AByeTakesTheBarAway) {
  other();
  const EcuRecord record = leased();
  beating.clear();
  pass(seconds(10));
  ASSERT_TRUE(ecu().barred);
  ASSERT_TRUE(appended().empty()) << "the other hears it";
  head_is(bye(stamp(), record));
  EXPECT_FALSE(ecu().barred);
  EXPECT_TRUE(leases->bars().empty());
  other().renews = false;
  pass(seconds(30));
  EXPECT_TRUE(appended().empty()) << "LOST cannot follow BYE";
}

// ---- maintenance

TEST_F(LeasesTest, InMaintenanceSilenceIsNoLoss) {
  EcuRecord record = leased();
  EXPECT_EQ(set_maintenance(true), Code::kOk);
  head_is(record);
  ASSERT_EQ(appended().size(), 1U);
  const EcuRecord kept = appended()[0];
  EXPECT_TRUE(kept.maintenance);
  EXPECT_EQ(kept.kind, EcuRecordKind::kHello);
  EXPECT_FALSE(leases->in_maintenance(kEcu)) << "it is not durable yet";
  append_ended(AppendEnd::kWon);
  EXPECT_TRUE(leases->in_maintenance(kEcu));
  EXPECT_TRUE(none<GuardedEnded>());
  EXPECT_TRUE(beat(record)) << "its session goes on";
  beating.clear();
  pass(seconds(60));
  EXPECT_TRUE(ecu().barred);
  EXPECT_TRUE(appended().empty());
  EXPECT_EQ(set_maintenance(false), Code::kOk);
  head_is(kept);
  ASSERT_EQ(appended().size(), 1U);
  append_ended(AppendEnd::kWon);
  pass(seconds(2));
  ASSERT_EQ(appended().size(), 1U);
  EXPECT_EQ(appended()[0].kind, EcuRecordKind::kLost) << "from now on it is";
}

// Else it would be LOST when maintenance ends, though it is heard: it never had a lease, and knows of nothing amiss.
TEST_F(LeasesTest, ASessionThatAllBarIsToldToBeginAnother) {
  other();
  const EcuRecord record = with_maintenance(stamp(), hello_of(0x11), true);
  renew();
  head_is(record);
  looked_long();
  ASSERT_TRUE(ecu().barred);
  EXPECT_FALSE(beat(record));
  EXPECT_TRUE(none<GuardedEnded>()) << "another may grant to it";
  EXPECT_EQ(says_hello(0x11), Code::kOk);
  bars_too(record);
  pass(seconds(1));
  EXPECT_FALSE(beat(record));
  ASSERT_EQ(all<GuardedEnded>().size(), 1U);
  EXPECT_EQ(all<GuardedEnded>()[0].session, session_of(record));
  EXPECT_EQ(says_hello(0x11), Code::kFenced);
  now += seconds(3);
  EXPECT_EQ(says_hello(0x11), Code::kOk) << "who may not act does not know";
  renew();
  EXPECT_EQ(says_hello(0x12), Code::kOk);
  head_is(hello_of(0x12, &record));
  EXPECT_TRUE(beat(ecu().head));
  EXPECT_EQ(says_hello(0x12), Code::kOk);
}

TEST_F(LeasesTest, ALossIsNotActedUponInMaintenance) {
  renew();
  const EcuRecord first = hello_of(0x11);
  const EcuRecord is_lost = lost(stamp(), first);
  const EcuRecord kept = with_maintenance(stamp(), is_lost, true);
  head_is(kept);
  pass(seconds(30));
  EXPECT_TRUE(none<SessionLost>());
  head_is(with_maintenance(stamp(), kept, false));
  pass(seconds(2));
  EXPECT_EQ(all<SessionLost>().size(), 1U);
}

TEST_F(LeasesTest, MaintenanceIsRefusedWhereItCannotBeWritten) {
  renew();
  EXPECT_EQ(set_maintenance(true), Code::kNotFound);
  EXPECT_TRUE(reads()) << "for who tries again";
  head_is(hello_of(0x11));
  now += seconds(3);
  EXPECT_EQ(set_maintenance(true), Code::kUnavailable) << "we may not act";
  renew();
  EXPECT_EQ(set_maintenance(true), Code::kOk);
}

// Another cmsd may have been told the contrary just before, and nothing makes us read the log for half a minute.
TEST_F(LeasesTest, MaintenanceIsComparedWithWhatTheLogSaysAfterwards) {
  renew();
  const EcuRecord record = hello_of(0x11);
  head_is(record);
  const EcuRecord kept = with_maintenance(stamp(), record, true);
  now += milliseconds(1);
  EXPECT_EQ(set_maintenance(false), Code::kOk);
  EXPECT_TRUE(reads());
  EXPECT_TRUE(appended().empty());
  head_is(record, now - milliseconds(1));
  EXPECT_TRUE(ecu().wish) << "that reading began before";
  turn_of_loop();
  EXPECT_TRUE(reads());
  head_is(kept);
  ASSERT_EQ(appended().size(), 1U);
  EXPECT_FALSE(appended()[0].maintenance);
  EXPECT_EQ(appended()[0].slot, kept.slot + 1);
  EXPECT_TRUE(ecu().wish);
  append_ended(AppendEnd::kWon);
  EXPECT_FALSE(ecu().wish);
}

TEST_F(LeasesTest, WhatTheLogSaysOfMaintenanceAlreadyIsNotWrittenAgain) {
  renew();
  const EcuRecord record = hello_of(0x11);
  head_is(record);
  now += milliseconds(1);
  EXPECT_EQ(set_maintenance(true), Code::kOk);
  head_is(with_maintenance(stamp(), record, true));
  EXPECT_TRUE(appended().empty());
  EXPECT_FALSE(ecu().wish);
}

TEST_F(LeasesTest, MaintenanceThatLostItsSlotIsWrittenAboveWhatWonIt) {
  renew();
  const EcuRecord record = hello_of(0x11);
  head_is(record);
  EXPECT_EQ(set_maintenance(true), Code::kOk);
  EXPECT_EQ(appended().size(), 1U);
  append_ended(AppendEnd::kLost);
  EXPECT_TRUE(reads());
  const EcuRecord next = hello_of(0x12, &record);
  head_is(next);
  ASSERT_EQ(appended().size(), 1U);
  EXPECT_TRUE(appended()[0].maintenance);
  EXPECT_EQ(appended()[0].incarnation, next.incarnation);
  append_ended(make_error(Code::kIo, "the store is away"));
  turn_of_loop();
  EXPECT_FALSE(reads()) << "not at once again";
  now += kEcuLogRetry;
  turn_of_loop();
  EXPECT_TRUE(reads());
  head_is(next);
  EXPECT_EQ(appended().size(), 1U);
}

TEST_F(LeasesTest, MaintenanceThatCannotBeWrittenForLongIsGivenUp) {
  renew();
  const EcuRecord record = hello_of(0x11);
  head_is(record);
  now += milliseconds(1);
  EXPECT_EQ(set_maintenance(true), Code::kOk);
  beating = {session_of(record)};
  pass(kMaintenanceTriedFor - seconds(1));
  EXPECT_TRUE(ecu().wish);
  pass(seconds(1));
  EXPECT_FALSE(ecu().wish);
  EXPECT_EQ(all<LeaseEvent>().size(), 1U);
  head_is(record);
  EXPECT_TRUE(appended().empty());
}

TEST_F(LeasesTest, WhoOnlyReadsOfMaintenanceSaysThatItHasChanged) {
  renew();
  const EcuRecord record = hello_of(0x11);
  head_is(record);
  EXPECT_TRUE(none<MaintenanceChanged>());
  const EcuRecord kept = with_maintenance(stamp(), record, true);
  head_is(kept);
  ASSERT_EQ(all<MaintenanceChanged>().size(), 1U);
  EXPECT_EQ(all<MaintenanceChanged>()[0].session, session_of(record));
  head_is(kept);
  EXPECT_TRUE(none<MaintenanceChanged>());
  const EcuRecord ended = with_maintenance(stamp(), kept, false);
  listed({ended});
  EXPECT_EQ(all<MaintenanceChanged>().size(), 1U);
  EXPECT_EQ(set_maintenance(true), Code::kOk);
  append_ended(AppendEnd::kWon);
  EXPECT_EQ(all<MaintenanceChanged>().size(), 1U) << "and who writes it";
  head_is(hello_of(0x12, &ecu().head));
  EXPECT_TRUE(none<MaintenanceChanged>()) << "another session";
}

// ---- clocks and bounds

TEST_F(LeasesTest, WhileWeStoodStillNobodyWasSilent) {
  const EcuRecord record = leased();
  beat(record);
  turn_of_loop();
  now += seconds(20);
  turn_of_loop();
  EXPECT_FALSE(ecu().barred) << "what was sent meanwhile is yet to be read";
  for (int i = 0; i < 31; ++i) {
    now += milliseconds(250);
    turn_of_loop();
  }
  EXPECT_FALSE(ecu().barred);
  now += milliseconds(250);
  turn_of_loop();
  EXPECT_TRUE(ecu().barred) << "eight seconds in which we looked";
}

TEST_F(LeasesTest, ATurnOfTwoSecondsIsNoStandstill) {
  const EcuRecord record = leased();
  beat(record);
  turn_of_loop();
  for (int i = 0; i < 4; ++i) {
    EXPECT_FALSE(ecu().barred);
    now += seconds(2);
    turn_of_loop();
  }
  EXPECT_TRUE(ecu().barred);
}

// The loop takes the messages of ECUs before it looks at the clock.
TEST_F(LeasesTest, WhoWasHeardRightAfterAStandstillHasNoCreditForIt) {
  const EcuRecord record = leased();
  turn_of_loop();
  now += seconds(600);
  beat(record);
  turn_of_loop();
  for (int i = 0; i < 32; ++i) {
    EXPECT_FALSE(ecu().barred) << i;
    now += milliseconds(250);
    turn_of_loop();
  }
  EXPECT_TRUE(ecu().barred) << "T_dead after it was heard";
}

TEST_F(LeasesTest, TheTableIsBounded) {
  renew();
  std::vector<EcuRecord> heads;
  for (std::uint64_t i = 1; i <= kGuardedCountMax + 1; ++i)
    heads.push_back(hello_of(i, nullptr, ecu_mac_of(i)));
  listed(heads);
  EXPECT_EQ(leases->ecus().size(), kGuardedCountMax);
  EXPECT_FALSE(beat(heads.back()));
  EXPECT_EQ(leases->head_of(heads.back().ecu_mac), nullptr);
  EXPECT_TRUE(beat(heads.front()));
}

TEST_F(LeasesTest, EcusWhoseLogIsNotKnownAreBounded) {
  for (std::uint64_t i = 1; i <= kGuardedCountMax + 1; ++i)
    other().record.bars.push_back(SessionId{ecu_mac_of(i), 5});
  renew();
  ASSERT_EQ(all<ReadEcuLogs>().size(), 1U);
  EXPECT_EQ(all<ReadEcuLogs>()[0].ecu_macs.size(), kGuardedCountMax);
}

}  // namespace
}  // namespace cms::core
