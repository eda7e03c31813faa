#pragma once
// Client is librtcr-client in C++: an EcuLoop on a thread of its own, and the book of what it says.
// rtcr.cc puts the C ABI over it and is where exceptions end.
//
// Threads: any, but destroy it last and not from a callback. Lifetime: destroying it says BYE, ends
// the thread and frees everything.
#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "broker/shell/ecu_loop.h"
#include "net/endpoint.h"
#include "rtcr-client/src/fetch.h"
#include "rtcr-client/src/memory.h"
#include "rtcr-client/src/mover.h"
#include "rtcr-client/src/program_calls.h"
#include "rtcr-client/src/receipt_book.h"
#include "rtcr-client/src/restorer.h"
#include "rtcr-client/src/stopper.h"
#include "rtcr/rtcr.h"
#include "schemas/messages.h"

namespace cms::client {

inline constexpr std::uint64_t kMemoryBudgetBytes = std::uint64_t{256} << 20;
inline constexpr std::uint64_t kMemoryBudgetBytesMax = std::uint64_t{1} << 50;
inline constexpr std::size_t kThreadNameBytesMax = 15;  // Linux

struct ClientOptions {
  broker::EcuLoopConfig loop{};
  std::string thread_name = "rtcr-client";
  int thread_priority = 0;                    // 1..99: SCHED_FIFO; 0: as the caller's.
  std::optional<std::uint32_t> thread_cpu{};  // Also of ZeroMQ's thread.
  bool lock_memory = false;
  std::optional<TargetOptions> target{};  // Given: programs can be restored here.
  std::optional<MoveOptions> move{};      // Given: programs can be moved from here.
  std::optional<LeaseOptions> lease{};    // Given: the session is guarded.
  // On the client's thread; must not throw.
  std::function<void(const Receipt&)> on_receipt{};
  std::function<void(const broker::CmsEvent&)> on_event{};
};

class Client final : private broker::EcuLoopListener, private Restorer::Answers {
 public:
  // Errors as rtcr_open.
  static Result<std::unique_ptr<Client>> open(ClientOptions options);
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  ~Client();

  // All four check `notification`. On an error, or an exception, nothing was taken. Of a program that was
  // restored here, lineage and owner_epoch are filled in where neither is given.
  Result<Seq> publish_memory(wire::Notification notification, const void* data, rtcr_release_fn release,
                             void* release_context);
  // Too large a copy is refused by receipt and not made.
  Result<Seq> publish_copy(wire::Notification notification, const void* data);
  // size_bytes 0: the file's.
  Result<Seq> publish_file(wire::Notification notification, int fd);
  Result<Seq> publish_allocation(wire::Notification notification, const void* data);
  Result<void*> allocate(std::uint64_t size_bytes);
  Status free_allocation(const void* data);

  WaitResult wait(Seq seq, wire::ReceiptLevel level, std::chrono::milliseconds timeout);
  // kTimeout, kLimit, or what the CMS answers. `timeout` negative: for ever.
  Status withdraw(ProgramId program_id, std::chrono::milliseconds timeout);
  // The same.
  Status request_migration(ProgramId program_id, const std::optional<EcuMac>& to,
                           std::chrono::milliseconds timeout);

  // Of a guarded session: the newest checkpoint of its own program, which does not run any more, and goes on here from
  // that. kPermission: it does run. kAlreadyExists: another call waits for it. What a CMS answers: kNotFound,
  // kFenced, kWithdrawn; kTimeout: no answer or no progress for `patience` (negative: for ever).
  Result<FetchedBlob> fetch_own(ProgramId program_id, std::chrono::milliseconds patience,
                                const FetchSink& sink);
  bool is_guarded() const { return options_.lease.has_value(); }
  // Of a guarded session. kInvalidArgument: it is not; kLimit.
  Status programs_told();
  Status program_ended(ProgramId program_id);

  std::optional<Receipt> next_receipt() { return book_.next(); }
  int poll_fd() const { return book_.poll_fd(); }
  std::uint64_t receipts_lost_count() const { return book_.lost_count(); }
  broker::EcuLoopStats stats() const { return loop_->stats(); }
  // The thread has ended by itself, which only want of memory can bring about.
  bool failed() const { return failed_.load(std::memory_order_acquire); }

  // Whether the calling process is a fork of the one that opened the client.
  bool is_forked() const;
  const std::vector<net::Endpoint>& cms() const { return options_.loop.cms; }
  EcuMac ecu_mac() const { return options_.loop.ecu_mac; }

 private:
  // A CMS is asked for something.
  struct Request {
    bool done = false;
    Code code = Code::kOk;
    std::string context{};
  };

  struct Owned {
    Lineage lineage{};
    OwnerEpoch owner_epoch = 0;
  };

  explicit Client(ClientOptions options);
  void fill_in_ownership(wire::Notification& notification);
  // On an error, or an exception, `source` is as it was.
  Result<Seq> publish(wire::Notification notification, std::unique_ptr<broker::BlobSource>& source);
  // Gives a request to the loop and waits for its answer. kTimeout: `not_answered`.
  Status ask(const std::function<Status(std::uint64_t request_id)>& give,
             const std::function<void(std::uint64_t request_id)>& cancel, std::chrono::milliseconds timeout,
             const std::string& not_answered);
  void note_answer(std::uint64_t request_id, Code code, const std::string& context);
  Status start();
  Status check_guarded() const;
  Status set_up_thread() const;
  void run_loop() noexcept;
  void on_receipt(const broker::ReceiptEvent& event) override;
  void on_withdrawn(const broker::WithdrawDone& done) override;
  void on_migration_answered(const broker::MigrationAnswered& answered) override;
  void on_cms_event(const broker::CmsEvent& event) override;
  void on_prepared(broker::RestoreId id, const Status& status) override;
  Status before_go(const RestoreJob& job) override;
  void on_running(const RestoreJob& job, const Result<ProgramId>& program_id) override;

  const ClientOptions options_;
  const pid_t pid_;
  MemoryMeter meter_;
  ReceiptBook book_{};
  std::atomic<Seq> last_seq_{0};
  std::atomic<bool> failed_{false};

  std::mutex mutex_{};  // Guards what follows up to the loop.
  std::map<const void*, std::shared_ptr<Mapping>> allocations_{};
  std::uint64_t last_request_id_ = 0;
  std::map<std::uint64_t, Request> requests_{};
  std::condition_variable answered_{};
  // What was restored here and not withdrawn since. Kept when it is fenced: whoever goes on to publish it
  // must be fenced again, and not begin a life of its own. At most kRestoreRunningCountMax.
  std::map<ProgramId, Owned> restored_{};
  std::atomic<bool> any_restored_{false};

  std::unique_ptr<Restorer> restorer_{};  // Ends before the loop, which it answers; so do the next.
  std::unique_ptr<ProgramCalls> calls_{};
  std::unique_ptr<Mover> mover_{};
  std::unique_ptr<Stopper> stopper_{};
  std::unique_ptr<broker::EcuLoop> loop_{};
  std::thread thread_{};
};

}  // namespace cms::client
