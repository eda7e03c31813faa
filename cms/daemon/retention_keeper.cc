#include "cms/daemon/retention_keeper.h"

#include <algorithm>
#include <map>
#include <utility>

namespace cms::daemon {

using core::Effects;
using storage::BlobName;
using storage::IndexRow;

struct RetentionKeeper::Request {
  wire::AdminRequest request;
  Answer then;
  BlobName pinned;  // What a pin was put for.
  std::unique_ptr<RetentionWork::Run> run;
  std::vector<Removal> removed;
  std::uint64_t rows_total = 0;
  Instant answer_at{};
};

struct RetentionKeeper::Sweep {
  bool full = false;
  bool removed_any = false;
  std::unique_ptr<RetentionWork::Run> run;
};

RetentionKeeper::RetentionKeeper(core::CmsCore& core, storage::BlobStore& store,
                                 storage::CheckpointIndex& index, LineageGate& gate, Outbox& outbox,
                                 IndexKeeper& keeper, const core::RetentionPolicy& policy)
    : core_(core),
      store_(store),
      index_(index),
      gate_(gate),
      outbox_(outbox),
      keeper_(keeper),
      policy_(policy),
      work_(store, index, policy_,
            {[this](const ProgramKey& program) { return keeper_.ensure_shard(program); },
             [this](const std::vector<BlobName>& names) { return remove_unclaimed(names); },
             [this](const std::vector<BlobName>& names) { return keeper_.forget_now(names); }}) {}

std::vector<Status> RetentionKeeper::remove_unclaimed(const std::vector<BlobName>& names) {
  if (!gate_.trusted()) return keeper_.remove_each_now(names);
  std::vector<Status> results(names.size());
  std::map<Lineage, std::vector<std::size_t>> by_lineage;
  for (std::size_t i = 0; i < names.size(); ++i) by_lineage[names[i].lineage].push_back(i);
  for (const auto& of_lineage : by_lineage) {
    const Lineage lineage = of_lineage.first;
    const std::vector<std::size_t>& places = of_lineage.second;
    const auto hold = [&](const Error& why) {
      for (const std::size_t place : places) results[place] = why;
    };
    std::vector<BlobName> listed;
    std::set<ProgramKey> programs;
    for (const std::size_t place : places) programs.insert(names[place].checkpoint.program);
    Status scanned;
    for (const ProgramKey& program : programs) {
      const Status one = index_.scan_program(program, [&](const storage::IndexRow& row) {
        if (row.name.lineage == lineage) listed.push_back(row.name);
        return true;
      });
      if (!one.ok()) scanned = one;
    }
    if (!scanned.ok()) {
      hold(scanned.error());
      continue;
    }
    const auto head = gate_.current_head(lineage);  // After the listing.
    if (!head.ok()) {
      // A log that cannot be used holds what is its own, and nothing else.
      const bool unusable = head.error().code == Code::kCorrupt || head.error().code == Code::kUnsupported;
      hold(unusable ? make_error(Code::kLimit, head.error().message()) : head.error());
      continue;
    }
    if (!*head) continue;  // A store of before there were claims: nobody can have one.
    const std::vector<BlobName> stay = core::must_stay(&**head, listed);
    for (const std::size_t place : places) {
      if (std::find(stay.begin(), stay.end(), names[place]) != stay.end()) {
        results[place] = make_error(Code::kLimit, "the claim log of its lineage holds it");
      }
    }
  }
  std::vector<BlobName> free;
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (!results[i].ok()) continue;
    free.push_back(names[i]);
    places.push_back(i);
  }
  const std::vector<Status> removed = keeper_.remove_each_now(free);
  for (std::size_t i = 0; i < places.size(); ++i) results[places[i]] = removed[i];
  return results;
}

DaemonFacts::Retention RetentionKeeper::facts(Instant now) const {
  DaemonFacts::Retention facts = facts_;
  if (last_sweep_at_) facts.last_sweep_ago = now - *last_sweep_at_;
  facts.being_read = core_.being_read().size();
  facts.next_sweep_in = std::max(Duration::zero(), next_sweep_at_ - now);
  return facts;
}

RetentionNow RetentionKeeper::now() const { return RetentionNow{wall_time_us(), core_.being_read()}; }

void RetentionKeeper::tell(const std::vector<Removal>& removed, Effects& effects) {
  std::vector<IndexRow> rows;
  rows.reserve(removed.size());
  for (const Removal& one : removed) rows.push_back(one.row);
  core_.on_removed(rows, effects);
}

