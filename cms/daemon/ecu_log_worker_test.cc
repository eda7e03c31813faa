#include "cms/daemon/ecu_log_worker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <map>
#include <string>
#include <vector>

#include "storage/fake/fake_claims.h"

namespace cms::daemon {
namespace {

using storage::FakeClaimCall;
using storage::FakeClaimFault;
using ::testing::HasSubstr;

constexpr std::uint64_t kManyHellos = 4 * storage::ClaimStore::kAppendGroupMax * kEcuLogLaneCount;

EcuMac ecu(std::uint64_t number) { return EcuMac{0x020000000000 + number}; }

core::RecordHello hello_of(EcuMac ecu_mac, std::uint64_t nonce, Incarnation incarnation = 0) {
  core::RecordHello asked;
  wire::Hello& said = asked.asked.hello;
  said.ecu_mac = ecu_mac;
  said.nonce = nonce;
  said.incarnation = incarnation;
  said.guarded = true;
  said.boot_id = Id128{7, nonce};
  said.enforcer = wire::Enforcer::kGuard;
  asked.incarnation_min = 0x10001;
  return asked;
}

class EcuLogWorkerTest : public ::testing::Test {
 protected:
  using Recorded = Result<EcuLogWorker::Recorded>;

  EcuLogWorkerTest() { EXPECT_TRUE(claims_.open_store().ok() && other_.open_store().ok()); }

  // Asks for each in this order; what each was answered.
  std::vector<Recorded> record(EcuLogWorker& worker, const std::vector<core::RecordHello>& hellos) {
    std::map<std::size_t, Recorded> answers;
    for (std::size_t i = 0; i < hellos.size(); ++i)
      worker.record_hello(hellos[i], [&answers, i](Instant, core::Effects&, const Recorded& recorded) {
        answers.emplace(i, recorded);
      });
    while (answers.size() < hellos.size()) {
      pollfd item{outbox_.waker().fd(), POLLIN, 0};
      if (::poll(&item, 1, 20000) != 1) break;
      outbox_.waker().drain();
      std::vector<Completion> completions;
      outbox_.take(completions);
      core::Effects effects;
      for (Completion& completion : completions) completion(BootClock::now(), effects);
    }
    EXPECT_EQ(answers.size(), hellos.size()) << "not all were answered";
    std::vector<Recorded> in_order;
    for (const auto& [i, answer] : answers) in_order.push_back(answer);
    return in_order;
  }

  // As another cmsd reads it.
  wire::EcuRecord head_of(EcuMac ecu_mac) {
    const auto head = other_.head(storage::log_of(ecu_mac), 0, storage::ClaimStore::Read::kDurable);
    if (!head.ok()) return ADD_FAILURE() << head.error().message(), wire::EcuRecord{};
    auto record = wire::decode_ecu_record(head->bytes.data(), head->bytes.size());
    return record.ok() ? *record : wire::EcuRecord{};
  }

  storage::FakeClaimNas nas_;
  storage::FakeClaims claims_{nas_, "a", 1};
  storage::FakeClaims other_{nas_, "b", 2};
  Outbox outbox_;
  EcuLogWorker worker_{claims_, outbox_, core::Writer{"a", 1}};
};

TEST_F(EcuLogWorkerTest, EachOfManyHellosIsTheHeadOfItsEcusLog) {
  std::vector<core::RecordHello> hellos;
  for (std::uint64_t i = 0; i < kManyHellos; ++i) hellos.push_back(hello_of(ecu(i), 100 + i));
  const auto answers = record(worker_, hellos);
  ASSERT_EQ(answers.size(), hellos.size());
  for (std::uint64_t i = 0; i < kManyHellos; ++i) {
    ASSERT_TRUE(answers[i].ok()) << answers[i].error().message();
    EXPECT_EQ(answers[i]->head.ecu_mac, ecu(i));
    EXPECT_EQ(answers[i]->head.nonce, 100 + i);
    EXPECT_EQ(head_of(ecu(i)).uid, answers[i]->head.uid);
  }
}

TEST_F(EcuLogWorkerTest, TheSameHelloTwiceIsOneSessionAndANewerOneEndsIt) {
  const auto same = record(worker_, {hello_of(ecu(1), 5), hello_of(ecu(1), 5)});
  ASSERT_TRUE(same[0].ok() && same[1].ok());
  EXPECT_EQ(same[0]->head.uid, same[1]->head.uid);
  EXPECT_EQ(head_of(ecu(1)).slot, 1U);
  const Incarnation first = same[0]->head.incarnation;

  const auto newer = record(worker_, {hello_of(ecu(1), 6), hello_of(ecu(2), 7)});
  ASSERT_TRUE(newer[0].ok() && newer[1].ok());
  EXPECT_GT(newer[0]->head.incarnation, first);
  const auto older = record(worker_, {hello_of(ecu(1), 5, first), hello_of(ecu(1), 6)});
  ASSERT_FALSE(older[0].ok());
  EXPECT_EQ(older[0].error().code, Code::kFenced);
  ASSERT_TRUE(older[1].ok()) << "one that has ended is no matter of the others'";
  EXPECT_EQ(older[1]->head.slot, 2U);
}

TEST_F(EcuLogWorkerTest, OneThatTwoCmsRecordIsOneSession) {
  Outbox outbox;
  std::vector<core::RecordHello> hellos;
  for (std::uint64_t i = 0; i < kManyHellos; ++i) hellos.push_back(hello_of(ecu(i), 100 + i));
  EcuLogWorker rival(other_, outbox, core::Writer{"b", 2});
  for (const core::RecordHello& hello : hellos)
    rival.record_hello(hello, [](Instant, core::Effects&, const Recorded&) {});
  const auto answers = record(worker_, hellos);
  for (std::uint64_t i = 0; i < answers.size(); ++i) {
    ASSERT_TRUE(answers[i].ok()) << answers[i].error().message();
    EXPECT_EQ(head_of(ecu(i)).uid, answers[i]->head.uid);
    EXPECT_EQ(head_of(ecu(i)).slot, 1U);
  }
}

TEST_F(EcuLogWorkerTest, WhatIsNotKnownIsToBeSaidAgainAndNobodyElseSuffers) {
  // Lane 0 has all of these.
  const auto of_lane = [](std::uint64_t i) { return ecu(i * kEcuLogLaneCount); };
  claims_.fail_next(FakeClaimCall::kLink, 1, FakeClaimFault::kReplyLost);
  claims_.fail_next(FakeClaimCall::kLookUp, 8, FakeClaimFault::kRequestLost, {}, 1);
  const auto answers = record(worker_, {hello_of(of_lane(1), 1)});
  ASSERT_FALSE(answers[0].ok());
  EXPECT_EQ(answers[0].error().code, Code::kUnavailable);
  EXPECT_THAT(answers[0].error().context,
              HasSubstr(to_string(of_lane(1)) + " could not be written just now"));
  claims_.fail_next(FakeClaimCall::kLookUp, 0, FakeClaimFault::kRequestLost);
  const auto again = record(worker_, {hello_of(of_lane(1), 1), hello_of(of_lane(2), 2)});
  ASSERT_TRUE(again[0].ok()) << again[0].error().message();
  ASSERT_TRUE(again[1].ok()) << again[1].error().message();
  EXPECT_EQ(head_of(of_lane(1)).slot, 1U) << "the first try is what was found";
  for (std::uint64_t attempt = 1; attempt <= 3; ++attempt)
    EXPECT_FALSE(claims_.settle(attempt).ok()) << "the first try was not settled";
}

}  // namespace
}  // namespace cms::daemon
