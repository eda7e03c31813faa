#include "broker/core/ecu_core_fixture_test.h"

namespace cms::broker {
namespace {

// ---- serving

TEST_F(EcuCoreTest, ServesEveryChunkWithItsDigestAndTheBlobDigestLast) {
  const std::size_t size = wire::kChunkSizeBytesMin + 5;
  make_live(1, size);
  TestSource* const source = publish(kProgram, size);
  fetch(1);
  serve();
  const auto chunks = all<SendChunk>();
  ASSERT_EQ(chunks.size(), 2U);
  const Digest first = digest_of(source->bytes().data(), wire::kChunkSizeBytesMin);
  const Digest second = digest_of(source->bytes().data() + wire::kChunkSizeBytesMin, 5);
  EXPECT_EQ(chunks[0].header.digest, first);
  EXPECT_FALSE(chunks[0].header.last);
  EXPECT_EQ(chunks[1].header.digest, second);
  EXPECT_EQ(chunks[1].header.blob_digest, blob_digest_of({first, second}));
  EXPECT_EQ(chunks[1].header.version, (Version{kIncarnation, 1}));
  EXPECT_EQ(chunks[1].header.blob_size_bytes, size);
  EXPECT_EQ(core_->served_bytes(), size);
  fetch(1);
  serve();
  EXPECT_EQ(all<SendChunk>().at(1).header.blob_digest, chunks[1].header.blob_digest) << "equal on refetch";
  EXPECT_EQ(core_->served_bytes(), size);
}

TEST_F(EcuCoreTest, RefusesToServeWhatItDoesNotHold) {
  make_live(1);
  fetch(1);
  ASSERT_EQ(all<SendTransferError>().size(), 1U);
  EXPECT_EQ(all<SendTransferError>()[0].error.code, Code::kNotFound);
}

TEST_F(EcuCoreTest, RefusesToStartBeyondWhatItHasServed) {
  make_live(1, 3 * wire::kChunkSizeBytesMin);
  publish(kProgram, 3 * wire::kChunkSizeBytesMin);
  fetch(1, wire::kChunkSizeBytesMin);
  ASSERT_EQ(all<SendTransferError>().size(), 1U);
  EXPECT_EQ(all<SendTransferError>()[0].error.code, Code::kInvalidArgument);
  fetch(1);
  serve(1);
  fetch(1, wire::kChunkSizeBytesMin);
  EXPECT_TRUE(all<SendTransferError>().empty());
}

TEST_F(EcuCoreTest, DropsABlobWhoseSourceChangedBetweenTwoFetches) {
  make_live(1);
  TestSource* const source = publish();
  fetch(1);
  serve();
  source->bytes()[3] = 'y';
  fetch(1);
  serve();
  EXPECT_TRUE(all<SendChunk>().empty());
  ASSERT_FALSE(all<SendTransferError>().empty());
  EXPECT_EQ(all<SendTransferError>()[0].error.code, Code::kSourceChanged);
  ASSERT_EQ(told(), Lines{"DROPPED 1!"});
  EXPECT_EQ(all<ReceiptEvent>()[0].code, Code::kSourceChanged);
  EXPECT_EQ(alive_, 0);
}

TEST_F(EcuCoreTest, DropsABlobThatCannotBeRead) {
  make_live(1);
  publish()->failure = Code::kSourceChanged;
  fetch(1);
  serve();
  EXPECT_EQ(told(), Lines{"DROPPED 1!"});
  EXPECT_EQ(alive_, 0);
}

TEST_F(EcuCoreTest, ASentChunkOutlivesItsBlob) {
  make_live(1);
  publish();
  fetch(1);
  serve();
  const auto chunks = all<SendChunk>();
  receipt(0, 1, ReceiptLevel::kStored);
  EXPECT_EQ(alive_, 0);
  ASSERT_EQ(chunks.size(), 1U);
  EXPECT_EQ(std::string(static_cast<const char*>(chunks[0].bytes.data), 100), std::string(100, 'x'));
}

// ---- withdrawing

TEST_F(EcuCoreTest, WithdrawsEverythingOfTheProgramEvenInFlight) {
  make_live(1);
  publish();
  publish(8);
  fetch(1, 0, 0);
  call([&](Effects& effects) { ASSERT_TRUE(core_->withdraw(now_, 5, kProgram, effects).ok()); });
  EXPECT_EQ(told(), Lines{"DROPPED 1!"});
  EXPECT_EQ(all<SendTransferError>().size(), 1U);
  const auto sent = control<wire::Withdraw>(0);
  ASSERT_EQ(sent.size(), 1U);
  EXPECT_EQ(sent[0].program_id, kProgram);
  EXPECT_EQ(sent[0].seq, 2U);
  EXPECT_EQ(alive_, 1);
}

TEST_F(EcuCoreTest, RepeatsAWithdrawalUntilItIsAnswered) {
  make_live(1);
  call([&](Effects& effects) { ASSERT_TRUE(core_->withdraw(now_, 5, kProgram, effects).ok()); });
  pass(kWithdrawRetry);
  EXPECT_EQ(control<wire::Withdraw>(0).size(), 1U);
  say(0, wire::WithdrawAnswer{5, Code::kUnavailable, "the store is away"});
  EXPECT_TRUE(effects_.empty());
  pass(kWithdrawRetry);
  EXPECT_EQ(control<wire::Withdraw>(0).size(), 1U);
  say(0, wire::WithdrawAnswer{5, Code::kOk, ""});
  ASSERT_EQ(all<WithdrawDone>().size(), 1U);
  EXPECT_EQ(all<WithdrawDone>()[0].request_id, 5U);
  say(0, wire::WithdrawAnswer{5, Code::kOk, ""});
  EXPECT_TRUE(effects_.empty()) << "once";
  pass(kWithdrawRetry);
  EXPECT_TRUE(control<wire::Withdraw>(0).empty());
}

TEST_F(EcuCoreTest, WithdrawsWhenACmsComes) {
  make(1);
  call([&](Effects& effects) { ASSERT_TRUE(core_->withdraw(now_, 5, kProgram, effects).ok()); });
  EXPECT_TRUE(effects_.empty());
  answer_hello(0, kIncarnation);
  EXPECT_EQ(control<wire::Withdraw>(0).size(), 1U);
}

TEST_F(EcuCoreTest, BoundsOpenWithdrawals) {
  make(1);
  Effects effects;
  for (std::uint64_t id = 0; id < kWithdrawCountMax; ++id)
    ASSERT_TRUE(core_->withdraw(now_, id, id, effects).ok());
  EXPECT_EQ(core_->withdraw(now_, kWithdrawCountMax, 1, effects).code(), Code::kLimit);
  core_->cancel_withdraw(0);
  EXPECT_TRUE(core_->withdraw(now_, kWithdrawCountMax, 1, effects).ok());
}

// ---- the end

TEST_F(EcuCoreTest, SaysByeAndDropsWhatIsHeld) {
  make_live(2);
  publish(1);
  publish(2);
  receipt(0, 1, ReceiptLevel::kStored, Code::kOk, 1);
  call([&](Effects& effects) { core_->stop(effects); });
  EXPECT_EQ(control<wire::Bye>(0).size(), 1U);
  EXPECT_EQ(control<wire::Bye>(1).size(), 1U);
  EXPECT_EQ(told(), (Lines{"STORED 1!", "DROPPED 2!"}));
  EXPECT_EQ(all<ReceiptEvent>()[1].code, Code::kCancelled);
  EXPECT_EQ(alive_, 0);
  EXPECT_EQ(core_->next_deadline(), kNever);
  call([&](Effects& effects) { core_->stop(effects); });
  EXPECT_TRUE(effects_.empty());
}

}  // namespace
}  // namespace cms::broker
