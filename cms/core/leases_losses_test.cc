// Who is barred, when LOST is appended, and when it is acted upon.
#include "cms/core/leases_driver_test.h"

namespace cms::core {
namespace {

using namespace leases_driver;

class LeasesLossesTest : public LeasesDriver {
 protected:
  // Seconds until LOST is appended; nullopt: it is not, within so many.
  std::optional<int> seconds_to_lost(int limit) {
    for (int i = 1; i <= limit; ++i) {
      pass(seconds(1));
      if (!appended().empty()) return i;
    }
    return std::nullopt;
  }
  // Turns of the loop alone.
  void turns(Duration duration) {
    effects.clear();
    for (Duration left = duration; left > Duration{}; left -= milliseconds(250)) {
      now += milliseconds(250);
      leases->on_time(now, wall_us, effects);
    }
  }
};

// ---- bars

TEST_F(LeasesLossesTest, ASilentSessionIsBarredAfterTDeadAndNeverGrantedToAgain) {
  const EcuRecord record = leased();
  beat(record);
  turns(milliseconds(7750));
  EXPECT_FALSE(ecu().barred);
  EXPECT_TRUE(leases->bars().empty());
  turns(milliseconds(250));
  EXPECT_EQ(leases->bars(), std::vector<SessionId>{session_of(record)});
  EXPECT_EQ(all<RenewMember>().size(), 1U) << "at once";
  ASSERT_EQ(all<GuardedEnded>().size(), 1U);
  EXPECT_EQ(all<GuardedEnded>()[0].session, session_of(record));
  renew();
  EXPECT_FALSE(beat(record)) << "heard again, and never granted to again";
  head_is(record);
  EXPECT_FALSE(beat(record)) << "whatever is read";
  EXPECT_FALSE(leases->is_leased(now, session_of(record)));
}

TEST_F(LeasesLossesTest, OneThatWasNeverHeardIsBarredTDeadAfterItIsKnown) {
  renew();
  head_is(hello_of(0x11));
  turns(milliseconds(7750));
  EXPECT_FALSE(ecu().barred);
  turns(milliseconds(250));
  EXPECT_TRUE(ecu().barred);
}

TEST_F(LeasesLossesTest, ANewSessionIsNotBarred) {
  const EcuRecord record = leased();
  beating.clear();
  turns(seconds(10));
  ASSERT_TRUE(ecu().barred);
  const EcuRecord next = hello_of(0x22, &record);
  renew();
  head_is(next);
  EXPECT_FALSE(ecu().barred);
  EXPECT_TRUE(leases->bars().empty());
  EXPECT_TRUE(beat(next));
  turns(milliseconds(7750));
  EXPECT_FALSE(ecu().barred) << "counted from its beginning";
}

TEST_F(LeasesLossesTest, TheBarOfAFormerSessionSaysNothingOfTheNext) {
  const EcuRecord record = leased();
  beating.clear();
  turns(seconds(10));
  const std::vector<SessionId> sent = leases->bars();
  const EcuRecord next = hello_of(0x22, &record);
  head_is(next);
  now += milliseconds(1);
  leases->on_member_written(now, now, now, sent);
  EXPECT_FALSE(ecu().bar_durable_at) << "it was of the former one";
}

TEST_F(LeasesLossesTest, ABarOfAnotherIsAReasonToLookAtTheLog) {
  renew();
  other().record.bars = {SessionId{ecu_mac_of(7), 5}};
  call([&](auto&) { renew(); });
  EXPECT_TRUE(reads(ecu_mac_of(7))) << "an ECU that we did not know";
  const EcuRecord record = leased();
  other().record.bars = {SessionId{kEcu, record.incarnation + 5}};
  call([&](auto&) {});
  renew();
  EXPECT_TRUE(reads()) << "a session that we did not know";
}

// It has been LOST since we read its HELLO, or we alone hear it.
TEST_F(LeasesLossesTest, AlsoTheBarOfASessionThatWeGrantTo) {
  const EcuRecord record = leased();
  bars_too(record);
  pass(seconds(6));
  ASSERT_TRUE(reads());
  const auto count = [&] {
    std::size_t reads = 0;
    for (const ReadEcuLogs& one : all<ReadEcuLogs>()) reads += one.ecu_macs.size();
    return reads;
  };
  EXPECT_EQ(count(), 1U);
  head_is(record);
  EXPECT_TRUE(beat(record)) << "it is heard, and not LOST";
  pass(seconds(4));
  EXPECT_EQ(count(), 0U) << "not at every look";
  pass(seconds(2));
  EXPECT_EQ(count(), 1U);
  head_is(lost(stamp(), record));
  EXPECT_FALSE(beat(record));
  pass(seconds(10));
  EXPECT_EQ(leases->bars(), std::vector<SessionId>{session_of(record)});
  EXPECT_EQ(count(), 0U) << "we bar it as well";
}

// What was granted lives on for T_fence: a bar that came sooner would have others restore what still runs.
TEST_F(LeasesLossesTest, ASessionThatIsLostIsGrantedNothingAndBarredWhenWhatWasGrantedIsOver) {
  const EcuRecord record = leased();
  head_is(lost(stamp(), record));
  EXPECT_TRUE(leases->bars().empty());
  EXPECT_EQ(all<RenewMember>().size(), 1U);
  ASSERT_EQ(all<GuardedEnded>().size(), 1U);
  EXPECT_EQ(all<GuardedEnded>()[0].session, session_of(record));
  EXPECT_FALSE(beat(record));
  pass(milliseconds(7750));
  EXPECT_TRUE(leases->bars().empty());
  EXPECT_TRUE(none<SessionLost>());
  pass(milliseconds(250));
  EXPECT_EQ(leases->bars(), std::vector<SessionId>{session_of(record)});
  std::size_t handed_over = all<SessionLost>().size();
  pass(seconds(2));
  handed_over += all<SessionLost>().size();
  EXPECT_EQ(handed_over, 1U);
}

TEST_F(LeasesLossesTest, ASessionThatIsKnownAsLostOnlyIsBarredAtOnce) {
  renew();
  head_is(lost(stamp(), hello_of(0x11)));
  EXPECT_EQ(leases->bars().size(), 1U);
}

TEST_F(LeasesLossesTest, ASessionThatWasLostBeforeItWasKnownHereIsBarred) {
  const EcuRecord first = leased();
  const EcuRecord second = hello_of(0x22, &first);
  head_is(lost(stamp(), second));
  EXPECT_EQ(all<GuardedEnded>().size(), 2U) << "the former one, and that one";
  EXPECT_FALSE(beat(second));
  EXPECT_TRUE(leases->bars().empty()) << "the former one was leased just now, and its programs are the same";
  pass(seconds(8));
  EXPECT_EQ(leases->bars(), std::vector<SessionId>{session_of(second)});
}

TEST_F(LeasesLossesTest, BarsAreBoundedAndTheOthersWait) {
  renew();
  std::vector<EcuRecord> heads;
  for (std::uint64_t i = 1; i <= wire::kBarCountMax + 2; ++i)
    heads.push_back(hello_of(i, nullptr, ecu_mac_of(i)));
  listed(heads);
  turns(seconds(8));
  ASSERT_EQ(leases->bars().size(), wire::kBarCountMax);
  looked_long();
  EXPECT_EQ(appended().size(), wire::kBarCountMax) << "no others' bars were durable";
  for (const EcuRecord& record : appended()) {
    LeaseEffects out;
    leases->on_appended(now, record.ecu_mac, AppendEnd::kWon, 0, out);
  }
  pass(seconds(2));
  EXPECT_EQ(appended().size(), 2U) << "their turn";
}

// We hear nobody: what the others do not hear either is a loss all the same.
TEST_F(LeasesLossesTest, WhatOthersBarTooComesFirst) {
  renew();
  std::vector<EcuRecord> heads;
  for (std::uint64_t i = 1; i <= 2 * wire::kBarCountMax; ++i)
    heads.push_back(hello_of(i, nullptr, ecu_mac_of(i)));
  listed(heads);
  turns(seconds(8));
  const auto is_barred = [&](const EcuRecord& record) {
    const std::vector<SessionId> bars = leases->bars();
    return bars.size() == wire::kBarCountMax && std::count(bars.begin(), bars.end(), session_of(record)) == 1;
  };
  EXPECT_FALSE(is_barred(heads.back()));
  bars_too(heads.back());
  renew();
  EXPECT_TRUE(is_barred(heads.back()));
  head_is(lost(stamp(), heads.back()));
  EXPECT_TRUE(is_barred(heads.back())) << "who acts on it looks for our bar";
}

TEST_F(LeasesLossesTest, OfLossesTheNewestAreBarred) {
  renew();
  std::vector<EcuRecord> heads;
  for (std::uint64_t i = 1; i <= wire::kBarCountMax; ++i) {
    const EcuRecord first = hello_of(i, nullptr, ecu_mac_of(i));
    heads.push_back(lost(Stamp{kOther, 9000 + i, 10 * i}, first));
  }
  listed(heads);
  ASSERT_EQ(leases->bars().size(), wire::kBarCountMax);
  now += milliseconds(1);
  const EcuRecord silent = hello_of(1, nullptr, ecu_mac_of(5000));
  head_is(lost(stamp(), silent));
  const std::vector<SessionId> bars = leases->bars();
  ASSERT_EQ(bars.size(), wire::kBarCountMax);
  EXPECT_EQ(bars.front(), session_of(silent));
  EXPECT_EQ(std::count(bars.begin(), bars.end(), session_of(heads.front())), 0)
      << "the oldest, by its record";
}

// ---- LOST

TEST_F(LeasesLossesTest, AloneItIsLostWhenItsBarIsDurable) {
  const EcuRecord record = losing();
  EXPECT_EQ(lost_record.slot, 2U);
  EXPECT_EQ(lost_record.incarnation, record.incarnation);
  EXPECT_EQ(lost_record.lost_incarnation, record.incarnation);
  EXPECT_EQ(lost_record.writer, "cms-a");
  EXPECT_EQ(lost_record.written_at_us, 77U);
  EXPECT_TRUE(none<SessionLost>()) << "not before it is in the log";
}

TEST_F(LeasesLossesTest, WithoutADurableBarNothingIsLost) {
  leased();
  beating.clear();
  pass(seconds(7));
  turns(seconds(1));
  ASSERT_TRUE(ecu().barred);
  members.on_written(now);  // One that was sent before, without the bar.
  leases->on_member_written(now, now, now, {});
  call([&](auto&) { look(now); });
  EXPECT_TRUE(appended().empty());
}

TEST_F(LeasesLossesTest, TheLookHasToBeginWhenTheBarIsDurable) {
  leased();
  beating.clear();
  pass(seconds(7));
  turns(seconds(1));
  ASSERT_TRUE(ecu().barred);
  const Instant begun_at = now;
  now += milliseconds(10);
  write(begun_at, now);
  call([&](auto&) { look(now - milliseconds(1)); });
  EXPECT_TRUE(appended().empty())
      << "a CMS that it did not see may have begun to grant by what it read before";
  call([&](auto&) { look(now); });
  EXPECT_EQ(appended().size(), 1U);
}

TEST_F(LeasesLossesTest, WhoDoesNotBarItAndLivesKeepsIt) {
  logs_answer = true;
  other();
  other(kThird);
  const EcuRecord record = leased();
  beating.clear();
  pass(seconds(10));
  bars_too(record, kThird);
  EXPECT_FALSE(seconds_to_lost(60));
  EXPECT_EQ(leases->kept_by(now, session_of(record)), std::vector<std::string>{"cms-b"});
  bars_too(record);
  EXPECT_EQ(seconds_to_lost(2), 1);
}

// Else it would be said to be kept until all logs are listed again, after its BYE or under another session.
TEST_F(LeasesLossesTest, TheLogOfWhomAnotherKeepsIsReadEachFiveSeconds) {
  other();
  const EcuRecord record = leased();
  beating.clear();
  pass(seconds(10));
  ASSERT_TRUE(ecu().barred);
  head_is(record);
  pass(seconds(4));
  EXPECT_FALSE(reads());
  pass(seconds(1));
  ASSERT_TRUE(reads());
  EXPECT_EQ(all<ReadEcuLogs>().size(), 1U) << "the question is open";
  head_is(bye(stamp(), record));
  EXPECT_FALSE(ecu().barred);
  pass(seconds(20));
  EXPECT_FALSE(reads());
}

TEST_F(LeasesLossesTest, OfManyWhomAnotherKeepsSomeAreReadAtATime) {
  other();
  renew();
  std::vector<EcuRecord> heads;
  for (std::uint64_t i = 1; i <= 100; ++i) heads.push_back(hello_of(i, nullptr, ecu_mac_of(i)));
  listed(heads);
  logs_answer = true;
  pass(seconds(20));  // They are not heard, and barred after 8 s.
  std::size_t most = 0;
  std::map<EcuMac, int> times;
  for (const ReadEcuLogs& one : all<ReadEcuLogs>()) {
    most = std::max(most, one.ecu_macs.size());
    for (const EcuMac ecu_mac : one.ecu_macs) ++times[ecu_mac];
  }
  EXPECT_EQ(most, 32U);
  EXPECT_EQ(times.size(), 100U) << "each comes to its turn";
}

// A bar is never lifted; another CMS may lease the session for as long as it lives, and it may be a target all the same.
TEST_F(LeasesLossesTest, WhoIsBarredHereAndHeardAgainMayBeLeasedByAnother) {
  other();
  const EcuRecord record = leased();
  const SessionId session = session_of(record);
  EXPECT_TRUE(leases->may_be_leased(now, session));
  beating.clear();
  pass(seconds(10));
  ASSERT_FALSE(leases->is_leased(now, session));
  EXPECT_FALSE(leases->may_be_leased(now, session)) << "it is silent";
  call([&](auto& out) { EXPECT_FALSE(leases->on_heartbeat(now, session, out)) << "it is barred"; });
  EXPECT_TRUE(leases->may_be_leased(now, session));
  EXPECT_FALSE(leases->may_be_leased(now, SessionId{session.ecu_mac, session.incarnation + 1}));
  bars_too(record);
  pass(seconds(1));
  EXPECT_FALSE(leases->may_be_leased(now, session)) << "nobody grants it anything";
}

TEST_F(LeasesLossesTest, ABarOfAnotherSessionDoesNotCount) {
  other();
  const EcuRecord record = leased();
  other().record.bars = {SessionId{kEcu, record.incarnation - 1},
                         SessionId{ecu_mac_of(5), record.incarnation}};
  beating.clear();
  EXPECT_FALSE(seconds_to_lost(30));
}

TEST_F(LeasesLossesTest, WhoIsStaleKeepsNobody) {
  logs_answer = true;
  other();
  const EcuRecord record = leased();
  beating.clear();
  other().renews = false;
  const Instant changed_at = now;
  EXPECT_TRUE(seconds_to_lost(60));
  EXPECT_GE(now - changed_at, seconds(12));
  EXPECT_LE(now - changed_at, seconds(14));
  EXPECT_TRUE(leases->kept_by(now, session_of(record)).empty());
}

TEST_F(LeasesLossesTest, AYoungCmsdAppendsNoLost) {
  renew();
  const Instant looking_since = now;
  head_is(hello_of(0x11));
  ASSERT_TRUE(seconds_to_lost(60));
  EXPECT_GE(now - looking_since, seconds(12))
      << "who has looked for less than T_member does not know who there is";
  EXPECT_LE(now - looking_since, seconds(13));
}

TEST_F(LeasesLossesTest, WhoWasBlindIsYoung) {
  leased();
  beating.clear();
  reading = false;
  pass(seconds(20));
  ASSERT_TRUE(ecu().barred);
  reading = true;
  const Instant looking_since = now;
  ASSERT_TRUE(seconds_to_lost(60));
  EXPECT_GE(now - looking_since, seconds(12));
}

TEST_F(LeasesLossesTest, WhoMayNotActAppendsNoLost) {
  leased();
  beating.clear();
  pass(seconds(7));
  writing = false;
  EXPECT_FALSE(seconds_to_lost(30)) << "its bar is not durable";
  // Durable, but our record is not renewed any more.
  write(now, now);
  now += seconds(3);
  call([&](auto&) { look(now); });
  EXPECT_TRUE(appended().empty());
}

TEST_F(LeasesLossesTest, WhoDoesNotSeeAllMembersAppendsNoLost) {
  leased();
  beating.clear();
  for (std::uint64_t i = 1; i <= kMemberCountMax + 1; ++i) other(Writer{"n", i}).renews = false;
  EXPECT_FALSE(seconds_to_lost(40)) << "one that there is no room for may grant";
}

TEST_F(LeasesLossesTest, LostIsAppendedOnce) {
  losing();
  pass(seconds(10));
  EXPECT_TRUE(appended().empty()) << "the append is under way";
}

TEST_F(LeasesLossesTest, AHelloThatWinsTheSlotHasItsSession) {
  const EcuRecord record = losing();
  append_ended(AppendEnd::kLost);
  EXPECT_TRUE(reads());
  EXPECT_TRUE(none<SessionLost>());
  const EcuRecord next = hello_of(0x22, &record);
  head_is(next);
  EXPECT_TRUE(none<SessionLost>());
  EXPECT_TRUE(beat(next));
  pass(seconds(5));
  EXPECT_TRUE(none<SessionLost>());
  EXPECT_TRUE(appended().empty());
}

TEST_F(LeasesLossesTest, ALostOfAnotherThatWinsTheSlotIsActedUpon) {
  const EcuRecord record = losing();
  append_ended(AppendEnd::kLost);
  head_is(lost(stamp(), record));
  pass(seconds(2));
  ASSERT_EQ(all<SessionLost>().size(), 1U);
  EXPECT_EQ(all<SessionLost>()[0].record.writer, "cms-b");
}

TEST_F(LeasesLossesTest, AnAppendThatFailedIsFollowedByReading) {
  const EcuRecord record = losing();
  append_ended(make_error(Code::kUnavailable, "away"));
  EXPECT_FALSE(reads());
  pass(seconds(1));
  ASSERT_TRUE(reads());
  EXPECT_TRUE(appended().empty());
  head_is(record);
  EXPECT_EQ(seconds_to_lost(3), 1);
}

TEST_F(LeasesLossesTest, AnAppendThatIsNotResolvedIsSettled) {
  losing();
  append_ended(AppendEnd::kUnresolved, 9);
  turn_of_loop();
  EXPECT_TRUE(none<SettleEcuAppend>()) << "not at once";
  now += kEcuLogRetry;
  turn_of_loop();
  ASSERT_EQ(all<SettleEcuAppend>().size(), 1U);
  EXPECT_EQ(all<SettleEcuAppend>()[0].attempt, 9U);
  EXPECT_EQ(all<SettleEcuAppend>()[0].ecu_mac, kEcu);
  pass(seconds(10));
  EXPECT_TRUE(none<SettleEcuAppend>()) << "the question is open";
  EXPECT_TRUE(appended().empty()) << "nothing else is appended meanwhile";
  append_ended(AppendEnd::kUnresolved, 10);
  now += kEcuLogRetry;
  turn_of_loop();
  ASSERT_EQ(all<SettleEcuAppend>().size(), 1U);
  EXPECT_EQ(all<SettleEcuAppend>()[0].attempt, 10U);
  append_ended(AppendEnd::kWon);
  pass(seconds(2));
  EXPECT_EQ(all<SessionLost>().size(), 1U);
}

// What was to be read meanwhile must not be in the way of settling, nor the other way round.
TEST_F(LeasesLossesTest, WhatIsNotResolvedIsSettledBeforeTheLogIsRead) {
  const EcuRecord record = losing();
  append_ended(AppendEnd::kUnresolved, 9);
  now += kEcuLogRetry;
  call([&](auto& out) { leases->on_heartbeat(now, SessionId{kEcu, record.incarnation + 5}, out); });
  EXPECT_FALSE(reads());
  turn_of_loop();
  ASSERT_EQ(all<SettleEcuAppend>().size(), 1U);
  append_ended(AppendEnd::kLost);
  EXPECT_TRUE(reads());
  head_is(hello_of(0x22, &record));
  EXPECT_FALSE(ecu().asked);
  EXPECT_FALSE(ecu().barred);
}

TEST_F(LeasesLossesTest, AHelloThatIsReadWhileLostIsAppendedEndsTheLoss) {
  const EcuRecord record = losing();
  const EcuRecord next = hello_of(0x22, &record);
  head_is(next);  // It was recorded here.
  EXPECT_TRUE(beat(next));
  append_ended(AppendEnd::kLost);
  EXPECT_TRUE(beat(next));
  EXPECT_FALSE(ecu().barred);
}

// ---- acting on LOST

TEST_F(LeasesLossesTest, LostIsActedUponAfterOneMoreLookAndOnce) {
  const EcuRecord record = losing();
  now += milliseconds(250);
  append_ended(AppendEnd::kWon);
  EXPECT_TRUE(none<SessionLost>());
  EXPECT_EQ(all<RenewMember>().size(), 1U);
  call([&](auto&) { look(now - milliseconds(1)); });
  EXPECT_TRUE(none<SessionLost>()) << "begun before it was known";
  call([&](auto&) { look(now); });
  ASSERT_EQ(all<SessionLost>().size(), 1U);
  EXPECT_EQ(session_of(all<SessionLost>()[0].record), session_of(record));
  EXPECT_EQ(all<SessionLost>()[0].record.lost_incarnation, record.incarnation);
  pass(seconds(5));
  EXPECT_TRUE(none<SessionLost>());
}

// It came up between the look and LOST, read HELLO, and grants.
TEST_F(LeasesLossesTest, WhoCameUpMeanwhileHasToBarItFirst) {
  const EcuRecord record = losing();
  append_ended(AppendEnd::kWon);
  other();
  pass(seconds(5));
  EXPECT_TRUE(none<SessionLost>());
  bars_too(record);
  pass(seconds(1));
  EXPECT_EQ(all<SessionLost>().size(), 1U);
}

TEST_F(LeasesLossesTest, WhoMayNotActDoesNotActOnLost) {
  losing();
  append_ended(AppendEnd::kWon);
  writing = false;
  now += seconds(3);
  call([&](auto&) { look(now); });
  EXPECT_TRUE(none<SessionLost>());
  writing = true;
  pass(seconds(14));  // It was blind for so long that it is young again.
  EXPECT_EQ(all<SessionLost>().size(), 1U);
}

TEST_F(LeasesLossesTest, AtItsStartACmsdLooksOnceBeforeItActsOnALossThatItFinds) {
  const EcuRecord record = hello_of(0x11);
  other();
  renew();
  now += milliseconds(250);
  listed({lost(stamp(), record)});
  EXPECT_TRUE(none<SessionLost>());
  pass(seconds(5));
  EXPECT_TRUE(none<SessionLost>()) << "the other has not read it yet, and lives";
  bars_too(record);
  pass(seconds(1));
  EXPECT_TRUE(none<SessionLost>()) << "it has not looked for T_member: of who died just now it knows nothing";
  pass(seconds(8));
  EXPECT_EQ(all<SessionLost>().size(), 1U);
}

TEST_F(LeasesLossesTest, AtItsStartACmsdWaitsForThoseWhoMayHaveDied) {
  other().renews = false;
  renew();
  const Instant looking_since = now;
  listed({lost(stamp(), hello_of(0x11))});
  effects.clear();
  while (none<SessionLost>() && now - looking_since < seconds(60)) pass(seconds(1));
  EXPECT_GE(now - looking_since, seconds(12));
  EXPECT_LE(now - looking_since, seconds(13));
}

TEST_F(LeasesLossesTest, TheNextLossOfTheSameEcuIsActedUponAgain) {
  const EcuRecord record = losing();
  append_ended(AppendEnd::kWon);
  pass(seconds(1));
  ASSERT_EQ(all<SessionLost>().size(), 1U);
  const EcuRecord second = hello_of(0x22, leases->head_of(kEcu));
  head_is(second);
  head_is(lost(stamp(), second));
  pass(seconds(1));
  ASSERT_EQ(all<SessionLost>().size(), 1U);
  EXPECT_EQ(all<SessionLost>()[0].record.incarnation, second.incarnation);
}

TEST_F(LeasesLossesTest, AnEcuThatComesBackBeforeItsLossIsActedUponIsNotHandedOver) {
  losing();
  append_ended(AppendEnd::kWon);
  head_is(hello_of(0x22, leases->head_of(kEcu)));
  pass(seconds(3));
  EXPECT_TRUE(none<SessionLost>()) << "whoever has its session reconciles it";
}

// The table of arithmetic: death to LOST, all members well, in 11.9 s.
TEST_F(LeasesLossesTest, DeathToLostTakesNoLongerThanTheRulesSay) {
  const EcuRecord record = leased();
  beat(record);
  const Instant died_at = now;
  beating.clear();
  ASSERT_TRUE(seconds_to_lost(30));
  EXPECT_GE(now - died_at, seconds(8));
  EXPECT_LE(now - died_at, milliseconds(11900));
}

}  // namespace
}  // namespace cms::core
