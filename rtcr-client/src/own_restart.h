#pragma once
// OwnRestart hands the newest checkpoint of one of the RTCR's own programs, which a CMS restores here because the RTCR
// has asked for it, over to the thread that waits for it.
//
// Threads: take() on the one that asked; the rest on those of the Restorer and of the client.
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>

#include "base/ids.h"
#include "base/result.h"
#include "base/time.h"
#include "rtcr-client/src/fetch.h"

namespace cms::client {

struct RestoreJob;

class OwnRestart {
 public:
  OwnRestart() = default;
  OwnRestart(const OwnRestart&) = delete;
  OwnRestart& operator=(const OwnRestart&) = delete;

  // Bytes have come.
  void note_progress();
  // All of it is here, and it is to go on here. Blocks until take() has given it to its sink: the program is the
  // RTCR's from then on. An error, the sink's or kCancelled (nobody waits any more): it does not go on.
  Result<ProgramId> hand_over(const RestoreJob& job, ProgramId program_id);
  // That answer has been passed on: take() returns.
  void note_answered();

  // Waits for hand_over() and gives the bytes to `sink`. kTimeout: no progress for `patience` (negative: for ever);
  // its context ends with `why_late` then. kCancelled: give_up() was called. Once; afterwards nobody waits any more.
  Result<FetchedBlob> take(std::chrono::milliseconds patience, const std::string& why_late,
                           const FetchSink& sink);
  // Nobody will take it, unless that is under way.
  void give_up();

 private:
  std::mutex mutex_{};  // Guards what follows.
  std::condition_variable changed_{};
  Instant progress_at_ = BootClock::now();
  const RestoreJob* job_ = nullptr;  // Handed over and not taken yet.
  bool taking_ = false;              // The bytes are being given to the sink.
  bool over_ = false;                // Nobody waits any more.
  Status taken_ = ok_status();       // While over: how that went.
  bool answered_ = false;
};

}  // namespace cms::client
