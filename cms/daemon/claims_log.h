#pragma once
// ClaimsLog logs what is known of the store's fitness for claims, once for each change.
//
// Threads: loop only.
#include <string>

#include "cms/daemon/claims_facts.h"

namespace cms::daemon {

class ClaimsLog {
 public:
  void note(const ClaimsFacts& facts);

 private:
  std::string said_;
  bool clock_is_wrong_ = false;
};

}  // namespace cms::daemon