// ---- after something was stored

void RetentionKeeper::apply(const core::ApplyRetention& effect) {
  due_.insert(effect.programs.begin(), effect.programs.end());
  judge_due();
}

void RetentionKeeper::judge_due() {
  if (judging_ || due_.empty()) return;
  judging_ = true;
  std::vector<ProgramKey> programs;
  while (!due_.empty() && programs.size() < kDueAtOnceMax)
    programs.push_back(due_.extract(due_.begin()).value());
  keeper_.post([this, programs = std::move(programs), now = now()] {
    std::vector<Removal> removed;
    RetentionWork::Scope scope;
    scope.programs = programs;
    RetentionWork::Run run(work_, std::move(scope), true);
    const Status status = run.step(now, removed);
    std::vector<ProgramKey> unfinished;
    for (const ProgramKey& program : programs) {
      const bool dealt_with = run.done() || (run.after() && !(*run.after() < program));
      if (status.ok() && !dealt_with) unfinished.push_back(program);
    }
    outbox_.push([this, removed = std::move(removed), unfinished = std::move(unfinished), status](
                     Instant, Effects& effects) {
      tell(removed, effects);
      if (!status.ok()) {
        // The next sweep, or the next one stored of it, tries again.
        effects.push_back(core::LogEvent{core::LogEvent::Level::kWarning,
                                         "retention could not remove: " + status.error().message()});
      }
      judging_ = false;
      due_.insert(unfinished.begin(), unfinished.end());
      judge_due();
    });
  });
}

// ---- sweeps

void RetentionKeeper::free_space() { full_wanted_ = true; }

void RetentionKeeper::on_time(Instant now, bool usable) {
  while (!unsettled_.empty() && unsettled_.front().first <= now) {
    look_at_pin(unsettled_.front().second);
    unsettled_.pop_front();
  }
  if (facts_.sweeping) return;
  // A store that is full is "not usable", and this is what makes it usable again.
  if (full_wanted_ && now >= next_full_at_) {
    full_wanted_ = false;
    start_sweep(true);
  } else if (usable && now >= next_sweep_at_) {
    start_sweep(false);
  }
}

void RetentionKeeper::start_sweep(bool full) {
  facts_.sweeping = true;
  auto sweep = std::make_shared<Sweep>();
  sweep->full = full;
  // Whose programs they are does not matter when the store is full: the other CMS may not have noticed.
  RetentionWork::Scope scope;
  if (!full) scope.share = core_.retention_share();
  sweep->run = std::make_unique<RetentionWork::Run>(work_, std::move(scope), true);
  sweep_on(std::move(sweep));
}

void RetentionKeeper::sweep_on(std::shared_ptr<Sweep> sweep) {
  keeper_.post([this, sweep = std::move(sweep), now = now()] {
    std::vector<Removal> removed;
    const Status status = sweep->run->step(now, removed);
    const bool done = !status.ok() || sweep->run->done();
    outbox_.push([this, sweep, removed = std::move(removed), status, done](Instant at, Effects& effects) {
      tell(removed, effects);
      sweep->removed_any = sweep->removed_any || !removed.empty();
      if (sweep->full) {
        facts_.full_removed += removed.size();
        for (const Removal& one : removed) facts_.full_removed_bytes += one.row.stored_bytes;
      }
      if (!done) {
        sweep_on(sweep);
        return;
      }
      facts_.sweeping = false;
      last_sweep_at_ = at;
      next_sweep_at_ = at + (status.ok() ? kSweepInterval : kSweepAgainAfter);
      ++facts_.sweep_count;
      if (sweep->full) {
        ++facts_.full_sweep_count;
        next_full_at_ = at + (sweep->removed_any || !status.ok() ? kSweepAgainAfter : kFullInVain);
      }
      facts_.trouble = status.ok() ? std::string() : status.error().message();
    });
  });
}

// ---- what peers say

void RetentionKeeper::note_removed(core::NoteRemoved effect) {
  keeper_.post([this, effect = std::move(effect)] {
    std::vector<BlobName> names;
    bool missed = false;
    for (const wire::RemovedBlob& blob : effect.blobs) {
      BlobName name;
      name.checkpoint = blob.checkpoint;
      name.owner_epoch = blob.owner_epoch;
      name.uid = blob.uid;
      const auto newest = index_.newest(blob.checkpoint.program);
      const bool is_newest = newest.ok() && *newest && (*newest)->name.uid == blob.uid;
      missed = missed || is_newest;
      if (!is_newest) names.push_back(name);
    }
    const Status removed = keeper_.forget_now(names);
    outbox_.push([this, removed, missed, count = names.size()](Instant now, Effects& effects) {
      if (removed.ok()) {
        core_.on_peer_removed(count, missed);
      } else {
        core_.on_peer_not_indexed(now, removed.error(), effects);
      }
    });
  });
}

