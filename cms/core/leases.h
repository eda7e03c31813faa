#pragma once
// Leases decides for one cmsd which guarded sessions of ECUs may run on: it grants run leases to those whose HELLO it
// has read, bars those that it has not heard for T_dead, appends LOST to the log of an ECU that nobody grants to, and says when
// such a loss may be acted upon. docs/adr/0015-run-leases.md has the rules and the arithmetic.
//
// Inputs are calls with the time; what is to be done comes back as effects. Members (members.h) is to be told of every
// write and look before this is.
//
// Threads: none; no I/O, no clock. Bounds: kGuardedCountMax ECUs; wire::kBarCountMax bars at a time, the others wait.
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/prng.h"
#include "base/result.h"
#include "base/time.h"
#include "cms/core/ecu_log.h"
#include "cms/core/members.h"
#include "schemas/ecu_record.h"
#include "schemas/messages.h"

namespace cms::core {

inline constexpr std::size_t kGuardedCountMax = 20000;
inline constexpr Duration kEcuLogsListedEvery = std::chrono::seconds(30);
inline constexpr Duration kEcuLogRetry = std::chrono::milliseconds(500);
// A word about maintenance that could not be written for so long is given up: who said it is told, and may have gone.
inline constexpr Duration kMaintenanceTriedFor = std::chrono::seconds(30);
// A Hello of another start of a session is refused while the former one was heard so lately.
inline constexpr Duration kGuardedHeardLately = std::chrono::milliseconds(2500);

// The store's (FORMAT), so that all that use it have the same.
struct LeaseTimers {
  Duration ecu_fence{};  // T_fence: of a lease, from the sending of the heartbeat that renews it.
  Duration ecu_dead{};   // T_dead
};

// ---- effects
// The heads of the logs of all guarded ECUs, durably. on_listed.
struct ListEcuLogs {};
// Durably. on_head for each.
struct ReadEcuLogs {
  std::vector<EcuMac> ecu_macs{};
};
struct AppendEcuRecord {  // on_appended.
  wire::EcuRecord record{};
};
struct SettleEcuAppend {  // on_appended.
  EcuMac ecu_mac{};
  std::uint64_t attempt = 0;
};
// Bars have changed, or are awaited of others: the member record is to be written, and the others' read, now.
struct RenewMember {};
// It may not have a lease here any more: its Hello is to be judged anew.
struct GuardedEnded {
  SessionId session{};
  std::string why{};
};
// Its log says the contrary of before about maintenance: what its programs wait for is to be judged anew.
struct MaintenanceChanged {
  SessionId session{};
};
// Nothing of it runs, and nobody will ever let it run: what it owned may be restored.
struct SessionLost {
  wire::EcuRecord record{};
};
struct LeaseEvent {  // For the log.
  bool warning = false;
  std::string text{};
};
using LeaseEffect = std::variant<ListEcuLogs, ReadEcuLogs, AppendEcuRecord, SettleEcuAppend, RenewMember,
                                 GuardedEnded, MaintenanceChanged, SessionLost, LeaseEvent>;
using LeaseEffects = std::vector<LeaseEffect>;

class Leases {
 public:
  // `members` outlives this. `seed`: of records' uids.
  Leases(const Writer& me, const LeaseTimers& timers, const Members& members, std::uint64_t seed)
      : me_(me), timers_(timers), members_(members), prng_(seed) {}

  // ---- inputs: ECUs
  // Of a guarded session. True: its run lease is renewed.
  bool on_heartbeat(Instant now, const SessionId& session, LeaseEffects& effects);
  // It has said BYE.
  void on_bye(Instant now, const SessionId& session, LeaseEffects& effects);
  // Of a guarded session that asks for one. kAlreadyExists: another one of that ECU was heard lately. `same_client`: that
  // one came over the same connection. kFenced: every cmsd bars it; the next one is granted what it asks for.
  Status on_hello(Instant now, const wire::Hello& hello, bool same_client);

  // ---- inputs: the logs. `asked_at`: when the reading began. nullopt: the log is empty.
  void on_head(Instant asked_at, Instant now, EcuMac ecu_mac,
               const Result<std::optional<wire::EcuRecord>>& head, LeaseEffects& effects);
  void on_listed(Instant asked_at, Instant now, const Result<std::vector<wire::EcuRecord>>& heads,
                 LeaseEffects& effects);
  enum class AppendEnd : std::uint8_t { kWon, kLost, kUnresolved };
  void on_appended(Instant now, EcuMac ecu_mac, const Result<AppendEnd>& end, std::uint64_t attempt,
                   LeaseEffects& effects);

