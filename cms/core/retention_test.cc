// What stays is compared with an oracle that is written from the words of retention.h, row by row and
// without order or passes; a year of checkpoints, and any rows under any rules.
#include "cms/core/retention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "base/digest.h"
#include "base/prng.h"
#include "base/sanitized.h"

namespace cms::core {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr std::uint64_t kSecond = 1'000'000;
constexpr std::uint64_t kMinute = 60 * kSecond;
constexpr std::uint64_t kHour = 60 * kMinute;
constexpr std::uint64_t kDay = 24 * kHour;
constexpr std::uint64_t kNow = 1700000000 * kSecond;  // 2023-11-14T22:13:20Z
const ProgramKey kProgram{EcuMac{0x020000000001}, 7};

RetentionRow row_at(Seq seq, std::uint64_t at_us, std::uint64_t stored_bytes = 1) {
  RetentionRow row;
  row.name.checkpoint = CheckpointId{kProgram, Version{1, seq}};
  row.name.lineage = lineage_of(kProgram);
  row.name.uid = seq;
  row.stored_bytes = stored_bytes;
  row.stored_at_us = at_us;
  return row;
}

// Given oldest first, as people write them.
std::vector<RetentionRow> newest_first(std::vector<RetentionRow> rows) {
  std::reverse(rows.begin(), rows.end());
  return rows;
}

std::vector<Seq> kept(const std::vector<RetentionRow>& rows, const RetentionRules& rules,
                      std::uint64_t now_us = kNow) {
  const std::vector<Judged> judged = judge(rows, rules, now_us);
  std::vector<Seq> seqs;
  for (std::size_t i = rows.size(); i-- > 0;) {
    if (!goes(judged[i].verdict)) seqs.push_back(rows[i].name.checkpoint.version.seq);
  }
  return seqs;
}

// ---- one rule at a time

TEST(RetentionTest, KeepsTheNewestByVersionWhateverTheClockSaid) {
  RetentionRules rules;
  rules.keep_latest = 2;
  EXPECT_THAT(kept(newest_first({row_at(1, 500), row_at(2, 400), row_at(3, 300), row_at(4, 200)}), rules),
              ElementsAre(3, 4));
}

TEST(RetentionTest, KeepsTheNewestOfTheLatestHoursThatHaveOne) {
  RetentionRules rules;
  rules.keep_latest = 1;
  rules.keep_hourly = 3;
  const std::uint64_t hour = kNow / kHour * kHour;
  // Two hours without any lie between.
  EXPECT_THAT(kept(newest_first({row_at(1, hour - 5 * kHour), row_at(2, hour - 4 * kHour),
                                 row_at(3, hour - 4 * kHour + kMinute), row_at(4, hour - kHour),
                                 row_at(5, hour - 1), row_at(6, hour), row_at(7, hour + kMinute)}),
                   rules),
              ElementsAre(3, 5, 7));
}

TEST(RetentionTest, KeepsTheNewestOfTheLatestDaysInUtc) {
  RetentionRules rules;
  rules.keep_latest = 1;
  rules.keep_daily = 2;
  const std::uint64_t midnight = kNow / kDay * kDay;
  EXPECT_THAT(kept(newest_first({row_at(1, midnight - kDay - 1), row_at(2, midnight - 2),
                                 row_at(3, midnight - 1), row_at(4, midnight)}),
                   rules),
              ElementsAre(3, 4));
}

TEST(RetentionTest, RemovesWhatIsOlderThanMaxAgeButNeverTheNewest) {
  RetentionRules rules;
  rules.keep_latest = 10;
  rules.max_age_s = 3600;
  EXPECT_THAT(
      kept(newest_first({row_at(1, kNow - kHour - 1), row_at(2, kNow - kHour), row_at(3, kNow)}), rules),
      ElementsAre(2, 3));
  EXPECT_THAT(kept(newest_first({row_at(1, kNow - 3 * kDay), row_at(2, kNow - 2 * kDay)}), rules),
              ElementsAre(2));
}

TEST(RetentionTest, RemovesTheOldestUntilTheProgramFits) {
  RetentionRules rules;
  rules.keep_latest = 10;
  rules.max_bytes = 100;
  EXPECT_THAT(
      kept(newest_first({row_at(1, 0, 60), row_at(2, 0, 1), row_at(3, 0, 50), row_at(4, 0, 50)}), rules),
      ElementsAre(3, 4));
  // Exactly what is allowed; and the newest stays even if it alone is too much.
  EXPECT_THAT(kept(newest_first({row_at(1, 0, 50), row_at(2, 0, 50)}), rules), ElementsAre(1, 2));
  EXPECT_THAT(kept(newest_first({row_at(1, 0, 1), row_at(2, 0, 500)}), rules), ElementsAre(2));
}

TEST(RetentionTest, WhatIsPinnedOrReadStaysAndCountsAmongTheBytes) {
  RetentionRules rules;
  rules.keep_latest = 1;
  rules.max_age_s = 1;
  rules.max_bytes = 1;
  auto rows =
      newest_first({row_at(1, kNow - kDay), row_at(2, kNow - kDay), row_at(3, kNow - kDay), row_at(4, kNow)});
  rows[3].pinned = true;
  rows[1].being_read = true;
  EXPECT_THAT(kept(rows, rules), ElementsAre(1, 3, 4));
}

TEST(RetentionTest, NewestOfEachLineageStays) {
  RetentionRules rules;
  rules.keep_latest = 1;
  auto rows = newest_first({row_at(1, 0), row_at(2, 0), row_at(3, 0), row_at(4, 0)});
  rows[2].name.lineage = rows[3].name.lineage = Lineage{1, 2};
  EXPECT_THAT(kept(rows, rules), ElementsAre(2, 4));
}

TEST(RetentionTest, OfTwoStoresOfOneVersionTheLargerUidGoesUnlessItIsRead) {
  RetentionRules rules;
  rules.keep_latest = 2;
  std::vector<RetentionRow> rows = {row_at(2, 0), row_at(2, 0), row_at(1, 0)};
  rows[1].name.uid = 9;
  rows[0].pinned = rows[1].pinned = true;
  std::vector<Judged> judged = judge(rows, rules, kNow);
  EXPECT_EQ(judged[0].verdict, Verdict::kNewest);
  EXPECT_EQ(judged[1].verdict, Verdict::kSecondStore);
  EXPECT_EQ(judged[2].verdict, Verdict::kLatest) << "the second store took a place";
  rows[1].being_read = true;
  EXPECT_EQ(judge(rows, rules, kNow)[1].verdict, Verdict::kBeingRead);
}

// ---- clocks

TEST(RetentionTest, AClockThatWasAheadMakesNothingOldAndTakesNoHour) {
  RetentionRules rules;
  rules.keep_latest = 1;
  rules.keep_hourly = 2;
  // 2 and 3 were stored by a CMS whose clock was a year ahead.
  auto rows =
      newest_first({row_at(1, kNow - 3 * kHour), row_at(2, kNow + 365 * kDay), row_at(3, kNow + 365 * kDay),
                    row_at(4, kNow - 2 * kHour), row_at(5, kNow - kHour)});
  EXPECT_THAT(kept(rows, rules), ElementsAre(2, 3, 4, 5));
  rules.max_age_s = 5400;
  EXPECT_THAT(kept(rows, rules), ElementsAre(5)) << "as old as the next newer one";
}

TEST(RetentionTest, AClockThatWasBehindMakesNothingOld) {
  RetentionRules rules;
  rules.keep_latest = 10;
  rules.max_age_s = 30 * 86400;
  // Booted without a clock: 1970.
  EXPECT_THAT(
      kept(newest_first({row_at(1, kNow - 40 * kDay), row_at(2, kNow - kDay), row_at(3, 5), row_at(4, 6)}),
           rules),
      ElementsAre(2, 3, 4));
  // Our own clock is behind all that is stored.
  EXPECT_THAT(kept(newest_first({row_at(1, kNow), row_at(2, kNow), row_at(3, kNow)}), rules, 1000),
              ElementsAre(1, 2, 3));
}

TEST(RetentionTest, AnUnknownTimeMakesNothingOld) {
  RetentionRules rules;
  rules.keep_latest = 1;
  rules.keep_daily = 1;
  EXPECT_THAT(kept(newest_first({row_at(1, kNow - 2 * kDay), row_at(2, 0), row_at(3, kNow)}), rules),
              ElementsAre(2, 3));
}

// ---- the oracle: from the words, one row at a time, by looking at all others

struct Oracle {
  Oracle(const std::vector<RetentionRow>& its_rows, const RetentionRules& its_rules, std::uint64_t at_us)
      : rows(its_rows), rules(its_rules), now_us(at_us) {
    for (const RetentionRow& row : rows) {
      if (find_second(row)) second_uids.insert(row.name.uid);
    }
    for (const RetentionRow& row : rows) {
      if (find_believed(row)) believed_uids.insert(row.name.uid);
    }
  }
  const std::vector<RetentionRow>& rows;  // In any order.
  const RetentionRules& rules;
  const std::uint64_t now_us;
  std::set<std::uint64_t> second_uids;
  std::set<std::uint64_t> believed_uids;

