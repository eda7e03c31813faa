#pragma once
// What cmsd say of the run lease of an ECU.
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include <nlohmann/json.hpp>

#include "test/support/cmsd_process.h"

namespace cms::test {

// `lease` of `cms-admin ecus`; null: it says nothing of one.
nlohmann::json lease_of(const CmsdProcess& cmsd, const std::string& ecu_mac);
// Until it is as `wanted`, or of that state. The failure has what it was last.
testing::AssertionResult comes_to(const CmsdProcess& cmsd, const std::string& ecu_mac,
                                  const std::function<bool(const nlohmann::json& lease)>& wanted);
testing::AssertionResult comes_to(const CmsdProcess& cmsd, const std::string& ecu_mac,
                                  const std::string& state);

}  // namespace cms::test
