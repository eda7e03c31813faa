#pragma once
// The JSON of what restores are asked for: a lost ECU, the restores of this cmsd, claim logs, run leases.
//
// Threads: pure functions.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "cms/core/restore.h"
#include "cms/daemon/admin_json.h"
#include "cms/daemon/lease_facts.h"
#include "schemas/claim_record.h"

namespace cms::daemon {

inline constexpr std::size_t kRestoresShownMax = 2000;  // Of one answer, those that are not done first.

// How far the restores of a lost ECU are. kNotFound: nobody said that it is lost.
Result<std::string> loss_json(const core::RestoreCore& restores, EcuMac ecu_mac, Instant now);
// How far the newest move of a program by this cmsd is. kNotFound: there was none.
Result<std::string> move_json(const core::RestoreCore& restores, const ProgramKey& program, Instant now);
// How far the drain of an ECU is. kNotFound: nobody said that it is to be drained.
Result<std::string> drain_json(const core::RestoreCore& restores, EcuMac ecu_mac, Instant now);
// All, or those of programs that this ECU lost.
std::string restores_json(const core::RestoreCore& restores, std::optional<EcuMac> ecu_mac, Instant now);
std::string history_json(const std::vector<wire::ClaimRecord>& records, bool more);

// Of a guarded ECU's run lease.
Json lease_json(const LeaseFacts::Ecu& ecu);
// The same of one ECU. kNotFound: we know of no guarded session.
Result<std::string> ecu_lease_json(const LeaseFacts& leases, EcuMac ecu_mac);

}  // namespace cms::daemon
