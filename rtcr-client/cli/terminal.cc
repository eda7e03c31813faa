#include "rtcr-client/cli/terminal.h"

#include <sys/signalfd.h>
#include <unistd.h>
#include <algorithm>
#include <csignal>
#include <cstdio>

#include "base/assert.h"
#include "rtcr-client/cli/json_lines.h"
#include "rtcr-client/cli/values.h"

namespace cms::cli {
namespace {

constexpr Duration kProgressAfter = std::chrono::seconds(1);
constexpr Duration kProgressInterval = std::chrono::milliseconds(200);

}  // namespace

EndSignals::EndSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  fd_ = ::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
  CMS_ASSERT(fd_ >= 0);
}

EndSignals::~EndSignals() { ::close(fd_); }

bool print_line(std::string_view line) {
  std::fwrite(line.data(), 1, line.size(), stdout);
  std::fputc('\n', stdout);
  return std::fflush(stdout) == 0;
}

void print_error(const CommonArguments& arguments, Code code, std::string_view text, bool stdout_is_free) {
  std::fprintf(stderr, "rtcr: %.*s\n", static_cast<int>(text.size()), text.data());
  if (arguments.output == Output::kJson && stdout_is_free)
    (void)print_line(json_of_error(to_string(code), text));
}

Progress::Progress(std::string what, std::optional<std::uint64_t> size_bytes)
    : what_(std::move(what)),
      size_bytes_(size_bytes),
      terminal_(::isatty(STDERR_FILENO) == 1),
      start_(BootClock::now()) {}

Duration Progress::interval() const { return terminal_ ? kProgressInterval : Duration::max(); }

void Progress::show(std::uint64_t done_bytes) {
  if (!terminal_) return;
  const Instant now = BootClock::now();
  if (now - start_ < kProgressAfter || now - shown_at_ < kProgressInterval) return;
  std::fprintf(stderr, "\r\033[K%s", progress_line(what_, done_bytes, size_bytes_, now - start_).c_str());
  shown_at_ = now;
  shown_ = true;
}

void Progress::clear() {
  if (shown_) std::fputs("\r\033[K", stderr);
  shown_ = false;
}

std::string progress_line(std::string_view what, std::uint64_t done_bytes,
                          std::optional<std::uint64_t> size_bytes, Duration elapsed) {
  const double seconds = std::max(std::chrono::duration<double>(elapsed).count(), 0.001);
  const double rate = static_cast<double>(done_bytes) / seconds;
  std::string line(what);
  line += ": " + size_text(done_bytes);
  if (size_bytes) line += " of " + size_text(*size_bytes);
  line += ", " + size_text(static_cast<std::uint64_t>(rate)) + "/s";
  if (size_bytes && rate >= 1 && done_bytes < *size_bytes) {
    const double left = static_cast<double>(*size_bytes - done_bytes) / rate;
    line += ", " + std::to_string(static_cast<std::uint64_t>(left) + 1) + " s left";
  }
  return line;
}

}  // namespace cms::cli
