// The other CMS instances: who of us pulls what, what each tells the others, and what is done when one
// falls silent or its words were lost. The store is the record; everything here only saves work.
#include <algorithm>
#include <utility>

#include "cms/core/cms_core.h"

namespace cms::core {

using wire::ReceiptLevel;

namespace {

constexpr Duration kGreetInterval = std::chrono::milliseconds(200);

storage::IndexRow row_of(const wire::StoredCheckpoint& stored) {
  storage::IndexRow row;
  row.name.checkpoint = stored.checkpoint;
  row.name.lineage = stored.lineage;
  row.name.owner_epoch = stored.owner_epoch;
  row.name.size_bytes = stored.size_bytes;
  row.name.uid = stored.uid;
  row.stored_bytes = stored.stored_bytes;
  row.stored_at_us = stored.stored_at_us;
  row.taken_at_us = stored.taken_at_us;
  row.pause_us = stored.pause_us;
  row.program_name = stored.program_name;
  row.blob_digest = stored.blob_digest;
  return row;
}

}  // namespace

// ---- what we say

void CmsCore::say(wire::PeerBody body, Effects& effects) {
  if (config_.peer_count == 0) return;
  wire::PeerMessage message;
  message.cms_name = config_.name;
  message.incarnation = config_.incarnation;
  message.fleet_id = fleet_id_;
  if (!std::holds_alternative<wire::PeerBeat>(body)) ++last_event_;
  message.event = last_event_;
  message.body = std::move(body);
  effects.push_back(SendPeer{std::move(message)});
}

void CmsCore::tell_peers(Effects& effects) {
  for (std::size_t told = 0; told < stored_untold_.size(); told += wire::kPeerStoredCountMax) {
    const auto first = stored_untold_.begin() + static_cast<std::ptrdiff_t>(told);
    const std::size_t count = std::min(wire::kPeerStoredCountMax, stored_untold_.size() - told);
    say(wire::PeerStored{{first, first + static_cast<std::ptrdiff_t>(count)}}, effects);
  }
  stored_untold_.clear();
}

void CmsCore::say_beat(Instant now, Effects& effects) {
  wire::PeerBeat beat;
  beat.uptime_ms = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(now - *started_at_).count());
  beat.takes_pulls = takes_pulls();
  beat.pull_every = config_.pull_every;
  beat.queued = static_cast<std::uint32_t>(queued_count());
  beat.pulled_bytes = counters_.pulled_bytes;
  for (const auto& [id, transfer] : transfers_) {  // In the order in which they began.
    if (beat.pulling.size() == wire::kPeerPullingCountMax) break;
    if (transfer.finishing || transfer.progress_at >= last_beat_at_) beat.pulling.push_back(transfer.program);
  }
  beat.wants_greeting = peers_.ungreeted();
  beat.features = wire::kPeerFeatureRetention;
  beat.reading = reading_;
  last_beat_at_ = now;
  say(std::move(beat), effects);
}

// Tells a peer which incarnations were given away before it heard us.
void CmsCore::greet(Instant now, std::uint64_t incarnation, Effects& effects) {
  if (config_.peer_count == 0) return;
  for (auto it = greeted_at_.begin(); it != greeted_at_.end();)
    it = now - it->second >= kGreetInterval ? greeted_at_.erase(it) : std::next(it);
  if (!greeted_at_.emplace(incarnation, now).second) return;  // On its way.
  wire::PeerIncarnations page;
  for (const auto& [id, session] : sessions_) {
    page.incarnations.push_back(id);
    if (page.incarnations.size() == wire::kPeerIncarnationCountMax) say(std::exchange(page, {}), effects);
  }
  page.greets = incarnation;
  say(std::move(page), effects);
}

// ---- what they say

void CmsCore::on_malformed_peer(Instant now, const std::string& address, const Error& error,
                                Effects& effects) {
  note_malformed(now, "the peer channel, " + address, error, effects);
}

void CmsCore::on_namesake(Instant now, const std::string& address, const wire::PeerMessage& message,
                          Effects& effects) {
  if (message.incarnation == config_.incarnation) {
    effects.push_back(GiveUp{Code::kInvalidArgument, "a --peer of the list is this cmsd itself (" + address +
                                                         "); name only the others"});
    return;
  }
  const auto* beat = std::get_if<wire::PeerBeat>(&message.body);
  if (beat == nullptr || !started_at_) return;
  const auto uptime_ms = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(now - *started_at_).count());
  const std::string what = "another cmsd at " + address + " is named '" + config_.name + "' as well";
  const bool younger =
      uptime_ms != beat->uptime_ms ? uptime_ms < beat->uptime_ms : config_.incarnation < message.incarnation;
  if (younger) {
    effects.push_back(
        GiveUp{Code::kAlreadyExists, what + " and was there first; give this one another --name"});
  } else if (worth_a_line(now, "namesake")) {
    effects.push_back(LogEvent{LogEvent::Level::kError, what + "; it gives way"});
  }
}

