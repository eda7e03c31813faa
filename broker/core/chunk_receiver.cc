#include "broker/core/chunk_receiver.h"

#include <algorithm>
#include <string>

namespace cms::broker {
namespace {

Error lie(const char* what, std::uint64_t got, std::uint64_t expected) {
  return make_error(Code::kProtocol, std::string("chunk with ") + what + " " + std::to_string(got) +
                                         ", expected " + std::to_string(expected));
}

}  // namespace

ChunkReceiver::ChunkReceiver(std::uint64_t transfer_id, const ExpectedBlob& expected,
                             std::uint64_t window_bytes)
    : transfer_id_(transfer_id),
      expected_(expected),
      window_bytes_(window_bytes),
      limit_bytes_(window_bytes) {
  CMS_ASSERT(window_bytes_ >= expected_.chunk_size_bytes);
}

wire::Fetch ChunkReceiver::fetch() const {
  wire::Fetch fetch;
  fetch.transfer_id = transfer_id_;
  fetch.checkpoint = expected_.checkpoint;
  fetch.offset_bytes = next_offset_bytes_;
  fetch.limit_bytes = limit_bytes_;
  return fetch;
}

Status ChunkReceiver::on_chunk(const wire::Chunk& chunk, std::size_t frame_size_bytes) {
  if (received_all_ || chunk.offset_bytes < next_offset_bytes_) {
    return make_error(Code::kAlreadyExists, "a chunk that was received before");
  }
  if (chunk.offset_bytes != next_offset_bytes_) return lie("offset", chunk.offset_bytes, next_offset_bytes_);
  if (chunk.size_bytes != frame_size_bytes) return lie("size", chunk.size_bytes, frame_size_bytes);

  if (expected_.checkpoint.version.seq == 0) expected_.checkpoint.version = chunk.version;
  if (chunk.version != expected_.checkpoint.version) {
    return lie("seq", chunk.version.seq, expected_.checkpoint.version.seq);
  }
  if (!expected_.size_bytes) expected_.size_bytes = chunk.blob_size_bytes;
  if (chunk.blob_size_bytes != *expected_.size_bytes) {
    return lie("blob size", chunk.blob_size_bytes, *expected_.size_bytes);
  }
  if (expected_.chunk_size_bytes == 0) expected_.chunk_size_bytes = chunk.chunk_size_bytes;
  if (chunk.chunk_size_bytes != expected_.chunk_size_bytes) {
    return lie("chunk size", chunk.chunk_size_bytes, expected_.chunk_size_bytes);
  }
  const std::uint64_t rest_bytes = *expected_.size_bytes - next_offset_bytes_;
  const std::uint64_t due_bytes = std::min<std::uint64_t>(expected_.chunk_size_bytes, rest_bytes);
  if (chunk.size_bytes != due_bytes) return lie("size", chunk.size_bytes, due_bytes);
  if (chunk.offset_bytes + chunk.size_bytes > limit_bytes_) {
    return lie("end beyond the credit,", chunk.offset_bytes + chunk.size_bytes, limit_bytes_);
  }
  next_offset_bytes_ += chunk.size_bytes;
  if (chunk.last != (next_offset_bytes_ == *expected_.size_bytes)) {
    return lie("end mark at", next_offset_bytes_, *expected_.size_bytes);
  }
  if (chunk.last) {
    received_all_ = true;
    blob_digest_ = chunk.blob_digest;
  }
  return ok_status();
}

std::optional<wire::Credit> ChunkReceiver::on_taken(std::uint64_t size_bytes) {
  taken_bytes_ += size_bytes;
  CMS_ASSERT(taken_bytes_ <= next_offset_bytes_);
  if (received_all_ || (expected_.size_bytes && limit_bytes_ >= *expected_.size_bytes)) return std::nullopt;
  const std::uint64_t wanted = taken_bytes_ + window_bytes_;
  if (wanted - limit_bytes_ < window_bytes_ / 2) return std::nullopt;
  limit_bytes_ = wanted;
  return wire::Credit{transfer_id_, limit_bytes_};
}

}  // namespace cms::broker
