#pragma once
// VirtualStore is the medium that all cmsd share: blobs and tombstones. It holds the invariants on
// what is durable. Delays and faults are the workers' business.
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
  // Invariant of remove, from now on: it stays, unless it is withdrawn. Of two stores of it one does.
  void pin(const CheckpointId& checkpoint) { pins_.insert(checkpoint); }
  bool is_pinned(const CheckpointId& checkpoint) const { return pins_.count(checkpoint) != 0; }
  void put_tombstone(const ProgramKey& program, const Version& up_to);
  // A medium that lies about syncing: the blob is gone. (Only a planted bug does this.)
  void lose(const storage::BlobName& name) { durable_[name.checkpoint.program].erase(key_of(name)); }
  bool has(const storage::BlobName& name) const;
  std::vector<storage::BlobName> blobs(const ProgramKey& program) const;  // Oldest first.
  std::optional<Version> tombstone(const ProgramKey& program) const;
  std::set<ProgramKey> programs() const;  // With a blob or a tombstone.

  using BlobKey = std::pair<Version, std::uint64_t>;  // (version, uid)
  static BlobKey key_of(const storage::BlobName& name) { return {name.checkpoint.version, name.uid}; }
  bool is_withdrawn(const CheckpointId& checkpoint) const;

  // ---- invariants
  // What a CMS may call STORED: it is durable, or retention or a withdrawal has removed it since.
  void check_may_say_stored(const CheckpointId& checkpoint) const;
  // What was called STORED is there, or something newer of the program, or the program's end.
  void check_kept(const CheckpointId& checkpoint) const;

 private:
  Ledger& ledger_;
  std::map<ProgramKey, std::map<BlobKey, storage::BlobName>> durable_;
  std::map<ProgramKey, Version> tombstones_;
  std::set<CheckpointId> pins_;
};

}  // namespace cms::sim
