#include "cms/daemon/scrubber.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "cms/core/peers.h"

namespace cms::daemon {

using storage::BlobName;
using storage::EntryKind;

namespace {

// What listing a shard counts for, so that an empty store is not listed all the time.
constexpr std::uint64_t kListingBytes = 64 * 1024;
constexpr std::chrono::seconds kRateSpan{2};
constexpr std::chrono::seconds kStoreAwayPause{5};

// Others' reading and computing goes first.
void lower_priority() {
  const auto thread = static_cast<id_t>(::syscall(SYS_gettid));
  (void)::setpriority(PRIO_PROCESS, thread, 10);
  constexpr int kWhoProcess = 1;          // IOPRIO_WHO_PROCESS
  constexpr int kLowest = (2 << 13) | 7;  // IOPRIO_CLASS_BE, its lowest level
  (void)::syscall(SYS_ioprio_set, kWhoProcess, thread, kLowest);
}

bool is_store_away(Code code) {
  return code == Code::kUnavailable || code == Code::kTimeout || code == Code::kForeign;
}

void remember(std::vector<ScrubFound>& list, ScrubFound found) {
  if (list.size() == kScrubFoundMax) list.erase(list.begin());
  list.push_back(std::move(found));
}

void add(ScrubCounts& counts, const ScrubCounts& more) {
  counts.checkpoints += more.checkpoints;
  counts.bytes += more.bytes;
  counts.corrupt += more.corrupt;
  counts.misread += more.misread;
  counts.unreadable += more.unreadable;
  counts.unsupported += more.unsupported;
}

}  // namespace

Scrubber::Scrubber(Config config, storage::BlobStore& store, storage::CheckpointIndex& index,
                   IndexKeeper& keeper, Outbox& outbox)
    : config_(std::move(config)), store_(store), index_(index), keeper_(keeper), outbox_(outbox) {
  facts_.rate_bytes_per_s = config_.rate_bytes_per_s;
  facts_.waits_for_store = true;
  // Where the last round of the process before stood is not kept: anywhere, so that all come to be read.
  Prng prng(config_.seed);
  shard_ = static_cast<std::uint32_t>(prng.below(storage::kShardCount));
  thread_ = std::thread([this] { run(); });
  pthread_setname_np(thread_.native_handle(), "scrub");
}

void Scrubber::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Scrubber::on_store_state(bool usable) {
  {
    const std::lock_guard lock(mutex_);
    store_usable_ = usable;
    facts_.waits_for_store = !usable;
  }
  wake_.notify_all();
}

void Scrubber::set_peers(std::set<std::string> names) {
  const std::lock_guard lock(mutex_);
  peers_ = std::move(names);
}

ScrubFacts Scrubber::facts() const {
  const std::lock_guard lock(mutex_);
  return facts_;
}

void Scrubber::suspect(const BlobName& name, std::optional<std::uint64_t> chunk, Verdict then) {
  bool full = false;
  {
    const std::lock_guard lock(mutex_);
    full = suspicions_.size() >= kScrubSuspectsMax;
    if (!full) suspicions_.push_back(Suspicion{name, chunk, std::move(then)});
  }
  if (full) {
    outbox_.push([then = std::move(then)](Instant, core::Effects& effects) {
      then(make_error(Code::kLimit, "too many damaged checkpoints wait to be looked at"), effects);
    });
  }
  wake_.notify_all();
}

Result<ScrubRun> Scrubber::start_run(std::optional<ProgramKey> program, std::optional<Version> version) {
  const std::lock_guard lock(mutex_);
  if (!program) {
    for (const ScrubRun& run : facts_.runs) {
      if (run.what == "all" &&
          (run.state == ScrubRun::State::kWaiting || run.state == ScrubRun::State::kRunning))
        return run;
    }
  }
  if (facts_.runs.size() == kScrubRunsMax) {
    const auto over = std::find_if(facts_.runs.begin(), facts_.runs.end(), [](const ScrubRun& run) {
      return run.state == ScrubRun::State::kDone || run.state == ScrubRun::State::kBrokenOff;
    });
    if (over == facts_.runs.end()) {
      return make_error(Code::kLimit, std::to_string(kScrubRunsMax) + " scrubs wait or run already");
    }
    facts_.runs.erase(over);
  }
  ScrubRun run;
  run.id = ++last_id_;
  run.what = !program ? "all" : version ? to_string(CheckpointId{*program, *version}) : to_string(*program);
  facts_.runs.push_back(run);
  requests_.push_back(Request{run.id, program, version});
  wake_.notify_all();
  return run;
}

template <typename Change>
void Scrubber::change_run(std::uint64_t id, Change change) {
  const std::lock_guard lock(mutex_);
  for (ScrubRun& run : facts_.runs) {
    if (run.id == id) change(run);
  }
}

// ---- the thread

void Scrubber::run() {
  lower_priority();
  while (true) {
    std::optional<Request> request;
    bool background = false;
    {
      std::unique_lock lock(mutex_);
      while (true) {
        if (stopping_) return;
        if (!suspicions_.empty() || (!requests_.empty() && store_usable_)) break;
        if (config_.rate_bytes_per_s == 0 || !store_usable_) {
          wake_.wait(lock);
          continue;
        }
        const Clock::time_point due = round_running_ ? next_read_at_ : next_round_at_;
        facts_.resting = !round_running_ && Clock::now() < due;
        background = Clock::now() >= due;
        if (background) break;
        wake_.wait_until(lock, due);
      }
      if (suspicions_.empty() && !requests_.empty() && store_usable_) {
        request = std::move(requests_.front());
        requests_.pop_front();
      }
    }
    serve_suspects();
    if (request) {
      serve_run(*request);
    } else if (background) {
      background_step();
    }
  }
}

// May the reading that goes on read more? Waits as long as the rate wants it to.
bool Scrubber::go_on(Pace pace, std::uint64_t bytes) {
  serve_suspects();
  std::unique_lock lock(mutex_);
  if (pace == Pace::kFull) return !stopping_ && store_usable_;
  const Clock::time_point now = Clock::now();
  next_read_at_ = std::max(next_read_at_, now) +
                  std::chrono::nanoseconds(static_cast<std::int64_t>(
                      1e9 * static_cast<double>(bytes) / static_cast<double>(config_.rate_bytes_per_s)));
  rate_bytes_ += bytes;
  if (now - rate_since_ >= kRateSpan) {
    facts_.bytes_per_s = static_cast<std::uint64_t>(static_cast<double>(rate_bytes_) /
                                                    std::chrono::duration<double>(now - rate_since_).count());
    rate_since_ = now;
    rate_bytes_ = 0;
  }
  while (Clock::now() < next_read_at_) {
    if (stopping_ || !requests_.empty() || !store_usable_) return false;
    if (!suspicions_.empty()) {
      lock.unlock();
      serve_suspects();
      lock.lock();
      continue;
    }
    wake_.wait_until(lock, next_read_at_);
  }
  return !stopping_ && requests_.empty() && store_usable_;
}

void Scrubber::serve_suspects() {
  while (true) {
    Suspicion suspicion;
    {
      const std::lock_guard lock(mutex_);
      if (suspicions_.empty() || stopping_) return;
      suspicion = std::move(suspicions_.front());
      suspicions_.pop_front();
    }
    const Status second = look_again(suspicion.name, suspicion.chunk);
    if (second.code() == Code::kCorrupt) {
      Checked checked;
      checked.outcome = Outcome::kCorrupt;
      checked.reason = second.error().context;
      ScrubCounts counts;
      note(suspicion.name, checked, counts);
      quarantine(suspicion.name, checked.reason, std::move(suspicion.then));
      continue;
    }
    if (second.ok()) {
      const std::lock_guard lock(mutex_);
      ++facts_.total.misread;
    }
    if (suspicion.then == nullptr) continue;
    outbox_.push([then = std::move(suspicion.then), second](Instant, core::Effects& effects) {
      const bool gone = second.code() == Code::kNotFound;
      then(gone || second.ok() ? Result<bool>(gone) : Result<bool>(second.error()), effects);
    });
  }
}

// Of what was read as corrupt, by a separate opening. Ok: it reads well.
Status Scrubber::look_again(const BlobName& name, std::optional<std::uint64_t> chunk) {
  const auto opened = store_.open(name);
  if (!opened.ok()) return opened.error();
  if (!chunk) return ok_status();
  buffer_.resize((*opened)->manifest().chunk_size_bytes);
  const auto read = (*opened)->read_chunk(*chunk, buffer_.data());
  return read.ok() ? ok_status() : Status(read.error());
}

Scrubber::Checked Scrubber::check(const BlobName& name, Pace pace) {
  Checked checked;
  const auto end_with = [&](const Error& error) {
    checked.reason = error.message();
    checked.outcome = error.code == Code::kNotFound      ? Outcome::kGone
                      : error.code == Code::kUnsupported ? Outcome::kUnsupported
                      : is_store_away(error.code)        ? Outcome::kStoreAway
                                                         : Outcome::kUnreadable;
    return checked;
  };
  const auto corrupt = [&](const Error& error) {
    checked.outcome = Outcome::kCorrupt;
    checked.reason = error.context;
    return checked;
  };
  auto reader = store_.open(name);
  if (!reader.ok() && reader.error().code == Code::kCorrupt) {
    reader = store_.open(name);
    if (!reader.ok() && reader.error().code == Code::kCorrupt) return corrupt(reader.error());
    checked.misread = reader.ok();
  }
  if (!reader.ok()) return end_with(reader.error());
  const std::uint64_t chunk_count = (*reader)->manifest().chunk_digests.size();
  for (std::uint64_t chunk = 0; chunk < chunk_count; ++chunk) {
    buffer_.resize((*reader)->manifest().chunk_size_bytes);
    auto read = (*reader)->read_chunk(chunk, buffer_.data());
    if (!read.ok() && read.error().code == Code::kCorrupt) {
      const Status again = look_again(name, chunk);
      if (again.code() == Code::kCorrupt) return corrupt(again.error());
      if (!again.ok()) return end_with(again.error());
      checked.misread = true;
      read = std::size_t{0};  // Its bytes are right, as the second look has seen.
    }
    if (!read.ok()) return end_with(read.error());
    checked.bytes += *read;
    if (!go_on(pace, *read) && chunk + 1 < chunk_count) {
      checked.outcome = Outcome::kInterrupted;
      return checked;
    }
  }
  return checked;
}

// Everything that is said of one that was looked at, but for moving it.
void Scrubber::note(const BlobName& name, const Checked& checked, ScrubCounts& counts) {
  ScrubCounts more;
  more.bytes = checked.bytes;
  more.misread = checked.misread ? 1 : 0;
  switch (checked.outcome) {
    case Outcome::kGood: more.checkpoints = 1; break;
    case Outcome::kCorrupt: more.checkpoints = more.corrupt = 1; break;
    case Outcome::kUnreadable: more.checkpoints = more.unreadable = 1; break;
    case Outcome::kUnsupported: more.checkpoints = more.unsupported = 1; break;
    case Outcome::kGone:
    case Outcome::kStoreAway:
    case Outcome::kInterrupted: break;
  }
  const std::lock_guard lock(mutex_);
  add(counts, more);
  add(facts_.total, more);
  const ScrubFound found{name.checkpoint, checked.reason, wall_time_us()};
  if (checked.outcome == Outcome::kCorrupt) remember(facts_.found, found);
  if (checked.outcome == Outcome::kUnreadable) facts_.unreadable = found;
}

void Scrubber::quarantine(const BlobName& name, const std::string& why, Verdict then) {
  {
    const std::lock_guard lock(mutex_);
    ++moving_;
  }
  outbox_.push([this, name, why, then = std::move(then)](Instant, core::Effects&) mutable {
    keeper_.quarantine(name, why, [this, name, why, then = std::move(then)](const Result<bool>& moved) {
      {
        const std::lock_guard lock(mutex_);
        --moving_;
        if (!moved.ok())
          facts_.not_moved = ScrubFound{name.checkpoint, moved.error().message(), wall_time_us()};
      }
      wake_.notify_all();
      outbox_.push([name, why, then, moved](Instant, core::Effects& effects) {
        const std::string what = to_string(name.checkpoint) + " is damaged in the store: " + why;
        if (!moved.ok()) {
          effects.push_back(core::LogEvent{core::LogEvent::Level::kError,
                                           what + "; it could not be moved to quarantine: " +
                                               moved.error().message() + "; tried again when read again"});
        } else if (*moved) {
          effects.push_back(core::LogEvent{core::LogEvent::Level::kError,
                                           what + "; " + storage::to_file_name(name) +
                                               " was moved to quarantine/, and what is older is current; "
                                               "look at the disk of the store"});
        }
        if (then) then(moved.ok() ? Result<bool>(true) : Result<bool>(moved.error()), effects);
      });
    });
  });
}

// ---- in the background

bool Scrubber::is_mine(const ProgramKey& program) const {
  const std::uint64_t own = core::rendezvous_weight(config_.cms_name, program);
  const std::lock_guard lock(mutex_);
  return std::none_of(peers_.begin(), peers_.end(),
                      [&](const std::string& name) { return core::rendezvous_weight(name, program) > own; });
}

void Scrubber::background_step() {
  if (!round_running_) {
    round_running_ = true;
    round_started_at_ = Clock::now();
    const std::lock_guard lock(mutex_);
    facts_.resting = false;
    facts_.shards_done = 0;
    facts_.round = ScrubCounts{};
    facts_.round_started_at_us = wall_time_us();
  }
  if (round_left_.empty()) {
    next_shard();
    return;
  }
  const BlobName name = round_left_.front();
  const Checked checked = check(name, Pace::kBackground);
  if (checked.outcome == Outcome::kInterrupted) return;  // It is looked at once more.
  if (checked.outcome == Outcome::kStoreAway) {
    next_read_at_ = Clock::now() + kStoreAwayPause;
    return;
  }
  round_left_.pop_front();
  note(name, checked, facts_.round);
  if (checked.outcome == Outcome::kCorrupt) quarantine(name, checked.reason, nullptr);
}

void Scrubber::next_shard() {
  bool all = false;
  {
    const std::lock_guard lock(mutex_);
    all = facts_.shards_done == storage::kShardCount;
  }
  if (all) {
    end_round();
    return;
  }
  std::vector<BlobName> names;
  const Status listed = store_.list(
      shard_,
      [&](const storage::StoredEntry& entry) {
        if (entry.name.kind == EntryKind::kBlob) names.push_back(entry.name);
      },
      nullptr);
  if (!listed.ok()) {
    next_read_at_ = Clock::now() + kStoreAwayPause;
    return;
  }
  for (BlobName& name : names) {
    if (is_mine(name.checkpoint.program)) round_left_.push_back(std::move(name));
  }
  shard_ = (shard_ + 1) % storage::kShardCount;
  {
    const std::lock_guard lock(mutex_);
    ++facts_.shards_done;
  }
  (void)go_on(Pace::kBackground, kListingBytes);
}

void Scrubber::end_round() {
  round_running_ = false;
  next_round_at_ = round_started_at_ + config_.round_min;
  const std::lock_guard lock(mutex_);
  facts_.last_round = facts_.round;
  facts_.last_round_ended_at_us = wall_time_us();
  facts_.last_round_took = Clock::now() - round_started_at_;
  facts_.bytes_per_s = 0;
  rate_bytes_ = 0;
}

// ---- what is asked for

void Scrubber::serve_run(const Request& request) {
  const Clock::time_point started_at = Clock::now();
  change_run(request.id, [](ScrubRun& run) { run.state = ScrubRun::State::kRunning; });
  const Status ended = request.program ? run_over_program(request) : run_over_all(request);
  {
    // Done means: what was found is not to be found any more.
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [this] { return moving_ == 0 || stopping_; });
  }
  change_run(request.id, [&](ScrubRun& run) {
    run.state = ended.ok() ? ScrubRun::State::kDone : ScrubRun::State::kBrokenOff;
    if (!ended.ok()) run.trouble = ended.error().message();
    run.took = Clock::now() - started_at;
  });
}

