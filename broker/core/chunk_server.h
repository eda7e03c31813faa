#pragma once
// ChunkServer is the sending half of the bulk exchange: which transfer may send which chunk next. It
// sends only what was asked for and covered by credit, one chunk of each transfer in turn, so that
// a large blob never delays a small one by more than a chunk. The same code serves an ECU's held
// blobs to a CMS and a CMS's stored blobs to whoever fetches them.
//
// Threads: none, no I/O. Bounds: kTransferCountMax transfers; those without any sign from the puller
// for kTransferIdleMax end by expire().
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "base/time.h"
#include "schemas/messages.h"

namespace cms::broker {

// How the transport names a connection; opaque here.
using PeerId = std::string;

inline constexpr std::size_t kTransferCountMax = 8192;
inline constexpr Duration kTransferIdleMax = std::chrono::seconds(30);

struct ServedBlob {
  CheckpointId checkpoint{};
  std::uint64_t size_bytes = 0;
  std::uint32_t chunk_size_bytes = 0;
};

struct ChunkTask {
  PeerId peer{};
  std::uint64_t transfer_id = 0;
  ServedBlob blob{};
  std::uint64_t offset_bytes = 0;
  std::uint32_t size_bytes = 0;
  bool last = false;
};

class ChunkServer {
 public:
  // Starts (or, for a known transfer_id of this peer, restarts) a transfer of `blob`.
  // kInvalidArgument: the offset is not a chunk boundary inside the blob. kLimit: too many.
  Status start(Instant now, const PeerId& peer, const wire::Fetch& fetch, const ServedBlob& blob);
  void on_credit(Instant now, const PeerId& peer, const wire::Credit& credit);
  // Returns which blob it was of; nullopt: the transfer had ended.
  std::optional<CheckpointId> cancel(const PeerId& peer, std::uint64_t transfer_id);
  void on_peer_gone(const PeerId& peer);
  // Ends all transfers of this blob; the caller tells their pullers.
  std::vector<std::pair<PeerId, std::uint64_t>> end_transfers_of(const CheckpointId& checkpoint);

  // The next chunk to send, if any transfer has credit. The task counts as done: call once per send.
  std::optional<ChunkTask> next();
  bool has_work() const { return !ready_.empty(); }
  bool serves(const CheckpointId& checkpoint) const { return serving_count_.count(checkpoint) != 0; }
  bool has_transfer(const PeerId& peer, std::uint64_t transfer_id) const {
    return transfers_.count(TransferKey{peer, transfer_id}) != 0;
  }
  std::size_t transfer_count() const { return transfers_.size(); }
  // Ends transfers that wait for credit since kTransferIdleMax.
  void expire(Instant now);

 private:
  using TransferKey = std::pair<PeerId, std::uint64_t>;
  struct Transfer {
    ServedBlob blob{};
    std::uint64_t next_offset_bytes = 0;
    std::uint64_t limit_bytes = 0;
    Instant heard_at{};
    std::uint64_t turn = 0;  // In ready_; 0: waits for credit.
  };
  void queue_if_ready(const TransferKey& key, Transfer& transfer);
  void end(std::map<TransferKey, Transfer>::iterator it);

  std::map<TransferKey, Transfer> transfers_{};
  std::map<std::uint64_t, TransferKey> ready_{};  // By turn; each transfer at most once, ended ones never.
  std::uint64_t last_turn_ = 0;
  std::map<CheckpointId, std::size_t> serving_count_{};
};

}  // namespace cms::broker
