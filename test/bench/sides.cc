#include "test/bench/sides.h"

#include <fcntl.h>
#include <unistd.h>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <vector>

#include "base/assert.h"
#include "test/support/process.h"

namespace cms::bench {
namespace {

namespace fs = std::filesystem;

double seconds_of_run(const std::vector<std::string>& command) {
  const RunResult result = run_program(command);
  if (result.exit_code == 0) return result.seconds;
  std::cerr << "store_bench: " << command[0] << " ended with " << result.exit_code << '\n';
  std::exit(1);
}

class Dd : public Side {
 public:
  explicit Dd(const std::string& directory) : target_(directory + "/dd") {}
  std::string name() const override { return "dd conv=fsync (local)"; }
  bool counts() const override { return false; }
  double store(const Source& source) override {
    return seconds_of_run({"dd", "if=" + source.path, "of=" + target_, "bs=1M", "conv=fsync", "status=none"});
  }
  void clean_up() override { fs::remove(target_); }

 private:
  std::string target_;
};

class Rsync : public Side {
 public:
  Rsync(const std::string& rsync, const std::string& directory, bool many)
      : many_(many),
        rsync_(rsync),
        target_(directory + (many ? "/rsync-many" : "/rsync")),
        port_(free_port()) {
    fs::create_directory(target_);
    const std::string config = target_ + ".conf";
    std::ofstream(config) << "port = " << port_ << "\nuse chroot = no\nreverse lookup = no\n"
                          << (::geteuid() == 0 ? "uid = 0\ngid = 0\n" : "") << "[st]\npath = " << target_
                          << "\nread only = no\n";
    daemon_ = std::make_unique<test::Process>(
        std::vector<std::string>{rsync_, "--daemon", "--no-detach", "--address=127.0.0.1",
                                 "--config=" + config, "--log-file=" + target_ + ".log"});
    wait_for_port(port_);
  }
  std::string name() const override { return many_ ? "rsync -a --fsync" : "rsync --fsync"; }
  double store(const Source& source) override {
    const std::string url = "rsync://127.0.0.1:" + std::to_string(port_) + "/st/";
    if (many_) {
      // Each time into a directory of its own: the files are new, as they are for the others.
      return seconds_of_run(
          {rsync_, "-a", "-W", "--fsync", source.path + "/", url + std::to_string(++runs_) + "/"});
    }
    return seconds_of_run({rsync_, "-W", "--inplace", "--fsync", source.path, url + "file"});
  }
  void clean_up() override {
    if (!many_) fs::remove(target_ + "/file");
  }

 private:
  bool many_;
  std::string rsync_;
  std::string target_;
  std::uint16_t port_;
  int runs_ = 0;
  std::unique_ptr<test::Process> daemon_;
};

class Nginx : public Side {
 public:
  Nginx(const std::string& nginx, const std::string& directory)
      : target_(directory + "/nginx"), port_(free_port()) {
    fs::create_directories(target_ + "/root");
    const std::string config = target_ + "/nginx.conf";
    std::ofstream(config) << "daemon off;\nmaster_process off;\nworker_processes 1;\npid " << target_
                          << "/pid;\n"
                          << "error_log " << target_ << "/log;\nevents {}\nhttp {\n  access_log off;\n"
                          << "  client_max_body_size 0;\n  client_body_temp_path " << target_ << "/body;\n"
                          << "  proxy_temp_path " << target_ << "/p;\n  fastcgi_temp_path " << target_
                          << "/f;\n"
                          << "  uwsgi_temp_path " << target_ << "/u;\n  scgi_temp_path " << target_ << "/s;\n"
                          << "  server {\n    listen 127.0.0.1:" << port_ << ";\n    root " << target_
                          << "/root;\n    location / { dav_methods PUT; }\n  }\n}\n";
    server_ = std::make_unique<test::Process>(
        std::vector<std::string>{nginx, "-p", target_, "-c", config, "-e", target_ + "/log"});
    wait_for_port(port_);
  }
  std::string name() const override { return "nginx PUT + fsync"; }
  double store(const Source& source) override {
    const Stopwatch watch;
    seconds_of_run({"curl", "-sSf", "-H", "Expect:", "-T", source.path,
                    "http://127.0.0.1:" + std::to_string(port_) + "/file"});
    const int fd = ::open((target_ + "/root/file").c_str(), O_RDONLY | O_CLOEXEC);
    CMS_ASSERT(fd >= 0 && ::fsync(fd) == 0);
    ::close(fd);
    return watch.seconds();
  }
  void clean_up() override { fs::remove(target_ + "/root/file"); }

 private:
  std::string target_;
  std::uint16_t port_;
  std::unique_ptr<test::Process> server_;
};

class FsyncEach : public Side {
 public:
  explicit FsyncEach(const std::string& directory) : target_(directory + "/fsync-each") {}
  std::string name() const override { return "write + fsync each (local)"; }
  bool counts() const override { return false; }
  double store(const Source& source) override {
    // What is written is what the source's files hold; their sizes are all the same.
    std::uint64_t count = 0;
    std::uint64_t file_bytes = 0;
    for (const auto& file : fs::directory_iterator(source.path)) {
      ++count;
      file_bytes = file.file_size();
    }
    const std::string directory = target_ + std::to_string(++runs_);
    fs::create_directories(directory);
    const auto* bytes = static_cast<const char*>(source.data);
    const Stopwatch watch;
    for (std::uint64_t i = 0; i < count; ++i) {
      write_file(directory + "/" + std::to_string(i), bytes + i * file_bytes, file_bytes);
    }
    return watch.seconds();
  }
  void clean_up() override {}

 private:
  std::string target_;
  int runs_ = 0;
};

}  // namespace

std::unique_ptr<Side> make_dd(const std::string& directory) { return std::make_unique<Dd>(directory); }

std::unique_ptr<Side> make_rsync(const std::string& directory) {
  const std::string rsync = find_program("rsync");
  return rsync.empty() ? nullptr : std::make_unique<Rsync>(rsync, directory, false);
}

std::unique_ptr<Side> make_rsync_many(const std::string& directory) {
  const std::string rsync = find_program("rsync");
  return rsync.empty() ? nullptr : std::make_unique<Rsync>(rsync, directory, true);
}

std::unique_ptr<Side> make_nginx(const std::string& directory) {
  const std::string nginx = find_program("nginx");
  if (nginx.empty() || find_program("curl").empty()) return nullptr;
  return std::make_unique<Nginx>(nginx, directory);
}

std::unique_ptr<Side> make_fsync_each(const std::string& directory) {
  return std::make_unique<FsyncEach>(directory);
}

}  // namespace cms::bench
