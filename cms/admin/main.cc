// cms-admin: asks a cmsd what it has, and gets checkpoints from it. cli.h has the commands.
#include <csignal>

#include "cms/admin/cli.h"

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // A closed pipe is a failed write.
  return cms::admin::run(argc, argv, cms::admin::process_surroundings(), stdout, stderr);
}
