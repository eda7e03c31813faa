#pragma once
// The command of `rtcr ecu --restore-command`: run by sh with a last word more that says what to do, and with
// variables in its environment that say what it is about.
//
// Threads: any, several at once. Calls block until the command has ended.
#include <sys/types.h>
#include <set>
#include <string>
#include <vector>

#include "base/ids.h"
#include "rtcr/rtcr.hpp"

namespace cms::cli {

// "RESTORE_ID=1" and so on.
std::vector<std::string> variables_of(const rtcr::Restore& restore);
// What it is here, known from go on.
void add_new_program(const rtcr::Restore& restore, ProgramId program_id, std::vector<std::string>& variables);

struct CommandFiles {
  int stdin_fd = -1;   // Read from its beginning. -1: there is nothing to read.
  int stdout_fd = -1;  // -1: what it prints goes to standard error.
};

// Those that run and are waited for here.
std::set<pid_t> running_commands();

// From now on none is begun.
void end_commands();

// An Error says what it ended with, unless that was 0.
rtcr::Status run_restore_command(const std::string& command, const char* verb,
                                 const std::vector<std::string>& variables, const CommandFiles& files);

}  // namespace cms::cli