void CmsCore::on_peer(Instant now, const std::string& address, const wire::PeerMessage& message,
                      Effects& effects) {
  if (message.cms_name == config_.name) {
    on_namesake(now, address, message, effects);
    return;
  }
  if (message.protocol_version < wire::kProtocolVersionMin ||
      message.protocol_version > wire::kProtocolVersion + 1) {
    if (worth_a_line(now, "version of peer " + message.cms_name)) {
      effects.push_back(LogEvent{LogEvent::Level::kError,
                                 "peer " + message.cms_name + " at " + address + " speaks protocol version " +
                                     std::to_string(message.protocol_version) + "; it is not listened to"});
    }
    return;
  }
  const PeerTable::Heard heard = peers_.on_message(now, address, fleet_id_, message);
  if (heard.newly_foreign && worth_a_line(now, "fleet of peer " + message.cms_name)) {
    effects.push_back(LogEvent{LogEvent::Level::kError, "peer " + message.cms_name + " at " + address +
                                                            " is refused: its store is of fleet " +
                                                            to_string(message.fleet_id) + ", ours of fleet " +
                                                            to_string(fleet_id_)});
  }
  if (heard.peer == nullptr) {
    if (heard.changed) reconsider_all(now, effects);
    schedule(now, effects);
    return;
  }
  if (heard.newly_live) {
    effects.push_back(
        LogEvent{LogEvent::Level::kInfo, "peer " + message.cms_name + " at " + address + " is live"});
  }
  if (heard.missed) {
    reconcile_wanted_ = true;
    next_tick_at_ = std::min(next_tick_at_, now);
  }
  if (const auto* beat = std::get_if<wire::PeerBeat>(&message.body)) {
    const auto& wanted = beat->wants_greeting;
    if (std::find(wanted.begin(), wanted.end(), config_.incarnation) != wanted.end())
      greet(now, message.incarnation, effects);
  } else if (heard.repeated) {
    return;
  } else if (const auto* stored = std::get_if<wire::PeerStored>(&message.body)) {
    IndexStored effect;
    for (const wire::StoredCheckpoint& one : stored->checkpoints) effect.rows.push_back(row_of(one));
    effects.push_back(std::move(effect));
  } else if (const auto* withdrawn = std::get_if<wire::PeerWithdrawn>(&message.body)) {
    effects.push_back(NoteWithdrawn{withdrawn->program, withdrawn->up_to});
  } else if (const auto* removed = std::get_if<wire::PeerRemoved>(&message.body)) {
    effects.push_back(NoteRemoved{removed->blobs});
  } else if (const auto* pinned = std::get_if<wire::PeerPinned>(&message.body)) {
    effects.push_back(NotePinned{pinned->checkpoint, pinned->pinned});
  } else if (const auto* quarantined = std::get_if<wire::PeerQuarantined>(&message.body)) {
    NoteQuarantined effect;
    for (const wire::StoredCheckpoint& one : quarantined->checkpoints)
      effect.names.push_back(row_of(one).name);
    effects.push_back(std::move(effect));
  } else if (const auto* given = std::get_if<wire::PeerIncarnations>(&message.body)) {
    for (const SessionId& id : given->incarnations) note_known(now, id);
    if (!given->incarnations.empty()) effects.push_back(NoteIncarnations{given->incarnations});
    // After a gap it may be the rest of a greeting of several pages: it is asked for once more.
    if (given->greets == config_.incarnation && !heard.missed) {
      heard.peer->greeted = true;
      release_hellos(now, effects);
    }
  }
  if (heard.changed || heard.newly_live) {
    reconsider_all(now, effects);
    schedule(now, effects);
  }
}

