#include "broker/shell/ecu_loop.h"

#include <pthread.h>
#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <utility>
#include <variant>

#include "base/prng.h"
#include "broker/shell/proc_metrics.h"
#include "net/host_id.h"
#include "net/socket.h"
#include "schemas/messages.h"

namespace cms::broker {
namespace {

// How much of each input one turn takes, so that none starves the others.
constexpr int kMessagesPerTurn = 256;
constexpr std::size_t kChunksPerTurn = 16;
// Room for commands from the start, so that a burst of publishes seldom pays for growth.
constexpr std::size_t kCommandRoom = 256;

// A mutex that hands the loop thread's place to a publisher of higher priority that waits for it.
class PriorityMutex {
 public:
  PriorityMutex() {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
    pthread_mutex_init(&mutex_, &attributes);
    pthread_mutexattr_destroy(&attributes);
  }
  PriorityMutex(const PriorityMutex&) = delete;
  PriorityMutex& operator=(const PriorityMutex&) = delete;
  ~PriorityMutex() { pthread_mutex_destroy(&mutex_); }
  void lock() { pthread_mutex_lock(&mutex_); }
  void unlock() { pthread_mutex_unlock(&mutex_); }

 private:
  pthread_mutex_t mutex_{};
};

struct PublishCommand {
  wire::Notification notification{};
  std::unique_ptr<BlobSource> source{};
};
struct WithdrawCommand {
  std::uint64_t request_id = 0;
  ProgramId program_id = 0;
};
struct CancelWithdrawCommand {
  std::uint64_t request_id = 0;
};
struct PreparedCommand {
  RestoreId id = 0;
  Status status{};
};
struct RunningCommand {
  RestoreId id = 0;
  Result<ProgramId> program_id = ProgramId{0};
};
struct FrozenCommand {
  FreezeId id = 0;
  Result<Seq> last_seq = Seq{0};
};
struct MigrateCommand {
  std::uint64_t request_id = 0;
  ProgramId program_id = 0;
  std::optional<EcuMac> to{};
};
struct CancelMigrationCommand {
  std::uint64_t request_id = 0;
};
struct StoppedCommand {
  ProgramId program_id = 0;
  Status status{};
};
struct ProgramsToldCommand {};
struct ProgramEndedCommand {
  ProgramId program_id = 0;
};
using Command = std::variant<PublishCommand, WithdrawCommand, CancelWithdrawCommand, PreparedCommand,
                             RunningCommand, FrozenCommand, MigrateCommand, CancelMigrationCommand,
                             StoppedCommand, ProgramsToldCommand, ProgramEndedCommand>;

// The last reference to a chunk may go on a ZeroMQ I/O thread, when its bytes have been sent.
void free_chunk(void*, void* owner) { delete static_cast<std::shared_ptr<const void>*>(owner); }

}  // namespace

class EcuLoop::Impl {
 public:
  Impl(const EcuLoopConfig& config, EcuLoopListener& listener)
      : config_(config),
        listener_(listener),
        pub_(net::make_notify_pub(context_)),
        bulk_(net::make_bulk_router(context_)) {}

  Status open() {
    const auto port = net::bind_in_range(bulk_, config_.bulk_host, config_.bulk_ports);
    if (!port.ok()) return port.error();
    bulk_port_ = *port;
    const Status notify = connect_notify();
    if (!notify.ok()) return notify;
    for (std::size_t i = 0; i < config_.cms.size(); ++i) {
      control_.push_back(net::make_control_dealer(context_));
      const Status connected = net::connect(control_[i], config_.cms[i].channel(net::kControlPort));
      if (!connected.ok()) return connected;
    }
    EcuCoreConfig core;
    core.ecu_mac = config_.ecu_mac;
    core.nonce = random_u64();
    if (config_.lease_handler != nullptr) {
      core.guarded = true;
      core.enforcer = config_.enforcer;
      core.boot_id = net::boot_id_of(config_.boot_id);
      if (core.boot_id == Id128{})
        return make_error(Code::kUnsupported, "the kernel tells no boot id: a guarded session needs one");
    }
    core.host_id = net::this_host_id();
    core.bulk_port = bulk_port_;
    core.advertise_host = config_.advertise_host;
    core.software = config_.software;
    core.cms_count = config_.cms.size();
    core.memory_budget_bytes = config_.memory_budget_bytes;
    if (config_.restore_handler != nullptr) core.target = RestoreTargetConfig{config_.received_bytes_max};
    core.only_restarts = config_.only_restarts;
    core.freezes = config_.move_handler != nullptr;
    core_ = std::make_unique<EcuCore>(std::move(core));
    return ok_status();
  }