Status Scrubber::run_over_all(const Request& request) {
  const Clock::time_point started_at = Clock::now();
  ScrubCounts counts;
  for (std::uint32_t shard = 0; shard < storage::kShardCount; ++shard) {
    std::vector<BlobName> names;
    const Status listed = store_.list(
        shard,
        [&](const storage::StoredEntry& entry) {
          if (entry.name.kind == EntryKind::kBlob) names.push_back(entry.name);
        },
        nullptr);
    if (!listed.ok()) return listed;
    for (const BlobName& name : names) {
      const Checked checked = check(name, Pace::kFull);
      if (checked.outcome == Outcome::kStoreAway) return make_error(Code::kUnavailable, checked.reason);
      if (checked.outcome == Outcome::kInterrupted)
        return make_error(Code::kUnavailable, "the store has gone");
      note(name, checked, counts);
      if (checked.outcome == Outcome::kCorrupt) quarantine(name, checked.reason, nullptr);
      change_run(request.id, [&](ScrubRun& run) {
        run.counts = counts;
        run.took = Clock::now() - started_at;
        if (checked.outcome == Outcome::kUnreadable) run.trouble = checked.reason;
        if (checked.outcome == Outcome::kCorrupt)
          remember(run.found, ScrubFound{name.checkpoint, checked.reason, wall_time_us()});
      });
    }
    change_run(request.id, [&](ScrubRun& run) {
      run.shards_done = shard + 1;
      run.took = Clock::now() - started_at;
    });
    if (!go_on(Pace::kFull, 0)) return make_error(Code::kUnavailable, "the store has gone");
  }
  return ok_status();
}

