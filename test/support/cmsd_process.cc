#include "test/support/cmsd_process.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <sstream>

#include "base/assert.h"
#include "base/prng.h"
#include "base/result.h"

namespace cms::test {
namespace {

// systemd's side of Type=notify: tells when a service says READY=1.
class ReadySocket {
 public:
  explicit ReadySocket(const std::string& path) : path_(path) {
    ::unlink(path.c_str());
    fd_ = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    CMS_ASSERT(path.size() < sizeof(address.sun_path));
    path.copy(address.sun_path, path.size());
    CMS_ASSERT(fd_ >= 0 && ::bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  }
  ~ReadySocket() {
    ::close(fd_);
    ::unlink(path_.c_str());
  }
  ReadySocket(const ReadySocket&) = delete;
  ReadySocket& operator=(const ReadySocket&) = delete;

  // False: the process ended first.
  bool wait(Process& process) const {
    for (int i = 0; i < 600 && process.running(); ++i) {
      pollfd item{fd_, POLLIN, 0};
      if (::poll(&item, 1, 100) != 1) continue;
      char bytes[4096];
      const ssize_t got = ::read(fd_, bytes, sizeof(bytes));
      if (got > 0 && std::string(bytes, static_cast<std::size_t>(got)).find("READY=1") != std::string::npos)
        return true;
    }
    return false;
  }

 private:
  std::string path_;
  int fd_ = -1;
};

// For this process as long as it lives: other tests that run at this moment take none of these ports, whether anybody
// listens on them yet or not. The lock is an abstract name, which goes with its process.
bool reserve(std::uint16_t port_base) {
  const int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  CMS_ASSERT(fd >= 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string name = "cms-test-ports-" + std::to_string(port_base);
  std::memcpy(&address.sun_path[1], name.data(), name.size());
  const auto size_bytes = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  const bool reserved = ::bind(fd, reinterpret_cast<sockaddr*>(&address), size_bytes) == 0;
  if (!reserved) ::close(fd);
  return reserved;
}

// Below the ephemeral range.
std::uint16_t any_port_base() {
  std::uint16_t port_base = 0;
  for (int attempt = 0; attempt < 1000;
       ++attempt) {  // Then this process has nearly all of them: any will do.
    port_base = static_cast<std::uint16_t>(10000 + random_u64() % 2000 * 10);
    if (reserve(port_base)) break;
  }
  return port_base;
}

bool is_free(std::uint16_t port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int one = 1;
  (void)::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_ANY);
  const bool free = ::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  ::close(fd);
  return free;
}

}  // namespace

std::string program_path(const std::string& name) {
  for (const char* directory : {CMS_PROGRAM_DIRS}) {
    const std::string path = std::string(directory) + "/" + name;
    if (::access(path.c_str(), X_OK) == 0) return path;
  }
  const bool program_was_built = false;
  CMS_ASSERT(program_was_built);
  return {};
}

std::vector<std::uint16_t> free_port_bases(std::size_t count) {
  std::vector<std::uint16_t> bases;
  while (bases.size() < count) {
    const std::uint16_t base = any_port_base();
    bool free = true;
    for (std::uint16_t offset = 0; offset < 5 && free; ++offset)
      free = is_free(static_cast<std::uint16_t>(base + offset));
    if (free) bases.push_back(base);
  }
  return bases;
}

CmsdProcess::CmsdProcess(const TempDir& dir, const Options& options) : dir_(dir), options_(options) {
  if (options_.make_store && options_.store_url.empty()) std::filesystem::create_directory(store_path());
  if (options_.port_base != 0) {
    port_base_ = options_.port_base;
    start(options_.crash_point);
    return;
  }
  // Another test may have taken the ports, then others are tried.
  for (int attempt = 0; attempt < 50; ++attempt) {
    port_base_ = any_port_base();
    start(options_.crash_point);
    if (!options_.expect_ready || process_->running()) return;
    if (log().find("the address is in use") == std::string::npos) return;
    std::filesystem::remove(log_path());
  }
}

CmsdProcess::~CmsdProcess() = default;

void CmsdProcess::start(const std::string& crash_point) {
  std::vector<std::string> command = options_.launcher;
  const std::vector<std::string> program = {
      program_path("cmsd"),
      "--name",
      options_.name,
      "--store",
      options_.store_url.empty() ? "file://" + store_path() : options_.store_url,
      "--index",
      index_path(),
      "--port-base",
      std::to_string(port_base_),
      "--bind",
      options_.bind,
      "--admin",
      admin()};
  command.insert(command.end(), program.begin(), program.end());
  command.insert(command.end(), options_.arguments.begin(), options_.arguments.end());
  const ReadySocket ready(dir_.path() + "/ready-" + files());
  Process::Options process;
  process.stderr_path = log_path();
  process.environment["NOTIFY_SOCKET"] = dir_.path() + "/ready-" + files();
  if (!crash_point.empty()) process.environment["CMS_CRASH_POINT"] = crash_point;
  process_ = std::make_unique<Process>(command, process);
  (void)ready.wait(*process_);
}

void CmsdProcess::kill() {
  process_->signal(SIGKILL);
  (void)process_->wait();
}

int CmsdProcess::terminate() {
  process_->signal(SIGTERM);
  return process_->wait();
}

std::string CmsdProcess::log() const {
  std::ifstream file(log_path());
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::size_t CmsdProcess::count_in_log(const std::string& text) const {
  const std::string all = log();
  std::size_t count = 0;
  for (std::size_t at = all.find(text); at != std::string::npos; at = all.find(text, at + 1)) ++count;
  return count;
}

bool CmsdProcess::wait_for_log(const std::string& text, std::size_t count,
                               std::chrono::milliseconds timeout) const {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  const int fd = ::inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  CMS_ASSERT(fd >= 0 && ::inotify_add_watch(fd, log_path().c_str(), IN_MODIFY) >= 0);
  bool found = false;
  while (!(found = count_in_log(text) >= count)) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd item{fd, POLLIN, 0};
    if (left.count() <= 0 || ::poll(&item, 1, static_cast<int>(left.count())) == 0) break;
    char events[4096];
    while (::read(fd, events, sizeof(events)) > 0) {
    }
  }
  ::close(fd);
  return found;
}

CmsdProcess::Outcome CmsdProcess::admin(std::vector<std::string> arguments) const {
  std::vector<std::string> command = {program_path("cms-admin"), "--cms", admin()};
  command.insert(command.end(), arguments.begin(), arguments.end());
  Process::Options options;
  options.stderr_path = dir_.path() + "/admin-" + std::to_string(random_u64()) + ".err";
  Process process(command, options);
  Outcome outcome;
  outcome.output = process.output();  // Until it closes its stdout.
  outcome.exit_code = process.wait();
  std::stringstream errors;
  errors << std::ifstream(options.stderr_path).rdbuf();
  outcome.errors = errors.str();
  ::unlink(options.stderr_path.c_str());
  return outcome;
}

std::uint64_t CmsdProcess::peak_memory_bytes() const {
  std::ifstream file("/proc/" + std::to_string(process_->pid()) + "/status");
  std::uint64_t peak_kib = 0;
  std::uint64_t mapped_kib = 0;
  std::string word;
  while (file >> word) {
    if (word == "VmHWM:") file >> peak_kib;
    if (word == "RssFile:") file >> mapped_kib;
  }
  return (peak_kib - mapped_kib) * 1024;
}

}  // namespace cms::test