void RetentionKeeper::note_pinned(core::NotePinned effect) {
  keeper_.post([this, effect] {
    const Status set = index_.set_pinned(effect.checkpoint, effect.pinned);
    if (set.ok()) return;
    outbox_.push([this, error = set.error()](Instant now, Effects& effects) {
      core_.on_peer_not_indexed(now, error, effects);
    });
  });
}

// ---- what operators ask

bool RetentionKeeper::answers(wire::AdminMethod method) {
  return method == wire::AdminMethod::kPin || method == wire::AdminMethod::kUnpin ||
         method == wire::AdminMethod::kRetentionPlan || method == wire::AdminMethod::kRetentionApply;
}

void RetentionKeeper::on_request(const wire::AdminRequest& wanted, Answer then) {
  auto request = std::make_shared<Request>();
  request->request = wanted;
  request->then = std::move(then);
  ++request_count_;
  if (request_count_ > kRequestsMax) {
    refuse(request,
           make_error(Code::kLimit, std::to_string(kRequestsMax) + " requests to retention wait already"));
    return;
  }
  const bool pins = wanted.method == wire::AdminMethod::kPin || wanted.method == wire::AdminMethod::kUnpin;
  if (!pins) {
    walk(std::move(request));
  } else if (!wanted.has_ecu_mac || !wanted.has_program_id) {
    refuse(request, make_error(Code::kInvalidArgument, "a pin needs an ecu_mac and a program_id"));
  } else if (wanted.method == wire::AdminMethod::kPin) {
    pin(std::move(request));
  } else {
    unpin(std::move(request));
  }
}

void RetentionKeeper::refuse(const std::shared_ptr<Request>& request, const Error& error) {
  wire::AdminAnswer answer;
  answer.code = error.code;
  answer.context = error.context.empty() ? error.message() : error.context;
  end(request, std::move(answer));
}

void RetentionKeeper::end(const std::shared_ptr<Request>& request, wire::AdminAnswer answer) {
  --request_count_;
  answer.request_id = request->request.request_id;
  request->then(answer);
}

namespace {

ProgramKey program_of(const wire::AdminRequest& request) {
  return ProgramKey{request.ecu_mac, request.program_id};
}

// The newest, or the version asked for.
Result<IndexRow> row_asked_for(const wire::AdminRequest& request, storage::CheckpointIndex& index) {
  const ProgramKey program = program_of(request);
  const auto row =
      request.has_version ? index.find(CheckpointId{program, request.version}) : index.newest(program);
  if (!row.ok()) return row.error();
  if (*row) return **row;
  return make_error(Code::kNotFound,
                    request.has_version ? to_string(CheckpointId{program, request.version}) + " is not stored"
                                        : "no checkpoint of " + to_string(program) + " is stored");
}

}  // namespace

// A deleter looks for the pin, then removes; we put the pin, then look for the blob. A deleter of this
// cmsd cannot come in between: one worker does both. One of another cmsd may have looked before our pin
// was there and remove after our look; it is quick about it, so that a second look a while later tells.
void RetentionKeeper::pin(std::shared_ptr<Request> request) {
  keeper_.post([this, request] {
    const auto put = [&]() -> Status {
      const ProgramKey program = program_of(request->request);
      if (Status ensured = keeper_.ensure_shard(program); !ensured.ok()) return ensured;
      const auto row = row_asked_for(request->request, index_);
      if (!row.ok()) return row.error();
      request->pinned = row->name;
      return store_.put_pin(storage::pin_name_of(row->name));
    }();
    outbox_.push([this, request, put](Instant now, Effects&) {
      if (!put.ok()) {
        refuse(request, put.error());
      } else if (core_.peers().peers().empty()) {
        look_at_pin(request);
      } else {
        unsettled_.emplace_back(now + kPinSettle, request);
      }
    });
  });
}

