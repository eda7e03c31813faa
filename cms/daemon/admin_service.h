#pragma once
// AdminService answers what cms-admin asks on the admin channel: questions by a worker that may wait
// for the disk, what changes something through the core and the keeper.
//
// Threads: the methods are called by the loop and do not block. Bounds: kAdminRequestsMax questions
// wait; further ones are refused with kLimit.
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "cms/core/cms_core.h"
#include "cms/daemon/admin_answers.h"
#include "cms/daemon/index_keeper.h"
#include "cms/daemon/lease_keeper.h"
#include "cms/daemon/restore_keeper.h"
#include "cms/daemon/retention_keeper.h"
#include "cms/daemon/scrubber.h"
#include "cms/daemon/worker.h"
#include "net/socket.h"
#include "storage/blob_store.h"
#include "storage/checkpoint_index.h"

namespace cms::daemon {

inline constexpr std::size_t kAdminRequestsMax = 256;  // Waiting for the worker.
inline constexpr std::size_t kPlansMax = 4;            // Being made.

class AdminService {
 public:
  // All of these outlive this.
  struct Parts {
    zmq::socket_t& socket;  // The admin ROUTER.
    core::CmsCore& core;
    IndexKeeper& keeper;
    RetentionKeeper& retention;
    Scrubber& scrubber;
    RestoreKeeper& restores;
    LeaseKeeper& leases;
    storage::BlobStore& store;
    storage::CheckpointIndex& index;
    Outbox& outbox;
  };
  using Retired = std::function<void(const Result<Version>&)>;

  // `facts` is asked on the loop.
  AdminService(const Parts& parts, std::function<DaemonFacts(Instant now)> facts);
  ~AdminService() { stop(); }
  // Questions not yet begun are dropped. Idempotent.
  void stop() {
    planner_.stop();
    worker_.stop();
  }

  void on_request(Instant now, const std::string& peer, const wire::AdminRequest& request,
                  core::Effects& effects);
  // Once a turn of the loop: answers who waited for the ECUs' figures.
  void on_time(Instant now);
  // Who waits for the withdrawal of this ticket; empty: nobody.
  Retired take_retirement(std::uint64_t ticket);
  std::size_t queue_length() const { return worker_.queue_length(); }

 private:
  void send(const std::string& peer, const wire::AdminAnswer& answer);
  void refuse(const std::string& peer, const wire::AdminRequest& request, Code code, std::string context);
  void answer_with(const std::string& peer, const wire::AdminRequest& request, std::string json);
  void ecu_failed(Instant now, const std::string& peer, const wire::AdminRequest& request,
                  core::Effects& effects);
  void migrate(Instant now, const std::string& peer, const wire::AdminRequest& request);
  void ecu_drain(Instant now, const std::string& peer, const wire::AdminRequest& request,
                 core::Effects& effects);
  void ecu_maintenance(Instant now, const std::string& peer, const wire::AdminRequest& request,
                       core::Effects& effects);
  // How far what was told is, or why that cannot be said.
  void answer_with(const std::string& peer, const wire::AdminRequest& request, Result<std::string> json);
  void history(const std::string& peer, const wire::AdminRequest& request);
  void scrub(const std::string& peer, const wire::AdminRequest& request);
  void rebuild_index(const std::string& peer, const wire::AdminRequest& request);
  void retire(const std::string& peer, const wire::AdminRequest& request, core::Effects& effects);
  void explain(Instant now, const std::string& peer, const wire::AdminRequest& request,
               core::Effects& effects);
  void plan(const std::string& peer, const wire::AdminRequest& request);
  void post_plan(Instant now, const std::string& peer, const wire::AdminRequest& request,
                 const LostPrograms& lost);
  void ask_worker(Instant now, const std::string& peer, const wire::AdminRequest& request,
                  const Status& prepared);

  struct Explanation {
    std::string peer;
    wire::AdminRequest request;
    Instant give_up_at{};                // Then it is made with the figures that there are.
    bool prepared = false;               // What the store has of the program is in the index.
    std::optional<LostPrograms> lost{};  // Of an ECU: where all these would go.
  };

  Parts parts_;
  std::function<DaemonFacts(Instant now)> facts_;
  std::map<std::uint64_t, Retired> retiring_;          // By ticket.
  std::map<std::uint64_t, Explanation> explanations_;  // By ticket; at most kAdminRequestsMax.
  std::uint64_t last_explanation_ = 0;
  std::size_t plan_count_ = 0;
  Worker planner_;  // It may take long.
  Worker worker_;   // Last: their ends precede that of what they use.
};

}  // namespace cms::daemon
