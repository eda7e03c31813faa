#include "test/support/ganesha.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#include <array>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "test/support/cmsd_process.h"

namespace cms::test {
namespace {

namespace fs = std::filesystem;
using std::chrono::steady_clock;

constexpr auto kReadyMax = std::chrono::seconds(30);
constexpr const char* kReadyLine = "NFS SERVER INITIALIZED";
constexpr std::uint32_t kNfsProgram = 100003;
constexpr std::uint32_t kMountProgram = 100005;

// Graceless: SETATTR works at once after a restart. mount_path_pseudo: NFSv3 mounts /cms as well.
// Attr_Expiration_Time: local changes are seen.
constexpr const char* kConfiguration = R"(NFS_CORE_PARAM {
  Protocols = 3; Bind_addr = 127.0.0.1; NFS_Port = @nfs_port@; MNT_Port = @mount_port@;
  Enable_UDP = false; Enable_NLM = false; Enable_RQUOTA = false;
  mount_path_pseudo = true; Plugins_Dir = "@plugins@";
}
NFSV4 { Graceless = true; RecoveryBackend = fs_ng; RecoveryRoot = "@recovery@"; }
EXPORT {
  Export_Id = 1; Path = "@path@"; Pseudo = /cms; Protocols = 3; Transports = TCP; SecType = sys;
  Access_Type = @access@; Squash = @squash@; Attr_Expiration_Time = 0;
  FSAL { Name = VFS; }
}
LOG { Default_Log_Level = EVENT; }
)";

// Where Debian puts Ganesha's modules: /usr/lib/ARCHITECTURE/ganesha. Empty: nowhere.
std::string find_plugins() {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator("/usr/lib", ignored)) {
    if (fs::exists(entry.path() / "ganesha/libfsalvfs.so", ignored)) return entry.path() / "ganesha";
  }
  return {};
}

std::string find_ganesha() {
  for (const char* directory : {"/usr/bin/", "/usr/sbin/", "/usr/local/bin/", "/usr/local/sbin/"}) {
    const std::string path = std::string(directory) + "ganesha.nfsd";
    if (::access(path.c_str(), X_OK) == 0) return path;
  }
  return {};
}

std::string last_lines(const std::string& text, std::size_t count) {
  std::size_t begin = text.size();
  for (std::size_t i = 0; i <= count && begin != std::string::npos && begin > 0; ++i)
    begin = text.rfind('\n', begin - 1);
  return begin == std::string::npos ? text : text.substr(begin);
}

// Whether the program answers its procedure NULL, version 3.
bool answers_null(std::uint16_t port, std::uint32_t program) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const timeval patience{5, 0};
  (void)::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  // Record mark, xid, CALL, RPC 2, program, version 3, NULL, no credentials, no verifier.
  const std::array<std::uint32_t, 11> call = {
      htonl(0x80000028), 0, 0, htonl(2), htonl(program), htonl(3), 0, 0, 0, 0, 0};
  std::array<std::uint32_t, 7> reply{};  // Record mark, xid, REPLY, accepted, no verifier (2), success.
  const bool answered = ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0 &&
                        ::send(fd, call.data(), sizeof(call), MSG_NOSIGNAL) == sizeof(call) &&
                        ::recv(fd, reply.data(), sizeof(reply), MSG_WAITALL) == sizeof(reply) &&
                        reply[2] == htonl(1) && reply[6] == 0;
  ::close(fd);
  return answered;
}

}  // namespace

std::string Ganesha::url(std::uint16_t nfs_port, std::uint16_t mount_port) {
  return "nfs://127.0.0.1/cms?nfsport=" + std::to_string(nfs_port) +
         "&mountport=" + std::to_string(mount_port);
}

Ganesha::Ganesha(const Options& options) : options_(options), run_dir_(options.run_base) {}

Ganesha::~Ganesha() {
  if (process_ != nullptr) kill9();
}

