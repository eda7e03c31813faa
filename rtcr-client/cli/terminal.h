#pragma once
// What the command shares with the one who runs it: signals, lines of output, progress.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/time.h"
#include "rtcr-client/cli/arguments.h"

namespace cms::cli {

// SIGINT and SIGTERM become readable on a descriptor, for the rest of the process; SIGPIPE is ignored,
// so that a reader that went away is an error of the write. Make one, before any thread.
class EndSignals {
 public:
  EndSignals();
  EndSignals(const EndSignals&) = delete;
  EndSignals& operator=(const EndSignals&) = delete;
  ~EndSignals();
  int fd() const { return fd_; }

 private:
  int fd_;
};

// A line to standard output at once; false: it cannot be written.
bool print_line(std::string_view line);
// "rtcr: TEXT" to standard error; with --output json also an object to standard output unless that
// carries a checkpoint.
void print_error(const CommonArguments& arguments, Code code, std::string_view text,
                 bool stdout_is_free = true);

// One line on a terminal that tells bytes, rate and time left, for what takes longer than a second.
// Nothing when standard error is no terminal.
class Progress {
 public:
  Progress(std::string what, std::optional<std::uint64_t> size_bytes);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress() { clear(); }

  void show(std::uint64_t done_bytes);
  // Before anything else is printed.
  void clear();
  void set_size(std::uint64_t size_bytes) { size_bytes_ = size_bytes; }
  // How often to call show(); nothing to show: Duration::max().
  Duration interval() const;

 private:
  std::string what_;
  std::optional<std::uint64_t> size_bytes_;
  bool terminal_;
  Instant start_;
  Instant shown_at_{};
  bool shown_ = false;
};

// The line without the terminal, for its test.
std::string progress_line(std::string_view what, std::uint64_t done_bytes,
                          std::optional<std::uint64_t> size_bytes, Duration elapsed);

}  // namespace cms::cli
