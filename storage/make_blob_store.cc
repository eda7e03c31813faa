#include <algorithm>
#include <string_view>

#include "storage/blob_store.h"
#include "storage/directory/directory_store.h"

namespace cms::storage {
namespace {

constexpr std::string_view kFileScheme = "file://";
constexpr std::size_t kNodeBytesMax = 64;

bool is_node_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
         c == '.';
}

}  // namespace

Result<std::unique_ptr<BlobStore>> make_blob_store(const StoreOptions& options) {
  const std::string& node = options.node;
  if (node.empty() || node.size() > kNodeBytesMax || node.front() == '.' ||
      !std::all_of(node.begin(), node.end(), is_node_char)) {
    return make_error(Code::kInvalidArgument,
                      "'" + node +
                          "' is not a node name: 1 to 64 letters, digits, '-', '_' and '.' are "
                          "allowed, not '.' first");
  }
  std::string_view path = options.url;
  const bool is_file = path.substr(0, kFileScheme.size()) == kFileScheme;
  if (is_file) path.remove_prefix(kFileScheme.size());
  if (!is_file || path.size() < 2 || path.front() != '/' || path.find_first_of("%?#") != path.npos ||
      path.find('\0') != path.npos) {
    return make_error(Code::kInvalidArgument,
                      "'" + options.url +
                          "' is not a store: expected file:///DIR with an absolute path "
                          "without '%', '?' and '#'");
  }
  return make_directory_store(std::string(path), node, options.node_incarnation);
}

}  // namespace cms::storage
