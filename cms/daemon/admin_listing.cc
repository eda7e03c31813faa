#include "cms/daemon/admin_listing.h"

#include <algorithm>
#include <map>
#include <string_view>
#include <utility>

namespace cms::daemon {
namespace {

using Item = CoreSnapshot::Item;
using State = CoreSnapshot::State;

// Names to begin a scan behind: everything before the first row of a program, or of an ECU.
std::optional<ProgramKey> before(const ProgramKey& program) {
  if (program.program_id > 0) return ProgramKey{program.ecu_mac, program.program_id - 1};
  if (program.ecu_mac.bits > 0) return ProgramKey{EcuMac{program.ecu_mac.bits - 1}, UINT64_MAX};
  return std::nullopt;
}

std::optional<storage::BlobName> rows_before(const ProgramKey& program) {
  const auto last = before(program);
  if (!last) return std::nullopt;
  storage::BlobName name;  // The order within a program is newest first.
  name.checkpoint.program = *last;
  name.uid = UINT64_MAX;
  return name;
}

// ---- ecus

class EcuLister {
 public:
  // From `first` on; or of that one `only`.
  EcuLister(const CoreSnapshot& snapshot, EcuMac first, std::optional<EcuMac> only, ListPage& page)
      : snapshot_(snapshot), page_(page) {
    const auto& guarded = snapshot.facts.leases.ecus;
    guarded_ = guarded.lower_bound(only.value_or(first));
    guarded_end_ = only ? guarded.upper_bound(*only) : guarded.end();
  }

  // False: the page ends here.
  bool on_row(const storage::IndexRow& row) {
    ++looks_;
    const EcuMac ecu_mac = row.name.checkpoint.program.ecu_mac;
    if (!ecu_ || ecu_->ecu_mac != ecu_mac) {
      finish_ecu();
      if (!list_unstored_before(ecu_mac) || !begin(ecu_mac)) return false;
    }
    ++ecu_->checkpoint_count;
    ecu_->size_bytes += row.name.size_bytes;
    ecu_->stored_bytes += row.stored_bytes;
    ecu_->newest_at_us = std::max(ecu_->newest_at_us, row.stored_at_us);
    return true;
  }

  void on_end() {
    finish_ecu();
    if (list_unstored_before(EcuMac{UINT64_MAX}) && snapshot_.sessions_end) next_ = *snapshot_.sessions_end;
  }

  std::string next() const { return next_ ? to_string(*next_) : std::string(); }

 private:
  bool full() const { return page_.size_bytes() >= kPageBytes || looks_ >= kPageLooksMax; }

  bool begin(EcuMac ecu_mac) {
    if (snapshot_.sessions_end && !(ecu_mac < *snapshot_.sessions_end)) {
      next_ = *snapshot_.sessions_end;
    } else if (full()) {
      next_ = ecu_mac;
    } else {
      ecu_.emplace();
      ecu_->ecu_mac = ecu_mac;
    }
    return !next_;
  }

  // Of what nothing is stored: it has a session, or a log of its own.
  bool list_unstored_before(EcuMac ecu_mac) {
    for (auto next = next_unstored(); next && *next < ecu_mac; next = next_unstored()) {
      if (!begin(*next)) return false;
      finish_ecu();
    }
    return true;
  }

  std::optional<EcuMac> next_unstored() const {
    std::optional<EcuMac> next;
    if (session_ < snapshot_.sessions.size()) next = snapshot_.sessions[session_].id.ecu_mac;
    if (guarded_ != guarded_end_ && (!next || guarded_->first < *next)) next = guarded_->first;
    return next;
  }

  void finish_ecu() {
    if (!ecu_) return;
    ecu_->sessions = snapshot_.sessions.data() + session_;
    while (session_ < snapshot_.sessions.size() && snapshot_.sessions[session_].id.ecu_mac == ecu_->ecu_mac) {
      ++ecu_->session_count;
      ++session_;
    }
    if (guarded_ != guarded_end_ && guarded_->first == ecu_->ecu_mac) ++guarded_;
    page_.add(*ecu_);
    ecu_.reset();
  }

