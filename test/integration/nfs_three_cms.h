#pragma once
// Three cmsd on one NAS, with or without trouble on the way to it, and ECUs whose programs they carry on elsewhere.
#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "base/prng.h"
#include "test/integration/ecu_process.h"
#include "test/integration/nfs_fleet.h"

namespace cms::test {

inline constexpr const char* kLost = "02:00:00:00:00:01";

class ThreeCms {
 public:
  // `store_urls`: how each reaches the store.
  ThreeCms(const TempDir& dir, const std::array<std::string, 3>& store_urls,
           const std::array<std::string, 3>& crash_points = {}) {
    const std::vector<std::uint16_t> ports = free_port_bases(3);
    for (std::size_t i = 0; i < 3; ++i) {
      CmsdProcess::Options options;
      options.name = std::string(1, static_cast<char>('a' + i));
      options.store_url = store_urls[i];
      options.crash_point = crash_points[i];
      options.port_base = ports[i];
      for (std::size_t other = 0; other < 3; ++other) {
        if (other == i) continue;
        options.arguments.push_back("--peer");
        options.arguments.push_back("tcp://127.0.0.1:" + std::to_string(ports[other]));
      }
      cmsds_.push_back(std::make_unique<CmsdProcess>(dir, options));
    }
    for (const auto& cmsd : cmsds_) (void)wait_for_store_state(*cmsd, "ok");
  }
  CmsdProcess& operator[](std::size_t i) { return *cmsds_[i]; }
  std::string endpoints() const {
    return cmsds_[0]->endpoint() + "," + cmsds_[1]->endpoint() + "," + cmsds_[2]->endpoint();
  }
  std::string log() const {
    std::string log;
    for (const auto& cmsd : cmsds_) log += cmsd->name() + ":\n" + cmsd->log();
    return log;
  }

 private:
  std::vector<std::unique_ptr<CmsdProcess>> cmsds_;
};

// One that has programs, and two that can take them.
class Ecus {
 public:
  Ecus(const TempDir& dir, const std::string& endpoints, std::uint64_t program_count)
      : program_count_(program_count),
        lost_(dir, endpoints, kLost, with_programs(program_count)),
        first_(dir, endpoints, "02:00:00:00:00:11", as_target()),
        second_(dir, endpoints, "02:00:00:00:00:12", as_target()) {}
  // Its programs are stored and the targets are there. False: that did not come about.
  bool ready() {
    return lost_.wait_for_receipts("REPLICATED", program_count_) &&
           !first_.wait_for_event("ready").is_null() && !second_.wait_for_event("ready").is_null();
  }
  // The same, and then it is gone.
  bool lose() {
    const bool was_ready = ready();
    lost_.kill();
    return was_ready;
  }
  EcuProcess& lost() { return lost_; }
  EcuProcess& first() { return first_; }
  std::vector<const EcuProcess*> targets() const { return {&first_, &second_}; }

 private:
  static EcuProcess::Options with_programs(std::uint64_t count) {
    EcuProcess::Options options;
    options.program_count = count;
    return options;
  }
  static EcuProcess::Options as_target() {
    EcuProcess::Options options;
    options.is_target = true;
    return options;
  }

  const std::uint64_t program_count_;
  EcuProcess lost_;
  EcuProcess first_;
  EcuProcess second_;
};

// Of one in `one_of` of the calls that claims are made of, the request or the reply is lost, doubled, or comes when its
// caller has given it up.
inline RpcFaultProxy::Decide faults(std::uint64_t seed, std::uint64_t one_of = 40) {
  return [random = std::make_shared<Prng>(seed), one_of](const SeenRpc& rpc) {
    constexpr std::array kStruck{Procedure::kLink,  Procedure::kRemove, Procedure::kCreate, Procedure::kRead,
                                 Procedure::kWrite, Procedure::kCommit, Procedure::kLookup};
    Fault fault;
    if (std::find(kStruck.begin(), kStruck.end(), rpc.procedure) == kStruck.end()) return fault;
    constexpr std::array kActions{Fault::Action::kDrop, Fault::Action::kDouble, Fault::Action::kCutAfter};
    if (random->below(one_of) == 0) fault.action = kActions[random->below(kActions.size())];
    if (rpc.way == Way::kRequest && random->below(2 * one_of) == 0) {
      fault.action = Fault::Action::kLate;
      fault.after_calls = random->below(20);
    }
    if (rpc.way == Way::kReply && fault.action == Fault::Action::kCutAfter)
      fault.action = Fault::Action::kCut;
    return fault;
  };
}

}  // namespace cms::test
