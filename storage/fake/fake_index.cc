#include "storage/fake/fake_index.h"

#include <algorithm>
#include <utility>

namespace cms::storage {
namespace {

// Visits a copy: `visit` may call back into the index.
Status visit_all(const std::vector<IndexRow>& rows, const std::function<bool(const IndexRow&)>& visit) {
  for (const IndexRow& row : rows) {
    if (!visit(row)) break;
  }
  return ok_status();
}

const ProgramKey& program_of(const IndexRow& row) { return row.name.checkpoint.program; }

}  // namespace

bool FakeIndex::RowOrder::operator()(const BlobName& a, const BlobName& b) const {
  const Version& va = a.checkpoint.version;
  const Version& vb = b.checkpoint.version;
  return std::tie(a.checkpoint.program, b.owner_epoch, vb, a.uid) <
         std::tie(b.checkpoint.program, a.owner_epoch, va, b.uid);
}

Status FakeIndex::planned() {
  if (failures_left_ == 0) return ok_status();
  --failures_left_;
  return failure_;
}

std::vector<IndexRow> FakeIndex::rows_where(const std::function<bool(const IndexRow&)>& wanted) const {
  std::vector<IndexRow> found;
  for (const auto& [name, row] : rows_) {
    if (wanted(row)) found.push_back(row);
  }
  return found;
}

Result<std::uint64_t> FakeIndex::write_all(const std::vector<IndexRow>& rows, bool replace) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (Status status = planned(); !status.ok()) return status.error();
  for (const IndexRow& row : rows) {
    if (row.name.kind != EntryKind::kBlob || row.program_name.size() > wire::kNameBytesMax) {
      return make_error(Code::kInvalidArgument, "index: " + to_file_name(row.name) +
                                                    " is not a blob with a program_name of at most " +
                                                    std::to_string(wire::kNameBytesMax) + " bytes");
    }
  }
  const std::size_t count_before = rows_.size();
  for (const IndexRow& row : rows) {
    const auto [kept, added] = rows_.emplace(row.name, row);
    if (!added) {
      if (!replace) continue;
      const bool pinned = kept->second.pinned || row.pinned;
      kept->second = row;
      kept->second.pinned = pinned;
    }
    Incarnation& largest = incarnations_[program_of(row).ecu_mac];
    largest = std::max(largest, row.name.checkpoint.version.incarnation);
  }
  return std::uint64_t{rows_.size() - count_before};
}

Status FakeIndex::put(const std::vector<IndexRow>& rows) {
  const auto written = write_all(rows, true);
  return written ? ok_status() : Status(written.error());
}

Result<std::uint64_t> FakeIndex::add_missing(const std::vector<IndexRow>& rows) {
  return write_all(rows, false);
}

Status FakeIndex::remove(const std::vector<BlobName>& names) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (Status status = planned(); !status.ok()) return status;
  for (const BlobName& name : names) rows_.erase(name);
  return ok_status();
}

Status FakeIndex::set_pinned(const CheckpointId& checkpoint, bool pinned) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (Status status = planned(); !status.ok()) return status;
  for (auto& [name, row] : rows_) {
    if (name.checkpoint == checkpoint) row.pinned = pinned;
  }
  return ok_status();
}

Result<std::optional<IndexRow>> FakeIndex::newest(const ProgramKey& program) {
  std::optional<IndexRow> found;
  const Status status = scan_program(program, [&](const IndexRow& row) {
    found = row;
    return false;
  });
  if (!status.ok()) return status.error();
  return found;
}

Result<std::optional<IndexRow>> FakeIndex::find(const CheckpointId& checkpoint) {
  std::optional<IndexRow> found;
  const Status status = scan_program(checkpoint.program, [&](const IndexRow& row) {
    if (row.name.checkpoint.version == checkpoint.version) found = row;
    return !found;
  });
  if (!status.ok()) return status.error();
  return found;
}

Status FakeIndex::scan_program(const ProgramKey& program, const std::function<bool(const IndexRow&)>& visit) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (Status status = planned(); !status.ok()) return status;
  // Only the program's rows are copied: newest() is asked often.
  BlobName first;
  first.checkpoint.program = program;
  first.checkpoint.version = Version{UINT64_MAX, UINT64_MAX};
  first.owner_epoch = UINT64_MAX;
  std::vector<IndexRow> rows;
  for (auto at = rows_.lower_bound(first); at != rows_.end() && program_of(at->second) == program; ++at) {
    rows.push_back(at->second);
  }
  lock.unlock();
  return visit_all(rows, visit);
}

