#include "storage/directory/directory_store.h"

#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

#include "storage/blob_file.h"
#include "storage/contract/blob_store_contract.h"
#include "storage/contract/samples.h"
#include "storage/store_format.h"

namespace cms::storage::testing {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kIncarnation = 0xabc;

std::unique_ptr<BlobStore> open_at_path(const std::string& path, std::uint64_t incarnation = kIncarnation) {
  auto store = make_directory_store(path, "a", incarnation);
  const Status status = store->open_store();
  EXPECT_TRUE(status.ok()) << status.error().message();
  return store;
}

std::string path_of(const std::string& directory, const BlobName& name) {
  const std::string shard = to_string(Id128{shard_of(name.lineage), 0}).substr(13, 3);
  return directory + "/d/" + shard + "/" + to_file_name(name);
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void write_file(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
}

class DirectoryFixture final : public StoreFixture {
 public:
  BlobStore& store() override { return *store_; }
  BlobStore& reopened() override {
    store_.reset();
    store_ = open_at_path(dir_.path(), kIncarnation + 1);
    return *store_;
  }
  void damage_chunk(const BlobName& name, std::uint64_t chunk_index) override {
    const std::string path = path_of(dir_.path(), name);
    std::string bytes = read_file(path);
    bytes.at(kBlobHeaderBytes + chunk_index * kChunkBytes + 5) ^= 1;
    write_file(path, bytes);
  }

 private:
  TempDir dir_;
  std::unique_ptr<BlobStore> store_ = open_at_path(dir_.path());
};

INSTANTIATE_TEST_SUITE_P(Directory, BlobStoreContract,
                         ::testing::Values(+[]() -> std::unique_ptr<StoreFixture> {
                           return std::make_unique<DirectoryFixture>();
                         }));

Status open_status(const std::string& path) {
  return make_directory_store(path, "a", kIncarnation)->open_store();
}

TEST(DirectoryStore, InitialisesAnEmptyDirectoryWithTheDocumentedLayout) {
  const TempDir dir;
  const auto store = open_at_path(dir.path());
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(dir.path())) names.insert(entry.path().filename());
  EXPECT_EQ(names, (std::set<std::string>{"FORMAT", "claims", "d", "nodes", "quarantine", "tmp"}));
  EXPECT_EQ(std::distance(fs::directory_iterator(dir.path() + "/d"), fs::directory_iterator()), 4096);
  EXPECT_TRUE(fs::is_directory(dir.path() + "/d/000"));
  EXPECT_TRUE(fs::is_directory(dir.path() + "/d/fff"));
  EXPECT_TRUE(fs::is_directory(dir.path() + "/tmp/a.0000000000000abc"));
  EXPECT_NE(read_file(dir.path() + "/FORMAT").find("layout_version = 1\n"), std::string::npos);
  EXPECT_NE(read_file(dir.path() + "/FORMAT").find("fleet_id = \"" + store->fleet_id() + "\""),
            std::string::npos);
}

TEST(DirectoryStore, RefusesWhatIsNotThereOrNotOurs) {
  const TempDir dir;
  EXPECT_EQ(open_status(dir.path() + "/missing").code(), Code::kNotFound);
  write_file(dir.path() + "/holiday.jpg", "x");
  const Status foreign = open_status(dir.path());
  EXPECT_EQ(foreign.code(), Code::kForeign);
  EXPECT_NE(foreign.error().context.find("holiday.jpg"), std::string::npos) << foreign.error().message();
  EXPECT_EQ(std::distance(fs::directory_iterator(dir.path()), fs::directory_iterator()), 1) << "was touched";
  EXPECT_EQ(open_status(dir.path() + "/holiday.jpg").code(), Code::kNotFound) << "a file is no place";
}

TEST(DirectoryStore, CompletesAnInterruptedInitialisationButNotAStoreThatLostItsFormat) {
  const TempDir dir;
  fs::create_directories(dir.path() + "/d/000");
  fs::create_directories(dir.path() + "/tmp/a.0000000000000001");
  fs::create_directories(dir.path() + "/lost+found");
  write_file(dir.path() + "/tmp/a.0000000000000001/FORMAT.0000000000000001", "half");
  const Sample sample = make_sample(1, 1, 10);
  {
    const auto store = open_at_path(dir.path());
    ASSERT_TRUE(publish(*store, sample).ok());
    EXPECT_FALSE(fs::exists(dir.path() + "/tmp/a.0000000000000001"));
  }
  fs::remove(dir.path() + "/FORMAT");
  const Status lost = open_status(dir.path());
  EXPECT_EQ(lost.code(), Code::kForeign);
  EXPECT_NE(lost.error().context.find("'d/"), std::string::npos) << lost.error().message();
  EXPECT_TRUE(fs::exists(path_of(dir.path(), sample.name)));
}

TEST(DirectoryStore, RefusesFormatsItCannotRead) {
  const TempDir dir;
  (void)open_at_path(dir.path());
  const std::string good = read_file(dir.path() + "/FORMAT");
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    text.replace(text.find(from), from.size(), to);
    write_file(dir.path() + "/FORMAT", text);
    return open_status(dir.path());
  };
  const Status newer = with("layout_version = 1", "layout_version = 2");
  EXPECT_EQ(newer.code(), Code::kUnsupported);
  EXPECT_NE(newer.error().context.find("layout version 2"), std::string::npos) << newer.error().message();
  EXPECT_NE(newer.error().context.find("up to 1"), std::string::npos) << newer.error().message();
  EXPECT_EQ(with("shard_count = 4096", "shard_count = 256").code(), Code::kCorrupt);
  EXPECT_EQ(with("fleet_id = \"", "fleet_id = \"x").code(), Code::kCorrupt);
  EXPECT_EQ(with("layout_version", "layout").code(), Code::kCorrupt);
  EXPECT_EQ(with("shard_count = 4096", std::string(5000, '#')).code(), Code::kCorrupt);
  write_file(dir.path() + "/FORMAT", "");
  EXPECT_EQ(open_status(dir.path()).code(), Code::kCorrupt);
  write_file(dir.path() + "/FORMAT", good + "later_key = \"of a compatible writer\"\n");
  EXPECT_TRUE(open_status(dir.path()).ok());
}

