#pragma once
// CheckpointIndex finds stored checkpoints fast. It is a cache of the store: everything in it can be
// rebuilt from the store's file names, and nothing is decided from it that the store must decide.
// "Newest of a key", "all of one ecu_mac" and "by age" are each one short scan.
//
// Threads: calls block on I/O; thread-safe. Errors: kIo, kCorrupt (move the directory away and
// rebuild), kNoSpace; others at the call. Writes survive the death of the process, not of the host:
// what is missing after that comes back by reconciling with the store.
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "storage/blob_store.h"

namespace cms::storage {

struct IndexRow {
  BlobName name;
  std::uint64_t stored_bytes = 0;
  std::uint64_t stored_at_us = 0;  // 0: not known (row rebuilt from a name; read the manifest).
  std::uint64_t taken_at_us = 0;
  std::uint64_t pause_us = 0;
  std::string program_name;
  Digest blob_digest{};  // Zero: not known.
  bool pinned = false;   // For listings; the store's pin is what counts.
};

// What is known of a program over all its checkpoints.
struct ProgramRow {
  ProgramKey program{};
  std::optional<Version> withdrawn;  // Everything up to this version is gone for good.
  std::uint64_t withdrawn_at_us = 0;
};

class CheckpointIndex {
 public:
  virtual ~CheckpointIndex() = default;

  // Adds or replaces rows, all or none. One that was pinned stays so.
  virtual Status put(const std::vector<IndexRow>& rows) = 0;
  // Adds those that are not there, all or none; a row of the same name stays as it is: it may know
  // more than a file's name says. Returns how many were added.
  virtual Result<std::uint64_t> add_missing(const std::vector<IndexRow>& rows) = 0;
  virtual Status remove(const std::vector<BlobName>& names) = 0;  // Absent ones are success.
  // Of every row of the checkpoint; none is success.
  virtual Status set_pinned(const CheckpointId& checkpoint, bool pinned) = 0;

  // The newest by (owner_epoch, incarnation, seq); nullopt when there is none.
  virtual Result<std::optional<IndexRow>> newest(const ProgramKey& program) = 0;
  // The row of exactly this checkpoint (of two stores of one checkpoint: the smaller uid).
  virtual Result<std::optional<IndexRow>> find(const CheckpointId& checkpoint) = 0;

  // Scans call `visit` in order until it returns false.
  // Of one program, newest first.
  virtual Status scan_program(const ProgramKey& program,
                              const std::function<bool(const IndexRow&)>& visit) = 0;
  // Of one ecu_mac, or of all when it is not given, by (ecu_mac, program_id), newest first within a
  // program; starts behind `after` when given.
  virtual Status scan(std::optional<EcuMac> ecu_mac, const std::optional<BlobName>& after,
                      const std::function<bool(const IndexRow&)>& visit) = 0;
  // The newest row of every program (of one ecu_mac), in order of ProgramKey; starts behind `after`.
  virtual Status scan_newest(std::optional<EcuMac> ecu_mac, const std::optional<ProgramKey>& after,
                             const std::function<bool(const IndexRow&)>& visit) = 0;
  // By stored_at_us, oldest first.
  virtual Status scan_by_age(const std::function<bool(const IndexRow&)>& visit) = 0;
  virtual Result<std::uint64_t> row_count() = 0;  // Exact; kept up by put and remove.

  // Counts for max_incarnation as a row does: a later session must be above what has ended.
  virtual Status put_withdrawn(const ProgramKey& program, const Version& up_to, std::uint64_t at_us) = 0;
  virtual Result<std::optional<ProgramRow>> program(const ProgramKey& program) = 0;

  // The largest incarnation ever given to or seen of an ECU; put keeps the larger, and survives the
  // death of the host too: nothing in the store tells of an incarnation that has stored nothing yet.
  virtual Status put_incarnation(EcuMac ecu_mac, Incarnation incarnation) = 0;
  virtual Result<Incarnation> max_incarnation(
      EcuMac ecu_mac) = 0;  // 0: none; rows and withdrawals count too.

  // The same of many at the price of one sync.
  virtual Status put_incarnations(const std::vector<SessionId>& sessions) = 0;
  // Every ECU of which an incarnation is known, in order, with the largest, until `visit` returns false.
  virtual Status scan_incarnations(
      const std::function<bool(EcuMac ecu_mac, Incarnation incarnation)>& visit) = 0;

  // Which fleet's store this index mirrors (BlobStore::fleet_id), empty at first.
  virtual Result<std::string> fleet_id() = 0;
  virtual Status put_fleet_id(const std::string& fleet_id) = 0;
};

// Opens, or creates when the directory is missing or empty, the index in `directory` on RocksDB.
// kAlreadyExists: another process has it open (said so). kUnsupported: of a newer format.
// kCorrupt: damaged, or of an older format that is not read any more; move it away and rebuild.
Result<std::unique_ptr<CheckpointIndex>> open_rocksdb_index(const std::string& directory);

}  // namespace cms::storage
