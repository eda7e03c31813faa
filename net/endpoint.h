#pragma once
// Where a CMS is. One endpoint is named, that of its notify channel; the others follow from it.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace cms::net {

// Offsets from --port-base.
inline constexpr std::uint16_t kNotifyPort = 0;
inline constexpr std::uint16_t kControlPort = 1;
inline constexpr std::uint16_t kPeerPort = 2;
inline constexpr std::uint16_t kBulkPort = 3;
inline constexpr std::uint16_t kAdminPort = 4;
inline constexpr std::uint16_t kHttpPort = 5;
inline constexpr std::uint16_t kPortCount = 6;
inline constexpr std::uint16_t kDefaultPortBase = 7400;

struct Endpoint {
  std::string host{};      // As written, without brackets.
  std::uint16_t port = 0;  // Of the notify channel: the port base.

  // "tcp://host:port" of one of the channels.
  std::string channel(std::uint16_t offset) const;
};

// "tcp://H:P", P from 1 to 65535 - kPortCount. kInvalidArgument says what is wrong and allowed.
Result<Endpoint> parse_endpoint(std::string_view text);
// A comma list of them, none twice.
Result<std::vector<Endpoint>> parse_endpoint_list(std::string_view text);

struct PortRange {
  std::uint16_t first = 7600;
  std::uint16_t last = 7999;
};
// "A-B". Ports of the kernel's ephemeral range are refused by nobody, but do not use them: a
// connecting socket may meet itself there.
Result<PortRange> parse_port_range(std::string_view text);

}  // namespace cms::net
