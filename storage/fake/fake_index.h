#pragma once
// FakeIndex keeps rows in memory, for simulators and tests; it passes the contract tests of the real
// index. A crash of the host may lose what was written last: tests make a new one, or copy an old one.
// Threads: thread-safe.
#include <map>
#include <mutex>
#include <string>
#include <tuple>

#include "storage/checkpoint_index.h"

namespace cms::storage {

class FakeIndex final : public CheckpointIndex {
 public:
  Status put(const std::vector<IndexRow>& rows) override;
  Result<std::uint64_t> add_missing(const std::vector<IndexRow>& rows) override;
  Status remove(const std::vector<BlobName>& names) override;
  Status set_pinned(const CheckpointId& checkpoint, bool pinned) override;
  Result<std::optional<IndexRow>> newest(const ProgramKey& program) override;
  Result<std::optional<IndexRow>> find(const CheckpointId& checkpoint) override;
  Status scan_program(const ProgramKey& program, const std::function<bool(const IndexRow&)>& visit) override;
  Status scan(std::optional<EcuMac> ecu_mac, const std::optional<BlobName>& after,
              const std::function<bool(const IndexRow&)>& visit) override;
  Status scan_newest(std::optional<EcuMac> ecu_mac, const std::optional<ProgramKey>& after,
                     const std::function<bool(const IndexRow&)>& visit) override;
  Status scan_by_age(const std::function<bool(const IndexRow&)>& visit) override;
  Result<std::uint64_t> row_count() override;
  Status put_withdrawn(const ProgramKey& program, const Version& up_to, std::uint64_t at_us) override;
  Result<std::optional<ProgramRow>> program(const ProgramKey& program) override;
  Status put_incarnation(EcuMac ecu_mac, Incarnation incarnation) override;
  Status put_incarnations(const std::vector<SessionId>& sessions) override;
  Result<Incarnation> max_incarnation(EcuMac ecu_mac) override;
  Status scan_incarnations(
      const std::function<bool(EcuMac ecu_mac, Incarnation incarnation)>& visit) override;
  Result<std::string> fleet_id() override;
  Status put_fleet_id(const std::string& fleet_id) override;

  // The next `count` calls fail with `error` and do nothing.
  void fail_next(std::uint64_t count, Error error);

 private:
  // Programs ascending, versions of one descending, uids ascending.
  struct RowOrder {
    bool operator()(const BlobName& a, const BlobName& b) const;
  };

  Status planned();  // With mutex_ held.
  Result<std::uint64_t> write_all(const std::vector<IndexRow>& rows, bool replace);
  std::vector<IndexRow> rows_where(const std::function<bool(const IndexRow&)>& wanted) const;

  mutable std::mutex mutex_;
  std::map<BlobName, IndexRow, RowOrder> rows_;
  std::map<ProgramKey, ProgramRow> programs_;
  std::map<EcuMac, Incarnation> incarnations_;
  std::string fleet_id_;
  std::uint64_t failures_left_ = 0;
  Error failure_{};
};

}  // namespace cms::storage
