#include "storage/nfs/nfs_connection.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <system_error>
#include <utility>

#include <nfsc/libnfs.h>  // First: it defines what the others are declared with.

#include <nfsc/libnfs-raw-mount.h>
#include <nfsc/libnfs-raw-nfs.h>
#include <nfsc/libnfs-raw.h>

namespace cms::storage {
namespace {

// 1 MiB is what libnfs 4.0.0 can carry in one call (NFS_MAX_XFER_SIZE).
constexpr std::uint32_t kTransferBytesMax = 1024 * 1024;
// A network that swallows everything is found out by the kernel, not only by the deadline of a call;
// and after it has healed nobody waits for a retransmission that was put off for a minute.
constexpr int kUnacknowledgedMsMax = 8000;

using Context = std::unique_ptr<rpc_context, decltype(&rpc_destroy_context)>;

// One step of connecting: begin it, then serve the context until it has ended.
struct Step {
  bool done = false;
  int status = RPC_STATUS_ERROR;
  std::function<void(void* data)> take;  // Of a success; the data go with the return.
};

void on_step(rpc_context*, int status, void* data, void* private_data) {
  auto& step = *static_cast<Step*>(private_data);
  step.done = true;
  step.status = status;
  if (status == RPC_STATUS_SUCCESS && step.take) step.take(data);
}

// Why a connection ended, as its socket has it: libnfs says only that it did. Empty: it has not.
std::string socket_trouble(int fd, short revents) {
  if ((revents & (POLLERR | POLLHUP | POLLNVAL)) == 0) return {};
  int error = 0;
  socklen_t size = sizeof(error);
  if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error != 0) {
    return std::generic_category().message(error);
  }
  return "the server closed the connection";
}

// How long it is tried to connect.
struct Patience {
  Instant deadline{};
  const std::atomic<bool>& given_up;
};

// The step outlives the context's use of it: the caller destroys the context before the step, or the
// step has ended.
Status serve_until_done(rpc_context* rpc, const Step& step, const Patience& patience,
                        const std::string& what) {
  constexpr long kLookUpMs = 100;  // Whether it was given up.
  std::string trouble;
  while (!step.done) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(patience.deadline - BootClock::now()).count();
    if (left <= 0) return make_error(Code::kUnavailable, what + ": no answer in time");
    if (patience.given_up) return make_error(Code::kUnavailable, what + ": given up");
    pollfd item{rpc_get_fd(rpc), static_cast<short>(rpc_which_events(rpc)), 0};
    const int ready = ::poll(&item, 1, static_cast<int>(std::min<long>(left, kLookUpMs)));
    if (ready < 0 && errno != EINTR) return error_from_errno(errno, "poll");
    if (ready > 0) trouble = socket_trouble(item.fd, item.revents);
    if (ready > 0 && rpc_service(rpc, item.revents) < 0 && !step.done) break;
  }
  if (step.done && step.status == RPC_STATUS_SUCCESS) return ok_status();
  const char* why = rpc_get_error(rpc);
  if (trouble.empty()) trouble = why != nullptr && *why != '\0' ? why : "failed";
  return make_error(Code::kUnavailable, what + ": " + trouble);
}

Context new_context(const NfsTarget& target) {
  Context rpc(rpc_init_context(), &rpc_destroy_context);
  CMS_ASSERT(rpc != nullptr);
  if (target.uid) rpc_set_uid(rpc.get(), static_cast<int>(*target.uid));
  if (target.gid) rpc_set_gid(rpc.get(), static_cast<int>(*target.gid));
  return rpc;
}

Status connect(rpc_context* rpc, const NfsTarget& target, std::uint16_t port, int program, int version,
               Step& step, const Patience& patience, const std::string& what) {
  const int begun =
      port != 0 ? rpc_connect_port_async(rpc, target.host.c_str(), port, program, version, &on_step, &step)
                : rpc_connect_program_async(rpc, target.host.c_str(), program, version, &on_step, &step);
  if (begun != 0) {
    const char* why = rpc_get_error(rpc);
    return make_error(Code::kUnavailable, what + ": " + (why != nullptr ? why : "cannot be reached"));
  }
  return serve_until_done(rpc, step, patience, what);
}

Status mount_refused(std::uint32_t status, const std::string& what) {
  switch (status) {
    case MNT3ERR_NOENT:
    case MNT3ERR_NOTDIR: return make_error(Code::kNotFound, what + ": the server has no such export");
    case MNT3ERR_PERM:
    case MNT3ERR_ACCES:  // Ganesha, among others, does not tell strangers what there is.
      return make_error(Code::kPermission,
                        what + ": the server does not let us mount it, or has no such export");
    default: return make_error(Code::kIo, what + ": the server answered " + std::to_string(status));
  }
}