void RetentionKeeper::look_at_pin(std::shared_ptr<Request> request) {
  keeper_.post([this, request] {
    const BlobName& name = request->pinned;
    const auto there = store_.contains(name);
    Status status = there.ok() ? ok_status() : Status(there.error());
    if (there.ok() && !*there) {
      // Of two stores of it the other may be left; else it went before it was pinned.
      (void)keeper_.forget_now({name});
      const auto other = index_.find(name.checkpoint);
      const auto other_there = other.ok() && *other ? store_.contains((*other)->name) : Result<bool>(false);
      if (!other_there.ok() || !*other_there) {
        (void)store_.remove(storage::pin_name_of(name));
        status = make_error(Code::kNotFound, to_string(name.checkpoint) + " was removed meanwhile");
      }
    }
    if (status.ok()) status = index_.set_pinned(name.checkpoint, true);
    outbox_.push([this, request, status](Instant, Effects& effects) {
      if (!status.ok()) {
        refuse(request, status.error());
        return;
      }
      core_.on_pinned(request->pinned.checkpoint, true, effects);
      wire::AdminAnswer answer;
      answer.json = pinned_json(request->pinned.checkpoint, true);
      end(request, std::move(answer));
    });
  });
}

void RetentionKeeper::unpin(std::shared_ptr<Request> request) {
  keeper_.post([this, request] {
    const auto gone = [&]() -> Status {
      const ProgramKey program = program_of(request->request);
      if (Status ensured = keeper_.ensure_shard(program); !ensured.ok()) return ensured;
      const auto row = row_asked_for(request->request, index_);
      if (!row.ok()) return row.error();
      request->pinned = row->name;
      if (Status removed = store_.remove(storage::pin_name_of(row->name)); !removed.ok()) return removed;
      return index_.set_pinned(row->name.checkpoint, false);
    }();
    outbox_.push([this, request, gone](Instant, Effects& effects) {
      if (!gone.ok()) {
        refuse(request, gone.error());
        return;
      }
      const CheckpointId& checkpoint = request->pinned.checkpoint;
      core_.on_pinned(checkpoint, false, effects);
      apply(core::ApplyRetention{{checkpoint.program}});
      wire::AdminAnswer answer;
      answer.json = pinned_json(checkpoint, false);
      end(request, std::move(answer));
    });
  });
}

// A plan or its carrying out, a page of it: as far as it comes in kAnswerWithin. The answer says where
// the next page goes on: behind a program, or at a bound of bytes.
void RetentionKeeper::walk(std::shared_ptr<Request> request) {
  const wire::AdminRequest& wanted = request->request;
  keeper_.post([this, request, &wanted, now = now()] {
    if (request->run == nullptr) {
      RetentionWork::Scope scope;
      if (wanted.has_ecu_mac && wanted.has_program_id) {
        scope.program = program_of(wanted);
      } else if (wanted.has_ecu_mac) {
        scope.ecu_mac = wanted.ecu_mac;
      }
      const bool apply = wanted.method == wire::AdminMethod::kRetentionApply;
      request->run = std::make_unique<RetentionWork::Run>(work_, std::move(scope), apply);
      request->answer_at = BootClock::now() + kAnswerWithin;
      if (Status from = start_at(wanted.continue_after, *request->run); !from.ok()) {
        outbox_.push([this, request, from](Instant, Effects&) { refuse(request, from.error()); });
        return;
      }
    }
    const std::size_t told = request->removed.size();
    const Status status = request->run->step(now, request->removed);
    const bool apply = wanted.method == wire::AdminMethod::kRetentionApply;
    std::vector<Removal> fresh;
    if (apply)
      fresh.assign(request->removed.begin() + static_cast<std::ptrdiff_t>(told), request->removed.end());
    const bool full = request->removed.size() >= kPlanListedMax || BootClock::now() >= request->answer_at;
    const bool page_ends = request->run->done() || (full && request->run->may_stop());
    const auto rows_total = index_.row_count();
    if (rows_total.ok()) request->rows_total = *rows_total;
    outbox_.push([this, request, fresh = std::move(fresh), status, page_ends](Instant, Effects& effects) {
      tell(fresh, effects);
      if (!status.ok()) {
        refuse(request, status.error());
      } else if (page_ends) {
        wire::AdminAnswer answer;
        answer.json = removals_json(request->request, request->removed, request->run->rows_judged(),
                                    request->rows_total, wall_time_us());
        if (!request->run->done()) answer.next = position_of(*request->run);
        end(request, std::move(answer));
      } else {
        walk(request);
      }
    });
  });
}

}  // namespace cms::daemon
