#include "rtcr-client/cli/session.h"

#include <utility>

#include "rtcr-client/cli/terminal.h"
#include "rtcr-client/cli/values.h"

namespace cms::cli {

rtcr::Status Session::open(rtcr::Options options) {
  options.cms = arguments_.cms_text;
  options.ecu_mac = to_string(arguments_.ecu_mac);
  options.on_event = [this](const rtcr::Event& event) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (event.kind == RTCR_CMS_LIVE) live_ = true;
    if (event.kind == RTCR_CMS_REFUSED) refusal_ = event.text;
  };
  auto opened = rtcr::Client::open(options);
  if (!opened.ok()) return opened.error();
  client_.emplace(std::move(opened).value());
  return rtcr::Status();
}

int Session::report(const rtcr::Error& error, const std::string& what) const {
  const Code code = error.status <= RTCR_E_PUBLISHER_GONE ? static_cast<Code>(error.status) : Code::kIo;
  print_error(arguments_, code, what + ": " + error.detail);
  return kExitFailed;
}

int Session::report_timeout(const std::string& what) const {
  const std::string after = " after " + duration_text(arguments_.timeout);
  const std::lock_guard<std::mutex> lock(mutex_);
  if (live_) {
    print_error(arguments_, Code::kTimeout, what + after + " without progress (--timeout)");
    return kExitFailed;
  }
  if (!refusal_.empty()) {
    print_error(arguments_, Code::kPermission, what + after + ": refused: " + refusal_);
    return kExitFailed;
  }
  print_error(arguments_, Code::kUnavailable, what + after + ": no CMS answers at " + arguments_.cms_text);
  return kExitUnreachable;
}

}  // namespace cms::cli
