#pragma once
// That each program of a lost ECU is at exactly one target, once, with its bytes.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "test/integration/ecu_process.h"

namespace cms::test {

// Programs 1 to `count` of `lost`, as EcuProcess made them. Reports what is not so as failures.
void expect_each_once(const std::string& lost, const std::vector<const EcuProcess*>& targets,
                      std::uint64_t count, std::size_t size_bytes = 4096);

// The points at which a cmsd that restores can be killed or stopped (base/crash_point.h).
std::vector<std::string> points_of_a_restore();
std::string name_of_point(
    const testing::TestParamInfo<std::string>& point);  // Of a test: "restore_after_act".

}  // namespace cms::test
