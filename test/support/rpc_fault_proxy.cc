#include "test/support/rpc_fault_proxy.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <list>
#include <map>
#include <mutex>
#include <set>
#include <thread>

namespace cms::test {
namespace {

using std::chrono::steady_clock;

constexpr std::uint32_t kNfsProgram = 100003;
constexpr std::uint32_t kMountProgram = 100005;
constexpr std::uint32_t kLastFragment = 0x80000000;
constexpr std::size_t kRecordBytesMax = std::size_t{4} << 20;
constexpr std::size_t kQueueBytesMax = std::size_t{4} << 20;  // Then its source is read no more.
constexpr std::size_t kSequenceMax = 4096;
constexpr auto kAnswerMax = std::chrono::seconds(10);

std::uint32_t word_at(const std::string& bytes, std::size_t offset) {
  std::uint32_t word = 0;
  std::memcpy(&word, bytes.data() + offset, sizeof(word));
  return ntohl(word);
}

void put_word(std::string& bytes, std::size_t offset, std::uint32_t value) {
  const std::uint32_t word = htonl(value);
  std::memcpy(bytes.data() + offset, &word, sizeof(word));
}

// One RPC message: its bytes with their record marks, and its first words without.
struct Record {
  std::string raw;
  std::string head;
  bool counted = false;

  std::uint32_t xid() const { return word_at(head, 0); }
};

class RecordReader {
 public:
  // False: this is no stream of records, or one is too large.
  bool take(const char* bytes, std::size_t size_bytes, std::deque<Record>& records) {
    while (size_bytes > 0) {
      const std::size_t wanted = in_fragment_ ? left_ : 4 - mark_.size();
      const std::size_t part = std::min(wanted, size_bytes);
      if (!in_fragment_) {
        mark_.append(bytes, part);
        if (mark_.size() == 4) {
          const std::uint32_t mark = word_at(mark_, 0);
          left_ = mark & ~kLastFragment;
          last_ = (mark & kLastFragment) != 0;
          if (record_.raw.size() + left_ > kRecordBytesMax) return false;
          record_.raw.append(mark_);
          mark_.clear();
          in_fragment_ = true;
        }
      } else {
        record_.raw.append(bytes, part);
        record_.head.append(bytes, std::min(part, kHeadBytes - std::min(record_.head.size(), kHeadBytes)));
        left_ -= part;
      }
      bytes += part;
      size_bytes -= part;
      if (!in_fragment_ || left_ > 0) continue;
      in_fragment_ = false;
      if (!last_) continue;
      if (record_.head.size() < kHeadBytes) return false;
      records.push_back(std::move(record_));
      record_ = Record();
    }
    return true;
  }