TEST(DirectoryStore, InitialisersAtTheSameTimeAgreeOnOneFleet) {
  for (int round = 0; round < 5; ++round) {
    const TempDir dir;
    constexpr int kProcesses = 4;
    int gate[2];
    ASSERT_EQ(::pipe(gate), 0);
    std::vector<pid_t> children;
    for (int i = 0; i < kProcesses; ++i) {
      const pid_t child = ::fork();
      if (child == 0) {
        ::close(gate[1]);
        char byte = 0;
        (void)!::read(gate[0], &byte, 1);  // returns for all at once, when the parent closes its end
        auto store = make_directory_store(dir.path(), "node" + std::to_string(i), 1);
        if (!store->open_store().ok()) ::_exit(1);
        write_file(dir.path() + "/claims/" + std::to_string(i), store->fleet_id());
        ::_exit(0);
      }
      children.push_back(child);
    }
    ::close(gate[0]);
    ::close(gate[1]);
    for (const pid_t child : children) {
      int status = 0;
      ASSERT_EQ(::waitpid(child, &status, 0), child);
      EXPECT_TRUE(exited_well(status));
    }
    const std::string fleet_id = open_at_path(dir.path())->fleet_id();
    for (int i = 0; i < kProcesses; ++i) {
      EXPECT_EQ(read_file(dir.path() + "/claims/" + std::to_string(i)), fleet_id);
    }
  }
}

