#pragma once
// ReplaceableIndex is an index in a directory that can be put aside and begun anew while everybody goes
// on using it: what is called meanwhile waits for a moment and then sees the empty one. It also
// notices that the index is damaged, so that the daemon can have it rebuilt without a restart.
//
// Threads: thread-safe. replace() by one thread at a time, and not from within a scan. A scan's
// `visit` may call back. Errors: those of the index; kIo when a replacement could not be opened.
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "storage/checkpoint_index.h"

namespace cms::daemon {

class ReplaceableIndex final : public storage::CheckpointIndex {
 public:
  using Open = std::function<Result<std::unique_ptr<storage::CheckpointIndex>>(const std::string& directory)>;

  // Opens the index of `directory`. A damaged one, or one of an older format, is moved to
  // DIRECTORY.damaged-<time> and an empty one is made. Finishes or undoes a replacement that a death
  // interrupted.
  static Result<std::unique_ptr<ReplaceableIndex>> open(const std::string& directory,
                                                        Open open = storage::open_rocksdb_index);

  struct Replaced {
    bool incarnations_complete = false;  // All that the old one knew are in the new one.
    std::string moved_to;                // Where the old one is; empty: it is gone.
  };
  // Puts an empty index in the place of this one. What no store tells, the incarnations given, is taken
  // along, as far as it can be read. With `keep_old`, the old one is kept for a person to look at.
  // After an error the old one is in its place.
  Result<Replaced> replace(bool keep_old);
  // Why this index has to be replaced: the first sign of damage since it was opened.
  std::optional<std::string> damage() const;
  // What was done about the index when it was opened, for the log; empty: nothing.
  const std::string& opening() const { return opening_; }

  Status put(const std::vector<storage::IndexRow>& rows) override;
  Result<std::uint64_t> add_missing(const std::vector<storage::IndexRow>& rows) override;
  Status remove(const std::vector<storage::BlobName>& names) override;
  Status set_pinned(const CheckpointId& checkpoint, bool pinned) override;
  Result<std::optional<storage::IndexRow>> newest(const ProgramKey& program) override;
  Result<std::optional<storage::IndexRow>> find(const CheckpointId& checkpoint) override;
  Status scan_program(const ProgramKey& program,
                      const std::function<bool(const storage::IndexRow&)>& visit) override;
  Status scan(std::optional<EcuMac> ecu_mac, const std::optional<storage::BlobName>& after,
              const std::function<bool(const storage::IndexRow&)>& visit) override;
  Status scan_newest(std::optional<EcuMac> ecu_mac, const std::optional<ProgramKey>& after,
                     const std::function<bool(const storage::IndexRow&)>& visit) override;
  Status scan_by_age(const std::function<bool(const storage::IndexRow&)>& visit) override;
  Result<std::uint64_t> row_count() override;
  Status put_withdrawn(const ProgramKey& program, const Version& up_to, std::uint64_t at_us) override;
  Result<std::optional<storage::ProgramRow>> program(const ProgramKey& program) override;
  Status put_incarnation(EcuMac ecu_mac, Incarnation incarnation) override;
  Status put_incarnations(const std::vector<SessionId>& sessions) override;
  Result<Incarnation> max_incarnation(EcuMac ecu_mac) override;
  Status scan_incarnations(const std::function<bool(EcuMac, Incarnation)>& visit) override;
  Result<std::string> fleet_id() override;
  Status put_fleet_id(const std::string& fleet_id) override;

 private:
  // While one lives on a thread, the index is not replaced. Nests.
  class Use;

  ReplaceableIndex(std::string directory, Open open)
      : directory_(std::move(directory)), open_(std::move(open)) {}
  Status swap_directories(const std::string& old_to);
  template <typename Call>
  auto call(Call&& one);

  const std::string directory_;
  const Open open_;
  std::string opening_;

  mutable std::mutex mutex_;  // Guards the five below, but not what index_ points to.
  std::condition_variable changed_;
  std::size_t use_count_ = 0;
  bool closed_ = false;
  std::optional<std::string> damage_;
  std::unique_ptr<storage::CheckpointIndex> index_;  // Null: it could not be opened.
};

}  // namespace cms::daemon