 private:
  // A call: xid, CALL, version of RPC, program, version, procedure. A reply has as many.
  static constexpr std::size_t kHeadBytes = 24;
  Record record_;
  std::string mark_;
  std::size_t left_ = 0;
  bool in_fragment_ = false;
  bool last_ = false;
};

Procedure procedure_of(const Record& call) {
  const std::uint32_t program = word_at(call.head, 12);
  const std::uint32_t number = word_at(call.head, 20);
  if (program == kNfsProgram && number <= 21) return static_cast<Procedure>(number);
  if (program == kMountProgram && number <= 5) return static_cast<Procedure>(100 + number);
  return Procedure::kOther;
}

// What follows a status that is not OK: empty attributes before and after.
std::size_t words_of_failure(Procedure procedure) {
  switch (procedure) {
    case Procedure::kNull:
    case Procedure::kGetattr: return 0;
    case Procedure::kSetattr:
    case Procedure::kWrite:
    case Procedure::kCreate:
    case Procedure::kMkdir:
    case Procedure::kSymlink:
    case Procedure::kMknod:
    case Procedure::kRemove:
    case Procedure::kRmdir:
    case Procedure::kCommit: return 2;
    case Procedure::kRename: return 4;
    case Procedure::kLink: return 3;
    default: return static_cast<std::uint32_t>(procedure) < 100 ? 1 : 0;
  }
}

// Accepted, no verifier, executed; then the status.
std::string answer_of(std::uint32_t xid, Procedure procedure, std::uint32_t status) {
  const std::size_t size_bytes = (7 + words_of_failure(procedure)) * 4;
  std::string raw(4 + size_bytes, '\0');
  put_word(raw, 0, kLastFragment | static_cast<std::uint32_t>(size_bytes));
  put_word(raw, 4, xid);
  put_word(raw, 8, 1);
  put_word(raw, 28, status);
  return raw;
}

// The record with its message changed, in one fragment.
std::string edited(const std::string& raw, const std::function<void(std::string&)>& edit) {
  std::string message;
  for (std::size_t at = 0; at < raw.size();) {
    const std::size_t size_bytes = word_at(raw, at) & ~kLastFragment;
    message.append(raw, at + 4, size_bytes);
    at += 4 + size_bytes;
  }
  edit(message);
  std::string result(4, '\0');
  put_word(result, 0, kLastFragment | static_cast<std::uint32_t>(message.size()));
  return result + message;
}

int listen_on_any_port(std::uint16_t& port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  if (fd < 0 || ::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0 ||
      ::listen(fd, 128) != 0 || ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    if (fd >= 0) ::close(fd);
    return -1;
  }
  port = ntohs(address.sin_port);
  return fd;
}

// -1: refused.
int connect_to(std::uint16_t port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const timeval patience{5, 0};
  (void)::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    ::close(fd);
    return -1;
  }
  const int one = 1;
  (void)::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  (void)::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
  return fd;
}

void close_with_reset(int& fd) {
  if (fd < 0) return;
  const linger at_once{1, 0};
  (void)::setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  ::close(fd);
  fd = -1;
}

// One direction's socket: what came by it, and what is to go out by it.
struct Side {
  int fd = -1;
  RecordReader reader;
  std::deque<Record> in;
  std::size_t in_bytes = 0;
  std::deque<std::string> out;
  std::size_t out_bytes = 0;
  std::size_t out_sent = 0;  // Of the first of `out`.

  void send(std::string bytes) {
    out_bytes += bytes.size();
    out.push_back(std::move(bytes));
  }
  Record pop() {
    Record record = std::move(in.front());
    in.pop_front();
    in_bytes -= record.raw.size();
    return record;
  }
  void push_back_again(Record record) {
    in_bytes += record.raw.size();
    in.push_front(std::move(record));
  }
};

struct Call {
  Procedure procedure = Procedure::kOther;
  std::size_t index = 0;
  std::size_t procedure_index = 0;
  std::uint64_t order = 0;  // Of its arrival; never reset.
};

struct Connection {
  std::size_t number = 0;
  Side client;
  Side server;
  std::map<std::uint32_t, Call> forwarded;  // By xid: those the server has not answered.
  std::set<std::uint32_t> swallow;          // Second replies to these go nowhere.
  bool cut_when_sent = false;               // kCutAfter of a reply.
  std::uint64_t gone_at = 0;                // Order of the first call after its client's end; 0: lives.
  steady_clock::time_point drain_until{};   // When its client is gone: no longer than this.

  bool client_lives() const { return client.fd >= 0; }
};

struct Held {
  Connection* connection = nullptr;
  Record record;
  Way way = Way::kRequest;
  Call call;
  bool late = false;
  std::size_t after_calls = 0;
  bool bounded = false;
  steady_clock::time_point until{};
};

}  // namespace

