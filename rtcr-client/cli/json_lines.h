#pragma once
// What `--output json` prints: one object per line, with the glossary's names.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/digest.h"
#include "base/ids.h"
#include "rtcr/rtcr.hpp"

namespace cms::cli {

std::string json_of_receipt(EcuMac ecu_mac, const rtcr::Receipt& receipt);
std::string json_of_fetched(const CheckpointId& checkpoint, std::uint64_t size_bytes, const Digest& digest);
std::string json_of_withdrawn(const ProgramKey& program);
// `to`: nullopt, wherever it suits best.
std::string json_of_migration_begun(const ProgramKey& program, const std::optional<EcuMac>& to);
// Of `rtcr ecu`:
std::string json_of_event(const rtcr::Event& event);
std::string json_of_ready(EcuMac ecu_mac, std::uint64_t program_count);
std::string json_of_published(EcuMac ecu_mac, ProgramId program_id, std::uint64_t seq,
                              const std::string& file);
std::string json_of_restore(std::string_view event, const rtcr::Restore& restore);
std::string json_of_restore_refused(const rtcr::Restore& restore, const std::string& reason);
std::string json_of_running(const rtcr::Restore& restore, ProgramId program_id, const std::string& file);
std::string json_of_fenced(EcuMac ecu_mac, const rtcr::Receipt& receipt);
std::string json_of_frozen(EcuMac ecu_mac, const rtcr::Move& move, std::uint64_t seq);
std::string json_of_freeze_refused(EcuMac ecu_mac, const rtcr::Move& move, const std::string& reason);
std::string json_of_thawed(EcuMac ecu_mac, const rtcr::Move& move);
std::string json_of_stopped(EcuMac ecu_mac, ProgramId program_id);
std::string json_of_restarted(EcuMac ecu_mac, ProgramId program_id, const std::string& file);
std::string json_of_restart_failed(EcuMac ecu_mac, ProgramId program_id, const rtcr::Error& error,
                                   bool again);
std::string json_of_stop_failed(EcuMac ecu_mac, ProgramId program_id, const std::string& reason);
std::string json_of_resumed(EcuMac ecu_mac, ProgramId program_id);
std::string json_of_lease(EcuMac ecu_mac, const rtcr::Lease& lease);
std::string json_of_lost(std::uint64_t line_count);
std::string json_of_error(std::string_view code, std::string_view context);

}  // namespace cms::cli