Status FakeIndex::scan(std::optional<EcuMac> ecu_mac, const std::optional<BlobName>& after,
                       const std::function<bool(const IndexRow&)>& visit) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (Status status = planned(); !status.ok()) return status;
  const auto rows = rows_where([&](const IndexRow& row) {
    return (!ecu_mac || program_of(row).ecu_mac == *ecu_mac) && (!after || RowOrder()(*after, row.name));
  });
  lock.unlock();
  return visit_all(rows, visit);
}

Status FakeIndex::scan_newest(std::optional<EcuMac> ecu_mac, const std::optional<ProgramKey>& after,
                              const std::function<bool(const IndexRow&)>& visit) {
  std::optional<ProgramKey> previous;
  return scan(ecu_mac, std::nullopt, [&](const IndexRow& row) {
    if (previous && *previous == program_of(row)) return true;
    previous = program_of(row);
    return (after && !(*after < *previous)) || visit(row);
  });
}

Status FakeIndex::scan_by_age(const std::function<bool(const IndexRow&)>& visit) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (Status status = planned(); !status.ok()) return status;
  auto rows = rows_where([](const IndexRow&) { return true; });
  lock.unlock();
  std::stable_sort(rows.begin(), rows.end(),
                   [](const IndexRow& a, const IndexRow& b) { return a.stored_at_us < b.stored_at_us; });
  return visit_all(rows, visit);
}

Result<std::uint64_t> FakeIndex::row_count() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (Status status = planned(); !status.ok()) return status.error();
  return std::uint64_t{rows_.size()};
}

Status FakeIndex::put_withdrawn(const ProgramKey& program, const Version& up_to, std::uint64_t at_us) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (Status status = planned(); !status.ok()) return status;
  ProgramRow row;
  row.program = program;
  row.withdrawn = up_to;
  row.withdrawn_at_us = at_us;
  programs_[program] = row;
  Incarnation& largest = incarnations_[program.ecu_mac];
  largest = std::max(largest, up_to.incarnation);
  return ok_status();
}

Result<std::optional<ProgramRow>> FakeIndex::program(const ProgramKey& program) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (Status status = planned(); !status.ok()) return status.error();
  const auto found = programs_.find(program);
  if (found == programs_.end()) return std::optional<ProgramRow>();
  return std::optional<ProgramRow>(found->second);
}

Status FakeIndex::put_incarnation(EcuMac ecu_mac, Incarnation incarnation) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (Status status = planned(); !status.ok()) return status;
  Incarnation& largest = incarnations_[ecu_mac];
  largest = std::max(largest, incarnation);
  return ok_status();
}

Result<Incarnation> FakeIndex::max_incarnation(EcuMac ecu_mac) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (Status status = planned(); !status.ok()) return status.error();
  const auto found = incarnations_.find(ecu_mac);
  return found == incarnations_.end() ? Incarnation{0} : found->second;
}

Status FakeIndex::put_incarnations(const std::vector<SessionId>& sessions) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (Status status = planned(); !status.ok()) return status;
  for (const SessionId& session : sessions) {
    Incarnation& largest = incarnations_[session.ecu_mac];
    largest = std::max(largest, session.incarnation);
  }
  return ok_status();
}

Status FakeIndex::scan_incarnations(
    const std::function<bool(EcuMac ecu_mac, Incarnation incarnation)>& visit) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (Status status = planned(); !status.ok()) return status;
  const std::map<EcuMac, Incarnation> incarnations = incarnations_;
  lock.unlock();
  for (const auto& [ecu_mac, incarnation] : incarnations) {
    if (!visit(ecu_mac, incarnation)) break;
  }
  return ok_status();
}

Result<std::string> FakeIndex::fleet_id() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (Status status = planned(); !status.ok()) return status.error();
  return fleet_id_;
}

Status FakeIndex::put_fleet_id(const std::string& fleet_id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (Status status = planned(); !status.ok()) return status;
  fleet_id_ = fleet_id;
  return ok_status();
}

void FakeIndex::fail_next(std::uint64_t count, Error error) {
  const std::lock_guard<std::mutex> lock(mutex_);
  failures_left_ = count;
  failure_ = std::move(error);
}

}  // namespace cms::storage