TEST(DirectoryStore, SweepsOnlyItsOwnDeadIncarnations) {
  const TempDir dir;
  (void)open_at_path(dir.path());
  const auto put = [&](const std::string& name) {
    fs::create_directories(dir.path() + "/tmp/" + name);
    write_file(dir.path() + "/tmp/" + name + "/0000000000000000.part", "torn");
    return dir.path() + "/tmp/" + name;
  };
  const std::string dead = put("a.0000000000000001");
  const std::string other_node = put("b.0000000000000001");
  const std::string longer_node = put("a.b.0000000000000001");
  const std::string unknown = put("a.x");
  const auto store = open_at_path(dir.path());
  EXPECT_FALSE(fs::exists(dead));
  for (const std::string& kept : {other_node, longer_node, unknown}) EXPECT_TRUE(fs::exists(kept)) << kept;
  EXPECT_TRUE(store->open_store().ok());
}

TEST(DirectoryStore, LeavesNoPrivateDirectoryBehind) {
  const TempDir dir;
  {
    const auto store = open_at_path(dir.path());
    ASSERT_TRUE(publish(*store, make_sample(1, 1, 10)).ok());
    auto writer = store->create(make_name(2, 1, 10), make_manifest(make_name(2, 1, 10)));
    ASSERT_TRUE(writer.ok());
    EXPECT_FALSE(fs::is_empty(dir.path() + "/tmp/a.0000000000000abc"));
  }
  EXPECT_TRUE(fs::is_empty(dir.path() + "/tmp"));
}

TEST(DirectoryStore, CountsFilesThatAreNotItsOwnAndLeavesThem) {
  const TempDir dir;
  const auto store = open_at_path(dir.path());
  const Sample sample = make_sample(1, 1, 10);
  ASSERT_TRUE(publish(*store, sample).ok());
  const std::string shard = fs::path(path_of(dir.path(), sample.name)).parent_path();
  write_file(shard + "/notes.txt", "x");
  write_file(shard + "/" + to_file_name(sample.name) + ".bak", "x");
  fs::create_directory(shard + "/" + to_file_name(make_name(1, 2, 10)));
  const Sample elsewhere = make_sample(2, 1, 10);
  fs::copy(path_of(dir.path(), sample.name), shard + "/" + to_file_name(elsewhere.name));  // of another shard
  std::uint64_t unknown = 0;
  std::uint64_t seen = 0;
  ASSERT_TRUE(store
                  ->list(
                      shard_of(sample.name.lineage), [&](const StoredEntry&) { ++seen; }, &unknown)
                  .ok());
  EXPECT_EQ(seen, 1U);
  EXPECT_EQ(unknown, 4U);
  EXPECT_TRUE(fs::exists(shard + "/notes.txt"));
}

TEST(DirectoryStore, BlobCutAtAnyLengthOrExtendedIsCorrupt) {
  const TempDir dir;
  const auto store = open_at_path(dir.path());
  const Sample sample = make_sample(1, 1, 100);
  ASSERT_TRUE(publish(*store, sample).ok());
  const std::string path = path_of(dir.path(), sample.name);
  const std::string whole = read_file(path);
  for (std::size_t length = 0; length < whole.size(); ++length) {
    write_file(path, whole.substr(0, length));
    const auto reader = store->open(sample.name);
    ASSERT_FALSE(reader.ok()) << length;
    ASSERT_EQ(reader.error().code, Code::kCorrupt) << length;
  }
  write_file(path, whole + 'x');
  EXPECT_EQ(store->open(sample.name).error().code, Code::kCorrupt);
  write_file(path, whole);
  EXPECT_EQ(*read_back(*store, sample.name), sample.data);
}

