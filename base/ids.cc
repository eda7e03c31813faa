#include "base/ids.h"

#include <charconv>
#include <cstddef>

namespace cms {
namespace {

constexpr char kHexDigits[] = "0123456789abcdef";

void append_hex64(std::string& out, std::uint64_t value) {
  for (int shift = 60; shift >= 0; shift -= 4) out += kHexDigits[(value >> shift) & 0xf];
}

int hex_digit_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

Error bad_key(std::string_view text) {
  return make_error(Code::kInvalidArgument,
                    "'" + std::string(text) +
                        "' is not a KEY: expected ecu_mac/program_id[@incarnation.seq], for example "
                        "02:00:00:00:00:01/7 or 02:00:00:00:00:01/7@65536.3");
}

}  // namespace

std::string to_string(const Id128& id) {
  std::string out;
  out.reserve(32);
  append_hex64(out, id.high);
  append_hex64(out, id.low);
  return out;
}

Result<Id128> parse_id128(std::string_view text) {
  Id128 id;
  if (text.size() != 32) {
    return make_error(Code::kInvalidArgument,
                      "'" + std::string(text) + "' is not a 128-bit id: expected 32 hexadecimal digits");
  }
  for (std::size_t i = 0; i < 32; ++i) {
    const int digit = hex_digit_value(text[i]);
    if (digit < 0) {
      return make_error(Code::kInvalidArgument,
                        "'" + std::string(text) + "' is not a 128-bit id: expected 32 hexadecimal digits");
    }
    std::uint64_t& half = i < 16 ? id.high : id.low;
    half = (half << 4) | static_cast<std::uint64_t>(digit);
  }
  return id;
}

bool is_valid_ecu_mac(EcuMac ecu_mac) {
  constexpr std::uint64_t kGroupBit = 0x010000000000ULL;  // IEEE 802: first octet, lowest bit
  return ecu_mac.bits != 0 && ecu_mac.bits <= kEcuMacBitsMax && (ecu_mac.bits & kGroupBit) == 0;
}

std::string to_string(EcuMac ecu_mac) {
  std::string out;
  out.reserve(17);
  for (int shift = 40; shift >= 0; shift -= 8) {
    const unsigned octet = static_cast<unsigned>((ecu_mac.bits >> shift) & 0xff);
    if (!out.empty()) out += ':';
    out += kHexDigits[octet >> 4];
    out += kHexDigits[octet & 0xf];
  }
  return out;
}

Result<EcuMac> parse_ecu_mac(std::string_view text) {
  const auto bad = [&] {
    return make_error(Code::kInvalidArgument,
                      "'" + std::string(text) +
                          "' is not an ECU's Ethernet address: expected six octets such as "
                          "02:00:00:00:00:01, not all zero and not multicast");
  };
  if (text.size() != 17) return bad();
  EcuMac ecu_mac;
  for (std::size_t i = 0; i < 17; ++i) {
    if (i % 3 == 2) {
      if (text[i] != ':') return bad();
      continue;
    }
    const int digit = hex_digit_value(text[i]);
    if (digit < 0) return bad();
    ecu_mac.bits = (ecu_mac.bits << 4) | static_cast<std::uint64_t>(digit);
  }
  if (!is_valid_ecu_mac(ecu_mac)) return bad();
  return ecu_mac;
}

std::string to_string(const ProgramKey& key) {
  return to_string(key.ecu_mac) + "/" + std::to_string(key.program_id);
}

std::string to_string(const SessionId& id) {
  return to_string(id.ecu_mac) + "@" + std::to_string(id.incarnation);
}

std::string to_string(const CheckpointId& id) {
  return to_string(id.program) + "@" + std::to_string(id.version.incarnation) + "." +
         std::to_string(id.version.seq);
}

Result<std::uint64_t> parse_u64(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || code != std::errc() || end != text.data() + text.size()) {
    return make_error(Code::kInvalidArgument,
                      "'" + std::string(text) + "' is not a whole number from 0 to 18446744073709551615");
  }
  return value;
}

Result<Key> parse_key(std::string_view text) {
  const std::size_t slash = text.find('/');
  if (slash == std::string_view::npos) return bad_key(text);
  Key key;
  const auto ecu_mac = parse_ecu_mac(text.substr(0, slash));
  if (!ecu_mac) return bad_key(text);
  key.program.ecu_mac = *ecu_mac;
  std::string_view rest = text.substr(slash + 1);
  const std::size_t at = rest.find('@');
  const auto program_id = parse_u64(rest.substr(0, at));
  if (!program_id) return bad_key(text);
  key.program.program_id = *program_id;
  if (at == std::string_view::npos) return key;
  rest = rest.substr(at + 1);
  const std::size_t dot = rest.find('.');
  if (dot == std::string_view::npos) return bad_key(text);
  const auto incarnation = parse_u64(rest.substr(0, dot));
  const auto seq = parse_u64(rest.substr(dot + 1));
  if (!incarnation || !seq || *incarnation == 0 || *seq == 0) return bad_key(text);  // Both start at 1.
  key.has_version = true;
  key.version = Version{*incarnation, *seq};
  return key;
}

Incarnation next_incarnation(Incarnation max_known, std::uint64_t nonce) {
  if (max_known >> 16 == UINT64_MAX >> 16) return 0;
  return (((max_known >> 16) + 1) << 16) | (nonce & 0xffff);
}

}  // namespace cms
