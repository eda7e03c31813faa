#include "cms/daemon/store_workers.h"

#include <pthread.h>
#include <algorithm>
#include <utility>

#include "base/crash_point.h"
#include "storage/blob_file.h"

namespace cms::daemon {

using core::TransferId;
using storage::BlobName;
using storage::IndexRow;

storage::IndexRow row_of(const BlobName& name, const wire::Manifest& manifest) {
  IndexRow row;
  row.name = name;
  row.stored_bytes = storage::blob_file_bytes(manifest);
  row.stored_at_us = manifest.stored_at_us;
  row.taken_at_us = manifest.notification.taken_at_us;
  row.pause_us = manifest.notification.pause_us;
  row.program_name = manifest.notification.program_name;
  row.blob_digest = manifest.blob_digest;
  return row;
}

namespace {

constexpr Duration kParkedAgain = std::chrono::milliseconds(200);

Error wrong_digest(const char* what, const Digest& got, const Digest& expected) {
  return make_error(Code::kCorrupt, std::string(what) + " has digest " + to_string(got) +
                                        ", the publisher said " + to_string(expected));
}

}  // namespace

// A withdrawal marks the index, then removes the rows it finds; we write the row, then read the mark.
// So at least one of the two sees the other, in whatever order they come.
Status settle(storage::BlobStore& store, storage::CheckpointIndex& index, const BlobName& name) {
  const auto program = index.program(name.checkpoint.program);
  if (!program.ok()) return program.error();
  if (!*program || !(*program)->withdrawn || *(*program)->withdrawn < name.checkpoint.version) {
    return ok_status();
  }
  const Status removed = store.remove(name);
  if (!removed.ok()) return removed;
  const Status forgotten = index.remove({name});
  if (!forgotten.ok()) return forgotten;
  return make_error(Code::kWithdrawn, "the program was withdrawn while it was stored");
}

// ---- large blobs

struct StoreWorkers::OpenBlob {
  BlobName name;
  std::unique_ptr<storage::BlobWriter> writer;  // Null once it has failed.
  std::vector<Digest> digests;
};

// A worker and the blobs that it writes; a blob stays in its lane.
class StoreWorkers::Lane {
 public:
  explicit Lane(const std::string& name) : worker(name) {}
  std::map<TransferId, OpenBlob> blobs;  // Touched by the worker only.
  Worker worker;                         // Last: its end precedes that of the blobs.
};

StoreWorkers::StoreWorkers(const Config& config, core::CmsCore& core, storage::BlobStore& store,
                           storage::CheckpointIndex& index, LineageGate& gate, Outbox& outbox,
                           OwnStored own_stored)
    : config_(config),
      core_(core),
      store_(store),
      index_(index),
      outbox_(outbox),
      gate_(gate),
      own_stored_(std::move(own_stored)) {
  CMS_ASSERT(config_.worker_count >= 1);
  for (std::size_t i = 0; i < config_.worker_count; ++i) {
    lanes_.push_back(std::make_unique<Lane>("store-" + std::to_string(i)));
  }
  group_thread_ = std::thread([this] { run_groups(); });
  pthread_setname_np(group_thread_.native_handle(), "store-group");
}

StoreWorkers::~StoreWorkers() { stop(); }

void StoreWorkers::stop() {
  for (const auto& lane : lanes_) lane->worker.stop();
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  if (group_thread_.joinable()) group_thread_.join();
}

std::size_t StoreWorkers::queue_length() const {
  std::size_t length = 0;
  for (const auto& lane : lanes_) length += lane->worker.queue_length();
  const std::lock_guard lock(mutex_);
  return length + waiting_.size();
}

void StoreWorkers::start(core::StartStore effect) {
  Lane& lane = lane_of(effect.transfer);
  lane.worker.post([this, &lane, effect = std::move(effect)]() mutable {
    OpenBlob& blob = lane.blobs[effect.transfer];
    blob.name = effect.name;
    effect.manifest.stored_at_us = wall_time_us();
    auto writer = store_.create(effect.name, std::move(effect.manifest));
    if (writer.ok()) {
      blob.writer = std::move(*writer);
      return;
    }
    outbox_.push(
        [this, id = effect.transfer, error = std::move(writer).error()](Instant now, core::Effects& effects) {
          core_.on_transfer_failed(now, id, error, effects);
        });
  });
}

void StoreWorkers::append(core::AppendStore effect) {
  Lane& lane = lane_of(effect.transfer);
  lane.worker.post([this, &lane, effect = std::move(effect)] {
    const auto it = lane.blobs.find(effect.transfer);
    if (it == lane.blobs.end() || it->second.writer == nullptr) return;  // Failed before.
    const Digest digest = digest_of(effect.bytes.data, effect.bytes.size_bytes);
    Status taken;
    if (digest != effect.digest) {
      taken =
          wrong_digest(("chunk " + std::to_string(it->second.digests.size())).c_str(), digest, effect.digest);
    } else {
      taken = it->second.writer->append(effect.bytes.data, effect.bytes.size_bytes, digest);
    }
    const TransferId id = effect.transfer;
    if (!taken.ok()) {
      it->second.writer.reset();
      outbox_.push([this, id, error = taken.error()](Instant now, core::Effects& effects) {
        core_.on_transfer_failed(now, id, error, effects);
      });
      return;
    }
    CMS_CRASH_POINT("cmsd.after_chunk_written");
    it->second.digests.push_back(digest);
    outbox_.push([this, id, size_bytes = effect.bytes.size_bytes](Instant now, core::Effects& effects) {
      core_.on_chunk_taken(now, id, size_bytes, effects);
    });
  });
}

void StoreWorkers::finish(core::FinishStore effect) {
  Lane& lane = lane_of(effect.transfer);
  lane.worker.post([this, &lane, effect] {
    const TransferId id = effect.transfer;
    const auto it = lane.blobs.find(id);
    if (it == lane.blobs.end() || it->second.writer == nullptr) return;  // Failed before.
    OpenBlob blob = std::move(it->second);
    lane.blobs.erase(it);
    IndexRow row;
    wire::Policies policies;
    const auto store = [&]() -> Status {
      const Digest digest = blob_digest_of(blob.digests);
      if (digest != effect.blob_digest) return wrong_digest("the blob", digest, effect.blob_digest);
      CMS_CRASH_POINT("cmsd.before_publish");
      auto manifest = blob.writer->publish();
      if (!manifest.ok()) return manifest.error();
      CMS_CRASH_POINT("cmsd.before_index");
      row = row_of(blob.name, *manifest);
      policies = manifest->notification.policies;
      const Status indexed = index_.put({row});
      if (!indexed.ok()) return indexed;
      CMS_CRASH_POINT("cmsd.after_index");
      return settle(store_, index_, blob.name);
    };
    const Status stored = store();
    blob.writer.reset();
    if (stored.ok()) {
      tell(judge({Judged{id, std::move(row), policies}}));
    } else {
      tell({Outcome{id, {}, stored}});
    }
  });
}

// ---- what may be said

namespace {

bool has_another_copy(storage::CheckpointIndex& index, const BlobName& name) {
  bool found = false;
  (void)index.scan_program(name.checkpoint.program, [&](const IndexRow& row) {
    found = row.name.checkpoint == name.checkpoint && row.name.uid != name.uid;
    return !found;
  });
  return found;
}

}  // namespace

std::vector<StoreWorkers::Outcome> StoreWorkers::judge(std::vector<Judged> judged) {
  std::vector<LineageGate::Asked> asked;
  asked.reserve(judged.size());
  for (const Judged& one : judged) asked.push_back(LineageGate::Asked{one.row.name, one.policies});
  const auto words = gate_.words(asked);
  std::vector<Outcome> outcomes;
  std::vector<Judged> parked;
  for (std::size_t i = 0; i < judged.size(); ++i) {
    Judged& one = judged[i];
    Status stored;
    if (!words[i].ok()) {
      // Whatever is wrong with the log, the publisher keeps its blob, and it is fetched again: of those copies the
      // store keeps one.
      const BlobName& name = one.row.name;
      if (has_another_copy(index_, name) && store_.remove(name).ok()) (void)index_.remove({name});
      stored = make_error(Code::kUnavailable, words[i].error().message());
    } else if (*words[i] == core::StoredWord::kFenced) {
      const BlobName& name = one.row.name;
      // Nobody will restore it; what cannot be removed now is garbage to the next who looks.
      if (store_.remove(name).ok()) (void)index_.remove({name});
      stored = make_error(Code::kFenced, to_string(name.checkpoint.program) + " under owner_epoch " +
                                             std::to_string(name.owner_epoch) +
                                             " does not own its lineage any more: it goes on elsewhere");
    } else if (*words[i] == core::StoredWord::kWait) {
      if (!std::exchange(one.said_to_wait, true)) {
        outbox_.push([this, transfer = one.transfer](Instant now, core::Effects& effects) {
          core_.on_transfer_waits(now, transfer, effects);
        });
      }
      parked.push_back(std::move(one));
      continue;
    }
    outcomes.push_back(Outcome{one.transfer, std::move(one.row), std::move(stored)});
  }
  if (!parked.empty()) {
    const std::lock_guard lock(mutex_);
    std::move(parked.begin(), parked.end(), std::back_inserter(parked_));
    wake_.notify_one();
  }
  return outcomes;
}

void StoreWorkers::tell(std::vector<Outcome> outcomes) {
  if (outcomes.empty()) return;
  outbox_.push([this, outcomes = std::move(outcomes)](Instant now, core::Effects& effects) {
    for (const Outcome& outcome : outcomes) {
      if (!outcome.stored.ok()) {
        core_.on_transfer_failed(now, outcome.transfer, outcome.stored.error(), effects);
        continue;
      }
      core_.on_transfer_stored(now, outcome.transfer, outcome.row, effects);
      const BlobName& name = outcome.row.name;
      if (name.owner_epoch == 0) continue;
      OwnerEpoch& told = own_told_[name.lineage];
      if (told < name.owner_epoch) own_stored_(name.lineage);
      told = name.owner_epoch;
    }
  });
}

void StoreWorkers::drop(core::DropStore effect) {
  Lane& lane = lane_of(effect.transfer);
  lane.worker.post([&lane, id = effect.transfer] { lane.blobs.erase(id); });
}

// ---- small blobs

void StoreWorkers::put_small(core::StoreSmall effect) {
  {
    const std::lock_guard lock(mutex_);
    waiting_.push_back(std::move(effect));
  }
  wake_.notify_one();
}

void StoreWorkers::run_groups() {
  std::vector<core::StoreSmall> group;
  Instant judge_parked_at{};
  while (true) {
    {
      std::unique_lock lock(mutex_);
      const auto wanted = [this] { return stopping_ || !waiting_.empty(); };
      if (parked_.empty()) {
        wake_.wait(lock, [&] { return wanted() || !parked_.empty(); });
        judge_parked_at = BootClock::now() + kParkedAgain;
      } else {
        wake_.wait_for(lock, judge_parked_at - BootClock::now(), wanted);
      }
      if (!stopping_ && !parked_.empty() && BootClock::now() >= judge_parked_at) {
        std::vector<Judged> parked = std::exchange(parked_, {});
        judge_parked_at = BootClock::now() + kParkedAgain;
        lock.unlock();
        tell(judge(std::move(parked)));
        continue;
      }
      if (!wanted()) continue;
      if (stopping_) return;
      std::size_t count = 0;
      std::size_t bytes = 0;
      while (count < waiting_.size() && count < kGroupCountMax && bytes < kGroupBytesMax) {
        bytes += waiting_[count].bytes.size_bytes;
        ++count;
      }
      const auto end = waiting_.begin() + static_cast<std::ptrdiff_t>(count);
      group.assign(std::make_move_iterator(waiting_.begin()), std::make_move_iterator(end));
      waiting_.erase(waiting_.begin(), end);
    }
    put_group(group);
    group.clear();
  }
}

void StoreWorkers::put_group(std::vector<core::StoreSmall>& group) {
  std::vector<Status> results(group.size());
  std::vector<storage::SmallBlob> blobs;
  std::vector<std::size_t> places;  // blobs[i] is group[places[i]]
  for (std::size_t i = 0; i < group.size(); ++i) {
    core::StoreSmall& effect = group[i];
    const Digest digest = digest_of(effect.bytes.data, effect.bytes.size_bytes);
    const Digest blob_digest = blob_digest_of({digest});
    if (digest != effect.digest || blob_digest != effect.blob_digest) {
      results[i] = wrong_digest("chunk 0", digest, effect.digest);
      continue;
    }
    storage::SmallBlob blob;
    blob.name = effect.name;
    blob.manifest = std::move(effect.manifest);
    blob.manifest.stored_at_us = wall_time_us();
    blob.manifest.chunk_digests = {digest};
    blob.manifest.zero_chunks = {storage::is_all_zero(effect.bytes.data, effect.bytes.size_bytes)};
    blob.manifest.blob_digest = blob_digest;
    blob.data = effect.bytes.data;
    blob.size_bytes = effect.bytes.size_bytes;
    blobs.push_back(std::move(blob));
    places.push_back(i);
  }
  const std::vector<Status> stored = store_.put_small(blobs);
  CMS_ASSERT(stored.size() == blobs.size());
  CMS_CRASH_POINT("cmsd.before_group_index");
  std::vector<IndexRow> rows;
  for (std::size_t i = 0; i < blobs.size(); ++i) {
    if (stored[i].ok()) {
      rows.push_back(row_of(blobs[i].name, blobs[i].manifest));
    } else {
      results[places[i]] = stored[i].error();
    }
  }
  const Status indexed = index_.put(rows);
  CMS_CRASH_POINT("cmsd.after_group_index");
  for (std::size_t i = 0; i < blobs.size(); ++i) {
    if (!stored[i].ok()) continue;
    results[places[i]] = indexed.ok() ? settle(store_, index_, blobs[i].name) : indexed;
  }
  std::vector<Judged> judged;
  for (std::size_t i = 0, row = 0; i < blobs.size(); ++i) {
    if (!stored[i].ok()) continue;
    IndexRow& own = rows[row++];
    if (!results[places[i]].ok()) continue;
    judged.push_back(
        Judged{group[places[i]].transfer, std::move(own), blobs[i].manifest.notification.policies});
  }
  std::vector<Outcome> outcomes = judge(std::move(judged));
  for (std::size_t i = 0; i < group.size(); ++i) {
    if (!results[i].ok()) outcomes.push_back(Outcome{group[i].transfer, IndexRow{}, std::move(results[i])});
  }
  tell(std::move(outcomes));
}

}  // namespace cms::daemon
