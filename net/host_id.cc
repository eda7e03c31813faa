#include "net/host_id.h"

#include <sys/stat.h>
#include <fstream>
#include <string>

#include "base/digest.h"

namespace cms::net {

Id128 this_host_id() {
  std::string text;
  std::ifstream boot_id("/proc/sys/kernel/random/boot_id");
  struct stat net_namespace {};
  if (!std::getline(boot_id, text) || ::stat("/proc/self/ns/net", &net_namespace) != 0) return Id128{};
  text += '/' + std::to_string(net_namespace.st_ino);
  return digest_of(text.data(), text.size());
}

}  // namespace cms::net
