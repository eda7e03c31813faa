#include "cms/core/ecu_log.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

namespace cms::core {
namespace {

using wire::EcuRecord;
using wire::EcuRecordKind;
using wire::Enforcer;

constexpr EcuMac kEcu{0x020000000001};
const Writer kWriter{"cms-a", 11};

Stamp stamp() {
  static std::uint64_t uid = 100;
  return Stamp{kWriter, ++uid, 5};
}

wire::Hello hello_said(std::uint64_t nonce, Enforcer enforcer = Enforcer::kGuard,
                       Incarnation incarnation = 0) {
  wire::Hello said;
  said.ecu_mac = kEcu;
  said.nonce = nonce;
  said.guarded = true;
  said.boot_id = Id128{7, nonce};
  said.enforcer = enforcer;
  said.incarnation = incarnation;
  return said;
}

EcuRecord hello_record(Enforcer enforcer = Enforcer::kGuard) {
  return *hello(stamp(), nullptr, hello_said(0x11, enforcer), 0x10011);
}

TEST(EcuLogTest, TheFirstHelloBeginsTheLogInSlotOne) {
  const Stamp of = stamp();
  const auto first = hello(of, nullptr, hello_said(0x11), 0x50011);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(first->kind, EcuRecordKind::kHello);
  EXPECT_EQ(first->ecu_mac, kEcu);
  EXPECT_EQ(first->slot, 1U);
  EXPECT_EQ(first->uid, of.uid);
  EXPECT_EQ(first->writer, "cms-a");
  EXPECT_EQ(first->writer_incarnation, 11U);
  EXPECT_EQ(first->written_at_us, 5U);
  EXPECT_EQ(first->incarnation, 0x50011U);
  EXPECT_EQ(first->nonce, 0x11U);
  EXPECT_EQ(first->boot_id, (Id128{7, 0x11}));
  EXPECT_EQ(first->enforcer, Enforcer::kGuard);
  EXPECT_EQ(first->lost_incarnation, 0U);
  EXPECT_FALSE(first->maintenance);
}

TEST(EcuLogTest, AnIncarnationIsAboveTheFormerOneAndAboveAllThatTheWriterKnew) {
  const EcuRecord head = hello_record();
  EXPECT_EQ(hello(stamp(), &head, hello_said(0x22), 0x90022)->incarnation, 0x90022U)
      << "what the writer knew";
  EXPECT_EQ(hello(stamp(), &head, hello_said(0x22), 0x10011)->incarnation, 0x20022U)
      << "above the former one";
  EXPECT_EQ(hello(stamp(), &head, hello_said(0x22), 1)->incarnation, 0x20022U);
  EXPECT_EQ(hello(stamp(), &head, hello_said(0x22), 0x10012)->incarnation, 0x10012U);
}

TEST(EcuLogTest, WithoutAnIncarnationThereIsNoHello) {
  EcuRecord head = hello_record();
  head.incarnation = UINT64_MAX;
  EXPECT_EQ(hello(stamp(), &head, hello_said(0x22), 5).error().code, Code::kLimit);
  EXPECT_EQ(hello(stamp(), nullptr, hello_said(0x22), 0).error().code, Code::kLimit);
}

TEST(EcuLogTest, LostEndsTheSessionAndNamesItIfItHadAnEnforcer) {
  for (const Enforcer enforcer : {Enforcer::kGuard, Enforcer::kWatchdog}) {
    const EcuRecord head = hello_record(enforcer);
    const EcuRecord ended = lost(stamp(), head);
    EXPECT_EQ(ended.kind, EcuRecordKind::kLost);
    EXPECT_EQ(ended.slot, 2U);
    EXPECT_EQ(ended.incarnation, head.incarnation);
    EXPECT_EQ(ended.lost_incarnation, head.incarnation);
    EXPECT_EQ(ended.nonce, 0U);
    EXPECT_EQ(ended.boot_id, Id128{});
    EXPECT_EQ(ended.enforcer, enforcer);
  }
  EXPECT_EQ(lost(stamp(), hello_record(Enforcer::kNone)).lost_incarnation, 0U);
}

TEST(EcuLogTest, WhatWasLostWithAnEnforcerStaysNamed) {
  const EcuRecord first = hello_record();
  const EcuRecord first_lost = lost(stamp(), first);
  const EcuRecord second = *hello(stamp(), &first_lost, hello_said(0x22, Enforcer::kNone), 1);
  EXPECT_EQ(second.lost_incarnation, first.incarnation);
  const EcuRecord second_lost = lost(stamp(), second);
  EXPECT_EQ(second_lost.lost_incarnation, first.incarnation) << "that one had no enforcer";
  const EcuRecord third = *hello(stamp(), &second_lost, hello_said(0x33), 1);
  const EcuRecord third_bye = bye(stamp(), third);
  EXPECT_EQ(third_bye.lost_incarnation, first.incarnation);
  const EcuRecord fourth = *hello(stamp(), &third_bye, hello_said(0x44), 1);
  EXPECT_EQ(lost(stamp(), fourth).lost_incarnation, fourth.incarnation) << "the newest";
}

TEST(EcuLogTest, ByeIsNoLoss) {
  const EcuRecord head = hello_record();
  const EcuRecord ended = bye(stamp(), head);
  EXPECT_EQ(ended.kind, EcuRecordKind::kBye);
  EXPECT_EQ(ended.slot, 2U);
  EXPECT_EQ(ended.incarnation, head.incarnation);
  EXPECT_EQ(ended.lost_incarnation, 0U);
}

TEST(EcuLogTest, MaintenanceRepeatsTheHeadAndOutlivesSessions) {
  const EcuRecord head = hello_record();
  const EcuRecord kept = with_maintenance(stamp(), head, true);
  EXPECT_EQ(kept.kind, EcuRecordKind::kHello);
  EXPECT_EQ(kept.slot, 2U);
  EXPECT_EQ(kept.nonce, head.nonce);
  EXPECT_EQ(kept.incarnation, head.incarnation);
  EXPECT_TRUE(kept.maintenance);
  const EcuRecord ended = bye(stamp(), kept);
  EXPECT_TRUE(ended.maintenance);
  const EcuRecord next = *hello(stamp(), &ended, hello_said(0x22), 1);
  EXPECT_TRUE(next.maintenance);
  EXPECT_FALSE(with_maintenance(stamp(), next, false).maintenance);
  EXPECT_TRUE(with_maintenance(stamp(), lost(stamp(), head), true).maintenance)
      << "also of one that has ended";
}

TEST(EcuLogTest, RefusesWhatMayNotFollow) {
  const EcuRecord first = hello_record();
  const EcuRecord next = *hello(stamp(), &first, hello_said(0x22), 1);
  const EcuRecord is_lost = lost(stamp(), first);
  const EcuRecord is_bye = bye(stamp(), first);
  const EcuRecord kept = with_maintenance(stamp(), first, true);
  struct Case {
    std::string what;
    const EcuRecord* head;
    EcuRecord next;
    std::function<void(EcuRecord&)> change;
  };
  const std::vector<Case> cases = {
      {"LOST of nothing", nullptr, is_lost, [](EcuRecord& r) { r.slot = 1; }},
      {"BYE of nothing", nullptr, is_bye, [](EcuRecord& r) { r.slot = 1; }},
      {"a first record in another slot", nullptr, first, [](EcuRecord& r) { r.slot = 2; }},
      {"lost before the first", nullptr, first, [](EcuRecord& r) { r.lost_incarnation = 1; }},
      {"a gap", &first, next, [](EcuRecord& r) { r.slot = 3; }},
      {"the same slot", &first, next, [](EcuRecord& r) { r.slot = 1; }},
      {"of another ECU", &first, next, [](EcuRecord& r) { r.ecu_mac = EcuMac{2}; }},
      {"an older session", &first, next, [](EcuRecord& r) { r.incarnation = 5; }},
      {"the session begins again", &first, first, [](EcuRecord& r) { r.slot = 2; }},
      {"by another nonce", &first, kept, [](EcuRecord& r) { r.nonce = 9; }},
      {"by another boot id", &first, kept,
       [](EcuRecord& r) {
         r.boot_id = Id128{9, 9};
       }},
      {"by another enforcer", &first, kept, [](EcuRecord& r) { r.enforcer = Enforcer::kNone; }},
      {"maintenance loses nothing", &first, kept, [](EcuRecord& r) { r.lost_incarnation = r.incarnation; }},
      {"HELLO puts maintenance", &first, next, [](EcuRecord& r) { r.maintenance = true; }},
      {"HELLO takes maintenance", &kept, next, [](EcuRecord& r) { r.slot = 3; }},
      {"HELLO loses something", &first, next, [](EcuRecord& r) { r.lost_incarnation = 0x10011; }},
      {"HELLO forgets a loss", &is_lost, next, [](EcuRecord& r) { r.slot = 3, r.lost_incarnation = 0; }},
      {"LOST of another session", &first, is_lost, [](EcuRecord& r) { r.incarnation = 0x20011; }},
      {"LOST puts maintenance", &first, is_lost, [](EcuRecord& r) { r.maintenance = true; }},
      {"LOST in maintenance", &kept, is_lost, [](EcuRecord& r) { r.slot = 3, r.maintenance = true; }},
      {"LOST twice", &is_lost, is_lost, [](EcuRecord& r) { r.slot = 3; }},
      {"LOST after BYE", &is_bye, is_lost, [](EcuRecord& r) { r.slot = 3; }},
      {"BYE after LOST", &is_lost, is_bye, [](EcuRecord& r) { r.slot = 3, r.lost_incarnation = 0x10011; }},
      {"LOST with another enforcer", &first, is_lost, [](EcuRecord& r) { r.enforcer = Enforcer::kNone; }},
      {"LOST that is not named", &first, is_lost, [](EcuRecord& r) { r.lost_incarnation = 0; }},
      {"BYE that loses", &first, is_bye, [](EcuRecord& r) { r.lost_incarnation = r.incarnation; }},
      {"nothing new", &is_lost, is_lost, [](EcuRecord& r) { r.slot = 3; }},
      {"HELLO revives the session", &is_lost, first,
       [](EcuRecord& r) { r.slot = 3, r.lost_incarnation = 0x10011; }},
  };
  for (const Case& one : cases) {
    EcuRecord changed = one.next;
    one.change(changed);
    EXPECT_EQ(check_successor(one.head, changed).code(), Code::kInvalidArgument) << one.what;
  }
  EXPECT_TRUE(check_successor(&first, next).ok());
  EXPECT_TRUE(check_successor(&first, is_lost).ok());
  EXPECT_TRUE(check_successor(&first, is_bye).ok());
  EXPECT_TRUE(check_successor(&first, kept).ok());
}

TEST(EcuLogTest, ALossWithoutAnEnforcerIsNotNamed) {
  const EcuRecord head = hello_record(Enforcer::kNone);
  EcuRecord ended = lost(stamp(), head);
  EXPECT_TRUE(check_successor(&head, ended).ok());
  ended.lost_incarnation = head.incarnation;
  EXPECT_FALSE(check_successor(&head, ended).ok()) << "its programs may run on";
}

TEST(EcuLogTest, AHelloIsKnownAgainByItsNonce) {
  const EcuRecord head = hello_record();
  EXPECT_EQ(judge_hello(&head, hello_said(0x11)), HelloIs::kHead) << "its answer was lost";
  EXPECT_EQ(judge_hello(&head, hello_said(0x11, Enforcer::kGuard, 0x10011)), HelloIs::kHead);
  EXPECT_EQ(judge_hello(&head, hello_said(0x22)), HelloIs::kNew);
  EXPECT_EQ(judge_hello(nullptr, hello_said(0x22)), HelloIs::kNew);
}

TEST(EcuLogTest, ASessionThatIsNotTheHeadHasEnded) {
  const EcuRecord head = hello_record();
  const EcuRecord is_lost = lost(stamp(), head);
  const EcuRecord is_bye = bye(stamp(), head);
  const wire::Hello again = hello_said(0x11, Enforcer::kGuard, 0x10011);
  EXPECT_EQ(judge_hello(&is_lost, again), HelloIs::kOutdated);
  EXPECT_EQ(judge_hello(&is_bye, again), HelloIs::kOutdated);
  EXPECT_EQ(judge_hello(nullptr, again), HelloIs::kOutdated);
  EXPECT_EQ(judge_hello(&head, hello_said(0x11, Enforcer::kGuard, 0x20011)), HelloIs::kOutdated);
  EXPECT_EQ(judge_hello(&head, hello_said(0x22, Enforcer::kGuard, 0x10011)), HelloIs::kOutdated);
  // What never got its answer never ran anything: it may begin.
  EXPECT_EQ(judge_hello(&is_lost, hello_said(0x11)), HelloIs::kNew);
  // The word about maintenance is no new session.
  const EcuRecord kept = with_maintenance(stamp(), head, true);
  EXPECT_EQ(judge_hello(&kept, again), HelloIs::kHead);
}

}  // namespace
}  // namespace cms::core
