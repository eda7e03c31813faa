#include "cms/core/placement.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "cms/core/peers.h"

namespace cms::core {
namespace {

constexpr std::uint64_t kWhole = 1000;  // Permille.

std::string ms(Duration duration) {
  return std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(duration).count()) + " ms";
}

std::string mib(std::uint64_t bytes) { return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB"; }

std::uint64_t cpu_capacity(const wire::Metrics& metrics) {
  return std::max<std::uint64_t>(metrics.cpu_count, 1) * kWhole;
}

// In thousandths of one CPU: the ECU's load, what was placed there since, and the program.
std::uint64_t cpu_used_with(const Demand& demand, const Candidate& candidate) {
  const wire::Metrics& metrics = *candidate.metrics;
  return cpu_capacity(metrics) * metrics.cpu_load_permille / kWhole + candidate.reserved.cpu_permille +
         cpu_permille_of(demand.real_time);
}

bool is_real_time(const wire::RealTime& real_time) {
  return real_time.period_us > 0 && real_time.wcet_us > 0;
}

std::uint64_t ram_left(const Candidate& candidate) {
  const std::uint64_t available = candidate.metrics->ram_available_bytes;
  return available - std::min(available, candidate.reserved.ram_bytes);
}

// NAME of `!NAME`; empty: it is an ordinary label.
std::string_view excluded_by(std::string_view label) {
  return label.size() > 1 && label.front() == '!' ? label.substr(1) : std::string_view();
}

template <typename Texts, typename Text>
bool contains(const Texts& texts, const Text& text) {
  return std::find(texts.begin(), texts.end(), text) != texts.end();
}

// Of one CPU, what real-time programs there were promised; not this one, should it be there.
std::uint64_t promised_permille(const Demand& demand, const Candidate& candidate) {
  std::uint64_t promised = 0;
  for (const Hosted& one : candidate.hosted) {
    if (one.lineage != demand.lineage) promised += one.real_time_permille;
  }
  return promised;
}

TargetVerdict refused(TargetVerdict verdict, Ineligible ineligible, std::string why) {
  verdict.ineligible = ineligible;
  verdict.why = std::move(why);
  return verdict;
}

TargetVerdict judge(const Demand& demand, const Candidate& candidate, const PlacementPolicy& policy) {
  TargetVerdict verdict;
  verdict.session = candidate.session;
  const EcuMac ecu_mac = candidate.session.ecu_mac;
  if (demand.only && *demand.only != ecu_mac) {
    return refused(std::move(verdict), Ineligible::kNotChosen, to_string(*demand.only) + " was chosen");
  }
  if (ecu_mac == demand.program.ecu_mac && !demand.owner_may_take) {
    return refused(std::move(verdict), Ineligible::kOwner, "the program is to leave it");
  }
  if (!candidate.live) return refused(std::move(verdict), Ineligible::kSilent, "it is not heard");
  if (!candidate.takes_restores) {
    return refused(std::move(verdict), Ineligible::kNoRestores, "its RTCR takes no restores");
  }
  if (demand.needs_guard && !candidate.enforced) {
    return refused(std::move(verdict), Ineligible::kNotGuarded,
                   "it has no run lease that is enforced, and the program is one that restores by itself");
  }
  if (candidate.shunned > Duration::zero()) {
    return refused(std::move(verdict), Ineligible::kFlapping,
                   "it was LOST lately, and takes nothing for " + ms(candidate.shunned));
  }
  if (!candidate.metrics) {
    return refused(std::move(verdict), Ineligible::kNoMetrics, "it has not said what it has free");
  }
  const wire::Metrics& metrics = *candidate.metrics;
  if (candidate.metrics_age > kMetricsFreshMax) {
    return refused(
        std::move(verdict), Ineligible::kStaleMetrics,
        "its figures are " + ms(candidate.metrics_age) + " old, the limit is " + ms(kMetricsFreshMax));
  }
  if (metrics.draining) return refused(std::move(verdict), Ineligible::kDraining, "it takes nothing new");

  const wire::Requirements& needs = demand.requirements;
  const auto differs = [](const std::string& need, const std::string& has) {
    return !need.empty() && need != has;
  };
  const auto needs_but_is = [](const std::string& need, const std::string& has) {
    return "needs " + need + ", is " + (has.empty() ? "not said" : has);
  };
  if (differs(needs.arch, metrics.arch)) {
    return refused(std::move(verdict), Ineligible::kArch, needs_but_is(needs.arch, metrics.arch));
  }
  if (differs(needs.os, metrics.os)) {
    return refused(std::move(verdict), Ineligible::kOs, needs_but_is(needs.os, metrics.os));
  }
  if (!needs.checkpoint_format.empty()) {
    const auto format =
        std::find_if(metrics.formats.begin(), metrics.formats.end(), [&](const wire::CheckpointFormat& one) {
          return one.name == needs.checkpoint_format && one.version_max >= needs.format_version;
        });
    if (format == metrics.formats.end()) {
      return refused(std::move(verdict), Ineligible::kFormat,
                     "cannot restore format " + needs.checkpoint_format + " version " +
                         std::to_string(needs.format_version));
    }
  }
  for (const std::string& label : needs.labels) {
    const std::string name(excluded_by(label));
    if (name.empty() && !contains(metrics.labels, label)) {
      return refused(std::move(verdict), Ineligible::kLabels, "has no label '" + label + "'");
    }
    if (name.empty()) continue;
    if (contains(metrics.labels, name)) {
      return refused(std::move(verdict), Ineligible::kExcluded,
                     "has the label '" + name + "', which the program excludes");
    }
    for (const Hosted& one : candidate.hosted) {
      if (one.lineage == demand.lineage || !contains(one.excludes, name)) continue;
      return refused(std::move(verdict), Ineligible::kExcluded,
                     "another program there excludes '" + name + "' too");
    }
  }
  const std::uint64_t ram_bytes = ram_bytes_of(demand);
  const std::uint64_t left_bytes = ram_left(candidate);
  if (ram_bytes > left_bytes) {
    return refused(std::move(verdict), Ineligible::kRam,
                   "needs " + mib(ram_bytes) + " of RAM, " + mib(left_bytes) + " are free" +
                       (candidate.reserved.ram_bytes > 0 ? " beside what was just placed there" : ""));
  }
  const std::uint64_t capacity = cpu_capacity(metrics);
  const std::uint64_t used = cpu_used_with(demand, candidate);
  if (is_real_time(demand.real_time) && used > capacity) {
    return refused(
        std::move(verdict), Ineligible::kCpu,
        "needs " + std::to_string(cpu_permille_of(demand.real_time)) +
            " permille of a CPU for its deadline, and has " +
            std::to_string(capacity - std::min(capacity, used - cpu_permille_of(demand.real_time))) +
            " free");
  }
  const std::uint64_t promised = promised_permille(demand, candidate);
  const std::uint64_t promised_max = capacity * policy.real_time_max_permille / kWhole;
  if (is_real_time(demand.real_time) && promised + cpu_permille_of(demand.real_time) > promised_max) {
    return refused(std::move(verdict), Ineligible::kCpu,
                   "needs " + std::to_string(cpu_permille_of(demand.real_time)) +
                       " permille of a CPU for its deadline, and " + std::to_string(promised) + " of " +
                       std::to_string(promised_max) + " are promised to real-time programs there");
  }
  verdict.cpu_free_permille =
      static_cast<std::uint32_t>((capacity - std::min(capacity, used)) * kWhole / capacity);
  const std::uint64_t total = std::max<std::uint64_t>(metrics.ram_total_bytes, 1);
  // In floating point: bytes times a thousand may be too large for 64 bits.
  verdict.ram_free_permille = static_cast<std::uint32_t>(static_cast<double>(left_bytes - ram_bytes) /
                                                         static_cast<double>(total) * double{kWhole});
  verdict.score = (verdict.cpu_free_permille + verdict.ram_free_permille) / 2;
  verdict.near_cms =
      demand.real_time.tight && verdict.cpu_free_permille > 0 && policy.near_ecus.count(ecu_mac) != 0;
  for (const std::string& group : demand.leaves_groups) {
    if (verdict.shared_group.empty() && contains(metrics.labels, group)) verdict.shared_group = group;
  }
  return verdict;
}

}  // namespace

std::uint64_t ram_bytes_of(const Demand& demand) {
  return std::max(demand.requirements.ram_bytes, demand.size_bytes);
}

std::uint32_t cpu_permille_of(const wire::RealTime& real_time) {
  if (!is_real_time(real_time)) return kCpuPermilleUnknown;
  if (real_time.wcet_us >= real_time.period_us) return kWhole;
  const double share = static_cast<double>(real_time.wcet_us) / static_cast<double>(real_time.period_us);
  return std::max<std::uint32_t>(1, static_cast<std::uint32_t>(share * double{kWhole}));
}

Reservation reservation_of(const Demand& demand) {
  return Reservation{ram_bytes_of(demand), cpu_permille_of(demand.real_time)};
}

bool more_urgent(const wire::RealTime& a, const wire::RealTime& b) {
  const auto urgency = [](const wire::RealTime& one) {
    return std::tuple(!one.tight, one.deadline_us == 0, one.deadline_us, -std::int64_t{one.priority});
  };
  return urgency(a) < urgency(b);
}

std::vector<std::string> failure_groups_of(const std::vector<std::string>& labels,
                                           const PlacementPolicy& policy) {
  std::vector<std::string> groups;
  for (const std::string& label : labels) {
    const std::size_t sign = label.find('=');
    if (sign == std::string::npos) continue;
    if (contains(policy.failure_groups, label.substr(0, sign))) groups.push_back(label);
  }
  return groups;
}

std::optional<Hosted> hosted_of(const Lineage& lineage, const wire::Requirements& requirements,
                                const wire::RealTime& real_time) {
  Hosted hosted;
  hosted.lineage = lineage;
  if (is_real_time(real_time)) hosted.real_time_permille = cpu_permille_of(real_time);
  for (const std::string& label : requirements.labels) {
    if (const std::string_view name = excluded_by(label); !name.empty()) hosted.excludes.emplace_back(name);
  }
  if (hosted.real_time_permille == 0 && hosted.excludes.empty()) return std::nullopt;
  return hosted;
}

std::string_view to_string(Ineligible ineligible) {
  switch (ineligible) {
    case Ineligible::kNo: return "eligible";
    case Ineligible::kNotChosen: return "not chosen";
    case Ineligible::kOwner: return "owner";
    case Ineligible::kSilent: return "silent";
    case Ineligible::kNoRestores: return "no restores";
    case Ineligible::kNotGuarded: return "not guarded";
    case Ineligible::kFlapping: return "flapping";
    case Ineligible::kNoMetrics: return "no metrics";
    case Ineligible::kStaleMetrics: return "stale metrics";
    case Ineligible::kDraining: return "draining";
    case Ineligible::kArch: return "arch";
    case Ineligible::kOs: return "os";
    case Ineligible::kFormat: return "format";
    case Ineligible::kLabels: return "labels";
    case Ineligible::kExcluded: return "excluded";
    case Ineligible::kRam: return "ram";
    case Ineligible::kCpu: return "cpu";
  }
  return "unknown";
}

namespace {

// Whether `a` comes before `b`. The weights only of those that are equal else: they cost most.
bool comes_before(const Demand& demand, const TargetVerdict& a, const TargetVerdict& b) {
  const bool a_can = a.ineligible == Ineligible::kNo;
  const bool b_can = b.ineligible == Ineligible::kNo;
  if (a_can != b_can) return a_can;
  if (!a_can) return a.session < b.session;
  const bool a_had_it = a.session.ecu_mac == demand.program.ecu_mac;
  const bool b_had_it = b.session.ecu_mac == demand.program.ecu_mac;
  if (a_had_it != b_had_it) return a_had_it;
  if (a.shared_group.empty() != b.shared_group.empty()) return a.shared_group.empty();
  if (a.near_cms != b.near_cms) return a.near_cms;
  if (a.score != b.score) return a.score > b.score;
  const std::uint64_t a_weight = rendezvous_weight(to_string(a.session), demand.program);
  const std::uint64_t b_weight = rendezvous_weight(to_string(b.session), demand.program);
  return a_weight != b_weight ? a_weight > b_weight : a.session < b.session;
}

}  // namespace

std::vector<TargetVerdict> rank(const Demand& demand, const std::vector<Candidate>& candidates,
                                const PlacementPolicy& policy) {
  std::vector<TargetVerdict> verdicts;
  verdicts.reserve(candidates.size());
  for (const Candidate& candidate : candidates) verdicts.push_back(judge(demand, candidate, policy));
  std::sort(verdicts.begin(), verdicts.end(),
            [&](const TargetVerdict& a, const TargetVerdict& b) { return comes_before(demand, a, b); });
  return verdicts;
}

std::optional<SessionId> pick(const Demand& demand, const std::vector<Candidate>& candidates,
                              const std::set<EcuMac>& unable, const PlacementPolicy& policy) {
  std::optional<TargetVerdict> best;
  for (const Candidate& candidate : candidates) {
    if (unable.count(candidate.session.ecu_mac) != 0) continue;
    TargetVerdict verdict = judge(demand, candidate, policy);
    if (verdict.ineligible != Ineligible::kNo) continue;
    if (!best || comes_before(demand, verdict, *best)) best = std::move(verdict);
  }
  return best ? std::optional(best->session) : std::nullopt;
}

void reserve(const Demand& demand, Candidate& candidate) {
  const Reservation reservation = reservation_of(demand);
  candidate.reserved.ram_bytes += reservation.ram_bytes;
  candidate.reserved.cpu_permille += reservation.cpu_permille;
  if (auto hosted = hosted_of(demand.lineage, demand.requirements, demand.real_time))
    candidate.hosted.push_back(std::move(*hosted));
}

std::vector<TargetVerdict> place_next(const Demand& demand, std::vector<Candidate>& candidates,
                                      const PlacementPolicy& policy) {
  std::vector<TargetVerdict> verdicts = rank(demand, candidates, policy);
  if (verdicts.empty() || verdicts.front().ineligible != Ineligible::kNo) return verdicts;
  reserve(demand, *std::find_if(candidates.begin(), candidates.end(), [&](const Candidate& candidate) {
            return candidate.session == verdicts.front().session;
          }));
  return verdicts;
}

}  // namespace cms::core
