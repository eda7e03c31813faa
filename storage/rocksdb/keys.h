#pragma once
// The keys of the index: one byte for the table, then fixed-width big-endian fields, so that the
// order of the keys is the order of the scans (docs/formats/index.md). Pure functions.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "storage/blob_store.h"

namespace cms::storage::keys {

enum class Table : char {
  kMeta = 0x01,         // name -> text
  kCheckpoints = 0x02,  // program, newest version first -> IndexRow
  kByAge = 0x03,        // stored_at_us, then the key of the row -> nothing
  kPrograms = 0x04,     // program -> withdrawn up to
  kEcus = 0x05,         // ecu_mac -> largest incarnation
};

// What the key of a row says; everything else of the row is in its value.
struct RowKey {
  CheckpointId checkpoint{};
  OwnerEpoch owner_epoch = 0;
  std::uint64_t uid = 0;
};
RowKey row_key_of(const BlobName& name);

std::string table(Table table);        // Before every key of the table.
std::string after_table(Table table);  // Behind every key of the table.
std::string meta(std::string_view name);
std::string checkpoint(const RowKey& row);
std::string by_age(std::uint64_t stored_at_us, const RowKey& row);
std::string program(const ProgramKey& program);
std::string ecu(EcuMac ecu_mac);

// Bounds of scans: before every row of the ECU or program, and behind all of them.
std::string ecu_rows(EcuMac ecu_mac);
std::string after_ecu_rows(EcuMac ecu_mac);
std::string program_rows(const ProgramKey& program);
std::string after_program_rows(const ProgramKey& program);

// nullopt: not a key of that table.
std::optional<RowKey> parse_checkpoint(std::string_view key);
// The checkpoint key behind the time.
std::optional<RowKey> parse_by_age(std::string_view key);

void append_be(std::string& out, std::uint64_t value, int octets);
std::uint64_t take_be(std::string_view& text, int octets);  // `text` has at least that many

}  // namespace cms::storage::keys
