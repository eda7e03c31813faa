#include "storage/rocksdb/row_codec.h"

#include <cstring>
#include <string>
#include <vector>

#include "manifest_generated.h"

namespace cms::storage {
namespace {

constexpr std::uint16_t kRowFormatVersion = 1;
constexpr std::size_t kRowBytesMax = 4096;

Error corrupt(const keys::RowKey& key, const std::string& what) {
  return make_error(Code::kCorrupt, "index row of " + to_string(key.checkpoint) + ": " + what);
}

}  // namespace

void encode_row(const IndexRow& row, flatbuffers::FlatBufferBuilder& builder) {
  builder.Clear();
  const auto program_name = row.program_name.empty() ? 0 : builder.CreateString(row.program_name);
  const fb::Id128 lineage(row.name.lineage.high, row.name.lineage.low);
  const fb::Id128 blob_digest(row.blob_digest.high, row.blob_digest.low);
  fb::IndexRowBuilder fields(builder);
  fields.add_format_version(kRowFormatVersion);
  fields.add_lineage(&lineage);
  fields.add_owner_epoch(row.name.owner_epoch);
  fields.add_uid(row.name.uid);
  fields.add_size_bytes(row.name.size_bytes);
  fields.add_stored_bytes(row.stored_bytes);
  fields.add_stored_at_us(row.stored_at_us);
  fields.add_taken_at_us(row.taken_at_us);
  fields.add_pause_us(row.pause_us);
  if (!row.program_name.empty()) fields.add_program_name(program_name);
  fields.add_blob_digest(&blob_digest);
  fields.add_pinned(row.pinned);
  builder.Finish(fields.Finish());
}

Result<IndexRow> decode_row(const keys::RowKey& key, std::string_view value) {
  if (value.empty() || value.size() > kRowBytesMax) return corrupt(key, "no row is of this length");
  // RocksDB hands out values at any address; the verifier wants 8-byte alignment.
  alignas(8) unsigned char aligned[kRowBytesMax];
  std::memcpy(aligned, value.data(), value.size());
  flatbuffers::Verifier verifier(aligned, value.size());
  if (!verifier.VerifyBuffer<fb::IndexRow>(nullptr)) return corrupt(key, "not a row");
  const auto& fields = *flatbuffers::GetRoot<fb::IndexRow>(aligned);
  if (fields.format_version() > kRowFormatVersion) {
    return make_error(Code::kUnsupported, "index row of " + to_string(key.checkpoint) + " has format " +
                                              std::to_string(fields.format_version()) +
                                              "; this program knows up to " +
                                              std::to_string(kRowFormatVersion));
  }
  if (fields.format_version() == 0) return corrupt(key, "no format version");
  if (fields.lineage() == nullptr || fields.owner_epoch() != key.owner_epoch || fields.uid() != key.uid) {
    return corrupt(key, "not the row of this key");
  }
  IndexRow row;
  row.name.kind = EntryKind::kBlob;
  row.name.checkpoint = key.checkpoint;
  row.name.lineage = Lineage{fields.lineage()->high(), fields.lineage()->low()};
  row.name.owner_epoch = key.owner_epoch;
  row.name.size_bytes = fields.size_bytes();
  row.name.uid = key.uid;
  row.stored_bytes = fields.stored_bytes();
  row.stored_at_us = fields.stored_at_us();
  row.taken_at_us = fields.taken_at_us();
  row.pause_us = fields.pause_us();
  if (fields.program_name() != nullptr) row.program_name = fields.program_name()->str();
  if (fields.blob_digest() != nullptr) {
    row.blob_digest = Digest{fields.blob_digest()->high(), fields.blob_digest()->low()};
  }
  row.pinned = fields.pinned();
  // A damaged row must not bring into an answer what no message could have brought in.
  wire::Notification said;
  said.seq = 1;
  said.size_bytes = row.name.size_bytes;
  said.chunk_size_bytes = wire::kChunkSizeBytesMax;
  said.program_name = row.program_name;
  if (const Status status = wire::check_notification(said); !status.ok()) {
    return corrupt(key, status.error().context);
  }
  return row;
}

}  // namespace cms::storage
