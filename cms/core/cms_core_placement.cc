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

std::vector<Present> CmsCore::present() const {
  std::vector<Present> found;
  const Session* chosen = nullptr;               // Of the last one found.
  for (const auto& [id, session] : sessions_) {  // By ecu_mac, then incarnation.
    const bool freezes = (session.features & wire::kEcuFeatureFreezes) != 0;
    if (found.empty() || found.back().session.ecu_mac != id.ecu_mac) {
      found.push_back(Present{id, freezes});
      chosen = &session;
      continue;
    }
    Present& present = found.back();
    present.freezes = present.freezes || freezes;
    const auto takes = [](const Session& one) { return (one.features & wire::kEcuFeatureRestores) != 0; };
    if (chosen->guarded || (!session.guarded && takes(*chosen) && !takes(session))) continue;
    present.session = id;
    chosen = &session;
  }
  return found;
}

std::vector<Candidate> CmsCore::candidates(Instant now) const {
  std::vector<Candidate> found;
  for (const Present& present : present()) {
    const SessionId& id = present.session;
    const Session& session = sessions_.at(id);
    Candidate candidate;
    candidate.session = id;
    candidate.live = now - session.heard_at <= kLiveHeartbeatMax;
    candidate.enforced = session.guarded && session.enforcer != wire::Enforcer::kNone;
    if (session.guarded && !leases_->may_be_leased(now, id)) candidate.live = false;
    candidate.takes_restores = (session.features & wire::kEcuFeatureRestores) != 0;
    candidate.metrics = session.metrics;
    if (candidate.metrics && leases_ != nullptr && leases_->in_maintenance(id.ecu_mac))
      candidate.metrics->draining = true;
    candidate.metrics_age = now - session.measured_at;
    for (auto hosted = hosted_.lower_bound(ProgramKey{id.ecu_mac, 0});
         hosted != hosted_.end() && hosted->first.ecu_mac == id.ecu_mac; ++hosted) {
      candidate.hosted.push_back(hosted->second);
    }
    candidate.freezes = present.freezes;
    found.push_back(std::move(candidate));
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
