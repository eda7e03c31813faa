#include "test/support/rpc_fault_proxy.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <fstream>
#include <map>
#include <mutex>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nfsc/libnfs.h>

#include "test/support/ganesha.h"

namespace cms::test {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using Action = Fault::Action;
using Xids = std::vector<std::uint32_t>;

constexpr milliseconds kSoon{50};         // For what must not come.
constexpr milliseconds kPatience{20000};  // For what must.

sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

std::string words(const std::vector<std::uint32_t>& values) {
  std::string bytes;
  for (const std::uint32_t value : values) {
    const std::uint32_t word = htonl(value);
    bytes.append(reinterpret_cast<const char*>(&word), sizeof(word));
  }
  return bytes;
}

std::uint32_t word_of(const std::string& bytes, std::size_t index) {
  std::uint32_t word = 0;
  std::memcpy(&word, bytes.data() + index * 4, sizeof(word));
  return ntohl(word);
}

// Record-marked, in pieces of at most `fragment_bytes`.
std::string record_of(const std::string& message, std::size_t fragment_bytes = std::size_t{1} << 20) {
  std::string record;
  for (std::size_t at = 0; at < message.size(); at += fragment_bytes) {
    const std::size_t size = std::min(fragment_bytes, message.size() - at);
    const bool last = at + size == message.size();
    record += words({static_cast<std::uint32_t>(size) | (last ? 0x80000000 : 0)}) + message.substr(at, size);
  }
  return record;
}

// Whole records from a socket. Empty: it has ended, or `timeout` is over, which `timed_out` tells.
std::string read_record(int fd, milliseconds timeout, bool* timed_out = nullptr) {
  std::string message;
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  const auto read_all = [&](std::size_t count) {
    std::string bytes(count, '\0');
    for (std::size_t got = 0; got < count;) {
      const auto left = std::chrono::ceil<milliseconds>(deadline - std::chrono::steady_clock::now()).count();
      pollfd item{fd, POLLIN, 0};
      if (::poll(&item, 1, static_cast<int>(std::max<std::int64_t>(0, left))) != 1) {
        if (timed_out != nullptr) *timed_out = true;
        return std::string();
      }
      const ssize_t now = ::recv(fd, bytes.data() + got, count - got, 0);
      if (now <= 0) return std::string();
      got += static_cast<std::size_t>(now);
    }
    return bytes;
  };
  while (true) {
    const std::string mark = read_all(4);
    if (mark.empty()) return {};
    const std::uint32_t size = word_of(mark, 0);
    const std::string part = read_all(size & 0x7fffffff);
    if (part.empty()) return {};
    message += part;
    if ((size & 0x80000000) != 0) return message;
  }
}

// Executes every call by noting its xid; answers xid, REPLY, accepted, OK, and two words more, in
// fragments. One thread for each connection.
class FakeServer {
 public:
  FakeServer() : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address = loopback(0);
    socklen_t size = sizeof(address);
    EXPECT_EQ(::bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    EXPECT_EQ(::listen(fd_, 64), 0);
    EXPECT_EQ(::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
    threads_.emplace_back([this] { accept_all(); });
  }
  ~FakeServer() {
    ::shutdown(fd_, SHUT_RDWR);
    threads_.front().join();
    {
      const std::lock_guard lock(mutex_);
      for (const int fd : connections_) ::shutdown(fd, SHUT_RDWR);
    }
    for (std::size_t i = 1; i < threads_.size(); ++i) threads_[i].join();
    for (const int fd : connections_) ::close(fd);
    ::close(fd_);
  }
  FakeServer(const FakeServer&) = delete;
  FakeServer& operator=(const FakeServer&) = delete;

  std::uint16_t port() const { return port_; }
  Xids executed() const {
    const std::lock_guard lock(mutex_);
    return executed_;
  }
  Xids wait_for_executed(std::size_t count) const {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kPatience, [&] { return executed_.size() >= count; });
    return executed_;
  }
  // So much later than it came is a RENAME executed.
  void set_latency_of_rename(milliseconds latency) { latency_of_rename_ = latency; }
  void forget() {
    const std::lock_guard lock(mutex_);
    executed_.clear();
  }

