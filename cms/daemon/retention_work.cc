#include "cms/daemon/retention_work.h"

#include <algorithm>
#include <utility>

#include "base/crash_point.h"

namespace cms::daemon {

using core::Verdict;
using storage::BlobName;
using storage::IndexRow;

namespace {

// A name behind all rows of a program.
BlobName behind(const ProgramKey& program) {
  BlobName name;
  name.checkpoint.program = program;
  name.uid = UINT64_MAX;
  return name;
}

core::RetentionRow row_of(const IndexRow& row) {
  core::RetentionRow made;
  made.name = row.name;
  made.stored_bytes = row.stored_bytes;
  made.stored_at_us = row.stored_at_us;
  made.pinned = row.pinned;
  return made;
}

}  // namespace

RetentionWork::RetentionWork(storage::BlobStore& store, storage::CheckpointIndex& index,
                             const core::RetentionPolicy& policy, Keeper keeper)
    : store_(store), index_(index), policy_(policy), keeper_(std::move(keeper)) {}

// ---- one program

Status RetentionWork::load(const ProgramKey& key, Program& program) {
  program.key = key;
  program.index_rows.clear();
  return index_.scan_program(key, [&](const IndexRow& row) {
    program.index_rows.push_back(row);
    return true;
  });
}

Status RetentionWork::learn_times(Program& program, bool& again) {
  std::vector<IndexRow> learnt;
  std::vector<BlobName> gone;
  Status trouble;
  for (IndexRow& row : program.index_rows) {
    if (row.stored_at_us != 0 || unreadable_.count(row.name.uid) != 0) continue;
    if (opens_left_ == 0) {
      again = true;
      break;
    }
    --opens_left_;
    const auto opened = store_.open(row.name);
    if (opened.ok()) {
      const wire::Manifest& manifest = (*opened)->manifest();
      row.stored_at_us = manifest.stored_at_us;
      row.taken_at_us = manifest.notification.taken_at_us;
      row.pause_us = manifest.notification.pause_us;
      row.program_name = manifest.notification.program_name;
      row.blob_digest = manifest.blob_digest;
      learnt.push_back(row);
    }
    if (opened.ok() && row.stored_at_us != 0) continue;
    const Code code = opened.ok() ? Code::kCorrupt : opened.error().code;
    if (code == Code::kNotFound) {
      gone.push_back(row.name);
    } else if (code == Code::kCorrupt || code == Code::kUnsupported) {
      if (unreadable_.size() >= kUnreadableMax) unreadable_.clear();
      unreadable_.insert(row.name.uid);  // Its time stays unknown.
    } else {
      trouble = opened.error();
      break;
    }
  }
  // A time of storing tells that the name lasts (IndexKeeper).
  std::vector<BlobName> names;
  for (const IndexRow& row : learnt) names.push_back(row.name);
  const std::vector<Status> lasting = store_.make_durable(names);
  std::vector<IndexRow> lasts;
  for (std::size_t i = 0; i < learnt.size(); ++i) {
    if (lasting[i].ok()) {
      lasts.push_back(std::move(learnt[i]));
    } else if (lasting[i].code() == Code::kNotFound) {
      gone.push_back(names[i]);
    } else {
      return lasting[i];
    }
  }
  if (Status put = index_.put(lasts); !put.ok()) return put;
  if (gone.empty()) return trouble;
  if (Status forgotten = keeper_.forget(gone); !forgotten.ok()) return forgotten;
  const auto is_gone = [&](const IndexRow& row) {
    return std::find(gone.begin(), gone.end(), row.name) != gone.end();
  };
  auto& rows = program.index_rows;
  rows.erase(std::remove_if(rows.begin(), rows.end(), is_gone), rows.end());
  return trouble;
}

Status RetentionWork::judge(const RetentionNow& now, bool need_time, Program& program, bool& again) {
  program.rules = policy_.rules_of(program.key);
  if (need_time || program.rules.need_time()) {
    const Status learnt = learn_times(program, again);
    if (!learnt.ok() || again) return learnt;
  }
  program.rows.clear();
  for (const IndexRow& row : program.index_rows) {
    program.rows.push_back(row_of(row));
    program.rows.back().being_read = now.being_read.count(row.name.checkpoint) != 0;
  }
  program.judged = core::judge(program.rows, program.rules, now.wall_us);
  return ok_status();
}

Status RetentionWork::look_ahead(const std::vector<BlobName>& names) {
  looked_.clear();
  const auto there = store_.contains_many(names);
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (!there[i].ok()) return there[i].error();
    looked_[storage::to_file_name(names[i])] = *there[i];
  }
  return ok_status();
}

