#include "rtcr-client/cli/descendants.h"

#include <dirent.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <string>

namespace cms::cli {
namespace {

struct ProcessInfo {
  pid_t parent = 0;
  char state = '?';
};

// Of all processes that can be seen.
std::map<pid_t, ProcessInfo> all_processes() {
  std::map<pid_t, ProcessInfo> processes;
  DIR* const folder = ::opendir("/proc");
  if (folder == nullptr) return processes;
  while (const dirent* entry = ::readdir(folder)) {
    const auto pid = static_cast<pid_t>(std::strtol(entry->d_name, nullptr, 10));
    if (pid <= 0) continue;
    std::ifstream file("/proc/" + std::string(entry->d_name) + "/stat");
    std::string line;
    if (!std::getline(file, line)) continue;  // It has ended.
    // "PID (NAME) STATE PARENT ..."; a name may have anything in it.
    const std::size_t end_of_name = line.rfind(')');
    ProcessInfo info;
    int parent = 0;
    if (end_of_name == std::string::npos ||
        std::sscanf(line.c_str() + end_of_name + 1, " %c %d", &info.state, &parent) != 2)
      continue;
    info.parent = parent;
    processes[pid] = info;
  }
  ::closedir(folder);
  return processes;
}

bool has_ended(char state) { return state == 'Z' || state == 'X'; }

}  // namespace

std::vector<pid_t> descendants_of(pid_t ancestor) {
  const auto processes = all_processes();
  std::vector<pid_t> found;
  for (const auto& [pid, info] : processes) {
    pid_t above = info.parent;
    // (No chain is longer, even if a pid was given anew while /proc was read.)
    for (std::size_t steps = 0; above > 1 && above != ancestor && steps <= processes.size(); ++steps) {
      const auto parent = processes.find(above);
      above = parent == processes.end() ? 0 : parent->second.parent;
    }
    if (above == ancestor && pid != ancestor && !has_ended(info.state)) found.push_back(pid);
  }
  return found;
}

void kill_descendants() {
  while (true) {
    const auto descendants = descendants_of(::getpid());
    if (descendants.empty()) return;
    for (const pid_t pid : descendants) (void)::kill(pid, SIGKILL);
    while (::waitpid(-1, nullptr, WNOHANG) > 0) {
    }
    (void)::poll(nullptr, 0, 1);  // They need the CPU to end.
  }
}

void reap_children(const std::set<pid_t>& others) {
  const pid_t self = ::getpid();
  for (const auto& [pid, info] : all_processes()) {
    if (info.parent == self && has_ended(info.state) && others.count(pid) == 0)
      (void)::waitpid(pid, nullptr, WNOHANG);
  }
}

}  // namespace cms::cli
