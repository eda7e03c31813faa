#include "rtcr-client/src/sources.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cerrno>
#include <string>
#include <utility>

#include "rtcr-client/src/callback_scope.h"

namespace cms::client {
namespace {

using broker::BlobSource;
using broker::ChunkView;

class MemorySource : public BlobSource {
 public:
  MemorySource(std::shared_ptr<const void> owner, const void* data, std::uint64_t memory_bytes)
      : owner_(std::move(owner)), data_(static_cast<const char*>(data)), memory_bytes_(memory_bytes) {}
  MemorySource(const MemorySource&) = delete;
  MemorySource& operator=(const MemorySource&) = delete;
  ~MemorySource() override = default;

  Result<ChunkView> view(std::uint64_t offset_bytes, std::size_t size_bytes) override {
    return ChunkView{data_ + offset_bytes, size_bytes, owner_};
  }
  std::uint64_t memory_bytes() const override { return memory_bytes_; }

 private:
  std::shared_ptr<const void> owner_;
  const char* data_;
  std::uint64_t memory_bytes_;
};

class RefusedSource : public BlobSource {
 public:
  explicit RefusedSource(std::uint64_t memory_bytes) : memory_bytes_(memory_bytes) {}
  Result<ChunkView> view(std::uint64_t, std::size_t) override {
    return make_error(Code::kLimit, "the copy was never made");
  }
  std::uint64_t memory_bytes() const override { return memory_bytes_; }

 private:
  std::uint64_t memory_bytes_;
};

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { ::close(fd_); }
  int get() const { return fd_; }

 private:
  int fd_;
};

class SealedSource : public BlobSource {
 public:
  SealedSource(std::unique_ptr<Descriptor> fd, std::uint64_t size_bytes)
      : fd_(std::move(fd)), size_bytes_(size_bytes) {}

  Result<ChunkView> view(std::uint64_t offset_bytes, std::size_t size_bytes) override {
    if (mapping_ == nullptr) {
      auto mapping = Mapping::of_file(fd_->get(), size_bytes_);
      if (!mapping.ok()) return std::move(mapping).error();
      mapping_ = std::move(mapping).value();
      fd_.reset();
    }
    return ChunkView{static_cast<const char*>(mapping_->data()) + offset_bytes, size_bytes, mapping_};
  }
  std::uint64_t memory_bytes() const override { return size_bytes_; }

 private:
  std::unique_ptr<Descriptor> fd_;
  std::uint64_t size_bytes_;
  std::shared_ptr<Mapping> mapping_{};
};

// What tells that a file was touched. Writes closer together than the file system's clock ticks
// may share their times; a chunk that is served twice is also compared by digest.
struct FileState {
  off_t size_bytes = 0;
  timespec modified{};
  timespec changed{};

  static Result<FileState> of(int fd) {
    struct stat status {};
    if (::fstat(fd, &status) != 0) return error_from_errno(errno, "fstat of the published file");
    return FileState{status.st_size, status.st_mtim, status.st_ctim};
  }
  bool operator==(const FileState& other) const {
    const auto equal = [](const timespec& a, const timespec& b) {
      return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
    };
    return size_bytes == other.size_bytes && equal(modified, other.modified) && equal(changed, other.changed);
  }
};

class PreadSource : public BlobSource {
 public:
  PreadSource(std::unique_ptr<Descriptor> fd, const FileState& state) : fd_(std::move(fd)), state_(state) {}

