#pragma once
// Gets a checkpoint's blob from a cmsd. A file appears under its name only when all its bytes have
// come, matched their digests and are on the disk; whatever fails or is killed before leaves what was
// there before.
#include <cstdint>
#include <functional>
#include <string>

#include "base/digest.h"
#include "base/ids.h"
#include "base/result.h"
#include "cms/admin/client.h"

namespace cms::admin {

struct Got {
  CheckpointId checkpoint{};
  std::uint64_t size_bytes = 0;
  Digest blob_digest{};
};
using Progress = std::function<void(std::uint64_t received_bytes, std::uint64_t size_bytes)>;

// `path` "-": standard output, chunk by chunk as they are verified. kNotFound: nothing is stored of
// it; kCorrupt: it is damaged in the store; kProtocol: what came does not match its digests; kInvalidArgument: `path` is not a regular file;
// others of the client and by errno.
Result<Got> get(Client& client, const Key& key, const std::string& path, const Progress& progress);

}  // namespace cms::admin
