#pragma once
// What stands on a page of an answer to `ecus` or `checkpoints`: merges what the index has with what
// the core is busy with, in order of ecu_mac and program, and says where the next page begins.
//
// Threads: pure functions; they block on the index.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "cms/daemon/admin_answers.h"

namespace cms::daemon {

inline constexpr std::size_t kPageBytes = 1024 * 1024;  // A page is full when it has so many.
inline constexpr std::size_t kPageLooksMax = 200000;    // Rows looked at for one page.

struct EcuEntry {
  EcuMac ecu_mac{};
  const CoreSnapshot::Session* sessions = nullptr;
  std::size_t session_count = 0;
  std::uint64_t checkpoint_count = 0;
  std::uint64_t size_bytes = 0;
  std::uint64_t stored_bytes = 0;
  std::uint64_t newest_at_us = 0;
};

// Where entries go.
class ListPage {
 public:
  virtual ~ListPage() = default;
  virtual void add(const EcuEntry& ecu) = 0;
  // A stored checkpoint; `state` is current, stored or withdrawn.
  virtual void add(const storage::IndexRow& row, const char* state) = 0;
  // One that is not (yet) stored.
  virtual void add(const CoreSnapshot::Item& item) = 0;
  virtual std::size_t size_bytes() const = 0;
};

bool is_withdrawn(const Version& version, const std::optional<Version>& withdrawn);

// Return AdminAnswer::next, empty when this was the last page. kInvalidArgument: continue_after is not
// such a text; other errors are the index's.
Result<std::string> list_ecus(const wire::AdminRequest& request, const CoreSnapshot& snapshot,
                              storage::CheckpointIndex& index, ListPage& page);
Result<std::string> list_checkpoints(const wire::AdminRequest& request, const CoreSnapshot& snapshot,
                                     storage::CheckpointIndex& index, ListPage& page);

}  // namespace cms::daemon
