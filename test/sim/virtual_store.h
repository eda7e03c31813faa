#pragma once
// VirtualStore is what outlives a cmsd: the blobs and tombstones on the medium and the index beside
// it. It holds the invariants on what is durable. Delays and faults are the workers' business.
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "broker/core/blob_source.h"
#include "storage/blob_store.h"
#include "test/sim/ledger.h"

namespace cms::sim {

inline constexpr std::size_t kKeepLatest = 3;

class VirtualStore {
 public:
  explicit VirtualStore(Ledger& ledger) : ledger_(ledger) {}

  // ---- the medium
  // Invariant: exactly the bytes that were published under this name.
  void publish(const storage::BlobName& name, std::vector<broker::ChunkView> chunks);
  // Invariant: something at least as new of the program stays, unless it was withdrawn.
  void remove(const storage::BlobName& name);
  void put_tombstone(const ProgramKey& program, const Version& up_to);
  // A medium that lies about syncing: the blob is gone. (Only a planted bug does this.)
  void lose(const storage::BlobName& name) { durable_[name.checkpoint.program].erase(key_of(name)); }

  // ---- the index
  // Adds a row unless the program was withdrawn beyond it; then the blob goes as well. One step: a
  // withdrawal comes either before or after it. Returns the rows that retention no longer keeps.
  std::vector<storage::BlobName> index_put(const storage::BlobName& name, bool check_withdrawn,
                                           bool keep_oldest);
  void index_remove(const storage::BlobName& name) { rows_[name.checkpoint.program].erase(key_of(name)); }
  // Removes all rows up to `up_to` and names their blobs.
  std::vector<storage::BlobName> index_withdraw(const ProgramKey& program, const Version& up_to);
  std::optional<Version> newest(const ProgramKey& program) const;
  std::optional<Version> withdrawn(const ProgramKey& program) const;
  Incarnation max_incarnation(EcuMac ecu_mac) const;
  void put_incarnation(EcuMac ecu_mac, Incarnation incarnation);
  // Makes the index agree with the medium, as a cmsd does at start.
  void reconcile();

  // ---- invariants
  // What a CMS may call STORED: it is durable, or retention or a withdrawal has removed it since.
  void check_may_say_stored(const CheckpointId& checkpoint) const;
  // What was called STORED is there, or something newer of the program, or the program's end.
  void check_kept(const CheckpointId& checkpoint) const;
  // Nothing that a publisher was told is withdrawn is listed.
  void check_withdrawn() const;

 private:
  using BlobKey = std::pair<Version, std::uint64_t>;  // (version, uid)
  static BlobKey key_of(const storage::BlobName& name) { return {name.checkpoint.version, name.uid}; }
  bool is_withdrawn(const CheckpointId& checkpoint) const;

  Ledger& ledger_;
  std::map<ProgramKey, std::map<BlobKey, storage::BlobName>> durable_;
  std::map<ProgramKey, Version> tombstones_;
  std::map<ProgramKey, std::map<BlobKey, storage::BlobName>> rows_;
  std::map<ProgramKey, Version> withdrawn_;
  std::map<EcuMac, Incarnation> max_incarnation_;
};

}  // namespace cms::sim
