// Targets: what each ECU has free, asked when somebody wants to know.
#include <map>
#include <utility>

#include "cms/core/cms_core.h"

namespace cms::core {

void CmsCore::ask_metrics(Instant now, Effects& effects) {
  for (auto& [id, session] : sessions_) {
    if ((session.features & wire::kEcuFeatureMetrics) == 0) continue;
    if (session.metrics && now - session.measured_at < kMetricsAskedAfter) continue;
    if (session.metrics_asked_at && now - *session.metrics_asked_at < kMetricsAskedAfter) continue;
    session.metrics_asked_at = now;
    effects.push_back(SendControl{
        session.peer, wire::ControlMessage{id.incarnation, wire::MetricsAsk{++session.metrics_asked}}});
  }
}

void CmsCore::on_metrics(Instant now, Session& session, const wire::Metrics& metrics) {
  // An answer to an earlier question says how it was then, and may come after a newer one.
  if (metrics.number != session.metrics_asked || !session.metrics_asked_at) return;
  session.metrics_asked_at.reset();
  session.metrics = metrics;
  session.measured_at = now - std::chrono::milliseconds(metrics.age_ms);
}

std::size_t CmsCore::metrics_awaited(Instant now) const {
  std::size_t count = 0;
  for (const auto& [id, session] : sessions_) {
    if (session.metrics_asked_at && now - *session.metrics_asked_at < kMetricsWaitMax) ++count;
  }
  return count;
}

std::vector<Candidate> CmsCore::candidates(Instant now) const {
  std::vector<Candidate> found;
  for (const auto& [id, session] : sessions_) {  // By ecu_mac, then incarnation.
    Candidate candidate;
    candidate.session = id;
    candidate.live = now - session.heard_at <= kLiveHeartbeatMax;
    candidate.enforced = session.guarded && session.enforcer != wire::Enforcer::kNone;
    if (session.guarded && !leases_->is_leased(now, id)) candidate.live = false;
    candidate.takes_restores = (session.features & wire::kEcuFeatureRestores) != 0;
    candidate.metrics = session.metrics;
    if (candidate.metrics && leases_ != nullptr && leases_->in_maintenance(id.ecu_mac))
      candidate.metrics->draining = true;
    candidate.metrics_age = now - session.measured_at;
    for (auto hosted = hosted_.lower_bound(ProgramKey{id.ecu_mac, 0});
         hosted != hosted_.end() && hosted->first.ecu_mac == id.ecu_mac; ++hosted) {
      candidate.hosted.push_back(hosted->second);
    }
    candidate.freezes = (session.features & wire::kEcuFeatureFreezes) != 0;
    const bool same_ecu = !found.empty() && found.back().session.ecu_mac == id.ecu_mac;
    if (same_ecu && found.back().freezes) candidate.freezes = true;
    if (same_ecu && candidate.freezes) found.back().freezes = true;
    if (!same_ecu) {
      found.push_back(std::move(candidate));
      continue;
    }
    const auto guarded = sessions_.find(found.back().session);
    if (guarded->second.guarded) continue;
    if (session.guarded || candidate.takes_restores || !found.back().takes_restores)
      found.back() = std::move(candidate);
  }
  return found;
}

const CmsCore::Session* CmsCore::source_of(const ProgramKey& program) const {
  const auto known = programs_.find(program);
  const std::optional<Version> stored = known == programs_.end() ? std::nullopt : known->second.newest_stored;
  // The one that announced it; after a restart of ours, the one whose checkpoint is stored; else it may be any.
  const auto rank_of = [&](const Session& session) {
    if (session.programs.count(program.program_id) != 0) return 2;
    return stored && stored->incarnation == session.id.incarnation ? 1 : 0;
  };
  const Session* best = nullptr;
  for (auto it = sessions_.lower_bound(SessionId{program.ecu_mac, 0});
       it != sessions_.end() && it->first.ecu_mac == program.ecu_mac; ++it) {
    const Session& session = it->second;
    if ((session.features & wire::kEcuFeatureFreezes) == 0) continue;
    if (best == nullptr || rank_of(session) >= rank_of(*best))
      best = &session;  // Of equal ones the youngest.
  }
  return best;
}

}  // namespace cms::core
