#pragma once
// Retention says of the stored checkpoints of a program which stay and which may go, and why. It
// decides only; who removes, and when, is docs/adr/0007.
//
// Rules. Of each lineage of a program stay, as if each rule were alone:
//   keep_latest N   the N newest versions
//   keep_hourly N   the newest of each of the N latest hours (UTC) in which one was stored
//   keep_daily N    the same with days
// Everything else goes. Of what stays, max_age removes what was stored longer ago, and then max_bytes
// removes the oldest until what stays of the level where it is written (the program, the ECU, the
// fleet) takes no more. A level with fewer words inherits the others: program > ECU > fleet, key by
// key; but max_bytes, which bounds its own level and is never inherited.
// No rule ever removes: the newest version of a lineage; what is pinned; what is being read. They
// count where rules count, for versions and for bytes.
// Of two stores of one version the one with the larger uid goes, pinned or not: the other is as good.
//
// Order is that of versions, never of clocks. A time is believed unless it is unknown, later than now,
// or earlier than that of an older version: then some clock was wrong. A checkpoint whose time is not
// believed is taken to be as young as the next newer one that is believed (as now, if there is none),
// takes nobody's place in an hour or day, and stays as long as the hours or days that are kept reach
// back to it. So a clock that jumps may keep something longer, and never lets anything go early.
//
// Rows that are missing only make it keep more, as long as no clock jumped and no bytes are bounded.
//
// Threads: pure functions.
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/ids.h"
#include "storage/blob_store.h"

namespace cms::core {

// The rules of one level as they are written; what is not there is inherited.
struct RetentionRule {
  std::optional<std::uint32_t> keep_latest;  // At least 1.
  std::optional<std::uint32_t> keep_hourly;
  std::optional<std::uint32_t> keep_daily;
  std::optional<std::uint64_t> max_age_s;  // 0: no bound.
  std::optional<std::uint64_t> max_bytes;  // 0: no bound. Not inherited.
};

// What holds for one program.
struct RetentionRules {
  std::uint32_t keep_latest = 3;
  std::uint32_t keep_hourly = 0;
  std::uint32_t keep_daily = 0;
  std::uint64_t max_age_s = 0;
  std::uint64_t max_bytes = 0;  // Of this program.

  bool need_time() const { return keep_hourly > 0 || keep_daily > 0 || max_age_s > 0; }
};

struct RetentionPolicy {
  RetentionRule fleet;
  std::map<EcuMac, RetentionRule> ecus;
  std::map<ProgramKey, RetentionRule> programs;

  RetentionRules rules_of(const ProgramKey& program) const;
  // Of the ECUs that have such a bound, then, without an ECU, of the fleet.
  struct Bound {
    std::optional<EcuMac> ecu_mac;
    std::uint64_t max_bytes = 0;
  };
  std::vector<Bound> bounds() const;
};

struct RetentionRow {
  storage::BlobName name;
  std::uint64_t stored_bytes = 0;
  std::uint64_t stored_at_us = 0;  // 0: not known.
  bool pinned = false;
  bool being_read = false;
};

enum class Verdict : std::uint8_t {
  // Stays, because it is
  kNewest,
  kPinned,
  kBeingRead,
  kLatest,
  kHourly,
  kDaily,
  // Goes, because it is
  kSecondStore,
  kBeyondKeep,
  kTooOld,
  kProgramBytes,
  kEcuBytes,
  kFleetBytes,
};
constexpr bool goes(Verdict verdict) { return verdict >= Verdict::kSecondStore; }
// One that only a bound of bytes may still remove.
constexpr bool may_go(Verdict verdict) { return verdict >= Verdict::kLatest && !goes(verdict); }

struct Judged {
  Verdict verdict = Verdict::kNewest;
  std::uint64_t at_us = 0;  // When it is taken to have been stored; never decreases with the version.
};

// `rows`: all of one program in the order of the index: newest first, of one version the smaller uid
// first. The answers stand in the same order.
std::vector<Judged> judge(const std::vector<RetentionRow>& rows, const RetentionRules& rules,
                          std::uint64_t now_us);

// "older than max_age 30d". `bound`: the max_bytes of the ECU or fleet, for these verdicts.
std::string in_words(Verdict verdict, const RetentionRules& rules, std::uint64_t bound_bytes = 0);

// Finds the oldest rows that take `excess_bytes` together, at most `count_max` of them, whatever the
// order in which they are offered: a bound over many programs, in bounded memory.
class OldestFirst {
 public:
  OldestFirst(std::uint64_t excess_bytes, std::size_t count_max);
  void offer(const RetentionRow& row, std::uint64_t at_us);
  struct Found {
    std::uint64_t at_us = 0;
    RetentionRow row;
  };
  std::vector<Found> take() &&;  // Oldest first.

 private:
  struct Older {
    bool operator()(const Found& a, const Found& b) const;
  };
  const std::uint64_t excess_bytes_;
  const std::size_t count_max_;
  std::uint64_t sum_bytes_ = 0;
  std::set<Found, Older> found_;
};

// "90m", "12h", "30d"; "10GiB": the largest unit that says it exactly. 0 is "none".
std::string duration_text(std::uint64_t seconds);
std::string bytes_text(std::uint64_t bytes);

}  // namespace cms::core