  void run() {
    Effects effects;
    core_->start(BootClock::now(), effects);
    carry_out(effects);
    bool more_to_serve = false;
    while (true) {
      if (take_commands()) {
        core_->prepare_stop(effects);
        carry_out(effects);
        // Whoever was told to run a program must hear how that ended, and what is told to stop must have; it is soon.
        if (core_->is_stoppable()) break;
      }
      wait(more_to_serve);
      const Instant now = BootClock::now();
      for (std::size_t i = 0; i < control_.size(); ++i) receive_control(now, i);
      receive_bulk(now);
      receive_restored(now);
      if (config_.restore_handler != nullptr && now >= proc_metrics_.next_sample_at())
        proc_metrics_.sample(now);
      if (now >= core_->next_deadline()) {
        core_->on_time(now, effects);
        carry_out(effects);
      }
      more_to_serve = core_->serve(kChunksPerTurn, effects);
      carry_out(effects);
    }
    core_->stop(effects);
    carry_out(effects);
    links_.clear();
    control_.clear();  // LINGER lets the BYE out.
  }

  void stop() {
    {
      const std::lock_guard<PriorityMutex> lock(mutex_);
      stopping_ = true;
    }
    waker_.wake();
  }

  Result<Seq> publish(wire::Notification notification, std::unique_ptr<BlobSource>& source) {
    Seq seq = 0;
    bool was_empty = false;
    {
      const std::lock_guard<PriorityMutex> lock(mutex_);
      const Status room = check_room();
      if (!room.ok()) return room.error();
      // Whatever can throw comes before the seq is taken: the core counts on there being no hole.
      if (commands_.size() == commands_.capacity())
        commands_.reserve(std::max(kCommandRoom, 2 * commands_.size()));
      seq = ++last_seq_;
      notification.seq = seq;
      was_empty = commands_.empty();
      commands_.push_back(PublishCommand{std::move(notification), std::move(source)});
    }
    if (was_empty) waker_.wake();
    return seq;
  }

  Status push(Command command) {
    {
      const std::lock_guard<PriorityMutex> lock(mutex_);
      const Status room = check_room();
      if (!room.ok()) return room;
      commands_.push_back(std::move(command));
    }
    waker_.wake();
    return ok_status();
  }

  // One for each restore and each freezing at most: those are bounded.
  void push_answer(Command command) {
    {
      const std::lock_guard<PriorityMutex> lock(mutex_);
      commands_.push_back(std::move(command));
    }
    waker_.wake();
  }

  std::uint16_t bulk_port() const { return bulk_port_; }

  EcuLoopStats stats() const {
    EcuLoopStats stats;
    stats.incarnation = incarnation_.load(std::memory_order_relaxed);
    stats.served_bytes = served_bytes_.load(std::memory_order_relaxed);
    stats.held_count = held_count_.load(std::memory_order_relaxed);
    stats.held_memory_bytes = held_memory_bytes_.load(std::memory_order_relaxed);
    stats.live_cms_count = live_cms_count_.load(std::memory_order_relaxed);
    return stats;
  }

 private:
  void update_stats() {
    incarnation_.store(core_->incarnation(), std::memory_order_relaxed);
    served_bytes_.store(core_->served_bytes(), std::memory_order_relaxed);
    held_count_.store(core_->held_count(), std::memory_order_relaxed);
    held_memory_bytes_.store(core_->held_memory_bytes(), std::memory_order_relaxed);
    live_cms_count_.store(static_cast<std::uint32_t>(core_->live_cms_count()), std::memory_order_relaxed);
  }

