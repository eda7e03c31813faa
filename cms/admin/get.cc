#include "cms/admin/get.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "base/prng.h"
#include "broker/core/chunk_receiver.h"

namespace cms::admin {
namespace {

Error os_error(const std::string& what) { return error_from_errno(errno, what); }

// Where the bytes go.
class Target {
 public:
  explicit Target(std::string path) : path_(std::move(path)) {}
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;
  ~Target() {
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
    if (fd_ > STDERR_FILENO) ::close(fd_);
  }

  Status open() {
    if (path_ == "-") {
      fd_ = STDOUT_FILENO;
      return ok_status();
    }
    struct stat found {};
    if (::stat(path_.c_str(), &found) == 0 && !S_ISREG(found.st_mode)) {
      return make_error(Code::kInvalidArgument,
                        path_ + " is not a regular file; allowed: a new or a regular file, or '-'");
    }
    const std::size_t slash = path_.rfind('/');
    directory_ = slash == path_.npos ? "." : path_.substr(0, std::max<std::size_t>(slash, 1));
    // Without a name, so that nothing is left behind when we are killed.
    fd_ = ::open(directory_.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
    if (fd_ >= 0) return ok_status();
    if (errno != EOPNOTSUPP && errno != EISDIR) return os_error("create a file in " + directory_);
    temporary_ = directory_ + "/.cms-admin.XXXXXX";  // A file system that cannot do that.
    fd_ = ::mkostemp(temporary_.data(), O_CLOEXEC);
    if (fd_ >= 0) return ok_status();
    const Status failed = os_error("create " + std::exchange(temporary_, {}));
    return failed;
  }

  Status write(const void* data, std::size_t size_bytes) {
    const char* next = static_cast<const char*>(data);
    while (size_bytes > 0) {
      const ssize_t written = ::write(fd_, next, size_bytes);
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return os_error("write " + (path_ == "-" ? std::string("to standard output") : path_));
      next += written;
      size_bytes -= static_cast<std::size_t>(written);
    }
    return ok_status();
  }

  Status publish() {
    if (path_ == "-") return ok_status();
    if (::fsync(fd_) != 0) return os_error("sync " + path_);
    if (temporary_.empty()) {
      // rename() needs a name to begin with.
      const std::string name = directory_ + "/.cms-admin." + std::to_string(random_u64());
      const std::string self = "/proc/self/fd/" + std::to_string(fd_);
      if (::linkat(AT_FDCWD, self.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) != 0)
        return os_error("create " + name);
      temporary_ = name;
    }
    if (::rename(temporary_.c_str(), path_.c_str()) != 0)
      return os_error("rename " + temporary_ + " to " + path_);
    temporary_.clear();
    const int directory = ::open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) return os_error("open " + directory_);
    const Status synced = ::fsync(directory) == 0 ? ok_status() : Status(os_error("sync " + directory_));
    ::close(directory);
    return synced;
  }

 private:
  std::string path_;
  std::string directory_;
  std::string temporary_;  // Not empty: it has this name and is to be removed.
  int fd_ = -1;
};

}  // namespace

Result<Got> get(Client& client, const Key& key, const std::string& path, const Progress& progress) {
  Target target(path);
  if (Status opened = target.open(); !opened.ok()) return opened.error();

  broker::ExpectedBlob expected;
  expected.checkpoint = CheckpointId{key.program, key.has_version ? key.version : Version{}};
  broker::ChunkReceiver receiver(random_u64(), expected, broker::kTransferWindowBytes);
  if (Status sent = client.send(receiver.fetch()); !sent.ok()) return sent.error();
  std::vector<Digest> digests;
  while (!receiver.received_all()) {
    auto piece = client.next_piece();
    if (!piece) return std::move(piece).error();
    if (const auto* error = std::get_if<wire::TransferError>(&piece->message)) {
      if (error->transfer_id != receiver.transfer_id()) continue;
      return make_error(error->code, error->context);
    }
    const auto* chunk = std::get_if<wire::Chunk>(&piece->message);
    if (chunk == nullptr)
      return make_error(Code::kProtocol, "cmsd answered a fetch with something else than chunks");
    if (chunk->transfer_id != receiver.transfer_id()) continue;
    const Status taken = receiver.on_chunk(*chunk, piece->size_bytes);
    if (taken.code() == Code::kAlreadyExists) continue;
    if (!taken.ok()) return taken.error();
    if (digest_of(piece->data, piece->size_bytes) != chunk->digest) {
      return make_error(Code::kProtocol, "the chunk at byte " + std::to_string(chunk->offset_bytes) + " of " +
                                             to_string(receiver.checkpoint()) + " does not match its digest");
    }
    digests.push_back(chunk->digest);
    if (Status written = target.write(piece->data, piece->size_bytes); !written.ok()) return written.error();
    progress(receiver.received_bytes(), receiver.size_bytes());
    if (const auto credit = receiver.on_taken(piece->size_bytes)) {
      if (Status sent = client.send(*credit); !sent.ok()) return sent.error();
    }
  }
  if (blob_digest_of(digests) != receiver.blob_digest()) {
    return make_error(Code::kProtocol, to_string(receiver.checkpoint()) + " does not match its digest");
  }
  if (Status published = target.publish(); !published.ok()) return published.error();
  return Got{receiver.checkpoint(), receiver.size_bytes(), receiver.blob_digest()};
}

}  // namespace cms::admin
