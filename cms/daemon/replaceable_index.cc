#include "cms/daemon/replaceable_index.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "base/crash_point.h"
#include "base/time.h"

namespace cms::daemon {

namespace fs = std::filesystem;
using storage::BlobName;
using storage::CheckpointIndex;
using storage::IndexRow;
using storage::ProgramRow;

namespace {

// Beside the index, so that a rename brings one to its place. Names that nobody chooses for his own.
std::string fresh_place_of(const std::string& directory) { return directory + ".cmsd-rebuilding"; }
std::string old_place_of(const std::string& directory) { return directory + ".cmsd-replaced"; }
std::string damaged_place_of(const std::string& directory) {
  return directory + ".damaged-" + std::to_string(wall_time_us());
}

Status move_directory(const std::string& from, const std::string& to) {
  std::error_code failed;
  fs::rename(from, to, failed);
  if (!failed) return ok_status();
  return error_from_errno(failed.value(), "cannot move the index from " + from + " to " + to);
}

void remove_tree(const std::string& directory) {
  std::error_code ignored;  // What stays is removed by the next start.
  fs::remove_all(directory, ignored);
}

bool exists(const std::string& directory) {
  std::error_code ignored;
  return fs::exists(directory, ignored);
}

// A missing directory means that somebody took it from under us.
bool is_damage(Code code) { return code == Code::kCorrupt || code == Code::kNotFound; }

Code code_of(const Status& status) { return status.code(); }
template <typename T>
Code code_of(const Result<T>& result) {
  return result.ok() ? Code::kOk : result.error().code;
}

thread_local int use_depth = 0;  // A thread uses one of these at a time.

}  // namespace

class ReplaceableIndex::Use {
 public:
  explicit Use(ReplaceableIndex& owner) : owner_(owner) {
    if (use_depth++ > 0) return;
    std::unique_lock lock(owner_.mutex_);
    owner_.changed_.wait(lock, [this] { return !owner_.closed_; });
    ++owner_.use_count_;
  }
  ~Use() {
    if (--use_depth > 0) return;
    const std::lock_guard lock(owner_.mutex_);
    if (--owner_.use_count_ == 0) owner_.changed_.notify_all();
  }
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;

