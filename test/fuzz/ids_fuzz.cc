// Identities as people and continued answers write them: whatever is taken prints as text that means
// the same.
#include "base/ids.h"
#include "test/fuzz/fuzz.h"

namespace cms::fuzz {
namespace {

// The texts are those of the command line, or of messages that were checked; they are quoted whole.
template <typename Value>
bool refused(const Result<Value>& parsed, std::size_t text_bytes) {
  if (parsed.ok()) return false;
  expect_error(parsed.error(), {Code::kInvalidArgument}, text_bytes + 256);
  return true;
}

}  // namespace

bool take(const std::uint8_t* data, std::size_t size_bytes) {
  const std::string_view text(reinterpret_cast<const char*>(data), size_bytes);
  bool taken = false;
  if (const auto id = parse_id128(text); !refused(id, size_bytes)) {
    const auto again = parse_id128(to_string(*id));
    CMS_FUZZ_HOLDS(again.ok() && *again == *id, to_string(*id));
    taken = true;
  }
  if (const auto ecu_mac = parse_ecu_mac(text); !refused(ecu_mac, size_bytes)) {
    CMS_FUZZ_HOLDS(is_valid_ecu_mac(*ecu_mac), to_string(*ecu_mac));
    const auto again = parse_ecu_mac(to_string(*ecu_mac));
    CMS_FUZZ_HOLDS(again.ok() && *again == *ecu_mac, to_string(*ecu_mac));
    taken = true;
  }
  if (const auto number = parse_u64(text); !refused(number, size_bytes)) {
    const auto again = parse_u64(std::to_string(*number));
    CMS_FUZZ_HOLDS(again.ok() && *again == *number, std::to_string(*number));
    CMS_FUZZ_HOLDS(text.find_first_not_of("0123456789") == text.npos, std::string(text));
    taken = true;
  }
  if (const auto key = parse_key(text); !refused(key, size_bytes)) {
    CMS_FUZZ_HOLDS(is_valid_ecu_mac(key->program.ecu_mac), to_string(key->program));
    CMS_FUZZ_HOLDS(!key->has_version || (key->version.incarnation > 0 && key->version.seq > 0),
                   std::string(text));
    const std::string printed =
        key->has_version ? to_string(CheckpointId{key->program, key->version}) : to_string(key->program);
    const auto again = parse_key(printed);
    CMS_FUZZ_HOLDS(again.ok() && again->program == key->program && again->has_version == key->has_version &&
                       again->version == key->version,
                   printed);
    taken = true;
  }
  return taken;
}

}  // namespace cms::fuzz
