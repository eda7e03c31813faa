// Every fault at every call of a scenario.
#include <utility>

#include "test/support/rpc_fault_proxy.h"

namespace cms::test {
namespace {

struct WalkKind {
  const char* name;
  Way way;
  Fault::Action action;
};

WalkKind kind_of(WalkFault fault) {
  switch (fault) {
    case WalkFault::kRequestLost: return {"request lost", Way::kRequest, Fault::Action::kDrop};
    case WalkFault::kReplyLost: return {"reply lost", Way::kReply, Fault::Action::kDrop};
    case WalkFault::kRequestCut: return {"request cut", Way::kRequest, Fault::Action::kCut};
    case WalkFault::kReplyCut: return {"reply cut", Way::kReply, Fault::Action::kCut};
    case WalkFault::kRequestLate: return {"request late", Way::kRequest, Fault::Action::kLate};
    case WalkFault::kReplyLate: return {"reply late", Way::kReply, Fault::Action::kHold};
    case WalkFault::kRequestDoubled: return {"request doubled", Way::kRequest, Fault::Action::kDouble};
    case WalkFault::kReplyDoubled: return {"reply doubled", Way::kReply, Fault::Action::kDouble};
  }
  return {};
}

}  // namespace

WalkResult walk_faults(RpcFaultProxy& proxy, const std::function<void(const WalkStep&)>& scenario,
                       const std::vector<WalkFault>& faults, std::size_t late_calls_max) {
  WalkResult result;
  (void)proxy.pass_all();
  proxy.reset_counts();
  scenario({"no fault", {}, 0});
  result.calls = proxy.calls();
  const std::vector<Procedure> sequence = proxy.sequence();
  const auto run = [&](WalkFault walk_fault, std::size_t call_index, std::size_t after_calls) {
    const WalkKind kind = kind_of(walk_fault);
    const Fault fault{kind.action, 0, std::chrono::milliseconds(kind.action == Fault::Action::kHold ? 20 : 0),
                      after_calls};
    proxy.reset_counts();
    const std::size_t struck_before = proxy.struck();
    proxy.decide_by([&](const SeenRpc& seen) {
      return seen.call_index == call_index && seen.way == kind.way ? fault : Fault{};
    });
    const std::string after =
        kind.action == Fault::Action::kLate ? " after " + std::to_string(after_calls) : "";
    const std::string procedure = call_index < sequence.size() ? to_string(sequence[call_index]) : "?";
    scenario({kind.name + after + ", call " + std::to_string(call_index) + " (" + procedure + ")", walk_fault,
              call_index});
    (void)proxy.pass_all();
    ++result.runs;
    if (proxy.struck() == struck_before) ++result.not_struck;
  };
  for (std::size_t call_index = 0; call_index < result.calls; ++call_index) {
    for (const WalkFault fault : faults) {
      if (fault != WalkFault::kRequestLate) {
        run(fault, call_index, 0);
        continue;
      }
      for (std::size_t after_calls = 0; after_calls <= late_calls_max; ++after_calls) {
        const std::size_t late_before = proxy.late();
        run(fault, call_index, after_calls);
        if (proxy.late() == late_before) break;  // Its client made no such call any more.
      }
    }
  }
  return result;
}

}  // namespace cms::test