  Status check_room() const {
    if (stopping_) return make_error(Code::kCancelled, "the client was closed");
    if (commands_.size() >= kPublishQueueMax) {
      return make_error(Code::kLimit,
                        std::to_string(kPublishQueueMax) + " calls wait for the client's thread");
    }
    return ok_status();
  }

  Status connect_notify() {
    for (const net::Endpoint& cms : config_.cms) {
      const Status connected = net::connect(pub_, cms.channel(net::kNotifyPort));
      if (!connected.ok()) return connected;
    }
    return ok_status();
  }

  // Returns whether the loop is to end.
  bool take_commands() {
    bool stopping = false;
    {
      const std::lock_guard<PriorityMutex> lock(mutex_);
      taken_.swap(commands_);
      stopping = stopping_;
    }
    Effects effects;
    const Instant now = BootClock::now();
    for (Command& command : taken_) {
      if (auto* publish = std::get_if<PublishCommand>(&command)) {
        core_->publish(now, std::move(publish->notification), std::move(publish->source), effects);
      } else if (const auto* withdraw = std::get_if<WithdrawCommand>(&command)) {
        const Status taken = core_->withdraw(now, withdraw->request_id, withdraw->program_id, effects);
        if (!taken.ok()) {
          effects.push_back(WithdrawDone{withdraw->request_id, taken.code(), taken.error().context});
        }
      } else if (const auto* cancel = std::get_if<CancelWithdrawCommand>(&command)) {
        core_->cancel_withdraw(cancel->request_id);
      } else if (const auto* prepared = std::get_if<PreparedCommand>(&command)) {
        core_->on_prepared(now, prepared->id, prepared->status, effects);
      } else if (const auto* frozen = std::get_if<FrozenCommand>(&command)) {
        core_->on_frozen(frozen->id, frozen->last_seq, effects);
      } else if (const auto* migrate = std::get_if<MigrateCommand>(&command)) {
        const Status taken =
            core_->request_migration(now, migrate->request_id, migrate->program_id, migrate->to, effects);
        if (!taken.ok()) {
          effects.push_back(MigrationAnswered{migrate->request_id, taken.code(), taken.error().context});
        }
      } else if (const auto* cancelled = std::get_if<CancelMigrationCommand>(&command)) {
        core_->cancel_migration(cancelled->request_id);
      } else if (const auto* stopped = std::get_if<StoppedCommand>(&command)) {
        core_->on_stopped(now, stopped->program_id, stopped->status, effects);
      } else if (std::holds_alternative<ProgramsToldCommand>(command)) {
        core_->programs_told(effects);
      } else if (const auto* ended = std::get_if<ProgramEndedCommand>(&command)) {
        core_->program_ended(now, ended->program_id, effects);
      } else {
        const auto& running = std::get<RunningCommand>(command);
        core_->on_running(now, running.id, running.program_id, effects);
      }
    }
    taken_.clear();
    carry_out(effects);
    return stopping;  // Nothing was taken in since it was set.
  }

  void wait(bool more_to_serve) {
    items_.clear();
    items_.push_back({nullptr, waker_.fd(), ZMQ_POLLIN, 0});
    items_.push_back({bulk_.handle(), 0, ZMQ_POLLIN, 0});
    for (zmq::socket_t& control : control_) items_.push_back({control.handle(), 0, ZMQ_POLLIN, 0});
    for (auto& [link, socket] : links_) items_.push_back({socket.handle(), 0, ZMQ_POLLIN, 0});
    std::chrono::milliseconds timeout(0);
    if (!more_to_serve) {
      const Duration left = core_->next_deadline() - BootClock::now();
      constexpr Duration kLongest = std::chrono::seconds(1);
      timeout = std::chrono::ceil<std::chrono::milliseconds>(
          std::clamp<Duration>(left, Duration::zero(), kLongest));
    }
    net::poll(items_, timeout);
    if ((items_[0].revents & ZMQ_POLLIN) != 0) waker_.drain();
  }

