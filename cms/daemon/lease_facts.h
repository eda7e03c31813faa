#pragma once
// What is told of guarded ECUs and their run leases: copied by the loop, shown by admin_answers.cc.
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "schemas/ecu_record.h"

namespace cms::daemon {

struct LeaseFacts {
  struct Ecu {
    wire::EcuRecord head{};
    std::optional<Duration> heartbeat_ago{};  // Absent: its session was never heard here.
    bool leased = false;                      // By this cmsd.
    bool barred = false;                      // As above.
    Duration barred_for{};                    // So long the others can read that.
    std::optional<bool>
        maintenance_asked{};  // What an operator has said to this cmsd, and its log does not say yet.
    std::vector<std::string> kept_by{};  // Barred: the cmsd that keep it from being LOST.
    Duration shunned_for{};              // So long nothing is placed there.
    std::size_t waiting = 0;             // Programs of it that wait for an operator.
  };
  std::map<EcuMac, Ecu> ecus;
  // Without an effect on leases the store may be away for so long from now; absent: no renewal was ever good.
  std::optional<Duration> outage_left{};
  bool stopped_by_outage = false;  // It has been away for longer: the fleet's `stop` programs stand still.
};

}  // namespace cms::daemon