Result<NfsHandle> mount(const NfsTarget& target, const Patience& patience) {
  const std::string what = "mount " + to_string(target);
  Step connected;
  Step mounted;  // Before the context, which goes first.
  Status refused;
  NfsHandle root;
  const Context rpc = new_context(target);
  Status status =
      connect(rpc.get(), target, target.mount_port, MOUNT_PROGRAM, MOUNT_V3, connected, patience, what);
  if (!status.ok()) return status.error();
  mounted.take = [&](void* data) {
    const auto& result = *static_cast<const mountres3*>(data);
    if (result.fhs_status != MNT3_OK) {
      refused = mount_refused(static_cast<std::uint32_t>(result.fhs_status), what);
    } else {
      const auto& handle = result.mountres3_u.mountinfo.fhandle;
      root.assign(handle.fhandle3_val, handle.fhandle3_len);
    }
  };
  std::string export_path = target.export_path;
  if (rpc_mount3_mnt_async(rpc.get(), &on_step, export_path.data(), &mounted) != 0) {
    return make_error(Code::kUnavailable, what + ": the call could not be made");
  }
  status = serve_until_done(rpc.get(), mounted, patience, what);
  if (!status.ok()) return status.error();
  if (!refused.ok()) return refused.error();
  return root;
}

void set_socket_options(int fd) {
  const auto set = [fd](int level, int option, int value) {
    (void)::setsockopt(fd, level, option, &value, sizeof(value));  // Better, but not needed.
  };
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 5);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 2);
  set(IPPROTO_TCP, TCP_KEEPCNT, 3);
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, kUnacknowledgedMsMax);
  set(IPPROTO_TCP, TCP_NODELAY, 1);
}

}  // namespace

struct NfsConnection::Call {
  NfsConnection* connection = nullptr;
  Done done;
  Instant deadline{};
};

bool NfsConnection::EarlierDeadline::operator()(const Call* a, const Call* b) const {
  return a->deadline != b->deadline ? a->deadline < b->deadline : std::less<>()(a, b);
}

Result<std::shared_ptr<NfsConnection>> NfsConnection::open(const NfsTarget& target,
                                                           const NfsTimeouts& timeouts,
                                                           const std::atomic<bool>& given_up) {
  std::shared_ptr<NfsConnection> connection(new NfsConnection(timeouts));
  const Status started = connection->start(target, given_up);
  if (!started.ok()) return started.error();
  return connection;
}

Status NfsConnection::start(const NfsTarget& target, const std::atomic<bool>& given_up) {
  const Patience patience{BootClock::now() + timeouts_.connect, given_up};
  auto root = mount(target, patience);
  if (!root) return root.error();
  root_ = std::move(*root);

  const std::string what = "connect to " + to_string(target);
  Step connected;
  Step asked;
  Status refused;
  Context rpc = new_context(target);
  Status status = connect(rpc.get(), target, target.nfs_port, NFS_PROGRAM, NFS_V3, connected, patience, what);
  if (!status.ok()) return status;
  set_socket_options(rpc_get_fd(rpc.get()));
  asked.take = [&](void* data) {
    const auto& result = *static_cast<const FSINFO3res*>(data);
    if (result.status != NFS3_OK) {
      refused =
          make_error(Code::kIo, what + ": FSINFO: the server answered " + std::to_string(result.status));
      return;
    }
    read_bytes_max_ = std::min(result.FSINFO3res_u.resok.rtmax, kTransferBytesMax);
    write_bytes_max_ = std::min(result.FSINFO3res_u.resok.wtmax, kTransferBytesMax);
  };
  FSINFO3args args{};
  args.fsroot.data.data_len = static_cast<u_int>(root_.size());
  args.fsroot.data.data_val = root_.data();
  if (rpc_nfs3_fsinfo_async(rpc.get(), &on_step, &args, &asked) != 0) {
    return make_error(Code::kUnavailable, what + ": FSINFO could not be asked");
  }
  status = serve_until_done(rpc.get(), asked, patience, what);
  if (status.ok()) status = refused;
  if (status.ok() && (read_bytes_max_ == 0 || write_bytes_max_ == 0)) {
    status = make_error(Code::kProtocol, what + ": FSINFO allows no transfers");
  }
  if (!status.ok()) return status;

  wake_fd_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake_fd_ < 0) return error_from_errno(errno, "eventfd");
  rpc_ = rpc.release();
  alive_ = true;
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);  // The new thread inherits it.
  try {
    thread_ = std::thread([this] { run(); });
    pthread_setname_np(thread_.native_handle(), "nfs");
  } catch (const std::system_error& error) {
    status = error_from_errno(error.code().value(), "cannot make a thread for " + to_string(target));
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return status;
}