 private:
  void accept_all() {
    while (true) {
      const int fd = ::accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) return;
      const std::lock_guard lock(mutex_);
      connections_.push_back(fd);
      threads_.emplace_back([this, fd] { serve(fd); });
    }
  }
  void serve(int fd) {
    while (true) {
      const std::string call = read_record(fd, std::chrono::hours(1));
      if (call.empty()) break;
      if (word_of(call, 5) == static_cast<std::uint32_t>(Procedure::kRename))
        std::this_thread::sleep_for(latency_of_rename_.load());  // A slow server: what is tested, not a wait.
      {
        const std::lock_guard lock(mutex_);
        executed_.push_back(word_of(call, 0));
        changed_.notify_all();
      }
      const std::string reply = record_of(words({word_of(call, 0), 1, 0, 0, 0, 0, 0, 8, 2, 77, 78}), 20);
      (void)::send(fd, reply.data(), reply.size(), MSG_NOSIGNAL);
    }
    ::shutdown(fd, SHUT_RDWR);
  }

  int fd_;
  std::uint16_t port_ = 0;
  std::atomic<milliseconds> latency_of_rename_ = milliseconds(0);
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  Xids executed_;
  std::vector<int> connections_;
  std::vector<std::thread> threads_;
};

class FakeClient {
 public:
  explicit FakeClient(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address = loopback(port);
    EXPECT_EQ(::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  ~FakeClient() { ::close(fd_); }
  FakeClient(const FakeClient&) = delete;
  FakeClient& operator=(const FakeClient&) = delete;

  void send(std::uint32_t xid, Procedure procedure, std::size_t size_bytes = 64,
            std::size_t fragment_bytes = std::size_t{1} << 20) {
    const std::uint32_t number = static_cast<std::uint32_t>(procedure);
    std::string call = words({xid, 0, 2, number < 100 ? 100003U : 100005U, 3, number % 100, 0, 0, 0, 0});
    call.resize(std::max(call.size(), size_bytes), 'x');
    const std::string record = record_of(call, fragment_bytes);
    for (std::size_t sent = 0; sent < record.size();) {
      const ssize_t now = ::send(fd_, record.data() + sent, record.size() - sent, MSG_NOSIGNAL);
      if (now <= 0) return;  // Reset; reply() tells.
      sent += static_cast<std::size_t>(now);
    }
  }
  // The next reply's xid. 0: nothing within `timeout`. 1: the connection has ended.
  std::uint32_t reply(milliseconds timeout = kPatience) {
    bool timed_out = false;
    message_ = read_record(fd_, timeout, &timed_out);
    if (message_.empty()) return timed_out ? 0 : 1;
    return word_of(message_, 0);
  }
  std::uint32_t word(std::size_t index) const { return word_of(message_, index); }
  std::size_t reply_bytes() const { return message_.size(); }

 private:
  int fd_;
  std::string message_;
};

class RpcFaultProxyTest : public ::testing::Test {
 protected:
  RpcFaultProxyTest() {
    auto proxy = RpcFaultProxy::start(server_.port(), server_.port());
    EXPECT_TRUE(proxy.ok());
    proxy_ = std::move(proxy).value();
  }
  void rule(Procedure procedure, Way way, Action action, std::uint32_t status = 0) {
    proxy_->add({procedure, way, {action, status, milliseconds(0), 0}});
  }

  FakeServer server_;
  std::unique_ptr<RpcFaultProxy> proxy_;
};

TEST_F(RpcFaultProxyTest, PassesEverythingInFragmentsAndCounts) {
  FakeClient client(proxy_->nfs_port());
  FakeClient mount(proxy_->mount_port());
  client.send(11, Procedure::kWrite, 3 << 20, 1000);
  EXPECT_EQ(client.reply(), 11U);
  EXPECT_EQ(client.reply_bytes(), 44U);
  client.send(12, Procedure::kRename, 64, 3);
  EXPECT_EQ(client.reply(), 12U);
  mount.send(13, Procedure::kMountMnt);
  EXPECT_EQ(mount.reply(), 13U);
  EXPECT_THAT(server_.executed(), ElementsAre(11, 12, 13));
  EXPECT_THAT(proxy_->sequence(), ElementsAre(Procedure::kWrite, Procedure::kRename, Procedure::kMountMnt));
  EXPECT_EQ(proxy_->calls(), 3U);
  EXPECT_EQ(proxy_->calls(Procedure::kRename), 1U);
  EXPECT_EQ(proxy_->struck(), 0U);
  proxy_->reset_counts();
  EXPECT_EQ(proxy_->calls(), 0U);
}

TEST_F(RpcFaultProxyTest, DropsTheNthOfAProcedure) {
  proxy_->add({Procedure::kLink, Way::kRequest, {Action::kDrop}, 1, 1});
  FakeClient client(proxy_->nfs_port());
  for (const std::uint32_t xid : {21U, 22U, 23U}) client.send(xid, Procedure::kLink);
  EXPECT_EQ(client.reply(), 21U);
  EXPECT_EQ(client.reply(), 23U);
  EXPECT_THAT(server_.executed(), ElementsAre(21, 23));
  rule(Procedure::kRename, Way::kReply, Action::kDrop);
  client.send(24, Procedure::kRename);
  client.send(25, Procedure::kRename);
  EXPECT_EQ(client.reply(), 25U);
  EXPECT_THAT(server_.executed(), ElementsAre(21, 23, 24, 25));
  EXPECT_EQ(proxy_->struck(), 2U);
}

TEST_F(RpcFaultProxyTest, HoldsARequestUntilItIsReleased) {
  rule(Procedure::kWrite, Way::kRequest, Action::kHold);
  FakeClient client(proxy_->nfs_port());
  client.send(31, Procedure::kWrite);
  client.send(32, Procedure::kCommit);
  EXPECT_EQ(client.reply(), 32U);
  ASSERT_TRUE(proxy_->wait_for_held(1));
  EXPECT_THAT(server_.executed(), ElementsAre(32));
  EXPECT_TRUE(proxy_->release());
  EXPECT_EQ(client.reply(), 31U);
  EXPECT_THAT(server_.executed(), ElementsAre(32, 31));
  EXPECT_EQ(proxy_->held(), 0U);
}

TEST_F(RpcFaultProxyTest, HoldsARequestBeyondTheEndOfItsConnection) {
  rule(Procedure::kRename, Way::kRequest, Action::kHold);
  {
    FakeClient client(proxy_->nfs_port());
    client.send(35, Procedure::kRename);
    ASSERT_TRUE(proxy_->wait_for_held(1));
  }
  FakeClient client(proxy_->nfs_port());
  client.send(36, Procedure::kLookup);
  EXPECT_EQ(client.reply(), 36U);
  EXPECT_TRUE(proxy_->release());
  EXPECT_THAT(server_.executed(), ElementsAre(36, 35));
}

TEST_F(RpcFaultProxyTest, LateIsAfterCallsThatCameAfterItsClientWent) {
  proxy_->add({Procedure::kRename, Way::kRequest, {Action::kLate, 0, milliseconds(0), 0}});
  proxy_->add({Procedure::kLink, Way::kRequest, {Action::kLate, 0, milliseconds(0), 1}});
  proxy_->add({Procedure::kRead, Way::kRequest, {Action::kHold, 0, milliseconds(100), 0}});
  FakeClient other(proxy_->nfs_port());
  {
    FakeClient one(proxy_->nfs_port());
    one.send(37, Procedure::kRename);
    FakeClient two(proxy_->nfs_port());
    two.send(38, Procedure::kLink);
    ASSERT_TRUE(proxy_->wait_for_held(2));
    for (const std::uint32_t xid : {101U, 102U}) {
      other.send(xid, Procedure::kLookup);
      EXPECT_EQ(other.reply(), xid);
    }
    other.send(103, Procedure::kRead);
    ASSERT_TRUE(proxy_->wait_for_held(3));
  }
  EXPECT_EQ(other.reply(), 103U);  // It was there before they went.
  EXPECT_EQ(proxy_->late(), 0U);
  other.send(104, Procedure::kLookup);
  EXPECT_EQ(other.reply(), 104U);
  EXPECT_EQ(proxy_->late(), 2U);
  EXPECT_THAT(server_.executed(), ElementsAre(101, 102, 103, 37, 104, 38));
}

TEST_F(RpcFaultProxyTest, HoldsAReplyForAWhile) {
  proxy_->add({Procedure::kWrite, Way::kReply, {Action::kHold, 0, milliseconds(30), 0}});
  FakeClient client(proxy_->nfs_port());
  const auto start = std::chrono::steady_clock::now();
  client.send(41, Procedure::kWrite);
  client.send(42, Procedure::kWrite);
  EXPECT_EQ(client.reply(), 42U);
  EXPECT_EQ(client.reply(), 41U);
  EXPECT_GE(std::chrono::steady_clock::now() - start, milliseconds(30));
}

TEST_F(RpcFaultProxyTest, SendsARequestTwiceAndItsAnswerOnce) {
  rule(Procedure::kCreate, Way::kRequest, Action::kDouble);
  FakeClient client(proxy_->nfs_port());
  client.send(51, Procedure::kCreate);
  EXPECT_EQ(client.reply(), 51U);
  client.send(52, Procedure::kWrite);
  EXPECT_EQ(client.reply(), 52U);
  EXPECT_THAT(server_.executed(), ElementsAre(51, 51, 52));
}

TEST_F(RpcFaultProxyTest, SendsAReplyTwice) {
  rule(Procedure::kCreate, Way::kReply, Action::kDouble);
  FakeClient client(proxy_->nfs_port());
  client.send(55, Procedure::kCreate);
  EXPECT_EQ(client.reply(), 55U);
  EXPECT_EQ(client.reply(), 55U);
  EXPECT_THAT(server_.executed(), ElementsAre(55));
}

TEST_F(RpcFaultProxyTest, CutsBeforeAndAfterTheServer) {
  rule(Procedure::kCreate, Way::kRequest, Action::kCut);
  rule(Procedure::kRename, Way::kRequest, Action::kCutAfter);
  rule(Procedure::kLink, Way::kReply, Action::kCut);
  rule(Procedure::kCommit, Way::kReply, Action::kCutAfter);
  FakeClient one(proxy_->nfs_port());
  one.send(61, Procedure::kCreate);
  EXPECT_EQ(one.reply(), 1U);
  FakeClient two(proxy_->nfs_port());
  two.send(62, Procedure::kRename);
  EXPECT_EQ(two.reply(), 1U);
  FakeClient three(proxy_->nfs_port());
  three.send(63, Procedure::kLink);
  EXPECT_EQ(three.reply(), 1U);
  FakeClient four(proxy_->nfs_port());
  four.send(64, Procedure::kCommit);
  EXPECT_EQ(four.reply(), 64U);
  EXPECT_EQ(four.reply(), 1U);
  // The second was forwarded; nobody can tell when it is executed.
  Xids executed = server_.wait_for_executed(3);
  std::sort(executed.begin(), executed.end());
  EXPECT_THAT(executed, ElementsAre(62, 63, 64));
}

TEST_F(RpcFaultProxyTest, AnswersWithAStatus) {
  rule(Procedure::kWrite, Way::kRequest, Action::kAnswer, 28);
  rule(Procedure::kRename, Way::kReply, Action::kAnswer, 5);
  FakeClient client(proxy_->nfs_port());
  client.send(71, Procedure::kWrite);
  EXPECT_EQ(client.reply(), 71U);
  EXPECT_EQ(client.word(1), 1U);
  EXPECT_EQ(client.word(6), 28U);
  EXPECT_EQ(client.reply_bytes(), 9 * 4U);  // Attributes before and after, both absent.
  client.send(72, Procedure::kRename);
  EXPECT_EQ(client.reply(), 72U);
  EXPECT_EQ(client.word(6), 5U);
  EXPECT_EQ(client.reply_bytes(), 11 * 4U);  // The same of two directories.
  EXPECT_THAT(server_.executed(), ElementsAre(72));
}

TEST_F(RpcFaultProxyTest, ChangesRepliesOfWrite) {
  rule(Procedure::kWrite, Way::kReply, Action::kFlip);
  FakeClient client(proxy_->nfs_port());
  client.send(75, Procedure::kWrite);
  EXPECT_EQ(client.reply(), 75U);
  EXPECT_EQ(client.word(10), 78U ^ 0x01000000);
  rule(Procedure::kWrite, Way::kReply, Action::kShortWrite);
  client.send(76, Procedure::kWrite);
  EXPECT_EQ(client.reply(), 76U);
  EXPECT_EQ(client.word(7), 4U);  // Of 8.
}

TEST_F(RpcFaultProxyTest, BlackholeKeepsEverythingUntilItEnds) {
  FakeClient client(proxy_->nfs_port());
  client.send(81, Procedure::kLookup);
  EXPECT_EQ(client.reply(), 81U);
  proxy_->blackhole(true);
  client.send(82, Procedure::kRename);
  FakeClient late(proxy_->nfs_port());
  late.send(83, Procedure::kRename);
  EXPECT_EQ(client.reply(kSoon), 0U);
  EXPECT_EQ(late.reply(kSoon), 0U);
  EXPECT_THAT(server_.executed(), ElementsAre(81));
  proxy_->blackhole(false);
  EXPECT_EQ(client.reply(), 82U);
  EXPECT_EQ(late.reply(), 83U);
}

TEST_F(RpcFaultProxyTest, RefusesAndCutsAll) {
  FakeClient client(proxy_->nfs_port());
  client.send(85, Procedure::kLookup);
  EXPECT_EQ(client.reply(), 85U);
  proxy_->cut_all();
  EXPECT_EQ(client.reply(), 1U);
  proxy_->refuse(true);
  FakeClient refused(proxy_->nfs_port());
  refused.send(86, Procedure::kLookup);
  EXPECT_EQ(refused.reply(), 1U);
  EXPECT_TRUE(proxy_->pass_all());
  FakeClient again(proxy_->nfs_port());
  again.send(87, Procedure::kLookup);
  EXPECT_EQ(again.reply(), 87U);
  EXPECT_THAT(server_.executed(), ElementsAre(85, 87));
}

TEST_F(RpcFaultProxyTest, AsksTheTestAboutEachMessage) {
  std::vector<std::string> seen;
  proxy_->decide_by([&](const SeenRpc& rpc) {
    seen.push_back(to_string(rpc.procedure) + (rpc.way == Way::kRequest ? ">" : "<") +
                   std::to_string(rpc.call_index) + "/" + std::to_string(rpc.procedure_index));
    proxy_->refuse(true);  // It may call the proxy.
    return Fault{};
  });
  FakeClient client(proxy_->nfs_port());
  for (const Procedure procedure : {Procedure::kWrite, Procedure::kCommit, Procedure::kWrite}) {
    client.send(91, procedure);
    EXPECT_EQ(client.reply(), 91U);
  }
  proxy_->decide_by(nullptr);
  EXPECT_THAT(seen,
              ElementsAre("WRITE>0/0", "WRITE<0/0", "COMMIT>1/0", "COMMIT<1/0", "WRITE>2/1", "WRITE<2/1"));
}

TEST_F(RpcFaultProxyTest, EndsAConnectionThatIsNoRpc) {
  FakeClient client(proxy_->nfs_port());
  client.send(95, Procedure::kWrite, std::size_t{5} << 20, std::size_t{5} << 20);
  EXPECT_EQ(client.reply(), 1U);
  EXPECT_THAT(server_.executed(), ElementsAre());
}

// What a careful client does: three calls by one connection; when one is not answered it gives the
// connection up and asks three times by new ones.
class RpcFaultWalkTest : public RpcFaultProxyTest {
 protected:
  void run(const WalkStep& step) {
    server_.forget();
    struck_before_ = proxy_->struck();
    const bool answers = step.fault != WalkFault::kRequestLost && step.fault != WalkFault::kReplyLost &&
                         step.fault != WalkFault::kRequestLate;
    bool done = true;
    {
      FakeClient client(proxy_->nfs_port());
      for (const std::uint32_t xid : {1001U, 1002U, 1003U}) {
        client.send(xid, xid == 1003 ? Procedure::kRename : Procedure::kWrite);
        std::uint32_t reply = wait_for_reply(client, answers);
        if (reply == xid - 1 && xid != 1001) reply = wait_for_reply(client, answers);  // It came twice.
        done = reply == xid;
        if (!done) break;
      }
      // The next run begins with nothing under way: a call that was doubled has been done twice.
      if (step.fault == WalkFault::kRequestDoubled) (void)server_.wait_for_executed(4);
    }
    for (std::uint32_t xid = 2001; !done && xid <= 2003; ++xid) {
      FakeClient client(proxy_->nfs_port());
      client.send(xid, Procedure::kLookup);
      EXPECT_EQ(client.reply(), xid);
    }
    executed_[step.name] = server_.executed();
  }
  // As FakeClient::reply; its patience ends when it is struck by a fault that takes the reply.
  std::uint32_t wait_for_reply(FakeClient& client, bool answers) {
    while (true) {
      const bool struck = !answers && proxy_->struck() > struck_before_;
      const std::uint32_t reply = client.reply(struck ? milliseconds(0) : milliseconds(5));
      if (reply != 0 || struck) return reply;
    }
  }
  WalkResult walk(const std::vector<WalkFault>& faults) {
    return walk_faults(
        *proxy_, [this](const WalkStep& step) { run(step); }, faults);
  }

  std::size_t struck_before_ = 0;
  std::map<std::string, Xids> executed_;
};

TEST_F(RpcFaultWalkTest, RunsEveryFaultAtEveryCall) {
  const WalkResult result =
      walk({WalkFault::kRequestLost, WalkFault::kReplyLost, WalkFault::kRequestCut, WalkFault::kReplyCut,
            WalkFault::kRequestDoubled, WalkFault::kReplyDoubled});
  EXPECT_EQ(result.calls, 3U);
  EXPECT_EQ(result.runs, 18U);
  EXPECT_EQ(result.not_struck, 0U);
  EXPECT_EQ(executed_.size(), 19U);
  EXPECT_THAT(executed_["no fault"], ElementsAre(1001, 1002, 1003));
  EXPECT_THAT(executed_["request lost, call 1 (WRITE)"], ElementsAre(1001, 2001, 2002, 2003));
  EXPECT_THAT(executed_["reply lost, call 1 (WRITE)"], ElementsAre(1001, 1002, 2001, 2002, 2003));
  EXPECT_THAT(executed_["request cut, call 2 (RENAME)"], ElementsAre(1001, 1002, 2001, 2002, 2003));
  EXPECT_THAT(executed_["reply cut, call 2 (RENAME)"], ElementsAre(1001, 1002, 1003, 2001, 2002, 2003));
  EXPECT_THAT(executed_["request doubled, call 0 (WRITE)"], ElementsAre(1001, 1001, 1002, 1003));
  EXPECT_THAT(executed_["reply doubled, call 2 (RENAME)"], ElementsAre(1001, 1002, 1003));
}

TEST_F(RpcFaultWalkTest, LateRequestsAreExecutedBetweenAnyTwoLaterCalls) {
  server_.set_latency_of_rename(milliseconds(10));  // Only the proxy's patience puts it in its place.
  const WalkResult result = walk({WalkFault::kRequestLate});
  EXPECT_EQ(result.calls, 3U);
  EXPECT_EQ(result.runs, 3 * 5U);  // Before the first, after each of three, and not any more.
  EXPECT_EQ(result.not_struck, 0U);
  EXPECT_THAT(executed_["request late after 0, call 2 (RENAME)"],
              ElementsAre(1001, 1002, 1003, 2001, 2002, 2003));
  EXPECT_THAT(executed_["request late after 1, call 2 (RENAME)"],
              ElementsAre(1001, 1002, 2001, 1003, 2002, 2003));
  EXPECT_THAT(executed_["request late after 2, call 2 (RENAME)"],
              ElementsAre(1001, 1002, 2001, 2002, 1003, 2003));
  EXPECT_THAT(executed_["request late after 3, call 2 (RENAME)"],
              ElementsAre(1001, 1002, 2001, 2002, 2003, 1003));
  EXPECT_THAT(executed_["request late after 4, call 2 (RENAME)"], ElementsAre(1001, 1002, 2001, 2002, 2003));
  EXPECT_THAT(executed_["request late after 1, call 0 (WRITE)"], ElementsAre(2001, 1001, 2002, 2003));
}

// A real client and a real server, by libnfs's plain calls: only faults that leave the connection alone.
TEST(RpcFaultProxyWithGaneshaTest, StandsBetweenLibnfsAndGanesha) {
  auto ganesha = Ganesha::start();
  ASSERT_TRUE(ganesha.ok()) << ganesha.error().message();
  auto proxy = RpcFaultProxy::start((*ganesha)->nfs_port(), (*ganesha)->mount_port());
  ASSERT_TRUE(proxy.ok());
  const auto add = [&](Procedure procedure, Way way, Action action, std::uint32_t status = 0) {
    (*proxy)->add({procedure, way, {action, status, milliseconds(0), 0}});
  };
  nfs_context* nfs = nfs_init_context();
  nfs_url* url = nfs_parse_url_dir(nfs, ((*proxy)->url() + "&version=3&autoreconnect=0&dircache=0").c_str());
  ASSERT_NE(url, nullptr);
  ASSERT_EQ(nfs_mount(nfs, url->server, url->path), 0) << nfs_get_error(nfs);
  nfs_destroy_url(url);
  EXPECT_EQ((*proxy)->calls(Procedure::kMountMnt), 1U);

  nfsfh* file = nullptr;
  std::string bytes(1 << 20, 'x');
  ASSERT_EQ(nfs_creat(nfs, "/file", 0644, &file), 0) << nfs_get_error(nfs);
  add(Procedure::kWrite, Way::kRequest, Action::kAnswer, 28);
  EXPECT_LT(nfs_pwrite(nfs, file, 0, bytes.size(), bytes.data()), 0);
  add(Procedure::kWrite, Way::kReply, Action::kShortWrite);
  (*proxy)->reset_counts();
  // libnfs writes the rest by itself.
  EXPECT_EQ(nfs_pwrite(nfs, file, 0, bytes.size(), bytes.data()), 1 << 20) << nfs_get_error(nfs);
  EXPECT_EQ((*proxy)->calls(Procedure::kWrite), 2U);
  ASSERT_EQ(nfs_pwrite(nfs, file, 0, bytes.size(), bytes.data()), 1 << 20) << nfs_get_error(nfs);
  add(Procedure::kRead, Way::kReply, Action::kFlip);
  std::string back(bytes.size(), '\0');
  ASSERT_EQ(nfs_pread(nfs, file, 0, back.size(), back.data()), 1 << 20) << nfs_get_error(nfs);
  EXPECT_NE(back, bytes);
  ASSERT_EQ(nfs_pread(nfs, file, 0, back.size(), back.data()), 1 << 20) << nfs_get_error(nfs);
  EXPECT_EQ(back, bytes);
  // Ganesha answers a second request of the same connection from its cache.
  add(Procedure::kMkdir, Way::kRequest, Action::kDouble);
  EXPECT_EQ(nfs_mkdir(nfs, "/directory"), 0) << nfs_get_error(nfs);
  for (const std::uint32_t status : {1U, 13U, 30U, 69U, 70U, 10006U, 10008U}) {
    add(Procedure::kRename, Way::kRequest, Action::kAnswer, status);
    EXPECT_LT(nfs_rename(nfs, "/file", "/other"), 0) << status;
  }
  EXPECT_EQ(nfs_rename(nfs, "/file", "/other"), 0) << nfs_get_error(nfs);
  EXPECT_EQ(nfs_close(nfs, file), 0);
  nfs_destroy_context(nfs);
}

}  // namespace
}  // namespace cms::test
