#pragma once
// Internal to schemas/: what the codecs of the four channels and of the records share.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include <flatbuffers/flatbuffers.h>

#include "base/result.h"
#include "common_generated.h"
#include "schemas/checks.h"
#include "schemas/messages.h"

namespace cms::wire::internal {

using Builder = flatbuffers::FlatBufferBuilder;
template <typename T>
using Offset = flatbuffers::Offset<T>;

// A frame where FlatBuffers may read it: libzmq delivers frames at odd addresses, a file's footer
// stands anywhere. Copies only what is not aligned; refers to the caller's bytes otherwise.
class AlignedFrame {
 public:
  AlignedFrame(const void* data, std::size_t size_bytes);
  AlignedFrame(const AlignedFrame&) = delete;
  AlignedFrame& operator=(const AlignedFrame&) = delete;

  const std::uint8_t* data() const { return data_; }
  std::size_t size_bytes() const { return size_bytes_; }

 private:
  std::unique_ptr<std::uint64_t[]> copy_{};
  const std::uint8_t* data_;
  std::size_t size_bytes_;
};

// kProtocol unless `size_bytes` is possible for a `message` and its file identifier is there.
Status check_envelope(std::string_view message, const char* identifier, const void* data,
                      std::size_t size_bytes, std::size_t size_bytes_max);
Error malformed(std::string_view message);
Error unknown_body(std::string_view message, unsigned type);

// The verified root, in `frame`; null when the verifier refuses. After check_envelope only.
template <typename Root>
const Root* verified_root(const AlignedFrame& frame, const char* identifier) {
  constexpr flatbuffers::uoffset_t kDepthMax = 8;  // The schemas nest 5 deep.
  // A full page of Programs has 2 + 512, a full ListPage 2 + 60 x 4.
  constexpr flatbuffers::uoffset_t kTableCountMax = 640;
  static_assert(
      2 + kProgramsPageCountMax + 1 <= kTableCountMax && 2 + kListPageCountMax * 4 <= kTableCountMax,
      "full pages pass, and one more is refused for what it is");
  flatbuffers::Verifier verifier(frame.data(), frame.size_bytes(), kDepthMax, kTableCountMax);
  return verifier.VerifyBuffer<Root>(identifier) ? flatbuffers::GetRoot<Root>(frame.data()) : nullptr;
}

// `value` when it keeps its limits, else what is wrong with it, as `code`.
template <typename T>
Result<T> checked(T value, Code code = Code::kProtocol) {
  Status status = check(value, Side::kReceiver);
  if (status.ok()) return Result<T>(std::move(value));
  Error error = std::move(status).error();
  error.code = code;
  return error;
}

template <typename T>
void assert_sendable(const T& value) {
  CMS_ASSERT(check(value, Side::kSender).ok());
}

template <typename Root>
Bytes finished(Builder& builder, Offset<Root> root, const char* identifier, std::size_t size_bytes_max) {
  builder.Finish(root, identifier);
  CMS_ASSERT(builder.GetSize() <= size_bytes_max);
  return Bytes(builder.GetBufferPointer(), builder.GetBufferPointer() + builder.GetSize());
}

// Copies one byte more than allowed at most, enough for the check to refuse it: the offsets of a
// hostile frame may name one long string many times.
std::string read_text(const flatbuffers::String* text, std::size_t bytes_max);
// Empty text is not written at all.
Offset<flatbuffers::String> write_text(Builder& builder, std::string_view text);

// Element `i` of a vector, copied: the verifier checks that such a vector lies within the frame, but
// not that its elements are aligned.
template <typename Struct>
Struct element_at(const flatbuffers::Vector<const Struct*>& structs, std::size_t i) {
  Struct copy;
  std::memcpy(&copy, structs.Data() + i * sizeof(Struct), sizeof(Struct));
  return copy;
}
inline std::uint64_t element_at(const flatbuffers::Vector<std::uint64_t>& numbers, std::size_t i) {
  std::uint64_t copy = 0;
  std::memcpy(&copy, numbers.Data() + i * sizeof(copy), sizeof(copy));
  return flatbuffers::EndianScalar(copy);
}

inline Id128 read_id128(const fb::Id128* id) {
  return id == nullptr ? Id128{} : Id128{id->high(), id->low()};
}
inline fb::Id128 write_id128(const Id128& id) { return fb::Id128(id.high, id.low); }

Result<Notification> read_notification(const fb::Notification& table);
Offset<fb::Notification> write_notification(Builder& builder, const Notification& notification);

}  // namespace cms::wire::internal
