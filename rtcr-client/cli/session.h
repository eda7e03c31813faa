#pragma once
// A client of the library for the time of one command, with what it hears of the CMS instances.
#include <atomic>
#include <mutex>
#include <optional>
#include <string>

#include "rtcr-client/cli/arguments.h"
#include "rtcr/rtcr.hpp"

namespace cms::cli {

class Session {
 public:
  explicit Session(const CommonArguments& arguments) : arguments_(arguments) {}
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // `options` without what every command has.
  rtcr::Status open(rtcr::Options options);
  rtcr::Client& client() { return *client_; }

  // Prints why, and returns the exit code.
  int report(const rtcr::Error& error, const std::string& what) const;
  // The same when the time is over: unreachable when no CMS was heard, refused when one refuses.
  int report_timeout(const std::string& what) const;

 private:
  const CommonArguments& arguments_;
  mutable std::mutex mutex_{};  // Guards what on_event writes on the client's thread.
  bool live_ = false;
  std::string refusal_{};
  std::optional<rtcr::Client> client_{};  // Last: it ends before what it writes to.
};

}  // namespace cms::cli
