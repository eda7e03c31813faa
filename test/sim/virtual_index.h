#pragma once
// VirtualIndex is the index of one cmsd: rows, withdrawals and incarnations. It outlives its cmsd,
// unless it is lost, and knows of another cmsd's doings only what it is told or what it finds in the
// store. Delays and faults are the workers' business.
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "test/sim/virtual_store.h"

namespace cms::sim {

// Which wrong turns a planted bug takes.
struct IndexPlants {
  bool ignore_withdrawn = false;
  bool keep_oldest = false;
  bool remove_peers_copy = false;
};

class VirtualIndex {
 public:
  explicit VirtualIndex(VirtualStore& store) : store_(&store) {}
  void lose() { *this = VirtualIndex(*store_); }

  // Adds a row, then looks whether the program was withdrawn beyond it; then row and blob go again,
  // and the answer is false. `own`: stored by the cmsd of this index.
  bool put(const storage::BlobName& name, bool own, const IndexPlants& plants);
  // The rows that retention no longer keeps, and of two stores of one checkpoint the one with the larger
  // uid.
  std::vector<storage::BlobName> beyond_keep(const ProgramKey& program, const IndexPlants& plants) const;
  std::vector<ProgramKey> programs() const;
  void remove(const storage::BlobName& name);
  // Marks it; the rows up to `up_to` are still there.
  void mark_withdrawn(const ProgramKey& program, const Version& up_to);
  std::vector<storage::BlobName> rows_up_to(const ProgramKey& program, const Version& up_to) const;
  std::optional<storage::BlobName> newest(const ProgramKey& program) const;
  std::optional<Version> newest_version(const ProgramKey& program) const;
  std::optional<Version> withdrawn(const ProgramKey& program) const;
  bool has(const CheckpointId& checkpoint) const;
  std::size_t newer_count(const CheckpointId& checkpoint) const;  // Versions.
  Incarnation max_incarnation(EcuMac ecu_mac) const;
  void put_incarnation(EcuMac ecu_mac, Incarnation incarnation);

  // Takes in what the medium has of one program; rows without a blob stay.
  void reconcile(const ProgramKey& program);
  // All programs; afterwards rows and blobs agree.
  void reconcile_all();
  // It has seen the whole store once: it knows every incarnation that was stored.
  bool complete() const { return complete_; }

 private:
  using Rows = std::map<VirtualStore::BlobKey, storage::BlobName>;

  VirtualStore* store_;
  std::map<ProgramKey, Rows> rows_;
  std::set<std::uint64_t> own_;  // Uids.
  std::map<ProgramKey, Version> withdrawn_;
  std::map<EcuMac, Incarnation> max_incarnation_;
  bool complete_ = false;
};

}  // namespace cms::sim
