#pragma once
// An opened store on a NAS: found, initialised or refused; with the handles of the places where everything
// else happens, and the connections to reach them. docs/formats/store-layout.md shows the layout.
//
// Threads: NfsPool from any; NfsRoot does not change once opened.
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "storage/blob_store.h"
#include "storage/nfs/nfs_calls.h"
#include "storage/nfs/nfs_connection.h"
#include "storage/nfs/nfs_url.h"
#include "storage/store_format.h"

namespace cms::storage {

using NfsLink = std::shared_ptr<NfsConnection>;

// Two connections carry half as much again as one, and more do not carry more
// (docs/adr/0009-blobs-over-nfs.md).
inline constexpr std::size_t kNfsConnectionCount = 2;

// Names in our private directory whose removal was not answered, to be removed when the NAS is back: else
// each outage would leave what was under way until the next start. Thread-safe.
class NfsLitter {
 public:
  // Beyond kCountMax it is left to the next start.
  void add(const std::string& temp_name);
  std::vector<std::string> take();
  // Removals that nobody waits for.
  NfsInFlight& removals() { return removals_; }

 private:
  static constexpr std::size_t kCountMax = 4096;
  std::mutex mutex_;
  std::vector<std::string> names_;
  NfsInFlight removals_;
};

class NfsPool {
 public:
  explicit NfsPool(NfsTarget target, const NfsTimeouts& timeouts = {});
  // The next one in turn; a dead one is replaced first, and where that fails, or has just failed, a living one
  // is taken. kUnavailable, at once for a while after an attempt has failed; kPermission, kNotFound: the server
  // refuses.
  Result<NfsLink> get();
  // For good: all calls end soon (UNKNOWN), and there are no connections any more.
  void close();
  // Callbacks of a connection may hold it, not the pool, which ends connections.
  const std::shared_ptr<NfsLitter>& litter() const { return litter_; }

 private:
  struct Slot {
    std::mutex mutex;
    NfsLink link;
    Instant not_before{};
    Error failed{};
  };
  Result<NfsLink> get_of(Slot& slot);

  const NfsTarget target_;
  const NfsTimeouts timeouts_;
  std::array<Slot, kNfsConnectionCount> slots_;
  std::atomic<std::size_t> next_{0};
  std::atomic<bool> closed_{false};
  const std::shared_ptr<NfsLitter> litter_ = std::make_shared<NfsLitter>();
};

struct NfsRoot {
  std::string path;  // For people.
  NfsHandle root;
  NfsHandle tmp_all;
  NfsHandle tmp;  // tmp/<node>.<incarnation>; empty: nothing can be written, see `tmp_error`.
  Error tmp_error{};
  std::string tmp_name;
  NfsHandle quarantine;
  NfsHandle claims;
  NfsHandle nodes;
  std::vector<NfsHandle> shards;  // kShardCount
  StoreFormat format;
  const NfsHandle& shard_of_name(const BlobName& name) const { return shards[shard_of(name.lineage)]; }
};

struct NfsRootOptions {
  std::string path;
  std::string node;
  std::uint64_t node_incarnation = 0;
  std::string fleet_id_expected;  // Empty: any.
};

// As BlobStore::open_store. When only our private directory cannot be made (read-only, full), the root is
// usable for reading and removing: then tmp is empty.
Result<std::shared_ptr<const NfsRoot>> open_nfs_root(NfsPool& pool, const NfsRootOptions& options);

// Removals under way before another file is begun.
inline constexpr std::size_t kNfsRemovalsInFlight = 256;

// Removes a file of our private directory, without waiting; what is not answered becomes litter.
void drop_nfs_temp(NfsPool& pool, NfsConnection& link, const NfsRoot& root, const std::string& temp_name);

// The text of the FORMAT file. kNotFound: there is none. kCorrupt: it is too long.
Result<std::string> read_nfs_format(NfsConnection& link, const NfsHandle& root, const std::string& path);

// Makes directories side by side; one that is there is fine.
Status make_nfs_directories(NfsConnection& link, const NfsHandle& parent, const std::string& path,
                            const std::vector<std::string>& names);
// Their handles, in order; empty: there is none of that name.
Result<std::vector<NfsHandle>> find_nfs_directories(NfsConnection& link, const NfsHandle& parent,
                                                    const std::string& path,
                                                    const std::vector<std::string>& names);

// The handle of a directory, which is made if it is not there.
Result<NfsHandle> ensure_nfs_directory(NfsConnection& link, const NfsHandle& parent, const std::string& name,
                                       const std::string& path);

}  // namespace cms::storage