  void receive_control(Instant now, CmsIndex cms) {
    Effects effects;
    for (int i = 0; i < kMessagesPerTurn && net::receive(control_[cms], frames_); ++i) {
      if (frames_.size() != 1) continue;
      const auto message = wire::decode_control(frames_[0].data(), frames_[0].size());
      if (!message.ok()) continue;  // Not a CMS's words; a CMS that goes on like this is found silent.
      core_->on_control(now, cms, *message, effects);
      // Carried out at once: a ReconnectControl would invalidate what we are reading from.
      if (carry_out(effects)) return;
    }
  }

  void receive_bulk(Instant now) {
    Effects effects;
    for (int i = 0; i < kMessagesPerTurn && net::receive(bulk_, frames_); ++i) {
      if (frames_.size() != 2) continue;
      const PeerId peer = frames_[0].to_string();
      const auto message = wire::decode_bulk(frames_[1].data(), frames_[1].size());
      if (!message.ok()) {
        core_->on_bulk_peer_gone(peer);
        continue;
      }
      core_->on_bulk(now, peer, *message, effects);
    }
    carry_out(effects);
  }

  // The bytes of blobs that are restored here.
  void receive_restored(Instant now) {
    std::vector<BulkLink> links;  // A copy: carry_out() opens and closes them.
    for (const auto& [link, socket] : links_) links.push_back(link);
    Effects effects;
    for (const BulkLink& link : links) {
      for (int i = 0; i < kMessagesPerTurn; ++i) {
        const auto socket = links_.find(link);
        if (socket == links_.end() || !net::receive(socket->second, frames_)) break;
        const auto message = wire::decode_bulk(frames_[0].data(), frames_[0].size());
        if (!message.ok() || frames_.size() > 2) continue;  // Not a CMS's words; its transfers stall.
        ChunkView bytes;
        if (frames_.size() == 2) bytes = ChunkView{frames_[1].data(), frames_[1].size(), nullptr};
        core_->on_restore_bulk(now, link, *message, bytes, effects);
        carry_out(effects);  // At once: the bytes are those of the frame.
      }
    }
  }

  // Returns whether a control socket was replaced.
  bool carry_out(Effects& effects) {
    update_stats();
    bool replaced = false;
    // What the RTCR has no room for ends its restore, with effects of its own.
    Effects later;
    for (Effect& effect : effects) {
      if (carry_out_restore(effect, later)) continue;
      if (auto* control = std::get_if<SendControl>(&effect)) {
        const wire::Bytes bytes = wire::encode(control->message);
        // Full only when nobody has taken a thousand messages: a heartbeat more says nothing new.
        (void)net::send(control_[control->cms], bytes.data(), bytes.size(), false);
      } else if (auto* notify = std::get_if<SendNotify>(&effect)) {
        const wire::Bytes bytes = wire::encode(notify->message);
        (void)net::send(pub_, bytes.data(), bytes.size(), false);  // Lossy by nature; LIST repairs.
      } else if (auto* chunk = std::get_if<SendChunk>(&effect)) {
        send_chunk(*chunk);
      } else if (auto* error = std::get_if<SendTransferError>(&effect)) {
        const wire::Bytes bytes = wire::encode(wire::BulkBody{error->error});
        if (net::send(bulk_, error->peer.data(), error->peer.size(), true) == net::Sent::kYes) {
          (void)net::send(bulk_, bytes.data(), bytes.size(), false);
        }
      } else if (const auto* reconnect = std::get_if<ReconnectControl>(&effect)) {
        control_[reconnect->cms] = net::make_control_dealer(context_);
        const Status connected =
            net::connect(control_[reconnect->cms], config_.cms[reconnect->cms].channel(net::kControlPort));
        CMS_ASSERT(connected.ok());  // The same call has succeeded in open().
        replaced = true;
      } else if (std::holds_alternative<ReconnectNotify>(effect)) {
        pub_ = net::make_notify_pub(context_);
        const Status connected = connect_notify();
        CMS_ASSERT(connected.ok());
      } else if (const auto* receipt = std::get_if<ReceiptEvent>(&effect)) {
        listener_.on_receipt(*receipt);
      } else if (const auto* done = std::get_if<WithdrawDone>(&effect)) {
        listener_.on_withdrawn(*done);
      } else if (const auto* answered = std::get_if<MigrationAnswered>(&effect)) {
        listener_.on_migration_answered(*answered);
      } else if (const auto* freeze = std::get_if<FreezeProgram>(&effect)) {
        config_.move_handler->freeze(*freeze);  // None comes without one.
      } else if (const auto* thaw = std::get_if<ThawProgram>(&effect)) {
        config_.move_handler->thaw(*thaw);
      } else if (const auto* stop = std::get_if<StopProgram>(&effect)) {
        config_.lease_handler->stop(stop->program_id);  // None comes without one.
      } else if (const auto* resume = std::get_if<ResumeProgram>(&effect)) {
        config_.lease_handler->resume(resume->program_id);
      } else if (const auto* lease = std::get_if<LeaseChanged>(&effect)) {
        config_.lease_handler->lease_changed(*lease);
      } else {
        listener_.on_cms_event(std::get<CmsEvent>(effect));
      }
    }
    effects.clear();
    if (!later.empty()) replaced = carry_out(later) || replaced;
    return replaced;
  }

