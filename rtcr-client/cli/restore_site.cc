#include "rtcr-client/cli/restore_site.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cerrno>
#include <cstdio>
#include <utility>
#include <vector>

#include "rtcr-client/cli/json_lines.h"
#include "rtcr-client/cli/restore_command.h"

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

}  // namespace

rtcr::Result<int> open_state(const std::string& file) {
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // A FIFO must not block.
  if (fd < 0) return error_of(errno, "open " + file);
  return fd;
}

RestoreSite::RestoreSite(const EcuArguments& arguments, Say say, Publish publish)
    : arguments_(arguments), say_(std::move(say)), publish_(std::move(publish)) {
  for (const auto& [program_id, file] : arguments.programs) {
    Program& program = programs_[program_id];
    program.facts.program_id = program_id;
    program.facts.on_isolation = static_cast<rtcr_on_isolation>(arguments.on_isolation);
    program.facts.on_loss = static_cast<rtcr_on_loss>(arguments.on_loss);
    program.file = file;
  }
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

rtcr::Source RestoreSite::source() {
  rtcr::Source source;
  source.freeze = [this](const rtcr::Move& move) { return freeze(move); };
  source.thaw = [this](const rtcr::Move& move) { thaw(move); };
  return source;
}

rtcr::LeaseHandler RestoreSite::lease_handler() {
  rtcr::LeaseHandler handler;
  handler.stop = [this](ProgramId program_id) { return stop(program_id); };
  handler.resume = [this](ProgramId program_id) { resume(program_id); };
  handler.boot_id = arguments_.boot_id;
  handler.enforcer = static_cast<rtcr_enforcer>(arguments_.enforcer);
  return handler;
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
    CommandFiles files;
    files.stdin_fd = restore.fd;
    status = run_restore_command(arguments_.restore_command, "prepare", variables_of(restore), files);
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
  std::vector<std::string> variables;
  rtcr::Status status;
  if (arguments_.restore_dir.empty()) {
    variables = variables_of(restore);
    add_new_program(restore, program_id, variables);
    status = run_restore_command(arguments_.restore_command, "go", variables, CommandFiles{});
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
  const rtcr::Facts facts = facts_of(restore, program_id);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    Program& program = programs_[program_id];
    program.facts = facts;
    program.file = file;
    program.variables = std::move(variables);
  }
  publish_first(facts, restore.fd, file);
  return program_id;
}

void RestoreSite::discard(const rtcr::Restore& restore) {
  if (arguments_.restore_dir.empty()) {
    const rtcr::Status status =
        run_restore_command(arguments_.restore_command, "discard", variables_of(restore), CommandFiles{});
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

rtcr::Facts RestoreSite::facts_of(const rtcr::Restore& restore, ProgramId program_id) {
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
  facts.tight = known.tight != 0;
  facts.release = static_cast<rtcr_release>(known.release_policy);
  facts.on_isolation = static_cast<rtcr_on_isolation>(known.on_isolation);
  facts.on_loss = static_cast<rtcr_on_loss>(known.on_loss);
  return facts;
}

// The new owner's first checkpoint is the state that it begins with. That it cannot be published does not
// keep it from running: until it has one, the CMS goes back to the one that was restored.
void RestoreSite::publish_first(const rtcr::Facts& facts, int fd, const std::string& file) {
  const auto seq = publish_(facts, fd);
  if (seq.ok()) {
    note_published(facts.program_id, seq.value());
    say_(json_of_published(arguments_.common.ecu_mac, facts.program_id, seq.value(), file));
  } else {
    say_(json_of_error(rtcr_error_string(seq.status()),
                       "publish " + std::to_string(facts.program_id) + ": " + seq.error().detail));
  }
}

// ---- moves

std::optional<RestoreSite::Program> RestoreSite::find(ProgramId program_id) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto it = programs_.find(program_id);
  if (it == programs_.end() || it->second.fenced) return std::nullopt;
  return it->second;
}

rtcr::Result<std::uint64_t> RestoreSite::freeze(const rtcr::Move& move) {
  const EcuMac ecu_mac = arguments_.common.ecu_mac;
  auto seq = publish_last(move);
  if (seq.ok()) {
    say_(json_of_frozen(ecu_mac, move, seq.value()));
  } else {
    say_(json_of_freeze_refused(ecu_mac, move, seq.error().detail));
  }
  return seq;
}

rtcr::Result<std::uint64_t> RestoreSite::publish_last(const rtcr::Move& move) {
  const auto program = find(move.program_id);
  if (!program)
    return rtcr::Error{RTCR_E_NOT_FOUND, "no program " + std::to_string(move.program_id) + " runs here"};
  auto fd = program->file.empty() ? run_freeze(*program) : open_state(program->file);
  if (!fd.ok()) return fd.error();
  auto seq = publish_(program->facts, fd.value());
  ::close(fd.value());
  if (!seq.ok()) {
    if (program->file.empty()) run_thaw(*program);
    return seq;
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto it = programs_.find(move.program_id);
    if (it != programs_.end() && it->second.first_seq == 0) it->second.first_seq = seq.value();
  }
  say_(json_of_published(arguments_.common.ecu_mac, move.program_id, seq.value(), program->file));
  return seq;
}

rtcr::Result<int> RestoreSite::run_freeze(const Program& program) const {
  const int fd = ::memfd_create("rtcr-freeze", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return error_of(errno, "memfd_create for a checkpoint");
  CommandFiles files;
  files.stdout_fd = fd;
  rtcr::Status status = run_restore_command(arguments_.restore_command, "freeze", program.variables, files);
  const bool stopped =
      status.ok();  // What fails from now on is refused all the same, and then it must run on.
  struct stat written {};
  if (status.ok() && ::fstat(fd, &written) != 0) status = error_of(errno, "look at a checkpoint");
  // A command that does not know the word must not lose the program's state.
  if (status.ok() && written.st_size == 0)
    status = rtcr::Error{RTCR_E_UNSUPPORTED, "'" + arguments_.restore_command + " freeze' printed nothing"};
  constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
  if (status.ok() && ::fcntl(fd, F_ADD_SEALS, kSeals) != 0) status = error_of(errno, "seal a checkpoint");
  if (status.ok()) return fd;
  ::close(fd);
  if (stopped) run_thaw(program);
  return status.error();
}

void RestoreSite::run_thaw(const Program& program) const {
  const rtcr::Status status =
      run_restore_command(arguments_.restore_command, "thaw", program.variables, CommandFiles{});
  if (!status.ok()) say_(json_of_error(rtcr_error_string(status.status()), status.error().detail));
}

void RestoreSite::thaw(const rtcr::Move& move) {
  const auto program = find(move.program_id);
  if (program && program->file.empty()) run_thaw(*program);
  say_(json_of_thawed(arguments_.common.ecu_mac, move));
}

// ---- the run lease

rtcr::Status RestoreSite::stop(ProgramId program_id) const {
  const auto program = find(program_id);
  if (program && program->file.empty()) {
    const rtcr::Status status =
        run_restore_command(arguments_.restore_command, "stop", program->variables, CommandFiles{});
    if (!status.ok()) {
      say_(json_of_stop_failed(arguments_.common.ecu_mac, program_id, status.error().detail));
      return status;
    }
  }
  say_(json_of_stopped(arguments_.common.ecu_mac, program_id));
  return rtcr::Status();
}

void RestoreSite::resume(ProgramId program_id) const {
  const auto program = find(program_id);
  if (!program) return;  // It was fenced just now.
  if (program->file.empty()) {
    const rtcr::Status status =
        run_restore_command(arguments_.restore_command, "resume", program->variables, CommandFiles{});
    if (!status.ok()) say_(json_of_error(rtcr_error_string(status.status()), status.error().detail));
  }
  say_(json_of_resumed(arguments_.common.ecu_mac, program_id));
}

}  // namespace cms::cli
