// RestoreTarget: every order of a handful of commands against rules written down apart from it.
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/sanitized.h"
#include "broker/core/restore_target_driver_test.h"

namespace cms::broker {
namespace {

using wire::RestoreState;

enum Step {
  kPrepareA,
  kGoA,
  kDiscardA,
  kPrepareB,
  kGoB,
  kDiscardB,
  kBlobComes,
  kTransferFails,
  kPreparedOk,
  kPreparedFailed,
  kRunsOk,
  kRunsFailed,
  kStepCount
};
const char* const kStepNames[] = {"PrepareA", "GoA",     "DiscardA", "PrepareB",     "GoB",  "DiscardB",
                                  "blob",     "no blob", "prepared", "not prepared", "runs", "runs not"};

// What is known of the two claims of one lineage from the outside alone: what was said to the target, what
// it did, what it said. A is in slot 2, B in slot 5.
class Oracle {
 public:
  // Carries the step out; false: nothing waits for it. Sets `problem` when a rule was broken.
  bool step(Target& target, Step step) {
    std::optional<int> command_of;
    switch (step) {
      case kPrepareA:
      case kPrepareB:
        command_of = step == kPrepareA ? 0 : 1;
        target.prepare(prepare_of(ref(*command_of)));
        break;
      case kGoA:
      case kGoB:
        command_of = step == kGoA ? 0 : 1;
        target.go(go_of(ref(*command_of)));
        break;
      case kDiscardA:
      case kDiscardB:
        command_of = step == kDiscardA ? 0 : 1;
        target.discard(ref(*command_of));
        break;
      case kBlobComes:
      case kTransferFails:
        if (pulling_.empty()) return false;
        if (step == kBlobComes) {
          target.blob(*pulling_.begin());
        } else {
          target.bulk(wire::TransferError{*pulling_.begin(), Code::kNotFound, "gone"});
        }
        break;
      case kPreparedOk:
      case kPreparedFailed: {
        if (preparing_.empty()) return false;
        const RestoreId id = *preparing_.begin();
        preparing_.erase(id);
        if (step == kPreparedOk) prepared_.insert(id);
        target.prepared(id, step == kPreparedOk ? ok_status() : make_error(Code::kUnsupported, "no"));
        break;
      }
      case kRunsOk:
      case kRunsFailed: {
        if (going_.empty()) return false;
        const RestoreId id = *going_.begin();
        going_.erase(id);
        claims_[claim_of_.at(id)].runs = step == kRunsOk;
        claims_[claim_of_.at(id)].failed = step == kRunsFailed;
        if (step == kRunsOk) {
          target.running(id, ProgramId{40});
        } else {
          target.running(id, make_error(Code::kNoSpace, "no"));
        }
        break;
      }
      case kStepCount: return false;
    }
    if (step == kDiscardA || step == kDiscardB) discarding_ = *command_of;
    judge(target, step, command_of);
    discarding_ = -1;
    if (problem.empty() && command_of) repeat(target, step);
    return true;
  }

  std::string problem{};

 private:
  struct Claim {
    bool commanded = false;
    bool discarded = false;  // By a command that came before it was told to run.
    bool refused = false;    // So it was said.
    int go_count = 0;
    bool runs = false;
    bool failed = false;
  };
  static wire::ClaimRef ref(int index) { return claim_of(index == 0 ? 2 : 5); }