TEST(DirectoryStore, NoFlippedBitIsEverReadAsGood) {
  const TempDir dir;
  const auto store = open_at_path(dir.path());
  const Sample sample = make_sample(1, 1, 100);
  ASSERT_TRUE(publish(*store, sample).ok());
  const std::string path = path_of(dir.path(), sample.name);
  const std::string whole = read_file(path);
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (const char bit : {char{1}, char{16}}) {
      std::string damaged = whole;
      damaged[at] = static_cast<char>(damaged[at] ^ bit);
      write_file(path, damaged);
      const auto data = read_back(*store, sample.name);
      ASSERT_FALSE(data.ok()) << "byte " << at;
      ASSERT_EQ(data.error().code, Code::kCorrupt) << "byte " << at << ": " << data.error().message();
    }
  }
}

TEST(DirectoryStore, BlobUnderTheNameOfAnotherIsCorrupt) {
  const TempDir dir;
  const auto store = open_at_path(dir.path());
  const Sample sample = make_sample(1, 1, 100);
  ASSERT_TRUE(publish(*store, sample).ok());
  std::vector<BlobName> wrong(6, sample.name);
  wrong[0].checkpoint.program.program_id = 2;
  wrong[1].checkpoint.version.seq = 2;
  wrong[2].checkpoint.version.incarnation = 1;
  wrong[3].owner_epoch = 1;
  wrong[4].uid = 1;
  wrong[5].kind = EntryKind::kTombstone;
  for (const BlobName& name : wrong) {
    fs::copy_file(path_of(dir.path(), sample.name), path_of(dir.path(), name));
    const auto reader = store->open(name);
    ASSERT_FALSE(reader.ok()) << to_file_name(name);
    EXPECT_EQ(reader.error().code, Code::kCorrupt);
    EXPECT_NE(reader.error().context.find(to_file_name(name)), std::string::npos) << reader.error().message();
  }
}

TEST(DirectoryStore, BlobOfANewerFormatIsUnsupportedNotCorrupt) {
  const TempDir dir;
  const auto store = open_at_path(dir.path());
  const Sample sample = make_sample(1, 1, 100);
  ASSERT_TRUE(publish(*store, sample).ok());
  const std::string path = path_of(dir.path(), sample.name);
  std::string bytes = read_file(path);
  bytes[8] = 2;  // format version, little-endian; then the digest over the first 48 bytes, big-endian
  const Digest digest = digest_of(bytes.data(), 48);
  for (std::size_t i = 0; i < 8; ++i) {
    bytes[48 + i] = static_cast<char>(digest.high >> (56 - 8 * i));
    bytes[56 + i] = static_cast<char>(digest.low >> (56 - 8 * i));
  }
  write_file(path, bytes);
  const auto reader = store->open(sample.name);
  ASSERT_FALSE(reader.ok());
  EXPECT_EQ(reader.error().code, Code::kUnsupported) << reader.error().message();
}

TEST(DirectoryStore, ReadsOnFromABlobThatIsRemovedMeanwhile) {
  const TempDir dir;
  const auto store = open_at_path(dir.path());
  const Sample sample = make_sample(1, 1, 2 * kChunkBytes);
  ASSERT_TRUE(publish(*store, sample).ok());
  const auto reader = store->open(sample.name);
  ASSERT_TRUE(reader.ok());
  ASSERT_TRUE(store->remove(sample.name).ok());
  Data chunk(kChunkBytes);
  EXPECT_TRUE((*reader)->read_chunk(1, chunk.data()).ok());
}

TEST(DirectoryStore, GroupsAreWholeOnADiskFileSystemToo) {
  // /var/tmp is on a disk by convention: there a group is made durable in another way than in memory.
  const TempDir dir("/var/tmp");
  const auto store = open_at_path(dir.path());
  std::vector<Sample> samples;
  for (std::uint64_t i = 0; i < 200; ++i) samples.push_back(make_sample(i, 1, 300 * i));
  std::vector<SmallBlob> blobs;
  for (const Sample& sample : samples) blobs.push_back(small_blob_of(sample));
  blobs[7] = blobs[6];  // one name twice
  const std::vector<Status> statuses = store->put_small(blobs);
  for (std::size_t i = 0; i < samples.size(); ++i) {
    EXPECT_EQ(statuses[i].code(), i == 7 ? Code::kAlreadyExists : Code::kOk) << i;
    if (i == 7) continue;
    EXPECT_EQ(*read_back(*store, samples[i].name), samples[i].data) << i;
  }
  EXPECT_TRUE(fs::is_empty(dir.path() + "/tmp/a.0000000000000abc"));
}

