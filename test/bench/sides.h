#pragma once
// What publish → STORED is measured against: other ways to have a file or many of them durable on the
// other side of a loopback connection. Each gets the same bytes, the same file system and the same
// point of durability (fsync); none is asked to sync directories, which ours does.
//
// Errors: a side that fails ends the benchmark; one that is not installed is left out (nullptr).
#include <cstdint>
#include <memory>
#include <string>

#include "test/bench/bench.h"

namespace cms::bench {

// The bytes to store, in memory and as a file in the page cache.
struct Source {
  std::string path;
  const void* data = nullptr;
  std::uint64_t size_bytes = 0;
};

class Side {
 public:
  Side() = default;
  virtual ~Side() = default;
  Side(const Side&) = delete;
  Side& operator=(const Side&) = delete;

  virtual std::string name() const = 0;
  virtual bool counts() const { return true; }  // Among those the best of which is to be beaten.
  // Stores; the seconds until it is known to be durable.
  virtual double store(const Source& source) = 0;
  virtual void clean_up() = 0;  // Removes what store() has made; not measured.
};

// dd to the same file system: no network, no other side; shown as the floor.
std::unique_ptr<Side> make_dd(const std::string& directory);
// rsync -W --inplace --fsync to a daemon.
std::unique_ptr<Side> make_rsync(const std::string& directory);
// curl -T to nginx; nginx does not sync, so we do.
std::unique_ptr<Side> make_nginx(const std::string& directory);
// The whole in one message to another process, which writes, syncs and answers.
std::unique_ptr<Side> make_naive_zmq(const std::string& directory);
int run_naive_sink(const std::string& endpoint, const std::string& directory);

// Of a directory of files.
std::unique_ptr<Side> make_rsync_many(const std::string& directory);
// open, write, fsync, close, each; by one thread, without a network. `source.path` is a directory.
std::unique_ptr<Side> make_fsync_each(const std::string& directory);

}  // namespace cms::bench
