#include "rtcr-client/src/client.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <future>
#include <system_error>
#include <utility>

#include "rtcr-client/src/callback_scope.h"
#include "rtcr-client/src/sources.h"

namespace cms::client {
namespace {

// A thread inherits the mask of the one that makes it; so do ZeroMQ's of ours.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_{};
};

// Until keep() the memory goes back without its callback.
class MemoryGuard {
 public:
  explicit MemoryGuard(UserMemory* memory) : memory_(memory) {}
  MemoryGuard(const MemoryGuard&) = delete;
  MemoryGuard& operator=(const MemoryGuard&) = delete;
  ~MemoryGuard() {
    if (memory_ != nullptr) memory_->disown();
  }
  void keep() { memory_ = nullptr; }

 private:
  UserMemory* memory_;
};

Error not_an_allocation() {
  return make_error(Code::kInvalidArgument,
                    "data: not an allocation of this client that is still the caller's");
}

}  // namespace

Client::Client(ClientOptions options)
    : options_(std::move(options)), pid_(::getpid()), meter_(2 * options_.loop.memory_budget_bytes) {}

Client::~Client() {
  if (mover_ != nullptr) mover_->end_freezing();  // Nobody would thaw it.
  if (loop_ != nullptr) loop_->stop();
  if (thread_.joinable()) thread_.join();
  if (calls_ != nullptr) calls_->finish();
  stopper_.reset();
  mover_.reset();
  restorer_.reset();
  loop_.reset();  // Frees the blobs still held by a loop that failed, and what ZeroMQ has not sent.
}

bool Client::is_forked() const { return ::getpid() != pid_; }

Result<std::unique_ptr<Client>> Client::open(ClientOptions options) {
  std::unique_ptr<Client> client(new Client(std::move(options)));
  if (Status started = client->start(); !started.ok()) return std::move(started).error();
  return client;
}

Status Client::start() {
  broker::EcuLoopConfig config = options_.loop;
  if (options_.target || options_.lease) {
    const TargetOptions target = options_.target.value_or(TargetOptions());
    restorer_.reset(new Restorer(target, *this));  // Here the private base can be seen.
    config.restore_handler = restorer_.get();
    config.only_restarts = !options_.target;
    config.received_bytes_max = target.received_bytes_max;
    if (config.received_bytes_max == 0)
      config.received_bytes_max = target.folder.empty() ? options_.loop.memory_budget_bytes : UINT64_MAX;
  }
  if (options_.move || options_.lease) {
    calls_ = std::make_unique<ProgramCalls>(options_.move ? options_.move->thread_count : kCallThreadCount,
                                            options_.lease ? options_.lease->thread_count : kCallThreadCount);
  }
  if (options_.move) {
    mover_ = std::make_unique<Mover>(
        *options_.move, *calls_,
        [this](broker::FreezeId id, const Result<Seq>& last_seq) { loop_->frozen(id, last_seq); });
    config.move_handler = mover_.get();
  }
  if (options_.lease) {
    stopper_ = std::make_unique<Stopper>(
        *options_.lease, *calls_,
        [this](ProgramId program_id, const Status& status) { loop_->stopped(program_id, status); });
    config.lease_handler = stopper_.get();
    config.enforcer = options_.lease->enforcer;
    config.boot_id = options_.lease->boot_id;
  }
  std::promise<Status> started;
  std::future<Status> result = started.get_future();
  try {
    const SignalsBlocked blocked;
    thread_ = std::thread([this, &started, &config] {
      // The sockets are made here, so that ZeroMQ's thread gets the scheduling set up before.
      Status status = ok_status();
      try {
        status = set_up_thread();
        if (status.ok()) {
          auto loop = broker::EcuLoop::create(config, *this);
          if (loop.ok()) {
            loop_ = std::move(loop).value();
          } else {
            status = std::move(loop).error();
          }
        }
      } catch (const std::exception& error) {
        status = make_error(Code::kLimit, std::string("cannot start the client: ") + error.what());
      }
      const bool runs = status.ok();
      started.set_value(std::move(status));
      if (runs) run_loop();
    });
  } catch (const std::system_error& error) {
    return make_error(Code::kLimit, std::string("cannot start the client's thread: ") + error.what());
  }
  return result.get();
}

