#pragma once
// What the benchmarks share: numbers and their order, tables for people and JSON for programs, what a
// process has cost, and memory and files to measure with.
#include <sys/types.h>
#include <chrono>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include <CLI/CLI.hpp>

namespace cms::bench {

inline constexpr std::uint64_t kKiB = 1024;
inline constexpr std::uint64_t kMiB = 1024 * kKiB;
inline constexpr std::uint64_t kGiB = 1024 * kMiB;

// ---- numbers

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// Measured values of one kind, at least one when asked.
class Samples {
 public:
  void add(double value) { values_.push_back(value); }
  void add(const Samples& others) {
    values_.insert(values_.end(), others.values_.begin(), others.values_.end());
  }
  std::size_t count() const { return values_.size(); }
  double median() const { return percentile(50); }
  double percentile(double percent) const;  // The smallest value that `percent` of all do not exceed.
  double min() const { return percentile(0); }
  double max() const { return percentile(100); }

 private:
  std::vector<double> values_;
};

std::string size_text(std::uint64_t size_bytes);  // "64 KiB"

// ---- output

using Cell = std::variant<std::string, double>;

class Table {
 public:
  Table(std::string title, std::vector<std::string> columns)
      : title_(std::move(title)), columns_(std::move(columns)) {}
  void add(std::vector<Cell> row);
  const std::string& title() const { return title_; }
  const std::vector<std::string>& columns() const { return columns_; }
  const std::vector<std::vector<Cell>>& rows() const { return rows_; }
  void print() const;  // To stdout.

 private:
  std::string title_;
  std::vector<std::string> columns_;
  std::vector<std::vector<Cell>> rows_;
};

// What every benchmark is told, and where it writes.
struct Options {
  bool tiny = false;      // Smallest sizes and counts: only whether it still works.
  std::string directory;  // For stores and files; its file system is what is measured.
  std::string json_path;  // Empty: no JSON.
};
// Adds --tiny, --dir and --json.
void add_options(CLI::App& app, Options& options);
// Takes the directory into use (CMS_TEST_DIR of test/support), by its absolute path, and prints where
// this runs.
void begin(Options& options);
// Prints the tables, and writes them as JSON when that was asked for.
void finish(const Options& options, const std::vector<Table>& tables);

// ---- cost

// User and system time, with that of children that were waited for.
double cpu_seconds_of(pid_t pid);
double cpu_seconds_of_self();
std::uint64_t resident_bytes_of(pid_t pid);

struct RunResult {
  int exit_code = -1;
  double seconds = 0;  // From before the fork until it has ended.
  double cpu_seconds = 0;
  std::uint64_t peak_resident_bytes = 0;
};
// How a program is started: kQuick costs the same however much memory this process has; only after
// kFork is peak_resident_bytes the program's own (Linux hands this process's peak over else).
enum class Start { kQuick, kFork };
// Runs a program to its end, its stdout thrown away.
RunResult run_program(const std::vector<std::string>& command, Start start = Start::kQuick);
// Where a program lies, by PATH; empty: it is not installed.
std::string find_program(const std::string& name);

// ---- memory and files

// Bytes that neither compress nor hold a chunk of zeros; the same for a seed.
void fill_random(void* data, std::uint64_t size_bytes, std::uint64_t seed);
// Has the host back this much memory, so that the first side measured does not pay for it.
void touch_and_free(std::uint64_t size_bytes);
// Writes and syncs a file; it stays in the page cache.
void write_file(const std::string& path, const void* data, std::uint64_t size_bytes);
// Waits until the file system has nothing to write, so that no side pays for another.
void settle(const std::string& directory);
// A port of 127.0.0.1 below the ephemeral range that nobody listens on.
std::uint16_t free_port();
void wait_for_port(std::uint16_t port);

}  // namespace cms::bench