TEST(DirectoryStore, FourGibibytesOfZerosTakeOneManifest) {
  const TempDir dir;
  const auto store = open_at_path(dir.path());
  const std::uint64_t size = std::uint64_t{4} << 30;
  if (store->space()->free_bytes < size + (64U << 20)) {
    // Where there is no such room, create must say so: nothing is begun that could not be ended.
    const BlobName name = make_name(1, 1, size);
    EXPECT_EQ(store->create(name, make_manifest(name, wire::kChunkSizeBytesMax)).error().code,
              Code::kNoSpace);
    return;
  }
  const BlobName name = make_name(1, 1, size);
  auto writer = store->create(name, make_manifest(name, wire::kChunkSizeBytesMax));
  ASSERT_TRUE(writer.ok()) << writer.error().message();
  const Data zeros(wire::kChunkSizeBytesMax);
  const Digest digest = digest_of(zeros.data(), zeros.size());
  for (int i = 0; i < 1024; ++i) ASSERT_TRUE((*writer)->append(zeros.data(), zeros.size(), digest).ok());
  ASSERT_TRUE((*writer)->publish().ok());
  EXPECT_LT(fs::file_size(path_of(dir.path(), name)), 32U * 1024);
  const auto reader = store->open(name);
  ASSERT_TRUE(reader.ok()) << reader.error().message();
  Data chunk(wire::kChunkSizeBytesMax, 0xee);
  ASSERT_TRUE((*reader)->read_chunk(1023, chunk.data()).ok());
  EXPECT_EQ(chunk, zeros);
}

TEST(DirectoryStore, SaysUnavailableWhileItsDirectoryIsGoneAndWorksAgainAfterOpenStore) {
  const TempDir dir;
  const std::string path = dir.path() + "/store";
  const std::string away = dir.path() + "/away";
  fs::create_directory(path);
  const auto store = open_at_path(path);
  const Sample sample = make_sample(1, 1, 100);
  ASSERT_TRUE(publish(*store, sample).ok());
  auto writer = store->create(make_name(2, 1, 10), make_manifest(make_name(2, 1, 10)));

  fs::rename(path, away);
  const auto expect_unavailable = [&] {
    EXPECT_EQ(publish(*store, make_sample(1, 2, 10)).code(), Code::kUnavailable);
    EXPECT_EQ(store->put_small({small_blob_of(sample)})[0].code(), Code::kUnavailable);
    EXPECT_EQ(store->open(sample.name).error().code, Code::kUnavailable) << "not: not found";
    EXPECT_EQ(store
                  ->list(
                      0, [](const StoredEntry&) {}, nullptr)
                  .code(),
              Code::kUnavailable);
    EXPECT_EQ(store->remove(sample.name).code(), Code::kUnavailable);
    EXPECT_EQ(store->probe().code(), Code::kUnavailable);
    EXPECT_EQ(store->space().error().code, Code::kUnavailable);
  };
  expect_unavailable();
  EXPECT_EQ(store->open_store().code(), Code::kNotFound);
  // The bare mount point shows through: an empty directory that must not become a second store.
  fs::create_directory(path);
  expect_unavailable();
  EXPECT_EQ(store->open_store().code(), Code::kUnavailable);
  EXPECT_TRUE(fs::is_empty(path));
  (void)open_at_path(path);  // somebody else made one there
  EXPECT_EQ(store->open_store().code(), Code::kForeign);

  fs::remove_all(path);
  fs::rename(away, path);
  ASSERT_TRUE(store->open_store().ok());
  EXPECT_EQ(*read_back(*store, sample.name), sample.data);
  EXPECT_TRUE(publish(*store, make_sample(1, 2, 10)).ok());
}

