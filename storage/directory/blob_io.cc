#include "storage/directory/blob_io.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "base/crash_point.h"
#include "storage/blob_file.h"

namespace cms::storage {
namespace {

// How much is written before its write-back is started; docs/adr/0005-group-commit.md has the
// measurement. A multiple of any page size: a page is started once, when it is full.
constexpr std::uint64_t kWriteBackBytes = 8 * 1024 * 1024;

class DirectoryWriter final : public BlobWriter {
 public:
  DirectoryWriter(std::shared_ptr<const StoreRoot> root, const BlobName& name, wire::Manifest manifest,
                  std::string temp_name, UniqueFd file)
      : root_(std::move(root)),
        name_(name),
        manifest_(std::move(manifest)),
        chunk_count_(wire::chunk_count_of(name.size_bytes, manifest_.chunk_size_bytes)),
        temp_name_(std::move(temp_name)),
        temp_path_(root_->tmp_path + "/" + temp_name_),
        file_(std::move(file)) {
    manifest_.chunk_digests.clear();
    manifest_.zero_chunks.clear();
    manifest_.chunk_digests.reserve(chunk_count_);
    manifest_.zero_chunks.reserve(chunk_count_);
  }

  DirectoryWriter(const DirectoryWriter&) = delete;
  DirectoryWriter& operator=(const DirectoryWriter&) = delete;

  ~DirectoryWriter() override {
    // If this fails the file is swept at the next start of our node.
    if (!temp_gone_) (void)::unlinkat(root_->tmp.get(), temp_name_.c_str(), 0);
  }

  Status write_header() {
    const BlobHeaderBytes header =
        encode_header(BlobHeader{name_.kind, manifest_.chunk_size_bytes, name_.size_bytes, name_.uid});
    return keep(write_all(file_.get(), header.data(), header.size(), 0, temp_path_));
  }

  Status append(const void* data, std::size_t size_bytes, const Digest& digest) override {
    if (!status_.ok()) return status_;
    const std::uint64_t index = manifest_.chunk_digests.size();
    if (index >= chunk_count_) {
      return keep(make_error(Code::kInvalidArgument, "a chunk beyond the " + std::to_string(chunk_count_) +
                                                         " of " + to_file_name(name_)));
    }
    const std::uint32_t expected = chunk_length(manifest_, index);
    if (size_bytes != expected) {
      return keep(make_error(Code::kInvalidArgument, "chunk " + std::to_string(index) + " of " +
                                                         to_file_name(name_) + " has " +
                                                         std::to_string(size_bytes) + " bytes instead of " +
                                                         std::to_string(expected)));
    }
    const bool zero = is_all_zero(data, size_bytes);
    if (!zero) {
      const Status status = write_all(file_.get(), data, size_bytes, offset_bytes_, temp_path_);
      if (!status.ok()) return keep(absent_is_unavailable(status));
      offset_bytes_ += size_bytes;
      start_write_back();
    }
    manifest_.chunk_digests.push_back(digest);
    manifest_.zero_chunks.push_back(zero);
    CMS_CRASH_POINT("store.after_chunk");
    return ok_status();
  }

  Result<wire::Manifest> publish() override {
    if (!status_.ok()) return status_.error();
    if (manifest_.chunk_digests.size() != chunk_count_) {
      return keep(make_error(Code::kInvalidArgument,
                             "only " + std::to_string(manifest_.chunk_digests.size()) + " of the " +
                                 std::to_string(chunk_count_) + " chunks of " + to_file_name(name_) +
                                 " were appended"))
          .error();
    }
    manifest_.blob_digest = blob_digest_of(manifest_.chunk_digests);
    if (const Status status = keep(absent_is_unavailable(make_durable())); !status.ok())
      return status.error();
    // Only after the whole: a second publish is a mistake of the caller's, and refused.
    status_ = make_error(Code::kInvalidArgument, to_file_name(name_) + " has been published");
    return std::move(manifest_);
  }

