#include "rtcr-client/cli/restore_site.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

#include "base/assert.h"
#include "rtcr-client/cli/json_lines.h"

namespace cms::cli {
namespace {

rtcr::Error error_of(int os_errno, const std::string& what) {
  const Error error = error_from_errno(os_errno, what);
  return rtcr::Error{static_cast<int>(error.code), error.message()};
}

rtcr::Status sync_folder(const std::string& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return error_of(errno, "open " + folder);
  const int failure = ::fsync(fd) == 0 ? 0 : errno;
  ::close(fd);
  if (failure != 0) return error_of(failure, "sync " + folder);
  return rtcr::Status();
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

// The environment of a command: ours, and what it is about.
class Environment {
 public:
  Environment() {
    for (char** variable = environ; *variable != nullptr; ++variable) texts_.emplace_back(*variable);
  }
  void set(const std::string& name, const std::string& value) { texts_.push_back(name + "=" + value); }
  std::vector<char*> pointers() {
    std::vector<char*> result;
    for (std::string& text : texts_) result.push_back(text.data());
    result.push_back(nullptr);
    return result;
  }

 private:
  std::vector<std::string> texts_{};
};

}  // namespace

RestoreSite::RestoreSite(const EcuArguments& arguments, Say say, Publish publish)
    : arguments_(arguments), say_(std::move(say)), publish_(std::move(publish)) {
  for (const auto& [program_id, file] : arguments.programs) programs_[program_id] = Program{};
}

rtcr::Target RestoreSite::target() {
  rtcr::Target target;
  target.prepare = [this](const rtcr::Restore& restore) { return prepare(restore); };
  target.go = [this](const rtcr::Restore& restore) { return go(restore); };
  target.discard = [this](const rtcr::Restore& restore) { discard(restore); };
  target.folder = arguments_.restore_dir;
  target.arch = arguments_.arch;
  target.labels = arguments_.labels;
  target.formats = arguments_.formats;
  return target;
}

// ---- program_ids

void RestoreSite::note_published(ProgramId program_id, std::uint64_t seq) {
  const std::lock_guard<std::mutex> lock(mutex_);
  Program& program = programs_[program_id];
  if (program.first_seq == 0) program.first_seq = seq;
}

bool RestoreSite::on_fenced(ProgramId program_id, std::uint64_t seq) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto it = programs_.find(program_id);
  // One that had the program_id before?
  if (it == programs_.end() || it->second.first_seq == 0 || seq < it->second.first_seq) return false;
  if (std::exchange(it->second.fenced, true)) return false;
  // Those of the command line keep theirs.
  if (it->second.restored) programs_.erase(it);
  return true;
}

ProgramId RestoreSite::take_program_id() {
  const std::lock_guard<std::mutex> lock(mutex_);
  ProgramId program_id = 0;
  for (const auto& [taken, program] : programs_) {  // In order.
    if (taken != program_id) break;
    ++program_id;
  }
  programs_[program_id].restored = true;
  return program_id;
}

void RestoreSite::give_back(ProgramId program_id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  programs_.erase(program_id);
}

// ---- the steps

rtcr::Status RestoreSite::prepare(const rtcr::Restore& restore) {
  say_(json_of_restore("prepare", restore));
  rtcr::Status status;
  if (arguments_.restore_dir.empty()) {
    status = run_command("prepare", restore, nullptr, restore.fd);
  } else if (::fsync(restore.fd) != 0) {
    status = error_of(errno, "sync " + restore.path);
  }
  say_(status.ok() ? json_of_restore("prepared", restore)
                   : json_of_restore_refused(restore, status.error().detail));
  return status;
}

rtcr::Result<std::uint64_t> RestoreSite::go(const rtcr::Restore& restore) {
  const ProgramId program_id = take_program_id();
  std::string file;
  rtcr::Status status;
  if (arguments_.restore_dir.empty()) {
    status = run_command("go", restore, &program_id, -1);
  } else if (auto shown = show(restore, program_id); shown.ok()) {
    file = shown.value();
  } else {
    status = shown.error();
  }
  if (!status.ok()) {
    give_back(program_id);
    say_(json_of_restore_refused(restore, status.error().detail));
    return status.error();
  }
  say_(json_of_running(restore, program_id, file));
  publish_first(restore, program_id, file);
  return program_id;
}

void RestoreSite::discard(const rtcr::Restore& restore) {
  if (arguments_.restore_dir.empty()) {
    const rtcr::Status status = run_command("discard", restore, nullptr, -1);
    if (!status.ok()) say_(json_of_error(rtcr_error_string(status.status()), status.error().detail));
  }
  say_(json_of_restore("discarded", restore));
}

rtcr::Result<std::string> RestoreSite::show(const rtcr::Restore& restore, ProgramId program_id) const {
  const std::string& folder = arguments_.restore_dir;
  const std::string file = folder + "/" + std::to_string(program_id) + "-" + restore.ecu_mac + "-" +
                           std::to_string(restore.program_id);
  if (::rename(restore.path.c_str(), file.c_str()) != 0) return error_of(errno, "rename to " + file);
  if (const rtcr::Status synced = sync_folder(folder); !synced.ok()) {
    // It must not run when we say that it does not.
    if (::unlink(file.c_str()) != 0) std::fprintf(stderr, "rtcr: cannot remove %s\n", file.c_str());
    return synced.error();
  }
  return file;
}

// The new owner's first checkpoint is the state that it begins with. That it cannot be published does not
// keep it from running: until it has one, the CMS goes back to the one that was restored.
void RestoreSite::publish_first(const rtcr::Restore& restore, ProgramId program_id, const std::string& file) {
  const rtcr_checkpoint& known = *restore.checkpoint;
  rtcr::Facts facts;
  const auto text = [](const char* given) { return given == nullptr ? std::string() : std::string(given); };
  facts.program_id = program_id;
  facts.lineage = restore.lineage;
  facts.owner_epoch = restore.owner_epoch;
  facts.program_name = text(known.program_name);
  facts.chunk_size_bytes = known.chunk_size_bytes;
  facts.arch = text(known.arch);
  facts.os = text(known.os);
  facts.checkpoint_format = text(known.checkpoint_format);
  facts.format_version = known.format_version;
  facts.ram_bytes = known.ram_bytes;
  for (std::uint32_t i = 0; i < known.label_count; ++i) facts.labels.emplace_back(known.labels[i]);
  facts.priority = known.priority;
  facts.period_us = known.period_us;
  facts.deadline_us = known.deadline_us;
  facts.wcet_us = known.wcet_us;
  facts.release = static_cast<rtcr_release>(known.release_policy);
  facts.on_isolation = static_cast<rtcr_on_isolation>(known.on_isolation);
  facts.on_loss = static_cast<rtcr_on_loss>(known.on_loss);
  const auto seq = publish_(facts, restore.fd);
  if (seq.ok()) {
    note_published(program_id, seq.value());
    say_(json_of_published(arguments_.common.ecu_mac, program_id, seq.value(), file));
  } else {
    say_(json_of_error(rtcr_error_string(seq.status()),
                       "publish " + std::to_string(program_id) + ": " + seq.error().detail));
  }
}

rtcr::Status RestoreSite::run_command(const char* verb, const rtcr::Restore& restore,
                                      const ProgramId* program_id, int stdin_fd) const {
  Environment environment;
  environment.set("RESTORE_ID", std::to_string(restore.restore_id));
  environment.set("RESTORE_ECU_MAC", restore.ecu_mac);
  environment.set("RESTORE_PROGRAM_ID", std::to_string(restore.program_id));
  environment.set("RESTORE_INCARNATION", std::to_string(restore.incarnation));
  environment.set("RESTORE_SEQ", std::to_string(restore.seq));
  environment.set("RESTORE_SIZE_BYTES", std::to_string(restore.size_bytes));
  environment.set("RESTORE_LINEAGE", lineage_text(restore.lineage));
  if (restore.checkpoint->program_name != nullptr)
    environment.set("RESTORE_PROGRAM_NAME", restore.checkpoint->program_name);
  if (program_id != nullptr) {
    environment.set("RESTORE_OWNER_EPOCH", std::to_string(restore.owner_epoch));
    environment.set("RESTORE_NEW_PROGRAM_ID", std::to_string(*program_id));
  }
  std::string shell = "sh";
  std::string flag = "-c";
  std::string text = arguments_.restore_command + " \"$@\"";
  std::string word = verb;
  char* const command[] = {shell.data(), flag.data(), text.data(), shell.data(), word.data(), nullptr};

  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  if (stdin_fd >= 0) {
    (void)::lseek(stdin_fd, 0, SEEK_SET);
    posix_spawn_file_actions_adddup2(&files, stdin_fd, STDIN_FILENO);
  } else {
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  }
  posix_spawn_file_actions_adddup2(&files, STDERR_FILENO, STDOUT_FILENO);  // Ours carries events.
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
  const int failure =
      ::posix_spawn(&child, "/bin/sh", &files, &attributes, command, environment.pointers().data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  const std::string what = "'" + arguments_.restore_command + " " + verb + "'";
  if (failure != 0) return error_of(failure, "run " + what);
  int ended = 0;
  while (::waitpid(child, &ended, 0) < 0) {
    if (errno != EINTR) return error_of(errno, "wait for " + what);
  }
  if (WIFEXITED(ended) && WEXITSTATUS(ended) == 0) return rtcr::Status();
  return rtcr::Error{RTCR_E_IO,
                     what + (WIFEXITED(ended) ? " ended with exit code " + std::to_string(WEXITSTATUS(ended))
                                              : " was ended by signal " + std::to_string(WTERMSIG(ended)))};
}

}  // namespace cms::cli
