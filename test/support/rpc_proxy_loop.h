#pragma once
// The inside of RpcFaultProxy: one thread that carries records between clients and server and strikes them.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "test/support/rpc_fault_proxy.h"
#include "test/support/rpc_sockets.h"

namespace cms::test {

inline constexpr std::size_t kQueueBytesMax = std::size_t{4} << 20;  // Then its source is read no more.
inline constexpr std::size_t kSequenceMax = 4096;
inline constexpr auto kAnswerMax = std::chrono::seconds(10);

class RpcFaultProxy::Loop {
 public:
  Loop() = default;
  ~Loop() {
    if (thread_.joinable()) {
      stop_ = true;
      wake();
      thread_.join();
    }
    for (Listener& listener : listeners_) {
      if (listener.fd >= 0) ::close(listener.fd);
    }
    if (wake_fd_ >= 0) ::close(wake_fd_);
  }
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  Status start(std::uint16_t nfs_port, std::uint16_t mount_port) {
    wake_fd_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    listeners_[0].target = nfs_port;
    listeners_[1].target = mount_port;
    for (Listener& listener : listeners_) {
      listener.fd = listen_on_any_port(listener.port);
      if (listener.fd < 0) return error_from_errno(errno, "listen on 127.0.0.1");
    }
    thread_ = std::thread([this] { run(); });
    return ok_status();
  }

  std::uint16_t port(std::size_t listener) const { return listeners_[listener].port; }

  // Runs `work` in the loop's thread between two messages, and waits for it.
  void in_loop(const std::function<void()>& work) {
    if (std::this_thread::get_id() == thread_.get_id()) return work();
    std::unique_lock lock(mutex_);
    const std::uint64_t ticket = ++posted_;
    work_.push_back(work);
    wake();
    changed_.wait(lock, [&] { return done_ >= ticket; });
  }

  // ---- in the loop's thread (in_loop)

  void release_all() {
    while (!held_.empty()) let_go(held_.begin());
  }
  void cut_all() {
    for (auto& connection : connections_) reset_client(*connection);
  }

  // ---- from any thread

  // False: not within kAnswerMax.
  bool wait_for_answers() {
    if (std::this_thread::get_id() == thread_.get_id()) return true;
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kAnswerMax, [this] { return awaited_count_ == 0; }) && !awaited_too_long_;
  }

