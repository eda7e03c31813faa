#include "test/fuzz/fuzz.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace cms::fuzz {

void broken(const char* expression, const std::string& detail, const char* file, int line) {
  std::fprintf(stderr, "%s:%d: broken property: %s\n  %s\n", file, line, expression, detail.c_str());
  std::abort();
}

bool is_printable(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto at = [&](std::size_t k) {
      return i + k < text.size() ? static_cast<unsigned char>(text[i + k]) : 0U;
    };
    const auto tail = [&](std::size_t k) { return (at(k) & 0xc0) == 0x80; };
    std::uint32_t character = at(0);
    std::size_t bytes = 1;
    std::uint32_t first = 0x20;
    if (character < 0x80) {
    } else if ((character & 0xe0) == 0xc0 && tail(1)) {
      character = (character & 0x1f) << 6 | (at(1) & 0x3f);
      bytes = 2;
      first = 0xa0;  // 0x80 to 0x9f are controls
    } else if ((character & 0xf0) == 0xe0 && tail(1) && tail(2)) {
      character = (character & 0x0f) << 12 | (at(1) & 0x3f) << 6 | (at(2) & 0x3f);
      bytes = 3;
      first = 0x800;
    } else if ((character & 0xf8) == 0xf0 && tail(1) && tail(2) && tail(3)) {
      character = (character & 0x07) << 18 | (at(1) & 0x3f) << 12 | (at(2) & 0x3f) << 6 | (at(3) & 0x3f);
      bytes = 4;
      first = 0x10000;
    } else {
      return false;
    }
    const bool surrogate = character >= 0xd800 && character < 0xe000;
    if (character < first || character == 0x7f || surrogate || character > 0x10ffff) return false;
    i += bytes;
  }
  return true;
}

void expect_error(const Error& error, std::initializer_list<Code> codes, std::size_t bytes_max) {
  CMS_FUZZ_HOLDS(std::find(codes.begin(), codes.end(), error.code) != codes.end(), error.message());
  CMS_FUZZ_HOLDS(!error.context.empty() && error.context.size() <= bytes_max, error.message());
}

void expect_printable_error(const Error& error, std::initializer_list<Code> codes, std::size_t bytes_max) {
  expect_error(error, codes, bytes_max);
  CMS_FUZZ_HOLDS(is_printable(error.context), error.message());
}

}  // namespace cms::fuzz
