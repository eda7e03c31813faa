// The FORMAT file of a store.
#include <algorithm>

#include "storage/store_format.h"
#include "test/fuzz/fuzz.h"

bool cms::fuzz::take(const std::uint8_t* data, std::size_t size_bytes) {
  const std::string text(reinterpret_cast<const char*>(data), size_bytes);
  const auto format = storage::decode_format(text);
  if (!format.ok()) {
    expect_printable_error(format.error(), {Code::kCorrupt, Code::kUnsupported}, 512);
    CMS_FUZZ_HOLDS(format.error().context.find("FORMAT: ") == 0, format.error().message());
    return false;
  }
  CMS_FUZZ_HOLDS(format->layout_version >= 1 && format->layout_version <= storage::kLayoutVersion,
                 std::to_string(format->layout_version));
  CMS_FUZZ_HOLDS(format->fleet_id.size() == 32 &&
                     format->fleet_id.find_first_not_of("0123456789abcdef") == std::string::npos,
                 format->fleet_id);
  const std::string again_text = storage::encode_format(*format);
  CMS_FUZZ_HOLDS(again_text.size() <= storage::kFormatBytesMax, again_text);
  const auto again = storage::decode_format(again_text);
  CMS_FUZZ_HOLDS(
      again.ok() && again->layout_version == format->layout_version && again->fleet_id == format->fleet_id,
      again_text);
  return true;
}
