// Maintenance of guarded ECUs: an operator tells one cmsd, as admin_service.cc takes it, and takes it back by and by.
#include <algorithm>
#include <utility>

#include "cms/core/ecu_log.h"
#include "test/sim/claims_world.h"

namespace cms::sim {

using namespace std::chrono_literals;

namespace {

constexpr Duration kMaintenanceMax = 40s;
constexpr Duration kMaintenanceEndsIn = 30s;  // In peace, from the asking.

}  // namespace

void ClaimsWorld::begin_maintenance() {
  Cms& cms = cms_[prng_.below(cms_.size())];
  const EcuMac ecu_mac = ecus_[prng_.below(ecus_.size())].ecu_mac;
  if (cms.core == nullptr || queue_.now() < cms.paused_until) return;
  step_leases(cms, [&](core::Leases& leases, Instant now, core::LeaseEffects& effects) {
    const Status begun = leases.set_maintenance(now, ecu_mac, true, effects);
    if (verbose_)
      trace("cms " + cms.name + " is to put " + to_string(ecu_mac) + " into maintenance" +
            (begun.ok() ? "" : ": " + begun.error().context));
  });
  queue_.after(1s + random_delay(kMaintenanceMax), [this, ecu_mac] {
    if (faults_on_) end_maintenance(ecu_mac);
  });
}

void ClaimsWorld::end_maintenance(EcuMac ecu_mac) {
  Cms& cms = cms_[prng_.below(cms_.size())];
  if (cms.core == nullptr || queue_.now() < cms.paused_until) return;
  step_leases(cms, [&](core::Leases& leases, Instant now, core::LeaseEffects& effects) {
    const Status begun = leases.set_maintenance(now, ecu_mac, false, effects);
    if (verbose_)
      trace("cms " + cms.name + " is to take " + to_string(ecu_mac) + " out of maintenance" +
            (begun.ok() ? "" : ": " + begun.error().context));
  });
}

// An operator asks until it is done.
void ClaimsWorld::end_all_maintenance() {
  const Instant until = queue_.now() + kMaintenanceEndsIn;
  const auto in_maintenance = [this](const Ecu& ecu) {
    const wire::EcuRecord* head = nas_.head(ecu.ecu_mac);
    return head != nullptr && head->maintenance;
  };
  while (std::any_of(ecus_.begin(), ecus_.end(), in_maintenance)) {
    for (const Ecu& ecu : ecus_) {
      if (in_maintenance(ecu)) end_maintenance(ecu.ecu_mac);
    }
    run_for(1s);
    if (queue_.now() >= until) violated("an ECU cannot be taken out of maintenance");
  }
}

}  // namespace cms::sim
