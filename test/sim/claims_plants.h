#pragma once
// Bugs that are planted around the cores of the world of claims (claims_world.h), to prove that its invariants
// see them.
#include <optional>
#include <string_view>
#include <vector>

namespace cms::sim {

enum class ClaimsPlant {
  kNone,
  kOwnerNotCompared,
  kBaseForgotten,
  kQueuedGoExecuted,
  kStoredWithoutLook,
  kRemoverIgnoresClaim,
  kReadNotDurable,
  kWonBeforeSync,
  kFormerEpochRestored,
  kGoUnderClaim,
  kDoneBeforeAnswer,
  kLostSlotRetried,
  kLivingClaimerOvertaken,
  kSelfFenceIgnored,
  kListedBeforeClaim,
  kListedNotDurable,
  kMovedFromOlder,
  kThawedByTime,
  kMoveTakenOverAsLoss,
  // ---- of run leases
  kLeaseFromReceipt,
  kGrantsWithoutRecord,
  kDeadAtOnce,
  kNoGuard,
  kGoneProgramsTold,
  kPolicyLoosened,
  kBarsNotAwaited,
  kBarsOverlooked,
  kTwinsAdmitted,
  kHelloIsNoLife,
  kSleepingClock,
  kLossWithoutLook,
  kLostThawed,
  kRestartUnclaimed,
  kMaintenanceOverlooked,
  kMaintenanceEndUnheeded,
};

struct ClaimsPlantInfo {
  ClaimsPlant plant = ClaimsPlant::kNone;
  std::string_view name;
  std::string_view what;
};
const std::vector<ClaimsPlantInfo>& claims_plants();
const std::vector<ClaimsPlantInfo>& leases_plants();  // Of the world with run leases.
std::optional<ClaimsPlant> parse_claims_plant(const std::vector<ClaimsPlantInfo>& plants,
                                              std::string_view name);

}  // namespace cms::sim
