#pragma once
// Scrubber reads stored checkpoints again, so that damage is found before somebody needs them: in the
// background at a bounded rate, of several cmsd each its own share; at full speed what an operator
// asks for; and at once what a reader has met. A blob is moved to quarantine when it was read as
// corrupt twice in a row, by separate openings; an unreachable store is no damage.
//
// Threads: one of its own, of low priority, does all reading; the methods are called by the loop and
// do not block, but for stop(). Callbacks run on the loop. Bounds: kScrubRunsMax runs,
// kScrubSuspectsMax suspects; one chunk in memory.
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/prng.h"
#include "cms/daemon/index_keeper.h"
#include "cms/daemon/scrub_facts.h"
#include "cms/daemon/worker.h"
#include "storage/blob_store.h"
#include "storage/checkpoint_index.h"

namespace cms::daemon {

inline constexpr std::size_t kScrubRunsMax = 8;  // Remembered, with those that wait.
inline constexpr std::size_t kScrubSuspectsMax = 256;

class Scrubber {
 public:
  struct Config {
    std::string cms_name;
    std::uint64_t rate_bytes_per_s = 0;  // Of the background; 0: none.
    // A round does not begin before so long after the one before: a small store is not read all day.
    Duration round_min = std::chrono::hours(24);
    std::uint64_t seed = 0;  // Of where the first round begins.
  };
  // True: it is damaged and has left its shard (or was not there any more); false: it reads well now.
  using Verdict = std::function<void(const Result<bool>& damaged, core::Effects& effects)>;

  Scrubber(Config config, storage::BlobStore& store, storage::CheckpointIndex& index, IndexKeeper& keeper,
           Outbox& outbox);
  ~Scrubber() { stop(); }
  void stop();

  // Nothing is read while the store is away.
  void on_store_state(bool usable);
  // Those that share the work now: the live ones, this one aside.
  void set_peers(std::set<std::string> names);
  // Somebody read `chunk` of it as corrupt, or could not open it (not given).
  void suspect(const storage::BlobName& name, std::optional<std::uint64_t> chunk, Verdict then);
  // Begins to read all checkpoints of a program, or of all, now. Returns its run; one over all that
  // is under way is joined. kLimit: too many wait.
  Result<ScrubRun> start_run(std::optional<ProgramKey> program, std::optional<Version> version);
  ScrubFacts facts() const;

 private:
  struct Suspicion {
    storage::BlobName name;
    std::optional<std::uint64_t> chunk;
    Verdict then;
  };
  struct Request {
    std::uint64_t id = 0;
    std::optional<ProgramKey> program;
    std::optional<Version> version;
  };
  enum class Pace { kBackground, kFull };
  enum class Outcome {
    kGood,
    kGone,  // Removed meanwhile.
    kCorrupt,
    kUnreadable,
    kUnsupported,
    kStoreAway,
    kInterrupted  // Something more urgent came, or the end.
  };
  struct Checked {
    Outcome outcome = Outcome::kGood;
    std::string reason;
    std::uint64_t bytes = 0;
    bool misread = false;
  };
  using Clock = std::chrono::steady_clock;

  void run();
  void serve_suspects();
  void serve_run(const Request& request);
  Status run_over_all(const Request& request);
  Status run_over_program(const Request& request);
  void background_step();
  void next_shard();
  void end_round();
  Checked check(const storage::BlobName& name, Pace pace);
  Status look_again(const storage::BlobName& name, std::optional<std::uint64_t> chunk);
  bool go_on(Pace pace, std::uint64_t bytes);
  bool is_mine(const ProgramKey& program) const;
  void note(const storage::BlobName& name, const Checked& checked, ScrubCounts& counts);
  void quarantine(const storage::BlobName& name, const std::string& why, Verdict then);
  template <typename Change>
  void change_run(std::uint64_t id, Change change);

  const Config config_;
  storage::BlobStore& store_;
  storage::CheckpointIndex& index_;
  IndexKeeper& keeper_;
  Outbox& outbox_;

  mutable std::mutex mutex_;  // Guards those up to facts_.
  std::condition_variable wake_;
  bool stopping_ = false;
  bool store_usable_ = false;
  std::set<std::string> peers_;
  std::deque<Suspicion> suspicions_;
  std::deque<Request> requests_;
  std::uint64_t last_id_ = 0;
  std::size_t moving_ = 0;  // To quarantine, and not there yet.
  ScrubFacts facts_;

  // The thread's:
  std::vector<std::uint8_t> buffer_;
  std::uint32_t shard_ = 0;                   // Listed next.
  std::deque<storage::BlobName> round_left_;  // Of the shard listed last.
  Clock::time_point next_read_at_{};
  Clock::time_point round_started_at_{};
  Clock::time_point next_round_at_{};
  bool round_running_ = false;
  Clock::time_point rate_since_{};
  std::uint64_t rate_bytes_ = 0;
  std::thread thread_;  // Last.
};

}  // namespace cms::daemon
