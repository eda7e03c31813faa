// An NFS server for scripts: prints the URL of its export as one line, serves until its stdin has a line
// or ends, and leaves nothing behind. What it needs: ganesha.h.
//
//   ganesha_for_tests [--export DIR]     a directory that exists; without it one of its own
#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include <csignal>
#include <iostream>
#include <string>

#include "test/support/ganesha.h"

int main(int argc, char** argv) {
  cms::test::Ganesha::Options options;
  if (argc == 3 && std::string(argv[1]) == "--export") {
    options.export_path = argv[2];
  } else if (argc != 1) {
    std::cerr << "usage: ganesha_for_tests [--export DIR]\n";
    return 2;
  }
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals, number);
  (void)::sigprocmask(SIG_BLOCK, &signals, nullptr);
  const int told = ::signalfd(-1, &signals, SFD_CLOEXEC);

  const auto ganesha = cms::test::Ganesha::start(options);
  if (!ganesha.ok()) {
    std::cerr << "ganesha_for_tests: " << ganesha.error().message() << '\n';
    return 1;
  }
  std::cout << (*ganesha)->url() << std::endl;
  pollfd items[] = {{STDIN_FILENO, POLLIN, 0}, {told, POLLIN, 0}};
  (void)::poll(items, 2, -1);
  return (*ganesha)->stop() == 0 ? 0 : 1;
}
