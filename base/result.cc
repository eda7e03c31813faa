#include "base/result.h"

#include <cerrno>
#include <system_error>

namespace cms {

std::string_view to_string(Code code) {
  switch (code) {
    case Code::kOk: return "ok";
    case Code::kInvalidArgument: return "invalid argument";
    case Code::kNotFound: return "not found";
    case Code::kAlreadyExists: return "already exists";
    case Code::kUnavailable: return "unavailable";
    case Code::kIo: return "i/o error";
    case Code::kNoSpace: return "no space";
    case Code::kQuota: return "quota exceeded";
    case Code::kCorrupt: return "corrupt";
    case Code::kReadOnly: return "read-only";
    case Code::kPermission: return "permission denied";
    case Code::kForeign: return "foreign";
    case Code::kUnsupported: return "unsupported";
    case Code::kLimit: return "limit reached";
    case Code::kSuperseded: return "superseded";
    case Code::kFenced: return "fenced";
    case Code::kSourceChanged: return "source changed";
    case Code::kTimeout: return "timeout";
    case Code::kCancelled: return "cancelled";
    case Code::kProtocol: return "protocol violation";
    case Code::kWithdrawn: return "withdrawn";
    case Code::kPublisherGone: return "publisher gone";
  }
  return "unknown code";
}

std::string Error::message() const {
  std::string text(to_string(code));
  if (!context.empty()) text += ": " + context;
  if (os_errno != 0) text += ": " + std::generic_category().message(os_errno);
  return text;
}

namespace {

Code code_from_errno(int os_errno) {
  switch (os_errno) {
    case ENOSPC: return Code::kNoSpace;
    case EDQUOT: return Code::kQuota;
    case ENOENT:
    case ENOTDIR: return Code::kNotFound;
    case EEXIST: return Code::kAlreadyExists;
    case EROFS: return Code::kReadOnly;
    case EACCES:
    case EPERM: return Code::kPermission;
    case EINVAL:
    case ENAMETOOLONG: return Code::kInvalidArgument;
    case EMFILE:
    case ENFILE:
    case ENOMEM: return Code::kLimit;
    case ESTALE:
    case EAGAIN:
    case ETIMEDOUT:
    case ECONNREFUSED: return Code::kUnavailable;
    default: return Code::kIo;
  }
}

}  // namespace

Error error_from_errno(int os_errno, std::string context) {
  return Error{code_from_errno(os_errno), os_errno, std::move(context)};
}

}  // namespace cms
