#pragma once
// That each program of a lost ECU is at exactly one target, once, with its bytes.
#include <cstdint>
#include <string>
#include <vector>

#include "test/integration/ecu_process.h"

namespace cms::test {

// Programs 1 to `count` of `lost`, as EcuProcess made them. Reports what is not so as failures.
void expect_each_once(const std::string& lost, const std::vector<const EcuProcess*>& targets,
                      std::uint64_t count, std::size_t size_bytes = 4096);

}  // namespace cms::test
