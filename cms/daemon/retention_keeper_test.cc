// Retention in a running cmsd: when it judges and sweeps, when it holds still, what a pin is worth while
// somebody removes, and that of two cmsd one removes.
#include "cms/daemon/retention_keeper.h"

#include "cms/daemon/daemon_fixture_test.h"

namespace cms::daemon {
namespace {

using storage::BlobName;
using storage::FakeCall;
using storage::testing::make_sample;
using storage::testing::Sample;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr EcuMac kEcu{0x020000000001};
constexpr Duration kBit = std::chrono::milliseconds(1);

// Keeps the three newest of each program, as by default.
class Keeping {
 public:
  Keeping() : retention(parts.core, store, parts.index(), parts.gate, parts.outbox, parts.keeper, policy()) {}
  ~Keeping() { parts.keeper.stop(); }  // Its jobs name `retention`.
  Keeping(const Keeping&) = delete;
  Keeping& operator=(const Keeping&) = delete;

  // `count` checkpoints of a program, stored and indexed, seq from 1 on.
  std::vector<BlobName> put(ProgramId id, Seq count) {
    std::vector<BlobName> names;
    for (Seq seq = 1; seq <= count; ++seq) {
      const Sample sample = make_sample(id, seq, 10);
      EXPECT_TRUE(storage::testing::publish(store, sample).ok());
      storage::IndexRow row;
      row.name = sample.name;
      row.stored_bytes = 100;
      row.stored_at_us = 1'700'000'000'000'000 + seq;
      EXPECT_TRUE(parts.index().put({row}).ok());
      names.push_back(sample.name);
    }
    return names;
  }
  std::vector<Seq> left_of(ProgramId id) {
    std::vector<Seq> left;
    EXPECT_TRUE(parts.index()
                    .scan_program(ProgramKey{kEcu, id},
                                  [&](const storage::IndexRow& row) {
                                    left.push_back(row.name.checkpoint.version.seq);
                                    return true;
                                  })
                    .ok());
    return left;
  }
  // Until all that the worker has been given, and what followed from it, is done.
  void settle() {
    for (int i = 0; i < 3; ++i) {
      bool done = false;
      parts.keeper.post([&] { parts.outbox.push([&done](Instant, core::Effects&) { done = true; }); });
      ASSERT_TRUE(parts.turn_until([&] { return done; }));
    }
  }
  DaemonFacts::Retention facts() { return retention.facts(BootClock::now()); }
  void sweep_at(Instant now, bool usable = true) {
    retention.on_time(now, usable);
    ASSERT_TRUE(parts.turn_until([&] { return !facts().sweeping; }));
  }
  void hear_peer() {
    wire::PeerMessage message;
    message.cms_name = "b";
    message.incarnation = 7;
    message.fleet_id = Id128{0, 1};
    wire::PeerBeat beat;
    beat.takes_pulls = true;
    beat.features = wire::kPeerFeatureRetention;
    message.body = beat;
    parts.core.set_fleet_id(message.fleet_id);
    parts.core.on_peer(BootClock::now(), "10.0.0.2", message, parts.effects);
    ASSERT_EQ(parts.core.peers().peers().size(), 1U);
  }
  // The answer, once there is one.
  void ask(wire::AdminMethod method, const BlobName& name, std::optional<wire::AdminAnswer>& answer) {
    wire::AdminRequest request;
    request.method = method;
    request.has_ecu_mac = request.has_program_id = request.has_version = true;
    request.ecu_mac = name.checkpoint.program.ecu_mac;
    request.program_id = name.checkpoint.program.program_id;
    request.version = name.checkpoint.version;
    retention.on_request(request, [&answer](const wire::AdminAnswer& given) { answer = given; });
  }

  storage::FakeStore store;
  Parts parts{store};
  RetentionKeeper retention;