TEST(DirectoryStore, RecoversWhenItsPrivateDirectoryWasTakenAway) {
  const TempDir dir;
  const auto store = open_at_path(dir.path());
  fs::remove_all(dir.path() + "/tmp/a.0000000000000abc");
  EXPECT_EQ(publish(*store, make_sample(1, 1, 10)).code(), Code::kUnavailable);
  EXPECT_EQ(store->put_small({small_blob_of(make_sample(1, 1, 10))})[0].code(), Code::kUnavailable);
  ASSERT_TRUE(store->open_store().ok());
  EXPECT_TRUE(publish(*store, make_sample(1, 1, 10)).ok());
}

TEST(DirectoryStore, ReadOnlyStoreIsReadButTakesNothing) {
  const TempDir dir;
  const Sample sample = make_sample(1, 1, 100);
  ASSERT_TRUE(publish(*open_at_path(dir.path()), sample).ok());
  const auto expect_readable_only = [&](Code refusal) {
    const auto store = make_directory_store(dir.path(), "a", kIncarnation);
    EXPECT_EQ(store->open_store().code(), refusal);
    EXPECT_EQ(*read_back(*store, sample.name), sample.data);
    EXPECT_EQ(list_all(*store).size(), 1U);
    EXPECT_EQ(publish(*store, make_sample(1, 2, 10)).code(), refusal);
    EXPECT_EQ(store->put_small({small_blob_of(make_sample(1, 2, 10))})[0].code(), refusal);
    EXPECT_EQ(store->probe().code(), refusal);
  };
  const int mounted = run_in_child([&] {
    if (!enter_private_mounts()) ::_exit(77);
    ASSERT_EQ(::mount(dir.path().c_str(), dir.path().c_str(), nullptr, MS_BIND, nullptr), 0);
    ASSERT_EQ(::mount(nullptr, dir.path().c_str(), nullptr, MS_BIND | MS_REMOUNT | MS_RDONLY, nullptr), 0);
    expect_readable_only(Code::kReadOnly);
  });
  if (WIFEXITED(mounted) && WEXITSTATUS(mounted) == 77) {
    // A plain user who may not mount: for him permissions do the same.
    ASSERT_NE(::geteuid(), 0U) << "root without mounts: nothing here can make a directory read-only";
    fs::permissions(dir.path() + "/tmp", fs::perms::owner_read | fs::perms::owner_exec);
    expect_readable_only(Code::kPermission);
    fs::permissions(dir.path() + "/tmp", fs::perms::owner_all);
  } else {
    EXPECT_TRUE(exited_well(mounted));
  }
}