 private:
  ReplaceableIndex& owner_;
};

template <typename Call>
auto ReplaceableIndex::call(Call&& one) {
  using Answer = decltype(one(*index_));
  const Use use(*this);
  if (index_ == nullptr) {
    return Answer(make_error(Code::kIo, "the index could not be opened again; see the log of cmsd"));
  }
  Answer answer = one(*index_);
  if (is_damage(code_of(answer))) {
    const std::lock_guard lock(mutex_);
    if (!damage_) damage_ = answer.error().message();
  }
  return answer;
}

Result<std::unique_ptr<ReplaceableIndex>> ReplaceableIndex::open(const std::string& directory, Open open) {
  std::string path = directory;
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  std::unique_ptr<ReplaceableIndex> made(new ReplaceableIndex(path, std::move(open)));
  if (!exists(path) && exists(fresh_place_of(path))) {
    // A death between the two renames of a replacement: the new one is complete.
    if (Status moved = move_directory(fresh_place_of(path), path); !moved.ok()) return moved.error();
    made->opening_ = "a rebuilding of the index was interrupted; it goes on";
  }
  auto index = made->open_(path);
  if (!index.ok() && index.error().code == Code::kCorrupt) {
    const std::string aside = damaged_place_of(path);
    made->opening_ = index.error().message() + "; it is moved to " + aside + " and built anew from the store";
    if (Status moved = move_directory(path, aside); !moved.ok()) return moved.error();
    index = made->open_(path);
  }
  if (!index.ok()) return std::move(index).error();
  made->index_ = std::move(*index);
  remove_tree(fresh_place_of(path));
  remove_tree(old_place_of(path));
  return made;
}

std::optional<std::string> ReplaceableIndex::damage() const {
  const std::lock_guard lock(mutex_);
  return damage_;
}

// The new one is at its place or the old one is; `old_to` is where the old one goes.
Status ReplaceableIndex::swap_directories(const std::string& old_to) {
  if (exists(directory_)) {
    if (Status moved = move_directory(directory_, old_to); !moved.ok()) return moved;
  }
  CMS_CRASH_POINT("cmsd.index_moved_away");
  const Status moved = move_directory(fresh_place_of(directory_), directory_);
  if (!moved.ok() && exists(old_to)) (void)move_directory(old_to, directory_);
  return moved;
}

Result<ReplaceableIndex::Replaced> ReplaceableIndex::replace(bool keep_old) {
  const std::string fresh_place = fresh_place_of(directory_);
  remove_tree(fresh_place);
  Replaced replaced;
  {
    auto fresh = open_(fresh_place);
    if (!fresh.ok()) return fresh.error();
    std::vector<SessionId> sessions;
    const Status scanned = scan_incarnations([&](EcuMac ecu_mac, Incarnation incarnation) {
      sessions.push_back(SessionId{ecu_mac, incarnation});
      return true;
    });
    replaced.incarnations_complete = scanned.ok();
    if (Status put = (*fresh)->put_incarnations(sessions); !put.ok()) return put.error();
  }
  CMS_CRASH_POINT("cmsd.index_made");
  std::unique_lock lock(mutex_);
  closed_ = true;
  changed_.wait(lock, [this] { return use_count_ == 0; });
  index_.reset();
  const std::string old_to = keep_old ? damaged_place_of(directory_) : old_place_of(directory_);
  const Status swapped = swap_directories(old_to);
  auto opened = open_(directory_);
  if (opened.ok()) index_ = std::move(*opened);
  if (swapped.ok()) damage_.reset();
  if (!opened.ok()) damage_ = opened.error().message();
  closed_ = false;
  changed_.notify_all();
  lock.unlock();
  if (!swapped.ok()) return swapped.error();
  if (!opened.ok()) return opened.error();
  CMS_CRASH_POINT("cmsd.index_replaced");
  if (keep_old) {
    replaced.moved_to = old_to;
  } else {
    remove_tree(old_to);
  }
  return replaced;
}

// ---- the index

Status ReplaceableIndex::put(const std::vector<IndexRow>& rows) {
  return call([&](CheckpointIndex& index) { return index.put(rows); });
}
Result<std::uint64_t> ReplaceableIndex::add_missing(const std::vector<IndexRow>& rows) {
  return call([&](CheckpointIndex& index) { return index.add_missing(rows); });
}
Status ReplaceableIndex::remove(const std::vector<BlobName>& names) {
  return call([&](CheckpointIndex& index) { return index.remove(names); });
}
Status ReplaceableIndex::set_pinned(const CheckpointId& checkpoint, bool pinned) {
  return call([&](CheckpointIndex& index) { return index.set_pinned(checkpoint, pinned); });
}
Result<std::optional<IndexRow>> ReplaceableIndex::newest(const ProgramKey& program) {
  return call([&](CheckpointIndex& index) { return index.newest(program); });
}
Result<std::optional<IndexRow>> ReplaceableIndex::find(const CheckpointId& checkpoint) {
  return call([&](CheckpointIndex& index) { return index.find(checkpoint); });
}
Status ReplaceableIndex::scan_program(const ProgramKey& program,
                                      const std::function<bool(const IndexRow&)>& visit) {
  return call([&](CheckpointIndex& index) { return index.scan_program(program, visit); });
}
Status ReplaceableIndex::scan(std::optional<EcuMac> ecu_mac, const std::optional<BlobName>& after,
                              const std::function<bool(const IndexRow&)>& visit) {
  return call([&](CheckpointIndex& index) { return index.scan(ecu_mac, after, visit); });
}
Status ReplaceableIndex::scan_newest(std::optional<EcuMac> ecu_mac, const std::optional<ProgramKey>& after,
                                     const std::function<bool(const IndexRow&)>& visit) {
  return call([&](CheckpointIndex& index) { return index.scan_newest(ecu_mac, after, visit); });
}
Status ReplaceableIndex::scan_by_age(const std::function<bool(const IndexRow&)>& visit) {
  return call([&](CheckpointIndex& index) { return index.scan_by_age(visit); });
}
Result<std::uint64_t> ReplaceableIndex::row_count() {
  return call([&](CheckpointIndex& index) { return index.row_count(); });
}
Status ReplaceableIndex::put_withdrawn(const ProgramKey& program, const Version& up_to, std::uint64_t at_us) {
  return call([&](CheckpointIndex& index) { return index.put_withdrawn(program, up_to, at_us); });
}
Result<std::optional<ProgramRow>> ReplaceableIndex::program(const ProgramKey& program) {
  return call([&](CheckpointIndex& index) { return index.program(program); });
}
Status ReplaceableIndex::put_incarnation(EcuMac ecu_mac, Incarnation incarnation) {
  return call([&](CheckpointIndex& index) { return index.put_incarnation(ecu_mac, incarnation); });
}
Status ReplaceableIndex::put_incarnations(const std::vector<SessionId>& sessions) {
  return call([&](CheckpointIndex& index) { return index.put_incarnations(sessions); });
}
Result<Incarnation> ReplaceableIndex::max_incarnation(EcuMac ecu_mac) {
  return call([&](CheckpointIndex& index) { return index.max_incarnation(ecu_mac); });
}
Status ReplaceableIndex::scan_incarnations(const std::function<bool(EcuMac, Incarnation)>& visit) {
  return call([&](CheckpointIndex& index) { return index.scan_incarnations(visit); });
}
Result<std::string> ReplaceableIndex::fleet_id() {
  return call([&](CheckpointIndex& index) { return index.fleet_id(); });
}
Status ReplaceableIndex::put_fleet_id(const std::string& fleet_id) {
  return call([&](CheckpointIndex& index) { return index.put_fleet_id(fleet_id); });
}

}  // namespace cms::daemon
