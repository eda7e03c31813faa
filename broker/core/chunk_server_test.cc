#include "broker/core/chunk_server.h"

#include <gtest/gtest.h>

namespace cms::broker {
namespace {

constexpr std::uint64_t kMiB = 1024 * 1024;
constexpr Instant kStart{std::chrono::hours(1)};

ServedBlob blob_of(Seq seq, std::uint64_t size_bytes) {
  return ServedBlob{CheckpointId{ProgramKey{EcuMac{0x020000000001}, 7}, Version{65536, seq}}, size_bytes,
                    kMiB};
}

wire::Fetch fetch_of(std::uint64_t transfer_id, std::uint64_t offset_bytes, std::uint64_t limit_bytes) {
  wire::Fetch fetch;
  fetch.transfer_id = transfer_id;
  fetch.offset_bytes = offset_bytes;
  fetch.limit_bytes = limit_bytes;
  return fetch;
}

TEST(ChunkServerTest, SendsWholeChunksAsFarAsCreditReaches) {
  ChunkServer server;
  ASSERT_TRUE(server.start(kStart, "p", fetch_of(1, 0, 2 * kMiB + 1), blob_of(1, 3 * kMiB + 5)).ok());
  const auto first = server.next();
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(first->offset_bytes, 0U);
  EXPECT_EQ(first->size_bytes, kMiB);
  EXPECT_FALSE(first->last);
  ASSERT_TRUE(server.next().has_value());
  EXPECT_FALSE(server.next().has_value()) << "one byte of credit is no chunk";
  EXPECT_FALSE(server.has_work());
}

TEST(ChunkServerTest, CreditIsAbsoluteAndNeverShrinks) {
  ChunkServer server;
  ASSERT_TRUE(server.start(kStart, "p", fetch_of(1, 0, 2 * kMiB), blob_of(1, 9 * kMiB)).ok());
  server.on_credit(kStart, "p", wire::Credit{1, 2 * kMiB});  // The same again grants nothing.
  server.on_credit(kStart, "p", wire::Credit{1, kMiB});
  EXPECT_TRUE(server.next().has_value());
  EXPECT_TRUE(server.next().has_value());
  EXPECT_FALSE(server.next().has_value());
  server.on_credit(kStart, "p", wire::Credit{1, 3 * kMiB});
  EXPECT_TRUE(server.next().has_value());
  EXPECT_FALSE(server.next().has_value());
}

TEST(ChunkServerTest, TheLastChunkIsMarkedAndEndsTheTransfer) {
  ChunkServer server;
  ASSERT_TRUE(server.start(kStart, "p", fetch_of(1, kMiB, UINT64_MAX), blob_of(1, kMiB + 5)).ok());
  const auto task = server.next();
  ASSERT_TRUE(task.has_value());
  EXPECT_EQ(task->offset_bytes, kMiB);
  EXPECT_EQ(task->size_bytes, 5U);
  EXPECT_TRUE(task->last);
  EXPECT_EQ(server.transfer_count(), 0U);
  EXPECT_FALSE(server.serves(blob_of(1, 0).checkpoint));
}

TEST(ChunkServerTest, AnEmptyBlobIsOneEmptyChunkThatNeedsNoCredit) {
  ChunkServer server;
  ASSERT_TRUE(server.start(kStart, "p", fetch_of(1, 0, 0), blob_of(1, 0)).ok());
  const auto task = server.next();
  ASSERT_TRUE(task.has_value());
  EXPECT_EQ(task->size_bytes, 0U);
  EXPECT_TRUE(task->last);
}

TEST(ChunkServerTest, RefusesAnOffsetThatIsNoChunkBoundaryInside) {
  ChunkServer server;
  for (const std::uint64_t offset_bytes : {std::uint64_t{1}, kMiB - 1, 2 * kMiB, 3 * kMiB}) {
    EXPECT_EQ(server.start(kStart, "p", fetch_of(1, offset_bytes, UINT64_MAX), blob_of(1, 2 * kMiB)).code(),
              Code::kInvalidArgument)
        << offset_bytes;
  }
  EXPECT_EQ(server.transfer_count(), 0U);
}

TEST(ChunkServerTest, TakesOneChunkOfEachTransferInTurn) {
  ChunkServer server;
  ASSERT_TRUE(server.start(kStart, "p", fetch_of(1, 0, UINT64_MAX), blob_of(1, 100 * kMiB)).ok());
  ASSERT_TRUE(server.start(kStart, "p", fetch_of(2, 0, UINT64_MAX), blob_of(2, 100 * kMiB)).ok());
  ASSERT_TRUE(server.start(kStart, "q", fetch_of(1, 0, UINT64_MAX), blob_of(3, 1)).ok());
  std::vector<Seq> order;
  for (int i = 0; i < 5; ++i) order.push_back(server.next()->blob.checkpoint.version.seq);
  EXPECT_EQ(order, (std::vector<Seq>{1, 2, 3, 1, 2}));
}

TEST(ChunkServerTest, ARestartedTransferHasStillOneTurn) {
  ChunkServer server;
  const ServedBlob blob = blob_of(1, 100 * kMiB);
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(server.start(kStart, "p", fetch_of(1, 0, UINT64_MAX), blob).ok());
  server.cancel("p", 1);
  ASSERT_TRUE(server.start(kStart, "p", fetch_of(1, 0, UINT64_MAX), blob).ok());
  ASSERT_TRUE(server.start(kStart, "p", fetch_of(2, 0, UINT64_MAX), blob_of(2, 100 * kMiB)).ok());
  std::vector<Seq> order;
  for (int i = 0; i < 4; ++i) order.push_back(server.next()->blob.checkpoint.version.seq);
  EXPECT_EQ(order, (std::vector<Seq>{1, 2, 1, 2}));
  EXPECT_EQ(server.transfer_count(), 2U);
}

TEST(ChunkServerTest, AKnownTransferGoesOnFromItsNewOffset) {
  ChunkServer server;
  ASSERT_TRUE(server.start(kStart, "p", fetch_of(1, 0, UINT64_MAX), blob_of(1, 9 * kMiB)).ok());
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(server.next().has_value());
  ASSERT_TRUE(server.start(kStart, "p", fetch_of(1, 2 * kMiB, UINT64_MAX), blob_of(1, 9 * kMiB)).ok());
  EXPECT_EQ(server.next()->offset_bytes, 2 * kMiB);
  EXPECT_EQ(server.transfer_count(), 1U);
}

TEST(ChunkServerTest, ServesABlobUntilItsLastTransferEnds) {
  ChunkServer server;
  const ServedBlob blob = blob_of(1, 9 * kMiB);
  ASSERT_TRUE(server.start(kStart, "p", fetch_of(1, 0, 0), blob).ok());
  ASSERT_TRUE(server.start(kStart, "q", fetch_of(1, 0, 0), blob).ok());
  EXPECT_EQ(server.cancel("p", 1), blob.checkpoint);
  EXPECT_TRUE(server.serves(blob.checkpoint));
  server.on_peer_gone("q");
  EXPECT_FALSE(server.serves(blob.checkpoint));
  EXPECT_EQ(server.cancel("q", 1), std::nullopt);
}

TEST(ChunkServerTest, EndsAllTransfersOfABlobAndNamesThem) {
  ChunkServer server;
  ASSERT_TRUE(server.start(kStart, "p", fetch_of(1, 0, UINT64_MAX), blob_of(1, 9 * kMiB)).ok());
  ASSERT_TRUE(server.start(kStart, "p", fetch_of(2, 0, UINT64_MAX), blob_of(2, 9 * kMiB)).ok());
  ASSERT_TRUE(server.start(kStart, "q", fetch_of(3, 0, UINT64_MAX), blob_of(1, 9 * kMiB)).ok());
  const std::vector<std::pair<PeerId, std::uint64_t>> expected{{"p", 1}, {"q", 3}};
  EXPECT_EQ(server.end_transfers_of(blob_of(1, 0).checkpoint), expected);
  EXPECT_EQ(server.next()->blob.checkpoint.version.seq, 2U);
  EXPECT_EQ(server.next()->blob.checkpoint.version.seq, 2U);
}

TEST(ChunkServerTest, ForgetsATransferThatWaitsForCreditTooLong) {
  ChunkServer server;
  ASSERT_TRUE(server.start(kStart, "p", fetch_of(1, 0, 0), blob_of(1, 9 * kMiB)).ok());
  ASSERT_TRUE(server.start(kStart, "p", fetch_of(2, 0, UINT64_MAX), blob_of(2, 9 * kMiB)).ok());
  server.expire(kStart + kTransferIdleMax);
  EXPECT_EQ(server.transfer_count(), 2U);
  server.expire(kStart + kTransferIdleMax + Duration(1));
  EXPECT_FALSE(server.has_transfer("p", 1));
  EXPECT_TRUE(server.has_transfer("p", 2)) << "it does not wait for credit but for us";
}

TEST(ChunkServerTest, CreditIsASignOfLife) {
  ChunkServer server;
  ASSERT_TRUE(server.start(kStart, "p", fetch_of(1, 0, 0), blob_of(1, 9 * kMiB)).ok());
  server.on_credit(kStart + kTransferIdleMax, "p", wire::Credit{1, 1});
  server.expire(kStart + 2 * kTransferIdleMax);
  EXPECT_TRUE(server.has_transfer("p", 1));
}

TEST(ChunkServerTest, RefusesMoreTransfersThanItsLimit) {
  ChunkServer server;
  const ServedBlob blob = blob_of(1, 9 * kMiB);
  for (std::uint64_t id = 0; id < kTransferCountMax; ++id) {
    ASSERT_TRUE(server.start(kStart, "p", fetch_of(id, 0, 0), blob).ok());
  }
  EXPECT_EQ(server.start(kStart, "p", fetch_of(kTransferCountMax, 0, 0), blob).code(), Code::kLimit);
  EXPECT_TRUE(server.start(kStart, "p", fetch_of(0, 0, 0), blob).ok()) << "a known one may start again";
  server.cancel("p", 0);
  EXPECT_TRUE(server.start(kStart, "p", fetch_of(kTransferCountMax, 0, 0), blob).ok());
}

}  // namespace
}  // namespace cms::broker
