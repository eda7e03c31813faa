#include "cms/core/retention.h"

#include <algorithm>
#include <iterator>
#include <tuple>
#include <utility>

#include "base/assert.h"

namespace cms::core {
namespace {

constexpr std::uint64_t kSecondUs = 1'000'000;
constexpr std::uint64_t kHourUs = 3600 * kSecondUs;
constexpr std::uint64_t kDayUs = 24 * kHourUs;

// One lineage: places of its rows, newest version first, one of each version.
using Places = std::vector<std::size_t>;

// Fills at_us; returns which times are believed.
std::vector<bool> believe(const std::vector<RetentionRow>& rows, const Places& places, std::uint64_t now_us,
                          std::vector<Judged>& judged) {
  std::vector<bool> believed(places.size());
  std::uint64_t latest_us = 0;
  for (std::size_t i = places.size(); i-- > 0;) {  // Oldest first.
    const std::uint64_t at_us = rows[places[i]].stored_at_us;
    believed[i] = at_us != 0 && at_us <= now_us && at_us >= latest_us;
    if (believed[i]) latest_us = at_us;
  }
  std::uint64_t youngest_us = now_us;
  for (std::size_t i = 0; i < places.size(); ++i) {
    if (believed[i]) youngest_us = rows[places[i]].stored_at_us;
    judged[places[i]].at_us = youngest_us;
  }
  return believed;
}

// Which rows a rule of `count` spans of time keeps. at_us does not increase along `places`.
void keep_spans(const Places& places, const std::vector<bool>& believed, std::uint64_t span_us,
                std::uint32_t count, Verdict verdict, std::vector<Judged>& judged) {
  if (count == 0) return;
  std::uint32_t seen = 0;
  std::uint64_t span = 0;
  for (std::size_t i = 0; i < places.size(); ++i) {
    Judged& one = judged[places[i]];
    const std::uint64_t its_span = one.at_us / span_us;
    bool keep = !believed[i] && (seen < count || its_span == span);
    if (believed[i] && (seen == 0 || its_span != span)) {
      if (seen == count) return;  // All that follows lies further back.
      ++seen;
      span = its_span;
      keep = true;
    }
    if (keep && one.verdict == Verdict::kBeyondKeep) one.verdict = verdict;
  }
}

void judge_lineage(const std::vector<RetentionRow>& rows, const Places& places, const RetentionRules& rules,
                   std::uint64_t now_us, std::vector<Judged>& judged) {
  const std::vector<bool> believed = believe(rows, places, now_us, judged);
  for (std::size_t i = 0; i < places.size(); ++i) {
    judged[places[i]].verdict = i < rules.keep_latest ? Verdict::kLatest : Verdict::kBeyondKeep;
  }
  keep_spans(places, believed, kHourUs, rules.keep_hourly, Verdict::kHourly, judged);
  keep_spans(places, believed, kDayUs, rules.keep_daily, Verdict::kDaily, judged);
  for (std::size_t i = 0; i < places.size(); ++i) {
    const RetentionRow& row = rows[places[i]];
    Judged& one = judged[places[i]];
    const bool old = rules.max_age_s != 0 && now_us - one.at_us > rules.max_age_s * kSecondUs;
    if (old && !goes(one.verdict)) one.verdict = Verdict::kTooOld;
    if (row.being_read) one.verdict = Verdict::kBeingRead;
    if (row.pinned) one.verdict = Verdict::kPinned;
    if (i == 0) one.verdict = Verdict::kNewest;
  }
}

bool in_order(const RetentionRow& newer, const RetentionRow& older) {
  const auto key = [](const RetentionRow& row) {
    return std::tie(row.name.owner_epoch, row.name.checkpoint.version);
  };
  return key(older) < key(newer) || (key(older) == key(newer) && newer.name.uid < older.name.uid);
}

}  // namespace

RetentionRules RetentionPolicy::rules_of(const ProgramKey& program) const {
  RetentionRules rules;
  const auto add = [&rules](const RetentionRule& rule) {
    rules.keep_latest = rule.keep_latest.value_or(rules.keep_latest);
    rules.keep_hourly = rule.keep_hourly.value_or(rules.keep_hourly);
    rules.keep_daily = rule.keep_daily.value_or(rules.keep_daily);
    rules.max_age_s = rule.max_age_s.value_or(rules.max_age_s);
  };
  add(fleet);
  if (const auto ecu = ecus.find(program.ecu_mac); ecu != ecus.end()) add(ecu->second);
  if (const auto own = programs.find(program); own != programs.end()) {
    add(own->second);
    rules.max_bytes = own->second.max_bytes.value_or(0);
  }
  CMS_ASSERT(rules.keep_latest >= 1);
  return rules;
}

std::vector<RetentionPolicy::Bound> RetentionPolicy::bounds() const {
  std::vector<Bound> bounds;
  for (const auto& [ecu_mac, rule] : ecus) {
    if (rule.max_bytes.value_or(0) > 0) bounds.push_back(Bound{ecu_mac, *rule.max_bytes});
  }
  if (fleet.max_bytes.value_or(0) > 0) bounds.push_back(Bound{std::nullopt, *fleet.max_bytes});
  return bounds;
}

std::vector<Judged> judge(const std::vector<RetentionRow>& rows, const RetentionRules& rules,
                          std::uint64_t now_us) {
  std::vector<Judged> judged(rows.size());
  std::map<Lineage, Places> lineages;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    CMS_ASSERT(i == 0 || in_order(rows[i - 1], rows[i]));
    CMS_ASSERT(rows[i].name.checkpoint.program == rows[0].name.checkpoint.program);
    Places& places = lineages[rows[i].name.lineage];
    const bool second =
        !places.empty() && rows[places.back()].name.checkpoint.version == rows[i].name.checkpoint.version;
    if (second) {
      judged[i].verdict = rows[i].being_read ? Verdict::kBeingRead : Verdict::kSecondStore;
      judged[i].at_us = now_us;
    } else {
      places.push_back(i);
    }
  }
  for (const auto& [lineage, places] : lineages) judge_lineage(rows, places, rules, now_us, judged);
  if (rules.max_bytes == 0) return judged;
  std::uint64_t total_bytes = 0;
  for (std::size_t i = 0; i < rows.size(); ++i)
    total_bytes += goes(judged[i].verdict) ? 0 : rows[i].stored_bytes;
  for (std::size_t i = rows.size(); i-- > 0 && total_bytes > rules.max_bytes;) {
    if (!may_go(judged[i].verdict)) continue;
    judged[i].verdict = Verdict::kProgramBytes;
    total_bytes -= rows[i].stored_bytes;
  }
  return judged;
}

