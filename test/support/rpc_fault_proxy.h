#pragma once
// Stands between an NFSv3 client and its server and does to single RPCs what networks and servers do:
// loses, delays, doubles, cuts, answers with an error. It knows each call by its procedure and pairs
// replies with it, over any number of connections, to the NFS port and to the mount port.
//
// What it forwards, the server executes, even if the client is gone by then; what it does not forward
// never happens. A request it holds outlives its client's connection, and so can be executed late.
//
// Threads: one of its own; every call may come from any thread, and is in force when it returns. What
// decide_by() is given runs in the proxy's thread, may take its time (kill the server, say) and may call
// the proxy; a Ganesha that is restarted there dies with the proxy. Memory: messages held (hold) plus 16 MiB for each connection.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"

namespace cms::test {

// NFSv3 by its numbers, MOUNT from 100.
enum class Procedure : std::uint32_t {
  kNull = 0,
  kGetattr = 1,
  kSetattr = 2,
  kLookup = 3,
  kAccess = 4,
  kReadlink = 5,
  kRead = 6,
  kWrite = 7,
  kCreate = 8,
  kMkdir = 9,
  kSymlink = 10,
  kMknod = 11,
  kRemove = 12,
  kRmdir = 13,
  kRename = 14,
  kLink = 15,
  kReaddir = 16,
  kReaddirplus = 17,
  kFsstat = 18,
  kFsinfo = 19,
  kPathconf = 20,
  kCommit = 21,
  kMountNull = 100,
  kMountMnt = 101,
  kMountUmnt = 103,
  kMountExport = 105,
  kOther = 998,  // Of a program or a number that is not above.
  kAny = 999,    // In rules and counts.
};
std::string to_string(Procedure procedure);

enum class Way { kRequest, kReply };

struct Fault {
  enum class Action {
    kPass,
    kDrop,        // It is gone; the connection stays.
    kHold,        // It waits, others overtake it: `hold_max` if not zero, else until release().
    kLate,        // A request waits until its client has closed the connection and has had answers to
                  // `after_calls` later calls; it is executed strictly before the next one.
    kDouble,      // A request: the server gets it twice, the client one answer. A reply: comes twice.
    kCut,         // The connection is reset; a request was not executed.
    kCutAfter,    // It goes on, then the connection is reset; a request is executed.
    kAnswer,      // The client hears the NFS3 status `status`; a request is not executed, before a
                  // reply it was. 0 (OK) only for procedures whose answer need not tell a handle.
    kFlip,        // A reply's last word has a flipped bit: data of READ, verifier of WRITE and COMMIT.
    kShortWrite,  // The reply of WRITE tells of half the bytes.
    kSkew,        // The reply of GETATTR tells of a change `skew_s` later, as by a server's wrong clock.
  };
  Action action = Action::kPass;
  std::uint32_t status = 0;
  std::chrono::milliseconds hold_max{0};
  std::size_t after_calls = 0;
  std::int32_t skew_s = 0;
};

// A message on its way, as it is judged.
struct SeenRpc {
  Procedure procedure = Procedure::kAny;
  Way way = Way::kRequest;
  std::size_t call_index = 0;       // Of its call among all since the counts were reset.
  std::size_t procedure_index = 0;  // The same among those of its procedure.
  std::size_t connection = 0;       // Of all since the start.
  std::size_t size_bytes = 0;
};

struct FaultRule {
  Procedure procedure = Procedure::kAny;
  Way way = Way::kRequest;
  Fault fault{};
  std::size_t skip = 0;   // So many that match pass first,
  std::size_t times = 1;  // then so many are struck; 0: all.
};

class RpcFaultProxy {
 public:
  using Decide = std::function<Fault(const SeenRpc&)>;
  // Ports of 127.0.0.1.
  static Result<std::unique_ptr<RpcFaultProxy>> start(std::uint16_t nfs_port, std::uint16_t mount_port);
  ~RpcFaultProxy();  // Closes everything; what is held was never sent.
  RpcFaultProxy(const RpcFaultProxy&) = delete;
  RpcFaultProxy& operator=(const RpcFaultProxy&) = delete;

  std::uint16_t nfs_port() const;
  std::uint16_t mount_port() const;
  std::string url() const;  // As Ganesha::url(), through the proxy.

  // The first rule that strikes counts; with decide_by() only that is asked.
  void add(const FaultRule& rule);
  void decide_by(Decide decide);
  // Nothing passes in either direction and no connection is made or lost, until it is off again; then
  // all that waited goes on.
  void blackhole(bool on);
  void refuse(bool on);  // New connections are reset.
  void cut_all();        // Resets every connection; requests that were forwarded are executed.
  // Lets go of all that is held. False: the server has not answered all of it within 10 s.
  bool release();
  // Forgets rules, lets go of what is held, ends blackhole and refuse.
  bool pass_all();

  std::size_t calls(Procedure procedure = Procedure::kAny) const;  // Requests seen since reset_counts().
  std::vector<Procedure> sequence() const;                         // The same in order, at most 4096.
  std::size_t struck() const;                                      // Faults that were applied.
  std::size_t held() const;
  std::size_t late() const;  // kLate requests whose time came by itself.
  void reset_counts();
  // Wait until so many are counted, or held. False: not within `timeout`.
  bool wait_for_calls(Procedure procedure, std::size_t count,
                      std::chrono::milliseconds timeout = std::chrono::seconds(30)) const;
  bool wait_for_held(std::size_t count, std::chrono::milliseconds timeout = std::chrono::seconds(30)) const;

 private:
  class Loop;
  explicit RpcFaultProxy(std::unique_ptr<Loop> loop);
  std::unique_ptr<Loop> loop_;
};

// ---- every fault at every call

enum class WalkFault {
  kRequestLost,     // Dropped: the client finds out by its own timeout.
  kReplyLost,       // The same.
  kRequestCut,      // Reset instead of the request.
  kReplyCut,        // Executed, and reset instead of the reply.
  kRequestLate,     // Executed once the client has given up: before its next call, before the one after
                    // that, and so on, a run each, until there is no such call any more.
  kReplyLate,       // 20 ms: replies change their order.
  kRequestDoubled,  // Fault::Action::kDouble.
  kReplyDoubled,
};
inline constexpr WalkFault kWalkFaults[] = {
    WalkFault::kRequestLost, WalkFault::kReplyLost, WalkFault::kRequestCut,     WalkFault::kReplyCut,
    WalkFault::kRequestLate, WalkFault::kReplyLate, WalkFault::kRequestDoubled, WalkFault::kReplyDoubled,
};

struct WalkStep {
  std::string name;  // "request late after 2, call 5 (RENAME)"; "no fault" for the first run.
  WalkFault fault = WalkFault::kRequestLost;
  std::size_t call_index = 0;
};

struct WalkResult {
  std::size_t calls = 0;       // Of the run without a fault.
  std::size_t runs = 0;        // With a fault.
  std::size_t not_struck = 0;  // Runs that ended before their call: the scenario takes other ways.
};

// Runs `scenario` without a fault and counts its calls, then once for each of them and each fault of
// `faults`. The scenario does everything anew, by proxy.url(), and checks for itself; release() in it lets
// a late request happen at the latest there. `late_calls_max` bounds the runs of kRequestLate for a call.
WalkResult walk_faults(RpcFaultProxy& proxy, const std::function<void(const WalkStep&)>& scenario,
                       const std::vector<WalkFault>& faults = {std::begin(kWalkFaults),
                                                               std::end(kWalkFaults)},
                       std::size_t late_calls_max = 16);

}  // namespace cms::test
