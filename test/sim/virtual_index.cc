#include "test/sim/virtual_index.h"

#include <algorithm>

namespace cms::sim {

using storage::BlobName;

bool VirtualIndex::put(const BlobName& name, bool own, const IndexPlants& plants) {
  const ProgramKey& program = name.checkpoint.program;
  put_incarnation(program.ecu_mac, name.checkpoint.version.incarnation);
  const std::optional<Version> ended = withdrawn(program);
  if (!plants.ignore_withdrawn && ended && name.checkpoint.version <= *ended) {
    store_->remove(name);
    remove(name);
    return false;
  }
  rows_[program][VirtualStore::key_of(name)] = name;
  if (own) own_.insert(name.uid);
  return true;
}

std::vector<ProgramKey> VirtualIndex::programs() const {
  std::vector<ProgramKey> programs;
  for (const auto& [program, rows] : rows_) programs.push_back(program);
  return programs;
}

std::vector<BlobName> VirtualIndex::beyond_keep(const ProgramKey& program, const IndexPlants& plants) const {
  std::vector<BlobName> beyond;
  const auto found = rows_.find(program);
  if (found == rows_.end()) return beyond;
  const Rows& rows = found->second;
  if (plants.keep_oldest) {
    if (rows.size() > kKeepLatest) beyond.push_back(rows.rbegin()->second);
    return beyond;
  }
  std::size_t kept_count = 0;
  for (auto end = rows.end(); end != rows.begin();) {  // Of one version, newest first.
    auto first = std::prev(end);
    while (first != rows.begin() && std::prev(first)->first.first == first->first.first) --first;
    auto kept = first;
    if (plants.remove_peers_copy) {
      for (auto it = first; it != end; ++it) {
        if (own_.count(it->second.uid) != 0) kept = it;
      }
    }
    const bool keep = kept_count++ < kKeepLatest;
    for (auto it = first; it != end; ++it) {
      if (!keep || it != kept) beyond.push_back(it->second);
    }
    end = first;
  }
  return beyond;
}

void VirtualIndex::remove(const BlobName& name) {
  const auto rows = rows_.find(name.checkpoint.program);
  if (rows != rows_.end()) rows->second.erase(VirtualStore::key_of(name));
}

void VirtualIndex::mark_withdrawn(const ProgramKey& program, const Version& up_to) {
  Version& withdrawn = withdrawn_[program];
  withdrawn = std::max(withdrawn, up_to);
  put_incarnation(program.ecu_mac, up_to.incarnation);
}

std::vector<BlobName> VirtualIndex::rows_up_to(const ProgramKey& program, const Version& up_to) const {
  std::vector<BlobName> names;
  const auto rows = rows_.find(program);
  if (rows == rows_.end()) return names;
  for (const auto& [key, name] : rows->second) {
    if (key.first <= up_to) names.push_back(name);
  }
  return names;
}

std::optional<BlobName> VirtualIndex::newest(const ProgramKey& program) const {
  const auto it = rows_.find(program);
  if (it == rows_.end() || it->second.empty()) return std::nullopt;
  const Version version = it->second.rbegin()->first.first;
  return it->second.lower_bound({version, 0})->second;  // The smallest uid.
}

std::optional<Version> VirtualIndex::newest_version(const ProgramKey& program) const {
  const std::optional<BlobName> name = newest(program);
  if (!name) return std::nullopt;
  return name->checkpoint.version;
}

std::optional<Version> VirtualIndex::withdrawn(const ProgramKey& program) const {
  const auto it = withdrawn_.find(program);
  if (it == withdrawn_.end()) return std::nullopt;
  return it->second;
}

bool VirtualIndex::has(const CheckpointId& checkpoint) const {
  const auto rows = rows_.find(checkpoint.program);
  if (rows == rows_.end()) return false;
  const auto it = rows->second.lower_bound({checkpoint.version, 0});
  return it != rows->second.end() && it->first.first == checkpoint.version;
}

std::size_t VirtualIndex::newer_count(const CheckpointId& checkpoint) const {
  std::set<Version> newer;
  const auto rows = rows_.find(checkpoint.program);
  if (rows == rows_.end()) return 0;
  for (const auto& [key, name] : rows->second) {
    if (checkpoint.version < key.first) newer.insert(key.first);
  }
  return newer.size();
}

Incarnation VirtualIndex::max_incarnation(EcuMac ecu_mac) const {
  const auto it = max_incarnation_.find(ecu_mac);
  return it == max_incarnation_.end() ? 0 : it->second;
}

void VirtualIndex::put_incarnation(EcuMac ecu_mac, Incarnation incarnation) {
  Incarnation& max = max_incarnation_[ecu_mac];
  max = std::max(max, incarnation);
}

void VirtualIndex::reconcile(const ProgramKey& program) {
  const std::optional<Version> tombstone = store_->tombstone(program);
  if (tombstone) mark_withdrawn(program, *tombstone);
  for (const BlobName& name : store_->blobs(program)) {
    if (tombstone && name.checkpoint.version <= *tombstone) {
      store_->remove(name);
      remove(name);
      continue;
    }
    put_incarnation(program.ecu_mac, name.checkpoint.version.incarnation);
    rows_[program][VirtualStore::key_of(name)] = name;
  }
}

void VirtualIndex::reconcile_all() {
  for (const ProgramKey& program : store_->programs()) reconcile(program);
  for (auto& [program, rows] : rows_) {
    for (auto it = rows.begin(); it != rows.end();) {
      it = store_->has(it->second) ? std::next(it) : rows.erase(it);
    }
  }
  complete_ = true;
}

}  // namespace cms::sim
