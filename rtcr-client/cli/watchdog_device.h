#pragma once
// A watchdog as Linux offers it (linux/watchdog.h; in the kernel's documentation: watchdog-api): a character device that
// resets the host when it was not kicked for its timeout. It is armed by being opened.
//
// Threads: one caller at a time.
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"

namespace cms::cli {

class WatchdogDevice {
 public:
  WatchdogDevice(const WatchdogDevice&) = delete;
  WatchdogDevice& operator=(const WatchdogDevice&) = delete;
  // Closes it.
  virtual ~WatchdogDevice() = default;

  // What its driver can: WDIOF_*. An Error: it is no watchdog.
  virtual Result<std::uint32_t> options() = 0;
  // What it takes may be another one: timeout() tells. Kicks it too.
  virtual Status set_timeout(std::chrono::seconds timeout) = 0;
  virtual Result<std::chrono::seconds> timeout() = 0;
  virtual Status kick() = 0;
  // From close() on it is off, unless its driver was told never to be (nowayout).
  virtual Status disarm() = 0;
  // Of this process. It stays armed, unless disarm() came last.
  virtual void close() = 0;

 protected:
  WatchdogDevice() = default;
};

// kInvalidArgument: `path` is no character device. Nothing but a character device is opened.
Result<std::unique_ptr<WatchdogDevice>> open_watchdog_device(const std::string& path);

}  // namespace cms::cli
