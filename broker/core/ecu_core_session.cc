// The sessions of an EcuCore, one after the other: what it holds goes on from one incarnation to the next, and what
// a CMS has said of the former one counts no more.
#include <algorithm>
#include <utility>

#include "broker/core/ecu_core.h"

#include "base/assert.h"
#include "base/prng.h"

namespace cms::broker {

using wire::ReceiptLevel;

// Is a larger incarnation than ours in the way of a checkpoint that is newer all the same? The CMS that
// gave us ours had not heard of that one (ADR 6). Two things prove it, and neither compares clocks: the
// larger one was known before we were given ours; or what stands in the way was there before this
// checkpoint was published, and its session has ended. (Of two that live the larger one has its way.)
bool EcuCore::is_outdated(Instant now, const wire::Receipt& receipt) const {
  if (config_.guarded) return false;  // Its incarnation is its place in the log of its ECU.
  if (now < renew_from_ || next_incarnation(receipt.newer.incarnation, config_.nonce) == 0) return false;
  const auto age_ms = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(now - assigned_at_).count());
  if (receipt.newer_known_ms > age_ms) return true;
  if (receipt.newer_lives) return false;
  const auto told = told_newer_.find(receipt.program_id);
  return told != told_newer_.end() && receipt.newer <= told->second.version &&
         receipt.seq > told->second.last_seq;
}

void EcuCore::note_newer(const wire::Receipt& receipt) {
  const auto told = told_newer_.find(receipt.program_id);
  if (told != told_newer_.end() && receipt.newer <= told->second.version) return;
  if (told == told_newer_.end() && told_newer_.size() >= kToldNewerCountMax) told_newer_.clear();
  told_newer_[receipt.program_id] = ToldNewer{receipt.newer, last_seq_};
}

// Goes on as a session with an incarnation above that one: what is held is announced again, with the
// same seqs. What was STORED under the former one stays stored, but is not the newest.
void EcuCore::renew_incarnation(Instant now, Incarnation above, Effects& effects) {
  const Incarnation larger = next_incarnation(above, config_.nonce);
  CMS_ASSERT(larger > above);
  renew_from_ = now + renew_pause_;
  renew_pause_ = std::min<Duration>(renew_pause_ * 2, kRenewPauseMax);
  leave_incarnation(effects);
  incarnation_ = larger;
  next_beat_at_ = now;
  for (CmsIndex cms = 0; cms < cms_.size(); ++cms) send_hello(now, cms, effects);
  renew_frozen(effects);
}

// Nothing is given out, prepared or told under the present incarnation any more.
void EcuCore::leave_incarnation(Effects& effects) {
  for (auto it = held_.begin(); it != held_.end();) {
    Held& held = it->second;
    if (held.superseded) {  // Its pull ends here.
      it = release(it, ReceiptLevel::kSuperseded, Code::kSuperseded,
                   "a newer checkpoint of the program was published", effects);
      continue;
    }
    for (const auto& [peer, transfer_id] : server_.end_transfers_of(id_of(held))) {
      effects.push_back(SendTransferError{
          peer, wire::TransferError{transfer_id, Code::kSuperseded, "the session takes a new incarnation"}});
    }
    held.stored_by = 0;
    ++it;
  }
  told_newer_.clear();
  if (!target_) return;
  RestoreEffects restore_effects;
  target_->end_session("the session that it was prepared under has ended", restore_effects);
  pass_on(restore_effects, effects);
}

// A session after one that has ended for good. It has no incarnation until a CMS assigns one, and says Hello after
// `pause`.
void EcuCore::begin_next_session(Instant now, Duration pause, Effects& effects) {
  leave_incarnation(effects);
  incarnation_ = 0;
  next_beat_at_ = kNever;
  ++session_count_;
  // One after the other from the first: a run of the core can be repeated.
  nonce_ = Prng(config_.nonce + session_count_).next();
  pending_asks_.clear();
  asked_ = false;
  lease_.begin_session();
  for (CmsIndex cms = 0; cms < cms_.size(); ++cms) {
    Cms& state = cms_[cms];
    // What was sent on a dead connection would come late; and ZeroMQ notices only after minutes.
    if (state.state == CmsState::kLive && now - state.heard_at > 2 * kHeartbeatInterval)
      effects.push_back(ReconnectControl{cms});
    if (pause == Duration::zero()) {
      send_hello(now, cms, effects);
    } else {
      if (state.state != CmsState::kHelloSent) state.connected_at = now;
      state.state = CmsState::kHelloSent;  // on_time says it.
      state.said_at = now + pause - kHelloRetry;
    }
  }
}

}  // namespace cms::broker
