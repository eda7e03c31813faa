#include "test/sim/claims_nas.h"

namespace cms::sim {

using storage::BlobName;
using wire::ClaimRecord;

// ---- logs

const ClaimRecord* ClaimsNas::head(const Lineage& lineage) const {
  const auto log = logs_.find(lineage);
  return log == logs_.end() || log->second.empty() ? nullptr : &log->second.back().record;
}

const ClaimRecord* ClaimsNas::record(const Lineage& lineage, std::uint64_t slot) const {
  const auto log = logs_.find(lineage);
  if (log == logs_.end() || slot == 0 || slot > log->second.size()) return nullptr;
  return &log->second[slot - 1].record;
}

bool ClaimsNas::holds(const ClaimRecord& record) const {
  const ClaimRecord* there = this->record(record.lineage, record.slot);
  return there != nullptr && there->uid == record.uid;
}

// Invariant: no slot is taken above an empty one.
bool ClaimsNas::link(const ClaimRecord& record) {
  std::vector<Slot>& log = logs_[record.lineage];
  if (record.slot <= log.size()) return false;
  if (record.slot != log.size() + 1) {
    violated("a hole: " + describe(record) + " where the log has " + std::to_string(log.size()) + " slots");
  }
  ledger_.on_appended(log.empty() ? nullptr : &log.back().record, record);
  log.push_back(Slot{record, false});
  return true;
}

bool ClaimsNas::sync(const ClaimRecord& record) {
  if (!holds(record)) return false;
  logs_[record.lineage][record.slot - 1].durable = true;
  return true;
}

std::vector<Lineage> ClaimsNas::lineages() const {
  std::vector<Lineage> all;
  for (const auto& [lineage, log] : logs_) all.push_back(lineage);
  return all;
}

// ---- blobs

void ClaimsNas::rename(const StoredBlob& blob) {
  ledger_.on_blob(blob);
  blobs_[blob.name.lineage].emplace(blob.name.uid, blob);
}

bool ClaimsNas::sync(const BlobName& name) {
  auto& blobs = blobs_[name.lineage];
  const auto found = blobs.find(name.uid);
  if (found == blobs.end()) return false;
  found->second.durable = true;
  return true;
}

void ClaimsNas::remove(const BlobName& name) {
  blobs_[name.lineage].erase(name.uid);
  check_kept(name.lineage);
}

std::vector<BlobName> ClaimsNas::list(const Lineage& lineage) const {
  std::vector<BlobName> names;
  const auto found = blobs_.find(lineage);
  if (found == blobs_.end()) return names;
  for (const auto& [uid, blob] : found->second) names.push_back(blob.name);
  return names;
}

const StoredBlob* ClaimsNas::find(const CheckpointId& checkpoint) const {
  for (const auto& [lineage, blobs] : blobs_) {
    for (const auto& [uid, blob] : blobs) {
      if (blob.name.checkpoint == checkpoint) return &blob;
    }
  }
  return nullptr;
}

const StoredBlob* ClaimsNas::find(const BlobName& name) const {
  const auto blobs = blobs_.find(name.lineage);
  if (blobs == blobs_.end()) return nullptr;
  const auto found = blobs->second.find(name.uid);
  return found == blobs->second.end() ? nullptr : &found->second;
}

void ClaimsNas::check_kept(const Lineage& lineage) const {
  std::vector<BlobName> durable;
  if (const auto found = blobs_.find(lineage); found != blobs_.end()) {
    for (const auto& [uid, blob] : found->second) {
      if (blob.durable) durable.push_back(blob.name);
    }
  }
  ledger_.check_kept(lineage, head(lineage), durable);
}

// ---- members

void ClaimsNas::write_member(Instant now, const wire::MemberRecord& record) {
  wire::MemberRecord& there = members_[std::pair(record.node, record.incarnation)];
  if (there.counter < record.counter) there = record;
  ledger_.on_member_written(record.node, record.incarnation, now);
}

// Invariant: what goes has nothing durable above it.
void ClaimsNas::crash() {
  ++life_;
  for (auto& [lineage, log] : logs_) {
    std::size_t kept = 0;
    while (kept < log.size() && log[kept].durable) ++kept;
    for (std::size_t i = kept; i < log.size(); ++i) {
      if (log[i].durable)
        violated("a hole: a crash takes " + describe(log[kept].record) + " from below a synced slot");
    }
    log.resize(kept);
  }
  for (auto& [lineage, blobs] : blobs_) {
    for (auto it = blobs.begin(); it != blobs.end();)
      it = it->second.durable ? std::next(it) : blobs.erase(it);
    check_kept(lineage);
  }
}

}  // namespace cms::sim
