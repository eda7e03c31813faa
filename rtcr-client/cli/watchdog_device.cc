#include "rtcr-client/cli/watchdog_device.h"

#include <fcntl.h>
#include <linux/watchdog.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cerrno>

namespace cms::cli {
namespace {

class LinuxWatchdog final : public WatchdogDevice {
 public:
  LinuxWatchdog(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  ~LinuxWatchdog() override { LinuxWatchdog::close(); }

  Result<std::uint32_t> options() override {
    watchdog_info info{};
    if (const Status asked = control(WDIOC_GETSUPPORT, &info, "WDIOC_GETSUPPORT"); !asked.ok())
      return asked.error();
    return info.options;
  }
  Status set_timeout(std::chrono::seconds timeout) override {
    int seconds = static_cast<int>(timeout.count());
    return control(WDIOC_SETTIMEOUT, &seconds, "WDIOC_SETTIMEOUT");
  }
  Result<std::chrono::seconds> timeout() override {
    int seconds = 0;
    if (const Status asked = control(WDIOC_GETTIMEOUT, &seconds, "WDIOC_GETTIMEOUT"); !asked.ok())
      return asked.error();
    return std::chrono::seconds(seconds);
  }
  Status kick() override {
    int ignored = 0;
    return control(WDIOC_KEEPALIVE, &ignored, "WDIOC_KEEPALIVE");
  }
  Status disarm() override {
    if (::write(fd_, "V", 1) == 1) return ok_status();  // The letter is the device's.
    return error_from_errno(errno, path_ + ": write V");
  }
  void close() override {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

 private:
  Status control(unsigned long request, void* argument, const char* name) const {
    if (::ioctl(fd_, request, argument) == 0) return ok_status();
    return error_from_errno(errno, path_ + ": " + name);
  }

  const std::string path_;
  int fd_;
};

}  // namespace

Result<std::unique_ptr<WatchdogDevice>> open_watchdog_device(const std::string& path) {
  // To open something else may block, as a FIFO does, and to disarm it would write into it.
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return error_from_errno(errno, path);
  if (!S_ISCHR(status.st_mode))
    return make_error(Code::kInvalidArgument, path + ": not a character device, such as /dev/watchdog");
  const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0 && errno == EBUSY)
    return error_from_errno(EBUSY, path + ": another program has it, such as systemd (RuntimeWatchdogSec=)");
  if (fd < 0) return error_from_errno(errno, path);
  return std::unique_ptr<WatchdogDevice>(std::make_unique<LinuxWatchdog>(path, fd));
}

}  // namespace cms::cli
