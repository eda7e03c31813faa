#pragma once
// The NAS of the world of claims: logs whose slots are given away once, blobs, and the members' records. A crash
// of its host takes away what was not synced.
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "schemas/claim_record.h"
#include "schemas/ecu_record.h"
#include "schemas/member_record.h"
#include "test/sim/claims_ledger.h"

namespace cms::sim {

class ClaimsNas {
 public:
  explicit ClaimsNas(ClaimsLedger& ledger) : ledger_(ledger) {}

  // ---- logs
  const wire::ClaimRecord* head(const Lineage& lineage) const;  // As seen; null: the log is empty.
  const wire::ClaimRecord* record(const Lineage& lineage, std::uint64_t slot) const;
  bool holds(const wire::ClaimRecord& record) const;
  // Puts it into its slot, not synced, unless that is taken: false.
  bool link(const wire::ClaimRecord& record);
  // False: it is not there any more.
  bool sync(const wire::ClaimRecord& record);
  std::vector<Lineage> lineages() const;

  // ---- logs of guarded ECUs, as those of lineages
  const wire::EcuRecord* head(EcuMac ecu_mac) const;
  const wire::EcuRecord* record(EcuMac ecu_mac, std::uint64_t slot) const;
  bool holds(const wire::EcuRecord& record) const;
  bool link(const wire::EcuRecord& record);
  bool sync(const wire::EcuRecord& record);
  std::vector<EcuMac> ecu_macs() const;

  // ---- blobs
  void rename(const StoredBlob& blob);
  bool sync(const storage::BlobName& name);  // False: it is not there any more.
  void remove(const storage::BlobName& name);
  std::vector<storage::BlobName> list(const Lineage& lineage) const;
  const StoredBlob* find(const CheckpointId& checkpoint) const;
  const StoredBlob* find(const storage::BlobName& name) const;

  // ---- members
  void write_member(Instant now, const wire::MemberRecord& record);
  using Members = std::map<std::pair<std::string, std::uint64_t>, wire::MemberRecord>;
  const Members& members() const { return members_; }

  void crash();
  std::uint64_t life() const { return life_; }

 private:
  template <typename Record>
  struct Slot {
    Record record{};
    bool durable = false;
  };
  template <typename Record>
  using Log = std::vector<Slot<Record>>;
  template <typename Record>
  static void crash_log(Log<Record>& log);
  void check_kept(const Lineage& lineage) const;

  ClaimsLedger& ledger_;
  std::map<Lineage, Log<wire::ClaimRecord>> logs_;
  std::map<EcuMac, Log<wire::EcuRecord>> ecu_logs_;
  std::map<Lineage, std::map<std::uint64_t, StoredBlob>> blobs_;  // By uid.
  Members members_;
  std::uint64_t life_ = 1;
};

}  // namespace cms::sim
