#pragma once
// RetentionWork carries out what core/retention.h judges: it goes through the index program by program,
// proves with the store what must be proven before anything goes, and removes, or only says what it
// would remove. docs/adr/0007.
//
// Before a file goes: the newest of its lineage has been seen in the store, and the store has no pin
// of it; nothing of that is taken from the index alone. On a NAS each look and each removal is a wait: those of
// some programs go side by side, looks first, and no more of them than are quickly done
// (RetentionKeeper::kPinSettle).
//
// Threads: the worker of IndexKeeper, so that removals and reconciling never overtake each other. Calls
// block. Bounds: the rows of one program, of a step, and kBoundRowsMax.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cms/core/peers.h"
#include "cms/core/retention.h"
#include "storage/blob_store.h"
#include "storage/checkpoint_index.h"

namespace cms::daemon {

inline constexpr std::size_t kStepRowsMax = 2000;  // Then a step ends with the program that it is at.
inline constexpr std::size_t kStepOpensMax = 256;  // Footers read for times that only they know.
inline constexpr std::size_t kBoundRowsMax =
    20000;  // That one look at a bound of an ECU or the fleet removes.
inline constexpr std::size_t kStepRemovalsMax = 256;  // So that questions are answered in between.
inline constexpr std::size_t kLooksTogetherMax = 64;  // And removals; the last program may exceed it.
inline constexpr std::size_t kUnreadableMax = 4096;   // Files without a usable footer, remembered.

struct Removal {
  storage::IndexRow row;
  core::Verdict verdict = core::Verdict::kBeyondKeep;
  std::string why;
};

// What a step does not find in index and store.
struct RetentionNow {
  std::uint64_t wall_us = 0;
  std::set<CheckpointId> being_read;
};

class RetentionWork {
 public:
  // Of IndexKeeper.
  struct Keeper {
    // Makes the index true to the store as far as a program goes.
    std::function<Status(const ProgramKey&)> ensure;
    // Removes files and their rows, each with its own result; kLimit: a claim needs it, it stays for now.
    std::function<std::vector<Status>(const std::vector<storage::BlobName>&)> remove;
    std::function<Status(const std::vector<storage::BlobName>&)> forget;
  };
  RetentionWork(storage::BlobStore& store, storage::CheckpointIndex& index,
                const core::RetentionPolicy& policy, Keeper keeper);

  struct Scope {
    std::optional<EcuMac> ecu_mac;
    std::optional<ProgramKey> program;
    std::optional<core::PeerTable::Share> share;  // Only what is ours of it.
    std::vector<ProgramKey> programs{};           // Not empty: these, which ascend.
  };
  // One way through a scope: the rules of each program, then the bounds of bytes that cover many.
  // With `apply` what may go goes; without, it is only listed.
  class Run {
   public:
    Run(RetentionWork& work, Scope scope, bool apply);
    // From the first program behind this one on.
    void start_behind(const ProgramKey& program) { after_ = program; }
    // Without the programs.
    void start_at_bounds() { programs_done_ = true; }

    // Goes on a little, and adds what went (or would go) to `removed`. After an error it is over.
    Status step(const RetentionNow& now, std::vector<Removal>& removed);
    bool done() const { return programs_done_ && bound_ == bounds_.size(); }
    // Another Run can go on from here: all programs up to after() are dealt with, or all of them.
    bool may_stop() const {
      return moved_ && (!programs_done_ || (bound_ == 0 && !after_ && search_ == nullptr && found_.empty()));
    }
    bool programs_done() const { return programs_done_; }
    std::uint64_t rows_judged() const { return rows_judged_; }
    const std::optional<ProgramKey>& after() const { return after_; }

   private:
    struct Page;
    Result<Page> next_page(std::size_t rows_max);
    Status load_into(Page& page, std::size_t rows_max);
    Status step_some(const RetentionNow& now, Page& page, std::size_t& place, std::vector<Removal>& removed);
    Status step_programs(const RetentionNow& now, std::vector<Removal>& removed);
    Status step_bound(const RetentionNow& now);
    Status step_removals(const RetentionNow& now, std::vector<Removal>& removed);

    RetentionWork& work_;
    const Scope scope_;
    const bool apply_;
    std::vector<core::RetentionPolicy::Bound> bounds_;
    bool programs_done_ = false;
    bool moved_ = false;  // A program was dealt with since the start.
    std::optional<ProgramKey> after_;
    std::uint64_t rows_judged_ = 0;
    std::set<std::uint64_t> planned_;  // Uids that an earlier bound has removed, in a plan.
    std::size_t bound_ = 0;
    std::uint64_t total_bytes_ = 0;
    std::unique_ptr<core::OldestFirst> search_;    // The second time through a bound's scope.
    std::vector<core::OldestFirst::Found> found_;  // By it, youngest first; those to go are left.
  };

 private:
  struct Program {
    ProgramKey key{};
    core::RetentionRules rules;
    std::vector<storage::IndexRow> index_rows;
    std::vector<core::RetentionRow> rows;  // Of the same places.
    std::vector<core::Judged> judged;
  };
  // `again`: it is more than one step may do; what was done counts, and the same is to be asked once more.
  Status judge(const RetentionNow& now, bool need_time, Program& program, bool& again);
  Status learn_times(Program& program, bool& again);
  Status load(const ProgramKey& key, Program& program);
  // Names that will be looked for: asked together, remembered until the next call.
  Status look_ahead(const std::vector<storage::BlobName>& names);
  Result<bool> is_there(const storage::BlobName& name);
  // What work_off will look for.
  static void add_looks(const Program& program, std::vector<storage::BlobName>& names);
  // Removes what work_off and remove_for_bound have added to `removed` and not removed themselves; what could
  // not be removed is taken out of it.
  Status remove_doomed(std::vector<Removal>& removed);
  // The newest of the row's lineage is in the store, and so is the one that is kept of two of one checkpoint,
  // both for good; else their rows go from index and `program`.
  Result<bool> what_stays_is_there(Program& program, std::size_t place);
  Result<bool> stays(Program& program, std::vector<storage::IndexRow>::iterator kept);
  Result<bool> is_pinned(Program& program, std::size_t place);
  // What the index says to be pinned is so still.
  Status confirm_pins(Program& program);
  // Of one program by its own rules. With `apply` what goes is left to remove_doomed.
  Status work_off(const RetentionNow& now, bool apply, Program& program, std::vector<Removal>& removed,
                  bool& again);
  Status remove_for_bound(const RetentionNow& now, bool apply, const core::OldestFirst::Found& found,
                          const core::RetentionPolicy::Bound& bound, std::vector<Removal>& removed);

  storage::BlobStore& store_;
  storage::CheckpointIndex& index_;
  const core::RetentionPolicy& policy_;
  const Keeper keeper_;
  std::set<std::uint64_t> unreadable_;  // Uids.
  std::size_t opens_left_ = 0;          // Of this step.
  std::size_t removals_left_ = 0;       // Of this step.
  std::map<std::string, bool> looked_;  // By file name.
  std::vector<std::size_t> doomed_;     // Places in `removed`.
};

// AdminAnswer::next for a run that may stop, and the way back. kInvalidArgument: not such a text.
std::string position_of(const RetentionWork::Run& run);
Status start_at(const std::string& position, RetentionWork::Run& run);

}  // namespace cms::daemon
