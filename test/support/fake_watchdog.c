/* Preloaded into `rtcr` by tests: whatever device it opens is a watchdog that takes any timeout and resets nothing. What is
 * asked of it is written to the file FAKE_WATCHDOG_LOG, a word a line. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/watchdog.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int device = -1;
static int timeout = 60;

static void note(const char* text) {
  const char* path = getenv("FAKE_WATCHDOG_LOG");
  const int log = path == NULL ? -1 : open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (log < 0) return;
  (void)!syscall(SYS_write, log, text, strlen(text));
  close(log);
}

int ioctl(int fd, unsigned long request, ...) {
  va_list arguments;
  va_start(arguments, request);
  void* const argument = va_arg(arguments, void*);
  va_end(arguments);
  char text[32];
  switch (request) {
    case WDIOC_GETSUPPORT:
      device = fd;
      ((struct watchdog_info*)argument)->options = WDIOF_SETTIMEOUT | WDIOF_KEEPALIVEPING | WDIOF_MAGICCLOSE;
      return 0;
    case WDIOC_SETTIMEOUT:
      timeout = *(int*)argument;
      snprintf(text, sizeof(text), "timeout %d\n", timeout);
      note(text);
      return 0;
    case WDIOC_GETTIMEOUT: *(int*)argument = timeout; return 0;
    case WDIOC_KEEPALIVE: note("kick\n"); return 0;
    default: return (int)syscall(SYS_ioctl, fd, request, argument);
  }
}

ssize_t write(int fd, const void* data, size_t size) {
  if (fd >= 0 && fd == device && size == 1 && *(const char*)data == 'V') note("disarm\n");
  return (ssize_t)syscall(SYS_write, fd, data, size);
}