Status Client::set_up_thread() const {
  // Cannot fail: the length was checked.
  (void)pthread_setname_np(pthread_self(), options_.thread_name.c_str());
  if (options_.thread_cpu) {
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    if (*options_.thread_cpu < CPU_SETSIZE) CPU_SET(*options_.thread_cpu, &cpus);
    const int failure = pthread_setaffinity_np(pthread_self(), sizeof(cpus), &cpus);
    if (failure != 0) {
      return make_error(Code::kInvalidArgument, "thread_cpu: this process may not run on CPU " +
                                                    std::to_string(*options_.thread_cpu));
    }
  }
  if (options_.thread_priority > 0) {
    sched_param parameters{};
    parameters.sched_priority = options_.thread_priority;
    const int failure = pthread_setschedparam(pthread_self(), SCHED_FIFO, &parameters);
    if (failure != 0) {
      return error_from_errno(failure, "thread_priority: SCHED_FIFO " +
                                           std::to_string(options_.thread_priority) +
                                           " needs CAP_SYS_NICE or a limit of RLIMIT_RTPRIO that allows it");
    }
  } else if (sched_getscheduler(0) == SCHED_OTHER) {
    // A batch thread does not preempt whoever wakes it: on busy cores a publisher would otherwise lose
    // its core to us inside rtcr_publish, for as long as our turn takes. ZeroMQ's thread inherits it.
    const sched_param parameters{};
    (void)pthread_setschedparam(pthread_self(), SCHED_BATCH, &parameters);
  }
  return ok_status();
}

void Client::run_loop() noexcept {
  try {
    loop_->run();
    book_.fail("the client was closed");
    return;
  } catch (...) {
    // Out of memory, on this thread. The caller decides; what is stored is stored.
  }
  failed_.store(true, std::memory_order_release);
  if (restorer_ != nullptr) restorer_->give_up();
  book_.fail("the client's thread has failed: out of memory");
  const std::lock_guard<std::mutex> lock(mutex_);
  answered_.notify_all();
}

void Client::on_receipt(const broker::ReceiptEvent& event) {
  const Receipt receipt{event, event.incarnation};
  book_.add(receipt);
  if (!options_.on_receipt) return;
  const CallbackScope scope;
  options_.on_receipt(receipt);
}

void Client::on_cms_event(const broker::CmsEvent& event) {
  if (!options_.on_event) return;
  const CallbackScope scope;
  options_.on_event(event);
}

void Client::on_withdrawn(const broker::WithdrawDone& done) {
  note_answer(done.request_id, done.code, done.context);
}

void Client::on_migration_answered(const broker::MigrationAnswered& answered) {
  note_answer(answered.request_id, answered.code, answered.context);
}

void Client::note_answer(std::uint64_t request_id, Code code, const std::string& context) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto it = requests_.find(request_id);
  if (it == requests_.end()) return;  // Nobody waits for it any more.
  it->second = Request{true, code, context};
  answered_.notify_all();
}

Result<Seq> Client::publish(wire::Notification notification, std::unique_ptr<broker::BlobSource>& source) {
  fill_in_ownership(notification);
  notification.seq = 1;  // The loop gives the real one; the check wants any.
  if (Status valid = wire::check_notification(notification); !valid.ok()) return std::move(valid).error();
  auto seq = loop_->publish(std::move(notification), source);
  if (!seq.ok()) return seq;
  Seq before = last_seq_.load(std::memory_order_relaxed);
  while (before < *seq && !last_seq_.compare_exchange_weak(before, *seq, std::memory_order_relaxed)) {
  }
  return seq;
}

void Client::fill_in_ownership(wire::Notification& notification) {
  if (!any_restored_.load(std::memory_order_acquire)) return;
  if (notification.lineage != Lineage{} || notification.owner_epoch != 0) return;
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto it = restored_.find(notification.program_id);
  if (it == restored_.end()) return;
  notification.lineage = it->second.lineage;
  notification.owner_epoch = it->second.owner_epoch;
}

// ---- of the Restorer, on its threads

void Client::on_prepared(broker::RestoreId id, const Status& status) { loop_->prepared(id, status); }

