#pragma once
// BlobServer serves stored checkpoints to whoever fetches them (rtcr get, cms-admin get, later the
// target of a restore), with the same exchange by which a publisher serves a CMS.
//
// Threads: loop only; reading the store is done by a worker. Bounds: kReaderCountMax fetches at once,
// kReadsUnderWayMax chunks in memory; both refuse with kLimit beyond.
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "broker/core/chunk_server.h"
#include "cms/daemon/index_keeper.h"
#include "cms/daemon/worker.h"
#include "net/socket.h"
#include "storage/blob_store.h"

namespace cms::daemon {

inline constexpr std::size_t kReaderCountMax = 256;
inline constexpr std::size_t kReadsUnderWayMax = 16;
inline constexpr int kOpenTriesMax = 3;

class BlobServer {
 public:
  BlobServer(storage::BlobStore& store, IndexKeeper& keeper, Outbox& outbox);
  ~BlobServer() { stop(); }
  void stop() { worker_.stop(); }

  // A message of `routing_id` on `router`, which outlives this.
  void on_message(Instant now, zmq::socket_t& router, const std::string& routing_id,
                  const wire::BulkBody& message);
  void expire(Instant now);
  std::vector<CheckpointId> reading() const;  // What has been opened and not read to its end.
  std::size_t transfer_count() const { return readers_.size(); }

 private:
  struct Peer {
    zmq::socket_t* router = nullptr;
    std::string routing_id;
  };
  using Key = std::pair<broker::PeerId, std::uint64_t>;

  void on_fetch(Instant now, const broker::PeerId& peer_id, const wire::Fetch& fetch);
  void resolve(const Key& key, const wire::Fetch& fetch, int tries_left);
  void on_opened(Instant now, const Key& key, const wire::Fetch& fetch, const storage::BlobName& name,
                 Result<std::shared_ptr<storage::BlobReader>> reader);
  void pump();
  void on_chunk_read(const broker::ChunkTask& task, const std::shared_ptr<storage::BlobReader>& reader,
                     Result<broker::ChunkView> bytes);
  void refuse(const broker::PeerId& peer_id, std::uint64_t transfer_id, const Error& error);
  void end(const Key& key);
  bool send(const broker::PeerId& peer_id, const wire::BulkBody& header, broker::ChunkView* bytes);

  storage::BlobStore& store_;
  IndexKeeper& keeper_;
  Outbox& outbox_;
  broker::ChunkServer server_;
  std::map<broker::PeerId, Peer> peers_;
  std::map<Key, std::shared_ptr<storage::BlobReader>> readers_;  // Null while it is being opened.
  std::size_t reads_under_way_ = 0;
  Worker worker_;  // Last: its end precedes that of what it uses.
};

}  // namespace cms::daemon