NfsConnection::~NfsConnection() {
  close();
  if (thread_.joinable()) {
    CMS_ASSERT(!on_own_thread());
    thread_.join();
  }
  if (rpc_ != nullptr) rpc_destroy_context(rpc_);  // Its thread could not be made.
  if (wake_fd_ >= 0) ::close(wake_fd_);
}

void NfsConnection::close() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake();
}

std::string NfsConnection::trouble() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return trouble_;
}

void NfsConnection::wake() {
  const std::uint64_t one = 1;
  (void)!::write(wake_fd_, &one, sizeof(one));  // Full: it is awake already.
}

void NfsConnection::submit(const Encode& encode, Done done, Duration timeout) {
  std::string trouble;
  {
    std::unique_lock<std::mutex> lock(mutex_, std::defer_lock);
    if (!on_own_thread()) lock.lock();  // A callback runs with it held.
    if (alive_) {
      auto call = std::make_unique<Call>();
      call->connection = this;
      call->done = std::move(done);
      call->deadline = BootClock::now() + timeout;
      if (encode(rpc_, &on_reply, call.get()) == 0) {
        calls_.insert(call.release());
        if (asleep_.exchange(false)) wake();
        return;
      }
      // Nothing was queued (no memory, or a handle beyond the limits): only this call has failed.
      done = std::move(call->done);
      trouble = "the call could not be made";
    } else {
      trouble = trouble_;
    }
  }
  done(nullptr, trouble);
}

void NfsConnection::on_reply(rpc_context*, int status, void* data, void* private_data) {
  const std::unique_ptr<Call> call(static_cast<Call*>(private_data));
  NfsConnection& connection = *call->connection;
  connection.calls_.erase(call.get());
  if (status == RPC_STATUS_SUCCESS) {
    call->done(data, {});
  } else if (!connection.trouble_.empty()) {
    call->done(nullptr, connection.trouble_);
  } else {  // Of this call alone.
    const char* why = rpc_get_error(connection.rpc_);
    call->done(nullptr, why != nullptr && *why != '\0' ? why : "the server's reply cannot be used");
  }
}

void NfsConnection::run() {
  while (true) {
    pollfd items[2] = {};
    int timeout_ms = -1;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (stopping_ || !alive_) break;
      items[0] = {rpc_get_fd(rpc_), static_cast<short>(rpc_which_events(rpc_)), 0};
      items[1] = {wake_fd_, POLLIN, 0};
      if (!calls_.empty()) {
        const auto left = (*calls_.begin())->deadline - BootClock::now();
        timeout_ms =
            static_cast<int>(std::max<long>(0, std::chrono::ceil<std::chrono::milliseconds>(left).count()));
      }
      asleep_ = true;
    }
    const int ready = ::poll(items, 2, timeout_ms);
    asleep_ = false;
    const std::lock_guard<std::mutex> lock(mutex_);
    if (ready < 0 && errno != EINTR) die("poll failed");
    if ((items[1].revents & POLLIN) != 0) {
      std::uint64_t count = 0;
      (void)!::read(wake_fd_, &count, sizeof(count));
    }
    if (alive_) serve(items[0].revents);
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  die("closed");
}

void NfsConnection::serve(short revents) {
  std::string trouble = socket_trouble(rpc_get_fd(rpc_), revents);
  if (revents != 0 && rpc_service(rpc_, revents) < 0) {
    const char* why = rpc_get_error(rpc_);
    if (trouble.empty()) trouble = why != nullptr && *why != '\0' ? why : "the connection broke";
    die(trouble);
    return;
  }
  if (!calls_.empty() && (*calls_.begin())->deadline <= BootClock::now()) die("timed out");
}

void NfsConnection::die(const std::string& why) {
  if (!alive_) return;
  alive_ = false;
  trouble_ = why;
  // Tells every call that it is cancelled, and resets the connection, so that what still sits in our
  // socket is never sent.
  rpc_destroy_context(std::exchange(rpc_, nullptr));
  while (!calls_.empty()) {  // None, as libnfs has it.
    const std::unique_ptr<Call> call(*calls_.begin());
    calls_.erase(calls_.begin());
    call->done(nullptr, trouble_);
  }
}

void NfsInFlight::begin(std::size_t weight) {
  const std::lock_guard<std::mutex> lock(mutex_);
  weight_ += weight;
}

void NfsInFlight::end(std::size_t weight) {
  const std::lock_guard<std::mutex> lock(mutex_);
  weight_ -= weight;
  changed_.notify_all();
}

void NfsInFlight::wait_until_at_most(std::size_t weight) {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [&] { return weight_ <= weight; });
}

}  // namespace cms::storage
