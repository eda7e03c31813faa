#include "cms/daemon/blob_server.h"

#include <functional>
#include <memory>
#include <utility>
#include <vector>

namespace cms::daemon {

using broker::ChunkView;
using broker::PeerId;

namespace {

// ZeroMQ calls it on an I/O thread when the bytes are with the kernel.
void free_chunk(void*, void* owner) { delete static_cast<std::shared_ptr<const void>*>(owner); }

// Routing ids are unique on one socket only.
PeerId peer_id_of(const zmq::socket_t& router, const std::string& routing_id) {
  return std::to_string(reinterpret_cast<std::uintptr_t>(&router)) + "/" + routing_id;
}

}  // namespace

BlobServer::BlobServer(storage::BlobStore& store, storage::CheckpointIndex& index, IndexKeeper& keeper,
                       Scrubber& scrubber, Outbox& outbox)
    : store_(store), index_(index), keeper_(keeper), scrubber_(scrubber), outbox_(outbox) {
  for (std::size_t i = 0; i < kReadLaneCount; ++i) {
    lanes_.push_back(std::make_unique<Worker>("blob-read-" + std::to_string(i)));
  }
}

void BlobServer::stop() {
  for (const auto& lane : lanes_) lane->stop();
}

// Those who fetch count their transfers, from 1.
Worker& BlobServer::lane_of(const Key& key) {
  return *lanes_[(std::hash<broker::PeerId>()(key.first) + key.second) % lanes_.size()];
}

void BlobServer::on_message(Instant now, zmq::socket_t& router, IndexKeeper::Purpose purpose,
                            const std::string& routing_id, const wire::BulkBody& message) {
  const PeerId peer_id = peer_id_of(router, routing_id);
  if (const auto* fetch = std::get_if<wire::Fetch>(&message)) {
    peers_[peer_id] = Peer{&router, routing_id, purpose};
    on_fetch(now, peer_id, *fetch);
  } else if (const auto* credit = std::get_if<wire::Credit>(&message)) {
    server_.on_credit(now, peer_id, *credit);
    pump();
  } else if (const auto* cancel = std::get_if<wire::Cancel>(&message)) {
    server_.cancel(peer_id, cancel->transfer_id);
    end(Key{peer_id, cancel->transfer_id});
  }  // Chunks and errors are what we send; from a puller they mean nothing.
}

void BlobServer::on_fetch(Instant, const PeerId& peer_id, const wire::Fetch& fetch) {
  const Key key{peer_id, fetch.transfer_id};
  const auto known = readers_.find(key);
  if (known != readers_.end() && known->second.reader == nullptr)
    return;  // A repeat while it is being opened.
  if (readers_.size() >= kReaderCountMax) {
    refuse(peer_id, fetch.transfer_id,
           make_error(Code::kLimit, std::to_string(kReaderCountMax) + " fetches are open"));
    return;
  }
  readers_[key] = Reading{};
  if (fetch.checkpoint.version.seq != 0 && keeper_.has_looked_at_store()) {
    open_known(key, fetch);
  } else {
    resolve(key, fetch, kOpenTriesMax);
  }
}

void BlobServer::open_known(const Key& key, const wire::Fetch& fetch) {
  lane_of(key).post([this, key, fetch] {
    const auto row = index_.find(fetch.checkpoint);
    if (row.ok() && *row) return open_now(key, fetch, (*row)->name, kOpenTriesMax);
    outbox_.push([this, key, fetch](Instant, core::Effects&) {
      if (readers_.count(key) != 0) resolve(key, fetch, kOpenTriesMax);
    });
  });
}

// What the index names may be gone: of two blobs of one checkpoint a peer has just removed one. Then the
// row goes, and the next one is looked for.
void BlobServer::resolve(const Key& key, const wire::Fetch& fetch, int tries_left) {
  const auto peer = peers_.find(key.first);
  if (peer == peers_.end()) return end(key);
  const IndexKeeper::Purpose purpose = peer->second.purpose;
  keeper_.resolve(fetch.checkpoint, purpose, [this, key, fetch, tries_left](Result<storage::BlobName> name) {
    if (readers_.count(key) == 0) return;  // Cancelled.
    if (!name.ok()) {
      refuse(key.first, key.second, name.error());
      return;
    }
    lane_of(key).post(
        [this, key, fetch, tries_left, name = *name] { open_now(key, fetch, name, tries_left); });
  });
}

void BlobServer::open_now(const Key& key, const wire::Fetch& fetch, const storage::BlobName& name,
                          int tries_left) {
  auto opened = store_.open(name);
  Result<std::shared_ptr<storage::BlobReader>> reader =
      opened.ok() ? Result<std::shared_ptr<storage::BlobReader>>(std::move(*opened)) : opened.error();
  outbox_.push([this, key, fetch, tries_left, name, reader](Instant now, core::Effects&) {
    if (reader.ok() || reader.error().code != Code::kNotFound || readers_.count(key) == 0) {
      on_opened(now, key, fetch, name, reader);
      return;
    }
    keeper_.forget(name);  // Before the next look into the index: one worker does both.
    if (tries_left > 1) {
      resolve(key, fetch, tries_left - 1);
    } else {
      refuse(key.first, key.second, reader.error());
    }
  });
}

void BlobServer::on_opened(Instant now, const Key& key, const wire::Fetch& fetch,
                           const storage::BlobName& name,
                           Result<std::shared_ptr<storage::BlobReader>> reader) {
  const auto it = readers_.find(key);
  if (it == readers_.end()) return;  // Cancelled.
  if (!reader.ok() && reader.error().code == Code::kCorrupt) {
    on_corrupt(key, name, std::nullopt, reader.error());
    return;
  }
  if (!reader.ok()) {
    refuse(key.first, key.second, reader.error());
    return;
  }
  const broker::ServedBlob blob{name.checkpoint, name.size_bytes, (*reader)->manifest().chunk_size_bytes};
  it->second = Reading{name, std::move(*reader)};
  const Status started = server_.start(now, key.first, fetch, blob);
  if (!started.ok()) {
    refuse(key.first, key.second, started.error());
    return;
  }
  pump();
}

void BlobServer::pump() {
  while (reads_under_way_ < kReadsUnderWayMax) {
    const auto task = server_.next();
    if (!task) return;
    const auto it = readers_.find(Key{task->peer, task->transfer_id});
    if (it == readers_.end() || it->second.reader == nullptr) continue;
    ++reads_under_way_;
    lane_of(it->first).post([this, task = *task, reader = it->second.reader] {
      // Not zeroed: that took longer than reading a small blob.
      const auto buffer = std::make_shared_for_overwrite<std::uint8_t[]>(task.blob.chunk_size_bytes);
      const auto read = reader->read_chunk(task.offset_bytes / task.blob.chunk_size_bytes, buffer.get());
      Result<ChunkView> bytes = read.ok() ? Result<ChunkView>(ChunkView{buffer.get(), *read, buffer})
                                          : Result<ChunkView>(read.error());
      outbox_.push(
          [this, task, reader, bytes](Instant, core::Effects&) { on_chunk_read(task, reader, bytes); });
    });
  }
}

void BlobServer::on_chunk_read(const broker::ChunkTask& task,
                               const std::shared_ptr<storage::BlobReader>& reader, Result<ChunkView> bytes) {
  --reads_under_way_;
  const Key key{task.peer, task.transfer_id};
  const auto it = readers_.find(key);
  if (it != readers_.end() && it->second.reader == reader) {
    if (!bytes.ok() && bytes.error().code == Code::kCorrupt) {
      on_corrupt(key, it->second.name, task.offset_bytes / task.blob.chunk_size_bytes, bytes.error());
    } else if (!bytes.ok()) {
      refuse(task.peer, task.transfer_id, bytes.error());
    } else {
      const wire::Manifest& manifest = reader->manifest();
      wire::Chunk header;
      header.transfer_id = task.transfer_id;
      header.offset_bytes = task.offset_bytes;
      header.size_bytes = task.size_bytes;
      header.digest = manifest.chunk_digests[task.offset_bytes / task.blob.chunk_size_bytes];
      header.version = task.blob.checkpoint.version;
      header.blob_size_bytes = task.blob.size_bytes;
      header.chunk_size_bytes = task.blob.chunk_size_bytes;
      header.last = task.last;
      if (task.last) header.blob_digest = manifest.blob_digest;
      if (!send(task.peer, header, &*bytes)) {
        server_.on_peer_gone(task.peer);
        for (auto reader_it = readers_.lower_bound(Key{task.peer, 0});
             reader_it != readers_.end() && reader_it->first.first == task.peer;) {
          reader_it = readers_.erase(reader_it);
        }
        peers_.erase(task.peer);
      } else if (task.last) {
        end(key);
      }
    }
  }
  pump();
}

// The fetch ends, but not before it is known what becomes of the blob.
void BlobServer::on_corrupt(const Key& key, const storage::BlobName& name, std::optional<std::uint64_t> chunk,
                            const Error& error) {
  readers_[key] = Reading{name, nullptr};
  server_.cancel(key.first, key.second);
  scrubber_.suspect(name, chunk, [this, key, name, error](const Result<bool>& damaged, core::Effects&) {
    const auto it = readers_.find(key);
    if (it == readers_.end() || it->second.reader != nullptr || !(it->second.name == name)) return;
    const std::string key_text = to_string(name.checkpoint);
    if (!damaged.ok()) {
      refuse(key.first, key.second,
             make_error(Code::kCorrupt, key_text + " is damaged in the store (" + error.context + ")"));
    } else if (*damaged) {
      refuse(key.first, key.second,
             make_error(Code::kCorrupt, key_text + " is damaged in the store and was put into quarantine (" +
                                            error.context + ")"));
    } else {
      refuse(key.first, key.second,
             make_error(Code::kUnavailable,
                        to_string(name.checkpoint) + " read wrong once and right then; try again"));
    }
  });
}

void BlobServer::refuse(const PeerId& peer_id, std::uint64_t transfer_id, const Error& error) {
  (void)send(
      peer_id,
      wire::TransferError{transfer_id, error.code, error.os_errno == 0 ? error.context : error.message()},
      nullptr);
  server_.cancel(peer_id, transfer_id);
  end(Key{peer_id, transfer_id});
}

void BlobServer::end(const Key& key) {
  readers_.erase(key);
  const auto next = readers_.lower_bound(Key{key.first, 0});
  if (next == readers_.end() || next->first.first != key.first) peers_.erase(key.first);
}

bool BlobServer::send(const PeerId& peer_id, const wire::BulkBody& header, ChunkView* bytes) {
  const auto it = peers_.find(peer_id);
  if (it == peers_.end()) return false;
  zmq::socket_t& router = *it->second.router;
  const std::string& routing_id = it->second.routing_id;
  if (net::send(router, routing_id.data(), routing_id.size(), true) != net::Sent::kYes) return false;
  const wire::Bytes encoded = wire::encode(header);
  (void)net::send(router, encoded.data(), encoded.size(), bytes != nullptr);
  if (bytes == nullptr) return true;
  auto* owner = new std::shared_ptr<const void>(std::move(bytes->owner));
  zmq::message_t body(const_cast<void*>(bytes->data), bytes->size_bytes, free_chunk, owner);
  (void)net::send(router, std::move(body), false);
  return true;
}

std::vector<CheckpointId> BlobServer::reading() const {
  std::vector<CheckpointId> checkpoints;
  for (const auto& [key, reading] : readers_) {
    if (reading.name.checkpoint.version.seq != 0) checkpoints.push_back(reading.name.checkpoint);
  }
  return checkpoints;
}

void BlobServer::expire(Instant now) {
  server_.expire(now);
  // A reader whose transfer has expired or been served to the end is of no use any more.
  std::vector<Key> idle;
  for (const auto& [key, reader] : readers_) {
    if (reader.reader != nullptr && !server_.has_transfer(key.first, key.second) && reads_under_way_ == 0)
      idle.push_back(key);
  }
  for (const Key& key : idle) end(key);
}

}  // namespace cms::daemon
