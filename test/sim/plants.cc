#include "test/sim/plants.h"

namespace cms::sim {

const std::vector<PlantInfo>& plants() {
  static const std::vector<PlantInfo> all = {
      {Plant::kStoredBeforeDurable, "stored_before_durable",
       "the worker answers 'stored' before the rename is synced"},
      {Plant::kLostOnCrash, "lost_on_crash", "the last second's blobs vanish when cmsd dies"},
      {Plant::kCreditBeforeTaken, "credit_before_taken",
       "bytes count as taken when they arrive, not when written"},
      {Plant::kForgetListAfterGap, "forget_list_after_gap", "LIST is sent at hello only, never after a gap"},
      {Plant::kLostReceiptNeverRepeated, "lost_receipt_never_repeated",
       "what LIST shows as stored gets no receipt"},
      {Plant::kTornPublish, "torn_publish", "a blob is published although its last chunk met a full store"},
      {Plant::kWrongDigestAccepted, "wrong_digest_accepted", "the worker does not check digests"},
      {Plant::kRemoveNewest, "remove_newest", "retention names the newest instead of the oldest"},
      {Plant::kAckWrongSeq, "ack_wrong_seq", "a STORED receipt names the checkpoint before"},
      {Plant::kWithdrawnResurrected, "withdrawn_resurrected",
       "a withdrawal does not see what is being published"},
      {Plant::kWithdrawNotDurable, "withdraw_not_durable",
       "a withdrawal is answered before its tombstone is written"},
      {Plant::kIncarnationReused, "incarnation_reused", "the index forgets the incarnations it gave"},
      {Plant::kMemoryUncounted, "memory_uncounted", "a publisher's blob claims to take no memory"},
      {Plant::kBulkNeverReconnected, "bulk_never_reconnected", "a stuck bulk connection is not made anew"},
      {Plant::kPeerEventBeforeDurable, "peer_event_before_durable",
       "peers are told of a checkpoint before it is durable"},
      {Plant::kMissedEventNotReconciled, "missed_event_not_reconciled",
       "nothing is reconciled when events of a peer were missed"},
      {Plant::kBothDuplicatesRemoved, "both_duplicates_removed",
       "of two copies of a checkpoint each CMS removes the other's"},
      {Plant::kPeerWithdrawalIgnored, "peer_withdrawal_ignored", "what a peer withdrew is kept"},
      {Plant::kBothPull, "both_pull", "each CMS pulls everything though it should not"},
      {Plant::kDeadPeerBeats, "dead_peer_beats",
       "beats of a dead CMS go on and say that it is at everything"},
      {Plant::kPinsIgnored, "pins_ignored", "retention does not look into the store for pins"},
      {Plant::kNewerNotTold, "newer_not_told",
       "no publisher is told that an incarnation above its own is in its way"},
  };
  return all;
}

std::optional<Plant> parse_plant(std::string_view name) {
  for (const PlantInfo& info : plants()) {
    if (info.name == name) return info.plant;
  }
  return std::nullopt;
}

}  // namespace cms::sim
