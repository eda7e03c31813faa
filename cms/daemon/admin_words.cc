#include "cms/daemon/admin_words.h"

#include <algorithm>

namespace cms::daemon {

const char* to_text(CoreSnapshot::State state) {
  switch (state) {
    case CoreSnapshot::State::kAnnounced: return "announced";
    case CoreSnapshot::State::kPulling: return "pulling";
    case CoreSnapshot::State::kFailed: return "failed";
  }
  return "";
}

const char* to_text(CoreSnapshot::Peer::State state) {
  using PeerState = CoreSnapshot::Peer::State;
  return state == PeerState::kLive ? "live" : state == PeerState::kSilent ? "silent" : "refused";
}

const char* to_text(ScrubRun::State state) {
  switch (state) {
    case ScrubRun::State::kWaiting: return "waiting";
    case ScrubRun::State::kRunning: return "running";
    case ScrubRun::State::kDone: return "done";
    case ScrubRun::State::kBrokenOff: return "broken off";
  }
  return "";
}

const char* scrub_state(const ScrubFacts& scrub) {
  return scrub.rate_bytes_per_s == 0 ? "off"
         : scrub.waits_for_store     ? "waiting for the store"
         : scrub.resting             ? "resting"
                                     : "reading";
}

const char* index_state(const DaemonFacts& facts) {
  const IndexFacts& index = facts.index;
  const bool running = facts.reconcile_running;
  return !index.damage.empty()              ? "damaged"
         : running && index.rebuilding      ? "rebuilding"
         : running                          ? "comparing"
         : !facts.reconcile_trouble.empty() ? "waiting"
         : index.completing                 ? "completing"
         : facts.reconcile_done             ? "ok"
                                            : "waiting";
}

const char* health_of(const std::vector<Problem>& problems) {
  Problem::Severity worst = Problem::Severity::kNotice;
  for (const Problem& problem : problems) worst = std::max(worst, problem.severity);
  return worst == Problem::Severity::kError     ? "down"
         : worst == Problem::Severity::kWarning ? "degraded"
                                                : "ok";
}

std::int64_t milliseconds(Duration duration) {
  return std::max<std::int64_t>(0, std::chrono::duration_cast<std::chrono::milliseconds>(duration).count());
}

double seconds_in(Duration duration) { return std::chrono::duration<double>(duration).count(); }

std::uint64_t per_second(std::uint64_t count, Duration duration) {
  const double seconds = seconds_in(duration);
  return seconds > 0 ? static_cast<std::uint64_t>(static_cast<double>(count) / seconds) : 0;
}

std::optional<std::uint64_t> seconds_left(std::uint64_t done, std::uint64_t total, Duration took) {
  if (done == 0 || done > total) return std::nullopt;
  return static_cast<std::uint64_t>(
      seconds_in(took) / static_cast<double>(done) * static_cast<double>(total - done) + 0.5);
}

}  // namespace cms::daemon
