#pragma once
// The target of a decoder of schemas/messages.h: what it must do with any bytes.
#include <cstring>
#include <memory>

#include "schemas/samples_test.h"
#include "test/fuzz/fuzz.h"
#include "test/fuzz/limits.h"

namespace cms::fuzz {

// "Message.field: what is wrong", or "Message: …" for what is not about a field.
inline void expect_names_field(const Error& error) {
  const std::string& context = error.context;
  const std::size_t colon = context.find(':');
  CMS_FUZZ_HOLDS(colon != std::string::npos && colon + 2 < context.size(), error.message());
  const std::string name = context.substr(0, colon);
  CMS_FUZZ_HOLDS(name.front() >= 'A' && name.front() <= 'Z', error.message());
  if (name.find('.') != std::string::npos) return;
  for (const char* whole :
       {" bytes (allowed: ", "file identifier '", "not a well-formed FlatBuffer", "codec "}) {
    if (context.find(whole) != std::string::npos) return;
  }
  broken("an error names a field", error.message(), __FILE__, __LINE__);
}

// `refusals`: the codes that it may refuse with. Checks that it answers the same wherever the frame
// stands in memory, that what it takes keeps every limit and survives encode() and itself, and that
// what it refuses has an error that names a field.
template <typename Decode>
bool take_message(Decode decode, std::initializer_list<Code> refusals, const std::uint8_t* data,
                  std::size_t size_bytes) {
  const auto message = decode(data, size_bytes);

  // The frame ends where the memory ends, so that a sanitizer sees a read beyond it.
  const std::size_t shift = 1 + size_bytes % 7;
  const std::unique_ptr<std::uint8_t[]> elsewhere(new std::uint8_t[shift + size_bytes]);
  if (size_bytes > 0) std::memcpy(elsewhere.get() + shift, data, size_bytes);
  const auto shifted = decode(elsewhere.get() + shift, size_bytes);
  CMS_FUZZ_HOLDS(message.ok() == shifted.ok(), "at another alignment");

  if (!message.ok()) {
    expect_printable_error(message.error(), refusals, 1024);
    expect_names_field(message.error());
    CMS_FUZZ_HOLDS(message.error().context == shifted.error().context, shifted.error().message());
    return false;
  }
  CMS_FUZZ_HOLDS(same(*message, *shifted), "at another alignment");
  CMS_FUZZ_HOLDS(fits(*message), "what was taken is beyond a limit");
  const wire::Bytes encoded = wire::encode(*message);  // Asserts the size of the frame.
  const auto again = decode(encoded.data(), encoded.size());
  CMS_FUZZ_HOLDS(again.ok(), again.error().message());
  CMS_FUZZ_HOLDS(same(*message, *again), "after encode and decode");
  CMS_FUZZ_HOLDS(wire::encode(*again) == encoded, "encoded twice");
  return true;
}

}  // namespace cms::fuzz
