#include "cms/daemon/admin_leases.h"

#include <optional>
#include <utility>

#include "cms/daemon/admin_words.h"

namespace cms::daemon {
namespace {

// Of an ECU that dies one cmsd knows that before another: their T_dead ends at different heartbeats and by different clocks,
// and each reads the other's record once a second.
constexpr Duration kHeardElsewhereMin = std::chrono::seconds(4);

}  // namespace

void find_lease_problems(const CoreSnapshot& snapshot, std::vector<Problem>& problems) {
  using Severity = Problem::Severity;
  const LeaseFacts& leases = snapshot.facts.leases;
  // One of each kind is named, and how many there are.
  struct Kind {
    std::size_t count = 0;
    std::string first;
  };
  Kind lost_waiting;
  Kind kept;
  Kind maintained;
  Kind flapping;
  std::size_t programs = 0;
  const auto add = [](Kind& kind, const std::string& text) {
    if (kind.count++ == 0) kind.first = text;
  };
  for (const auto& [ecu_mac, ecu] : leases.ecus) {
    const std::string name = to_string(ecu_mac);
    if (ecu.waiting > 0) add(lost_waiting, name);
    programs += ecu.waiting;
    if (!ecu.kept_by.empty() && ecu.barred_for >= kHeardElsewhereMin)
      add(kept, name + " (heard by " + ecu.kept_by.front() + ")");
    if (ecu.head.maintenance) add(maintained, name);
    if (ecu.shunned_for > Duration::zero()) {
      add(flapping, name + " for " + std::to_string(milliseconds(ecu.shunned_for) / 1000) + " s more");
    }
  }
  const auto and_others = [](const Kind& kind) {
    return kind.first + (kind.count > 1 ? " and " + std::to_string(kind.count - 1) + " others" : "");
  };
  if (leases.stopped_by_outage) {
    problems.push_back(
        Problem{Severity::kError,
                "the store has been away for so long that run leases have ended: programs with "
                "on_isolation = stop stand still",
                std::nullopt, "bring the store back; they go on by themselves then"});
  } else if (leases.outage_left && !snapshot.store_status.ok()) {
    problems.push_back(Problem{Severity::kWarning,
                               "programs with on_isolation = stop will stand still in " +
                                   std::to_string(milliseconds(*leases.outage_left)) +
                                   " ms, unless the store comes back",
                               std::nullopt, "bring the store back; they go on by themselves then"});
  }
  if (lost_waiting.count > 0) {
    problems.push_back(
        Problem{Severity::kError,
                std::to_string(programs) +
                    " programs of ECUs that are lost or run them no more wait for a word of yours: " +
                    and_others(lost_waiting),
                std::nullopt,
                "when you are sure that nothing runs there any more: 'cms-admin ecu failed ECU_MAC'; see "
                "'cms-admin plan "
                "--fail ECU_MAC' first"});
  }
  if (kept.count > 0) {
    problems.push_back(
        Problem{Severity::kWarning,
                "ECUs are not heard here, but by another cmsd, and have no second one to rely on: " +
                    and_others(kept),
                std::nullopt, "see the network between this host and these ECUs"});
  }
  if (flapping.count > 0) {
    problems.push_back(
        Problem{Severity::kNotice,
                "ECUs were LOST more than once, and no program is placed on them: " + and_others(flapping),
                std::nullopt, "see their links; it ends by itself"});
  }
  if (maintained.count > 0) {
    problems.push_back(Problem{Severity::kNotice,
                               "ECUs are in maintenance, their silence is no loss: " + and_others(maintained),
                               std::nullopt, "when they are back: 'cms-admin ecu maintenance ECU_MAC off'"});
  }
}

}  // namespace cms::daemon
