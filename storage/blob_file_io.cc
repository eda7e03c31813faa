#include "storage/blob_file_io.h"

#include <cstring>
#include <utility>

#include "base/crash_point.h"

namespace cms::storage {

// ---- writing

BlobFileWriter::BlobFileWriter(const BlobName& name, wire::Manifest manifest)
    : name_(name),
      manifest_(std::move(manifest)),
      chunk_count_(wire::chunk_count_of(name.size_bytes, manifest_.chunk_size_bytes)) {
  manifest_.chunk_digests.clear();
  manifest_.zero_chunks.clear();
  manifest_.chunk_digests.reserve(chunk_count_);
  manifest_.zero_chunks.reserve(chunk_count_);
}

Status BlobFileWriter::keep(Status status) {
  if (!status.ok()) status_ = status;
  return status;
}

Status BlobFileWriter::write_header() {
  const BlobHeaderBytes header =
      encode_header(BlobHeader{name_.kind, manifest_.chunk_size_bytes, name_.size_bytes, name_.uid});
  return keep(absent_is_unavailable(write_at(header.data(), header.size(), 0)));
}

Status BlobFileWriter::append(const void* data, std::size_t size_bytes, const Digest& digest) {
  if (!status_.ok()) return status_;
  const std::uint64_t index = manifest_.chunk_digests.size();
  if (index >= chunk_count_) {
    return keep(make_error(Code::kInvalidArgument, "a chunk beyond the " + std::to_string(chunk_count_) +
                                                       " of " + to_file_name(name_)));
  }
  const std::uint32_t expected = chunk_length(manifest_, index);
  if (size_bytes != expected) {
    return keep(make_error(Code::kInvalidArgument,
                           "chunk " + std::to_string(index) + " of " + to_file_name(name_) + " has " +
                               std::to_string(size_bytes) + " bytes instead of " + std::to_string(expected)));
  }
  const bool zero = is_all_zero(data, size_bytes);
  if (!zero) {
    const Status status = write_at(data, size_bytes, offset_bytes_);
    if (!status.ok()) return keep(absent_is_unavailable(status));
    offset_bytes_ += size_bytes;
  }
  manifest_.chunk_digests.push_back(digest);
  manifest_.zero_chunks.push_back(zero);
  CMS_CRASH_POINT("store.after_chunk");
  return ok_status();
}

Result<wire::Manifest> BlobFileWriter::publish() {
  if (!status_.ok()) return status_.error();
  if (manifest_.chunk_digests.size() != chunk_count_) {
    return keep(make_error(Code::kInvalidArgument, "only " + std::to_string(manifest_.chunk_digests.size()) +
                                                       " of the " + std::to_string(chunk_count_) +
                                                       " chunks of " + to_file_name(name_) +
                                                       " were appended"))
        .error();
  }
  manifest_.blob_digest = blob_digest_of(manifest_.chunk_digests);
  const wire::Bytes footer = encode_footer(manifest_, offset_bytes_);
  Status status = write_at(footer.data(), footer.size(), offset_bytes_);
  if (status.ok()) {
    CMS_CRASH_POINT("store.after_footer");
    status = make_durable(offset_bytes_ + footer.size());
  }
  if (!status.ok()) return keep(absent_is_unavailable(status)).error();
  // Only after the whole: a second publish is a mistake of the caller's, and refused.
  status_ = make_error(Code::kInvalidArgument, to_file_name(name_) + " has been published");
  return std::move(manifest_);
}

// ---- reading

namespace {

Result<wire::Manifest> parse(const BlobName& name, std::uint64_t file_bytes, const ReadAt& read_at) {
  if (file_bytes < kBlobHeaderBytes + kBlobTrailerBytes) {
    return make_error(Code::kCorrupt, "only " + std::to_string(file_bytes) + " bytes long");
  }
  BlobHeaderBytes header_bytes{};
  auto got = read_at(header_bytes.data(), header_bytes.size(), 0);
  if (!got) return got.error();
  const auto header = decode_header(header_bytes);
  if (!header) return header.error();
  BlobTrailerBytes trailer_bytes{};
  got = read_at(trailer_bytes.data(), trailer_bytes.size(), file_bytes - kBlobTrailerBytes);
  if (!got) return got.error();
  const auto trailer = decode_trailer(trailer_bytes);
  if (!trailer) return trailer.error();
  const std::uint64_t chunk_count = wire::chunk_count_of(header->size_bytes, header->chunk_size_bytes);
  if (trailer->file_bytes != file_bytes || trailer->manifest_bytes > manifest_bytes_max(chunk_count) ||
      trailer->manifest_bytes > file_bytes - kBlobHeaderBytes - kBlobTrailerBytes) {
    return make_error(Code::kCorrupt, "trailer: its lengths are not those of the file");
  }
  wire::Bytes bytes(trailer->manifest_bytes);
  got = read_at(bytes.data(), bytes.size(), file_bytes - kBlobTrailerBytes - bytes.size());
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

Result<wire::Manifest> read_manifest(const BlobName& name, std::uint64_t file_bytes, const std::string& path,
                                     const ReadAt& read_at) {
  Error failed_read;  // Says already where.
  const auto remembering = [&](void* target, std::size_t size_bytes, std::uint64_t offset_bytes) {
    auto got = read_at(target, size_bytes, offset_bytes);
    if (!got) failed_read = got.error();
    return got;
  };
  auto manifest = parse(name, file_bytes, remembering);
  if (manifest || !failed_read.context.empty()) return manifest;
  Error error = std::move(manifest).error();
  error.context = path + ": " + error.context;
  return error;
}

BlobFileReader::BlobFileReader(std::string path, wire::Manifest manifest)
    : path_(std::move(path)), manifest_(std::move(manifest)), offsets_(chunk_offsets(manifest_)) {}

Error BlobFileReader::corrupt(std::uint64_t index, const char* what) const {
  return make_error(Code::kCorrupt, path_ + ": chunk " + std::to_string(index) + " " + what);
}

Result<std::size_t> BlobFileReader::read_chunk(std::uint64_t index, void* target) {
  if (index >= chunk_count()) {
    return make_error(Code::kInvalidArgument, path_ + " has " + std::to_string(chunk_count()) +
                                                  " chunks; asked for chunk " + std::to_string(index));
  }
  const std::size_t length = chunk_length(manifest_, index);
  if (manifest_.zero_chunks[index]) {
    std::memset(target, 0, length);
  } else {
    const auto got = read_stored_chunk(index, target);
    if (!got) return got;
    if (*got != length) return corrupt(index, "is cut off");
  }
  if (digest_of(target, length) != manifest_.chunk_digests[index])
    return corrupt(index, "does not match its digest");
  return length;
}

Status absent_is_unavailable(Status status) {
  if (status.code() != Code::kNotFound) return status;
  Error error = std::move(status).error();
  error.code = Code::kUnavailable;
  return error;
}

}  // namespace cms::storage