std::string to_string(Procedure procedure) {
  static constexpr const char* kNames[] = {
      "NULL",    "GETATTR",     "SETATTR", "LOOKUP", "ACCESS",   "READLINK", "READ",   "WRITE",
      "CREATE",  "MKDIR",       "SYMLINK", "MKNOD",  "REMOVE",   "RMDIR",    "RENAME", "LINK",
      "READDIR", "READDIRPLUS", "FSSTAT",  "FSINFO", "PATHCONF", "COMMIT"};
  static constexpr const char* kMountNames[] = {"NULL", "MNT", "DUMP", "UMNT", "UMNTALL", "EXPORT"};
  const auto number = static_cast<std::uint32_t>(procedure);
  if (number < std::size(kNames)) return kNames[number];
  if (number >= 100 && number - 100 < std::size(kMountNames))
    return std::string("MOUNT ") + kMountNames[number - 100];
  return procedure == Procedure::kAny ? "any" : "other";
}

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
    const auto now = steady_clock::now();
    auto next = steady_clock::time_point::max();
    for (const Held& held : held_) {
      if (held.bounded) next = std::min(next, held.until);
    }
    for (const auto& connection : connections_) {
      if (!connection->client_lives() && !connection->forwarded.empty() && connection->drain_until > now)
        next = std::min(next, connection->drain_until);
    }
    if (!awaited_.empty()) next = std::min(next, awaited_until_);
    if (next == steady_clock::time_point::max() || blackhole_) return -1;
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
    connection.drain_until = steady_clock::now() + kAnswerMax;
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
      const bool drained = connection.client.in.empty() && connection.server.out.empty() &&
                           (connection.forwarded.empty() || steady_clock::now() >= connection.drain_until);
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
    const auto now = steady_clock::now();
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
              steady_clock::now() + fault.hold_max};
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
    connection.drain_until = awaited_until_ = steady_clock::now() + kAnswerMax;
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
  steady_clock::time_point awaited_until_{};
  std::thread thread_;  // Last: it uses all of the above.
};

RpcFaultProxy::RpcFaultProxy(std::unique_ptr<Loop> loop) : loop_(std::move(loop)) {}

RpcFaultProxy::~RpcFaultProxy() = default;

Result<std::unique_ptr<RpcFaultProxy>> RpcFaultProxy::start(std::uint16_t nfs_port,
                                                            std::uint16_t mount_port) {
  auto loop = std::make_unique<Loop>();
  Status status = loop->start(nfs_port, mount_port);
  if (!status.ok()) return std::move(status).error();
  return std::unique_ptr<RpcFaultProxy>(new RpcFaultProxy(std::move(loop)));
}

std::uint16_t RpcFaultProxy::nfs_port() const { return loop_->port(0); }

std::uint16_t RpcFaultProxy::mount_port() const { return loop_->port(1); }

std::string RpcFaultProxy::url() const {
  return "nfs://127.0.0.1/cms?nfsport=" + std::to_string(nfs_port()) +
         "&mountport=" + std::to_string(mount_port());
}

void RpcFaultProxy::add(const FaultRule& rule) {
  const std::lock_guard lock(loop_->mutex_);
  loop_->rules_.push_back({rule});
}

void RpcFaultProxy::decide_by(Decide decide) {
  // In the loop, so that the one before it is not running any more.
  loop_->in_loop([&] {
    const std::lock_guard lock(loop_->mutex_);
    loop_->decide_ = decide ? std::make_shared<const Decide>(std::move(decide)) : nullptr;
  });
}

void RpcFaultProxy::blackhole(bool on) {
  loop_->in_loop([&] { loop_->blackhole_ = on; });
}

void RpcFaultProxy::refuse(bool on) {
  loop_->in_loop([&] { loop_->refuse_ = on; });
}

void RpcFaultProxy::cut_all() {
  loop_->in_loop([&] { loop_->cut_all(); });
}

bool RpcFaultProxy::release() {
  loop_->in_loop([&] { loop_->release_all(); });
  return loop_->wait_for_answers();
}

bool RpcFaultProxy::pass_all() {
  decide_by(nullptr);
  loop_->in_loop([&] {
    loop_->blackhole_ = loop_->refuse_ = false;
    loop_->release_all();
    const std::lock_guard lock(loop_->mutex_);
    loop_->rules_.clear();
  });
  return loop_->wait_for_answers();
}

std::size_t RpcFaultProxy::calls(Procedure procedure) const {
  const std::lock_guard lock(loop_->mutex_);
  return loop_->count_of(procedure);
}

std::vector<Procedure> RpcFaultProxy::sequence() const {
  const std::lock_guard lock(loop_->mutex_);
  return loop_->sequence_;
}

std::size_t RpcFaultProxy::struck() const {
  const std::lock_guard lock(loop_->mutex_);
  return loop_->struck_;
}

