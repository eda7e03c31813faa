#pragma once
// EcuLogWorker does for Leases what blocks: reads the logs of guarded ECUs and appends to them.
//
// Threads: the methods are called by the loop and do not block; answers run on the loop, in order for one ECU (but a
// Hello may overtake what was asked before it: those that wait are recorded together).
// Bounds: Leases has one question open for each ECU; Hellos by CmsCore.
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/prng.h"
#include "base/result.h"
#include "cms/core/cms_core.h"
#include "cms/core/leases.h"
#include "cms/daemon/worker.h"
#include "storage/claim_store.h"

namespace cms::daemon {

inline constexpr std::size_t kEcuLogLaneCount = 4;

class EcuLogWorker {
 public:
  // `claims` and `outbox` outlive this.
  EcuLogWorker(storage::ClaimStore& claims, Outbox& outbox, const core::Writer& me);
  ~EcuLogWorker() { stop(); }
  // What has not begun is dropped. Idempotent.
  void stop();

  template <typename T>
  using Then = std::function<void(Instant now, core::Effects& effects, const Result<T>& answer)>;
  using Head = std::optional<wire::EcuRecord>;
  struct Heads {
    Instant asked_at{};
    std::vector<std::pair<EcuMac, Result<Head>>> heads;
  };
  struct Appended {
    core::Leases::AppendEnd end{};
    std::uint64_t attempt = 0;
  };
  struct Recorded {
    Instant asked_at{};
    wire::EcuRecord head{};
  };

  // Of all ECUs that have a log. What cannot be read is logged and left out.
  void list(Then<Heads> then);
  void read(const std::vector<EcuMac>& ecu_macs, Then<Heads> then);
  void append(const wire::EcuRecord& record, Then<Appended> then);
  void settle(EcuMac ecu_mac, std::uint64_t attempt, Then<Appended> then);
  // Finds the HELLO of that session at the head of its ECU's log, or puts it there. kFenced: the session has ended.
  // kUnavailable: who has the slot is not known yet; to be tried again.
  void record_hello(const core::RecordHello& asked, Then<Recorded> then);

 private:
  struct AskedHello {
    core::RecordHello asked;
    Then<Recorded> then;
  };
  struct Lane {
    std::unique_ptr<Worker> worker;
    std::mutex mutex;
    std::vector<AskedHello> hellos;  // Not begun, with a job posted for them; under the mutex.
    // By the lane's thread only.
    Prng prng{0};
    std::vector<std::uint64_t> unsettled;  // Attempts of Hellos.
  };
  // What became of each Hello of a group, and which of them may still be tried.
  struct Tries {
    std::vector<Result<Recorded>> ends;
    std::vector<std::size_t> open;
  };
  Lane& lane_of(EcuMac ecu_mac) { return *lanes_[ecu_mac.bits % lanes_.size()]; }
  template <typename T, typename Job>
  void post(Worker& worker, Job job, Then<T> then);
  Heads heads_now(const std::vector<EcuMac>& ecu_macs);
  Result<Heads> list_now();
  void record_some(Lane& lane);
  void try_hellos(Lane& lane, const std::vector<AskedHello>& group, Tries& tries);
  void settle_some(Lane& lane);

  storage::ClaimStore& claims_;
  Outbox& outbox_;
  const core::Writer me_;
  std::vector<std::unique_ptr<Lane>> lanes_;
  Worker lister_;  // Last: its end precedes that of what it uses.
};

}  // namespace cms::daemon
