#pragma once
// What every fuzz target is made of. A target is one function, take(); libFuzzer calls it with inputs
// of its own (preset asan), or replay_main.cc with the files of the corpus (every other preset).
//
// A broken property ends the process, so that libFuzzer keeps the input; it never returns an error.
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace cms::fuzz {

// Feeds one input to the parser and checks what it promises. True: it was taken; false: refused.
bool take(const std::uint8_t* data, std::size_t size_bytes);

[[noreturn]] void broken(const char* expression, const std::string& detail, const char* file, int line);

// `detail` (a string) is evaluated only when the property is broken.
#define CMS_FUZZ_HOLDS(expression, detail) \
  (static_cast<bool>(expression) ? void(0) : ::cms::fuzz::broken(#expression, detail, __FILE__, __LINE__))

// UTF-8 without control characters. Written anew: schemas/checks.cc is what is to be tested.
bool is_printable(std::string_view text);

// An error that tells its reader enough: of one of these codes, not empty, not longer than
// `bytes_max`.
void expect_error(const Error& error, std::initializer_list<Code> codes, std::size_t bytes_max);
// The same of an error about bytes of a peer or a disk: it is logged, so it must be printable as well.
void expect_printable_error(const Error& error, std::initializer_list<Code> codes, std::size_t bytes_max);

// Takes numbers off the front of an input; zeros when there is nothing left.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size_bytes)
      : rest_(reinterpret_cast<const char*>(data), size_bytes) {}

  std::uint64_t number(std::size_t octets) {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < octets; ++i) {
      value = value << 8 | (rest_.empty() ? 0U : static_cast<unsigned char>(rest_.front()));
      if (!rest_.empty()) rest_.remove_prefix(1);
    }
    return value;
  }
  std::string_view rest() const { return rest_; }

 private:
  std::string_view rest_;
};

}  // namespace cms::fuzz
