#include "broker/core/chunk_receiver.h"

#include <gtest/gtest.h>

namespace cms::broker {
namespace {

constexpr std::uint32_t kChunk = wire::kChunkSizeBytes;
constexpr std::uint64_t kMiB = 1024 * 1024;
constexpr Digest kBlobDigest{7, 8};

CheckpointId checkpoint() { return CheckpointId{ProgramKey{EcuMac{0x020000000001}, 7}, Version{65536, 3}}; }

ChunkReceiver receiver_of(std::uint64_t size_bytes) {
  return ChunkReceiver(9, ExpectedBlob{checkpoint(), size_bytes, kChunk}, kTransferWindowBytes);
}

// The chunk that an honest sender has at `offset_bytes`.
wire::Chunk chunk_at(std::uint64_t offset_bytes, std::uint64_t blob_size_bytes) {
  wire::Chunk chunk;
  chunk.transfer_id = 9;
  chunk.offset_bytes = offset_bytes;
  chunk.size_bytes =
      static_cast<std::uint32_t>(std::min<std::uint64_t>(kChunk, blob_size_bytes - offset_bytes));
  chunk.version = checkpoint().version;
  chunk.blob_size_bytes = blob_size_bytes;
  chunk.chunk_size_bytes = kChunk;
  chunk.last = offset_bytes + chunk.size_bytes == blob_size_bytes;
  if (chunk.last) chunk.blob_digest = kBlobDigest;
  return chunk;
}

Code verdict(ChunkReceiver& receiver, const wire::Chunk& chunk) {
  return receiver.on_chunk(chunk, chunk.size_bytes).code();
}

TEST(ChunkReceiverTest, AsksForTheWholeBlobWithAWindowOfCredit) {
  const wire::Fetch fetch = receiver_of(100 * kMiB).fetch();
  EXPECT_EQ(fetch.transfer_id, 9U);
  EXPECT_EQ(fetch.checkpoint, checkpoint());
  EXPECT_EQ(fetch.offset_bytes, 0U);
  EXPECT_EQ(fetch.limit_bytes, 8 * kMiB);
}

TEST(ChunkReceiverTest, TakesTheChunksInOrderAndKnowsTheEnd) {
  const std::uint64_t size = 2 * kMiB + 5;
  ChunkReceiver receiver = receiver_of(size);
  EXPECT_EQ(verdict(receiver, chunk_at(0, size)), Code::kOk);
  EXPECT_EQ(verdict(receiver, chunk_at(kMiB, size)), Code::kOk);
  EXPECT_FALSE(receiver.received_all());
  EXPECT_EQ(verdict(receiver, chunk_at(2 * kMiB, size)), Code::kOk);
  EXPECT_TRUE(receiver.received_all());
  EXPECT_EQ(receiver.received_bytes(), size);
  EXPECT_EQ(receiver.blob_digest(), kBlobDigest);
}

TEST(ChunkReceiverTest, AnEmptyBlobIsOneEmptyChunk) {
  ChunkReceiver receiver = receiver_of(0);
  EXPECT_EQ(verdict(receiver, chunk_at(0, 0)), Code::kOk);
  EXPECT_TRUE(receiver.received_all());
  EXPECT_EQ(verdict(receiver, chunk_at(0, 0)), Code::kAlreadyExists);
}

TEST(ChunkReceiverTest, LearnsFromTheFirstChunkWhatItDoesNotExpect) {
  CheckpointId newest = checkpoint();
  newest.version = Version{};
  ChunkReceiver receiver(9, ExpectedBlob{newest, std::nullopt, 0}, kTransferWindowBytes);
  EXPECT_EQ(verdict(receiver, chunk_at(0, 2 * kMiB)), Code::kOk);
  EXPECT_EQ(receiver.checkpoint(), checkpoint());
  EXPECT_EQ(receiver.size_bytes(), 2 * kMiB);
  EXPECT_EQ(receiver.chunk_size_bytes(), kChunk);
  wire::Chunk of_a_newer_one = chunk_at(kMiB, 2 * kMiB);
  of_a_newer_one.version.seq = 4;
  EXPECT_EQ(verdict(receiver, of_a_newer_one), Code::kProtocol);
}

TEST(ChunkReceiverTest, GoesOnAtTheFirstChunkThatDidNotArrive) {
  ChunkReceiver receiver = receiver_of(20 * kMiB);
  ASSERT_EQ(verdict(receiver, chunk_at(0, 20 * kMiB)), Code::kOk);
  ASSERT_EQ(verdict(receiver, chunk_at(kMiB, 20 * kMiB)), Code::kOk);
  EXPECT_EQ(receiver.fetch().offset_bytes, 2 * kMiB);
  EXPECT_EQ(receiver.fetch().limit_bytes, 8 * kMiB) << "nothing was taken, so nothing more is granted";
  EXPECT_EQ(verdict(receiver, chunk_at(kMiB, 20 * kMiB)), Code::kAlreadyExists);
  EXPECT_EQ(receiver.received_bytes(), 2 * kMiB);
}

TEST(ChunkReceiverTest, GrantsCreditOnlyForWhatWasTakenAndInHalfWindows) {
  ChunkReceiver receiver = receiver_of(100 * kMiB);
  for (std::uint64_t i = 0; i < 8; ++i)
    ASSERT_EQ(verdict(receiver, chunk_at(i * kMiB, 100 * kMiB)), Code::kOk);
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(receiver.on_taken(kMiB).has_value());
  const auto first = receiver.on_taken(kMiB);
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(first->transfer_id, 9U);
  EXPECT_EQ(first->limit_bytes, 12 * kMiB) << "absolute: the 4 MiB taken and a window";
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(receiver.on_taken(kMiB).has_value());
  const auto second = receiver.on_taken(kMiB);
  ASSERT_TRUE(second.has_value());
  EXPECT_EQ(second->limit_bytes, 16 * kMiB);
}

TEST(ChunkReceiverTest, GrantsNothingWhenTheCreditReachesTheEnd) {
  ChunkReceiver receiver = receiver_of(8 * kMiB);
  for (std::uint64_t i = 0; i < 7; ++i) {
    ASSERT_EQ(verdict(receiver, chunk_at(i * kMiB, 8 * kMiB)), Code::kOk);
    EXPECT_FALSE(receiver.on_taken(kMiB).has_value());
  }
}

TEST(ChunkReceiverTest, RefusesWhatIsBeyondTheCredit) {
  ChunkReceiver receiver = receiver_of(9 * kMiB);
  for (std::uint64_t i = 0; i < 8; ++i) ASSERT_EQ(verdict(receiver, chunk_at(i * kMiB, 9 * kMiB)), Code::kOk);
  EXPECT_EQ(verdict(receiver, chunk_at(8 * kMiB, 9 * kMiB)), Code::kProtocol);
}

TEST(ChunkReceiverTest, RefusesEachLie) {
  const std::uint64_t size = 3 * kMiB + 5;
  const auto refused = [&](std::uint64_t offset_bytes, auto lie) {
    ChunkReceiver receiver = receiver_of(size);
    for (std::uint64_t at = 0; at < offset_bytes; at += kMiB)
      EXPECT_EQ(verdict(receiver, chunk_at(at, size)), Code::kOk);
    wire::Chunk chunk = chunk_at(offset_bytes, size);
    std::size_t frame_bytes = chunk.size_bytes;
    lie(chunk, frame_bytes);
    const bool is_refused = receiver.on_chunk(chunk, frame_bytes).code() == Code::kProtocol;
    EXPECT_EQ(receiver.received_bytes() < size, true);
    return is_refused;
  };
  using C = wire::Chunk;
  EXPECT_TRUE(refused(0, [](C& c, std::size_t&) { c.offset_bytes = kMiB; })) << "a gap";
  EXPECT_TRUE(refused(0, [](C&, std::size_t& frame) { --frame; })) << "a frame shorter than it says";
  EXPECT_TRUE(refused(0, [](C&, std::size_t& frame) { ++frame; })) << "a frame longer than it says";
  EXPECT_TRUE(refused(0, [](C& c, std::size_t& frame) { frame = c.size_bytes = 5; }))
      << "a short chunk inside";
  EXPECT_TRUE(refused(3 * kMiB, [](C& c, std::size_t& frame) { frame = c.size_bytes = 6; }))
      << "a long last chunk";
  EXPECT_TRUE(refused(0, [](C& c, std::size_t&) { c.version.seq = 4; }));
  EXPECT_TRUE(refused(0, [](C& c, std::size_t&) { c.version.incarnation = 1; }));
  EXPECT_TRUE(refused(0, [](C& c, std::size_t&) { c.blob_size_bytes += 1; }));
  EXPECT_TRUE(refused(0, [](C& c, std::size_t&) { c.chunk_size_bytes /= 2; }));
  EXPECT_TRUE(refused(0, [](C& c, std::size_t&) { c.last = true; })) << "an early end";
}

TEST(ChunkReceiverTest, RefusesABlobWithoutItsEndMark) {
  ChunkReceiver receiver = receiver_of(5);
  wire::Chunk chunk = chunk_at(0, 5);
  chunk.last = false;
  EXPECT_EQ(verdict(receiver, chunk), Code::kProtocol);
  EXPECT_FALSE(receiver.received_all());
}

}  // namespace
}  // namespace cms::broker
