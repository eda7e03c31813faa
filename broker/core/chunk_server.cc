#include "broker/core/chunk_server.h"

#include <algorithm>

namespace cms::broker {

Status ChunkServer::start(Instant now, const PeerId& peer, const wire::Fetch& fetch, const ServedBlob& blob) {
  const bool inside =
      fetch.offset_bytes < blob.size_bytes || (fetch.offset_bytes == 0 && blob.size_bytes == 0);
  if (!inside || fetch.offset_bytes % blob.chunk_size_bytes != 0) {
    return make_error(Code::kInvalidArgument,
                      "offset " + std::to_string(fetch.offset_bytes) + " is not a chunk boundary of " +
                          to_string(blob.checkpoint) + " (" + std::to_string(blob.size_bytes) +
                          " bytes in chunks of " + std::to_string(blob.chunk_size_bytes) + ")");
  }
  const TransferKey key{peer, fetch.transfer_id};
  const auto old = transfers_.find(key);
  if (old != transfers_.end()) end(old);
  if (transfers_.size() >= kTransferCountMax) {
    return make_error(Code::kLimit, std::to_string(kTransferCountMax) + " transfers are open");
  }
  Transfer transfer;
  transfer.blob = blob;
  transfer.next_offset_bytes = fetch.offset_bytes;
  transfer.limit_bytes = fetch.limit_bytes;
  transfer.heard_at = now;
  ++serving_count_[blob.checkpoint];
  Transfer& placed = transfers_.emplace(key, transfer).first->second;
  queue_if_ready(key, placed);
  return ok_status();
}

void ChunkServer::on_credit(Instant now, const PeerId& peer, const wire::Credit& credit) {
  const TransferKey key{peer, credit.transfer_id};
  const auto it = transfers_.find(key);
  if (it == transfers_.end()) return;  // Ended already: a late credit is harmless.
  it->second.heard_at = now;
  it->second.limit_bytes = std::max(it->second.limit_bytes, credit.limit_bytes);
  queue_if_ready(key, it->second);
}

std::optional<CheckpointId> ChunkServer::cancel(const PeerId& peer, std::uint64_t transfer_id) {
  const auto it = transfers_.find(TransferKey{peer, transfer_id});
  if (it == transfers_.end()) return std::nullopt;
  const CheckpointId checkpoint = it->second.blob.checkpoint;
  end(it);
  return checkpoint;
}

void ChunkServer::on_peer_gone(const PeerId& peer) {
  auto it = transfers_.lower_bound(TransferKey{peer, 0});
  while (it != transfers_.end() && it->first.first == peer) end(it++);
}

std::vector<std::pair<PeerId, std::uint64_t>> ChunkServer::end_transfers_of(const CheckpointId& checkpoint) {
  std::vector<std::pair<PeerId, std::uint64_t>> ended;
  if (!serves(checkpoint)) return ended;
  for (auto it = transfers_.begin(); it != transfers_.end();) {
    const auto current = it++;
    if (current->second.blob.checkpoint == checkpoint) {
      ended.push_back(current->first);
      end(current);
    }
  }
  return ended;
}

std::optional<ChunkTask> ChunkServer::next() {
  if (ready_.empty()) return std::nullopt;
  const auto it = transfers_.find(ready_.begin()->second);
  CMS_ASSERT(it != transfers_.end());
  ready_.erase(ready_.begin());
  Transfer& transfer = it->second;
  transfer.turn = 0;

  ChunkTask task;
  task.peer = it->first.first;
  task.transfer_id = it->first.second;
  task.blob = transfer.blob;
  task.offset_bytes = transfer.next_offset_bytes;
  task.size_bytes = static_cast<std::uint32_t>(std::min<std::uint64_t>(
      transfer.blob.chunk_size_bytes, transfer.blob.size_bytes - transfer.next_offset_bytes));
  transfer.next_offset_bytes += task.size_bytes;
  task.last = transfer.next_offset_bytes == transfer.blob.size_bytes;
  if (task.last) {
    end(it);
  } else {
    queue_if_ready(it->first, transfer);
  }
  return task;
}

void ChunkServer::expire(Instant now) {
  for (auto it = transfers_.begin(); it != transfers_.end();) {
    const auto current = it++;
    if (current->second.turn == 0 && now - current->second.heard_at > kTransferIdleMax) end(current);
  }
}

void ChunkServer::queue_if_ready(const TransferKey& key, Transfer& transfer) {
  if (transfer.turn != 0) return;
  const std::uint64_t end_of_next = std::min<std::uint64_t>(
      transfer.next_offset_bytes + transfer.blob.chunk_size_bytes, transfer.blob.size_bytes);
  if (transfer.limit_bytes < end_of_next) return;  // Whole chunks only.
  transfer.turn = ++last_turn_;
  ready_.emplace(transfer.turn, key);
}

void ChunkServer::end(std::map<TransferKey, Transfer>::iterator it) {
  const auto count = serving_count_.find(it->second.blob.checkpoint);
  CMS_ASSERT(count != serving_count_.end() && count->second > 0);
  if (--count->second == 0) serving_count_.erase(count);
  if (it->second.turn != 0) ready_.erase(it->second.turn);
  transfers_.erase(it);
}

}  // namespace cms::broker
