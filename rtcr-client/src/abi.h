#pragma once
// What crosses the C ABI: structs of other versions of the header, texts, identities, and the facts of a
// checkpoint in either direction.
//
// Threads: pure functions.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "rtcr-client/src/mover.h"
#include "rtcr-client/src/restorer.h"
#include "rtcr-client/src/stopper.h"
#include "rtcr/rtcr.h"
#include "schemas/messages.h"

namespace cms::client {

inline constexpr std::uint32_t kStructSizeMax = 64 * 1024;

// The size that the struct had in its first version, which older callers give.
template <typename T>
inline constexpr std::size_t kFirstSize = sizeof(T);
template <>
inline constexpr std::size_t kFirstSize<rtcr_options> = offsetof(rtcr_options, restore);
template <>
inline constexpr std::size_t kFirstSize<rtcr_checkpoint> = offsetof(rtcr_checkpoint, tight);

template <typename T>
Status check_struct(const T* given, const char* name) {
  if (given == nullptr) return make_error(Code::kInvalidArgument, std::string(name) + ": it is NULL");
  const std::uint32_t size = given->struct_size;
  if (size >= kFirstSize<T> && size <= kStructSizeMax) return ok_status();
  return make_error(Code::kInvalidArgument, std::string(name) + ".struct_size: " + std::to_string(size) +
                                                " (allowed: the size of the struct, at least " +
                                                std::to_string(kFirstSize<T>) + "; use " + name + "_init())");
}

// Takes the fields that both sides know; those that only we know become zero.
template <typename T>
Result<T> read_struct(const T* given, const char* name) {
  if (Status usable = check_struct(given, name); !usable.ok()) return std::move(usable).error();
  const std::uint32_t size = given->struct_size;
  const auto* bytes = reinterpret_cast<const unsigned char*>(given);
  if (size > sizeof(T) &&
      std::any_of(bytes + sizeof(T), bytes + size, [](unsigned char byte) { return byte != 0; })) {
    return make_error(Code::kUnsupported, std::string(name) + ": a field is set that version " +
                                              rtcr_version() + " of the library does not know");
  }
  T value{};
  std::memcpy(&value, given, std::min<std::size_t>(size, sizeof(T)));
  return value;
}

// Gives the fields that both sides know; what only the caller knows becomes zero. `target` has passed
// check_struct.
template <typename T>
void write_struct(T* target, T value) {
  const std::uint32_t size = target->struct_size;
  value.struct_size = size;
  *target = value;
  auto* bytes = reinterpret_cast<unsigned char*>(target);
  std::fill(bytes + sizeof(T), bytes + size, static_cast<unsigned char>(0));
}

// "FIELD: VALUE (allowed: ALLOWED)"
Error not_allowed(const char* field, const std::string& value, const std::string& allowed);
Error in_field(const char* field, Error error);
// Empty for NULL.
std::string text_of(const char* text);
// Cut to fit, not in the middle of a UTF-8 character; ends with a zero.
void copy_text(char* target, std::size_t target_size, std::string_view text);
Id128 id_from(const std::uint8_t (&octets)[16]);
void id_to(const Id128& id, std::uint8_t* octets);

// kInvalidArgument names the field; check_notification() looks at the rest.
Result<wire::Notification> notification_of(const rtcr_checkpoint& given);

// What is known of a checkpoint, for a callback. `labels` gets what the result points to.
rtcr_checkpoint checkpoint_of(const wire::Notification& notification, std::vector<const char*>& labels);

// kInvalidArgument, kUnsupported: as rtcr_open says.
Result<TargetOptions> target_options_of(const rtcr_restore_handler& given);
Result<MoveOptions> move_options_of(const rtcr_move_handler& given);
Result<LeaseOptions> lease_options_of(const rtcr_lease_handler& given);

}  // namespace cms::client
