#pragma once
// Leases, driven by hand: one cmsd, its Members, and up to two others whose records the test writes.
#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "cms/core/leases.h"

namespace cms::core::leases_driver {

using std::chrono::milliseconds;
using std::chrono::seconds;
using wire::EcuRecord;
using wire::EcuRecordKind;
using wire::Enforcer;
using AppendEnd = Leases::AppendEnd;

inline const Writer kMe{"cms-a", 11};
inline const Writer kOther{"cms-b", 22};
inline const Writer kThird{"cms-c", 33};
inline constexpr EcuMac kEcu{0x020000000001};

inline Stamp stamp(const Writer& writer = kOther) {
  static std::uint64_t uid = 5000;
  return Stamp{writer, ++uid, 1};
}

inline wire::Hello hello_said(std::uint64_t nonce, EcuMac ecu_mac = kEcu) {
  wire::Hello said;
  said.ecu_mac = ecu_mac;
  said.nonce = nonce;
  said.guarded = true;
  said.boot_id = Id128{7, nonce};
  said.enforcer = Enforcer::kGuard;
  return said;
}

inline EcuRecord hello_of(std::uint64_t nonce, const EcuRecord* head = nullptr, EcuMac ecu_mac = kEcu) {
  return *hello(stamp(), head, hello_said(nonce, ecu_mac), 0x10000 + nonce);
}

inline EcuMac ecu_mac_of(std::uint64_t number) { return EcuMac{0x020000000000 + number}; }

class LeasesDriver : public ::testing::Test {
 protected:
  template <typename Call>
  void call(const Call& call) {
    effects.clear();
    call(effects);
  }
  // ---- the store
  // Our record is written and all records are read, at once and now.
  void renew() {
    if (writing) write(now, now);
    if (reading) look(now);
  }
  void write(Instant sent_at, Instant durable_at) {
    members.on_written(sent_at);
    written_bars = leases->bars();
    leases->on_member_written(sent_at, durable_at, now, written_bars);
  }
  void look(Instant begun_at) {
    std::vector<Members::Seen> seen;
    for (auto& [writer, other] : others) {
      if (other.renews) ++other.record.counter;
      seen.push_back({writer.first, writer.second, other.record});
    }
    members.on_read(begun_at, now, seen);
    std::vector<LeaseEffect> more;
    leases->on_members_read(begun_at, now, more);
    effects.insert(effects.end(), more.begin(), more.end());
  }
  // Time passes in turns of a quarter of a second; each second all that are alive renew their records, and each heard
  // ECU beats. `effects`: of all of it.
  void pass(Duration duration) {
    effects.clear();
    for (Duration left = duration; left > Duration{}; left -= milliseconds(250)) {
      now += std::min<Duration>(left, milliseconds(250));
      const bool beats = ++turn % 4 == 0;
      for (const SessionId& session : beating) {
        if (beats) leases->on_heartbeat(now, session, effects);
      }
      leases->on_time(now, wall_us, effects);
      if (beats) renew();
      if (logs_answer) answer_reads();
    }
  }
  // All that was asked of logs so far: they have what was read of them before.
  void answer_reads() {
    for (const ReadEcuLogs& read : all<ReadEcuLogs>()) {
      for (const EcuMac ecu_mac : read.ecu_macs) {
        if (ecu(ecu_mac).asked) leases->on_head(now, now, ecu_mac, std::optional(ecu(ecu_mac).head), effects);
      }
    }
  }
  // A young cmsd has looked for T_member.
  void looked_long() { pass(seconds(13)); }
  void head_is(const EcuRecord& record) { head_is(record, now); }
  void head_is(const EcuRecord& record, Instant asked_at) {
    call([&](auto& out) { leases->on_head(asked_at, now, record.ecu_mac, std::optional(record), out); });
  }
  void listed(const std::vector<EcuRecord>& heads) {
    call([&](auto& out) { leases->on_listed(now, now, heads, out); });
  }
  void append_ended(const Result<AppendEnd>& end, std::uint64_t attempt = 0, EcuMac ecu_mac = kEcu) {
    call([&](auto& out) { leases->on_appended(now, ecu_mac, end, attempt, out); });
  }
  bool beat(const EcuRecord& record) {
    bool leased = false;
    call([&](auto& out) { leased = leases->on_heartbeat(now, session_of(record), out); });
    return leased;
  }
  void turn_of_loop() {
    call([&](auto& out) { leases->on_time(now, wall_us, out); });
  }
  // ---- the others
  struct Other {
    wire::MemberRecord record{};
    bool renews = true;
  };
  Other& other(const Writer& writer = kOther) {
    Other& one = others[{writer.name, writer.incarnation}];
    one.record.node = writer.name;
    one.record.incarnation = writer.incarnation;
    return one;
  }
  void bars_too(const EcuRecord& record, const Writer& writer = kOther) {
    other(writer).record.bars.push_back(session_of(record));
  }

  // ---- what it wants done
  template <typename T>
  std::vector<T> all() const {
    std::vector<T> some;
    for (const LeaseEffect& effect : effects) {
      if (const T* one = std::get_if<T>(&effect)) some.push_back(*one);
    }
    return some;
  }
  template <typename T>
  bool none() const {
    return all<T>().empty();
  }
  std::vector<EcuRecord> appended() const {
    std::vector<EcuRecord> records;
    for (const AppendEcuRecord& one : all<AppendEcuRecord>()) records.push_back(one.record);
    return records;
  }
  bool reads(EcuMac ecu_mac = kEcu) const {
    const auto read = all<ReadEcuLogs>();
    return std::any_of(read.begin(), read.end(), [&](const ReadEcuLogs& one) {
      return std::count(one.ecu_macs.begin(), one.ecu_macs.end(), ecu_mac) == 1;
    });
  }
  const Leases::Ecu& ecu(EcuMac ecu_mac = kEcu) const { return leases->ecus().at(ecu_mac); }

  // ---- steps
  // It has been read, and is heard, and all has gone well for long.
  EcuRecord leased() {
    const EcuRecord record = hello_of(0x11);
    renew();
    head_is(record);
    beating = {session_of(record)};
    looked_long();
    EXPECT_TRUE(leases->is_leased(now, session_of(record)));
    return record;
  }
  // ... and is not heard any more: LOST is being appended, as all others bar it.
  EcuRecord losing() {
    const EcuRecord record = leased();
    beating.clear();
    for (auto& [writer, one] : others) one.record.bars.push_back(session_of(record));
    pass(seconds(10));
    const auto records = appended();
    EXPECT_EQ(records.size(), 1U);
    if (!records.empty()) lost_record = records.front();
    EXPECT_EQ(lost_record.kind, EcuRecordKind::kLost);
    return record;
  }

  Instant now{std::chrono::hours(1)};
  std::uint64_t wall_us = 77;
  Members members{kMe, MemberTimers{seconds(3), seconds(12)}};
  std::optional<Leases> leases{std::in_place, kMe, LeaseTimers{seconds(5), seconds(8)}, members, 5};
  std::map<std::pair<std::string, std::uint64_t>, Other> others;
  std::vector<SessionId> beating;
  std::vector<SessionId> written_bars;
  LeaseEffects effects;
  EcuRecord lost_record;
  bool logs_answer = false;  // While time passes.
  bool writing = true;
  bool reading = true;
  int turn = 0;
};

}  // namespace cms::core::leases_driver
