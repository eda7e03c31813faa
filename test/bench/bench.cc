#include "test/bench/bench.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <thread>

#include <nlohmann/json.hpp>

#include "base/assert.h"
#include "base/prng.h"

namespace cms::bench {
namespace {

// Of the mount that `directory` lies on: the longest mount point that is a prefix of it.
std::string file_system_of(const std::string& directory) {
  const std::string path = std::filesystem::canonical(directory).string() + "/";
  std::ifstream mounts("/proc/self/mounts");
  std::string device, point, type, rest;
  std::string best_type = "unknown";
  std::size_t best_length = 0;
  while (mounts >> device >> point >> type && std::getline(mounts, rest)) {
    const std::string prefix = point.back() == '/' ? point : point + "/";
    if (path.compare(0, prefix.size(), prefix) == 0 && prefix.size() >= best_length) {
      best_length = prefix.size();
      best_type = type;
    }
  }
  return best_type;
}

std::string text_of(const Cell& cell) {
  if (const auto* text = std::get_if<std::string>(&cell)) return *text;
  const double value = std::get<double>(cell);
  const int decimals = std::abs(value) >= 100 ? 0 : std::abs(value) >= 10 ? 1 : 2;
  char text[64];
  std::snprintf(text, sizeof(text), "%.*f", decimals, value);
  return text;
}

double seconds_of(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
}

sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

}  // namespace

// ---- numbers

double Samples::percentile(double percent) const {
  CMS_ASSERT(!values_.empty());
  std::vector<double> sorted = values_;
  std::sort(sorted.begin(), sorted.end());
  const double rank = std::ceil(percent / 100 * static_cast<double>(sorted.size()));
  return sorted[static_cast<std::size_t>(std::max(rank, 1.0)) - 1];
}

std::string size_text(std::uint64_t size_bytes) {
  if (size_bytes >= kGiB && size_bytes % kGiB == 0) return std::to_string(size_bytes / kGiB) + " GiB";
  if (size_bytes >= kMiB && size_bytes % kMiB == 0) return std::to_string(size_bytes / kMiB) + " MiB";
  if (size_bytes >= kKiB && size_bytes % kKiB == 0) return std::to_string(size_bytes / kKiB) + " KiB";
  return std::to_string(size_bytes) + " B";
}

// ---- output

void Table::add(std::vector<Cell> row) {
  CMS_ASSERT(row.size() == columns_.size());
  rows_.push_back(std::move(row));
}

void Table::print() const {
  std::vector<std::size_t> widths;
  for (std::size_t i = 0; i < columns_.size(); ++i) {
    widths.push_back(columns_[i].size());
    for (const auto& row : rows_) widths[i] = std::max(widths[i], text_of(row[i]).size());
  }
  std::printf("\n%s\n", title_.c_str());
  const auto print_cell = [&](std::size_t i, const std::string& text, bool left) {
    std::printf(left ? "  %-*s" : "  %*s", static_cast<int>(widths[i]), text.c_str());
  };
  for (std::size_t i = 0; i < columns_.size(); ++i) print_cell(i, columns_[i], i < 2);
  std::printf("\n");
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i) print_cell(i, text_of(row[i]), i < 2);
    std::printf("\n");
  }
  std::fflush(stdout);
}

void add_options(CLI::App& app, Options& options) {
  app.add_flag("--tiny", options.tiny, "smallest sizes and counts: only whether it still works");
  app.add_option("--dir", options.directory, "where stores and files go; its file system is what is measured")
      ->default_val(std::filesystem::current_path().string())
      ->check(CLI::ExistingDirectory);
  app.add_option("--json", options.json_path, "write the tables to this file as well, as JSON");
}

void begin(Options& options) {
  options.directory = std::filesystem::canonical(options.directory).string();
  ::setenv("CMS_TEST_DIR", options.directory.c_str(), 1);
  std::printf("%u cores, files in %s (%s)\n", std::thread::hardware_concurrency(), options.directory.c_str(),
              file_system_of(options.directory).c_str());
}

