#include "net/endpoint.h"

#include <algorithm>

#include "base/ids.h"

namespace cms::net {
namespace {

Error bad_endpoint(std::string_view text, const char* why) {
  return make_error(Code::kInvalidArgument,
                    "'" + std::string(text) + "' is not a CMS endpoint (" + why +
                        "): expected tcp://HOST:PORT, for example tcp://10.0.0.1:7400");
}

// Goes to libzmq as a C string, to logs, and back into "tcp://[HOST]:PORT".
bool is_host(std::string_view host) {
  constexpr std::string_view kNotInHosts = ",;/*?#@[]";
  return !host.empty() && host.size() <= 253 && std::all_of(host.begin(), host.end(), [&](char c) {
    return c > ' ' && c < 0x7f && kNotInHosts.find(c) == std::string_view::npos;
  });
}

}  // namespace

std::string Endpoint::channel(std::uint16_t offset) const {
  const bool ipv6 = host.find(':') != std::string::npos;
  return "tcp://" + (ipv6 ? "[" + host + "]" : host) + ":" + std::to_string(port + offset);
}

Result<Endpoint> parse_endpoint(std::string_view text) {
  constexpr std::string_view kScheme = "tcp://";
  if (text.substr(0, kScheme.size()) != kScheme) return bad_endpoint(text, "it does not begin with tcp://");
  const std::string_view rest = text.substr(kScheme.size());
  const std::size_t colon = rest.rfind(':');
  if (colon == std::string_view::npos) return bad_endpoint(text, "it has no port");
  std::string_view host = rest.substr(0, colon);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return bad_endpoint(text, "an IPv6 address goes in brackets");
  }
  if (!is_host(host)) {
    return bad_endpoint(text, "the host is missing or not a host name or address");
  }
  const auto port = parse_u64(rest.substr(colon + 1));
  if (!port || *port == 0 || *port > 65535 - kPortCount) {
    return bad_endpoint(text, "the port must be a number from 1 to 65529");
  }
  Endpoint endpoint;
  endpoint.host = std::string(host);
  endpoint.port = static_cast<std::uint16_t>(*port);
  return endpoint;
}

Result<std::vector<Endpoint>> parse_endpoint_list(std::string_view text) {
  std::vector<Endpoint> endpoints;
  while (true) {
    const std::size_t comma = text.find(',');
    auto endpoint = parse_endpoint(text.substr(0, comma));
    if (!endpoint) return std::move(endpoint).error();
    const bool twice = std::any_of(endpoints.begin(), endpoints.end(), [&](const Endpoint& other) {
      return other.host == endpoint->host && other.port == endpoint->port;
    });
    if (twice) return bad_endpoint(text.substr(0, comma), "it is named twice");
    endpoints.push_back(std::move(*endpoint));
    if (comma == std::string_view::npos) return endpoints;
    text = text.substr(comma + 1);
  }
}

Result<PortRange> parse_port_range(std::string_view text) {
  const std::size_t dash = text.find('-');
  const auto first = parse_u64(text.substr(0, dash));
  const auto last = dash == std::string_view::npos ? first : parse_u64(text.substr(dash + 1));
  if (!first || !last || *first == 0 || *first > *last || *last > 65535) {
    return make_error(
        Code::kInvalidArgument,
        "'" + std::string(text) + "' is not a port range: expected FIRST-LAST, for example 7600-7999");
  }
  return PortRange{static_cast<std::uint16_t>(*first), static_cast<std::uint16_t>(*last)};
}

}  // namespace cms::net
