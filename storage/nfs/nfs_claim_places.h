#pragma once
// Where the claims of a store on a NAS are: handles that stay good until somebody replaces what they lead to.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "storage/claim_store.h"
#include "storage/nfs/nfs_calls.h"

namespace cms::storage {

struct NfsClaimPlaces {
  std::string fleet_id;
  NfsHandle claims;
  NfsHandle nodes;
  NfsHandle tmp;                  // tmp/<node>.<incarnation>; empty: see `writable`.
  std::vector<NfsHandle> shards;  // kLogShardCount; an empty one: see `writable`.
  Status writable;                // Why nothing can be appended; what is there can be read.

  const NfsHandle& shard_of(const LogId& log) const { return shards[log_shard_of(log)]; }
};

// Looks them up, and makes the directories of logs that are missing. `path` is the store's, for people.
// kNotFound: there is no store. kUnavailable: there was one of fleet `fleet_id_expected` (empty: any), and
// is none. kForeign: it is another fleet's.
Result<std::shared_ptr<const NfsClaimPlaces>> find_nfs_claim_places(NfsConnection& link,
                                                                    const std::string& path,
                                                                    const std::string& tmp_name,
                                                                    const std::string& fleet_id_expected);

// ClaimStore::self_test, on one connection. `node` and `node_incarnation`: ours.
struct NfsSelfTestOptions {
  std::string path;
  std::string node;
  std::uint64_t node_incarnation = 0;
  std::string draft_name;  // Unique, in our private directory.
};
// What it could not remove again is in *`left`, of our private directory.
Result<SelfTest> run_nfs_self_test(NfsConnection& link, const NfsClaimPlaces& places,
                                   const NfsSelfTestOptions& options, std::vector<std::string>* left);

}  // namespace cms::storage
