// Guarded sessions: their HELLO stands in the log of their ECU, and their heartbeats renew run leases (leases.h).
#include <utility>

#include "cms/core/cms_core.h"

namespace cms::core {

bool CmsCore::may_be_guarded(Instant now, const PeerId& peer, const wire::Hello& hello, Effects& effects) {
  if (leases_ == nullptr) {
    refuse_hello(now, peer, hello, Code::kUnsupported, "this CMS gives no run leases", effects);
    return false;
  }
  const auto known = session_of_peer_.find(peer);
  const bool same_client = known != session_of_peer_.end() && known->second.ecu_mac == hello.ecu_mac;
  const Status may = leases_->on_hello(now, hello, same_client);
  if (may.ok()) return true;
  refuse_hello(now, peer, hello, may.code(), may.error().context, effects);
  return false;
}

void CmsCore::on_hello_recorded(Instant now, const RecordHello& asked, const Result<wire::EcuRecord>& head,
                                Effects& effects) {
  const ReserveIncarnation& hello = asked.asked;
  const auto in_work = hellos_in_work_.find({hello.peer, hello.hello.nonce});
  if (in_work == hellos_in_work_.end() || in_work->second != hello.hello.incarnation) return;
  hellos_in_work_.erase(in_work);
  if (!head.ok()) {
    refuse_hello(now, hello.peer, hello.hello, head.error().code, head.error().message(), effects);
    return;
  }
  const SessionId id = session_of(*head);
  // The log has gone on since it was read there.
  const wire::EcuRecord* newest = leases_->head_of(id.ecu_mac);
  if (newest != nullptr && newest->slot > head->slot &&
      (session_of(*newest) != id || newest->kind != wire::EcuRecordKind::kHello)) {
    refuse_hello(now, hello.peer, hello.hello, Code::kFenced,
                 "session " + to_string(id) + " has ended meanwhile; begin a new one", effects);
    return;
  }
  if (const auto known = sessions_.find(id); known != sessions_.end()) {
    if (known->second.nonce == hello.hello.nonce) {  // It said Hello on two connections.
      rebind(known->second, hello.peer, hello.peer_address, hello.hello);
      known->second.heard_at = now;
      answer_hello(known->second, effects);
      return;
    }
    // An incarnation of a session that is not guarded: it has to make way, and takes a larger one.
    end_session(now, id, Code::kSuperseded, "a guarded session goes by its incarnation", effects);
  }
  open_session(now, hello, id.incarnation, effects);
  effects.push_back(GuardedBegun{id});
  schedule(now, effects);
}

void CmsCore::on_guarded_ended(Instant now, const SessionId& session, const std::string& why,
                               Effects& effects) {
  const auto known = sessions_.find(session);
  if (known == sessions_.end() || !known->second.guarded) return;
  end_session(now, session, Code::kPublisherGone, why, effects);
}

bool CmsCore::renew_lease(Instant now, Session& session, const wire::Heartbeat& heartbeat, Effects& effects) {
  const bool leased = leases_->on_heartbeat(now, session.id, lease_effects_);
  if (heartbeat.programs_changed > session.programs_changed) {
    session.programs_changed = heartbeat.programs_changed;
    effects.push_back(GuardedBegun{session.id});
  }
  return leased;
}

// With the policies that take effect: nothing is restored by itself whose ECU does not make sure that it has stopped.
wire::Manifest CmsCore::manifest_of(const Announcement& announcement) const {
  wire::Manifest manifest;
  manifest.session = announcement.session;
  manifest.notification = announcement.notification;
  manifest.chunk_size_bytes = announcement.notification.chunk_size_bytes;
  manifest.stored_by = config_.name;
  wire::Policies& policies = manifest.notification.policies;
  const auto session = sessions_.find(announcement.session);
  const bool enforced = session != sessions_.end() && session->second.guarded &&
                        session->second.enforcer != wire::Enforcer::kNone;
  if (!enforced || policies.on_isolation != wire::OnIsolation::kStop) policies.on_loss = wire::OnLoss::kAsk;
  return manifest;
}

}  // namespace cms::core
