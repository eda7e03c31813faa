#pragma once
// Result<T> and Status carry expected failures (a peer, a disk, an input), in the shape of
// std::expected. Our own bugs are CMS_ASSERTs; exceptions of libraries end in the adapter that
// called them.
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "base/assert.h"

namespace cms {

// What went wrong, by what the caller can do about it. The numbers are for ever: they cross the
// wire (Receipt.code, AdminAnswer.code) and stand in logs. Never reuse one.
enum class Code : std::uint16_t {
  kOk = 0,
  kInvalidArgument = 1,  // The caller's input is wrong; change it.
  kNotFound = 2,         // It does not exist (any more).
  kAlreadyExists = 3,    // It exists; nothing was changed.
  kUnavailable = 4,      // The other side cannot be reached now; retry later.
  kIo = 5,               // The medium failed; retrying may help, an operator should look.
  kNoSpace = 6,          // The store is full; free space, then retry.
  kQuota = 7,            // A quota is used up; raise it, then retry.
  kCorrupt = 8,          // Bytes do not match their digest or form; do not use them.
  kReadOnly = 9,         // The store does not accept writes.
  kPermission = 10,      // We are not allowed to.
  kForeign = 11,         // A store, file or peer of somebody else; nothing was touched.
  kUnsupported = 12,     // A newer format or protocol than this program knows.
  kLimit = 13,           // A documented limit was reached; nothing was taken in.
  kSuperseded = 14,      // A newer checkpoint of the program took its place.
  kFenced = 15,          // The sender's owner_epoch is older than the lineage's.
  kSourceChanged = 16,   // The publisher's file or memory changed while it was read.
  kTimeout = 17,         // It did not end in the time allowed.
  kCancelled = 18,       // The caller gave up.
  kProtocol = 19,        // The peer broke the protocol.
  kWithdrawn = 20,       // The program was withdrawn or retired.
  kPublisherGone = 21,   // The session that held the blob has ended.
};

// The lower-case word of a code, as logs, receipts and JSON show it ("no space").
std::string_view to_string(Code code);

struct [[nodiscard]] Error {
  Code code = Code::kInvalidArgument;
  int os_errno = 0;       // The errno behind it, 0 when there is none.
  std::string context{};  // What was tried, on what, and what would have been allowed.

  // "no space: write /store/tmp/a.1/f: No space left on device"
  std::string message() const;
};

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT: like expected
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  T& value() & {
    CMS_ASSERT(ok());
    return std::get<0>(state_);
  }
  const T& value() const& {
    CMS_ASSERT(ok());
    return std::get<0>(state_);
  }
  T&& value() && {
    CMS_ASSERT(ok());
    return std::get<0>(std::move(state_));
  }
  const Error& error() const& {
    CMS_ASSERT(!ok());
    return std::get<1>(state_);
  }
  Error&& error() && {
    CMS_ASSERT(!ok());
    return std::get<1>(std::move(state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  std::variant<T, Error> state_;
};

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Error error) : failed_(true), error_(std::move(error)) {}  // NOLINT: like expected

  bool ok() const { return !failed_; }
  explicit operator bool() const { return ok(); }
  Code code() const { return failed_ ? error_.code : Code::kOk; }
  const Error& error() const& {
    CMS_ASSERT(failed_);
    return error_;
  }
  Error&& error() && {
    CMS_ASSERT(failed_);
    return std::move(error_);
  }

 private:
  bool failed_ = false;
  Error error_{};
};

inline Status ok_status() { return Status(); }
inline Error make_error(Code code, std::string context) { return Error{code, 0, std::move(context)}; }
// An Error for a failed system call: picks the code from `os_errno` (ENOSPC: kNoSpace, EDQUOT:
// kQuota, ENOENT: kNotFound, EROFS: kReadOnly, EACCES and EPERM: kPermission, …; else kIo).
Error error_from_errno(int os_errno, std::string context);

}  // namespace cms
