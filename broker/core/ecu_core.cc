#include "broker/core/ecu_core.h"

#include <algorithm>
#include <utility>

namespace cms::broker {
namespace {

using wire::ReceiptLevel;

// The notify connection is made anew when a live CMS has not heard it for so long.
constexpr Duration kNotifySilenceMax = std::chrono::seconds(5);

}  // namespace

EcuCore::EcuCore(EcuCoreConfig config)
    : config_(std::move(config)), nonce_(config_.nonce), cms_(config_.cms_count), lease_(config_.cms_count) {
  CMS_ASSERT(config_.cms_count >= 1 && config_.cms_count <= kCmsCountMax);
  CMS_ASSERT(is_valid_ecu_mac(config_.ecu_mac));
  if (config_.target) target_.emplace(*config_.target);
}

void EcuCore::start(Instant now, Effects& effects) {
  for (CmsIndex cms = 0; cms < cms_.size(); ++cms) send_hello(now, cms, effects);
}

// ---- publishing

void EcuCore::publish(Instant now, wire::Notification notification, std::unique_ptr<BlobSource> source,
                      Effects& effects) {
  CMS_ASSERT(!stopped_);
  CMS_ASSERT(notification.seq == last_seq_ + 1);
  CMS_ASSERT(source != nullptr);
  last_seq_ = notification.seq;
  const ProgramId program_id = notification.program_id;
  const std::uint64_t memory_bytes = source->memory_bytes();
  if (frozen_.is_frozen(program_id)) {  // What was told to be its last checkpoint must remain it.
    source.reset();
    effects.push_back(ReceiptEvent{program_id, last_seq_, ReceiptLevel::kDropped, Code::kPermission,
                                   "the program is frozen for a move to another ECU", true, incarnation_});
    return;
  }
  if (config_.guarded && !take_guarded(now, notification, effects)) return;
  note_life(notification);

  // What finds no room must not cost an older checkpoint of its program its place.
  if (!can_make_room(program_id, memory_bytes)) {
    source.reset();
    effects.push_back(ReceiptEvent{program_id, last_seq_, ReceiptLevel::kDropped, Code::kLimit,
                                   "no room: " + std::to_string(held_memory_bytes_) + " of " +
                                       std::to_string(config_.memory_budget_bytes) +
                                       " bytes of the memory budget and " + std::to_string(held_.size()) +
                                       " of " + std::to_string(kHeldCountMax) +
                                       " blobs are held and not yet stored",
                                   true, incarnation_});
    note_last_ended(program_id, last_seq_, 0, Code::kLimit, effects);
    return;
  }
  supersede_older(program_id, effects);
  make_room(memory_bytes, effects);
  Held held;
  held.notification = std::move(notification);
  held.source = std::move(source);
  held_memory_bytes_ += memory_bytes;
  const auto it = held_.emplace(last_seq_, std::move(held)).first;
  held_of_program_[program_id].insert(last_seq_);
  if (live_cms_count() == 0) return;
  announce(it->second, effects);
  // A CMS that never heard us on the notify channel (its subscription takes a moment to reach us)
  // learns of it here and asks LIST.
  for (CmsIndex cms = 0; cms < cms_.size(); ++cms) {
    if (cms_[cms].state == CmsState::kLive && cms_[cms].notify_heard == 0) send_heartbeat(now, cms, effects);
  }
}

void EcuCore::announce(Held& held, Effects& effects) {
  effects.push_back(
      SendNotify{wire::NotifyMessage{SessionId{config_.ecu_mac, incarnation_}, held.notification}});
  if (held.announced) return;
  held.announced = true;
  effects.push_back(ReceiptEvent{held.notification.program_id,
                                 held.notification.seq,
                                 ReceiptLevel::kAnnounced,
                                 Code::kOk,
                                 {},
                                 false,
                                 incarnation_});
}

// A newer checkpoint takes the place of those of its program that nobody has begun to pull. What is
// being pulled goes on, and what was STORED stays until the newer one is stored as well.
void EcuCore::supersede_older(ProgramId program_id, Effects& effects) {
  const auto of_program = held_of_program_.find(program_id);
  if (of_program == held_of_program_.end()) return;
  const std::set<Seq> seqs = of_program->second;  // A copy: release() edits the set.
  for (const Seq seq : seqs) {
    const auto it = held_.find(seq);
    CMS_ASSERT(it != held_.end());
    if (it->second.stored_by != 0 || it->second.superseded) continue;
    if (server_.serves(id_of(it->second))) {
      it->second.superseded = true;
      continue;
    }
    release(it, ReceiptLevel::kSuperseded, Code::kSuperseded,
            "a newer checkpoint of the program was published", effects);
  }
}

bool EcuCore::fits(std::uint64_t memory_bytes) const {
  return held_.size() < kHeldCountMax && memory_bytes <= config_.memory_budget_bytes &&
         held_memory_bytes_ <= config_.memory_budget_bytes - memory_bytes;
}

// What may be freed for something newer: what is stored but not yet replicated, and what was
// superseded while it was pulled (its pull has ended, but nobody said how).
bool EcuCore::can_go(const Held& held) const {
  return (held.stored_by != 0 || held.superseded) && !server_.serves(id_of(held));
}

bool EcuCore::can_make_room(ProgramId program_id, std::uint64_t memory_bytes) const {
  if (fits(memory_bytes)) return true;
  std::uint64_t left_bytes = 0;
  std::size_t left_count = 0;
  for (const auto& [seq, held] : held_) {
    const bool replaced = held.notification.program_id == program_id && !server_.serves(id_of(held));
    if (replaced || can_go(held)) continue;
    left_bytes += held.source->memory_bytes();
    ++left_count;
  }
  return left_count < kHeldCountMax && memory_bytes <= config_.memory_budget_bytes &&
         left_bytes <= config_.memory_budget_bytes - memory_bytes;
}

// Frees what can go, oldest first, until `memory_bytes` fit.
void EcuCore::make_room(std::uint64_t memory_bytes, Effects& effects) {
  for (auto it = held_.begin(); it != held_.end() && !fits(memory_bytes);) {
    if (can_go(it->second)) {
      it = release(it, ReceiptLevel::kSuperseded, Code::kLimit, "freed to make room for a newer checkpoint",
                   effects);
    } else {
      ++it;
    }
  }
  CMS_ASSERT(fits(memory_bytes));
}

EcuCore::HeldMap::iterator EcuCore::release(HeldMap::iterator it, ReceiptLevel level, Code code,
                                            std::string reason, Effects& effects) {
  Held& held = it->second;
  const ProgramId program_id = held.notification.program_id;
  const Seq seq = it->first;
  for (const auto& [peer, transfer_id] : server_.end_transfers_of(id_of(held))) {
    effects.push_back(SendTransferError{peer, wire::TransferError{transfer_id, Code::kSuperseded, reason}});
  }
  const std::uint64_t memory_bytes = held.source->memory_bytes();
  CMS_ASSERT(held_memory_bytes_ >= memory_bytes);
  held_memory_bytes_ -= memory_bytes;
  const auto of_program = held_of_program_.find(program_id);
  CMS_ASSERT(of_program != held_of_program_.end());
  of_program->second.erase(seq);
  if (of_program->second.empty()) {
    held_of_program_.erase(of_program);
  } else if (level == ReceiptLevel::kDropped) {
    // With its successor gone, what was kept only for its pull is wanted again.
    held_.at(*of_program->second.rbegin()).superseded = false;
  }
  const Incarnation incarnation = level == ReceiptLevel::kStored ? held.stored_under : incarnation_;
  const bool stored = held.stored_by != 0 && level != ReceiptLevel::kDropped;
  const Incarnation stored_under = stored ? held.stored_under : 0;
  const auto next = held_.erase(it);
  effects.push_back(ReceiptEvent{program_id, seq, level, code, std::move(reason), true, incarnation});
  note_last_ended(program_id, seq, stored_under, code, effects);
  return next;
}

// ---- sessions with the CMS instances

void EcuCore::send_hello(Instant now, CmsIndex cms, Effects& effects) {
  Cms& state = cms_[cms];
  if (state.state != CmsState::kHelloSent) state.connected_at = now;
  state.state = CmsState::kHelloSent;
  state.said_at = now;
  wire::Hello hello;
  hello.ecu_mac = config_.ecu_mac;
  hello.incarnation = incarnation_;
  hello.nonce = nonce_;
  hello.guarded = config_.guarded;
  if (config_.guarded) {
    hello.boot_id = config_.boot_id;
    hello.enforcer = config_.enforcer;
  }
  hello.host_id = config_.host_id;
  hello.bulk_port = config_.bulk_port;
  hello.advertise_host = config_.advertise_host;
  hello.software = config_.software;
  hello.last_seq = last_seq_;
  if (target_ && !config_.only_restarts)
    hello.features = wire::kEcuFeatureMetrics | wire::kEcuFeatureRestores;
  if (config_.freezes) hello.features |= wire::kEcuFeatureFreezes;
  effects.push_back(SendControl{cms, wire::ControlMessage{incarnation_, std::move(hello)}});
}

void EcuCore::on_hello_answer(Instant now, CmsIndex cms, const wire::HelloAnswer& answer, Effects& effects) {
  if (answer.code == Code::kNotFound) {  // It was restarted and does not know us.
    const Cms& state = cms_[cms];
    const bool said_just_now = state.state == CmsState::kHelloSent && now - state.said_at < kHelloRetry;
    if (said_just_now) return;
    send_hello(now, cms, effects);
    settle_replicated(effects);
    return;
  }
  if (answer.nonce != nonce_) return;  // For an earlier owner of this connection, or of an earlier session.
  if (answer.code == Code::kFenced && config_.guarded) {
    effects.push_back(CmsEvent{cms, CmsEvent::Kind::kRefused, answer.context});
    end_lease(now, "the session has ended: " + answer.context, effects);
    return;
  }
  if (answer.code != Code::kOk) {
    cms_[cms].state = CmsState::kHelloSent;  // on_time says Hello again.
    cms_[cms].said_at = now + (config_.guarded ? kGuardedRefusedPause : kRefusedPause) - kHelloRetry;
    effects.push_back(CmsEvent{cms, CmsEvent::Kind::kRefused, answer.context});
    settle_replicated(effects);
    return;
  }
  if (answer.incarnation == 0) return;  // Not an answer that a CMS gives.
  if (incarnation_ == 0) {
    incarnation_ = answer.incarnation;
    assigned_at_ = now;
    next_beat_at_ = now;
    renew_frozen(effects);  // What was frozen in a former session is named under the new one.
    for (CmsIndex other = 0; other < cms_.size(); ++other) {
      if (other != cms) send_hello(now, other, effects);  // Under the incarnation we now have.
    }
  }
  if (answer.incarnation != incarnation_) return;  // It gave one too, but later; ours stands.
  make_live(now, cms, answer, effects);
}

void EcuCore::make_live(Instant now, CmsIndex cms, const wire::HelloAnswer& answer, Effects& effects) {
  Cms& state = cms_[cms];
  state.heard_at = now;
  if (config_.guarded) lease_.set_length(cms, std::chrono::milliseconds(answer.lease_ms));
  if (state.state == CmsState::kLive) return;
  state.state = CmsState::kLive;
  state.next_heartbeat_at = now;
  state.notify_heard_at = now;
  state.notify_heard = 0;
  state.name = answer.cms_name;
  effects.push_back(CmsEvent{cms, CmsEvent::Kind::kLive, answer.cms_name});
  // The CMS asks LIST on its own; this is for the publisher's receipts.
  for (auto& [seq, held] : held_) {
    if (!held.announced && !held.superseded) announce(held, effects);
  }
  for (auto& [request_id, withdrawal] : withdrawals_) send_withdrawal(now, request_id, withdrawal, effects);
  for (auto& [request_id, migration] : migrations_) {
    if (migration.asked == 0) ask_migration(now, migration, effects);
  }
}

void EcuCore::on_control(Instant now, CmsIndex cms, const wire::ControlMessage& message, Effects& effects) {
  CMS_ASSERT(cms < cms_.size());
  if (stopped_) return;
  watch_lease(now, effects);  // What follows may be done only while it lives.
  if (const auto* answer = std::get_if<wire::HelloAnswer>(&message.body)) {
    on_hello_answer(now, cms, *answer, effects);
    return;
  }
  if (incarnation_ == 0 || message.incarnation != incarnation_) return;  // Not of this session.
  Cms& state = cms_[cms];
  state.heard_at = now;
  if (const auto* answer = std::get_if<wire::HeartbeatAnswer>(&message.body)) {
    if (answer->notify_heard != state.notify_heard) {
      state.notify_heard = answer->notify_heard;
      state.notify_heard_at = now;
    }
    if (config_.guarded && answer->leased) on_leased(now, cms, answer->number, effects);
  } else if (const auto* list = std::get_if<wire::List>(&message.body)) {
    on_list(cms, *list, effects);
  } else if (const auto* receipt = std::get_if<wire::Receipt>(&message.body)) {
    on_receipt(now, cms, *receipt, effects);
  } else if (const auto* withdrawn = std::get_if<wire::WithdrawAnswer>(&message.body)) {
    on_withdraw_answer(*withdrawn, effects);
  } else if (const auto* migrates = std::get_if<wire::MigrateAnswer>(&message.body)) {
    on_migrate_answer(now, cms, *migrates, effects);
  } else if (std::holds_alternative<wire::Freeze>(message.body) ||
             std::holds_alternative<wire::Thaw>(message.body)) {
    on_move_command(now, cms, message.body, effects);
  } else if (const auto* ask = std::get_if<wire::AskPrograms>(&message.body)) {
    on_ask_programs(cms, *ask, effects);
  } else if (target_) {
    on_restore_command(now, cms, message.body, effects);
  }  // The rest is what ECUs send; a CMS that sends it is ignored.
  tell_lease({}, effects);
}

void EcuCore::on_list(CmsIndex cms, const wire::List& list, Effects& effects) {
  wire::ListPage page;
  page.last_seq = last_seq_;
  for (auto it = held_.lower_bound(list.from_seq); it != held_.end(); ++it) {
    if (it->second.superseded) continue;
    if (page.notifications.size() == wire::kListPageCountMax) {
      page.next_seq = it->first;
      page.end = false;
      break;
    }
    page.notifications.push_back(it->second.notification);
  }
  effects.push_back(SendControl{cms, wire::ControlMessage{incarnation_, std::move(page)}});
}

void EcuCore::on_receipt(Instant now, CmsIndex cms, const wire::Receipt& receipt, Effects& effects) {
  if (receipt.level == ReceiptLevel::kSuperseded && receipt.newer.incarnation > incarnation_) {
    if (is_outdated(now, receipt)) {
      renew_incarnation(now, receipt.newer.incarnation, effects);
      return;
    }
    note_newer(receipt);
  }
  if (receipt.level == ReceiptLevel::kFenced) {
    on_fenced(receipt, effects);
    return;
  }
  const auto it = held_.find(receipt.seq);
  if (it == held_.end() || it->second.notification.program_id != receipt.program_id)
    return;  // Freed already.
  switch (receipt.level) {
    case ReceiptLevel::kStored:
    case ReceiptLevel::kReplicated: on_stored(cms, it, effects); break;
    case ReceiptLevel::kVerified:
      effects.push_back(ReceiptEvent{receipt.program_id, receipt.seq, receipt.level, receipt.code,
                                     receipt.reason, false, incarnation_});
      break;
    case ReceiptLevel::kSuperseded:
    case ReceiptLevel::kDropped:
      // A CMS that already has it stored does not lose it by another's refusal; but the end of the
      // program's life is the end of it everywhere.
      if (it->second.stored_by != 0 && receipt.code != Code::kWithdrawn) {
        if (receipt.level == ReceiptLevel::kSuperseded) on_superseded_elsewhere(cms, it, receipt, effects);
        break;
      }
      if (receipt.level == ReceiptLevel::kSuperseded) {
        release_older(receipt.program_id, receipt.seq, receipt.reason, effects);
      }
      release(it, receipt.level, receipt.code, receipt.reason, effects);
      break;
    case ReceiptLevel::kAnnounced:
    case ReceiptLevel::kPulling:
    case ReceiptLevel::kFenced: break;  // We know these ourselves, or have dealt with it.
  }
}

// Ends what is older than `seq`: now that is of no use to anybody.
void EcuCore::release_older(ProgramId program_id, Seq seq, const std::string& reason, Effects& effects) {
  const std::set<Seq> seqs = held_of_program_.at(program_id);  // A copy: release() edits the set.
  for (const Seq older : seqs) {
    if (older >= seq) break;
    release(held_.find(older), ReceiptLevel::kSuperseded, Code::kSuperseded, reason, effects);
  }
}

void EcuCore::on_stored(CmsIndex cms, HeldMap::iterator it, Effects& effects) {
  Held& held = it->second;
  const std::uint32_t bit = std::uint32_t{1} << cms;
  if ((held.stored_by & bit) != 0) return;  // Receipts are repeated.
  const bool first = held.stored_by == 0;
  held.stored_by |= bit;
  const ProgramId program_id = held.notification.program_id;
  const Seq seq = it->first;
  const bool frees_now = held.notification.policies.release == wire::Release::kStored;
  if (first) {
    release_older(program_id, seq, "a newer checkpoint of the program is stored", effects);
    if (!frees_now && held.stored_under == 0)
      effects.push_back(
          ReceiptEvent{program_id, seq, ReceiptLevel::kStored, Code::kOk, {}, false, incarnation_});
  }
  held.stored_under = incarnation_;
  if (frees_now) {
    release(it, ReceiptLevel::kStored, Code::kOk, {}, effects);
  } else if (is_replicated(held)) {
    release(it, ReceiptLevel::kReplicated, Code::kOk, {}, effects);
  }
}

bool EcuCore::is_replicated(const Held& held) const {
  std::size_t stored_count = 0;
  for (CmsIndex cms = 0; cms < cms_.size(); ++cms) {
    const bool stored = (held.stored_by >> cms & 1U) != 0;
    if (stored) ++stored_count;
    if (!stored && cms_[cms].state == CmsState::kLive) return false;
  }
  return stored_count >= std::min<std::size_t>(2, cms_.size());
}

// One CMS has it stored; this one has something newer and will never store it. Is that of another
// session, then no receipt of ours ends this one later.
void EcuCore::on_superseded_elsewhere(CmsIndex cms, HeldMap::iterator it, const wire::Receipt& receipt,
                                      Effects& effects) {
  if (*held_of_program_.at(receipt.program_id).rbegin() != receipt.seq) return;
  it->second.stored_by |= std::uint32_t{1} << cms;
  if (is_replicated(it->second)) release(it, receipt.level, receipt.code, receipt.reason, effects);
}

void EcuCore::settle_replicated(Effects& effects) {
  for (auto it = held_.begin(); it != held_.end();) {
    if (it->second.stored_by != 0 && is_replicated(it->second)) {
      it = release(it, ReceiptLevel::kReplicated, Code::kOk, {}, effects);
    } else {
      ++it;
    }
  }
}

void EcuCore::send_heartbeat(Instant now, CmsIndex cms, Effects& effects) {
  Cms& state = cms_[cms];
  state.next_heartbeat_at = now + kHeartbeatInterval;
  ++state.heartbeat_number;
  effects.push_back(SendControl{
      cms, wire::ControlMessage{incarnation_, wire::Heartbeat{state.heartbeat_number, last_seq_,
                                                              waiting_for(cms), programs_changed_count_}}});
  if (config_.guarded) lease_.on_sent(now, cms, state.heartbeat_number);
  tell_frozen(cms, effects);
}

std::uint32_t EcuCore::waiting_for(CmsIndex cms) const {
  std::uint32_t count = 0;
  for (const auto& [seq, held] : held_) {
    if ((held.stored_by >> cms & 1U) == 0 && !held.superseded) ++count;
  }
  return count;
}

// ---- withdrawing

Status EcuCore::withdraw(Instant now, std::uint64_t request_id, ProgramId program_id, Effects& effects) {
  if (withdrawals_.size() >= kWithdrawCountMax) {
    return make_error(Code::kLimit, std::to_string(kWithdrawCountMax) + " withdrawals wait for an answer");
  }
  frozen_.on_program_ended(program_id);
  const auto of_program = held_of_program_.find(program_id);
  if (of_program != held_of_program_.end()) {
    const std::set<Seq> seqs = of_program->second;
    for (const Seq seq : seqs) {
      release(held_.find(seq), ReceiptLevel::kDropped, Code::kWithdrawn, "the program was withdrawn",
              effects);
    }
  }
  lives_.erase(program_id);
  if (target_) target_->on_program_ended(program_id);
  programs_.on_ended(program_id);
  tell_lease({}, effects);
  Withdrawal& withdrawal = withdrawals_[request_id];
  withdrawal.program_id = program_id;
  withdrawal.seq = last_seq_;
  send_withdrawal(now, request_id, withdrawal, effects);
  return ok_status();
}

void EcuCore::cancel_withdraw(std::uint64_t request_id) { withdrawals_.erase(request_id); }

void EcuCore::send_withdrawal(Instant now, std::uint64_t request_id, Withdrawal& withdrawal,
                              Effects& effects) {
  withdrawal.next_send_at = now + kWithdrawRetry;
  for (CmsIndex cms = 0; cms < cms_.size(); ++cms) {
    if (cms_[cms].state != CmsState::kLive) continue;
    effects.push_back(SendControl{
        cms, wire::ControlMessage{incarnation_,
                                  wire::Withdraw{request_id, withdrawal.program_id, withdrawal.seq}}});
  }
}

void EcuCore::on_withdraw_answer(const wire::WithdrawAnswer& answer, Effects& effects) {
  if (answer.code == Code::kUnavailable) return;  // Its store is away; the retry goes on.
  if (withdrawals_.erase(answer.request_id) == 0) return;
  effects.push_back(WithdrawDone{answer.request_id, answer.code, answer.context});
}

// ---- time

void EcuCore::on_time(Instant now, Effects& effects) {
  if (stopped_) return;
  watch_lease(now, effects);
  bool cms_lost = false;
  bool notify_unheard = false;
  for (CmsIndex cms = 0; cms < cms_.size(); ++cms) {
    Cms& state = cms_[cms];
    if (state.state == CmsState::kLive) {
      if (now - state.heard_at >= kControlSilenceMax) {
        effects.push_back(CmsEvent{cms, CmsEvent::Kind::kSilent, state.name});
        effects.push_back(ReconnectControl{cms});
        send_hello(now, cms, effects);
        cms_lost = true;
      } else if (now >= state.next_heartbeat_at) {
        send_heartbeat(now, cms, effects);
        notify_unheard = notify_unheard || now - state.notify_heard_at >= kNotifySilenceMax;
      }
    } else if (now - state.said_at >= kHelloRetry) {
      if (now - state.connected_at >= kReconnectInterval) {
        effects.push_back(ReconnectControl{cms});
        state.connected_at = now;
      }
      send_hello(now, cms, effects);
    }
  }
  if (notify_unheard) {
    for (Cms& state : cms_) state.notify_heard_at = now;
    effects.push_back(ReconnectNotify{});
  }
  if (cms_lost) settle_replicated(effects);
  if (target_) {
    RestoreEffects restore_effects;
    target_->on_time(now, restore_effects);
    pass_on(restore_effects, effects);
  }
  for (auto& [request_id, withdrawal] : withdrawals_) {
    if (now >= withdrawal.next_send_at) send_withdrawal(now, request_id, withdrawal, effects);
  }
  for (auto& [request_id, migration] : migrations_) {
    if (now >= migration.next_ask_at) ask_migration(now, migration, effects);
  }
  retry_stops(now, effects);
  if (now >= next_beat_at_) {
    next_beat_at_ = now + kHeartbeatInterval;
    effects.push_back(
        SendNotify{wire::NotifyMessage{SessionId{config_.ecu_mac, incarnation_}, wire::Beat{last_seq_}}});
    server_.expire(now);
  }
}

Instant EcuCore::next_deadline() const {
  if (stopped_) return kNever;
  Instant deadline = std::min({next_beat_at_, lease_.next_deadline(), programs_.next_deadline()});
  for (const Cms& state : cms_) {
    deadline = std::min(deadline, state.state == CmsState::kLive
                                      ? std::min(state.next_heartbeat_at, state.heard_at + kControlSilenceMax)
                                      : state.said_at + kHelloRetry);
  }
  for (const auto& [request_id, withdrawal] : withdrawals_)
    deadline = std::min(deadline, withdrawal.next_send_at);
  for (const auto& [request_id, migration] : migrations_)
    deadline = std::min(deadline, migration.next_ask_at);
  if (target_) deadline = std::min(deadline, target_->next_deadline());
  return deadline;
}

std::size_t EcuCore::live_cms_count() const {
  return static_cast<std::size_t>(
      std::count_if(cms_.begin(), cms_.end(), [](const Cms& cms) { return cms.state == CmsState::kLive; }));
}

void EcuCore::stop(Effects& effects) {
  if (stopped_) return;
  prepare_stop(effects);
  frozen_ = FrozenPrograms{};
  if (incarnation_ != 0) {
    for (CmsIndex cms = 0; cms < cms_.size(); ++cms) {
      if (cms_[cms].state != CmsState::kSilent) {
        effects.push_back(SendControl{cms, wire::ControlMessage{incarnation_, wire::Bye{}}});
      }
    }
  }
  while (!held_.empty()) {
    const bool stored = held_.begin()->second.stored_under != 0;
    release(held_.begin(), stored ? ReceiptLevel::kStored : ReceiptLevel::kDropped,
            stored ? Code::kOk : Code::kCancelled, stored ? "" : "the client was closed", effects);
  }
  withdrawals_.clear();
  migrations_.clear();
  stopped_ = true;
}

}  // namespace cms::broker
