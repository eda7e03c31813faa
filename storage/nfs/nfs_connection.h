#pragma once
// NfsConnection is one TCP connection to one export, over libnfs's asynchronous raw calls: the only
// file that calls libnfs 4.0.0, and the place where its traps are closed.
//
// - Every call ends, once: with the server's answer, or UNKNOWN (the callback gets nullptr). UNKNOWN
//   means that the server may have done it, may do it later, or never will.
// - After the first call without an answer in its time, or any other trouble, the connection is dead for
//   good and all its calls have ended UNKNOWN: libnfs may have dropped half of a request, and its own
//   reconnecting repeats calls and misreports what became of them. It is never used. Whoever wants to go
//   on opens another connection.
// - No call has its state on a stack: libnfs may come back to a call until the context is destroyed.
//
// Threads: any may submit; callbacks run on the connection's own thread (on the submitting one if the
// connection was dead), with the connection locked: they may submit more, and must not wait. libnfs
// itself has no locks and is only entered with ours. That thread blocks all signals, which would
// make libnfs fail.
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "base/result.h"
#include "base/time.h"
#include "storage/nfs/nfs_url.h"

struct rpc_context;

namespace cms::storage {

// A file handle of the server: opaque, at most 64 bytes, valid on every connection and, as NFSv3 has
// it, over restarts of the server.
using NfsHandle = std::string;

// How long is waited for an answer. What waits for a medium may take its time.
struct NfsTimeouts {
  Duration connect = std::chrono::seconds(5);  // And mount.
  // After an attempt to connect has failed, for so long others fail at once.
  Duration connect_pause = std::chrono::milliseconds(500);
  Duration call = std::chrono::seconds(10);
  Duration write = std::chrono::seconds(30);
  Duration commit = std::chrono::seconds(60);
};

// Counts calls or bytes that are under way, to wait for all or until few are. Thread-safe.
class NfsInFlight {
 public:
  void begin(std::size_t weight);
  void end(std::size_t weight);
  // Until at most so much is under way.
  void wait_until_at_most(std::size_t weight);

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t weight_ = 0;
};

class NfsConnection {
 public:
  // Connects and mounts. kUnavailable: no answer in time; kNotFound: the server has no such
  // export. kPermission: it refuses, or does not want to tell that. `given_up` may become true meanwhile:
  // then it ends soon.
  static Result<std::shared_ptr<NfsConnection>> open(const NfsTarget& target, const NfsTimeouts& timeouts,
                                                     const std::atomic<bool>& given_up);
  // Ends all calls (UNKNOWN). Not to be called from a callback.
  ~NfsConnection();

  NfsConnection(const NfsConnection&) = delete;
  NfsConnection& operator=(const NfsConnection&) = delete;

  // libnfs's rpc_cb.
  using RpcCallback = void (*)(rpc_context*, int status, void* data, void* private_data);
  // Encodes a call into the context with this callback and private data; returns what libnfs returned.
  // Runs before submit returns: what it refers to may go then.
  using Encode = std::function<int(rpc_context*, RpcCallback, void*)>;
  // `result`: the XXX3res of the call, valid until return; nullptr: UNKNOWN, and `trouble` says why.
  using Done = std::function<void(const void* result, const std::string& trouble)>;
  void submit(const Encode& encode, Done done, Duration timeout);

  // Ends all calls (UNKNOWN), soon; the connection is dead then. Does not wait.
  void close();

  bool alive() const { return alive_; }
  // Why it is not alive; empty: it is.
  std::string trouble() const;
  const NfsTimeouts& timeouts() const { return timeouts_; }
  const NfsHandle& root() const { return root_; }
  std::uint32_t read_bytes_max() const { return read_bytes_max_; }    // Of one READ.
  std::uint32_t write_bytes_max() const { return write_bytes_max_; }  // Of one WRITE.
  // Bytes of WRITEs under way: libnfs holds a copy of them. The callers bound it.
  NfsInFlight& writes() { return writes_; }

 private:
  struct Call;
  struct EarlierDeadline {
    bool operator()(const Call* a, const Call* b) const;
  };

  explicit NfsConnection(const NfsTimeouts& timeouts) : timeouts_(timeouts) {}
  Status start(const NfsTarget& target, const std::atomic<bool>& given_up);
  void run();
  void serve(short revents);
  void die(const std::string& why);
  void wake();
  bool on_own_thread() const { return std::this_thread::get_id() == thread_.get_id(); }
  static void on_reply(rpc_context*, int status, void* data, void* private_data);

  const NfsTimeouts timeouts_;
  mutable std::mutex mutex_;  // Guards everything of libnfs and the members from here to `root_`.
  rpc_context* rpc_ = nullptr;
  std::set<Call*, EarlierDeadline> calls_;
  std::string trouble_;
  bool stopping_ = false;
  std::atomic<bool> alive_{false};
  std::atomic<bool> asleep_{false};  // The thread waits in poll and has to be woken for a new call.
  int wake_fd_ = -1;
  NfsHandle root_;
  std::uint32_t read_bytes_max_ = 0;
  std::uint32_t write_bytes_max_ = 0;
  NfsInFlight writes_;
  std::thread thread_;
};

}  // namespace cms::storage
