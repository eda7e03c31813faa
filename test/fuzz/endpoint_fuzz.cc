// Endpoints and port ranges, from the command line and from what peers say of themselves.
#include "net/endpoint.h"
#include "test/fuzz/fuzz.h"

namespace cms::fuzz {
namespace {

void expect_endpoint(const net::Endpoint& endpoint) {
  const std::string text = endpoint.channel(net::kNotifyPort);
  CMS_FUZZ_HOLDS(!endpoint.host.empty() && endpoint.host.size() <= 253, text);
  // It goes to libzmq as a C string and into logs.
  for (const char c : endpoint.host) {
    const auto octet = static_cast<unsigned char>(c);
    CMS_FUZZ_HOLDS(octet > 0x20 && octet != 0x7f, text);
  }
  const unsigned last_port = endpoint.port + net::kPortCount - 1U;
  CMS_FUZZ_HOLDS(endpoint.port > 0 && last_port <= 65535, text);
  const auto again = net::parse_endpoint(text);
  CMS_FUZZ_HOLDS(again.ok() && again->host == endpoint.host && again->port == endpoint.port, text);
}

}  // namespace

bool take(const std::uint8_t* data, std::size_t size_bytes) {
  const std::string_view text(reinterpret_cast<const char*>(data), size_bytes);
  const auto endpoint = net::parse_endpoint(text);
  if (endpoint.ok()) {
    expect_endpoint(*endpoint);
  } else {
    expect_error(endpoint.error(), {Code::kInvalidArgument}, size_bytes + 256);
  }
  const auto list = net::parse_endpoint_list(text);
  CMS_FUZZ_HOLDS(!endpoint.ok() || list.ok(), "one is not a list of one");
  if (list.ok()) {
    CMS_FUZZ_HOLDS(!list->empty(), std::string(text));
    for (std::size_t i = 0; i < list->size(); ++i) {
      expect_endpoint((*list)[i]);
      for (std::size_t k = 0; k < i; ++k) {
        CMS_FUZZ_HOLDS((*list)[i].host != (*list)[k].host || (*list)[i].port != (*list)[k].port,
                       std::string(text));
      }
    }
  } else {
    expect_error(list.error(), {Code::kInvalidArgument}, size_bytes + 256);
  }
  const auto range = net::parse_port_range(text);
  if (range.ok()) {
    CMS_FUZZ_HOLDS(range->first > 0 && range->first <= range->last, std::string(text));
    const auto again =
        net::parse_port_range(std::to_string(range->first) + "-" + std::to_string(range->last));
    CMS_FUZZ_HOLDS(again.ok() && again->first == range->first && again->last == range->last,
                   std::string(text));
  } else {
    expect_error(range.error(), {Code::kInvalidArgument}, size_bytes + 256);
  }
  return list.ok() || range.ok();
}

}  // namespace cms::fuzz
