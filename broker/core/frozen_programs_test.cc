// What a source does with commands that are late, repeated, overtaken or too many.
#include "broker/core/frozen_programs.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace cms::broker {
namespace {

constexpr ProgramId kProgram = 7;
const Lineage kLineage{1, 2};

wire::ClaimRef at(std::uint64_t slot, Lineage lineage = kLineage) {
  return wire::ClaimRef{lineage, slot, slot * 10};
}
LastCheckpoint last(Seq seq, Incarnation incarnation = 65536, Code lost = Code::kOk) {
  return LastCheckpoint{Version{incarnation, seq}, lost, 0};
}

class FrozenProgramsTest : public ::testing::Test {
 protected:
  void freeze(std::uint64_t slot, const std::optional<LastCheckpoint>& published = last(1),
              ProgramId program_id = kProgram, Lineage lineage = kLineage) {
    effects_.clear();
    frozen_.on_freeze(0, wire::Freeze{at(slot, lineage), program_id}, published, effects_);
  }
  void thaw(std::uint64_t slot, ProgramId program_id = kProgram, Lineage lineage = kLineage) {
    effects_.clear();
    frozen_.on_thaw(0, wire::Thaw{at(slot, lineage), program_id}, effects_);
  }
  void answer(FreezeId id, const Result<Seq>& seq, const std::optional<LastCheckpoint>& published = last(1)) {
    effects_.clear();
    frozen_.on_frozen(id, seq, published, effects_);
  }
  // Frozen for this slot; its id.
  FreezeId make_frozen(std::uint64_t slot) {
    freeze(slot);
    const FreezeId id = calls<FreezeProgram>().at(0).id;
    answer(id, Seq{1});
    EXPECT_EQ(told(), "frozen " + std::to_string(slot));
    return id;
  }
  template <typename T>
  std::vector<T> calls() const {
    std::vector<T> found;
    for (const FreezeEffect& effect : effects_) {
      if (const auto* one = std::get_if<T>(&effect)) found.push_back(*one);
    }
    return found;
  }
  bool calls_rtcr() const { return !calls<FreezeProgram>().empty() || !calls<ThawProgram>().empty(); }
  wire::FreezeReport report() const {
    const auto reports = calls<SendFreezeReport>();
    EXPECT_EQ(reports.size(), 1U);
    return reports.empty() ? wire::FreezeReport{} : reports[0].report;
  }
  // "frozen 2", the slot; uids fit to slots.
  std::string told() const {
    const wire::FreezeReport said = report();
    EXPECT_EQ(said.claim.uid, said.claim.slot * 10);
    return std::string(to_string(said.state)) + " " + std::to_string(said.claim.slot);
  }
  bool told_to_all() const { return calls<SendFreezeReport>().at(0).to_all; }