  // Returns whether it was one of a target's.
  bool carry_out_restore(Effect& effect, Effects& later) {
    RestoreHandler* const handler = config_.restore_handler;
    if (handler == nullptr) return false;
    const auto refuse_unless = [&](RestoreId id, const Status& status) {
      if (!status.ok()) core_->on_sink_failed(BootClock::now(), id, status.error(), later);
    };
    if (const auto* opened = std::get_if<OpenBulkLink>(&effect)) {
      const net::Endpoint server{config_.cms[opened->link.cms].host, opened->link.port};
      const auto socket = links_.emplace(opened->link, net::make_bulk_dealer(context_)).first;
      // A host that was good for the control channel; else the transfer stalls.
      (void)net::connect(socket->second, server.channel(0));
    } else if (const auto* closed = std::get_if<CloseBulkLink>(&effect)) {
      links_.erase(closed->link);
    } else if (const auto* sent = std::get_if<SendBulk>(&effect)) {
      const wire::Bytes bytes = wire::encode(sent->message);
      // Never full with what a window allows; a lost connection shows as silence.
      (void)net::send(links_.at(sent->link), bytes.data(), bytes.size(), false);
    } else if (const auto* received = std::get_if<ReceiveBlob>(&effect)) {
      refuse_unless(received->id, handler->receive(received->id, received->info));
    } else if (const auto* taken = std::get_if<TakeBytes>(&effect)) {
      refuse_unless(taken->id, handler->take(taken->id, taken->offset_bytes, taken->bytes.data,
                                             taken->bytes.size_bytes));
    } else if (const auto* prepare = std::get_if<PrepareProgram>(&effect)) {
      handler->prepare(prepare->id);
    } else if (const auto* run = std::get_if<RunProgram>(&effect)) {
      handler->go(run->id, run->owner_epoch);
    } else if (const auto* discarded = std::get_if<DiscardRestore>(&effect)) {
      handler->discard(discarded->id);
    } else if (const auto* ask = std::get_if<AskMetrics>(&effect)) {
      wire::Metrics metrics = proc_metrics_.metrics(BootClock::now());
      handler->complete_metrics(metrics);
      metrics.number = ask->number;
      core_->tell_metrics(ask->cms, std::move(metrics), later);
    } else {
      return false;
    }
    return true;
  }

  void send_chunk(SendChunk& chunk) {
    const wire::Bytes header = wire::encode(wire::BulkBody{chunk.header});
    const net::Sent sent = net::send(bulk_, chunk.peer.data(), chunk.peer.size(), true);
    if (sent != net::Sent::kYes) {
      // Gone, or it took more on credit than it reads: either way it has to ask anew.
      core_->on_bulk_peer_gone(chunk.peer);
      return;
    }
    (void)net::send(bulk_, header.data(), header.size(), true);
    // No copy: ZeroMQ sends from the held memory and lets go of it when the kernel has the bytes.
    auto* owner = new std::shared_ptr<const void>(std::move(chunk.bytes.owner));
    zmq::message_t body(const_cast<void*>(chunk.bytes.data), chunk.bytes.size_bytes, free_chunk, owner);
    (void)net::send(bulk_, std::move(body), false);
  }

