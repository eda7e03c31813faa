#include "test/sim/virtual_store.h"

#include <algorithm>
#include <cstring>

namespace cms::sim {

using storage::BlobName;

void VirtualStore::publish(const BlobName& name, std::vector<broker::ChunkView> chunks) {
  const Published* published = ledger_.find(name.checkpoint);
  const std::string what = to_string(name.checkpoint);
  if (published == nullptr) violated("stored " + what + ", which was never published");
  if (name.size_bytes != published->size_bytes) violated("stored " + what + " with a wrong size in its name");
  if (name.lineage != lineage_of(name.checkpoint.program))
    violated("stored " + what + " with a wrong lineage");
  std::uint64_t offset_bytes = 0;
  for (const broker::ChunkView& chunk : chunks) {
    if (offset_bytes + chunk.size_bytes > published->size_bytes)
      violated("stored " + what + " with too many bytes");
    const void* expected = content_at(published->content, offset_bytes);
    if (chunk.data != expected && std::memcmp(chunk.data, expected, chunk.size_bytes) != 0) {
      violated("torn: stored " + what + " with wrong bytes at " + std::to_string(offset_bytes));
    }
    offset_bytes += chunk.size_bytes;
  }
  if (offset_bytes != published->size_bytes) {
    violated("torn: stored " + std::to_string(offset_bytes) + " bytes of " + to_string(*published));
  }
  durable_[name.checkpoint.program][key_of(name)] = name;
}

void VirtualStore::remove(const BlobName& name) {
  const auto of_program = durable_.find(name.checkpoint.program);
  if (of_program == durable_.end() || of_program->second.erase(key_of(name)) == 0) return;
  if (is_withdrawn(name.checkpoint)) return;
  if (of_program->second.empty() || of_program->second.rbegin()->first.first < name.checkpoint.version) {
    violated("lost: " + to_string(name.checkpoint) + ", the newest of its program, was removed");
  }
}

void VirtualStore::put_tombstone(const ProgramKey& program, const Version& up_to) {
  Version& tombstone = tombstones_[program];
  tombstone = std::max(tombstone, up_to);
  ledger_.note_withdrawn(program, up_to);
}

std::vector<BlobName> VirtualStore::index_put(const BlobName& name, bool check_withdrawn, bool keep_oldest) {
  const ProgramKey& program = name.checkpoint.program;
  const auto withdrawn = withdrawn_.find(program);
  if (check_withdrawn && withdrawn != withdrawn_.end() && name.checkpoint.version <= withdrawn->second) {
    remove(name);
    return {};
  }
  auto& rows = rows_[program];
  rows[key_of(name)] = name;
  std::vector<BlobName> beyond_keep;
  if (rows.size() <= kKeepLatest) return beyond_keep;
  if (keep_oldest) return {rows.rbegin()->second};
  std::size_t place = rows.size();
  for (const auto& [key, row] : rows) {
    if (place-- > kKeepLatest) beyond_keep.push_back(row);
  }
  return beyond_keep;
}

std::vector<BlobName> VirtualStore::index_withdraw(const ProgramKey& program, const Version& up_to) {
  Version& withdrawn = withdrawn_[program];
  withdrawn = std::max(withdrawn, up_to);
  std::vector<BlobName> names;
  auto& rows = rows_[program];
  while (!rows.empty() && rows.begin()->first.first <= up_to) {
    names.push_back(rows.begin()->second);
    rows.erase(rows.begin());
  }
  return names;
}

std::optional<Version> VirtualStore::newest(const ProgramKey& program) const {
  const auto it = rows_.find(program);
  if (it == rows_.end() || it->second.empty()) return std::nullopt;
  return it->second.rbegin()->first.first;
}

std::optional<Version> VirtualStore::withdrawn(const ProgramKey& program) const {
  const auto it = withdrawn_.find(program);
  if (it == withdrawn_.end()) return std::nullopt;
  return it->second;
}

Incarnation VirtualStore::max_incarnation(EcuMac ecu_mac) const {
  const auto it = max_incarnation_.find(ecu_mac);
  return it == max_incarnation_.end() ? 0 : it->second;
}

void VirtualStore::put_incarnation(EcuMac ecu_mac, Incarnation incarnation) {
  Incarnation& max = max_incarnation_[ecu_mac];
  max = std::max(max, incarnation);
}

void VirtualStore::reconcile() {
  for (const auto& [program, up_to] : tombstones_) {
    (void)index_withdraw(program, up_to);  // The blobs are found below, with or without a row.
    auto& blobs = durable_[program];
    while (!blobs.empty() && blobs.begin()->first.first <= up_to) blobs.erase(blobs.begin());
  }
  rows_ = durable_;
}

bool VirtualStore::is_withdrawn(const CheckpointId& checkpoint) const {
  const auto tombstone = tombstones_.find(checkpoint.program);
  return tombstone != tombstones_.end() && checkpoint.version <= tombstone->second;
}

void VirtualStore::check_may_say_stored(const CheckpointId& checkpoint) const {
  if (is_withdrawn(checkpoint)) return;
  std::size_t newer_count = 0;
  const auto blobs = durable_.find(checkpoint.program);
  if (blobs != durable_.end()) {
    for (const auto& [key, name] : blobs->second) {
      if (key.first == checkpoint.version) return;
      if (checkpoint.version < key.first) ++newer_count;
    }
  }
  if (newer_count >= kKeepLatest) return;
  violated("the CMS said STORED for " + to_string(checkpoint) + ", which is not durable");
}

void VirtualStore::check_kept(const CheckpointId& checkpoint) const {
  if (is_withdrawn(checkpoint)) return;
  const auto blobs = durable_.find(checkpoint.program);
  if (blobs == durable_.end() || blobs->second.empty() ||
      blobs->second.rbegin()->first.first < checkpoint.version) {
    violated("lost: " + to_string(checkpoint) + " was STORED, and neither it nor a newer one is left");
  }
}

void VirtualStore::check_withdrawn() const {
  for (const auto& [program, up_to] : ledger_.withdraw_answered()) {
    const std::optional<Version> current = newest(program);
    if (current && *current <= up_to) {
      violated("resurrected: " + to_string(CheckpointId{program, *current}) + " is current, but " +
               to_string(CheckpointId{program, up_to}) + " and everything older was withdrawn");
    }
    const auto tombstone = tombstones_.find(program);
    if (tombstone == tombstones_.end() || tombstone->second < up_to) {
      violated("the withdrawal of " + to_string(CheckpointId{program, up_to}) +
               " was answered but is not durable");
    }
  }
}

}  // namespace cms::sim
