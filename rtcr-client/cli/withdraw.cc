#include <poll.h>
#include <algorithm>
#include <chrono>
#include <string>

#include "base/time.h"
#include "rtcr-client/cli/commands.h"
#include "rtcr-client/cli/json_lines.h"
#include "rtcr-client/cli/session.h"
#include "rtcr-client/cli/terminal.h"

namespace cms::cli {

namespace {

// The library's call cannot be ended early; so it is repeated, which is harmless.
constexpr std::chrono::milliseconds kTurn{1000};

}  // namespace

int run_withdraw(const WithdrawArguments& arguments, int end_fd) {
  const CommonArguments& common = arguments.common;
  const ProgramKey program{common.ecu_mac, common.program_id};
  const std::string what = "withdraw " + to_string(program);
  rtcr::Options options;
  options.bulk_ports = arguments.bulk_ports;
  Session session(common);
  if (const auto opened = session.open(options); !opened.ok()) return session.report(opened.error(), what);
  const Instant deadline = BootClock::now() + common.timeout;
  auto withdrawn = rtcr::Status();
  do {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - BootClock::now());
    withdrawn =
        session.client().withdraw(common.program_id, std::clamp(left, std::chrono::milliseconds(0), kTurn));
    pollfd end{end_fd, POLLIN, 0};
    if (::poll(&end, 1, 0) == 1)
      return session.report(rtcr::Error{RTCR_E_CANCELLED, "ended by a signal"}, what);
  } while (withdrawn.status() == RTCR_E_TIMEOUT && BootClock::now() < deadline);
  if (withdrawn.status() == RTCR_E_TIMEOUT) return session.report_timeout(what + ": not confirmed");
  if (!withdrawn.ok()) return session.report(withdrawn.error(), what);
  const bool printed = print_line(common.output == Output::kJson ? json_of_withdrawn(program)
                                                                 : "WITHDRAWN  " + to_string(program));
  return printed ? kExitDone : kExitFailed;
}

}  // namespace cms::cli
