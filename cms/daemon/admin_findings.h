#pragma once
// What there is to find for `cms-admin status`: sums over the index, failures that last, and what is
// wrong with what to do about it. Facts only; admin_answers.cc writes them as JSON.
//
// Threads: none; calls block on the index.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cms/daemon/admin_answers.h"

namespace cms::daemon {

// Of the index.
struct IndexTotals {
  std::uint64_t checkpoints = 0;
  std::uint64_t programs = 0;
  std::uint64_t ecus = 0;
  std::uint64_t size_bytes = 0;
  std::uint64_t stored_bytes = 0;
  bool complete = true;  // False: there was no time for all rows; only `checkpoints` is of all.
  std::optional<storage::IndexRow> oldest_newest;  // Of the rows whose time is known.
};
// Scans for at most 2 s: status shall answer within 5 s.
Status add_up(storage::CheckpointIndex& index, IndexTotals& totals);

// Failures remembered that matter still: nothing newer of the program has been stored since.
struct Lasting {
  std::vector<const CoreSnapshot::Item*> never_stored;
  std::vector<const CoreSnapshot::Item*> out_of_date;  // What is stored is older than what failed.
};
Status find_lasting(const CoreSnapshot& snapshot, storage::CheckpointIndex& index, Lasting& lasting);

struct Problem {
  // error: nothing can be stored, or something stored was lost. warning: somebody should look. notice: good to know.
  enum class Severity { kNotice, kWarning, kError } severity = Severity::kNotice;
  std::string what;
  std::optional<std::uint64_t> since_s;  // For how long; not there: not known, or it does not matter.
  std::string what_to_do;
};

// Everything wrong that can be told from the two; `indexed`: how the look into the index ended.
std::vector<Problem> find_problems(const CoreSnapshot& snapshot, const Status& indexed,
                                   const Lasting& lasting);

// RFC 3339 in UTC with milliseconds; nullopt for 0, which means: not known.
std::optional<std::string> time_text(std::uint64_t at_us);
// Seconds of a duration, never negative; of a time of the wall clock until now, nullopt when not known.
std::uint64_t seconds_of(Duration duration);
std::optional<std::uint64_t> age_of(std::uint64_t wall_us, std::uint64_t at_us);

}  // namespace cms::daemon
