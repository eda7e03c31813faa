#pragma once
// CMS_ASSERT checks for our own mistakes and stays on in every build: a process that has broken its
// own rules must stop before it stores or acknowledges anything (systemd starts it again). Never
// use it on bytes that came from a peer, a disk or a user: those are answered with an Error.

namespace cms {

[[noreturn]] void assertion_failed(const char* expression, const char* file, int line);

}  // namespace cms

#define CMS_ASSERT(expression) \
  (static_cast<bool>(expression) ? void(0) : ::cms::assertion_failed(#expression, __FILE__, __LINE__))
