#include "storage/nfs/nfs_url.h"

#include <algorithm>
#include <charconv>
#include <set>
#include <string_view>

namespace cms::storage {
namespace {

constexpr std::string_view kScheme = "nfs://";
constexpr std::string_view kForm = "nfs://HOST/EXPORT[?nfsport=N&mountport=N&uid=N&gid=N]";
constexpr std::size_t kHostBytesMax = 253;     // RFC 1035
constexpr std::size_t kExportBytesMax = 1024;  // MNTPATHLEN of RFC 1813

Error wrong(const std::string& url, const std::string& why) {
  return make_error(Code::kInvalidArgument,
                    "'" + url + "' is not a store: " + why + "; expected " + std::string(kForm));
}

bool is_host_char(char c, bool bracketed) {
  const bool alphanumeric = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  return alphanumeric || c == '.' || c == '-' || (bracketed ? c == ':' : c == '_');
}

Result<std::uint32_t> number(std::string_view text, std::uint32_t min, std::uint32_t max) {
  std::uint32_t value = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failed != std::errc() || end != text.data() + text.size() || value < min || value > max) {
    return make_error(Code::kInvalidArgument, "'" + std::string(text) + "' is not a number from " +
                                                  std::to_string(min) + " to " + std::to_string(max));
  }
  return value;
}

Status take_parameter(std::string_view name, std::string_view value, NfsTarget& target) {
  if (name == "version") {
    if (value == "3") return ok_status();
    return make_error(Code::kInvalidArgument,
                      "version=" + std::string(value) +
                          ": only NFS version 3 is spoken (version 4 of this libnfs writes 4 KB at a time, "
                          "loses its state when two clients of a host meet, and cannot reconnect)");
  }
  const bool port = name == "nfsport" || name == "mountport";
  if (!port && name != "uid" && name != "gid") {
    return make_error(Code::kInvalidArgument, "the parameter '" + std::string(name) +
                                                  "' is not known; allowed are nfsport, mountport, uid, gid");
  }
  const auto parsed = port ? number(value, 1, UINT16_MAX) : number(value, 0, INT32_MAX);
  if (!parsed) return make_error(Code::kInvalidArgument, std::string(name) + ": " + parsed.error().context);
  if (name == "nfsport") target.nfs_port = static_cast<std::uint16_t>(*parsed);
  if (name == "mountport") target.mount_port = static_cast<std::uint16_t>(*parsed);
  if (name == "uid") target.uid = *parsed;
  if (name == "gid") target.gid = *parsed;
  return ok_status();
}

}  // namespace

Result<NfsTarget> parse_nfs_url(const std::string& url) {
  std::string_view rest = url;
  if (rest.substr(0, kScheme.size()) != kScheme) return wrong(url, "it does not begin with nfs://");
  rest.remove_prefix(kScheme.size());
  NfsTarget target;

  const bool bracketed = !rest.empty() && rest.front() == '[';
  const std::size_t host_end = bracketed ? rest.find(']') : rest.find('/');
  if (host_end == rest.npos) return wrong(url, bracketed ? "']' is missing" : "there is no export");
  target.host = rest.substr(bracketed ? 1 : 0, host_end - (bracketed ? 1 : 0));
  rest.remove_prefix(host_end + (bracketed ? 1 : 0));
  if (target.host.empty() || target.host.size() > kHostBytesMax ||
      !std::all_of(target.host.begin(), target.host.end(),
                   [&](char c) { return is_host_char(c, bracketed); })) {
    return wrong(url, "'" + target.host + "' is not a host (a port is given as nfsport=N)");
  }

  const std::size_t path_end = std::min(rest.find('?'), rest.size());
  std::string_view path = rest.substr(0, path_end);
  while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  const auto refused = [](char c) { return c == '%' || c == '#' || static_cast<unsigned char>(c) < ' '; };
  if (path.size() < 2 || path.front() != '/' || path.size() > kExportBytesMax ||
      std::any_of(path.begin(), path.end(), refused)) {
    return wrong(url, "'" + std::string(path) + "' is not an export (an absolute path without '%' and '#')");
  }
  target.export_path = path;
  rest.remove_prefix(path_end);

  std::set<std::string_view> seen;
  while (!rest.empty()) {
    rest.remove_prefix(1);  // '?' or '&'
    const std::string_view parameter = rest.substr(0, rest.find('&'));
    rest.remove_prefix(parameter.size());
    const std::size_t equals = parameter.find('=');
    if (equals == parameter.npos) return wrong(url, "'" + std::string(parameter) + "' is not NAME=VALUE");
    const std::string_view name = parameter.substr(0, equals);
    if (!seen.insert(name).second) return wrong(url, "'" + std::string(name) + "' is given twice");
    const Status taken = take_parameter(name, parameter.substr(equals + 1), target);
    if (!taken.ok()) return wrong(url, taken.error().context);
  }
  return target;
}

std::string to_string(const NfsTarget& target) {
  const bool ipv6 = target.host.find(':') != target.host.npos;
  return "nfs://" + (ipv6 ? "[" + target.host + "]" : target.host) + target.export_path;
}

}  // namespace cms::storage
