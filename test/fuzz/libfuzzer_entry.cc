// What libFuzzer calls. Always 0: other values are not for us to return in clang 14.
#include "test/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size_bytes);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size_bytes) {
  (void)cms::fuzz::take(data, size_bytes);
  return 0;
}
