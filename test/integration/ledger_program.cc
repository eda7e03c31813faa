// ledger_program LEDGER LINEAGE COPY STATE: a program that is checkpointed, for tests: it counts on from STATE, every 10 ms,
// and writes each count into the ledger, as "LINEAGE COPY COUNT BOOTTIME_NS", until that is removed. That file is one for all
// copies of all programs: what stands below was written later.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/time.h"

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  const int ledger = ::open(argv[1], O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  const int ticks = ::timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC);
  constexpr long kIntervalNs = 10'000'000;
  const itimerspec interval{{0, kIntervalNs}, {0, kIntervalNs}};
  if (ledger < 0 || ticks < 0 || ::timerfd_settime(ticks, 0, &interval, nullptr) != 0) return 1;
  const std::string who = std::string(argv[2]) + " " + argv[3] + " ";
  for (std::uint64_t count = std::strtoull(argv[4], nullptr, 10);;) {
    struct stat status {};
    if (::fstat(ledger, &status) != 0 || status.st_nlink == 0) return 0;  // What a test that failed has left.
    std::uint64_t passed = 0;
    if (::read(ticks, &passed, sizeof(passed)) != sizeof(passed)) return 1;
    const auto now_ns = cms::BootClock::now().time_since_epoch().count();
    const std::string line = who + std::to_string(++count) + " " + std::to_string(now_ns) + "\n";
    if (::write(ledger, line.data(), line.size()) != static_cast<ssize_t>(line.size())) return 1;
  }
}