void finish(const Options& options, const std::vector<Table>& tables) {
  for (const Table& table : tables) table.print();
  if (options.json_path.empty()) return;
  nlohmann::ordered_json json;
  json["file_system"] = file_system_of(options.directory);
  json["cores"] = std::thread::hardware_concurrency();
  json["at"] = std::time(nullptr);
  for (const Table& table : tables) {
    nlohmann::ordered_json rows = nlohmann::ordered_json::array();
    for (const auto& row : table.rows()) {
      nlohmann::ordered_json object;
      for (std::size_t i = 0; i < row.size(); ++i) {
        std::visit([&](const auto& value) { object[table.columns()[i]] = value; }, row[i]);
      }
      rows.push_back(std::move(object));
    }
    json["tables"].push_back({{"title", table.title()}, {"rows", std::move(rows)}});
  }
  std::ofstream file(options.json_path);
  file << json.dump(2) << '\n';
  if (!file.flush()) {
    std::cerr << "cannot write " << options.json_path << '\n';
    std::exit(1);
  }
}

// ---- cost

double cpu_seconds_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const std::size_t end_of_name = text.rfind(')');
  CMS_ASSERT(end_of_name != std::string::npos);
  std::istringstream fields(text.substr(end_of_name + 2));
  std::string skipped;
  for (int i = 3; i < 14; ++i) fields >> skipped;  // Up to field 13 of proc(5).
  double user = 0, system = 0, children_user = 0, children_system = 0;
  fields >> user >> system >> children_user >> children_system;
  return (user + system + children_user + children_system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

double cpu_seconds_of_self() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime);
}

std::uint64_t resident_bytes_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/statm");
  std::uint64_t total_pages = 0, resident_pages = 0;
  file >> total_pages >> resident_pages;
  return resident_pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

RunResult run_program(const std::vector<std::string>& command, Start start) {
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  const Stopwatch watch;
  // A copy of the page tables of this process, which may hold gigabytes, is not what is measured.
  const pid_t pid = start == Start::kQuick ? ::vfork() : ::fork();
  CMS_ASSERT(pid >= 0);
  if (pid == 0) {
    const int null = ::open("/dev/null", O_RDWR);
    ::dup2(null, STDIN_FILENO);
    ::dup2(null, STDOUT_FILENO);
    ::execvp(arguments[0], arguments.data());
    ::_exit(127);
  }
  int status = 0;
  rusage usage{};
  CMS_ASSERT(::wait4(pid, &status, 0, &usage) == pid);
  RunResult result;
  result.seconds = watch.seconds();
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  result.cpu_seconds = seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime);
  result.peak_resident_bytes = static_cast<std::uint64_t>(usage.ru_maxrss) * kKiB;
  return result;
}

std::string find_program(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::istringstream directories(std::string(path == nullptr ? "/usr/bin" : path) + ":/usr/sbin");
  std::string directory;
  while (std::getline(directories, directory, ':')) {
    const std::string candidate = directory + "/" + name;
    if (::access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return {};
}

// ---- memory and files

void fill_random(void* data, std::uint64_t size_bytes, std::uint64_t seed) {
  Prng prng(seed);
  auto* at = static_cast<char*>(data);
  while (size_bytes > 0) {
    const std::uint64_t word = prng.next();
    const std::uint64_t count = std::min<std::uint64_t>(size_bytes, sizeof(word));
    std::memcpy(at, &word, count);
    at += count;
    size_bytes -= count;
  }
}

void touch_and_free(std::uint64_t size_bytes) {
  void* data =
      ::mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (data != MAP_FAILED) ::munmap(data, size_bytes);
}

void write_file(const std::string& path, const void* data, std::uint64_t size_bytes) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  CMS_ASSERT(fd >= 0);
  const auto* at = static_cast<const char*>(data);
  while (size_bytes > 0) {
    const ssize_t count = ::write(fd, at, size_bytes);
    CMS_ASSERT(count > 0);
    at += count;
    size_bytes -= static_cast<std::uint64_t>(count);
  }
  CMS_ASSERT(::fsync(fd) == 0);
  ::close(fd);
}

void settle(const std::string& directory) {
  const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  CMS_ASSERT(fd >= 0 && ::syncfs(fd) == 0);
  ::close(fd);
}

std::uint16_t free_port() {
  while (true) {
    const auto port = static_cast<std::uint16_t>(10000 + random_u64() % 20000);
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_in address = loopback(port);
    const bool free = ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
    ::close(fd);
    if (free) return port;
  }
}

void wait_for_port(std::uint16_t port) {
  const sockaddr_in address = loopback(port);
  for (const Stopwatch watch; watch.seconds() < 10; (void)::poll(nullptr, 0, 5)) {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const bool connected = ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
    ::close(fd);
    if (connected) return;
  }
  std::cerr << "nobody listens on port " << port << " after 10 s\n";
  std::exit(1);
}

}  // namespace cms::bench