 private:
  Status make_durable() {
    const wire::Bytes footer = encode_footer(manifest_, offset_bytes_);
    Status status = write_all(file_.get(), footer.data(), footer.size(), offset_bytes_, temp_path_);
    if (!status.ok()) return status;
    CMS_CRASH_POINT("store.after_footer");
    if (status = sync_data(file_.get(), temp_path_); !status.ok()) return status;
    CMS_CRASH_POINT("store.after_data_sync");

    const std::string shard = shard_name(shard_of(name_.lineage));
    const std::string shard_path = root_->path + "/d/" + shard;
    auto dir = open_dir_at(root_->shards.get(), shard, shard_path);
    if (!dir) return dir.error();
    const std::string file_name = to_file_name(name_);
    status =
        rename_no_replace(root_->tmp.get(), temp_name_, dir->get(), file_name, shard_path + "/" + file_name);
    if (!status.ok()) return status;
    temp_gone_ = true;
    CMS_CRASH_POINT("store.after_rename");
    status = sync_dir(dir->get(), shard_path);
    if (!status.ok()) {
      // The blob is whole, but nobody can say whether its name lasts: it must not be believed in.
      (void)::unlinkat(dir->get(), file_name.c_str(), 0);
      return status;
    }
    CMS_CRASH_POINT("store.after_publish");
    return ok_status();
  }

  void start_write_back() {
    if (offset_bytes_ - written_back_bytes_ < kWriteBackBytes) return;
    const std::uint64_t until = offset_bytes_ / kWriteBackBytes * kWriteBackBytes;
    // A hint: not every file system takes it, and what fails to be written fails fdatasync as well.
    (void)::sync_file_range(file_.get(), static_cast<off_t>(written_back_bytes_),
                            static_cast<off_t>(until - written_back_bytes_), SYNC_FILE_RANGE_WRITE);
    written_back_bytes_ = until;
  }

  Status keep(Status status) {
    if (!status.ok()) status_ = status;
    return status;
  }

  const std::shared_ptr<const StoreRoot> root_;
  const BlobName name_;
  wire::Manifest manifest_;
  const std::uint64_t chunk_count_;
  const std::string temp_name_;
  const std::string temp_path_;
  UniqueFd file_;
  std::uint64_t offset_bytes_ = kBlobHeaderBytes;
  std::uint64_t written_back_bytes_ = 0;
  bool temp_gone_ = false;
  Status status_;  // The first error; it stays.
};

class DirectoryReader final : public BlobReader {
 public:
  DirectoryReader(std::string path, UniqueFd file, wire::Manifest manifest)
      : path_(std::move(path)),
        file_(std::move(file)),
        manifest_(std::move(manifest)),
        offsets_(chunk_offsets(manifest_)) {}

  const wire::Manifest& manifest() const override { return manifest_; }

  Result<std::size_t> read_chunk(std::uint64_t index, void* target) override {
    if (index >= manifest_.chunk_digests.size()) {
      return make_error(Code::kInvalidArgument, path_ + " has " +
                                                    std::to_string(manifest_.chunk_digests.size()) +
                                                    " chunks; asked for chunk " + std::to_string(index));
    }
    const std::size_t length = chunk_length(manifest_, index);
    if (manifest_.zero_chunks[index]) {
      std::memset(target, 0, length);
    } else {
      const auto got = read_fully(file_.get(), target, length, offsets_[index], path_);
      if (!got) return got;
      if (*got != length) return corrupt(index, "is cut off");
    }
    if (digest_of(target, length) != manifest_.chunk_digests[index])
      return corrupt(index, "does not match its digest");
    return length;
  }

 private:
  Error corrupt(std::uint64_t index, const char* what) const {
    return make_error(Code::kCorrupt, path_ + ": chunk " + std::to_string(index) + " " + what);
  }

