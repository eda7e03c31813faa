#include "test/integration/leases.h"

#include "test/integration/fleet.h"

namespace cms::test {

using nlohmann::json;

json lease_of(const CmsdProcess& cmsd, const std::string& ecu_mac) {
  const auto told = cmsd.admin({"ecus", "--ecu-mac", ecu_mac, "--timeout", "60s", "--output", "json"});
  const json answer = json::parse(told.output, nullptr, false);
  if (!answer.is_object() || answer.value("ecus", json::array()).empty()) return nullptr;
  return answer.at("ecus").front().value("lease", json());
}

testing::AssertionResult comes_to(const CmsdProcess& cmsd, const std::string& ecu_mac,
                                  const std::function<bool(const json& lease)>& wanted) {
  const auto start = TestClock::now();
  json lease;
  while (since(start) < kPatience) {
    lease = lease_of(cmsd, ecu_mac);
    if (lease.is_object() && wanted(lease)) return testing::AssertionSuccess();
  }
  return testing::AssertionFailure() << cmsd.name() << " says: " << lease.dump();
}

testing::AssertionResult comes_to(const CmsdProcess& cmsd, const std::string& ecu_mac,
                                  const std::string& state) {
  return comes_to(cmsd, ecu_mac, [&](const json& lease) { return lease.value("state", "") == state; });
}

}  // namespace cms::test