  void judge(Target& target, Step step, std::optional<int> command_of) {
    for (const RestoreEffect& effect : target.effects) {
      if (const auto* receive = std::get_if<ReceiveBlob>(&effect)) {
        claim_of_[receive->id] = receive->info.claim.slot == 2 ? 0 : 1;
        pulling_.insert(receive->id);
      } else if (const auto* prepare = std::get_if<PrepareProgram>(&effect)) {
        if (pulling_.erase(prepare->id) == 0 || step != kBlobComes) complain("prepares what is not whole");
        preparing_.insert(prepare->id);
      } else if (const auto* run = std::get_if<RunProgram>(&effect)) {
        const int index = claim_of_.at(run->id);
        Claim& claim = claims_[index];
        if (prepared_.count(run->id) == 0) complain("runs what is not prepared");
        if (command_of != index || (step != kGoA && step != kGoB)) complain("runs without its Go");
        if (++claim.go_count > 1) complain("runs a claim twice");
        if (claim.refused || claim.discarded) complain("runs what it refused or was to discard");
        if (index == 0 && claims_[1].commanded) complain("obeys a claim after a newer one");
        if (index == 1 && claims_[0].runs) complain("runs a lineage twice");
        if (run->owner_epoch != ref(index).slot + 2) complain("the epoch is not the slot after ACT");
        going_.insert(run->id);
      } else if (const auto* dropped = std::get_if<DiscardRestore>(&effect)) {
        if (claims_[claim_of_.at(dropped->id)].go_count > 0) complain("discards what it was told to run");
        if (preparing_.count(dropped->id) != 0) complain("discards what the RTCR works on");
        pulling_.erase(dropped->id);
        prepared_.erase(dropped->id);
      } else if (std::holds_alternative<FenceProgram>(effect)) {
        complain("fences the newest owner that it knows");
      }
    }
    if (command_of) claims_[*command_of].commanded = true;
    if (discarding_ >= 0 && claims_[discarding_].go_count == 0) claims_[discarding_].discarded = true;
    int answer_count = 0;
    for (const wire::RestoreReport& report : target.reports()) {
      const int index = report.claim.slot == 2 ? 0 : 1;
      Claim& claim = claims_[index];
      if (command_of == index) {
        ++answer_count;
        const bool is_go = step == kGoA || step == kGoB;
        if (report.act_uid != (is_go ? ref(index).uid + 1 : 0) &&
            !(claim.go_count > 0 && report.act_uid == 0 && !is_go))
          complain("the answer does not echo its ACT");
      }
      const bool says_no = report.state == RestoreState::kRefused || report.state == RestoreState::kDiscarded;
      if (says_no && claim.go_count > 0 && !claim.failed) complain("denies what runs or may run");
      if (!says_no && claim.refused) complain("takes a refusal back");
      if (claim.failed && !says_no) complain("hides that it does not run");
      if ((report.state == RestoreState::kRunning) != claim.runs) complain("says wrongly whether it runs");
      if (report.state == RestoreState::kRunning && report.program_id != 40) complain("another program_id");
      claim.refused = claim.refused || says_no;
    }
    if (command_of && answer_count != 1)
      complain("answers a command " + std::to_string(answer_count) + " times");
    for (int i = 0; i < 2; ++i) {
      if (claims_[i].discarded && !claims_[i].refused) complain("Discard was not heard");
    }
    if (claims_[1].commanded && claims_[0].go_count == 0 && claims_[0].commanded && !claims_[0].refused)
      complain("an older claim lives on beside a newer one");
  }

  // The same command again changes nothing and is answered alike.
  void repeat(Target& target, Step step) {
    const auto before = target.reports().back();
    if (step == kPrepareA || step == kPrepareB) {
      target.prepare(prepare_of(before.claim));
    } else if (step == kGoA || step == kGoB) {
      target.go(go_of(before.claim));
    } else {
      target.discard(before.claim);
    }
    if (target.effects.size() != 1 || target.reports().size() != 1)
      return complain("a repeat does something");
    const auto after = target.reports().front();
    const bool alike = after.state == before.state && after.act_uid == before.act_uid &&
                       after.program_id == before.program_id;
    // A refusal may be for another reason by now; it stays one.
    const auto says_no = [](RestoreState state) {
      return state == RestoreState::kRefused || state == RestoreState::kDiscarded;
    };
    if (!alike && !(says_no(after.state) && says_no(before.state)))
      complain("a repeat is answered otherwise");
  }

  void complain(const std::string& text) {
    if (problem.empty()) problem = text;
  }

  Claim claims_[2];
  std::map<RestoreId, int> claim_of_{};
  std::set<RestoreId> pulling_{}, preparing_{}, prepared_{}, going_{};
  int discarding_ = -1;
};

TEST(RestoreTargetTest, EveryOrderOfCommandsAndAnswersForTwoClaimsKeepsTheRules) {
  constexpr std::size_t kDepth = CMS_SANITIZED != 0 ? 6 : 7;  // Each more takes ten times as long.
  std::vector<int> path;
  std::size_t order_count = 0;
  std::size_t ran_count = 0;
  // All paths, each replayed from the beginning; a path that breaks off is not gone deeper into.
  path.push_back(0);
  while (!path.empty()) {
    if (path.back() == kStepCount) {
      path.pop_back();
      if (!path.empty()) ++path.back();
      continue;
    }
    Target target;
    Oracle oracle;
    bool carried_out = true;
    for (const int step : path) carried_out = oracle.step(target, static_cast<Step>(step));
    if (!oracle.problem.empty()) {
      std::string steps;
      for (const int step : path) steps += std::string(kStepNames[step]) + ", ";
      FAIL() << steps << "\n" << oracle.problem;
    }
    if (carried_out && path.size() < kDepth) {
      path.push_back(0);
      continue;
    }
    if (carried_out) {
      ++order_count;
      if (path.back() == kRunsOk) ++ran_count;
    }
    ++path.back();
  }
  EXPECT_GT(order_count, CMS_SANITIZED != 0 ? 30000U : 300000U);
  EXPECT_GT(ran_count, CMS_SANITIZED != 0 ? 20U : 100U)
      << "the orders never came as far as a program that runs";
}

}  // namespace
}  // namespace cms::broker
