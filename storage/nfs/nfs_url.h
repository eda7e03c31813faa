#pragma once
// The form of --store for a NAS: nfs://HOST/EXPORT[?nfsport=N&mountport=N&uid=N&gid=N]. Parsed here and
// not by libnfs, whose parser takes nonsense. Pure functions; no I/O.
#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"

namespace cms::storage {

struct NfsTarget {
  std::string host;              // A name or an IP address, IPv6 without brackets.
  std::string export_path;       // "/cms"
  std::uint16_t nfs_port = 0;    // 0: the server's portmapper says.
  std::uint16_t mount_port = 0;  // 0: the server's portmapper says.
  // What we say we are (AUTH_SYS); not there: what this process is.
  std::optional<std::uint32_t> uid;
  std::optional<std::uint32_t> gid;
};

// kInvalidArgument names what is wrong and what is allowed. NFSv4 is refused, with the reason.
Result<NfsTarget> parse_nfs_url(const std::string& url);

// "nfs://nas/cms", for people.
std::string to_string(const NfsTarget& target);

}  // namespace cms::storage
