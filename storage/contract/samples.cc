#include "storage/contract/samples.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "base/prng.h"

namespace cms::storage::testing {

BlobName make_name(std::uint64_t program_id, std::uint64_t seq, std::uint64_t size_bytes) {
  BlobName name;
  name.checkpoint.program = ProgramKey{EcuMac{0x020000000001}, program_id};
  name.checkpoint.version = Version{65536, seq};
  name.lineage = lineage_of(name.checkpoint.program);
  name.owner_epoch = 0;
  name.size_bytes = size_bytes;
  name.uid = 0x1000 + seq;
  return name;
}

wire::Manifest make_manifest(const BlobName& name, std::uint32_t chunk_size_bytes) {
  wire::Manifest manifest;
  manifest.session = SessionId{name.checkpoint.program.ecu_mac, name.checkpoint.version.incarnation};
  manifest.notification.program_id = name.checkpoint.program.program_id;
  manifest.notification.seq = name.checkpoint.version.seq;
  manifest.notification.lineage = name.lineage;
  manifest.notification.owner_epoch = name.owner_epoch;
  manifest.notification.size_bytes = name.size_bytes;
  manifest.notification.chunk_size_bytes = chunk_size_bytes;
  manifest.notification.program_name = "brake-control";
  manifest.chunk_size_bytes = chunk_size_bytes;
  manifest.stored_at_us = 1'700'000'000'000'000;
  manifest.stored_by = "a";
  return manifest;
}

Data make_data(std::uint64_t seed, std::size_t size_bytes) {
  Prng prng(seed);
  Data data(size_bytes);
  for (std::size_t at = 0; at < size_bytes; at += 8) {
    const std::uint64_t word = prng.next();
    std::memcpy(data.data() + at, &word, std::min<std::size_t>(8, size_bytes - at));
  }
  return data;
}

Sample make_sample(std::uint64_t program_id, std::uint64_t seq, std::size_t size_bytes) {
  return Sample{make_name(program_id, seq, size_bytes), make_data(program_id * 1000 + seq, size_bytes)};
}

SmallBlob small_blob_of(const Sample& sample) {
  SmallBlob blob;
  blob.name = sample.name;
  blob.manifest = make_manifest(sample.name);
  blob.manifest.chunk_digests = {digest_of(sample.data.data(), sample.data.size())};
  blob.manifest.zero_chunks = {false};
  blob.data = sample.data.data();
  blob.size_bytes = sample.data.size();
  return blob;
}

Status publish(BlobStore& store, const Sample& sample) {
  auto writer = store.create(sample.name, make_manifest(sample.name));
  if (!writer) return writer.error();
  std::size_t at = 0;
  do {
    const std::size_t length = std::min<std::size_t>(kChunkBytes, sample.data.size() - at);
    const unsigned char* chunk = sample.data.data() + at;
    if (Status status = (*writer)->append(chunk, length, digest_of(chunk, length)); !status.ok())
      return status;
    at += length;
  } while (at < sample.data.size());
  const auto manifest = (*writer)->publish();
  return manifest ? ok_status() : Status(manifest.error());
}

Result<Data> read_back(BlobStore& store, const BlobName& name) {
  auto reader = store.open(name);
  if (!reader) return reader.error();
  Data data;
  Data chunk((*reader)->manifest().chunk_size_bytes);
  for (std::uint64_t i = 0; i < (*reader)->manifest().chunk_digests.size(); ++i) {
    const auto length = (*reader)->read_chunk(i, chunk.data());
    if (!length) return length.error();
    data.insert(data.end(), chunk.begin(), chunk.begin() + static_cast<std::ptrdiff_t>(*length));
  }
  return data;
}

std::vector<StoredEntry> list_all(BlobStore& store) {
  std::vector<StoredEntry> entries;
  for (std::uint32_t shard = 0; shard < kShardCount; ++shard) {
    const Status status = store.list(
        shard, [&](const StoredEntry& entry) { entries.push_back(entry); }, nullptr);
    EXPECT_TRUE(status.ok()) << status.error().message();
    if (!status.ok()) break;
  }
  return entries;
}

TempDir::TempDir()
    : TempDir([]() -> std::string {
        const char* base = std::getenv("TMPDIR");
        if (base != nullptr && *base == '/') return base;
        return ::access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
      }()) {}

TempDir::TempDir(const std::string& base) : path_(base + "/cms_storage_test.XXXXXX") {
  if (::mkdtemp(path_.data()) == nullptr) {
    std::perror(path_.c_str());
    std::abort();  // No test can go on without its directory.
  }
}

TempDir::~TempDir() {
  std::error_code ignored;  // A leftover in /tmp is no failure of what was tested.
  std::filesystem::remove_all(path_, ignored);
}

int run_in_child(const std::function<void()>& work) {
  std::fflush(nullptr);  // else the child prints it again
  const pid_t child = ::fork();
  if (child == 0) {
    work();
    std::fflush(nullptr);
    ::_exit(::testing::Test::HasFailure() ? 1 : 0);
  }
  int status = -1;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return status;
}

bool exited_well(int wait_status) { return WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0; }

bool was_killed(int wait_status) { return WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGKILL; }

bool enter_private_mounts() {
  const uid_t uid = ::getuid();
  const gid_t gid = ::getgid();
  if (::unshare(CLONE_NEWNS) != 0) {
    if (::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
    std::ofstream("/proc/self/setgroups") << "deny";
    std::ofstream("/proc/self/uid_map") << "0 " << uid << " 1";
    std::ofstream("/proc/self/gid_map") << "0 " << gid << " 1";
  }
  return ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
}

}  // namespace cms::storage::testing
