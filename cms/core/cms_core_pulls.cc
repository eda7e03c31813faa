// Pulls: what is fetched now, within the byte budget and fair between ECUs, and what happens when a
// fetch or the store fails.
#include <algorithm>
#include <utility>

#include "cms/core/cms_core.h"

namespace cms::core {

using wire::ReceiptLevel;

namespace {

constexpr Duration kTickBusy = std::chrono::milliseconds(50);
constexpr Duration kTickIdle = std::chrono::milliseconds(500);
constexpr std::size_t kStallsMax = 3;  // Then the pull goes back into the queue.

wire::StoredCheckpoint stored_checkpoint_of(const storage::IndexRow& row) {
  wire::StoredCheckpoint stored;
  stored.checkpoint = row.name.checkpoint;
  stored.lineage = row.name.lineage;
  stored.owner_epoch = row.name.owner_epoch;
  stored.size_bytes = row.name.size_bytes;
  stored.uid = row.name.uid;
  stored.stored_bytes = row.stored_bytes;
  stored.stored_at_us = row.stored_at_us;
  stored.taken_at_us = row.taken_at_us;
  stored.pause_us = row.pause_us;
  stored.program_name = row.program_name;
  stored.blob_digest = row.blob_digest;
  return stored;
}

}  // namespace

CmsCore::CmsCore(CmsCoreConfig config) : config_(std::move(config)), prng_(config_.seed) {
  CMS_ASSERT(config_.pull_budget_bytes >= broker::kTransferWindowBytes);
}

void CmsCore::on_store_state(Instant now, const Status& status, Effects& effects) {
  if (status.ok() && !store_status_.ok()) {
    effects.push_back(LogEvent{LogEvent::Level::kInfo, "the store is ready"});
    for (auto& [key, program] : programs_)
      program.not_before = Instant{};  // What failed for it need not wait.
    std::set<std::pair<Instant, ProgramKey>> delayed;
    delayed.swap(delayed_);
    for (const auto& [at, key] : delayed) {
      Program& program = programs_.at(key);
      program.delayed_until.reset();
      consider(now, key, program, effects);
    }
  } else if (!status.ok() &&
             (store_status_.ok() || store_status_.error().message() != status.error().message())) {
    effects.push_back(LogEvent{LogEvent::Level::kError,
                               "the store cannot be used, nothing is pulled: " + status.error().message()});
    free_space_when_full(status.error(), effects);
  }
  store_status_ = status;
  schedule(now, effects);
}

// ---- starting

void CmsCore::schedule(Instant now, Effects& effects) {
  while (store_status_.ok() && !draining_ && !queue_.empty() && transfers_.size() < kTransferCountMax) {
    const ProgramKey key = queue_.front();
    const auto it = programs_.find(key);
    const bool wanted = it != programs_.end() && it->second.pending && it->second.transfer == 0;
    if (wanted) {
      const Instant at = pull_at(now, key, it->second);
      if (at > now) {  // A peer's, since it was queued.
        queue_.pop();
        delay(key, it->second, at);
        continue;
      }
    }
    // No budget or no connection free: the end of a transfer calls us again. It keeps its place, or
    // small blobs would take each byte that comes free before a large one has enough of them.
    if (wanted && !start_pull(now, key, it->second, effects)) return;
    queue_.pop();
  }
}

bool CmsCore::open_link(Instant now, Session& session, Effects& effects) {
  session.link_used_at = now;
  if (session.link != 0) return true;
  if (session_of_link_.size() >= kLinkCountMax) {
    Session* idle = nullptr;
    for (const auto& [link, id] : session_of_link_) {
      Session& other = sessions_.at(id);
      if (other.transfers.empty() && (idle == nullptr || other.link_used_at < idle->link_used_at))
        idle = &other;
    }
    if (idle == nullptr) return false;
    close_link(*idle, effects);
  }
  session.link = ++last_link_;
  session_of_link_[session.link] = session.id;
  effects.push_back(OpenLink{session.link, endpoint_of(session.host, session.bulk_port)});
  return true;
}

void CmsCore::close_link(Session& session, Effects& effects) {
  if (session.link == 0) return;
  session_of_link_.erase(session.link);
  effects.push_back(CloseLink{session.link});
  session.link = 0;
}

CmsCore::Session* CmsCore::session_of_link(LinkId link) {
  const auto it = session_of_link_.find(link);
  return it == session_of_link_.end() ? nullptr : &sessions_.at(it->second);
}

bool CmsCore::start_pull(Instant now, const ProgramKey& key, Program& program, Effects& effects) {
  const Announcement& announcement = *program.pending;
  const wire::Notification& notification = announcement.notification;
  const std::uint64_t reserved_bytes =
      std::clamp<std::uint64_t>(notification.size_bytes, 1, broker::kTransferWindowBytes);
  if (in_flight_bytes_ + reserved_bytes > config_.pull_budget_bytes) return false;
  const auto found = sessions_.find(announcement.session);
  CMS_ASSERT(found != sessions_.end());  // end_session clears what it had pending.
  Session& session = found->second;
  if (!open_link(now, session, effects)) return false;

  const TransferId id = ++last_transfer_;
  broker::ExpectedBlob expected;
  expected.checkpoint = CheckpointId{key, announcement.version()};
  expected.size_bytes = notification.size_bytes;
  expected.chunk_size_bytes = notification.chunk_size_bytes;
  Transfer transfer{key,
                    announcement,
                    broker::ChunkReceiver(id, expected, broker::kTransferWindowBytes),
                    storage::BlobName{},
                    session.link,
                    reserved_bytes,
                    0,
                    0,
                    now,
                    0,
                    program.data_attempts,
                    false,
                    false};
  transfer.name.checkpoint = expected.checkpoint;
  transfer.name.lineage = notification.lineage;
  transfer.name.owner_epoch = notification.owner_epoch;
  transfer.name.size_bytes = notification.size_bytes;
  transfer.name.uid = prng_.next();
  transfer.small =
      notification.size_bytes <= std::min<std::uint64_t>(kSmallBlobBytesMax, notification.chunk_size_bytes);

  if (!transfer.small) {
    effects.push_back(StartStore{id, transfer.name, manifest_of(announcement)});
  }
  effects.push_back(SendBulk{session.link, transfer.receiver.fetch()});
  ++counters_.pulls_started;
  if (!config_.pull_every && peers_.puller_of(key, config_.name, takes_pulls()) != nullptr)
    ++counters_.taken_over;
  in_flight_bytes_ += reserved_bytes;
  session.transfers.insert(id);
  program.transfer = id;
  clear_pending(program);
  transfers_.emplace(id, std::move(transfer));
  return true;
}

// ---- going on

void CmsCore::on_chunk(Instant now, LinkId link, const wire::Chunk& chunk, ChunkView bytes,
                       Effects& effects) {
  const auto it = transfers_.find(chunk.transfer_id);
  if (it == transfers_.end() || it->second.link != link || it->second.finishing) return;  // Late; cancelled.
  Transfer& transfer = it->second;
  const Status fits = transfer.receiver.on_chunk(chunk, bytes.size_bytes);
  if (!fits.ok()) {
    if (fits.code() == Code::kAlreadyExists) return;
    on_malformed_bulk(now, link, fits.error(), effects);
    return;
  }
  transfer.progress_at = now;
  transfer.received_bytes += bytes.size_bytes;
  transfer.stalls = 0;
  counters_.pulled_bytes += bytes.size_bytes;
  if (transfer.small) {
    transfer.finishing = true;
    effects.push_back(StoreSmall{it->first, transfer.name, manifest_of(transfer.announcement),
                                 std::move(bytes), chunk.digest, transfer.receiver.blob_digest()});
    return;
  }
  effects.push_back(AppendStore{it->first, std::move(bytes), chunk.digest});
  if (transfer.receiver.received_all()) {
    transfer.finishing = true;
    effects.push_back(FinishStore{it->first, transfer.receiver.blob_digest()});
  }
}

void CmsCore::on_chunk_taken(Instant now, TransferId id, std::uint64_t size_bytes, Effects& effects) {
  const auto it = transfers_.find(id);
  if (it == transfers_.end()) return;
  Transfer& transfer = it->second;
  transfer.progress_at = now;
  transfer.taken_bytes += size_bytes;
  const auto credit = transfer.receiver.on_taken(size_bytes);
  if (credit) effects.push_back(SendBulk{transfer.link, *credit});
}

void CmsCore::on_transfer_stored(Instant now, TransferId id, const storage::IndexRow& row, Effects& effects) {
  const auto it = transfers_.find(id);
  const storage::BlobName& name = row.name;
  if (it == transfers_.end()) {  // It had to wait, and made way for a newer one.
    const auto known = programs_.find(name.checkpoint.program);
    if (known != programs_.end()) {
      const std::optional<Version>& withdrawn = known->second.withdrawn;
      if (withdrawn && name.checkpoint.version <= *withdrawn) {
        effects.push_back(RemoveBlobs{{name}});
        return;
      }
      note_stored(known->second, name.checkpoint.version);
    }
    ++counters_.stored;
    counters_.stored_bytes += name.size_bytes;
    stored_untold_.push_back(stored_checkpoint_of(row));
    return;
  }
  CMS_ASSERT(it->second.finishing);
  const Announcement announcement = it->second.announcement;
  const ProgramKey key = it->second.program;
  Program& program = programs_.at(key);
  const Version version = announcement.version();
  if (program.withdrawn && version <= *program.withdrawn) {
    // Withdrawn while its last bytes were on their way: it must not stay.
    effects.push_back(RemoveBlobs{{name}});
    send_receipt(announcement, ReceiptLevel::kDropped, Code::kWithdrawn, "the program was withdrawn",
                 effects);
  } else {
    ++counters_.stored;
    counters_.stored_bytes += name.size_bytes;
    failures_.erase(name.checkpoint);
    note_stored(program, version);
    stored_untold_.push_back(stored_checkpoint_of(row));
    send_receipt(announcement, ReceiptLevel::kStored, Code::kOk, {}, effects);
    ask_retention({key}, effects);
  }
  end_transfer(id, true, effects);
  consider(now, key, program, effects);
  forget_if_idle(key);
  schedule(now, effects);
}

void CmsCore::on_transfer_waits(Instant now, TransferId id, Effects& effects) {
  const auto it = transfers_.find(id);
  if (it == transfers_.end()) return;
  it->second.waits = true;
  const ProgramKey key = it->second.program;
  consider(now, key, programs_.at(key), effects);
  schedule(now, effects);
}

// ---- failing

void CmsCore::on_transfer_failed(Instant now, TransferId id, const Error& error, Effects& effects) {
  const auto it = transfers_.find(id);
  if (it == transfers_.end()) return;
  Transfer& transfer = it->second;
  if (error.code == Code::kWithdrawn || error.code == Code::kFenced) {
    const ProgramKey key = transfer.program;
    const ReceiptLevel level = error.code == Code::kFenced ? ReceiptLevel::kFenced : ReceiptLevel::kDropped;
    send_receipt(transfer.announcement, level, error.code, error.context, effects);
    end_transfer(id, true, effects);
    consider(now, key, programs_.at(key), effects);
    forget_if_idle(key);
  } else if (error.code == Code::kCorrupt) {
    ++transfer.data_attempts;
    const CheckpointId checkpoint = transfer.name.checkpoint;
    if (worth_a_line(now, "corrupt " + to_string(checkpoint.program))) {
      effects.push_back(
          LogEvent{LogEvent::Level::kWarning, "fetch " + std::to_string(transfer.data_attempts) + " of " +
                                                  to_string(checkpoint) + ": " + error.message()});
    }
    if (transfer.data_attempts >= kDataAttemptsMax) {
      const std::string reason = error.context + " (fetched " + std::to_string(kDataAttemptsMax) + " times)";
      const ProgramKey key = transfer.program;
      remember_failure(checkpoint, Code::kCorrupt, reason);
      send_receipt(transfer.announcement, ReceiptLevel::kDropped, Code::kCorrupt, reason, effects);
      end_transfer(id, true, effects);
      consider(now, key, programs_.at(key), effects);
      forget_if_idle(key);
    } else {
      ++counters_.refetched;
      put_back(now, id, error, effects);
    }
  } else {
    // The store's trouble: the publisher keeps its blob and it is tried again.
    ++counters_.store_troubles;
    free_space_when_full(error, effects);
    if (worth_a_line(now, "store " + std::string(to_string(error.code)))) {
      effects.push_back(
          LogEvent{LogEvent::Level::kError,
                   "could not store " + to_string(transfer.name.checkpoint) + ": " + error.message()});
    }
    put_back(now, id, error, effects);
  }
  schedule(now, effects);
}

void CmsCore::on_transfer_error(Instant now, LinkId link, const wire::TransferError& error,
                                Effects& effects) {
  const auto it = transfers_.find(error.transfer_id);
  if (it == transfers_.end() || it->second.link != link || it->second.finishing) return;
  fetch_failed(now, it->first, make_error(error.code, error.context), effects);
  schedule(now, effects);
}

void CmsCore::fetch_failed(Instant now, TransferId id, const Error& error, Effects& effects) {
  const Transfer& transfer = transfers_.at(id);
  const ProgramKey key = transfer.program;
  switch (error.code) {
    case Code::kLimit:
    case Code::kUnavailable:
    case Code::kInvalidArgument: put_back(now, id, error, effects); return;
    case Code::kNotFound:
    case Code::kSuperseded:
    case Code::kWithdrawn:
    case Code::kCancelled: break;  // The publisher gave it up and has told its user.
    default: remember_failure(transfer.name.checkpoint, error.code, error.context); break;
  }
  end_transfer(id, false, effects);
  consider(now, key, programs_.at(key), effects);
  forget_if_idle(key);
}

void CmsCore::end_transfer(TransferId id, bool store_done, Effects& effects) {
  const auto it = transfers_.find(id);
  CMS_ASSERT(it != transfers_.end());
  Transfer& transfer = it->second;
  if (!store_done && !transfer.small) effects.push_back(DropStore{id});
  const auto session = sessions_.find(transfer.announcement.session);
  if (session != sessions_.end()) {
    session->second.transfers.erase(id);
    if (!transfer.receiver.received_all() && session->second.link == transfer.link) {
      effects.push_back(SendBulk{transfer.link, wire::Cancel{id}});
    }
  }
  CMS_ASSERT(in_flight_bytes_ >= transfer.reserved_bytes);
  in_flight_bytes_ -= transfer.reserved_bytes;
  Program& program = programs_.at(transfer.program);
  CMS_ASSERT(program.transfer == id);
  program.transfer = 0;
  transfers_.erase(it);
}

// Whatever failed, the checkpoint is still wanted, unless a newer one waits already.
void CmsCore::put_back(Instant now, TransferId id, const Error& why, Effects& effects) {
  const Transfer& transfer = transfers_.at(id);
  const ProgramKey key = transfer.program;
  const Announcement announcement = transfer.announcement;
  const std::size_t data_attempts = transfer.data_attempts;
  end_transfer(id, false, effects);
  Program& program = programs_.at(key);
  if (program.pending) {
    supersede(now, announcement, program.pending->version(), "a newer checkpoint was announced", effects);
  } else if (const auto session = sessions_.find(announcement.session); session != sessions_.end()) {
    // The session may have ended and come back since, and not have announced it again.
    if (session->second.programs.insert(key.program_id).second) ++program.session_count;
    const std::uint32_t retries = program.retries;
    set_pending(program, announcement);
    program.data_attempts = data_attempts;
    program.retries = retries;
    program.trouble = why.message();
    retry_later(now, key, program);
  } else {
    remember_failure(CheckpointId{key, announcement.version()}, Code::kPublisherGone,
                     "its session ended before it was stored");
  }
  consider(now, key, program, effects);
  forget_if_idle(key);
}

void CmsCore::retry_later(Instant now, const ProgramKey& key, Program& program) {
  const Duration full =
      std::min<Duration>(kRetryMax, kRetryMin * (std::int64_t{1} << std::min(program.retries, 10U)));
  ++program.retries;
  const auto half = static_cast<std::uint64_t>(full.count() / 2);
  program.not_before = now + Duration(static_cast<std::int64_t>(half + prng_.below(half + 1)));
  delay(key, program, program.not_before);
}

void CmsCore::check_stalls(Instant now, Effects& effects) {
  std::set<SessionId> reconnect;
  std::vector<TransferId> give_up;
  for (auto& [id, transfer] : transfers_) {
    const bool waits_for_publisher =
        !transfer.finishing && (transfer.small || transfer.taken_bytes == transfer.received_bytes);
    if (!waits_for_publisher || now - transfer.progress_at < kTransferStallMax) continue;
    transfer.progress_at = now;
    ++counters_.stalls;
    if (++transfer.stalls >= kStallsMax) {
      give_up.push_back(id);
    } else {
      reconnect.insert(transfer.announcement.session);
    }
  }
  for (const TransferId id : give_up) {
    put_back(now, id, make_error(Code::kTimeout, "the publisher sends no blob bytes"), effects);
  }
  for (const SessionId& id : reconnect) {
    Session& session = sessions_.at(id);
    if (worth_a_line(now, "stalled " + to_string(id))) {
      effects.push_back(
          LogEvent{LogEvent::Level::kWarning,
                   "session " + to_string(id) + " sends no blob bytes; its bulk connection is made anew"});
    }
    close_link(session, effects);
    const bool opened = open_link(now, session, effects);  // The place of the old one is free.
    CMS_ASSERT(opened);
    for (const TransferId transfer_id : session.transfers) {
      Transfer& transfer = transfers_.at(transfer_id);
      transfer.link = session.link;
      if (!transfer.finishing) effects.push_back(SendBulk{session.link, transfer.receiver.fetch()});
    }
  }
}

void CmsCore::on_time(Instant now, std::uint64_t wall_us, Effects& effects) {
  wall_us_ = wall_us;
  if (!started_at_) started_at_ = now;
  check_peers(now, effects);
  check_sessions(now, effects);
  check_stalls(now, effects);
  while (!delayed_.empty() && delayed_.begin()->first <= now) {
    const ProgramKey key = delayed_.begin()->second;
    Program& program = programs_.at(key);
    end_delay(key, program);
    consider(now, key, program, effects);
  }
  schedule(now, effects);
  const bool busy = !transfers_.empty() || !delayed_.empty() ||
                    std::any_of(sessions_.begin(), sessions_.end(),
                                [](const auto& entry) { return entry.second.list_from.has_value(); });
  next_tick_at_ = now + (busy ? kTickBusy : kTickIdle);
  if (config_.peer_count > 0) next_tick_at_ = std::min(next_tick_at_, next_beat_at_);
}

}  // namespace cms::core
