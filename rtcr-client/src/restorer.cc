#include "rtcr-client/src/restorer.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <utility>

namespace cms::client {

using broker::RestoreId;

Restorer::Work::~Work() {
  if (job.fd >= 0) ::close(job.fd);
  if (!job.path.empty()) ::unlink(job.path.c_str());
}

Restorer::~Restorer() {
  threads_.finish();
  // What was being prepared when the loop ended: nobody will say Go.
  for (auto& [id, work] : works_) do_discard(*work);
}

// ---- on the client's thread

Restorer::WorkPtr Restorer::find(RestoreId id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto it = works_.find(id);
  CMS_ASSERT(it != works_.end());
  return it->second;
}

Status Restorer::expect(ProgramId program_id, const std::shared_ptr<OwnRestart>& restart) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (expected_.emplace(program_id, restart).second) return ok_status();
  return make_error(Code::kAlreadyExists,
                    "another call waits for program " + std::to_string(program_id) + " already");
}

void Restorer::forget(ProgramId program_id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  expected_.erase(program_id);
}

void Restorer::give_up() {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& [program_id, restart] : expected_) restart->give_up();
}

Status Restorer::receive(RestoreId id, const broker::RestoreInfo& info) {
  auto work = std::make_shared<Work>();
  work->job.id = id;
  work->job.info = info;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    works_[id] = work;
    if (info.restarts) {
      const auto expected = expected_.find(*info.restarts);
      if (expected == expected_.end())
        return make_error(Code::kCancelled,
                          "nobody waits for program " + std::to_string(*info.restarts) + " any more");
      work->own = expected->second;
    }
  }
  if (work->own == nullptr && !options_.prepare)
    return make_error(Code::kUnsupported, "no program is restored here but what its RTCR asks for");
  if (options_.folder.empty()) {
    work->job.fd = ::memfd_create("rtcr-restore", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (work->job.fd < 0) return error_from_errno(errno, "memfd_create for a blob to restore");
    return ok_status();
  }
  std::string path = options_.folder + "/.rtcr-restore-XXXXXX";
  work->job.fd = ::mkostemp(path.data(), O_CLOEXEC);
  if (work->job.fd < 0) return error_from_errno(errno, "create a file in " + options_.folder);
  work->job.path = path;
  return ok_status();
}

Status Restorer::take(RestoreId id, std::uint64_t offset_bytes, const void* data, std::size_t size_bytes) {
  const WorkPtr work = find(id);
  if (work->own != nullptr) work->own->note_progress();
  const char* at = static_cast<const char*>(data);
  while (size_bytes > 0 && work->received.ok()) {
    const ssize_t count = ::pwrite(work->job.fd, at, size_bytes, static_cast<off_t>(offset_bytes));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      work->received = error_from_errno(errno, "write of a blob to restore");
      break;
    }
    at += count;
    offset_bytes += static_cast<std::uint64_t>(count);
    size_bytes -= static_cast<std::size_t>(count);
  }
  return work->received;
}

void Restorer::prepare(RestoreId id) {
  threads_.run_soon([this, work = find(id)] { do_prepare(*work); });
}

void Restorer::go(RestoreId id, OwnerEpoch owner_epoch) {
  threads_.run_soon([this, owner_epoch, work = find(id)] {
    work->job.owner_epoch = owner_epoch;
    do_go(*work);
    const std::lock_guard<std::mutex> lock(mutex_);
    works_.erase(work->job.id);
  });
}

void Restorer::discard(RestoreId id) {
  WorkPtr work = find(id);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    works_.erase(id);
  }
  // Also the bytes go on that thread: giving gigabytes back takes long.
  threads_.run_soon([this, work = std::move(work)] { do_discard(*work); });
}

void Restorer::complete_metrics(wire::Metrics& metrics) {
  if (!options_.arch.empty()) metrics.arch = options_.arch;
  metrics.formats = options_.formats;
  metrics.labels = options_.labels;
  if (!options_.on_metrics) return;
  const CallbackScope scope;
  options_.on_metrics(metrics);
  metrics.cpu_load_permille = std::min(metrics.cpu_load_permille, wire::kCpuLoadPermilleMax);
  metrics.ram_available_bytes = std::min(metrics.ram_available_bytes, metrics.ram_total_bytes);
}

// ---- on threads of its own

void Restorer::do_prepare(Work& work) {
  Status status = work.received;
  constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
  if (status.ok() && work.job.path.empty() && ::fcntl(work.job.fd, F_ADD_SEALS, kSeals) != 0)
    status = error_from_errno(errno, "seal a blob to restore");
  if (status.ok() && work.own == nullptr) {
    status = called<Status>([&] { return options_.prepare(work.job); });
    work.restored = status.ok();
  }
  answers_.on_prepared(work.job.id, status);
}

void Restorer::do_go(Work& work) {
  const Status ready = answers_.before_go(work.job);
  if (!ready.ok()) {
    do_discard(work);
    answers_.on_running(work.job, ready.error());
    return;
  }
  work.restored = false;
  if (work.own != nullptr) return do_hand_over(work);
  answers_.on_running(work.job, called<Result<ProgramId>>([&] { return options_.go(work.job); }));
}

void Restorer::do_hand_over(Work& work) {
  const std::shared_ptr<OwnRestart> own = work.own;
  const auto note_answered = [](OwnRestart* restart) { restart->note_answered(); };
  const std::unique_ptr<OwnRestart, decltype(note_answered)> answered(own.get(), note_answered);
  answers_.on_running(work.job, own->hand_over(work.job, *work.job.info.restarts));
}

void Restorer::do_discard(Work& work) {
  if (!std::exchange(work.restored, false) || !options_.discard) return;
  const CallbackScope scope;
  options_.discard(work.job);
}

}  // namespace cms::client