Result<std::unique_ptr<Ganesha>> Ganesha::start(const Options& options) {
  std::unique_ptr<Ganesha> ganesha(new Ganesha(options));
  Status status = ganesha->prepare();
  if (!status.ok()) return std::move(status).error();
  // Another test may have taken the ports, then others are tried.
  for (int attempt = 0; attempt < 20; ++attempt) {
    const std::uint16_t base = free_port_bases(1).front();
    ganesha->nfs_port_ = base;
    ganesha->mount_port_ = static_cast<std::uint16_t>(base + 1);
    status = ganesha->run();
    if (status.ok()) return ganesha;
    if (status.code() != Code::kAlreadyExists) break;
  }
  return std::move(status).error();
}

Status Ganesha::prepare() {
  plugins_ = find_plugins();
  if (find_ganesha().empty() || plugins_.empty()) {
    return make_error(
        Code::kUnsupported,
        "nfs-ganesha is not installed (packages nfs-ganesha and nfs-ganesha-vfs): run tools/setup");
  }
  if (::geteuid() != 0) {
    return make_error(Code::kPermission,
                      "nfs-ganesha opens files by handle and needs root: run this as root (sudo)");
  }
  fs::create_directory(run_dir_ / "recovery");
  if (!options_.export_path.empty()) {
    CMS_ASSERT(options_.size_bytes_max == 0);
    if (!fs::is_directory(options_.export_path))
      return make_error(Code::kInvalidArgument, "export " + options_.export_path + ": not a directory");
    served_path_ = export_path_ = fs::canonical(options_.export_path);
    return ok_status();
  }
  served_path_ = export_path_ = fs::canonical(run_dir_.path()) / "export";
  fs::create_directory(export_path_);
  if (options_.size_bytes_max == 0) return ok_status();
  // In a mount namespace that a process holds: nothing stays mounted, however this test ends.
  Process::Options holder;
  holder.stderr_path = run_dir_ / "mount.log";
  mounts_ = std::make_unique<Process>(
      std::vector<std::string>{"unshare", "--mount", "--propagation", "private", "sh", "-c",
                               "mount -t tmpfs -o mode=755,size=\"$2\" none \"$1\" && echo mounted && "
                               "exec tail -f /dev/null",
                               "sh", served_path_, std::to_string(options_.size_bytes_max)},
      holder);
  if (mounts_->read_line() != "mounted") {
    std::ifstream log(holder.stderr_path);
    std::string reason;
    std::getline(log, reason);
    return make_error(Code::kPermission,
                      "a file system of a limited size must be mounted: run this as root where "
                      "mounts are allowed: " +
                          reason);
  }
  export_path_ = "/proc/" + std::to_string(mounts_->pid()) + "/root" + served_path_;
  return ok_status();
}

std::string Ganesha::configuration() const {
  std::string text = kConfiguration;
  const char* squash = options_.squash == Squash::kNone   ? "None"
                       : options_.squash == Squash::kRoot ? "Root_Squash"
                                                          : "All_Squash";
  for (const auto& [name, value] : std::map<std::string, std::string>{
           {"@nfs_port@", std::to_string(nfs_port_)},
           {"@mount_port@", std::to_string(mount_port_)},
           {"@plugins@", plugins_},
           {"@recovery@", run_dir_ / "recovery"},
           {"@path@", served_path_},
           {"@access@", options_.read_only ? "RO" : "RW"},
           {"@squash@", squash},
       }) {
    text.replace(text.find(name), name.size(), value);
  }
  return text;
}

