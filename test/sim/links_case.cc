#include "test/sim/links_case.h"

#include <utility>

#include "base/assert.h"

namespace cms::sim {
namespace {

constexpr std::array<Duration, 2> kLasts = {kShortCut, kLongCut};

const char* name_of(Way way) {
  switch (way) {
    case Way::kSourceToA: return "source -> a";
    case Way::kAToSource: return "a -> source";
    case Way::kSourceToB: return "source -> b";
    case Way::kBToSource: return "b -> source";
    case Way::kTargetToA: return "target -> a";
    case Way::kAToTarget: return "a -> target";
    case Way::kTargetToB: return "target -> b";
    case Way::kBToTarget: return "b -> target";
    case Way::kAToNas: return "a -> NAS";
    case Way::kNasToA: return "NAS -> a";
    case Way::kBToNas: return "b -> NAS";
    case Way::kNasToB: return "NAS -> b";
  }
  return "?";
}

const char* name_of(Occasion occasion) {
  switch (occasion) {
    case Occasion::kNone: return "nothing else";
    case Occasion::kDies: return "the source dies";
    case Occasion::kReboots: return "the source boots anew";
    case Occasion::kMove: return "a planned move";
  }
  return "?";
}

const char* name_of(Step step) {
  switch (step) {
    case Step::kBegun: return "at once";
    case Step::kBarred: return "barred";
    case Step::kLost: return "LOST";
    case Step::kHello: return "HELLO";
    case Step::kClaimed: return "CLAIM";
    case Step::kFrozen: return "frozen";
    case Step::kActing: return "ACT";
    case Step::kGone: return "Go";
    case Step::kDone: return "DONE";
  }
  return "?";
}

}  // namespace

LinksCase links_case(std::uint64_t number) {
  CMS_ASSERT(number >= 1 && number <= kLinksCaseCount);
  const OccasionStep& at = kOccasionSteps[(number - 1) / kCutsCount];
  LinksCase links{at.occasion, at.step, {}};
  std::uint64_t rest = (number - 1) % kCutsCount;
  if (rest < kWayCount * 2) {
    links.cuts.push_back(Cut{static_cast<Way>(rest / 2), kLasts[rest % 2]});
    return links;
  }
  rest -= kWayCount * 2;
  std::uint64_t pair = rest / 4;
  std::uint64_t first = 0;
  for (; pair >= kWayCount - 1 - first; ++first) pair -= kWayCount - 1 - first;
  links.cuts.push_back(Cut{static_cast<Way>(first), kLasts[rest % 2]});
  links.cuts.push_back(Cut{static_cast<Way>(first + 1 + pair), kLasts[rest / 2 % 2]});
  return links;
}

std::string to_string(const OccasionStep& at) {
  return std::string(name_of(at.occasion)) + ", " + name_of(at.step);
}

std::string describe(const LinksCase& links) {
  std::string text = to_string(OccasionStep{links.occasion, links.step}) + ":";
  const char* separator = " ";
  for (const Cut& cut : links.cuts) {
    text += separator + std::string(name_of(cut.way)) + " for " +
            std::to_string(std::chrono::duration_cast<std::chrono::seconds>(cut.lasts).count()) + " s";
    separator = ", ";
  }
  return text;
}

}  // namespace cms::sim
