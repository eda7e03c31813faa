#include "test/sim/claims_nas.h"

#include "cms/core/ecu_log.h"

namespace cms::sim {

using storage::BlobName;
using wire::ClaimRecord;
using wire::EcuRecord;

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
  Log<ClaimRecord>& log = logs_[record.lineage];
  if (record.slot <= log.size()) return false;
  if (record.slot != log.size() + 1) {
    violated("a hole: " + describe(record) + " where the log has " + std::to_string(log.size()) + " slots");
  }
  ledger_.on_appended(log.empty() ? nullptr : &log.back().record, record);
  log.push_back(Slot<ClaimRecord>{record, false});
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

// ---- logs of guarded ECUs

const EcuRecord* ClaimsNas::head(EcuMac ecu_mac) const {
  const auto log = ecu_logs_.find(ecu_mac);
  return log == ecu_logs_.end() || log->second.empty() ? nullptr : &log->second.back().record;
}

const EcuRecord* ClaimsNas::record(EcuMac ecu_mac, std::uint64_t slot) const {
  const auto log = ecu_logs_.find(ecu_mac);
  if (log == ecu_logs_.end() || slot == 0 || slot > log->second.size()) return nullptr;
  return &log->second[slot - 1].record;
}

bool ClaimsNas::holds(const EcuRecord& record) const {
  const EcuRecord* there = this->record(record.ecu_mac, record.slot);
  return there != nullptr && there->uid == record.uid;
}

// Invariants: as above; a record follows its head by the rules.
bool ClaimsNas::link(const EcuRecord& record) {
  Log<EcuRecord>& log = ecu_logs_[record.ecu_mac];
  if (record.slot <= log.size()) return false;
  if (record.slot != log.size() + 1) violated("a hole: " + describe(record));
  const Status good = core::check_successor(log.empty() ? nullptr : &log.back().record, record);
  if (!good.ok()) violated("a record that may not follow: " + good.error().message());
  log.push_back(Slot<EcuRecord>{record, false});
  return true;
}

bool ClaimsNas::sync(const EcuRecord& record) {
  if (!holds(record)) return false;
  ecu_logs_[record.ecu_mac][record.slot - 1].durable = true;
  return true;
}

std::vector<EcuMac> ClaimsNas::ecu_macs() const {
  std::vector<EcuMac> all;
  for (const auto& [ecu_mac, log] : ecu_logs_) {
    if (!log.empty()) all.push_back(ecu_mac);
  }
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
template <typename Record>
void ClaimsNas::crash_log(Log<Record>& log) {
  std::size_t kept = 0;
  while (kept < log.size() && log[kept].durable) ++kept;
  for (std::size_t i = kept; i < log.size(); ++i) {
    if (log[i].durable)
      violated("a hole: a crash takes " + describe(log[kept].record) + " from below a synced slot");
  }
  log.resize(kept);
}

void ClaimsNas::crash() {
  ++life_;
  for (auto& [lineage, log] : logs_) crash_log(log);
  for (auto& [ecu_mac, log] : ecu_logs_) crash_log(log);
  for (auto& [lineage, blobs] : blobs_) {
    for (auto it = blobs.begin(); it != blobs.end();)
      it = it->second.durable ? std::next(it) : blobs.erase(it);
    check_kept(lineage);
  }
}

}  // namespace cms::sim
