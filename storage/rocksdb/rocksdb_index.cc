#include <rocksdb/cache.h>
#include <rocksdb/convenience.h>
#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <filesystem>
#include <map>
#include <mutex>
#include <set>
#include <string_view>
#include <system_error>
#include <unordered_map>

#include "flatbuffers/flatbuffers.h"
#include "storage/checkpoint_index.h"
#include "storage/rocksdb/keys.h"
#include "storage/rocksdb/row_codec.h"

namespace cms::storage {
namespace {

constexpr std::uint64_t kIndexFormatVersion = 1;
constexpr std::string_view kFormatKey = "format_version";
constexpr std::string_view kFleetKey = "fleet_id";
constexpr std::string_view kRowCountKey = "row_count";

// The memory row of the design: two write buffers and the block cache, which also holds the index
// and filter blocks, so that a million rows cost no more than a thousand.
constexpr std::size_t kWriteBufferBytes = 8 * 1024 * 1024;
constexpr std::size_t kBlockCacheBytes = 16 * 1024 * 1024;
constexpr int kBlockCacheShardBits = 2;  // 4 MiB each
constexpr int kOpenFilesMax = 128;
// A log of RocksDB 7.8 that once failed to grow fails for good, and its recovery ends in an assertion
// of Debian's build; so we stop before the disk is full: room for the buffers, the log and a compaction.
constexpr std::uint64_t kSpaceReserveBytes = 48 * 1024 * 1024;
// Rows must go when checkpoints were removed to make room, so removals may use some of the reserve.
constexpr std::uint64_t kSpaceReserveOfRemovalBytes = kSpaceReserveBytes / 2;
// Programs mostly have a few rows: cheaper to step over than to seek past.
constexpr int kStepsBeforeSeek = 8;

Error index_error(const rocksdb::Status& status, const std::string& what) {
  Code code = Code::kIo;
  if (status.IsNoSpace()) {
    code = Code::kNoSpace;
  } else if (status.IsCorruption()) {
    code = Code::kCorrupt;
  }
  return make_error(code, what + ": " + status.ToString());
}

rocksdb::Options make_options() {
  rocksdb::BlockBasedTableOptions table;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  // In pieces of a block each: a whole filter is larger than a shard of this cache, and would be read
  // from the file for every Get (measured: 2 000 instead of 100 000 puts per second).
  table.index_type = rocksdb::BlockBasedTableOptions::kTwoLevelIndexSearch;
  table.partition_filters = true;
  table.block_cache = rocksdb::NewLRUCache(kBlockCacheBytes, kBlockCacheShardBits);
  table.cache_index_and_filter_blocks = true;
  table.cache_index_and_filter_blocks_with_high_priority = true;
  table.pin_l0_filter_and_index_blocks_in_cache = true;
  table.format_version = 5;
  table.checksum = rocksdb::kXXH3;

  rocksdb::Options options;
  options.create_if_missing = true;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  options.write_buffer_size = kWriteBufferBytes;
  options.max_write_buffer_number = 2;
  options.max_total_wal_size = 2 * kWriteBufferBytes;
  options.memtable_prefix_bloom_size_ratio = 0.02;  // put asks for rows that mostly are not there
  options.memtable_whole_key_filtering = true;
  options.level_compaction_dynamic_level_bytes = true;
  options.max_background_jobs = 2;
  options.max_open_files = kOpenFilesMax;
  options.avoid_flush_during_shutdown = false;
  options.skip_stats_update_on_db_open = true;  // reads every table otherwise: slow to start
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  options.keep_log_file_num = 2;
  options.max_log_file_size = 1024 * 1024;
  options.info_log_level = rocksdb::WARN_LEVEL;
  const auto compressions = rocksdb::GetSupportedCompressions();
  const bool has_lz4 =
      std::find(compressions.begin(), compressions.end(), rocksdb::kLZ4Compression) != compressions.end();
  options.compression = has_lz4 ? rocksdb::kLZ4Compression : rocksdb::kNoCompression;
  return options;
}

std::string be64(std::uint64_t value) {
  std::string out;
  keys::append_be(out, value, 8);
  return out;
}

Result<std::uint64_t> parse_be64(std::string_view text, const char* what) {
  if (text.size() != 8)
    return make_error(Code::kCorrupt, std::string("index: ") + what + " has a wrong length");
  return keys::take_be(text, 8);
}

rocksdb::Slice slice_of(const flatbuffers::FlatBufferBuilder& builder) {
  return {reinterpret_cast<const char*>(builder.GetBufferPointer()), builder.GetSize()};
}

class RocksdbIndex final : public CheckpointIndex {
 public:
  RocksdbIndex(std::string directory, std::unique_ptr<rocksdb::DB> db, std::uint64_t row_count)
      : directory_(std::move(directory)), db_(std::move(db)), row_count_(row_count) {}

