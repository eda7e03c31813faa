#pragma once
// What an NFS client can do at most: libnfs's asynchronous raw calls on one connection, so many under way
// at once, and nothing else: no digests, no header, no index, no retries. Everything it writes is durable
// when a call returns, data and name, and every write verifier was compared.
//
// Threads: none; each call serves the connection until it is done. Errors end the benchmark.
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "test/bench/sides.h"

struct rpc_context;

namespace cms::bench {

class RawNfs {
 public:
  // An export named /cms of 127.0.0.1 (test/support/ganesha.h).
  RawNfs(std::uint16_t nfs_port, std::uint16_t mount_port);
  ~RawNfs();
  RawNfs(const RawNfs&) = delete;
  RawNfs& operator=(const RawNfs&) = delete;

  // One file in the export, anew: CREATE, WRITE of 1 MiB each, unstable, COMMIT.
  void write(const std::string& name, const void* data, std::uint64_t size_bytes, std::size_t in_flight = 8);
  // The whole of one file of at least `size_bytes`, READ of 1 MiB each.
  void read(const std::string& name, void* target, std::uint64_t size_bytes, std::size_t in_flight = 8);
  // How a file gets its final name: RENAME, or LINK and later REMOVE of the other name.
  enum class Naming { kRename, kLink };
  // Files PREFIX0, PREFIX1, … of `size_bytes`, from consecutive bytes of `data`, each by CREATE under
  // another name, WRITE (FILE_SYNC, at most 1 MiB), its naming, and COMMIT, which makes the name durable; so many
  // files are under way at once. All are in one directory. The files must not exist.
  void write_many(const std::string& prefix, const void* data, std::size_t count, std::uint64_t size_bytes,
                  std::size_t in_flight, Naming naming);
  void wait_for_removals();  // Of other names, after Naming::kLink.
  void remove(const std::string& name);

 private:
  using Callback = void (*)(rpc_context*, int, void*, void*);
  using Encode = std::function<int(Callback, void*)>;
  using Answer = std::function<void(const void*)>;

  // Sends a call; `answer` gets its result. Both end the benchmark when the connection fails.
  void call(const char* what, const Encode& encode, Answer answer);
  void serve_until(const std::function<bool()>& done);
  void wait(const char* what, const Encode& encode, Answer answer);
  std::string create(const std::string& name);
  std::string lookup(const std::string& name);
  struct OneFile;
  void write_one(const std::string& name, const char* data, std::uint64_t size_bytes, Naming naming,
                 std::function<void()> then);
  void name_one(const std::shared_ptr<OneFile>& file);
  void commit_one(const std::shared_ptr<OneFile>& file);

  rpc_context* rpc_ = nullptr;
  std::string root_;
  std::size_t removals_ = 0;  // Under way.
};

// The bytes of a Source as one file. `nfs` must outlive it.
std::unique_ptr<Side> make_raw_nfs(RawNfs& nfs, std::size_t in_flight = 8);
// The bytes of a Source as so many files of the same size.
std::unique_ptr<Side> make_raw_nfs_many(RawNfs& nfs, std::size_t count, std::size_t in_flight,
                                        RawNfs::Naming naming = RawNfs::Naming::kRename);

}  // namespace cms::bench
