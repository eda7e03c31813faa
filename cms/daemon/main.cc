// cmsd: receives, keeps and finds checkpoints. Wiring only; server.h has the daemon.
#include <sys/resource.h>
#include <csignal>
#include <cstdio>

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include "base/memory.h"
#include "cms/daemon/config.h"
#include "cms/daemon/server.h"

namespace {

void block_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
}

// Each connected ECU takes two descriptors; the default of 1024 would end at 500 of them.
void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

int main(int argc, char** argv) {
  const auto parsed = cms::daemon::parse_config(argc, argv);
  if (!parsed.config) {
    std::fputs(parsed.text.c_str(), parsed.exit_code == 0 ? stdout : stderr);
    return parsed.exit_code;
  }
  cms::keep_freed_memory();
  spdlog::set_default_logger(spdlog::stderr_logger_mt("cmsd"));
  spdlog::set_level(spdlog::level::from_str(parsed.config->log_level));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
  block_signals();
  raise_descriptor_limit();

  auto server = cms::daemon::Server::create(*parsed.config);
  if (!server.ok()) {
    spdlog::critical("cmsd cannot start: {}", server.error().message());
    return server.error().code == cms::Code::kInvalidArgument ? 2 : 1;
  }
  const cms::Status ended = (*server)->run();
  if (ended.ok()) return 0;
  spdlog::critical("cmsd gives up: {}", ended.error().message());
  return ended.code() == cms::Code::kInvalidArgument ? 2 : 1;
}
