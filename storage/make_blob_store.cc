#include <algorithm>
#include <string_view>

#include "storage/blob_store.h"
#include "storage/directory/directory_store.h"
#include "storage/nfs/nfs_store.h"
#include "storage/nfs/nfs_url.h"

namespace cms::storage {
namespace {

constexpr std::string_view kFileScheme = "file://";
constexpr std::string_view kNfsScheme = "nfs://";
constexpr std::size_t kNodeBytesMax = 64;

bool is_node_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
         c == '.';
}

bool is_nfs(std::string_view url) { return url.substr(0, kNfsScheme.size()) == kNfsScheme; }

}  // namespace

Status check_store_url(const std::string& url) {
  if (is_nfs(url)) {
    const auto target = parse_nfs_url(url);
    return target ? ok_status() : Status(target.error());
  }
  std::string_view path = url;
  const bool is_file = path.substr(0, kFileScheme.size()) == kFileScheme;
  if (is_file) path.remove_prefix(kFileScheme.size());
  if (is_file && path.size() >= 2 && path.front() == '/' && path.find_first_of("%?#") == path.npos &&
      path.find('\0') == path.npos) {
    return ok_status();
  }
  return make_error(Code::kInvalidArgument,
                    "'" + url +
                        "' is not a store; allowed: file:///DIR with an absolute path without '%', '?' and "
                        "'#', or nfs://HOST/EXPORT[?nfsport=N&mountport=N&uid=N&gid=N]");
}

Result<std::unique_ptr<BlobStore>> make_blob_store(const StoreOptions& options) {
  const std::string& node = options.node;
  if (node.empty() || node.size() > kNodeBytesMax || node.front() == '.' ||
      !std::all_of(node.begin(), node.end(), is_node_char)) {
    return make_error(Code::kInvalidArgument,
                      "'" + node +
                          "' is not a node name: 1 to 64 letters, digits, '-', '_' and '.' are "
                          "allowed, not '.' first");
  }
  if (Status status = check_store_url(options.url); !status.ok()) return status.error();
  const std::string_view url = options.url;
  if (is_nfs(url)) return make_nfs_store(*parse_nfs_url(options.url), node, options.node_incarnation);
  return make_directory_store(std::string(url.substr(kFileScheme.size())), node, options.node_incarnation);
}

}  // namespace cms::storage
