#pragma once
// Gets a checkpoint back from whichever CMS of a list gives it: asks one after the other, goes on
// where it was when one dies in the middle, checks every chunk and the whole.
//
// Threads: blocks the caller; any number at once, each with sockets of its own.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "base/digest.h"
#include "base/ids.h"
#include "base/result.h"
#include "net/endpoint.h"

namespace cms::client {

struct FetchRequest {
  ProgramKey program{};
  std::optional<Version> version{};  // Not given: the newest STORED one.
  // Without an answer or a chunk for so long it is given up; negative: never.
  std::chrono::milliseconds patience{5000};
  int cancel_fd = -1;  // Readable: give up with kCancelled. -1: none.
};

// Verified bytes, in order and each once.
struct FetchedBytes {
  CheckpointId checkpoint{};
  std::uint64_t blob_size_bytes = 0;
  std::uint64_t offset_bytes = 0;
  const void* data = nullptr;
  std::size_t size_bytes = 0;
};
using FetchSink = std::function<Status(const FetchedBytes&)>;  // An error ends the fetch with it.

struct FetchedBlob {
  CheckpointId checkpoint{};
  std::uint64_t size_bytes = 0;
  Digest digest{};
  std::size_t cms_index = 0;
};

// kNotFound: none, says every CMS that answers. kUnavailable: none answers. kTimeout: they answer and
// cannot give it now. kCorrupt: damaged again and again. kCancelled, and what the sink says.
// What the sink has got by then is worth nothing.
Result<FetchedBlob> fetch_checkpoint(const std::vector<net::Endpoint>& cms, const FetchRequest& request,
                                     const FetchSink& sink);

}  // namespace cms::client
