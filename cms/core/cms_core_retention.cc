// Retention, as far as it is the core's: which of several CMS instances removes, and who is told. What
// may go is retention.h.
#include <utility>

#include "cms/core/cms_core.h"

namespace cms::core {

// The one that rendezvous names for the pulls of a program also removes from it; the others are told. A
// wrong view of who lives costs a second removal of the same, which is harmless.
void CmsCore::ask_retention(const std::set<ProgramKey>& programs, Effects& effects) const {
  ApplyRetention effect;
  for (const ProgramKey& program : programs) {
    if (peers_.puller_of(program, config_.name, takes_pulls()) == nullptr) effect.programs.push_back(program);
  }
  if (!effect.programs.empty()) effects.push_back(std::move(effect));
}

void CmsCore::free_space_when_full(const Error& error, Effects& effects) {
  if (error.code == Code::kNoSpace || error.code == Code::kQuota) effects.push_back(FreeSpace{});
}

void CmsCore::on_removed(const std::vector<storage::IndexRow>& rows, Effects& effects) {
  wire::PeerRemoved page;
  const bool may_say = peers_.all_know(wire::kPeerFeatureRetention);
  for (const storage::IndexRow& row : rows) {
    ++counters_.removed;
    counters_.removed_bytes += row.stored_bytes;
    if (!may_say) continue;  // An older peer removes by its own rule, and finds the others gone in the store.
    page.blobs.push_back(wire::RemovedBlob{row.name.checkpoint, row.name.owner_epoch, row.name.uid});
    if (page.blobs.size() == wire::kPeerRemovedCountMax) say(std::exchange(page, {}), effects);
  }
  if (!page.blobs.empty()) say(std::move(page), effects);
}

void CmsCore::on_peer_removed(std::size_t count, bool missed) {
  counters_.peer_removed += count;
  if (missed) reconcile_wanted_ = true;
}

void CmsCore::on_pinned(const CheckpointId& checkpoint, bool pinned, Effects& effects) {
  if (peers_.all_know(wire::kPeerFeatureRetention)) say(wire::PeerPinned{checkpoint, pinned}, effects);
}

void CmsCore::set_reading(std::vector<CheckpointId> reading) {
  if (reading.size() > wire::kPeerReadingCountMax) reading.resize(wire::kPeerReadingCountMax);
  reading_ = std::move(reading);
}

std::set<CheckpointId> CmsCore::being_read() const {
  std::set<CheckpointId> found(reading_.begin(), reading_.end());
  for (const auto& [name, peer] : peers_.peers()) {
    if (peer.live) found.insert(peer.reading.begin(), peer.reading.end());
  }
  return found;
}

}  // namespace cms::core
