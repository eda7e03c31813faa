#include "test/fuzz/message_target.h"

bool cms::fuzz::take(const std::uint8_t* data, std::size_t size_bytes) {
  return take_message(wire::decode_ecu_record, {Code::kCorrupt, Code::kUnsupported}, data, size_bytes);
}
