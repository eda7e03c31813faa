#include "test/sim/store_workers.h"

#include <utility>

namespace cms::sim {

using core::CmsCore;
using core::Effects;
using core::TransferId;

StoreWorkers::StoreWorkers(EventQueue& queue, Prng& prng, const Scenario& scenario, VirtualStore& store,
                           VirtualIndex& index, const StoreFaults& faults, Plant plant,
                           std::function<void(const Answer&)> deliver)
    : queue_(queue),
      prng_(prng),
      scenario_(scenario),
      store_(store),
      index_(index),
      faults_(faults),
      plant_(plant),
      deliver_(std::move(deliver)) {}

StoreWorkers::~StoreWorkers() {
  *alive_ = false;
  if (plant_ != Plant::kLostOnCrash) return;
  for (const auto& [at, name] : published_) {
    if (queue_.now() - at < std::chrono::seconds(1)) store_.lose(name);
  }
}

Duration StoreWorkers::delay() {
  return Duration(static_cast<std::int64_t>(
      prng_.below(static_cast<std::uint64_t>(scenario_.store_delay_max.count()) + 1)));
}

std::optional<Error> StoreWorkers::fault() {
  if (faults_.outage) return make_error(*faults_.outage, "the virtual store has an outage");
  if (faults_.fail_per_10k == 0 || !prng_.chance(faults_.fail_per_10k, 10000)) return std::nullopt;
  constexpr Code kCodes[] = {Code::kIo, Code::kNoSpace, Code::kUnavailable, Code::kQuota};
  return make_error(kCodes[prng_.below(std::size(kCodes))], "one operation of the virtual store fails");
}

void StoreWorkers::later(Duration after, std::function<void()> what) {
  queue_.after(after, [alive = alive_, what = std::move(what)] {
    if (*alive) what();
  });
}

void StoreWorkers::answer(const Answer& answer) {
  later(delay() / 8, [this, answer] { deliver_(answer); });
}

void StoreWorkers::answer_for(TransferId transfer, const Answer& answer) {
  Job& job = jobs_.at(transfer);
  job.answered_at = std::max(job.answered_at, queue_.now() + delay() / 8);
  later(job.answered_at - queue_.now(), [this, transfer, answer] {
    if (jobs_.count(transfer) != 0) deliver_(answer);  // After DropStore nothing more is answered.
  });
}

// ---- transfers

void StoreWorkers::run(const core::StartStore& effect) {
  const wire::Manifest& manifest = effect.manifest;
  if (!jobs_.emplace(effect.transfer, Job{}).second) violated("a transfer id was used twice");
  if (manifest.session.incarnation != effect.name.checkpoint.version.incarnation ||
      manifest.notification.seq != effect.name.checkpoint.version.seq ||
      manifest.notification.size_bytes != effect.name.size_bytes) {
    violated("the manifest of " + to_string(effect.name.checkpoint) + " is that of another checkpoint");
  }
  jobs_.at(effect.transfer).name = effect.name;
}

void StoreWorkers::run(const core::AppendStore& effect) {
  const auto it = jobs_.find(effect.transfer);
  if (it == jobs_.end()) return;  // It has failed; the core will hear of it.
  const std::uint64_t size_bytes = effect.bytes.size_bytes;
  it->second.untaken_bytes += size_bytes;
  untaken_bytes_ += size_bytes;
  it->second.operations.push_back(Operation{false, effect.bytes, effect.digest});
  if (plant_ == Plant::kCreditBeforeTaken) {
    answer_for(effect.transfer,
               [transfer = effect.transfer, size_bytes](CmsCore& core, Instant now, Effects& effects) {
                 core.on_chunk_taken(now, transfer, size_bytes, effects);
               });
  }
  go_on(effect.transfer);
}

void StoreWorkers::run(const core::FinishStore& effect) {
  const auto it = jobs_.find(effect.transfer);
  if (it == jobs_.end()) return;
  it->second.operations.push_back(Operation{true, {}, effect.blob_digest});
  go_on(effect.transfer);
}

void StoreWorkers::run(const core::DropStore& effect) { end(effect.transfer); }

void StoreWorkers::run(const core::StoreSmall& effect) {
  run(core::StartStore{effect.transfer, effect.name, effect.manifest});
  jobs_.at(effect.transfer).small = true;
  run(core::AppendStore{effect.transfer, effect.bytes, effect.digest});
  run(core::FinishStore{effect.transfer, effect.blob_digest});
}

void StoreWorkers::go_on(TransferId transfer) {
  const auto it = jobs_.find(transfer);
  if (it == jobs_.end() || it->second.busy || it->second.operations.empty()) return;
  it->second.busy = true;
  later(delay(), [this, transfer] {
    const auto found = jobs_.find(transfer);
    if (found == jobs_.end()) return;
    if (found->second.operations.front().finish) {
      const Digest blob_digest = found->second.operations.front().digest;
      finish(transfer, found->second, blob_digest);
    } else {
      write(transfer, found->second);
    }
  });
}

void StoreWorkers::write(TransferId transfer, Job& job) {
  const Operation operation = std::move(job.operations.front());
  job.operations.pop_front();
  const std::uint64_t size_bytes = operation.bytes.size_bytes;
  const std::optional<Error> failed = fault();
  const bool tear = plant_ == Plant::kTornPublish && failed && failed->code == Code::kNoSpace;
  if (failed && !tear) {
    fail(transfer, *failed);
    return;
  }
  if (digest_of(operation.bytes.data, size_bytes) != operation.digest &&
      plant_ != Plant::kWrongDigestAccepted) {
    fail(transfer,
         make_error(Code::kCorrupt, "chunk " + std::to_string(job.digests.size()) + " has a wrong digest"));
    return;
  }
  if (!tear) job.chunks.push_back(operation.bytes);
  job.digests.push_back(operation.digest);
  job.untaken_bytes -= size_bytes;
  untaken_bytes_ -= size_bytes;
  if (plant_ != Plant::kCreditBeforeTaken && !job.small) {
    answer_for(transfer, [transfer, size_bytes](CmsCore& core, Instant now, Effects& effects) {
      core.on_chunk_taken(now, transfer, size_bytes, effects);
    });
  }
  job.busy = false;
  go_on(transfer);
}

void StoreWorkers::finish(TransferId transfer, Job& job, const Digest& blob_digest) {
  if (const std::optional<Error> failed = fault()) {
    fail(transfer, *failed);
    return;
  }
  if (blob_digest_of(job.digests) != blob_digest) {
    fail(transfer, make_error(Code::kCorrupt, "the blob has a wrong digest"));
    return;
  }
  const storage::BlobName name = job.name;
  const Answer say_stored = [transfer, name](CmsCore& core, Instant now, Effects& effects) {
    storage::IndexRow row;
    row.name = name;
    core.on_transfer_stored(now, transfer, row, effects);
  };
  if (plant_ == Plant::kStoredBeforeDurable || plant_ == Plant::kPeerEventBeforeDurable) {
    deliver_(say_stored);
    const Duration until_durable = plant_ == Plant::kStoredBeforeDurable ? delay() : std::chrono::seconds(1);
    later(until_durable, [this, name, chunks = job.chunks] {
      store_.publish(name, chunks);
      (void)index_.put(name, true, {});
    });
    end(transfer);
    return;
  }
  store_.publish(name, job.chunks);
  if (plant_ == Plant::kLostOnCrash) published_.push_back({queue_.now(), name});
  later(delay() / 4, [this, transfer, name, say_stored] {
    if (const std::optional<Error> unknown = fault()) {  // It is durable all the same.
      if (jobs_.count(transfer) != 0) fail(transfer, *unknown);
      return;
    }
    const bool kept = index_.put(name, true, index_plants());
    later(delay() / 4, [this, transfer, name, say_stored, kept] {
      if (jobs_.count(transfer) == 0) return;
      if (!kept) {
        fail(transfer, make_error(Code::kWithdrawn, "the program was withdrawn while it was stored"));
        return;
      }
      end(transfer);
      if (plant_ == Plant::kBothDuplicatesRemoved) apply_retention(name.checkpoint.program);
      deliver_(say_stored);
    });
  });
}

void StoreWorkers::fail(TransferId transfer, Error error) {
  Job& job = jobs_.at(transfer);
  job.operations.clear();
  job.busy = true;  // Nothing more is done for it.
  untaken_bytes_ -= job.untaken_bytes;
  job.untaken_bytes = 0;
  answer_for(transfer,
             [this, transfer, error = std::move(error)](CmsCore& core, Instant now, Effects& effects) {
               end(transfer);
               core.on_transfer_failed(now, transfer, error, effects);
             });
}

void StoreWorkers::end(TransferId transfer) {
  const auto it = jobs_.find(transfer);
  if (it == jobs_.end()) return;
  untaken_bytes_ -= it->second.untaken_bytes;
  jobs_.erase(it);
}

void StoreWorkers::check_windows() const {
  for (const auto& [transfer, job] : jobs_) {
    if (job.untaken_bytes > broker::kTransferWindowBytes) {
      violated("memory: " + std::to_string(job.untaken_bytes) + " bytes of transfer " +
               std::to_string(transfer) + " wait for the store, a window is " +
               std::to_string(broker::kTransferWindowBytes));
    }
  }
}

void StoreWorkers::probe() {
  later(delay(), [this] {
    Status status;
    if (faults_.outage) {
      status = make_error(*faults_.outage, "the virtual store has an outage");
      later(std::chrono::milliseconds(500), [this] { probe(); });
    } else {
      reconcile();
    }
    answer([this, status](CmsCore& core, Instant now, Effects& effects) {
      store_looked_at_ = true;
      for (const ProgramKey& program : std::exchange(held_look_ups_, {})) run(core::LookUpProgram{program});
      if (status.ok()) core.set_fleet_id(Id128{7, 7});
      core.on_store_state(now, status, effects);
    });
  });
}

}  // namespace cms::sim
