#include "rtcr-client/cli/restore_command.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <mutex>

#include "base/result.h"

namespace cms::cli {
namespace {

rtcr::Error error_of(int os_errno, const std::string& what) {
  const Error error = error_from_errno(os_errno, what);
  return rtcr::Error{static_cast<int>(error.code), error.message()};
}

std::string lineage_text(const rtcr::Lineage& lineage) {
  std::string text;
  for (const std::uint8_t octet : lineage) {
    char digits[3];
    std::snprintf(digits, sizeof(digits), "%02x", octet);
    text += digits;
  }
  return text;
}

std::mutex commands_mutex;  // Guards the next two.
std::set<pid_t> commands;
bool commands_ended = false;

// Ours, and what it is about.
std::vector<char*> environment_with(std::vector<std::string>& variables) {
  std::vector<char*> result;
  for (char** variable = environ; *variable != nullptr; ++variable) result.push_back(*variable);
  for (std::string& text : variables) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

}  // namespace

std::vector<std::string> variables_of(const rtcr::Restore& restore) {
  std::vector<std::string> variables{
      "RESTORE_ID=" + std::to_string(restore.restore_id),
      "RESTORE_ECU_MAC=" + restore.ecu_mac,
      "RESTORE_PROGRAM_ID=" + std::to_string(restore.program_id),
      "RESTORE_INCARNATION=" + std::to_string(restore.incarnation),
      "RESTORE_SEQ=" + std::to_string(restore.seq),
      "RESTORE_SIZE_BYTES=" + std::to_string(restore.size_bytes),
      "RESTORE_LINEAGE=" + lineage_text(restore.lineage),
  };
  if (restore.checkpoint->program_name != nullptr)
    variables.push_back(std::string("RESTORE_PROGRAM_NAME=") + restore.checkpoint->program_name);
  return variables;
}

void add_new_program(const rtcr::Restore& restore, ProgramId program_id,
                     std::vector<std::string>& variables) {
  variables.push_back("RESTORE_OWNER_EPOCH=" + std::to_string(restore.owner_epoch));
  variables.push_back("RESTORE_NEW_PROGRAM_ID=" + std::to_string(program_id));
}

std::set<pid_t> running_commands() {
  const std::lock_guard<std::mutex> lock(commands_mutex);
  return commands;
}

void end_commands() {
  const std::lock_guard<std::mutex> lock(commands_mutex);
  commands_ended = true;
}

rtcr::Status run_restore_command(const std::string& command, const char* verb,
                                 const std::vector<std::string>& variables, const CommandFiles& files) {
  std::string shell = "sh";
  std::string flag = "-c";
  std::string text = command + " \"$@\"";
  std::string word = verb;
  char* const words[] = {shell.data(), flag.data(), text.data(), shell.data(), word.data(), nullptr};
  std::vector<std::string> texts = variables;  // posix_spawn asks for what can be written.
  const std::vector<char*> environment = environment_with(texts);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  if (files.stdin_fd >= 0) {
    (void)::lseek(files.stdin_fd, 0, SEEK_SET);
    posix_spawn_file_actions_adddup2(&actions, files.stdin_fd, STDIN_FILENO);
  } else {
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  }
  // Our own standard output carries events.
  const int stdout_fd = files.stdout_fd >= 0 ? files.stdout_fd : STDERR_FILENO;
  posix_spawn_file_actions_adddup2(&actions, stdout_fd, STDOUT_FILENO);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigset_t pipe;
  sigemptyset(&none);
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &pipe);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  pid_t child = -1;
  int failure = 0;
  {
    // Whoever looks for children that nobody waits for does not meet it before it is known.
    const std::lock_guard<std::mutex> lock(commands_mutex);
    failure = commands_ended
                  ? ECANCELED
                  : ::posix_spawn(&child, "/bin/sh", &actions, &attributes, words, environment.data());
    if (failure == 0) commands.insert(child);
  }
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  const std::string what = "'" + command + " " + verb + "'";
  if (failure != 0) return error_of(failure, "run " + what);
  int ended = 0;
  int wait_errno = 0;
  while (::waitpid(child, &ended, 0) < 0 && wait_errno == 0) {
    if (errno != EINTR) wait_errno = errno;
  }
  {
    const std::lock_guard<std::mutex> lock(commands_mutex);
    commands.erase(child);
  }
  if (wait_errno != 0) return error_of(wait_errno, "wait for " + what);
  if (WIFEXITED(ended) && WEXITSTATUS(ended) == 0) return rtcr::Status();
  return rtcr::Error{RTCR_E_IO,
                     what + (WIFEXITED(ended) ? " ended with exit code " + std::to_string(WEXITSTATUS(ended))
                                              : " was ended by signal " + std::to_string(WTERMSIG(ended)))};
}

}  // namespace cms::cli