void CmsCore::on_peer_indexed(Instant now, const std::vector<storage::BlobName>& names, Effects& effects) {
  std::set<ProgramKey> programs;
  for (const storage::BlobName& name : names) programs.insert(name.checkpoint.program);
  ask_retention(programs, effects);
  for (const storage::BlobName& name : names) {
    ++counters_.peer_stored;
    failures_.erase(name.checkpoint);
    if (config_.pull_every) continue;  // Its own pull decides.
    const ProgramKey& key = name.checkpoint.program;
    const auto it = programs_.find(key);
    if (it == programs_.end()) continue;
    Program& program = it->second;
    const Version version = name.checkpoint.version;
    note_known(now, SessionId{key.ecu_mac, version.incarnation});
    if (program.withdrawn && version <= *program.withdrawn) continue;
    note_stored(program, version);
    if (program.transfer != 0) {
      const Transfer& transfer = transfers_.at(program.transfer);
      const Version pulled = transfer.announcement.version();
      // What lies completely with the store is finished; of two blobs of one checkpoint one stays.
      if (!transfer.finishing && pulled <= version) {
        if (pulled == version) {
          send_receipt(transfer.announcement, ReceiptLevel::kStored, Code::kOk, {}, effects);
        } else {
          supersede(now, transfer.announcement, version, "a newer checkpoint is stored", effects);
        }
        end_transfer(program.transfer, false, effects);
      }
    }
    consider(now, key, program, effects);
    forget_if_idle(key);
  }
  schedule(now, effects);
}

void CmsCore::on_peer_not_indexed(Instant now, const Error& error, Effects& effects) {
  reconcile_wanted_ = true;
  if (!worth_a_line(now, "index")) return;
  effects.push_back(LogEvent{LogEvent::Level::kError, "index: " + error.message()});
}

void CmsCore::on_peer_withdrawn(Instant now, const ProgramKey& program, const Version& up_to,
                                Effects& effects) {
  apply_withdrawn(now, program, up_to, effects);
}

// ---- who pulls

Instant CmsCore::pull_at(Instant now, const ProgramKey& key, const Program& program) const {
  if (config_.pull_every || peers_.peers().empty()) return now;
  const PeerTable::Peer* peer = peers_.puller_of(key, config_.name, takes_pulls());
  if (peer == nullptr) return now;
  const Instant since = program.unstored_since.value_or(now);
  if (now < since + kPeerPullMax) return since + kPeerPullMax;
  const bool at_it = peer->pulling.count(key) != 0;
  const bool busy = now - peer->progress_at < kPeerSilentMax && now < since + kPeerBusyMax;
  return at_it || busy ? now + kPeerBeatInterval : now;
}

void CmsCore::reconsider_all(Instant now, Effects& effects) {
  for (auto& [key, program] : programs_) {
    if (program.pending && program.transfer == 0) consider(now, key, program, effects);
  }
}

// ---- incarnations

bool CmsCore::may_assign(Instant now) const {
  if (config_.peer_count == 0 || peers_.greeted_count() >= config_.peer_count) return true;
  return started_at_ && now - *started_at_ >= kGreetingMax;
}

void CmsCore::release_hellos(Instant now, Effects& effects) {
  if (held_hellos_.empty() || !may_assign(now)) return;
  for (ReserveIncarnation& hello : held_hellos_) effects.push_back(std::move(hello));
  held_hellos_.clear();
}

// ---- time

void CmsCore::check_peers(Instant now, Effects& effects) {
  const std::vector<std::string> silent = peers_.fallen_silent(now);
  for (const std::string& name : silent) {
    effects.push_back(
        LogEvent{LogEvent::Level::kWarning, "peer " + name + " is silent; its pulls are taken over"});
  }
  if (!silent.empty()) {
    // It may have stored something and not lived to tell.
    reconcile_wanted_ = true;
    next_reconcile_at_ = std::min(next_reconcile_at_, now);
    reconsider_all(now, effects);
  }
  if (!unheard_looked_for_ && config_.peer_count > 0 && now - *started_at_ >= kGreetingMax) {
    unheard_looked_for_ = true;
    // A peer that died before we heard it may have stored something behind our first look.
    if (peers_.peers().size() < config_.peer_count) reconcile_wanted_ = true;
  }
  if (reconcile_wanted_ && store_status_.ok() && now >= next_reconcile_at_) {
    reconcile_wanted_ = false;
    next_reconcile_at_ = now + kPeerReconcileInterval;
    ++counters_.reconciled_for_peers;
    effects.push_back(ReconcileStore{});
    for (auto& [key, program] : programs_) {
      program.known = Program::Known::kNo;
      if (program.pending) consider(now, key, program, effects);
    }
  }
  release_hellos(now, effects);
  if (config_.peer_count > 0 && now >= next_beat_at_) {
    next_beat_at_ = now + kPeerBeatInterval;
    tell_peers(effects);
    say_beat(now, effects);
  }
}

}  // namespace cms::core