std::size_t RpcFaultProxy::held() const {
  const std::lock_guard lock(loop_->mutex_);
  return loop_->held_count_;
}

std::size_t RpcFaultProxy::late() const {
  const std::lock_guard lock(loop_->mutex_);
  return loop_->late_;
}

void RpcFaultProxy::reset_counts() {
  const std::lock_guard lock(loop_->mutex_);
  loop_->calls_ = 0;
  loop_->counts_.clear();
  loop_->sequence_.clear();
}

bool RpcFaultProxy::wait_for_calls(Procedure procedure, std::size_t count,
                                   std::chrono::milliseconds timeout) const {
  return loop_->wait_until(timeout, [&] { return loop_->count_of(procedure) >= count; });
}

bool RpcFaultProxy::wait_for_held(std::size_t count, std::chrono::milliseconds timeout) const {
  return loop_->wait_until(timeout, [&] { return loop_->held_count_ >= count; });
}

// ---- the walk

namespace {

struct WalkKind {
  const char* name;
  Way way;
  Fault::Action action;
};

WalkKind kind_of(WalkFault fault) {
  switch (fault) {
    case WalkFault::kRequestLost: return {"request lost", Way::kRequest, Fault::Action::kDrop};
    case WalkFault::kReplyLost: return {"reply lost", Way::kReply, Fault::Action::kDrop};
    case WalkFault::kRequestCut: return {"request cut", Way::kRequest, Fault::Action::kCut};
    case WalkFault::kReplyCut: return {"reply cut", Way::kReply, Fault::Action::kCut};
    case WalkFault::kRequestLate: return {"request late", Way::kRequest, Fault::Action::kLate};
    case WalkFault::kReplyLate: return {"reply late", Way::kReply, Fault::Action::kHold};
    case WalkFault::kRequestDoubled: return {"request doubled", Way::kRequest, Fault::Action::kDouble};
    case WalkFault::kReplyDoubled: return {"reply doubled", Way::kReply, Fault::Action::kDouble};
  }
  return {};
}

}  // namespace

WalkResult walk_faults(RpcFaultProxy& proxy, const std::function<void(const WalkStep&)>& scenario,
                       const std::vector<WalkFault>& faults, std::size_t late_calls_max) {
  WalkResult result;
  (void)proxy.pass_all();
  proxy.reset_counts();
  scenario({"no fault", {}, 0});
  result.calls = proxy.calls();
  const std::vector<Procedure> sequence = proxy.sequence();
  const auto run = [&](WalkFault walk_fault, std::size_t call_index, std::size_t after_calls) {
    const WalkKind kind = kind_of(walk_fault);
    const Fault fault{kind.action, 0, std::chrono::milliseconds(kind.action == Fault::Action::kHold ? 20 : 0),
                      after_calls};
    proxy.reset_counts();
    const std::size_t struck_before = proxy.struck();
    proxy.decide_by([&](const SeenRpc& seen) {
      return seen.call_index == call_index && seen.way == kind.way ? fault : Fault{};
    });
    const std::string after =
        kind.action == Fault::Action::kLate ? " after " + std::to_string(after_calls) : "";
    const std::string procedure = call_index < sequence.size() ? to_string(sequence[call_index]) : "?";
    scenario({kind.name + after + ", call " + std::to_string(call_index) + " (" + procedure + ")", walk_fault,
              call_index});
    (void)proxy.pass_all();
    ++result.runs;
    if (proxy.struck() == struck_before) ++result.not_struck;
  };
  for (std::size_t call_index = 0; call_index < result.calls; ++call_index) {
    for (const WalkFault fault : faults) {
      if (fault != WalkFault::kRequestLate) {
        run(fault, call_index, 0);
        continue;
      }
      for (std::size_t after_calls = 0; after_calls <= late_calls_max; ++after_calls) {
        const std::size_t late_before = proxy.late();
        run(fault, call_index, after_calls);
        if (proxy.late() == late_before) break;  // Its client made no such call any more.
      }
    }
  }
  return result;
}

}  // namespace cms::test