  // ---- inputs: the members
  // What our next record says.
  std::vector<SessionId> bars() const;
  // That record, sent at `sent_at` with those bars, was durable at `durable_at`.
  void on_member_written(Instant sent_at, Instant durable_at, Instant now,
                         const std::vector<SessionId>& bars);
  // Members was told of a look that began then.
  void on_members_read(Instant begun_at, Instant now, LeaseEffects& effects);

  // ---- inputs: people and time
  // Silence of that ECU is no loss, until this is taken back; for all cmsd. It is so when its log was read, and says it;
  // until then it is tried for kMaintenanceTriedFor. kNotFound: we know of no log; it is looked for, so that the next
  // call knows it. kUnavailable: we may not act; try again.
  Status set_maintenance(Instant now, EcuMac ecu_mac, bool maintenance, LeaseEffects& effects);
  // At least each second, and after the messages of ECUs that have come meanwhile.
  void on_time(Instant now, std::uint64_t wall_us, LeaseEffects& effects);

  // ---- for others
  struct Ecu {
    wire::EcuRecord head{};
    Instant read_at{};  // When the reading of `head` began.
    // Its last sign of life here: a heartbeat, or the Hello of a session that cannot begin yet; else since when we know
    // of that session.
    Instant heard_at{};
    Instant heartbeat_at{};  // If `heard`.
    // When a lease was last granted here, to whichever session: what that one lets run must have stopped before a bar is
    // shown.
    std::optional<Instant> granted_at{};
    bool heard = false;
    bool said_bye = false;
    bool barred = false;
    std::optional<Instant> bar_durable_at{};
    std::optional<Instant> lost_known_at{};  // Since when we know that it is LOST,
    bool handed_over = false;                //   and whether that was acted upon.
    bool asked = false;                      // The worker has a question or an append of it.
    bool stale = false;                      // The log may have gone on: it is to be read.
    std::uint64_t unresolved = 0;            // An append whose outcome is not known.
    Instant next_at{};                       // Not before that is it read, or settled.
    std::optional<wire::EcuRecord> appending{};
    struct Wish {
      bool maintenance = false;
      Instant at{};
    };
    std::optional<Wish> wish{};  // An operator's, that its log does not say yet.
  };
  const std::map<EcuMac, Ecu>& ecus() const { return ecus_; }
  // Whether it has a lease of ours that may live.
  bool is_leased(Instant now, const SessionId& session) const;
  // Or of another, who keeps a session that we bar and hear again: what it is told it may obey.
  bool may_be_leased(Instant now, const SessionId& session) const;
  // Heard or not, nobody will ever grant anything to it: we bar it, and so do all that live.
  bool is_barred_by_all(Instant now, const SessionId& session) const;
  bool in_maintenance(EcuMac ecu_mac) const;
  // The head of that ECU's log as last read; nullptr: it is not known to have one.
  const wire::EcuRecord* head_of(EcuMac ecu_mac) const;
  const LeaseTimers& timers() const { return timers_; }
  // Of the others' bars and lives, who keeps a barred session from being LOST; empty: nobody.
  std::vector<std::string> kept_by(Instant now, const SessionId& session) const;

 private:
  bool is_confirmed(const Ecu& ecu) const;
  bool may_grant(Instant now, const Ecu& ecu) const;
  void take_head(Instant asked_at, Instant now, const wire::EcuRecord& record, LeaseEffects& effects);
  void read_wanted(Instant now, LeaseEffects& effects);
  void read_kept(Instant now);
  void bar_silent(Instant now, LeaseEffects& effects);
  bool may_bar(Instant now, const Ecu& ecu) const;
  void say_byes(Instant now, LeaseEffects& effects);
  void grant_wish(Instant now, Ecu& ecu, LeaseEffects& effects);
  static bool is_free(const Ecu& ecu);
  static void append(Ecu& ecu, wire::EcuRecord record, LeaseEffects& effects);
  Stamp stamp();

  const Writer me_;
  const LeaseTimers timers_;
  const Members& members_;
  Prng prng_;
  std::uint64_t wall_us_ = 0;
  std::map<EcuMac, Ecu> ecus_;
  std::map<EcuMac, bool> unknown_;  // ECUs of which we have heard, but have not read the log; whether asked.
  std::optional<Instant> written_at_;     // The sending of our last good member record,
  std::optional<Instant> may_act_since_;  //   and since when these have followed one another in time.
  Instant next_list_at_{};
  bool listing_ = false;
  std::optional<Instant> time_at_;  // The last on_time.
};

}  // namespace cms::core
