#pragma once
// What is told of the members' records: copied by the loop, shown by admin_answers.cc.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/time.h"

namespace cms::daemon {

struct MembersFacts {
  struct Member {
    std::string node;
    std::uint64_t incarnation = 0;
    enum class State { kRenewed, kResigned, kStale } state = State::kRenewed;
    Duration unchanged{};
    bool readable = true;
    std::string software;
  };
  std::uint64_t incarnation = 0;        // Ours.
  std::optional<Duration> written_ago;  // Our last good renewal, from its sending; absent: none yet.
  bool may_act = false;
  std::string trouble;          // Of the last round; empty: none.
  std::vector<Member> members;  // The others, of which there is a file.
};

}  // namespace cms::daemon
