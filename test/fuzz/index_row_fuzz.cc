// A row of the index: the 47 bytes of its key, then its value.
#include <algorithm>

#include "flatbuffers/flatbuffers.h"
#include "storage/rocksdb/row_codec.h"
#include "test/fuzz/fuzz.h"
#include "test/fuzz/limits.h"

bool cms::fuzz::take(const std::uint8_t* data, std::size_t size_bytes) {
  constexpr std::size_t kKeyBytes = 47;
  if (size_bytes < kKeyBytes) return false;
  const char* bytes = reinterpret_cast<const char*>(data);
  const auto key = storage::keys::parse_checkpoint({bytes, kKeyBytes});
  if (!key.has_value()) return false;
  // A copy of its own, so that a sanitizer sees a read before its start as well.
  const std::vector<char> value(bytes + kKeyBytes, bytes + size_bytes);
  const auto row = storage::decode_row(*key, {value.data(), value.size()});
  if (!row.ok()) {
    expect_printable_error(row.error(), {Code::kCorrupt, Code::kUnsupported}, 1024);
    CMS_FUZZ_HOLDS(row.error().context.find(to_string(key->checkpoint)) != std::string::npos,
                   row.error().message());
    return false;
  }
  CMS_FUZZ_HOLDS(row->name.checkpoint == key->checkpoint && row->name.owner_epoch == key->owner_epoch &&
                     row->name.uid == key->uid && row->name.kind == storage::EntryKind::kBlob,
                 to_string(key->checkpoint));
  CMS_FUZZ_HOLDS(row->name.size_bytes <= wire::kBlobSizeBytesMax, std::to_string(row->name.size_bytes));
  CMS_FUZZ_HOLDS(name_fits(row->program_name), row->program_name);

  flatbuffers::FlatBufferBuilder builder;
  storage::encode_row(*row, builder);
  const auto again = storage::decode_row(
      *key, {reinterpret_cast<const char*>(builder.GetBufferPointer()), builder.GetSize()});
  CMS_FUZZ_HOLDS(again.ok(), again.error().message());
  const auto& [name, stored_bytes, stored_at, taken_at, pause, program_name, blob_digest, pinned] = *row;
  CMS_FUZZ_HOLDS(name == again->name && stored_bytes == again->stored_bytes &&
                     stored_at == again->stored_at_us && taken_at == again->taken_at_us &&
                     pause == again->pause_us && program_name == again->program_name &&
                     blob_digest == again->blob_digest && pinned == again->pinned,
                 "after encode and decode");
  return true;
}
