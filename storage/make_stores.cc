#include <string_view>

#include "storage/blob_store.h"
#include "storage/claim_store.h"
#include "storage/directory/directory_claims.h"
#include "storage/directory/directory_store.h"
#include "storage/nfs/nfs_claims.h"
#include "storage/nfs/nfs_store.h"
#include "storage/nfs/nfs_url.h"
#include "storage/store_layout.h"

namespace cms::storage {
namespace {

constexpr std::string_view kFileScheme = "file://";
constexpr std::string_view kNfsScheme = "nfs://";
bool is_nfs(std::string_view url) { return url.substr(0, kNfsScheme.size()) == kNfsScheme; }

Status check_options(const StoreOptions& options) {
  if (is_node_name(options.node)) return check_store_url(options.url);
  return make_error(Code::kInvalidArgument,
                    "'" + options.node +
                        "' is not a node name: 1 to 64 letters, digits, '-', '_' and '.' are "
                        "allowed, not '.' first");
}

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
  if (Status status = check_options(options); !status.ok()) return status.error();
  if (is_nfs(options.url)) {
    return make_nfs_store(*parse_nfs_url(options.url), options.node, options.node_incarnation);
  }
  return make_directory_store(options.url.substr(kFileScheme.size()), options.node, options.node_incarnation);
}

Result<std::unique_ptr<ClaimStore>> make_claim_store(const StoreOptions& options) {
  if (Status status = check_options(options); !status.ok()) return status.error();
  if (is_nfs(options.url)) {
    return make_nfs_claims(*parse_nfs_url(options.url), options.node, options.node_incarnation);
  }
  return make_directory_claims(options.url.substr(kFileScheme.size()), options.node,
                               options.node_incarnation);
}

}  // namespace cms::storage