  bool is_second(const RetentionRow& row) const { return second_uids.count(row.name.uid) != 0; }
  bool believed(const RetentionRow& row) const { return believed_uids.count(row.name.uid) != 0; }

  static auto age_of(const RetentionRow& row) {
    return std::make_pair(row.name.owner_epoch, row.name.checkpoint.version);
  }
  static bool newer(const RetentionRow& a, const RetentionRow& b) { return age_of(b) < age_of(a); }
  std::size_t count(const std::function<bool(const RetentionRow&)>& wanted) const {
    return static_cast<std::size_t>(std::count_if(rows.begin(), rows.end(), wanted));
  }
  bool find_second(const RetentionRow& row) const {
    return count([&](const RetentionRow& other) {
             return other.name.lineage == row.name.lineage && age_of(other) == age_of(row) &&
                    other.name.uid < row.name.uid;
           }) > 0;
  }
  // Of the same lineage, first stores only.
  bool counts(const RetentionRow& other, const RetentionRow& row) const {
    return other.name.lineage == row.name.lineage && !is_second(other);
  }
  bool find_believed(const RetentionRow& row) const {
    const std::uint64_t at = row.stored_at_us;
    return at != 0 && at <= now_us && count([&](const RetentionRow& other) {
                                        return counts(other, row) && newer(row, other) &&
                                               other.stored_at_us <= now_us && other.stored_at_us > at;
                                      }) == 0;
  }
  std::uint64_t taken_as(const RetentionRow& row) const {
    if (believed(row)) return row.stored_at_us;
    std::uint64_t earliest = now_us;
    for (const RetentionRow& other : rows) {
      if (counts(other, row) && newer(other, row) && believed(other))
        earliest = std::min(earliest, other.stored_at_us);
    }
    return earliest;
  }
  bool kept_by_spans(const RetentionRow& row, std::uint64_t span_us, std::uint32_t keep) const {
    const std::uint64_t span = taken_as(row) / span_us;
    std::set<std::uint64_t> later;
    bool is_newest = true;
    for (const RetentionRow& other : rows) {
      if (!counts(other, row) || !newer(other, row) || !believed(other)) continue;
      if (other.stored_at_us / span_us > span) later.insert(other.stored_at_us / span_us);
      if (other.stored_at_us / span_us == span) is_newest = false;
    }
    return later.size() < keep && (is_newest || !believed(row));
  }
  bool is_newest(const RetentionRow& row) const {
    return count([&](const RetentionRow& other) { return counts(other, row) && newer(other, row); }) == 0;
  }
  bool is_fixed(const RetentionRow& row) const { return row.pinned || row.being_read || is_newest(row); }
  bool stays_but_for_bytes(const RetentionRow& row) const {
    if (is_second(row)) return row.being_read;
    if (is_fixed(row)) return true;
    const bool latest = count([&](const RetentionRow& other) {
                          return counts(other, row) && newer(other, row);
                        }) < rules.keep_latest;
    const bool wanted =
        latest || kept_by_spans(row, kHour, rules.keep_hourly) || kept_by_spans(row, kDay, rules.keep_daily);
    return wanted && (rules.max_age_s == 0 || now_us - taken_as(row) <= rules.max_age_s * kSecond);
  }
  std::vector<RetentionRow> staying() const {
    std::vector<RetentionRow> left;
    std::copy_if(rows.begin(), rows.end(), std::back_inserter(left),
                 [&](const RetentionRow& row) { return stays_but_for_bytes(row); });
    std::sort(left.begin(), left.end(), [](const RetentionRow& a, const RetentionRow& b) {
      return std::make_pair(age_of(a), ~a.name.uid) < std::make_pair(age_of(b), ~b.name.uid);
    });
    const auto bytes = [&left] {
      std::uint64_t sum = 0;
      for (const RetentionRow& row : left) sum += row.stored_bytes;
      return sum;
    };
    while (rules.max_bytes != 0 && bytes() > rules.max_bytes) {
      const auto oldest = std::find_if(left.begin(), left.end(), [&](const RetentionRow& row) {
        return !is_second(row) && !is_fixed(row);
      });
      if (oldest == left.end()) break;
      left.erase(oldest);
    }
    return left;
  }
  std::set<std::uint64_t> uids() const {
    std::set<std::uint64_t> found;
    for (const RetentionRow& row : staying()) found.insert(row.name.uid);
    return found;
  }
};

void remove_what_goes(std::vector<RetentionRow>& rows, const RetentionRules& rules, std::uint64_t now_us) {
  const std::vector<Judged> judged = judge(rows, rules, now_us);
  std::size_t i = 0;
  rows.erase(std::remove_if(rows.begin(), rows.end(),
                            [&](const RetentionRow&) { return goes(judged[i++].verdict); }),
             rows.end());
}

std::set<std::uint64_t> uids_of(const std::vector<RetentionRow>& rows) {
  std::set<std::uint64_t> uids;
  for (const RetentionRow& row : rows) uids.insert(row.name.uid);
  return uids;
}

std::string words_of(const std::vector<RetentionRow>& rows) {
  std::string words;
  for (const RetentionRow& row : rows) {
    words += std::to_string(row.name.checkpoint.version.seq) + "u" + std::to_string(row.name.uid) + " at " +
             std::to_string(static_cast<std::int64_t>(row.stored_at_us - kNow) /
                            static_cast<std::int64_t>(kMinute)) +
             "m" + (row.pinned ? " pinned" : "") + (row.being_read ? " read" : "") + "\n";
  }
  return words;
}

// ---- a year: about one each ten minutes, hours and days without any, clocks that jump

// A sanitizer takes ten times as long: there it is six weeks.
constexpr std::uint64_t kHistoryDays = CMS_SANITIZED != 0 ? 46 : 365;

class YearTest : public ::testing::TestWithParam<int> {};

TEST_P(YearTest, KeepsExactlyWhatTheRulesSay) {
  const bool clocks_jump = GetParam() != 0;
  Prng prng(static_cast<std::uint64_t>(GetParam()) + 42);
  RetentionRules rules;
  rules.keep_latest = 5;
  rules.keep_hourly = 24;
  rules.keep_daily = 30;
  if (GetParam() == 2) rules.max_age_s = 20 * 86400;
  if (GetParam() == 3) rules.max_bytes = 4000;

  std::vector<RetentionRow> rows;             // What judge left, newest first.
  std::vector<RetentionRow> expected;         // What the oracle left.
  std::map<std::uint64_t, Seq> last_of_hour;  // Without jumps: all that was ever stored.
  std::map<std::uint64_t, Seq> last_of_day;
  std::uint64_t now_us = kNow;
  std::int64_t clock_error_us = 0;
  std::uint64_t judged_at_us = now_us;
  Seq seq = 0;
  while (now_us < kNow + kHistoryDays * kDay) {
    const std::uint64_t jitter = prng.below(2 * kMinute);
    now_us += 9 * kMinute + jitter;
    if (prng.chance(1, 500)) now_us += prng.below(6 * kHour);
    if (prng.chance(1, 8000)) now_us += prng.below(9 * kDay);
    if (clock_error_us != 0 && prng.chance(1, 40)) clock_error_us = 0;
    if (clocks_jump && prng.chance(1, 1000)) {
      constexpr std::int64_t kErrors[] = {3600, -3600, 86400, -86400, 400 * 86400LL, -10000 * 86400LL, -90};
      clock_error_us = kErrors[prng.below(std::size(kErrors))] * static_cast<std::int64_t>(kSecond);
    }
    const auto stored_at_us = static_cast<std::uint64_t>(static_cast<std::int64_t>(now_us) + clock_error_us);
    const std::uint64_t bytes = 1 + prng.below(100);
    rows.insert(rows.begin(), row_at(++seq, stored_at_us, bytes));
    expected.push_back(rows.front());
    last_of_hour[now_us / kHour] = seq;
    last_of_day[now_us / kDay] = seq;
    if (now_us - judged_at_us < 8 * kHour && clocks_jump) continue;
    judged_at_us = now_us;
    remove_what_goes(rows, rules, now_us);
    if (!clocks_jump && seq % 97 != 0) continue;  // The oracle is slow.
    expected = Oracle{expected, rules, now_us}.staying();
    ASSERT_EQ(uids_of(rows), uids_of(expected)) << "seq " << seq << "\n"
                                                << words_of(rows) << words_of(expected);
    ASSERT_EQ(rows.front().name.uid, seq);
  }
  EXPECT_GT(seq, 80 * kHistoryDays);
  EXPECT_LT(rows.size(), 1000U);
  if (clocks_jump) return;
  std::set<std::uint64_t> wanted;
  for (Seq last = seq; last > seq - 5; --last) wanted.insert(last);
  auto hour = last_of_hour.rbegin();
  for (int i = 0; i < 24; ++i) wanted.insert((hour++)->second);
  auto day = last_of_day.rbegin();
  for (int i = 0; i < 30; ++i) wanted.insert((day++)->second);
  EXPECT_EQ(uids_of(rows), wanted);
}

std::string year_name(const ::testing::TestParamInfo<int>& info) {
  static constexpr const char* kNames[] = {"TrueClock", "JumpingClock", "JumpingClockAndMaxAge",
                                           "JumpingClockAndMaxBytes"};
  return kNames[info.param];
}
INSTANTIATE_TEST_SUITE_P(All, YearTest, ::testing::Range(0, 4), year_name);

// ---- any rows under any rules

RetentionRules any_rules(Prng& prng) {
  RetentionRules rules;
  const auto up_to = [&prng](std::uint32_t max) { return static_cast<std::uint32_t>(prng.below(max + 1)); };
  rules.keep_latest = 1 + up_to(4);
  if (prng.chance(1, 2)) rules.keep_hourly = up_to(5);
  if (prng.chance(1, 2)) rules.keep_daily = up_to(5);
  if (prng.chance(1, 2)) rules.max_age_s = 1 + prng.below(3 * 86400);
  if (prng.chance(1, 2)) rules.max_bytes = 1 + prng.below(200);
  return rules;
}

std::vector<RetentionRow> any_rows(Prng& prng) {
  std::vector<RetentionRow> rows;
  const std::uint64_t count = prng.below(30);
  std::uint64_t at_us = kNow - prng.below(4 * kDay);
  Version version{1, 1};
  std::uint64_t uid = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    at_us += prng.below(4 * kHour);
    RetentionRow row = row_at(1, at_us, prng.below(40));
    row.name.checkpoint.version = version;
    row.name.uid = ++uid;
    if (prng.chance(1, 4)) row.name.lineage = Lineage{1, 1};
    if (prng.chance(1, 8)) row.stored_at_us = 0;
    if (prng.chance(1, 8)) row.stored_at_us += prng.below(2 * kDay);
    if (prng.chance(1, 8)) row.stored_at_us -= std::min(row.stored_at_us, prng.below(2 * kDay));
    row.pinned = prng.chance(1, 10);
    row.being_read = prng.chance(1, 10);
    rows.insert(rows.begin(), row);
    if (prng.chance(1, 6)) {
      row.name.uid = ++uid;
      rows.insert(rows.begin() + 1, row);
    }
    version = prng.chance(1, 8) ? Version{version.incarnation + 1, 1}
                                : Version{version.incarnation, version.seq + 1};
  }
  return rows;
}

