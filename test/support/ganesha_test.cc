#include "test/support/ganesha.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <vector>

#include <gtest/gtest.h>
#include <nfsc/libnfs.h>

namespace cms::test {
namespace {

namespace fs = std::filesystem;

// A mount by libnfs's plain calls. They are good enough where no connection breaks during one.
class Mount {
 public:
  explicit Mount(const std::string& url) : nfs_(nfs_init_context()) {
    nfs_url* parsed = nfs_parse_url_dir(nfs_, (url + "&version=3&autoreconnect=0&dircache=0").c_str());
    error_ = parsed == nullptr ? -EINVAL : nfs_mount(nfs_, parsed->server, parsed->path);
    if (parsed != nullptr) nfs_destroy_url(parsed);
  }
  ~Mount() { nfs_destroy_context(nfs_); }
  Mount(const Mount&) = delete;
  Mount& operator=(const Mount&) = delete;

  int error() const { return error_; }
  std::string why() const { return nfs_get_error(nfs_); }
  // 0 or -errno.
  int write(const std::string& name, const std::string& bytes) {
    nfsfh* file = nullptr;
    int result = nfs_open2(nfs_, name.c_str(), O_CREAT | O_WRONLY, 0644, &file);
    if (result != 0) return result;
    result = nfs_write(nfs_, file, bytes.size(), const_cast<char*>(bytes.data()));
    if (result >= 0) result = nfs_fsync(nfs_, file);
    (void)nfs_close(nfs_, file);
    return result;
  }
  // The bytes, or "error -N".
  std::string read(const std::string& name) {
    nfsfh* file = nullptr;
    int result = nfs_open(nfs_, name.c_str(), O_RDONLY, &file);
    if (result != 0) return "error " + std::to_string(result);
    std::string bytes(1 << 20, '\0');
    result = nfs_read(nfs_, file, bytes.size(), bytes.data());
    (void)nfs_close(nfs_, file);
    if (result < 0) return "error " + std::to_string(result);
    bytes.resize(static_cast<std::size_t>(result));
    return bytes;
  }
  int truncate(const std::string& name, std::uint64_t size_bytes) {
    return nfs_truncate(nfs_, name.c_str(), size_bytes);
  }
  std::vector<std::string> list() {
    nfsdir* directory = nullptr;
    std::vector<std::string> names;
    if (nfs_opendir(nfs_, "/", &directory) != 0) return {"error"};
    while (const nfsdirent* entry = nfs_readdir(nfs_, directory)) {
      if (entry->name[0] != '.') names.emplace_back(entry->name);
    }
    nfs_closedir(nfs_, directory);
    std::sort(names.begin(), names.end());
    return names;
  }