 private:
  static core::RetentionPolicy policy() {
    core::RetentionPolicy policy;
    policy.fleet.keep_latest = 3;
    return policy;
  }
};

// ---- when it works

TEST(RetentionKeeperTest, WhatWasStoredMakesTheOldestOfItsProgramGo) {
  Keeping k;
  k.put(1, 5);
  k.put(2, 5);
  k.retention.apply(core::ApplyRetention{{ProgramKey{kEcu, 1}}});
  ASSERT_TRUE(k.parts.turn_until([&] { return k.parts.core.counters().removed == 2; }));
  EXPECT_EQ(k.left_of(1), (std::vector<Seq>{5, 4, 3}));
  EXPECT_EQ(k.left_of(2).size(), 5U) << "nobody asked";
}

TEST(RetentionKeeperTest, ManyProgramsAreJudgedOnceEachHoweverOftenTheyAreNamed) {
  Keeping k;
  core::ApplyRetention effect;
  for (ProgramId id = 1; id <= 2 * kDueAtOnceMax; ++id) {
    k.put(id, 4);
    effect.programs.push_back(ProgramKey{kEcu, id});
  }
  k.retention.apply(effect);
  k.retention.apply(effect);
  ASSERT_TRUE(k.parts.turn_until([&] { return k.parts.core.counters().removed == 2 * kDueAtOnceMax; }));
  k.settle();
  EXPECT_EQ(k.parts.core.counters().removed, 2 * kDueAtOnceMax);
  EXPECT_EQ(k.store.blob_count(), 6 * kDueAtOnceMax);
}

TEST(RetentionKeeperTest, SweepsAtOnceThenEachTenMinutes) {
  Keeping k;
  k.put(1, 4);
  k.sweep_at(BootClock::now());
  EXPECT_EQ(k.left_of(1).size(), 3U);
  EXPECT_EQ(k.facts().sweep_count, 1U);
  const Instant next = BootClock::now() + k.facts().next_sweep_in;
  EXPECT_GT(k.facts().next_sweep_in, kSweepInterval - std::chrono::minutes(1));
  k.sweep_at(next - std::chrono::minutes(1));
  EXPECT_EQ(k.facts().sweep_count, 1U);
  k.sweep_at(next + kBit);
  EXPECT_EQ(k.facts().sweep_count, 2U);
}

TEST(RetentionKeeperTest, SweepThatFailedSaysWhyAndComesAgainSoon) {
  Keeping k;
  k.put(1, 4);
  k.store.fail_next(FakeCall::kRemove, 1, make_error(Code::kIo, "planned"));
  k.sweep_at(BootClock::now());
  EXPECT_THAT(k.facts().trouble, HasSubstr("planned"));
  EXPECT_LE(k.facts().next_sweep_in, kSweepAgainAfter);
  EXPECT_EQ(k.left_of(1).size(), 4U);
  k.sweep_at(BootClock::now() + kSweepAgainAfter);
  EXPECT_THAT(k.facts().trouble, IsEmpty());
  EXPECT_EQ(k.left_of(1).size(), 3U);
}

TEST(RetentionKeeperTest, HoldsStillWhileTheStoreIsNotUsableUnlessItIsFull) {
  Keeping k;
  k.put(1, 5);
  k.sweep_at(BootClock::now(), false);
  EXPECT_EQ(k.facts().sweep_count, 0U);
  EXPECT_EQ(k.left_of(1).size(), 5U);
  k.retention.free_space();
  k.sweep_at(BootClock::now(), false);
  EXPECT_EQ(k.facts().full_sweep_count, 1U);
  EXPECT_EQ(k.facts().full_removed, 2U);
  EXPECT_EQ(k.left_of(1).size(), 3U);
}

TEST(RetentionKeeperTest, AStoreThatStaysFullIsSweptSoonAgainWhenThatHelpedAndSeldomInVain) {
  Keeping k;
  k.put(1, 4);
  k.retention.free_space();
  k.sweep_at(BootClock::now(), false);
  ASSERT_EQ(k.facts().full_sweep_count, 1U);
  const auto sweep_again = [&](Duration after) {
    const std::uint64_t before = k.facts().full_sweep_count;
    k.retention.free_space();
    k.sweep_at(BootClock::now() + after, false);
    return k.facts().full_sweep_count > before;
  };
  EXPECT_FALSE(sweep_again(kSweepAgainAfter / 2));
  EXPECT_TRUE(sweep_again(kSweepAgainAfter)) << "something went";
  EXPECT_FALSE(sweep_again(2 * kSweepAgainAfter)) << "nothing went";
  EXPECT_TRUE(sweep_again(kFullInVain));
}

TEST(RetentionKeeperTest, AFullStoreWhoseSweepFailedIsSweptSoonAgain) {
  Keeping k;
  k.put(1, 4);
  k.store.fail_next(FakeCall::kRemove, 1, make_error(Code::kIo, "planned"));
  k.retention.free_space();
  k.sweep_at(BootClock::now(), false);
  EXPECT_EQ(k.facts().full_removed, 0U);
  k.retention.free_space();
  k.sweep_at(BootClock::now() + kSweepAgainAfter, false);
  EXPECT_EQ(k.facts().full_removed, 1U);
}

TEST(RetentionKeeperTest, OneSweepAtATime) {
  Keeping k;
  k.put(1, 4);
  k.retention.on_time(BootClock::now(), true);
  EXPECT_TRUE(k.facts().sweeping);
  k.retention.free_space();
  k.retention.on_time(BootClock::now(), true);
  ASSERT_TRUE(k.parts.turn_until([&] { return !k.facts().sweeping; }));
  EXPECT_EQ(k.facts().sweep_count, 1U);
  EXPECT_EQ(k.facts().full_sweep_count, 0U) << "it waits for the next turn";
}

// ---- pins

TEST(RetentionKeeperTest, APinThatCameBeforeARemovalKeepsItsCheckpoint) {
  Keeping k;
  const auto names = k.put(1, 5);
  std::optional<wire::AdminAnswer> answer;
  k.ask(wire::AdminMethod::kPin, names[0], answer);
  k.retention.apply(core::ApplyRetention{{ProgramKey{kEcu, 1}}});
  ASSERT_TRUE(k.parts.turn_until([&] { return answer && k.parts.core.counters().removed == 1; }));
  EXPECT_EQ(answer->code, Code::kOk) << answer->context;
  EXPECT_EQ(k.left_of(1), (std::vector<Seq>{5, 4, 3, 1}));
  EXPECT_TRUE(*k.store.contains(names[0]));
  EXPECT_TRUE(*k.store.contains(storage::pin_name_of(names[0])));
}

TEST(RetentionKeeperTest, APinThatCameAfterARemovalIsRefused) {
  Keeping k;
  const auto names = k.put(1, 5);
  std::optional<wire::AdminAnswer> answer;
  k.retention.apply(core::ApplyRetention{{ProgramKey{kEcu, 1}}});
  k.ask(wire::AdminMethod::kPin, names[0], answer);
  ASSERT_TRUE(k.parts.turn_until([&] { return answer.has_value(); }));
  EXPECT_EQ(answer->code, Code::kNotFound);
  EXPECT_FALSE(*k.store.contains(storage::pin_name_of(names[0])));
}

TEST(RetentionKeeperTest, WithPeersAPinIsCalledGoodOnlyWhenNoneOfThemHasRemovedMeanwhile) {
  Keeping k;
  k.hear_peer();
  const auto names = k.put(1, 2);
  std::optional<wire::AdminAnswer> kept;
  std::optional<wire::AdminAnswer> lost;
  k.ask(wire::AdminMethod::kPin, names[0], lost);
  k.ask(wire::AdminMethod::kPin, names[1], kept);
  k.settle();
  ASSERT_TRUE(*k.store.contains(storage::pin_name_of(names[0])));
  // The peer looked for the pin before it was there.
  ASSERT_TRUE(k.store.remove(names[0]).ok());
  k.retention.on_time(BootClock::now(), false);
  k.settle();
  EXPECT_FALSE(lost.has_value()) << "too early to tell";
  EXPECT_FALSE(kept.has_value());
  k.retention.on_time(BootClock::now() + kPinSettle, false);
  ASSERT_TRUE(k.parts.turn_until([&] { return lost && kept; }));
  EXPECT_EQ(lost->code, Code::kNotFound);
  EXPECT_THAT(lost->context, HasSubstr("removed meanwhile"));
  EXPECT_FALSE(*k.store.contains(storage::pin_name_of(names[0]))) << "it keeps nothing";
  EXPECT_EQ(kept->code, Code::kOk) << kept->context;
  EXPECT_EQ(k.left_of(1), (std::vector<Seq>{2}));
}

TEST(RetentionKeeperTest, WhatIsUnpinnedIsJudgedAtOnce) {
  Keeping k;
  const auto names = k.put(1, 4);
  std::optional<wire::AdminAnswer> pinned;
  k.ask(wire::AdminMethod::kPin, names[0], pinned);
  ASSERT_TRUE(k.parts.turn_until([&] { return pinned.has_value(); }));
  k.sweep_at(BootClock::now());
  ASSERT_EQ(k.left_of(1).size(), 4U);
  std::optional<wire::AdminAnswer> unpinned;
  k.ask(wire::AdminMethod::kUnpin, names[0], unpinned);
  ASSERT_TRUE(k.parts.turn_until([&] { return k.parts.core.counters().removed == 1; }));
  EXPECT_EQ(unpinned->code, Code::kOk);
  EXPECT_EQ(k.left_of(1), (std::vector<Seq>{4, 3, 2}));
}

// ---- several cmsd

TEST(RetentionKeeperTest, OneOfTwoRemovesFromAProgramAndAFullStoreConcernsBoth) {
  Keeping k;
  k.hear_peer();
  std::size_t ours = 0;
  constexpr ProgramId kPrograms = 40;
  for (ProgramId id = 1; id <= kPrograms; ++id) {
    k.put(id, 4);
    ours += k.parts.core.retention_share().is_ours(ProgramKey{kEcu, id}) ? 1 : 0;
  }
  ASSERT_GT(ours, 0U);
  ASSERT_LT(ours, kPrograms);
  k.sweep_at(BootClock::now());
  for (ProgramId id = 1; id <= kPrograms; ++id) {
    const bool is_ours = k.parts.core.retention_share().is_ours(ProgramKey{kEcu, id});
    EXPECT_EQ(k.left_of(id).size(), is_ours ? 3U : 4U) << id;
  }
  EXPECT_EQ(k.parts.core.counters().removed, ours);
  k.retention.free_space();
  k.sweep_at(BootClock::now(), false);
  EXPECT_EQ(k.parts.core.counters().removed, kPrograms);
}

TEST(RetentionKeeperTest, WhatAPeerRemovedLeavesTheIndexButNeverTheNewest) {
  Keeping k;
  const auto names = k.put(1, 2);
  core::NoteRemoved effect;
  for (const BlobName& name : names) {
    ASSERT_TRUE(k.store.remove(name).ok());
    effect.blobs.push_back(wire::RemovedBlob{name.checkpoint, name.owner_epoch, name.uid});
  }
  k.retention.note_removed(effect);
  ASSERT_TRUE(k.parts.turn_until([&] { return k.parts.core.counters().peer_removed == 1; }));
  EXPECT_EQ(k.left_of(1), (std::vector<Seq>{2})) << "no peer removes that: somebody has to look";
}

}  // namespace
}  // namespace cms::daemon
