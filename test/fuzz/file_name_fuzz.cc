// Names of stored files: what is taken is printed as it was, and every name that we print is taken.
#include "storage/blob_store.h"
#include "test/fuzz/fuzz.h"

namespace cms::fuzz {
namespace {

void expect_printed_is_parsed(Input input) {
  storage::BlobName name;
  name.kind = static_cast<storage::EntryKind>(input.number(1) % 3);
  name.checkpoint.program = ProgramKey{EcuMac{input.number(6)}, input.number(8)};
  name.checkpoint.version.incarnation = input.number(8);
  name.checkpoint.version.seq = input.number(8);
  name.lineage.high = input.number(8);
  name.lineage.low = input.number(8);
  name.owner_epoch = input.number(8);
  name.size_bytes = input.number(8);
  name.uid = input.number(8);
  const std::string text = to_file_name(name);
  CMS_FUZZ_HOLDS(text.size() < 256, text);  // NAME_MAX
  const auto parsed = storage::parse_file_name(text);
  CMS_FUZZ_HOLDS(parsed.ok() && *parsed == name, text);
}

}  // namespace

bool take(const std::uint8_t* data, std::size_t size_bytes) {
  expect_printed_is_parsed(Input(data, size_bytes));
  const std::string text(reinterpret_cast<const char*>(data), size_bytes);
  const auto name = storage::parse_file_name(text);
  if (!name.ok()) {
    expect_printable_error(name.error(), {Code::kCorrupt}, 512);
    return false;
  }
  CMS_FUZZ_HOLDS(to_file_name(*name) == text, text);
  CMS_FUZZ_HOLDS(storage::shard_of(name->lineage) < storage::kShardCount, text);
  return true;
}

}  // namespace cms::fuzz