TEST(RetentionTest, AnyRowsUnderAnyRulesAreJudgedAsTheOracleDoes) {
  for (std::uint64_t seed = 0; seed < (CMS_SANITIZED != 0 ? 5000 : 20000); ++seed) {
    Prng prng(seed);
    const std::vector<RetentionRow> rows = any_rows(prng);
    const RetentionRules rules = any_rules(prng);
    const std::uint64_t now_us = kNow + prng.below(2 * kDay);
    std::vector<RetentionRow> left = rows;
    remove_what_goes(left, rules, now_us);
    ASSERT_EQ(uids_of(left), (Oracle{rows, rules, now_us}.uids())) << "seed " << seed << "\n"
                                                                   << words_of(rows);
    // What must hold whatever the rules say.
    const std::vector<Judged> judged = judge(rows, rules, now_us);
    std::set<Lineage> seen;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const bool second = i > 0 && rows[i - 1].name.checkpoint == rows[i].name.checkpoint &&
                          rows[i - 1].name.lineage == rows[i].name.lineage;
      const bool newest = seen.insert(rows[i].name.lineage).second;
      if (newest || rows[i].being_read || (rows[i].pinned && !second)) {
        ASSERT_FALSE(goes(judged[i].verdict)) << seed;
      }
      ASSERT_FALSE(in_words(judged[i].verdict, rules).empty());
    }
  }
}