  Result<ChunkView> view(std::uint64_t offset_bytes, std::size_t size_bytes) override {
    if (Status unchanged = check_unchanged(); !unchanged.ok()) return std::move(unchanged).error();
    // Not make_shared<char[]>: it would fill with zeros what the file fills a moment later.
    const std::shared_ptr<char[]> bytes(new char[size_bytes]);
    std::size_t read_bytes = 0;
    while (read_bytes < size_bytes) {
      const ssize_t count = ::pread(fd_->get(), bytes.get() + read_bytes, size_bytes - read_bytes,
                                    static_cast<off_t>(offset_bytes + read_bytes));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return error_from_errno(errno, "read of the published file");
      if (count == 0) return changed("it became shorter");
      read_bytes += static_cast<std::size_t>(count);
    }
    if (Status unchanged = check_unchanged(); !unchanged.ok()) return std::move(unchanged).error();
    return ChunkView{bytes.get(), size_bytes, bytes};
  }
  std::uint64_t memory_bytes() const override { return 0; }

 private:
  static Error changed(const char* how) {
    return make_error(Code::kSourceChanged,
                      std::string("the published file was changed while it was held: ") + how);
  }
  Status check_unchanged() const {
    const auto state = FileState::of(fd_->get());
    if (!state.ok()) return state.error();
    if (state->size_bytes != state_.size_bytes) {
      return changed(("its size was " + std::to_string(state_.size_bytes) + " and is " +
                      std::to_string(state->size_bytes) + " bytes")
                         .c_str());
    }
    if (!(*state == state_)) return changed("its mtime or ctime is another");
    return ok_status();
  }

  std::unique_ptr<Descriptor> fd_;
  FileState state_;
};

constexpr int kSealsOfConstant = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;

}  // namespace

UserMemory::~UserMemory() {
  if (release_ == nullptr) return;
  const CallbackScope scope;
  release_(context_, data_, size_bytes_);
}

std::unique_ptr<BlobSource> make_memory_source(std::shared_ptr<const void> owner, const void* data,
                                               std::uint64_t memory_bytes) {
  return std::make_unique<MemorySource>(std::move(owner), data, memory_bytes);
}

Result<ChunkView> AllocationSource::view(std::uint64_t offset_bytes, std::size_t size_bytes) {
  if (!read_only_) {
    mapping_->make_read_only();  // Costs a walk over its pages: here, not in publish().
    read_only_ = true;
  }
  return ChunkView{static_cast<const char*>(mapping_->data()) + offset_bytes, size_bytes, mapping_};
}

std::unique_ptr<BlobSource> make_refused_source(std::uint64_t memory_bytes) {
  return std::make_unique<RefusedSource>(memory_bytes);
}

Result<FileSource> make_file_source(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) {
    if (errno == EBADF)
      return make_error(Code::kInvalidArgument, "fd " + std::to_string(fd) + " is not open");
    return error_from_errno(errno, "fstat of fd " + std::to_string(fd));
  }
  if (!S_ISREG(status.st_mode)) {
    return make_error(
        Code::kInvalidArgument,
        "fd " + std::to_string(fd) +
            " is not a regular file or memfd; read a pipe, socket or device into an allocation");
  }
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || (flags & O_ACCMODE) == O_WRONLY || (flags & O_PATH) != 0) {
    return make_error(Code::kInvalidArgument, "fd " + std::to_string(fd) + " is not open for reading");
  }
  const int own = ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (own < 0) {
    Error error = error_from_errno(errno, "cannot duplicate fd " + std::to_string(fd));
    if (errno == EMFILE) error.code = Code::kLimit;
    return error;
  }
  auto descriptor = std::unique_ptr<Descriptor>(new (std::nothrow) Descriptor(own));
  if (descriptor == nullptr) {
    ::close(own);
    throw std::bad_alloc();
  }
  const auto size_bytes = static_cast<std::uint64_t>(status.st_size);
  const int seals = ::fcntl(fd, F_GET_SEALS);  // Fails where there is no such thing: not sealed.
  if (seals >= 0 && (seals & kSealsOfConstant) == kSealsOfConstant) {
    return FileSource{std::make_unique<SealedSource>(std::move(descriptor), size_bytes), size_bytes};
  }
  const FileState state{status.st_size, status.st_mtim, status.st_ctim};
  return FileSource{std::make_unique<PreadSource>(std::move(descriptor), state), size_bytes};
}

}  // namespace cms::client
