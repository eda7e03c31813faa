#include "storage/rocksdb/keys.h"

namespace cms::storage::keys {
namespace {

constexpr std::size_t kRowKeyBytes = 6 + 8 + 4 * 8;

// Epoch, incarnation and seq are complemented: the newest version of a program comes first, in the
// direction in which RocksDB scans best.
void append_row(std::string& out, const RowKey& row) {
  append_be(out, row.checkpoint.program.ecu_mac.bits, 6);
  append_be(out, row.checkpoint.program.program_id, 8);
  append_be(out, ~row.owner_epoch, 8);
  append_be(out, ~row.checkpoint.version.incarnation, 8);
  append_be(out, ~row.checkpoint.version.seq, 8);
  append_be(out, row.uid, 8);
}

std::optional<RowKey> parse_row(std::string_view text) {
  if (text.size() != kRowKeyBytes) return std::nullopt;
  RowKey row;
  row.checkpoint.program.ecu_mac.bits = take_be(text, 6);
  row.checkpoint.program.program_id = take_be(text, 8);
  row.owner_epoch = ~take_be(text, 8);
  row.checkpoint.version.incarnation = ~take_be(text, 8);
  row.checkpoint.version.seq = ~take_be(text, 8);
  row.uid = take_be(text, 8);
  return row;
}

bool take_table(std::string_view& key, Table wanted) {
  if (key.empty() || key.front() != static_cast<char>(wanted)) return false;
  key.remove_prefix(1);
  return true;
}

// The smallest key behind every one that starts with `prefix`.
std::string behind(std::string prefix) {
  while (!prefix.empty() && prefix.back() == '\xff') prefix.pop_back();
  // The first byte is that of a table, never 0xff, so something is left.
  prefix.back() = static_cast<char>(static_cast<unsigned char>(prefix.back()) + 1);
  return prefix;
}

}  // namespace

void append_be(std::string& out, std::uint64_t value, int octets) {
  for (int shift = 8 * (octets - 1); shift >= 0; shift -= 8) out += static_cast<char>(value >> shift);
}

std::uint64_t take_be(std::string_view& text, int octets) {
  std::uint64_t value = 0;
  for (int i = 0; i < octets; ++i)
    value = value << 8 | static_cast<unsigned char>(text[static_cast<std::size_t>(i)]);
  text.remove_prefix(static_cast<std::size_t>(octets));
  return value;
}

RowKey row_key_of(const BlobName& name) { return RowKey{name.checkpoint, name.owner_epoch, name.uid}; }

std::string table(Table table) { return std::string(1, static_cast<char>(table)); }
std::string after_table(Table which) { return behind(table(which)); }

std::string meta(std::string_view name) { return table(Table::kMeta) + std::string(name); }

std::string checkpoint(const RowKey& row) {
  std::string key = table(Table::kCheckpoints);
  append_row(key, row);
  return key;
}

std::string by_age(std::uint64_t stored_at_us, const RowKey& row) {
  std::string key = table(Table::kByAge);
  append_be(key, stored_at_us, 8);
  append_row(key, row);
  return key;
}

std::string program(const ProgramKey& program) {
  std::string key = table(Table::kPrograms);
  append_be(key, program.ecu_mac.bits, 6);
  append_be(key, program.program_id, 8);
  return key;
}

std::string ecu(EcuMac ecu_mac) {
  std::string key = table(Table::kEcus);
  append_be(key, ecu_mac.bits, 6);
  return key;
}

std::string ecu_rows(EcuMac ecu_mac) {
  std::string key = table(Table::kCheckpoints);
  append_be(key, ecu_mac.bits, 6);
  return key;
}

std::string after_ecu_rows(EcuMac ecu_mac) { return behind(ecu_rows(ecu_mac)); }

std::string program_rows(const ProgramKey& program) {
  std::string key = ecu_rows(program.ecu_mac);
  append_be(key, program.program_id, 8);
  return key;
}

std::string after_program_rows(const ProgramKey& program) { return behind(program_rows(program)); }

std::optional<RowKey> parse_checkpoint(std::string_view key) {
  if (!take_table(key, Table::kCheckpoints)) return std::nullopt;
  return parse_row(key);
}

std::optional<RowKey> parse_by_age(std::string_view key) {
  if (!take_table(key, Table::kByAge) || key.size() < 8) return std::nullopt;
  key.remove_prefix(8);
  return parse_row(key);
}

}  // namespace cms::storage::keys