  EcuLoopConfig config_;
  EcuLoopListener& listener_;
  zmq::context_t context_{1};
  zmq::socket_t pub_;
  zmq::socket_t bulk_;
  std::vector<zmq::socket_t> control_{};
  std::map<BulkLink, zmq::socket_t> links_{};  // To CMS instances whose blobs are restored here.
  ProcMetrics proc_metrics_{};
  net::Waker waker_{};
  std::uint16_t bulk_port_ = 0;
  std::unique_ptr<EcuCore> core_{};
  std::vector<zmq::pollitem_t> items_{};
  std::vector<zmq::message_t> frames_{};
  std::vector<Command> taken_{};

  std::atomic<Incarnation> incarnation_{0};
  std::atomic<std::uint64_t> served_bytes_{0};
  std::atomic<std::uint64_t> held_count_{0};
  std::atomic<std::uint64_t> held_memory_bytes_{0};
  std::atomic<std::uint32_t> live_cms_count_{0};

  PriorityMutex mutex_{};  // Guards what is below.
  std::vector<Command> commands_{};
  Seq last_seq_ = 0;
  bool stopping_ = false;
};

Result<std::unique_ptr<EcuLoop>> EcuLoop::create(const EcuLoopConfig& config, EcuLoopListener& listener) {
  CMS_ASSERT(!config.cms.empty() && config.cms.size() <= kCmsCountMax);
  try {
    auto impl = std::make_unique<Impl>(config, listener);
    const Status opened = impl->open();
    if (!opened.ok()) return opened.error();
    return std::unique_ptr<EcuLoop>(new EcuLoop(std::move(impl)));
  } catch (const zmq::error_t& error) {
    return error_from_errno(error.num(), "cannot make the client's sockets");
  }
}

EcuLoop::EcuLoop(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
EcuLoop::~EcuLoop() = default;
void EcuLoop::run() { impl_->run(); }
void EcuLoop::stop() { impl_->stop(); }
Result<Seq> EcuLoop::publish(wire::Notification notification, std::unique_ptr<BlobSource>& source) {
  return impl_->publish(std::move(notification), source);
}
Status EcuLoop::withdraw(std::uint64_t request_id, ProgramId program_id) {
  return impl_->push(WithdrawCommand{request_id, program_id});
}
void EcuLoop::cancel_withdraw(std::uint64_t request_id) {
  (void)impl_->push(CancelWithdrawCommand{request_id});
}
void EcuLoop::prepared(RestoreId id, Status status) {
  impl_->push_answer(PreparedCommand{id, std::move(status)});
}
void EcuLoop::running(RestoreId id, Result<ProgramId> program_id) {
  impl_->push_answer(RunningCommand{id, std::move(program_id)});
}
void EcuLoop::frozen(FreezeId id, Result<Seq> last_seq) {
  impl_->push_answer(FrozenCommand{id, std::move(last_seq)});
}
void EcuLoop::stopped(ProgramId program_id, Status status) {
  impl_->push_answer(StoppedCommand{program_id, std::move(status)});
}
Status EcuLoop::programs_told() { return impl_->push(ProgramsToldCommand{}); }
Status EcuLoop::program_ended(ProgramId program_id) { return impl_->push(ProgramEndedCommand{program_id}); }
Status EcuLoop::request_migration(std::uint64_t request_id, ProgramId program_id,
                                  const std::optional<EcuMac>& to) {
  return impl_->push(MigrateCommand{request_id, program_id, to});
}
void EcuLoop::cancel_migration(std::uint64_t request_id) {
  (void)impl_->push(CancelMigrationCommand{request_id});
}
std::uint16_t EcuLoop::bulk_port() const { return impl_->bulk_port(); }
EcuLoopStats EcuLoop::stats() const { return impl_->stats(); }

}  // namespace cms::broker
