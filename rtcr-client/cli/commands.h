#pragma once
// The commands; each returns the exit code and has printed what there is to say. `end_fd` becomes
// readable when the command is to end early.
#include "rtcr-client/cli/arguments.h"

namespace cms::cli {

int run_publish(const PublishArguments& arguments, int end_fd);
int run_get(const GetArguments& arguments, int end_fd);
int run_withdraw(const WithdrawArguments& arguments, int end_fd);
int run_request_migration(const RequestMigrationArguments& arguments, int end_fd);
// With a guard of its own where that is asked for; it waits for signals itself.
int run_ecu(const EcuArguments& arguments);

}  // namespace cms::cli
