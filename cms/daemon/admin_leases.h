#pragma once
// The JSON of what is told of guarded ECUs: their run leases, their losses, maintenance.
//
// Threads: pure functions.
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "cms/daemon/admin_answers.h"
#include "cms/daemon/admin_findings.h"
#include "cms/daemon/admin_json.h"
#include "cms/daemon/lease_facts.h"

namespace cms::daemon {

Json lease_json(const LeaseFacts::Ecu& ecu);
// Of one ECU. kNotFound: it has never had a guarded session.
Result<std::string> ecu_lease_json(const LeaseFacts& leases, EcuMac ecu_mac);
void find_lease_problems(const CoreSnapshot& snapshot, std::vector<Problem>& problems);

}  // namespace cms::daemon
