#pragma once
// FairQueue hands out programs to pull, one of each ECU in turn, in the order in which they came
// within an ECU. A program is in it at most once.
#include <cstddef>
#include <deque>
#include <map>
#include <set>

#include "base/ids.h"

namespace cms::core {

class FairQueue {
 public:
  // No effect when it is queued already.
  void push(const ProgramKey& program) {
    if (!queued_.insert(program).second) return;
    std::deque<ProgramKey>& of_ecu = waiting_[program.ecu_mac];
    if (of_ecu.empty()) turns_.push_back(program.ecu_mac);
    of_ecu.push_back(program);
  }

  bool empty() const { return queued_.empty(); }
  std::size_t size() const { return queued_.size(); }

  // The next in turn. The queue must not be empty.
  const ProgramKey& front() const { return waiting_.find(turns_.front())->second.front(); }

  void pop() {
    const EcuMac ecu_mac = turns_.front();
    turns_.pop_front();
    const auto it = waiting_.find(ecu_mac);
    queued_.erase(it->second.front());
    it->second.pop_front();
    if (it->second.empty()) {
      waiting_.erase(it);
    } else {
      turns_.push_back(ecu_mac);
    }
  }

 private:
  std::map<EcuMac, std::deque<ProgramKey>> waiting_;
  std::deque<EcuMac> turns_;  // ECUs with something waiting, each once.
  std::set<ProgramKey> queued_;
};

}  // namespace cms::core
