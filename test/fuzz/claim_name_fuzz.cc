// Names of records and of members' files: what is taken is printed as it was, and every name that we print is
// taken.
#include "storage/claim_names.h"
#include "test/fuzz/fuzz.h"

namespace cms::fuzz {
namespace {

void expect_printed_is_parsed(Input input) {
  storage::LogId log;
  log.kind = input.number(1) % 2 == 0 ? storage::LogId::Kind::kLineage : storage::LogId::Kind::kEcu;
  log.id.high = log.kind == storage::LogId::Kind::kEcu ? 0 : input.number(8);
  log.id.low = input.number(8);
  const storage::Slot slot = input.number(8) | 1;
  if (!storage::is_valid_log(log)) return;
  const std::string text = slot_file_name(log, slot);
  CMS_FUZZ_HOLDS(text.size() < 256, text);  // NAME_MAX
  const auto parsed = storage::parse_slot_file_name(text);
  CMS_FUZZ_HOLDS(parsed.ok() && parsed->log == log && parsed->slot == slot, text);
  CMS_FUZZ_HOLDS(storage::log_shard_of(log) < storage::kLogShardCount, text);
  CMS_FUZZ_HOLDS(!storage::parse_member_file_name(text).ok(), text);
}

}  // namespace

bool take(const std::uint8_t* data, std::size_t size_bytes) {
  expect_printed_is_parsed(Input(data, size_bytes));
  const std::string text(reinterpret_cast<const char*>(data), size_bytes);
  const auto slot = storage::parse_slot_file_name(text);
  if (slot.ok()) {
    CMS_FUZZ_HOLDS(slot->slot != 0 && storage::is_valid_log(slot->log), text);
    CMS_FUZZ_HOLDS(slot_file_name(slot->log, slot->slot) == text, text);
  } else {
    expect_printable_error(slot.error(), {Code::kCorrupt}, 512);
  }
  const auto member = storage::parse_member_file_name(text);
  if (member.ok()) {
    CMS_FUZZ_HOLDS(storage::member_file_name(member->node, member->node_incarnation) == text, text);
    CMS_FUZZ_HOLDS(member->node.find('/') == std::string::npos && member->node.front() != '.', text);
  } else {
    expect_printable_error(member.error(), {Code::kCorrupt}, 512);
  }
  CMS_FUZZ_HOLDS(!slot.ok() || !member.ok(), text);
  return slot.ok() || member.ok();
}

}  // namespace cms::fuzz
