#include "storage/directory/blob_io.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/crash_point.h"
#include "storage/blob_file_io.h"
#include "storage/store_layout.h"

namespace cms::storage {
namespace {

// How much is written before its write-back is started; docs/adr/0005-group-commit.md has the
// measurement. A multiple of any page size: a page is started once, when it is full.
constexpr std::uint64_t kWriteBackBytes = 8 * 1024 * 1024;

class DirectoryWriter final : public BlobFileWriter {
 public:
  DirectoryWriter(std::shared_ptr<const StoreRoot> root, const BlobName& name, wire::Manifest manifest,
                  const std::string& temp_name, UniqueFd file)
      : BlobFileWriter(name, std::move(manifest)),
        root_(std::move(root)),
        temp_name_(temp_name),
        temp_path_(root_->tmp_path + "/" + temp_name_),
        file_(std::move(file)) {}

  ~DirectoryWriter() override {
    // If this fails the file is swept at the next start of our node.
    if (!temp_gone_) (void)::unlinkat(root_->tmp.get(), temp_name_.c_str(), 0);
  }

 private:
  Status write_at(const void* data, std::size_t size_bytes, std::uint64_t offset_bytes) override {
    const Status status = write_all(file_.get(), data, size_bytes, offset_bytes, temp_path_);
    if (status.ok()) start_write_back(offset_bytes + size_bytes);
    return status;
  }

  Status make_durable(std::uint64_t) override {
    Status status = sync_data(file_.get(), temp_path_);
    if (!status.ok()) return status;
    CMS_CRASH_POINT("store.after_data_sync");

    const std::string shard = shard_name(shard_of(name().lineage));
    const std::string shard_path = root_->path + "/d/" + shard;
    auto dir = open_dir_at(root_->shards.get(), shard, shard_path);
    if (!dir) return dir.error();
    const std::string file_name = to_file_name(name());
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

  void start_write_back(std::uint64_t written_bytes) {
    if (written_bytes - written_back_bytes_ < kWriteBackBytes) return;
    const std::uint64_t until = written_bytes / kWriteBackBytes * kWriteBackBytes;
    // A hint: not every file system takes it, and what fails to be written fails fdatasync as well.
    (void)::sync_file_range(file_.get(), static_cast<off_t>(written_back_bytes_),
                            static_cast<off_t>(until - written_back_bytes_), SYNC_FILE_RANGE_WRITE);
    written_back_bytes_ = until;
  }

  const std::shared_ptr<const StoreRoot> root_;
  const std::string temp_name_;
  const std::string temp_path_;
  UniqueFd file_;
  std::uint64_t written_back_bytes_ = 0;
  bool temp_gone_ = false;
};

class DirectoryReader final : public BlobFileReader {
 public:
  DirectoryReader(const std::string& path, UniqueFd file, wire::Manifest manifest)
      : BlobFileReader(path, std::move(manifest)), file_(std::move(file)) {}

 private:
  Result<std::size_t> read_stored_chunk(std::uint64_t index, void* target) override {
    return read_fully(file_.get(), target, chunk_length(manifest(), index), offset_of(index), path());
  }

  const UniqueFd file_;
};

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
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) return error_from_errno(errno, "stat " + path);
  auto manifest = read_manifest(name, static_cast<std::uint64_t>(info.st_size), path,
                                [&](void* target, std::size_t size_bytes, std::uint64_t offset_bytes) {
                                  return read_fully(file.get(), target, size_bytes, offset_bytes, path);
                                });
  if (!manifest) return manifest.error();
  return std::unique_ptr<BlobReader>(
      std::make_unique<DirectoryReader>(path, std::move(file), std::move(*manifest)));
}

}  // namespace cms::storage
