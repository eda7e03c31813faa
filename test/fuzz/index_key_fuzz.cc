// The keys of the index: any bytes as a key, and the order of two keys made of them.
#include <tuple>

#include "storage/rocksdb/keys.h"
#include "test/fuzz/fuzz.h"

namespace cms::fuzz {
namespace {

namespace keys = storage::keys;

bool operator==(const keys::RowKey& a, const keys::RowKey& b) {
  return a.checkpoint == b.checkpoint && a.owner_epoch == b.owner_epoch && a.uid == b.uid;
}

// By program; within one the newest first.
bool before(const keys::RowKey& a, const keys::RowKey& b) {
  const auto& [a_program, a_version] = a.checkpoint;
  const auto& [b_program, b_version] = b.checkpoint;
  return std::tie(a_program, b.owner_epoch, b_version, a.uid) <
         std::tie(b_program, a.owner_epoch, a_version, b.uid);
}

keys::RowKey row_of(Input& input) {
  keys::RowKey row;
  row.checkpoint.program = ProgramKey{EcuMac{input.number(6)}, input.number(8)};
  row.owner_epoch = input.number(8);
  row.checkpoint.version.incarnation = input.number(8);
  row.checkpoint.version.seq = input.number(8);
  row.uid = input.number(8);
  return row;
}

void expect_bounds(const keys::RowKey& row) {
  const std::string key = keys::checkpoint(row);
  const ProgramKey& program = row.checkpoint.program;
  CMS_FUZZ_HOLDS(
      keys::table(keys::Table::kCheckpoints) < key && key < keys::after_table(keys::Table::kCheckpoints),
      "table");
  CMS_FUZZ_HOLDS(keys::ecu_rows(program.ecu_mac) <= key && key < keys::after_ecu_rows(program.ecu_mac),
                 "ecu");
  CMS_FUZZ_HOLDS(keys::program_rows(program) <= key && key < keys::after_program_rows(program), "program");
}

}  // namespace

bool take(const std::uint8_t* data, std::size_t size_bytes) {
  Input input(data, size_bytes);
  const keys::RowKey a = row_of(input);
  const keys::RowKey b = row_of(input);
  const std::uint64_t a_time = input.number(8);
  const std::uint64_t b_time = input.number(8);
  for (const keys::RowKey& row : {a, b}) {
    const auto parsed = keys::parse_checkpoint(keys::checkpoint(row));
    CMS_FUZZ_HOLDS(parsed.has_value() && *parsed == row, to_string(row.checkpoint));
    const auto aged = keys::parse_by_age(keys::by_age(a_time, row));
    CMS_FUZZ_HOLDS(aged.has_value() && *aged == row, to_string(row.checkpoint));
    expect_bounds(row);
  }
  CMS_FUZZ_HOLDS((keys::checkpoint(a) < keys::checkpoint(b)) == before(a, b), "order of rows");
  const bool older = a_time < b_time || (a_time == b_time && before(a, b));
  CMS_FUZZ_HOLDS((keys::by_age(a_time, a) < keys::by_age(b_time, b)) == older, "order by age");
  const std::string rows_end = keys::after_program_rows(a.checkpoint.program);
  CMS_FUZZ_HOLDS(a.checkpoint.program == b.checkpoint.program ||
                     (keys::checkpoint(b) < keys::program_rows(a.checkpoint.program)) ||
                     rows_end <= keys::checkpoint(b),
                 "another program among the rows of one");

  // The same bytes as keys from a disk.
  const std::string key(reinterpret_cast<const char*>(data), size_bytes);
  const auto row = keys::parse_checkpoint(key);
  CMS_FUZZ_HOLDS(!row.has_value() || keys::checkpoint(*row) == key, "key of a row");
  const auto aged = keys::parse_by_age(key);
  if (aged.has_value()) {
    std::string_view rest = std::string_view(key).substr(1);
    const std::uint64_t time = keys::take_be(rest, 8);
    CMS_FUZZ_HOLDS(keys::by_age(time, *aged) == key, "key of an age");
  }
  return row.has_value() || aged.has_value();
}

}  // namespace cms::fuzz
