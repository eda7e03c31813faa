#pragma once
// BlobServer serves stored checkpoints to whoever fetches them (rtcr get, cms-admin get, the
// target of a restore), with the same exchange by which a publisher serves a CMS. A blob that reads as
// corrupt is looked at once more by the scrubber; its fetch fails with kCorrupt when it has left the
// store, so that whoever wants the newest can ask again for the next older one.
//
// What is asked for by its version, as the target of a restore does, is opened under the name that the index has; only
// where that leads to nothing, and for the newest, the keeper compares index and store first. The keeper's worker waits for
// the NAS in other matters as well: up to a minute for a COMMIT.
//
// Threads: loop only; the store is read by kReadLaneCount workers, each fetch by one of them, so that a call which a
// NAS does not answer holds up a few fetches and not all. Bounds: kReaderCountMax fetches at once,
// kReadsUnderWayMax chunks in memory; both refuse with kLimit beyond.
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "broker/core/chunk_server.h"
#include "cms/daemon/index_keeper.h"
#include "cms/daemon/scrubber.h"
#include "cms/daemon/worker.h"
#include "net/socket.h"
#include "storage/blob_store.h"
#include "storage/checkpoint_index.h"

namespace cms::daemon {

inline constexpr std::size_t kReaderCountMax = 256;
inline constexpr std::size_t kReadsUnderWayMax = 16;
inline constexpr std::size_t kReadLaneCount = 4;
inline constexpr int kOpenTriesMax = 3;

class BlobServer {
 public:
  BlobServer(storage::BlobStore& store, storage::CheckpointIndex& index, IndexKeeper& keeper,
             Scrubber& scrubber, Outbox& outbox);
  ~BlobServer() { stop(); }
  void stop();

  // A message of `routing_id` on `router`, which outlives this. `purpose`: what those who come that way fetch for.
  void on_message(Instant now, zmq::socket_t& router, IndexKeeper::Purpose purpose,
                  const std::string& routing_id, const wire::BulkBody& message);
  void expire(Instant now);
  std::vector<CheckpointId> reading() const;  // What has been opened and not read to its end.
  std::size_t transfer_count() const { return readers_.size(); }

 private:
  struct Peer {
    zmq::socket_t* router = nullptr;
    std::string routing_id;
    IndexKeeper::Purpose purpose = IndexKeeper::Purpose::kLook;
  };
  using Key = std::pair<broker::PeerId, std::uint64_t>;

  Worker& lane_of(const Key& key);
  void on_fetch(Instant now, const broker::PeerId& peer_id, const wire::Fetch& fetch);
  void open_known(const Key& key, const wire::Fetch& fetch);
  void resolve(const Key& key, const wire::Fetch& fetch, int tries_left);
  void open_now(const Key& key, const wire::Fetch& fetch, const storage::BlobName& name,
                int tries_left);  // On a lane.
  void on_opened(Instant now, const Key& key, const wire::Fetch& fetch, const storage::BlobName& name,
                 Result<std::shared_ptr<storage::BlobReader>> reader);
  void pump();
  void on_chunk_read(const broker::ChunkTask& task, const std::shared_ptr<storage::BlobReader>& reader,
                     Result<broker::ChunkView> bytes);
  void on_corrupt(const Key& key, const storage::BlobName& name, std::optional<std::uint64_t> chunk,
                  const Error& error);
  void refuse(const broker::PeerId& peer_id, std::uint64_t transfer_id, const Error& error);
  void end(const Key& key);
  bool send(const broker::PeerId& peer_id, const wire::BulkBody& header, broker::ChunkView* bytes);

  storage::BlobStore& store_;
  storage::CheckpointIndex& index_;
  IndexKeeper& keeper_;
  Scrubber& scrubber_;
  Outbox& outbox_;
  broker::ChunkServer server_;
  std::map<broker::PeerId, Peer> peers_;
  struct Reading {
    storage::BlobName name;
    std::shared_ptr<storage::BlobReader> reader;  // Null while it is being opened, or looked at again.
  };
  std::map<Key, Reading> readers_;
  std::size_t reads_under_way_ = 0;
  std::vector<std::unique_ptr<Worker>> lanes_;  // Last: their end precedes that of what they use.
};

}  // namespace cms::daemon