  const CoreSnapshot& snapshot_;
  ListPage& page_;
  std::size_t session_ = 0;                                    // The first not yet listed.
  std::map<EcuMac, LeaseFacts::Ecu>::const_iterator guarded_;  // As well.
  std::map<EcuMac, LeaseFacts::Ecu>::const_iterator guarded_end_;
  std::size_t looks_ = 0;
  std::optional<EcuEntry> ecu_;  // Being added up.
  std::optional<EcuMac> next_;
};

// ---- checkpoints

// Where a page begins: with the first entry of a program, or behind one row of it. As text
// KEY without a version, or KEY#owner_epoch.uid.
struct Cursor {
  ProgramKey program{};
  std::optional<storage::BlobName> after;
};

std::string cursor_text(const storage::BlobName& after) {
  return to_string(after.checkpoint) + "#" + std::to_string(after.owner_epoch) + "." +
         std::to_string(after.uid);
}

Result<Cursor> parse_cursor(const std::string& text) {
  const Error error =
      make_error(Code::kInvalidArgument, "continue_after is not the 'next' of an answer to checkpoints");
  const std::size_t hash = text.find('#');
  const auto key = parse_key(std::string_view(text).substr(0, hash));
  if (!key || key->has_version != (hash != text.npos)) return error;
  Cursor cursor;
  cursor.program = key->program;
  if (!key->has_version) return cursor;
  const std::string_view rest = std::string_view(text).substr(hash + 1);
  const auto epoch = parse_u64(rest.substr(0, rest.find('.')));
  const auto uid = parse_u64(rest.substr(std::min(rest.find('.'), rest.size() - 1) + 1));
  if (!epoch || !uid) return error;
  cursor.after.emplace();
  cursor.after->checkpoint = CheckpointId{key->program, key->version};
  cursor.after->owner_epoch = *epoch;
  cursor.after->uid = *uid;
  return cursor;
}

// Merges what is stored with what is in motion or failed: by program, and within one the versions
// newest first.
class CheckpointLister {
 public:
  CheckpointLister(const wire::AdminRequest& request, const CoreSnapshot& snapshot,
                   storage::CheckpointIndex& index, ListPage& page)
      : request_(request), snapshot_(snapshot), index_(index), page_(page) {}

  // Goes on behind a row: what is newer was on an earlier page.
  Status resume(const ProgramKey& program) {
    const auto newest = index_.newest(program);
    if (!newest) return newest.error();
    program_ = program;
    newest_ = *newest ? (*newest)->name.checkpoint.version : Version{};
    withdrawn_ = withdrawn_of(program);
    while (has_item() && item().checkpoint.program == program && newest_ <= item().checkpoint.version)
      ++item_;
    return status_;
  }

  // False: the page ends here.
  bool on_row(const storage::IndexRow& row) {
    ++looks_;
    const ProgramKey& program = row.name.checkpoint.program;
    const bool first = !program_ || *program_ != program;
    if (first) {
      finish_program();
      if (is_behind(program)) return false;
      if (!list_items_before(program) || !begin(program)) return false;
      program_ = program;
      newest_ = row.name.checkpoint.version;
      withdrawn_ = withdrawn_of(program);
      while (has_item() && item().checkpoint.program == program && newest_ < item().checkpoint.version)
        add_item();
    }
    if (!request_.has_program_id || program.program_id == request_.program_id) {
      const char* state = is_withdrawn(row.name.checkpoint.version, withdrawn_) ? "withdrawn"
                          : row.name.checkpoint.version == newest_              ? "current"
                                                                                : "stored";
      page_.add(row, state);
    }
    if (request_.all && full()) {
      next_ = cursor_text(row.name);
      return false;
    }
    return status_.ok();
  }

  void on_end() {
    finish_program();
    if (list_items_before(std::nullopt) && snapshot_.items_end) next_ = to_string(*snapshot_.items_end);
  }

  const Status& status() const { return status_; }
  bool page_ended() const { return !next_.empty(); }
  const std::string& next() const { return next_; }

 private:
  bool has_item() const { return item_ < snapshot_.items.size(); }
  const Item& item() const { return snapshot_.items[item_]; }
  void add_item() { page_.add(snapshot_.items[item_++]); }
  bool full() const { return page_.size_bytes() >= kPageBytes || looks_ >= kPageLooksMax; }

