#pragma once
// The network of tests of leases and moves: a host for each of two cmsd, `a` and `b`, for the ECU `e`, and for two that
// could take its programs, `first` and `second`.
#include <memory>
#include <string>

#include "test/integration/fleet.h"
#include "test/integration/netns.h"

namespace cms::test {

inline constexpr std::uint16_t kPortBase = 7400;  // Nobody else is on these hosts.

// What fails is reported as a failure of the test.
inline std::unique_ptr<Netns> make_hosts() {
  return std::make_unique<Netns>(std::vector<std::string>{"a", "b", "e", "first", "second"});
}

inline Host host_of(const Netns& net, const std::string& name) {
  return {net.address(name), net.launcher(name)};
}

inline Fleet::Options fleet_on(const Netns& net) {
  Fleet::Options options;
  options.hosts = {host_of(net, "a"), host_of(net, "b")};
  options.port_bases = {kPortBase, kPortBase};
  return options;
}

}  // namespace cms::test
