#include "test/sim/virtual_store.h"

#include <algorithm>
#include <cstring>

namespace cms::sim {

using storage::BlobName;

void VirtualStore::publish(const BlobName& name, std::vector<broker::ChunkView> chunks) {
  Published* published = ledger_.find(name.checkpoint);
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
  published->durable = true;
  ledger_.note_durable(name.checkpoint.program.ecu_mac, name.checkpoint.version.incarnation);
}

void VirtualStore::remove(const BlobName& name) {
  const auto of_program = durable_.find(name.checkpoint.program);
  if (of_program == durable_.end() || of_program->second.erase(key_of(name)) == 0) return;
  if (is_withdrawn(name.checkpoint)) return;
  if (of_program->second.empty() || of_program->second.rbegin()->first.first < name.checkpoint.version) {
    violated("lost: " + to_string(name.checkpoint) + ", the newest of its program, was removed");
  }
  const auto left = of_program->second.lower_bound({name.checkpoint.version, 0});
  const bool other = left != of_program->second.end() && left->first.first == name.checkpoint.version;
  if (is_pinned(name.checkpoint) && !other) violated("pinned " + to_string(name.checkpoint) + " was removed");
}

void VirtualStore::put_tombstone(const ProgramKey& program, const Version& up_to) {
  Version& tombstone = tombstones_[program];
  tombstone = std::max(tombstone, up_to);
  ledger_.note_withdrawn(program, up_to);
  ledger_.note_durable(program.ecu_mac, up_to.incarnation);
}

bool VirtualStore::has(const BlobName& name) const {
  const auto blobs = durable_.find(name.checkpoint.program);
  return blobs != durable_.end() && blobs->second.count(key_of(name)) != 0;
}

std::vector<BlobName> VirtualStore::blobs(const ProgramKey& program) const {
  std::vector<BlobName> names;
  const auto blobs = durable_.find(program);
  if (blobs == durable_.end()) return names;
  for (const auto& [key, name] : blobs->second) names.push_back(name);
  return names;
}

std::optional<Version> VirtualStore::tombstone(const ProgramKey& program) const {
  const auto it = tombstones_.find(program);
  if (it == tombstones_.end()) return std::nullopt;
  return it->second;
}

std::set<ProgramKey> VirtualStore::programs() const {
  std::set<ProgramKey> programs;
  for (const auto& [program, blobs] : durable_) programs.insert(program);
  for (const auto& [program, up_to] : tombstones_) programs.insert(program);
  return programs;
}

bool VirtualStore::is_withdrawn(const CheckpointId& checkpoint) const {
  const auto tombstone = tombstones_.find(checkpoint.program);
  return tombstone != tombstones_.end() && checkpoint.version <= tombstone->second;
}

void VirtualStore::check_may_say_stored(const CheckpointId& checkpoint) const {
  if (is_withdrawn(checkpoint)) return;
  std::set<Version> newer;
  const auto blobs = durable_.find(checkpoint.program);
  if (blobs != durable_.end()) {
    for (const auto& [key, name] : blobs->second) {
      if (key.first == checkpoint.version) return;
      if (checkpoint.version < key.first) newer.insert(key.first);
    }
  }
  if (newer.size() >= kKeepLatest) return;
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

}  // namespace cms::sim
