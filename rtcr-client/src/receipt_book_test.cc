#include "rtcr-client/src/receipt_book.h"

#include <gtest/gtest.h>

#include <poll.h>
#include <thread>

namespace cms::client {
namespace {

using std::chrono::milliseconds;
using wire::ReceiptLevel;

Receipt receipt(Seq seq, ReceiptLevel level, bool final = false, Code code = Code::kOk,
                std::string reason = {}) {
  return Receipt{broker::ReceiptEvent{7, seq, level, code, std::move(reason), final}, 65536};
}

WaitOutcome look(ReceiptBook& book, Seq seq, ReceiptLevel level) {
  return book.wait(seq, 1000000, level, milliseconds(0)).outcome;
}

TEST(ReceiptBookTest, AHigherLevelImpliesTheLowerOnes) {
  ReceiptBook book;
  book.add(receipt(1, ReceiptLevel::kStored));
  EXPECT_EQ(look(book, 1, ReceiptLevel::kAnnounced), WaitOutcome::kReached);
  EXPECT_EQ(look(book, 1, ReceiptLevel::kStored), WaitOutcome::kReached);
  EXPECT_EQ(look(book, 1, ReceiptLevel::kReplicated), WaitOutcome::kTimeout);
}

TEST(ReceiptBookTest, ALaterLowerLevelTakesNothingBack) {
  ReceiptBook book;
  book.add(receipt(1, ReceiptLevel::kStored));
  book.add(receipt(1, ReceiptLevel::kPulling));
  EXPECT_EQ(look(book, 1, ReceiptLevel::kStored), WaitOutcome::kReached);
}

TEST(ReceiptBookTest, SeqsMayEndInAnyOrder) {
  ReceiptBook book;
  book.add(receipt(3, ReceiptLevel::kStored));
  EXPECT_EQ(look(book, 1, ReceiptLevel::kAnnounced), WaitOutcome::kTimeout);
  book.add(receipt(1, ReceiptLevel::kDropped, true, Code::kLimit, "no room"));
  EXPECT_EQ(look(book, 1, ReceiptLevel::kAnnounced), WaitOutcome::kDropped);
  EXPECT_EQ(look(book, 3, ReceiptLevel::kStored), WaitOutcome::kReached);
}

TEST(ReceiptBookTest, RemembersTheLastSeqsAndSaysWhenItHasForgotten) {
  ReceiptBook book;
  const Seq last = kHistoryMax + 1;
  for (Seq seq = 1; seq <= last; ++seq) book.add(receipt(seq, ReceiptLevel::kStored));
  EXPECT_EQ(look(book, 1, ReceiptLevel::kStored), WaitOutcome::kUnknown);
  EXPECT_EQ(look(book, 2, ReceiptLevel::kStored), WaitOutcome::kReached);
  EXPECT_EQ(look(book, last, ReceiptLevel::kStored), WaitOutcome::kReached);
  book.add(receipt(1, ReceiptLevel::kReplicated, true));  // Too late for the history: no harm.
  EXPECT_EQ(look(book, 2, ReceiptLevel::kReplicated), WaitOutcome::kTimeout);
}

TEST(ReceiptBookTest, KeepsTheNewestReceiptsAndCountsTheOthers) {
  ReceiptBook book;
  for (Seq seq = 1; seq <= kReceiptQueueMax + 2; ++seq) book.add(receipt(seq, ReceiptLevel::kAnnounced));
  EXPECT_EQ(book.lost_count(), 2U);
  EXPECT_EQ(book.next()->event.seq, 3U);
}

TEST(ReceiptBookTest, IsReadableWhileThereIsSomethingToTake) {
  ReceiptBook book;
  pollfd item{book.poll_fd(), POLLIN, 0};
  EXPECT_EQ(::poll(&item, 1, 0), 0);
  book.add(receipt(1, ReceiptLevel::kAnnounced));
  book.add(receipt(1, ReceiptLevel::kPulling));
  EXPECT_EQ(::poll(&item, 1, 0), 1);
  EXPECT_TRUE(book.next().has_value());
  EXPECT_EQ(::poll(&item, 1, 0), 1);
  EXPECT_TRUE(book.next().has_value());
  EXPECT_EQ(::poll(&item, 1, 0), 0);
  EXPECT_FALSE(book.next().has_value());
}

TEST(ReceiptBookTest, WakesTheOneWhoWaits) {
  ReceiptBook book;
  std::thread teller([&] { book.add(receipt(1, ReceiptLevel::kStored)); });
  EXPECT_EQ(book.wait(1, 1, ReceiptLevel::kStored, milliseconds(-1)).outcome, WaitOutcome::kReached);
  teller.join();
}

TEST(ReceiptBookTest, TellsEverybodyWhenNoMoreWillCome) {
  ReceiptBook book;
  book.add(receipt(1, ReceiptLevel::kStored));
  std::thread teller([&] { book.fail("the thread has died"); });
  EXPECT_EQ(book.wait(2, 2, ReceiptLevel::kStored, milliseconds(-1)).detail, "the thread has died");
  teller.join();
  EXPECT_EQ(look(book, 1, ReceiptLevel::kStored), WaitOutcome::kReached);
}

}  // namespace
}  // namespace cms::client