 private:
  nfs_context* nfs_;
  int error_ = 0;
};

std::string read_local(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::unique_ptr<Ganesha> started(const Ganesha::Options& options = {}) {
  auto ganesha = Ganesha::start(options);
  EXPECT_TRUE(ganesha.ok()) << ganesha.error().message();
  return ganesha.ok() ? std::move(ganesha).value() : nullptr;
}

TEST(GaneshaTest, ServesItsDirectoryAndGoesOnAfterKill9) {
  const auto ganesha = started();
  ASSERT_NE(ganesha, nullptr);
  const std::string url = ganesha->url();
  {
    Mount mount(url);
    ASSERT_EQ(mount.error(), 0) << mount.why();
    ASSERT_EQ(mount.write("/one", "first"), 0) << mount.why();
  }
  EXPECT_EQ(read_local(ganesha->export_path() + "/one"), "first");
  for (int round = 0; round < 3; ++round) {
    ganesha->kill9();
    EXPECT_NE(Mount(url).error(), 0);
    const Status status = ganesha->restart();
    ASSERT_TRUE(status.ok()) << status.error().message();
    EXPECT_EQ(ganesha->url(), url);
    Mount mount(url);
    ASSERT_EQ(mount.error(), 0) << mount.why();
    EXPECT_EQ(mount.read("/one"), "first");
    // No grace: what changes attributes works at once.
    ASSERT_EQ(mount.write("/two", "second"), 0) << mount.why();
    EXPECT_EQ(mount.truncate("/two", 3), 0) << mount.why();
    EXPECT_EQ(read_local(ganesha->export_path() + "/two"), "sec");
  }
}

TEST(GaneshaTest, SeesWhatIsChangedLocally) {
  const auto ganesha = started();
  ASSERT_NE(ganesha, nullptr);
  const std::string path = ganesha->export_path() + "/file";
  Mount mount(ganesha->url());
  ASSERT_EQ(mount.error(), 0) << mount.why();
  EXPECT_EQ(mount.list(), std::vector<std::string>{});
  for (const std::string text : {"short", "something longer", "x"}) {
    std::ofstream(path) << text;
    EXPECT_EQ(mount.list(), std::vector<std::string>{"file"});
    EXPECT_EQ(mount.read("/file"), text);
    fs::remove(path);
    EXPECT_EQ(mount.read("/file"), "error -2");
    EXPECT_EQ(mount.list(), std::vector<std::string>{});
  }
}

TEST(GaneshaTest, StopsWithExitCode0AndStartsAgain) {
  const auto ganesha = started();
  ASSERT_NE(ganesha, nullptr);
  EXPECT_EQ(ganesha->stop(), 0) << ganesha->log();
  ASSERT_TRUE(ganesha->restart().ok());
  EXPECT_EQ(Mount(ganesha->url()).error(), 0);
}

TEST(GaneshaTest, AnswersNothingWhilePaused) {
  const auto ganesha = started();
  ASSERT_NE(ganesha, nullptr);
  ganesha->pause();
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const timeval patience{0, 200000};
  ASSERT_EQ(::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(ganesha->nfs_port());
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  const std::uint32_t null[11] = {htonl(0x80000028), 7, 0, htonl(2), htonl(100003), htonl(3)};
  ASSERT_EQ(::send(fd, null, sizeof(null), 0), static_cast<ssize_t>(sizeof(null)));
  std::uint32_t reply[7] = {};
  EXPECT_EQ(::recv(fd, reply, sizeof(reply), MSG_WAITALL), -1);
  const timeval more_patience{30, 0};
  ASSERT_EQ(::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &more_patience, sizeof(more_patience)), 0);
  ganesha->resume();
  EXPECT_EQ(::recv(fd, reply, sizeof(reply), MSG_WAITALL), static_cast<ssize_t>(sizeof(reply)));
  EXPECT_EQ(reply[1], 7U);
  ::close(fd);
}

TEST(GaneshaTest, ServesADirectoryThatIsGivenAndLeavesIt) {
  const TempDir dir("/tmp");
  std::ofstream(dir / "mine") << "given";
  Ganesha::Options options;
  options.export_path = dir.path();
  {
    const auto ganesha = started(options);
    ASSERT_NE(ganesha, nullptr);
    Mount mount(ganesha->url());
    EXPECT_EQ(mount.read("/mine"), "given") << mount.why();
    EXPECT_EQ(mount.write("/theirs", "by NFS"), 0) << mount.why();
  }
  EXPECT_EQ(read_local(dir / "mine"), "given");
  EXPECT_EQ(read_local(dir / "theirs"), "by NFS");
}

TEST(GaneshaTest, RefusesChangesOfAReadOnlyExport) {
  Ganesha::Options options;
  options.read_only = true;
  const auto ganesha = started(options);
  ASSERT_NE(ganesha, nullptr);
  std::ofstream(ganesha->export_path() + "/file") << "to be read";
  Mount mount(ganesha->url());
  EXPECT_EQ(mount.read("/file"), "to be read") << mount.why();
  EXPECT_EQ(mount.write("/new", "x"), -EROFS);
}

TEST(GaneshaTest, SquashesRoot) {
  Ganesha::Options options;
  options.squash = Ganesha::Squash::kRoot;
  const auto ganesha = started(options);
  ASSERT_NE(ganesha, nullptr);
  Mount mount(ganesha->url());
  ASSERT_EQ(mount.error(), 0) << mount.why();
  EXPECT_EQ(mount.write("/new", "x"), -EACCES);
}

TEST(GaneshaTest, FillsUpAndKeepsItsFilesOverARestart) {
  Ganesha::Options options;
  options.size_bytes_max = 1 << 20;
  const auto ganesha = started(options);
  ASSERT_NE(ganesha, nullptr);
  Mount mount(ganesha->url());
  ASSERT_EQ(mount.error(), 0) << mount.why();
  ASSERT_EQ(mount.write("/some", "kept"), 0) << mount.why();
  EXPECT_LT(mount.write("/much", std::string(2 << 20, 'x')), 0);
  struct statvfs space {};
  ASSERT_EQ(::statvfs(ganesha->export_path().c_str(), &space), 0);
  EXPECT_EQ(space.f_blocks * space.f_frsize, options.size_bytes_max);
  EXPECT_EQ(space.f_bavail, 0U);
  ASSERT_TRUE(ganesha->resize(8 << 20).ok());
  EXPECT_EQ(mount.write("/much", std::string(1 << 20, 'x')), 0) << mount.why();
  ASSERT_TRUE(ganesha->restart().ok());
  EXPECT_EQ(read_local(ganesha->export_path() + "/some"), "kept");
  Mount again(ganesha->url());
  EXPECT_EQ(again.read("/some"), "kept") << again.why();
}

TEST(GaneshaTest, TwoServeSideBySide) {
  const auto one = started();
  const auto other = started();
  ASSERT_NE(one, nullptr);
  ASSERT_NE(other, nullptr);
  std::ofstream(one->export_path() + "/name") << "one";
  std::ofstream(other->export_path() + "/name") << "other";
  EXPECT_EQ(Mount(one->url()).read("/name"), "one");
  EXPECT_EQ(Mount(other->url()).read("/name"), "other");
}

TEST(GaneshaTest, LeavesNothingBehind) {
  std::string directory;
  pid_t pid = -1;
  {
    Ganesha::Options options;
    options.size_bytes_max = 1 << 20;
    const auto ganesha = started(options);
    ASSERT_NE(ganesha, nullptr);
    pid = ganesha->process().pid();
    directory = ganesha->export_path();
    directory = fs::path(directory.substr(directory.find("/root/") + 5)).parent_path();
    ASSERT_TRUE(fs::exists(directory + "/ganesha.conf"));
  }
  EXPECT_FALSE(fs::exists(directory));
  EXPECT_FALSE(fs::exists("/proc/" + std::to_string(pid)));
}

// As scripts use it.
TEST(GaneshaForTestsTest, PrintsItsUrlAndServesUntilItIsToldToStop) {
  const TempDir dir;
  std::ofstream(dir / "file") << "seen";
  Process program({CMS_GANESHA_FOR_TESTS, "--export", dir.path()}, [&] {
    Process::Options options;
    options.stdin_path = dir / "stdin";
    EXPECT_EQ(::mkfifo(options.stdin_path.c_str(), 0600), 0);
    return options;
  }());
  const int stdin_fd = ::open((dir / "stdin").c_str(), O_WRONLY | O_CLOEXEC);
  const std::string url = program.read_line();
  EXPECT_EQ(Mount(url).read("/file"), "seen") << url;
  ::close(stdin_fd);
  EXPECT_EQ(program.wait(), 0);
  EXPECT_NE(Mount(url).error(), 0);
}

TEST(GaneshaForTestsTest, SaysWhyItCannotStart) {
  const TempDir dir;
  Process::Options options;
  options.stderr_path = dir / "stderr";
  Process program({CMS_GANESHA_FOR_TESTS, "--export", dir / "absent"}, options);
  EXPECT_EQ(program.wait(), 1);
  EXPECT_NE(read_local(dir / "stderr").find("absent: not a directory"), std::string::npos);
}

TEST(GaneshaTest, SaysWhyItCannotStart) {
  Ganesha::Options options;
  options.export_path = "/nonexistent";
  const auto ganesha = Ganesha::start(options);
  ASSERT_FALSE(ganesha.ok());
  EXPECT_EQ(ganesha.error().code, Code::kInvalidArgument);
  EXPECT_NE(ganesha.error().message().find("/nonexistent"), std::string::npos);
}

}  // namespace
}  // namespace cms::test