Status Client::before_go(const RestoreJob&) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (restored_.size() < broker::kRestoreRunningCountMax) return ok_status();
  return make_error(Code::kLimit,
                    std::to_string(restored_.size()) + " programs were restored here and not withdrawn");
}

void Client::on_running(const RestoreJob& job, const Result<ProgramId>& program_id) {
  if (program_id.ok()) {
    const std::lock_guard<std::mutex> lock(mutex_);
    restored_[*program_id] = Owned{job.info.claim.lineage, job.owner_epoch};
    any_restored_.store(true, std::memory_order_release);
  }
  loop_->running(job.id, program_id);
}

Result<Seq> Client::publish_memory(wire::Notification notification, const void* data, rtcr_release_fn release,
                                   void* release_context) {
  const std::uint64_t size_bytes = notification.size_bytes;
  auto memory = std::make_shared<UserMemory>(data, size_bytes, release, release_context);
  std::unique_ptr<broker::BlobSource> source;
  MemoryGuard guard(memory.get());
  source = make_memory_source(memory, data, size_bytes);
  memory.reset();  // The source is the only owner: the callback must not run on this thread.
  auto seq = publish(std::move(notification), source);
  if (seq.ok()) guard.keep();
  return seq;
}

Result<Seq> Client::publish_file(wire::Notification notification, int fd) {
  auto file = make_file_source(fd);
  if (!file.ok()) return std::move(file).error();
  if (notification.size_bytes != 0 && notification.size_bytes != file->size_bytes) {
    return make_error(Code::kInvalidArgument, "size_bytes: " + std::to_string(notification.size_bytes) +
                                                  " (allowed: 0 or the file's, " +
                                                  std::to_string(file->size_bytes) + ")");
  }
  notification.size_bytes = file->size_bytes;
  return publish(std::move(notification), file->source);
}

Result<Seq> Client::publish_copy(wire::Notification notification, const void* data) {
  const std::uint64_t size_bytes = notification.size_bytes;
  const std::uint64_t budget_bytes = options_.loop.memory_budget_bytes;
  std::unique_ptr<broker::BlobSource> source;
  if (size_bytes > budget_bytes || meter_.bytes() + size_bytes > meter_.bytes_max()) {
    source = make_refused_source(std::max(size_bytes, budget_bytes + 1));
  } else {
    auto copy = copy_of(meter_, data, size_bytes, options_.lock_memory);
    if (!copy.ok()) return std::move(copy).error();
    const void* copied = copy->get();
    source = make_memory_source(std::move(copy).value(), copied, size_bytes);
  }
  return publish(std::move(notification), source);
}

Result<void*> Client::allocate(std::uint64_t size_bytes) {
  auto mapping = Mapping::create(meter_, size_bytes, options_.lock_memory);
  if (!mapping.ok()) return std::move(mapping).error();
  void* data = (*mapping)->data();
  const std::lock_guard<std::mutex> lock(mutex_);
  allocations_.emplace(data, std::move(mapping).value());
  return data;
}

Result<Seq> Client::publish_allocation(wire::Notification notification, const void* data) {
  // Out of the table before it is handed over, so that no second publish or free can meet it.
  std::map<const void*, std::shared_ptr<Mapping>>::node_type node;
  std::unique_ptr<broker::BlobSource> source;
  AllocationSource* allocation = nullptr;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto it = allocations_.find(data);
    if (it == allocations_.end()) return not_an_allocation();
    if (notification.size_bytes > it->second->size_bytes()) {
      return make_error(Code::kInvalidArgument,
                        "size_bytes: " + std::to_string(notification.size_bytes) + " (allowed: at most the " +
                            std::to_string(it->second->size_bytes()) + " bytes of the allocation)");
    }
    auto made = std::make_unique<AllocationSource>(it->second);
    node = allocations_.extract(it);
    node.mapped().reset();  // The source is the only owner: it must not be unmapped on this thread.
    allocation = made.get();
    source = std::move(made);
  }
  const auto put_back = [&] {
    node.mapped() = allocation->give_back();
    const std::lock_guard<std::mutex> lock(mutex_);
    allocations_.insert(std::move(node));
  };
  try {
    auto seq = publish(std::move(notification), source);
    if (!seq.ok()) put_back();
    return seq;
  } catch (...) {
    put_back();
    throw;
  }
}