Status Ganesha::run() {
  const std::string configuration_path = run_dir_ / "ganesha.conf";
  std::ofstream(configuration_path) << configuration();
  const std::string log_path = run_dir_ / "ganesha.log";
  std::ofstream(log_path, std::ios::app).flush();  // For inotify.
  const std::size_t logged_before = log().size();
  // env -i: what sanitizers or a debugger want of the test is not for the child.
  std::vector<std::string> command;
  if (mounts_ != nullptr)
    command = {"nsenter", "--mount=/proc/" + std::to_string(mounts_->pid()) + "/ns/mnt"};
  for (const std::string& word :
       {std::string("env"), std::string("-i"), std::string("PATH=/usr/sbin:/usr/bin:/sbin:/bin"),
        std::string("LD_PRELOAD=") + CMS_NO_RPCBIND, find_ganesha(), std::string("-F"), std::string("-f"),
        configuration_path, std::string("-L"), log_path, std::string("-p"), run_dir_ / "ganesha.pid",
        std::string("-N"), std::string("NIV_EVENT")}) {
    command.push_back(word);
  }
  Process::Options process;
  process.stderr_path = run_dir_ / "stderr";
  const int changes = ::inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  CMS_ASSERT(changes >= 0 && ::inotify_add_watch(changes, log_path.c_str(), IN_MODIFY) >= 0);
  process_ = std::make_unique<Process>(command, process);
  const auto deadline = steady_clock::now() + kReadyMax;
  bool ready = false;
  // The log is its own, so this is no other's server that has the port.
  while (!(ready = log().find(kReadyLine, logged_before) != std::string::npos) && process_->running() &&
         steady_clock::now() < deadline) {
    pollfd item{changes, POLLIN, 0};
    (void)::poll(&item, 1, 100);  // Its end is no change of the log.
    char events[4096];
    while (::read(changes, events, sizeof(events)) > 0) {
    }
  }
  ::close(changes);
  if (ready && answers_null(nfs_port_, kNfsProgram) && answers_null(mount_port_, kMountProgram))
    return ok_status();
  const bool ended = !process_->running();
  kill9();
  const std::string said = log().substr(logged_before);
  if (ended && said.find("Cannot bind") != std::string::npos)
    return make_error(Code::kAlreadyExists, "nfs-ganesha: somebody else has port " +
                                                std::to_string(nfs_port_) + " or " +
                                                std::to_string(mount_port_));
  std::ifstream errors(process.stderr_path);
  std::stringstream error_text;
  error_text << errors.rdbuf();
  return make_error(Code::kIo, std::string("nfs-ganesha ") +
                                   (ended ? "ended at its start" : "does not answer") +
                                   "; the end of its log:" + last_lines(said, 25) + error_text.str());
}

std::string Ganesha::log() const {
  std::ifstream file(run_dir_ / "ganesha.log");
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

void Ganesha::kill9() {
  process_->signal(SIGKILL);
  (void)process_->wait();
}

int Ganesha::stop() {
  process_->signal(SIGTERM);
  process_->signal(SIGCONT);
  return process_->wait();
}

Status Ganesha::restart() {
  if (process_->running()) kill9();
  // Connections that died with it may hold the port in TIME_WAIT; Ganesha takes it all the same.
  return run();
}

Status Ganesha::set_read_only(bool read_only) {
  options_.read_only = read_only;
  return restart();
}

void Ganesha::pause() {
  process_->signal(SIGSTOP);
  siginfo_t info{};  // Until all its threads have stopped.
  (void)::waitid(P_PID, static_cast<id_t>(process_->pid()), &info, WSTOPPED | WEXITED | WNOWAIT);
}

void Ganesha::resume() { process_->signal(SIGCONT); }

Status Ganesha::resize(std::uint64_t size_bytes_max) {
  CMS_ASSERT(mounts_ != nullptr);
  Process remount({"nsenter", "--mount=/proc/" + std::to_string(mounts_->pid()) + "/ns/mnt", "mount", "-o",
                   "remount,size=" + std::to_string(size_bytes_max), served_path_});
  if (remount.wait() == 0) return ok_status();
  return make_error(Code::kInvalidArgument,
                    "resize to " + std::to_string(size_bytes_max) + ": less than is in it?");
}

}  // namespace cms::test