TEST(RetentionTest, ARowThatIsMissingNeverCostsAnother) {
  for (std::uint64_t seed = 0; seed < 3000; ++seed) {
    Prng prng(seed);
    std::vector<RetentionRow> rows;
    std::uint64_t at_us = kNow;
    for (Seq seq = 1; seq <= 20; ++seq) {
      at_us += prng.below(4 * kHour);
      const std::uint64_t bytes = prng.below(40);
      rows.insert(rows.begin(), row_at(seq, at_us, bytes));
    }
    RetentionRules rules = any_rules(prng);
    rules.max_bytes = 0;
    std::vector<RetentionRow> whole = rows;
    remove_what_goes(whole, rules, at_us);
    std::vector<RetentionRow> part;
    for (const RetentionRow& row : rows) {
      if (prng.chance(2, 3)) part.push_back(row);
    }
    const std::set<std::uint64_t> known = uids_of(part);
    remove_what_goes(part, rules, at_us);
    const std::set<std::uint64_t> left = uids_of(part);
    for (const RetentionRow& row : whole) {
      if (known.count(row.name.uid) == 0) continue;
      ASSERT_EQ(left.count(row.name.uid), 1U) << seed;
    }
  }
}

// ---- levels, bounds, words

TEST(RetentionPolicyTest, ProgramWinsOverEcuOverFleetKeyByKey) {
  RetentionPolicy policy;
  policy.fleet.keep_latest = 4;
  policy.fleet.keep_hourly = 5;
  policy.fleet.max_age_s = 100;
  policy.fleet.max_bytes = 1000;
  policy.ecus[kProgram.ecu_mac].keep_hourly = 6;
  policy.ecus[kProgram.ecu_mac].max_age_s = 0;
  policy.ecus[kProgram.ecu_mac].max_bytes = 500;
  policy.programs[kProgram].keep_daily = 7;
  const RetentionRules own = policy.rules_of(kProgram);
  EXPECT_EQ(own.keep_latest, 4U);
  EXPECT_EQ(own.keep_hourly, 6U);
  EXPECT_EQ(own.keep_daily, 7U);
  EXPECT_EQ(own.max_age_s, 0U);
  EXPECT_EQ(own.max_bytes, 0U) << "a bound is of the level where it is written";
  const RetentionRules other = policy.rules_of(ProgramKey{EcuMac{1}, 7});
  EXPECT_EQ(other.keep_hourly, 5U);
  EXPECT_EQ(other.keep_daily, 0U);
  EXPECT_EQ(other.max_age_s, 100U);
  policy.programs[kProgram].max_bytes = 5;
  EXPECT_EQ(policy.rules_of(kProgram).max_bytes, 5U);
  const auto bounds = policy.bounds();
  ASSERT_EQ(bounds.size(), 2U);
  EXPECT_EQ(bounds[0].ecu_mac, kProgram.ecu_mac);
  EXPECT_EQ(bounds[0].max_bytes, 500U);
  EXPECT_FALSE(bounds[1].ecu_mac.has_value());
  EXPECT_EQ(RetentionPolicy().rules_of(kProgram).keep_latest, 3U);
}

