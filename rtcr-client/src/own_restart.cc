#include "rtcr-client/src/own_restart.h"

#include <sys/mman.h>
#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>
#include <vector>

#include "base/digest.h"
#include "rtcr-client/src/restorer.h"

namespace cms::client {
namespace {

// Chunk by chunk, as a fetch gives them.
Result<FetchedBlob> give(const RestoreJob& job, const FetchSink& sink) {
  const wire::Notification& notification = job.info.notification;
  FetchedBlob blob;
  blob.checkpoint.program = ProgramKey{job.info.session.ecu_mac, notification.program_id};
  blob.checkpoint.version = Version{job.info.session.incarnation, notification.seq};
  blob.size_bytes = notification.size_bytes;
  blob.cms_index = job.info.cms;
  void* bytes = nullptr;
  if (blob.size_bytes > 0) {
    bytes = ::mmap(nullptr, blob.size_bytes, PROT_READ, MAP_SHARED, job.fd, 0);
    if (bytes == MAP_FAILED) return error_from_errno(errno, "map a blob that was restored");
  }
  Status given = ok_status();
  std::vector<Digest> digests;
  std::uint64_t offset_bytes = 0;
  do {
    FetchedBytes piece;
    piece.checkpoint = blob.checkpoint;
    piece.blob_size_bytes = blob.size_bytes;
    piece.offset_bytes = offset_bytes;
    piece.data = static_cast<const char*>(bytes) + offset_bytes;
    piece.size_bytes = std::min<std::uint64_t>(notification.chunk_size_bytes, blob.size_bytes - offset_bytes);
    digests.push_back(digest_of(piece.data, piece.size_bytes));
    given = sink(piece);
    offset_bytes += piece.size_bytes;
  } while (given.ok() && offset_bytes < blob.size_bytes);
  if (bytes != nullptr) ::munmap(bytes, blob.size_bytes);
  if (!given.ok()) return std::move(given).error();
  blob.digest = blob_digest_of(digests);
  return blob;
}

}  // namespace

void OwnRestart::note_progress() {
  const std::lock_guard<std::mutex> lock(mutex_);
  progress_at_ = BootClock::now();
}

Result<ProgramId> OwnRestart::hand_over(const RestoreJob& job, ProgramId program_id) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (over_) return make_error(Code::kCancelled, "nobody waits for it any more");
  job_ = &job;
  changed_.notify_all();
  changed_.wait(lock, [this] { return over_; });
  if (!taken_.ok()) return taken_.error();
  return program_id;
}

Result<FetchedBlob> OwnRestart::take(std::chrono::milliseconds patience, const std::string& why_late,
                                     const FetchSink& sink) {
  const RestoreJob* job = nullptr;
  {
    std::unique_lock<std::mutex> lock(mutex_);
    progress_at_ = BootClock::now();
    while (job_ == nullptr) {
      if (over_) return taken_.error();
      if (patience.count() < 0) {
        changed_.wait(lock);
        continue;
      }
      const Instant until = progress_at_ + patience;
      const Instant now = BootClock::now();
      if (now >= until) {
        over_ = true;
        taken_ = make_error(Code::kCancelled, "nobody waits for it any more");
        return make_error(Code::kTimeout, "no progress for " + std::to_string(patience.count()) + " ms" +
                                              (why_late.empty() ? "" : ": " + why_late));
      }
      changed_.wait_for(lock, until - now);
    }
    job = job_;
    taking_ = true;
  }
  // Outside the lock: hand_over() keeps the job alive, and waits: want of memory must not leave it waiting.
  Result<FetchedBlob> blob = called<Result<FetchedBlob>>([&] { return give(*job, sink); });
  std::unique_lock<std::mutex> lock(mutex_);
  over_ = true;
  taken_ = blob.ok() ? ok_status() : Status(blob.error());
  changed_.notify_all();
  // What is published next is the restored program's, and comes after this.
  changed_.wait(lock, [this] { return answered_; });
  return blob;
}

void OwnRestart::note_answered() {
  const std::lock_guard<std::mutex> lock(mutex_);
  answered_ = true;
  changed_.notify_all();
}

void OwnRestart::give_up() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (taking_) return;
  over_ = true;
  taken_ = make_error(Code::kCancelled, "nobody waits for it any more");
  changed_.notify_all();
}

}  // namespace cms::client