  const std::string path_;
  const UniqueFd file_;
  const wire::Manifest manifest_;
  const std::vector<std::uint64_t> offsets_;
};

// The manifest of an open file, after everything around it has been checked.
Result<wire::Manifest> read_manifest(int fd, const BlobName& name, const std::string& path) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return error_from_errno(errno, "stat " + path);
  const auto file_bytes = static_cast<std::uint64_t>(info.st_size);
  if (file_bytes < kBlobHeaderBytes + kBlobTrailerBytes) {
    return make_error(Code::kCorrupt, "only " + std::to_string(file_bytes) + " bytes long");
  }
  BlobHeaderBytes header_bytes{};
  auto got = read_fully(fd, header_bytes.data(), header_bytes.size(), 0, path);
  if (!got) return got.error();
  const auto header = decode_header(header_bytes);
  if (!header) return header.error();
  BlobTrailerBytes trailer_bytes{};
  got = read_fully(fd, trailer_bytes.data(), trailer_bytes.size(), file_bytes - kBlobTrailerBytes, path);
  if (!got) return got.error();
  const auto trailer = decode_trailer(trailer_bytes);
  if (!trailer) return trailer.error();
  const std::uint64_t chunk_count = wire::chunk_count_of(header->size_bytes, header->chunk_size_bytes);
  if (trailer->file_bytes != file_bytes || trailer->manifest_bytes > manifest_bytes_max(chunk_count) ||
      trailer->manifest_bytes > file_bytes - kBlobHeaderBytes - kBlobTrailerBytes) {
    return make_error(Code::kCorrupt, "trailer: its lengths are not those of the file");
  }
  wire::Bytes bytes(trailer->manifest_bytes);
  got = read_fully(fd, bytes.data(), bytes.size(), file_bytes - kBlobTrailerBytes - bytes.size(), path);
  if (!got) return got.error();
  if (*got != bytes.size() || digest_of(bytes.data(), bytes.size()) != trailer->manifest_digest) {
    return make_error(Code::kCorrupt, "manifest: digest does not match");
  }
  auto manifest = wire::decode_manifest(bytes.data(), bytes.size());
  if (!manifest) return manifest;
  if (const Status status = check_blob_file(name, *header, *trailer, *manifest); !status.ok()) {
    return status.error();
  }
  return manifest;
}

}  // namespace

Result<std::unique_ptr<BlobWriter>> make_directory_writer(std::shared_ptr<const StoreRoot> root,
                                                          const BlobName& name, wire::Manifest manifest,
                                                          const std::string& temp_name) {
  const std::string path = root->tmp_path + "/" + temp_name;
  auto file = open_at(root->tmp.get(), temp_name, O_WRONLY | O_CREAT | O_EXCL, path);
  if (!file) return absent_is_unavailable(file.error()).error();
  auto writer = std::make_unique<DirectoryWriter>(std::move(root), name, std::move(manifest), temp_name,
                                                  std::move(*file));
  CMS_CRASH_POINT("store.after_create");
  if (const Status status = writer->write_header(); !status.ok()) return status.error();
  return std::unique_ptr<BlobWriter>(std::move(writer));
}

Result<std::unique_ptr<BlobReader>> open_directory_reader(const StoreRoot& root, const BlobName& name) {
  const std::string path = entry_path(root, name);
  const std::string below = shard_name(shard_of(name.lineage)) + "/" + to_file_name(name);
  auto file = open_at(root.shards.get(), below, O_RDONLY, path);
  if (!file) return file.error();
  // Read ahead further; only a hint.
  (void)::posix_fadvise(file->get(), 0, 0, POSIX_FADV_SEQUENTIAL);
  return read_blob_file(std::move(*file), name, path);
}

Result<std::unique_ptr<BlobReader>> read_blob_file(UniqueFd file, const BlobName& name,
                                                   const std::string& path) {
  auto manifest = read_manifest(file.get(), name, path);
  if (!manifest) {
    Error error = std::move(manifest).error();
    if (error.os_errno == 0) error.context = path + ": " + error.context;
    return error;
  }
  return std::unique_ptr<BlobReader>(
      std::make_unique<DirectoryReader>(path, std::move(file), std::move(*manifest)));
}

}  // namespace cms::storage