Status Scrubber::run_over_program(const Request& request) {
  const Clock::time_point started_at = Clock::now();
  std::vector<BlobName> names;
  const Status scanned = index_.scan_program(*request.program, [&](const storage::IndexRow& row) {
    if (!request.version || *request.version == row.name.checkpoint.version) names.push_back(row.name);
    return true;
  });
  if (!scanned.ok()) return scanned;
  change_run(request.id, [&](ScrubRun& run) { run.checkpoints_total = names.size(); });
  ScrubCounts counts;
  for (const BlobName& name : names) {
    const Checked checked = check(name, Pace::kFull);
    if (checked.outcome == Outcome::kStoreAway) return make_error(Code::kUnavailable, checked.reason);
    if (checked.outcome == Outcome::kInterrupted) return make_error(Code::kUnavailable, "the store has gone");
    note(name, checked, counts);
    if (checked.outcome == Outcome::kCorrupt) quarantine(name, checked.reason, nullptr);
    change_run(request.id, [&](ScrubRun& run) {
      run.counts = counts;
      run.took = Clock::now() - started_at;
      if (checked.outcome == Outcome::kUnreadable) run.trouble = checked.reason;
      if (checked.outcome == Outcome::kCorrupt)
        remember(run.found, ScrubFound{name.checkpoint, checked.reason, wall_time_us()});
    });
  }
  return ok_status();
}

}  // namespace cms::daemon