  FrozenPrograms frozen_{};
  FreezeEffects effects_{};
};

TEST_F(FrozenProgramsTest, FreezesOnceHoweverOftenItIsSaidAndTellsTheLastCheckpoint) {
  freeze(2);
  ASSERT_EQ(calls<FreezeProgram>().size(), 1U);
  const FreezeProgram call = calls<FreezeProgram>()[0];
  EXPECT_EQ(call.program_id, kProgram);
  EXPECT_EQ(call.claim.slot, 2U);
  EXPECT_EQ(told(), "freezing 2");
  EXPECT_TRUE(told_to_all());
  freeze(2);
  EXPECT_FALSE(calls_rtcr());
  EXPECT_EQ(told(), "freezing 2");
  EXPECT_FALSE(told_to_all()) << "nothing has changed";
  EXPECT_FALSE(frozen_.is_frozen(kProgram)) << "it publishes its last checkpoint";
  answer(call.id, Seq{9}, last(9));
  EXPECT_FALSE(calls_rtcr());
  EXPECT_EQ(told(), "frozen 2");
  EXPECT_TRUE(told_to_all());
  EXPECT_EQ(report().last, (Version{65536, 9}));
  EXPECT_TRUE(frozen_.is_frozen(kProgram));
  freeze(2);
  EXPECT_FALSE(calls_rtcr());
  EXPECT_EQ(told(), "frozen 2");
  answer(call.id, Seq{9}, last(9));
  EXPECT_TRUE(effects_.empty()) << "an answer counts once";
}

// It came back here under another program_id, and the copy from before has not heard yet that it is fenced.
TEST_F(FrozenProgramsTest, AThawOfTheSameLineageUnderAnotherProgramIdThawsNothing) {
  make_frozen(6);
  thaw(16, kProgram + 1);
  EXPECT_FALSE(calls_rtcr());
  EXPECT_TRUE(frozen_.is_frozen(kProgram));
  freeze(18);  // Nor is it taken for one of a move that is over.
  EXPECT_EQ(told(), "frozen 18");
}

TEST_F(FrozenProgramsTest, WhatIsNotPublishedHereIsRefused) {
  freeze(2, std::nullopt);
  EXPECT_FALSE(calls_rtcr());
  EXPECT_EQ(told(), "refused 2");
  EXPECT_EQ(report().code, Code::kNotFound);
  EXPECT_NE(report().context.find("program 7"), std::string::npos);
}

TEST_F(FrozenProgramsTest, AClaimFromBeforeTheProgramCameHereIsRefused) {
  LastCheckpoint published = last(1);
  published.owner_epoch = 9;
  for (const std::uint64_t slot : {5U, 9U}) {
    freeze(slot, published);
    EXPECT_FALSE(calls_rtcr());
    EXPECT_EQ(told(), "refused " + std::to_string(slot));
    EXPECT_EQ(report().code, Code::kSuperseded);
  }
  freeze(10, published);
  EXPECT_EQ(told(), "freezing 10");
}

TEST_F(FrozenProgramsTest, ARefusedClaimStaysRefusedAndANewerOneFreezesAnew) {
  freeze(4);
  answer(calls<FreezeProgram>().at(0).id, make_error(Code::kUnsupported, "it cannot stand still"));
  EXPECT_FALSE(calls_rtcr()) << "it runs on by itself";
  for (const std::uint64_t slot : {4U, 3U}) {
    freeze(slot);
    EXPECT_FALSE(calls_rtcr());
    EXPECT_EQ(told(), "refused 4");
    EXPECT_EQ(report().code, Code::kUnsupported);
    EXPECT_EQ(report().context, "it cannot stand still");
  }
  freeze(5);
  EXPECT_EQ(calls<FreezeProgram>().size(), 1U);
  EXPECT_EQ(told(), "freezing 5");
}

TEST_F(FrozenProgramsTest, ANewerClaimTakesOverWhatIsFrozenAndAnOlderOneDoesNot) {
  freeze(3);
  const FreezeId id = calls<FreezeProgram>().at(0).id;
  freeze(4);
  EXPECT_FALSE(calls_rtcr());
  EXPECT_EQ(told(), "freezing 4");
  answer(id, Seq{1});
  EXPECT_EQ(told(), "frozen 4");
  freeze(6);
  EXPECT_FALSE(calls_rtcr());
  EXPECT_EQ(told(), "frozen 6");
  EXPECT_EQ(report().last, (Version{65536, 1}));
  freeze(4);
  EXPECT_EQ(told(), "frozen 6");
  thaw(5);
  EXPECT_FALSE(calls_rtcr()) << "the end of the older claim must not thaw what the newer one holds";
  EXPECT_EQ(told(), "frozen 6");
  thaw(6);
  EXPECT_FALSE(calls_rtcr()) << "a slot has one record";
}

TEST_F(FrozenProgramsTest, AThawAboveTheClaimThawsOnceAndALateFreezeDoesNotFreezeAgain) {
  const FreezeId id = make_frozen(3);
  thaw(5);
  ASSERT_EQ(calls<ThawProgram>().size(), 1U);
  EXPECT_EQ(calls<ThawProgram>()[0].id, id);
  EXPECT_EQ(calls<ThawProgram>()[0].record.slot, 5U);
  EXPECT_EQ(told(), "thawed 5");
  EXPECT_TRUE(told_to_all());
  EXPECT_FALSE(frozen_.is_open(kProgram));
  thaw(5);
  EXPECT_FALSE(calls_rtcr());
  EXPECT_EQ(told(), "thawed 5");
  for (const std::uint64_t slot : {3U, 4U, 5U}) {
    freeze(slot);
    EXPECT_FALSE(calls_rtcr()) << slot;
    EXPECT_EQ(told(), "thawed 5");
  }
  freeze(6);
  EXPECT_EQ(calls<FreezeProgram>().size(), 1U);
  EXPECT_NE(calls<FreezeProgram>().at(0).id, id);
}

TEST_F(FrozenProgramsTest, AThawOfNothingIsAnsweredAndKeptInMind) {
  thaw(3);
  EXPECT_FALSE(calls_rtcr());
  EXPECT_EQ(told(), "thawed 3");
  thaw(2);
  EXPECT_EQ(told(), "thawed 3");
  freeze(2);
  EXPECT_FALSE(calls_rtcr());
  EXPECT_EQ(told(), "thawed 3");
  freeze(4, std::nullopt);
  thaw(5);
  EXPECT_EQ(told(), "thawed 5") << "refused before";
}

TEST_F(FrozenProgramsTest, AThawOfAnotherLineageThawsNothing) {
  make_frozen(3);
  thaw(5, kProgram, Lineage{8, 8});
  EXPECT_FALSE(calls_rtcr());
  EXPECT_TRUE(frozen_.is_frozen(kProgram));
}

TEST_F(FrozenProgramsTest, AThawDuringFreezingIsCarriedOutWhenTheRtcrHasAnswered) {
  freeze(3);
  const FreezeId id = calls<FreezeProgram>().at(0).id;
  thaw(5);
  EXPECT_FALSE(calls_rtcr());
  EXPECT_EQ(told(), "freezing 3");
  freeze(4);
  EXPECT_EQ(told(), "freezing 3") << "a claim that is over as well";
  // Also when its answer is none that could be used.
  answer(id, Seq{8}, std::nullopt);
  ASSERT_EQ(calls<ThawProgram>().size(), 1U);
  EXPECT_EQ(calls<ThawProgram>()[0].record.slot, 5U);
  EXPECT_EQ(told(), "thawed 5");
}

TEST_F(FrozenProgramsTest, AThawDuringFreezingHasNothingToThawWhenTheRtcrRefuses) {
  freeze(3);
  const FreezeId id = calls<FreezeProgram>().at(0).id;
  thaw(5);
  answer(id, make_error(Code::kIo, "no"));
  EXPECT_FALSE(calls_rtcr());
  EXPECT_EQ(told(), "thawed 5");
}

TEST_F(FrozenProgramsTest, AClaimAboveTheThawThatWaitsKeepsItFrozen) {
  freeze(3);
  const FreezeId id = calls<FreezeProgram>().at(0).id;
  thaw(5);
  freeze(6);
  EXPECT_FALSE(calls_rtcr());
  EXPECT_EQ(told(), "freezing 6");
  answer(id, Seq{1});
  EXPECT_FALSE(calls_rtcr());
  EXPECT_EQ(told(), "frozen 6");
}

TEST_F(FrozenProgramsTest, AnAnswerThatNamesNotTheLastCheckpointIsRefusedAndTheProgramGoesOn) {
  freeze(3);
  answer(calls<FreezeProgram>().at(0).id, Seq{8}, last(9));
  EXPECT_EQ(calls<ThawProgram>().size(), 1U);
  EXPECT_EQ(told(), "refused 3");
  EXPECT_EQ(report().code, Code::kInvalidArgument);
  freeze(4);
  answer(calls<FreezeProgram>().at(0).id, Seq{8}, std::nullopt);
  EXPECT_EQ(calls<ThawProgram>().size(), 1U);
  EXPECT_EQ(told(), "refused 4");
}

TEST_F(FrozenProgramsTest, WhatBecomesOfTheLastCheckpointIsTold) {
  freeze(3);
  answer(calls<FreezeProgram>().at(0).id, Seq{1}, last(1, 65536, Code::kLimit));
  EXPECT_EQ(told(), "frozen 3") << "the CMS gives the move up, and thaws";
  EXPECT_EQ(report().code, Code::kLimit);
  EXPECT_NE(report().context.find("limit"), std::string::npos) << report().context;
  const auto becomes = [&](const LastCheckpoint& now) {
    effects_.clear();
    frozen_.on_last_checkpoint(kProgram, now, effects_);
  };
  becomes(last(1, 65536, Code::kLimit));
  EXPECT_TRUE(effects_.empty());
  becomes(last(1, 131072));
  EXPECT_EQ(report().last, (Version{131072, 1}));
  EXPECT_TRUE(told_to_all());
}

TEST_F(FrozenProgramsTest, TheEndOfTheProgramIsNoThaw) {
  const FreezeId id = make_frozen(3);
  frozen_.on_program_ended(kProgram);
  EXPECT_FALSE(frozen_.is_open(kProgram));
  freeze(3);
  EXPECT_FALSE(calls_rtcr());
  EXPECT_EQ(report().code, Code::kNotFound);
  thaw(4);
  EXPECT_FALSE(calls_rtcr());
  EXPECT_EQ(told(), "thawed 4");
  EXPECT_FALSE(frozen_.find(id));
  // While it is freezing, and its thaw waits: there is nothing to thaw, but it is answered.
  freeze(6);
  const FreezeId freezing = calls<FreezeProgram>().at(0).id;
  thaw(7);
  frozen_.on_program_ended(kProgram);
  thaw(7);
  EXPECT_EQ(told(), "thawed 7");
  answer(freezing, Seq{1});
  EXPECT_TRUE(effects_.empty());
}

TEST_F(FrozenProgramsTest, OnlyWhatIsFrozenIsToldUnasked) {
  make_frozen(3);
  freeze(2, last(1), 8, Lineage{1, 3});
  freeze(2, std::nullopt, 9, Lineage{1, 4});
  effects_.clear();
  frozen_.tell(5, effects_);
  EXPECT_EQ(told(), "frozen 3");
  EXPECT_EQ(calls<SendFreezeReport>()[0].cms, CmsIndex{5});
  EXPECT_FALSE(told_to_all());
}

TEST_F(FrozenProgramsTest, ALineageIsFrozenAsOneProgramAndAProgramAsOneLineage) {
  make_frozen(3);
  freeze(4, last(1), 8);
  EXPECT_FALSE(calls_rtcr());
  EXPECT_EQ(told(), "frozen 3");
  EXPECT_EQ(report().program_id, kProgram);
  freeze(4, last(1), kProgram, Lineage{1, 3});
  EXPECT_FALSE(calls_rtcr());
  EXPECT_EQ(report().code, Code::kAlreadyExists);
}

TEST_F(FrozenProgramsTest, HasRoomForSoManyAndRefusesMore) {
  for (std::uint64_t i = 0; i < kFrozenCountMax; ++i) {
    freeze(2, last(1), i, Lineage{1, i});
    ASSERT_EQ(told(), "freezing 2");
  }
  freeze(2, last(1), 9999, Lineage{1, 9999});
  EXPECT_EQ(told(), "refused 2");
  EXPECT_EQ(report().code, Code::kLimit);
  thaw(3, 0, Lineage{1, 0});
  answer(1, Seq{1});
  freeze(3, last(1), 9999, Lineage{1, 9999});
  EXPECT_EQ(told(), "freezing 3") << "one has gone";
}

TEST_F(FrozenProgramsTest, ForgetsTheOneThatEndedFirstWhenTooManyHave) {
  make_frozen(3);
  thaw(1000, 0, Lineage{1, 9000});
  for (std::uint64_t i = 0; i < kThawedCountMax; ++i) thaw(1000, i, Lineage{2, i});
  EXPECT_EQ(frozen_.known_count(), kThawedCountMax + 1);
  EXPECT_TRUE(frozen_.is_frozen(kProgram)) << "what is frozen is never forgotten";
  freeze(2, last(1), 5, Lineage{2, 0});
  EXPECT_EQ(told(), "thawed 1000");
  freeze(2, last(1), 5, Lineage{1, 9000});
  EXPECT_EQ(told(), "freezing 2") << "forgotten";
}

}  // namespace
}  // namespace cms::broker
