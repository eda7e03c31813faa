#pragma once
// Makes names in shards durable, many at the price of few syncs: by one syncfs while that is bounded, else by
// one fsync for each shard, several at a time. Why, with the measurements: docs/adr/0005-group-commit.md.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>

#include "storage/directory/posix_file.h"
#include "storage/directory/store_root.h"

namespace cms::storage {

// Calls `work` for 0 .. count-1 on up to 8 threads, this one among them.
void for_each_in_parallel(std::size_t count, const std::function<void(std::size_t)>& work);

// Whether a syncfs now waits for nobody's gigabytes: it writes back everything that anybody has dirty on that
// file system, and is taken only while the whole host has little to write.
bool little_is_dirty();

// One syncfs for all that a group has written, where that is to be had.
class GroupSync {
 public:
  // Of `count` files on the file system of the directory `root`. Before the first write: syncfs tells of errors
  // since then, and each opening has its own account, so that groups of other threads do not take
  // ours away. `reports_errors`: as syncfs_reports_errors. `path`: for people.
  GroupSync(int root, const std::string& path, bool reports_errors, std::size_t count);
  // Whether it is allowed now; else file by file.
  bool possible() const { return fd_.valid() && little_is_dirty(); }
  // Whose bytes or names failed cannot be told of an error.
  Status run() const;

 private:
  const std::string path_;
  UniqueFd fd_;  // Invalid: never.
};

// With what came of each shard.
std::map<std::uint32_t, Status> sync_shards(const StoreRoot& root, const std::set<std::uint32_t>& shards);

}  // namespace cms::storage