Result<bool> RetentionWork::is_there(const BlobName& name) {
  const auto looked = looked_.find(storage::to_file_name(name));
  return looked != looked_.end() ? Result<bool>(looked->second) : store_.contains(name);
}

void RetentionWork::add_looks(const Program& program, std::vector<BlobName>& names) {
  std::set<Lineage> newest;
  for (std::size_t place = 0; place < program.index_rows.size(); ++place) {
    const IndexRow& row = program.index_rows[place];
    const bool goes = core::goes(program.judged[place].verdict);
    if (row.pinned || goes) names.push_back(storage::pin_name_of(row.name));
    if (!goes || !newest.insert(row.name.lineage).second) continue;
    const auto first =
        std::find_if(program.index_rows.begin(), program.index_rows.end(),
                     [&](const IndexRow& other) { return other.name.lineage == row.name.lineage; });
    names.push_back(first->name);
  }
}

// A row that was made of a name alone may be of a name that does not last (IndexKeeper).
Result<bool> RetentionWork::stays(Program& program, std::vector<IndexRow>::iterator kept) {
  if (kept->stored_at_us != 0) {
    const auto there = is_there(kept->name);
    if (!there.ok() || *there) return there;
  } else {
    const Status lasts = store_.make_durable({kept->name})[0];
    if (lasts.ok()) return true;
    if (lasts.code() != Code::kNotFound) return lasts.error();
  }
  const Status forgotten = keeper_.forget({kept->name});
  if (!forgotten.ok()) return forgotten.error();
  program.index_rows.erase(kept);
  return false;
}

// The first store of the newest version: judge() never lets that one go.
Result<bool> RetentionWork::what_stays_is_there(Program& program, std::size_t place) {
  auto& rows = program.index_rows;
  const BlobName name = rows[place].name;
  const bool second_store = program.judged[place].verdict == Verdict::kSecondStore;
  const auto newest = std::find_if(rows.begin(), rows.end(),
                                   [&](const IndexRow& row) { return row.name.lineage == name.lineage; });
  const auto newest_stays = stays(program, newest);
  if (!newest_stays.ok() || !*newest_stays || !second_store) return newest_stays;
  const auto first = std::find_if(rows.begin(), rows.end(), [&](const IndexRow& row) {
    return row.name.checkpoint == name.checkpoint && row.name.lineage == name.lineage;
  });
  return stays(program, first);
}

Status RetentionWork::remove_doomed(std::vector<Removal>& removed) {
  if (doomed_.empty()) return ok_status();
  std::vector<BlobName> names;
  for (const std::size_t place : doomed_) names.push_back(removed[place].row.name);
  const std::vector<Status> gone = keeper_.remove(names);
  CMS_CRASH_POINT("cmsd.after_retention_remove");
  Status first;
  for (std::size_t i = doomed_.size(); i-- > 0;) {  // From behind, so that places stay.
    if (gone[i].ok()) continue;
    if (gone[i].code() != Code::kLimit) first = gone[i];  // Else a claim needs it: judged again another time.
    removed.erase(removed.begin() + static_cast<std::ptrdiff_t>(doomed_[i]));
  }
  doomed_.clear();
  return first;
}

// A second store goes for all its pin: the pin keeps the checkpoint, and the first store is that.
Result<bool> RetentionWork::is_pinned(Program& program, std::size_t place) {
  if (program.judged[place].verdict == Verdict::kSecondStore) return false;
  const BlobName& name = program.index_rows[place].name;
  const auto pinned = is_there(storage::pin_name_of(name));
  if (!pinned.ok() || !*pinned) return pinned;
  const Status set = index_.set_pinned(name.checkpoint, true);
  if (!set.ok()) return set.error();
  program.index_rows[place].pinned = true;
  return true;
}

