#include "rtcr-client/src/memory.h"

#include <sys/mman.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>

namespace cms::client {
namespace {

std::uint64_t in_whole_pages(std::uint64_t size_bytes) {
  static const std::uint64_t page_bytes = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  return std::max<std::uint64_t>(1, (size_bytes + page_bytes - 1) / page_bytes) * page_bytes;
}

Error too_much(const MemoryMeter& meter, std::uint64_t size_bytes) {
  return make_error(Code::kLimit,
                    std::to_string(size_bytes) + " bytes more than the " + std::to_string(meter.bytes()) +
                        " that copies and allocations take already (" +
                        "allowed: " + std::to_string(meter.bytes_max()) + ", twice the memory budget)");
}

Error mapping_failed(int os_errno, const std::string& what) {
  Error error = error_from_errno(os_errno, what);
  if (os_errno == ENOMEM || os_errno == EAGAIN || os_errno == EMFILE || os_errno == ENFILE)
    error.code = Code::kLimit;
  return error;
}

// A copy gives its bytes back to the meter when it goes.
struct FreeCopy {
  MemoryMeter* meter;
  std::uint64_t size_bytes;
  void operator()(const void* data) const {
    std::free(const_cast<void*>(data));
    meter->give_back(size_bytes);
  }
};

}  // namespace

bool MemoryMeter::take(std::uint64_t size_bytes) {
  std::uint64_t before = bytes_.load(std::memory_order_relaxed);
  do {
    if (size_bytes > bytes_max_ || before > bytes_max_ - size_bytes) return false;
  } while (!bytes_.compare_exchange_weak(before, before + size_bytes, std::memory_order_relaxed));
  return true;
}

Result<std::shared_ptr<Mapping>> Mapping::create(MemoryMeter& meter, std::uint64_t size_bytes, bool lock) {
  if (size_bytes > meter.bytes_max()) return too_much(meter, size_bytes);
  const std::uint64_t mapped_bytes = in_whole_pages(size_bytes);
  // The descriptor is not kept: the mapping holds the memory.
  const int fd = ::memfd_create("rtcr-alloc", MFD_CLOEXEC);
  if (fd < 0) return mapping_failed(errno, "memfd_create");
  void* data = MAP_FAILED;
  if (::ftruncate(fd, static_cast<off_t>(mapped_bytes)) == 0) {
    data = ::mmap(nullptr, mapped_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  }
  const int map_errno = errno;
  ::close(fd);
  if (data == MAP_FAILED)
    return mapping_failed(map_errno, "mmap of " + std::to_string(mapped_bytes) + " bytes");
  if (!meter.take(mapped_bytes)) {
    ::munmap(data, mapped_bytes);
    return too_much(meter, mapped_bytes);
  }
  std::shared_ptr<Mapping> mapping(new Mapping(&meter, data, mapped_bytes));
  if (lock && ::mlock(data, mapped_bytes) != 0) {
    Error error =
        mapping_failed(errno, "mlock of " + std::to_string(mapped_bytes) + " bytes (see ulimit -l)");
    error.code = Code::kLimit;  // EPERM as well: without any right to lock the limit is 0.
    return error;
  }
  return mapping;
}

Result<std::shared_ptr<Mapping>> Mapping::of_file(int fd, std::uint64_t size_bytes) {
  if (size_bytes == 0) return std::shared_ptr<Mapping>(new Mapping(nullptr, nullptr, 0));
  void* data = ::mmap(nullptr, size_bytes, PROT_READ, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED) return mapping_failed(errno, "mmap of a sealed memfd");
  return std::shared_ptr<Mapping>(new Mapping(nullptr, data, size_bytes));
}

Mapping::~Mapping() {
  if (data_ != nullptr) ::munmap(data_, size_bytes_);
  if (meter_ != nullptr) meter_->give_back(size_bytes_);
}

void Mapping::make_read_only() { (void)::mprotect(data_, size_bytes_, PROT_READ); }

Result<std::shared_ptr<const void>> copy_of(MemoryMeter& meter, const void* data, std::uint64_t size_bytes,
                                            bool lock) {
  if (lock) {  // Locks are by page, so it must not share its pages with anything else.
    auto mapping = Mapping::create(meter, size_bytes, true);
    if (!mapping.ok()) return std::move(mapping).error();
    if (size_bytes > 0) std::memcpy((*mapping)->data(), data, size_bytes);
    const void* copied = (*mapping)->data();
    return std::shared_ptr<const void>(std::move(mapping).value(), copied);
  }
  if (!meter.take(size_bytes)) return too_much(meter, size_bytes);
  void* copied = std::malloc(std::max<std::uint64_t>(1, size_bytes));
  if (copied == nullptr) {
    meter.give_back(size_bytes);
    throw std::bad_alloc();
  }
  std::shared_ptr<const void> owner(copied, FreeCopy{&meter, size_bytes});
  if (size_bytes > 0) std::memcpy(copied, data, size_bytes);
  return owner;
}

}  // namespace cms::client
