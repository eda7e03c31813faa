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

// The library's call cannot be ended early; so it is repeated, which is harmless. Long enough for it to turn
// to another CMS.
constexpr std::chrono::milliseconds kTurn{3000};

}  // namespace

int run_request_migration(const RequestMigrationArguments& arguments, int end_fd) {
  const CommonArguments& common = arguments.common;
  const ProgramKey program{common.ecu_mac, common.program_id};
  const std::string what = "request-migration " + to_string(program);
  rtcr::Options options;
  options.bulk_ports = arguments.bulk_ports;
  Session session(common);
  if (const auto opened = session.open(options); !opened.ok()) return session.report(opened.error(), what);
  const Instant deadline = BootClock::now() + common.timeout;
  auto begun = rtcr::Status();
  do {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - BootClock::now());
    begun =
        session.client().request_migration(common.program_id, arguments.to ? to_string(*arguments.to) : "",
                                           std::clamp(left, std::chrono::milliseconds(0), kTurn));
    pollfd end{end_fd, POLLIN, 0};
    if (!begun.ok() && ::poll(&end, 1, 0) == 1)
      return session.report(rtcr::Error{RTCR_E_CANCELLED, "ended by a signal"}, what);
  } while (begun.status() == RTCR_E_TIMEOUT && BootClock::now() < deadline);
  if (begun.status() == RTCR_E_TIMEOUT) return session.report_timeout(what + ": not answered");
  if (!begun.ok()) return session.report(begun.error(), what);
  const bool printed =
      print_line(common.output == Output::kJson ? json_of_migration_begun(program, arguments.to)
                                                : "MIGRATION BEGUN  " + to_string(program));
  return printed ? kExitDone : kExitFailed;
}

}  // namespace cms::cli
