#include "net/host_id.h"

#include <sys/stat.h>
#include <fstream>
#include <string>

#include "base/digest.h"

namespace cms::net {

namespace {

// Empty: the kernel does not tell.
std::string boot_id_text() {
  std::string text;
  std::ifstream boot_id("/proc/sys/kernel/random/boot_id");
  return std::getline(boot_id, text) ? text : std::string();
}

}  // namespace

Id128 this_host_id() {
  std::string text = boot_id_text();
  struct stat net_namespace {};
  if (text.empty() || ::stat("/proc/self/ns/net", &net_namespace) != 0) return Id128{};
  text += '/' + std::to_string(net_namespace.st_ino);
  return digest_of(text.data(), text.size());
}

Id128 boot_id_of(const std::string& text) {
  const std::string known = text.empty() ? boot_id_text() : text;
  return known.empty() ? Id128{} : digest_of(known.data(), known.size());
}

}  // namespace cms::net
