#include "storage/directory/sync_names.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "storage/store_layout.h"

namespace cms::storage {
namespace {

constexpr std::size_t kSyncThreadsMax = 8;
constexpr std::uint64_t kForeignDirtyBytesMax = 64 * 1024 * 1024;

// Bytes that the host has to write back, from /proc/meminfo; the largest number when not known.
std::uint64_t dirty_bytes() {
  const auto file = open_at(AT_FDCWD, "/proc/meminfo", O_RDONLY, "/proc/meminfo");
  std::array<char, 4096> text{};
  if (!file) return UINT64_MAX;
  const auto got = read_fully(file->get(), text.data(), text.size() - 1, 0, "/proc/meminfo");
  if (!got) return UINT64_MAX;
  std::uint64_t total_kib = 0;
  for (const char* key : {"\nDirty:", "\nWriteback:"}) {
    const char* line = std::strstr(text.data(), key);
    if (line == nullptr) return UINT64_MAX;
    total_kib += std::strtoull(line + std::strlen(key), nullptr, 10);
  }
  return total_kib * 1024;
}

}  // namespace

bool little_is_dirty() { return dirty_bytes() <= kForeignDirtyBytesMax; }

GroupSync::GroupSync(int root, const std::string& path, bool reports_errors, std::size_t count)
    : path_(path) {
  if (!reports_errors || count < 2) return;
  auto fd = open_dir_at(root, ".", path);
  if (fd) fd_ = std::move(*fd);  // else: file by file
}

Status GroupSync::run() const {
  while (::syncfs(fd_.get()) != 0) {
    if (errno != EINTR) return error_from_errno(errno, "syncfs " + path_);
  }
  return ok_status();
}

void for_each_in_parallel(std::size_t count, const std::function<void(std::size_t)>& work) {
  std::atomic<std::size_t> next{0};
  const auto run = [&] {
    for (std::size_t i = next++; i < count; i = next++) work(i);
  };
  std::vector<std::thread> threads;
  const std::size_t helpers = std::min(count, kSyncThreadsMax);
  for (std::size_t i = 1; i < helpers; ++i) {
    try {
      threads.emplace_back(run);
    } catch (const std::system_error&) {
      break;  // No more threads to be had: those there are do it all, more slowly.
    }
  }
  run();
  for (std::thread& thread : threads) thread.join();
}

std::map<std::uint32_t, Status> sync_shards(const StoreRoot& root, const std::set<std::uint32_t>& shards) {
  std::map<std::uint32_t, Status> synced;
  for (const std::uint32_t shard : shards) synced.emplace(shard, ok_status());
  if (shards.size() > 1 && root.syncfs_reports_errors && little_is_dirty()) {
    int result = 0;
    do {
      result = ::syncfs(root.root.get());
    } while (result != 0 && errno == EINTR);
    if (result == 0) return synced;  // Else shard by shard: that tells which of them failed.
  }
  std::vector<std::pair<const std::uint32_t, Status>*> list;
  for (auto& shard : synced) list.push_back(&shard);
  for_each_in_parallel(list.size(), [&](std::size_t i) {
    const std::string name = shard_name(list[i]->first);
    const std::string path = root.path + "/d/" + name;
    const auto dir = open_dir_at(root.shards.get(), name, path);
    list[i]->second = dir ? sync_dir(dir->get(), path) : Status(dir.error());
  });
  return synced;
}

}  // namespace cms::storage
