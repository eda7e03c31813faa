#pragma once
// What can be cut in a small fleet, and when: two CMS, one ECU that loses its programs or has one moved, and others that take
// them. All single cuts and all pairs of them, at each step of a loss and of a planned move, in each order of healing: one
// case for each number from 1 to kLinksCaseCount (../sim/README.md).
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/time.h"

namespace cms::sim {

// One way of a link. The source is the ECU of the loss or move, the target the first that could take its programs.
enum class Way : std::uint8_t {
  kSourceToA,
  kAToSource,
  kSourceToB,
  kBToSource,
  kTargetToA,
  kAToTarget,
  kTargetToB,
  kBToTarget,
  kAToNas,  // What it asks for is not done.
  kNasToA,  // It is done, and there is no answer.
  kBToNas,
  kNasToB,
};
inline constexpr std::size_t kWayCount = 12;

enum class Occasion : std::uint8_t {
  kNone,     // Only the cuts.
  kDies,     // The source does, and stays away until all heals.
  kReboots,  // It is back within 3 s.
  kMove,     // A is to move its first program to the target.
};

// What has come about for the first time since the occasion.
enum class Step : std::uint8_t {
  kBegun,
  kBarred,  // A member's record has a bar.
  kLost,
  kHello,  // The session after the boot stands in the ECU's log.
  kClaimed,
  kFrozen,
  kActing,
  kGone,  // Go was sent.
  kDone,
};
inline constexpr std::size_t kStepCount = 9;

inline constexpr Duration kShortCut = std::chrono::seconds(4);  // Nothing is LOST for it.
inline constexpr Duration kLongCut = std::chrono::seconds(20);

struct Cut {
  Way way{};
  Duration lasts{};
};

struct LinksCase {
  Occasion occasion{};
  Step step{};
  std::vector<Cut> cuts{};  // One or two, that begin with the step.
};

struct OccasionStep {
  Occasion occasion;
  Step step;
};
inline constexpr std::array<OccasionStep, 18> kOccasionSteps{{
    {Occasion::kNone, Step::kBegun},
    {Occasion::kDies, Step::kBegun},
    {Occasion::kDies, Step::kBarred},
    {Occasion::kDies, Step::kLost},
    {Occasion::kDies, Step::kClaimed},
    {Occasion::kDies, Step::kActing},
    {Occasion::kDies, Step::kGone},
    {Occasion::kDies, Step::kDone},
    {Occasion::kReboots, Step::kBegun},
    {Occasion::kReboots, Step::kHello},
    {Occasion::kReboots, Step::kClaimed},
    {Occasion::kReboots, Step::kGone},
    {Occasion::kMove, Step::kBegun},
    {Occasion::kMove, Step::kClaimed},
    {Occasion::kMove, Step::kFrozen},
    {Occasion::kMove, Step::kActing},
    {Occasion::kMove, Step::kGone},
    {Occasion::kMove, Step::kDone},
}};

// A cut is short or long. One alone: each; two: each of both.
inline constexpr std::uint64_t kCutsCount = kWayCount * 2 + kWayCount * (kWayCount - 1) / 2 * 4;
inline constexpr std::uint64_t kLinksCaseCount = kOccasionSteps.size() * kCutsCount;

// `number`: 1 to kLinksCaseCount.
LinksCase links_case(std::uint64_t number);
std::string describe(const LinksCase& links);  // "source dies, LOST: target -> a for 20 s"
std::string to_string(const OccasionStep& at);

}  // namespace cms::sim
