#include "broker/shell/proc_metrics.h"

#include <fcntl.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <string>

#include "base/ids.h"

namespace cms::broker {
namespace {

// Nothing when it cannot be read.
std::string text_of_file(const char* path) {
  std::string text;
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return text;
  char buffer[16 * 1024];
  while (text.size() < 1024 * 1024) {
    const ssize_t count = ::read(fd, buffer, sizeof(buffer));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    text.append(buffer, static_cast<std::size_t>(count));
  }
  ::close(fd);
  return text;
}

// Takes the next line off `text`.
std::string_view next_line(std::string_view& text) {
  const std::size_t end = std::min(text.find('\n'), text.size());
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return line;
}

// Takes the next word off `line`; empty at its end.
std::string_view next_word(std::string_view& line) {
  line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
  const std::size_t end = std::min(line.find(' '), line.size());
  const std::string_view word = line.substr(0, end);
  line.remove_prefix(end);
  return word;
}

}  // namespace

std::optional<CpuTimes> parse_cpu_times(std::string_view text) {
  // user nice system idle iowait irq softirq steal; guest time is in user's already.
  constexpr int kColumnCount = 8;
  constexpr int kIdle = 3;
  constexpr int kIoWait = 4;
  std::optional<CpuTimes> times;
  while (!text.empty()) {
    std::string_view line = next_line(text);
    const std::string_view name = next_word(line);
    if (name.substr(0, 3) != "cpu") continue;
    if (name.size() > 3) {
      if (times) ++times->cpu_count;
      continue;
    }
    times.emplace();
    for (int column = 0; column < kColumnCount; ++column) {
      const auto ticks = parse_u64(next_word(line));
      if (!ticks.ok()) break;
      times->all += *ticks;
      if (column != kIdle && column != kIoWait) times->busy += *ticks;
    }
  }
  return times;
}

std::uint32_t cpu_load_permille(const CpuTimes& before, const CpuTimes& after) {
  if (after.all <= before.all || after.busy <= before.busy) return 0;
  const std::uint64_t load = (after.busy - before.busy) * 1000 / (after.all - before.all);
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(load, wire::kCpuLoadPermilleMax));
}

void parse_memory(std::string_view text, wire::Metrics& metrics) {
  while (!text.empty()) {
    std::string_view line = next_line(text);
    const std::string_view name = next_word(line);
    const auto kib = parse_u64(next_word(line));
    if (!kib.ok() || *kib > UINT64_MAX / 1024) continue;
    if (name == "MemTotal:") metrics.ram_total_bytes = *kib * 1024;
    if (name == "MemAvailable:") metrics.ram_available_bytes = *kib * 1024;
  }
  metrics.ram_available_bytes = std::min(metrics.ram_available_bytes, metrics.ram_total_bytes);
}

void ProcMetrics::sample(Instant now) {
  sampled_at_ = now;
  const auto times = parse_cpu_times(text_of_file("/proc/stat"));
  if (!times) return;
  load_permille_ = cpu_load_permille(last_, *times);  // At first: since the host's start.
  last_ = *times;
}

wire::Metrics ProcMetrics::metrics(Instant now) {
  if (now >= next_sample_at()) sample(now);
  wire::Metrics metrics;
  metrics.age_ms = static_cast<std::uint32_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(now - sampled_at_).count());
  metrics.cpu_count = last_.cpu_count;
  metrics.cpu_load_permille = load_permille_;
  parse_memory(text_of_file("/proc/meminfo"), metrics);
  utsname host{};
  if (::uname(&host) == 0) metrics.arch = host.machine;
  metrics.os = "linux";
  return metrics;
}

}  // namespace cms::broker