// An event that said so may have been missed.
Status RetentionWork::confirm_pins(Program& program) {
  for (IndexRow& row : program.index_rows) {
    if (!row.pinned) continue;
    const auto pinned = is_there(storage::pin_name_of(row.name));
    if (!pinned.ok()) return pinned.error();
    if (*pinned) continue;
    if (Status set = index_.set_pinned(row.name.checkpoint, false); !set.ok()) return set;
    row.pinned = false;
  }
  return ok_status();
}

Status RetentionWork::work_off(const RetentionNow& now, bool apply, Program& program,
                               std::vector<Removal>& removed, bool& again) {
  const std::size_t removed_before = removed.size();
  std::set<Lineage> proven;
  if (Status confirmed = confirm_pins(program); !confirmed.ok()) return confirmed;
  while (true) {
    if (!apply) removed.resize(removed_before);
    if (Status judged = judge(now, false, program, again); !judged.ok() || again) return judged;
    bool afresh = false;
    auto& rows = program.index_rows;
    for (std::size_t place = rows.size(); place-- > 0 && !afresh;) {  // Oldest first.
      if (!core::goes(program.judged[place].verdict)) continue;
      const Lineage lineage = rows[place].name.lineage;
      if (proven.count(lineage) == 0 || program.judged[place].verdict == Verdict::kSecondStore) {
        const auto there = what_stays_is_there(program, place);
        if (!there.ok()) return there.error();
        afresh = !*there;
        if (afresh) break;
        proven.insert(lineage);
      }
      const auto pinned = is_pinned(program, place);
      if (!pinned.ok()) return pinned.error();
      afresh = *pinned;
      if (afresh) break;
      const Verdict verdict = program.judged[place].verdict;
      if (apply) {
        again = removals_left_ == 0;
        if (again) return ok_status();
        --removals_left_;
        doomed_.push_back(removed.size());
      }
      removed.push_back(Removal{rows[place], verdict, core::in_words(verdict, program.rules)});
    }
    if (!afresh) return ok_status();
    if (!apply) continue;
    // What has gone meanwhile is not judged again.
    const auto is_gone = [&](const IndexRow& row) {
      return std::any_of(removed.begin() + static_cast<std::ptrdiff_t>(removed_before), removed.end(),
                         [&](const Removal& one) { return one.row.name == row.name; });
    };
    rows.erase(std::remove_if(rows.begin(), rows.end(), is_gone), rows.end());
  }
}

// The program may have changed since it was looked at: it is judged once more.
Status RetentionWork::remove_for_bound(const RetentionNow& now, bool apply,
                                       const core::OldestFirst::Found& found,
                                       const core::RetentionPolicy::Bound& bound,
                                       std::vector<Removal>& removed) {
  Program program;
  if (Status loaded = load(found.row.name.checkpoint.program, program); !loaded.ok()) return loaded;
  bool again = false;
  if (Status judged = judge(now, false, program, again); !judged.ok() || again) return judged;
  for (std::size_t place = 0; place < program.index_rows.size(); ++place) {
    if (!(program.index_rows[place].name == found.row.name)) continue;
    if (!core::may_go(program.judged[place].verdict)) return ok_status();
    const auto there = what_stays_is_there(program, place);
    if (!there.ok()) return there.error();
    if (!*there) return ok_status();  // Next time.
    const auto pinned = is_pinned(program, place);
    if (!pinned.ok()) return pinned.error();
    if (*pinned) return ok_status();
    const IndexRow& row = program.index_rows[place];
    if (apply) doomed_.push_back(removed.size());
    const Verdict verdict = bound.ecu_mac ? Verdict::kEcuBytes : Verdict::kFleetBytes;
    removed.push_back(Removal{row, verdict, core::in_words(verdict, program.rules, bound.max_bytes)});
    return ok_status();
  }
  return ok_status();
}

// ---- a way through a scope

struct RetentionWork::Run::Page {
  std::vector<Program> programs;
  bool last = false;
};

RetentionWork::Run::Run(RetentionWork& work, Scope scope, bool apply)
    : work_(work), scope_(std::move(scope)), apply_(apply) {
  if (scope_.program || !scope_.programs.empty()) return;
  // Bounds are looked after by one CMS: each covers programs of all.
  if (scope_.share && !scope_.share->is_ours(ProgramKey{})) return;
  for (const core::RetentionPolicy::Bound& bound : work_.policy_.bounds()) {
    if (!scope_.ecu_mac || bound.ecu_mac == scope_.ecu_mac) bounds_.push_back(bound);
  }
}