Status Client::free_allocation(const void* data) {
  std::shared_ptr<Mapping> mapping;  // Unmapped after the lock.
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto it = allocations_.find(data);
  if (it == allocations_.end()) return not_an_allocation();
  mapping = std::move(it->second);
  allocations_.erase(it);
  return ok_status();
}

WaitResult Client::wait(Seq seq, wire::ReceiptLevel level, std::chrono::milliseconds timeout) {
  return book_.wait(seq, last_seq_.load(std::memory_order_relaxed), level, timeout);
}

Status Client::withdraw(ProgramId program_id, std::chrono::milliseconds timeout) {
  Status withdrawn =
      ask([&](std::uint64_t request_id) { return loop_->withdraw(request_id, program_id); },
          [&](std::uint64_t request_id) { loop_->cancel_withdraw(request_id); }, timeout,
          "no CMS has confirmed that program " + std::to_string(program_id) + " was withdrawn");
  if (!withdrawn.ok()) return withdrawn;
  const std::lock_guard<std::mutex> lock(mutex_);
  restored_.erase(program_id);  // What is published under it from now on is another program.
  return withdrawn;
}

Status Client::request_migration(ProgramId program_id, const std::optional<EcuMac>& to,
                                 std::chrono::milliseconds timeout) {
  return ask([&](std::uint64_t request_id) { return loop_->request_migration(request_id, program_id, to); },
             [&](std::uint64_t request_id) { loop_->cancel_migration(request_id); }, timeout,
             "no CMS has answered whether program " + std::to_string(program_id) + " will be moved");
}

Result<FetchedBlob> Client::fetch_own(ProgramId program_id, std::chrono::milliseconds patience,
                                      const FetchSink& sink) {
  if (Status guarded = check_guarded(); !guarded.ok()) return std::move(guarded).error();
  const auto restart = std::make_shared<OwnRestart>();
  if (Status expected = restorer_->expect(program_id, restart); !expected.ok())
    return std::move(expected).error();
  const Status asked = request_migration(program_id, ecu_mac(), patience);
  // It may be for us that it is restored: a CMS was asked before, and another one answers.
  const bool is_late = asked.code() == Code::kAlreadyExists;
  Result<FetchedBlob> blob = asked.ok() || is_late
                                 ? restart->take(patience, is_late ? asked.error().context : "", sink)
                                 : Result<FetchedBlob>(asked.error());
  restart->give_up();
  restorer_->forget(program_id);
  return blob;
}

Status Client::check_guarded() const {
  if (options_.lease) return ok_status();
  return make_error(Code::kInvalidArgument, "client: it was opened without rtcr_options.lease");
}

Status Client::programs_told() {
  if (Status guarded = check_guarded(); !guarded.ok()) return guarded;
  return loop_->programs_told();
}

Status Client::program_ended(ProgramId program_id) {
  if (Status guarded = check_guarded(); !guarded.ok()) return guarded;
  return loop_->program_ended(program_id);
}

Status Client::ask(const std::function<Status(std::uint64_t request_id)>& give,
                   const std::function<void(std::uint64_t request_id)>& cancel,
                   std::chrono::milliseconds timeout, const std::string& not_answered) {
  const auto start = std::chrono::steady_clock::now();
  std::unique_lock<std::mutex> lock(mutex_);
  const std::uint64_t request_id = ++last_request_id_;
  Request& request = requests_[request_id];
  Status given = give(request_id);
  bool timed_out = false;
  while (given.ok() && !request.done && !timed_out && !failed()) {
    if (timeout.count() < 0) {
      answered_.wait(lock);
    } else {
      timed_out = answered_.wait_until(lock, start + timeout) == std::cv_status::timeout;
    }
  }
  const Request result = std::move(request);
  requests_.erase(request_id);
  if (!given.ok()) return given;
  if (!result.done) {
    cancel(request_id);
    return make_error(Code::kTimeout, not_answered + " after " + std::to_string(timeout.count()) + " ms");
  }
  if (result.code != Code::kOk) return make_error(result.code, result.context);
  return ok_status();
}

}  // namespace cms::client
