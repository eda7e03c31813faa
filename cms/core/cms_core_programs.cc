// Programs: which of the announced checkpoints is worth pulling, and what becomes of the others.
#include <algorithm>
#include <utility>

#include "cms/core/cms_core.h"

namespace cms::core {

using wire::ReceiptLevel;

void CmsCore::send_receipt(const SessionId& session_id, wire::Receipt receipt, Effects& effects) {
  const auto it = sessions_.find(session_id);
  if (it == sessions_.end()) return;  // It has gone; should it come back, LIST brings the receipt up again.
  effects.push_back(
      SendControl{it->second.peer, wire::ControlMessage{session_id.incarnation, std::move(receipt)}});
}

void CmsCore::send_receipt(const Announcement& announcement, ReceiptLevel level, Code code,
                           std::string reason, Effects& effects) {
  wire::Receipt receipt;
  receipt.program_id = announcement.notification.program_id;
  receipt.seq = announcement.notification.seq;
  receipt.level = level;
  receipt.code = code;
  receipt.reason = std::move(reason);
  if (level == ReceiptLevel::kFenced) receipt.lineage = announcement.notification.lineage;
  send_receipt(announcement.session, std::move(receipt), effects);
}

// A client whose incarnation is below that of an earlier start sees it by what is told here (ADR 6).
void CmsCore::supersede(Instant now, const Announcement& announcement, const Version& newer,
                        std::string reason, Effects& effects) {
  ++counters_.superseded;
  wire::Receipt receipt;
  receipt.program_id = announcement.notification.program_id;
  receipt.seq = announcement.notification.seq;
  receipt.level = ReceiptLevel::kSuperseded;
  receipt.code = Code::kSuperseded;
  receipt.reason = std::move(reason);
  if (newer.incarnation > announcement.session.incarnation) {
    const SessionId newer_session{announcement.session.ecu_mac, newer.incarnation};
    receipt.newer = newer;
    receipt.newer_lives = sessions_.count(newer_session) != 0;
    const auto known = known_since_.find(newer_session);
    if (known != known_since_.end()) {
      receipt.newer_known_ms = static_cast<std::uint64_t>(
          std::chrono::duration_cast<std::chrono::milliseconds>(now - known->second).count());
    }
  }
  send_receipt(announcement.session, std::move(receipt), effects);
}

void CmsCore::remember_failure(const CheckpointId& checkpoint, Code code, const std::string& reason) {
  ++counters_.failed;
  if (failures_.size() >= kFailureCountMax && failures_.count(checkpoint) == 0) {
    const auto oldest =
        std::min_element(failures_.begin(), failures_.end(),
                         [](const auto& a, const auto& b) { return a.second.at_us < b.second.at_us; });
    failures_.erase(oldest);
  }
  failures_[checkpoint] = Failure{checkpoint, code, reason, wall_us_};
}

// What it said last counts; what was never announced since this CMS began is not known.
void CmsCore::note_hosted(const ProgramKey& key, const Announcement& announcement) {
  const wire::Notification& said = announcement.notification;
  if (auto hosted = hosted_of(said.lineage, said.requirements, said.real_time)) {
    hosted_.insert_or_assign(key, std::move(*hosted));
  } else {
    hosted_.erase(key);
  }
}

// A notification, heard on the notify channel or found by LIST, for the first or the tenth time.
void CmsCore::take(Instant now, Session& session, const wire::Notification& notification, Effects& effects) {
  const ProgramKey key{session.id.ecu_mac, notification.program_id};
  if (notification.kind != wire::CheckpointKind::kFull) {
    send_receipt(Announcement{session.id, notification, now}, ReceiptLevel::kDropped, Code::kUnsupported,
                 "this CMS takes full checkpoints only", effects);
    return;
  }
  if (session.programs.count(key.program_id) == 0) {
    if (session.programs.size() >= kProgramsPerSessionMax) {
      send_receipt(Announcement{session.id, notification, now}, ReceiptLevel::kDropped, Code::kLimit,
                   "this CMS takes " + std::to_string(kProgramsPerSessionMax) + " programs of one session",
                   effects);
      return;
    }
    session.programs.insert(key.program_id);
    ++programs_[key].session_count;
  }
  Program& program = programs_[key];
  Announcement announcement{session.id, notification, now};
  if (announcement.notification.lineage == Lineage{}) announcement.notification.lineage = lineage_of(key);
  program.lineage = announcement.notification.lineage;
  note_hosted(key, announcement);
  if (const auto fence = fences_.find(key); fence != fences_.end()) program.fence = fence->second;
  const Version version = announcement.version();

  if (program.transfer != 0) {
    const Version pulled = transfers_.at(program.transfer).announcement.version();
    if (version == pulled) return;
    if (version < pulled) {
      supersede(now, announcement, pulled, "a newer checkpoint is being pulled", effects);
      return;
    }
  }
  if (program.pending) {
    const Version pending = program.pending->version();
    if (version == pending) return;
    if (version < pending) {
      supersede(now, announcement, pending, "a newer checkpoint was announced", effects);
      return;
    }
    supersede_pending(now, program, version, "a newer checkpoint was announced", effects);
  }
  set_pending(program, std::move(announcement));
  consider(now, key, program, effects);
}

void CmsCore::set_pending(Program& program, Announcement announcement) {
  CMS_ASSERT(!program.pending.has_value());
  program.pending = std::move(announcement);
  if (!program.unstored_since) program.unstored_since = program.pending->announced_at;
  program.data_attempts = 0;
  program.retries = 0;
  program.trouble.clear();
  program.not_before = Instant{};
}

void CmsCore::clear_pending(Program& program) {
  end_delay(ProgramKey{program.pending->session.ecu_mac, program.pending->notification.program_id}, program);
  program.pending.reset();
}

void CmsCore::delay(const ProgramKey& key, Program& program, Instant until) {
  end_delay(key, program);
  program.delayed_until = until;
  delayed_.insert({until, key});
  next_tick_at_ = std::min(next_tick_at_, until);
}

void CmsCore::end_delay(const ProgramKey& key, Program& program) {
  if (program.delayed_until) delayed_.erase({*program.delayed_until, key});
  program.delayed_until.reset();
}

void CmsCore::drop_pending(Program& program, Code code, const std::string& reason, Effects& effects) {
  CMS_ASSERT(program.pending.has_value());
  send_receipt(*program.pending, ReceiptLevel::kDropped, code, reason, effects);
  clear_pending(program);
}

void CmsCore::supersede_pending(Instant now, Program& program, const Version& newer, std::string reason,
                                Effects& effects) {
  CMS_ASSERT(program.pending.has_value());
  supersede(now, *program.pending, newer, std::move(reason), effects);
  clear_pending(program);
}

// Decides what to do with the pending checkpoint once the index has said what is stored.
void CmsCore::consider(Instant now, const ProgramKey& key, Program& program, Effects& effects) {
  if (!program.pending) return;
  if (program.known == Program::Known::kNo) {
    program.known = Program::Known::kAsking;
    effects.push_back(LookUpProgram{key});
    return;
  }
  if (program.known == Program::Known::kAsking) return;
  const Version version = program.pending->version();
  if (refuse_fenced(program, *program.pending, effects)) {
    clear_pending(program);
    return;
  }
  if (program.withdrawn && version <= *program.withdrawn) {
    drop_pending(program, Code::kWithdrawn, "the program was withdrawn", effects);
    return;
  }
  if (program.newest_stored && version <= *program.newest_stored) {
    if (version == *program.newest_stored && program.newest_waits) {
      program.known = Program::Known::kNo;
      retry_later(now, key, program);
      return;
    }
    if (version == *program.newest_stored) {
      send_receipt(*program.pending, ReceiptLevel::kStored, Code::kOk, {}, effects);
      clear_pending(program);
    } else {
      supersede_pending(now, program, *program.newest_stored, "a newer checkpoint is stored", effects);
    }
    return;
  }
  if (program.transfer != 0) {
    // Looked at again when that one has ended.
    if (!transfers_.at(program.transfer).waits || program.overtaken >= kOvertakenMax) return;
    ++program.overtaken;
    end_transfer(program.transfer, true, effects);
  }
  const Instant at = std::max(program.not_before, pull_at(now, key, program));
  if (now < at) {
    delay(key, program, at);
  } else {
    queue_.push(key);
  }
}

void CmsCore::note_stored(Program& program, const Version& version) {
  if (!program.newest_stored || *program.newest_stored < version) program.newest_stored = version;
  if (program.newest_stored == version) program.newest_waits = false;
  program.overtaken = 0;
  program.unstored_since.reset();
  if (program.pending && version < program.pending->version())
    program.unstored_since = program.pending->announced_at;
}

void CmsCore::on_program_looked_up(Instant now, const ProgramKey& key, const Result<ProgramFacts>& facts,
                                   Effects& effects) {
  const auto it = programs_.find(key);
  if (it == programs_.end()) return;  // Its session has ended.
  Program& program = it->second;
  if (!facts.ok()) {
    program.known = Program::Known::kNo;
    retry_later(now, key, program);
    if (worth_a_line(now, "index")) {
      effects.push_back(LogEvent{LogEvent::Level::kError, "index: " + facts.error().message()});
    }
    return;
  }
  program.known = Program::Known::kYes;
  if (facts->newest) note_known(now, SessionId{key.ecu_mac, facts->newest->incarnation});
  const auto keep_newer = [](std::optional<Version>& known, const std::optional<Version>& found) {
    if (found && (!known || *known < *found)) known = found;
  };
  if (std::exchange(program.newest_waits, false))
    program.newest_stored.reset();  // It may have gone meanwhile.
  keep_newer(program.newest_stored, facts->newest);
  program.newest_waits = facts->newest_waits && program.newest_stored == facts->newest;
  keep_newer(program.withdrawn, facts->withdrawn);
  if (facts->fence) program.fence = facts->fence;
  // The answer may be from before a withdrawal that is known meanwhile.
  if (program.withdrawn && program.newest_stored && *program.newest_stored <= *program.withdrawn) {
    program.newest_stored.reset();
  }
  consider(now, key, program, effects);
  schedule(now, effects);
}

void CmsCore::forget_if_idle(const ProgramKey& key) {
  const auto it = programs_.find(key);
  if (it == programs_.end()) return;
  Program& program = it->second;
  if (program.session_count == 0) hosted_.erase(key);
  if (program.session_count != 0 || program.pending || program.transfer != 0) return;
  end_delay(key, program);
  programs_.erase(it);
}

// ---- owners

void CmsCore::tell_fenced(const SessionId& session, ProgramId program_id, Seq seq, const Fence& fence,
                          Effects& effects) {
  wire::Receipt receipt;
  receipt.program_id = program_id;
  receipt.seq = seq;
  receipt.level = ReceiptLevel::kFenced;
  receipt.code = Code::kFenced;
  receipt.lineage = fence.lineage;
  receipt.owner_epoch = fence.owner.owner_epoch;
  receipt.reason = "the program goes on as " + to_string(fence.owner.program) + " (owner_epoch " +
                   std::to_string(fence.owner.owner_epoch) + ")";
  send_receipt(session, std::move(receipt), effects);
}

bool CmsCore::refuse_fenced(const Program& program, const Announcement& announcement, Effects& effects) {
  const wire::Notification& notification = announcement.notification;
  if (!program.fence || notification.lineage != program.fence->lineage ||
      notification.owner_epoch >= program.fence->owner.owner_epoch) {
    return false;
  }
  hosted_.erase(ProgramKey{announcement.session.ecu_mac, notification.program_id});
  tell_fenced(announcement.session, notification.program_id, notification.seq, *program.fence, effects);
  return true;
}

void CmsCore::on_owner_changed(Instant now, const ProgramKey& former, const Fence& fence, Effects& effects) {
  if (fences_.size() >= kFenceCountMax && fences_.count(former) == 0) {
    const auto oldest = std::min_element(fences_.begin(), fences_.end(), [](const auto& a, const auto& b) {
      return a.second.owner.owner_epoch < b.second.owner.owner_epoch;
    });
    fences_.erase(oldest);
  }
  fences_[former] = fence;
  const auto back = fences_.find(fence.owner.program);
  if (back != fences_.end() && back->second.lineage == fence.lineage) fences_.erase(back);
  const auto it = programs_.find(former);
  if (it == programs_.end()) return;  // Nobody publishes it now; who comes back is told.
  Program& program = it->second;
  program.fence = fence;
  if (program.lineage != fence.lineage) return;  // Another program has that program_id by now.
  // Also who has nothing that waits: what it published last may have been stored, and freed, long ago.
  for (auto it_session = sessions_.lower_bound(SessionId{former.ecu_mac, 0});
       it_session != sessions_.end() && it_session->first.ecu_mac == former.ecu_mac; ++it_session) {
    const auto& [id, session] = *it_session;
    if (session.programs.count(former.program_id) == 0) continue;
    wire::Notification last;
    last.program_id = former.program_id;
    last.lineage = fence.lineage;
    const bool stored = program.newest_stored && program.newest_stored->incarnation == id.incarnation;
    last.seq = stored ? program.newest_stored->seq : session.applied_seq;
    if (!program.pending || program.pending->session != id) {
      refuse_fenced(program, Announcement{id, last, now}, effects);
    }
  }
  consider(now, former, program, effects);
}

void CmsCore::tell_fences(const Session& session, Seq last_seq, Effects& effects) {
  if (last_seq == 0) return;  // It has published nothing.
  for (auto it = fences_.lower_bound(ProgramKey{session.id.ecu_mac, 0});
       it != fences_.end() && it->first.ecu_mac == session.id.ecu_mac; ++it) {
    tell_fenced(session.id, it->first.program_id, last_seq, it->second, effects);
  }
}

// ---- damage found in the store

void CmsCore::on_quarantined(Instant now, const storage::BlobName& name, const std::string& why,
                             const ProgramFacts& facts, bool found_here, Effects& effects) {
  const CheckpointId& checkpoint = name.checkpoint;
  if (found_here) {
    ++counters_.quarantined;
    tell_peers(effects);  // That it was stored comes first.
    wire::StoredCheckpoint gone;
    gone.checkpoint = checkpoint;
    gone.lineage = name.lineage;
    gone.owner_epoch = name.owner_epoch;
    gone.size_bytes = name.size_bytes;
    gone.uid = name.uid;
    say(wire::PeerQuarantined{{std::move(gone)}}, effects);
  }
  if (facts.newest && checkpoint.version <= *facts.newest) return;  // It is there a second time, or history.
  remember_failure(checkpoint, Code::kCorrupt, "it was damaged in the store: " + why);
  const auto it = programs_.find(checkpoint.program);
  if (it != programs_.end()) {
    Program& program = it->second;
    // The one known case in which what is stored becomes older.
    if (program.newest_stored == checkpoint.version) program.newest_stored = facts.newest;
    consider(now, checkpoint.program, program, effects);
  }
  const auto session = sessions_.find(SessionId{checkpoint.program.ecu_mac, checkpoint.version.incarnation});
  if (session != sessions_.end()) {
    want_list(session->second, checkpoint.version.seq, now);
    if (!session->second.list_sent) send_list(now, session->second, effects);
  }
  schedule(now, effects);
}

// ---- the end of a program's life

std::uint64_t CmsCore::retire(const ProgramKey& key, Effects& effects) {
  WithdrawProgram effect;
  effect.ticket = ++last_ticket_;
  effect.program = key;
  effect.lineage = lineage_of(key);  // Unless another one is known, here or to the index.
  effect.newest_too = true;
  const auto it = programs_.find(key);
  if (it != programs_.end()) {
    const Program& program = it->second;
    if (program.lineage != Lineage{}) effect.lineage = program.lineage;
    if (program.newest_stored) effect.up_to = *program.newest_stored;
    if (program.transfer != 0) {
      effect.up_to = std::max(effect.up_to, transfers_.at(program.transfer).announcement.version());
    }
    if (program.pending) effect.up_to = std::max(effect.up_to, program.pending->version());
  }
  effects.push_back(effect);
  return effect.ticket;
}

void CmsCore::on_withdrawn(Instant now, const WithdrawProgram& asked, const Result<Version>& up_to,
                           Effects& effects) {
  const auto request = withdraw_requests_.find(asked.ticket);
  if (request != withdraw_requests_.end()) {
    const auto session = sessions_.find(request->second.session);
    if (session != sessions_.end()) {
      wire::WithdrawAnswer answer;
      answer.request_id = request->second.request_id;
      if (!up_to.ok()) {
        // Whatever is wrong with the store, the publisher's retry goes on until it is well again.
        answer.code = Code::kUnavailable;
        answer.context = up_to.error().message();
      }
      effects.push_back(SendControl{session->second.peer,
                                    wire::ControlMessage{session->first.incarnation, std::move(answer)}});
    }
    withdraw_requests_.erase(request);
  }
  if (!up_to.ok()) {
    if (worth_a_line(now, "withdraw")) {
      effects.push_back(LogEvent{LogEvent::Level::kError, "could not withdraw " + to_string(asked.program) +
                                                              ": " + up_to.error().message()});
    }
    return;
  }
  effects.push_back(LogEvent{
      LogEvent::Level::kInfo,
      "withdrew " + to_string(CheckpointId{asked.program, *up_to}) + " and everything older of the program"});
  say(wire::PeerWithdrawn{asked.program, *up_to}, effects);
  apply_withdrawn(now, asked.program, *up_to, effects);
}

void CmsCore::apply_withdrawn(Instant now, const ProgramKey& key, const Version& up_to, Effects& effects) {
  const auto it = programs_.find(key);
  if (it == programs_.end()) return;
  Program& program = it->second;
  if (!program.withdrawn || *program.withdrawn < up_to) program.withdrawn = up_to;
  if (program.newest_stored && *program.newest_stored <= up_to) program.newest_stored.reset();
  if (!program.pending || program.pending->version() <= up_to) hosted_.erase(key);
  if (program.transfer != 0) {
    const Transfer& transfer = transfers_.at(program.transfer);
    // One that is finishing is judged when it is stored.
    if (!transfer.finishing && transfer.announcement.version() <= up_to) {
      send_receipt(transfer.announcement, ReceiptLevel::kDropped, Code::kWithdrawn,
                   "the program was withdrawn", effects);
      end_transfer(program.transfer, false, effects);
    }
  }
  if (program.pending && program.pending->version() <= up_to) {
    drop_pending(program, Code::kWithdrawn, "the program was withdrawn", effects);
  }
  if (!program.pending) program.unstored_since.reset();
  consider(now, key, program, effects);  // A newer one may have waited for the pull that ended here.
  schedule(now, effects);
}

}  // namespace cms::core