Status RetentionWork::Run::load_into(Page& page, std::size_t rows_max) {
  std::size_t count = 0;
  page.last = true;
  for (const ProgramKey& key : scope_.programs) {
    if (after_ && !(*after_ < key)) continue;
    if (count >= rows_max) {
      page.last = false;
      break;
    }
    page.programs.emplace_back();
    if (Status loaded = work_.load(key, page.programs.back()); !loaded.ok()) return loaded;
    count += page.programs.back().index_rows.size();
  }
  return ok_status();
}

// Whole programs only.
Result<RetentionWork::Run::Page> RetentionWork::Run::next_page(std::size_t rows_max) {
  Page page;
  if (!scope_.programs.empty()) {
    if (Status loaded = load_into(page, rows_max); !loaded.ok()) return loaded.error();
    return page;
  }
  if (scope_.program) {
    page.last = true;
    page.programs.emplace_back();
    if (Status loaded = work_.load(*scope_.program, page.programs.back()); !loaded.ok())
      return loaded.error();
    return page;
  }
  const auto& ecu_mac = programs_done_ ? bounds_[bound_].ecu_mac : scope_.ecu_mac;
  std::optional<BlobName> after;
  if (after_) after = behind(*after_);
  std::size_t count = 0;
  page.last = true;
  const Status scanned = work_.index_.scan(ecu_mac, after, [&](const IndexRow& row) {
    const ProgramKey& key = row.name.checkpoint.program;
    if (page.programs.empty() || page.programs.back().key != key) {
      if (count >= rows_max) {
        page.last = false;
        return false;
      }
      page.programs.emplace_back();
      page.programs.back().key = key;
    }
    page.programs.back().index_rows.push_back(row);
    ++count;
    return true;
  });
  if (!scanned.ok()) return scanned.error();
  return page;
}

Status RetentionWork::Run::step(const RetentionNow& now, std::vector<Removal>& removed) {
  work_.opens_left_ = kStepOpensMax;
  work_.removals_left_ = kStepRemovalsMax;
  if (!programs_done_) return step_programs(now, removed);
  return found_.empty() ? step_bound(now) : step_removals(now, removed);
}

Status RetentionWork::Run::step_programs(const RetentionNow& now, std::vector<Removal>& removed) {
  auto page = next_page(kStepRowsMax);
  if (!page.ok()) return page.error();
  for (std::size_t place = 0; place < page->programs.size();) {
    const std::size_t before = place;
    Status worked = step_some(now, *page, place, removed);
    Status gone = work_.remove_doomed(removed);
    if (!worked.ok()) return worked;
    if (!gone.ok()) return gone;
    if (place == before) return ok_status();  // This step has done what it may.
  }
  if (!page->last) return ok_status();
  programs_done_ = moved_ = true;
  after_.reset();
  return ok_status();
}

// Works off the next programs, as many as are looked for together. `place` is then the first one that is not
// dealt with.
Status RetentionWork::Run::step_some(const RetentionNow& now, Page& page, std::size_t& place,
                                     std::vector<Removal>& removed) {
  const auto is_ours = [this](const Program& program) {
    return !scope_.share || scope_.share->is_ours(program.key);
  };
  std::vector<BlobName> names;
  std::size_t end = place;
  bool again = false;
  for (; end < page.programs.size() && names.size() < kLooksTogetherMax; ++end) {
    Program& program = page.programs[end];
    if (!is_ours(program)) continue;
    if (Status ensured = work_.keeper_.ensure(program.key); !ensured.ok()) return ensured;
    // What was found in the shard was not in the page yet.
    if (Status loaded = work_.load(program.key, program); !loaded.ok()) return loaded;
    if (Status judged = work_.judge(now, false, program, again); !judged.ok()) return judged;
    if (again) break;
    work_.add_looks(program, names);
  }
  if (Status looked = work_.look_ahead(names); !looked.ok()) return looked;
  for (; place < end; ++place) {
    Program& program = page.programs[place];
    if (is_ours(program)) {
      const std::size_t rows = program.index_rows.size();
      bool unfinished = false;
      const Status worked = work_.work_off(now, apply_, program, removed, unfinished);
      if (!worked.ok() || unfinished) return worked;
      rows_judged_ += rows;
    }
    after_ = program.key;
    moved_ = true;
  }
  return ok_status();
}

