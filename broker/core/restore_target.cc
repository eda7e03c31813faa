#include "broker/core/restore_target.h"

#include <algorithm>
#include <utility>

#include "base/assert.h"

namespace cms::broker {
namespace {

using wire::ClaimRef;
using wire::RestoreState;

bool same(const ClaimRef& a, const ClaimRef& b) {
  return a.lineage == b.lineage && a.slot == b.slot && a.uid == b.uid;
}

// A chunk always fits a window.
static_assert(kRestoreWindowBytes >= wire::kChunkSizeBytesMax);

std::string text_of(const Error& error) { return error.os_errno == 0 ? error.context : error.message(); }

wire::OnIsolation stricter(wire::OnIsolation a, wire::OnIsolation b) { return std::max(a, b); }
static_assert(wire::OnIsolation::kStop > wire::OnIsolation::kKeep);

std::string newer_text(std::uint64_t slot) {
  return "a newer claim of the lineage, in slot " + std::to_string(slot) + ", was heard of";
}

}  // namespace

bool RestoreTarget::is_open(const Restore& restore) {
  switch (restore.state) {
    case State::kQueued:
    case State::kPulling:
    case State::kPreparing:
    case State::kPrepared: return true;
    case State::kGoing:
    case State::kRunning:
    case State::kRefused:
    case State::kDiscarded: return false;
  }
  return false;
}

// It runs, or nobody can keep it from running any more.
bool RestoreTarget::occupies(const Restore& restore) {
  return restore.state == State::kGoing || (restore.state == State::kRunning && !restore.over);
}

RestoreTarget::Restore* RestoreTarget::find(RestoreId id) {
  const auto it = by_id_.find(id);
  if (it == by_id_.end()) return nullptr;
  const auto entry = lineages_.find(it->second);
  CMS_ASSERT(entry != lineages_.end() && entry->second.restore.id == id);
  return &entry->second.restore;
}

// ---- answers

void RestoreTarget::answer(const Restore& restore, CmsIndex cms, std::uint64_t act_uid,
                           RestoreEffects& effects) const {
  wire::RestoreReport report;
  report.claim = restore.claim;
  report.act_uid = act_uid;
  report.received_bytes = restore.received_bytes;
  report.code = restore.code;
  report.context = restore.context;
  switch (restore.state) {
    case State::kQueued:
    case State::kPulling:
    case State::kPreparing: report.state = RestoreState::kPulling; break;
    case State::kPrepared:
    case State::kGoing: report.state = RestoreState::kPrepared; break;
    case State::kRunning:
      report.state = RestoreState::kRunning;
      report.program_id = restore.program_id;
      break;
    case State::kRefused: report.state = RestoreState::kRefused; break;
    case State::kDiscarded: report.state = RestoreState::kDiscarded; break;
  }
  effects.push_back(SendReport{cms, std::move(report)});
}

void RestoreTarget::answer_refused(CmsIndex cms, const ClaimRef& claim, std::uint64_t act_uid, Code code,
                                   const std::string& context, RestoreEffects& effects) const {
  wire::RestoreReport report;
  report.claim = claim;
  report.act_uid = act_uid;
  report.state = RestoreState::kRefused;
  report.code = code;
  report.context = context;
  effects.push_back(SendReport{cms, std::move(report)});
}

void RestoreTarget::tell_askers(const Restore& restore, RestoreEffects& effects) const {
  for (CmsIndex cms = 0; cms < kCmsCountMax; ++cms) {
    if ((restore.askers >> cms & 1U) != 0) answer(restore, cms, restore.act_uid, effects);
  }
}

// ---- claims

// The entry is of this claim from now on.
RestoreTarget::Restore& RestoreTarget::renew(Entry& entry, const ClaimRef& claim, CmsIndex cms) {
  CMS_ASSERT(!is_open(entry.restore) && !occupies(entry.restore));
  if (entry.end_order != 0) ended_.erase(std::exchange(entry.end_order, 0));
  entry.restore = Restore{};
  entry.restore.claim = claim;
  entry.restore.askers = std::uint32_t{1} << cms;
  entry.slot_max = claim.slot;
  return entry.restore;
}

// A newer claim than the entry's was heard of: what was prepared for the older one goes. False: that one
// runs, and the newer claim is not about its end.
bool RestoreTarget::give_way(Entry& entry, const ClaimRef& claim, OwnerEpoch owner_epoch, bool stands_still,
                             RestoreEffects& effects) {
  CMS_ASSERT(claim.slot > entry.slot_max);
  entry.slot_max = claim.slot;
  Restore& restore = entry.restore;
  if (is_open(restore)) {
    refuse(restore, Code::kFenced, newer_text(claim.slot), true, effects);
    return true;
  }
  if (!occupies(restore)) return true;
  // Another owner has published since: what runs here does so without a right to.
  const bool has_moved_on = owner_epoch > restore.act_slot + 1;
  if (!has_moved_on && !stands_still) return false;
  by_id_.erase(restore.id);
  if (restore.state == State::kGoing) {
    --going_count_;  // on_running() fences it.
    drop_bytes(restore.id);
  } else {
    running_.erase(restore.program_id);
    if (has_moved_on) effects.push_back(FenceProgram{restore.program_id, newer_text(claim.slot)});
  }
  restore.over = true;
  restore.state = State::kRunning;
  return true;
}

Status RestoreTarget::check_room(const wire::Prepare& prepare) const {
  const auto limit = [](std::uint64_t count, const char* what) {
    return make_error(Code::kLimit, std::to_string(count) + " " + what);
  };
  if (stopped_) return make_error(Code::kCancelled, "the ECU's client is being closed");
  if (open_count_ >= kRestoreOpenCountMax) return limit(kRestoreOpenCountMax, "restores are under way here");
  if (running_.size() + going_count_ + open_count_ >= kRestoreRunningCountMax)
    return limit(kRestoreRunningCountMax, "restored programs run here");
  const std::uint64_t size_bytes = prepare.notification.size_bytes;
  if (size_bytes > config_.received_bytes_max || received_bytes_ > config_.received_bytes_max - size_bytes) {
    return make_error(Code::kLimit, "no room for " + std::to_string(size_bytes) +
                                        " bytes: " + std::to_string(received_bytes_) + " of " +
                                        std::to_string(config_.received_bytes_max) + " are taken");
  }
  return ok_status();
}

void RestoreTarget::on_prepare(Instant now, CmsIndex cms, const wire::Prepare& prepare, bool stands_still,
                               RestoreEffects& effects) {
  CMS_ASSERT(cms < kCmsCountMax);
  const ClaimRef& claim = prepare.claim;
  const auto it = lineages_.find(claim.lineage);
  if (it != lineages_.end()) {
    Entry& entry = it->second;
    if (same(entry.restore.claim, claim)) {
      entry.restore.askers |= std::uint32_t{1} << cms;
      if (const auto known = prepared_.find(entry.restore.id); known != prepared_.end()) known->second = now;
      answer(entry.restore, cms, 0, effects);
      return;
    }
    if (claim.slot <= entry.slot_max) {
      answer_refused(cms, claim, 0, Code::kFenced, newer_text(entry.slot_max), effects);
      return;
    }
    if (!give_way(entry, claim, prepare.notification.owner_epoch, stands_still, effects)) {
      answer_refused(cms, claim, 0, Code::kAlreadyExists, "the program runs here", effects);
      return;
    }
  }
  if (Status room = check_room(prepare); !room.ok()) {
    record_end(cms, claim, 0, State::kRefused, room.code(), room.error().context, effects);
    start_transfers(now, effects);
    return;
  }
  Restore& restore = renew(lineages_[claim.lineage], claim, cms);
  restore.id = ++last_id_;
  restore.state = State::kQueued;
  restore.on_isolation = prepare.notification.policies.on_isolation;
  restore.transfer = std::make_unique<Transfer>();
  restore.transfer->info = RestoreInfo{claim, prepare.session, prepare.notification, prepare.restarts, cms};
  restore.transfer->link = BulkLink{cms, prepare.bulk_port};
  by_id_[restore.id] = claim.lineage;
  blobs_[restore.id] = prepare.notification.size_bytes;
  received_bytes_ += prepare.notification.size_bytes;
  ++open_count_;
  queue_.push_back(restore.id);
  answer(restore, cms, 0, effects);
  start_transfers(now, effects);
}

void RestoreTarget::on_go(Instant now, CmsIndex cms, const wire::Go& go, RestoreEffects& effects) {
  CMS_ASSERT(cms < kCmsCountMax);
  const auto it = lineages_.find(go.claim.lineage);
  if (it == lineages_.end() || !same(it->second.restore.claim, go.claim)) {
    if (it != lineages_.end() && go.claim.slot <= it->second.slot_max) {
      answer_refused(cms, go.claim, go.act_uid, Code::kFenced, newer_text(it->second.slot_max), effects);
      return;
    }
    record_end(cms, go.claim, go.act_uid, State::kRefused, Code::kNotFound,
               "nothing was prepared here for this claim", effects);
    start_transfers(now, effects);
    return;
  }
  Restore& restore = it->second.restore;
  restore.askers |= std::uint32_t{1} << cms;
  restore.on_isolation = stricter(restore.on_isolation, go.on_isolation);
  switch (restore.state) {
    case State::kQueued:
    case State::kPulling:
    case State::kPreparing: break;  // The next one may find it prepared.
    case State::kPrepared:
      CMS_ASSERT(it->second.slot_max == restore.claim.slot);
      CMS_ASSERT(go.act_slot > go.claim.slot);
      restore.state = State::kGoing;
      restore.act_slot = go.act_slot;
      restore.act_uid = go.act_uid;
      --open_count_;
      ++going_count_;
      // Nothing but DONE or ABORT may follow ACT, and the epoch is the slot of the DONE.
      effects.push_back(RunProgram{restore.id, go.act_slot + 1});
      break;
    case State::kGoing:
    case State::kRunning:
      if (restore.act_slot == go.act_slot && restore.act_uid == go.act_uid) break;
      answer_refused(
          cms, go.claim, go.act_uid, Code::kFenced,
          "another ACT of this claim, in slot " + std::to_string(restore.act_slot) + ", was obeyed", effects);
      return;
    case State::kRefused: break;
    case State::kDiscarded:
      answer_refused(cms, go.claim, go.act_uid, Code::kCancelled, "it was discarded", effects);
      return;
  }
  answer(restore, cms, go.act_uid, effects);
}

void RestoreTarget::on_discard(Instant now, CmsIndex cms, const wire::Discard& discard,
                               RestoreEffects& effects) {
  CMS_ASSERT(cms < kCmsCountMax);
  const auto it = lineages_.find(discard.claim.lineage);
  if (it == lineages_.end() || !same(it->second.restore.claim, discard.claim)) {
    if (it != lineages_.end() && discard.claim.slot <= it->second.slot_max) {
      answer_refused(cms, discard.claim, 0, Code::kFenced, newer_text(it->second.slot_max), effects);
      return;
    }
    record_end(cms, discard.claim, 0, State::kDiscarded, Code::kOk, {}, effects);
    start_transfers(now, effects);
    return;
  }
  Restore& restore = it->second.restore;
  const std::uint32_t bit = std::uint32_t{1} << cms;
  restore.askers |= bit;
  if (!is_open(restore)) {
    answer(restore, cms, 0, effects);
    return;
  }
  end(restore, State::kDiscarded, Code::kOk, {}, true, effects);
  start_transfers(now, effects);
}

// A claim that ends before anything was begun for it. What runs of an older one goes on.
void RestoreTarget::record_end(CmsIndex cms, const ClaimRef& claim, std::uint64_t act_uid, State state,
                               Code code, const std::string& context, RestoreEffects& effects) {
  Entry& entry = lineages_[claim.lineage];
  const bool fresh = entry.slot_max < claim.slot;
  if (fresh && !give_way(entry, claim, 0, false, effects)) {
    // What runs keeps the entry; slot_max sees to it that this claim is never obeyed.
    Restore ended;
    ended.claim = claim;
    ended.state = state;
    ended.code = code;
    ended.context = context;
    answer(ended, cms, act_uid, effects);
    return;
  }
  Restore& restore = renew(entry, claim, cms);
  restore.state = state;
  restore.code = code;
  restore.context = context;
  answer(restore, cms, act_uid, effects);
  note_ended(claim.lineage, entry);
}

// ---- ends

void RestoreTarget::note_ended(Lineage lineage, Entry& entry) {
  CMS_ASSERT(entry.end_order == 0);
  entry.end_order = ++last_end_order_;
  ended_[entry.end_order] = lineage;
  if (ended_.size() <= kRestoreEndedCountMax) return;
  const auto oldest = ended_.begin();
  const auto it = lineages_.find(oldest->second);
  CMS_ASSERT(it != lineages_.end() && !is_open(it->second.restore) && !occupies(it->second.restore));
  lineages_.erase(it);
  ended_.erase(oldest);
}

void RestoreTarget::drop_bytes(RestoreId id) {
  const auto blob = blobs_.find(id);
  CMS_ASSERT(blob != blobs_.end() && received_bytes_ >= blob->second);
  received_bytes_ -= blob->second;
  blobs_.erase(blob);
}

void RestoreTarget::discard_bytes(RestoreId id, RestoreEffects& effects) {
  effects.push_back(DiscardRestore{id});
  drop_bytes(id);
}

// Ends one that is open, and tells all who asked. `cancel`: the sender of its bytes does not know yet.
void RestoreTarget::end(Restore& restore, State state, Code code, const std::string& context, bool cancel,
                        RestoreEffects& effects) {
  CMS_ASSERT(is_open(restore));
  CMS_ASSERT(state == State::kRefused || state == State::kDiscarded);
  const State before = restore.state;
  if (before == State::kPulling) {
    if (cancel) effects.push_back(SendBulk{restore.transfer->link, wire::Cancel{restore.id}});
    end_transfer(restore, effects);
  }
  by_id_.erase(restore.id);
  --open_count_;
  // The RTCR that works on it is told when it has answered.
  if (before == State::kQueued) {
    queue_.erase(std::find(queue_.begin(), queue_.end(), restore.id));
    drop_bytes(restore.id);
  }
  if (before == State::kPulling || before == State::kPrepared) discard_bytes(restore.id, effects);
  restore.transfer.reset();
  restore.state = state;
  restore.code = code;
  restore.context = context;
  tell_askers(restore, effects);
  const Lineage lineage = restore.claim.lineage;
  note_ended(lineage, lineages_.at(lineage));
}

void RestoreTarget::refuse(Restore& restore, Code code, const std::string& context, bool cancel,
                           RestoreEffects& effects) {
  end(restore, State::kRefused, code == Code::kOk ? Code::kProtocol : code, context, cancel, effects);
}

void RestoreTarget::on_program_ended(ProgramId program_id) {
  const auto running = running_.find(program_id);
  if (running == running_.end()) return;
  const Lineage lineage = running->second;
  running_.erase(running);
  Entry& entry = lineages_.at(lineage);
  CMS_ASSERT(entry.restore.state == State::kRunning && !entry.restore.over);
  by_id_.erase(entry.restore.id);
  entry.restore.over = true;
  note_ended(lineage, entry);
}

void RestoreTarget::end_session(const std::string& reason, RestoreEffects& effects) {
  const std::map<RestoreId, Lineage> all = by_id_;  // A copy: refuse() edits the map.
  for (const auto& [id, lineage] : all) {
    Restore& restore = lineages_.at(lineage).restore;
    if (is_open(restore)) refuse(restore, Code::kCancelled, reason, true, effects);
  }
}

void RestoreTarget::stop(RestoreEffects& effects) {
  stopped_ = true;
  end_session("the ECU's client is being closed", effects);
}

// ---- pulling

void RestoreTarget::start_transfers(Instant now, RestoreEffects& effects) {
  while (!queue_.empty() && pulling_.size() < kRestoreTransferCountMax &&
         windows_bytes_ <= kRestoreWindowsBytesMax - kRestoreWindowBytes) {
    Restore* const restore = find(queue_.front());
    queue_.pop_front();
    CMS_ASSERT(restore != nullptr && restore->state == State::kQueued);
    start_transfer(now, *restore, effects);
  }
}

void RestoreTarget::start_transfer(Instant now, Restore& restore, RestoreEffects& effects) {
  Transfer& transfer = *restore.transfer;
  const wire::Notification& notification = transfer.info.notification;
  ExpectedBlob expected;
  expected.checkpoint = CheckpointId{ProgramKey{transfer.info.session.ecu_mac, notification.program_id},
                                     Version{transfer.info.session.incarnation, notification.seq}};
  expected.size_bytes = notification.size_bytes;
  expected.chunk_size_bytes = notification.chunk_size_bytes;
  transfer.receiver = std::make_unique<ChunkReceiver>(restore.id, expected, kRestoreWindowBytes);
  transfer.window_bytes = std::min(kRestoreWindowBytes, notification.size_bytes);
  transfer.progress_at = now;
  windows_bytes_ += transfer.window_bytes;
  pulling_.insert(restore.id);
  restore.state = State::kPulling;
  if (links_[transfer.link]++ == 0) effects.push_back(OpenBulkLink{transfer.link});
  effects.push_back(ReceiveBlob{restore.id, transfer.info});
  effects.push_back(SendBulk{transfer.link, transfer.receiver->fetch()});
}

void RestoreTarget::end_transfer(Restore& restore, RestoreEffects& effects) {
  Transfer& transfer = *restore.transfer;
  CMS_ASSERT(windows_bytes_ >= transfer.window_bytes);
  pulling_.erase(restore.id);
  windows_bytes_ -= transfer.window_bytes;
  const auto link = links_.find(transfer.link);
  CMS_ASSERT(link != links_.end());
  if (--link->second == 0) {
    effects.push_back(CloseBulkLink{transfer.link});
    links_.erase(link);
  }
  transfer.receiver.reset();
}

void RestoreTarget::on_bulk(Instant now, const BulkLink& link, const wire::BulkBody& message,
                            const ChunkView& bytes, RestoreEffects& effects) {
  const auto* chunk = std::get_if<wire::Chunk>(&message);
  const auto* error = std::get_if<wire::TransferError>(&message);
  if (chunk == nullptr && error == nullptr) return;  // What those send who pull.
  Restore* const restore = find(chunk != nullptr ? chunk->transfer_id : error->transfer_id);
  // One that has ended, whose Cancel crossed this.
  if (restore == nullptr || restore->state != State::kPulling || !(restore->transfer->link == link)) return;
  if (error != nullptr) {
    refuse(*restore, error->code, "the CMS cannot give the blob: " + error->context, false, effects);
  } else {
    take_chunk(now, *restore, *chunk, bytes, effects);
  }
  start_transfers(now, effects);
}

void RestoreTarget::take_chunk(Instant now, Restore& restore, const wire::Chunk& chunk,
                               const ChunkView& bytes, RestoreEffects& effects) {
  Transfer& transfer = *restore.transfer;
  const std::uint64_t offset_bytes = transfer.receiver->received_bytes();
  if (Status good = transfer.receiver->on_chunk(chunk, bytes.size_bytes); !good.ok()) {
    if (good.code() == Code::kAlreadyExists) return;
    refuse(restore, good.code(), good.error().context, true, effects);
    return;
  }
  if (digest_of(bytes.data, bytes.size_bytes) != chunk.digest) {
    refuse(restore, Code::kCorrupt, "chunk at " + std::to_string(offset_bytes) + " does not match its digest",
           true, effects);
    return;
  }
  transfer.progress_at = now;
  transfer.digests.push_back(chunk.digest);
  restore.received_bytes = transfer.receiver->received_bytes();
  effects.push_back(TakeBytes{restore.id, offset_bytes, bytes});
  if (!transfer.receiver->received_all()) {
    if (const auto credit = transfer.receiver->on_taken(bytes.size_bytes))
      effects.push_back(SendBulk{transfer.link, *credit});
    return;
  }
  if (blob_digest_of(transfer.digests) != transfer.receiver->blob_digest()) {
    refuse(restore, Code::kCorrupt, "the blob does not match its digest", true, effects);
    return;
  }
  end_transfer(restore, effects);
  restore.transfer.reset();
  restore.state = State::kPreparing;
  effects.push_back(PrepareProgram{restore.id});
}

void RestoreTarget::on_sink_failed(Instant now, RestoreId id, const Error& error, RestoreEffects& effects) {
  Restore* const restore = find(id);
  // kPreparing: the last bytes found no room, and the RTCR will say so when asked to prepare them.
  if (restore == nullptr || restore->state != State::kPulling) return;
  refuse(*restore, error.code, text_of(error), true, effects);
  start_transfers(now, effects);
}

// ---- the RTCR's answers

void RestoreTarget::on_prepared(Instant now, RestoreId id, const Status& status, RestoreEffects& effects) {
  Restore* const restore = find(id);
  if (restore == nullptr && blobs_.count(id) != 0) discard_bytes(id, effects);  // Given up meanwhile.
  if (restore == nullptr || restore->state != State::kPreparing) return;
  restore->state = State::kPrepared;
  if (status.ok()) {
    prepared_[id] = now;
    tell_askers(*restore, effects);
  } else {
    refuse(*restore, status.code(), text_of(status.error()), true, effects);
  }
}

void RestoreTarget::on_running(Instant, RestoreId id, const Result<ProgramId>& program_id,
                               RestoreEffects& effects) {
  Restore* const restore = find(id);
  if (restore == nullptr && program_id.ok())  // It gave way meanwhile.
    effects.push_back(FenceProgram{*program_id, "the program has moved on"});
  if (restore == nullptr || restore->state != State::kGoing) return;
  --going_count_;
  drop_bytes(id);
  const Lineage lineage = restore->claim.lineage;
  if (program_id.ok()) {
    on_program_ended(*program_id);  // One that the RTCR has ended without a word.
    restore->state = State::kRunning;
    restore->program_id = *program_id;
    running_[*program_id] = lineage;
  } else {
    by_id_.erase(id);
    restore->state = State::kRefused;
    restore->code = program_id.error().code == Code::kOk ? Code::kIo : program_id.error().code;
    restore->context = text_of(program_id.error());
  }
  tell_askers(*restore, effects);
  if (!program_id.ok()) note_ended(lineage, lineages_.at(lineage));
}

// ---- what runs

std::optional<RestoreTarget::Restored> RestoreTarget::find_restored(Lineage lineage) const {
  const auto entry = lineages_.find(lineage);
  if (entry == lineages_.end() || !occupies(entry->second.restore)) return std::nullopt;
  const Restore& restore = entry->second.restore;
  Restored result;
  result.id = restore.id;
  result.lineage = lineage;
  result.owner_epoch = restore.act_slot + 1;
  result.goes = restore.state == State::kGoing;
  result.program_id = restore.program_id;
  result.on_isolation = restore.on_isolation;
  return result;
}

std::optional<RestoreTarget::Restored> RestoreTarget::find_restored(RestoreId id) const {
  const auto it = by_id_.find(id);
  return it == by_id_.end() ? std::nullopt : find_restored(it->second);
}

std::vector<RestoreId> RestoreTarget::going() const {
  std::vector<RestoreId> result;
  if (going_count_ == 0) return result;
  for (const auto& [id, lineage] : by_id_) {
    if (lineages_.at(lineage).restore.state == State::kGoing) result.push_back(id);
  }
  return result;
}

// ---- time

void RestoreTarget::on_time(Instant now, RestoreEffects& effects) {
  const std::set<RestoreId> pulling = pulling_;  // A copy: refuse() edits the set.
  for (const RestoreId id : pulling) {
    Restore& restore = *find(id);
    if (now - restore.transfer->progress_at < kRestoreStallMax) continue;
    refuse(restore, Code::kTimeout, "the CMS has sent nothing of the blob for 5 s", true, effects);
  }
  for (auto it = prepared_.begin(); it != prepared_.end();) {
    Restore* const restore = find(it->first);
    const bool waits = restore != nullptr && restore->state == State::kPrepared;
    if (waits && now - it->second < kRestoreForgottenAfter) {
      ++it;
      continue;
    }
    it = prepared_.erase(it);
    if (waits) refuse(*restore, Code::kTimeout, "no CMS has asked for it for 60 s", true, effects);
  }
  start_transfers(now, effects);
}

Instant RestoreTarget::next_deadline() const {
  Instant deadline = kNever;
  for (const auto& [id, heard_at] : prepared_)
    deadline = std::min(deadline, heard_at + kRestoreForgottenAfter);
  for (const RestoreId id : pulling_) {
    const Restore& restore = lineages_.at(by_id_.at(id)).restore;
    deadline = std::min(deadline, restore.transfer->progress_at + kRestoreStallMax);
  }
  return deadline;
}

}  // namespace cms::broker
