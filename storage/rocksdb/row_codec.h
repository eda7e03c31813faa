#pragma once
// The value of a row of the index: the FlatBuffer IndexRow of schemas/manifest.fbs, with what its key
// does not say. The one place besides schemas/ that reads a FlatBuffer, and only after its verifier.
#include <string_view>

#include "base/result.h"
#include "storage/checkpoint_index.h"
#include "storage/rocksdb/keys.h"

namespace flatbuffers {
class FlatBufferBuilder;
}

namespace cms::storage {

// Leaves the bytes in `builder`, which is cleared first (kept by the caller to save allocations).
void encode_row(const IndexRow& row, flatbuffers::FlatBufferBuilder& builder);
// kCorrupt: damaged, or the row of another key. kUnsupported: of a newer format.
Result<IndexRow> decode_row(const keys::RowKey& key, std::string_view value);

}  // namespace cms::storage