  bool wait_until(std::chrono::milliseconds timeout, const std::function<bool()>& true_now) const {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, timeout, true_now);
  }

  // With mutex_ held.
  std::size_t count_of(Procedure procedure) const {
    if (procedure == Procedure::kAny) return calls_;
    const auto found = counts_.find(procedure);
    return found == counts_.end() ? 0 : found->second;
  }

  // Guarded by mutex_, with changed_ told of each change.
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  struct CountedRule {
    FaultRule rule;
    std::size_t matched = 0;
  };
  std::vector<CountedRule> rules_;
  std::shared_ptr<const Decide> decide_;
  std::map<Procedure, std::size_t> counts_;
  std::vector<Procedure> sequence_;
  std::size_t calls_ = 0;
  std::size_t struck_ = 0;
  std::size_t held_count_ = 0;
  std::size_t late_ = 0;

  std::atomic<bool> blackhole_ = false;
  std::atomic<bool> refuse_ = false;

 private:
  struct Listener {
    int fd = -1;
    std::uint16_t port = 0;
    std::uint16_t target = 0;
  };
  using HeldIterator = std::list<Held>::iterator;

  void wake() {
    const std::uint64_t one = 1;
    (void)!::write(wake_fd_, &one, sizeof(one));
  }

  void run() {
    while (!stop_) {
      wait();
      run_work();
      if (!blackhole_) {
        pass_time();
        handle_records();
        for (auto& connection : connections_) flush(*connection);
      }
      remove_ended();
      tell_counts();
    }
    for (auto& connection : connections_) {
      close_with_reset(connection->client.fd);
      close_with_reset(connection->server.fd);
    }
  }

  void run_work() {
    std::unique_lock lock(mutex_);
    while (!work_.empty()) {
      const std::function<void()> work = std::move(work_.front());
      work_.pop_front();
      lock.unlock();
      work();
      tell_counts();
      lock.lock();
      ++done_;
      changed_.notify_all();
    }
  }

  void tell_counts() {
    const std::lock_guard lock(mutex_);
    if (held_count_ == held_.size() && awaited_count_ == awaited_.size()) return;
    held_count_ = held_.size();
    awaited_count_ = awaited_.size();
    changed_.notify_all();
  }

  // ---- sockets

  void wait() {
    std::vector<pollfd> items = {{wake_fd_, POLLIN, 0}};
    if (!blackhole_) {
      for (const Listener& listener : listeners_) items.push_back({listener.fd, POLLIN, 0});
      for (auto& connection : connections_) {
        items.push_back(item_of(connection->client, connection->server));
        items.push_back(item_of(connection->server, connection->client));
      }
    }
    (void)::poll(items.data(), items.size(), timeout_ms());
    std::uint64_t ignored = 0;
    (void)!::read(wake_fd_, &ignored, sizeof(ignored));
    if (items.size() == 1 || blackhole_) return;
    std::size_t i = 1 + listeners_.size();
    for (auto& connection : connections_) {
      const short of_client = items[i].revents;
      const short of_server = items[i + 1].revents;
      i += 2;
      if (of_server != 0) read_server(*connection, of_server);
      if (of_client != 0) read_client(*connection, of_client);
    }
    for (std::size_t l = 0; l < listeners_.size(); ++l) {
      if (items[1 + l].revents != 0) accept_from(listeners_[l]);
    }
  }

  static pollfd item_of(const Side& side, const Side& other) {
    short events = 0;
    if (side.in_bytes + other.out_bytes < kQueueBytesMax) events |= POLLIN;
    if (!side.out.empty()) events |= POLLOUT;
    return {side.fd, events, 0};  // A closed side's -1 is left out by poll().
  }

  int timeout_ms() const {
    const auto now = std::chrono::steady_clock::now();
    auto next = std::chrono::steady_clock::time_point::max();
    for (const Held& held : held_) {
      if (held.bounded) next = std::min(next, held.until);
    }
    for (const auto& connection : connections_) {
      if (!connection->client_lives() && !connection->forwarded.empty() && connection->drain_until > now)
        next = std::min(next, connection->drain_until);
    }
    if (!awaited_.empty()) next = std::min(next, awaited_until_);
    if (next == std::chrono::steady_clock::time_point::max() || blackhole_) return -1;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(next - now);
    return static_cast<int>(std::max<std::int64_t>(0, left.count()));
  }

  void accept_from(const Listener& listener) {
    int fd = ::accept4(listener.fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) return;
    const int one = 1;
    (void)::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    auto connection = std::make_unique<Connection>();
    connection->server.fd = refuse_ ? -1 : connect_to(listener.target);
    if (connection->server.fd < 0) return close_with_reset(fd);
    connection->client.fd = fd;
    connection->number = connections_made_++;
    connections_.push_back(std::move(connection));
  }

  // False: the peer is gone.
  static bool read_side(Side& side, short events) {
    if ((events & (POLLIN | POLLHUP | POLLERR)) == 0) return true;
    static thread_local std::array<char, 256 * 1024> bytes;
    const ssize_t got = ::recv(side.fd, bytes.data(), bytes.size(), 0);
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    if (got == 0) return false;
    const std::size_t before = side.in.size();
    if (!side.reader.take(bytes.data(), static_cast<std::size_t>(got), side.in)) return false;
    for (std::size_t i = before; i < side.in.size(); ++i) side.in_bytes += side.in[i].raw.size();
    return true;
  }

  void read_client(Connection& connection, short events) {
    if (connection.client.fd >= 0 && !read_side(connection.client, events)) end_client(connection);
  }

  void read_server(Connection& connection, short events) {
    if (connection.server.fd >= 0 && !read_side(connection.server, events)) end_server(connection);
  }

  void end_client(Connection& connection) {
    if (connection.client.fd < 0) return;
    ::close(connection.client.fd);
    connection.client.fd = -1;
    client_is_gone(connection);
  }

  void reset_client(Connection& connection) {
    if (connection.client.fd < 0) return;
    close_with_reset(connection.client.fd);
    client_is_gone(connection);
  }

  void client_is_gone(Connection& connection) {
    connection.client.out.clear();
    connection.client.out_bytes = connection.client.out_sent = 0;
    connection.gone_at = ++order_;
    connection.drain_until = std::chrono::steady_clock::now() + kAnswerMax;
    // Requests that it has sent whole are still judged; replies have nowhere to go.
    held_.remove_if(
        [&](const Held& held) { return held.connection == &connection && held.way == Way::kReply; });
  }

  // What the server has said before it went still goes to the client.
  void end_server(Connection& connection) {
    if (connection.server.fd >= 0) ::close(connection.server.fd);
    connection.server.fd = -1;
    held_.remove_if([&](const Held& held) { return held.connection == &connection; });
    forget_awaited(connection);
  }

  void flush(Connection& connection) {
    if (connection.server.fd >= 0 && !flush_side(connection.server)) end_server(connection);
    if (connection.client.fd >= 0 && !flush_side(connection.client)) end_client(connection);
    if (connection.client.out.empty() && connection.cut_when_sent) reset_client(connection);
    if (connection.server.fd < 0 && connection.server.in.empty() && connection.client.out.empty())
      reset_client(connection);
  }

  static bool flush_side(Side& side) {
    while (!side.out.empty()) {
      const std::string& first = side.out.front();
      const ssize_t sent =
          ::send(side.fd, first.data() + side.out_sent, first.size() - side.out_sent, MSG_NOSIGNAL);
      if (sent < 0) return errno == EAGAIN || errno == EINTR;
      side.out_sent += static_cast<std::size_t>(sent);
      if (side.out_sent < first.size()) continue;
      side.out_bytes -= first.size();
      side.out_sent = 0;
      side.out.pop_front();
    }
    return true;
  }

  void remove_ended() {
    for (auto item = connections_.begin(); item != connections_.end();) {
      Connection& connection = **item;
      const bool holds = std::any_of(held_.begin(), held_.end(), [&](const Held& held) {
        return held.connection == &connection && held.way == Way::kRequest;
      });
      const bool drained =
          connection.client.in.empty() && connection.server.out.empty() &&
          (connection.forwarded.empty() || std::chrono::steady_clock::now() >= connection.drain_until);
      if (connection.client_lives() || (connection.server.fd >= 0 && (holds || !drained))) {
        ++item;
        continue;
      }
      end_server(connection);
      item = connections_.erase(item);
    }
  }

  // ---- messages

  void pass_time() {
    const auto now = std::chrono::steady_clock::now();
    for (auto held = held_.begin(); held != held_.end();) {
      const auto next = std::next(held);
      if (held->bounded && held->until <= now) let_go(held);
      held = next;
    }
    if (!awaited_.empty() && awaited_until_ <= now) {
      awaited_.clear();
      const std::lock_guard lock(mutex_);
      awaited_too_long_ = true;
    }
  }

  // While the server is to answer a late request, nothing else passes but its other replies by the
  // same connection: what is after it is strictly after it.
  void handle_records() {
    for (bool again = true; again && !blackhole_;) {
      again = false;
      for (auto& connection : connections_) {
        while (!connection->server.in.empty() && may_pass(*connection)) {
          again = true;
          if (!handle_reply(*connection, connection->server.pop())) break;
        }
        while (!connection->client.in.empty() && awaited_.empty()) {
          again = true;
          if (!handle_request(*connection, connection->client.pop())) break;
        }
      }
    }
  }

  bool may_pass(const Connection& connection) const {
    return awaited_.empty() || std::any_of(awaited_.begin(), awaited_.end(),
                                           [&](const auto& awaited) { return awaited.first == &connection; });
  }

  // False: it waits for late ones, which come first.
  bool handle_request(Connection& connection, Record record) {
    if (word_at(record.head, 4) != 0) return true;  // No call.
    if (let_late_go([](const Held& held) { return held.after_calls == 0; })) {
      connection.client.push_back_again(std::move(record));
      return false;
    }
    Call call;
    call.procedure = procedure_of(record);
    call.order = ++order_;
    {
      const std::lock_guard lock(mutex_);
      call.index = calls_++;
      call.procedure_index = counts_[call.procedure]++;
      if (sequence_.size() < kSequenceMax) sequence_.push_back(call.procedure);
      changed_.notify_all();
    }
    const Fault fault = judge(connection, call, Way::kRequest, record);
    switch (fault.action) {
      case Fault::Action::kDrop: break;
      case Fault::Action::kHold:
      case Fault::Action::kLate: hold(connection, std::move(record), Way::kRequest, call, fault); break;
      case Fault::Action::kDouble:
        connection.swallow.insert(record.xid());
        connection.server.send(record.raw);
        forward(connection, std::move(record), call);
        break;
      case Fault::Action::kCut:
        connection.client.in.clear();
        connection.client.in_bytes = 0;
        reset_client(connection);
        break;
      case Fault::Action::kCutAfter:
        forward(connection, std::move(record), call);
        reset_client(connection);
        break;
      case Fault::Action::kAnswer:
        connection.client.send(answer_of(record.xid(), call.procedure, fault.status));
        break;
      default: forward(connection, std::move(record), call); break;
    }
    return true;
  }

  // False: it waits for late ones, which come first.
  bool handle_reply(Connection& connection, Record record) {
    const auto found = connection.forwarded.find(record.xid());
    if (found == connection.forwarded.end()) {
      if (connection.swallow.erase(record.xid()) == 0) connection.client.send(std::move(record.raw));
      return true;
    }
    const Call call = found->second;
    if (awaited_.empty() && !record.counted) {
      record.counted = true;
      if (count_answer(call)) {
        connection.server.push_back_again(std::move(record));
        return false;
      }
    }
    connection.forwarded.erase(found);
    awaited_.erase({&connection, record.xid()});
    if (!connection.client_lives()) return true;
    const Fault fault = judge(connection, call, Way::kReply, record);
    switch (fault.action) {
      case Fault::Action::kDrop: break;
      case Fault::Action::kHold:
      case Fault::Action::kLate: hold(connection, std::move(record), Way::kReply, call, fault); break;
      case Fault::Action::kDouble:
        connection.client.send(record.raw);
        connection.client.send(std::move(record.raw));
        break;
      case Fault::Action::kCut: reset_client(connection); break;
      case Fault::Action::kCutAfter:
        connection.client.send(std::move(record.raw));
        connection.cut_when_sent = true;
        break;
      case Fault::Action::kAnswer:
        connection.client.send(answer_of(record.xid(), call.procedure, fault.status));
        break;
      case Fault::Action::kFlip:
        connection.client.send(edited(record.raw, [](std::string& message) {
          const std::size_t last = message.size() - 4;
          put_word(message, last, word_at(message, last) ^ 0x01000000);
        }));
        break;
      case Fault::Action::kSkew:  // In fattr3, after 7 words: 17 words, then mtime.
        connection.client.send(edited(record.raw, [&](std::string& message) {
          constexpr std::size_t kAtMtime = (7 + 17) * 4;
          if (message.size() < kAtMtime + 4) return;  // No answer of OK.
          put_word(message, kAtMtime, word_at(message, kAtMtime) + static_cast<std::uint32_t>(fault.skew_s));
        }));
        break;
      case Fault::Action::kShortWrite:  // Its end: count, committed, verifier (two words).
        connection.client.send(edited(record.raw, [](std::string& message) {
          const std::size_t count = message.size() - 16;
          put_word(message, count, word_at(message, count) / 2);
        }));
        break;
      default: connection.client.send(std::move(record.raw)); break;
    }
    return true;
  }

  static void forward(Connection& connection, Record record, const Call& call) {
    connection.forwarded[record.xid()] = call;
    connection.server.send(std::move(record.raw));
  }

  Fault judge(const Connection& connection, const Call& call, Way way, const Record& record) {
    const SeenRpc seen{call.procedure,   way, call.index, call.procedure_index, connection.number,
                       record.raw.size()};
    std::unique_lock lock(mutex_);
    Fault fault;
    if (const std::shared_ptr<const Decide> decide = decide_) {
      lock.unlock();
      fault = (*decide)(seen);
      lock.lock();
    } else {
      for (CountedRule& counted : rules_) {
        const FaultRule& rule = counted.rule;
        if (rule.way != way || (rule.procedure != Procedure::kAny && rule.procedure != call.procedure))
          continue;
        const std::size_t nth = counted.matched++;
        if (nth < rule.skip || (rule.times != 0 && nth >= rule.skip + rule.times)) continue;
        if (fault.action == Fault::Action::kPass) fault = rule.fault;
      }
    }
    if (fault.action != Fault::Action::kPass) {
      ++struck_;
      changed_.notify_all();
    }
    return fault;
  }

  void hold(Connection& connection, Record record, Way way, const Call& call, const Fault& fault) {
    Held held{&connection,
              std::move(record),
              way,
              call,
              fault.action == Fault::Action::kLate,
              fault.after_calls,
              fault.hold_max.count() != 0,
              std::chrono::steady_clock::now() + fault.hold_max};
    held_.push_back(std::move(held));
  }

  void let_go(HeldIterator item) {
    Held held = std::move(*item);
    held_.erase(item);
    Connection& connection = *held.connection;
    if (held.way == Way::kReply) {
      if (connection.client_lives()) connection.client.send(std::move(held.record.raw));
      return;
    }
    if (connection.server.fd < 0) return;
    connection.drain_until = awaited_until_ = std::chrono::steady_clock::now() + kAnswerMax;
    if (!held.bounded) {
      awaited_.insert({&connection, held.record.xid()});
      const std::lock_guard lock(mutex_);
      awaited_too_long_ = false;
    }
    forward(connection, std::move(held.record), held.call);
  }

  bool let_late_go(const std::function<bool(const Held&)>& due) {
    bool any = false;
    for (auto held = held_.begin(); held != held_.end();) {
      const auto next = std::next(held);
      if (held->late && held->connection->gone_at != 0 && due(*held)) {
        any = true;
        let_go(held);
        const std::lock_guard lock(mutex_);
        ++late_;
      }
      held = next;
    }
    return any;
  }

  // A later call than a late one was answered. True: so late ones go now, before the answer.
  bool count_answer(const Call& call) {
    std::set<const Held*> counted;
    for (Held& held : held_) {
      const std::uint64_t gone_at = held.connection->gone_at;
      if (!held.late || gone_at == 0 || call.order < gone_at || held.after_calls == 0) continue;
      if (--held.after_calls == 0) counted.insert(&held);
    }
    return let_late_go([&](const Held& held) { return counted.count(&held) != 0; });
  }

  void forget_awaited(const Connection& connection) {
    for (auto item = awaited_.begin(); item != awaited_.end();) {
      item = item->first == &connection ? awaited_.erase(item) : std::next(item);
    }
  }

  std::array<Listener, 2> listeners_;
  int wake_fd_ = -1;
  std::atomic<bool> stop_ = false;
  std::deque<std::function<void()>> work_;  // Guarded by mutex_, as the next four.
  std::uint64_t posted_ = 0;
  std::uint64_t done_ = 0;
  std::size_t awaited_count_ = 0;
  bool awaited_too_long_ = false;
  // The loop's own.
  std::list<std::unique_ptr<Connection>> connections_;
  std::size_t connections_made_ = 0;
  std::uint64_t order_ = 0;
  std::list<Held> held_;
  std::set<std::pair<const Connection*, std::uint32_t>> awaited_;
  std::chrono::steady_clock::time_point awaited_until_{};
  std::thread thread_;  // Last: it uses all of the above.
};

}  // namespace cms::test