// Twice through the bound's scope: what all of it takes; then, if that is too much, the oldest of it.
Status RetentionWork::Run::step_bound(const RetentionNow& now) {
  auto page = next_page(kStepRowsMax);
  if (!page.ok()) return page.error();
  for (Program& program : page->programs) {
    bool again = false;
    if (Status judged = work_.judge(now, search_ != nullptr, program, again); !judged.ok()) return judged;
    if (again) return ok_status();
    for (std::size_t place = 0; place < program.rows.size(); ++place) {
      const Verdict verdict = program.judged[place].verdict;
      const core::RetentionRow& row = program.rows[place];
      if (core::goes(verdict) || planned_.count(row.name.uid) != 0) continue;
      if (search_ == nullptr) {
        total_bytes_ += row.stored_bytes;
      } else if (core::may_go(verdict)) {
        search_->offer(row, program.judged[place].at_us);
      }
    }
    after_ = program.key;
  }
  if (!page->last) return ok_status();
  after_.reset();
  const core::RetentionPolicy::Bound& bound = bounds_[bound_];
  if (search_ != nullptr) {
    found_ = std::move(*search_).take();
    std::reverse(found_.begin(), found_.end());
    search_.reset();
    if (found_.empty()) ++bound_;
  } else if (total_bytes_ > bound.max_bytes) {
    search_ = std::make_unique<core::OldestFirst>(total_bytes_ - bound.max_bytes, kBoundRowsMax);
  } else {
    ++bound_;
  }
  total_bytes_ = 0;
  return ok_status();
}

Status RetentionWork::Run::step_removals(const RetentionNow& now, std::vector<Removal>& removed) {
  for (std::size_t i = 0; i < kStepRemovalsMax && !found_.empty();) {
    // Some of different programs: what goes of one changes how the rest of it is judged.
    std::set<ProgramKey> keys;
    std::vector<BlobName> names;
    std::size_t count = 0;
    for (; count < found_.size() && names.size() < kLooksTogetherMax; ++count) {
      const BlobName& name = found_[found_.size() - 1 - count].row.name;
      if (!keys.insert(name.checkpoint.program).second) break;
      Program program;
      if (Status loaded = work_.load(name.checkpoint.program, program); !loaded.ok()) return loaded;
      const auto& rows = program.index_rows;
      const auto newest = std::find_if(rows.begin(), rows.end(),
                                       [&](const IndexRow& row) { return row.name.lineage == name.lineage; });
      if (newest != rows.end()) names.push_back(newest->name);
      names.push_back(storage::pin_name_of(name));
    }
    if (Status looked = work_.look_ahead(names); !looked.ok()) return looked;
    Status worked;
    for (; count > 0 && worked.ok(); --count, ++i) {
      const std::size_t before = removed.size();
      worked = work_.remove_for_bound(now, apply_, found_.back(), bounds_[bound_], removed);
      if (!worked.ok()) break;
      if (!apply_ && removed.size() > before) planned_.insert(removed.back().row.name.uid);
      found_.pop_back();
    }
    const Status gone = work_.remove_doomed(removed);
    if (!worked.ok()) return worked;
    if (!gone.ok()) return gone;
  }
  if (found_.empty()) ++bound_;
  return ok_status();
}

// ---- pages

std::string position_of(const RetentionWork::Run& run) {
  return run.programs_done() ? "bounds" : to_string(run.after().value_or(ProgramKey{}));
}

Status start_at(const std::string& position, RetentionWork::Run& run) {
  if (position.empty()) return ok_status();
  if (position == "bounds") {
    run.start_at_bounds();
    return ok_status();
  }
  const auto key = parse_key(position);
  if (!key.ok() || key->has_version) {
    return make_error(Code::kInvalidArgument, "continue_after is not the 'next' of an answer to retention");
  }
  run.start_behind(key->program);
  return ok_status();
}

}  // namespace cms::daemon
