#pragma once
// The memory that the client itself makes: copies, and allocations that a publisher writes into.
//
// Threads: any. Lifetime: a MemoryMeter outlives all that was counted in it.
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/result.h"

namespace cms::client {

// Counts the bytes of copies and allocations that live, wherever they are on their way.
class MemoryMeter {
 public:
  explicit MemoryMeter(std::uint64_t bytes_max) : bytes_max_(bytes_max) {}
  // False: it would be more than bytes_max; nothing was counted.
  bool take(std::uint64_t size_bytes);
  void give_back(std::uint64_t size_bytes) { bytes_.fetch_sub(size_bytes, std::memory_order_relaxed); }
  std::uint64_t bytes() const { return bytes_.load(std::memory_order_relaxed); }
  std::uint64_t bytes_max() const { return bytes_max_; }

 private:
  const std::uint64_t bytes_max_;
  std::atomic<std::uint64_t> bytes_{0};
};

// Whole pages of zeroed memory, shared with forks of the process instead of copied on write.
class Mapping {
 public:
  // kLimit: beyond the meter, the address space or (with `lock`) RLIMIT_MEMLOCK.
  static Result<std::shared_ptr<Mapping>> create(MemoryMeter& meter, std::uint64_t size_bytes, bool lock);
  // Maps a file that cannot change (a sealed memfd) for reading. It is not metered.
  static Result<std::shared_ptr<Mapping>> of_file(int fd, std::uint64_t size_bytes);
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping();

  void* data() const { return data_; }
  std::uint64_t size_bytes() const { return size_bytes_; }  // Whole pages.
  // From now on a write is a SIGSEGV. Does nothing where the kernel cannot.
  void make_read_only();

 private:
  Mapping(MemoryMeter* meter, void* data, std::uint64_t size_bytes)
      : meter_(meter), data_(data), size_bytes_(size_bytes) {}

  MemoryMeter* meter_;  // nullptr: not metered.
  void* data_;
  std::uint64_t size_bytes_;
};

// `size_bytes` of `data`, copied. kLimit: as in Mapping::create.
Result<std::shared_ptr<const void>> copy_of(MemoryMeter& meter, const void* data, std::uint64_t size_bytes,
                                            bool lock);

}  // namespace cms::client