  bool is_behind(const ProgramKey& program) const {
    return request_.has_ecu_mac && request_.has_program_id && program.program_id > request_.program_id;
  }

  bool begin(const ProgramKey& program) {
    if (snapshot_.items_end && !(program < *snapshot_.items_end)) {
      next_ = to_string(*snapshot_.items_end);
    } else if (full()) {
      next_ = to_string(program);
    }
    return next_.empty();
  }

  // Programs of which nothing is stored; all that are left when `program` is not given.
  bool list_items_before(const std::optional<ProgramKey>& program) {
    while (has_item() && (!program || item().checkpoint.program < *program)) {
      const ProgramKey listed = item().checkpoint.program;
      if (!begin(listed)) return false;
      while (has_item() && item().checkpoint.program == listed) add_item();
    }
    return true;
  }

  // What is left are failures of versions older than the newest stored one: history.
  void finish_program() {
    if (!program_) return;
    while (has_item() && item().checkpoint.program == *program_) {
      if (request_.all && item().state == State::kFailed) {
        add_item();
      } else {
        ++item_;
      }
    }
    program_.reset();
  }

  std::optional<Version> withdrawn_of(const ProgramKey& program) {
    const auto facts = index_.program(program);
    if (!facts) {
      status_ = facts.error();
      return std::nullopt;
    }
    return *facts ? (*facts)->withdrawn : std::nullopt;
  }

  const wire::AdminRequest& request_;
  const CoreSnapshot& snapshot_;
  storage::CheckpointIndex& index_;
  ListPage& page_;
  Status status_;
  std::size_t looks_ = 0;
  std::size_t item_ = 0;  // The first not yet listed.
  std::optional<ProgramKey> program_;
  Version newest_{};
  std::optional<Version> withdrawn_;
  std::string next_;
};

}  // namespace

bool is_withdrawn(const Version& version, const std::optional<Version>& withdrawn) {
  return withdrawn && version <= *withdrawn;
}

// `continue_after`: the ecu_mac to go on with.
Result<std::string> list_ecus(const wire::AdminRequest& request, const CoreSnapshot& snapshot,
                              storage::CheckpointIndex& index, ListPage& page) {
  EcuMac first{};
  std::optional<storage::BlobName> after;
  if (!request.continue_after.empty()) {
    const auto from = parse_ecu_mac(request.continue_after);
    if (!from)
      return make_error(Code::kInvalidArgument, "continue_after is not the 'next' of an answer to ecus");
    first = *from;
    after = rows_before(ProgramKey{first, 0});
  }
  bool whole = true;
  const std::optional<EcuMac> only = request.has_ecu_mac ? std::optional(request.ecu_mac) : std::nullopt;
  EcuLister lister(snapshot, first, only, page);
  const Status status =
      index.scan(only, after, [&](const storage::IndexRow& row) { return whole = lister.on_row(row); });
  if (!status.ok()) return status.error();
  if (whole) lister.on_end();
  return lister.next();
}

Result<std::string> list_checkpoints(const wire::AdminRequest& request, const CoreSnapshot& snapshot,
                                     storage::CheckpointIndex& index, ListPage& page) {
  const std::optional<EcuMac> only = request.has_ecu_mac ? std::optional(request.ecu_mac) : std::nullopt;
  Cursor cursor;
  CheckpointLister lister(request, snapshot, index, page);
  if (!request.continue_after.empty()) {
    auto parsed = parse_cursor(request.continue_after);
    if (!parsed) return std::move(parsed).error();
    cursor = std::move(*parsed);
    if (cursor.after) {
      if (Status status = lister.resume(cursor.program); !status.ok()) return status.error();
    }
  } else if (only) {
    cursor.program = ProgramKey{*only, request.has_program_id ? request.program_id : 0};
  }
  bool whole = true;
  const auto visit = [&](const storage::IndexRow& row) { return whole = lister.on_row(row); };
  const Status status =
      request.all ? index.scan(only, cursor.after ? cursor.after : rows_before(cursor.program), visit)
                  : index.scan_newest(only, before(cursor.program), visit);
  if (!status.ok()) return status.error();
  if (!lister.status().ok()) return lister.status().error();
  if (whole || !lister.page_ended()) lister.on_end();
  return lister.next();
}

}  // namespace cms::daemon
