#include "broker/core/run_lease.h"

#include <chrono>

#include <gtest/gtest.h>

namespace cms::broker {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using State = RunLease::State;

constexpr Duration kLength = seconds(5);

class RunLeaseTest : public ::testing::Test {
 protected:
  RunLeaseTest() { begin(); }
  void begin() {
    lease_.begin_session();
    for (const CmsIndex cms : {0U, 1U}) lease_.set_length(cms, kLength);
  }
  void send(std::uint64_t number, CmsIndex cms = 0) { lease_.on_sent(now_, cms, number); }
  bool leased(std::uint64_t number, CmsIndex cms = 0) { return lease_.on_leased(now_, cms, number); }

  const Instant start_{std::chrono::hours(1)};
  Instant now_ = start_;
  RunLease lease_{2};
};

TEST_F(RunLeaseTest, BeginsWithItsFirstAnswerAndCountsFromTheSending) {
  EXPECT_EQ(lease_.state(), State::kNone);
  send(1);
  EXPECT_EQ(lease_.state(), State::kNone) << "not by the sending";
  EXPECT_EQ(lease_.next_deadline(), kNever);
  now_ += seconds(2);
  EXPECT_TRUE(leased(1));
  EXPECT_EQ(lease_.state(), State::kLiving);
  EXPECT_EQ(lease_.began_at(), start_);
  EXPECT_EQ(lease_.ends_at(), start_ + kLength);
  EXPECT_EQ(lease_.next_deadline(), start_ + kLength);
}

TEST_F(RunLeaseTest, EndsAtItsEndAndSaysSoOnce) {
  send(1);
  EXPECT_TRUE(leased(1));
  now_ += kLength - milliseconds(1);
  EXPECT_FALSE(lease_.on_time(now_));
  now_ += milliseconds(1);
  EXPECT_TRUE(lease_.on_time(now_));
  EXPECT_EQ(lease_.state(), State::kExpired);
  EXPECT_FALSE(lease_.on_time(now_));
  EXPECT_EQ(lease_.ends_at(), start_ + kLength);
}

TEST_F(RunLeaseTest, AnyCmsProlongsItAndNoneShortensIt) {
  send(1, 0);
  now_ += seconds(1);
  send(1, 1);
  EXPECT_TRUE(leased(1, 1));
  EXPECT_EQ(lease_.ends_at(), start_ + seconds(6));
  EXPECT_FALSE(leased(1, 0));
  EXPECT_EQ(lease_.ends_at(), start_ + seconds(6));
}

TEST_F(RunLeaseTest, WhatHasEndedIsNotProlongedByALateAnswer) {
  send(1);
  EXPECT_TRUE(leased(1));
  now_ += seconds(4);
  send(2);
  now_ += seconds(1);  // Nobody has looked at the time since.
  EXPECT_FALSE(leased(2));
  EXPECT_EQ(lease_.state(), State::kExpired);
  send(3);
  EXPECT_FALSE(leased(3));
  EXPECT_EQ(lease_.state(), State::kExpired);
}

TEST_F(RunLeaseTest, AnAnswerThatComesAfterItsOwnLeaseBeginsNone) {
  send(1);
  now_ += kLength;
  EXPECT_FALSE(leased(1));
  EXPECT_EQ(lease_.state(), State::kNone);
}

TEST_F(RunLeaseTest, OnlyTheNextSessionHasAnotherOne) {
  send(7);
  EXPECT_TRUE(leased(7));
  lease_.end(now_ + seconds(1));
  EXPECT_EQ(lease_.state(), State::kExpired);
  EXPECT_EQ(lease_.ends_at(), start_ + seconds(1));
  EXPECT_FALSE(leased(7));
  now_ += seconds(1);
  begin();
  EXPECT_EQ(lease_.state(), State::kNone);
  EXPECT_FALSE(leased(7)) << "it was sent in the former one";
  send(8);
  EXPECT_FALSE(leased(7));
  EXPECT_TRUE(leased(8));
}

TEST_F(RunLeaseTest, WithoutALengthThereIsNone) {
  lease_.set_length(0, Duration::zero());
  send(1, 0);
  EXPECT_FALSE(leased(1, 0));
  send(1, 1);
  EXPECT_TRUE(leased(1, 1)) << "the other CMS grants one";
}

TEST_F(RunLeaseTest, WhatWasNeverSentCountsForNothing) {
  send(1);
  now_ += seconds(1);
  EXPECT_FALSE(leased(2));
  EXPECT_FALSE(leased(UINT64_MAX));
  EXPECT_FALSE(leased(1, 1)) << "it was sent to another";
}

TEST_F(RunLeaseTest, OfManyInQuickSuccessionTheFirstStandsForTheOthers) {
  for (std::uint64_t number = 1; number <= 10000; ++number) {
    send(number);
    now_ += std::chrono::microseconds(9);
  }
  EXPECT_TRUE(leased(10000));
  EXPECT_EQ(lease_.ends_at(), start_ + kLength);
  now_ = start_ + kSentInterval;
  send(10001);
  EXPECT_TRUE(leased(10001));
  EXPECT_EQ(lease_.ends_at(), start_ + kSentInterval + kLength);
}

TEST_F(RunLeaseTest, WhatIsRememberedIsBoundedAndCoversTheLongestLease) {
  lease_.set_length(0, seconds(10));
  for (std::uint64_t number = 1; number <= 2 * kSentCountMax; ++number) {
    send(number);
    now_ += kSentInterval;
  }
  EXPECT_FALSE(leased(kSentCountMax)) << "forgotten";
  EXPECT_TRUE(leased(kSentCountMax + 30)) << "sent 10 s ago, less one interval";
  EXPECT_GT(lease_.ends_at(), now_);
}

}  // namespace
}  // namespace cms::broker