std::string in_words(Verdict verdict, const RetentionRules& rules, std::uint64_t bound_bytes) {
  const std::string latest = "keep_latest " + std::to_string(rules.keep_latest);
  const std::string hourly = "keep_hourly " + std::to_string(rules.keep_hourly);
  const std::string daily = "keep_daily " + std::to_string(rules.keep_daily);
  switch (verdict) {
    case Verdict::kNewest: return "the newest of its lineage";
    case Verdict::kPinned: return "pinned";
    case Verdict::kBeingRead: return "being read";
    case Verdict::kLatest: return latest;
    case Verdict::kHourly: return hourly;
    case Verdict::kDaily: return daily;
    case Verdict::kSecondStore: return "a second store of the same checkpoint";
    case Verdict::kBeyondKeep:
      return "beyond " + latest + (rules.keep_hourly > 0 ? ", " + hourly : "") +
             (rules.keep_daily > 0 ? ", " + daily : "");
    case Verdict::kTooOld: return "older than max_age " + duration_text(rules.max_age_s);
    case Verdict::kProgramBytes:
      return "max_bytes " + bytes_text(rules.max_bytes) + " of the program: oldest first";
    case Verdict::kEcuBytes: return "max_bytes " + bytes_text(bound_bytes) + " of the ECU: oldest first";
    case Verdict::kFleetBytes: return "max_bytes " + bytes_text(bound_bytes) + " of the fleet: oldest first";
  }
  return {};
}

// ---- OldestFirst

bool OldestFirst::Older::operator()(const Found& a, const Found& b) const {
  const auto key = [](const Found& found) {
    const storage::BlobName& name = found.row.name;
    return std::tie(found.at_us, name.checkpoint.program, name.owner_epoch, name.checkpoint.version,
                    name.uid);
  };
  return key(a) < key(b);
}

OldestFirst::OldestFirst(std::uint64_t excess_bytes, std::size_t count_max)
    : excess_bytes_(excess_bytes), count_max_(count_max) {}

void OldestFirst::offer(const RetentionRow& row, std::uint64_t at_us) {
  if (!found_.insert(Found{at_us, row}).second) return;
  sum_bytes_ += row.stored_bytes;
  while (!found_.empty()) {
    const auto youngest = std::prev(found_.end());
    const bool spare = sum_bytes_ - youngest->row.stored_bytes >= excess_bytes_;
    if (!spare && found_.size() <= count_max_) return;
    sum_bytes_ -= youngest->row.stored_bytes;
    found_.erase(youngest);
  }
}

std::vector<OldestFirst::Found> OldestFirst::take() && { return {found_.begin(), found_.end()}; }

// ---- words

std::string duration_text(std::uint64_t seconds) {
  if (seconds == 0) return "none";
  for (const auto& [unit_s, unit] :
       {std::pair<std::uint64_t, const char*>{86400, "d"}, {3600, "h"}, {60, "m"}}) {
    if (seconds % unit_s == 0) return std::to_string(seconds / unit_s) + unit;
  }
  return std::to_string(seconds) + "s";
}

std::string bytes_text(std::uint64_t bytes) {
  if (bytes == 0) return "none";
  static constexpr std::pair<unsigned, const char*> kUnits[] = {
      {40, "TiB"}, {30, "GiB"}, {20, "MiB"}, {10, "KiB"}};
  for (const auto& [shift, unit] : kUnits) {
    if (bytes % (std::uint64_t{1} << shift) == 0) return std::to_string(bytes >> shift) + unit;
  }
  return std::to_string(bytes) + " bytes";
}

}  // namespace cms::core