TEST(DirectoryStore, FullStoreRefusesCleanlyCanBeThinnedAndTakesAgain) {
  const TempDir dir;
  const int mounted = run_in_child([&] {
    if (!enter_private_mounts()) ::_exit(77);
    ASSERT_EQ(::mount("none", dir.path().c_str(), "tmpfs", 0, "size=24m"), 0);
    const auto store = open_at_path(dir.path());
    const std::size_t each = 64 * std::size_t{kChunkBytes};  // 4 MiB
    std::vector<Sample> kept;
    Status status;
    while (status.ok() && kept.size() < 10) {
      kept.push_back(make_sample(1, kept.size() + 1, each));
      status = publish(*store, kept.back());
    }
    EXPECT_EQ(status.code(), Code::kNoSpace);
    kept.pop_back();
    EXPECT_GE(kept.size(), 3U);
    // Also when space runs out under way: this one fits by what it says, another takes its room.
    const Sample late = make_sample(2, 1, store->space()->free_bytes - (2U << 20));
    auto writer = store->create(late.name, make_manifest(late.name));
    ASSERT_TRUE(writer.ok()) << writer.error().message();
    {
      std::ofstream filler(dir.path() + "/nodes/filler", std::ios::binary);
      const std::string block(1 << 20, 'f');
      while (filler.write(block.data(), static_cast<std::streamsize>(block.size())).flush()) {
      }
    }
    Status append;
    for (std::size_t at = 0; append.ok() && at + kChunkBytes <= late.data.size(); at += kChunkBytes) {
      append = (*writer)->append(late.data.data() + at, kChunkBytes,
                                 digest_of(late.data.data() + at, kChunkBytes));
    }
    EXPECT_EQ(append.code(), Code::kNoSpace);
    EXPECT_EQ((*writer)->publish().error().code, Code::kNoSpace);
    writer->reset();
    EXPECT_EQ(store->put_small({small_blob_of(make_sample(3, 1, 100))})[0].code(), Code::kNoSpace);
    EXPECT_EQ(list_all(*store).size(), kept.size());
    for (const Sample& sample : kept) EXPECT_EQ(*read_back(*store, sample.name), sample.data);
    // A new process on the full store: it may not even get its private directory, but can thin.
    const auto next = make_directory_store(dir.path(), "b", 7);
    (void)next->open_store();
    EXPECT_TRUE(next->remove(kept[0].name).ok());
    EXPECT_TRUE(next->remove(kept[1].name).ok());
    ASSERT_TRUE(store->open_store().ok());
    EXPECT_TRUE(publish(*store, make_sample(4, 1, each)).ok());
  });
  if (!(WIFEXITED(mounted) && WEXITSTATUS(mounted) == 77)) {
    EXPECT_TRUE(exited_well(mounted));
    return;
  }
  // No mounts here: a limit on the size of files also stops a write in the middle.
  EXPECT_TRUE(exited_well(run_in_child([&] {
    ASSERT_NE(std::signal(SIGXFSZ, SIG_IGN), SIG_ERR);
    const auto store = open_at_path(dir.path());
    const rlimit limit = {100'000, 100'000};
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
    const Status status = publish(*store, make_sample(1, 1, 3 * kChunkBytes));
    EXPECT_FALSE(status.ok());
    EXPECT_EQ(status.error().os_errno, EFBIG);
    EXPECT_TRUE(list_all(*store).empty());
    EXPECT_TRUE(fs::is_empty(dir.path() + "/tmp/a.0000000000000abc"));
    EXPECT_TRUE(publish(*store, make_sample(1, 1, kChunkBytes)).ok());
  })));
}

TEST(MakeBlobStore, TakesFileUrlsAndNodeNamesAndNamesWhatIsAllowed) {
  const auto code_of = [](const std::string& url, const std::string& node) {
    const auto store = make_blob_store(StoreOptions{url, node, 1});
    return store ? Code::kOk : store.error().code;
  };
  EXPECT_EQ(code_of("file:///srv/cms", "a"), Code::kOk);
  EXPECT_EQ(code_of("file:///srv/cms", "Node-1_x.lab"), Code::kOk);
  EXPECT_EQ(code_of("nfs://h/e", "a"), Code::kOk);
  for (const char* url :
       {"", "/srv/cms", "file://host/srv", "file:///", "file:///a%20b", "file:///a?x=1", "nfs://h"}) {
    EXPECT_EQ(code_of(url, "a"), Code::kInvalidArgument) << url;
  }
  for (const std::string& node :
       {std::string(), std::string("a/b"), std::string(".."), std::string(65, 'a')}) {
    EXPECT_EQ(code_of("file:///srv/cms", node), Code::kInvalidArgument) << node;
  }
  const auto store = make_blob_store(StoreOptions{"http://x", "a", 1});
  EXPECT_NE(store.error().context.find("file:///DIR"), std::string::npos);
}

}  // namespace
}  // namespace cms::storage::testing
