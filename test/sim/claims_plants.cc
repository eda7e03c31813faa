#include "test/sim/claims_plants.h"

namespace cms::sim {

const std::vector<ClaimsPlantInfo>& claims_plants() {
  static const std::vector<ClaimsPlantInfo> all = {
      {ClaimsPlant::kOwnerNotCompared, "owner_not_compared",
       "a claim is appended over a new owner, as if the old one owned it still"},
      {ClaimsPlant::kBaseForgotten, "base_forgotten", "what a program was restored from is removed at DONE"},
      {ClaimsPlant::kQueuedGoExecuted, "queued_go_executed",
       "a target obeys a Go whose claim it has refused or given up"},
      {ClaimsPlant::kStoredWithoutLook, "stored_without_look",
       "STORED is said without a look at the next slot"},
      {ClaimsPlant::kRemoverIgnoresClaim, "remover_ignores_claim", "the remover works under an open claim"},
      {ClaimsPlant::kReadNotDurable, "read_not_durable", "another's record is acted on before it is synced"},
      {ClaimsPlant::kWonBeforeSync, "won_before_sync", "an append is told won before it is synced"},
      {ClaimsPlant::kFormerEpochRestored, "former_epoch_restored",
       "the newest checkpoint is restored, whichever owner it is of"},
      {ClaimsPlant::kGoUnderClaim, "go_under_claim", "a target is told Go before ACT is in the log"},
      {ClaimsPlant::kDoneBeforeAnswer, "done_before_answer",
       "DONE is appended before the target has answered"},
      {ClaimsPlant::kLostSlotRetried, "lost_slot_retried",
       "a record that lost its slot is appended to the next one"},
      {ClaimsPlant::kLivingClaimerOvertaken, "living_claimer_overtaken",
       "members' records are read from a cache, so that living ones look dead"},
      {ClaimsPlant::kSelfFenceIgnored, "self_fence_ignored",
       "a CMS that was paused acts without a new record"},
      {ClaimsPlant::kListedBeforeClaim, "listed_before_claim",
       "the checkpoint is taken from a listing of before the claim"},
      {ClaimsPlant::kListedNotDurable, "listed_not_durable",
       "what is only listed is restored, and lets others go"},
      {ClaimsPlant::kMovedFromOlder, "moved_from_older",
       "a move goes on from the newest that is stored, not from what the source named as its last"},
      {ClaimsPlant::kThawedByTime, "thawed_by_time",
       "a frozen source goes on when nobody says anything for long"},
      {ClaimsPlant::kMoveTakenOverAsLoss, "move_taken_over_as_loss",
       "the move of a dead CMS is carried on as if its source were lost"},
  };
  return all;
}

const std::vector<ClaimsPlantInfo>& leases_plants() {
  static const std::vector<ClaimsPlantInfo> all = {
      {ClaimsPlant::kLeaseFromReceipt, "lease_from_receipt",
       "an ECU counts its lease from the receipt of an answer"},
      {ClaimsPlant::kGrantsWithoutRecord, "grants_without_record",
       "a CMS grants leases though it cannot renew its member record"},
      {ClaimsPlant::kDeadAtOnce, "dead_at_once", "a CMS that ends or crashes is taken for dead at once"},
      {ClaimsPlant::kNoGuard, "no_guard", "nobody stops programs while the broker stands still"},
      {ClaimsPlant::kGoneProgramsTold, "gone_programs_told",
       "an ECU that has booted anew says that it runs what it ran before"},
      {ClaimsPlant::kPolicyLoosened, "policy_loosened", "an ECU goes by the policy that it heard last"},
      {ClaimsPlant::kBarsNotAwaited, "bars_not_awaited", "LOST is appended when oneself has barred"},
      {ClaimsPlant::kBarsOverlooked, "bars_overlooked",
       "the bars of others are not seen, and kept by them for ever"},
      {ClaimsPlant::kTwinsAdmitted, "twins_admitted", "a second client with one ecu_mac is let in"},
      {ClaimsPlant::kHelloIsNoLife, "hello_is_no_life",
       "in an outage of the NAS an ECU counts as silent, and a look at the members as good"},
      {ClaimsPlant::kSleepingClock, "sleeping_clock", "an ECU's clock stands still while it is paused"},
      {ClaimsPlant::kLossWithoutLook, "loss_without_look",
       "LOST is acted upon without a look at the members"},
      {ClaimsPlant::kLostThawed, "lost_thawed", "what a LOST session owned is thawed"},
      {ClaimsPlant::kRestartUnclaimed, "restart_unclaimed",
       "an RTCR that asks for its own program goes on from its newest checkpoint without a claim"},
      {ClaimsPlant::kMaintenanceOverlooked, "maintenance_overlooked",
       "that an ECU is in maintenance is not read in its log"},
      {ClaimsPlant::kMaintenanceEndUnheeded, "maintenance_end_unheeded",
       "an ECU is not reconciled anew when its log says that maintenance has ended"},
  };
  return all;
}

std::optional<ClaimsPlant> parse_claims_plant(const std::vector<ClaimsPlantInfo>& plants,
                                              std::string_view name) {
  for (const ClaimsPlantInfo& info : plants) {
    if (info.name == name) return info.plant;
  }
  return std::nullopt;
}

}  // namespace cms::sim
