// Sessions: who is there, what each has told us, and how we make sure that nothing was missed. The
// notify channel may lose anything; (incarnation, seq) is the record, and LIST repairs every gap.
#include <algorithm>
#include <limits>
#include <utility>

#include "cms/core/cms_core.h"

namespace cms::core {
namespace {

// A waiting publisher and nothing in motion here, so often in a row: a receipt was lost.
constexpr std::uint32_t kIdleHeartbeatsMax = 2;
constexpr Duration kLogInterval = std::chrono::minutes(1);
constexpr std::size_t kLoggedCountMax = 4096;

// Key of the log's memory.
std::string dropped(const SessionId& id) { return "dropped " + to_string(id); }

}  // namespace

std::string endpoint_of(const std::string& host, std::uint16_t port) {
  const bool ipv6 = host.find(':') != std::string::npos;
  return "tcp://" + (ipv6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

void CmsCore::on_control(Instant now, const PeerId& peer, const std::string& peer_address,
                         const wire::ControlMessage& message, Effects& effects) {
  if (const auto* hello = std::get_if<wire::Hello>(&message.body)) {
    on_hello(now, peer, peer_address, *hello, effects);
    return;
  }
  Session* session = session_of_peer(peer, message.incarnation);
  if (session == nullptr) {
    if (std::holds_alternative<wire::Bye>(message.body)) return;
    wire::HelloAnswer answer;  // We were restarted, or gave it up: it shall say Hello.
    answer.code = Code::kNotFound;
    answer.cms_name = config_.name;
    answer.context = "no session " + std::to_string(message.incarnation) + " on this connection; say Hello";
    effects.push_back(SendControl{peer, wire::ControlMessage{message.incarnation, std::move(answer)}});
    return;
  }
  session->heard_at = now;
  if (const auto* heartbeat = std::get_if<wire::Heartbeat>(&message.body)) {
    on_heartbeat(now, *session, *heartbeat, effects);
  } else if (const auto* page = std::get_if<wire::ListPage>(&message.body)) {
    on_list_page(now, *session, *page, effects);
  } else if (const auto* withdraw = std::get_if<wire::Withdraw>(&message.body)) {
    on_withdraw(*session, *withdraw, effects);
  } else if (const auto* metrics = std::get_if<wire::Metrics>(&message.body)) {
    on_metrics(now, *session, *metrics);
  } else if (const auto* report = std::get_if<wire::RestoreReport>(&message.body)) {
    effects.push_back(TargetReported{session->id, *report});
  } else if (const auto* frozen = std::get_if<wire::FreezeReport>(&message.body)) {
    effects.push_back(SourceReported{session->id, *frozen});
  } else if (const auto* migrate = std::get_if<wire::Migrate>(&message.body)) {
    effects.push_back(MigrateAsked{session->id, *migrate});
  } else if (const auto* programs = std::get_if<wire::Programs>(&message.body)) {
    if (session->guarded) effects.push_back(ProgramsTold{session->id, *programs});
  } else if (std::holds_alternative<wire::Bye>(message.body)) {
    if (session->guarded) leases_->on_bye(now, session->id, lease_effects_);
    end_session(now, session->id, Code::kPublisherGone, "it said BYE", effects);
  } else {
    const SessionId id = session->id;
    note_malformed(now, to_string(id), make_error(Code::kProtocol, "a message that only a CMS sends"),
                   effects);
    end_session(now, id, Code::kProtocol, "it broke the protocol", effects);
  }
  schedule(now, effects);
}

CmsCore::Session* CmsCore::session_of_peer(const PeerId& peer, Incarnation incarnation) {
  const auto it = session_of_peer_.find(peer);
  if (it == session_of_peer_.end() || it->second.incarnation != incarnation) return nullptr;
  const auto session = sessions_.find(it->second);
  CMS_ASSERT(session != sessions_.end());
  return &session->second;
}

// ---- Hello

void CmsCore::refuse_hello(Instant now, const PeerId& peer, const wire::Hello& hello, Code code,
                           std::string context, Effects& effects) {
  ++counters_.refused_hellos;
  // It tries again every few seconds, for ever.
  if (worth_a_line(now, "refused " + to_string(hello.ecu_mac) + " " + std::string(to_string(code)))) {
    effects.push_back(LogEvent{LogEvent::Level::kWarning,
                               "refused the hello of " + to_string(hello.ecu_mac) + ": " + context});
  }
  wire::HelloAnswer answer;
  answer.nonce = hello.nonce;
  answer.cms_name = config_.name;
  answer.code = code;
  answer.context = std::move(context);
  effects.push_back(SendControl{peer, wire::ControlMessage{hello.incarnation, std::move(answer)}});
}

void CmsCore::on_hello(Instant now, const PeerId& peer, const std::string& peer_address,
                       const wire::Hello& hello, Effects& effects) {
  if (hello.protocol_version_min > wire::kProtocolVersion ||
      hello.protocol_version < wire::kProtocolVersionMin) {
    refuse_hello(now, peer, hello, Code::kUnsupported,
                 "protocol versions " + std::to_string(hello.protocol_version_min) + " to " +
                     std::to_string(hello.protocol_version) + " are spoken there, " +
                     std::to_string(wire::kProtocolVersionMin) + " to " +
                     std::to_string(wire::kProtocolVersion) + " here",
                 effects);
    return;
  }
  if (!hello.advertise_host.empty() && config_.advertise_allowed.count(hello.advertise_host) == 0) {
    refuse_hello(
        now, peer, hello, Code::kPermission,
        "the advertised host '" + hello.advertise_host + "' is not among allow_advertise of this CMS",
        effects);
    return;
  }
  if (hello.bulk_port == 0) {
    refuse_hello(now, peer, hello, Code::kInvalidArgument, "Hello.bulk_port: 0 (allowed: 1 to 65535)",
                 effects);
    return;
  }
  if (hello.guarded && !may_be_guarded(now, peer, hello, effects)) return;
  // Known already? Then the answer was lost, or the connection is a new one.
  for (auto it = sessions_.lower_bound(SessionId{hello.ecu_mac, 0});
       it != sessions_.end() && it->first.ecu_mac == hello.ecu_mac; ++it) {
    Session& session = it->second;
    if (session.nonce == hello.nonce &&
        (hello.incarnation == 0 || hello.incarnation == session.id.incarnation)) {
      rebind(session, peer, peer_address, hello);
      session.heard_at = now;
      answer_hello(session, effects);
      tell_fences(session, hello.last_seq, effects);
      want_list(session, 1, now);  // Receipts may have been lost with the old connection.
      send_list(now, session, effects);
      return;
    }
    if (hello.incarnation != 0 && hello.incarnation == session.id.incarnation) {
      refuse_hello(now, peer, hello, Code::kAlreadyExists,
                   "session " + to_string(session.id) + " lives on another connection; start anew", effects);
      return;
    }
  }
  if (sessions_.size() + hellos_in_work_.size() >= kSessionCountMax) {
    refuse_hello(now, peer, hello, Code::kLimit, std::to_string(kSessionCountMax) + " sessions are open",
                 effects);
    return;
  }
  // A client that was given an incarnation elsewhere meanwhile says Hello again, under that one.
  const auto [in_work, first] = hellos_in_work_.emplace(std::pair(peer, hello.nonce), hello.incarnation);
  if (!first && in_work->second == hello.incarnation) return;
  in_work->second = hello.incarnation;
  ReserveIncarnation reserve{peer, peer_address, hello};
  if (hello.incarnation == 0 && !may_assign(now)) {
    held_hellos_.push_back(std::move(reserve));
    return;
  }
  effects.push_back(std::move(reserve));
}

void CmsCore::on_incarnation_reserved(Instant now, const ReserveIncarnation& asked,
                                      const Result<Incarnation>& incarnation, Effects& effects) {
  const auto in_work = hellos_in_work_.find({asked.peer, asked.hello.nonce});
  if (in_work == hellos_in_work_.end() || in_work->second != asked.hello.incarnation) return;
  if (asked.hello.guarded && incarnation.ok() && *incarnation != 0) {
    effects.push_back(RecordHello{asked, *incarnation});
    return;
  }
  hellos_in_work_.erase(in_work);
  if (!incarnation.ok()) {
    refuse_hello(now, asked.peer, asked.hello, Code::kUnavailable, incarnation.error().message(), effects);
    return;
  }
  if (*incarnation == 0) {
    refuse_hello(now, asked.peer, asked.hello, Code::kLimit,
                 "no incarnations are left for " + to_string(asked.hello.ecu_mac), effects);
    return;
  }
  if (sessions_.count(SessionId{asked.hello.ecu_mac, *incarnation}) != 0) {
    // By another client, or by this one, which said Hello on two connections.
    on_hello(now, asked.peer, asked.peer_address, asked.hello, effects);
    return;
  }
  open_session(now, asked, *incarnation, effects);
  schedule(now, effects);
}

void CmsCore::open_session(Instant now, const ReserveIncarnation& asked, Incarnation incarnation,
                           Effects& effects) {
  // The same client under an incarnation that it did not take, since another CMS was faster, or that it
  // goes by no more.
  std::vector<SessionId> untaken;
  for (auto it = sessions_.lower_bound(SessionId{asked.hello.ecu_mac, 0});
       it != sessions_.end() && it->first.ecu_mac == asked.hello.ecu_mac; ++it) {
    if (it->second.nonce == asked.hello.nonce) untaken.push_back(it->first);
  }
  for (const SessionId& id : untaken) {
    end_session(now, id, Code::kSuperseded, "it goes by incarnation " + std::to_string(incarnation), effects);
  }
  note_known(now, SessionId{asked.hello.ecu_mac, incarnation});
  Session fresh;
  fresh.id = SessionId{asked.hello.ecu_mac, incarnation};
  fresh.nonce = asked.hello.nonce;
  fresh.guarded = asked.hello.guarded;
  fresh.enforcer = asked.hello.enforcer;
  fresh.software = asked.hello.software;
  fresh.heard_at = now;
  fresh.since = now;
  Session& session = sessions_.emplace(fresh.id, std::move(fresh)).first->second;
  rebind(session, asked.peer, asked.peer_address, asked.hello);
  if (logged_at_.count(dropped(session.id)) == 0) {
    effects.push_back(LogEvent{LogEvent::Level::kInfo, "session " + to_string(session.id) +
                                                           " opened, blobs at " +
                                                           endpoint_of(session.host, session.bulk_port)});
  }
  say(wire::PeerIncarnations{{session.id}, 0}, effects);  // Before it is used.
  answer_hello(session, effects);
  tell_fences(session, asked.hello.last_seq, effects);
  want_list(session, 1, now);
  send_list(now, session, effects);
}

void CmsCore::rebind(Session& session, const PeerId& peer, const std::string& peer_address,
                     const wire::Hello& hello) {
  const auto old = session_of_peer_.find(session.peer);
  if (old != session_of_peer_.end() && old->second == session.id) session_of_peer_.erase(old);
  session_of_peer_[peer] = session.id;
  session.peer = peer;
  session.peer_address = peer_address;
  session.host = hello.advertise_host.empty() ? peer_address : hello.advertise_host;
  session.bulk_port = hello.bulk_port;
  session.features = hello.features;
}

void CmsCore::answer_hello(const Session& session, Effects& effects) {
  wire::HelloAnswer answer;
  answer.nonce = session.nonce;
  answer.incarnation = session.id.incarnation;
  answer.cms_name = config_.name;
  if (session.guarded) {
    answer.lease_ms = static_cast<std::uint32_t>(
        std::chrono::duration_cast<std::chrono::milliseconds>(leases_->timers().ecu_fence).count());
  }
  effects.push_back(
      SendControl{session.peer, wire::ControlMessage{session.id.incarnation, std::move(answer)}});
}

void CmsCore::end_session(Instant now, SessionId id, Code code, const std::string& why, Effects& effects) {
  const auto it = sessions_.find(id);
  CMS_ASSERT(it != sessions_.end());
  Session& session = it->second;
  const bool goes_on = code == Code::kSuperseded;  // Under another incarnation, and announces all again.
  std::size_t unfinished_count = 0;
  // What lies completely with the store is finished; everything else cannot be had any more.
  const std::set<TransferId> transfers = session.transfers;
  for (const TransferId transfer_id : transfers) {
    const Transfer& transfer = transfers_.at(transfer_id);
    if (transfer.finishing) continue;
    ++unfinished_count;
    if (!goes_on)
      remember_failure(transfer.name.checkpoint, code, "session ended while its blob was pulled: " + why);
    end_transfer(transfer_id, false, effects);
  }
  for (const ProgramId program_id : session.programs) {
    const ProgramKey key{id.ecu_mac, program_id};
    Program& program = programs_.at(key);
    CMS_ASSERT(program.session_count > 0);
    --program.session_count;
    if (program.pending && program.pending->session == id) {
      if (pull_at(now, key, program) <= now) {  // Else a peer had it to pull, and knows better.
        ++unfinished_count;
        if (!goes_on)
          remember_failure(CheckpointId{key, program.pending->version()}, code,
                           "session ended before its blob was pulled: " + why);
      }
      clear_pending(program);
    }
    consider(now, key, program, effects);  // Another session's may have waited for a pull that ended here.
    forget_if_idle(key);
  }
  close_link(session, effects);
  const auto peer = session_of_peer_.find(session.peer);
  if (peer != session_of_peer_.end() && peer->second == id) session_of_peer_.erase(peer);
  const bool worth_a_warning = (unfinished_count > 0 && !goes_on) || code == Code::kProtocol;
  // A peer that breaks the protocol comes back at once, for ever.
  const bool repeated = code == Code::kProtocol && !worth_a_line(now, dropped(id));
  if (!repeated)
    effects.push_back(LogEvent{
        worth_a_warning ? LogEvent::Level::kWarning : LogEvent::Level::kInfo,
        "session " + to_string(id) + " ended (" + why + ")" +
            (goes_on ? "" : ", " + std::to_string(unfinished_count) + " checkpoints of it were not stored")});
  sessions_.erase(it);
  schedule(now, effects);
}

// Since when an incarnation is known here; a client that started later must have a larger one.
void CmsCore::note_known(Instant now, const SessionId& id) {
  if (!known_since_.emplace(id, now).second) return;
  const auto first = known_since_.lower_bound(SessionId{id.ecu_mac, 0});
  const auto last = known_since_.upper_bound(SessionId{id.ecu_mac, std::numeric_limits<Incarnation>::max()});
  if (static_cast<std::size_t>(std::distance(first, last)) > kKnownPerEcuMax) known_since_.erase(first);
  if (known_since_.size() > kKnownCountMax) known_since_.erase(known_since_.begin());
}

// ---- what a session says

void CmsCore::on_heartbeat(Instant now, Session& session, const wire::Heartbeat& heartbeat,
                           Effects& effects) {
  const bool leased = session.guarded && renew_lease(now, session, heartbeat, effects);
  effects.push_back(SendControl{
      session.peer,
      wire::ControlMessage{session.id.incarnation,
                           wire::HeartbeatAnswer{heartbeat.number, session.notify_heard, leased}}});
  if (heartbeat.last_seq > session.applied_seq) {
    // Its notification may be on its way on the other channel; give it a moment.
    want_list(session, session.applied_seq + 1, session.notify_heard == 0 ? now : now + kListGrace);
  }
  if (heartbeat.waiting == 0) {
    session.idle_heartbeats = 0;
  } else {
    const bool in_motion =
        std::any_of(session.programs.begin(), session.programs.end(), [&](ProgramId program_id) {
          const Program& program = programs_.at(ProgramKey{session.id.ecu_mac, program_id});
          return program.pending.has_value() || program.transfer != 0;
        });
    session.idle_heartbeats = in_motion ? 0 : session.idle_heartbeats + 1;
    if (session.idle_heartbeats > kIdleHeartbeatsMax) {
      session.idle_heartbeats = 0;
      want_list(session, 1, now);
    }
  }
  if (session.list_from && !session.list_sent && now >= session.list_at) send_list(now, session, effects);
}

void CmsCore::on_notify(Instant now, const wire::NotifyMessage& message, Effects& effects) {
  const auto it = sessions_.find(message.session);
  if (it == sessions_.end()) {
    ++counters_.unknown_sessions;  // Its Hello is yet to come, and LIST with it.
    return;
  }
  Session& session = it->second;
  ++session.notify_heard;
  if (const auto* beat = std::get_if<wire::Beat>(&message.body)) {
    if (beat->last_seq > session.applied_seq) want_list(session, session.applied_seq + 1, now + kListGrace);
    return;
  }
  const auto& notification = std::get<wire::Notification>(message.body);
  ++counters_.notifications;
  if (notification.seq <= session.applied_seq || session.seen_beyond.count(notification.seq) != 0) {
    ++counters_.duplicates;
    return;
  }
  if (notification.seq > session.applied_seq + 1) {
    ++counters_.gaps;
    want_list(session, session.applied_seq + 1, now);
  }
  mark_applied(session, notification.seq);
  take(now, session, notification, effects);
  if (session.list_from && !session.list_sent && now >= session.list_at) send_list(now, session, effects);
  schedule(now, effects);
}

void CmsCore::mark_applied(Session& session, Seq seq) {
  if (seq > session.applied_seq) {
    if (session.seen_beyond.size() < kSeenBeyondMax || seq == session.applied_seq + 1)
      session.seen_beyond.insert(seq);
  }
  while (!session.seen_beyond.empty() && *session.seen_beyond.begin() <= session.applied_seq + 1) {
    session.applied_seq = std::max(session.applied_seq, *session.seen_beyond.begin());
    session.seen_beyond.erase(session.seen_beyond.begin());
  }
}

void CmsCore::want_list(Session& session, Seq from_seq, Instant at) {
  next_tick_at_ = std::min(next_tick_at_, at);
  if (session.list_from && session.list_sent) {
    // Under way from a later seq on: ask again from here when it has ended or failed.
    if (from_seq < *session.list_from) {
      session.list_from = from_seq;
      session.list_sent = false;
      session.list_at = at;
    }
    return;
  }
  session.list_at = session.list_from ? std::min(session.list_at, at) : at;
  session.list_from = session.list_from ? std::min(*session.list_from, from_seq) : from_seq;
}

void CmsCore::send_list(Instant now, Session& session, Effects& effects) {
  CMS_ASSERT(session.list_from.has_value());
  session.list_sent = true;
  session.list_at = now + kListRetry;
  effects.push_back(SendControl{
      session.peer, wire::ControlMessage{session.id.incarnation, wire::List{*session.list_from}}});
}

void CmsCore::on_list_page(Instant now, Session& session, const wire::ListPage& page, Effects& effects) {
  if (!session.list_from || !session.list_sent) return;  // Not asked for (any more).
  Seq listed_seq = 0;
  bool in_order = true;
  for (const wire::Notification& notification : page.notifications) {
    in_order = in_order && notification.seq > listed_seq && notification.seq <= page.last_seq;
    listed_seq = notification.seq;
  }
  const bool moves_on = page.end || (listed_seq > 0 && page.next_seq > listed_seq);
  if (!moves_on || !in_order) {
    const SessionId id = session.id;
    note_malformed(now, to_string(id), make_error(Code::kProtocol, "a list page that is out of order"),
                   effects);
    end_session(now, id, Code::kProtocol, "it broke the protocol", effects);
    return;
  }
  for (const wire::Notification& notification : page.notifications) take(now, session, notification, effects);
  if (!page.end) {
    if (page.next_seq <= *session.list_from) return;  // A second answer to a LIST that was repeated.
    session.list_from = page.next_seq;
    send_list(now, session, effects);
    return;
  }
  session.list_from.reset();
  session.list_sent = false;
  session.applied_seq = std::max(session.applied_seq, page.last_seq);
  mark_applied(session, session.applied_seq);
}

void CmsCore::on_withdraw(Session& session, const wire::Withdraw& withdraw, Effects& effects) {
  const ProgramKey key{session.id.ecu_mac, withdraw.program_id};
  const std::uint64_t request_id = withdraw.request_id;
  for (const auto& [ticket, request] : withdraw_requests_) {
    if (request.session == session.id && request.request_id == request_id) return;  // In work.
  }
  if (withdraw_requests_.size() >= kWithdrawalCountMax) {
    const wire::WithdrawAnswer answer{
        request_id, Code::kUnavailable,
        std::to_string(kWithdrawalCountMax) + " withdrawals are in work; try again"};
    effects.push_back(SendControl{session.peer, wire::ControlMessage{session.id.incarnation, answer}});
    return;
  }
  if (withdraw.seq == 0 && session.id.incarnation <= 1) {  // Nothing can be older; no CMS gives it out.
    const wire::WithdrawAnswer answer{request_id, Code::kOk, {}};
    effects.push_back(SendControl{session.peer, wire::ControlMessage{session.id.incarnation, answer}});
    return;
  }
  const std::uint64_t ticket = ++last_ticket_;
  withdraw_requests_[ticket] = WithdrawRequest{session.id, request_id};
  WithdrawProgram effect;
  effect.ticket = ticket;
  effect.program = key;
  const auto known = programs_.find(key);
  effect.lineage = known == programs_.end() || known->second.lineage == Lineage{} ? lineage_of(key)
                                                                                  : known->second.lineage;
  // A session that has published nothing yet ends what older ones have; its own first checkpoint of the
  // program begins a new life.
  effect.up_to = withdraw.seq > 0 ? Version{session.id.incarnation, withdraw.seq}
                                  : Version{session.id.incarnation - 1, std::numeric_limits<Seq>::max()};
  effects.push_back(effect);
}

// ---- time and damage

void CmsCore::check_sessions(Instant now, Effects& effects) {
  std::vector<SessionId> silent;
  for (auto& [id, session] : sessions_) {
    if (now - session.heard_at >= config_.ecu_dead) {
      silent.push_back(id);
      continue;
    }
    if (session.list_from && now >= session.list_at) {
      const bool filled_meanwhile = !session.list_sent && session.applied_seq >= *session.list_from &&
                                    session.seen_beyond.empty() && *session.list_from > 1;
      if (filled_meanwhile) {
        session.list_from.reset();
      } else {
        send_list(now, session, effects);
      }
    }
    if (session.link != 0 && session.transfers.empty() && now - session.link_used_at >= kLinkIdleMax) {
      close_link(session, effects);
    }
  }
  for (const SessionId& id : silent) {
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(config_.ecu_dead).count();
    end_session(now, id, Code::kPublisherGone, "silent for " + std::to_string(seconds) + " s", effects);
  }
}

bool CmsCore::worth_a_line(Instant now, const std::string& what) {
  const auto it = logged_at_.find(what);
  if (it != logged_at_.end() && now - it->second < kLogInterval) return false;
  if (it == logged_at_.end() && logged_at_.size() >= kLoggedCountMax) logged_at_.erase(logged_at_.begin());
  logged_at_[what] = now;
  return true;
}

void CmsCore::note_malformed(Instant now, const std::string& whose, const Error& error, Effects& effects) {
  ++counters_.malformed;
  if (!worth_a_line(now, whose)) return;
  effects.push_back(
      LogEvent{LogEvent::Level::kWarning, "bad message from " + whose + ": " + error.message()});
}

void CmsCore::on_malformed_control(Instant now, const PeerId& peer, const std::string& peer_address,
                                   const Error& error, Effects& effects) {
  const auto it = session_of_peer_.find(peer);
  if (it == session_of_peer_.end()) {
    note_malformed(now, peer_address, error, effects);
    return;
  }
  const SessionId id = it->second;
  note_malformed(now, to_string(id), error, effects);
  end_session(now, id, Code::kProtocol, "it broke the protocol", effects);
}

void CmsCore::on_malformed_bulk(Instant now, LinkId link, const Error& error, Effects& effects) {
  const Session* session = session_of_link(link);
  if (session == nullptr) return;  // Closed meanwhile.
  const SessionId id = session->id;
  note_malformed(now, to_string(id), error, effects);
  end_session(now, id, Code::kProtocol, "it broke the protocol", effects);
}

void CmsCore::on_malformed_notify(Instant now, const std::string& peer_address, const Error& error,
                                  Effects& effects) {
  note_malformed(now, peer_address, error, effects);
}

}  // namespace cms::core
