#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <new>

#include "flatbuffers/flatbuffers.h"
#include "rocksdb/db.h"
#include "storage/contract/index_contract.h"
#include "storage/contract/samples.h"
#include "storage/rocksdb/keys.h"
#include "storage/rocksdb/row_codec.h"

namespace cms::storage::testing {
namespace {

namespace fs = std::filesystem;

std::unique_ptr<CheckpointIndex> open_at_path(const std::string& path) {
  auto index = open_rocksdb_index(path);
  EXPECT_TRUE(index.ok()) << index.error().message();
  return index ? std::move(*index) : nullptr;
}

class RocksdbFixture final : public IndexFixture {
 public:
  CheckpointIndex& index() override { return *index_; }
  CheckpointIndex& reopened() override {
    index_.reset();
    index_ = open_at_path(dir_.path() + "/index");
    return *index_;
  }

 private:
  TempDir dir_;
  std::unique_ptr<CheckpointIndex> index_ = open_at_path(dir_.path() + "/index");
};

INSTANTIATE_TEST_SUITE_P(Rocksdb, CheckpointIndexContract,
                         ::testing::Values(+[]() -> std::unique_ptr<IndexFixture> {
                           return std::make_unique<RocksdbFixture>();
                         }));

IndexRow make_row(std::uint64_t program_id, std::uint64_t seq) {
  IndexRow row;
  row.name = make_name(program_id, seq, 100);
  row.stored_at_us = 1000 + seq;
  return row;
}

Code open_code(const std::string& path) {
  const auto index = open_rocksdb_index(path);
  return index ? Code::kOk : index.error().code;
}

// Written out by hand: an index of today is read by later programs.
TEST(IndexKeys, AreTheDocumentedBytes) {
  keys::RowKey row;
  row.checkpoint = CheckpointId{{EcuMac{0x0200000000ab}, 7}, {0x10, 2}};
  row.owner_epoch = 1;
  row.uid = 3;
  const auto text = [](std::initializer_list<int> bytes) {
    std::string out;
    for (const int byte : bytes) out += static_cast<char>(byte);
    return out;
  };
  const std::string ones(7, '\xff');
  const std::string zeros(7, '\0');
  const std::string body = text({2, 0, 0, 0, 0, 0xab}) + zeros + text({7}) + ones + text({0xfe}) + ones +
                           text({0xef}) + ones + text({0xfd}) + zeros + text({3});
  EXPECT_EQ(keys::checkpoint(row), text({2}) + body);
  EXPECT_EQ(keys::by_age(5, row), text({3}) + zeros + text({5}) + body);
  EXPECT_EQ(keys::ecu(row.checkpoint.program.ecu_mac), text({5, 2, 0, 0, 0, 0, 0xab}));
  EXPECT_EQ(keys::meta("x"), text({1, 'x'}));
  EXPECT_TRUE(keys::parse_checkpoint(keys::checkpoint(row))->checkpoint == row.checkpoint);
  EXPECT_FALSE(keys::parse_checkpoint(keys::checkpoint(row) + "x").has_value());
  EXPECT_FALSE(keys::parse_checkpoint(keys::by_age(5, row)).has_value());
}

// A row that was damaged on its disk, yet is a FlatBuffer still.
TEST(RowCodec, RowsBeyondTheLimitsOfMessagesAreCorrupt) {
  const auto decoded = [](const IndexRow& row) {
    flatbuffers::FlatBufferBuilder builder;
    encode_row(row, builder);
    return decode_row(keys::row_key_of(row.name),
                      {reinterpret_cast<const char*>(builder.GetBufferPointer()), builder.GetSize()});
  };
  const auto expect_corrupt = [&](const IndexRow& row, const std::string& field) {
    const auto result = decoded(row);
    ASSERT_FALSE(result.ok()) << field;
    EXPECT_EQ(result.error().code, Code::kCorrupt);
    EXPECT_NE(result.error().context.find(field), std::string::npos) << result.error().context;
  };
  IndexRow row = make_row(1, 1);
  row.program_name = std::string(wire::kNameBytesMax, 'n');
  row.name.size_bytes = wire::kBlobSizeBytesMax;
  EXPECT_TRUE(decoded(row).ok());
  row.program_name += 'n';
  expect_corrupt(row, "program_name");
  row.program_name = "\033[2J";
  expect_corrupt(row, "program_name");
  row.program_name = "latin-1 \xe4";
  expect_corrupt(row, "program_name");
  row.program_name.clear();
  row.name.size_bytes += 1;
  expect_corrupt(row, "size_bytes");
  const auto nothing = decode_row(keys::row_key_of(row.name), std::string_view());
  ASSERT_FALSE(nothing.ok());
  EXPECT_EQ(nothing.error().code, Code::kCorrupt);
}

TEST(RocksdbIndex, IsExactAfterBeingKilledAtAnyMoment) {
  const TempDir dir;
  void* shared = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(shared, MAP_FAILED);
  auto* acknowledged = new (shared) std::atomic<std::uint64_t>(0);
  const pid_t child = ::fork();
  if (child == 0) {
    const auto index = open_at_path(dir.path());
    for (std::uint64_t seq = 1;; ++seq) {
      if (!index->put({make_row(1, seq), make_row(2, seq)}).ok()) ::_exit(1);
      if (seq % 3 == 0 && !index->remove({make_row(2, seq - 1).name}).ok()) ::_exit(1);
      *acknowledged = seq;
    }
  }
  while (acknowledged->load() < 2000) ::sched_yield();
  ASSERT_EQ(::kill(child, SIGKILL), 0);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(was_killed(status));
  const auto index = open_at_path(dir.path());
  std::uint64_t seen = 0;
  ASSERT_TRUE(index->scan(std::nullopt, std::nullopt, [&](const IndexRow&) { return ++seen, true; }).ok());
  EXPECT_EQ(*index->row_count(), seen);
  EXPECT_GE((*index->newest(make_row(1, 1).name.checkpoint.program))->name.checkpoint.version.seq,
            acknowledged->load());
  std::uint64_t aged = 0;
  ASSERT_TRUE(index->scan_by_age([&](const IndexRow&) { return ++aged, true; }).ok());
  EXPECT_EQ(aged, seen);
  ::munmap(shared, 4096);
}

TEST(RocksdbIndex, SaysWhoIsInTheWay) {
  const TempDir dir;
  const auto index = open_at_path(dir.path());
  EXPECT_EQ(open_code(dir.path()), Code::kAlreadyExists);
  EXPECT_TRUE(exited_well(run_in_child([&] {
    const auto second = open_rocksdb_index(dir.path());
    ASSERT_FALSE(second.ok());
    EXPECT_EQ(second.error().code, Code::kAlreadyExists) << second.error().message();
    EXPECT_NE(second.error().context.find(dir.path()), std::string::npos) << second.error().message();
  })));
}

TEST(RocksdbIndex, RefusesForeignDirectoriesAndDatabases) {
  const TempDir dir;
  std::ofstream(dir.path() + "/holiday.jpg") << "x";
  EXPECT_EQ(open_code(dir.path()), Code::kForeign);
  EXPECT_EQ(std::distance(fs::directory_iterator(dir.path()), fs::directory_iterator()), 1) << "was touched";
  const std::string theirs = dir.path() + "/theirs";
  {
    rocksdb::Options options;
    options.create_if_missing = true;
    rocksdb::DB* db = nullptr;
    ASSERT_TRUE(rocksdb::DB::Open(options, theirs, &db).ok());
    ASSERT_TRUE(db->Put(rocksdb::WriteOptions(), "a", "b").ok());
    delete db;
  }
  EXPECT_EQ(open_code(theirs), Code::kForeign);
  EXPECT_EQ(open_code(dir.path() + "/holiday.jpg"), Code::kNotFound) << "a file is no directory";
}

TEST(RocksdbIndex, RefusesANewerFormatNamingBoth) {
  const TempDir dir;
  (void)open_at_path(dir.path());
  {
    rocksdb::DB* db = nullptr;
    ASSERT_TRUE(rocksdb::DB::Open(rocksdb::Options(), dir.path(), &db).ok());
    std::string version;
    keys::append_be(version, 2, 8);
    ASSERT_TRUE(db->Put(rocksdb::WriteOptions(), keys::meta("format_version"), version).ok());
    delete db;
  }
  const auto index = open_rocksdb_index(dir.path());
  ASSERT_FALSE(index.ok());
  EXPECT_EQ(index.error().code, Code::kUnsupported);
  EXPECT_NE(index.error().context.find("format 2"), std::string::npos) << index.error().message();
  EXPECT_NE(index.error().context.find("up to 1"), std::string::npos) << index.error().message();
}

TEST(RocksdbIndex, AnOlderFormatIsToBeRebuilt) {
  const TempDir dir;
  (void)open_at_path(dir.path());
  {
    rocksdb::DB* db = nullptr;
    ASSERT_TRUE(rocksdb::DB::Open(rocksdb::Options(), dir.path(), &db).ok());
    std::string version;
    keys::append_be(version, 0, 8);
    ASSERT_TRUE(db->Put(rocksdb::WriteOptions(), keys::meta("format_version"), version).ok());
    delete db;
  }
  const auto index = open_rocksdb_index(dir.path());
  ASSERT_FALSE(index.ok());
  EXPECT_EQ(index.error().code, Code::kCorrupt);
  EXPECT_NE(index.error().context.find("older format 0"), std::string::npos) << index.error().message();
}

TEST(RocksdbIndex, StartsAgainOverAnInterruptedCreationButSaysCorruptForALostOne) {
  const TempDir dir;
  for (const char* left : {"LOCK", "LOG", "IDENTITY", "000001.dbtmp"})
    std::ofstream(dir.path() + "/" + left) << "";
  ASSERT_TRUE(open_at_path(dir.path())->put({make_row(1, 1)}).ok());
  EXPECT_EQ(*open_at_path(dir.path())->row_count(), 1U);
  fs::remove(dir.path() + "/CURRENT");
  EXPECT_EQ(open_code(dir.path()), Code::kCorrupt);
}

TEST(RocksdbIndex, DamagedRowsAndFilesAreCorrupt) {
  const TempDir dir;
  {
    const auto index = open_at_path(dir.path());
    ASSERT_TRUE(index->put({make_row(1, 1), make_row(2, 1)}).ok());
  }
  {
    rocksdb::DB* db = nullptr;
    ASSERT_TRUE(rocksdb::DB::Open(rocksdb::Options(), dir.path(), &db).ok());
    const std::string key = keys::checkpoint(keys::row_key_of(make_row(1, 1).name));
    ASSERT_TRUE(db->Put(rocksdb::WriteOptions(), key, "no FlatBuffer").ok());
    delete db;
  }
  {
    const auto index = open_at_path(dir.path());
    const auto row = index->newest(make_row(1, 1).name.checkpoint.program);
    ASSERT_FALSE(row.ok());
    EXPECT_EQ(row.error().code, Code::kCorrupt);
    EXPECT_TRUE(index->newest(make_row(2, 1).name.checkpoint.program).ok());
  }
  for (const auto& entry : fs::directory_iterator(dir.path())) {
    if (entry.path().filename().string().rfind("MANIFEST-", 0) != 0) continue;
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(20);
    file.put('\x55').put('\x55').put('\x55');
  }
  EXPECT_EQ(open_code(dir.path()), Code::kCorrupt);
}

TEST(RocksdbIndex, FullDiskIsNoSpaceAndGoesOnWhenThereIsRoomAgain) {
  const TempDir dir;
  const int mounted = run_in_child([&] {
    if (!enter_private_mounts()) ::_exit(77);
    ASSERT_EQ(::mount("none", dir.path().c_str(), "tmpfs", 0, "size=128m"), 0);
    const auto index = open_at_path(dir.path() + "/index");
    ASSERT_TRUE(index->put({make_row(1, 1)}).ok());
    {
      std::ofstream filler(dir.path() + "/filler", std::ios::binary);
      const std::string block(64 * 1024, 'f');
      while (filler.write(block.data(), static_cast<std::streamsize>(block.size())).flush()) {
      }
    }
    const Status status = index->put({make_row(1, 2)});
    EXPECT_EQ(status.code(), Code::kNoSpace) << status.error().message();
    EXPECT_TRUE(index->newest(make_row(1, 1).name.checkpoint.program)->has_value()) << "it is still read";
    EXPECT_EQ(*index->row_count(), 1U);
    fs::remove(dir.path() + "/filler");
    const Status again = index->put({make_row(2, 1)});
    EXPECT_TRUE(again.ok()) << again.error().message();
    EXPECT_EQ(*index->row_count(), 2U);
  });
  if (WIFEXITED(mounted) && WEXITSTATUS(mounted) == 77) {
    // No mounts here: at least a place that cannot be written is told apart from a damaged one.
    EXPECT_EQ(open_code("/proc/cms-index"), Code::kNotFound);
  } else {
    EXPECT_TRUE(exited_well(mounted));
  }
}

}  // namespace
}  // namespace cms::storage::testing
