#pragma once
// The identities of the system; docs/glossary.md defines each word. All are small values, ordered
// and printable; parse functions take exactly what to_string prints, and nothing else.
#include <cstdint>
#include <string>
#include <string_view>
#include <tuple>

#include "base/result.h"

namespace cms {

// 128 bits, printed as 32 lower-case hexadecimal digits, most significant first.
struct Id128 {
  std::uint64_t high = 0;
  std::uint64_t low = 0;

  friend bool operator==(const Id128& a, const Id128& b) { return a.high == b.high && a.low == b.low; }
  friend bool operator!=(const Id128& a, const Id128& b) { return !(a == b); }
  friend bool operator<(const Id128& a, const Id128& b) {
    return std::tie(a.high, a.low) < std::tie(b.high, b.low);
  }
};
std::string to_string(const Id128& id);
Result<Id128> parse_id128(std::string_view text);

// An ECU's Ethernet address; the 48 bits stand in the low end of `bits`, first octet highest.
struct EcuMac {
  std::uint64_t bits = 0;

  friend bool operator==(EcuMac a, EcuMac b) { return a.bits == b.bits; }
  friend bool operator!=(EcuMac a, EcuMac b) { return a.bits != b.bits; }
  friend bool operator<(EcuMac a, EcuMac b) { return a.bits < b.bits; }
};
inline constexpr std::uint64_t kEcuMacBitsMax = 0xffffffffffffULL;
// An address that can name an ECU: unicast and not all zero. (Multicast addresses name nobody.)
bool is_valid_ecu_mac(EcuMac ecu_mac);
std::string to_string(EcuMac ecu_mac);  // "02:00:00:00:00:01"
// Takes lower- or upper-case digits; refuses what is_valid_ecu_mac refuses.
Result<EcuMac> parse_ecu_mac(std::string_view text);

using ProgramId = std::uint64_t;    // Unique on one ECU only; 0 is valid; printed in decimal.
using Incarnation = std::uint64_t;  // Of a session; larger at every start; 0: not yet assigned.

// A new incarnation above `max_known`: the counter stands above 16 bits of the client's nonce, so that
// two CMS instances that know the same do not give the same one to two clients. 0: there is none left
// (only when a client lied about its own: 2^48 starts).
Incarnation next_incarnation(Incarnation max_known, std::uint64_t nonce);
using Seq = std::uint64_t;         // Of a notification within its session; from 1, +1 each.
using OwnerEpoch = std::uint64_t;  // Fencing number of a lineage; 0 until the first claim.
using Lineage = Id128;             // What a program keeps through every move.

struct ProgramKey {
  EcuMac ecu_mac{};
  ProgramId program_id = 0;

  friend bool operator==(const ProgramKey& a, const ProgramKey& b) {
    return a.ecu_mac == b.ecu_mac && a.program_id == b.program_id;
  }
  friend bool operator!=(const ProgramKey& a, const ProgramKey& b) { return !(a == b); }
  friend bool operator<(const ProgramKey& a, const ProgramKey& b) {
    return std::tie(a.ecu_mac, a.program_id) < std::tie(b.ecu_mac, b.program_id);
  }
};

// One start of one broker or embedded client.
struct SessionId {
  EcuMac ecu_mac{};
  Incarnation incarnation = 0;

  friend bool operator==(const SessionId& a, const SessionId& b) {
    return a.ecu_mac == b.ecu_mac && a.incarnation == b.incarnation;
  }
  friend bool operator!=(const SessionId& a, const SessionId& b) { return !(a == b); }
  friend bool operator<(const SessionId& a, const SessionId& b) {
    return std::tie(a.ecu_mac, a.incarnation) < std::tie(b.ecu_mac, b.incarnation);
  }
};

// Age among the checkpoints of one program and one owner_epoch: the larger is the newer.
struct Version {
  Incarnation incarnation = 0;
  Seq seq = 0;

  friend bool operator==(const Version& a, const Version& b) {
    return a.incarnation == b.incarnation && a.seq == b.seq;
  }
  friend bool operator!=(const Version& a, const Version& b) { return !(a == b); }
  friend bool operator<(const Version& a, const Version& b) {
    return std::tie(a.incarnation, a.seq) < std::tie(b.incarnation, b.seq);
  }
  friend bool operator<=(const Version& a, const Version& b) { return !(b < a); }
};

struct CheckpointId {
  ProgramKey program{};
  Version version{};

  friend bool operator==(const CheckpointId& a, const CheckpointId& b) {
    return a.program == b.program && a.version == b.version;
  }
  friend bool operator!=(const CheckpointId& a, const CheckpointId& b) { return !(a == b); }
  friend bool operator<(const CheckpointId& a, const CheckpointId& b) {
    return std::tie(a.program, a.version) < std::tie(b.program, b.version);
  }
};

std::string to_string(const ProgramKey& key);   // "02:00:00:00:00:01/7"
std::string to_string(const SessionId& id);     // "02:00:00:00:00:01@65536"
std::string to_string(const CheckpointId& id);  // "02:00:00:00:00:01/7@65536.3"

// A KEY of the command line: `ecu_mac/program_id[@incarnation.seq]`.
struct Key {
  ProgramKey program{};
  bool has_version = false;  // false: the newest.
  Version version{};
};
Result<Key> parse_key(std::string_view text);
// Decimal, the whole of `text`, no sign.
Result<std::uint64_t> parse_u64(std::string_view text);

}  // namespace cms
