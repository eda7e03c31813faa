#include <cstdio>
#include <exception>
#include <variant>

#include "rtcr-client/cli/arguments.h"
#include "rtcr-client/cli/commands.h"
#include "rtcr-client/cli/terminal.h"

int main(int argc, char** argv) {
  try {
    const auto arguments = cms::cli::parse_arguments(argc, argv);
    if (const auto* exit = std::get_if<cms::cli::Exit>(&arguments)) return exit->code;
    if (const auto* ecu = std::get_if<cms::cli::EcuArguments>(&arguments)) return run_ecu(*ecu);
    const cms::cli::EndSignals signals;
    if (const auto* publish = std::get_if<cms::cli::PublishArguments>(&arguments)) {
      return run_publish(*publish, signals.fd());
    }
    if (const auto* get = std::get_if<cms::cli::GetArguments>(&arguments)) return run_get(*get, signals.fd());
    if (const auto* migration = std::get_if<cms::cli::RequestMigrationArguments>(&arguments))
      return run_request_migration(*migration, signals.fd());
    return run_withdraw(std::get<cms::cli::WithdrawArguments>(arguments), signals.fd());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "rtcr: %s\n", error.what());
    return cms::cli::kExitFailed;
  }
}
