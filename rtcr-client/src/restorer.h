#pragma once
// Restorer is the RestoreHandler of the library: it keeps the bytes of a blob while they come, in a memfd
// or in a file of a folder, and lets the RTCR's callbacks restore, run and discard what came. Those may
// take their time, so they run on threads of its own.
//
// Threads: the functions of RestoreHandler on the client's thread; the callbacks on up to thread_count
// others, those of one restore one after the other. Lifetime: destroy it when the loop has ended and still
// lives; it waits for the callbacks and discards what is left.
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "broker/shell/ecu_loop.h"
#include "rtcr-client/src/call_threads.h"
#include "rtcr-client/src/own_restart.h"
#include "schemas/messages.h"

namespace cms::client {

// What a callback is told; lives from prepare to the end of the restore.
struct RestoreJob {
  broker::RestoreId id = 0;
  broker::RestoreInfo info{};
  int fd = -1;                 // Of the bytes; a memfd is sealed.
  std::string path{};          // Of the file; empty: a memfd.
  OwnerEpoch owner_epoch = 0;  // From go on.
  void* user = nullptr;        // The callbacks' own.
};

struct TargetOptions {
  unsigned thread_count = kCallThreadCount;
  std::string folder{};                  // Empty: memfds.
  std::uint64_t received_bytes_max = 0;  // 0: the memory budget; in a folder no limit.
  std::string arch{};                    // Empty: as uname says.
  std::vector<wire::CheckpointFormat> formats{};
  std::vector<std::string> labels{};
  // None may throw. Without `prepare` nothing is restored but what was asked for with expect(); without `discard`
  // there is nothing to do.
  std::function<Status(RestoreJob&)> prepare{};
  std::function<Result<ProgramId>(RestoreJob&)> go{};
  std::function<void(RestoreJob&)> discard{};
  // On the client's thread; alters what /proc tells.
  std::function<void(wire::Metrics&)> on_metrics{};
};

class Restorer final : public broker::RestoreHandler {
 public:
  // What becomes of it; on a thread of the Restorer.
  class Answers {
   public:
    virtual ~Answers() = default;
    virtual void on_prepared(broker::RestoreId id, const Status& status) = 0;
    // Before `go` is called. An error is the answer instead of it.
    virtual Status before_go(const RestoreJob& job) = 0;
    virtual void on_running(const RestoreJob& job, const Result<ProgramId>& program_id) = 0;

   protected:
    Answers() = default;
    Answers(const Answers&) = default;
    Answers& operator=(const Answers&) = default;
  };

  // `answers` outlives it.
  Restorer(const TargetOptions& options, Answers& answers)
      : options_(options), answers_(answers), threads_("rtcr-restore", options.thread_count) {}
  Restorer(const Restorer&) = delete;
  Restorer& operator=(const Restorer&) = delete;
  ~Restorer() override;

  // The RTCR waits for its own program: what a CMS restores of it is not given to the callbacks but handed over to
  // that one. kAlreadyExists: another call waits for it.
  Status expect(ProgramId program_id, const std::shared_ptr<OwnRestart>& restart);
  void forget(ProgramId program_id);
  // Nothing will come any more: whoever waits is told so.
  void give_up();

  Status receive(broker::RestoreId id, const broker::RestoreInfo& info) override;
  Status take(broker::RestoreId id, std::uint64_t offset_bytes, const void* data,
              std::size_t size_bytes) override;
  void prepare(broker::RestoreId id) override;
  void go(broker::RestoreId id, OwnerEpoch owner_epoch) override;
  void discard(broker::RestoreId id) override;
  void complete_metrics(wire::Metrics& metrics) override;

 private:
  struct Work {
    RestoreJob job{};
    Status received = ok_status();      // How writing went.
    bool restored = false;              // `prepare` went well, and neither `go` nor `discard` was called.
    std::shared_ptr<OwnRestart> own{};  // Takes it instead of the callbacks.
    Work() = default;
    Work(const Work&) = delete;
    Work& operator=(const Work&) = delete;
    ~Work();  // Frees the bytes, unless the file was given another name.
  };
  using WorkPtr = std::shared_ptr<Work>;

  WorkPtr find(broker::RestoreId id);
  void do_prepare(Work& work);
  void do_go(Work& work);
  void do_hand_over(Work& work);
  void do_discard(Work& work);

  const TargetOptions options_;
  Answers& answers_;

  std::mutex mutex_{};  // Guards the next two.
  std::map<ProgramId, std::shared_ptr<OwnRestart>> expected_{};
  std::map<broker::RestoreId, WorkPtr> works_{};
  CallThreads threads_;  // Last: they use what is above. At most two calls for each restore that is not over.
};

}  // namespace cms::client
