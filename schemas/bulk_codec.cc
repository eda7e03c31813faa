#include "bulk_generated.h"
#include "schemas/common_codec.h"

namespace cms::wire {
namespace {

using internal::Builder;
using internal::Offset;

struct Body {
  fb::BulkBody type;
  Offset<void> table;
};

Body write(Builder& builder, const Fetch& fetch) {
  const CheckpointId& id = fetch.checkpoint;
  return {fb::BulkBody::Fetch,
          fb::CreateFetch(builder, fetch.transfer_id, id.program.ecu_mac.bits, id.program.program_id,
                          id.version.incarnation, id.version.seq, fetch.offset_bytes, fetch.limit_bytes)
              .Union()};
}

Body write(Builder& builder, const Credit& credit) {
  return {fb::BulkBody::Credit, fb::CreateCredit(builder, credit.transfer_id, credit.limit_bytes).Union()};
}

Body write(Builder& builder, const Cancel& cancel) {
  return {fb::BulkBody::Cancel, fb::CreateCancel(builder, cancel.transfer_id).Union()};
}

Body write(Builder& builder, const Chunk& chunk) {
  const fb::Id128 digest = internal::write_id128(chunk.digest);
  const fb::Id128 blob_digest = internal::write_id128(chunk.blob_digest);
  fb::ChunkBuilder table(builder);
  table.add_transfer_id(chunk.transfer_id);
  table.add_offset_bytes(chunk.offset_bytes);
  table.add_size_bytes(chunk.size_bytes);
  table.add_digest(&digest);
  table.add_incarnation(chunk.version.incarnation);
  table.add_seq(chunk.version.seq);
  table.add_blob_size_bytes(chunk.blob_size_bytes);
  table.add_chunk_size_bytes(chunk.chunk_size_bytes);
  table.add_last(chunk.last);
  if (chunk.blob_digest != Digest{}) table.add_blob_digest(&blob_digest);
  return {fb::BulkBody::Chunk, table.Finish().Union()};
}

Body write(Builder& builder, const TransferError& error) {
  const auto context = internal::write_text(builder, internal::cleaned_free_text(error.context));
  return {fb::BulkBody::TransferError,
          fb::CreateTransferError(builder, error.transfer_id, static_cast<std::uint16_t>(error.code), context)
              .Union()};
}

BulkBody read(const fb::Fetch& table) {
  return Fetch{table.transfer_id(),
               CheckpointId{ProgramKey{EcuMac{table.ecu_mac()}, table.program_id()},
                            Version{table.incarnation(), table.seq()}},
               table.offset_bytes(), table.limit_bytes()};
}

BulkBody read(const fb::Chunk& table) {
  Chunk chunk;
  chunk.transfer_id = table.transfer_id();
  chunk.offset_bytes = table.offset_bytes();
  chunk.size_bytes = table.size_bytes();
  chunk.digest = internal::read_id128(table.digest());
  chunk.version = Version{table.incarnation(), table.seq()};
  chunk.blob_size_bytes = table.blob_size_bytes();
  chunk.chunk_size_bytes = table.chunk_size_bytes();
  chunk.last = table.last();
  chunk.blob_digest = internal::read_id128(table.blob_digest());
  return chunk;
}

BulkBody read(const fb::TransferError& table) {
  return TransferError{table.transfer_id(), static_cast<Code>(table.code()),
                       internal::read_text(table.context(), kReasonBytesMax)};
}

}  // namespace

Bytes encode(const BulkBody& message) {
  internal::assert_sendable(message);
  Builder builder(1024);
  const Body body = std::visit([&](const auto& alternative) { return write(builder, alternative); }, message);
  const auto root = fb::CreateBulkMessage(builder, body.type, body.table);
  return internal::finished(builder, root, fb::BulkMessageIdentifier(), kControlFrameBytesMax);
}

Result<BulkBody> decode_bulk(const void* data, std::size_t size_bytes) {
  Status envelope = internal::check_envelope("BulkMessage", fb::BulkMessageIdentifier(), data, size_bytes,
                                             kControlFrameBytesMax);
  if (!envelope.ok()) return std::move(envelope).error();
  const internal::AlignedFrame frame(data, size_bytes);
  const auto* root = internal::verified_root<fb::BulkMessage>(frame, fb::BulkMessageIdentifier());
  if (root == nullptr) return internal::malformed("BulkMessage");

  if (const auto* chunk = root->body_as_Chunk()) return internal::checked(read(*chunk));
  if (const auto* credit = root->body_as_Credit()) {
    return internal::checked(BulkBody(Credit{credit->transfer_id(), credit->limit_bytes()}));
  }
  if (const auto* fetch = root->body_as_Fetch()) return internal::checked(read(*fetch));
  if (const auto* cancel = root->body_as_Cancel()) {
    return internal::checked(BulkBody(Cancel{cancel->transfer_id()}));
  }
  if (const auto* error = root->body_as_TransferError()) return internal::checked(read(*error));
  return internal::unknown_body("BulkMessage", static_cast<unsigned>(root->body_type()));
}

}  // namespace cms::wire
