#include "test/support/fake_cms.h"

#include <unistd.h>
#include <algorithm>
#include <atomic>
#include <utility>
#include <variant>

#include "base/assert.h"
#include "base/digest.h"
#include "base/time.h"
#include "broker/core/chunk_receiver.h"
#include "broker/core/chunk_server.h"
#include "net/endpoint.h"
#include "net/socket.h"

namespace cms::test {

class FakeCms::Impl {
 public:
  explicit Impl(FakePlan plan)
      : plan_(std::move(plan)),
        notify_(net::make_notify_sub(context_)),
        control_(net::make_control_router(context_)),
        bulk_(net::make_bulk_router(context_)) {
    bind();
    thread_ = std::thread([this] { run(); });
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() {
    ending_ = true;
    waker_.wake();
    thread_.join();
  }

  std::string endpoint() const { return "tcp://127.0.0.1:" + std::to_string(port_); }

  FakeState state() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return state_;
  }

  bool wait_until(const std::function<bool(const FakeState&)>& condition) const {
    std::unique_lock<std::mutex> lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(20), [&] { return condition(state_); });
  }

  // Carried out by the thread that owns the sockets.
  void post(std::function<void()> work) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      posted_.push_back(std::move(work));
    }
    waker_.wake();
  }

  void set_plan(FakePlan plan) {
    post([this, plan = std::move(plan)] {
      plan_ = plan;
      const std::map<Seq, wire::Notification> heard = state_.heard;
      for (const auto& [seq, notification] : heard) hear(notification);
      for (auto& [seq, pull] : pulls_) give_credit(pull);
    });
  }

  void say(ProgramId program_id, Seq seq, wire::ReceiptLevel level, Code code, std::string reason) {
    post([this, receipt = wire::Receipt{program_id, seq, level, code, std::move(reason)}] {
      say_to_session(receipt);
    });
  }

  void end_session() {
    post([this] {
      wire::HelloAnswer answer;
      answer.nonce = nonce_;
      answer.code = Code::kFenced;
      answer.context = "it was lost";
      send_control(answer);
    });
  }

  void command(const wire::ControlBody& body) {
    post([this, body] { send_control(body); });
  }

  std::uint16_t bulk_port() const { return static_cast<std::uint16_t>(port_ + net::kBulkPort); }

  void offer(const CheckpointId& checkpoint, std::string bytes) {
    post([this, checkpoint, bytes = std::move(bytes)] {
      offered_[checkpoint] = bytes;
      newest_[checkpoint.program] = checkpoint;
    });
  }

 private:
  struct Pull {
    wire::Notification notification{};
    std::unique_ptr<zmq::socket_t> socket{};
    std::unique_ptr<broker::ChunkReceiver> receiver{};
    std::string bytes{};
    std::uint64_t taken_bytes = 0;  // Given credit for.
  };

  // A port base of which all three channels are free; outside the ephemeral ports.
  void bind() {
    static std::atomic<unsigned> next{static_cast<unsigned>(::getpid())};
    for (int attempt = 0; attempt < 200; ++attempt) {
      const auto base = static_cast<std::uint16_t>(20000 + next++ % 1200 * 10);
      const auto address = [base](std::uint16_t channel) {
        return "tcp://127.0.0.1:" + std::to_string(base + channel);
      };
      if (!net::bind(notify_, address(net::kNotifyPort)).ok()) continue;
      if (net::bind(control_, address(net::kControlPort)).ok()) {
        if (net::bind(bulk_, address(net::kBulkPort)).ok()) {
          port_ = base;
          return;
        }
        control_ = net::make_control_router(context_);
      }
      notify_ = net::make_notify_sub(context_);
    }
    CMS_ASSERT(false && "no free ports");
  }

  void run() {
    std::vector<zmq::message_t> frames;
    while (!ending_) {
      std::vector<zmq::pollitem_t> items{{nullptr, waker_.fd(), ZMQ_POLLIN, 0},
                                         {notify_.handle(), 0, ZMQ_POLLIN, 0},
                                         {control_.handle(), 0, ZMQ_POLLIN, 0},
                                         {bulk_.handle(), 0, ZMQ_POLLIN, 0}};
      for (auto& [seq, pull] : pulls_) items.push_back({pull.socket->handle(), 0, ZMQ_POLLIN, 0});
      zmq::poll(items, std::chrono::seconds(1));
      if (items[0].revents != 0) waker_.drain();
      const std::lock_guard<std::mutex> lock(mutex_);
      for (const auto& work : std::exchange(posted_, {})) work();
      while (net::receive(notify_, frames)) on_notify(frames);
      while (net::receive(control_, frames)) on_control(frames);
      while (net::receive(bulk_, frames)) on_bulk(frames);
      for (auto it = pulls_.begin(); it != pulls_.end();) {
        bool ended = false;
        while (!ended && net::receive(*it->second.socket, frames)) ended = on_pulled(it->second, frames);
        it = ended ? pulls_.erase(it) : std::next(it);
      }
      serve();
      changed_.notify_all();
    }
  }

  void send_control(const wire::ControlBody& body) {
    const wire::Bytes bytes = wire::encode(wire::ControlMessage{state_.incarnation, body});
    if (net::send(control_, peer_.data(), peer_.size(), true) != net::Sent::kYes) return;
    (void)net::send(control_, bytes.data(), bytes.size(), false);
  }
  void say_to_session(const wire::Receipt& receipt) { send_control(receipt); }

  void on_notify(const std::vector<zmq::message_t>& frames) {
    const auto message = wire::decode_notify(frames[0].data(), frames[0].size());
    CMS_ASSERT(message.ok());
    ++notify_count_;
    if (const auto* notification = std::get_if<wire::Notification>(&message->body)) hear(*notification);
  }

  void on_control(std::vector<zmq::message_t>& frames) {
    CMS_ASSERT(frames.size() == 2);
    const auto message = wire::decode_control(frames[1].data(), frames[1].size());
    CMS_ASSERT(message.ok());
    if (const auto* hello = std::get_if<wire::Hello>(&message->body)) {
      ++state_.hello_count;
      state_.hello = *hello;
      if (plan_.silent) return;
      peer_ = frames[0].to_string();
      on_hello(*hello);
    } else if (const auto* heartbeat = std::get_if<wire::Heartbeat>(&message->body)) {
      state_.programs_changed = heartbeat->programs_changed;
      state_.heartbeat_of = message->incarnation;
      if (plan_.silent || !plan_.answers_beats) return;
      send_control(
          wire::HeartbeatAnswer{heartbeat->number, notify_count_, plan_.grants && plan_.lease_ms != 0});
      const Seq last_heard = state_.heard.empty() ? 0 : state_.heard.rbegin()->first;
      if (heartbeat->last_seq > last_heard) send_control(wire::List{last_heard + 1});
    } else if (const auto* page = std::get_if<wire::ListPage>(&message->body)) {
      for (const wire::Notification& notification : page->notifications) hear(notification);
    } else if (const auto* withdraw = std::get_if<wire::Withdraw>(&message->body)) {
      state_.withdrawn.push_back(withdraw->program_id);
      if (plan_.withdraw_code)
        send_control(wire::WithdrawAnswer{withdraw->request_id, *plan_.withdraw_code, "as planned"});
    } else if (const auto* migrate = std::get_if<wire::Migrate>(&message->body)) {
      state_.migrations.push_back(*migrate);
      if (plan_.migrate_code)
        send_control(wire::MigrateAnswer{migrate->request_id, *plan_.migrate_code, "as planned"});
    } else if (const auto* frozen = std::get_if<wire::FreezeReport>(&message->body)) {
      state_.freeze_reports.push_back(*frozen);
    } else if (const auto* told = std::get_if<wire::Programs>(&message->body)) {
      state_.programs.push_back(*told);
    } else if (const auto* report = std::get_if<wire::RestoreReport>(&message->body)) {
      state_.reports.push_back(*report);
    } else if (const auto* metrics = std::get_if<wire::Metrics>(&message->body)) {
      state_.metrics.push_back(*metrics);
    } else if (std::holds_alternative<wire::Bye>(message->body)) {
      ++state_.bye_count;
      pulls_.clear();
    }
  }

  void on_hello(const wire::Hello& hello) {
    wire::HelloAnswer answer;
    answer.nonce = hello.nonce;
    answer.cms_name = "fake";
    if (!plan_.refusal.empty()) {
      answer.code = Code::kPermission;
      answer.context = plan_.refusal;
    } else {
      // A Hello that is repeated before its answer has come is of the same session.
      if (hello.incarnation == 0 && hello.nonce != nonce_) begin_session();
      nonce_ = hello.nonce;
      if (hello.incarnation != 0) state_.incarnation = hello.incarnation;
      answer.incarnation = state_.incarnation;
      ecu_mac_ = hello.ecu_mac;
      bulk_port_ = hello.bulk_port;
      state_.features = hello.features;
      if (hello.guarded) answer.lease_ms = plan_.lease_ms;
    }
    send_control(answer);
    if (plan_.refusal.empty()) send_control(wire::List{1});
  }

  // Seqs begin anew.
  void begin_session() {
    ++state_.session_count;
    state_.incarnation += 65536;
    pulls_.clear();
    state_.heard.clear();
    state_.pulled_bytes.clear();
    state_.pulled.clear();
    state_.pull_errors.clear();
  }

  void hear(const wire::Notification& notification) {
    const Seq seq = notification.seq;
    state_.heard[seq] = notification;
    if (!plan_.pull || plan_.silent || state_.incarnation == 0)
      return;  // No session: it does not know where.
    if (pulls_.count(seq) != 0 || state_.pulled.count(seq) != 0 || state_.pull_errors.count(seq) != 0) return;
    broker::ExpectedBlob expected;
    expected.checkpoint =
        CheckpointId{ProgramKey{ecu_mac_, notification.program_id}, Version{state_.incarnation, seq}};
    expected.size_bytes = notification.size_bytes;
    expected.chunk_size_bytes = notification.chunk_size_bytes;
    Pull& pull = pulls_[seq];
    pull.notification = notification;
    pull.socket = std::make_unique<zmq::socket_t>(net::make_bulk_dealer(context_));
    const std::uint64_t window = std::max<std::uint64_t>(
        std::min(plan_.credit_bytes_max, broker::kTransferWindowBytes), notification.chunk_size_bytes);
    pull.receiver = std::make_unique<broker::ChunkReceiver>(seq, expected, window);
    CMS_ASSERT(net::connect(*pull.socket, "tcp://127.0.0.1:" + std::to_string(bulk_port_)).ok());
    send_bulk(*pull.socket, pull.receiver->fetch());
  }

  static void send_bulk(zmq::socket_t& socket, const wire::BulkBody& body) {
    const wire::Bytes bytes = wire::encode(body);
    (void)net::send(socket, bytes.data(), bytes.size(), false);
  }

  // Returns whether the pull has ended.
  bool on_pulled(Pull& pull, const std::vector<zmq::message_t>& frames) {
    const Seq seq = pull.notification.seq;
    const auto message = wire::decode_bulk(frames[0].data(), frames[0].size());
    CMS_ASSERT(message.ok());
    if (const auto* error = std::get_if<wire::TransferError>(&*message)) {
      state_.pull_errors[seq] = error->code;
      return true;
    }
    const auto& chunk = std::get<wire::Chunk>(*message);
    CMS_ASSERT(frames.size() == 2);
    CMS_ASSERT(digest_of(frames[1].data(), frames[1].size()) == chunk.digest);
    CMS_ASSERT(pull.receiver->on_chunk(chunk, frames[1].size()).ok());
    pull.bytes.append(static_cast<const char*>(frames[1].data()), frames[1].size());
    state_.pulled_bytes[seq] = pull.bytes.size();
    if (!pull.receiver->received_all()) {
      give_credit(pull);
      return false;
    }
    state_.pulled[seq] = std::move(pull.bytes);
    if (plan_.store)
      send_control(
          wire::Receipt{pull.notification.program_id, seq, wire::ReceiptLevel::kStored, Code::kOk, {}});
    return true;
  }

  void give_credit(Pull& pull) {
    const std::uint64_t untaken = pull.bytes.size() - pull.taken_bytes;
    if (untaken == 0 || pull.bytes.size() >= plan_.credit_bytes_max) return;
    pull.taken_bytes += untaken;
    if (const auto credit = pull.receiver->on_taken(untaken)) send_bulk(*pull.socket, *credit);
  }

  void on_bulk(const std::vector<zmq::message_t>& frames) {
    const broker::PeerId peer = frames[0].to_string();
    const auto message = wire::decode_bulk(frames[1].data(), frames[1].size());
    CMS_ASSERT(message.ok());
    if (const auto* credit = std::get_if<wire::Credit>(&*message))
      server_.on_credit(BootClock::now(), peer, *credit);
    const auto* fetch = std::get_if<wire::Fetch>(&*message);
    if (fetch == nullptr) return;
    ++state_.fetch_count;
    CheckpointId checkpoint = fetch->checkpoint;
    if (checkpoint.version.seq == 0 && newest_.count(checkpoint.program) != 0)
      checkpoint = newest_[checkpoint.program];
    if (plan_.unavailable_count > 0) {
      --plan_.unavailable_count;
      refuse(peer, fetch->transfer_id, Code::kUnavailable, "reconciling with the store");
    } else if (offered_.count(checkpoint) == 0) {
      refuse(peer, fetch->transfer_id, Code::kNotFound,
             to_string(fetch->checkpoint.program) + " has no checkpoint here");
    } else {
      const broker::ServedBlob blob{checkpoint, offered_[checkpoint].size(), wire::kChunkSizeBytesMin};
      CMS_ASSERT(server_.start(BootClock::now(), peer, *fetch, blob).ok());
    }
  }

  void refuse(const broker::PeerId& peer, std::uint64_t transfer_id, Code code, const std::string& context) {
    const wire::Bytes bytes = wire::encode(wire::BulkBody{wire::TransferError{transfer_id, code, context}});
    if (net::send(bulk_, peer.data(), peer.size(), true) != net::Sent::kYes) return;
    (void)net::send(bulk_, bytes.data(), bytes.size(), false);
  }

  void serve() {
    while (const auto task = server_.next()) {
      if (plan_.silent_after_bytes && task->offset_bytes >= *plan_.silent_after_bytes) {
        plan_.silent_after_bytes.reset();
        server_.on_peer_gone(task->peer);
        continue;
      }
      const std::string& blob = offered_[task->blob.checkpoint];
      std::string bytes = blob.substr(task->offset_bytes, task->size_bytes);
      wire::Chunk chunk;
      chunk.transfer_id = task->transfer_id;
      chunk.offset_bytes = task->offset_bytes;
      chunk.size_bytes = task->size_bytes;
      chunk.digest = digest_of(bytes.data(), bytes.size());
      chunk.version = task->blob.checkpoint.version;
      chunk.blob_size_bytes = blob.size();
      chunk.chunk_size_bytes = task->blob.chunk_size_bytes;
      chunk.last = task->last;
      if (task->last) chunk.blob_digest = digest_of_blob(blob, task->blob.chunk_size_bytes);
      if (plan_.damage_count > 0 && !bytes.empty()) {
        --plan_.damage_count;
        bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
      }
      const wire::Bytes header = wire::encode(wire::BulkBody{chunk});
      if (net::send(bulk_, task->peer.data(), task->peer.size(), true) != net::Sent::kYes) {
        server_.on_peer_gone(task->peer);
        continue;
      }
      (void)net::send(bulk_, header.data(), header.size(), true);
      (void)net::send(bulk_, bytes.data(), bytes.size(), false);
    }
  }

  static Digest digest_of_blob(const std::string& blob, std::uint32_t chunk_size_bytes) {
    std::vector<Digest> digests;
    for (std::uint64_t i = 0; i < wire::chunk_count_of(blob.size(), chunk_size_bytes); ++i) {
      const std::string chunk = blob.substr(i * chunk_size_bytes, chunk_size_bytes);
      digests.push_back(digest_of(chunk.data(), chunk.size()));
    }
    return blob_digest_of(digests);
  }

  mutable std::mutex mutex_{};  // Guards all but the sockets while the thread works.
  mutable std::condition_variable changed_{};
  FakePlan plan_;
  FakeState state_{};
  std::vector<std::function<void()>> posted_{};
  std::map<CheckpointId, std::string> offered_{};
  std::map<ProgramKey, CheckpointId> newest_{};

  zmq::context_t context_{1};
  zmq::socket_t notify_;
  zmq::socket_t control_;
  zmq::socket_t bulk_;
  net::Waker waker_{};
  std::uint16_t port_ = 0;
  broker::ChunkServer server_{};
  std::uint64_t notify_count_ = 0;
  std::string peer_{};
  EcuMac ecu_mac_{};
  std::uint64_t nonce_ = 0;  // Of the last session.
  std::uint16_t bulk_port_ = 0;
  std::map<Seq, Pull> pulls_{};
  std::atomic<bool> ending_{false};
  std::thread thread_{};
};

FakeCms::FakeCms(FakePlan plan) : impl_(std::make_unique<Impl>(std::move(plan))) {}
FakeCms::~FakeCms() = default;
std::string FakeCms::endpoint() const { return impl_->endpoint(); }
FakeState FakeCms::state() const { return impl_->state(); }
bool FakeCms::wait_until(const std::function<bool(const FakeState&)>& condition) const {
  return impl_->wait_until(condition);
}
void FakeCms::set_plan(FakePlan plan) { impl_->set_plan(std::move(plan)); }
void FakeCms::say(ProgramId program_id, Seq seq, wire::ReceiptLevel level, Code code, std::string reason) {
  impl_->say(program_id, seq, level, code, std::move(reason));
}
void FakeCms::end_session() { impl_->end_session(); }
void FakeCms::command(const wire::ControlBody& body) { impl_->command(body); }
std::uint16_t FakeCms::bulk_port() const { return impl_->bulk_port(); }
void FakeCms::offer(const CheckpointId& checkpoint, std::string bytes) {
  impl_->offer(checkpoint, std::move(bytes));
}

}  // namespace cms::test
