#pragma once
// EcuLoop is the ZeroMQ shell around EcuCore: it owns the sockets of the three channels and runs the
// core on one thread, which is the caller of run(). Everything else may be called from any thread
// and never waits for the network, a disk or the loop.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "broker/core/ecu_core.h"
#include "net/endpoint.h"

namespace cms::broker {

inline constexpr std::size_t kPublishQueueMax = 65536;

// Who restores programs: the RTCR. Called on the loop's thread; must return soon, and must not call back
// into EcuLoop but for publish, withdraw, prepared and running. What it is told of a restore, in this order:
// receive; take for each piece; prepare; go. discard may come after any of them, but never while prepare
// or go is being answered, and is the last; after go was answered nothing comes.
class RestoreHandler {
 public:
  virtual ~RestoreHandler() = default;
  // Bytes of a blob are going to come. An error of the first two refuses the restore; discard follows.
  virtual Status receive(RestoreId id, const RestoreInfo& info) = 0;
  // The next ones, verified; not kept after return.
  virtual Status take(RestoreId id, std::uint64_t offset_bytes, const void* data, std::size_t size_bytes) = 0;
  // Restore it, paused; ends with EcuLoop::prepared().
  virtual void prepare(RestoreId id) = 0;
  // Run it; ends with EcuLoop::running(). Its checkpoints carry `owner_epoch` and the lineage of the claim.
  virtual void go(RestoreId id, OwnerEpoch owner_epoch) = 0;
  virtual void discard(RestoreId id) = 0;
  // Alters what /proc tells of this host, and adds the formats and labels that a target offers.
  virtual void complete_metrics(wire::Metrics& metrics) = 0;

 protected:
  RestoreHandler() = default;
  RestoreHandler(const RestoreHandler&) = default;
  RestoreHandler& operator=(const RestoreHandler&) = default;
};

// Who freezes programs for planned moves, and thaws them: the RTCR. Called on the loop's thread; must return
// soon, and must not call back into EcuLoop but for publish, withdraw and frozen. A program is thawed only
// after its freeze was answered, and frozen again only when that is over.
class MoveHandler {
 public:
  virtual ~MoveHandler() = default;
  // Stop the program, publish its last checkpoint, and leave it so; ends with EcuLoop::frozen().
  virtual void freeze(const FreezeProgram& freeze) = 0;
  // It goes on.
  virtual void thaw(const ThawProgram& thaw) = 0;

 protected:
  MoveHandler() = default;
  MoveHandler(const MoveHandler&) = default;
  MoveHandler& operator=(const MoveHandler&) = default;
};

// Who stops programs when the run lease of a guarded session ends, and lets them go on: the RTCR. Called on the loop's
// thread; must return soon, and must not call back into EcuLoop but for publish, withdraw, program_ended and stopped.
class LeaseHandler {
 public:
  virtual ~LeaseHandler() = default;
  // The program must stand still within T_stop; ends with EcuLoop::stopped(). It may be freezing, or have ended.
  virtual void stop(ProgramId program_id) = 0;
  // It goes on. Only after its stop was answered.
  virtual void resume(ProgramId program_id) = 0;
  virtual void lease_changed(const LeaseChanged& lease) = 0;

