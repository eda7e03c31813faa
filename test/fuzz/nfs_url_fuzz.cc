// --store nfs://…, from the command line and from a configuration file.
#include "storage/nfs/nfs_url.h"

#include <utility>

#include "test/fuzz/fuzz.h"

namespace cms::fuzz {
namespace {

// Said again in the one way in which everything is written out.
std::string url_of(const storage::NfsTarget& target) {
  std::string url = to_string(target);
  char mark = '?';
  const auto add = [&](const char* name, std::uint32_t value) {
    url += std::exchange(mark, '&') + (name + ("=" + std::to_string(value)));
  };
  if (target.nfs_port != 0) add("nfsport", target.nfs_port);
  if (target.mount_port != 0) add("mountport", target.mount_port);
  if (target.uid) add("uid", *target.uid);
  if (target.gid) add("gid", *target.gid);
  return url;
}

}  // namespace

bool take(const std::uint8_t* data, std::size_t size_bytes) {
  const std::string url(reinterpret_cast<const char*>(data), size_bytes);
  const auto target = storage::parse_nfs_url(url);
  if (!target.ok()) {
    // What is wrong is quoted beside the whole.
    expect_error(target.error(), {Code::kInvalidArgument}, 2 * size_bytes + 512);
    return false;
  }
  CMS_FUZZ_HOLDS(!target->host.empty() && target->host.size() <= 253, url);
  CMS_FUZZ_HOLDS(target->export_path.size() >= 2 && target->export_path.size() <= 1024, url);
  CMS_FUZZ_HOLDS(target->export_path.front() == '/' && target->export_path.back() != '/', url);
  // Both go to libnfs as C strings and into logs.
  for (const std::string& text : {target->host, target->export_path}) {
    for (const char c : text) {
      const auto octet = static_cast<unsigned char>(c);
      CMS_FUZZ_HOLDS(octet >= 0x20 && octet != 0x7f, url);
    }
  }
  // libnfs takes them as int.
  CMS_FUZZ_HOLDS(target->uid.value_or(0) <= INT32_MAX && target->gid.value_or(0) <= INT32_MAX, url);
  const auto again = storage::parse_nfs_url(url_of(*target));
  CMS_FUZZ_HOLDS(again.ok(), url);
  CMS_FUZZ_HOLDS(again->host == target->host && again->export_path == target->export_path &&
                     again->nfs_port == target->nfs_port && again->mount_port == target->mount_port &&
                     again->uid == target->uid && again->gid == target->gid,
                 url);
  return true;
}

}  // namespace cms::fuzz
