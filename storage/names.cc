#include <algorithm>
#include <cstddef>
#include <string_view>

#include "storage/blob_store.h"

// <mac12>-<program16>-<lineage32>-<epoch16>-<incarnation16>-<seq16>-<size16>-<uid16>.ckpt|.gone|.pin
namespace cms::storage {
namespace {

constexpr std::string_view kBlobSuffix = ".ckpt";
constexpr std::string_view kTombstoneSuffix = ".gone";
constexpr std::string_view kPinSuffix = ".pin";

std::string_view suffix_of(EntryKind kind) {
  switch (kind) {
    case EntryKind::kBlob: return kBlobSuffix;
    case EntryKind::kTombstone: return kTombstoneSuffix;
    case EntryKind::kPin: break;
  }
  return kPinSuffix;
}

void append_hex(std::string& out, std::uint64_t value, int digits) {
  for (int shift = 4 * (digits - 1); shift >= 0; shift -= 4)
    out += "0123456789abcdef"[(value >> shift) & 0xf];
}

// Takes fields off the front of a name; after a mismatch everything fails.
class FieldReader {
 public:
  explicit FieldReader(std::string_view text) : rest_(text) {}

  std::uint64_t hex(std::size_t digits) {
    if (rest_.size() < digits) ok_ = false;
    std::uint64_t value = 0;
    for (std::size_t i = 0; ok_ && i < digits; ++i) {
      const char c = rest_[i];
      if (c >= '0' && c <= '9') {
        value = value << 4 | static_cast<std::uint64_t>(c - '0');
      } else if (c >= 'a' && c <= 'f') {
        value = value << 4 | static_cast<std::uint64_t>(c - 'a' + 10);
      } else {
        ok_ = false;
      }
    }
    if (ok_) rest_.remove_prefix(digits);
    return value;
  }
  void dash() {
    if (ok_ && !rest_.empty() && rest_.front() == '-') {
      rest_.remove_prefix(1);
    } else {
      ok_ = false;
    }
  }
  bool ok() const { return ok_; }
  std::string_view rest() const { return rest_; }

 private:
  std::string_view rest_;
  bool ok_ = true;
};

}  // namespace

bool operator==(const BlobName& a, const BlobName& b) {
  return a.kind == b.kind && a.checkpoint == b.checkpoint && a.lineage == b.lineage &&
         a.owner_epoch == b.owner_epoch && a.size_bytes == b.size_bytes && a.uid == b.uid;
}

std::string to_file_name(const BlobName& name) {
  CMS_ASSERT(name.checkpoint.program.ecu_mac.bits <= kEcuMacBitsMax);
  std::string out;
  out.reserve(160);
  append_hex(out, name.checkpoint.program.ecu_mac.bits, 12);
  out += '-';
  append_hex(out, name.checkpoint.program.program_id, 16);
  out += '-';
  append_hex(out, name.lineage.high, 16);
  append_hex(out, name.lineage.low, 16);
  for (const std::uint64_t field : {name.owner_epoch, name.checkpoint.version.incarnation,
                                    name.checkpoint.version.seq, name.size_bytes, name.uid}) {
    out += '-';
    append_hex(out, field, 16);
  }
  out += suffix_of(name.kind);
  return out;
}

BlobName pin_name_of(const BlobName& blob) {
  BlobName pin = blob;
  pin.kind = EntryKind::kPin;
  pin.size_bytes = 0;
  pin.uid = 0;
  return pin;
}

Result<BlobName> parse_file_name(const std::string& file_name) {
  BlobName name;
  FieldReader reader(file_name);
  name.checkpoint.program.ecu_mac.bits = reader.hex(12);
  reader.dash();
  name.checkpoint.program.program_id = reader.hex(16);
  reader.dash();
  name.lineage.high = reader.hex(16);
  name.lineage.low = reader.hex(16);
  for (std::uint64_t* field : {&name.owner_epoch, &name.checkpoint.version.incarnation,
                               &name.checkpoint.version.seq, &name.size_bytes, &name.uid}) {
    reader.dash();
    *field = reader.hex(16);
  }
  if (reader.ok() && reader.rest() == kBlobSuffix) {
    name.kind = EntryKind::kBlob;
  } else if (reader.ok() && reader.rest() == kTombstoneSuffix) {
    name.kind = EntryKind::kTombstone;
  } else if (reader.ok() && reader.rest() == kPinSuffix) {
    name.kind = EntryKind::kPin;
  } else {
    // Not quoted: it may hold any bytes, and errors are logged.
    return make_error(Code::kCorrupt, "not the name of a stored checkpoint");
  }
  return name;
}

}  // namespace cms::storage