TEST(OldestFirstTest, FindsTheOldestThatTakeEnoughInWhateverOrder) {
  for (std::uint64_t seed = 0; seed < 500; ++seed) {
    Prng prng(seed);
    std::vector<std::pair<std::uint64_t, RetentionRow>> offered;
    for (Seq seq = 1; seq <= 30; ++seq) {
      const std::uint64_t at_us = 1 + prng.below(20);
      const std::uint64_t bytes = prng.below(10);
      offered.emplace_back(at_us, row_at(seq, at_us, bytes));
    }
    const std::uint64_t excess = 1 + prng.below(100);
    const std::size_t count_max = 1 + prng.below(20);
    OldestFirst search(excess, count_max);
    for (std::size_t left = offered.size(); left > 0; --left) {
      const std::size_t at = prng.below(left);
      search.offer(offered[at].second, offered[at].first);
      std::swap(offered[at], offered[left - 1]);
    }
    std::sort(offered.begin(), offered.end(), [](const auto& a, const auto& b) {
      return std::make_pair(a.first, a.second.name.checkpoint.version) <
             std::make_pair(b.first, b.second.name.checkpoint.version);
    });
    std::vector<Seq> wanted;
    std::uint64_t sum = 0;
    for (const auto& [at_us, row] : offered) {
      if (sum >= excess || wanted.size() == count_max) break;
      sum += row.stored_bytes;
      wanted.push_back(row.name.checkpoint.version.seq);
    }
    std::vector<Seq> found;
    for (const auto& one : std::move(search).take()) found.push_back(one.row.name.checkpoint.version.seq);
    ASSERT_EQ(found, wanted) << seed;
  }
}

TEST(OldestFirstTest, FindsNothingWhenNothingIsOffered) { EXPECT_THAT(OldestFirst(5, 5).take(), IsEmpty()); }

TEST(RetentionWordsTest, NameTheRule) {
  RetentionRules rules;
  rules.max_age_s = 30 * 86400;
  EXPECT_EQ(in_words(Verdict::kBeyondKeep, rules), "beyond keep_latest 3");
  EXPECT_EQ(in_words(Verdict::kTooOld, rules), "older than max_age 30d");
  rules.keep_hourly = 24;
  rules.keep_daily = 7;
  EXPECT_EQ(in_words(Verdict::kBeyondKeep, rules), "beyond keep_latest 3, keep_hourly 24, keep_daily 7");
  EXPECT_EQ(in_words(Verdict::kFleetBytes, rules, std::uint64_t{10} << 30),
            "max_bytes 10GiB of the fleet: oldest first");
  EXPECT_EQ(duration_text(5400), "90m");
  EXPECT_EQ(duration_text(61), "61s");
  EXPECT_EQ(bytes_text(1025), "1025 bytes");
}

}  // namespace
}  // namespace cms::core