 protected:
  LeaseHandler() = default;
  LeaseHandler(const LeaseHandler&) = default;
  LeaseHandler& operator=(const LeaseHandler&) = default;
};

struct EcuLoopConfig {
  EcuMac ecu_mac{};
  std::vector<net::Endpoint> cms{};  // 1..kCmsCountMax
  std::string bulk_host = "*";       // Where the bulk ROUTER listens.
  net::PortRange bulk_ports{};
  std::string advertise_host{};
  std::string software{};
  std::uint64_t memory_budget_bytes = 0;
  RestoreHandler* restore_handler = nullptr;  // nullptr: this ECU is no target. Outlives the loop.
  bool only_restarts = false;                 // It takes only its own programs, which the RTCR asks for.
  std::uint64_t received_bytes_max = 0;       // Of blobs that were received and do not run yet.
  MoveHandler* move_handler = nullptr;        // nullptr: nothing is frozen. Outlives the loop.
  LeaseHandler* lease_handler = nullptr;      // Given: the session is guarded. Outlives the loop.
  wire::Enforcer enforcer = wire::Enforcer::kNone;  // Guarded.
  std::string boot_id{};  // Guarded: any text that is another one at each boot; empty: the kernel's boot id.
};

struct EcuLoopStats {
  Incarnation incarnation = 0;  // 0: not assigned yet.
  std::uint64_t served_bytes = 0;
  std::uint64_t held_count = 0;
  std::uint64_t held_memory_bytes = 0;
  std::uint32_t live_cms_count = 0;
};

// Called on the loop's thread; must return soon and must not call back into EcuLoop but for publish,
// withdraw and request_migration.
class EcuLoopListener {
 public:
  virtual ~EcuLoopListener() = default;
  virtual void on_receipt(const ReceiptEvent& receipt) = 0;
  virtual void on_withdrawn(const WithdrawDone& done) = 0;
  virtual void on_migration_answered(const MigrationAnswered& answered) = 0;
  virtual void on_cms_event(const CmsEvent& event) = 0;

 protected:
  EcuLoopListener() = default;
  EcuLoopListener(const EcuLoopListener&) = default;
  EcuLoopListener& operator=(const EcuLoopListener&) = default;
};

class EcuLoop {
 public:
  // Opens the sockets. `listener` outlives the loop. kAlreadyExists: no free bulk port.
  // kLimit: out of descriptors. kUnsupported: guarded, and the kernel tells no boot id.
  static Result<std::unique_ptr<EcuLoop>> create(const EcuLoopConfig& config, EcuLoopListener& listener);
  EcuLoop(const EcuLoop&) = delete;
  EcuLoop& operator=(const EcuLoop&) = delete;
  ~EcuLoop();

  // Runs until stop(); then says BYE, frees all blobs and returns. What was prepared is discarded first,
  // and what was told to run is waited for; what is frozen stays so. Of a guarded session what has on_isolation = stop
  // is stopped, and that is waited for. Signals should be blocked in the calling thread.
  void run();
  void stop();

  // Hands a checkpoint over; `notification` has passed wire::check_notification, its seq is set here
  // and returned. Costs one short critical section and at most one write to an eventfd.
  // kLimit: kPublishQueueMax are waiting for the loop. kCancelled: it was stopped.
  // On an error the source is given back in `source`.
  Result<Seq> publish(wire::Notification notification, std::unique_ptr<BlobSource>& source);
  // Ends with listener.on_withdrawn(request_id). Errors as above.
  Status withdraw(std::uint64_t request_id, ProgramId program_id);
  void cancel_withdraw(std::uint64_t request_id);
  // Ends with listener.on_migration_answered(request_id). Errors as above; as EcuCore::request_migration.
  Status request_migration(std::uint64_t request_id, ProgramId program_id, const std::optional<EcuMac>& to);
  void cancel_migration(std::uint64_t request_id);

  // The RestoreHandler's answers. Never refused; after the end of run() they go nowhere.
  void prepared(RestoreId id, Status status);
  void running(RestoreId id, Result<ProgramId> program_id);
  // The MoveHandler's: the seq that publish() gave to the program's last checkpoint. Else as those above.
  void frozen(FreezeId id, Result<Seq> last_seq);

  // The LeaseHandler's: it stands still, or an error: it may not.
  void stopped(ProgramId program_id, Status status);

  // Of a guarded session; without one they do nothing. All programs that the RTCR runs were published before this call,
  // or were restored here: a CMS that asks for them is answered from now on. Errors as publish.
  Status programs_told();
  // It has ended by itself. Errors as publish.
  Status program_ended(ProgramId program_id);

  std::uint16_t bulk_port() const;
  // As of the loop's last turn; inside a listener's call, as of this moment. Any thread.
  EcuLoopStats stats() const;

 private:
  class Impl;
  explicit EcuLoop(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace cms::broker
