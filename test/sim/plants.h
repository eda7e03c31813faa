#pragma once
// Bugs that are planted in the adapters around the cores, to prove that the invariants see them.
#include <optional>
#include <string_view>
#include <vector>

namespace cms::sim {

enum class Plant {
  kNone,
  kStoredBeforeDurable,
  kLostOnCrash,
  kCreditBeforeTaken,
  kForgetListAfterGap,
  kLostReceiptNeverRepeated,
  kTornPublish,
  kWrongDigestAccepted,
  kRemoveNewest,
  kAckWrongSeq,
  kWithdrawnResurrected,
  kWithdrawNotDurable,
  kIncarnationReused,
  kMemoryUncounted,
  kBulkNeverReconnected,
  kPeerEventBeforeDurable,
  kMissedEventNotReconciled,
  kBothDuplicatesRemoved,
  kPeerWithdrawalIgnored,
  kBothPull,
  kDeadPeerBeats,
  kPinsIgnored,
  kNewerNotTold,
};

struct PlantInfo {
  Plant plant = Plant::kNone;
  std::string_view name;
  std::string_view what;
};
const std::vector<PlantInfo>& plants();
std::optional<Plant> parse_plant(std::string_view name);

}  // namespace cms::sim