  Status put(const std::vector<IndexRow>& rows) override {
    const auto written = write_all(rows, true);
    return written ? ok_status() : Status(written.error());
  }

  Result<std::uint64_t> add_missing(const std::vector<IndexRow>& rows) override {
    return write_all(rows, false);
  }

 private:
  // Returns how many rows were not there before.
  Result<std::uint64_t> write_all(const std::vector<IndexRow>& rows, bool replace) {
    for (const IndexRow& row : rows) {
      if (row.name.kind != EntryKind::kBlob || row.program_name.size() > wire::kNameBytesMax) {
        return make_error(Code::kInvalidArgument, "index: " + to_file_name(row.name) +
                                                      " is not a blob with a program_name of at most " +
                                                      std::to_string(wire::kNameBytesMax) + " bytes");
      }
    }
    const std::lock_guard<std::mutex> lock(write_mutex_);
    rocksdb::WriteBatch batch;
    flatbuffers::FlatBufferBuilder builder(512);
    std::unordered_map<std::string, Known> written;  // By key: in this batch.
    std::map<EcuMac, Incarnation> incarnations;
    std::uint64_t row_count = row_count_;
    // In the order of keys, table by table: then most of a rebuild's time, finding their places among what is
    // there, is spent in the same few places. Of one key the later row stays the later one.
    std::vector<std::pair<std::string, const IndexRow*>> sorted;
    sorted.reserve(rows.size());
    for (const IndexRow& row : rows) sorted.emplace_back(keys::checkpoint(keys::row_key_of(row.name)), &row);
    std::stable_sort(sorted.begin(), sorted.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    std::set<std::string> ages;
    for (const auto& [key, one] : sorted) {
      const IndexRow& row = *one;
      const keys::RowKey row_key = keys::row_key_of(row.name);
      const auto known = known_of(row_key, key, written);
      if (!known) return known.error();
      if (*known && !replace) continue;
      if (!*known) ++row_count;
      if (*known && (*known)->stored_at_us != row.stored_at_us) {
        const std::string former = keys::by_age((*known)->stored_at_us, row_key);
        ages.erase(former);
        batch.Delete(former);
      }
      IndexRow kept = row;
      kept.pinned = row.pinned || (*known && (*known)->pinned);
      encode_row(kept, builder);
      batch.Put(key, slice_of(builder));
      ages.insert(keys::by_age(row.stored_at_us, row_key));
      written[key] = Known{row.stored_at_us, kept.pinned};
      Incarnation& largest = incarnations[row.name.checkpoint.program.ecu_mac];
      largest = std::max(largest, row.name.checkpoint.version.incarnation);
    }
    for (const std::string& age : ages) batch.Put(age, rocksdb::Slice());
    for (const auto& [ecu_mac, incarnation] : incarnations) {
      if (Status status = raise_incarnation(batch, ecu_mac, incarnation); !status.ok()) return status.error();
    }
    const std::uint64_t added = row_count - row_count_;
    const Status status = write_rows(batch, row_count, kSpaceReserveBytes);
    if (!status.ok()) return status.error();
    return added;
  }

 public:
  Status remove(const std::vector<BlobName>& names) override {
    const std::lock_guard<std::mutex> lock(write_mutex_);
    rocksdb::WriteBatch batch;
    std::unordered_map<std::string, bool> removed;
    std::uint64_t row_count = row_count_;
    for (const BlobName& name : names) {
      const keys::RowKey row_key = keys::row_key_of(name);
      const std::string key = keys::checkpoint(row_key);
      if (!removed.emplace(key, true).second) continue;
      const auto known = known_of(row_key, key, {});
      if (!known) return known.error();
      if (!*known) continue;
      batch.Delete(key);
      batch.Delete(keys::by_age((*known)->stored_at_us, row_key));
      CMS_ASSERT(row_count > 0);
      --row_count;
    }
    return write_rows(batch, row_count, kSpaceReserveOfRemovalBytes);
  }

  Status set_pinned(const CheckpointId& checkpoint, bool pinned) override {
    const std::lock_guard<std::mutex> lock(write_mutex_);
    rocksdb::WriteBatch batch;
    flatbuffers::FlatBufferBuilder builder(512);
    const Status scanned = scan_program(checkpoint.program, [&](const IndexRow& row) {
      if (row.name.checkpoint.version != checkpoint.version || row.pinned == pinned) return true;
      IndexRow changed = row;
      changed.pinned = pinned;
      encode_row(changed, builder);
      batch.Put(keys::checkpoint(keys::row_key_of(row.name)), slice_of(builder));
      return true;
    });
    if (!scanned.ok()) return scanned;
    return batch.Count() == 0 ? ok_status() : write(batch);
  }

  Result<std::optional<IndexRow>> newest(const ProgramKey& program) override {
    std::optional<IndexRow> found;
    const Status status = scan_program(program, [&](const IndexRow& row) {
      found = row;
      return false;
    });
    if (!status.ok()) return status.error();
    return found;
  }

  Result<std::optional<IndexRow>> find(const CheckpointId& checkpoint) override {
    std::optional<IndexRow> found;
    const Status status = scan_program(checkpoint.program, [&](const IndexRow& row) {
      if (row.name.checkpoint.version == checkpoint.version) found = row;
      return !found;
    });
    if (!status.ok()) return status.error();
    return found;
  }

  Status scan_program(const ProgramKey& program, const std::function<bool(const IndexRow&)>& visit) override {
    return scan_rows(keys::program_rows(program), keys::after_program_rows(program), visit);
  }

  Status scan(std::optional<EcuMac> ecu_mac, const std::optional<BlobName>& after,
              const std::function<bool(const IndexRow&)>& visit) override {
    std::string lower = first_key(ecu_mac);
    // A row's key followed by a zero byte is the smallest key behind it.
    if (after) lower = std::max(lower, keys::checkpoint(keys::row_key_of(*after)) + '\0');
    return scan_rows(lower, last_key(ecu_mac), visit);
  }

  Status scan_newest(std::optional<EcuMac> ecu_mac, const std::optional<ProgramKey>& after,
                     const std::function<bool(const IndexRow&)>& visit) override {
    std::string lower = first_key(ecu_mac);
    if (after) lower = std::max(lower, keys::after_program_rows(*after));
    const std::string upper = last_key(ecu_mac);
    BoundedIterator iterator(*db_, upper, nullptr);
    iterator->Seek(lower);
    while (iterator->Valid()) {
      const auto row = row_at(*iterator);
      if (!row) return row.error();
      if (!visit(*row)) return ok_status();
      const std::string behind = keys::after_program_rows(row->name.checkpoint.program);
      iterator->Next();
      for (int steps = 1; iterator->Valid() && iterator->key().compare(behind) < 0; ++steps) {
        if (steps < kStepsBeforeSeek) {
          iterator->Next();
        } else {
          iterator->Seek(behind);
        }
      }
    }
    return end_of(*iterator);
  }

  Status scan_by_age(const std::function<bool(const IndexRow&)>& visit) override {
    // One state for both tables, whatever is written meanwhile.
    rocksdb::ManagedSnapshot snapshot(db_.get());
    const std::string upper = keys::after_table(keys::Table::kByAge);
    BoundedIterator iterator(*db_, upper, snapshot.snapshot());
    rocksdb::ReadOptions read;
    read.snapshot = snapshot.snapshot();
    std::string value;
    for (iterator->Seek(keys::table(keys::Table::kByAge)); iterator->Valid(); iterator->Next()) {
      const auto row_key = keys::parse_by_age(iterator->key().ToStringView());
      if (!row_key) return make_error(Code::kCorrupt, "index: a key of the age table has a wrong length");
      const rocksdb::Status got = db_->Get(read, keys::checkpoint(*row_key), &value);
      if (got.IsNotFound()) {
        return make_error(Code::kCorrupt, "index: the age table knows " + to_string(row_key->checkpoint) +
                                              ", the checkpoint table does not");
      }
      if (!got.ok()) return index_error(got, "read index");
      const auto row = decode_row(*row_key, value);
      if (!row) return row.error();
      if (!visit(*row)) return ok_status();
    }
    return end_of(*iterator);
  }

  Result<std::uint64_t> row_count() override { return row_count_.load(); }

  Status put_withdrawn(const ProgramKey& program, const Version& up_to, std::uint64_t at_us) override {
    const std::lock_guard<std::mutex> lock(write_mutex_);
    rocksdb::WriteBatch batch;
    batch.Put(keys::program(program), be64(up_to.incarnation) + be64(up_to.seq) + be64(at_us));
    if (Status status = raise_incarnation(batch, program.ecu_mac, up_to.incarnation); !status.ok()) {
      return status;
    }
    return write(batch);
  }

  Result<std::optional<ProgramRow>> program(const ProgramKey& program) override {
    const auto text = get(keys::program(program));
    if (!text) return text.error();
    if (!*text) return std::optional<ProgramRow>();
    std::string_view value = **text;
    if (value.size() != 24)
      return make_error(Code::kCorrupt, "index: the row of program " + to_string(program));
    ProgramRow row;
    row.program = program;
    Version withdrawn;
    withdrawn.incarnation = keys::take_be(value, 8);
    withdrawn.seq = keys::take_be(value, 8);
    row.withdrawn = withdrawn;
    row.withdrawn_at_us = keys::take_be(value, 8);
    return std::optional<ProgramRow>(row);
  }

  Status put_incarnation(EcuMac ecu_mac, Incarnation incarnation) override {
    return put_incarnations({SessionId{ecu_mac, incarnation}});
  }

  Status put_incarnations(const std::vector<SessionId>& sessions) override {
    const std::lock_guard<std::mutex> lock(write_mutex_);
    rocksdb::WriteBatch batch;
    std::map<EcuMac, Incarnation> largest;
    for (const SessionId& session : sessions) {
      Incarnation& incarnation = largest[session.ecu_mac];
      incarnation = std::max(incarnation, session.incarnation);
    }
    for (const auto& [ecu_mac, incarnation] : largest) {
      if (Status status = raise_incarnation(batch, ecu_mac, incarnation); !status.ok()) return status;
    }
    // Given before anything is stored under it, so nothing else would remember it after a power cut.
    return batch.Count() == 0 ? ok_status() : write(batch, kSpaceReserveBytes, true);
  }

  Result<Incarnation> max_incarnation(EcuMac ecu_mac) override {
    const auto text = get(keys::ecu(ecu_mac));
    if (!text) return text.error();
    if (!*text) return Incarnation{0};
    return parse_be64(**text, "an incarnation");
  }

  Status scan_incarnations(
      const std::function<bool(EcuMac ecu_mac, Incarnation incarnation)>& visit) override {
    const std::string upper = keys::after_table(keys::Table::kEcus);
    BoundedIterator iterator(*db_, upper, nullptr);
    for (iterator->Seek(keys::table(keys::Table::kEcus)); iterator->Valid(); iterator->Next()) {
      std::string_view key = iterator->key().ToStringView();
      if (key.size() != 7)
        return make_error(Code::kCorrupt, "index: a key of the ECU table has a wrong length");
      key.remove_prefix(1);
      const EcuMac ecu_mac{keys::take_be(key, 6)};
      const auto incarnation = parse_be64(iterator->value().ToStringView(), "an incarnation");
      if (!incarnation) return incarnation.error();
      if (!visit(ecu_mac, *incarnation)) return ok_status();
    }
    return end_of(*iterator);
  }

  Result<std::string> fleet_id() override {
    const auto text = get(keys::meta(kFleetKey));
    if (!text) return text.error();
    return *text ? **text : std::string();
  }

  Status put_fleet_id(const std::string& fleet_id) override {
    const std::lock_guard<std::mutex> lock(write_mutex_);
    rocksdb::WriteBatch batch;
    batch.Put(keys::meta(kFleetKey), fleet_id);
    return write(batch);
  }

 private:
  static std::string first_key(std::optional<EcuMac> ecu_mac) {
    return ecu_mac ? keys::ecu_rows(*ecu_mac) : keys::table(keys::Table::kCheckpoints);
  }
  static std::string last_key(std::optional<EcuMac> ecu_mac) {
    return ecu_mac ? keys::after_ecu_rows(*ecu_mac) : keys::after_table(keys::Table::kCheckpoints);
  }

  // An iterator that ends before `upper`; ReadOptions keep a pointer to a Slice, so both live here.
  class BoundedIterator {
   public:
    BoundedIterator(rocksdb::DB& db, const std::string& upper, const rocksdb::Snapshot* snapshot)
        : upper_(upper), bound_(upper_) {
      rocksdb::ReadOptions read;
      read.iterate_upper_bound = &bound_;
      read.snapshot = snapshot;
      iterator_.reset(db.NewIterator(read));
    }
    rocksdb::Iterator& operator*() { return *iterator_; }
    rocksdb::Iterator* operator->() { return iterator_.get(); }

   private:
    const std::string upper_;
    const rocksdb::Slice bound_;
    std::unique_ptr<rocksdb::Iterator> iterator_;
  };

  static Result<IndexRow> row_at(const rocksdb::Iterator& iterator) {
    const auto row_key = keys::parse_checkpoint(iterator.key().ToStringView());
    if (!row_key)
      return make_error(Code::kCorrupt, "index: a key of the checkpoint table has a wrong length");
    return decode_row(*row_key, iterator.value().ToStringView());
  }

  // An iterator also stops being valid when it cannot read on.
  static Status end_of(const rocksdb::Iterator& iterator) {
    const rocksdb::Status status = iterator.status();
    return status.ok() ? ok_status() : index_error(status, "read index");
  }

  Status scan_rows(const std::string& lower, const std::string& upper,
                   const std::function<bool(const IndexRow&)>& visit) {
    BoundedIterator iterator(*db_, upper, nullptr);
    for (iterator->Seek(lower); iterator->Valid(); iterator->Next()) {
      const auto row = row_at(*iterator);
      if (!row) return row.error();
      if (!visit(*row)) return ok_status();
    }
    return end_of(*iterator);
  }

  Result<std::optional<std::string>> get(const std::string& key) {
    std::string value;
    const rocksdb::Status status = db_->Get(rocksdb::ReadOptions(), key, &value);
    if (status.IsNotFound()) return std::optional<std::string>();
    if (!status.ok()) return index_error(status, "read index");
    return std::optional<std::string>(std::move(value));
  }

  // Of the row as it is now, with what the batch being made has changed.
  struct Known {
    std::uint64_t stored_at_us = 0;
    bool pinned = false;
  };
  Result<std::optional<Known>> known_of(const keys::RowKey& row_key, const std::string& key,
                                        const std::unordered_map<std::string, Known>& written) {
    if (const auto at = written.find(key); at != written.end()) return std::optional<Known>(at->second);
    const auto value = get(key);
    if (!value) return value.error();
    if (!*value) return std::optional<Known>();
    const auto row = decode_row(row_key, **value);
    if (!row) return row.error();
    return std::optional<Known>(Known{row->stored_at_us, row->pinned});
  }

  Status raise_incarnation(rocksdb::WriteBatch& batch, EcuMac ecu_mac, Incarnation incarnation) {
    const auto largest = max_incarnation(ecu_mac);
    if (!largest) return largest.error();
    if (incarnation > *largest) batch.Put(keys::ecu(ecu_mac), be64(incarnation));
    return ok_status();
  }

  // The count goes in the same batch as the rows, so they agree after any death.
  Status write_rows(rocksdb::WriteBatch& batch, std::uint64_t row_count, std::uint64_t reserve_bytes) {
    if (batch.Count() == 0) return ok_status();
    if (row_count != row_count_) batch.Put(keys::meta(kRowCountKey), be64(row_count));
    if (Status status = write(batch, reserve_bytes); !status.ok()) return status;
    row_count_ = row_count;
    return ok_status();
  }

  // Mostly without sync: what the host loses comes back from the store.
  Status write(rocksdb::WriteBatch& batch, std::uint64_t reserve_bytes = kSpaceReserveBytes,
               bool sync = false) {
    struct statvfs fs {};
    if (::statvfs(directory_.c_str(), &fs) != 0) return error_from_errno(errno, "statvfs " + directory_);
    const std::uint64_t free_bytes = std::uint64_t{fs.f_bavail} * fs.f_frsize;
    if (free_bytes < reserve_bytes) {
      return make_error(Code::kNoSpace, "index " + directory_ + ": " + std::to_string(free_bytes) +
                                            " bytes are free, the index needs " +
                                            std::to_string(reserve_bytes));
    }
    rocksdb::WriteOptions options;
    options.sync = sync;
    const rocksdb::Status status = db_->Write(options, &batch);
    return status.ok() ? ok_status() : index_error(status, "write index " + directory_);
  }

  const std::string directory_;
  std::unique_ptr<rocksdb::DB> db_;
  std::mutex write_mutex_;  // Row count, ages and incarnations are read, then written.
  std::atomic<std::uint64_t> row_count_;
};

// What RocksDB makes before CURRENT; a death in between leaves these, and it starts again over them.
bool is_left_by_interrupted_creation(std::string_view name) {
  const auto starts = [&](std::string_view prefix) { return name.substr(0, prefix.size()) == prefix; };
  return name == "LOCK" || name == "IDENTITY" || starts("LOG") || starts("MANIFEST-") ||
         (name.size() > 6 && name.substr(name.size() - 6) == ".dbtmp");
}

// What only a database that was once whole has: 000007.sst, 000004.log, OPTIONS-000009.
bool is_of_a_database(std::string_view name) {
  if (name.substr(0, 8) == "OPTIONS-") return true;
  const std::size_t digits = name.find_first_not_of("0123456789");
  return digits != 0 && digits != name.npos &&
         (name.substr(digits) == ".sst" || name.substr(digits) == ".log");
}

// RocksDB would make its database among anybody's files; we do so in an empty directory only.
Status check_directory(const std::string& directory) {
  namespace fs = std::filesystem;
  std::error_code error;
  fs::create_directories(directory, error);
  const fs::directory_iterator entries =
      error ? fs::directory_iterator() : fs::directory_iterator(directory, error);
  if (error) return error_from_errno(error.value(), "open index " + directory);
  if (fs::exists(directory + "/CURRENT", error)) return ok_status();
  std::string damaged;
  for (const fs::directory_entry& entry : entries) {
    const std::string name = entry.path().filename().string();
    if (is_of_a_database(name)) {
      damaged = name;
    } else if (name != "lost+found" && !is_left_by_interrupted_creation(name)) {
      return make_error(Code::kForeign, "index " + directory + " holds '" + name +
                                            "' and is no index; an index is made only in an empty directory");
    }
  }
  if (damaged.empty()) return ok_status();
  return make_error(Code::kCorrupt, "index " + directory + " has '" + damaged +
                                        "' but no CURRENT; move it away, it is rebuilt from the store");
}

// The only sign of a lock held by somebody is RocksDB's text.
bool is_lock_held(const rocksdb::Status& status) {
  const std::string text = status.ToString();
  return status.IsIOError() &&
         (text.find("While lock file") != text.npos || text.find("lock hold by") != text.npos);
}

// Checks that the database is ours, or makes it so when it is new, and returns the count of rows.
Result<std::uint64_t> read_meta(rocksdb::DB& db, const std::string& directory) {
  std::string value;
  rocksdb::Status status = db.Get(rocksdb::ReadOptions(), keys::meta(kFormatKey), &value);
  if (status.IsNotFound()) {
    const std::unique_ptr<rocksdb::Iterator> any(db.NewIterator(rocksdb::ReadOptions()));
    any->SeekToFirst();
    if (any->Valid())
      return make_error(Code::kForeign, directory + " is a RocksDB database, but no index of ours");
    status = any->status();
    rocksdb::WriteBatch batch;
    batch.Put(keys::meta(kFormatKey), be64(kIndexFormatVersion));
    batch.Put(keys::meta(kRowCountKey), be64(0));
    if (status.ok()) status = db.Write(rocksdb::WriteOptions(), &batch);
    if (!status.ok()) return index_error(status, "make index " + directory);
    return std::uint64_t{0};
  }
  if (!status.ok()) return index_error(status, "open index " + directory);
  const auto version = parse_be64(value, "the format version");
  if (!version) return version;
  if (*version > kIndexFormatVersion) {
    return make_error(Code::kUnsupported, "index " + directory + " has format " + std::to_string(*version) +
                                              "; this program knows up to " +
                                              std::to_string(kIndexFormatVersion));
  }
  if (*version < kIndexFormatVersion) {
    return make_error(Code::kCorrupt, "index " + directory + " has the older format " +
                                          std::to_string(*version) + ", which is not read any more");
  }
  status = db.Get(rocksdb::ReadOptions(), keys::meta(kRowCountKey), &value);
  if (!status.ok()) return make_error(Code::kCorrupt, "index " + directory + " has no row count");
  return parse_be64(value, "the row count");
}

}  // namespace

Result<std::unique_ptr<CheckpointIndex>> open_rocksdb_index(const std::string& directory) {
  if (Status status = check_directory(directory); !status.ok()) return status.error();
  rocksdb::DB* opened = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(make_options(), directory, &opened);
  std::unique_ptr<rocksdb::DB> db(opened);
  if (is_lock_held(status)) {
    return make_error(Code::kAlreadyExists, "index " + directory + " is open in another process");
  }
  if (!status.ok()) return index_error(status, "open index " + directory);
  const auto row_count = read_meta(*db, directory);
  if (!row_count) return row_count.error();
  return std::unique_ptr<CheckpointIndex>(
      std::make_unique<RocksdbIndex>(directory, std::move(db), *row_count));
}

}  // namespace cms::storage
