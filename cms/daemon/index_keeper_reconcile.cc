// How the index is made true to the store: shard by shard, or from nothing.
#include <algorithm>
#include <utility>

#include "cms/daemon/index_keeper.h"

namespace cms::daemon {

using storage::BlobName;
using storage::IndexRow;

namespace {

// Entries taken in at once: a batch costs the index one write, and a question waits for one batch.
constexpr std::size_t kEntriesPerBatch = 2048;
// Manifests read and names made to last, and rows looked at, by one job of completing.
constexpr std::size_t kCompletedAtOnce = 64;
constexpr std::size_t kLooksAtOnce = 4096;

}  // namespace

void IndexKeeper::reconcile() {
  worker_.post([this] {
    Progress next;
    if (work_.rebuilding && !work_.done) {  // One that was broken off goes on as one.
      next.rebuilding = true;
      next.reason = work_.reason;
      next.old_index = work_.old_index;
    }
    work_ = next;
    begin_round();
  });
}

void IndexKeeper::rebuild(std::string reason, bool damaged, std::function<void(const Status&)> then) {
  worker_.post([this, reason = std::move(reason), damaged, then = std::move(then)]() mutable {
    Status begun;
    if (work_.running && work_.rebuilding) {
      begun = make_error(Code::kAlreadyExists, "the index is being rebuilt already");
    } else if (store_.fleet_id().empty()) {
      begun = make_error(Code::kUnavailable, "the store has not been opened yet; nothing to rebuild from");
    } else {
      const auto replaced = index_.replace(damaged);
      if (!replaced.ok()) {
        begun = replaced.error();
      } else {
        work_ = Progress{};
        work_.rebuilding = true;
        work_.reason = std::move(reason);
        work_.old_index = replaced->moved_to;
        incarnations_kept_ = incarnations_complete_ && replaced->incarnations_complete;
        rows_complete_ = false;
        begin_round();
      }
    }
    outbox_.push([then = std::move(then), begun](Instant, core::Effects&) { then(begun); });
  });
}

void IndexKeeper::begin_round() {
  work_.running = true;
  work_.started_at = BootClock::now();
  reconciled_.reset();
  seen_uids_.clear();
  removed_uids_.clear();
  lister_.stop_round();
  const auto fleet_id = index_.fleet_id();
  if (!fleet_id.ok()) {
    end_round(fleet_id.error());
  } else if (!fleet_id->empty() && *fleet_id != store_.fleet_id()) {
    end_round(make_error(Code::kForeign,
                         "the index mirrors the store of fleet " + *fleet_id + ", this store is of fleet " +
                             store_.fleet_id() +
                             "; name another --index, or remove that directory to have it rebuilt"));
  } else {
    rows_complete_ = !fleet_id->empty() && (!has_peers_ || rows_complete_);
    incarnations_complete_ = rows_complete_ || incarnations_kept_;
    if (fleet_id->empty()) work_.rebuilding = true;
    if (work_.rebuilding && work_.reason.empty()) work_.reason = "there was none";
    report();
    lister_.start();
  }
}

// Ok: all shards have been through. Else it starts over when the store is back.
void IndexKeeper::end_round(const Status& status) {
  lister_.stop_round();
  work_.running = false;
  work_.done = status.ok();
  work_.took = BootClock::now() - work_.started_at;
  seen_uids_ = {};
  removed_uids_ = {};
  if (!status.ok()) work_.trouble = status.error().message();
  report();
}

void IndexKeeper::take_listings() {
  std::vector<ShardListing> listings;
  const bool more = lister_.take(kEntriesPerBatch, listings);
  if (!work_.running || listings.empty()) return;
  Status status = take_in(listings);
  if (status.ok() && reconciled_.all()) {
    status = remove_rows_without_files();
    if (status.ok()) status = index_.put_fleet_id(store_.fleet_id());
    work_.completing = status.ok();
    end_round(status);
    if (!status.ok()) return;
    rows_complete_ = incarnations_complete_ = true;
    incarnations_kept_ = false;
    answer_waiting_hellos();
    completed_newest_.reset();
    newest_completed_ = false;
    completed_.reset();
    complete_next();
  } else if (!status.ok()) {
    end_round(status);
  } else {
    report();
    if (more) worker_.post([this] { take_listings(); });
  }
}

Status IndexKeeper::take_in(const std::vector<ShardListing>& listings) {
  std::vector<IndexRow> rows;
  std::vector<BlobName> resurrected;
  std::uint64_t unknown_files = 0;
  std::vector<std::uint32_t> shards;
  if (Status ended = take_in_ended(listings); !ended.ok()) return ended;
  for (const ShardListing& listing : listings) {
    if (reconciled_.test(listing.shard)) continue;  // Somebody asked for it meanwhile.
    shards.push_back(listing.shard);
    unknown_files += listing.unknown_files;
    for (const storage::StoredEntry& entry : listing.blobs) {
      const auto tombstone = listing.ended.find(entry.name.checkpoint.program);
      if (tombstone != listing.ended.end() &&
          entry.name.checkpoint.version <= tombstone->second.checkpoint.version) {
        resurrected.push_back(entry.name);
        continue;
      }
      if (removed_uids_.count(entry.name.uid) != 0) continue;
      if (work_.running) seen_uids_.push_back(entry.name.uid);
      IndexRow row;
      row.name = entry.name;
      row.stored_bytes = entry.stored_bytes;
      row.pinned = listing.pins.count(entry.name.checkpoint) != 0;
      rows.push_back(std::move(row));
    }
  }
  const auto added = index_.add_missing(rows);
  if (!added.ok()) return added.error();
  for (const ShardListing& listing : listings) {
    if (Status pinned = take_in_pins(listing); !pinned.ok()) return pinned;
  }
  const auto may_go = gate_.ended_may_go(resurrected);
  if (!may_go.ok()) return may_go.error();
  const Status removed = remove_now(*may_go);
  if (!removed.ok()) return removed;
  for (const std::uint32_t shard : shards) reconciled_.set(shard);
  work_.shards_done = static_cast<std::uint32_t>(reconciled_.count());
  work_.rows_added += *added;
  work_.rows_removed += may_go->size();
  work_.unknown_files += unknown_files;
  return ok_status();
}

// Ends of lives that nobody told us of. They are made to last first: what they end is removed, and must not
// come back to life without them.
Status IndexKeeper::take_in_ended(const std::vector<ShardListing>& listings) {
  std::vector<BlobName> fresh;
  for (const ShardListing& listing : listings) {
    if (!listing.status.ok()) return listing.status;
    if (reconciled_.test(listing.shard)) continue;
    for (const auto& [program, tombstone] : listing.ended) {
      const auto known = index_.program(program);
      if (!known.ok()) return known.error();
      const bool is_known = *known && (*known)->withdrawn;
      if (!is_known || *(*known)->withdrawn < tombstone.checkpoint.version) fresh.push_back(tombstone);
    }
  }
  for (const Status& lasts : store_.make_durable(fresh)) {
    if (lasts.code() == Code::kNotFound) {
      return make_error(Code::kUnavailable, lasts.error().context + ": it was there a moment ago");
    }
    if (!lasts.ok()) return lasts;
  }
  for (const BlobName& tombstone : fresh) {
    const CheckpointId& end = tombstone.checkpoint;
    const Status put = index_.put_withdrawn(end.program, end.version, wall_time_us());
    if (!put.ok()) return put;
  }
  return ok_status();
}

// The listing may be from before the pin was put or taken away: the store says how it is now. A row that
// says pinned and is not so any more retention finds, before it leaves it for its pin.
Status IndexKeeper::take_in_pins(const ShardListing& listing) {
  for (const auto& [checkpoint, pin] : listing.pins) {
    const auto tombstone = listing.ended.find(checkpoint.program);
    if (tombstone != listing.ended.end() && checkpoint.version <= tombstone->second.checkpoint.version) {
      if (Status removed = store_.remove(pin); !removed.ok()) return removed;
      continue;
    }
    const auto there = store_.contains(pin);
    if (!there.ok()) return there.error();
    if (Status set = index_.set_pinned(checkpoint, *there); !set.ok()) return set;
  }
  return ok_status();
}

Status IndexKeeper::ensure_shard(const ProgramKey& program) {
  const std::uint32_t shard = storage::shard_of(lineage_of(program));
  if (reconciled_.test(shard)) return ok_status();
  return take_in({list_shard(store_, shard)});
}

// Looked for only when the counts say that there are some.
Status IndexKeeper::remove_rows_without_files() {
  const auto row_count = index_.row_count();
  if (!row_count.ok()) return row_count.error();
  seen_uids_.erase(std::remove_if(seen_uids_.begin(), seen_uids_.end(),
                                  [this](std::uint64_t uid) { return removed_uids_.count(uid) != 0; }),
                   seen_uids_.end());
  if (*row_count <= seen_uids_.size()) return ok_status();
  // Rows without a file, or whose file came after its shard was listed: only these are looked at.
  std::sort(seen_uids_.begin(), seen_uids_.end());
  std::vector<BlobName> gone;
  Status trouble;
  const Status scanned = index_.scan(std::nullopt, std::nullopt, [&](const IndexRow& row) {
    if (std::binary_search(seen_uids_.begin(), seen_uids_.end(), row.name.uid)) return true;
    const auto there = store_.contains(row.name);
    if (!there.ok()) trouble = there.error();
    if (there.ok() && !*there) gone.push_back(row.name);
    return trouble.ok();
  });
  if (!scanned.ok()) return scanned;
  if (!trouble.ok()) return trouble;
  const Status removed = index_.remove(gone);
  if (!removed.ok()) return removed;
  work_.rows_removed += gone.size();
  return ok_status();
}

void IndexKeeper::answer_waiting_hellos() {
  std::vector<core::ReserveIncarnation> hellos;
  hellos.swap(waiting_hellos_);
  for (core::ReserveIncarnation& hello : hellos) {
    const auto incarnation = reserve_now(hello.hello);
    outbox_.push([this, hello = std::move(hello), incarnation](Instant now, core::Effects& effects) {
      core_.on_incarnation_reserved(now, hello, incarnation, effects);
    });
  }
}

// ---- what a name does not say: times, the program's name, the digest

// A few, then it queues itself again, so that questions are answered in between.
void IndexKeeper::complete_next() {
  if (!work_.completing || work_.running) return;
  std::vector<IndexRow> rows;
  std::size_t looks = 0;
  bool whole = true;
  const auto look = [&](const IndexRow& row) {
    if (++looks > kLooksAtOnce || rows.size() == kCompletedAtOnce) return whole = false;
    if (row.stored_at_us == 0) rows.push_back(row);
    return true;
  };
  Status status;
  if (!newest_completed_) {
    status = index_.scan_newest(std::nullopt, completed_newest_, [&](const IndexRow& row) {
      if (look(row)) completed_newest_ = row.name.checkpoint.program;
      return whole;
    });
    newest_completed_ = whole;
  } else {
    status = index_.scan(std::nullopt, completed_, [&](const IndexRow& row) {
      if (look(row)) completed_ = row.name;
      return whole;
    });
    if (whole) work_.completing = false;
  }
  if (status.ok()) status = complete_rows(rows);
  if (!status.ok()) work_.completing = false;  // It begins again with the next round.
  report();
  if (work_.completing) worker_.post([this] { complete_next(); });
}

Status IndexKeeper::complete_rows(const std::vector<IndexRow>& rows) {
  std::vector<IndexRow> read;
  for (IndexRow row : rows) {
    const auto opened = store_.open(row.name);
    if (!opened.ok()) {
      const Error& error = opened.error();
      if (error.code == Code::kUnavailable || error.code == Code::kIo) return error;
      if (error.code == Code::kCorrupt) {
        outbox_.push([this, name = row.name, error](Instant, core::Effects&) {
          if (suspect_) suspect_(name, error);
        });
      }
      continue;
    }
    const wire::Manifest& manifest = (*opened)->manifest();
    row.stored_at_us = manifest.stored_at_us;
    row.taken_at_us = manifest.notification.taken_at_us;
    row.pause_us = manifest.notification.pause_us;
    row.program_name = manifest.notification.program_name;
    row.blob_digest = manifest.blob_digest;
    read.push_back(std::move(row));
  }
  // A time of storing tells that the name lasts.
  std::vector<BlobName> names;
  for (const IndexRow& row : read) names.push_back(row.name);
  const std::vector<Status> lasting = store_.make_durable(names);
  std::vector<IndexRow> completed;
  for (std::size_t i = 0; i < read.size(); ++i) {
    if (lasting[i].code() == Code::kNotFound) continue;  // Removed meanwhile.
    if (!lasting[i].ok()) return lasting[i];
    completed.push_back(std::move(read[i]));
  }
  work_.rows_completed += completed.size();
  return completed.empty() ? ok_status() : index_.put(completed);
}

}  // namespace cms::daemon
