#pragma once
// Internal to schemas/: the limits of every message, checked on its plain value. decode_* checks
// what it has read, encode() asserts the same before it writes, so the two cannot differ.
// Errors: kInvalidArgument, "Message.field: value (what is allowed)"; decode_* changes the code.
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "schemas/claim_record.h"
#include "schemas/ecu_record.h"
#include "schemas/member_record.h"
#include "schemas/messages.h"

namespace cms::wire::internal {

// The sender's free text is not checked: encode() cuts and cleans it.
enum class Side { kSender, kReceiver };

// Checks the fields of one message and keeps the first that breaks a limit.
class Checker {
 public:
  Checker(std::string_view message, Side side) : message_(message), side_(side) {}

  void that(bool holds, std::string_view field, std::uint64_t value, std::string_view allowed);
  void in_range(std::string_view field, std::uint64_t value, std::uint64_t min, std::uint64_t max);
  template <typename Enum>
  void enumerator(std::string_view field, Enum value, Enum last) {
    in_range(field, static_cast<std::uint64_t>(value), 0, static_cast<std::uint64_t>(last));
  }
  void code(Code value);
  void ecu_mac(EcuMac value);
  void chunk_size(std::uint32_t value);
  // Printable UTF-8 of at most `bytes_max` bytes.
  void text(std::string_view field, std::string_view value, std::size_t bytes_max);
  void free_text(std::string_view field, std::string_view value);

  Status status() const { return status_; }

 private:
  void fail(std::string_view field, const std::string& problem);

  std::string_view message_;
  Side side_;
  Status status_{};
};

Status check(const Notification& notification, Side side);
Status check(const NotifyMessage& message, Side side);
Status check(const ControlMessage& message, Side side);
Status check(const BulkBody& message, Side side);
Status check(const AdminBody& message, Side side);
Status check(const PeerMessage& message, Side side);
Status check(const Manifest& manifest, Side side);
Status check(const ClaimRecord& record, Side side);
Status check(const MemberRecord& record, Side side);
Status check(const EcuRecord& record, Side side);

// `text` with everything that is not printable UTF-8 replaced by '?', and cut, between characters,
// to `bytes_max`.
std::string cleaned_free_text(std::string_view text, std::size_t bytes_max = kReasonBytesMax);

}  // namespace cms::wire::internal
