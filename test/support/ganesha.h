#pragma once
// A real NFS server for a test: nfs-ganesha on loopback, NFSv3 over TCP only, on ports of its own,
// with a directory of its own to export. It needs no rpcbind and no systemd, and answers when start()
// returns. The same files, handles and ports are there after kill9() and restart(); only the write
// verifier is another one, as after a crash of a NAS.
//
// Needs root (Ganesha opens files by handle) and the packages that tools/setup installs; where it
// cannot run, start() says why and what to do. Such a test fails, it is not skipped.
//
// The exported directory may be looked at and changed locally as well: Ganesha keeps no attributes.
// It dies with the thread that started it (PR_SET_PDEATHSIG), so start it in one that outlives it.
// Threads: none of its own; use it from one at a time.
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "test/support/process.h"
#include "test/support/temp_dir.h"

namespace cms::test {

class Ganesha {
 public:
  enum class Squash { kNone, kRoot, kAll };  // Whose uid becomes nobody.
  struct Options {
    std::string export_path;  // A directory that exists; empty: one of its own, gone with the fixture.
    bool read_only = false;   // Every change is refused with NFS3ERR_ROFS.
    Squash squash = Squash::kNone;
    // Not 0: the export is a file system of this size, in memory, that nobody else sees; it fills up
    // with NFS3ERR_NOSPC. Without export_path only.
    std::uint64_t size_bytes_max = 0;
    std::string run_base = memory_or_tmp();  // Where the run directory is made ($CMS_TEST_DIR wins).
  };

  // kUnsupported: it is not installed here. kPermission: not root, or no mounts for size_bytes_max.
  // kInvalidArgument: export_path is no directory. kIo: it ended or was not ready within 30 s; the
  // context has the end of its log.
  static Result<std::unique_ptr<Ganesha>> start() { return start(Options{}); }
  static Result<std::unique_ptr<Ganesha>> start(const Options& options);
  ~Ganesha();  // Kills it, and removes its run directory and its own export.
  Ganesha(const Ganesha&) = delete;
  Ganesha& operator=(const Ganesha&) = delete;

  // "nfs://127.0.0.1/cms?nfsport=N&mountport=N"
  std::string url() const { return url(nfs_port_, mount_port_); }
  // The same export by other ports, for example of a proxy.
  static std::string url(std::uint16_t nfs_port, std::uint16_t mount_port);
  std::uint16_t nfs_port() const { return nfs_port_; }
  std::uint16_t mount_port() const { return mount_port_; }
  // The exported directory as this process sees it.
  const std::string& export_path() const { return export_path_; }
  Process& process() { return *process_; }
  std::string log() const;  // Of all its starts.

  void kill9();      // -9, and waits; everything that was not committed to a disk may as well be gone.
  int stop();        // SIGTERM; the exit code. Takes a second.
  Status restart();  // After kill9() or stop(), or instead of them.
  void pause();      // SIGSTOP: connections stay, nothing answers.
  void resume();     // SIGCONT.
  // Changes the size of the file system of size_bytes_max.
  Status resize(std::uint64_t size_bytes_max);

 private:
  explicit Ganesha(const Options& options);
  Status prepare();
  // One start on these ports. kAlreadyExists: somebody else has one of them.
  Status run();
  std::string configuration() const;

  Options options_;
  TempDir run_dir_;
  std::string plugins_;      // The directory of its modules.
  std::string served_path_;  // The exported directory as Ganesha sees it.
  std::string export_path_;
  std::uint16_t nfs_port_ = 0;
  std::uint16_t mount_port_ = 0;
  std::unique_ptr<Process> mounts_;  // Holds the mount namespace of size_bytes_max.
  std::unique_ptr<Process> process_;
};

}  // namespace cms::test
