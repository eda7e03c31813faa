#pragma once
// ChunkReceiver is the pulling half of the bulk exchange: what to ask for, what may arrive, how much
// credit to give. Credit is an absolute offset and grows when the caller says that bytes were taken
// (written, not merely received), in steps of half a window: back-pressure reaches the sender, and a
// transfer never has more than a window in memory.
//
// Threads: none, no I/O. The caller verifies the digests (in a worker) and keeps the bytes.
#include <cstddef>
#include <cstdint>
#include <optional>

#include "base/result.h"
#include "schemas/messages.h"

namespace cms::broker {

inline constexpr std::uint64_t kTransferWindowBytes = 8U * 1024 * 1024;  // docs/adr/0004

struct ExpectedBlob {
  CheckpointId checkpoint{};                  // Version seq 0: whatever is newest.
  std::optional<std::uint64_t> size_bytes{};  // Not given: learnt from the first chunk.
  std::uint32_t chunk_size_bytes = 0;         // 0: learnt from the first chunk.
};

class ChunkReceiver {
 public:
  ChunkReceiver(std::uint64_t transfer_id, const ExpectedBlob& expected, std::uint64_t window_bytes);

  // The Fetch that starts it, or that goes on at `next_offset_bytes` after a lost connection.
  // Chunks received but not yet taken then arrive no second time.
  wire::Fetch fetch() const;
  // Checks that the chunk is the next one, that its sizes fit what was promised and the credit given.
  // kProtocol: the sender lies; end the transfer. kAlreadyExists: a repeat of one that was received
  // (after a resumed fetch); ignore it.
  Status on_chunk(const wire::Chunk& chunk, std::size_t frame_size_bytes);
  // `size_bytes` more have been taken. Returns the credit to send, if it is time for it.
  std::optional<wire::Credit> on_taken(std::uint64_t size_bytes);

  bool received_all() const { return received_all_; }
  std::uint64_t transfer_id() const { return transfer_id_; }
  std::uint64_t received_bytes() const { return next_offset_bytes_; }
  // Of the blob; known once the first chunk has come or when it was expected so.
  std::uint64_t size_bytes() const { return expected_.size_bytes.value_or(0); }
  std::uint32_t chunk_size_bytes() const { return expected_.chunk_size_bytes; }
  const CheckpointId& checkpoint() const { return expected_.checkpoint; }
  // Of the last chunk. Call when received_all().
  const Digest& blob_digest() const { return blob_digest_; }

 private:
  std::uint64_t transfer_id_;
  ExpectedBlob expected_;
  std::uint64_t window_bytes_;
  std::uint64_t next_offset_bytes_ = 0;
  std::uint64_t taken_bytes_ = 0;
  std::uint64_t limit_bytes_;
  bool received_all_ = false;
  Digest blob_digest_{};
};

}  // namespace cms::broker
