#pragma once
// What `--output json` prints: one object per line, with the glossary's names.
#include <cstdint>
#include <string>
#include <string_view>

#include "base/digest.h"
#include "base/ids.h"
#include "rtcr/rtcr.hpp"

namespace cms::cli {

std::string json_of_receipt(EcuMac ecu_mac, const rtcr::Receipt& receipt);
std::string json_of_fetched(const CheckpointId& checkpoint, std::uint64_t size_bytes, const Digest& digest);
std::string json_of_withdrawn(const ProgramKey& program);
std::string json_of_error(std::string_view code, std::string_view context);

}  // namespace cms::cli
